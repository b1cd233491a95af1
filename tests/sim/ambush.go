package sim

import (
	"time"

	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/tests/sim/raftmodel"
)

// An ambush does what single faults at random hardly ever do together: the group is
// moved away from an owner that does not hear of it, while one of the few things
// happens that only a rule of the lease keeps from making two owners.
type ambush struct {
	*Chaos
	owner *host // of the group
	to    *host // who is to have it, and leads
	third *host // a voter of both, if there is one
	group string
}

// layAmbush finds its people, makes one of them the leader, and springs when that one
// can name an owner.
func (x *Chaos) layAmbush(*host) {
	a := ambush{Chaos: x}
	a.owner, a.group = x.anyOwner()
	if a.owner == nil || len(x.hosts) < 3 {
		return
	}
	x.mend()
	a.to = x.hosts[(a.owner.i+1+x.rng.IntN(len(x.hosts)-1))%len(x.hosts)]
	a.third = x.hosts[(a.to.i+1)%len(x.hosts)]
	if a.third == a.owner {
		a.third = x.hosts[(a.owner.i+1)%len(x.hosts)]
	}
	if !a.owner.alive || !a.to.up() || a.third == a.to || !x.raft.Leads(a.to.i) && !x.campaign(a.to.i, raftmodel.Forced) {
		return
	}
	kinds := []struct {
		name string
		do   func()
	}{
		{"a voter forgets", a.voterForgets},
		{"the owner flaps", a.ownerFlaps},
		{"the owner restarts", a.ownerRestarts},
		{"the owner is back at once", a.ownerIsBack},
		{"the owner stands still", a.ownerStandsStill},
		{"there and back again", a.thereAndBack},
		{"everything crawls", a.everythingCrawls},
	}
	if x.env.Weights.Slew > 0 {
		kinds = append(kinds[:0], kinds[0], struct {
			name string
			do   func()
		}{"the owner's clock is slow", a.ownerSlow}, struct {
			name string
			do   func()
		}{"the others' clocks are fast", a.othersFast})
	}
	kind := kinds[x.rng.IntN(len(kinds))]
	x.tell("AMBUSH of n%d by n%d: %s", a.owner.i+1, a.to.i+1, kind.name)
	if x.chance(0.3) {
		x.crawl(x.jitter(x.lease/2, 2*x.lease))
	}
	// The new leader has to commit the first entry of its term before it can name anybody.
	x.meanwhile(x.jitter(15*time.Millisecond, 40*time.Millisecond), func() {
		if a.to.up() && a.owner.alive {
			kind.do()
		}
	})
}

// anyOwner is a host that holds an address, and the group of that.
func (x *Chaos) anyOwner() (*host, string) {
	l := x.leader()
	if l == nil {
		return nil, ""
	}
	groups := x.state(l).Document.Groups
	if len(groups) == 0 {
		return nil, ""
	}
	g := groups[x.rng.IntN(len(groups))]
	return x.Holder(x.address(g.Addresses[0].Addr())), g.Name
}

// crawl has datagrams come late for a while.
func (x *Chaos) crawl(d time.Duration) {
	x.net.env.Late, x.net.env.Latest = x.oneOf(0.3, 0.8), x.lease
	x.meanwhile(d, func() { x.net.env = x.env.Net })
}

func (a ambush) take() { a.move(a.group, a.to) }

// soon does something within a small part of the lease.
func (a ambush) soon(do func()) { a.meanwhile(a.jitter(0, a.lease/6), do) }

// voterForgets: voters restart within the lease of an owner that is cut off.
func (a ambush) voterForgets() {
	a.cut(a.owner.i)
	a.soon(func() {
		for _, h := range a.hosts {
			if h == a.third || h != a.owner && h != a.to && a.chance(0.3) {
				if a.chance(0.3) {
					h.reboot()
				}
				h.lease = a.env.Leases[a.rng.IntN(len(a.env.Leases))]
				h.restart(a.jitter(time.Millisecond, 10*time.Millisecond))
			}
		}
	})
	if a.chance(0.5) {
		a.take()
	} else {
		a.soon(a.take)
	}
}

