package fence

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/packet"

	"github.com/quorate/quorate/vipctl/internal/nstest"
	"github.com/quorate/quorate/vipctl/kernel"
	"github.com/quorate/quorate/vrrpcompat"
)

// raised is a virtual MAC of one family that is up with its address.
type raised struct {
	kernel.VirtualMAC
	vip  netip.Addr
	link string
}

// withVirtualMACs makes a host that holds both addresses on virtual MACs, and a neighbour.
func withVirtualMACs(t *testing.T, between func(*nstest.Host)) (holder, asker *nstest.Host, k *kernel.Kernel, vmacs []raised) {
	t.Helper()
	holder, asker = nstest.New(t), nstest.New(t)
	nstest.Connect(t, holder, "eth0", asker, "eth0")
	for i, h := range []*nstest.Host{holder, asker} {
		h.Addr(t, "eth0", []string{"192.0.2.1/24", "192.0.2.9/24"}[i])
		h.Addr(t, "eth0", []string{"2001:db8::1/64", "2001:db8::9/64"}[i])
		h.Addr(t, "eth0", []string{"fe80::1/64", "fe80::9/64"}[i])
	}
	between(holder)
	holder.Run(t, func() (err error) {
		k, err = kernel.Open()
		return err
	})
	t.Cleanup(func() { k.Close() })
	for _, v := range []raised{
		{VirtualMAC: kernel.VirtualMAC{Tag: "abc123", Parent: "eth0", Family: vrrpcompat.IPv4, VRID: 51}, vip: vip4},
		{VirtualMAC: kernel.VirtualMAC{Tag: "abc123", Parent: "eth0", Family: vrrpcompat.IPv6, VRID: 51}, vip: vip6},
	} {
		l, err := k.EnsureVirtualMAC(v.VirtualMAC)
		if err != nil {
			t.Fatal(err)
		}
		v.link = l.Name
		bits := 24
		if v.vip.Is6() {
			bits = 64
		}
		if err := errors.Join(k.RaiseVirtualMAC(v.VirtualMAC), k.AddAddresses([]kernel.Address{{Link: l.Name, Prefix: netip.PrefixFrom(v.vip, bits)}}, time.Hour)); err != nil {
			t.Fatal(err)
		}
		vmacs = append(vmacs, v)
	}
	return holder, asker, k, vmacs
}

