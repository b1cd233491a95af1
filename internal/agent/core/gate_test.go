package core

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

var (
	outsider = netip.MustParseAddr("10.0.0.99")
	inside   = netip.MustParseAddr("10.0.0.77") // where the other node's adverts come from
)

// attend lets a while pass on a host on which everything works at once.
func (s *solo) attend(d time.Duration) {
	for end := s.now.Add(d); s.now.Before(end); s.step(Woke{}) {
		for ; s.served < len(s.did); s.served++ {
			switch e := s.did[s.served].(type) {
			case WriteHold:
				s.step(HoldWritten{Hold: e.Hold})
			case Probe:
				s.step(Probed{Group: e.Group, Gen: e.Gen})
			case Sweep:
				s.step(Swept{})
			case Resolve:
				s.step(placedOn("eth0", e))
			case Bind:
				s.step(Bound{Group: e.Group, Gen: e.Gen})
			case Unbind:
				s.step(Unbound{Group: e.Group, Gen: e.Gen})
			}
		}
	}
}

// since returns what is done during f.
func (s *solo) since(f func()) []Effect {
	n := len(s.did)
	f()
	return s.did[n:]
}

// hear lets it hear an advert for its virtual router.
func (s *solo) hear(from netip.Addr, p vrrpcompat.Priority) {
	s.step(AdvertHeard{Group: "web", Link: "eth0", From: from, Advert: vrrpcompat.Advert{
		Version: vrrpcompat.V3, VRID: 51, Priority: p, Interval: 100, Addresses: []netip.Addr{testAddr.Addr()}}})
}

// tell has the other node say something of itself.
func (s *solo) tell(r election.Renewal) {
	r.Sender = election.Sender{Cluster: fsm.ClusterID{9}, From: s.other.ID}
	r.Stamp, r.Applied = election.Stamp{Boot: election.BootID{2}, At: s.now}, s.state.Index
	r.Lease, r.Grace, r.Hears = testLease, election.GraceBPF, []election.Hearsay{{Node: s.self.ID}}
	s.step(Datagram{Message: r})
}

// owning returns a node that leads and owns its group, and has just begun.
func owning(t *testing.T, outranked fsm.Outranked) *solo {
	t.Helper()
	s := newSolo(t, 0)
	doc := testDocument()
	doc.Groups[0].VRRP.Outranked = outranked
	s.form(doc)
	s.step(Leader{ID: s.self.ID, Self: true, Term: 1})
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.self.ID, Reason: fsm.ReasonFirst}})
	s.step(SourceChanged{Link: "eth0", Family: vrrpcompat.IPv4, Addr: netip.MustParseAddr("10.0.0.1")})
	return s
}

// holding returns a node that leads, and holds its group.
func holdingBeside(t *testing.T, outranked fsm.Outranked) *solo {
	t.Helper()
	s := owning(t, outranked)
	s.attend(2 * time.Second)
	if got := s.vip(); got.State != "active" {
		t.Fatalf("the group is %s (%s), want active", got.State, got.Problem)
	}
	return s
}

func (s *solo) vip() VIPStatus { return s.core.Status(s.now).VIPs[0] }

// releases are the adverts of priority 0 among what was done.
func releases(did []Effect) []Advertise {
	return slices.DeleteFunc(effectsOf[Advertise](did), func(a Advertise) bool { return a.VRRP.Priority != 0 })
}

// The holder lets go in order, keeps the lease, says so, and comes back.
func TestHolderYields(t *testing.T) {
	s := holdingBeside(t, fsm.OutrankedYield)
	did := s.since(func() { s.hear(outsider, 255); s.attend(100 * time.Millisecond) })
	shut := slices.IndexFunc(did, func(e Effect) bool { f, ok := e.(SetFence); return ok && f.Until == 0 })
	off := slices.IndexFunc(did, func(e Effect) bool { _, ok := e.(Unbind); return ok })
	clear := slices.IndexFunc(did, func(e Effect) bool { _, ok := e.(ClearFence); return ok })
	if shut < 0 || off < shut || clear < off || len(effectsOf[Advertise](did)) > 0 {
		t.Fatalf("shut %d, unbind %d, clear %d, adverts %v: want them in order and no advert", shut, off, clear, effectsOf[Advertise](did))
	}
	if v := s.vip(); v.State != "yielded" || v.Problem == "" || v.VRRP.State != "Backup" || v.VRRP.Routers[0].Outranked == nil {
		t.Fatalf("status %+v %+v, want yielded", v, v.VRRP)
	}
	did = s.since(func() {
		for range 10 {
			s.hear(outsider, 255)
			s.attend(time.Second)
		}
	})
	if got := effectsOf[Bind](did); len(got) > 0 || len(effectsOf[Propose](did)) > 0 {
		t.Fatalf("beside the other router: binds %v, proposes %v", got, effectsOf[Propose](did))
	}
	if r := s.renewal(testRenew); len(r.Groups) != 1 || r.Groups[0].Phase != election.PhaseYielded {
		t.Fatalf("says %+v, want yielded", r.Groups)
	}
	did = s.since(func() { s.attend(4 * time.Second) })
	if len(effectsOf[Bind](did)) != 1 || len(effectsOf[Announce](did)) == 0 || len(effectsOf[Probe](did)) > 0 || s.vip().State != "active" {
		t.Fatalf("with the other router gone: %d binds, %d announcements, %d probes, %s", len(effectsOf[Bind](did)),
			len(effectsOf[Announce](did)), len(effectsOf[Probe](did)), s.vip().State)
	}
}

