package core

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

var thirdAddr = netip.MustParsePrefix("10.0.0.202/24")

// holdingAll returns a node that holds its group with these addresses.
func holdingAll(t *testing.T, addrs ...netip.Prefix) *solo {
	t.Helper()
	s := newSolo(t, time.Hour)
	doc := testDocument()
	doc.Groups[0].Addresses = addrs
	s.form(doc)
	s.step(Leader{ID: s.self.ID, Self: true, Term: 1})
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.self.ID, Reason: fsm.ReasonFirst}})
	s.attend(5 * time.Second)
	if v := s.vip(); v.State != "active" {
		t.Fatalf("the group is %+v", v)
	}
	return s
}

func (s *solo) readdress(addrs ...netip.Prefix) {
	doc := s.state.Document
	doc.Groups = slices.Clone(doc.Groups)
	doc.Groups[0].Addresses = addrs
	s.replace(doc)
}

// released reports whether a release was said among these effects.
func (s *solo) released(did []Effect) bool {
	return slices.ContainsFunc(effectsOf[Send](did), func(e Send) bool {
		_, ok := decoded(s.t, e).(election.Release)
		return ok
	})
}

// What leaves a group is shut, taken off, seen gone and forgotten, in this order; what
// stays is neither shut nor let run out, and nothing is released.
func TestAddressLeavesAnOpenGroup(t *testing.T) {
	s := holdingAll(t, testAddr, otherAddr)
	before := len(s.did)
	s.readdress(testAddr)
	gone := []netip.Addr{otherAddr.Addr()}
	did := s.did[before:]
	shut, off := effectsOf[SetFence](did), effectsOf[Unbind](did)
	if len(shut) == 0 || shut[0].Until != 0 || !slices.Equal(shut[0].Addrs, gone) || len(off) != 1 || !slices.Equal(addrsOf(off[0].At), gone) {
		t.Fatalf("fence %+v, removed %+v; want %v shut and taken off", shut, off, gone)
	}
	for _, e := range shut[1:] {
		if e.Until == 0 || slices.Contains(e.Addrs, gone[0]) {
			t.Fatalf("then the fence of %v is set to %v", e.Addrs, e.Until)
		}
	}
	s.served = len(s.did)
	for _, e := range effectsOf[Resolve](did) {
		s.step(placedOn("eth0", e))
	}
	s.serve(testLease)
	if len(effectsOf[ClearFence](s.did[before:])) > 0 {
		t.Fatal("the entry is deleted before the address was seen gone")
	}
	s.step(Unbound{Group: "web", Gen: off[0].Gen, Err: errKernel})
	s.serve(unbindRetry)
	if got := effectsOf[Unbind](s.did[before:]); len(got) != 2 {
		t.Fatalf("a removal that failed is tried %d times, want twice", len(got))
	}
	s.step(Unbound{Group: "web", Gen: off[0].Gen, Shut: s.now})
	s.serve(10 * time.Millisecond)
	if got := effectsOf[ClearFence](s.did[before:]); len(got) != 1 || !slices.Equal(got[0].Addrs, gone) {
		t.Fatalf("deleted %+v, want the entry of %v", got, gone)
	}
	s.serve(2 * testLease)
	did = s.did[before:]
	if v := s.vip(); v.State != "active" || s.released(did) || len(told(did)) > 0 || len(effectsOf[Bind](did)) > 0 {
		t.Fatalf("the group is %s, released: %v, hooks told %q, bound %+v", v.State, s.released(did), told(did), effectsOf[Bind](did))
	}
}

