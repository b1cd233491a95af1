package raftmodel

// A Sent says what became of a message from a leader.
type Sent uint8

// What can become of it.
const (
	_ Sent = iota
	// NotSent: the sender does not lead, the other does not run, or is not in the
	// leader's configuration.
	NotSent
	// Accepted: the follower did as it was told.
	Accepted
	// NewerTerm: the follower is in a newer term. A leader that hears it steps down.
	NewerTerm
	// NeedsSnapshot: what the follower lacks is not in the leader's log any more.
	NeedsSnapshot
	// Refused: the logs do not meet, as can be after a late snapshot.
	Refused
)

// String is the word in stories.
func (s Sent) String() string {
	return [...]string{"sent(0)", "not sent", "accepted", "newer term", "needs a snapshot", "refused"}[s]
}

// reached brings a message of a leader's term to a server. Without an accepting
// answer there is no more to do.
func (c *Cluster) reached(from int, term uint64, to int, answered bool) Sent {
	f := c.servers[to]
	if term < f.term {
		if l := c.servers[from]; answered && l.role == leader && l.term == term {
			l.follow() // it does not take over the term: that comes with the next message
		}
		return NewerTerm
	}
	if term > f.term || f.role != follower {
		f.follow()
		f.term = term
	}
	f.leader = from
	return Accepted
}

func (c *Cluster) sends(l, f int) bool {
	sv := c.servers[l]
	return sv.role == leader && l != f && c.servers[f].up && sv.latest.all().Has(f)
}

// Heartbeat tells a follower who leads, and no more. With answered false the leader
// does not hear the answer.
func (c *Cluster) Heartbeat(l, f int, answered bool) Sent {
	if !c.sends(l, f) {
		return NotSent
	}
	return c.reached(l, c.servers[l].term, f, answered)
}

// Replicate gives a follower the leader's entries up to an index, 0 for all, and the
// leader's commit index. That the two first look for where their logs meet, message
// by message, is part of it. With answered false the follower stored the entries and
// the leader does not know. An index behind what the follower has only tells it what
// is committed.
func (c *Cluster) Replicate(l, f int, upTo uint64, answered bool) Sent {
	if !c.sends(l, f) {
		return NotSent
	}
	sv := c.servers[l]
	if sent := c.reached(l, sv.term, f, answered); sent != Accepted {
		return sent
	}
	if last := sv.last().Index; upTo == 0 || upTo > last {
		upTo = last
	}
	for {
		next := sv.next[f]
		entries, ok := sv.entries(next, upTo)
		prev, known := sv.before(next)
		if !ok || !known {
			return NeedsSnapshot
		}
		if c.take(f, prev, entries, sv.commit) {
			if n := len(entries); n > 0 && answered {
				sv.next[f] = entries[n-1].Index + 1
				c.acknowledged(l, f, entries[n-1].Index)
			}
			return Accepted
		}
		lower := max(min(next-1, c.servers[f].last().Index+1), 1)
		if lower == next {
			return Refused
		}
		sv.next[f] = lower
	}
}

// entries returns the entries from one index to another, and whether the log still
// holds the first, if there is one.
func (s *server) entries(from, to uint64) ([]Entry, bool) {
	if from > to {
		return nil, true
	}
	if len(s.log) == 0 || from < s.log[0].Index {
		return nil, false
	}
	first := s.log[0].Index
	return s.log[from-first : to-first+1], true
}

// before returns the position before an index, and whether the server knows it.
func (s *server) before(index uint64) (Position, bool) {
	if index == 1 {
		return Position{}, true
	}
	if top := s.top(); index-1 == top.Index {
		return top, true
	}
	if e := s.at(index - 1); e != nil {
		return e.Position, true
	}
	return Position{}, false
}