// With hold the group stays, and people are told once.
func TestHolderHolds(t *testing.T) {
	s := holdingBeside(t, fsm.OutrankedHold)
	did := s.since(func() {
		for range 3 {
			s.hear(outsider, 255)
			s.attend(time.Second)
		}
	})
	alarms := slices.DeleteFunc(effectsOf[Log](did), func(l Log) bool { return l.Level != Error })
	if v := s.vip(); v.State != "active" || len(effectsOf[Unbind](did)) > 0 || len(alarms) != 1 || v.Problem == "" || !v.VRRP.Routers[0].Alarm {
		t.Fatalf("%s (%q), unbinds %v, alarms %v", v.State, v.Problem, effectsOf[Unbind](did), alarms)
	}
	did = s.since(func() { s.attend(4 * time.Second) })
	if v := s.vip(); v.Problem != "" || len(effectsOf[Announce](did)) == 0 {
		t.Fatalf("with the other router gone: problem %q, announced %d times", v.Problem, len(effectsOf[Announce](did)))
	}
}

// A group that has not yielded yet does not open beside the router either, and one that
// nobody held is not asked for before the LAN was listened to.
func TestDoesNotOpenBesideARival(t *testing.T) {
	s := owning(t, fsm.OutrankedYield)
	s.attend(900 * time.Millisecond)
	if len(effectsOf[Probe](s.did))+len(effectsOf[Bind](s.did)) > 0 {
		t.Fatal("did not listen for an advert interval")
	}
	for range 5 {
		s.hear(outsider, 255)
		s.attend(time.Second)
	}
	if len(effectsOf[Probe](s.did))+len(effectsOf[Bind](s.did)) > 0 || s.vip().State != "yielded" {
		t.Fatalf("opens beside the rival: %s", s.vip().State)
	}
}

// An outside router that does not outrank us answers for the address. That is no
// conflict: it is taken from it without asking, and announced again when it has seen it.
func TestTakesOverFromAWorseRouter(t *testing.T) {
	s := owning(t, fsm.OutrankedYield)
	s.attend(500 * time.Millisecond)
	s.hear(outsider, 100)
	s.attend(time.Second)
	if len(effectsOf[Probe](s.did)) > 0 || s.vip().State != "active" {
		t.Fatalf("%d probes, %s", len(effectsOf[Probe](s.did)), s.vip().State)
	}
	s.attend(8 * time.Second)
	did := s.since(func() { s.hear(outsider, 100) })
	if len(effectsOf[Advertise](did)) != 1 || len(effectsOf[Announce](did)) != 1 {
		t.Fatalf("its claim is answered by %v", did)
	}
	did = s.since(func() { s.attend(1600 * time.Millisecond) })
	if len(effectsOf[Announce](did)) != 1 {
		t.Fatalf("announced %d times when it has fallen back, want once", len(effectsOf[Announce](did)))
	}
}

// A conflict that was found before the router was heard is none.
func TestConflictWithARouterIsNone(t *testing.T) {
	s := owning(t, fsm.OutrankedYield)
	s.attend(500 * time.Millisecond)
	for len(effectsOf[Probe](s.did)) == 0 && s.now.Before(election.Instant(5*time.Second)) {
		s.step(Woke{})
	}
	p := effectsOf[Probe](s.did)[0]
	s.step(Probed{Group: "web", Gen: p.Gen, Addr: testAddr.Addr(), MAC: "02:00:00:00:00:09"})
	if s.vip().State != "fault" {
		t.Fatalf("%s, want fault", s.vip().State)
	}
	s.served = len(s.did) // the probe is answered
	s.hear(outsider, 100)
	s.attend(time.Second)
	if v := s.vip(); v.State != "active" || v.Problem != "" {
		t.Fatalf("%s (%s), want active", v.State, v.Problem)
	}
}

