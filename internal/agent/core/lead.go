package core

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// leading is what a node keeps to do the leader's duties when it is the leader.
// The observations are made by every node, so that a new leader need not begin by
// waiting.
type leading struct {
	proposed  map[string]election.Instant // by group: an Assign is under way since
	opening   map[string]*opening
	nonvoter  map[fsm.InstanceID]bool // those that this leader gave the log to
	changing  bool                    // a change of the Raft configuration is under way
	changeAt  election.Instant        // not another before
	abdicated election.Instant        // when another was last asked to lead
	enrolled  election.Instant        // when this node last proposed its own entry

	setCommitted  election.Instant // since when the last voter set is known committed
	termCommitted election.Instant // since when the first entry of our own term is
	readySince    election.Instant // since when a majority of voters confirms; zero: not
}

// opening is how the present owner of a group gets on with opening it.
type opening struct {
	epoch  uint64
	from   election.Instant // counting from here
	failed map[fsm.InstanceID]int
}

const (
	// proposalPatience is after how long an Assign that was not answered is proposed
	// again. It is compare-and-set, so doing it twice does no harm.
	proposalPatience = 2 * time.Second
	// proposalRetry is after how long one that failed is.
	proposalRetry = 250 * time.Millisecond
)

func newLeading() leading {
	return leading{
		proposed: map[string]election.Instant{},
		opening:  map[string]*opening{},
		nonvoter: map[fsm.InstanceID]bool{},
	}
}

// opened notes that the owner holds the group: its failures are forgotten.
func (l *leading) opened(group string, epoch uint64, now election.Instant) {
	if o := l.opening[group]; o != nil && o.epoch == epoch {
		o.from = now
		clear(o.failed)
	}
}

// newLeader takes Raft's word on the leader. When there is none, the last one is
// remembered: it is the one whose loss would be a reason to campaign.
func (c *Core) newLeader(ev Leader) {
	if ev.ID.IsZero() {
		c.leader.Self = false
		return
	}
	if ev.ID != c.leader.ID || ev.Term != c.leader.Term {
		c.say(Info, "raft leader", "leader", c.name(ev.ID), "term", ev.Term, "self", ev.Self)
		c.lead.termCommitted = 0
		clear(c.lead.proposed)
		clear(c.lead.nonvoter)
	}
	c.leader = ev
	c.termApplied()
	c.leaderDuties()
}

// termApplied notes when the first entry of the own term was seen committed.
func (c *Core) termApplied() {
	if c.leader.Self && c.lead.termCommitted == 0 && c.state.Term == c.leader.Term {
		c.lead.termCommitted = c.now
	}
}

// voters takes what the log says of voter sets.
func (c *Core) voters(log election.VoterLog) {
	same := log.Last.Term == c.log.Last.Term && log.Last.Index == c.log.Last.Index
	if log.LastCommitted && (!same || !c.log.LastCommitted) {
		c.lead.setCommitted = c.now
	}
	c.log = log
	c.askNow = true
	c.touchAll()
}

// leaderDuties is what the leader does when anything changed, and each tick.
func (c *Core) leaderDuties() {
	c.observeOpenings()
	if !c.leader.Self || !c.state.Formed() || !c.hearing.MayJudge(c.now) || !c.hearing.Informed(c.now, c.log.Last) {
		return // who knows of no majority may be the one who was away
	}
	for _, a := range fsm.Place(c.state, c.view()) {
		if at, ok := c.lead.proposed[a.Group]; ok && c.now.Sub(at) < proposalPatience {
			continue
		}
		c.lead.proposed[a.Group] = c.now
		c.say(Info, "assigning", "group", a.Group, "from", c.name(c.state.Assignments[a.Group].Owner),
			"to", c.name(a.Owner), "reason", a.Reason.String())
		c.do(Propose{Command: fsm.Command{Assign: &a}})
	}
	c.addVoters()
}

// view is what this node knows of the others, for Place.
func (c *Core) view() fsm.View {
	v := fsm.View{Leader: c.leader.ID, Nodes: map[fsm.InstanceID]fsm.NodeView{}}
	for id := range c.state.Nodes {
		v.Nodes[id] = c.nodeView(id)
	}
	return v
}

func (c *Core) nodeView(id fsm.InstanceID) fsm.NodeView {
	n := fsm.NodeView{Alive: c.alive(id)}
	if id == c.cfg.Self.ID {
		n.Stopping = c.stop.asked
		for _, g := range c.sorted() {
			if c.unfit(g) != 0 {
				put(&n.Unfit, g.def.Name, true)
			}
		}
	} else if p := c.peers[id]; p != nil {
		n.Stopping = p.health.Stopping
		for name, g := range p.groups {
			if g.Unfit != 0 {
				put(&n.Unfit, name, true)
			}
		}
	}
	for name, o := range c.lead.opening {
		if tries := o.failed[id]; tries > 0 {
			put(&n.Failed, name, tries)
		}
		if a := c.state.Assignments[name]; a.Owner == id && a.Epoch == o.epoch && c.overdue(name, id, o) {
			put(&n.Overdue, name, true)
		}
	}
	return n
}

