package core

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// CheckJoin says whether a node may join: its name must not be another instance's, and
// it must not have been removed.
func (c *Core) CheckJoin(n fsm.Node) error {
	if was, gone := c.state.Retired[n.ID]; gone {
		return fmt.Errorf("instance %s (%s): %w (as %s): remove its data_dir and start it again; it then joins as a new one",
			n.ID.Short(), n.Name, fsm.ErrRetired, was.Name)
	}
	if other, ok := c.state.NodeByName(n.Name); ok && other.ID != n.ID {
		return fmt.Errorf("the name %q belongs to instance %s, and this is instance %s: %w", n.Name, other.ID.Short(), n.ID.Short(), fsm.ErrNameTaken)
	}
	return nil
}

// changeMembers brings Raft's members to what the cluster's list of nodes says, one
// change at a time, and those of the voters spaced (lease.md, V6). A dead node's vote is
// taken away first, for it only raises what a majority is; a living one's last, when who
// takes its place has a vote.
func (c *Core) changeMembers() {
	if c.lead.changing || c.now.Before(c.lead.changeAt) {
		return
	}
	for _, step := range [...]func() bool{c.removeDeadVoter, c.addMember, c.removeVoter, c.removeStandby} {
		if step() {
			c.lead.changing = true
			return
		}
	}
}

// addMember has one node that the cluster knows get the log, or one that has caught up
// get a vote. With as many voters as there may be it stays as it is, until one is removed.
func (c *Core) addMember() bool {
	full := len(c.log.Last.Voters) >= election.MaxVoters
	for _, n := range c.nodes() {
		switch {
		case c.log.Last.Has(n.ID), c.takesThePlace(n):
		case !c.lead.nonvoter[n.ID]:
			c.do(AddNonvoter{Node: n})
			return true
		case !full && c.caughtUp(n.ID) && c.mayChangeVoters():
			c.do(AddVoter{Node: n, Over: c.log.Last})
			return true
		}
	}
	return false
}

// takesThePlace reports whether the node listens where one that was removed did: Raft has
// one server at an address, so that one must be gone from its members first.
func (c *Core) takesThePlace(n fsm.Node) bool {
	for id, f := range c.state.Retired {
		if f.Address == n.Address && !c.lead.removed[id] {
			return true
		}
	}
	return false
}

// removeDeadVoter takes the vote of a removed node that nobody hears any more.
func (c *Core) removeDeadVoter() bool {
	return c.removeFirst(func(id fsm.InstanceID) bool { return !c.alive(id) })
}

// removeVoter takes the vote of a removed node when it owns nothing any more, and nobody
// who lives is about to get a vote.
func (c *Core) removeVoter() bool {
	full := len(c.log.Last.Voters) >= election.MaxVoters
	if !full && slices.ContainsFunc(c.nodes(), func(n fsm.Node) bool { return !c.log.Last.Has(n.ID) && c.alive(n.ID) && !c.takesThePlace(n) }) {
		return false
	}
	return c.removeFirst(func(id fsm.InstanceID) bool { return !c.ownsAny(id) })
}

func (c *Core) removeFirst(fits func(fsm.InstanceID) bool) bool {
	for _, id := range c.log.Last.Voters {
		if _, retired := c.state.Retired[id]; retired && fits(id) && c.mayRemove(id) {
			c.do(RemoveServer{ID: id, Over: c.log.Last})
			return true
		}
	}
	return false
}

// mayRemove: a leader does not remove itself, but hands over first (abdicate), and
// nobody is removed whose vote the others need: they would never commit anything again.
func (c *Core) mayRemove(id fsm.InstanceID) bool {
	return id != c.cfg.Self.ID && c.mayChangeVoters() && c.suffice(id)
}

// suffice reports whether those who remain without a voter have a majority that lives.
func (c *Core) suffice(without fsm.InstanceID) bool {
	living, left := 0, election.VoterSet{}
	for _, id := range c.log.Last.Voters {
		if id == without {
			continue
		}
		left.Voters = append(left.Voters, id)
		if c.alive(id) {
			living++
		}
	}
	return len(left.Voters) > 0 && living >= left.Majority()
}

// mayVote reports whether a node has a vote, or has it again if the last set is rolled back.
func (c *Core) mayVote(id fsm.InstanceID) bool {
	return c.log.Last.Has(id) || !c.log.LastCommitted && c.log.Previous.Has(id)
}

// removeStandby takes the log from a removed node that has no vote. Who has it is Raft's
// to know, so each leader asks once for each.
func (c *Core) removeStandby() bool {
	var left []fsm.InstanceID
	for id := range c.state.Retired {
		if !c.lead.removed[id] && !c.mayVote(id) {
			left = append(left, id)
		}
	}
	if len(left) == 0 {
		return false
	}
	first := slices.MinFunc(left, func(a, b fsm.InstanceID) int { return bytes.Compare(a[:], b[:]) })
	c.do(RemoveServer{ID: first, Over: c.log.Last})
	return true
}

func (c *Core) serverRemoved(ev ServerRemoved) {
	c.lead.changing = false
	if ev.Err != nil {
		c.lead.changeAt = c.now.Add(proposalPatience)
		c.say(Warn, "the removed node could not be taken from Raft's members; it is tried again", "node", c.name(ev.ID), "error", ev.Err)
		return
	}
	c.lead.removed[ev.ID] = true
	c.say(Info, "the removed node is none of Raft's members", "node", c.name(ev.ID))
}

