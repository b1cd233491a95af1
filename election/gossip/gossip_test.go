package gossip

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
)

// patience bounds every wait for real sockets. It is long: the machine may be busy.
const patience = 20 * time.Second

// A node is a Gossip with what it received.
type node struct {
	*Gossip
	id   fsm.InstanceID
	addr netip.AddrPort
	stop func() // ends Run and waits for it

	mu      sync.Mutex
	got     []received
	changes []Change
	arrived chan struct{}
	logs    *syncBuffer
	answer  bool // send each datagram back
}

type received struct {
	from    netip.AddrPort
	payload string
}

func (n *node) Datagram(from netip.AddrPort, payload []byte) {
	if n.answer {
		_ = n.Send(from, payload)
		return
	}
	n.mu.Lock()
	n.got = append(n.got, received{from, string(payload)})
	n.mu.Unlock()
	n.wake()
}

func (n *node) MembersChanged(changes []Change) {
	n.mu.Lock()
	n.changes = append(n.changes, changes...)
	n.mu.Unlock()
	n.wake()
}

func (n *node) wake() {
	select {
	case n.arrived <- struct{}{}:
	default:
	}
}

// until waits for cond, which is tried whenever something arrives and now and then.
func (n *node) until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-n.arrived:
		case <-tick.C:
		case <-deadline:
			t.Fatalf("node %s: not seen within %s: %s\nmembers %v\nlog:\n%s", n.id.Short(), patience, what, n.Members(), n.logs)
		}
	}
}

func (n *node) change(kind ChangeKind, of fsm.InstanceID) func() bool {
	return func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return slices.ContainsFunc(n.changes, func(c Change) bool { return c.Kind == kind && c.Member.Instance == of })
	}
}

func (n *node) received(count int) func() bool {
	return func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.got) >= count
	}
}

func (n *node) knows(count int) func() bool { return func() bool { return len(n.Members()) == count } }

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func instance(n byte) fsm.InstanceID { return fsm.InstanceID{15: n} }

// prepare returns a configuration with a port of its own on ip.
func prepare(t testing.TB, ip string, n byte, peers ...netip.AddrPort) (Config, *node) {
	t.Helper()
	streams, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Skipf("no address %s on this host: %v", ip, err)
	}
	t.Cleanup(func() { streams.Close() })
	nd := &node{id: instance(n), arrived: make(chan struct{}, 1), logs: &syncBuffer{}}
	nd.addr = streams.Addr().(*net.TCPAddr).AddrPort()
	return Config{
		Address: nd.addr,
		Cluster: "test",
		Key:     bytes.Repeat([]byte{7}, 32),
		Meta:    Meta{Instance: nd.id, Name: fmt.Sprintf("n%d", n), Role: fsm.Member, Version: "1.2.3"},
		Streams: streams,
		Dial: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", to.String())
		},
		Peers: func() []netip.AddrPort { return peers },
		Sink:  nd,
		Log:   slog.New(slog.NewTextHandler(nd.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, nd
}

func run(t testing.TB, cfg Config, nd *node) *node {
	t.Helper()
	g, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	nd.Gossip = g
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	nd.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("node %s: Run: %v", nd.id.Short(), err)
			}
		case <-time.After(patience):
			t.Errorf("node %s: Run did not end", nd.id.Short())
		}
	})
	t.Cleanup(nd.stop)
	nd.until(t, "running", func() bool { return g.list.Load() != nil })
	return nd
}

func start(t testing.TB, ip string, n byte, peers ...netip.AddrPort) *node {
	t.Helper()
	cfg, nd := prepare(t, ip, n, peers...)
	return run(t, cfg, nd)
}