// put makes the map only when there is something to put in: on a good day there is not.
func put[V any](m *map[string]V, key string, v V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = v
}

// alive reports whether a majority of voters hears the node.
func (c *Core) alive(id fsm.InstanceID) bool {
	if id == c.cfg.Self.ID {
		return true
	}
	if _, heard := c.peers[id]; !heard {
		return false
	}
	_, lost := c.hearing.Lost(c.now, id, c.log.Last)
	return !lost
}

// observeOpenings keeps account of how long each owner has had to open its group.
func (c *Core) observeOpenings() {
	switch ready := c.votersReady(); {
	case !ready:
		c.lead.readySince = 0
	case c.lead.readySince == 0:
		c.lead.readySince = c.now
	}
	for name := range c.lead.opening {
		if _, ok := c.state.Assignments[name]; !ok {
			delete(c.lead.opening, name)
		}
	}
	for name, a := range c.state.Assignments {
		o := c.lead.opening[name]
		if o == nil {
			o = &opening{failed: map[fsm.InstanceID]int{}}
			c.lead.opening[name] = o
		}
		if o.epoch != a.Epoch {
			if a.Reason == fsm.ReasonNotOpen {
				o.failed[c.previousOwner(name, a.Epoch)]++
			}
			o.epoch, o.from = a.Epoch, c.now
		}
		if g := c.groups[name]; a.Owner == c.cfg.Self.ID && g != nil && g.phase == active {
			c.lead.opened(name, a.Epoch, c.now)
		}
	}
}

// previousOwner looks up in the history from whom an epoch took its group.
func (c *Core) previousOwner(group string, epoch uint64) fsm.InstanceID {
	for _, ch := range slices.Backward(c.state.History) {
		if ch.Group == group && ch.Epoch == epoch {
			return ch.From
		}
	}
	return fsm.InstanceID{}
}

// votersReady reports whether a majority of voters says that it confirms.
func (c *Core) votersReady() bool {
	n := 0
	for _, id := range c.log.Last.Voters {
		if id == c.cfg.Self.ID {
			if c.voter.Ready(c.now) {
				n++
			}
		} else if p := c.peers[id]; p != nil && p.health.VoterReady && !c.hearing.Silent(c.now, id) {
			n++
		}
	}
	return n >= c.log.Last.Majority()
}

// overdue reports whether the owner should have opened the group by now: within
// three leases, twice that after the first failure, and so on. It catches an owner
// whose questions arrive and whose answers do not; the doubling keeps the group
// from being passed round when nobody reaches a majority. An owner that this node
// alone does not hear may well be open; then the word of those that hear it counts.
func (c *Core) overdue(group string, owner fsm.InstanceID, o *opening) bool {
	if c.lead.readySince == 0 {
		return false
	}
	tries := 0
	for _, n := range o.failed {
		tries += n
	}
	patience := election.NotOpenLeases * c.cfg.Lease << min(tries, 6)
	if c.hearing.Silent(c.now, owner) {
		return c.toldDark(group, o.epoch) > patience
	}
	return c.now.Sub(max(o.from, c.lead.readySince)) > patience
}

// toldDark is for how long the group has been dark by the word of those that hear
// its owner; zero if nobody says so.
func (c *Core) toldDark(group string, epoch uint64) time.Duration {
	var longest time.Duration
	for id, p := range c.peers {
		if d, said := p.dark[group]; said && d.Epoch == epoch && !c.hearing.Silent(c.now, id) {
			longest = max(longest, d.Since)
		}
	}
	return longest
}

// proposed: an entry was committed, or was not.
func (c *Core) proposed(ev Proposed) {
	if e := ev.Command.Enrol; e != nil && ev.Err != nil {
		c.say(Warn, "the node's entry was not committed; it is tried again", "node", e.Node.Name, "error", ev.Err)
	}
	a := ev.Command.Assign
	if a == nil {
		return
	}
	delete(c.lead.proposed, a.Group)
	if ev.Err != nil && !errors.Is(ev.Err, fsm.ErrStale) {
		c.lead.proposed[a.Group] = c.now.Add(proposalRetry - proposalPatience)
		c.say(Warn, "the assignment was not committed", "group", a.Group, "to", c.name(a.Owner), "error", ev.Err)
	}
}

