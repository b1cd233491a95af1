package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/vrrpcompat"
)

var vip = netip.MustParsePrefix("10.0.0.200/24")

// A world is everything round one agent, in memory: it writes down what was done,
// in order. Raft is a log of one node that commits at once.
type world struct {
	t         *testing.T
	mu        sync.Mutex
	done      []string
	agent     *Agent
	state     *fsm.State
	index     uint64
	self      fsm.Node
	fenceErr  atomic.Pointer[error]
	removeErr atomic.Pointer[error]
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = append(w.done, fmt.Sprintf(format, args...))
}

func (w *world) history() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.done)
}

func (w *world) Set(_ []netip.Addr, until election.Instant) error {
	if err := w.fenceErr.Load(); err != nil {
		w.note("fence failed")
		return *err
	}
	if until == 0 {
		w.note("fence shut")
	} else {
		w.note("fence open")
	}
	return nil
}
func (w *world) Delete([]netip.Addr) error { w.note("fence deleted"); return nil }

func (w *world) Put(h core.Holding, valid time.Duration) error {
	for _, p := range h.At {
		w.note("add %s %s for %s", p.Link, p.Prefix, valid)
	}
	return nil
}

func (w *world) Take(h core.Holding) error {
	for _, p := range h.At {
		w.note("remove %s %s", p.Link, p.Prefix)
	}
	if err := w.removeErr.Load(); err != nil {
		return *err
	}
	return nil
}
func (w *world) LinkFor(netip.Addr) (string, error) { return "eth0", nil }
func (w *world) HasLink(string) error               { return nil }
func (w *world) RemoveLeftovers([]netip.Addr, core.Holding) ([]netip.Addr, error) {
	w.note("swept")
	return nil, nil
}
func (w *world) Converge(held []core.Held, _ []netip.Addr, valid func(election.Instant) time.Duration) core.Converged {
	var out core.Converged
	for _, h := range held {
		if h.Renew {
			out.Groups = append(out.Groups, core.Mended{Group: h.Group, Gen: h.Gen, Renewed: true, Err: w.Put(h.Holding, valid(h.Until))})
		}
	}
	return out
}
func (w *world) ResetConnections(addrs []netip.Addr) error { w.note("reset %s", addrs[0]); return nil }
func (w *world) Announce(string, []netip.Addr) error       { w.note("announce"); return nil }
func (w *world) Tell(string, []netip.Addr) func() (bool, error) {
	return func() (bool, error) { w.note("tell"); return false, nil }
}
func (w *world) Serve(fsm.Group, []core.Place) error { return nil }
func (w *world) Insiders([]netip.Addr)               {}
func (w *world) Advertise(_ string, v fsm.VRRP, _ []netip.Addr) error {
	w.note("advert %d", v.Priority)
	return nil
}
func (w *world) Campaign(context.Context) error              { return nil }
func (w *world) AskCampaign(context.Context, fsm.Node) error { return nil }
func (w *world) AddNonvoter(context.Context, fsm.Node) error { return nil }
func (w *world) AddVoter(context.Context, fsm.Node, election.VoterSet) error {
	return nil
}
func (w *world) RemoveServer(_ context.Context, id fsm.InstanceID, _ election.VoterSet) error {
	w.note("remove server %s", id.Short())
	return nil
}
func (w *world) Transition(e core.Transition) { w.note("hook %s→%s %s", e.From, e.To, e.Reason) }
func (w *world) Probe(context.Context, string, []netip.Addr) (netip.Addr, net.HardwareAddr, bool, error) {
	w.note("probe")
	return netip.Addr{}, nil, false, nil
}

// Propose commits at once and has the agent apply it.
func (w *world) Propose(_ context.Context, cmd fsm.Command) error {
	w.mu.Lock()
	w.index++
	next, err := w.state.Apply(w.index, 1, cmd)
	w.state = next
	w.mu.Unlock()
	w.agent.Post(core.Applied{State: next})
	return err
}

