package wire

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vrrpcompat"
)

// A forged is an IP packet with anything in it.
type forged struct {
	from, to netip.Addr
	hops     byte
	payload  []byte
	change   func(ip []byte) []byte // after the checksum was put in
	reSum    bool                   // and put it in again
}

func (f forged) ip() []byte {
	var b []byte
	if f.from.Is4() {
		b = []byte{0x45, 0xc0, 0, 0, 0, 0, 0, 0, f.hops, vrrpcompat.Protocol, 0, 0}
		b = append(append(append(b, f.from.AsSlice()...), f.to.AsSlice()...), f.payload...)
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		sumIPv4(b)
	} else {
		b = []byte{0x6c, 0, 0, 0, 0, 0, vrrpcompat.Protocol, f.hops}
		b = append(append(append(b, f.from.AsSlice()...), f.to.AsSlice()...), f.payload...)
		binary.BigEndian.PutUint16(b[4:], uint16(len(f.payload)))
	}
	if f.change != nil {
		b = f.change(b)
		if f.reSum {
			sumIPv4(b)
		}
	}
	return b
}

func sumIPv4(b []byte) {
	b[10], b[11] = 0, 0
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum>>16+sum&0xffff))
}

// frame puts an Ethernet header in front. A multicast destination gets its group's hardware address.
func (f forged) frame(src, dst net.HardwareAddr) []byte {
	if f.to.IsMulticast() {
		a := f.to.AsSlice()
		dst = net.HardwareAddr{0x33, 0x33, a[len(a)-4], a[len(a)-3], a[len(a)-2], a[len(a)-1]}
		if f.to.Is4() {
			dst = net.HardwareAddr{1, 0, 0x5e, a[1] & 0x7f, a[2], a[3]}
		}
	}
	ethertype := uint16(unix.ETH_P_IP)
	if f.from.Is6() {
		ethertype = unix.ETH_P_IPV6
	}
	b := binary.BigEndian.AppendUint16(slices.Concat(dst, src), ethertype)
	return append(b, f.ip()...)
}

func set(at int, value ...byte) func([]byte) []byte {
	return func(b []byte) []byte { copy(b[at:], value); return b }
}

func TestParse(t *testing.T) {
	from4, from6 := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("fe80::2")
	payload := []byte{0x31, 51, 254, 1, 0, 100, 0, 0, 192, 0, 2, 100}
	four := forged{from: from4, to: vrrpcompat.GroupIPv4, hops: 255, payload: payload}
	six := forged{from: from6, to: vrrpcompat.GroupIPv6, hops: 255, payload: payload}
	with := func(f forged, reSum bool, change func([]byte) []byte) forged {
		f.change, f.reSum = change, reSum
		return f
	}
	for _, c := range []struct {
		name string
		f    forged
		want Reason
	}{
		{"good", four, 0},
		{"good", six, 0},
		{"padded by Ethernet", with(four, false, func(b []byte) []byte { return append(b, make([]byte, 14)...) }), 0},
		{"padded by Ethernet", with(six, false, func(b []byte) []byte { return append(b, 7, 7) }), 0},
		{"with options", with(four, false, func(b []byte) []byte {
			b = slices.Concat(b[:20], []byte{1, 1, 1, 0}, b[20:])
			b[0], b[3], b[10], b[11] = 0x46, b[3]+4, 0, 0
			var sum uint32
			for i := 0; i < 24; i += 2 {
				sum += uint32(binary.BigEndian.Uint16(b[i:]))
			}
			binary.BigEndian.PutUint16(b[10:], ^uint16(sum>>16+sum&0xffff))
			return b
		}), 0},
		{"don't fragment", with(four, true, set(6, 0x40)), 0},
		{"empty", with(four, false, func([]byte) []byte { return nil }), ReasonIPHeader},
		{"empty", with(six, false, func([]byte) []byte { return nil }), ReasonIPHeader},
		{"cut off in the header", with(four, false, func(b []byte) []byte { return b[:19] }), ReasonIPHeader},
		{"cut off in the header", with(six, false, func(b []byte) []byte { return b[:39] }), ReasonIPHeader},
		{"cut off behind the header", with(four, false, func(b []byte) []byte { return b[:len(b)-1] }), ReasonIPHeader},
		{"cut off behind the header", with(six, false, func(b []byte) []byte { return b[:len(b)-1] }), ReasonIPHeader},
		{"version", with(four, true, set(0, 0x65)), ReasonIPHeader},
		{"version", with(six, false, set(0, 0x40)), ReasonIPHeader},
		{"header too short", with(four, true, set(0, 0x44)), ReasonIPHeader},
		{"header longer than the packet", with(four, true, set(0, 0x4f)), ReasonIPHeader},
		{"total shorter than the header", with(four, true, set(2, 0, 19)), ReasonIPHeader},
		{"total longer than the packet", with(four, true, set(2, 0, 33)), ReasonIPHeader},
		{"damaged", with(four, false, set(8, 254)), ReasonIPHeader},
		{"behind an authentication header cut off", with(four, true, set(9, 51)), ReasonIPHeader},
		{"authenticated of another protocol", with(four, true, func(b []byte) []byte { b[9], b[20], b[21] = 51, 6, 1; return b }), ReasonIPHeader},
		{"first fragment", with(four, true, set(6, 0x20)), ReasonFragment},
		{"last fragment", with(four, true, set(7, 1)), ReasonFragment},
	} {
		t.Run(vrrpcompat.FamilyOf(c.f.from).String()+" "+c.name, func(t *testing.T) {
			b := c.f.ip()
			p := Packet{Family: vrrpcompat.FamilyOf(c.f.from)}
			got := p.parse(b, len(b))
			if got != c.want {
				t.Fatalf("parse = %v, want %v", got, c.want)
			}
			if c.want != 0 {
				if p.Payload != nil {
					t.Errorf("payload %x of a refused packet", p.Payload)
				}
				return
			}
			if p.Source != c.f.from || p.Destination != c.f.to || p.HopLimit != 255 || !bytes.Equal(p.Payload, payload) {
				t.Errorf("parsed %+v", p)
			}
		})
	}
}

