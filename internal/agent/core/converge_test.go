package core

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
)

// looked has the host looked at, finding this, and returns what is done about it.
func (s *solo) looked(found func(e Converge) Converged) []Effect {
	s.t.Helper()
	s.kernel = errKernel // nobody else answers
	before := len(s.did)
	for end := s.now.Add(2 * convergeEvery); s.now.Before(end) && len(effectsOf[Converge](s.did[before:])) == 0; {
		s.attend(20 * time.Millisecond)
	}
	asked := effectsOf[Converge](s.did[before:])
	if len(asked) != 1 {
		s.t.Fatalf("looked %d times in two seconds without an answer, want once", len(asked))
	}
	return s.since(func() { s.step(found(asked[0])) })
}

func missing(what Holding, err error) func(e Converge) Converged {
	return func(e Converge) Converged {
		return Converged{Groups: []Mended{{Group: "web", Gen: e.Held[0].Gen, Missing: what, Err: err}}}
	}
}

// What was missing is counted, and announced again.
func TestMissingIsMended(t *testing.T) {
	s := holding(t)
	s.attend(20 * time.Second) // past the announcements of the takeover
	did := s.looked(missing(Holding{At: []Place{{Link: "eth0", Prefix: testAddr}}}, nil))
	if s.vip().Mended != 1 || len(effectsOf[Announce](did)) != 1 {
		t.Fatalf("mended %d times, announced %+v; want both once", s.vip().Mended, effectsOf[Announce](did))
	}
}

// An address that cannot be put back is served by another node.
func TestMissingThatStaysAway(t *testing.T) {
	s := holding(t)
	s.attend(time.Second)
	did := s.looked(missing(Holding{At: []Place{{Link: "eth0", Prefix: testAddr}}}, errKernel))
	if shut, _ := shuts(did); shut != 1 || s.vip().State == "active" {
		t.Fatalf("shut %d times, state %s; want it let go", shut, s.vip().State)
	}
}

// A route that cannot be put in is borne with for a moment, and not for long.
func TestRouteThatCannotBePutIn(t *testing.T) {
	s := holding(t)
	s.attend(time.Second)
	route := missing(Holding{Routes: []fsm.Route{{To: netip.MustParsePrefix("192.0.2.0/24"), Interface: "eth0"}}}, errKernel)
	looks := 0
	for ; s.vip().State == "active"; looks++ {
		if s.looked(route); looks > 10 {
			t.Fatal("held for ever")
		}
	}
	if looks < 3 {
		t.Fatalf("let go after %d looks", looks)
	}
}

// An address of the document that is on the host, ours, and held by no group is shut,
// taken off and seen gone before the fence forgets it.
func TestStray(t *testing.T) {
	s := newSolo(t, time.Hour)
	s.form(testDocument())
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.other.ID, Reason: fsm.ReasonFirst}})
	s.attend(2 * testLease)
	at := Place{Link: "eth0", Prefix: testAddr}
	stray := func(Converge) Converged { return Converged{Stray: []Place{at}} }
	did := s.looked(stray)
	off := effectsOf[Unbind](did)
	if shut, _ := shuts(did); shut != 1 || len(off) != 1 || !slices.Equal(off[0].At, []Place{at}) || len(effectsOf[ClearFence](did)) != 0 {
		t.Fatalf("done about it: %+v; want it shut, then taken off", did)
	}
	did = s.since(func() {
		s.step(Unbound{Group: "web", Gen: off[0].Gen, Shut: s.now})
		s.attend(20 * time.Millisecond)
	})
	if got := effectsOf[ClearFence](did); len(got) != 1 || !slices.Equal(got[0].Addrs, []netip.Addr{testAddr.Addr()}) {
		t.Fatalf("forgotten: %+v", got)
	}
	if s.vip().Held {
		t.Fatal("held")
	}
}