// newWorld returns an agent of a cluster of one that is about to form.
func newWorld(t *testing.T, mode func(*Config)) *world {
	w := &world{t: t, state: &fsm.State{}, self: fsm.Node{ID: fsm.InstanceID{1}, Name: "n1", Role: fsm.Member, Address: netip.MustParseAddrPort("10.0.0.1:7950")}}
	start := time.Now()
	now := func() election.Instant { return election.Instant(time.Hour + time.Since(start)) }
	cfg := Config{
		Core: core.Config{Self: w.self, Boot: election.BootID{1}, Started: now(), Lease: 250 * time.Millisecond, Renew: 83 * time.Millisecond, Grace: election.GraceBPF},
		Now:  now, Clock: func() (election.ClockReading, error) { return election.ClockReading{Tick: 10_000}, nil },
		Send:  func(netip.AddrPort, []byte) error { return nil },
		Fence: w, Host: w, Speaker: w, Raft: w,
		WriteHold: func(time.Duration) error { w.note("hold written"); return nil },
		Log:       slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if mode != nil {
		mode(&cfg)
	}
	w.agent = New(cfg)
	w.agent.Post(core.Voters{Log: election.VoterLog{Last: election.VoterSet{Term: 1, Index: 1, Voters: []fsm.InstanceID{w.self.ID}}, LastCommitted: true}})
	w.agent.Post(core.Leader{ID: w.self.ID, Self: true, Term: 1})
	doc := fsm.Document{MaxHold: 5 * time.Second, Groups: []fsm.Group{{
		Name: "web", Addresses: []netip.Prefix{vip}, Placement: fsm.PlacementLeader,
		Announce: fsm.Announce{Repeat: 2}, VRRP: fsm.VRRP{ID: 51, Version: 3, Priority: 254, Interval: time.Second, Checksum: fsm.ChecksumAuto, Outranked: fsm.OutrankedYield},
	}}}
	if err := w.Propose(t.Context(), fsm.Command{Form: &fsm.Form{Cluster: fsm.ClusterID{9}, Name: "test", Nodes: []fsm.Node{w.self}, Document: doc}}); err != nil {
		t.Fatal(err)
	}
	return w
}

// live runs the agent in a bubble until f has returned and the agent has ended.
func (w *world) live(ctx context.Context, f func()) {
	ended := make(chan error, 1)
	go func() { ended <- w.agent.Run(ctx) }()
	f()
	if err := <-ended; err != nil {
		w.t.Errorf("Run = %v", err)
	}
}

// inOrder fails the test unless the steps are found in the history, in that order.
func (w *world) inOrder(want ...string) {
	w.t.Helper()
	have := w.history()
	i := 0
	for _, step := range have {
		if i < len(want) && strings.HasPrefix(step, want[i]) {
			i++
		}
	}
	if i < len(want) {
		w.t.Fatalf("no %q after %q in:\n%s", want[i], want[:i], strings.Join(have, "\n"))
	}
}

// The order of design.md 3.3: on taking, the fence first and the adverts last; on
// letting go, the fence first and its entry last.
func TestOrderOfEffects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.live(t.Context(), func() {
			time.Sleep(6 * time.Second)
			w.agent.Post(core.Stop{})
		})
		w.inOrder("swept", "hold written", "probe", "fence open", "add eth0 10.0.0.200/24 for 10s", "announce", "advert",
			"fence open", "add eth0 10.0.0.200/24", "fence shut", "remove eth0 10.0.0.200/24", "fence deleted")
		last := w.history()[len(w.history())-1]
		if last != "fence deleted" {
			t.Fatalf("the last thing done is %q", last)
		}
	})
}

// Hooks hear of a change when the fence and the addresses have been seen to, and a removed
// node is taken from Raft's members.
func TestHooksAndRemovals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.agent.cfg.Hooks = w
		other := fsm.Node{ID: fsm.InstanceID{2}, Name: "n2", Role: fsm.Witness, Address: netip.MustParseAddrPort("10.0.0.2:7950")}
		w.live(t.Context(), func() {
			time.Sleep(2 * time.Second)
			for _, cmd := range []fsm.Command{{Enrol: &fsm.Enrol{Node: other}}, {Retire: &fsm.Retire{Node: other.ID}}} {
				if err := w.Propose(t.Context(), cmd); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(time.Second)
			w.agent.Post(core.Stop{})
		})
		w.inOrder("hook →backup", "fence open", "add eth0", "hook backup→active first", "remove server 02000000", "fence shut", "hook active→backup shutdown", "fence deleted")
	})
}

// With the fence out of order nothing is bound.
func TestNoAddressWithoutFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		full := errors.New("no space in the map")
		w.fenceErr.Store(&full)
		w.live(t.Context(), func() {
			time.Sleep(3 * time.Second)
			s, err := w.agent.Status(t.Context())
			if err != nil || s.VIPs[0].State != "fault" {
				t.Errorf("status %+v, %v", s.VIPs, err)
			}
			w.agent.Post(core.Stop{})
		})
		if i := slices.IndexFunc(w.history(), func(s string) bool { return strings.HasPrefix(s, "add") }); i >= 0 {
			t.Fatalf("an address was added:\n%s", strings.Join(w.history(), "\n"))
		}
	})
}

// A context that ends shuts everything on the spot.
func TestAbandon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		w.live(ctx, func() {
			time.Sleep(3 * time.Second)
			cancel()
		})
		w.inOrder("fence open", "add", "fence shut", "remove")
	})
}

// An address that cannot be removed is tried again, and its fence entry stays.
func TestRemovalIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.live(t.Context(), func() {
			time.Sleep(2 * time.Second)
			busy := errors.New("busy")
			w.removeErr.Store(&busy)
			w.agent.Release()
			time.Sleep(time.Second)
			if slices.Contains(w.history(), "fence deleted") {
				t.Error("the fence entry is gone while the address is there")
			}
			w.removeErr.Store(nil)
			w.agent.Post(core.Stop{})
		})
		w.inOrder("fence shut", "remove", "remove", "fence deleted")
	})
}

