package core

import (
	"slices"
	"time"

	"github.com/quorate/quorate/election"
)

// What follows ends the connections of a group that leaves by plan, before its fence is
// shut: the RST that tells a client to connect anew at once has to pass it.
//
// The wait for that lies within the deadline that the fence has by proof, is five
// milliseconds at most, and moves nothing: no deadline, no release, no announcement. To
// the voters and to the next owner this node is one that has applied the new epoch five
// milliseconds later (lease.md, section 3, wording 8).

// resetTime is the longest that the shutting of the fence waits for connections to be reset.
const resetTime = 5 * time.Millisecond

// A parting is that wait.
type parting struct {
	why   string
	gen   uint64
	until election.Instant // zero: there is none
}

// leave lets go of an open group that this node should not hold any more.
func (c *Core) leave(g *group, why string) {
	if g.parting.until == 0 && c.mayPart(g) {
		g.parting = parting{why: why, gen: c.nextGen(), until: min(g.deadline, c.now.Add(resetTime))}
		g.resetting = g.parting.gen
		c.do(ResetConnections{Group: g.def.Name, Gen: g.parting.gen, Addrs: addrsOf(g.here(g.bound))})
	}
	if c.parting(g) {
		g.wakeAt(g.parting.until)
		return
	}
	if g.parting.until != 0 {
		why = g.parting.why
	}
	c.shut(g, why)
}

// parting: the fence is shut when the time is over, at the deadline that it has at the
// latest, and at once when anything but the plan is against the group.
//
//quorate:rule part-briefly
func (c *Core) parting(g *group) bool {
	return g.parting.until != 0 && c.now.Before(g.parting.until) && c.mayPart(g)
}

// mayPart reports whether the group leaves by plan alone, with something left of a lease
// that voters have confirmed.
func (c *Core) mayPart(g *group) bool {
	switch {
	case g.def.KeepConnections, c.alone, c.cfg.LifetimeFence:
		return false
	case g.phase != active, !c.now.Before(g.deadline), g.unproven.since != 0, g.outdated():
		return false
	case c.stop.done, g.conflict != "":
		return false
	case g.proof == 0 && holdAsked(g.def): // kept, and the earlier life may have held it without proof
		return false
	}
	u := c.unfit(g)
	return u == 0 || u == election.UnfitReleased
}

// connectionsReset: the connections are ended, so the fence need not wait to be shut, nor
// to be forgotten.
func (c *Core) connectionsReset(ev ConnectionsReset) {
	g := c.groups[ev.Group]
	if g == nil || g.resetting != ev.Gen {
		return
	}
	g.resetting, g.touched = 0, true
	if g.parting.until != 0 {
		g.parting.until = c.now
	}
}

// resetsOver: a reset that comes late is held back by the shut fence, so that its entry has
// to stay until nothing of the kind is on its way.
//
//quorate:rule reset-over
func (g *group) resetsOver() bool { return g.resetting == 0 }

// resets reports whether the connections of a group that is let go are to be ended on this
// host. While it stays the owner it may go on, if the cable was out for a moment, say.
func (c *Core) resets(g *group) bool {
	if g.def.KeepConnections || c.cfg.LifetimeFence { // without a fence nothing holds a late RST back
		return false
	}
	return !c.owns(g) || g.gone || c.stop.asked || c.alone
}

// endLingering ends the connections of a tenure that might have gone on and did not. It
// is done behind a shut fence: what they would still say is not to be heard.
func (c *Core) endLingering(g *group) {
	if len(g.lingers) == 0 || c.owns(g) || !c.swept || g.open() || g.phase == closing {
		return
	}
	at, addrs := g.lingers, g.def.Addrs()
	g.lingers = nil
	if slices.ContainsFunc(at, func(p Place) bool { return !slices.Contains(addrs, p.Prefix.Addr()) || c.handled(p.Prefix.Addr()) }) {
		return // the group is another by now, and an address of it may be held under another name
	}
	c.purge(g, at)
}
