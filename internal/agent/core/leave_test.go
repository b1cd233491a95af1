package core

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
)

func (s *solo) nameOther() {
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.other.ID, Seen: s.state.Assignments["web"].Epoch, Reason: fsm.ReasonMove}})
}

// shuts returns how often the fence was shut, and how often it was opened or extended.
func shuts(did []Effect) (shut, moved int) {
	for _, e := range effectsOf[SetFence](did) {
		if e.Until == 0 {
			shut++
		} else {
			moved++
		}
	}
	return shut, moved
}

// A group that leaves by plan has its connections reset while the fence is still open, and
// the fence is shut when that is done.
func TestResetBeforeTheShut(t *testing.T) {
	s := holding(t)
	s.busy = true
	did := s.since(s.nameOther)
	reset := effectsOf[ResetConnections](did)
	if shut, _ := shuts(did); len(reset) != 1 || shut != 0 || !slices.Equal(reset[0].Addrs, []netip.Addr{testAddr.Addr()}) {
		t.Fatalf("named away: %+v, shut %d times; want a reset and the fence still open", reset, shut)
	}
	did = s.since(func() { s.step(ConnectionsReset{Group: "web", Gen: reset[0].Gen}) })
	off := effectsOf[Unbind](did)
	if shut, _ := shuts(did); shut != 1 || len(off) != 1 || !off[0].Reset {
		t.Fatalf("reset: shut %d times, taken off: %+v; want it shut, taken off, and what is left reset", shut, off)
	}
}

// The wait for that is short, ends with the deadline, and nothing is asked for or said in
// it. What is not by plan does not wait.
func TestPartingIsShort(t *testing.T) {
	for name, during := range map[string]func(s *solo){
		"nothing happens": func(*solo) {},
		"a slewed clock":  func(s *solo) { s.step(Clock{Err: errKernel}) },
		"no fence":        func(s *solo) { s.step(Covered{Err: errKernel}) },
		"no carrier":      func(s *solo) { s.step(Link{Name: "eth0"}) },
		"it is to be ours": func(s *solo) {
			s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.self.ID, Seen: s.state.Assignments["web"].Epoch, Reason: fsm.ReasonMove}})
		},
	} {
		s := holding(t)
		s.busy = true
		began := len(s.did)
		s.nameOther()
		from := s.now
		during(s)
		for s.now.Sub(from) < resetTime+time.Millisecond {
			s.step(Woke{})
		}
		did := s.did[began:]
		if shut, moved := shuts(did); shut != 1 || moved != 0 {
			t.Errorf("%s: shut %d times and moved %d times within %s, want it shut once", name, shut, moved, resetTime)
		}
		if said := effectsOf[Announce](did); len(said) > 0 {
			t.Errorf("%s: announces %+v", name, said)
		}
	}
}

func TestPartingOnlyByPlan(t *testing.T) {
	for name, do := range map[string]func(s *solo){
		"no carrier":     func(s *solo) { s.step(Link{Name: "eth0"}) },
		"a slewed clock": func(s *solo) { s.step(Clock{Err: errKernel}) },
		"without a fence of its own": func(s *solo) {
			s.core.cfg.LifetimeFence = true
			s.nameOther()
		},
		"connections are to be kept": func(s *solo) {
			s.core.groups["web"].def.KeepConnections = true
			s.nameOther()
		},
		"held without proof": func(s *solo) {
			s.core.groups["web"].unproven.since = s.now
			s.nameOther()
		},
		"the deadline has passed": func(s *solo) {
			s.now = s.core.groups["web"].deadline
			s.nameOther()
		},
	} {
		s := holding(t)
		s.busy = true
		did := s.since(func() { do(s) })
		if shut, _ := shuts(did); shut != 1 || len(effectsOf[ResetConnections](did)) != 0 {
			t.Errorf("%s: shut %d times, and waits for %+v; want it shut at once", name, shut, effectsOf[ResetConnections](did))
		}
	}
}

// While a reset is on its way the fence's entry stays, shut, and nothing is released.
func TestLateReset(t *testing.T) {
	s := holding(t)
	s.attend(2 * testLease) // the release of the start is not repeated any more
	s.busy = true
	began := len(s.did)
	s.nameOther()
	reset := effectsOf[ResetConnections](s.did[began:])
	s.attend(time.Second)
	if s.released(s.did[began:]) || len(effectsOf[ClearFence](s.did[began:])) > 0 {
		t.Fatal("the entry is deleted, or the group released, with a reset on its way")
	}
	s.step(ConnectionsReset{Group: "web", Gen: reset[0].Gen})
	if !s.released(s.did[began:]) || len(effectsOf[ClearFence](s.did[began:])) != 1 {
		t.Fatal("not released when the reset is over")
	}
}

// The connections of an owner that lost its lease and stays the owner are left alone: it
// may go on in a moment. When another is named they are ended, behind a shut fence.
func TestLingeringConnections(t *testing.T) {
	s := holding(t)
	s.attend(100 * time.Millisecond)
	g := s.core.groups["web"]
	began := len(s.did)
	s.now = g.deadline
	s.step(Woke{})
	off := effectsOf[Unbind](s.did[began:])
	if len(off) != 1 || off[0].Reset {
		t.Fatalf("taken off: %+v; want it without a reset", off)
	}
	s.step(Unbound{Group: "web", Gen: off[0].Gen, Shut: s.now})
	s.now = s.now.Add(10 * time.Millisecond)
	s.step(Woke{})
	began = len(s.did)
	s.nameOther()
	off = effectsOf[Unbind](s.did[began:])
	if shut, _ := shuts(s.did[began:]); shut != 1 || len(off) != 1 || !off[0].Reset {
		t.Fatalf("another is named: shut %d times, taken off %+v; want it shut and reset", shut, off)
	}
}
