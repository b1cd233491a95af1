package raftmodel

import (
	"errors"
	"fmt"

	"github.com/quorate/quorate/election"
)

// Started is what a process knows when it has read its disk.
type Started struct {
	AtStart election.LogAtStart
	// Applied holds the snapshot that was restored, if there is one. It is valid
	// until the next operation.
	Applied []Applied
	Voters  election.VoterLog
}

// Start starts the process of a stopped server. What it knew of commits and leaders
// before is gone; what it applied beyond its snapshot is applied again when a leader
// has said what is committed. It panics if the server runs.
func (c *Cluster) Start(s int) Started {
	sv := c.servers[s]
	if sv.up {
		panic(fmt.Sprintf("raftmodel: server %d was started and runs already", s))
	}
	sv.up, sv.state = true, c.empty
	sv.follow()
	c.out = c.out[:0]
	snap := c.Snapshot(s)
	if snap != nil {
		sv.restore(snap)
		c.out = append(c.out, Applied{State: snap.State, Restored: true, Position: snap.Position})
	}
	sv.readConfigurations()
	c.readTrail(sv, snap)
	return Started{AtStart: sv.atStart(), Applied: c.out, Voters: sv.trail.View()}
}

// readTrail reads the voter sets as raftnode does when it opens its stores. What the
// log holds behind the snapshot comes first: a snapshot lacks the term of its set.
func (c *Cluster) readTrail(sv *server, snap *Snapshot) {
	sv.trail = election.VoterTrail{}
	from := uint64(0)
	if snap != nil {
		from = snap.Index + 1
		sv.trail.Stored(0, c.setsIn(sv.log, 0, from)...)
		sv.trail.Snapshot(snap.Term, snap.Index, c.setOf(snap))
	}
	sv.trail.Stored(from, c.setsIn(sv.log, from, ^uint64(0))...)
}

func (c *Cluster) setOf(snap *Snapshot) election.VoterSet {
	return election.VoterSet{Index: snap.ConfiguredAt, Voters: c.sorted(snap.Configuration.Voters)}
}

// setsIn returns the voter sets that stand in a log from one index up to before another.
func (c *Cluster) setsIn(log []Entry, from, before uint64) []election.VoterSet {
	var sets []election.VoterSet
	for i := range log {
		if e := &log[i]; e.Kind == KindConfiguration && e.Index >= from && e.Index < before {
			sets = append(sets, c.voterSet(e))
		}
	}
	return sets
}

// atStart is raftnode's Node.AtStart: no-ops and configurations are not waited for.
func (s *server) atStart() election.LogAtStart {
	at := election.LogAtStart{LastTerm: s.top().Term, LastCommand: s.state.Index}
	for i := range s.log {
		e := &s.log[i]
		if e.Index > s.top().Index && e.Kind == KindCommand {
			at.LastCommand = e.Index
		}
		at.LastTerm = max(at.LastTerm, e.Term)
	}
	return at
}

// Crash ends the process of a server. Its disk stays. A server that does not run
// stays as it is.
func (c *Cluster) Crash(s int) {
	sv := c.servers[s]
	*sv = server{id: sv.id, leader: nobody,
		term: sv.term, votedTerm: sv.votedTerm, votedFor: sv.votedFor, log: sv.log, snapshots: sv.snapshots}
}

// Wipe ends the process of a server and empties its disk. A voter that comes back
// so breaks what Raft rests on, and quorate refuses it; a host without its disk is a
// new instance (AddServer).
func (c *Cluster) Wipe(s int) { c.servers[s].wipe() }

// HasState reports whether a server's disk holds anything.
func (c *Cluster) HasState(s int) bool {
	sv := c.servers[s]
	return sv.term > 0 || len(sv.log) > 0 || len(sv.snapshots) > 0
}

// ErrHasState means that a server which has state was to be bootstrapped.
var ErrHasState = errors.New("the server has state already")

// Bootstrap writes the first configuration to the empty disk of a running server.
func (c *Cluster) Bootstrap(s int, conf Configuration) error {
	sv := c.servers[s]
	if !sv.up {
		return ErrDown
	}
	if c.HasState(s) {
		return ErrHasState
	}
	sv.term = 1
	c.store(s, Entry{Position: Position{Term: 1, Index: 1}, Kind: KindConfiguration, Configuration: conf})
	return nil
}

// ErrDown means that the server does not run.
var ErrDown = errors.New("the server does not run")

// Compact makes a snapshot of what a server has applied and cuts off the log before
// it, less Trailing. It reports false if there is nothing new, or while a
// configuration that the server knows to be committed is not applied: a snapshot
// could not say so.
func (c *Cluster) Compact(s int) bool {
	sv := c.servers[s]
	if !sv.up || sv.seen.Index <= sv.top().Index || sv.seen.Index < sv.committed.index {
		return false
	}
	snap := &Snapshot{Position: sv.seen, State: sv.state, Configuration: sv.committed.Configuration, ConfiguredAt: sv.committed.index}
	c.keep(s, snap)
	c.compactLog(s, snap.Index)
	return true
}

// keep puts a snapshot on the disk.
func (c *Cluster) keep(s int, snap *Snapshot) {
	sv := c.servers[s]
	i := 0
	for i < len(sv.snapshots) && newer(sv.snapshots[i].Position, snap.Position) {
		i++
	}
	all := append(append(sv.snapshots[:i:i], snap), sv.snapshots[i:]...)
	sv.snapshots = all[:min(len(all), snapshotsKept)]
	c.viewChanged(s, sv.trail.Snapshot(snap.Term, snap.Index, c.setOf(snap)))
}

// newer orders positions as Raft orders last entries.
func newer(a, b Position) bool {
	return a.Term > b.Term || a.Term == b.Term && a.Index > b.Index
}

// compactLog cuts off the log up to a snapshot's index, less Trailing.
func (c *Cluster) compactLog(s int, index uint64) {
	sv := c.servers[s]
	if len(sv.log) == 0 {
		return
	}
	first, last := sv.log[0].Index, sv.log[len(sv.log)-1].Index
	if last <= c.Trailing {
		return
	}
	if to := min(index, last-c.Trailing); to >= first {
		sv.log = sv.log[:copy(sv.log, sv.log[to-first+1:])]
		c.viewChanged(s, sv.trail.Deleted(first, to))
	}
}

// restore puts a snapshot in the place of the state. As in the library the commit
// index stays, and nothing asks whether the snapshot is older than the state.
func (s *server) restore(snap *Snapshot) {
	s.seen, s.state = snap.Position, snap.State
	s.handed, s.applied = snap.Index, snap.Index
	s.latest = configured{snap.Configuration, snap.ConfiguredAt}
	s.committed = s.latest
}

// readConfigurations looks for them in the newest snapshot and in the log behind it.
func (s *server) readConfigurations() {
	s.latest, s.committed = configured{}, configured{}
	if len(s.snapshots) > 0 {
		snap := s.snapshots[0]
		s.latest = configured{snap.Configuration, snap.ConfiguredAt}
		s.committed = s.latest
	}
	for i := range s.log {
		if e := &s.log[i]; e.Index > s.top().Index && e.Kind == KindConfiguration {
			s.reconfigure(e)
		}
	}
	if s.latest.index <= s.commit {
		s.committed = s.latest
	}
}

// reconfigure takes a configuration that the log now holds. A leader changes the
// next only when the one before is committed.
func (s *server) reconfigure(e *Entry) {
	s.committed = s.latest
	s.latest = configured{e.Configuration, e.Index}
}