// The adverts of the cluster's own nodes are no claims, whatever they say, also when the
// node has fallen silent. One that is not named yet counts as a stranger until it is.
func TestInsidersNeverOutrank(t *testing.T) {
	s := holdingBeside(t, fsm.OutrankedYield)
	s.tell(election.Renewal{Sources: []netip.Addr{inside}})
	want := []netip.Addr{s.other.Address.Addr(), inside}
	if got := effectsOf[Insiders](s.did); len(got) == 0 || !slices.Equal(got[len(got)-1].From, want) {
		t.Fatalf("insiders %v, want %v", got, want)
	}
	did := s.since(func() {
		for range 3 {
			s.hear(inside, 254)
			s.hear(s.other.Address.Addr(), 254)
			s.attend(time.Second)
		}
	})
	if len(effectsOf[Unbind](did)) > 0 || s.vip().State != "active" {
		t.Fatalf("yields to a node of its own: %s", s.vip().State)
	}
	later := netip.MustParseAddr("10.0.0.78")
	s.hear(later, 254)
	s.attend(50 * time.Millisecond)
	if s.vip().State != "yielded" {
		t.Fatalf("%s beside a stranger, want yielded", s.vip().State)
	}
	s.tell(election.Renewal{Sources: []netip.Addr{inside, later}})
	s.attend(50 * time.Millisecond)
	if s.vip().State != "active" {
		t.Fatalf("%s when the stranger is known for one of ours, want active", s.vip().State)
	}
}

// What this node's adverts come from is in its renewals.
func TestSourcesAreSaid(t *testing.T) {
	s := holdingBeside(t, fsm.OutrankedYield)
	if got := s.renewal(testRenew).Sources; !slices.Equal(got, []netip.Addr{netip.MustParseAddr("10.0.0.1")}) {
		t.Fatalf("says %v", got)
	}
	s.step(SourceChanged{Link: "eth0", Family: vrrpcompat.IPv4})
	if got := s.renewal(testRenew).Sources; len(got) != 0 {
		t.Fatalf("says %v, and has none", got)
	}
}

// A yielded owner is left alone: the next would find the same, or not hear the router
// and open beside it. One that only waits is not left alone.
func TestYieldedIsNotMoved(t *testing.T) {
	for _, tt := range []struct {
		phase election.Phase
		moves bool
	}{{election.PhaseYielded, false}, {election.PhaseWaiting, true}} {
		s := newSolo(t, 0)
		s.form(testDocument())
		s.step(Leader{ID: s.self.ID, Self: true, Term: 1})
		s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.other.ID, Reason: fsm.ReasonFirst}})
		epoch := s.state.Index
		did := s.since(func() {
			for range 40 {
				s.tell(election.Renewal{Groups: []election.GroupState{{Group: "web", Epoch: epoch, Phase: tt.phase}}})
				s.attend(testRenew)
			}
		})
		if got := effectsOf[Propose](did); (len(got) > 0) != tt.moves {
			t.Errorf("%v for %v: proposes %v, want any: %v", tt.phase, 40*testRenew, got, tt.moves)
		}
	}
}