// Where the lifetime is the fence, the kernel is never told more than the lease
// has left, in whole seconds.
func TestLifetimeFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) {
			c.Core.LifetimeFence, c.Core.Grace = true, election.GraceLifetime
			c.Core.Lease, c.Core.Renew = 3*time.Second, time.Second
		})
		w.live(t.Context(), func() {
			time.Sleep(20 * time.Second)
			w.agent.Post(core.Stop{})
		})
		adds := 0
		for _, s := range w.history() {
			if !strings.HasPrefix(s, "add") {
				continue
			}
			adds++
			if s != "add eth0 10.0.0.200/24 for 2s" && s != "add eth0 10.0.0.200/24 for 3s" {
				t.Fatalf("%s, with a lease of 3s", s)
			}
		}
		if adds < 10 {
			t.Fatalf("the lifetime was renewed %d times in some 15 s, want each second", adds)
		}
	})
}

func TestMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.live(t.Context(), func() {
			time.Sleep(2 * time.Second)
			for _, tt := range []struct{ group, node, want string }{
				{"web", "n1", "already"}, {"nosuch", "n1", "no group"}, {"web", "n9", "no node"},
			} {
				if err := w.agent.Move(t.Context(), tt.group, tt.node); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("move %s to %s: %v, want %q in it", tt.group, tt.node, err, tt.want)
				}
			}
			w.agent.Post(core.Stop{})
		})
		if _, err := w.agent.Status(t.Context()); !errors.Is(err, errStopped) {
			t.Errorf("status of an agent that has ended: %v", err)
		}
	})
}

// A router of its own needs no cluster: it takes the group after its down interval, renews
// the lifetime of its addresses, and says priority 0 when it stops.
func TestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		start := time.Now()
		now := func() election.Instant { return election.Instant(time.Hour + time.Since(start)) }
		doc := w.state.Document
		doc.Groups[0].Preempt = fsm.Preempt{Yes: true}
		w.done = nil
		w.agent = New(Config{
			Alone: &core.AloneConfig{Node: "n1", Started: now(), Document: doc}, Now: now, Host: w, Speaker: w,
			Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		w.live(t.Context(), func() {
			w.agent.Post(core.SourceChanged{Link: "eth0", Family: vrrpcompat.IPv4, Addr: netip.MustParseAddr("10.0.0.1")})
			time.Sleep(3 * time.Second)
			if s, err := w.agent.Status(t.Context()); err != nil || s.VIPs[0].State != "backup" || s.SingleOwner {
				t.Errorf("status %+v, %v", s, err)
			}
			if err := w.agent.Move(t.Context(), "web", "n2"); err == nil {
				t.Error("moves a group without a cluster")
			}
			time.Sleep(6 * time.Second)
			if s, err := w.agent.Status(t.Context()); err != nil || s.VIPs[0].State != "active" || s.VIPs[0].Owner != "n1" {
				t.Errorf("status %+v, %v", s.VIPs, err)
			}
			w.agent.Post(core.Stop{})
		})
		w.inOrder("swept", "probe", "add eth0 10.0.0.200/24 for 10s", "announce", "add eth0 10.0.0.200/24 for 10s", "remove eth0 10.0.0.200/24", "advert 0")
		if h := strings.Join(w.history(), "\n"); strings.Contains(h, "fence") || strings.Count(h, "advert 0") != 1 {
			t.Fatalf("a fence, or priority 0 more than once:\n%s", h)
		}
	})
}

// Nothing that is put is lost, and each sender's order is kept.
func TestMailbox(t *testing.T) {
	m := newMailbox()
	const senders, each = 8, 1000
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			for i := range each {
				m.put([2]int{s, i})
			}
		})
	}
	next := [senders]int{}
	for taken := 0; taken < senders*each; {
		<-m.ready
		for _, item := range m.take() {
			x := item.([2]int)
			if x[1] != next[x[0]] {
				t.Fatalf("sender %d: item %d, want %d", x[0], x[1], next[x[0]])
			}
			next[x[0]]++
			taken++
		}
	}
	all.Wait()
	m.close()
	if m.put(1) {
		t.Fatal("a closed mailbox takes something")
	}
}

func TestAdvertsAreSplitByDeviceAndFamily(t *testing.T) {
	at := []core.Place{
		{Link: "eth0", Prefix: netip.MustParsePrefix("10.0.0.2/24")},
		{Link: "eth0", Prefix: netip.MustParsePrefix("2001:db8::2/64")},
		{Link: "eth1", Prefix: netip.MustParsePrefix("10.1.0.2/24")},
		{Link: "eth0", Prefix: netip.MustParsePrefix("10.0.0.1/24")},
	}
	var got []string
	for _, b := range adverts(at) {
		got = append(got, fmt.Sprint(b.link, b.addrs))
	}
	want := []string{"eth0[10.0.0.2 10.0.0.1]", "eth0[2001:db8::2]", "eth1[10.1.0.2]"}
	if !slices.Equal(got, want) {
		t.Fatalf("adverts %q, want %q", got, want)
	}
}
