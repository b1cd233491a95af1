package raftnode

import (
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// voterLog feeds an election.VoterTrail with what the library stores: its own
// GetConfiguration gives no index, and what counts for leases is the last two sets
// with their positions (lease.md, V5). Its methods are called from the goroutines
// of the library, one or more at a time.
type voterLog struct {
	mu    sync.Mutex
	trail election.VoterTrail
	tell  func(election.VoterLog) // called under the lock, so that order is kept; nil: not yet

	configs []uint64 // where the configurations of the log stand, voters changed or not; the last is in force
	snapped uint64   // the last entry of the newest snapshot
}

// stored takes notice of entries that the log now holds. Entries from the first on
// replace what was there, whether or not the library said so before.
func (v *voterLog) stored(entries []*raft.Log) {
	if len(entries) == 0 {
		return
	}
	var sets []election.VoterSet
	v.mu.Lock()
	v.configs = slices.DeleteFunc(v.configs, func(i uint64) bool { return i >= entries[0].Index })
	for _, e := range entries {
		if e.Type == raft.LogConfiguration {
			v.configs = append(v.configs, e.Index)
			sets = append(sets, election.VoterSet{Term: e.Term, Index: e.Index, Voters: votersOf(raft.DecodeConfiguration(e.Data))})
		}
	}
	v.mu.Unlock()
	v.update(func(t *election.VoterTrail) bool { return t.Stored(entries[0].Index, sets...) })
}

// deleted takes notice of entries that the log no longer holds.
func (v *voterLog) deleted(first, last uint64) {
	v.mu.Lock()
	if last > v.snapped { // cut off; what is compacted stays in force
		v.configs = slices.DeleteFunc(v.configs, func(i uint64) bool { return i >= first && i <= last })
	}
	v.mu.Unlock()
	v.update(func(t *election.VoterTrail) bool { return t.Deleted(first, last) })
}

// commit takes notice that all entries up to index are committed.
func (v *voterLog) commit(index uint64) {
	v.update(func(t *election.VoterTrail) bool { return t.Commit(index) })
}

// snapshot takes notice of a durable snapshot, made here or sent by the leader.
func (v *voterLog) snapshot(meta raft.SnapshotMeta) {
	v.mu.Lock()
	v.snapped = max(v.snapped, meta.Index)
	behind := slices.DeleteFunc(v.configs, func(i uint64) bool { return i <= meta.Index })
	v.configs = slices.Insert(behind, 0, meta.ConfigurationIndex)
	v.mu.Unlock()
	set := election.VoterSet{Index: meta.ConfigurationIndex, Voters: votersOf(meta.Configuration)}
	v.update(func(t *election.VoterTrail) bool { return t.Snapshot(meta.Term, meta.Index, set) })
}

// update changes the trail, and tells if its view changed.
func (v *voterLog) update(change func(*election.VoterTrail) bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if change(&v.trail) && v.tell != nil {
		v.tell(v.trail.View())
	}
}

// attach names whom to tell of changes, and tells the present view.
func (v *voterLog) attach(tell func(election.VoterLog)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tell = tell
	tell(v.trail.View())
}

func (v *voterLog) current() election.VoterLog {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.trail.View()
}

// inForce returns where the configuration in force stands, if the last set of voters is
// still this one. A change that is made over that index is refused by the library when
// anything else has changed meanwhile.
func (v *voterLog) inForce(over election.VoterSet) (index uint64, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	last := v.trail.View().Last
	if last.Term != over.Term || last.Index != over.Index || len(v.configs) == 0 {
		return 0, fmt.Errorf("judged by the voters of entry %d of term %d, and they are those of entry %d of term %d now: %w",
			over.Index, over.Term, last.Index, last.Term, ErrVotersChanged)
	}
	return v.configs[len(v.configs)-1], nil
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
