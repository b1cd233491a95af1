package raftnode

import (
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// voterLog follows who votes, as this node's log and snapshots have it: the
// library's own GetConfiguration gives no index, and what counts for leases is the
// last two sets with their positions (lease.md, V5). Its methods are called from
// the goroutines of the library, one or more at a time.
type voterLog struct {
	mu        sync.Mutex
	sets      []election.VoterSet // in log order, each with other voters than the one before
	committed uint64              // highest index known to be committed
	told      election.VoterLog
	tell      func(election.VoterLog) // called under the lock, so that order is kept; nil: not yet
}

// stored takes notice of entries that the log now holds. Entries from the first on
// replace what was there, whether or not the library said so before.
func (v *voterLog) stored(entries []*raft.Log) {
	if len(entries) == 0 {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cut(entries[0].Index, ^uint64(0))
	for _, e := range entries {
		if e.Type == raft.LogConfiguration {
			v.append(election.VoterSet{Term: e.Term, Index: e.Index, Voters: votersOf(raft.DecodeConfiguration(e.Data))})
		}
	}
	v.changed()
}

// append adds a set unless the entry changed non-voters only.
func (v *voterLog) append(s election.VoterSet) {
	if n := len(v.sets); n > 0 && (v.sets[n-1].Index >= s.Index || slices.Equal(v.sets[n-1].Voters, s.Voters)) {
		return
	}
	v.sets = append(v.sets, s)
}

// deleted takes notice of entries that the log no longer holds. What is committed
// stays in force: the log was compacted there. The rest was cut off, because
// another leader decided otherwise.
func (v *voterLog) deleted(first, last uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cut(first, last)
	v.changed()
}

func (v *voterLog) cut(first, last uint64) {
	v.sets = slices.DeleteFunc(v.sets, func(s election.VoterSet) bool {
		return s.Index > v.committed && s.Index >= first && s.Index <= last
	})
}

// commit takes notice that all entries up to index are committed.
func (v *voterLog) commit(index uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if index <= v.committed {
		return
	}
	v.committed = index
	v.changed()
}

// snapshot takes notice of a durable snapshot: what it holds is committed. One that
// was sent by the leader can hold a set that this node's log never had, or had
// otherwise. Such a set is entered under the snapshot's own term, as the term of
// its entry is not in the snapshot: too late a term, but any set that can still
// be committed after it stands behind the snapshot's index, in that term or a later.
//
// A snapshot older than what is known, which a late message can bring, changes nothing.
func (v *voterLog) snapshot(meta raft.SnapshotMeta) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if meta.Index < v.committed {
		return
	}
	voters := votersOf(meta.Configuration)
	after := slices.IndexFunc(v.sets, func(s election.VoterSet) bool { return s.Index > meta.Index })
	if after < 0 {
		after = len(v.sets)
	}
	// A set behind the snapshot, but of an earlier term, stands in a log that went
	// another way before the snapshot's end: it can never be committed.
	behind := slices.DeleteFunc(slices.Clone(v.sets[after:]), func(s election.VoterSet) bool { return s.Term < meta.Term })
	before := v.sets[:after]
	if n := len(before); len(voters) > 0 && (n == 0 || !slices.Equal(before[n-1].Voters, voters)) {
		before = []election.VoterSet{{Term: meta.Term, Index: meta.ConfigurationIndex, Voters: voters}}
	}
	v.sets = append(slices.Clip(before), behind...)
	v.committed = meta.Index
	v.changed()
}

// changed forgets what no rule asks for any more, and tells if the view changed.
func (v *voterLog) changed() {
	for len(v.sets) > 2 && v.sets[1].Index <= v.committed && v.sets[2].Index <= v.committed {
		v.sets = slices.Clone(v.sets[1:])
	}
	view := v.view()
	if v.tell == nil || equalVoterLogs(view, v.told) {
		return
	}
	v.told = view
	v.tell(view)
}

// attach names whom to tell of changes, and tells the present view.
func (v *voterLog) attach(tell func(election.VoterLog)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tell, v.told = tell, v.view()
	tell(v.told)
}

func (v *voterLog) current() election.VoterLog {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.view()
}

func (v *voterLog) view() election.VoterLog {
	n := len(v.sets)
	if n == 0 {
		return election.VoterLog{}
	}
	l := election.VoterLog{Last: v.sets[n-1], LastCommitted: v.sets[n-1].Index <= v.committed}
	if n > 1 {
		l.Previous = v.sets[n-2]
	}
	return l
}

func equalVoterLogs(a, b election.VoterLog) bool {
	same := func(a, b election.VoterSet) bool {
		return a.Term == b.Term && a.Index == b.Index && slices.Equal(a.Voters, b.Voters)
	}
	return a.LastCommitted == b.LastCommitted && same(a.Last, b.Last) && same(a.Previous, b.Previous)
}

// votersOf returns who votes in a configuration, sorted. Ids that are not ours to
// make cannot be in it.
func votersOf(c raft.Configuration) []fsm.InstanceID {
	var voters []fsm.InstanceID
	for _, s := range c.Servers {
		if id, err := fsm.ParseInstanceID(string(s.ID)); err == nil && s.Suffrage == raft.Voter {
			voters = append(voters, id)
		}
	}
	slices.SortFunc(voters, func(a, b fsm.InstanceID) int { return slices.Compare(a[:], b[:]) })
	return voters
}