// Priority 0 is said only when it is certain that no other node can hold the group.
func TestPriorityZero(t *testing.T) {
	alive := election.Renewal{Health: election.Health{VoterReady: true}}
	unfit := election.Renewal{Groups: []election.GroupState{{Group: "web", Phase: election.PhaseIdle, Unfit: election.UnfitNoCarrier}}}
	tests := map[string]struct {
		do   func(s *solo)
		want int
	}{
		"moved": {func(s *solo) {
			s.tell(alive)
			s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.other.ID, Seen: s.state.Assignments["web"].Epoch, Reason: fsm.ReasonMove}})
		}, 0},
		"moved, and the other stops": {func(s *solo) {
			s.tell(election.Renewal{Health: election.Health{Stopping: true}})
			s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.other.ID, Seen: s.state.Assignments["web"].Epoch, Reason: fsm.ReasonMove}})
		}, 0},
		"stopped, the other never heard":    {func(s *solo) { s.step(Stop{}) }, 0},
		"stopped, the other silent":         {func(s *solo) { s.tell(alive); s.attend(time.Second); s.step(Stop{}) }, 0},
		"stopped, the other was unfit once": {func(s *solo) { s.tell(unfit); s.attend(time.Second); s.step(Stop{}) }, 0},
		"stopped, the other is unfit":       {func(s *solo) { s.tell(unfit); s.step(Stop{}) }, 1},
		"stopped, the other has stopped": {func(s *solo) {
			s.tell(election.Renewal{Health: election.Health{Stopping: true}})
			s.attend(time.Second)
			s.step(Stop{})
		}, 1},
		"stopped, the other is back": {func(s *solo) {
			s.tell(election.Renewal{Health: election.Health{Stopping: true}})
			s.tell(alive)
			s.step(Stop{})
		}, 0},
		"released by hand, the other silent": {func(s *solo) { s.step(ReleaseAsked{}) }, 0},
		"released by hand, the other unfit":  {func(s *solo) { s.tell(unfit); s.step(ReleaseAsked{}) }, 1},
		"yielded, the other unfit":           {func(s *solo) { s.tell(unfit); s.hear(outsider, 255) }, 0},
		"deleted": {func(s *solo) {
			doc := testDocument()
			doc.Groups = nil
			s.replace(doc)
		}, 1},
		"renamed": {func(s *solo) {
			doc := testDocument()
			doc.Groups[0].Name = "db"
			s.replace(doc)
		}, 0},
		"other addresses, the other unfit": {func(s *solo) {
			s.tell(unfit)
			doc := testDocument()
			doc.Groups[0].Addresses = []netip.Prefix{otherAddr}
			s.replace(doc)
		}, 0},
		"abandoned, the other has stopped": {func(s *solo) {
			s.tell(election.Renewal{Health: election.Health{Stopping: true}})
			s.did = append(s.did, s.core.Abandon(s.now)...)
		}, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := holdingBeside(t, fsm.OutrankedYield)
			did := s.since(func() { tt.do(s); s.attend(50 * time.Millisecond) })
			got := releases(did)
			if len(got) != tt.want {
				t.Fatalf("priority 0 %d times, want %d", len(got), tt.want)
			}
			if tt.want == 0 {
				return
			}
			shut := slices.IndexFunc(did, func(e Effect) bool { f, ok := e.(SetFence); return ok && f.Until == 0 })
			said := slices.IndexFunc(did, func(e Effect) bool { a, ok := e.(Advertise); return ok && a.VRRP.Priority == 0 })
			if shut < 0 || said < shut || !slices.Equal(got[0].At, []Place{{Link: "eth0", Prefix: testAddr}}) || !got[0].Until.After(s.now.Add(-testLease)) {
				t.Fatalf("fence shut at %d, priority 0 at %d: %+v", shut, said, got[0])
			}
		})
	}
}

// What the document says of VRRP can change while the group is held: the LAN is listened
// to for the new virtual router, and a router that was found to outrank us is not forgotten.
func TestVRRPOfAGroupChanges(t *testing.T) {
	s := holdingBeside(t, fsm.OutrankedYield)
	doc := testDocument()
	doc.Groups[0].VRRP.Interval = 500 * time.Millisecond
	did := s.since(func() { s.replace(doc); s.attend(100 * time.Millisecond) })
	if len(effectsOf[Unbind](did)) > 0 || len(effectsOf[Resolve](did)) != 1 {
		t.Fatalf("unbinds %v, resolves %v", effectsOf[Unbind](did), effectsOf[Resolve](did))
	}
	s.hear(outsider, 255)
	s.attend(100 * time.Millisecond)
	doc.Groups[0].VRRP.Interval = time.Second
	did = s.since(func() {
		s.replace(doc)
		s.attend(900 * time.Millisecond)
		s.hear(outsider, 255)
		s.attend(time.Second)
	})
	if len(effectsOf[Bind](did)) > 0 {
		t.Fatal("opens beside a router that it had heard")
	}
	doc.Groups = nil
	did = s.since(func() { s.replace(doc); s.attend(time.Second) })
	if got := effectsOf[Unserve](did); len(got) != 1 || got[0].Group.Name != "web" {
		t.Fatalf("ends listening for %v, want web", got)
	}
}

// Nor does a leader that yields itself give the group to another.
func TestYieldedLeaderKeepsItsGroup(t *testing.T) {
	s := holdingBeside(t, fsm.OutrankedYield)
	did := s.since(func() {
		for range 60 {
			s.tell(election.Renewal{Health: election.Health{VoterReady: true}})
			s.hear(outsider, 255)
			s.attend(testRenew)
		}
	})
	if got := effectsOf[Propose](did); len(got) > 0 || s.vip().State != "yielded" {
		t.Fatalf("%s, proposes %v", s.vip().State, got)
	}
}

// A router that is heard while the LAN is being asked is no conflict when it answers.
func TestRouterHeardWhileAsking(t *testing.T) {
	s := owning(t, fsm.OutrankedYield)
	s.attend(500 * time.Millisecond)
	for len(effectsOf[Probe](s.did)) == 0 && s.now.Before(election.Instant(5*time.Second)) {
		s.step(Woke{})
	}
	s.served = len(s.did) // the probe is answered
	s.hear(outsider, 100)
	s.step(Probed{Group: "web", Gen: effectsOf[Probe](s.did)[0].Gen, Addr: testAddr.Addr(), MAC: "02:00:00:00:00:09"})
	s.attend(100 * time.Millisecond)
	if v := s.vip(); v.State != "active" {
		t.Fatalf("%s (%s), want active", v.State, v.Problem)
	}
}
