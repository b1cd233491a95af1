package raftnode

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

// A follower takes no more for committed than the message shows to be the leader's.
func TestCommitIsNoMoreThanIsShown(t *testing.T) {
	for _, tt := range []struct {
		name         string
		prev         uint64
		entries      int
		commit, want uint64
	}{
		{"nothing new, and a commit that came meanwhile", 7, 0, 8, 7},
		{"a follower that is far behind", 7, 2, 100, 9},
		{"from the beginning", 0, 3, 5, 3},
		{"entries that are not committed", 7, 2, 8, 8},
		{"all is told", 7, 0, 7, 7},
		{"a heartbeat", 0, 0, 0, 0},
	} {
		a := &raft.AppendEntriesRequest{PrevLogEntry: tt.prev, Entries: make([]*raft.Log, tt.entries), LeaderCommitIndex: tt.commit}
		if got := shownCommit(a); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// What a node has of a leader that is gone is not committed because the new one has
// committed something else in its place.
func TestStaleEntryIsNotCommitted(t *testing.T) {
	scripted(t, wellDisk, func(s *script) {
		if err := s.send(s.entries(1, 1, s.log(5, 0))); err != nil {
			t.Fatal(err)
		}
		// The leader of term 2 has four of these and has committed a fifth of its own.
		a := &raft.AppendEntriesRequest{RPCHeader: s.header(), Term: 2, PrevLogEntry: 4, PrevLogTerm: 1, LeaderCommitIndex: 5}
		var r raft.AppendEntriesResponse
		p := patient{s.InmemTransport, s.to.Node}
		if err := p.AppendEntries(s.to.id, raft.ServerAddress(s.to.self.Address.String()), a, &r); err != nil || !r.Success {
			t.Fatalf("answered %+v, %v", r, err)
		}
		if got := s.to.Stats(); got.CommitIndex != 4 || got.LastIndex != 5 {
			t.Errorf("%d of %d entries are committed, want 4 of 5", got.CommitIndex, got.LastIndex)
		}
	})
}

// No message goes round AppendEntries.
func TestNoPipeline(t *testing.T) {
	if _, err := (patient{}).AppendEntriesPipeline("", ""); !errors.Is(err, raft.ErrPipelineReplicationNotSupported) {
		t.Errorf("a pipeline: %v", err)
	}
}
