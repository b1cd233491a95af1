package peerlink

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
)

// patience bounds every wait for real sockets. It is long: the machine may be busy.
const patience = 20 * time.Second

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

type node struct {
	*Link
	addr netip.AddrPort
	logs *syncBuffer
	stop func()
}

func (n *node) peer() Peer { return Peer{Address: n.addr} }

// serve starts a node on a loopback address.
func serve(t testing.TB, ip string, creds Credentials, id Identity, h Handlers) *node {
	t.Helper()
	n := &node{logs: &syncBuffer{}}
	l, err := Listen(Config{
		Address:     netip.AddrPortFrom(netip.MustParseAddr(ip), 0),
		Credentials: creds,
		Identity:    func() Identity { return id },
		Log:         slog.New(slog.NewTextHandler(n.logs, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Link, n.addr = l, l.Address()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx, h) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run did not end")
		}
	})
	t.Cleanup(n.stop)
	return n
}

func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not seen within %s: %s", patience, what)
		}
	}
}

// writePEM stores the identity that a key gives as files.
func writePEM(t testing.TB, k Key) TLSFiles {
	t.Helper()
	c := credentials(t, k, 1)
	ca, _, err := k.ca()
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(c.leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return TLSFiles{CA: write("ca", "CERTIFICATE", ca.Raw), Cert: write("cert", "CERTIFICATE", c.leaf.Leaf.Raw),
		Key: write("key", "PRIVATE KEY", private)}
}

func TestStreams(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		t.Run(ip, func(t *testing.T) {
			key := parse(t, GenerateKey())
			a := serve(t, ip, credentials(t, key, 1), identity("prod", 9, 1), &fakeNode{})
			b := serve(t, ip, credentials(t, key, 2), identity("prod", 9, 2), &fakeNode{})
			raft, err := a.DialRaft(t.Context(), b.addr, fsm.InstanceID{15: 2})
			if err != nil {
				t.Fatal(err)
			}
			echo(t, raft, b.Raft())
			gossip, err := a.DialGossip(t.Context(), b.addr)
			if err != nil {
				t.Fatal(err)
			}
			echo(t, gossip, b.Gossip())
			if from := addrOf(raft); from != b.addr {
				t.Errorf("remote address %s, want %s", from, b.addr)
			}
			if v := raft.(*tls.Conn).ConnectionState().Version; v != tls.VersionTLS13 {
				t.Errorf("TLS version %x", v)
			}
			b.Raft().Close()
			if _, err := b.Raft().Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("accept after close = %v", err)
			}
		})
	}
}

// echo checks that what goes in at one end comes out at the other.
func echo(t *testing.T, out net.Conn, l net.Listener) {
	t.Helper()
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := out.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(in, got); err != nil || string(got) != "ping" {
		t.Fatalf("received %q, %v", got, err)
	}
}

func TestSocketOptions(t *testing.T) {
	key := parse(t, GenerateKey())
	a := serve(t, "127.0.0.1", credentials(t, key, 1), identity("prod", 9, 1), &fakeNode{})
	out, err := a.DialRaft(t.Context(), a.addr, fsm.InstanceID{})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := a.Raft().Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for name, conn := range map[string]net.Conn{"dialled": out, "accepted": in} {
		if ms := userTimeout(t, conn); ms != int(deadPeer.Milliseconds()) {
			t.Errorf("%s connection: TCP_USER_TIMEOUT is %d ms", name, ms)
		}
	}
}

