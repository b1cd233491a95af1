package kernel

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vipctl"
	"github.com/quorate/quorate/vipctl/internal/nstest"
	"github.com/quorate/quorate/vrrpcompat"
)

// A switched LAN is three hosts on a switch: two that can hold the virtual addresses, and a client.
type switched struct {
	a, b, client, sw *nstest.Host
	ka, kb           *Kernel
}

func newSwitched(t *testing.T) *switched {
	t.Helper()
	l := &switched{a: nstest.New(t), b: nstest.New(t), client: nstest.New(t), sw: nstest.New(t)}
	l.sw.Run(t, func() error {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}); err != nil {
			return err
		}
		return nstest.Up("br0")
	})
	for i, h := range []*nstest.Host{l.a, l.b, l.client} {
		port := []string{"a", "b", "client"}[i]
		nstest.Connect(t, h, "eth0", l.sw, port)
		l.sw.Run(t, func() error {
			br, err := netlink.LinkByName("br0")
			if err != nil {
				return err
			}
			p, err := netlink.LinkByName(port)
			if err != nil {
				return err
			}
			return netlink.LinkSetMaster(p, br)
		})
		h.Addr(t, "eth0", []string{"192.0.2.1/24", "192.0.2.2/24", "192.0.2.9/24"}[i])
		h.Addr(t, "eth0", []string{"2001:db8::1/64", "2001:db8::2/64", "2001:db8::9/64"}[i])
		h.Addr(t, "eth0", []string{"fe80::1/64", "fe80::2/64", "fe80::9/64"}[i]) // by which the kernel asks for neighbours
	}
	l.ka, l.kb = open(t, l.a), open(t, l.b)
	return l
}

// port tells on which of the switch's ports a hardware address was seen last.
func (l *switched) port(t *testing.T, mac net.HardwareAddr) (name string) {
	t.Helper()
	l.sw.Run(t, func() error {
		list, err := netlink.NeighList(0, unix.AF_BRIDGE)
		if err != nil {
			return err
		}
		for _, n := range list {
			if slices.Equal(n.HardwareAddr, mac) {
				p, err := netlink.LinkByIndex(n.LinkIndex)
				if err != nil {
					return err
				}
				name = p.Attrs().Name
			}
		}
		return nil
	})
	return name
}

