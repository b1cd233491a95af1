package raftnode

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// reopen opens the stores in a directory on the real disk, and fails the test if
// that fails.
func reopen(t *testing.T, d *DataDir) *stores {
	t.Helper()
	s, err := openStores(d, bridge(quiet()), newDiskWatch(time.Second, func(DiskHealth) {}))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func command(term, index uint64) *raft.Log {
	return &raft.Log{Term: term, Index: index, Type: raft.LogCommand, Data: []byte("{}")}
}

func takeSnapshot(t *testing.T, s *stores, term, index, at uint64, voters string, state *fsm.State) {
	t.Helper()
	_, trans := raft.NewInmemTransport("x")
	sink, err := s.snaps.Create(raft.SnapshotVersionMax, index, term, configuration(voters), at, trans)
	if err != nil {
		t.Fatal(err)
	}
	if err := (frozen{state}).Persist(sink); err != nil {
		t.Fatal(err)
	}
}

func TestStoresReadWhatIsOnDisk(t *testing.T) {
	type want struct {
		voters  election.VoterLog
		atStart election.LogAtStart
		has     bool
		live    election.VoterLog // before the restart, if not zero
	}
	tests := []struct {
		name string
		fill func(*testing.T, *stores) error
		want want
	}{
		{"nothing", func(*testing.T, *stores) error { return nil }, want{}},
		{"only a term", func(_ *testing.T, s *stores) error { return s.stable.SetUint64([]byte(keyCurrentTerm), 7) }, want{has: true}},
		{"log alone", func(_ *testing.T, s *stores) error {
			return s.log.StoreLogs([]*raft.Log{members(1, 1, "abc"), command(2, 2), members(2, 3, "abcd"), noop(3, 4)})
		}, want{
			election.VoterLog{Last: set(2, 3, "abcd"), Previous: set(1, 1, "abc")},
			election.LogAtStart{LastCommand: 2, LastTerm: 3}, true, election.VoterLog{}}},
		{"truncated", func(_ *testing.T, s *stores) error {
			return errors.Join(s.log.StoreLogs([]*raft.Log{members(1, 1, "abcd"), command(1, 2), members(2, 3, "abc"), command(2, 4)}),
				s.log.DeleteRange(3, 4))
		}, want{election.VoterLog{Last: set(1, 1, "abcd")}, election.LogAtStart{LastCommand: 2, LastTerm: 1}, true,
			election.VoterLog{Last: set(1, 1, "abcd")}}},
		{"compacted", func(t *testing.T, s *stores) error {
			err := s.log.StoreLogs([]*raft.Log{members(1, 1, "abc"), command(2, 2), noop(3, 3), noop(3, 4)})
			takeSnapshot(t, s, 3, 3, 1, "abc", &fsm.State{Index: 2, Term: 2})
			return errors.Join(err, s.log.DeleteRange(1, 3))
		}, want{election.VoterLog{Last: set(3, 1, "abc"), LastCommitted: true}, election.LogAtStart{LastCommand: 2, LastTerm: 3}, true,
			election.VoterLog{Last: set(1, 1, "abc"), LastCommitted: true}}},
		{"compacted, with a change behind the snapshot", func(t *testing.T, s *stores) error {
			err := s.log.StoreLogs([]*raft.Log{members(1, 1, "abc"), command(2, 2), noop(3, 3)})
			takeSnapshot(t, s, 3, 3, 1, "abc", &fsm.State{Index: 2, Term: 2})
			return errors.Join(err, s.log.DeleteRange(1, 3), s.log.StoreLogs([]*raft.Log{members(3, 4, "abcd"), command(4, 5)}))
		}, want{election.VoterLog{Last: set(3, 4, "abcd"), Previous: set(3, 1, "abc")}, election.LogAtStart{LastCommand: 5, LastTerm: 4}, true,
			election.VoterLog{Last: set(3, 4, "abcd"), Previous: set(1, 1, "abc")}}},
		{"a sent snapshot over a log that went another way", func(t *testing.T, s *stores) error {
			err := s.log.StoreLogs([]*raft.Log{members(1, 1, "abcd"), command(1, 2), command(2, 3), members(2, 4, "abc"), command(2, 5)})
			takeSnapshot(t, s, 3, 3, 1, "abcd", &fsm.State{Index: 3, Term: 3})
			return err
		}, want{election.VoterLog{Last: set(1, 1, "abcd"), LastCommitted: true}, election.LogAtStart{LastCommand: 3, LastTerm: 3}, true,
			election.VoterLog{Last: set(1, 1, "abcd"), LastCommitted: true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := openDir(t, t.TempDir())
			s := reopen(t, d)
			if err := errors.Join(tt.fill(t, s), s.close()); err != nil {
				t.Fatal(err)
			}
			if got := s.voters.current(); !tt.want.live.Last.IsZero() && !got.Equal(tt.want.live) {
				t.Errorf("before the restart the voter log\n got %+v\nwant %+v", got, tt.want.live)
			}
			s = reopen(t, d)
			defer s.close()
			if got := s.voters.current(); !got.Equal(tt.want.voters) {
				t.Errorf("voter log\n got %+v\nwant %+v", got, tt.want.voters)
			}
			if s.atStart != tt.want.atStart {
				t.Errorf("at start %+v, want %+v", s.atStart, tt.want.atStart)
			}
			if got := s.hasAny.Load(); got != tt.want.has {
				t.Errorf("has state: %v, want %v", got, tt.want.has)
			}
		})
	}
}

func TestLostLogIsRefused(t *testing.T) {
	d := openDir(t, t.TempDir())
	s := reopen(t, d)
	if err := errors.Join(s.log.StoreLog(members(1, 1, "abc")), s.close(), os.Remove(filepath.Join(d.Path(), fileLog))); err != nil {
		t.Fatal(err)
	}
	_, err := openStores(d, bridge(quiet()), newDiskWatch(time.Second, func(DiskHealth) {}))
	if err == nil || !strings.Contains(err.Error(), "remove the whole directory") {
		t.Errorf("a voter that lost its log comes back under its old id: %v", err)
	}
}

func TestDamagedSnapshotIsPassedOver(t *testing.T) {
	d := openDir(t, t.TempDir())
	s := reopen(t, d)
	takeSnapshot(t, s, 1, 10, 1, "abc", &fsm.State{Index: 10, Term: 1})
	takeSnapshot(t, s, 2, 20, 1, "abc", &fsm.State{Index: 20, Term: 2})
	list, err := s.snaps.List()
	if err != nil || len(list) != 2 || list[0].Index != 20 {
		t.Fatalf("snapshots %v, %v", list, err)
	}
	if err := errors.Join(s.close(), os.WriteFile(filepath.Join(d.Path(), "snapshots", list[0].ID, "state.bin"), []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, d)
	defer s.close()
	if s.atStart.LastCommand != 10 {
		t.Errorf("with the newest snapshot damaged the log at start is %+v, want the older one's", s.atStart)
	}
}

func TestDiskWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []DiskHealth
		w := newDiskWatch(time.Second, func(h DiskHealth) { told = append(told, h) })
		full := errors.New("full")
		began := time.Now()
		hang := make(chan struct{})
		ended := make(chan error)
		go func() { ended <- w.do(func() error { <-hang; return nil }) }()
		expect := func(when string, want ...DiskHealth) {
			t.Helper()
			w.check()
			if len(told) != len(want) {
				t.Fatalf("%s: told %+v, want %+v", when, told, want)
			}
			for i := range want {
				if !told[i].StalledSince.Equal(want[i].StalledSince) || told[i].Err != want[i].Err {
					t.Fatalf("%s: told %+v, want %+v", when, told, want)
				}
			}
			told = nil
		}
		time.Sleep(time.Second - 1)
		expect("just before the limit")
		time.Sleep(time.Nanosecond)
		expect("at the limit", DiskHealth{StalledSince: began})
		if err := w.do(func() error { return full }); err != full {
			t.Fatal(err)
		}
		expect("another write failed", DiskHealth{StalledSince: began, Err: full})
		close(hang)
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		expect("the slow write succeeded", DiskHealth{})
	})
}
