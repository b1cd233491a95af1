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

// With unicast peers a tie is broken by what the adverts to the sender come from, here
// below the address that those to groups come from; and all of them are stated, by which
// the other nodes know this one.
func TestUnicastTieInACluster(t *testing.T) {
	s := newSolo(t, 0)
	low, high := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.99")
	doc := testDocument()
	doc.Groups[0].VRRP.Unicast = []fsm.Peer{{Addr: outsider, MinTTL: 1, MaxTTL: 255}, {Addr: low, MinTTL: 1, MaxTTL: 255}}
	s.form(doc)
	s.step(Leader{ID: s.self.ID, Self: true, Term: 1})
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.self.ID, Reason: fsm.ReasonFirst}})
	group := netip.MustParseAddr("10.0.0.200")
	s.step(SourceChanged{Link: "eth0", Family: vrrpcompat.IPv4, Addr: group})
	if r := s.core.groups["web"].seats; len(r) > 0 && r[0].shown().IsValid() {
		t.Fatalf("speaks from %v, and there is no source towards a peer", r[0].shown())
	}
	from := func(peer, source netip.Addr) {
		s.step(SourceChanged{Link: "eth0", Family: vrrpcompat.IPv4, Peer: peer, Addr: source})
	}
	from(outsider, high)
	s.attend(2 * time.Second)
	tie := func(by netip.Addr, want string) {
		t.Helper()
		s.hear(by, 254)
		s.attend(50 * time.Millisecond)
		if got := s.vip().State; got != want {
			t.Fatalf("beside %v of equal priority: %s, want %s", by, got, want)
		}
		s.attend(5 * time.Second)
	}
	tie(outsider, "active")
	if got, want := s.renewal(testRenew).Sources, []netip.Addr{group, high}; !slices.Equal(got, want) {
		t.Fatalf("states %v, want %v", got, want)
	}
	tie(high, "active") // our own
	tie(low, "yielded") // cannot be spoken to, and so does not yield
	from(low, netip.MustParseAddr("10.0.0.3"))
	tie(low, "yielded") // with the higher address
	from(outsider, netip.MustParseAddr("10.0.0.3"))
	tie(outsider, "yielded")
	from(outsider, netip.Addr{})
	from(low, netip.Addr{})
	if got := s.vip().VRRP.Routers[0].Source; got != "" {
		t.Fatalf("shows source %s, and there is none", got)
	}
}

// However many addresses a node has, it states those that groups hear before the others.
func TestMulticastSourcesAreStatedFirst(t *testing.T) {
	s := holdingBeside(t, fsm.OutrankedYield)
	peer := netip.MustParseAddr("10.0.0.1")
	for a := netip.MustParseAddr("9.0.0.1"); a != netip.MustParseAddr("9.0.0.31"); a = a.Next() {
		s.step(SourceChanged{Link: "eth0", Family: vrrpcompat.IPv4, Peer: a, Addr: a})
	}
	if got := s.renewal(testRenew).Sources; len(got) != election.MaxSources || got[0] != peer {
		t.Fatalf("states %v", got)
	}
}

// The same of a router of its own: peers with global addresses compare themselves with
// our global one, which is below theirs, and not with the link-local one, which never is.
func TestUnicastTieAlone(t *testing.T) {
	theirs, elsewhere := netip.MustParseAddr("2001:db8::104"), netip.MustParseAddr("2001:db8:1::104")
	for _, tt := range []struct {
		self, there string // what adverts to them come from, and to the peer in another network
		holds       bool
	}{{"2001:db8::3", "2001:db8:1::3", false}, {"2001:db8::200", "2001:db8::1", true}} {
		l := newLAN(t)
		a := l.add("a", fsm.VRRP{Priority: 100, Unicast: []fsm.Peer{{Addr: elsewhere, MinTTL: 1, MaxTTL: 255}, {Addr: theirs, MinTTL: 1, MaxTTL: 255}}},
			preempts, 1, 1, lan6)
		l.run(10 * time.Second)
		l.only(nil) // nobody could be told
		for peer, from := range map[netip.Addr]string{theirs: tt.self, elsewhere: tt.there} {
			a.step(SourceChanged{Link: "eth0", Family: vrrpcompat.IPv6, Peer: peer, Addr: netip.MustParseAddr(from)})
		}
		l.run(10 * time.Second)
		l.only(a)
		l.broadcast(nil, theirs, vrrpcompat.Advert{Version: vrrpcompat.V3, VRID: 51, Priority: 100, Interval: 100, Addresses: []netip.Addr{lan6.Addr()}})
		l.run(time.Second)
		if a.active() != tt.holds {
			t.Errorf("speaks from %s and hears %v of equal priority: holds the group: %v, want %v", tt.self, theirs, a.active(), tt.holds)
		}
	}
}
