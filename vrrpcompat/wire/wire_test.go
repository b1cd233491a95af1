package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vrrpcompat"
)

var families = []vrrpcompat.Family{vrrpcompat.IPv4, vrrpcompat.IPv6}

func advert(f vrrpcompat.Family) vrrpcompat.Advert {
	a := vrrpcompat.Advert{Version: vrrpcompat.V3, VRID: 51, Priority: 254, Interval: 100}
	if f == vrrpcompat.IPv4 {
		a.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("192.0.2.101")}
	} else {
		a.Addresses = []netip.Addr{netip.MustParseAddr("fe80::33"), netip.MustParseAddr("2001:db8::100")}
	}
	return a
}

// marked returns an advert with another VRID.
func marked(f vrrpcompat.Family, vrid vrrpcompat.VRID) vrrpcompat.Advert {
	a := advert(f)
	a.VRID = vrid
	return a
}

// many returns an advert of n addresses.
func many(f vrrpcompat.Family, n int) vrrpcompat.Advert {
	a := advert(f)
	a.Addresses = slices.Repeat(a.Addresses[:1], n)
	return a
}

func same(a, b vrrpcompat.Advert) bool {
	return a.Version == b.Version && a.VRID == b.VRID && a.Priority == b.Priority && a.Interval == b.Interval &&
		a.Auth == b.Auth && slices.Equal(a.Addresses, b.Addresses)
}

func TestSendAndHear(t *testing.T) {
	a, b := newHosts(t)
	sa, sb := a.station(t, nil), b.station(t, nil)
	for _, f := range families {
		for _, sum := range []vrrpcompat.Checksum{vrrpcompat.PseudoHeader, vrrpcompat.Plain} {
			t.Run(fmt.Sprint(f, " ", sum), func(t *testing.T) {
				before := now()
				if err := sa.Send(a.path(f), encoding(advert(f), sum)); err != nil {
					t.Fatal(err)
				}
				p := sb.next(t)
				got, form := decoded(t, p)
				if !same(got, advert(f)) {
					t.Errorf("heard %+v, want %+v", got, advert(f))
				}
				if f == vrrpcompat.IPv6 {
					sum = vrrpcompat.PseudoHeader
				}
				if form != sum {
					t.Errorf("checksum %v, want %v", form, sum)
				}
				if p.Device != b.ifname || p.Family != f || p.Source != a.source(t, f) || p.Destination != f.Group() ||
					p.HopLimit != 255 || p.MAC.String() != a.mac(t).String() || p.VRID() != 51 {
					t.Errorf("heard %+v", p)
				}
				if p.Arrival < before || p.Arrival > now() {
					t.Errorf("arrival at %v, want between %v and now", p.Arrival, before)
				}
			})
		}
	}
}

// Versions 2 and 3 side by side (RFC 9568, section 8.4.2) go out by one call.
func TestBothVersions(t *testing.T) {
	a, b := newHosts(t)
	sa, sb := a.station(t, nil), b.station(t, nil)
	v := vrrpcompat.Virtual{VRID: 51, Family: vrrpcompat.IPv4, Version: vrrpcompat.V3, AlsoV2: true, Interval: 100, Addresses: advert(vrrpcompat.IPv4).Addresses}
	var messages []Encode
	for _, x := range v.Adverts(254) {
		messages = append(messages, encoding(x, vrrpcompat.PseudoHeader))
	}
	if err := sa.Send(a.path(vrrpcompat.IPv4), messages...); err != nil {
		t.Fatal(err)
	}
	for _, want := range []vrrpcompat.Version{vrrpcompat.V3, vrrpcompat.V2} {
		if got, _ := decoded(t, sb.next(t)); got.Version != want {
			t.Errorf("version %v, want %v", got.Version, want)
		}
	}
}

