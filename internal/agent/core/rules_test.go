package core

import (
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// holding returns a core that holds its group.
func holding(t *testing.T) *solo {
	t.Helper()
	s := newSolo(t, time.Hour)
	s.form(testDocument())
	s.step(Swept{})
	s.step(Leader{ID: s.self.ID, Self: true, Term: 1})
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.self.ID, Reason: fsm.ReasonFirst}})
	for _, e := range effectsOf[Resolve](s.did) {
		s.step(placedOn("eth0", e))
	}
	s.serve(100 * time.Millisecond)
	for _, e := range effectsOf[Bind](s.did) {
		s.step(Bound{Group: e.Group, Gen: e.Gen})
	}
	if g := s.core.groups["web"]; g == nil || g.phase != active {
		t.Fatalf("not held: %+v", g)
	}
	return s
}

// While a device is without the fence, nothing is held.
func TestBareDevice(t *testing.T) {
	s := holding(t)
	s.did = nil
	s.step(Covered{Err: errKernel})
	if got := effectsOf[SetFence](s.did); len(got) != 1 || got[0].Until != 0 {
		t.Fatalf("with a device that has no fence, the fence is set to %v; want it shut", got)
	}
}

// Nothing is said any more when the deadline is near.
func TestQuietBeforeTheDeadline(t *testing.T) {
	s := holding(t)
	s.serve(testLease)
	g := s.core.groups["web"]
	for _, e := range effectsOf[Announce](s.did) {
		if e.Until.After(g.deadline.Add(-20 * time.Millisecond)) {
			t.Fatalf("may be announced until %v, and the deadline is %v", e.Until, g.deadline)
		}
	}
	if len(effectsOf[Announce](s.did)) == 0 {
		t.Fatal("nothing was announced")
	}
}

// A change of the voters that is not seen committed keeps the next one from being
// made, however long ago the one before was.
func TestChangeWaitsForTheCommit(t *testing.T) {
	s := newSolo(t, time.Hour)
	s.form(testDocument())
	s.step(Leader{ID: s.self.ID, Self: true, Term: 1})
	s.apply(fsm.Command{Lead: &fsm.Lead{Node: s.self.ID}})
	s.serve(election.Spacing(5 * time.Second))
	if !s.core.mayChangeVoters() {
		t.Fatal("a change is not allowed after the whole spacing")
	}
	next := s.core.log
	next.Previous, next.LastCommitted = next.Last, false
	next.Last.Index++
	s.step(Voters{Log: next})
	s.serve(time.Second)
	if s.core.mayChangeVoters() {
		t.Fatal("a change is allowed on top of one that is not committed")
	}
}

// Who is named away lets go at once, and not at the end of the lease.
func TestNamedAwayLetsGo(t *testing.T) {
	s := holding(t)
	s.did = nil
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.other.ID, Seen: s.state.Assignments["web"].Epoch, Reason: fsm.ReasonMove}})
	if got := effectsOf[SetFence](s.did); len(got) == 0 || got[len(got)-1].Until != 0 {
		t.Fatalf("another is named, and the fence is set to %v; want it shut", got)
	}
}

// So does who hears from a voter that there is a newer owner, and does not know it yet.
func TestCalledStaleLetsGo(t *testing.T) {
	s := holding(t)
	s.did = nil
	s.step(Datagram{Message: election.Answer{
		Sender: election.Sender{Cluster: fsm.ClusterID{9}, From: s.other.ID},
		Echo:   election.Stamp{Boot: election.BootID{1}, At: s.now}, Lease: testLease,
		Groups: []election.GroupAnswer{{Group: "web", Epoch: s.state.Assignments["web"].Epoch, Verdict: election.Stale}},
	}})
	if got := effectsOf[SetFence](s.did); len(got) == 0 || got[len(got)-1].Until != 0 {
		t.Fatalf("a voter knows a newer owner, and the fence is set to %v; want it shut", got)
	}
}

// A kernel that does not keep the address on the host serves nobody, however good the
// lease is: the group is let go when two renewals of the lifetime in a row fail, or when
// an address that somebody took off cannot be put back. One failure is borne with.
func TestKernelThatDoesNotKeepTheAddress(t *testing.T) {
	answer := func(s *solo, err error) {
		for _, e := range effectsOf[Refresh](s.did) {
			s.step(Refreshed{Group: e.Group, Gen: e.Gen, Err: err})
		}
		for _, e := range effectsOf[Converge](s.did) {
			s.step(converged(e, err))
		}
		s.did, s.served = nil, 0
	}
	pass := func(s *solo) { s.serve(refreshEvery + 100*time.Millisecond) }
	for name, tt := range map[string]struct {
		do   func(s *solo)
		held bool
	}{
		"it fails once": {func(s *solo) {
			pass(s)
			answer(s, errKernel)
			pass(s)
			answer(s, nil)
			pass(s)
			answer(s, errKernel)
		}, true},
		"it fails twice": {func(s *solo) {
			pass(s)
			answer(s, nil)
			pass(s)
			answer(s, errKernel)
			pass(s)
			answer(s, errKernel)
		}, false},
		"an address is put back": {func(s *solo) {
			s.serve(settled)
			s.step(AddressGone{Link: "eth0", Addr: testAddr.Addr()})
			answer(s, nil)
			pass(s)
			answer(s, errKernel)
		}, true},
		"an address cannot be put back": {func(s *solo) {
			s.serve(settled)
			answer(s, nil)
			s.step(AddressGone{Link: "eth0", Addr: testAddr.Addr()})
			answer(s, errKernel)
		}, false},
		"an answer to an earlier tenure": {func(s *solo) {
			s.serve(settled)
			s.step(AddressGone{Link: "eth0", Addr: testAddr.Addr()})
			s.step(Refreshed{Group: "web", Gen: 1, Err: errKernel})
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := holding(t)
			s.did, s.served, s.kernel = nil, 0, errKernel
			tt.do(s)
			g := s.core.groups["web"]
			if held := g.phase == active; held != tt.held || !tt.held && s.core.unfit(g) != election.UnfitKernel {
				t.Fatalf("held: %v, unfit: %v; want held: %v", held, s.core.unfit(g), tt.held)
			}
		})
	}
}
