package wire

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
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
	run(t, "ip", "-n", a.netns, "link", "add", a.ifname, "type", "veth", "peer", "name", b.ifname, "netns", b.netns)
	for _, h := range []host{a, b} {
		run(t, "ip", "netns", "exec", h.netns, "sysctl", "-qw", "net.ipv6.conf."+h.ifname+".accept_dad=0")
	}
	run(t, "ip", "-n", a.netns, "addr", "add", "192.0.2.1/24", "dev", a.ifname)
	run(t, "ip", "-n", b.netns, "addr", "add", "192.0.2.2/24", "dev", b.ifname)
	for _, h := range []host{a, b} {
		run(t, "ip", "-n", h.netns, "link", "set", h.ifname, "up")
	}
	for _, h := range []host{a, b} {
		h.source(t, vrrpcompat.IPv6)
	}
	return a, b
}

// source waits until the host has an address to send from.
func (h host) source(t *testing.T, f vrrpcompat.Family) netip.Addr {
	t.Helper()
	var addr netip.Addr
	eventually(t, "a source address on "+h.ifname, func() error {
		var err error
		addr, err = h.sourceAddress(t, f, nil)
		return err
	})
	return addr
}

func (h host) sourceAddress(t *testing.T, f vrrpcompat.Family, exclude func(netip.Addr) bool) (netip.Addr, error) {
	t.Helper()
	return in(t, h.netns, func() (netip.Addr, error) { return SourceAddress(h.ifname, f, exclude) })
}

func (h host) open(t *testing.T, f vrrpcompat.Family) *Conn {
	t.Helper()
	c, err := in(t, h.netns, func() (*Conn, error) { return Open(h.ifname, f) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// listen runs c until the test ends, and gives what it hears.
func listen(t *testing.T, c *Conn) <-chan Heard {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	heard, ended := make(chan Heard, 1024), make(chan error, 1)
	go func() { ended <- c.Run(ctx, func(h Heard) { heard <- h }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v after its context, want nil", err)
		}
	})
	return heard
}

func next(t *testing.T, heard <-chan Heard) Heard {
	t.Helper()
	select {
	case h := <-heard:
		return h
	case <-time.After(patience):
		t.Fatalf("nothing heard within %s", patience)
		return Heard{}
	}
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