// Move checks a move by hand and returns the command for it.
func (c *Core) Move(group, node string) (fsm.Command, error) {
	if _, ok := c.state.Document.Group(group); !ok {
		return fsm.Command{}, fmt.Errorf("there is no group %q", group)
	}
	n, ok := c.state.NodeByName(node)
	if !ok {
		return fsm.Command{}, fmt.Errorf("there is no node %q; `quorate members` lists them", node)
	}
	v := c.nodeView(n.ID)
	a := c.state.Assignments[group]
	switch {
	case n.Role != fsm.Member:
		return fsm.Command{}, fmt.Errorf("node %s is a %s and never holds a VIP", node, n.Role)
	case a.Owner == n.ID:
		return fsm.Command{}, fmt.Errorf("group %s is on %s already", group, node)
	case !v.Alive:
		return fsm.Command{}, fmt.Errorf("node %s is not heard by a majority", node)
	case v.Stopping:
		return fsm.Command{}, fmt.Errorf("node %s is stopping", node)
	case v.Unfit[group]:
		return fsm.Command{}, fmt.Errorf("node %s cannot hold group %s: %s", node, group, c.unfitOf(n.ID, group))
	}
	return fsm.Command{Assign: &fsm.Assign{Group: group, Owner: n.ID, Seen: a.Epoch, Reason: fsm.ReasonMove}}, nil
}

func (c *Core) unfitOf(id fsm.InstanceID, group string) election.Unfit {
	if id == c.cfg.Self.ID {
		return c.unfit(c.groups[group])
	}
	return c.peers[id].groups[group].Unfit
}

// CheckJoin says whether a node may join: its name must not be another instance's.
func (c *Core) CheckJoin(n fsm.Node) error {
	if other, ok := c.state.NodeByName(n.Name); ok && other.ID != n.ID {
		return fmt.Errorf("the name %q belongs to instance %s, and this is instance %s: %w", n.Name, other.ID.Short(), n.ID.Short(), fsm.ErrNameTaken)
	}
	return nil
}

// addVoters makes every node that the cluster knows a voter: without a vote until
// it has caught up, then one change of the voter set at a time, spaced.
func (c *Core) addVoters() {
	if len(c.log.Last.Voters) >= election.MaxVoters || c.now.Before(c.lead.changeAt) {
		return
	}
	for _, n := range c.nodes() {
		switch {
		case c.log.Last.Has(n.ID):
		case c.lead.changing:
			return
		case !c.lead.nonvoter[n.ID]:
			c.lead.changing = true
			c.do(AddNonvoter{Node: n})
			return
		case c.caughtUp(n.ID) && c.mayChangeVoters():
			c.lead.changing = true
			c.do(AddVoter{Node: n})
			return
		}
	}
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
// than the state: another name or role. Another address is not corrected: Raft would
// go on calling the old one.
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

func (c *Core) checkAddress(known fsm.Node) {
	if known.Address == c.cfg.Self.Address || c.moved != nil {
		return
	}
	c.moved = fmt.Errorf("address: the cluster knows this node at %s and the file says %s, where nobody calls it: a node's address "+
		"cannot be changed in this version; put the old one back, or start with an empty data_dir and another node name", known.Address, c.cfg.Self.Address)
	c.say(Error, "this node has another address than the cluster knows", "error", c.moved)
}

// campaign stands for leader when the leader is lost and it is this node's turn.
func (c *Core) campaign() {
	c.campaignAt = 0
	at, ok := c.hearing.CampaignAt(c.now, c.leader.ID, c.log.Last, c.lastCampaign)
	if !ok || c.stop.asked {
		return
	}
	if c.now.Before(at) {
		c.campaignAt = at
		return
	}
	c.lastCampaign = c.now
	c.say(Info, "campaigning: no majority heard the leader for a lease", "leader", c.name(c.leader.ID))
	c.do(Campaign{})
}

// diskFailed: a leader whose disk hangs keeps its place for ever and commits
// nothing (hashicorp/raft #503), so it hands the leadership over.
func (c *Core) diskFailed(ev DiskFailed) {
	c.disk = ev.Err
	if ev.Err == nil {
		c.say(Info, "the disk under data_dir takes writes again")
		return
	}
	c.say(Error, "the disk under data_dir does not take writes", "error", ev.Err)
	c.abdicate()
}

// abdicate asks another to lead while this node's disk is of no use, again each
// second until it has.
func (c *Core) abdicate() {
	if c.disk == nil || !c.leader.Self || c.now.Sub(c.lead.abdicated) < time.Second {
		return
	}
	if n, ok := c.successor(); ok {
		c.lead.abdicated = c.now
		c.do(AskCampaign{Node: n})
	}
}

// successor is the first other voter that is alive and not about to stop.
func (c *Core) successor() (fsm.Node, bool) {
	for _, id := range c.log.Last.Voters {
		n, known := c.state.Nodes[id]
		if known && id != c.cfg.Self.ID && c.alive(id) && !c.nodeView(id).Stopping {
			return n, true
		}
	}
	return fsm.Node{}, false
}