// neighbour is the hardware address at which a host has another.
func neighbour(t *testing.T, h *nstest.Host, addr netip.Addr) (mac net.HardwareAddr) {
	t.Helper()
	h.Run(t, func() error {
		list, err := netlink.NeighList(0, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, n := range list {
			if a, ok := netip.AddrFromSlice(n.IP); ok && a.Unmap() == addr {
				mac = n.HardwareAddr
			}
		}
		return nil
	})
	return mac
}

// vmac is one virtual MAC with its address.
type vmac struct {
	VirtualMAC
	vip netip.Prefix
}

var vmacs = []vmac{
	{VirtualMAC{"abc123", "eth0", vrrpcompat.IPv4, 51}, netip.MustParsePrefix("192.0.2.100/24")},
	{VirtualMAC{"abc123", "eth0", vrrpcompat.IPv6, 51}, netip.MustParsePrefix("2001:db8::100/64")},
}

func ensure(t *testing.T, k *Kernel, v VirtualMAC) LinkInfo {
	t.Helper()
	l, err := k.EnsureVirtualMAC(v)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// take does what the Active router does.
func take(t *testing.T, k *Kernel, v vmac) {
	t.Helper()
	l := ensure(t, k, v.VirtualMAC)
	if err := errors.Join(k.RaiseVirtualMAC(v.VirtualMAC), k.AddAddresses([]Address{{Link: l.Name, Prefix: v.vip}}, time.Minute), k.Announce(l.Name, []netip.Addr{v.vip.Addr()})); err != nil {
		t.Fatal(err)
	}
}

func letGo(t *testing.T, k *Kernel, v vmac) {
	t.Helper()
	if err := errors.Join(k.RemoveAddresses([]Address{{Link: ensure(t, k, v.VirtualMAC).Name, Prefix: v.vip}}), k.LowerVirtualMAC(v.VirtualMAC)); err != nil {
		t.Fatal(err)
	}
}

func TestVirtualMACAddress(t *testing.T) {
	for _, c := range []struct {
		v    VirtualMAC
		want string
	}{
		{VirtualMAC{Family: vrrpcompat.IPv4, VRID: 1}, "00:00:5e:00:01:01"},
		{VirtualMAC{Family: vrrpcompat.IPv6, VRID: 255}, "00:00:5e:00:02:ff"},
	} {
		if got := c.v.MAC().String(); got != c.want {
			t.Errorf("%v: %s, want %s", c.v, got, c.want)
		}
		if name := c.v.device(1<<31 - 1); len(name) > 15 || !IsVirtualMACName(name) {
			t.Errorf("the name %q has %d characters, and is known as such: %v", name, len(name), IsVirtualMACName(name))
		}
	}
}

// Only the virtual MAC answers for the virtual address, and only the parent for the host's own; the host's own questions
// do not name the virtual address; and that under each reverse path check.
func TestVirtualMACAnswers(t *testing.T) {
	for _, check := range []string{"0", "1", "2"} {
		t.Run("rp_filter "+check, func(t *testing.T) {
			t.Parallel()
			l := newSwitched(t)
			setting(t, l.a, conf("ipv4", "all", "rp_filter"), check)
			for _, v := range vmacs {
				take(t, l.ka, v)
			}
			for _, v := range vmacs {
				own := netip.MustParseAddr("192.0.2.1")
				if v.Family == vrrpcompat.IPv6 {
					own = netip.MustParseAddr("2001:db8::1")
				}
				conn, mac := l.client.Open(t, "eth0"), l.client.MAC(t, "eth0")
				for addr, want := range map[netip.Addr]string{v.vip.Addr(): v.MAC().String(), own: l.a.MAC(t, "eth0").String()} {
					if got := answers(t, conn, mac, addr); len(got) != 1 || got[0] != want {
						t.Errorf("%v is answered for by %v, want %s", addr, got, want)
					}
				}
				// The host has to ask for the client, to answer it.
				forget(t, l.a)
				forget(t, l.client)
				if !l.client.Connects(t, v.vip.Addr(), long) {
					t.Errorf("%v does not answer", v.vip.Addr())
				}
				nstest.Hears(t, conn, short, func(b []byte) bool {
					if addr, sender, ok := vipctl.ParseConflict(b); ok && addr == v.vip.Addr() && sender.String() != v.MAC().String() {
						t.Errorf("%v was told to be at %v", addr, sender)
					}
					return false
				})
				if got := neighbour(t, l.client, v.vip.Addr()); got.String() != v.MAC().String() {
					t.Errorf("the client has %v at %v, want %v", v.vip.Addr(), got, v.MAC())
				}
			}
		})
	}
}

// answers asks once and collects who answers.
func answers(t *testing.T, conn *packet.Conn, from net.HardwareAddr, addr netip.Addr) (macs []string) {
	t.Helper()
	first, ok := nstest.Asks(t, conn, from, addr, long)
	if !ok {
		return nil
	}
	macs = append(macs, first.String())
	nstest.Hears(t, conn, short, func(b []byte) bool {
		if a, mac, ok := vipctl.ParseConflict(b); ok && a == addr {
			macs = append(macs, mac.String())
		}
		return false
	})
	return macs
}

// forget empties a host's neighbour table.
func forget(t *testing.T, h *nstest.Host) {
	t.Helper()
	h.Run(t, func() error {
		list, err := netlink.NeighList(0, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, n := range list {
			if n.State&netlink.NUD_NOARP == 0 {
				if err := netlink.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
					return err
				}
			}
		}
		return nil
	})
}

// A move from host to host changes no neighbour's entry; the switch learns the other port; and it does so at once, before
// anybody has asked.
func TestVirtualMACMoves(t *testing.T) {
	l := newSwitched(t)
	for _, v := range vmacs {
		ensure(t, l.kb, v.VirtualMAC) // the Backup has it too, down
		take(t, l.ka, v)
		if !l.client.Connects(t, v.vip.Addr(), long) {
			t.Fatalf("%v does not answer", v.vip.Addr())
		}
		for _, step := range []struct {
			from, to *Kernel
			port     string
		}{{l.ka, l.kb, "b"}, {l.kb, l.ka, "a"}} {
			letGo(t, step.from, v)
			take(t, step.to, v)
			if got := l.port(t, v.MAC()); got != step.port {
				t.Errorf("the switch has %v at port %q, want %q", v.MAC(), got, step.port)
			}
			if got := neighbour(t, l.client, v.vip.Addr()); got.String() != v.MAC().String() {
				t.Errorf("the client has %v at %v, want %v", v.vip.Addr(), got, v.MAC())
			}
			if !l.client.Connects(t, v.vip.Addr(), long) {
				t.Errorf("%v does not answer at %s", v.vip.Addr(), step.port)
			}
			if got := neighbour(t, l.client, v.vip.Addr()); got.String() != v.MAC().String() {
				t.Errorf("afterwards the client has %v at %v, want %v", v.vip.Addr(), got, v.MAC())
			}
		}
	}
}

// A Backup sends nothing from the virtual MAC: else the switch would send the Active router's frames to it.
func TestLoweredVirtualMACIsSilent(t *testing.T) {
	l := newSwitched(t)
	conn := l.client.Open(t, "eth0")
	for _, v := range vmacs {
		take(t, l.kb, v)
		letGo(t, l.kb, v)
		if nstest.Hears(t, conn, time.Millisecond, func([]byte) bool { return false }) {
			t.Fatal("unreachable")
		}
		if err := l.kb.RaiseVirtualMAC(v.VirtualMAC); err != nil {
			t.Fatal(err)
		}
		if err := l.kb.LowerVirtualMAC(v.VirtualMAC); err != nil {
			t.Fatal(err)
		}
		nstest.Hears(t, conn, 10*time.Millisecond, func([]byte) bool { return false }) // what was sent while it was up
		mac := v.MAC()
		if nstest.Hears(t, conn, short, func(b []byte) bool { return bytes.Equal(b[6:12], mac) }) {
			t.Errorf("the lowered %v sends", v.VirtualMAC)
		}
		if got := answersNow(t, conn, l.client.MAC(t, "eth0"), v.vip.Addr()); got {
			t.Errorf("the lowered %v answers", v.VirtualMAC)
		}
	}
}

func answersNow(t *testing.T, conn *packet.Conn, from net.HardwareAddr, addr netip.Addr) bool {
	t.Helper()
	_, ok := nstest.Asks(t, conn, from, addr, short)
	return ok
}

// What another router sends from the same hardware address reaches the parent, where it is listened for; and the question
// whether somebody has the address finds it.
func TestSameMACOfAnotherIsSeen(t *testing.T) {
	l := newSwitched(t)
	for _, v := range vmacs {
		take(t, l.kb, v)
		ensure(t, l.ka, v.VirtualMAC)
		_, mac, found, err := l.ka.Probe(t.Context(), "eth0", []netip.Addr{v.vip.Addr()}, 3, 50*time.Millisecond, long)
		if err != nil || !found || mac.String() != v.MAC().String() {
			t.Errorf("Probe = %v, %v, %v, want %v", mac, found, err, v.MAC())
		}
		// And while our own is up, as after a partition.
		if err := l.ka.RaiseVirtualMAC(v.VirtualMAC); err != nil {
			t.Fatal(err)
		}
		conn := l.a.Open(t, "eth0")
		if err := l.kb.Announce(ensure(t, l.kb, v.VirtualMAC).Name, []netip.Addr{v.vip.Addr()}); err != nil {
			t.Fatal(err)
		}
		if !nstest.Hears(t, conn, long, func(b []byte) bool {
			addr, mac, ok := vipctl.ParseConflict(b)
			return ok && addr == v.vip.Addr() && mac.String() == v.MAC().String()
		}) {
			t.Errorf("the announcement of another %v is not heard on the parent", v.VirtualMAC)
		}
	}
}

// With a link-local virtual address the device does not ask for routers, and takes no notice of what they advertise.
func TestVirtualMACSolicitsNobody(t *testing.T) {
	l := newSwitched(t)
	v := vmac{vmacs[1].VirtualMAC, netip.MustParsePrefix("fe80::33/64")}
	conn, mac := l.client.Open(t, "eth0"), v.MAC()
	take(t, l.ka, v)
	seen := false
	const icmpv6, routerSolicitation = 58, 133
	if nstest.Hears(t, conn, 2*time.Second, func(b []byte) bool {
		if !bytes.Equal(b[6:12], mac) {
			return false
		}
		seen = true
		return len(b) > 54 && b[12] == 0x86 && b[20] == icmpv6 && b[54] == routerSolicitation
	}) {
		t.Error("it asks for routers")
	}
	if !seen {
		t.Error("nothing came from it, not even the announcement")
	}
}

// A virtual MAC's device has no address of its own making, and changes no route of the host.
func TestVirtualMACLeavesRoutesAlone(t *testing.T) {
	l := newSwitched(t)
	before := routes(t, l.a)
	for _, v := range vmacs {
		take(t, l.ka, v)
		if got := addrsOn(t, l.ka, ensure(t, l.ka, v.VirtualMAC).Index); len(got) != 1 || got[0] != v.vip {
			t.Errorf("%v has addresses %v, want %v", v.VirtualMAC, got, v.vip)
		}
	}
	if after := routes(t, l.a); !slices.Equal(before, after) {
		t.Errorf("routes before\n%s\nand after\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	// Where the host has no address of the network, and for link-local ones, the device is the way.
	for i, p := range []string{"198.51.100.7/24", "fe80::33/64"} {
		take(t, l.ka, vmac{vmacs[i].VirtualMAC, netip.MustParsePrefix(p)})
		want := netip.MustParsePrefix(p).Masked().String() + " " + ensure(t, l.ka, vmacs[i].VirtualMAC).Name
		if got := routes(t, l.a); !slices.Contains(got, want) {
			t.Errorf("no route %q in\n%s", want, strings.Join(got, "\n"))
		}
	}
}

// routes are the main table's networks with their devices.
func routes(t *testing.T, h *nstest.Host) (list []string) {
	t.Helper()
	h.Run(t, func() error {
		all, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		for _, r := range all {
			dev, err := netlink.LinkByIndex(r.LinkIndex)
			if err != nil {
				return err
			}
			list = append(list, r.Dst.String()+" "+dev.Attrs().Name)
		}
		return nil
	})
	slices.Sort(list)
	return list
}

func addrsOn(t *testing.T, k *Kernel, index int) (list []netip.Prefix) {
	t.Helper()
	have, err := k.addresses(index)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range have {
		list = append(list, a.prefix)
	}
	return list
}
