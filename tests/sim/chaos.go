package sim

import (
	"fmt"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/tests/sim/raftmodel"
	"github.com/quorate/quorate/vrrpcompat"
)

const (
	// settleBound is within how long each address must be held by one host again, and
	// stay so, when all is well again. The longest that a rule alone may take is 10 s:
	// an instance under alarm for having been heard from two boots, a host that was
	// released by hand.
	settleBound = 15 * time.Second
)

// A Chaos is one run with faults of every kind, drawn from its seed.
type Chaos struct {
	*World
	lease    time.Duration
	healed   bool
	outsider vrrpcompat.Priority // of the router outside; 0: it is silent
	Settled  time.Duration       // how long it took when all was well again
	Left     string              // what was still wrong at the bound
}

// RunChaos makes the run of a seed. With a story it is slower.
func RunChaos(seed uint64, story bool) *Chaos { return runChaos(chaosEnv(seed), seed, story) }

// RunPlanned makes the run of a seed with the faults of RunChaos, while operators work on
// the cluster, services fail, and the placement follows both.
func RunPlanned(seed uint64, story bool) *Chaos { return runChaos(plannedEnv(seed), seed, story) }

func runChaos(env Env, seed uint64, story bool) *Chaos {
	return runFaults(env, seed, story, (*Chaos).fault)
}

func runFaults(env Env, seed uint64, story bool, fault func(*Chaos)) *Chaos {
	x := &Chaos{World: New(env, seed), lease: env.Leases[0]}
	defer x.Close()
	x.watch.telling = story
	x.net.env = env.Net
	x.tell("%v", env)
	if env.Outsider {
		x.outside()
	}
	x.Run(x.lease * 2)
	for range env.Faults {
		x.Run(x.jitter(0, x.lease*8/5))
		if len(x.watch.violations) > 0 {
			return x
		}
		fault(x)
	}
	x.healAll()
	x.settle()
	return x
}

// Wrong says what the run showed that must not be; empty: nothing.
func (x *Chaos) Wrong() string {
	switch {
	case len(x.watch.violations) > 0:
		return x.watch.violations[0]
	case x.Left != "":
		return fmt.Sprintf("not settled %v after all was well: %s", settleBound, x.Left)
	}
	return ""
}

// Story is what happened, a line each.
func (x *Chaos) Story() []string { return x.watch.story }

func (x *Chaos) oneOf(of ...float64) float64 { return of[x.rng.IntN(len(of))] }

// fault does one thing at random. Each is as likely as its weight.
func (x *Chaos) fault() {
	v := x.env.Weights
	faults := [...]struct {
		name   string
		weight int
		do     func(h *host)
	}{
		{"block", v.Block, x.blockSome},
		{"cut", v.Cut, func(h *host) { x.cut(h.i) }},
		{"mend", v.Mend, func(*host) { x.mend() }},
		{"freeze", v.Freeze, func(h *host) { x.freezeAWhile(h) }},
		{"kill", v.Kill, x.killAWhile},
		{"move", v.Move, func(h *host) { x.move(x.group(), h) }},
		{"document", v.Document, x.changeDocument},
		{"carrier", v.Carrier, func(h *host) { x.flap(h, x.jitter(time.Millisecond, 300*time.Millisecond)) }},
		{"release", v.Release, func(h *host) { h.releaseByHand() }},
		{"stop", v.Stop, x.stop},
		{"slew", v.Slew, x.slewAWhile},
		{"address removed by hand", v.ByHand, func(h *host) { h.removed(0) }},
		{"ambush", v.Ambush, x.layAmbush},
		{"trap", v.Trap, x.setTrap},
		{"members", v.Member, x.changeMembers},
		{"election", v.Elect, func(h *host) { x.campaign(h.i, raftmodel.Forced) }},
		{"foreign host", v.Foreign, x.foreigner},
		{"bare device", v.Bare, x.bare},
		{"disk", v.Disk, x.disk},
		{"drain", v.Drain, x.drain},
		{"check", v.Check, x.check},
		{"remove", v.Remove, x.remove},
		{"work", v.Estate, x.work},
	}
	total := 0
	for _, f := range faults {
		total += f.weight
	}
	at := x.rng.IntN(total)
	for _, f := range faults {
		if at -= f.weight; at < 0 {
			h := x.hosts[x.rng.IntN(len(x.hosts))]
			x.tell("FAULT %s, n%d", f.name, h.i+1)
			f.do(h)
			return
		}
	}
}

// meanwhile does something after a while, if the faults are not over by then.
func (x *Chaos) meanwhile(d time.Duration, do func()) {
	x.after(d, func() {
		if !x.healed {
			do()
		}
	})
}

// group is a group of the present document.
func (x *Chaos) group() string {
	if l := x.leader(); l != nil {
		if groups := x.state(l).Document.Groups; len(groups) > 0 {
			return groups[x.rng.IntN(len(groups))].Name
		}
	}
	return "web"
}

// blockSome keeps one host from another, one way or both.
func (x *Chaos) blockSome(h *host) {
	if o := x.rng.IntN(len(x.hosts)); o != h.i {
		x.block(h.i, o)
		if x.chance(0.5) {
			x.block(o, h.i)
		}
	}
}

func (x *Chaos) freezeAWhile(h *host) {
	if !h.up() {
		return
	}
	h.freeze()
	p := h.process
	x.after(x.jitter(5*time.Millisecond, 4*x.lease), p.thaw)
}

