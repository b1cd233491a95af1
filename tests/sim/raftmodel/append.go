package raftmodel

import (
	"errors"
	"fmt"

	"github.com/quorate/quorate/fsm"
)

// Errors of Append and of the changes of configuration. Nothing was appended.
var (
	// ErrNotLeader means that the server does not lead.
	ErrNotLeader = errors.New("the server does not lead")
	// ErrNotOpened means that the leader's term does not have its Lead yet, which
	// goes before everything else.
	ErrNotOpened = errors.New("the first command of a term must be Lead")
	// ErrUnstable means that the previous change of configuration is not committed, or
	// that the leader has committed nothing of its own term yet.
	ErrUnstable = errors.New("the configuration is not stable")
	// ErrNoChange means a change that would change nothing, or leave no voter.
	ErrNoChange = errors.New("not a possible change of the configuration")
)

// Append appends a command on a leader and returns where it stands. Nothing is sent.
func (c *Cluster) Append(l int, cmd fsm.Command) (Position, error) {
	sv := c.servers[l]
	switch {
	case sv.role != leader:
		return Position{}, ErrNotLeader
	case !sv.opened && cmd.Lead == nil:
		return Position{}, ErrNotOpened
	}
	sv.opened = true
	return c.appendOwn(l, Entry{Kind: KindCommand, Command: &cmd}), nil
}

// AddNonvoter has a server get the log without a vote.
func (c *Cluster) AddNonvoter(l, s int) (Position, error) {
	return c.change(l, func(v Configuration) Configuration {
		if !v.Voters.Has(s) {
			v.Nonvoters = v.Nonvoters.With(s)
		}
		return v
	})
}

// AddVoter gives a non-voter its vote. As with raftnode it must have been added
// without one before.
func (c *Cluster) AddVoter(l, s int) (Position, error) {
	return c.change(l, func(v Configuration) Configuration {
		if v.Nonvoters.Has(s) {
			v.Voters, v.Nonvoters = v.Voters.With(s), v.Nonvoters.Without(s)
		}
		return v
	})
}

// Demote takes a voter's vote and leaves it the log.
func (c *Cluster) Demote(l, s int) (Position, error) {
	return c.change(l, func(v Configuration) Configuration {
		if v.Voters.Has(s) {
			v.Voters, v.Nonvoters = v.Voters.Without(s), v.Nonvoters.With(s)
		}
		return v
	})
}

// Remove takes a server out of the cluster.
func (c *Cluster) Remove(l, s int) (Position, error) {
	return c.change(l, func(v Configuration) Configuration {
		return Configuration{Voters: v.Voters.Without(s), Nonvoters: v.Nonvoters.Without(s)}
	})
}

// change appends a configuration on a leader. It counts from when it is appended, as
// in Raft, and takes the marks of those that lose their vote.
func (c *Cluster) change(l int, edit func(Configuration) Configuration) (Position, error) {
	sv := c.servers[l]
	switch {
	case sv.role != leader:
		return Position{}, ErrNotLeader
	case !sv.opened:
		return Position{}, ErrNotOpened
	case sv.latest.index != sv.committed.index || sv.commit < sv.first:
		return Position{}, ErrUnstable
	}
	was := sv.latest.Configuration
	now := edit(was)
	if now == was || now.Voters == 0 {
		return Position{}, fmt.Errorf("from %b, %b to %b, %b: %w", was.Voters, was.Nonvoters, now.Voters, now.Nonvoters, ErrNoChange)
	}
	for gone := was.Voters &^ now.Voters; gone != 0; gone = gone.rest() {
		sv.match[gone.first()] = 0
	}
	at := c.appendOwn(l, Entry{Kind: KindConfiguration, Configuration: now})
	for added := now.all() &^ was.all(); added != 0; added = added.rest() {
		sv.next[added.first()] = at.Index + 1
	}
	c.count(l)
	return at, nil
}

// appendOwn appends an entry of the leader's own term.
func (c *Cluster) appendOwn(l int, e Entry) Position {
	sv := c.servers[l]
	e.Position = Position{Term: sv.term, Index: sv.last().Index + 1}
	c.store(l, e)
	c.acknowledged(l, l, e.Index)
	return e.Position
}

// store appends entries to a server's log. The trail is told before anyone can hear
// that the server has them.
func (c *Cluster) store(s int, entries ...Entry) {
	sv := c.servers[s]
	for i := range entries {
		if entries[i].Kind == KindConfiguration {
			sv.reconfigure(&entries[i])
		}
	}
	sv.log = append(sv.log, entries...)
	c.viewChanged(s, sv.trail.Stored(entries[0].Index, c.setsIn(entries, 0, ^uint64(0))...))
}

// acknowledged notes on a leader that a server has its log up to an index. Who has no
// vote does not count, be it the leader.
func (c *Cluster) acknowledged(l, s int, index uint64) {
	sv := c.servers[l]
	if sv.latest.Voters.Has(s) && index > sv.match[s] {
		sv.match[s] = index
		c.count(l)
	}
}

// count raises a leader's commit index to what a majority of its newest
// configuration has, if that is of its own term.
func (c *Cluster) count(l int) {
	sv := c.servers[l]
	var matched [MaxServers]uint64 // ascending
	n := 0
	for set := sv.latest.Voters; set != 0; set = set.rest() {
		m := sv.match[set.first()]
		i := n
		for ; i > 0 && matched[i-1] > m; i-- {
			matched[i] = matched[i-1]
		}
		matched[i] = m
		n++
	}
	if index := matched[(n-1)/2]; index >= sv.first && index > sv.commit {
		c.committed(l, index)
		if !sv.committed.Voters.Has(l) && sv.committed.index == sv.latest.index {
			sv.follow() // it was removed
		}
	}
}

// committed raises a server's commit index and hands the entries to its state machine.
func (c *Cluster) committed(s int, index uint64) {
	sv := c.servers[s]
	c.truth.committed(s, sv, index)
	sv.commit = index
	if sv.latest.index <= index {
		sv.committed = sv.latest
	}
	if index > sv.handed {
		sv.handed = index
	}
}

// An Outcome is what a leader can say of an entry that it appended.
type Outcome uint8

// The outcomes.
const (
	_       Outcome = iota
	Pending         // not yet
	Done            // it is committed, and the leader has applied it
	Unknown         // the server no longer leads in that term: the entry may be committed still
)

// String is the outcome's word in stories.
func (o Outcome) String() string {
	return [...]string{"outcome(0)", "pending", "done", "unknown"}[o]
}

// Outcome says what a server that appended an entry as leader knows of it.
func (c *Cluster) Outcome(l int, at Position) Outcome {
	sv := c.servers[l]
	switch {
	case sv.role != leader || sv.term != at.Term:
		return Unknown
	case sv.applied >= at.Index:
		return Done
	}
	return Pending
}
