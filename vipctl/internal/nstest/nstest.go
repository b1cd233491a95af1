// Package nstest builds small networks out of network namespaces for tests that
// need a real kernel.
//
// The namespaces have no name and vanish with the test, however it ends.
package nstest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vipctl"
	"github.com/quorate/quorate/vipctl/internal/netns"
)

// NeedRoot skips the test, saying why, unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root, to make network namespaces; run: sudo go test")
	}
}

// A Host is a network namespace with its loopback up.
type Host struct {
	*netns.Handle
}

// New makes a host.
func New(t testing.TB) *Host {
	t.Helper()
	NeedRoot(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	h := &Host{ns}
	h.Run(t, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return h
}

// Run calls f on a thread of the host and fails the test on its error.
func (h *Host) Run(t testing.TB, f func() error) {
	t.Helper()
	if err := h.Do(f); err != nil {
		t.Fatal(err)
	}
}

// Connect puts a cable between two hosts: a device of the given name in each, up,
// with carrier, without IPv6 link-local addresses of their own making.
func Connect(t testing.TB, a *Host, aName string, b *Host, bName string) {
	t.Helper()
	a.Run(t, func() error {
		if err := netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: aName}, PeerName: bName, PeerNamespace: netlink.NsFd(b.Fd()),
		}); err != nil {
			return err
		}
		return Up(aName)
	})
	b.Run(t, func() error { return Up(bName) })
	a.running(t, aName)
	b.running(t, bName)
}

// running waits until the kernel passes frames on a device, which is a little
// after it has been set up; what is sent before is lost.
func (h *Host) running(t testing.TB, name string) {
	t.Helper()
	Eventually(t, name+" runs", 10*time.Second, func() bool {
		var l netlink.Link
		h.Run(t, func() (err error) {
			l, err = netlink.LinkByName(name)
			return err
		})
		return l.Attrs().OperState == netlink.OperUp
	})
}

const genModeNone = 1 // IN6_ADDR_GEN_MODE_NONE of include/uapi/linux/if_link.h

// Up brings a device of the calling thread's namespace up.
func Up(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetIP6AddrGenMode(l, genModeNone); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// Addr adds a permanent address.
func (h *Host) Addr(t testing.TB, name, prefix string) {
	t.Helper()
	h.Run(t, func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(prefix)
		if err != nil {
			return err
		}
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		return netlink.AddrAdd(l, a)
	})
}

// MAC returns a device's hardware address.
func (h *Host) MAC(t testing.TB, name string) net.HardwareAddr {
	t.Helper()
	var mac net.HardwareAddr
	h.Run(t, func() error {
		l, err := netlink.LinkByName(name)
		if err == nil {
			mac = l.Attrs().HardwareAddr
		}
		return err
	})
	return mac
}

// Open opens a packet socket for all frames of a device.
func (h *Host) Open(t testing.TB, name string) *packet.Conn {
	t.Helper()
	var conn *packet.Conn
	h.Run(t, func() error {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
		if err != nil {
			return err
		}
		return conn.JoinGroup(vipctl.AllNodesMAC())
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Asks sends one ARP probe, or a Neighbor Solicitation, for the address, and
// reports whether anybody answers within the time given, and by which hardware
// address.
func Asks(t testing.TB, conn *packet.Conn, from net.HardwareAddr, addr netip.Addr, within time.Duration) (net.HardwareAddr, bool) {
	t.Helper()
	ask := vipctl.ProbeARP
	if addr.Is6() {
		ask = vipctl.NeighborSolicitation
	}
	frame, err := ask(addr, from)
	if err != nil {
		t.Fatal(err)
	}
	// What came before the question is no answer to it.
	Hears(t, conn, time.Millisecond, func([]byte) bool { return false })
	Send(t, conn, frame)
	var mac net.HardwareAddr
	ok := Hears(t, conn, within, func(b []byte) bool {
		var a netip.Addr
		var ok bool
		a, mac, ok = vipctl.ParseConflict(b)
		return ok && a == addr && mac.String() != from.String()
	})
	return mac, ok
}

// Send puts a frame on the wire. The kernel says ENOBUFS when traffic control
// drops it on its way out; whether it does is for the test to see at the other end.
func Send(t testing.TB, conn *packet.Conn, frame []byte) {
	t.Helper()
	if _, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]}); err != nil && !errors.Is(err, unix.ENOBUFS) {
		t.Fatal(err)
	}
}

// Hears reads frames until one pleases the function or the time is over.
func Hears(t testing.TB, conn *packet.Conn, within time.Duration, pleases func([]byte) bool) bool {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		if pleases(b[:n]) {
			return true
		}
	}
}

// Connects reports whether a TCP connection attempt to a closed port of the
// address is refused, which says that the host there answered by IP.
func (h *Host) Connects(t testing.TB, addr netip.Addr, within time.Duration) bool {
	t.Helper()
	var answered bool
	h.Run(t, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		var d net.Dialer
		// Control runs where the socket is made, but Go may make it on another
		// thread; for one address literal it does not.
		conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(addr, 9).String())
		if err == nil {
			return errors.Join(errors.New("port 9 is open: the test expects it closed"), conn.Close())
		}
		answered = errors.Is(err, unix.ECONNREFUSED)
		return nil
	})
	return answered
}

// Boottime reads CLOCK_BOOTTIME, in nanoseconds.
func Boottime(t testing.TB) int64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano()
}

// Eventually polls until the condition holds, and fails the test if it does not
// within the time, which is generous: it bounds a hang, not a speed.
func Eventually(t testing.TB, what string, within time.Duration, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}