// ownsAny reports whether a node is the owner of a group.
func (c *Core) ownsAny(id fsm.InstanceID) bool {
	for _, a := range c.state.Assignments {
		if a.Owner == id {
			return true
		}
	}
	return false
}

// retired reports whether this node itself was removed from the cluster. It goes on
// serving what it owns until another is named, and stands for nothing any more.
func (c *Core) retired() bool {
	_, yes := c.state.Retired[c.cfg.Self.ID]
	return yes
}

// nodesLeft tells people on a node that it was removed.
func (c *Core) nodesLeft(was *fsm.State) {
	if _, before := was.Retired[c.cfg.Self.ID]; c.retired() && !before {
		c.say(Error, "this node was removed from the cluster: it holds nothing new and has no say; stop it, "+
			"and remove its data_dir if it is to join again")
	}
}

// belongs reports whether a node's datagrams count: those of a removed one too, for its
// vote may be needed until it is taken away, and its release shortens a move.
func (c *Core) belongs(id fsm.InstanceID) bool {
	_, known := c.state.Nodes[id]
	_, retired := c.state.Retired[id]
	return known || retired
}

// where returns the node of an id, also when the cluster has removed it: as long as it has
// a vote it is asked, and what it asks is answered, so that it learns of it.
func (c *Core) where(id fsm.InstanceID) (fsm.Node, bool) {
	if n, ok := c.state.Nodes[id]; ok {
		return n, true
	}
	n, ok := c.state.Retired[id]
	return n, ok
}

// caughtUp reports whether the node itself said that it applied what we have.
func (c *Core) caughtUp(id fsm.InstanceID) bool {
	p := c.peers[id]
	return p != nil && c.alive(id) && p.applied >= c.state.Index
}

// mayChangeVoters is the spacing of membership changes (lease.md, V6).
func (c *Core) mayChangeVoters() bool {
	return c.seenCommitted() &&
		election.MayChangeVoters(c.now, c.lead.setCommitted, c.lead.termCommitted, max(c.state.Document.MaxHold, c.voter.Longest()))
}

// seenCommitted: a set that is not committed may be rolled back, and then two
// different ones may follow it.
//
//quorate:rule change-after-commit
func (c *Core) seenCommitted() bool {
	return c.log.LastCommitted && c.lead.setCommitted != 0 && c.lead.termCommitted != 0
}

// joinAsked takes a node's request to belong to the cluster: once the cluster knows
// it, whoever leads makes it a voter.
func (c *Core) joinAsked(n fsm.Node) {
	if known, ok := c.state.Nodes[n.ID]; c.leader.Self && c.CheckJoin(n) == nil && (!ok || known != n) {
		c.do(Propose{Command: fsm.Command{Enrol: &fsm.Enrol{Node: n}}})
	}
}

func (c *Core) nonvoterAdded(ev NonvoterAdded) {
	c.lead.changing = false
	if ev.Err != nil {
		c.lead.changeAt = c.now.Add(proposalPatience)
		c.say(Warn, "the node could not be given the log; it is tried again", "node", ev.Node.Name, "error", ev.Err)
		return
	}
	c.lead.nonvoter[ev.Node.ID] = true
	c.say(Info, "the node gets the log, and a vote when it has caught up", "node", ev.Node.Name)
}

func (c *Core) voterAdded(ev VoterAdded) {
	c.lead.changing = false
	if ev.Err != nil {
		c.lead.changeAt = c.now.Add(proposalPatience)
		c.say(Warn, "the node could not be made a voter; it is tried again", "node", ev.Node.Name, "error", ev.Err)
		return
	}
	c.say(Info, "voter added", "node", ev.Node.Name)
}

// enrolSelf corrects the cluster's entry for this node when the file says otherwise
// than the state: another name or role. Another address is for the daemon to say, for Raft
// has to know it too.
func (c *Core) enrolSelf() {
	known, ok := c.state.Nodes[c.cfg.Self.ID]
	if !ok {
		return
	}
	c.checkAddress(known)
	self := c.cfg.Self
	self.Address = known.Address
	if known == self || c.leader.ID.IsZero() || c.now.Sub(c.lead.enrolled) < proposalPatience {
		return
	}
	c.lead.enrolled = c.now
	c.do(Propose{Command: fsm.Command{Enrol: &fsm.Enrol{Node: self}}})
}

// checkAddress tells people while the cluster calls this node at another address than it
// has. The daemon asks for that to be changed.
func (c *Core) checkAddress(known fsm.Node) {
	switch moved := known.Address != c.cfg.Self.Address; {
	case moved && c.moved == nil:
		c.moved = fmt.Errorf("address: the cluster knows this node at %s and the file says %s; it asks the cluster to call it there, "+
			"which takes a majority without it", known.Address, c.cfg.Self.Address)
		c.say(Error, "this node has another address than the cluster knows", "error", c.moved)
	case !moved && c.moved != nil:
		c.moved = nil
		c.say(Info, "the cluster knows this node's address", "address", known.Address)
	}
}
