package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vrrpcompat"
)

// patience bounds every wait for the kernel or keepalived to do something; it is no measure of speed.
const patience = 20 * time.Second

var netnsCount atomic.Int32

// newNetns makes an empty network namespace, which goes when the test ends.
func newNetns(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: network namespaces and raw sockets need root")
	}
	name := fmt.Sprintf("qt-wire-%d-%d", os.Getpid(), netnsCount.Add(1))
	run(t, "ip", "netns", "add", name)
	t.Cleanup(func() { run(t, "ip", "netns", "del", name) })
	run(t, "ip", "-n", name, "link", "set", "lo", "up")
	return name
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// in calls f on a thread that is in the namespace; the thread ends with the call. Sockets that f opens stay in the
// namespace and may be used from anywhere.
func in[T any](t *testing.T, netns string, f func() (T, error)) (T, error) {
	t.Helper()
	type result struct {
		v   T
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime discards the thread
		var r result
		if r.err = enter(netns); r.err == nil {
			r.v, r.err = f()
		}
		done <- r
	}()
	r := <-done
	return r.v, r.err
}

func enter(netns string) error {
	fd, err := unix.Open("/run/netns/"+netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Setns(fd, unix.CLONE_NEWNET), unix.Close(fd))
}

// A host is a namespace with one interface.
type host struct {
	netns, ifname string
}

// newHosts makes two hosts with a cable between them: 192.0.2.1 on wa, 192.0.2.2 on wb, and link-local addresses that need no
// duplicate address detection.
func newHosts(t *testing.T) (a, b host) {
	t.Helper()
	a, b = host{newNetns(t), "wa"}, host{newNetns(t), "wb"}
	connect(t, a, b)
	return a, b
}

// connect puts the cable between two hosts.
func connect(t *testing.T, a, b host) {
	t.Helper()
	connectAs(t, a, b, "192.0.2")
	for _, h := range []host{a, b} {
		h.source(t, vrrpcompat.IPv6)
	}
}

func connectAs(t *testing.T, a, b host, network string) {
	t.Helper()
	run(t, "ip", "-n", a.netns, "link", "add", a.ifname, "type", "veth", "peer", "name", b.ifname, "netns", b.netns)
	for _, h := range []host{a, b} {
		run(t, "ip", "netns", "exec", h.netns, "sysctl", "-qw", "net.ipv6.conf."+h.ifname+".accept_dad=0")
	}
	run(t, "ip", "-n", a.netns, "addr", "add", network+".1/24", "dev", a.ifname)
	run(t, "ip", "-n", b.netns, "addr", "add", network+".2/24", "dev", b.ifname)
	for _, h := range []host{a, b} {
		run(t, "ip", "-n", h.netns, "link", "set", h.ifname, "up")
	}
}

// in makes a function run in the host's namespace.
func (h host) in(t *testing.T) func(func() error) error {
	return func(f func() error) error {
		_, err := in(t, h.netns, func() (struct{}, error) { return struct{}{}, f() })
		return err
	}
}

// source waits until the host has an address to send from, and returns it.
func (h host) source(t *testing.T, f vrrpcompat.Family) netip.Addr {
	t.Helper()
	tr, err := New(Options{Receive: func(*Packet) {}, In: h.in(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	var addr netip.Addr
	eventually(t, "a source address on "+h.ifname, func() error {
		var err error
		addr, err = tr.Source(h.ifname, f, f.Group())
		return err
	})
	return addr
}

// mac is the hardware address of the host's interface.
func (h host) mac(t *testing.T) net.HardwareAddr {
	t.Helper()
	ifi, err := in(t, h.netns, func() (*net.Interface, error) { return net.InterfaceByName(h.ifname) })
	if err != nil {
		t.Fatal(err)
	}
	return ifi.HardwareAddr
}

// A station is a Transport that runs until the test ends, with what it says.
type station struct {
	*Transport
	host
	heard   chan Packet
	sources chan sourceNews
}

type sourceNews struct {
	device       string
	family       vrrpcompat.Family
	peer, source netip.Addr
}

// station listens on the host's interface for both families.
func (h host) station(t *testing.T, isVirtual func(netip.Addr) bool) *station {
	t.Helper()
	s := &station{host: h, heard: make(chan Packet, 4096), sources: make(chan sourceNews, 64)}
	s.start(t, Options{
		Receive: func(p *Packet) {
			kept := *p
			kept.Payload, kept.MAC = slices.Clone(p.Payload), slices.Clone(p.MAC)
			s.heard <- kept
		},
		IsVirtual: isVirtual,
		SourceChanged: func(device string, family vrrpcompat.Family, peer, source netip.Addr) {
			s.sources <- sourceNews{device, family, peer, source}
		},
	})
	for _, f := range families {
		if err := s.Listen(h.ifname, f); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *station) start(t *testing.T, opts Options) {
	t.Helper()
	opts.In = s.in(t)
	tr, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Transport = tr
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tr.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v after its context, want nil", err)
		}
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
}

// path is the multicast path of the host's interface.
func (h host) path(f vrrpcompat.Family) Path { return Path{Device: h.ifname, Family: f} }

// encoding returns the advert as Send wants it.
func encoding(a vrrpcompat.Advert, sum vrrpcompat.Checksum) Encode {
	return func(dst []byte, from, to netip.Addr) ([]byte, error) { return a.AppendTo(dst, from, to, sum) }
}

// say sends an advert by multicast.
func (s *station) say(a vrrpcompat.Advert) error {
	return s.Send(s.path(vrrpcompat.FamilyOf(a.Addresses[0])), encoding(a, vrrpcompat.PseudoHeader))
}

// next waits for the next packet.
func (s *station) next(t *testing.T) Packet {
	t.Helper()
	select {
	case p := <-s.heard:
		return p
	case <-time.After(patience):
		t.Fatalf("nothing heard on %s within %s", s.ifname, patience)
		return Packet{}
	}
}

// decoded reads a packet that must be an advert.
func decoded(t *testing.T, p Packet, peers ...Peer) (vrrpcompat.Advert, vrrpcompat.Checksum) {
	t.Helper()
	meta, why := p.Admit(peers)
	if why != 0 {
		t.Fatalf("refused (%v): %+v", why, p)
	}
	a, sum, err := vrrpcompat.Decode(p.Payload, meta, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a, sum
}

// eventually polls until try returns nil.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s: %v", patience, what, err)
		}
	}
}
