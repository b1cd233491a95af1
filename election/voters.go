package election

import (
	"slices"

	"github.com/quorate/quorate/fsm"
)

// A VoterSet is a configuration entry of the Raft log, voters only. Term and
// Index say where in the log it stands; a change of non-voters is not a new set.
type VoterSet struct {
	Term, Index uint64
	Voters      []fsm.InstanceID // sorted
}

// IsZero reports whether there is no set.
func (s VoterSet) IsZero() bool { return len(s.Voters) == 0 }

// Has reports whether id votes in the set.
func (s VoterSet) Has(id fsm.InstanceID) bool { return slices.Contains(s.Voters, id) }

// Majority is how many voters of the set decide.
//
//quorate:rule majority
func (s VoterSet) Majority() int { return len(s.Voters)/2 + 1 }

// newer orders sets as Raft orders log entries.
func (s VoterSet) newer(o VoterSet) bool {
	if s.Term != o.Term {
		return s.Term > o.Term
	}
	return s.Index > o.Index
}

// A VoterLog is what one node's Raft log says about who votes: the last set, the
// one before it, and whether the node knows the last to be committed.
type VoterLog struct {
	Last, Previous VoterSet // Previous is zero when the log (with its snapshot) holds one set only
	LastCommitted  bool
}

// Required returns the sets of each of which a holder needs a majority: the
// newest that its own log or an unexpired answer names, and the one before it
// unless someone knows the newest to be committed.
func Required(logs []VoterLog) []VoterSet {
	var newest VoterSet
	for _, l := range logs {
		if l.Last.newer(newest) {
			newest = l.Last
		}
	}
	if newest.IsZero() {
		return nil
	}
	if before := uncommittedOver(newest, logs); !before.IsZero() {
		return []VoterSet{newest, before}
	}
	return []VoterSet{newest}
}

// uncommittedOver returns the set before the newest one, unless someone knows the
// newest to be committed or nobody knows of one before. Two children of one
// committed set need not intersect when that set is even, so an uncommitted one
// never counts alone (lease.md, V5).
//
//quorate:rule predecessor
func uncommittedOver(newest VoterSet, logs []VoterLog) (before VoterSet) {
	for _, l := range logs {
		if l.Last.newer(newest) || newest.newer(l.Last) {
			continue
		}
		if l.LastCommitted {
			return VoterSet{}
		}
		if !l.Previous.IsZero() {
			before = l.Previous
		}
	}
	return before
}

// knownLogs is what is known of the voter sets: the own log and what the unexpired
// answers say. The own one alone may be cut off from later sets.
//
//quorate:rule sets-of-answers
func knownLogs(own VoterLog, answered []VoterLog) []VoterLog { return append(answered, own) }
