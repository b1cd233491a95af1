package raftnode

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm"
)

// A script is a leader that the test plays towards one follower, the third host.
type script struct {
	*raft.InmemTransport
	t  *testing.T
	l  *lan
	to *host
}

// scripted runs one follower, without a state at first.
func scripted(t *testing.T, disk func(*lan), f func(s *script)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 3)
		disk(l)
		to := l.start(2)
		addr := raft.ServerAddress(to.self.Address.String())
		_, trans := raft.NewInmemTransport("10.0.0.1:7950")
		trans.Connect(addr, l.trans[addr])
		f(&script{trans, t, l, to})
		if err := to.stop(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
	})
}

func wellDisk(*lan) {}

func (s *script) header() raft.RPCHeader {
	leader := s.l.hosts[0].self
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader.ID.String()), Addr: []byte(leader.Address.String())}
}

// members is a configuration of some of the hosts, all of them voters.
func (s *script) members(hosts ...int) (c raft.Configuration) {
	for _, i := range hosts {
		self := s.l.hosts[i].self
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(self.ID.String()), Address: raft.ServerAddress(self.Address.String())})
	}
	return c
}

// log is entries of term 1: three hosts, and the second of them leaves with entry at.
func (s *script) log(last, at uint64) (entries []*raft.Log) {
	data, err := fsm.Command{Lead: &fsm.Lead{Node: s.l.hosts[0].self.ID}}.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	for i := uint64(1); i <= last; i++ {
		e := &raft.Log{Index: i, Term: 1, Type: raft.LogCommand, Data: data}
		switch i {
		case 1:
			e.Type, e.Data = raft.LogConfiguration, raft.EncodeConfiguration(s.members(0, 1, 2))
		case at:
			e.Type, e.Data = raft.LogConfiguration, raft.EncodeConfiguration(s.members(0, 2))
		}
		entries = append(entries, e)
	}
	return entries
}

// entries is a message with entries of term 1.
func (s *script) entries(term, commit uint64, entries []*raft.Log) *raft.AppendEntriesRequest {
	a := &raft.AppendEntriesRequest{RPCHeader: s.header(), Term: term, LeaderCommitIndex: commit, Entries: entries}
	if a.PrevLogEntry = entries[0].Index - 1; a.PrevLogEntry > 0 {
		a.PrevLogTerm = 1
	}
	return a
}

func (s *script) send(a *raft.AppendEntriesRequest) error {
	var r raft.AppendEntriesResponse
	err := s.AppendEntries(s.to.id, raft.ServerAddress(s.to.self.Address.String()), a, &r)
	if err == nil && !r.Success {
		err = errors.New("refused")
	}
	return err
}

// snapshot sends a snapshot with the configuration of entry 1, and returns the answer.
func (s *script) snapshot(term, lastIndex, lastTerm uint64) raft.InstallSnapshotResponse {
	s.t.Helper()
	state, err := (&fsm.State{Index: lastIndex, Term: lastTerm}).Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	data := bytes.NewReader(state)
	var r raft.InstallSnapshotResponse
	if err := s.InstallSnapshot(s.to.id, raft.ServerAddress(s.to.self.Address.String()), &raft.InstallSnapshotRequest{
		RPCHeader: s.header(), SnapshotVersion: raft.SnapshotVersionMax, Term: term, LastLogIndex: lastIndex, LastLogTerm: lastTerm,
		Configuration: raft.EncodeConfiguration(s.members(0, 1, 2)), ConfigurationIndex: 1, Size: data.Size(),
	}, &r, data); err != nil {
		s.t.Fatal(err)
	}
	if data.Len() > 0 {
		s.t.Errorf("%d bytes of the snapshot are left on the connection", data.Len())
	}
	return r
}

// A snapshot of what a node has takes neither its state back nor its members, and the
// leader is told to go on. What the node does not have is installed as ever.
func TestSnapshotOfWhatIsThere(t *testing.T) {
	for _, tt := range []struct {
		name                  string
		term, commit          uint64 // of the five entries that the node has; the fourth changes the members
		compacted             uint64 // up to here the log is gone
		newer, lastIndex, end uint64 // the snapshot's: term of its leader, last entry, its term
		success               bool
		applied, nowTerm      uint64
		members               int
	}{
		{"applied", 1, 5, 2, 1, 2, 1, true, 5, 1, 2},
		{"the last that is applied", 1, 5, 5, 1, 5, 1, true, 5, 1, 2},
		{"in the log and not applied", 1, 1, 0, 1, 3, 1, true, 1, 1, 2},
		{"from the leader of a newer term", 1, 5, 0, 4, 2, 1, true, 5, 4, 2},
		{"from the leader of an older term", 3, 5, 0, 1, 2, 1, false, 5, 3, 2},
		{"new, from the leader of an older term", 3, 5, 0, 1, 9, 1, false, 5, 3, 2},
		{"behind the log's end", 1, 5, 0, 1, 9, 1, true, 9, 1, 3},
		{"over an entry of another leader", 1, 1, 0, 2, 3, 2, true, 3, 2, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scripted(t, wellDisk, func(s *script) {
				if err := s.send(s.entries(tt.term, tt.commit, s.log(5, 4))); err != nil {
					t.Fatal(err)
				}
				if err := s.to.log.DeleteRange(1, tt.compacted); err != nil {
					t.Fatal(err)
				}
				got := s.snapshot(tt.newer, tt.lastIndex, tt.end)
				if got.Success != tt.success || got.Term != tt.nowTerm {
					t.Errorf("answered success %v in term %d, want %v in %d", got.Success, got.Term, tt.success, tt.nowTerm)
				}
				r := s.to.Node.raft.Load()
				if r.AppliedIndex() != tt.applied || r.CurrentTerm() != tt.nowTerm {
					t.Errorf("applied %d in term %d, want %d in %d", r.AppliedIndex(), r.CurrentTerm(), tt.applied, tt.nowTerm)
				}
				if got := len(s.to.servers()); got != tt.members {
					t.Errorf("%d members, want %d", got, tt.members)
				}
				synctest.Wait()
				if got := s.to.State().Index; tt.applied == 5 && got != 5 {
					t.Errorf("the state is of entry %d, want 5", got)
				}
			})
		})
	}
}

// What a node has counts when its turn comes, not when the snapshot arrives.
func TestSnapshotBehindEntriesOnTheirWay(t *testing.T) {
	var f *faulty
	scripted(t, func(l *lan) { f = onFaultyDisk(l, 2) }, func(s *script) {
		log := s.log(5, 5)
		if err := s.send(s.entries(1, 3, log[:3])); err != nil {
			t.Fatal(err)
		}
		hang := make(chan struct{})
		f.set(hang, nil)
		stored := make(chan error, 1)
		go func() { stored <- s.send(s.entries(1, 5, log[3:])) }()
		time.Sleep(10 * time.Millisecond) // the main loop waits for the disk
		time.AfterFunc(10*time.Millisecond, func() { f.set(nil, nil); close(hang) })
		if got := s.snapshot(1, 4, 1); !got.Success {
			t.Errorf("answered %+v", got)
		}
		if err := <-stored; err != nil {
			t.Error(err)
		}
		if got, applied := len(s.to.servers()), s.to.Node.raft.Load().AppliedIndex(); got != 2 || applied != 5 {
			t.Errorf("%d members at entry %d, want 2 at 5", got, applied)
		}
	})
}
