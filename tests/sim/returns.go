package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

// RunReturns makes the run of a seed in which processes come back within their lease,
// again and again, while everything that they held is given to others, moved to other
// groups, taken off the host or let go of by plan.
func RunReturns(seed uint64, story bool) *Chaos {
	return runFaults(returnsEnv(seed), seed, story, (*Chaos).oneReturn)
}

// returnsEnv has leases that a restart fits into, and documents from the beginning.
func returnsEnv(seed uint64) Env {
	r := rand.New(rand.NewPCG(seed, 5))
	e := chaosEnv(seed)
	if e.Lifetime || e.Hosts < 2 {
		e = chaosEnv(seed + 1<<40)
		e.Lifetime = false
	}
	if e.Weights.Document == 0 {
		e.Weights.Document = 2
	}
	if r.IntN(2) == 0 {
		e.Lag, e.Net.Loss, e.Net.Late = 0, 0, 0 // most is kept on a good network
	}
	e.Document = returnsDocument(e.Document.MaxHold, r.IntN(returnsDocuments))
	return e
}

const returnsDocuments = 9

// returnsDocument is one of more documents, of groups with adverts and without: addresses
// change places, join one group, leave it, and stand under other names.
func returnsDocument(maxHold time.Duration, kind int) fsm.Document {
	doc := fsm.Document{MaxHold: maxHold}
	switch kind {
	case 0:
		doc.Groups = []fsm.Group{group("web", 51, 0), group("db", 52, 1), group("mail", 53, 3)}
	case 1:
		doc.Groups = []fsm.Group{group("web", 51, 1), group("db", 52, 3), group("mail", 53, 0)}
	case 2:
		doc.Groups = []fsm.Group{group("web", 51, 0, 1, 3)}
	case 3:
		doc.Groups = []fsm.Group{group("web", 51, 0, 1), group("db", 52, 3)}
	case 4:
		doc.Groups = []fsm.Group{group("web", 51, 0), group("db", 52, 1, 3)}
	case 5:
		doc.Groups = []fsm.Group{group("old", 54, 0, 1), group("new", 55, 2, 3)}
	case 6:
		doc.Groups = []fsm.Group{group("new", 55, 0, 1), group("old", 54, 3)}
	case 7: // nothing of the rest
		doc.Groups = []fsm.Group{group("mail", 53, 2)}
	default:
		doc.Groups = []fsm.Group{group("web", 51, 1), group("db", 52, 0)}
	}
	if kind%2 == 1 {
		for i := range doc.Groups {
			doc.Groups[i].VRRP = fsm.VRRP{}
		}
	}
	return doc
}

// oneReturn does one thing at random, mostly to a host that holds something.
func (x *Chaos) oneReturn() {
	h := x.hosts[x.rng.IntN(len(x.hosts))]
	if o, _ := x.anyOwner(); o != nil && x.chance(0.7) {
		h = o
	}
	kinds := []struct {
		name string
		do   func(h *host)
	}{
		{"back", x.backSoon},
		{"back to another document", x.backToAnother},
		{"back, and others have it", x.backAndTaken},
		{"all back", func(*host) { x.allBack() }},
		{"back twice", x.backTwice},
		{"back, and to let go", x.backAndOut},
		{"back after a release by hand", x.backReleased},
		{"addresses flushed", x.flush},
		{"parting", x.catchParting},
		{"fence refuses", func(*host) { x.refuseFence() }},
	}
	if i := x.rng.IntN(len(kinds) + 6); i < len(kinds) {
		x.tell("RETURN %s, n%d", kinds[i].name, h.i+1)
		kinds[i].do(h)
		return
	}
	x.fault()
}

// backSoon ends the process and has it back in time to keep what it holds.
func (x *Chaos) backSoon(h *host) {
	if x.chance(0.3) {
		h.lease = x.env.Leases[x.rng.IntN(len(x.env.Leases))]
	}
	h.restart(x.jitter(time.Millisecond, x.lease/10))
}

// backToAnother: the document changes, once or several times, until the process is back or
// has swept.
func (x *Chaos) backToAnother(h *host) {
	x.backSoon(h)
	for range 1 + x.rng.IntN(3) {
		x.meanwhile(x.jitter(0, x.lease/3), x.replace)
	}
	if x.chance(0.5) {
		x.meanwhile(x.jitter(0, x.lease/2), func() { x.scatter(h) })
	}
	if x.chance(0.3) {
		x.meanwhile(x.jitter(0, x.lease/2), func() { x.cut(h.i) })
	}
}

func (x *Chaos) replace() {
	l := x.leader()
	if l == nil || !x.state(l).Formed() {
		return
	}
	st := x.state(l)
	doc := returnsDocument(st.Document.MaxHold, x.rng.IntN(returnsDocuments))
	_, _ = x.append(l.i, fsm.Command{Replace: &fsm.Replace{Seen: st.Document.Revision, Document: doc}}) // it leads, or another will
}

