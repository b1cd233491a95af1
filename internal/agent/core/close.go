package core

import (
	"net/netip"

	"github.com/quorate/quorate/election"
)

// shut closes the fence first, and then takes the addresses off.
func (c *Core) shut(g *group, why string) {
	if !g.open() {
		return
	}
	c.say(Info, "vip released", "group", g.def.Name, "epoch", g.epoch, "reason", why, "held", c.now.Sub(g.since))
	c.letGoUnproven(g)
	c.takeLeave(g)
	g.left = why
	c.takeOff(g)
	c.shutFence(g, g.bound)
	c.unbind(g, &g.removal)
}

// takeOff enters closing with all that is on the host of the group, or may be.
func (c *Core) takeOff(g *group) {
	g.gather()
	g.gen = c.nextGen()
	g.close(c.now, removal{at: g.bound, with: c.unclaimed(g, g.with.and(g.dropped)), gen: g.gen})
	g.with, g.dropped, g.parting = Holding{}, Holding{}, parting{}
	g.removal.reset = c.resets(g)
	if g.lingers = nil; !g.removal.reset && !g.def.KeepConnections && !c.cfg.LifetimeFence {
		g.lingers = g.bound
	}
	g.deadline = 0
}

// A removal is of addresses whose fence is shut.
type removal struct {
	at       []Place
	with     Holding          // routes and rules that go with them
	reset    bool             // their connections are to be ended
	gen      uint64           // of the last Unbind; older replies are void
	unfenced bool             // the fence could not be shut
	shutAt   election.Instant // the fence was shut by then; zero: not known
	goneAt   election.Instant // the addresses were seen gone; zero: not yet
	retryAt  election.Instant // of a failed Unbind
	fails    int
}

// takeLeave settles, while the group is still open, what is said when it is not.
func (c *Core) takeLeave(g *group) {
	g.quiet = quietFrom(g.deadline)
	if c.alone {
		c.stepDown(g)
	} else if g.def.VRRP.ID != 0 && c.forbids(g) == "" && c.lastHolder(g) {
		g.lastWords = g.bound
	}
	c.speaking(g, false)
}

// close enters closing.
func (g *group) close(now election.Instant, r removal) {
	g.enter(closing, now)
	g.removal = r
}

// shutFence: from here on the host does not answer, however long it takes to get
// the addresses off.
//
//quorate:rule shut-first
func (c *Core) shutFence(g *group, at []Place) {
	c.do(SetFence{Group: g.def.Name, Addrs: addrsOf(at), Until: 0})
}

func (c *Core) unbind(g *group, r *removal) {
	c.do(Unbind{Group: g.def.Name, Gen: r.gen, Holding: Holding{At: r.at, Routes: r.with.Routes, Rules: r.with.Rules}, Reset: r.reset && !r.unfenced})
}

// unbound: with the addresses gone, the voters may forget our claim.
func (c *Core) unbound(ev Unbound) {
	g := c.groups[ev.Group]
	switch {
	case g == nil:
		c.tookAway(ev)
	case g.open() && ev.Gen == g.leaving.gen:
		c.unboundOf(g, &g.leaving, ev)
	case g.phase == closing && ev.Gen == g.removal.gen:
		if c.unboundOf(g, &g.removal, ev) {
			c.farewell(g)
		}
	}
}

// unboundOf notes how a removal went, and reports whether the addresses are gone.
func (c *Core) unboundOf(g *group, r *removal, ev Unbound) bool {
	g.touched = true
	if !ev.seenGone() {
		if r.fails++; r.fails == 1 {
			c.say(Error, "cannot remove the address; the fence stays shut and it is tried again", "group", ev.Group, "error", ev.Err)
		}
		r.retryAt = c.now.Add(unbindRetry)
		return false
	}
	r.goneAt = c.now
	if !r.unfenced && !c.cfg.LifetimeFence && !c.alone {
		r.shutAt = ev.Shut
	}
	return true
}

// whileClosing ends the tenure when nothing of it can be heard any more.
func (c *Core) whileClosing(g *group) {
	if c.removed(g, &g.removal) {
		g.bound = nil
		c.released(g)
		c.touchAll()
	}
}

// removed tries a failed removal again, and has the fence forget the addresses when
// nothing of them can be heard any more. It reports whether that is so.
func (c *Core) removed(g *group, r *removal) bool {
	if r.goneAt == 0 {
		if r.retryAt != 0 && !c.now.Before(r.retryAt) {
			r.retryAt = 0
			c.unbind(g, r)
		}
		g.wakeAt(r.retryAt)
		return false
	}
	if at := drainedAt(r.goneAt, r.shutAt); c.now.Before(at) {
		g.wakeAt(at)
		return false
	}
	if !g.resetsOver() {
		return false
	}
	if len(r.at) > 0 {
		c.do(ClearFence{Group: g.def.Name, Addrs: addrsOf(r.at)})
		c.outlived(r.at)
	}
	return true
}

// drainedAt is when what the fence let pass just before it was shut has left the
// queues below it. Until then the next owner must wait, as after a deadline. Where it is
// not known when the fence was shut, the last frame may have passed until the address
// was gone.
//
//quorate:rule drained-first
func drainedAt(gone, shut election.Instant) election.Instant {
	if shut == 0 {
		shut = gone
	}
	return max(gone, shut.Add(election.GraceBPF))
}

// seenGone: only when the addresses were seen gone is the entry in the fence
// deleted, and the release said.
//
//quorate:rule gone-first
func (ev Unbound) seenGone() bool { return ev.Err == nil }

func addrsOf(at []Place) []netip.Addr {
	out := make([]netip.Addr, 0, len(at))
	for _, p := range at {
		out = append(out, p.Prefix.Addr())
	}
	return out
}

// released: at this instant the fence is shut and nothing of the group is on the
// host. The stamp is taken now and stays the same in every repetition.
func (c *Core) released(g *group) {
	g.enter(idle, c.now)
	g.deadline, g.touched = 0, true
	if c.alone {
		return // there is nobody to tell
	}
	g.releasedAt, g.repeatUntil = c.now, max(c.now, c.inheritedUntil()).Add(c.cfg.Lease)
	c.lastStamp = max(c.lastStamp, c.now) // a question of the same instant would be void
	g.holder.Released(c.now)
	if c.mayRelease() {
		c.tellRelease(g)
	}
}

// fenceFailed: without its fence a group is not to be held.
func (c *Core) fenceFailed(ev FenceFailed) {
	c.say(Error, "the fence could not be written", "group", ev.Group, "error", ev.Err)
	g := c.groups[ev.Group]
	if g == nil { // of what an earlier life left: its entries run out, and its addresses are taken off all the same
		c.leaveAgain()
		return
	}
	c.failed(g, election.UnfitKernel, kernelRetry)
	switch {
	case g.open():
		// Its last deadline stands in the kernel and runs out by itself. Take the
		// address off meanwhile; the release is said only when that has happened.
		c.letGoUnproven(g)
		c.takeOff(g)
		c.speaking(g, false)
	case g.phase == closing:
		g.removal.goneAt = 0
	default:
		return
	}
	g.removal.unfenced = true
	c.unbind(g, &g.removal)
}
