package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vrrpcompat"
)

var families = []vrrpcompat.Family{vrrpcompat.IPv4, vrrpcompat.IPv6}

func advert(f vrrpcompat.Family) vrrpcompat.Advert {
	a := vrrpcompat.Advert{VRID: 51, Priority: 254, Interval: 100}
	if f == vrrpcompat.IPv4 {
		a.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("192.0.2.101")}
	} else {
		a.Addresses = []netip.Addr{netip.MustParseAddr("fe80::33"), netip.MustParseAddr("2001:db8::100")}
	}
	return a
}

// many returns an advert of n addresses.
func many(f vrrpcompat.Family, n int) vrrpcompat.Advert {
	a := advert(f)
	a.Addresses = slices.Repeat(a.Addresses[:1], n)
	return a
}

func TestSendAndHear(t *testing.T) {
	a, b := newHosts(t)
	for _, f := range families {
		ca, cb := a.open(t, f), b.open(t, f)
		heard, source := listen(t, cb), a.source(t, f)
		for _, sum := range []vrrpcompat.Checksum{vrrpcompat.PseudoHeader, vrrpcompat.Plain} {
			t.Run(fmt.Sprint(f, " ", sum), func(t *testing.T) {
				want := advert(f)
				if err := ca.Send(want, source, sum); err != nil {
					t.Fatal(err)
				}
				h := next(t, heard)
				if h.Err != nil {
					t.Fatal(h.Err)
				}
				if h.Interface != b.ifname || h.Source != source || h.Destination != f.Group() {
					t.Errorf("heard on %s from %v to %v, want %s, %v, %v", h.Interface, h.Source, h.Destination, b.ifname, source, f.Group())
				}
				got := h.Advert
				if got.VRID != want.VRID || got.Priority != want.Priority || got.Interval != want.Interval || !slices.Equal(got.Addresses, want.Addresses) {
					t.Errorf("heard %+v, want %+v", got, want)
				}
				if f == vrrpcompat.IPv6 {
					sum = vrrpcompat.PseudoHeader
				}
				if h.Checksum != sum {
					t.Errorf("checksum %v, want %v", h.Checksum, sum)
				}
			})
		}
	}
}

// The IP header as a third party sees it: RFC 9568 sections 5.1.1 and 5.1.2, and what keepalived sends.
func TestHeaderOnTheWire(t *testing.T) {
	a, b := newHosts(t)
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			ethertype := unix.ETH_P_IP
			if f == vrrpcompat.IPv6 {
				ethertype = unix.ETH_P_IPV6
			}
			tap, err := in(t, b.netns, func() (*packet.Conn, error) {
				ifi, err := net.InterfaceByName(b.ifname)
				if err != nil {
					return nil, err
				}
				return packet.Listen(ifi, packet.Datagram, ethertype, nil)
			})
			if err != nil {
				t.Fatal(err)
			}
			defer tap.Close()
			if err := tap.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if err := a.open(t, f).Send(advert(f), a.source(t, f), vrrpcompat.PseudoHeader); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 2048)
			for {
				n, _, err := tap.ReadFrom(buf)
				if err != nil {
					t.Fatalf("no advert seen on the link: %v", err)
				}
				if f == vrrpcompat.IPv4 && buf[9] == vrrpcompat.Protocol {
					checkIPv4Header(t, buf[:n])
					return
				}
				if f == vrrpcompat.IPv6 && buf[6] == vrrpcompat.Protocol {
					checkIPv6Header(t, buf[:n])
					return
				}
			}
		})
	}
}

func checkIPv4Header(t *testing.T, b []byte) {
	t.Helper()
	if b[0] != 0x45 || b[1] != 0xc0 || b[8] != 255 {
		t.Errorf("version and length 0x%x, TOS 0x%x, TTL %d; want 0x45, 0xc0, 255", b[0], b[1], b[8])
	}
	if fragment := binary.BigEndian.Uint16(b[6:]); fragment != 0 {
		t.Errorf("flags and fragment offset 0x%x, want 0", fragment)
	}
	if len(b) != 20+16 || net.IP(b[16:20]).String() != "224.0.0.18" {
		t.Errorf("%d bytes to %v", len(b), net.IP(b[16:20]))
	}
}

func checkIPv6Header(t *testing.T, b []byte) {
	t.Helper()
	if class := binary.BigEndian.Uint32(b) >> 20 & 0xff; class != 0xc0 || b[7] != 255 {
		t.Errorf("traffic class 0x%x, hop limit %d; want 0xc0, 255", class, b[7])
	}
	if len(b) != 40+40 || net.IP(b[24:40]).String() != "ff02::12" || b[8] != 0xfe || b[9] != 0x80 {
		t.Errorf("%d bytes from %v to %v", len(b), net.IP(b[8:24]), net.IP(b[24:40]))
	}
}

