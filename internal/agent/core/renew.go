package core

import (
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// A peer is what this node last heard another say of itself.
type peer struct {
	stamp   election.Stamp
	health  election.Health
	sources []netip.Addr // where its adverts come from
	heardGroups
	// coming is what the parts of its newest renewal say that have come so far. It
	// replaces the former when all have: in half of one, a group of the other half that
	// is in trouble would seem well.
	coming heardGroups
	parts  map[uint8]bool
}

// heardGroups is a node's word on groups.
type heardGroups struct {
	applied uint64 // by the state of this index
	groups  map[string]heardGroup
	dark    map[string]heardGroup // what it says of groups whose owner it hears waiting
}

func newHeardGroups(applied uint64) heardGroups {
	return heardGroups{applied, map[string]heardGroup{}, map[string]heardGroup{}}
}

// A heardGroup is another node's word on one group.
type heardGroup struct {
	election.GroupState
	at election.Instant // when it was heard
}

// sender is this node as every datagram names it.
func (c *Core) sender() election.Sender {
	return election.Sender{Cluster: c.state.Cluster, From: c.cfg.Self.ID}
}

// poll is what surrounds a question to the own voter now.
func (c *Core) poll() election.Poll {
	return election.Poll{Now: c.now, State: c.state, Log: c.log, ClockOK: c.clock == nil}
}

// renew asks every voter at once for everything that this node wants to hold, and
// tells them how it is. The own vote goes through the same code, with sending and
// receipt at the same instant.
func (c *Core) renew() {
	c.askNow, c.renewDue = false, false
	if !c.state.Formed() {
		return
	}
	c.lastStamp = c.now
	r := election.Renewal{
		Sender:  c.sender(),
		Stamp:   election.Stamp{Boot: c.cfg.Boot, At: c.now},
		Lease:   c.cfg.Lease,
		Grace:   c.cfg.Grace,
		Applied: c.state.Index,
		Health:  election.Health{VoterReady: c.voter.Ready(c.now), Stopping: c.stop.asked},
		Hears:   c.hears(),
		Sources: c.ownSources(),
		Groups:  c.groupStates(),
	}
	c.pace.asked(c.now, len(r.Groups), c.cfg.Renew)
	if to := c.others(); len(to) > 0 {
		c.do(Send{To: to, Datagrams: election.AppendRenewal(nil, r)})
	}
	if c.log.Last.Has(c.cfg.Self.ID) {
		c.ownVote(r)
	}
}

// hears is whom this node says that it hears. One that has only begun to listen says
// nothing, lest it be taken for deaf and lose what it has kept over its restart; later,
// who hears nobody names itself alone.
func (c *Core) hears() []election.Hearsay {
	if c.now.Sub(c.cfg.Started) < c.cfg.Lease && !c.hearing.Quorum(c.now, c.log.Last) {
		return nil
	}
	if said := c.hearing.Hears(c.now); len(said) > 0 {
		return said
	}
	return []election.Hearsay{{Node: c.cfg.Self.ID}}
}

// ownVote is a vote like any other: what blocks others blocks this node too.
//
//quorate:rule own-vote
func (c *Core) ownVote(r election.Renewal) {
	a, need := c.voter.Renewal(c.poll(), r)
	c.writeHold(need)
	c.answered(a)
}

// groupStates is what the renewal says of each group: those asked for, and those
// that this host cannot hold. While the clock is slewed nothing is asked.
func (c *Core) groupStates() []election.GroupState {
	var out []election.GroupState
	for _, g := range c.sorted() {
		s := election.GroupState{Group: g.def.Name, Epoch: g.epoch, Phase: election.PhaseIdle, Since: c.now.Sub(g.since)}
		s.Unfit, s.Adjust = c.fitness(g)
		if g.asks() && c.mayAsk() {
			s.Phase = election.PhaseWaiting
			if g.phase == active {
				s.Phase, s.Since = election.PhaseOpen, c.openFor(g)
			} else if c.yielded(g) {
				s.Phase = election.PhaseYielded
			}
		}
		if s.Phase != election.PhaseIdle || s.Unfit != 0 || s.Adjust != 0 {
			out = append(out, s)
		}
		if dark, ok := c.heardDark(g); ok {
			out = append(out, dark)
		}
	}
	return out
}

// mayAsk: what a slewed clock stamps is worth nothing.
//
//quorate:rule slewed-asks-nothing
func (c *Core) mayAsk() bool { return c.clock == nil }

// heardDark is what this node tells of a group whose owner it hears and that has
// not been open for a lease.
func (c *Core) heardDark(g *group) (election.GroupState, bool) {
	owner := c.state.Assignments[g.def.Name].Owner
	p := c.peers[owner]
	if p == nil || c.hearing.Silent(c.now, owner) {
		return election.GroupState{}, false
	}
	heard := p.groups[g.def.Name]
	since := heard.Since + c.now.Sub(heard.at)
	if heard.Phase != election.PhaseWaiting || heard.Epoch != g.epoch || since < c.cfg.Lease {
		return election.GroupState{}, false
	}
	return election.GroupState{Group: g.def.Name, Epoch: g.epoch, Phase: election.PhaseDark, Since: since}, true
}

// datagram takes a lease datagram from another node of this cluster.
func (c *Core) datagram(msg any) {
	switch m := msg.(type) {
	case election.Renewal:
		if c.ours(m.Sender) {
			c.heardRenewal(m)
		}
	case election.Answer:
		if c.ours(m.Sender) {
			c.answered(m)
		}
	case election.Release:
		if c.ours(m.Sender) {
			c.heardRelease(m)
		}
	}
}

// ours notes that a node of this cluster was heard; others' datagrams are dropped.
func (c *Core) ours(s election.Sender) bool {
	if !c.state.Formed() || s.Cluster != c.state.Cluster || s.From == c.cfg.Self.ID {
		return false
	}
	if !c.belongs(s.From) {
		return false
	}
	c.cameBack(s.From)
	c.hearing.Heard(c.now, s.From)
	return true
}

func (c *Core) heardRenewal(r election.Renewal) {
	p := c.peers[r.From]
	if p == nil {
		p = &peer{}
		c.peers[r.From] = p
	}
	if p.stamp != r.Stamp { // the first part of a new one
		if p.stamp.NewerThan(r.Stamp) {
			return // late: nothing in it is worth anything any more
		}
		if p.stamp.Boot != r.Stamp.Boot || r.Applied < p.coming.applied {
			c.noteBroken(r.From) // it has begun anew
		}
		p.stamp, p.coming, p.parts = r.Stamp, newHeardGroups(r.Applied), map[uint8]bool{}
	}
	stopping := r.Health.Stopping != p.health.Stopping
	p.health = r.Health
	if fresh := minus(r.Sources, p.sources); len(fresh) > 0 { // what it had before stays known: it may have begun anew, and not yet found all
		p.sources = slices.Concat(fresh, p.sources)[:min(len(fresh)+len(p.sources), 2*election.MaxSources)]
		c.nameInsiders()
	}
	c.hearing.Reported(c.now, r.From, min(r.Lease, c.state.Document.MaxHold), r.Hears)
	for _, g := range r.Groups {
		if g.Phase == election.PhaseDark {
			p.coming.dark[g.Group] = heardGroup{g, c.now}
			continue
		}
		p.coming.groups[g.Group] = heardGroup{g, c.now}
		c.heardOpen(r.From, g)
		c.heardOfGroup(r.From, g)
	}
	p.parts[r.Part] = true
	whole := len(p.parts) >= int(r.Parts)
	news := stopping || whole && !(p.heardGroups.saysAs(p.coming) && c.allHeard())
	if whole {
		p.heardGroups = p.coming
	}
	if c.log.Last.Has(c.cfg.Self.ID) || c.log.Previous.Has(c.cfg.Self.ID) {
		a, need := c.voter.Renewal(c.poll(), r)
		c.writeHold(need)
		c.reply(election.Reply{To: r.From, Answer: a})
	}
	if c.leader.Self && news {
		c.leaderDuties()
	}
}

// saysAs reports whether the leader would decide by the other what it decides by this
// one. The regular round looks at what only time changes.
func (h heardGroups) saysAs(o heardGroups) bool {
	if h.applied != o.applied || len(h.groups) != len(o.groups) || len(h.dark)+len(o.dark) > 0 {
		return false
	}
	for name, was := range h.groups {
		is, same := o.groups[name]
		was.Since, is.Since = min(was.Since, 1), min(is.Since, 1) // zero says that addresses are still to come
		if !same || was.GroupState != is.GroupState {
			return false
		}
	}
	return true
}

// allHeard reports whether nobody is missing: every node was heard of late.
func (c *Core) allHeard() bool {
	return !slices.ContainsFunc(c.nodes(), func(n fsm.Node) bool {
		return n.ID != c.cfg.Self.ID && !c.hearing.HeardWithin(c.now, n.ID, 2*c.cfg.Renew)
	})
}

// heardRelease drops the voter's notes, and asks again at once for what this node
// waits for: the answers at hand still tell of the old owner.
func (c *Core) heardRelease(r election.Release) {
	c.voter.Release(c.now, r)
	for _, released := range r.Groups {
		if g := c.groups[released.Group]; g != nil && g.phase == waiting {
			c.askNow = true
		}
	}
	for _, g := range c.groups { // an address that comes to an open group may have been in another
		if g.open() && g.proof != g.epoch {
			c.askNow = true
		}
	}
}

// heardOpen learns from another node's open group: its addresses need no probe. One that
// has yielded is not open, and yet as it should be.
func (c *Core) heardOpen(from fsm.InstanceID, s election.GroupState) {
	g := c.groups[s.Group]
	if g == nil || s.Phase != election.PhaseOpen && s.Phase != election.PhaseYielded {
		return
	}
	if a := c.state.Assignments[s.Group]; a.Owner == from && a.Epoch == s.Epoch {
		g.proven = g.proven || holdsAll(s)
		c.opened(s.Group, s.Epoch)
	}
}

func (c *Core) reply(r election.Reply) {
	n, ok := c.where(r.To)
	if !ok {
		return
	}
	if r.To == c.cfg.Self.ID {
		c.answered(r.Answer)
		return
	}
	c.do(Send{To: []netip.AddrPort{n.Address}, Datagrams: election.AppendAnswer(nil, r.Answer)})
}

// again answers what had to be put off.
func (c *Core) again() {
	replies, need := c.voter.Again(c.poll())
	c.writeHold(need)
	for _, r := range replies {
		c.reply(r)
	}
}

// answered takes a voter's answer, from the wire or from the own voter.
func (c *Core) answered(a election.Answer) {
	for _, ga := range a.Groups {
		g := c.groups[ga.Group]
		if g == nil {
			continue
		}
		g.touched = g.touched || c.matters(g, a, ga)
		switch ga.Verdict {
		case election.Confirmed:
			g.holder.Confirm(c.now, a, ga)
		case election.Stale:
			c.calledStale(g, a, ga)
		case election.Renewed: // what is held with proof is held on until this node applies it
			if g.unproven.since != 0 {
				c.calledStale(g, a, ga)
			}
		case election.Cloned, election.TooLong:
			c.complain(g, a, ga)
		}
	}
}

// matters reports whether the group is to be looked at because of an answer. Most that
// come for an open group only say again what others of the same question have said: they
// cannot move its deadline. There are hundreds of them a second with hundreds of groups.
func (c *Core) matters(g *group, a election.Answer, ga election.GroupAnswer) bool {
	if ga.Verdict != election.Confirmed || g.phase != active || g.proof != g.epoch || g.unproven.since != 0 || len(g.joining.at) > 0 {
		return true
	}
	alone := len(c.log.Last.Voters) == 1
	return a.Echo.At.Add(a.Lease).After(g.deadline) && (alone || a.From != c.cfg.Self.ID)
}

// calledStale: a voter has applied a newer epoch than the one asked for. If that
// is the one that we applied, another owner has been named: let go.
func (c *Core) calledStale(g *group, a election.Answer, ga election.GroupAnswer) {
	if ga.Epoch == g.epoch && a.Echo.Boot == c.cfg.Boot && g.stale != g.epoch {
		g.stale = g.epoch
		c.say(Info, "a voter knows a newer owner", "group", g.def.Name, "epoch", g.epoch, "voter", c.name(a.From))
	}
}

// complain says, once an epoch, what an operator has to mend.
func (c *Core) complain(g *group, a election.Answer, ga election.GroupAnswer) {
	if g.complained == g.epoch {
		return
	}
	g.complained = g.epoch
	switch ga.Verdict {
	case election.Cloned:
		c.say(Error, "a voter hears this instance id from two machines: one data_dir was copied to another host; "+
			"stop one of them and give it an empty data_dir", "group", g.def.Name, "voter", c.name(a.From))
	case election.TooLong:
		c.say(Error, "a voter refuses this node's lease: it is longer than the cluster allows", "group", g.def.Name,
			"voter", c.name(a.From), "lease", c.cfg.Lease, "grace", c.cfg.Grace, "bound", c.state.Document.MaxHold)
	}
}

// writeHold has a longer hold written down, one at a time; a still longer one that
// is needed meanwhile is asked for again when this one is done.
func (c *Core) writeHold(need time.Duration) {
	if need > 0 && c.writing == 0 {
		c.writing = need
		c.do(WriteHold{Hold: need})
	}
}

func (c *Core) holdWritten(ev HoldWritten) {
	c.writing = 0
	if !ev.durable() {
		c.say(Error, "cannot write to data_dir: this node confirms no longer lease", "error", ev.Err)
		return
	}
	c.voter.SetLongest(ev.Hold)
	c.again()
}

// durable: a longer hold is confirmed only when it is on disk.
//
//quorate:rule longest-durable
func (ev HoldWritten) durable() bool { return ev.Err == nil }

// tellRelease sends the group's release to every voter, the own one first.
func (c *Core) tellRelease(gs ...*group) {
	r := election.Release{Sender: c.sender(), Boot: c.cfg.Boot}
	for _, g := range gs {
		r.Groups = append(r.Groups, election.GroupRelease{Group: g.def.Name, At: c.releaseStamp(g)})
	}
	c.voter.Release(c.now, r)
	if to := c.others(); len(to) > 0 {
		c.do(Send{To: to, Datagrams: election.AppendRelease(nil, r)})
	}
}

// releaseStamp is the instant at which the group was let go, in every repetition. A
// fresh one would void what was asked since.
//
//quorate:rule release-stamp
func (c *Core) releaseStamp(g *group) election.Instant { return g.releasedAt }

// repeatReleases says each release again for one lease, with its own stamp: a
// datagram can be lost, and a voter that missed it would keep others waiting.
func (c *Core) repeatReleases() {
	var gs []*group
	for _, g := range c.sorted() {
		if g.releasedAt != 0 && c.now.Before(g.repeatUntil) {
			gs = append(gs, g)
		}
	}
	if len(gs) > 0 && c.mayRelease() {
		c.tellRelease(gs...)
	}
}

// probed: the LAN was asked whether another host has the address.
func (c *Core) probed(ev Probed) {
	g := c.groups[ev.Group]
	if g != nil && g.phase == active && ev.Gen == g.joining.gen {
		c.joinProbed(g, ev)
		return
	}
	if g == nil || ev.Gen != g.gen || g.phase != probing {
		return
	}
	g.touched = true
	g.enter(waiting, g.since)
	switch {
	case ev.Err != nil:
		c.say(Error, "cannot ask the LAN whether the address is free", "group", ev.Group, "error", ev.Err)
		c.failed(g, election.UnfitKernel, kernelRetry)
	case ev.MAC != "" && !slices.Contains(addrsOf(g.unasked()), ev.Addr):
		g.conflict = "" // a router was heard meanwhile that advertises it
	case ev.MAC != "":
		c.say(Error, "address conflict: another host answers for the address; it is not bound here", "group", ev.Group,
			"address", ev.Addr, "mac", ev.MAC)
		c.failed(g, election.UnfitConflict, probeRetry)
		g.conflict, g.conflictAddr = ev.Addr.String()+" is at "+ev.MAC, ev.Addr
	default:
		g.proven, g.conflict = true, ""
	}
}
