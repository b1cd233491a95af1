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
	g.gen = c.nextGen()
	g.close(c.now)
	g.deadline, g.unbindFails = 0, 0
	c.shutFence(g)
	c.unbind(g)
}

// close enters closing, where nothing is known to be gone yet.
func (g *group) close(now election.Instant) {
	g.enter(closing, now)
	g.goneAt, g.retryAt = 0, 0
}

// shutFence: from here on the host does not answer, however long it takes to get
// the addresses off.
//
//quorate:rule shut-first
func (c *Core) shutFence(g *group) {
	c.do(SetFence{Group: g.def.Name, Addrs: g.def.Addrs(), Until: 0})
}

func (c *Core) unbind(g *group) {
	c.do(Unbind{Group: g.def.Name, Gen: g.gen, At: g.bound})
}

// unbound: with the addresses gone, the voters may forget our claim.
func (c *Core) unbound(ev Unbound) {
	g := c.groups[ev.Group]
	if g == nil || ev.Gen != g.gen || g.phase != closing {
		return
	}
	g.touched = true
	if !ev.seenGone() {
		if g.unbindFails++; g.unbindFails == 1 {
			c.say(Error, "cannot remove the address; the fence stays shut and it is tried again", "group", ev.Group, "error", ev.Err)
		}
		g.retryAt = c.now.Add(unbindRetry)
		return
	}
	g.goneAt = c.now
}

// whileClosing tries a failed removal again, and ends the tenure when nothing of it
// can be heard any more.
func (c *Core) whileClosing(g *group) {
	if g.goneAt == 0 {
		if g.retryAt != 0 && !c.now.Before(g.retryAt) {
			g.retryAt = 0
			c.unbind(g)
		}
		g.wakeAt(g.retryAt)
		return
	}
	if at := drainedAt(g.goneAt); c.now.Before(at) {
		g.wakeAt(at)
		return
	}
	if g.bound != nil {
		c.do(ClearFence{Group: g.def.Name, Addrs: addrsOf(g.bound)})
		g.bound = nil
	}
	c.released(g)
	c.touchAll()
}

// drainedAt is when what the fence let pass just before it was shut has left the
// queues below it. Until then the next owner must wait, as after a deadline.
//
//quorate:rule drained-first
func drainedAt(gone election.Instant) election.Instant { return gone.Add(election.GraceBPF) }

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
	g.releasedAt, g.repeatUntil = c.now, c.now.Add(c.cfg.Lease)
	c.lastStamp = max(c.lastStamp, c.now) // a question of the same instant would be void
	g.holder.Released(c.now)
	c.tellRelease(g)
}

// fenceFailed: without its fence a group is not to be held.
func (c *Core) fenceFailed(ev FenceFailed) {
	g := c.groups[ev.Group]
	if g == nil {
		return
	}
	c.say(Error, "the fence could not be written", "group", ev.Group, "error", ev.Err)
	c.failed(g, election.UnfitKernel, kernelRetry)
	switch {
	case g.open():
		// Its last deadline stands in the kernel and runs out by itself. Take the
		// address off meanwhile; the release is said only when that has happened.
		g.gen = c.nextGen()
		g.close(c.now)
		c.unbind(g)
	case g.phase == closing:
		g.goneAt = 0
		c.unbind(g)
	}
}