// take has a follower check, store and commit.
//
// The library takes as committed what the leader has committed and the follower has
// at all; here it is only what this message has shown to be the same in both logs.
// That is Raft's own rule and the library's in effect, which never sends less than
// what would cut off a wrong tail. And what a follower has under its snapshot is
// taken to be the same as the leader's, which it is; the library, which keeps some
// hundreds of entries behind a snapshot, has no need of that.
func (c *Cluster) take(s int, prev Position, entries []Entry, leaderCommit uint64) bool {
	sv := c.servers[s]
	under := sv.top().Index
	if prev.Index > under && !sv.has(prev) {
		return false
	}
	same := prev.Index
	for len(entries) > 0 && entries[0].Index <= max(sv.logEnd(), under) {
		if own := sv.at(entries[0].Index); own != nil && own.Term != entries[0].Term {
			c.cutOff(s, own.Index)
			break
		}
		same = entries[0].Index
		entries = entries[1:]
	}
	if n := len(entries); n > 0 {
		c.store(s, entries...)
		same = entries[n-1].Index
	}
	if index := min(leaderCommit, same); index > sv.commit {
		c.committed(s, index)
	}
	return true
}

// has reports whether the server has an entry, or a snapshot that ends with it.
func (s *server) has(p Position) bool {
	if s.last() == p {
		return true
	}
	e := s.at(p.Index)
	return e != nil && e.Term == p.Term
}

func (s *server) logEnd() uint64 {
	if n := len(s.log); n > 0 {
		return s.log[n-1].Index
	}
	return 0
}

// cutOff removes the entries from an index on, which another leader never committed.
func (c *Cluster) cutOff(s int, index uint64) {
	sv := c.servers[s]
	last := sv.logEnd()
	sv.log = sv.log[:index-sv.log[0].Index]
	c.viewChanged(s, sv.trail.Deleted(index, last))
	if index <= sv.latest.index {
		sv.latest = sv.committed
	}
}

// InstallSnapshot brings a snapshot that a leader sent in a term to a server, and
// returns what the server's state machine went through, valid until the next
// operation. Any snapshot that the leader had in that term can be given, also an old
// one: a message that was held up. Neither the library nor the model compares it with
// what the server has: the state and the applied index jump back to it, and stay there
// until more is committed. The log and the commit index do not (lease.md, section 3,
// wording 6).
//
// In the library the configuration jumps back too, although the log holds a later one.
// Once members change again that can break Raft itself (TestMutants), so it does so here
// only with LostConfigurations.
//
// A log that does not continue the snapshot is dropped. The library keeps such a tail
// until the leader's next message; it would have to be longer than Trailing to be there.
func (c *Cluster) InstallSnapshot(l int, term uint64, f int, snap *Snapshot, answered bool) (Sent, []Applied) {
	sv := c.servers[f]
	if !sv.up || l == f {
		return NotSent, nil
	}
	if sent := c.reached(l, term, f, answered); sent != Accepted {
		return sent, nil
	}
	c.out = c.out[:0]
	if err := c.apply(f, -1); err != nil { // the state machine takes one thing after the other
		return Refused, c.out
	}
	c.install(f, snap)
	if from := c.servers[l]; answered && from.role == leader && from.term == term {
		from.next[f] = snap.Index + 1
		c.acknowledged(l, f, snap.Index)
	}
	return Accepted, c.out
}

func (c *Cluster) install(s int, snap *Snapshot) {
	sv := c.servers[s]
	c.keep(s, snap)
	sv.restore(snap)
	c.out = append(c.out, Applied{State: snap.State, Restored: true, Position: snap.Position})
	c.dropUnjoined(s, snap)
	if !c.LostConfigurations {
		sv.readConfigurations()
	}
	c.compactLog(s, snap.Index)
}

// dropUnjoined empties a log that went another way than a snapshot, or ended before it.
func (c *Cluster) dropUnjoined(s int, snap *Snapshot) {
	sv := c.servers[s]
	if len(sv.log) == 0 || snap.Index < sv.log[0].Index {
		return
	}
	if e := sv.at(snap.Index); e == nil || e.Term != snap.Term {
		first, last := sv.log[0].Index, sv.logEnd()
		sv.log = sv.log[:0]
		c.viewChanged(s, sv.trail.Deleted(first, last))
	}
}