// TestVirtualMAC: the fence sees the frames of a virtual MAC on its own device and on the one below; each alone is
// enough. Questions, connections, announcements and adverts.
func TestVirtualMAC(t *testing.T) {
	for _, where := range []string{"on both", "on the device below", "on its own device"} {
		t.Run(where, func(t *testing.T) {
			eachKind(t, func(t *testing.T, kind Kind) {
				var f *Fence
				holder, asker, k, vmacs := withVirtualMACs(t, func(h *nstest.Host) {
					f = open(t, h, kind)
					if where == "on the device below" {
						cover(t, f)
					}
				})
				if where != "on the device below" {
					cover(t, f)
				}
				if where == "on its own device" {
					eth0 := deviceNamed(t, holder, "eth0")
					holder.Run(t, func() error { return f.uncover(eth0) })
				}
				want := map[string][]string{
					"on both":             {"eth0", "lo", vmacs[0].link, vmacs[1].link},
					"on the device below": {"eth0", "lo"},
					"on its own device":   {"lo", vmacs[0].link, vmacs[1].link},
				}[where]
				if got, err := f.Covered(); err != nil || !equalSorted(got, want) {
					t.Fatalf("Covered() = %v, %v, want %v", got, err, want)
				}
				conn, mac := asker.Open(t, "eth0"), asker.MAC(t, "eth0")
				for _, v := range vmacs {
					out := holder.Open(t, v.link)
					check := func(when string, want bool) {
						t.Helper()
						within := long
						if !want {
							within = short
						}
						if from, got := nstest.Asks(t, conn, mac, v.vip, within); got != want || got && !slices.Equal(from, v.MAC()) {
							t.Errorf("%s %s: answers by ARP or ND: %v from %v", v.vip, when, got, from)
						}
						if got := asker.Connects(t, v.vip, within); got != want {
							t.Errorf("%s %s: answers by TCP: %v", v.vip, when, got)
						}
						if err := k.Announce(v.link, []netip.Addr{v.vip}); want && err != nil {
							t.Error(err)
						}
						nstest.Send(t, out, advertFrame(t, v, 254))
						if got := nstest.Hears(t, conn, within, func(b []byte) bool { return isAdvert(b) }); got != want {
							t.Errorf("%s %s: adverts leave: %v", v.vip, when, got)
						}
						if !want {
							if nstest.Hears(t, conn, short, func(b []byte) bool { return bytes.Equal(b[6:12], v.MAC()) }) {
								t.Errorf("%s %s: something left from its hardware address", v.vip, when)
							}
						}
					}
					check("without an entry", true)
					set(t, f, v.vip, now(t).Add(time.Hour))
					check("before its deadline", true)
					set(t, f, v.vip, 0)
					check("shut", false)
					if drops, err := f.Drops(); err != nil || drops[v.vip] == 0 {
						t.Errorf("drops of %s = %d, %v", v.vip, drops[v.vip], err)
					}
					if err := f.Delete([]netip.Addr{v.vip}); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

func deviceNamed(t *testing.T, h *nstest.Host, name string) device {
	t.Helper()
	for _, d := range devicesOf(t, h) {
		if d.name == name {
			return d
		}
	}
	t.Fatalf("no device %s", name)
	return device{}
}

// advertFrame is an advert that lists the address, by the virtual MAC.
func advertFrame(t *testing.T, v raised, priority vrrpcompat.Priority) []byte {
	t.Helper()
	from := netip.MustParseAddr("192.0.2.1")
	if v.Family == vrrpcompat.IPv6 {
		from = netip.MustParseAddr("fe80::1")
	}
	a := vrrpcompat.Advert{Version: vrrpcompat.V3, VRID: v.VRID, Priority: priority, Interval: 100, Addresses: []netip.Addr{v.vip}}
	message, err := a.AppendTo(nil, from, v.Family.Group(), vrrpcompat.PseudoHeader)
	if err != nil {
		t.Fatal(err)
	}
	if v.Family == vrrpcompat.IPv4 {
		h := []byte{0x45, 0xc0, 0, byte(20 + len(message)), 0, 0, 0, 0, 255, vrrpcompat.Protocol, 0, 0}
		h = append(append(h, from.AsSlice()...), v.Family.Group().AsSlice()...)
		s := sum(h)
		h[10], h[11] = byte(^s>>8), byte(^s)
		return slices.Concat([]byte{1, 0, 0x5e, 0, 0, 0x12}, v.MAC(), []byte{8, 0}, h, message)
	}
	h := []byte{0x6c, 0, 0, 0, 0, byte(len(message)), vrrpcompat.Protocol, 255}
	h = append(append(h, from.AsSlice()...), v.Family.Group().AsSlice()...)
	return slices.Concat([]byte{0x33, 0x33, 0, 0, 0, 0x12}, v.MAC(), []byte{0x86, 0xdd}, h, message)
}

func isAdvert(b []byte) bool {
	return len(b) > 34 && (b[12] == 8 && b[14+9] == vrrpcompat.Protocol || b[12] == 0x86 && b[14+6] == vrrpcompat.Protocol)
}

// TestGuardedMAC: past the deadline of the hardware address nothing leaves from it, whatever it says, but adverts; other
// hardware addresses are free.
func TestGuardedMAC(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		var f *Fence
		holder, asker, _, vmacs := withVirtualMACs(t, func(h *nstest.Host) { f = open(t, h, kind) })
		cover(t, f)
		conn := asker.Open(t, "eth0")
		for i, v := range vmacs {
			key := OfMAC(v.MAC())
			out, below := holder.Open(t, v.link), holder.Open(t, "eth0")
			leaves := func(by *packet.Conn, frame []byte, within time.Duration) bool {
				t.Helper()
				nstest.Hears(t, conn, time.Millisecond, func([]byte) bool { return false })
				nstest.Send(t, by, frame)
				return nstest.Hears(t, conn, within, func(b []byte) bool { return bytes.Equal(b[:len(frame)], frame) })
			}
			// An LLDP-like frame, and an IPv6 one from no address as the kernel's multicast reports are.
			var frames [][]byte
			for _, rest := range [][]byte{
				slices.Concat([]byte{0x88, 0xcc}, make([]byte, 60)),
				slices.Concat([]byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 0, 1}, make([]byte, 16), []byte{0xff, 2, 15: 0x16}, make([]byte, 20)),
			} {
				frames = append(frames, slices.Concat([]byte{0x33, 0x33, 0, 0, 0, 0x16}, v.MAC(), rest))
			}
			for _, c := range []struct {
				when string
				do   func()
				want bool
			}{
				{"without an entry", func() {}, true},
				{"before its deadline", func() { set(t, f, key, now(t).Add(time.Hour)) }, true},
				{"shut", func() { set(t, f, key, 0) }, false},
				{"deleted", func() {
					if drops, err := f.Drops(); err != nil || drops[key] == 0 {
						t.Errorf("drops of %s = %d, %v", key, drops[key], err)
					}
					if entries, err := f.Entries(); err != nil || len(entries) != 1 || entries[key] != 0 {
						t.Errorf("entries %v, %v", entries, err)
					}
					if err := f.Delete([]netip.Addr{key}); err != nil {
						t.Error(err)
					}
				}, true},
			} {
				c.do()
				within := long
				if !c.want {
					within = short
				}
				for n, frame := range frames {
					for _, by := range []*packet.Conn{out, below} {
						if got := leaves(by, frame, within); got != c.want {
							t.Errorf("%v %s: frame %d leaves: %v", v.MAC(), c.when, n, got)
						}
					}
				}
				if !leaves(out, advertFrame(t, v, 0), long) {
					t.Errorf("%v %s: a priority 0 advert does not leave", v.MAC(), c.when)
				}
				other := slices.Clone(frames[0])
				copy(other[6:], vmacs[1-i].MAC())
				if !leaves(out, other, long) {
					t.Errorf("%v %s: frames of %v do not leave", v.MAC(), c.when, vmacs[1-i].MAC())
				}
			}
		}
	})
}

func TestOfMAC(t *testing.T) {
	for mac, want := range map[string]string{
		"00:00:5e:00:01:33": "100::5e00:133",
		"00:00:5e:00:02:ff": "100::5e00:2ff",
		"00:00:5e:00:03:01": "invalid IP",
		"00:00:5f:00:01:01": "invalid IP",
		"02:00:5e:00:01:01": "invalid IP",
		"":                  "invalid IP",
	} {
		hw, err := net.ParseMAC(mac)
		if err != nil && mac != "" {
			t.Fatal(err)
		}
		if got := OfMAC(hw).String(); got != want {
			t.Errorf("OfMAC(%s) = %s, want %s", mac, got, want)
		}
	}
}

// TestQueriesOfAThawedHost: the kernel itself answers multicast queries from the hardware address of a device that a dead
// daemon left up. With the hardware address shut it cannot.
func TestQueriesOfAThawedHost(t *testing.T) {
	var f *Fence
	_, asker, _, vmacs := withVirtualMACs(t, func(h *nstest.Host) { f = open(t, h, 0) })
	cover(t, f)
	v := vmacs[1]
	conn := asker.Open(t, "eth0")
	query := mldQuery(asker.MAC(t, "eth0"))
	reports := func(within time.Duration) bool {
		nstest.Hears(t, conn, time.Millisecond, func([]byte) bool { return false })
		nstest.Send(t, conn, query)
		return nstest.Hears(t, conn, within, func(b []byte) bool { return bytes.Equal(b[6:12], v.MAC()) })
	}
	if !reports(long) {
		t.Fatal("the kernel does not answer a query by the virtual MAC: this test shows nothing")
	}
	set(t, f, v.vip, 0)
	set(t, f, OfMAC(v.MAC()), 0)
	if reports(time.Second) {
		t.Error("it answers a query past the deadline")
	}
}

// mldQuery is a general query of MLDv2 that wants answers at once (RFC 3810, section 5.1).
func mldQuery(mac net.HardwareAddr) []byte {
	from, to := netip.MustParseAddr("fe80::9"), netip.MustParseAddr("ff02::1")
	body := make([]byte, 28)
	body[0], body[5] = 130, 1 // type, maximum response 1 ms
	pseudo := slices.Concat(from.AsSlice(), to.AsSlice(), []byte{0, 0, 0, byte(len(body)), 0, 0, 0, 58}, body)
	s := ^sum(pseudo)
	body[2], body[3] = byte(s>>8), byte(s)
	ip := slices.Concat([]byte{0x60, 0, 0, 0, 0, byte(len(body) + 8), 0, 1}, from.AsSlice(), to.AsSlice(),
		[]byte{58, 0, 5, 2, 0, 0, 1, 0}, body) // hop by hop: router alert
	return slices.Concat([]byte{0x33, 0x33, 0, 0, 0, 1}, mac, []byte{0x86, 0xdd}, ip)
}