// The IP header as a third party sees it: RFC 9568 sections 5.1.1 and 5.1.2, and what keepalived sends.
func TestHeaderOnTheWire(t *testing.T) {
	a, b := newHosts(t)
	sa := a.station(t, nil)
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			tap := b.tap(t)
			if err := sa.say(advert(f)); err != nil {
				t.Fatal(err)
			}
			frame := tap.advert(t, f)
			if want := map[vrrpcompat.Family]string{vrrpcompat.IPv4: "01:00:5e:00:00:12", vrrpcompat.IPv6: "33:33:00:00:00:12"}[f]; net.HardwareAddr(frame[:6]).String() != want {
				t.Errorf("Ethernet destination %v, want %s", net.HardwareAddr(frame[:6]), want)
			}
			if f == vrrpcompat.IPv4 {
				checkIPv4Header(t, frame[14:])
			} else {
				checkIPv6Header(t, frame[14:])
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
	sa, sb := a.station(t, nil), b.station(t, nil)
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			if err := sa.say(advert(f)); err != nil {
				t.Fatal(err)
			}
			sb.next(t) // it has left, so a copy for this host would be queued by now
			if err := sb.say(advert(f)); err != nil {
				t.Fatal(err)
			}
			if p := sa.next(t); p.Source != b.source(t, f) {
				t.Errorf("heard %v first, want only %v", p.Source, b.source(t, f))
			}
		})
	}
}

// A host with two interfaces hears on each its own only, and a device that is not listened on any more not at all.
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
	sa, sb := a.station(t, nil), b.station(t, nil)
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			eventually(t, "a source address", func() error { _, err := sa.Source(a2.ifname, f, f.Group()); return err })
			if err := sb.Listen(b2.ifname, f); err != nil {
				t.Fatal(err)
			}
			if err := sa.Send(a2.path(f), encoding(advert(f), vrrpcompat.PseudoHeader)); err != nil {
				t.Fatal(err)
			}
			if p := sb.next(t); p.Device != b2.ifname || p.Source != a2.source(t, f) {
				t.Errorf("second interface: heard %v on %s", p.Source, p.Device)
			}
			sb.Unlisten(b2.ifname, f)
			if sb.Listening(b2.ifname, f) || !sb.Listening(b.ifname, f) {
				t.Error("Unlisten ended the wrong one, or none")
			}
			if err := sa.Send(a2.path(f), encoding(marked(f, 99), vrrpcompat.PseudoHeader)); err != nil {
				t.Fatal(err)
			}
			if err := sa.say(advert(f)); err != nil {
				t.Fatal(err)
			}
			if p := sb.next(t); p.Device != b.ifname || p.Source != a.source(t, f) {
				t.Errorf("first interface: heard %v on %s first, want only %v", p.Source, p.Device, a.source(t, f))
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
			sa, sb := a.station(t, nil), b.station(t, nil)
			// Lowered after the socket was opened, as an operator would.
			run(t, "ip", "-n", a.netns, "link", "set", a.ifname, "mtu", fmt.Sprint(c.mtu))
			if err := sa.say(many(c.family, c.fit)); err != nil {
				t.Fatal(err)
			}
			if got, _ := decoded(t, sb.next(t)); len(got.Addresses) != c.fit {
				t.Errorf("heard %d addresses; want %d", len(got.Addresses), c.fit)
			}
			err := sa.say(many(c.family, c.fit+1))
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
	sa, sb := a.station(t, nil), b.station(t, nil)
	for _, f := range families {
		if err := sa.say(many(f, vrrpcompat.MaxAddresses)); err != nil {
			t.Fatal(err)
		}
		if got, _ := decoded(t, sb.next(t)); len(got.Addresses) != vrrpcompat.MaxAddresses {
			t.Errorf("%v: heard %d addresses; want %d", f, len(got.Addresses), vrrpcompat.MaxAddresses)
		}
	}
}

// A device that takes nothing fills the socket; from then on Send gives up by itself.
func TestStuckDeviceDoesNotStallSend(t *testing.T) {
	a, _ := newHosts(t)
	sa := a.station(t, nil)
	run(t, "tc", "-n", a.netns, "qdisc", "add", "dev", a.ifname, "root", "tbf", "rate", "8bit", "burst", "1600", "limit", "10000000")
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			for range 10000 {
				err := sa.say(advert(f))
				if err == nil {
					continue
				}
				if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) || !strings.Contains(err.Error(), "this advert is lost") {
					t.Errorf("Send = %v, want one that wraps %v or %v", err, unix.ENOBUFS, unix.EAGAIN)
				}
				return
			}
			t.Error("10000 adverts went into a device that takes none, and Send never said so")
		})
	}
}

