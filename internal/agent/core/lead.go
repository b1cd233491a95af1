package core

import (
	"errors"
	"fmt"
	"slices"
	"strings"
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
	removed   map[fsm.InstanceID]bool // and those that it took it from
	changing  bool                    // a change of the Raft configuration is under way
	changeAt  election.Instant        // not another before
	abdicated election.Instant        // when another was last asked to lead
	enrolled  election.Instant        // when this node last proposed its own entry

	setCommitted  election.Instant // since when the last voter set is known committed
	termCommitted election.Instant // since when the first entry of our own term is
	readySince    election.Instant // since when a majority of voters confirms; zero: not

	documentAt   uint64           // the index at which the present document was applied
	documentSeen election.Instant // and when that was

	phases phases // what is to be in the history
}

// opening is how the present owner of a group gets on with opening it.
type opening struct {
	epoch  uint64
	from   election.Instant // counting from here
	open   election.Instant // since when it was seen open in this epoch; zero: not
	tries  int              // owners in a row that did not open it
	failed map[fsm.InstanceID]failure
}

// A failure is how often a node was named in vain, and when last.
type failure struct {
	times int
	at    election.Instant
}

// counts reports whether the node is still passed over for it: for a second, and twice as
// long after each further time, so that a node that was mended gets its group back.
func (f failure) counts(now election.Instant) bool {
	return f.times > 0 && now.Sub(f.at) < time.Second<<min(f.times, 9)
}

// forgiven is for how many leases a node must have held a group until its failures are
// forgotten. One that holds it for a moment and fails again would else have it given back
// for ever.
const forgiven = 10

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
		removed:  map[fsm.InstanceID]bool{},
		phases:   phases{proposed: map[string]proposal{}},
	}
}

// opened notes that the owner holds the group, or would but for a router outside.
func (c *Core) opened(group string, epoch uint64) {
	o := c.lead.opening[group]
	if o == nil || o.epoch != epoch {
		return
	}
	o.from, o.tries = c.now, 0
	if o.open == 0 {
		o.open = c.now
	}
	if c.now.Sub(o.open) >= forgiven*c.cfg.Lease {
		delete(o.failed, c.state.Assignments[group].Owner)
	}
}

// passedOn notes that a group has another owner. The one before was named in vain if it
// was never seen to have it open.
func (c *Core) passedOn(o *opening, group string, a fsm.Assignment) {
	vain := a.Reason == fsm.ReasonNotOpen || a.Reason == fsm.ReasonUnfit && o.epoch != 0 && o.open == 0
	if vain {
		from := c.previousOwner(group, a.Epoch)
		o.failed[from] = failure{o.failed[from].times + 1, c.now}
	}
	if a.Reason == fsm.ReasonNotOpen {
		o.tries++
	}
	o.epoch, o.from, o.open = a.Epoch, c.now, 0
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
		clear(c.lead.removed)
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
	c.log, c.listed = log, nil
	c.askNow = true
	c.touchAll()
}

// leaderDuties is what the leader does when anything changed, and each tick.
func (c *Core) leaderDuties() {
	if c.alone {
		return
	}
	c.observeOpenings()
	if !c.leader.Self || !c.state.Formed() || !c.hearing.MayJudge(c.now) || !c.hearing.Informed(c.now, c.log.Last) {
		return // who knows of no majority may be the one who was away
	}
	v, unsure := c.view(), c.unsure()
	c.noteLost(v)
	if unsure {
		forgetChecks(&v)
	}
	for name := range c.lead.proposed {
		v.Pending = v.Pending || c.underWay(name)
	}
	for _, a := range fsm.Place(c.state, v) {
		if c.underWay(a.Group) || unsure && (a.Reason.Serves() || c.state.Assignments[a.Group].Owner.IsZero()) {
			continue // what can wait does, or the group would soon be moved a second time
		}
		c.lead.proposed[a.Group] = c.now
		c.say(Info, "assigning", "group", a.Group, "from", c.name(c.state.Assignments[a.Group].Owner),
			"to", c.name(a.Owner), "reason", a.Reason.String())
		c.timeChange(&a)
		c.do(Propose{Command: fsm.Command{Assign: &a}})
	}
	c.changeMembers()
}

// unsurePatience is for how many leases the leader waits until every node that lives
// speaks of the present document.
const unsurePatience = 3

// unsure reports whether some node still speaks of an earlier document than the present
// one. What checks and weights say of different documents cannot be compared: a group
// would be passed to whoever speaks of the better one, and on when it no longer does.
func (c *Core) unsure() bool {
	if c.now.Sub(c.lead.documentSeen) >= unsurePatience*c.cfg.Lease {
		return false
	}
	return slices.ContainsFunc(c.nodes(), func(n fsm.Node) bool {
		return n.ID != c.cfg.Self.ID && c.alive(n.ID) && c.peers[n.ID].applied < c.lead.documentAt
	})
}

// forgetChecks leaves of a view what does not depend on the document: enough for the
// moves that must be.
func forgetChecks(v *fsm.View) {
	v.Pending = true
	for id, n := range v.Nodes {
		n.Failing, n.Adjust = nil, nil
		v.Nodes[id] = n
	}
}

// underWay reports whether an Assign of the group was proposed and is not answered.
func (c *Core) underWay(group string) bool {
	at, ok := c.lead.proposed[group]
	return ok && c.now.Sub(at) < proposalPatience
}

// view is what this node knows of the others, for Place.
func (c *Core) view() fsm.View {
	v := fsm.View{Leader: c.leader.ID, Nodes: map[fsm.InstanceID]fsm.NodeView{}}
	for id := range c.state.Nodes {
		n := c.nodeView(id)
		if id != c.cfg.Self.ID && n.Alive && c.peers[id].applied < c.lead.documentAt {
			c.onlyKeeps(id, &n)
		}
		v.Nodes[id] = n
	}
	return v
}

