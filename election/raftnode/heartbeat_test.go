package raftnode

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// shortcut is a transport whose heartbeats the test delivers.
type shortcut struct {
	*raft.InmemTransport
	handler func(raft.RPC)
}

func (s *shortcut) SetHeartbeatHandler(h func(raft.RPC)) { s.handler = h }

// beat delivers a heartbeat of the leader and returns the answer; none: it waits for
// the node's main loop.
func (s *shortcut) beat(leader *host, term uint64) <-chan raft.RPCResponse {
	answer := make(chan raft.RPCResponse, 1)
	go s.handler(raft.RPC{RespChan: answer, Command: &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader.id), Addr: []byte(leader.self.Address.String())},
		Term:      term,
	}})
	return answer
}

func within(d time.Duration, answer <-chan raft.RPCResponse) (raft.RPCResponse, bool) {
	select {
	case r := <-answer:
		return r, true
	case <-time.After(d):
		return raft.RPCResponse{}, false
	}
}

// A heartbeat takes the short way when it changes nothing, also past a main loop that
// waits for its disk. One that changes the term waits with everything else; who leads
// then is told at once.
func TestHeartbeatsThatChangeTheTermWait(t *testing.T) {
	bubble(t, 3, func(t *testing.T, l *lan) {
		var beats *shortcut
		f := onFaultyDisk(l, 2)
		l.adjust = func(h *host, n *Node) {
			if h == l.hosts[2] {
				connect := n.newTransport
				n.newTransport = func() voteTransport {
					beats = &shortcut{InmemTransport: connect().(*raft.InmemTransport)}
					return beats
				}
			}
		}
		l.form()
		leader, follower := l.leader(), l.hosts[2]
		if leader == follower {
			t.Fatal("the third host leads; the test is about a follower")
		}
		term := leader.Leader().Term
		hang := make(chan struct{})
		f.set(hang, nil)
		if err := leader.Propose(t.Context(), assign(leader, leader.self.ID)); err != nil {
			t.Fatal(err) // the others are a majority; the follower's loop now waits for its disk
		}
		time.Sleep(10 * time.Millisecond)
		if r, ok := within(time.Millisecond, beats.beat(leader, term)); !ok || r.Error != nil || !r.Response.(*raft.AppendEntriesResponse).Success {
			t.Errorf("a heartbeat of the present term: %+v, answered %v", r, ok)
		}
		newer := beats.beat(leader, term+3)
		if r, ok := within(rpcTimeout-time.Millisecond, newer); ok {
			t.Errorf("a heartbeat of a newer term passed the main loop: %+v", r)
		}
		if r, _ := within(2*time.Millisecond, newer); !errors.Is(r.Error, errHeldUp) {
			t.Errorf("after the sender's patience: %+v, want %v", r, errHeldUp)
		}
		if got := follower.Node.raft.Load().CurrentTerm(); got != term {
			t.Errorf("the term is %d, want %d still", got, term)
		}
		if got := follower.Leader(); got.Term != term+3 || got.ID != leader.self.ID || got.Self {
			t.Errorf("the leader is %+v, want %s in term %d", got, leader.self.Name, term+3)
		}
		close(hang)
		f.set(nil, nil)
		await1(t, "the disk's work to be done", func() bool { return follower.AppliedIndex() == leader.AppliedIndex() })
		if r, ok := within(time.Second, beats.beat(leader, term+3)); !ok || r.Error != nil {
			t.Errorf("a heartbeat of a newer term, with the disk well: %+v, answered %v", r, ok)
		}
		if got := follower.Node.raft.Load().CurrentTerm(); got != term+3 {
			t.Errorf("the term is %d, want %d", got, term+3)
		}
	})
}

// The term on the disk never goes back; whoever brings an older one ends there.
func TestTermNeverGoesBack(t *testing.T) {
	store := raft.NewInmemStore()
	s := &onward{StableStore: store}
	write := func(term uint64) (returned bool) {
		var ended sync.WaitGroup
		ended.Go(func() {
			if err := s.SetUint64([]byte(keyCurrentTerm), term); err != nil {
				t.Error(err)
			}
			returned = true
		})
		ended.Wait()
		return returned
	}
	if !write(7) || !write(8) || !write(8) {
		t.Error("a term that does not go back was not written")
	}
	if write(7) {
		t.Error("an older term was taken")
	}
	if got, err := store.GetUint64([]byte(keyCurrentTerm)); err != nil || got != 8 {
		t.Errorf("the term is %d (%v), want 8", got, err)
	}
	if err := s.SetUint64([]byte("LastVoteTerm"), 3); err != nil {
		t.Errorf("another key: %v", err)
	}
}
