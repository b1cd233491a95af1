package raftnode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

func bubble(t *testing.T, n int, f func(*testing.T, *lan)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, n)
		defer time.Sleep(time.Minute) // what is still on its way gives up
		defer l.stopAll()
		f(t, l)
	})
}

func assign(h *host, owner fsm.InstanceID) fsm.Command {
	return fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: owner, Seen: h.State().Assignments["web"].Epoch, Reason: fsm.ReasonFirst}}
}

func TestCommandsReachEveryNode(t *testing.T) {
	bubble(t, 3, func(t *testing.T, l *lan) {
		l.form()
		h := l.hosts[0]
		l.propose(h, assign(h, l.hosts[1].self.ID))
		l.everywhere("assigned", func(h *host) bool { return h.State().Assignments["web"].Owner == l.hosts[1].self.ID })
		for _, h := range l.hosts {
			applied, _, _ := h.sink.all()
			if c := applied[0].Command; c.Lead == nil || c.Lead.Node != l.hosts[0].self.ID {
				t.Errorf("%s: the first command of the term is %+v, want the leader's", h.self.Name, c)
			}
			if got := applied[len(applied)-1].State; got != h.State() || got.Index != h.AppliedIndex() {
				t.Errorf("%s: told of state %d, has %d", h.self.Name, got.Index, h.AppliedIndex())
			}
			want := election.VoterLog{Last: set(1, 1, "abc"), LastCommitted: true}
			if got := h.VoterLog(); !got.Equal(want) {
				t.Errorf("%s: voter log %+v, want %+v", h.self.Name, got, want)
			}
			if id, ok := h.InstanceAt(raft.ServerAddress(l.hosts[2].self.Address.String())); !ok || id != l.hosts[2].self.ID {
				t.Errorf("%s: instance at n3's address is %v, %v", h.self.Name, id, ok)
			}
		}
		if _, ok := h.InstanceAt("10.9.9.9:1"); ok {
			t.Error("somebody is at an address that nobody has")
		}
		if s := h.Stats(); s.State != "leader" || len(s.Members) != 3 || !s.Members[2].Voter || s.CommitIndex == 0 {
			t.Errorf("stats of the leader: %+v", s)
		}
	})
}

// A follower learns of a commit at once, not with the leader's next message, which
// an idle leader sends each 200 to 400 ms.
func TestFollowersLearnOfACommitAtOnce(t *testing.T) {
	bubble(t, 3, func(t *testing.T, l *lan) {
		l.form()
		h := l.hosts[0]
		for i := range 10 {
			time.Sleep(time.Second)
			began := time.Now()
			l.propose(h, assign(h, l.hosts[i%3].self.ID))
			index := h.AppliedIndex()
			l.everywhere("applied", func(h *host) bool { return h.AppliedIndex() >= index })
			if took := time.Since(began); took > 5*noticePause {
				t.Fatalf("applied everywhere after %v", took)
			}
		}
	})
}

