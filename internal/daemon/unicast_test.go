package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/vrrpcompat"
)

// TestSpeakerUnicastSource: with unicast peers it is the addresses that adverts to them
// come from that are shown, and that our own adverts are known by when they come back.
func TestSpeakerUnicastSource(t *testing.T) {
	st := newSpeakerTest(t)
	mine, far := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("203.0.113.9")
	g := group(func(g *fsm.Group) {
		for _, a := range []netip.Addr{stranger, far, mine} {
			g.VRRP.Unicast = append(g.VRRP.Unicast, fsm.Peer{Addr: a, MinTTL: 1, MaxTTL: 255})
		}
	})
	st.serveGroup(g) // and multicast from self
	if r := st.view(vrrpcompat.Instant(st.now)).Routers[0]; r.Source != "" {
		t.Errorf("shows %s, and can speak to no peer", r.Source)
	}
	st.sourceChanged(nowhere, vrrpcompat.IPv4, far, mine)
	if r := st.view(vrrpcompat.Instant(st.now)).Routers[0]; r.Source != mine.String() {
		t.Errorf("shows %s, want %v", r.Source, mine)
	}
	st.hear(st.packet(mine, self, theirs(func(*vrrpcompat.Advert) {}), vrrpcompat.PseudoHeader))
	if got := st.counts(); got["own-source"] != 1 || len(st.told) > 0 {
		t.Errorf("our own advert, sent back: counted %v, told %v", got, st.told)
	}
	if n := st.view(vrrpcompat.Instant(st.now)).Neighbours; len(n) > 0 {
		t.Errorf("takes itself for a neighbour: %+v", n)
	}
	st.sourceChanged(nowhere, vrrpcompat.IPv4, far, netip.Addr{})
	st.hear(st.packet(mine, self, theirs(func(*vrrpcompat.Advert) {}), vrrpcompat.PseudoHeader))
	if len(st.told) != 1 {
		t.Errorf("an address that is ours no more: told %v", st.told)
	}
}

// TestSpeakerFollowsPeers: the agent is told of the source towards every unicast peer of
// every group on a device, and that there is none any more when the last group is gone
// that has the peer.
func TestSpeakerFollowsPeers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: this test listens for VRRP on the loopback device and needs root")
	}
	type news struct{ peer, source netip.Addr }
	told := make(chan news, 64)
	s, err := newSpeaker(speakerConfig{
		IsVirtual: func(netip.Addr) bool { return false },
		Via:       func(routerKey) (string, bool) { return "", false },
		Heard:     func(string, string, netip.Addr, vrrpcompat.Advert) {},
		Source:    func(_ string, _ vrrpcompat.Family, peer, source netip.Addr) { told <- news{peer, source} },
		Log:       slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	last := map[netip.Addr]netip.Addr{}
	wait := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.After(10 * time.Second); !ok(); {
			select {
			case n := <-told:
				last[n.peer] = n.source
			case <-deadline:
				t.Fatalf("%s: told %v", what, last)
			}
		}
	}
	serve := func(name string, id uint8, peers ...netip.Addr) {
		t.Helper()
		g := group(func(g *fsm.Group) { g.Name, g.VRRP.ID = name, id })
		at := []core.Place{{Link: "lo", Prefix: vip}}
		for _, p := range peers {
			g.VRRP.Unicast = append(g.VRRP.Unicast, fsm.Peer{Addr: p, MinTTL: 1, MaxTTL: 255})
		}
		if len(peers) == 0 {
			at = nil
		}
		if err := s.Serve(g, at); err != nil {
			t.Fatal(err)
		}
	}
	us := netip.MustParseAddr("127.0.0.1")
	a, b, c := netip.MustParseAddr("127.0.0.7"), netip.MustParseAddr("127.0.0.8"), netip.MustParseAddr("127.0.0.9")
	serve("web", 51, a, b)
	serve("db", 52, b, c)
	wait("two groups", func() bool { return last[a] == us && last[b] == us && last[c] == us && last[netip.Addr{}] == us })
	serve("web", 51)
	wait("one group is gone", func() bool { return !last[a].IsValid() })
	if last[b] != us || last[c] != us {
		t.Errorf("told %v, and the other group is there", last)
	}
	serve("db", 52)
	wait("both are gone", func() bool { return !last[b].IsValid() && !last[c].IsValid() })
}