// ownerFlaps: the owner lets go, says so, is cut off, and is ready again, while answers
// to what it asked before are still on their way.
func (a ambush) ownerFlaps() {
	a.crawl(a.lease)
	a.meanwhile(a.jitter(a.lease/3, a.lease/2), func() {
		down := a.jitter(8*time.Millisecond, 25*time.Millisecond)
		a.flap(a.owner, down)
		a.meanwhile(a.jitter(5*time.Millisecond, down), a.cutOwner)
		a.meanwhile(a.jitter(0, down), a.take)
	})
}

// cutOwner cuts the owner off, or only the new one from it.
func (a ambush) cutOwner() {
	if a.chance(0.5) {
		a.apart(a.owner.i, a.to.i)
	} else {
		a.cut(a.owner.i)
	}
}

// ownerRestarts: the same by a restart of its process, in bad order or in good.
func (a ambush) ownerRestarts() {
	a.crawl(a.lease)
	a.meanwhile(a.jitter(a.lease/3, a.lease/2), func() {
		switch {
		case a.chance(0.3):
			a.owner.post(core.Stop{})
			a.owner.stopping = true
			a.after(a.jitter(0, a.lease), func() { a.revive(a.owner) })
		default:
			a.owner.lease = a.env.Leases[a.rng.IntN(len(a.env.Leases))]
			a.owner.restart(a.jitter(time.Millisecond, 30*time.Millisecond))
		}
		a.soon(a.cutOwner)
		a.soon(a.take)
	})
}

// ownerIsBack: it restarts in time to keep what it has, perhaps with another lease. Then it
// is left alone, or another is named, and it hears of that or does not.
func (a ambush) ownerIsBack() {
	a.owner.lease = a.env.Leases[a.rng.IntN(len(a.env.Leases))]
	a.owner.restart(a.jitter(time.Millisecond, a.lease/10))
	if a.chance(0.3) {
		return
	}
	a.meanwhile(a.jitter(0, a.lease), func() {
		if a.chance(0.5) {
			a.cutOwner()
		}
		a.take()
	})
}

// ownerStandsStill across the end of its lease.
func (a ambush) ownerStandsStill() {
	a.freezeAWhile(a.owner)
	a.take()
}

// thereAndBack: the group comes back to its owner while what that said on letting go
// is still on its way, and then nobody hears it.
func (a ambush) thereAndBack() {
	if a.chance(0.7) {
		a.crawl(a.lease)
	}
	a.take()
	back := a.jitter(15*time.Millisecond, 40*time.Millisecond)
	a.meanwhile(back, func() { a.move(a.group, a.owner) })
	a.meanwhile(back+a.jitter(15*time.Millisecond, 30*time.Millisecond+a.lease), func() {
		a.cut(a.owner.i)
		a.take()
	})
}

// everythingCrawls: the third hears the owner, late, and the others do not.
func (a ambush) everythingCrawls() {
	a.crawl(a.lease)
	a.cut(a.owner.i)
	a.unblock(a.third.i, a.owner.i)
	if a.chance(0.5) {
		a.unblock(a.owner.i, a.third.i)
	}
	a.take()
}

// ownerSlow: its fence ends late by the clock of everybody else.
func (a ambush) ownerSlow() {
	a.slew(a.owner, -0.083)
	a.cut(a.owner.i)
	a.take()
}

// othersFast: their notes run out early, and their clocks are well again in time to
// say so.
func (a ambush) othersFast() {
	for _, h := range a.hosts {
		if h != a.owner && h.up() {
			a.slew(h, 0.083)
			a.after(a.jitter(a.lease*3/4, a.lease), h.endSlew)
		}
	}
	a.cut(a.owner.i)
	a.take()
}

// slew steers the clock of a host whose daemon can look, unless two clocks are being
// steered already: the margin of the lease is for two.
func (x *Chaos) slew(h *host, by float64) {
	slewed := 0
	for _, o := range x.hosts {
		if o.slew != 0 {
			slewed++
		}
	}
	if slewed == 2 || !h.up() {
		return
	}
	h.beginSlew(by)
	x.after(x.jitter(x.lease/10, 4*x.lease), h.endSlew)
}