func TestProposeErrors(t *testing.T) {
	bubble(t, 3, func(t *testing.T, l *lan) {
		l.form()
		leader, other := l.hosts[0], l.hosts[1]
		stale := assign(leader, other.self.ID)
		l.propose(leader, stale)
		if err := leader.Propose(t.Context(), stale); !errors.Is(err, fsm.ErrStale) {
			t.Errorf("a stale assignment: %v, want ErrStale from the state machine", err)
		}
		if err := other.Propose(t.Context(), stale); !errors.Is(err, ErrNotLeader) {
			t.Errorf("on a follower: %v, want ErrNotLeader", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := leader.Propose(ctx, assign(leader, other.self.ID)); !errors.Is(err, ErrUnknownOutcome) && err != nil {
			t.Errorf("with a context that has ended: %v, want ErrUnknownOutcome or nil", err)
		}
		l.cut(0)
		if err := leader.Propose(t.Context(), assign(leader, other.self.ID)); !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("on a leader that is cut off: %v, want ErrUnknownOutcome", err)
		}
		if err := leader.stop(); err != nil {
			t.Fatal(err)
		}
		if err := leader.Propose(t.Context(), stale); !errors.Is(err, ErrStopped) {
			t.Errorf("on a stopped node: %v, want ErrStopped", err)
		}
	})
}

func TestCampaignMovesLeadershipAtOnce(t *testing.T) {
	bubble(t, 3, func(t *testing.T, l *lan) {
		l.form()
		to := l.hosts[2]
		before := time.Now()
		if err := to.Campaign(t.Context()); err != nil {
			t.Fatal(err)
		}
		await1(t, "n3 leads", func() bool { return to.Leader().Self })
		if took := time.Since(before); took > HeartbeatTimeout/2 {
			t.Errorf("in virtual time it took %v, so Raft's own timers did it", took)
		}
		term := to.Leader().Term
		l.everywhere("n3 known as leader", func(h *host) bool {
			i := h.Leader()
			return i.ID == to.self.ID && i.Self == (h == to) && i.Term == term
		})
		l.everywhere("the term's first command applied", func(h *host) bool { return h.State().Term == term })
		_, _, leaders := l.hosts[0].sink.all()
		if same := len(leaders) - len(slices.Compact(slices.Clone(leaders))); same != 0 {
			t.Errorf("told %d times of a leader that had not changed: %+v", same, leaders)
		}
		if err := to.Campaign(t.Context()); err != nil || to.Stats().Term != term {
			t.Errorf("a leader that campaigns: %v, term %d; want nothing to happen in term %d", err, to.Stats().Term, term)
		}
	})
}

func TestCampaignNeedsAVote(t *testing.T) {
	bubble(t, 1, func(t *testing.T, l *lan) {
		h := l.start(0)
		if err := h.Campaign(t.Context()); !errors.Is(err, ErrNotVoter) {
			t.Errorf("a node without a log campaigns: %v, want ErrNotVoter", err)
		}
	})
}

func TestNonvoterThenVoter(t *testing.T) {
	bubble(t, 3, func(t *testing.T, l *lan) {
		all := l.hosts
		l.hosts = all[:2]
		l.form()
		l.hosts = all
		h, late := all[0], l.start(2)
		if err := h.AddVoter(t.Context(), late.self, h.VoterLog().Last); !errors.Is(err, ErrNotNonvoter) {
			t.Fatalf("a vote for one that has not caught up: %v, want ErrNotNonvoter", err)
		}
		for range 2 { // may be repeated
			if err := h.AddNonvoter(t.Context(), late.self); err != nil {
				t.Fatal(err)
			}
		}
		await1(t, "n3 caught up", func() bool { return late.AppliedIndex() == h.AppliedIndex() })
		if err := late.Campaign(t.Context()); !errors.Is(err, ErrNotVoter) {
			t.Errorf("a non-voter campaigns: %v, want ErrNotVoter", err)
		}
		if got := h.VoterLog(); !slices.Equal(got.Last.Voters, set(0, 0, "ab").Voters) || !got.LastCommitted {
			t.Errorf("with a non-voter the voter log is %+v", got)
		}
		for range 2 {
			if err := h.AddVoter(t.Context(), late.self, h.VoterLog().Last); err != nil {
				t.Fatal(err)
			}
		}
		l.everywhere("three voters, committed", func(h *host) bool {
			v := h.VoterLog()
			return v.LastCommitted && slices.Equal(v.Last.Voters, set(0, 0, "abc").Voters) && slices.Equal(v.Previous.Voters, set(0, 0, "ab").Voters) || h == late && v.LastCommitted && len(v.Last.Voters) == 3
		})
		if err := late.Campaign(t.Context()); err != nil {
			t.Errorf("the new voter campaigns: %v", err)
		}
	})
}

func TestRestartReportsWhatTheLogHeld(t *testing.T) {
	bubble(t, 3, func(t *testing.T, l *lan) {
		l.form()
		leader, h := l.hosts[0], l.hosts[2]
		l.propose(leader, assign(leader, h.self.ID))
		l.everywhere("assigned", func(h *host) bool { return h.State().Assignments["web"].Owner == l.hosts[2].self.ID })
		want := election.LogAtStart{LastCommand: h.State().Index, LastTerm: h.State().Term}
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		l.start(2)
		if got := h.AtStart(); got != want {
			t.Errorf("at start %+v, want %+v", got, want)
		}
		if !h.HasState() || h.VoterLog().Last.IsZero() {
			t.Errorf("after a restart: state %v, voter log %+v", h.HasState(), h.VoterLog())
		}
		await1(t, "applied again", func() bool { return h.AppliedIndex() >= want.LastCommand })
	})
}

// A leader whose process is killed and back at once leads again before the others' timeouts
// are over; after a handover it does not ask for its place.
func TestLeaderThatIsBackAtOnceLeads(t *testing.T) {
	bubble(t, 3, func(t *testing.T, l *lan) {
		l.form()
		l.resume = true
		h := l.hosts[0]
		back := func() (term uint64) {
			term = h.State().Term
			if err := h.stop(); err != nil {
				t.Fatal(err)
			}
			l.start(0)
			time.Sleep(HeartbeatTimeout / 5)
			return term
		}
		before := back()
		if now := h.Leader(); !now.Self || now.Term != before+1 || h.AppliedIndex() < h.AtStart().LastCommand {
			t.Fatalf("%v after its start: %+v, applied %d of %d", HeartbeatTimeout/5, now, h.AppliedIndex(), h.AtStart().LastCommand)
		}
		if err := l.hosts[1].Campaign(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.everywhere("n2 leads", func(h *host) bool { return h.Leader().ID == l.hosts[1].self.ID })
		term := l.hosts[1].Leader().Term
		back()
		if now := l.hosts[1].Leader(); !now.Self || now.Term != term {
			t.Errorf("after a follower's restart: %+v, want n2 by term %d", now, term)
		}
	})
}

// An idle leader says seldom what is committed. A follower whose process was away for a
// moment is told when it is back.
func TestFollowerThatRestartsIsToldAtOnce(t *testing.T) {
	bubble(t, 3, func(t *testing.T, l *lan) {
		l.form()
		h := l.hosts[2]
		for range 30 {
			time.Sleep(time.Second)
			if err := h.stop(); err != nil {
				t.Fatal(err)
			}
			l.cut(2) // a dead process refuses
			time.Sleep(HeartbeatTimeout / 4)
			began := time.Now()
			l.start(2)
			await1(t, "applied again", func() bool { return h.AppliedIndex() >= h.AtStart().LastCommand })
			if took := time.Since(began); took > 2*retryInterval {
				t.Errorf("applied again %v after its start", took)
			}
		}
	})
}

// A follower that was away for a minute has the log within a second of its return,
// and is no longer waited for by a node that has stopped.
func TestFollowerThatReturnsIsServedAtOnce(t *testing.T) {
	bubble(t, 3, func(t *testing.T, l *lan) {
		l.form()
		leader, h := l.hosts[0], l.hosts[2]
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		l.propose(leader, assign(leader, leader.self.ID))
		time.Sleep(time.Minute)
		began := time.Now()
		l.start(2)
		await1(t, "caught up", func() bool { return h.State().Assignments["web"].Owner == leader.self.ID })
		if took := time.Since(began); took > time.Second {
			t.Errorf("caught up %v after its return", took)
		}
	})
}

func TestSnapshotRestoresNodeThatFellBehind(t *testing.T) {
	bubble(t, 3, func(t *testing.T, l *lan) {
		l.form()
		leader, h := l.hosts[0], l.hosts[2]
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		for i := range 2 * trailingLogs {
			l.propose(leader, assign(leader, l.hosts[i%2].self.ID))
		}
		if err := leader.raft.Load().Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		if first, err := leader.log.FirstIndex(); err != nil || first < 2 {
			t.Fatalf("the log starts at %d (%v): nothing was compacted", first, err)
		}
		want := election.VoterLog{Last: set(1, 1, "abc"), LastCommitted: true}
		if got := leader.VoterLog(); !got.Equal(want) {
			t.Errorf("after compaction the voter log is %+v, want %+v", got, want)
		}
		l.start(2)
		await1(t, "n3 caught up", func() bool { return h.AppliedIndex() == leader.AppliedIndex() })
		applied, _, _ := h.sink.all()
		// The entries that were on their way when it stopped may come before.
		if i := slices.IndexFunc(applied, func(a Applied) bool { return a.Restored }); i < 0 || applied[i].State.Assignments["web"].Epoch == 0 {
			t.Errorf("n3 was told of %d entries and, at %d, of a restored state", len(applied), i)
		}
		if a, b := mustEncode(t, h.State()), mustEncode(t, leader.State()); a != b {
			t.Errorf("states differ:\n%s\n%s", a, b)
		}
		// A second life begins with its own snapshot, behind which the log is short.
		atEnd := h.State()
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		l.start(2)
		if got := h.AtStart(); got.LastCommand != atEnd.Index || got.LastTerm != atEnd.Term {
			t.Errorf("at start %+v, want command %d of term %d", got, atEnd.Index, atEnd.Term)
		}
		if v := h.VoterLog(); !v.LastCommitted || len(v.Last.Voters) != 3 {
			t.Errorf("the snapshot's voters are not taken for committed: %+v", v)
		}
	})
}

func mustEncode(t *testing.T, s *fsm.State) string {
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAtStartCountsCommandsNotTheSnapshotsEnd(t *testing.T) {
	bubble(t, 1, func(t *testing.T, l *lan) {
		l.form()
		h := l.hosts[0]
		// The entry behind the last command changes members: no command sees it.
		if err := h.AddNonvoter(t.Context(), fsm.Node{ID: instance('z'), Name: "z", Address: h.self.Address}); err == nil {
			t.Fatal("two nodes at one address")
		}
		if err := h.AddNonvoter(t.Context(), newLAN(t, 2).hosts[1].self); err != nil {
			t.Fatal(err)
		}
		if err := h.raft.Load().Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		last := h.AppliedIndex()
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		h.log, h.term = raft.NewInmemStore(), h.log.(*raft.InmemStore) // all of the log is in the snapshot
		l.start(0)
		if got := h.AtStart().LastCommand; got != last {
			t.Errorf("must have applied %d, the last command is %d", got, last)
		}
	})
}

func TestEntryOfANewerVersionStopsTheNode(t *testing.T) {
	bubble(t, 1, func(t *testing.T, l *lan) {
		l.form()
		h := l.hosts[0]
		before := h.State()
		future := h.raft.Load().Apply([]byte(`{"Drain":{"Node":"n1"}}`), time.Second)
		await1(t, "n1 stops", func() bool { return h.Node.raft.Load() == nil })
		err := h.stop()
		if err == nil || !strings.Contains(err.Error(), "newer version") || !strings.Contains(err.Error(), fmt.Sprintf("log entry %d ", future.Index())) {
			t.Errorf("stopped with %v; want it to name the entry and a newer version", err)
		}
		if h.State() != before {
			t.Errorf("the state went on from index %d to %d", before.Index, h.State().Index)
		}
		if _, err := h.machine.Snapshot(); err == nil {
			t.Error("a snapshot that lacks the entry can be taken")
		}
		l.hosts = nil
	})
}