// scatter gives what a host has to others, or to it what others have.
func (x *Chaos) scatter(h *host) {
	l := x.leader()
	if l == nil {
		return
	}
	for _, g := range x.state(l).Document.Groups {
		if x.chance(0.6) {
			to := x.hosts[x.rng.IntN(len(x.hosts))]
			if x.chance(0.3) {
				to = h
			}
			x.move(g.Name, to)
		}
	}
}

// backAndTaken: it is back, and does not hear that others are named, or hears it late.
func (x *Chaos) backAndTaken(h *host) {
	x.backSoon(h)
	if x.chance(0.4) {
		x.crawl(x.jitter(x.lease/2, 2*x.lease))
	}
	x.meanwhile(x.jitter(0, x.lease/2), func() { x.scatter(h) })
	x.meanwhile(x.jitter(0, x.lease/2), func() {
		switch x.rng.IntN(3) {
		case 0:
			x.cut(h.i)
		case 1:
			x.blockSome(h)
		}
	})
}

func (x *Chaos) allBack() {
	for _, h := range x.hosts {
		if x.chance(0.9) {
			x.backSoon(h)
		}
	}
	if x.chance(0.5) {
		x.meanwhile(x.jitter(0, 2*x.lease), x.replace)
	}
}

func (x *Chaos) backTwice(h *host) {
	x.backSoon(h)
	for at := time.Duration(0); at < x.lease && x.chance(0.7); {
		at += x.jitter(time.Millisecond, x.lease/4)
		x.meanwhile(at, func() { x.backSoon(h) })
	}
	if x.chance(0.5) {
		x.meanwhile(x.jitter(0, x.lease), x.replace)
	}
	if x.chance(0.5) {
		x.meanwhile(x.jitter(0, x.lease), func() { x.scatter(h) })
	}
}

// backAndOut: as soon as it is back something has it let go.
func (x *Chaos) backAndOut(h *host) {
	x.backSoon(h)
	x.meanwhile(x.jitter(0, x.lease/2), func() {
		switch x.rng.IntN(6) {
		case 0:
			h.releaseByHand()
		case 1:
			x.stop(h)
		case 2:
			x.flap(h, x.jitter(time.Millisecond, x.lease))
		case 3:
			if x.env.Weights.Slew > 0 {
				x.slewAWhile(h)
			}
		case 4:
			x.bare(h)
		default:
			h.freeze()
			x.after(x.jitter(time.Millisecond, x.lease), h.thaw)
		}
	})
	if x.chance(0.3) {
		x.meanwhile(x.jitter(0, x.lease), func() { x.cut(h.i) })
	}
}

// backReleased: `quorate release` clears the fence of a daemon that is dead.
func (x *Chaos) backReleased(h *host) {
	h.kill()
	x.after(x.jitter(0, x.lease/20), func() {
		if !h.alive {
			h.releaseByHand()
		}
		x.after(x.jitter(0, x.lease/20), h.start)
	})
}

// flush takes every address off, several times.
func (x *Chaos) flush(h *host) {
	for range 1 + x.rng.IntN(4) {
		x.after(x.jitter(0, x.lease/4), func() {
			for a := range Addresses {
				h.removed(a)
			}
		})
	}
	if x.chance(0.5) {
		x.meanwhile(x.jitter(0, x.lease/4), func() { x.scatter(h) })
	}
	if x.chance(0.3) {
		x.meanwhile(x.jitter(0, x.lease/4), x.replace)
	}
}

// catchParting has something happen in the few milliseconds of a parting.
func (x *Chaos) catchParting(h *host) {
	if !h.up() {
		return
	}
	h.trap = &trap{point: beforeReset, do: func() {
		switch x.rng.IntN(4) {
		case 0:
			x.killAWhile(h)
		case 1:
			x.backSoon(h)
		case 2:
			x.freezeAWhile(h)
		default:
			x.after(x.jitter(0, 5*time.Millisecond), func() { x.scatter(h) })
			x.after(x.jitter(0, 5*time.Millisecond), x.replace)
		}
	}}
	if l := x.leader(); l != nil {
		for _, g := range x.state(l).Document.Groups {
			x.move(g.Name, x.hosts[x.rng.IntN(len(x.hosts))])
		}
	}
	if x.chance(0.5) {
		x.meanwhile(x.jitter(0, 20*time.Millisecond), func() { x.scatter(h) })
	}
	if x.chance(0.3) {
		h.post(core.ReleaseAsked{})
	}
}

// refuseFence has kernels take few entries for a while, in whatever batch they come.
func (x *Chaos) refuseFence() {
	if x.env.Weights.Slew > 0 {
		return // who cannot shut depends on the clock alone
	}
	was := x.env.FenceFails
	x.env.FenceFails = x.oneOf(0.2, 0.5)
	x.meanwhile(x.jitter(time.Millisecond, x.lease/2), func() { x.env.FenceFails = min(was, 0.05) })
	if l := x.leader(); l != nil && x.chance(0.7) {
		x.scatter(l)
	}
	if x.chance(0.5) {
		for _, h := range slices.Clone(x.hosts) {
			if x.chance(0.3) {
				x.backSoon(h)
			}
		}
	}
}