func TestOversize(t *testing.T) {
	for _, from := range []string{"192.0.2.2", "fe80::2"} {
		f := forged{from: netip.MustParseAddr(from), hops: 255}
		f.to = vrrpcompat.FamilyOf(f.from).Group()
		for _, c := range []struct {
			length int
			want   Reason
		}{{vrrpcompat.MaxLen, 0}, {vrrpcompat.MaxLen + 1, ReasonOversize}, {9000, ReasonOversize}} {
			f.payload = make([]byte, c.length)
			b := f.ip()
			p := Packet{Family: vrrpcompat.FamilyOf(f.from)}
			if got := p.parse(b[:min(len(b), bufferLen)], len(b)); got != c.want || p.Source != f.from {
				t.Errorf("%d bytes from %v: %v, want %v", c.length, p.Source, got, c.want)
			}
		}
	}
}

// What is said of a packet holds whatever its bytes: a payload lies within the packet and is as long as the header says.
func FuzzParse(f *testing.F) {
	four := forged{from: netip.MustParseAddr("192.0.2.2"), to: vrrpcompat.GroupIPv4, hops: 255, payload: []byte{0x31, 7}}
	six := forged{from: netip.MustParseAddr("fe80::2"), to: vrrpcompat.GroupIPv6, hops: 255, payload: []byte{0x31, 7}}
	f.Add(four.ip(), 0)
	f.Add(six.ip(), 7)
	four.payload, four.change, four.reSum = append([]byte{vrrpcompat.Protocol, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, four.payload...), set(9, protocolAH), true
	f.Add(four.ip(), 0)
	f.Fuzz(func(t *testing.T, b []byte, more int) {
		length := len(b) + max(0, more%9000)
		for _, family := range families {
			p := Packet{Family: family}
			reason := p.parse(b, length)
			if (reason == 0 || reason == ReasonAH) != (p.Payload != nil) {
				t.Fatalf("%v: %v with payload %x", family, reason, p.Payload)
			}
			if p.Payload == nil {
				continue
			}
			header := ipv6HeaderLen
			if family == vrrpcompat.IPv4 {
				header = int(b[0]&15) * 4
			}
			if reason == ReasonAH {
				header += (int(b[header+1]) + 2) * 4
			}
			if vrrpcompat.FamilyOf(p.Source) != family || len(p.Payload) > vrrpcompat.MaxLen || header+len(p.Payload) > len(b) ||
				!bytes.Equal(p.Payload, b[header:header+len(p.Payload)]) {
				t.Fatalf("%v: %+v of %x", family, p, b)
			}
		}
	})
}

func TestAdmit(t *testing.T) {
	peer, other := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	us := netip.MustParseAddr("192.0.2.1")
	any := vrrpcompat.Hops{Min: 1, Max: 255}
	near := vrrpcompat.Hops{Min: 255, Max: 255}
	for _, c := range []struct {
		name  string
		p     Packet
		peers []Peer
		want  Reason
		hops  vrrpcompat.Hops
	}{
		{"multicast", Packet{Source: peer, Destination: vrrpcompat.GroupIPv4}, nil, 0, vrrpcompat.Hops{}},
		{"multicast of a peer", Packet{Source: peer, Destination: vrrpcompat.GroupIPv4}, []Peer{{Addr: peer}}, ReasonMulticast, vrrpcompat.Hops{}},
		{"unicast", Packet{Source: peer, Destination: us}, nil, ReasonUnicast, vrrpcompat.Hops{}},
		{"of a peer", Packet{Source: peer, Destination: us}, []Peer{{Addr: other}, {Addr: peer}}, 0, any},
		{"of a near peer", Packet{Source: peer, Destination: us}, []Peer{{Addr: peer, Hops: near}}, 0, near},
		{"of a stranger", Packet{Source: other, Destination: us}, []Peer{{Addr: peer}}, ReasonNotPeer, vrrpcompat.Hops{}},
		{"refused already", Packet{Source: peer, Destination: us, Reason: ReasonOwn}, []Peer{{Addr: peer}}, ReasonOwn, vrrpcompat.Hops{}},
	} {
		c.p.Family, c.p.HopLimit = vrrpcompat.IPv4, 77
		meta, why := c.p.Admit(c.peers)
		if why != c.want || meta.Unicast != c.hops {
			t.Errorf("%s: %v with hops %v, want %v with %v", c.name, why, meta.Unicast, c.want, c.hops)
		}
		if why == 0 && (meta.Source != c.p.Source || meta.Destination != c.p.Destination || meta.HopLimit != 77) {
			t.Errorf("%s: %+v", c.name, meta)
		}
	}
}

func TestReasonsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for r := Reason(0); r < reasonEnd; r++ {
		if name := r.String(); name == "" || seen[name] {
			t.Errorf("reason %d is called %q", r, name)
		} else {
			seen[name] = true
		}
	}
	if got := reasonEnd.String(); got != "reason(11)" {
		t.Errorf("one too many is called %q", got)
	}
}