// What this host sends does not come back to it: the first that it hears is the other's.
func TestOwnAdvertsAreNotHeard(t *testing.T) {
	a, b := newHosts(t)
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			ca, cb := a.open(t, f), b.open(t, f)
			heardA, heardB := listen(t, ca), listen(t, cb)
			if err := ca.Send(advert(f), a.source(t, f), vrrpcompat.PseudoHeader); err != nil {
				t.Fatal(err)
			}
			next(t, heardB) // it has left, so a copy for this host would be queued by now
			if err := cb.Send(advert(f), b.source(t, f), vrrpcompat.PseudoHeader); err != nil {
				t.Fatal(err)
			}
			if h := next(t, heardA); h.Source != b.source(t, f) {
				t.Errorf("heard %v first, want only %v", h.Source, b.source(t, f))
			}
		})
	}
}

// What is refused is handed on with its reason, and the next good advert is heard all the same.
func TestRefusedPacketsAreHeardWithReason(t *testing.T) {
	a, b := newHosts(t)
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			heard, source := listen(t, b.open(t, f)), a.source(t, f)
			good, err := advert(f).AppendTo(nil, source, f.Group(), vrrpcompat.PseudoHeader)
			if err != nil {
				t.Fatal(err)
			}
			flip := slices.Clone(good)
			flip[6] ^= 1
			toB := b.source(t, f)
			for _, c := range []struct {
				b    []byte
				to   netip.Addr
				hops int
				want vrrpcompat.Reason
			}{
				{good, f.Group(), 254, vrrpcompat.ReasonHopLimit},
				{flip, f.Group(), 255, vrrpcompat.ReasonChecksum},
				{append(slices.Clone(good), 0), f.Group(), 255, vrrpcompat.ReasonLength},
				{good[:len(good)-1], f.Group(), 255, vrrpcompat.ReasonLength},
				{good[:3], f.Group(), 255, vrrpcompat.ReasonTooShort},
				{good, toB, 255, vrrpcompat.ReasonNotMulticast},
			} {
				forge(t, a.open(t, f), c.b, source, c.to, c.hops)
				h := next(t, heard)
				if h.Err == nil || h.Err.Reason != c.want || h.Source != source || h.Destination != c.to {
					t.Errorf("heard %v from %v to %v, want %v", h.Err, h.Source, h.Destination, c.want)
				}
			}
			forge(t, a.open(t, f), good, source, f.Group(), 255)
			if h := next(t, heard); h.Err != nil {
				t.Errorf("after the bad ones, a good one was refused: %v", h.Err)
			}
		})
	}
}

// A host with two interfaces hears on each Conn its own interface only.
func TestOtherInterfacesAreNotHeard(t *testing.T) {
	a, b := newHosts(t)
	run(t, "ip", "-n", a.netns, "link", "add", "wa2", "type", "veth", "peer", "name", "wb2", "netns", b.netns)
	a2, b2 := host{a.netns, "wa2"}, host{b.netns, "wb2"}
	for _, h := range []host{a2, b2} {
		run(t, "ip", "netns", "exec", h.netns, "sysctl", "-qw", "net.ipv6.conf."+h.ifname+".accept_dad=0")
		run(t, "ip", "-n", h.netns, "link", "set", h.ifname, "up")
	}
	run(t, "ip", "-n", a2.netns, "addr", "add", "198.51.100.1/24", "dev", a2.ifname)
	run(t, "ip", "-n", b2.netns, "addr", "add", "198.51.100.2/24", "dev", b2.ifname)
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			heard, heard2 := listen(t, b.open(t, f)), listen(t, b2.open(t, f))
			if err := a2.open(t, f).Send(advert(f), a2.source(t, f), vrrpcompat.PseudoHeader); err != nil {
				t.Fatal(err)
			}
			if h := next(t, heard2); h.Interface != b2.ifname || h.Source != a2.source(t, f) {
				t.Errorf("second interface: heard %v on %s", h.Source, h.Interface)
			}
			if err := a.open(t, f).Send(advert(f), a.source(t, f), vrrpcompat.PseudoHeader); err != nil {
				t.Fatal(err)
			}
			if h := next(t, heard); h.Interface != b.ifname || h.Source != a.source(t, f) {
				t.Errorf("first interface: heard %v first, want only %v", h.Source, a.source(t, f))
			}
		})
	}
}