func TestRefusalsOnBothSides(t *testing.T) {
	key, other := parse(t, GenerateKey()), parse(t, GenerateKey())
	for _, tt := range []struct {
		name   string
		key    Key
		id     Identity
		expect fsm.InstanceID
		want   Reason
		text   string
	}{
		{"other key", other, identity("prod", 9, 1), fsm.InstanceID{}, OtherKey, "key_file"},
		{"other cluster", key, identity("staging", 9, 1), fsm.InstanceID{}, OtherCluster, "staging"},
		{"other formation", key, identity("prod", 8, 1), fsm.InstanceID{}, OtherFormation, "data_dir"},
		{"other instance", key, identity("prod", 9, 1), fsm.InstanceID{15: 3}, OtherInstance, "00000000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := serve(t, "127.0.0.1", credentials(t, key, 2), identity("prod", 9, 2), &fakeNode{})
			a := serve(t, "127.0.0.1", credentials(t, tt.key, 1), tt.id, &fakeNode{})
			const attempts = 3
			for range attempts {
				conn, err := a.DialRaft(t.Context(), b.addr, tt.expect)
				if conn != nil || ReasonOf(err) != tt.want || !strings.Contains(err.Error(), tt.text) {
					t.Fatalf("dial = %v, %v; want reason %s and text %q", conn, err, tt.want, tt.text)
				}
			}
			for side, n := range map[string]*node{"dialler": a, "acceptor": b} {
				until(t, side+" counts", func() bool { return n.Refusals()[tt.want] == attempts })
				if lines := strings.Count(n.logs.String(), "reason="+tt.want.String()); lines != 1 {
					t.Errorf("%s: %d log lines for %d attempts:\n%s", side, lines, attempts, n.logs)
				}
				if !strings.Contains(n.logs.String(), tt.text) {
					t.Errorf("%s: the log does not say %q:\n%s", side, tt.text, n.logs)
				}
			}
		})
	}
}

// With certificates from files the dialler may accept what does not accept it.
func TestRefusedAfterOwnHandshake(t *testing.T) {
	key, other := parse(t, GenerateKey()), parse(t, GenerateKey())
	mine, theirs := credentials(t, other, 1), credentials(t, key, 2)
	mine.roots = theirs.roots
	b := serve(t, "127.0.0.1", theirs, identity("prod", 9, 2), &fakeNode{})
	a := serve(t, "127.0.0.1", mine, identity("prod", 9, 1), &fakeNode{})
	_, err := a.DialRaft(t.Context(), b.addr, fsm.InstanceID{})
	var r *Refused
	if !errors.As(err, &r) || r.Reason != OtherKey || !r.ByPeer {
		t.Errorf("raft: %v", err)
	}
	_, err = a.Client().Hello(t.Context(), b.peer())
	if !errors.As(err, &r) || r.Reason != OtherKey || !r.ByPeer {
		t.Errorf("rpc: %v", err)
	}
}

// Who has no certificate, or asks for no protocol of ours, gets no further than TLS.
func TestStrangersGetNothing(t *testing.T) {
	key := parse(t, GenerateKey())
	b := serve(t, "127.0.0.1", credentials(t, key, 2), identity("prod", 9, 2), &fakeNode{})
	knows := credentials(t, key, 1).config(false)
	anonymous := knows.Clone()
	anonymous.Certificates = nil
	old := knows.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for name, cfg := range map[string]*tls.Config{"no certificate": anonymous, "no protocol": knows, "TLS 1.2": old} {
		for _, protocols := range [][]string{nil, {"h2"}, {ProtocolRaft}} {
			if name == "no protocol" && len(protocols) > 0 && protocols[0] == ProtocolRaft {
				continue
			}
			cfg = cfg.Clone()
			cfg.NextProtos = protocols
			conn, err := tls.Dial("tcp", b.addr.String(), cfg)
			if err != nil {
				continue
			}
			conn.SetDeadline(time.Now().Add(patience))
			if n, err := conn.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s, %v: the connection stays open: %d, %v", name, protocols, n, err)
			}
			conn.Close()
		}
	}
	b.stop()
	for _, l := range []net.Listener{b.Raft(), b.Gossip()} {
		if conn, err := l.Accept(); err == nil {
			t.Errorf("%s was handed out", conn.RemoteAddr())
		}
	}
}