// Whatever comes in between has the whole group shut, and the release is said only when
// everything is gone, what left it before too.
func TestSecondThingShutsAll(t *testing.T) {
	for name, do := range map[string]func(s *solo){
		"another change": func(s *solo) { s.readdress(testAddr, thirdAddr) },
		"another owner": func(s *solo) {
			s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.other.ID, Seen: s.state.Assignments["web"].Epoch, Reason: fsm.ReasonMove}})
		},
		"the fence of what leaves cannot be shut": func(s *solo) { s.step(FenceFailed{Group: "web", Err: errKernel}) },
		"another device": func(s *solo) {
			all := effectsOf[Resolve](s.did)
			s.step(placedOn("eth1", all[len(all)-1]))
		},
		"no device": func(s *solo) {
			all := effectsOf[Resolve](s.did)
			s.step(Placed{Group: "web", Gen: all[len(all)-1].Gen, Err: errKernel})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := holdingAll(t, testAddr, otherAddr)
			before := len(s.did)
			s.readdress(testAddr)
			first := effectsOf[Unbind](s.did[before:])[0]
			second := len(s.did)
			do(s)
			off := effectsOf[Unbind](s.did[second:])
			if len(off) != 1 || !slices.Equal(addrsOf(off[0].At), []netip.Addr{testAddr.Addr(), otherAddr.Addr()}) {
				t.Fatalf("taken off: %+v, want both", off)
			}
			s.step(Unbound{Group: "web", Gen: first.Gen, Shut: s.now})
			s.serve(50 * time.Millisecond)
			if s.released(s.did[before:]) {
				t.Fatal("released when only what left it before was gone")
			}
			s.step(Unbound{Group: "web", Gen: off[0].Gen, Shut: s.now})
			s.serve(50 * time.Millisecond)
			if !s.released(s.did[before:]) {
				t.Fatal("not released")
			}
		})
	}
}

// What joins a group is asked for, fenced, bound and announced by itself.
func TestAddressJoinsAnOpenGroup(t *testing.T) {
	s := holdingAll(t, testAddr)
	s.readdress(testAddr, otherAddr)
	all := effectsOf[Resolve](s.did)
	if r := s.said(); r.Phase != election.PhaseOpen || r.Since != 0 {
		t.Fatalf("it says %+v, and has not all addresses yet", r)
	}
	all = append(all, effectsOf[Resolve](s.did)...) // it looks again when nothing came
	s.did, s.served = nil, 0
	s.step(placedOn("eth0", all[len(all)-1]))
	s.attend(time.Second)
	fresh := []Place{{Link: "eth0", Prefix: otherAddr}}
	asked, bound := effectsOf[Probe](s.did), effectsOf[Bind](s.did)
	if len(asked) != 1 || !slices.Equal(asked[0].At, fresh) || len(bound) != 1 || !slices.Equal(bound[0].At, fresh) {
		t.Fatalf("asked for %+v, bound %+v; want %v", asked, bound, fresh)
	}
	fenced := false
	for _, e := range s.did {
		switch e := e.(type) {
		case SetFence:
			if e.Until == 0 {
				t.Fatalf("the fence of %v is shut", e.Addrs)
			}
			fenced = fenced || slices.Contains(e.Addrs, otherAddr.Addr())
		case Bind:
			if !fenced {
				t.Fatal("bound before its fence was written")
			}
		case Announce:
			if !slices.Equal(e.At, fresh) {
				t.Fatalf("announced %v, want %v", e.At, fresh)
			}
		}
	}
	if n := len(effectsOf[Announce](s.did)); n != 2 {
		t.Fatalf("announced %d times in the first second, want 2", n)
	}
	if r := s.said(); r.Phase != election.PhaseOpen || r.Since == 0 || s.vip().Problem != "" {
		t.Fatalf("it says %+v, status %+v", r, s.vip())
	}
}

// An address that another host has does not join, and is a problem; the others are served.
func TestConflictOfWhatJoins(t *testing.T) {
	s := holdingAll(t, testAddr)
	s.readdress(testAddr, otherAddr)
	all := effectsOf[Resolve](s.did)
	s.step(placedOn("eth0", all[len(all)-1]))
	asked := effectsOf[Probe](s.did)
	s.step(Probed{Group: "web", Gen: asked[len(asked)-1].Gen, Addr: otherAddr.Addr(), MAC: "02:00:00:00:00:99"})
	s.served = len(s.did)
	s.attend(time.Second)
	if v := s.vip(); v.State != "active" || v.Problem != "10.0.0.201 is at 02:00:00:00:00:99" {
		t.Fatalf("status %+v", v)
	}
	if r := s.said(); r.Unfit != 0 || r.Since != 0 {
		t.Fatalf("it says %+v; no other node could do better", r)
	}
	s.attend(probeRetry)
	if v := s.vip(); v.Problem != "" || len(s.core.groups["web"].bound) != 2 {
		t.Fatalf("the other host is gone: %+v", v)
	}
}

