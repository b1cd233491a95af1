package election

import "slices"

// A VoterTrail follows who votes as one node's Raft log and snapshots have it,
// while entries are stored, cut off, committed and compacted. What counts for
// leases is the last two sets with their positions in the log (lease.md, V5 and
// section 3, wording 7), which is its View.
//
// The zero value is the trail of an empty log. A VoterTrail has no lock: it belongs
// to one caller at a time, and a copy must not be changed beside the original. Its
// methods report whether they changed the view.
type VoterTrail struct {
	sets      []VoterSet // in log order, each with other voters than the one before
	committed uint64     // highest index known to be committed
	view      VoterLog
}

// Stored takes notice that the log now holds entries from index first on, whose
// changes of configuration are sets, in order. They replace what was there, whether
// or not that was said to be deleted before. The voters of each set are sorted.
func (t *VoterTrail) Stored(first uint64, sets ...VoterSet) bool {
	t.cut(first, ^uint64(0))
	for _, s := range sets {
		t.append(s)
	}
	return t.changed()
}

// append adds a set unless the entry changed non-voters only.
func (t *VoterTrail) append(s VoterSet) {
	if n := len(t.sets); n > 0 && (t.sets[n-1].Index >= s.Index || slices.Equal(t.sets[n-1].Voters, s.Voters)) {
		return
	}
	t.sets = append(t.sets, s)
}

// Deleted takes notice that the log no longer holds the entries from first to last.
// What is committed stays in force: the log was compacted there. The rest was cut
// off, because another leader decided otherwise.
func (t *VoterTrail) Deleted(first, last uint64) bool {
	t.cut(first, last)
	return t.changed()
}

func (t *VoterTrail) cut(first, last uint64) {
	t.sets = slices.DeleteFunc(t.sets, func(s VoterSet) bool {
		return s.Index > t.committed && s.Index >= first && s.Index <= last
	})
}

// Commit takes notice that all entries up to index are committed.
func (t *VoterTrail) Commit(index uint64) bool {
	if index <= t.committed {
		return false
	}
	t.committed = index
	return t.changed()
}

// Snapshot takes notice of a durable snapshot whose last entry is at index, of that
// term, and whose configuration was made by the entry at set.Index; set.Term, which
// no snapshot holds, is not read. What it holds is committed. One that was sent by
// the leader can hold a set that this node's log never had, or had otherwise. Such a
// set is entered under the snapshot's own term: too late a term, but any set that
// can still be committed after it stands behind the snapshot's index, in that term
// or a later.
//
// A snapshot older than what is known, which a late message can bring, changes nothing.
func (t *VoterTrail) Snapshot(term, index uint64, set VoterSet) bool {
	if index < t.committed {
		return false
	}
	after := slices.IndexFunc(t.sets, func(s VoterSet) bool { return s.Index > index })
	if after < 0 {
		after = len(t.sets)
	}
	// A set behind the snapshot, but of an earlier term, stands in a log that went
	// another way before the snapshot's end: it can never be committed.
	behind := slices.DeleteFunc(slices.Clone(t.sets[after:]), func(s VoterSet) bool { return s.Term < term })
	before := t.sets[:after]
	if n := len(before); !set.IsZero() && (n == 0 || !slices.Equal(before[n-1].Voters, set.Voters)) {
		before = []VoterSet{{Term: term, Index: set.Index, Voters: set.Voters}}
	}
	t.sets = append(slices.Clip(before), behind...)
	t.committed = index
	return t.changed()
}

// View is what the log says now about who votes. Treat its voters as read-only.
func (t *VoterTrail) View() VoterLog { return t.view }

// changed forgets what no rule asks for any more, and reports if the view changed.
func (t *VoterTrail) changed() bool {
	for len(t.sets) > 2 && t.sets[1].Index <= t.committed && t.sets[2].Index <= t.committed {
		t.sets = slices.Clone(t.sets[1:])
	}
	was := t.view
	t.view = VoterLog{}
	if n := len(t.sets); n > 0 {
		t.view.Last, t.view.LastCommitted = t.sets[n-1], t.sets[n-1].Index <= t.committed
		if n > 1 {
			t.view.Previous = t.sets[n-2]
		}
	}
	return !t.view.Equal(was)
}

// Equal reports whether two logs say the same.
func (l VoterLog) Equal(o VoterLog) bool {
	return l.LastCommitted == o.LastCommitted && l.Last.equal(o.Last) && l.Previous.equal(o.Previous)
}

func (s VoterSet) equal(o VoterSet) bool {
	return s.Term == o.Term && s.Index == o.Index && slices.Equal(s.Voters, o.Voters)
}