// onlyKeeps: a node that does not know the present document, because it has just begun or
// lags, cannot have said how it is by that. It is given nothing.
func (c *Core) onlyKeeps(id fsm.InstanceID, n *fsm.NodeView) {
	for name := range c.groups {
		if c.state.Assignments[name].Owner != id {
			put(&n.Unfit, name, true)
		}
	}
}

func (c *Core) nodeView(id fsm.InstanceID) fsm.NodeView {
	n := fsm.NodeView{Alive: c.alive(id)}
	if id == c.cfg.Self.ID {
		n.Stopping = c.stop.asked
		for _, g := range c.sorted() {
			u, adjust := c.fitness(g)
			note(&n, g.def.Name, u, adjust)
		}
	} else if p := c.peers[id]; p != nil {
		n.Stopping = p.health.Stopping
		for name, g := range p.groups {
			note(&n, name, g.Unfit, g.Adjust)
		}
	}
	c.fitFor(id, &n)
	for name, o := range c.lead.opening {
		if f := o.failed[id]; f.counts(c.now) {
			put(&n.Failed, name, f.times)
		}
		if a := c.state.Assignments[name]; a.Owner == id && a.Epoch == o.epoch && c.overdue(name, id, o) {
			put(&n.Overdue, name, true)
		}
	}
	return n
}

// note adds what a node says of itself and a group.
func note(n *fsm.NodeView, group string, u election.Unfit, adjust int16) {
	switch u {
	case 0:
	case election.UnfitCheck:
		put(&n.Failing, group, true)
	default:
		put(&n.Unfit, group, true)
	}
	if adjust != 0 {
		put(&n.Adjust, group, int(adjust))
	}
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
	if p := c.peers[id]; p == nil || p.groups == nil {
		return false // of a long renewal only a part has come
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
			o = &opening{failed: map[fsm.InstanceID]failure{}}
			c.lead.opening[name] = o
		}
		if o.epoch != a.Epoch {
			c.passedOn(o, name, a)
		}
		if g := c.groups[name]; a.Owner == c.cfg.Self.ID && g != nil && (g.phase == active || c.yielded(g)) {
			c.opened(name, a.Epoch)
		}
	}
}

// previousOwner looks up in the history from whom an epoch took its group.
func (c *Core) previousOwner(group string, epoch uint64) fsm.InstanceID {
	if e, ok := c.state.Change(group, epoch); ok {
		return e.From
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
// three leases and what many addresses take, twice that after the first failure, and so on. It catches an owner
// whose questions arrive and whose answers do not; the doubling keeps the group
// from being passed round when nobody reaches a majority. An owner that this node
// alone does not hear may well be open; then the word of those that hear it counts.
func (c *Core) overdue(group string, owner fsm.InstanceID, o *opening) bool {
	if c.lead.readySince == 0 {
		return false
	}
	patience := election.NotOpenLeases*c.hearing.LeaseOf(owner)<<min(o.tries, 6) + c.openTime(group)
	if c.hearing.Silent(c.now, owner) {
		return c.toldDark(group, o.epoch) > patience
	}
	return c.now.Sub(max(o.from, c.lead.readySince)) > patience
}

// openTime is what it may take besides to ask the LAN about the addresses of a group and to
// put them on: little, unless there are a thousand.
func (c *Core) openTime(group string) time.Duration {
	def, _ := c.state.Document.Group(group)
	return time.Duration(len(def.Addresses)) * time.Millisecond
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
	if r := ev.Command.Report; r != nil {
		c.reported(r, ev.Err)
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
	if c.alone {
		return fsm.Command{}, errNoMoves
	}
	if _, ok := c.state.Document.Group(group); !ok {
		return fsm.Command{}, fsm.UnknownGroup(c.state.Document, group)
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
	case c.state.Drained[n.ID]:
		return fsm.Command{}, fmt.Errorf("node %s is drained: `quorate undrain %s` first", node, node)
	case fsm.Score(c.state, fsm.View{}, group, n.ID) == 0:
		return fsm.Command{}, fmt.Errorf("node %s has priority 0 for group %s: it is never to hold it", node, group)
	case v.Unfit[group], v.Failing[group]:
		return fsm.Command{}, fmt.Errorf("node %s cannot hold group %s: %s", node, group, c.unfitOf(n.ID, group))
	}
	return fsm.Command{Assign: &fsm.Assign{Group: group, Owner: n.ID, Seen: a.Epoch, Reason: fsm.ReasonMove}}, nil
}

// unfitOf says why a node cannot hold a group, in the words that it is known by here.
func (c *Core) unfitOf(id fsm.InstanceID, group string) string {
	if id != c.cfg.Self.ID {
		return c.peers[id].groups[group].Unfit.String()
	}
	g := c.groups[group]
	if u := c.unfit(g); u != 0 {
		return u.String()
	}
	return strings.Join(c.ails(g), "; ")
}

// campaign stands for leader when the leader is lost and it is this node's turn.
func (c *Core) campaign() {
	c.campaignAt = 0
	at, ok := c.hearing.CampaignAt(c.now, c.leader.ID, c.log.Last, c.lastCampaign)
	if !ok || c.stop.asked || c.retired() {
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

// abdicate asks another to lead while this node's disk is of no use or it was removed
// from the cluster, again each second until it has.
func (c *Core) abdicate() {
	if c.disk == nil && !c.retired() || !c.leader.Self || c.now.Sub(c.lead.abdicated) < time.Second {
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