func TestSendErrorsTeach(t *testing.T) {
	a, _ := newHosts(t)
	sa := a.station(t, nil)
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			a.source(t, f)
			foreign, other := netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("fe80::77")
			if f == vrrpcompat.IPv6 {
				foreign, other = other, foreign
			}
			fails := func(what string, p Path, want string) {
				t.Helper()
				if err := sa.Send(p, encoding(advert(f), vrrpcompat.PseudoHeader)); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v; want an error with %q", what, err, want)
				}
			}
			fails("from an address that is not ours", Path{Device: a.ifname, Family: f, Source: foreign}, foreign.String()+" an address of it")
			fails("from an address of the other family", Path{Device: a.ifname, Family: f, Source: other}, "one family")
			fails("on a device that is not there", Path{Device: "nosuch0", Family: f}, "nosuch0")
			fails("via a device that is not there", Path{Device: a.ifname, Family: f, Via: "nosuch0"}, "nosuch0")
			fails("of no family", Path{Device: a.ifname}, "family(0) is neither")
			run(t, "ip", "-n", a.netns, "link", "set", a.ifname, "down")
			fails("on an interface that is down", Path{Device: a.ifname, Family: f}, a.ifname)
			run(t, "ip", "-n", a.netns, "link", "set", a.ifname, "up")
			eventually(t, "Send to work again", func() error { return sa.say(advert(f)) })
		})
	}
}

func TestListenErrorsTeach(t *testing.T) {
	a, _ := newHosts(t)
	sa := a.station(t, nil)
	for _, c := range []struct {
		ifname string
		family vrrpcompat.Family
		want   string
	}{{"nosuch0", vrrpcompat.IPv4, "nosuch0"}, {a.ifname, 0, "family(0) is neither"}} {
		for range 2 { // again at once, too
			if err := sa.Listen(c.ifname, c.family); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Listen(%s, %v) = %v; want an error with %q", c.ifname, c.family, err, c.want)
			}
		}
	}
	if _, err := New(Options{}); err == nil || !strings.Contains(err.Error(), "Receive") {
		t.Errorf("New without Receive: %v", err)
	}
}

// After Run has ended nothing is heard, messages still go, and after Close neither.
func TestRunEnds(t *testing.T) {
	a, b := newHosts(t)
	sb := b.station(t, nil)
	t.Run("inner", func(t *testing.T) { // whose end ends Run and closes
		a.station(t, nil)
	})
	sa := &station{host: a}
	var err error
	if sa.Transport, err = New(Options{Receive: func(*Packet) {}, In: a.in(t)}); err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if err := sa.say(advert(f)); err != nil {
			t.Fatal(err)
		}
		decoded(t, sb.next(t))
	}
	if err := sa.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if err := sa.say(advert(f)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: Send = %v, want one that wraps %v", err, net.ErrClosed)
		}
		if err := sa.Listen(a.ifname, f); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: Listen = %v, want one that wraps %v", err, net.ErrClosed)
		}
	}
	if err := sa.Run(t.Context()); err == nil {
		t.Error("closed: Run = nil")
	}
}

// A tap sees and sends whole frames.
type tap struct{ *packet.Conn }

func (h host) tap(t *testing.T) tap {
	t.Helper()
	conn, err := in(t, h.netns, func() (*packet.Conn, error) {
		ifi, err := net.InterfaceByName(h.ifname)
		if err != nil {
			return nil, err
		}
		return packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return tap{conn}
}

// advert waits for a frame with an advert of the family.
func (c tap) advert(t *testing.T, f vrrpcompat.Family) []byte {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2048)
	for {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			t.Fatalf("no advert seen on the link: %v", err)
		}
		ethertype, proto := binary.BigEndian.Uint16(b[12:]), b[14+9]
		if f == vrrpcompat.IPv6 {
			proto = b[14+6]
		}
		if (f == vrrpcompat.IPv4 && ethertype == unix.ETH_P_IP || f == vrrpcompat.IPv6 && ethertype == unix.ETH_P_IPV6) && proto == vrrpcompat.Protocol {
			return b[:n]
		}
	}
}

func (c tap) send(t *testing.T, frame []byte) {
	t.Helper()
	if _, err := c.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]}); err != nil {
		t.Fatal(err)
	}
}
