package core

import (
	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// Where a group stands on this node, as hooks have it.
const (
	stoodActive = "active" // it is held here
	stoodBackup = "backup" // it is not, and could be
	stoodFault  = "fault"  // it is not, and cannot be
)

// transitions says where each group stands now, if that is not what was said last. It
// comes after everything else that a step does: nothing waits for a hook.
func (c *Core) transitions() {
	if !c.advanced {
		return
	}
	c.advanced = false
	c.measure()
	if c.cfg.Self.Role == fsm.Witness { // which never has one
		return
	}
	for _, g := range c.sorted() {
		if g.phase == active && g.stood == stoodActive && !g.standsAgain { // nearly always
			continue
		}
		to, why := c.stands(g)
		if to == "" || to == g.stood && !g.standsAgain {
			continue
		}
		e := Transition{Group: g.def.Name, To: to, From: g.stood, Reason: why, Addresses: g.def.Addresses}
		if !c.alone {
			e.Epoch = c.state.Assignments[g.def.Name].Epoch
		}
		c.do(e)
		g.stood, g.standsAgain = to, false
	}
}

// stands says where the group stands, and why. Empty: that is not known yet.
func (c *Core) stands(g *group) (stood, why string) {
	u, k := c.unfit(g), c.condition(g)
	switch {
	case g.phase == active:
		return stoodActive, c.why(g)
	case g.stood == "" && (!c.swept || !g.resolved && g.placeErr == "" || len(k.pending) > 0):
		return "", "" // a process that has just begun
	case g.gone:
		return stoodBackup, "group-deleted"
	case g.conflict != "":
		return stoodFault, election.UnfitConflict.String()
	case u != 0 && u != election.UnfitReleased:
		return stoodFault, u.String()
	case g.seatErr != "":
		return stoodFault, "no-virtual-router"
	case len(k.failing) > 0:
		return stoodFault, election.UnfitCheck.String()
	case g.left != "":
		return stoodBackup, g.left
	}
	return stoodBackup, c.why(g)
}

// why is the reason for which the group is where it is. Empty: it was never anywhere.
func (c *Core) why(g *group) string {
	a := c.state.Assignments[g.def.Name]
	switch {
	case c.alone && g.cause != 0:
		return g.cause.String()
	case c.alone || a.Epoch == 0:
		return ""
	}
	return a.Reason.String()
}

// watchQuorum has every group's hooks run once more when this node has a majority
// again: what they did meanwhile may not have reached anybody, or reached them late.
func (c *Core) watchQuorum() {
	if c.alone {
		return
	}
	switch has := c.hearing.Quorum(c.now, c.log.Last); {
	case has && c.quorumLost:
		c.quorumLost = false
		for _, g := range c.groups {
			g.standsAgain, g.touched = g.stood != "", true
		}
		c.reannounce(everywhere)
	case has:
		c.quorumHad = true
	case c.quorumHad:
		c.quorumLost = true
	}
}

// cameBack: another node is heard that was not for a lease, and did not say that it
// would end. What it did to things outside meanwhile (a cloud's routes, say) is put
// right by whoever has the group.
func (c *Core) cameBack(from fsm.InstanceID) {
	p := c.peers[from]
	if p == nil || p.health.Stopping || !c.hearing.Silent(c.now, from) {
		return
	}
	for _, g := range c.groups {
		if g.phase == active {
			g.standsAgain, g.touched = true, true
		}
	}
	c.reannounce(everywhere)
}