// Each packet that must not be acted on comes with its reason, and the next good one is heard all the same.
func TestRefusedPacketsAreHeardWithReason(t *testing.T) {
	a, b := newHosts(t)
	sb, tap := b.station(t, nil), a.tap(t)
	macA, macB := a.mac(t), b.mac(t)
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			fromA, fromB := a.source(t, f), b.source(t, f)
			other, elsewhere := netip.MustParseAddr("224.0.0.99"), netip.MustParseAddr("192.0.2.9")
			if f == vrrpcompat.IPv6 {
				other, elsewhere = netip.MustParseAddr("ff02::99"), netip.MustParseAddr("fe80::9")
			}
			good, err := advert(f).AppendTo(nil, fromA, f.Group(), vrrpcompat.PseudoHeader)
			if err != nil {
				t.Fatal(err)
			}
			b.joins(t, other)
			for _, c := range []struct {
				name string
				f    forged
				mac  net.HardwareAddr
				want Reason
			}{
				{"own, sent back by the network", forged{from: fromB, to: f.Group()}, macB, ReasonOwn},
				{"own address, another's hardware", forged{from: fromB, to: f.Group()}, macA, ReasonSpoofed},
				{"another group", forged{from: fromA, to: other}, macA, ReasonDestination},
				{"to be forwarded", forged{from: fromA, to: elsewhere}, macA, ReasonDestination},
				{"unicast", forged{from: fromA, to: fromB}, macA, 0},
				{"damaged", forged{from: fromA, to: f.Group(), change: func(b []byte) []byte { b[0] ^= 0x10; return b }}, macA, ReasonIPHeader},
			} {
				c.f.hops, c.f.payload = 255, good
				tap.send(t, c.f.frame(c.mac, macB))
				if p := sb.next(t); p.Reason != c.want || c.want != ReasonIPHeader && p.Source != c.f.from {
					t.Errorf("%s: %v from %v, want %v", c.name, p.Reason, p.Source, c.want)
				}
			}
			// What a promiscuous device sees of others' is nobody's business, and not counted.
			tap.send(t, forged{from: fromA, to: fromB, hops: 255, payload: good}.frame(macA, net.HardwareAddr{2, 0, 0, 0, 0, 9}))
			tap.send(t, forged{from: fromA, to: f.Group(), hops: 255, payload: good}.frame(macA, nil))
			if got, _ := decoded(t, sb.next(t)); !same(got, advert(f)) {
				t.Errorf("after the bad ones heard %+v", got)
			}
		})
	}
}

// joins makes the host a member of another group until the test ends, as another program could.
func (h host) joins(t *testing.T, group netip.Addr) {
	t.Helper()
	err := h.in(t)(func() error {
		ifi, err := net.InterfaceByName(h.ifname)
		if err != nil {
			return err
		}
		domain := unix.AF_INET
		if group.Is6() {
			domain = unix.AF_INET6
		}
		fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { syscall.Close(fd) })
		if group.Is6() {
			return unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(ifi.Index)})
		}
		return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(ifi.Index)})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Another program of this host that has its multicast looped back, as the sockets' default is, is not taken for a neighbour.
func TestLoopedBackIsNotHeard(t *testing.T) {
	a, b := newHosts(t)
	sa, sb := a.station(t, nil), b.station(t, nil)
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			m, err := advert(f).AppendTo(nil, a.source(t, f), f.Group(), vrrpcompat.PseudoHeader)
			if err != nil {
				t.Fatal(err)
			}
			err = a.in(t)(func() error {
				domain, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{224, 0, 0, 18}})
				if f == vrrpcompat.IPv6 {
					domain, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: f.Group().As16()}
				}
				fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, vrrpcompat.Protocol)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				if err := unix.BindToDevice(fd, a.ifname); err != nil {
					return err
				}
				return unix.Sendto(fd, m, 0, to)
			})
			if err != nil {
				t.Fatal(err)
			}
			sb.next(t) // it has left
			if err := sb.say(advert(f)); err != nil {
				t.Fatal(err)
			}
			if p := sa.next(t); p.Source != b.source(t, f) {
				t.Errorf("heard %v from %v first, want only %v", p.Reason, p.Source, b.source(t, f))
			}
		})
	}
}
