package raftmodel

import "fmt"

// truth is what an onlooker who sees everything knows: who led, and what was
// committed. It finds out when Raft's promises are broken.
type truth struct {
	chosen []Position // what was committed first, by index - 1
	led    []int      // by term: the leader + 1, 0 if there was none
	broken error
}

// Violation is the first promise of Raft that was broken, nil as long as all are
// kept: one leader in a term, one entry committed at an index, and a leader that
// lacks nothing which is committed. Late snapshots, wiped voters and two clusters that
// meet can break them.
func (c *Cluster) Violation() error { return c.truth.broken }

func (t *truth) breaks(format string, args ...any) {
	if t.broken == nil {
		t.broken = fmt.Errorf(format, args...)
	}
}

// leads notes a won election.
func (t *truth) leads(s int, sv *server) {
	for uint64(len(t.led)) <= sv.term {
		t.led = append(t.led, 0)
	}
	if other := t.led[sv.term]; other != 0 {
		t.breaks("servers %d and %d both lead in term %d", other-1, s, sv.term)
	}
	t.led[sv.term] = s + 1
	if n := len(t.chosen); n > 0 && !sv.holds(t.chosen[n-1]) {
		t.breaks("server %d leads in term %d without the committed entry %+v", s, sv.term, t.chosen[n-1])
	}
}

// holds reports whether an entry is in the server's log or under a snapshot of it.
func (s *server) holds(p Position) bool {
	if e := s.at(p.Index); e != nil {
		return e.Term == p.Term
	}
	return p.Index <= s.top().Index
}

// committed notes that a server takes its log as committed up to an index.
func (t *truth) committed(s int, sv *server, index uint64) {
	for i := sv.commit + 1; i <= index; i++ {
		e := sv.at(i)
		switch {
		case e == nil: // under a snapshot
		case i > uint64(len(t.chosen)):
			t.chosen = append(t.chosen, e.Position)
		case t.chosen[i-1] != e.Position:
			t.breaks("server %d takes entry %+v as committed, and committed is %+v", s, e.Position, t.chosen[i-1])
		}
	}
}
