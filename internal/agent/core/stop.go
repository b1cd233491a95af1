package core

import (
	"slices"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// stopping is how far a clean end of the process has come: say so, let the leader
// name others, let go as they are named, hand the leadership over, tell everyone
// once more, end.
type stopping struct {
	asked  bool
	forced bool // nobody took over in time: let go all the same
	since  election.Instant
	idleAt election.Instant // when the last group was let go
	handed bool
	done   bool
}

const (
	// stopPatience is how long a stopping node goes on serving while it waits for
	// others to be named.
	stopPatience = 2 * time.Second
	// handOver is how long a stopping leader waits for its successor.
	handOver = 300 * time.Millisecond
)

func (c *Core) beginStop() {
	if c.stop.asked {
		return
	}
	c.stop.asked, c.stop.since = true, c.now
	c.askNow = true
	if !c.alone {
		c.say(Info, "stopping: groups go to other nodes first")
	}
	c.leaderDuties()
}

// stopStep takes the next step of a clean end, if it is due.
func (c *Core) stopStep() {
	s := &c.stop
	if !s.asked || s.done {
		return
	}
	if !s.forced && (c.now.Sub(s.since) >= stopPatience || !c.someoneElse()) {
		s.forced = true
		c.touchAll()
		for _, g := range c.sorted() {
			g.touched = false
			c.advance(g)
		}
	}
	if !c.allLetGo() {
		s.idleAt = 0
		return
	}
	if s.idleAt == 0 {
		s.idleAt = c.now
	}
	if !s.handed && c.leader.Self {
		if n, ok := c.successor(); ok {
			c.do(AskCampaign{Node: n})
		}
		s.handed = true
	}
	if c.now.Before(c.lingerUntil()) {
		return
	}
	s.done = true
	c.do(Done{})
}

// someoneElse reports whether any group that we have would be given to another.
func (c *Core) someoneElse() bool {
	if !c.hearing.Quorum(c.now, c.log.Last) {
		return false
	}
	return slices.ContainsFunc(fsm.Place(c.state, c.view()), func(a fsm.Assign) bool {
		return c.state.Assignments[a.Group].Owner == c.cfg.Self.ID
	})
}

func (c *Core) allLetGo() bool {
	for name, a := range c.state.Assignments {
		if a.Owner == c.cfg.Self.ID && !c.stop.forced && c.groups[name] != nil {
			return false
		}
	}
	for _, g := range c.groups {
		if g.phase != idle {
			return false
		}
	}
	return true
}

// lingerUntil is when everyone has been told often enough: releases are repeated
// for a lease, and a leader gives its successor a moment.
func (c *Core) lingerUntil() election.Instant {
	until := c.stop.idleAt
	if c.leader.Self && c.stop.handed && len(c.log.Last.Voters) > 1 {
		until = until.Add(handOver)
	}
	for _, g := range c.groups {
		if g.releasedAt >= c.stop.since {
			until = max(until, g.repeatUntil)
		}
	}
	return until
}

// due is when the next step of the end is due; zero: nothing is.
func (s *stopping) due(c *Core) election.Instant {
	switch {
	case !s.asked || s.done:
		return 0
	case s.idleAt != 0:
		return max(c.lingerUntil(), c.now+1)
	case !s.forced:
		return s.since.Add(stopPatience)
	}
	return 0
}

// Abandon lets go of everything at once, without waiting for anybody: the process
// ends because a part of it failed. The fence is shut and the removal of the
// addresses begun; nobody is told, so that others wait out the lease.
func (c *Core) Abandon(now election.Instant) []Effect {
	c.now, c.out = max(now, c.now), nil
	c.stop.asked, c.stop.forced = true, true
	for _, g := range c.sorted() {
		c.shut(g, "shutdown")
		if c.alone {
			c.farewell(g)
		}
		g.lastWords = nil
	}
	c.advanced = true
	c.transitions()
	return c.out
}