func TestThreeNodesFindEachOther(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		t.Run(ip, func(t *testing.T) {
			a := start(t, ip, 1)
			b := start(t, ip, 2, a.addr)
			c := start(t, ip, 3, a.addr)
			all := []*node{a, b, c}
			for _, n := range all {
				n.until(t, "two members", n.knows(2))
			}
			if m := b.Members()[0]; m.Instance != a.id || m.Name != "n1" || m.Address != a.addr || m.Version != "1.2.3" || m.Role != fsm.Member {
				t.Errorf("member = %+v", m)
			}
			for _, from := range all {
				for _, to := range all {
					if err := from.Send(to.addr, []byte("hello")); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, to := range all {
				to.until(t, "a datagram of each", to.received(3))
				for _, from := range all {
					if !slices.Contains(to.got, received{from.addr, "hello"}) {
						t.Errorf("%s has nothing from %s: %v", to.addr, from.addr, to.got)
					}
				}
			}
		})
	}
}

func TestUpdateLeaveAndRestart(t *testing.T) {
	a := start(t, "127.0.0.1", 1)
	cfg, nd := prepare(t, "127.0.0.1", 2, a.addr)
	b := run(t, cfg, nd)
	a.until(t, "b", a.change(Joined, b.id))

	formed := cfg.Meta
	formed.Cluster, formed.HasState = fsm.ClusterID{1, 2, 3}, true
	if err := b.UpdateMeta(formed); err != nil {
		t.Fatal(err)
	}
	a.until(t, "the update", a.change(Updated, b.id))
	if m := a.Members()[0]; m.Cluster != formed.Cluster || !m.HasState {
		t.Errorf("member after the update = %+v", m)
	}

	b.stop()
	a.until(t, "b gone", a.change(Gone, b.id))
	if len(a.Members()) != 0 {
		t.Errorf("members after b left = %v", a.Members())
	}
	if err := b.Send(a.addr, nil); !errors.Is(err, ErrNotRunning) {
		t.Errorf("send after Run = %v, want ErrNotRunning", err)
	}

	again, nd := prepare(t, "127.0.0.1", 2, a.addr)
	run(t, again, nd)
	a.until(t, "b restarted", a.change(Restarted, b.id))
}

// A node that memberlist thinks dead, or does not know, still gets what is sent to it.
func TestSendNeedsNoMembership(t *testing.T) {
	a, b := start(t, "127.0.0.1", 1), start(t, "127.0.0.1", 2)
	if err := a.Send(b.addr, []byte("x")); err != nil {
		t.Fatal(err)
	}
	b.until(t, "the datagram", b.received(1))
	if len(a.Members()) != 0 || len(b.Members()) != 0 {
		t.Error("they know each other; the test shows nothing")
	}
}

// All of a burst arrives, at the largest size, while the receiver's membership works too.
func TestBurst(t *testing.T) {
	a := start(t, "127.0.0.1", 1)
	b := start(t, "127.0.0.1", 2, a.addr)
	b.until(t, "a", b.knows(1))
	const rounds, burst = 20, 100
	for round := range rounds {
		for i := range burst {
			payload := make([]byte, MaxPayload)
			binary.BigEndian.PutUint32(payload, uint32(round*burst+i))
			if err := a.Send(b.addr, payload); err != nil {
				t.Fatal(err)
			}
		}
		b.until(t, fmt.Sprintf("burst %d", round), b.received((round+1)*burst))
	}
	seen := map[uint32]bool{}
	for _, r := range b.got {
		if len(r.payload) != MaxPayload {
			t.Fatalf("%d bytes arrived, want %d", len(r.payload), MaxPayload)
		}
		seen[binary.BigEndian.Uint32([]byte(r.payload))] = true
	}
	if len(seen) != rounds*burst {
		t.Errorf("%d different datagrams of %d arrived", len(seen), rounds*burst)
	}
	if err := a.Send(b.addr, make([]byte, MaxPayload+1)); err == nil {
		t.Error("a payload above the bound was sent")
	}
}

func TestForeignPacketsAreNamed(t *testing.T) {
	a := start(t, "127.0.0.1", 1)
	wrongKey, k := prepare(t, "127.0.0.1", 2)
	wrongKey.Key = bytes.Repeat([]byte{8}, 32)
	otherCluster, o := prepare(t, "127.0.0.1", 3)
	otherCluster.Cluster = "staging"
	run(t, wrongKey, k)
	run(t, otherCluster, o)
	const n = 5
	for range n {
		for _, from := range []*node{k, o} {
			if err := from.Send(a.addr, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	udp, err := net.Dial("udp", a.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, packet := range []string{"GET / HTTP/1.0", "", "\xf4", "\xf4\x04tes", "\xf4\x04test"} {
		if _, err := udp.Write([]byte(packet)); err != nil {
			t.Fatal(err)
		}
	}
	want := map[ForeignReason]uint64{ForeignCluster: n + 1, ForeignKey: n + 1, ForeignFormat: 3}
	for reason, count := range want {
		a.until(t, reason.String(), func() bool { return a.Foreign()[reason] == count })
		if lines := strings.Count(a.logs.String(), "reason="+reason.String()); lines != 1 {
			t.Errorf("%s: %d log lines, want one for all", reason, lines)
		}
	}
	if !strings.Contains(a.logs.String(), "from="+k.addr.String()) {
		t.Errorf("the log does not name the sender with another key:\n%s", a.logs)
	}
	if len(a.got) != 0 {
		t.Errorf("foreign datagrams reached the sink: %v", a.got)
	}
}

// Streams with another key or cluster name must not merge the memberships either.
func TestForeignNodeDoesNotJoin(t *testing.T) {
	a := start(t, "127.0.0.1", 1)
	cfg, nd := prepare(t, "127.0.0.1", 2, a.addr)
	cfg.Cluster = "staging"
	b := run(t, cfg, nd)
	a.until(t, "the refusal", func() bool { return a.Foreign()[ForeignCluster] > 0 })
	if len(a.Members()) != 0 || len(b.Members()) != 0 {
		t.Errorf("members: %v and %v", a.Members(), b.Members())
	}
}

func TestClashes(t *testing.T) {
	a := start(t, "127.0.0.1", 1)
	cfg, nd := prepare(t, "127.0.0.1", 2, a.addr)
	cfg.Meta.Name = "n1"
	run(t, cfg, nd)
	a.until(t, "the clash of names", a.change(NameClash, instance(2)))

	copied, nd := prepare(t, "127.0.0.1", 2, a.addr) // the same data_dir at another address
	run(t, copied, nd)
	a.until(t, "the clash of instances", a.change(InstanceClash, instance(2)))
}

func TestPortInUse(t *testing.T) {
	a := start(t, "127.0.0.1", 1)
	cfg, _ := prepare(t, "127.0.0.1", 2)
	cfg.Address = a.addr
	_, err := Open(cfg)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), a.addr.String()) || !strings.Contains(err.Error(), "peers:") {
		t.Errorf("Open on a port in use: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"short key":    func(c *Config) { c.Key = c.Key[:16] },
		"no cluster":   func(c *Config) { c.Cluster = "" },
		"long cluster": func(c *Config) { c.Cluster = strings.Repeat("x", MaxClusterName+1) },
		"wildcard":     func(c *Config) { c.Address = netip.MustParseAddrPort("0.0.0.0:7950") },
		"link-local":   func(c *Config) { c.Address = netip.MustParseAddrPort("[fe80::1%lo]:7950") },
		"long name":    func(c *Config) { c.Meta.Name = strings.Repeat("x", 500) },
		"no instance":  func(c *Config) { c.Meta.Instance = fsm.InstanceID{} },
	} {
		cfg, _ := prepare(t, "127.0.0.1", 1)
		spoil(&cfg)
		if g, err := Open(cfg); err == nil {
			g.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	longest := Meta{Instance: instance(1), Name: strings.Repeat("x", 63), Version: strings.Repeat("v", 32), life: ^uint64(0)}
	if _, err := longest.encode(); err != nil {
		t.Errorf("the documented lengths do not fit: %v", err)
	}
}

func FuzzEnvelope(f *testing.F) {
	f.Add(appendEnvelope(nil, lease, netip.MustParseAddrPort("10.0.0.1:7950")))
	f.Add(append(appendEnvelope(nil, neighbours, netip.MustParseAddrPort("[2001:db8::1]:1")), "payload"...))
	f.Add([]byte{1, 4, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, from, payload, ok := openEnvelope(b)
		if ok && !bytes.Equal(append(appendEnvelope(nil, k, from), payload...), b) {
			t.Fatalf("%x reads as %v from %v with %x", b, k, from, payload)
		}
	})
}

// TestKinds: what is about neighbours goes where it belongs, and what only a later version
// knows is counted.
func TestKinds(t *testing.T) {
	heard := make(chan string, 10)
	cfg, n := prepare(t, "127.0.0.1", 1)
	cfg.Neighbours = func(from netip.AddrPort, payload []byte) { heard <- from.String() + " " + string(payload) }
	run(t, cfg, n)
	if err := n.SendNeighbours(n.addr, []byte("a list")); err != nil {
		t.Fatal(err)
	}
	n.until(t, "the list", func() bool { return len(heard) > 0 })
	if got, want := <-heard, n.addr.String()+" a list"; got != want {
		t.Errorf("heard %q, want %q", got, want)
	}
	if err := n.send(appendEnvelope(nil, 77, n.addr), n.addr, []byte("of tomorrow")); err != nil {
		t.Fatal(err)
	}
	n.until(t, "an unknown kind", func() bool { return n.Foreign()[ForeignKind] == 1 })
	if n.received(1)() || len(heard) != 0 {
		t.Errorf("a lease came out of it: %v", n.got)
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	cfg, nd := prepare(b, "127.0.0.1", 2)
	nd.answer = true
	echo := run(b, cfg, nd)
	asker := start(b, "127.0.0.1", 1)
	payload := make([]byte, 300)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := asker.Send(echo.addr, payload); err != nil {
			b.Fatal(err)
		}
		for !asker.received(i + 1)() {
			<-asker.arrived
		}
	}
}
