package core

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vipctl"
)

const otherMAC = "02:00:00:00:00:99"

func (s *solo) claim() []Effect {
	return s.since(func() { s.step(Claimed{Link: "eth0", Addr: testAddr.Addr(), MAC: otherMAC, Count: 3}) })
}

// Another host's claim is named, and the address defended once in ten seconds.
func TestClaim(t *testing.T) {
	s := holding(t)
	s.attend(20 * time.Second) // past the announcements of the takeover
	if did := s.claim(); len(effectsOf[Announce](did)) != 1 {
		t.Fatalf("defended %d times, want once", len(effectsOf[Announce](did)))
	}
	s.attend(time.Second)
	if did := s.claim(); len(effectsOf[Announce](did)) != 0 {
		t.Fatal("defended twice in a second")
	}
	v := s.vip()
	if len(v.Claims) != 1 || v.Claims[0].MAC != otherMAC || v.Claims[0].Count != 6 || v.Claims[0].Address != testAddr.Addr().String() || v.Problem == "" {
		t.Fatalf("status %+v, problem %q", v.Claims, v.Problem)
	}
	s.attend(defendEvery)
	if did := s.claim(); len(effectsOf[Announce](did)) != 1 {
		t.Fatal("not defended any more")
	}
}

// Two hosts that claim it in turns are counted, and do not fill the log.
func TestClaimsInTurns(t *testing.T) {
	s := holding(t)
	s.attend(20 * time.Second)
	said := 0
	for i := range 20 {
		mac := otherMAC
		if i%2 == 1 {
			mac = "02:00:00:00:00:98"
		}
		did := s.since(func() { s.step(Claimed{Link: "eth0", Addr: testAddr.Addr(), MAC: mac, Count: 1}) })
		said += len(effectsOf[Log](did))
	}
	if v := s.vip(); said != 1 || len(v.Claims) != 1 || v.Claims[0].Count != 20 {
		t.Errorf("said %d times, status %+v", said, v.Claims)
	}
	s.attend(defendEvery)
	if did := s.claim(); len(effectsOf[Log](did)) != 1 {
		t.Error("who claims it now is not named")
	}
}

// What is said of an address just after it was taken over are the last words of who had
// it: that is answered and not complained of. Who does not hold it says nothing.
func TestClaimOfThePredecessor(t *testing.T) {
	s := holding(t)
	s.attend(500 * time.Millisecond)
	s.claim()
	if v := s.vip(); len(v.Claims) != 0 {
		t.Fatalf("complains of %+v", v.Claims)
	}
	s.nameOther()
	s.attend(2 * time.Second)
	if did := s.claim(); len(effectsOf[Announce](did)) != 0 || len(s.vip().Claims) != 0 {
		t.Fatal("an address is defended that is another node's")
	}
}

// Another hardware address has what is held there announced again, a device's first has not.
func TestHardwareAddressChanges(t *testing.T) {
	s := holding(t)
	s.attend(20 * time.Second)
	for _, tt := range []struct {
		link, mac string
		want      int
	}{{"eth0", "02:00:00:00:00:01", 0}, {"eth0", "02:00:00:00:00:01", 0}, {"eth0", otherMAC, 1}, {"eth1", otherMAC, 0}} {
		if got := effectsOf[Announce](s.since(func() { s.step(Link{Name: tt.link, OK: true, MAC: tt.mac}) })); len(got) != tt.want {
			t.Errorf("%s has %s: announced %d times, want %d", tt.link, tt.mac, len(got), tt.want)
		}
	}
}

// A thousand addresses are announced in portions, at a pace, each before the deadline that
// the group then has, all of them once; and then the neighbours are told.
func TestThousandAddressesAreAnnounced(t *testing.T) {
	var addrs []netip.Prefix
	for i := range 1000 {
		addrs = append(addrs, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(1 + i%250)}), 16))
	}
	s := newSolo(t, time.Hour)
	doc := testDocument()
	doc.Groups[0].Addresses, doc.Groups[0].VRRP.ID = addrs, 0
	s.form(doc)
	s.step(Leader{ID: s.self.ID, Self: true, Term: 1})
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.self.ID, Reason: fsm.ReasonFirst}})
	var said []netip.Addr
	last := election.Instant(0)
	for i, end := len(s.did), s.now.Add(time.Second); len(said) < len(addrs); {
		if s.attend(time.Millisecond); s.now > end {
			t.Fatalf("%d announced in a second", len(said))
		}
		for ; i < len(s.did); i++ {
			switch e := s.did[i].(type) {
			case Announce:
				if len(e.At) > vipctl.AnnounceChunk || s.now.Sub(last) < vipctl.AnnounceChunk*addressPace-2*time.Millisecond {
					t.Fatalf("%d addresses %v after those before", len(e.At), s.now.Sub(last))
				}
				if quiet := quietFrom(s.core.groups["web"].deadline); e.Until > quiet || e.First != (said == nil) {
					t.Fatalf("announced until %v, and nothing is to be said from %v; first: %v", e.Until, quiet, e.First)
				}
				said, last = append(said, addrsOf(e.At)...), s.now
			case Tell:
				if len(said) < len(addrs) {
					t.Fatal("neighbours are told before everybody is")
				}
			}
		}
	}
	slices.SortFunc(said, netip.Addr.Compare)
	if len(slices.Compact(said)) != len(addrs) {
		t.Fatalf("%d different addresses announced", len(slices.Compact(said)))
	}
	s.attend(2 * tellPace)
	tell := effectsOf[Tell](s.did)
	if len(tell) != 1 || len(tell[0].At) != len(addrs) {
		t.Fatalf("told: %d times", len(tell))
	}
	s.step(Told{Group: "web", Gen: tell[0].Gen, More: true})
	before := len(s.did)
	s.attend(2 * tellPace)
	if next := effectsOf[Tell](s.did[before:]); len(next) != 1 || next[0].Gen != tell[0].Gen || next[0].At != nil {
		t.Fatalf("told on: %+v", next)
	}
}

// Nothing is told any more of addresses that left the group.
func TestTellingWithoutWhatLeft(t *testing.T) {
	s := holdingAll(t, testAddr, otherAddr)
	s.attend(100 * time.Millisecond)
	first := effectsOf[Tell](s.did)
	if len(first) != 1 || len(first[0].At) != 2 {
		t.Fatalf("told %+v", first)
	}
	before := len(s.did)
	s.readdress(testAddr)
	s.step(Told{Group: "web", Gen: first[0].Gen, More: true})
	s.attend(100 * time.Millisecond)
	for _, e := range effectsOf[Tell](s.did[before:]) {
		if e.Gen == first[0].Gen || !slices.Equal(addrsOf(e.At), []netip.Addr{testAddr.Addr()}) {
			t.Fatalf("told %+v", e)
		}
	}
}