// An address that another node's group gets is released at once, with all of its group:
// else the other addresses of that group would wait for the voters' notes.
func TestAddressForAnotherNode(t *testing.T) {
	s := holdingAll(t, testAddr, otherAddr)
	doc := s.state.Document
	db := doc.Groups[0]
	db.Name, db.Addresses, db.VRRP.ID = "db", []netip.Prefix{thirdAddr}, 52
	doc.Groups = append(slices.Clone(doc.Groups), db)
	s.replace(doc)
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "db", Owner: s.other.ID, Reason: fsm.ReasonFirst}})
	s.attend(time.Second)
	before := len(s.did)
	doc = s.state.Document
	doc.Groups = slices.Clone(doc.Groups)
	doc.Groups[0].Addresses, doc.Groups[1].Addresses = []netip.Prefix{testAddr}, []netip.Prefix{thirdAddr, otherAddr}
	s.replace(doc)
	if got := effectsOf[Unbind](s.did[before:]); len(got) != 1 || len(got[0].At) != 2 {
		t.Fatalf("taken off: %+v, want both", got)
	}
}

// The next owner waits until what passed the fence has left the host: from when the
// fence was shut, if that is known, and never before the addresses are gone.
func TestDrainedAt(t *testing.T) {
	const ms = election.Instant(time.Millisecond)
	for _, tt := range []struct{ gone, shut, want election.Instant }{
		{100 * ms, 0, 105 * ms}, {100 * ms, 99 * ms, 104 * ms}, {100 * ms, 95 * ms, 100 * ms}, {100 * ms, 50 * ms, 100 * ms},
	} {
		if got := drainedAt(tt.gone, tt.shut); got != tt.want {
			t.Errorf("gone at %v, shut at %v: %v, want %v", tt.gone, tt.shut, got, tt.want)
		}
	}
	for name, tt := range map[string]struct {
		lifetime bool
		fails    bool
		want     time.Duration
	}{
		"the fence was shut": {want: 0}, "the lifetime is the fence": {lifetime: true, want: election.GraceBPF}, "it could not be shut": {fails: true, want: election.GraceBPF},
	} {
		s := holdingAll(t, testAddr)
		s.core.cfg.LifetimeFence = tt.lifetime
		before := len(s.did)
		s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.other.ID, Seen: s.state.Assignments["web"].Epoch, Reason: fsm.ReasonMove}})
		if tt.fails {
			s.step(FenceFailed{Group: "web", Err: errKernel})
		}
		off := effectsOf[Unbind](s.did[before:])
		shut := s.now
		s.now = s.now.Add(20 * time.Millisecond)
		s.step(Unbound{Group: "web", Gen: off[len(off)-1].Gen, Shut: shut})
		gone := s.now
		for !s.released(s.did[before:]) && s.now.Sub(gone) < time.Second {
			s.step(Woke{})
		}
		if got := s.now.Sub(gone); got != tt.want {
			t.Errorf("%s: released %v after the address was gone, want %v", name, got, tt.want)
		}
	}
}

// What the LAN said of the addresses that a group had says nothing of those that it has.
func TestProbeOfOtherAddressesIsVoid(t *testing.T) {
	s := newSolo(t, time.Hour)
	s.form(testDocument())
	s.step(Swept{})
	s.step(Leader{ID: s.self.ID, Self: true, Term: 1})
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.self.ID, Reason: fsm.ReasonFirst}})
	s.step(placedOn("eth0", effectsOf[Resolve](s.did)[0]))
	for end := s.now.Add(time.Second); s.now.Before(end) && len(effectsOf[Probe](s.did)) == 0; s.step(Woke{}) {
		for _, e := range effectsOf[WriteHold](s.did) {
			s.step(HoldWritten{Hold: e.Hold})
		}
	}
	first := effectsOf[Probe](s.did)
	if len(first) != 1 {
		t.Fatalf("asked %d times", len(first))
	}
	s.readdress(otherAddr)
	s.step(Probed{Group: "web", Gen: first[0].Gen})
	s.attend(time.Second)
	got := effectsOf[Probe](s.did)
	if len(got) != 2 || !slices.Equal(got[1].At, []Place{{Link: "eth0", Prefix: otherAddr}}) || s.vip().State != "active" {
		t.Fatalf("asked for %+v, and the group is %s; want %s asked for before it is held", got, s.vip().State, otherAddr)
	}
}
