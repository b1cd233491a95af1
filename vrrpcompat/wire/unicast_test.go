package wire

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/quorate/quorate/vrrpcompat"
)

// Messages go to each peer, from the address of its network, and not to this host or to one that cannot be reached.
func TestUnicast(t *testing.T) {
	a, b := newHosts(t)
	run(t, "ip", "-n", a.netns, "addr", "add", "2001:db8::1/64", "dev", a.ifname, "nodad")
	run(t, "ip", "-n", b.netns, "addr", "add", "2001:db8::2/64", "dev", b.ifname, "nodad")
	sa, sb := a.station(t, nil), b.station(t, nil)
	for _, c := range []struct{ us, them, nobody string }{
		{"192.0.2.1", "192.0.2.2", "192.0.2.9"},
		{"2001:db8::1", "2001:db8::2", "2001:db8::9"},
		{a.source(t, vrrpcompat.IPv6).String(), b.source(t, vrrpcompat.IPv6).String(), "fe80::9"},
	} {
		t.Run(c.them, func(t *testing.T) {
			us, them := netip.MustParseAddr(c.us), netip.MustParseAddr(c.them)
			f := vrrpcompat.FamilyOf(us)
			p := a.path(f)
			p.Peers = []Peer{{Addr: us}, {Addr: netip.MustParseAddr(c.nobody)}, {Addr: them.WithZone("any")}}
			for _, hops := range []uint8{0, 64} {
				p.HopLimit = hops
				if err := sa.Send(p, encoding(advert(f), vrrpcompat.PseudoHeader)); err != nil {
					t.Fatal(err)
				}
				got := sb.next(t)
				if hops == 0 {
					hops = 255
				}
				if got.Source != us || got.Destination != them || got.HopLimit != int(hops) {
					t.Errorf("heard from %v to %v with hop limit %d, want %d", got.Source, got.Destination, got.HopLimit, hops)
				}
				if m, _ := decoded(t, got, Peer{Addr: us}); !same(m, advert(f)) {
					t.Errorf("heard %+v", m)
				}
				meta, why := got.Admit([]Peer{{Addr: us, Hops: vrrpcompat.Hops{Min: 100, Max: 255}}})
				_, _, err := vrrpcompat.Decode(got.Payload, meta, nil)
				reject, refused := errors.AsType[*vrrpcompat.Reject](err)
				if why != 0 || refused != (hops < 100) || refused && reject.Reason != vrrpcompat.ReasonHopLimit {
					t.Errorf("hop limit %d where 100 is wanted: %v, %v", hops, why, err)
				}
			}
			select {
			case got := <-sa.heard:
				t.Errorf("sent to itself: %+v", got)
			default:
			}
		})
	}
}

// A peer without a route is an error that does not keep the others from theirs.
func TestUnicastGoesOn(t *testing.T) {
	a, b := newHosts(t)
	sa, sb := a.station(t, nil), b.station(t, nil)
	p := a.path(vrrpcompat.IPv6)
	p.Peers = []Peer{{Addr: netip.MustParseAddr("2001:db8::9")}, {Addr: b.source(t, vrrpcompat.IPv6)}}
	if err := sa.Send(p, encoding(advert(vrrpcompat.IPv6), vrrpcompat.PseudoHeader)); err == nil {
		t.Error("a peer that cannot be reached is no error")
	}
	decoded(t, sb.next(t), Peer{Addr: a.source(t, vrrpcompat.IPv6)})
}

// Via another device the hardware address is that device's, and the IP source still the first one's.
func TestVia(t *testing.T) {
	a, b := newHosts(t)
	const vmac = "00:00:5e:00:01:33"
	run(t, "ip", "-n", a.netns, "link", "add", "link", a.ifname, "name", "vm", "address", vmac, "type", "macvlan", "mode", "bridge")
	run(t, "ip", "-n", a.netns, "link", "set", "vm", "addrgenmode", "none", "up")
	sa, sb := a.station(t, nil), b.station(t, nil)
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			p := a.path(f)
			p.Via = "vm"
			if err := sa.Send(p, encoding(advert(f), vrrpcompat.PseudoHeader)); err != nil {
				t.Fatal(err)
			}
			got := sb.next(t)
			if m, _ := decoded(t, got); !same(m, advert(f)) || got.MAC.String() != vmac || got.Source != a.source(t, f) {
				t.Errorf("heard %+v from %v, %v", m, got.Source, got.MAC)
			}
			// Another router has the same virtual MAC, and is heard.
			hw, err := net.ParseMAC(vmac)
			if err != nil {
				t.Fatal(err)
			}
			b.tap(t).send(t, forged{from: b.source(t, f), to: f.Group(), hops: 255, payload: got.Payload}.frame(hw, nil))
			if got := sa.next(t); got.Reason != 0 || got.MAC.String() != vmac || got.Source != b.source(t, f) {
				t.Errorf("refused: %+v", got)
			}
		})
	}
	// Made again, as it is at each takeover.
	run(t, "ip", "-n", a.netns, "link", "del", "vm")
	run(t, "ip", "-n", a.netns, "link", "add", "link", a.ifname, "name", "vm", "address", vmac, "type", "macvlan", "mode", "bridge")
	run(t, "ip", "-n", a.netns, "link", "set", "vm", "addrgenmode", "none", "up")
	for _, f := range families {
		p := a.path(f)
		p.Via = "vm"
		eventually(t, "an advert via the new device", func() error { return sa.Send(p, encoding(advert(f), vrrpcompat.PseudoHeader)) })
		if got := sb.next(t); got.MAC.String() != vmac {
			t.Errorf("heard from %v, want %s", got.MAC, vmac)
		}
	}
}