// Another program on the host may have joined other groups, and Linux gives what is sent to those to us too.
func TestForeignGroupsAreRefused(t *testing.T) {
	a, b := newHosts(t)
	for f, foreign := range map[vrrpcompat.Family]string{vrrpcompat.IPv4: "224.0.0.99", vrrpcompat.IPv6: "ff02::99"} {
		t.Run(f.String(), func(t *testing.T) {
			to := netip.MustParseAddr(foreign)
			_, err := in(t, b.netns, func() (struct{}, error) { return struct{}{}, join(t, b.ifname, to) })
			if err != nil {
				t.Fatal(err)
			}
			heard, source := listen(t, b.open(t, f)), a.source(t, f)
			good, err := advert(f).AppendTo(nil, source, f.Group(), vrrpcompat.PseudoHeader)
			if err != nil {
				t.Fatal(err)
			}
			forge(t, a.open(t, f), good, source, to, 255)
			if h := next(t, heard); h.Err == nil || h.Err.Reason != vrrpcompat.ReasonNotMulticast || h.Destination != to {
				t.Errorf("heard %v to %v, want %v", h.Err, h.Destination, vrrpcompat.ReasonNotMulticast)
			}
		})
	}
}

// join makes this thread's namespace a member of a group until the test ends.
func join(t *testing.T, ifname string, group netip.Addr) error {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return err
	}
	network := "udp4"
	if group.Is6() {
		network = "udp6"
	}
	pc, err := net.ListenPacket(network, ":0")
	if err != nil {
		return err
	}
	t.Cleanup(func() { pc.Close() })
	if group.Is6() {
		return ipv6.NewPacketConn(pc).JoinGroup(ifi, &net.IPAddr{IP: group.AsSlice()})
	}
	return ipv4.NewPacketConn(pc).JoinGroup(ifi, &net.IPAddr{IP: group.AsSlice()})
}

// forge sends any bytes to any address with any hop limit.
func forge(t *testing.T, c *Conn, b []byte, from, to netip.Addr, hops int) {
	t.Helper()
	dst := &net.IPAddr{IP: to.AsSlice()}
	var err error
	if c.v4 != nil {
		err = errors.Join(c.v4.SetTTL(hops), c.v4.SetMulticastTTL(hops))
		if err == nil {
			_, err = c.v4.WriteTo(b, &ipv4.ControlMessage{Src: from.AsSlice(), IfIndex: c.index}, dst)
		}
	} else {
		_, err = c.v6.WriteTo(b, &ipv6.ControlMessage{Src: from.AsSlice(), IfIndex: c.index, HopLimit: hops}, dst)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// While the receiver's handler is stuck, a flood fills the socket buffer and is dropped there; the sender is not held
// up, and afterwards the receiver hears again.
func TestFloodIsDropped(t *testing.T) {
	a, b := newHosts(t)
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			ca, cb := a.open(t, f), b.open(t, f)
			if err := cb.ip.SetReadBuffer(4096); err != nil {
				t.Fatal(err)
			}
			source := a.source(t, f)
			ctx, cancel := context.WithCancel(t.Context())
			release, heard, ended := make(chan struct{}), make(chan Heard, 4096), make(chan error, 1)
			go func() {
				ended <- cb.Run(ctx, func(h Heard) {
					heard <- h
					<-release
				})
			}()
			const flood = 2000
			for range flood {
				if err := ca.Send(advert(f), source, vrrpcompat.PseudoHeader); err != nil {
					t.Fatal(err)
				}
			}
			close(release)
			mark := advert(f)
			mark.VRID = 99
			got := 0
			for next(t, heard).Advert.VRID != mark.VRID {
				got++
				// Sent again for as long as the backlog may still have no room for it.
				if err := ca.Send(mark, source, vrrpcompat.PseudoHeader); err != nil {
					t.Fatal(err)
				}
			}
			if got >= flood {
				t.Errorf("all %d adverts fitted: the buffer was never full", flood)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// An advert over the MTU is refused, neither fragmented nor sent with the don't-fragment bit; the largest that fits goes.
func TestAdvertOverMTU(t *testing.T) {
	for _, c := range []struct {
		family   vrrpcompat.Family
		mtu, fit int
	}{{vrrpcompat.IPv4, 576, (576 - 20 - 8) / 4}, {vrrpcompat.IPv6, 1280, (1280 - 40 - 8) / 16}} {
		t.Run(c.family.String(), func(t *testing.T) {
			a, b := newHosts(t)
			ca, heard, source := a.open(t, c.family), listen(t, b.open(t, c.family)), a.source(t, c.family)
			// Lowered after the socket was opened, as an operator would.
			run(t, "ip", "-n", a.netns, "link", "set", a.ifname, "mtu", fmt.Sprint(c.mtu))
			if err := ca.Send(many(c.family, c.fit), source, vrrpcompat.PseudoHeader); err != nil {
				t.Fatal(err)
			}
			if h := next(t, heard); h.Err != nil || len(h.Advert.Addresses) != c.fit {
				t.Errorf("heard %d addresses, %v; want %d", len(h.Advert.Addresses), h.Err, c.fit)
			}
			err := ca.Send(many(c.family, c.fit+1), source, vrrpcompat.PseudoHeader)
			want := fmt.Sprintf("the MTU is %d: at most %d virtual addresses fit", c.mtu, c.fit)
			if !errors.Is(err, unix.EMSGSIZE) || !strings.Contains(err.Error(), want) {
				t.Errorf("one address more: %v; want EMSGSIZE and %q", err, want)
			}
		})
	}
}

// The longest advert there is goes where the MTU allows it, and is heard whole.
func TestLongestAdvert(t *testing.T) {
	a, b := newHosts(t)
	for _, h := range []host{a, b} {
		run(t, "ip", "-n", h.netns, "link", "set", h.ifname, "mtu", "9000")
	}
	for _, f := range families {
		heard := listen(t, b.open(t, f))
		if err := a.open(t, f).Send(many(f, vrrpcompat.MaxAddresses), a.source(t, f), vrrpcompat.PseudoHeader); err != nil {
			t.Fatal(err)
		}
		if h := next(t, heard); h.Err != nil || len(h.Advert.Addresses) != vrrpcompat.MaxAddresses {
			t.Errorf("%v: heard %d addresses, %v; want %d", f, len(h.Advert.Addresses), h.Err, vrrpcompat.MaxAddresses)
		}
	}
}

// A device that takes nothing fills the socket; from then on Send gives up by itself.
func TestStuckDeviceDoesNotStallSend(t *testing.T) {
	a, _ := newHosts(t)
	run(t, "tc", "-n", a.netns, "qdisc", "add", "dev", a.ifname, "root", "tbf", "rate", "8bit", "burst", "1600", "limit", "10000000")
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			c, source := a.open(t, f), a.source(t, f)
			if err := c.ip.SetWriteBuffer(1); err != nil { // the kernel makes it its minimum
				t.Fatal(err)
			}
			for range 1000 {
				err := c.Send(advert(f), source, vrrpcompat.PseudoHeader)
				if err == nil {
					continue
				}
				if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "this advert is lost") {
					t.Errorf("Send = %v, want one that wraps %v or %v", err, unix.ENOBUFS, os.ErrDeadlineExceeded)
				}
				return
			}
			t.Error("1000 adverts went into a device that takes none, and Send never said so")
		})
	}
}