// One of a group that is open, and which has not joined the others, is shut and taken off
// without them. One that is on its way to them, or from them, is let alone.
func TestStrayOfAnOpenGroup(t *testing.T) {
	stray := Place{Link: "eth0", Prefix: otherAddr}
	found := func(Converge) Converged { return Converged{Stray: []Place{stray}} }
	for name, tt := range map[string]struct {
		do   func(s *solo)
		want int
	}{
		"the LAN is asked about it": {func(s *solo) {
			s.readdress(testAddr, otherAddr)
			all := effectsOf[Resolve](s.did)
			s.step(placedOn("eth0", all[len(all)-1]))
		}, 1},
		"it joins": {func(s *solo) {
			s.readdress(testAddr, otherAddr)
			all := effectsOf[Resolve](s.did)
			s.step(placedOn("eth0", all[len(all)-1]))
			asked := effectsOf[Probe](s.did)
			s.step(Probed{Group: "web", Gen: asked[len(asked)-1].Gen})
		}, 0},
	} {
		s := holdingAll(t, testAddr)
		tt.do(s)
		s.served = len(s.did) // nothing else is answered
		did := s.looked(found)
		off := effectsOf[Unbind](did)
		if shut, _ := shuts(did); shut != tt.want || len(off) != tt.want || s.vip().State != "active" {
			t.Errorf("%s: shut %d times, taken off %+v, state %s; want %d", name, shut, off, s.vip().State, tt.want)
		}
		for _, e := range off {
			if !slices.Equal(e.At, []Place{stray}) {
				t.Errorf("%s: takes off %v", name, e.At)
			}
		}
	}
}

// A look that was asked for before a group opened says nothing of where its addresses are.
func TestStrayOfAnOlderLook(t *testing.T) {
	for name, p := range map[string]Place{"in its place": {Link: "eth0", Prefix: testAddr}, "on the device above": {Link: "qv-1", Prefix: testAddr}} {
		s := newSolo(t, time.Hour)
		s.kernel = errKernel
		s.form(testDocument())
		s.attend(convergeEvery + testLease)
		asked := effectsOf[Converge](s.did)
		if len(asked) != 1 || len(asked[0].Held) != 0 {
			t.Fatalf("asked for %+v", asked)
		}
		s.step(Leader{ID: s.self.ID, Self: true, Term: 1})
		s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.self.ID, Reason: fsm.ReasonFirst}})
		s.attend(100 * time.Millisecond)
		did := s.since(func() { s.step(Converged{Stray: []Place{p}}) })
		if s.vip().State != "active" || len(effectsOf[Unbind](did)) != 0 {
			t.Errorf("%s: state %s, taken off %+v", name, s.vip().State, effectsOf[Unbind](did))
		}
	}
}

// A device that is flushed loses many addresses at once: they are put back in one go, and
// once more for those that went meanwhile.
func TestManyAddressesGone(t *testing.T) {
	s := holdingAll(t, testAddr, otherAddr)
	s.attend(time.Second)
	did := s.since(func() {
		for range 100 {
			s.step(AddressGone{Link: "eth0", Addr: testAddr.Addr()})
			s.step(AddressGone{Link: "eth0", Addr: otherAddr.Addr()})
		}
	})
	once := effectsOf[Refresh](did)
	if len(once) != 1 || len(once[0].At) != 2 {
		t.Fatalf("put back: %+v, want both in one go", once)
	}
	did = s.since(func() { s.step(Refreshed{Group: "web", Gen: once[0].Gen}) })
	if again := effectsOf[Refresh](did); len(again) != 1 {
		t.Fatalf("put back %d times more, want once", len(again))
	}
	did = s.since(func() { s.step(Refreshed{Group: "web", Gen: once[0].Gen}) })
	if again := effectsOf[Refresh](did); len(again) != 0 {
		t.Fatalf("and %d times more", len(again))
	}
}

