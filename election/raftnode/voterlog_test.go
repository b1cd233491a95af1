package raftnode

import (
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// instance returns an id whose first byte is b.
func instance(b byte) fsm.InstanceID { return fsm.InstanceID{b} }

func configuration(voters string, nonvoters ...byte) raft.Configuration {
	var c raft.Configuration
	add := func(b byte, s raft.ServerSuffrage) {
		c.Servers = append(c.Servers, raft.Server{Suffrage: s, ID: raft.ServerID(instance(b).String()), Address: raft.ServerAddress(string(b))})
	}
	for _, b := range []byte(voters) {
		add(b, raft.Voter)
	}
	for _, b := range nonvoters {
		add(b, raft.Nonvoter)
	}
	return c
}

func members(term, index uint64, voters string, nonvoters ...byte) *raft.Log {
	return &raft.Log{Term: term, Index: index, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(configuration(voters, nonvoters...))}
}

func noop(term, index uint64) *raft.Log {
	return &raft.Log{Term: term, Index: index, Type: raft.LogNoop}
}

func set(term, index uint64, voters string) election.VoterSet {
	s := election.VoterSet{Term: term, Index: index}
	for _, b := range []byte(voters) {
		s.Voters = append(s.Voters, instance(b))
	}
	return s
}

func TestVoterLog(t *testing.T) {
	store := func(e ...*raft.Log) func(*voterLog) { return func(v *voterLog) { v.stored(e) } }
	del := func(first, last uint64) func(*voterLog) { return func(v *voterLog) { v.deleted(first, last) } }
	commit := func(i uint64) func(*voterLog) { return func(v *voterLog) { v.commit(i) } }
	snap := func(term, index, at uint64, voters string) func(*voterLog) {
		return func(v *voterLog) {
			v.snapshot(raft.SnapshotMeta{Term: term, Index: index, ConfigurationIndex: at, Configuration: configuration(voters)})
		}
	}
	tests := []struct {
		name  string
		steps []func(*voterLog)
		want  election.VoterLog
	}{
		{"nothing", nil, election.VoterLog{}},
		{"bootstrapped, not committed", []func(*voterLog){store(members(1, 1, "abc"))},
			election.VoterLog{Last: set(1, 1, "abc")}},
		{"committed by what stands behind it", []func(*voterLog){store(members(1, 1, "abc"), noop(2, 2)), commit(2)},
			election.VoterLog{Last: set(1, 1, "abc"), LastCommitted: true}},
		{"the order of servers does not matter", []func(*voterLog){store(members(1, 1, "abc")), store(members(1, 4, "cab"))},
			election.VoterLog{Last: set(1, 1, "abc")}},
		{"a non-voter makes no new set and does not take the old one's commit", []func(*voterLog){
			store(members(1, 1, "abc")), commit(1), store(members(2, 5, "abc", 'd'))},
			election.VoterLog{Last: set(1, 1, "abc"), LastCommitted: true}},
		{"an appended set has its predecessor", []func(*voterLog){store(members(1, 1, "abc")), commit(3), store(members(2, 5, "abcd"))},
			election.VoterLog{Last: set(2, 5, "abcd"), Previous: set(1, 1, "abc")}},
		{"only the last two are remembered", []func(*voterLog){
			store(members(1, 1, "abc")), store(members(1, 2, "abcd")), commit(2), store(members(1, 3, "abcde")), commit(3), store(members(1, 4, "abcdef"))},
			election.VoterLog{Last: set(1, 4, "abcdef"), Previous: set(1, 3, "abcde")}},
		{"cut off: back to the one before", []func(*voterLog){
			store(members(1, 1, "abcd")), commit(3), store(members(2, 5, "abc")), del(4, 9)},
			election.VoterLog{Last: set(1, 1, "abcd"), LastCommitted: true}},
		{"cut off behind it: stays", []func(*voterLog){store(members(1, 1, "abcd"), members(2, 5, "abc")), del(6, 9)},
			election.VoterLog{Last: set(2, 5, "abc"), Previous: set(1, 1, "abcd")}},
		{"replaced without a word", []func(*voterLog){
			store(members(1, 1, "abcd")), commit(3), store(members(2, 5, "abc")), store(members(3, 5, "bcd"))},
			election.VoterLog{Last: set(3, 5, "bcd"), Previous: set(1, 1, "abcd")}},
		{"compaction keeps what is in force", []func(*voterLog){
			store(members(1, 1, "abc"), noop(1, 2), noop(1, 3)), commit(3), snap(1, 3, 1, "abc"), del(1, 2)},
			election.VoterLog{Last: set(1, 1, "abc"), LastCommitted: true}},
		{"compaction keeps the predecessor of an open change", []func(*voterLog){
			store(members(1, 1, "abc"), noop(1, 2), noop(1, 3)), commit(3), store(members(1, 4, "ab")), snap(1, 3, 1, "abc"), del(1, 3)},
			election.VoterLog{Last: set(1, 4, "ab"), Previous: set(1, 1, "abc")}},
		{"after a restart behind compaction: the snapshot's", []func(*voterLog){snap(4, 90, 60, "abc")},
			election.VoterLog{Last: set(4, 60, "abc"), LastCommitted: true}},
		{"sent snapshot with a set never seen", []func(*voterLog){store(members(1, 1, "abc")), commit(1), snap(4, 90, 60, "abcd")},
			election.VoterLog{Last: set(4, 60, "abcd"), LastCommitted: true}},
		{"sent snapshot takes the place of another leader's set", []func(*voterLog){
			store(members(1, 1, "abcd")), commit(3), store(members(2, 50, "abc")), snap(3, 55, 1, "abcd")},
			election.VoterLog{Last: set(3, 1, "abcd"), LastCommitted: true}},
		{"a set behind the snapshot, of an earlier term, is dead", []func(*voterLog){
			store(members(1, 1, "abcd")), commit(3), store(members(2, 58, "abc")), snap(3, 55, 1, "abcd")},
			election.VoterLog{Last: set(1, 1, "abcd"), LastCommitted: true}},
		{"a set behind the snapshot, of its term, lives", []func(*voterLog){
			store(members(1, 1, "abcd")), commit(3), store(members(3, 58, "abc")), snap(3, 55, 1, "abcd")},
			election.VoterLog{Last: set(3, 58, "abc"), Previous: set(1, 1, "abcd")}},
		{"a late old snapshot takes nothing back", []func(*voterLog){
			store(members(1, 1, "abc")), commit(1), store(members(1, 60, "abcd")), commit(70), snap(1, 55, 1, "abc")},
			election.VoterLog{Last: set(1, 60, "abcd"), Previous: set(1, 1, "abc"), LastCommitted: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := &voterLog{}
			var told []election.VoterLog
			v.attach(func(l election.VoterLog) { told = append(told, l) })
			for _, step := range tt.steps {
				step(v)
			}
			if got := v.current(); !got.Equal(tt.want) {
				t.Errorf("voter log\n got %+v\nwant %+v", got, tt.want)
			}
			if last := told[len(told)-1]; !last.Equal(tt.want) {
				t.Errorf("told last\n got %+v\nwant %+v", last, tt.want)
			}
			if repeats := len(told) - len(slices.CompactFunc(slices.Clone(told), election.VoterLog.Equal)); repeats != 0 {
				t.Errorf("told %d times what had not changed", repeats)
			}
		})
	}
}
