package raftnode

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm"
)

func TestRemoveServer(t *testing.T) {
	bubble(t, 3, func(t *testing.T, l *lan) {
		l.form()
		h, gone := l.hosts[0], l.hosts[2]
		if err := l.hosts[1].RemoveServer(t.Context(), gone.self.ID, l.hosts[1].VoterLog().Last); !errors.Is(err, ErrNotLeader) {
			t.Errorf("on a follower: %v", err)
		}
		if err := h.RemoveServer(t.Context(), h.self.ID, h.VoterLog().Last); !errors.Is(err, ErrLeads) {
			t.Errorf("the leader itself: %v", err)
		}
		if err := h.RemoveServer(t.Context(), instance('z'), h.VoterLog().Last); err != nil {
			t.Errorf("one that is not there: %v", err)
		}
		l.propose(h, fsm.Command{Retire: &fsm.Retire{Node: gone.self.ID}})
		if !h.AcceptsFrom(gone.self.ID) {
			t.Error("a removed node is refused while its vote may be needed")
		}
		if err := errors.Join(gone.stop(), h.RemoveServer(t.Context(), gone.self.ID, h.VoterLog().Last)); err != nil {
			t.Fatal(err)
		}
		for _, left := range l.hosts[:2] {
			await1(t, "two voters on "+left.self.Name, func() bool {
				v := left.VoterLog()
				return v.LastCommitted && len(v.Last.Voters) == 2 && !v.Last.Has(gone.self.ID)
			})
			if left.AcceptsFrom(gone.self.ID) {
				t.Errorf("%s listens to a node that was removed", left.self.Name)
			}
		}
		// It was away and knows nothing of it. It stands for leader, and disturbs nobody.
		term := h.Leader().Term
		l.start(2)
		if err := gone.Campaign(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.propose(h, assign(h, l.hosts[1].self.ID))
		if got := h.Leader(); got.Term != term || !got.Self {
			t.Errorf("the removed node's candidacy made %+v of the leader of term %d", got, term)
		}
		if err := h.RemoveServer(t.Context(), l.hosts[1].self.ID, h.VoterLog().Last); err != nil {
			t.Fatal(err)
		}
		if err := h.RemoveServer(t.Context(), h.self.ID, h.VoterLog().Last); !errors.Is(err, ErrLastVoter) {
			t.Errorf("the last voter: %v", err)
		}
	})
}

// A node that comes back at another address keeps its vote there, and the set of voters
// is the same.
func TestAnotherAddress(t *testing.T) {
	bubble(t, 3, func(t *testing.T, l *lan) {
		l.form()
		h, moved := l.hosts[0], l.hosts[2]
		before := h.VoterLog()
		if err := moved.stop(); err != nil {
			t.Fatal(err)
		}
		moved.self.Address = netip.MustParseAddrPort("10.0.0.99:7950")
		l.start(2)
		l.propose(h, assign(h, l.hosts[1].self.ID)) // it is sent to the old address, for as long as that is known
		if err := h.AddNonvoter(t.Context(), moved.self); err != nil {
			t.Fatal(err)
		}
		await1(t, "the moved node follows", func() bool { return moved.State().Assignments["web"].Owner == l.hosts[1].self.ID })
		if id, ok := h.InstanceAt(raft.ServerAddress(moved.self.Address.String())); !ok || id != moved.self.ID {
			t.Errorf("instance at the new address: %v, %v", id, ok)
		}
		if after := h.VoterLog(); !after.Equal(before) {
			t.Errorf("voters %+v, were %+v", after, before)
		}
		if err := l.hosts[1].stop(); err != nil { // now its vote is needed
			t.Fatal(err)
		}
		l.propose(h, assign(h, moved.self.ID))
	})
}

// A change of voters that was judged by a set which is not the last any more is refused,
// however late it comes, and so is one over a configuration that changed on the way.
func TestChangeOverAnotherSet(t *testing.T) {
	bubble(t, 4, func(t *testing.T, l *lan) {
		l.form()
		h := l.hosts[0]
		judged := h.VoterLog().Last
		if err := h.RemoveServer(t.Context(), l.hosts[3].self.ID, judged); err != nil {
			t.Fatal(err)
		}
		if err := h.RemoveServer(t.Context(), l.hosts[2].self.ID, judged); !errors.Is(err, ErrVotersChanged) {
			t.Errorf("a removal judged by the set before: %v", err)
		}
		if err := h.AddNonvoter(t.Context(), l.hosts[3].self); err != nil {
			t.Fatal(err)
		}
		if err := h.AddVoter(t.Context(), l.hosts[3].self, judged); !errors.Is(err, ErrVotersChanged) {
			t.Errorf("a vote judged by the set before: %v", err)
		}
		last := h.stores.voters.configs
		h.stores.voters.configs = last[:len(last)-1] // as if it had changed since it was read
		if err := h.AddVoter(t.Context(), l.hosts[3].self, h.VoterLog().Last); err == nil {
			t.Error("a vote over a configuration that is not the last")
		}
		h.stores.voters.configs = last
		if err := h.AddVoter(t.Context(), l.hosts[3].self, h.VoterLog().Last); err != nil {
			t.Errorf("judged by the last set: %v", err)
		}
	})
}

// Where the configuration in force stands is known after whatever happens to the log.
func TestConfigurationInForce(t *testing.T) {
	config := func(index uint64) *raft.Log {
		var c raft.Configuration
		for i := range 1 + index%3 {
			c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(instance(byte('a' + i)).String()), Address: raft.ServerAddress(fmt.Sprint(index))})
		}
		return &raft.Log{Index: index, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)}
	}
	command := func(index uint64) *raft.Log { return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand} }
	v := &voterLog{}
	for _, step := range []struct {
		what string
		do   func()
		want uint64
	}{
		{"the first", func() { v.stored([]*raft.Log{config(1), command(2), command(3)}) }, 1},
		{"another", func() { v.stored([]*raft.Log{config(4), command(5), config(6)}) }, 6},
		{"cut off", func() { v.deleted(6, 6) }, 4},
		{"overwritten", func() { v.stored([]*raft.Log{command(4)}) }, 1},
		{"once more", func() { v.stored([]*raft.Log{command(5), config(6), command(7)}) }, 6},
		{"a snapshot behind it", func() { v.snapshot(raft.SnapshotMeta{Index: 7, Term: 1, ConfigurationIndex: 6}) }, 6},
		{"compacted", func() { v.deleted(1, 7) }, 6},
		{"a snapshot before it", func() {
			v.stored([]*raft.Log{command(8), config(9)})
			v.snapshot(raft.SnapshotMeta{Index: 8, Term: 1, ConfigurationIndex: 6})
		}, 9},
		{"cut off behind the snapshot", func() { v.deleted(9, 9) }, 6},
		{"the leader's snapshot", func() { v.snapshot(raft.SnapshotMeta{Index: 20, Term: 2, ConfigurationIndex: 15}) }, 15},
	} {
		step.do()
		if got, err := v.inForce(v.current().Last); err != nil || got != step.want {
			t.Fatalf("%s: in force is %d, %v; want %d", step.what, got, err, step.want)
		}
	}
}