func TestListenRefuses(t *testing.T) {
	key := parse(t, GenerateKey())
	a := serve(t, "127.0.0.1", credentials(t, key, 1), identity("prod", 9, 1), &fakeNode{})
	cfg := a.cfg
	cfg.Address = a.addr
	_, err := Listen(cfg)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), a.addr.String()) || !strings.Contains(err.Error(), "peers:") {
		t.Errorf("port in use = %v", err)
	}
	cfg.Address = netip.MustParseAddrPort("192.0.2.1:7950")
	if _, err := Listen(cfg); !errors.Is(err, syscall.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "no device of this host has the address 192.0.2.1") {
		t.Errorf("somebody else's address = %v", err)
	}
	cfg.Identity = func() Identity { return identity(strings.Repeat("x", 65), 0, 1) }
	if _, err := Listen(cfg); err == nil || !strings.Contains(err.Error(), "1 to 64") {
		t.Errorf("a name of 65 bytes = %v", err)
	}
}

// Strangers that connect and say nothing hold up nobody, use up one address's share
// only, and are thrown out.
func TestSlowHandshakes(t *testing.T) {
	key := parse(t, GenerateKey())
	b := serve(t, "127.0.0.1", credentials(t, key, 2), identity("prod", 9, 2), &fakeNode{})
	a := serve(t, "127.0.0.1", credentials(t, key, 1), identity("prod", 9, 1), &fakeNode{})
	stranger := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	var silent []net.Conn
	for range maxHandshakesOfOne + 10 {
		conn, err := stranger.Dial("tcp", b.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, conn)
	}
	until(t, "the surplus", func() bool { return b.Refusals()[TooMany] > 0 })
	conn, err := a.DialRaft(t.Context(), b.addr, fsm.InstanceID{15: 2})
	if err != nil {
		t.Fatalf("a node beside silent strangers: %v", err)
	}
	conn.Close()
	until(t, "all thrown out", func() bool {
		r := b.Refusals()
		return r[TooSlow] >= maxHandshakesOfOne && int(r[TooSlow]+r[TooMany]) == len(silent)
	})
	for _, conn := range silent {
		conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a silent connection is still open: %v", err)
		}
	}
}

// A node that does TLS and then no hello is as slow a stranger as any other.
func TestSlowHello(t *testing.T) {
	key := parse(t, GenerateKey())
	b := serve(t, "127.0.0.1", credentials(t, key, 2), identity("prod", 9, 2), &fakeNode{})
	conn, err := tls.Dial("tcp", b.addr.String(), credentials(t, key, 1).config(false, ProtocolRaft))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	until(t, "thrown out", func() bool { return b.Refusals()[TooSlow] == 1 })
}

func TestDialEndsWithContext(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	key := parse(t, GenerateKey())
	a := serve(t, "127.0.0.1", credentials(t, key, 1), identity("prod", 9, 1), &fakeNode{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if conn, err := silent.Accept(); err == nil {
			defer conn.Close()
			io.ReadFull(conn, make([]byte, 5)) // the client is in its handshake now
			cancel()
			io.Copy(io.Discard, conn)
		}
	}()
	to := silent.Addr().(*net.TCPAddr).AddrPort()
	if _, err := a.DialRaft(ctx, to, fsm.InstanceID{}); !errors.Is(err, context.Canceled) {
		t.Errorf("dial = %v, want context.Canceled", err)
	}
}

func TestGate(t *testing.T) {
	g := newGate()
	of := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
	entered := 0
	for i := range 10 { // ten strangers take what they get
		for g.enter(of(i)) {
			entered++
		}
	}
	if entered < maxHandshakesStrict || entered >= maxHandshakes {
		t.Errorf("strangers took %d of %d places", entered, maxHandshakes)
	}
	if !g.enter(of(200)) {
		t.Error("no place for a new address")
	}
	g.leave(of(200))
	for i, n := range g.of {
		for range n {
			g.leave(i)
		}
	}
	if g.total != 0 || len(g.of) != 0 {
		t.Errorf("after all left: %d, %v", g.total, g.of)
	}
}