// killAWhile ends the process, or the whole host, and starts it again, maybe with
// another lease in its file.
func (x *Chaos) killAWhile(h *host) {
	if x.chance(0.25) {
		h.reboot()
	}
	h.lease = x.env.Leases[x.rng.IntN(len(x.env.Leases))]
	x.tell("n%d killed, lease %v", h.i+1, h.lease)
	back := 2 * x.lease
	if x.chance(0.5) { // in time to keep what it holds
		back = x.lease / 10
	}
	h.restart(x.jitter(time.Millisecond, back))
}

// stop ends the process in good order, or because a part of it fails.
func (x *Chaos) stop(h *host) {
	if x.chance(0.3) {
		h.abandonAll()
	} else {
		h.post(core.Stop{})
	}
	h.stopping = true
	x.after(x.jitter(100*time.Millisecond, 3*time.Second), func() { x.revive(h) })
}

// revive has a process that stops, or has ended, run again.
func (x *Chaos) revive(h *host) {
	if h.alive {
		h.kill()
	}
	x.after(x.jitter(time.Millisecond, 20*time.Millisecond), h.start)
}

// setTrap has something happen to the process in the middle of its work.
func (x *Chaos) setTrap(h *host) {
	if !h.up() {
		return
	}
	t := &trap{point: Point(1 + x.rng.IntN(int(points)-1)), skip: x.rng.IntN(4)}
	switch x.rng.IntN(4) {
	case 0:
		t.do = func() { x.killAWhile(h) }
	default:
		t.do = func() { x.freezeAWhile(h) }
	}
	h.trap = t
}

// slewAWhile has a host's clock run wrong at chrony's worst.
func (x *Chaos) slewAWhile(h *host) { x.slew(h, x.oneOf(-0.083, 0.083)) }

// flap takes the carrier away for a while.
func (x *Chaos) flap(h *host, d time.Duration) {
	h.carrier(false)
	x.after(d, func() { h.carrier(true) })
}

// move names another owner, as an operator does with `quorate move`, but to whatever
// host. It reports whether there was a leader to ask.
func (x *World) move(group string, to *host) bool {
	l := x.leader()
	if l == nil {
		return false
	}
	st := x.state(l)
	a := st.Assignments[group]
	if _, known := st.Nodes[to.node.ID]; !known || a.Owner == to.node.ID {
		return false
	}
	_, err := x.append(l.i, fsm.Command{Assign: &fsm.Assign{Group: group, Owner: to.node.ID, Seen: a.Epoch, Reason: fsm.ReasonMove}})
	return err == nil
}

// changeDocument has the addresses move between groups, come and go.
func (x *Chaos) changeDocument(*host) {
	l := x.leader()
	if l == nil || !x.state(l).Formed() {
		return
	}
	st := x.state(l)
	doc := document(st.Document.MaxHold, x.rng.IntN(documentKinds))
	_, _ = x.append(l.i, fsm.Command{Replace: &fsm.Replace{Seen: st.Document.Revision, Document: doc}}) // it leads, or another will
}

// mayChangeVoters is the spacing of changes by hand, as of changes that the core makes.
func (h *host) mayChangeVoters() bool {
	r := h.raftOf
	return r.voters.LastCommitted && r.setCommitted != 0 && r.termCommitted != 0 &&
		election.MayChangeVoters(h.clock(), r.setCommitted, r.termCommitted, max(h.w.state(h).Document.MaxHold, h.longest))
}

// foreigner puts a host outside on an address for a while, where nobody holds it.
func (x *Chaos) foreigner(*host) {
	addr := Addresses[x.rng.IntN(maxAddrs)].Addr()
	x.foreign[addr] = true
	x.after(x.jitter(0, 4*x.lease), func() { delete(x.foreign, addr) })
}

// bare has a device without the fence for a while.
func (x *Chaos) bare(h *host) {
	h.uncovered(true)
	h.later(x.jitter(0, 2*x.lease), func() { h.uncovered(false) })
}

// disk has the agent told that Raft's disk takes no writes, for a while.
func (x *Chaos) disk(h *host) {
	h.post(core.DiskFailed{Err: errDisk})
	h.later(x.jitter(0, 4*x.lease), func() { h.post(core.DiskFailed{}) })
}

// healAll ends every fault.
func (x *Chaos) healAll() {
	x.tell("HEALED")
	x.healed = true
	e := &x.env
	x.net.env, e.Lag, e.Slow, e.Starved = Net{}, 0, 0, 0
	e.BindFails, e.UnbindFails, e.FenceFails, e.DiskFails = 0, 0, 0, 0
	e.Snapshots, e.StaleSnapshots = 0, 0
	x.mend()
	for a := range x.foreign {
		delete(x.foreign, a)
	}
	for _, h := range x.hosts {
		h.endSlew()
		h.trap = nil
		h.thaw()
		x.reviveEnding(h)
		h.carrier(true)
		h.uncovered(false)
		h.says(true)
	}
	if x.env.Weights.Drain > 0 {
		x.undrain()
	}
}

// reviveEnding starts what is dead or about to end.
func (x *Chaos) reviveEnding(h *host) {
	if !h.alive || h.stopping {
		x.revive(h)
	}
}

// settle waits until each address has been held by one host for some leases.
func (x *Chaos) settle() { x.settleWithin(settleBound) }

func (x *Chaos) settleWithin(bound time.Duration) {
	step := x.lease / 2
	from, since := x.now, x.now
	x.Left = "nothing stays as it is"
	for x.now-from < bound {
		x.Run(step)
		if wrong := x.unsettled(); wrong != "" {
			x.Left, since = wrong, x.now
		} else if x.now-since >= min(4*x.lease, time.Second) {
			x.Left, x.Settled = "", since-from
			return
		}
		if len(x.watch.violations) > 0 {
			return
		}
	}
}
