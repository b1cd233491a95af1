package core

import (
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// What follows is for groups with `on_quorum_loss: hold` alone: their document asks for
// service rather than for a single owner while no majority can be heard. Who has such a
// group open, with proof, may then go on without. Nobody opens one without proof.

// An unproven is a group held without a majority's word.
type unproven struct {
	since election.Instant // zero: it is not
	said  election.Instant // when people were told last
}

// unprovenEvery is how often people are told.
const unprovenEvery = 10 * time.Second

// extend moves the deadline of an open group as far as the answers go. It never opens
// one whose deadline has passed.
func (c *Core) extend(g *group) {
	if !c.now.Before(g.deadline) {
		return
	}
	d, ok := g.holder.Deadline(c.now, c.log)
	switch {
	case ok && d.After(g.deadline):
		g.proof = g.epoch
		c.proven(g)
	case c.mayHoldOn(g):
		d = c.now.Add(c.cfg.Lease)
		c.withoutProof(g)
	default:
		return
	}
	g.deadline = d
	c.do(SetFence{Group: g.def.Name, Addrs: addrsOf(g.bound), Until: d})
	c.refreshLifetime(g)
}

// mayHoldOn reports whether an open group's deadline may move without proof now: only
// where the document says so, shortly before the deadline, when so few voters are heard
// that there can be no answers, and nothing that was heard speaks against it. A process
// that was late may only not have read the answers yet, so it does not begin to; one
// that was so late that the deadline has passed has let go.
func (c *Core) mayHoldOn(g *group) bool {
	switch {
	case !holdAsked(g.def), g.phase != active:
		return false
	case g.proof != g.epoch: // another has been named since, or this node again
		return false
	case c.now.Before(c.holdOnAt(g)):
		return false
	case g.unproven.since == 0 && c.now.Sub(c.lateAt) < c.cfg.Lease:
		return false
	}
	return !c.reached()
}

// holdAsked: to keep an address without proof is the document's word for that group,
// and nothing else's. What was not said is `release`.
//
//quorate:rule hold-asked
func holdAsked(def fsm.Group) bool { return def.OnQuorumLoss == fsm.QuorumLossHold }

// holdOnAt is from when an open group's deadline may move without proof: so late that
// two renewals in a row have brought none. Once that is so there is no need to wait.
func (c *Core) holdOnAt(g *group) election.Instant {
	if g.unproven.since != 0 {
		return g.deadline.Add(c.cfg.Renew/2 - c.cfg.Lease)
	}
	return g.deadline.Add(-c.cfg.Renew / 2)
}

// reached reports whether a majority of the voters was heard since they all should
// have said something.
func (c *Core) reached() bool {
	n := 0
	for _, id := range c.log.Last.Voters {
		if id == c.cfg.Self.ID || c.hearing.HeardWithin(c.now, id, c.cfg.Renew*5/4) {
			n++
		}
	}
	return n >= c.log.Last.Majority()
}

// late notes a tick that came late: what others said meanwhile may still be unread.
func (c *Core) late(tick election.Instant) {
	if c.now.Sub(tick) > c.cfg.Renew/4 {
		c.lateAt = c.now
	}
}

// withoutProof tells people, at once and again and again.
func (c *Core) withoutProof(g *group) {
	u := &g.unproven
	switch {
	case u.since == 0:
		u.since = c.now
	case c.now.Sub(u.said) < unprovenEvery:
		return
	}
	u.said = c.now
	c.say(Error, "no majority of voters is heard, and the group is held WITHOUT PROOF (on_quorum_loss: hold): "+
		"on the other side of a cut another node may answer for the same addresses", "group", g.def.Name, "epoch", g.epoch,
		"addresses", g.def.Addresses, "for", c.now.Sub(u.since))
}

// proven: a majority confirms the lease.
func (c *Core) proven(g *group) {
	if g.unproven.since != 0 {
		c.say(Error, "a majority confirms the group again that was held without proof", "group", g.def.Name, "epoch", g.epoch,
			"for", c.now.Sub(g.unproven.since))
		g.unproven = unproven{}
		g.standsAgain = true
	}
}

// letGoUnproven ends the holding without proof of a group that is let go.
func (c *Core) letGoUnproven(g *group) {
	if g.unproven.since != 0 {
		c.say(Error, "the group that was held without proof is let go", "group", g.def.Name, "epoch", g.epoch,
			"for", c.now.Sub(g.unproven.since))
		g.unproven = unproven{}
	}
}

// heardOfGroup takes what another node says of a group that counts before the next tick.
func (c *Core) heardOfGroup(from fsm.InstanceID, s election.GroupState) {
	if s.Unfit != 0 {
		c.health.broken[fitnessKey{from, s.Group}] = c.now
	}
	if g := c.groups[s.Group]; g != nil {
		c.overtaken(g, s)
	}
}

// overtaken: another node knows an epoch of the group that is newer than the one by
// which it is held without proof here. That ends it.
func (c *Core) overtaken(g *group, s election.GroupState) {
	if g.unproven.since != 0 && s.Epoch > g.epoch && g.stale != g.epoch {
		g.stale, g.touched = g.epoch, true
		c.say(Error, "another node knows a newer epoch of a group that is held without proof", "group", g.def.Name, "epoch", g.epoch, "newer", s.Epoch)
	}
}
