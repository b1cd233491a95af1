package daemon

import (
	"io"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/vipctl/kernel"
	"github.com/quorate/quorate/vrrpcompat"
)

// What a shadow asks of the kernel are two questions, so nothing that it holds can reach
// the host.
func TestShadowAsksOnly(t *testing.T) {
	var names []string
	for m := range reflect.TypeFor[seer]().Methods() {
		names = append(names, m.Name)
	}
	if want := []string{"Link", "LinkFor"}; !slices.Equal(names, want) {
		t.Errorf("a shadow may ask the kernel for %v, want %v", names, want)
	}
	if err := (mute{&speaker{}}).Advertise("eth0", fsm.VRRP{ID: 51}, nil); err != nil { // it has no socket to send by
		t.Error(err)
	}
}

// The device of an address is found by the host's own networks.
func TestShadowLinkFor(t *testing.T) {
	links := []config.Link{
		{Name: "eth0", Addresses: []config.LinkAddress{{Prefix: netip.MustParsePrefix("10.0.0.1/24"), Permanent: true}}},
		{Name: "eth1", Addresses: []config.LinkAddress{{Prefix: netip.MustParsePrefix("10.0.1.1/24"), Permanent: true}}},
		{Name: "eth2", Addresses: []config.LinkAddress{{Prefix: netip.MustParsePrefix("10.0.1.2/24"), Permanent: true}}},
	}
	s := sight{links: func() ([]config.Link, error) { return links, nil }}
	if got, err := s.LinkFor(netip.MustParseAddr("10.0.0.200")); got != "eth0" || err != nil {
		t.Errorf("found %q, %v", got, err)
	}
	for addr, want := range map[string]string{"10.0.1.200": "eth1 and of eth2", "10.0.2.200": "no device's network"} {
		if got, err := s.LinkFor(netip.MustParseAddr(addr)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: found %q, %v", addr, got, err)
		}
	}
}

// A fakeSight counts what is asked, and notes what would be done.
type fakeSight struct {
	mu          sync.Mutex
	asked       int
	would       []core.Place
	transitions []string
}

func (f *fakeSight) LinkFor(netip.Addr) (string, error) { return "eth0", f.ask() }

func (f *fakeSight) Link(string) (kernel.LinkInfo, error) { return kernel.LinkInfo{}, f.ask() }

func (f *fakeSight) ask() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return nil
}

func (f *fakeSight) placed(at []core.Place) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.would = append(f.would, at...)
}

func (f *fakeSight) Transition(t core.Transition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.transitions = append(f.transitions, t.Group+" "+t.To)
}

// deafMute is mute without sockets.
type deafMute struct{ mute }

func (deafMute) Serve(fsm.Group, []core.Place) error { return nil }
func (deafMute) Insiders([]netip.Addr)               {}

// TestShadowPorts has a router of its own take a group and end: it says so, and that is all.
func TestShadowPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vip := netip.MustParsePrefix("10.0.0.200/24")
		f := &fakeSight{}
		now := func() election.Instant { return election.Instant(time.Now().UnixNano()) }
		a := agent.New(agent.Config{
			Alone: &core.AloneConfig{Node: "n1", Started: now(), Document: fsm.Document{Groups: []fsm.Group{{
				Name: "web", Addresses: []netip.Prefix{vip},
				VRRP: fsm.VRRP{ID: 51, Version: 3, Priority: 100, Interval: time.Second},
			}}}},
			Now: now, Host: handless{f, f}, Speaker: deafMute{mute{&speaker{}}}, Hooks: f, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		done := make(chan error)
		go func() { done <- a.Run(t.Context()) }()
		a.Post(core.Link{Name: "eth0", OK: true})
		a.Post(core.SourceChanged{Link: "eth0", Family: vrrpcompat.IPv4, Addr: netip.MustParseAddr("10.0.0.1")})
		time.Sleep(time.Minute)
		a.Post(core.Stop{})
		if err := <-done; err != nil {
			t.Error(err)
		}
		if want := []string{"web backup", "web active", "web backup"}; !slices.Equal(f.transitions, want) {
			t.Errorf("transitions %q, want %q", f.transitions, want)
		}
		if len(f.would) != 1 || f.would[0].Link != "eth0" || f.would[0].Prefix != vip {
			t.Errorf("would have put %+v, want %s on eth0 once", f.would, vip)
		}
		if f.asked == 0 {
			t.Error("it did not look for its device")
		}
	})
}

// TestShadowConfig: what a shadow has cannot be taken for the node's own.
func TestShadowConfig(t *testing.T) {
	of := config.Config{Cluster: "prod", DataDir: "/var/lib/quorate", Socket: "/run/quorate.sock", HTTP: "127.0.0.1:7951", FIFO: "/run/fifo",
		Election: config.ElectRaft, Node: "n1"}
	got := ShadowConfig(&of)
	if got.Cluster != "prod-shadow" || got.DataDir != "/var/lib/quorate/shadow" || got.Socket != "/run/quorate.sock.shadow" ||
		got.HTTP != "" || got.FIFO != "" || got.Node != "n1" {
		t.Errorf("the shadow's configuration: %+v", got)
	}
	if of.Cluster != "prod" {
		t.Error("the node's own configuration was changed")
	}
	names := map[string]bool{}
	for _, tail := range []string{"a", "b"} {
		c := ShadowConfig(&config.Config{Cluster: strings.Repeat("x", 62) + tail})
		if len(c.Cluster) != longestCluster || !strings.HasSuffix(c.Cluster, shadowSuffix) {
			t.Errorf("a long name becomes %q (%d bytes)", c.Cluster, len(c.Cluster))
		}
		names[c.Cluster] = true
	}
	if len(names) != 2 {
		t.Error("the shadows of two clusters have one name")
	}
	if got := ShadowConfig(&config.Config{Election: config.ElectVRRP}); got.Cluster != "" || got.DataDir != "" {
		t.Errorf("a router of its own has a cluster: %+v", got)
	}
}