// Routes and rules change under an open group: those that are new are put in, and those
// that it has no longer are taken out, once.
func TestRoutesChangeWhileOpen(t *testing.T) {
	route := func(i int) fsm.Route {
		return fsm.Route{To: netip.MustParsePrefix(fmt.Sprintf("192.0.%d.0/24", i)), Interface: "eth0"}
	}
	s := holding(t)
	s.attend(time.Second)
	doc := s.state.Document
	doc.Groups = slices.Clone(doc.Groups)
	doc.Groups[0].Routes = []fsm.Route{route(1), route(2)}
	did := s.since(func() { s.replace(doc) })
	got := effectsOf[Refresh](did)
	if len(got) != 1 || !slices.Equal(got[0].Routes, doc.Groups[0].Routes) || !got[0].Drop.Empty() {
		t.Fatalf("with two routes: %+v", got)
	}
	if shut, _ := shuts(did); shut != 0 || s.vip().State != "active" {
		t.Fatal("the group was let go for its routes")
	}
	doc.Groups = slices.Clone(doc.Groups)
	doc.Groups[0].Routes = []fsm.Route{route(2), route(3)}
	got = effectsOf[Refresh](s.since(func() { s.replace(doc) }))
	if len(got) != 1 || !slices.Equal(got[0].Routes, doc.Groups[0].Routes) || !slices.Equal(got[0].Drop.Routes, []fsm.Route{route(1)}) {
		t.Fatalf("with one other: %+v", got)
	}
	s.step(Refreshed{Group: "web", Gen: got[0].Gen, Dropped: got[0].Drop})
	got = effectsOf[Refresh](s.since(func() { s.step(AddressGone{Link: "eth0", Addr: testAddr.Addr()}) }))
	if len(got) != 1 || !got[0].Drop.Empty() {
		t.Fatalf("taken out once more: %+v", got)
	}
	off := effectsOf[Unbind](s.since(s.nameOther))
	if len(off) != 1 || !slices.Equal(off[0].Routes, doc.Groups[0].Routes) {
		t.Fatalf("taken off with the group: %+v", off)
	}
}

// A route from an address of the group waits for that address.
func TestRouteFromAnAddressToCome(t *testing.T) {
	s := holding(t)
	s.attend(time.Second)
	doc := s.state.Document
	doc.Groups = slices.Clone(doc.Groups)
	doc.Groups[0].Addresses = []netip.Prefix{testAddr, otherAddr}
	doc.Groups[0].Routes = []fsm.Route{{To: netip.MustParsePrefix("192.0.2.0/24"), Interface: "eth0", Source: otherAddr.Addr()}}
	before := len(s.did)
	s.replace(doc)
	if got := effectsOf[Refresh](s.did[before:]); len(got) != 0 {
		t.Fatalf("put in before its source is there: %+v", got)
	}
	s.attend(time.Second)
	got := effectsOf[Bind](s.did[before:])
	if len(got) != 1 || !slices.Equal(got[0].Routes, doc.Groups[0].Routes) {
		t.Fatalf("put in with its source: %+v", got)
	}
}

// An address that is to stand otherwise on its device is replaced there, and not let go.
func TestAddressStandsOtherwise(t *testing.T) {
	s := holding(t)
	s.attend(time.Second)
	doc := s.state.Document
	doc.Groups = slices.Clone(doc.Groups)
	spec := fsm.AddressSpec{Scope: fsm.ScopeLink}
	doc.Groups[0].Specs = map[netip.Addr]fsm.AddressSpec{testAddr.Addr(): spec}
	before := len(s.did)
	s.replace(doc)
	all := effectsOf[Resolve](s.did)
	s.step(Placed{Group: "web", Gen: all[len(all)-1].Gen, At: []Place{PlaceOf(doc.Groups[0], "eth0", testAddr)}})
	got := effectsOf[Refresh](s.did[before:])
	if len(got) != 1 || !slices.Equal(got[0].At, []Place{{Link: "eth0", Prefix: testAddr, Spec: spec}}) {
		t.Fatalf("put: %+v", got)
	}
	s.serve(testLease * 2)
	if shut, _ := shuts(s.did[before:]); shut != 0 || s.vip().State != "active" || s.core.groups["web"].proof != s.core.groups["web"].epoch {
		t.Fatalf("shut %d times, state %s", shut, s.vip().State)
	}
	doc.Groups = slices.Clone(doc.Groups)
	doc.Groups[0].Specs = map[netip.Addr]fsm.AddressSpec{testAddr.Addr(): {Interface: "eth1"}}
	before = len(s.did)
	s.replace(doc)
	if shut, _ := shuts(s.did[before:]); shut != 1 {
		t.Fatalf("with another device it is shut %d times, want once", shut)
	}
}