func TestSendErrorsTeach(t *testing.T) {
	a, _ := newHosts(t)
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			c, source := a.open(t, f), a.source(t, f)
			foreign, other := netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("fe80::77")
			if f == vrrpcompat.IPv6 {
				foreign, other = other, foreign
			}
			if err := c.Send(advert(f), foreign, vrrpcompat.PseudoHeader); err == nil || !strings.Contains(err.Error(), foreign.String()+" an address of it") {
				t.Errorf("from an address that is not ours: %v", err)
			}
			if err := c.Send(advert(f), other, vrrpcompat.PseudoHeader); err == nil || !strings.Contains(err.Error(), "one family") {
				t.Errorf("from an address of the other family: %v", err)
			}
			run(t, "ip", "-n", a.netns, "link", "set", a.ifname, "down")
			if err := c.Send(advert(f), source, vrrpcompat.PseudoHeader); err == nil || !strings.Contains(err.Error(), "is "+a.ifname+" up") {
				t.Errorf("on an interface that is down: %v", err)
			}
			run(t, "ip", "-n", a.netns, "link", "set", a.ifname, "up")
			source = a.source(t, f)
			eventually(t, "Send to work again", func() error { return c.Send(advert(f), source, vrrpcompat.PseudoHeader) })
		})
	}
}

func TestOpenErrorsTeach(t *testing.T) {
	a, _ := newHosts(t)
	for _, c := range []struct {
		ifname string
		family vrrpcompat.Family
		want   string
	}{{"nosuch0", vrrpcompat.IPv4, "nosuch0"}, {a.ifname, 0, "family(0) is neither"}} {
		conn, err := in(t, a.netns, func() (*Conn, error) { return Open(c.ifname, c.family) })
		if err == nil || conn != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open(%s, %v) = %v, %v; want an error with %q", c.ifname, c.family, conn, err, c.want)
		}
	}
}

func TestRunEnds(t *testing.T) {
	a, b := newHosts(t)
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			c := a.open(t, f)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			for range 3 { // again and again: an ended context leaves no deadline behind
				if err := c.Run(ctx, func(Heard) {}); err != nil {
					t.Errorf("context ended: Run = %v, want nil", err)
				}
			}
			heard := make(chan Heard, 1)
			ended := make(chan error, 1)
			go func() { ended <- c.Run(t.Context(), func(h Heard) { heard <- h }) }()
			if err := b.open(t, f).Send(advert(f), b.source(t, f), vrrpcompat.PseudoHeader); err != nil {
				t.Fatal(err)
			}
			next(t, heard)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed: Run = %v, want one that wraps %v", err, net.ErrClosed)
			}
		})
	}
}
