package vipctl

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func host4(i int) Neighbour {
	return Neighbour{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), MAC{2, 0, 0, 0, 1, byte(i)}, time.Duration(i) * time.Second}
}

func host6(i int) Neighbour {
	return Neighbour{netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)), MAC{2, 0, 0, 0, 1, byte(i)}, time.Duration(i) * time.Second}
}

func prefixes(text ...string) (out []netip.Prefix) {
	for _, t := range text {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// TestTellFrames compares with frames put together by hand.
func TestTellFrames(t *testing.T) {
	pad18 := strings.Repeat("00", 18)
	checks := checksum("20010db8000000000000000000000200" + "20010db8000000000000000000000009" + "00000020" + "0000003a" +
		"8700000000000000" + "20010db8000000000000000000000009" + "0101020000000001")
	for name, test := range map[string]struct {
		frame func() ([]byte, error)
		want  string
	}{
		"ARP": {
			func() ([]byte, error) { return TellARP(vip4, mac, host4(9)) },
			"020000000109 020000000001 0806 0001 0800 06 04 0001 020000000001 c00002c8 000000000000 c0000209" + pad18},
		"NS": {
			func() ([]byte, error) { return TellNS(vip6, mac, host6(9)) },
			"020000000109 020000000001 86dd 60000000 0020 3a ff" +
				"20010db8000000000000000000000200 20010db8000000000000000000000009" +
				"87 00 " + checks + " 00000000 20010db8000000000000000000000009 01 01 020000000001"},
		"NA to routers": {
			func() ([]byte, error) {
				b, err := UnsolicitedNA(vip6, mac, false, AllRouters)
				return b[:54], err
			},
			"333300000002 020000000001 86dd 60000000 0020 3a ff 20010db8000000000000000000000200 ff020000000000000000000000000002"},
	} {
		got, err := test.frame()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := strings.ReplaceAll(test.want, " ", ""); hex.EncodeToString(got) != want {
			t.Errorf("%s:\n got %x\nwant %s", name, got, want)
		}
	}
	for name, build := range map[string]func() ([]byte, error){
		"an IPv6 neighbour by ARP": func() ([]byte, error) { return TellARP(vip4, mac, host6(9)) },
		"of IPv6 by ARP":           func() ([]byte, error) { return TellARP(vip6, mac, host4(9)) },
		"an IPv4 neighbour by NS":  func() ([]byte, error) { return TellNS(vip6, mac, host4(9)) },
		"of IPv4 by NS":            func() ([]byte, error) { return TellNS(vip4, mac, host6(9)) },
		"nobody":                   func() ([]byte, error) { return UnsolicitedNA(vip6, mac, false, 0) },
	} {
		if b, err := build(); err == nil {
			t.Errorf("%s: built %x", name, b)
		}
	}
}

func TestNewest(t *testing.T) {
	moved := host4(3)
	moved.MAC, moved.Age = MAC{2, 0, 0, 0, 9, 9}, time.Millisecond
	group := host4(4)
	group.MAC = MAC{1, 0, 0x5e, 0, 0, 1}
	got := Newest([]Neighbour{host4(5), host4(2), host6(7), host4(3), host6(6), moved, group, {}, host4(1), host6(8)}, 2)
	want := []Neighbour{moved, host4(1), host6(6), host6(7)}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if _, ok := MACOf(net.HardwareAddr{1, 2}); ok {
		t.Error("two bytes are a hardware address")
	}
	if m, ok := MACOf(mac); !ok || m.String() != mac.String() {
		t.Errorf("%v, %v", m, ok)
	}
}

func TestTellings(t *testing.T) {
	second := vip4.Next()
	to := []Neighbour{host4(1), host6(2), host4(3)}
	all := []Telling{{vip4, host4(1)}, {second, host4(1)}, {vip6, host6(2)}, {vip4, host4(3)}, {second, host4(3)}}
	addrs := []netip.Addr{vip4, vip6, second}
	for limit := range len(all) + 2 {
		if got, want := Tellings(addrs, to, limit), all[:min(limit, len(all))]; !slices.Equal(got, want) {
			t.Errorf("limit %d:\n got %v\nwant %v", limit, got, want)
		}
	}
}

func TestNetworks(t *testing.T) {
	got := Networks(prefixes("192.0.2.200/32", "192.0.2.1/24", "fe80::1/64", "2001:db8::1/64", "127.0.0.1/8", "198.51.100.7/32", "2001:db8::200/128"))
	want := prefixes("192.0.2.0/24", "198.51.100.7/32", "2001:db8::/64")
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	var many []netip.Prefix
	for i := range 100 {
		many = append(many, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 1}), 24))
	}
	if n := len(Networks(many)); n != maxNetworks {
		t.Errorf("%d networks, want %d", n, maxNetworks)
	}
}

// TestBook: what one host says another finds by the network, until nobody has spoken of
// it for twenty minutes.
func TestBook(t *testing.T) {
	var b Book
	lan, elsewhere := prefixes("192.0.2.0/24", "2001:db8::/64"), prefixes("198.51.100.0/24")
	gateway := Neighbour{netip.MustParseAddr("fe80::1"), MAC{2, 0, 0, 0, 1, 1}, 0}
	now := Instant(time.Hour)
	b.Learn(now, Segment{lan, []Neighbour{host4(9), gateway}})
	b.Learn(now, Segment{elsewhere, []Neighbour{{gateway.Addr, MAC{2, 0, 0, 0, 7, 7}, 0}}})
	now += Instant(time.Minute)
	b.Learn(now, Segment{lan, []Neighbour{host4(1)}})
	near := func(at ...string) []Neighbour { return Newest(b.Near(now, prefixes(at...)), 10) }
	gateway.Age = time.Minute
	old := host4(9)
	old.Age += time.Minute
	if got, want := near("2001:db8::/64"), []Neighbour{host4(1), gateway, old}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := near("192.0.2.200/32"); len(got) != 3 {
		t.Errorf("by a virtual address alone: %v", got)
	}
	if got := near("203.0.113.0/24"); got != nil {
		t.Errorf("of another LAN: %v", got)
	}
	now += Instant(bookAge)
	if got := near("192.0.2.0/24"); len(got) != 1 || got[0].Addr != host4(1).Addr {
		t.Errorf("after twenty minutes: %v", got)
	}
	if n := b.Forget(now); n != 1 {
		t.Errorf("%d are left, want 1", n)
	}
	for i := range 2 * maxBook / 256 {
		var list []Neighbour
		for j := range 256 {
			list = append(list, Neighbour{vip4, MAC{2, 0, 1, 0, byte(i), byte(j)}, 0})
		}
		b.Learn(now, Segment{lan, list})
	}
	if n := b.Forget(now); n != maxBook {
		t.Errorf("%d in the book, want no more than %d", n, maxBook)
	}
}

func TestSame(t *testing.T) {
	older := host4(1)
	older.Age *= 2
	moved := host4(1)
	moved.MAC[5]++
	if !Same([]Neighbour{host4(1), host4(2)}, []Neighbour{host4(2), older}) || !Same(nil, nil) {
		t.Error("the same hosts are not the same")
	}
	if Same([]Neighbour{host4(1)}, []Neighbour{moved}) || Same([]Neighbour{host4(1)}, nil) {
		t.Error("other hosts are the same")
	}
}

func TestSegmentWire(t *testing.T) {
	s := Segment{Networks: prefixes("192.0.2.0/24", "2001:db8::/64")}
	for i := 1; i <= MaxNeighbours; i++ {
		s.Neighbours = append(s.Neighbours, host4(i), host6(i))
	}
	const size = 1280
	parts := AppendSegment(nil, s, size)
	var got []Neighbour
	for _, p := range parts {
		part, err := DecodeSegment(p)
		if err != nil || len(p) > size || !slices.Equal(part.Networks, s.Networks) {
			t.Fatalf("%d bytes, %v, %v", len(p), part.Networks, err)
		}
		got = append(got, part.Neighbours...)
	}
	if !slices.Equal(got, s.Neighbours) || len(parts) != 4 {
		t.Errorf("%d messages with %v", len(parts), got)
	}
	for name, empty := range map[string]Segment{
		"no network": {Neighbours: s.Neighbours}, "nobody": {Networks: s.Networks},
		"too many": {Networks: slices.Repeat(s.Networks, 9), Neighbours: s.Neighbours},
	} {
		if out := AppendSegment(nil, empty, size); out != nil {
			t.Errorf("%s: %x", name, out)
		}
	}
	old := host4(1)
	old.Age = 1000 * time.Hour
	if p := AppendSegment(nil, Segment{s.Networks, []Neighbour{old}}, size); len(p) != 1 {
		t.Error("an old one is not sent")
	} else if d, err := DecodeSegment(p[0]); err != nil || d.Neighbours[0].Age != maxAge {
		t.Errorf("%v, %v", d, err)
	}
	// Nothing that was cut off anywhere is read as a whole message with another content.
	whole := parts[3]
	for n := range len(whole) {
		if d, err := DecodeSegment(whole[:n]); err == nil && !slices.Equal(d.Neighbours, got[len(got)-len(decoded(t, whole).Neighbours):][:len(d.Neighbours)]) {
			t.Errorf("%d bytes are %v", n, d)
		}
	}
}

func decoded(t testing.TB, b []byte) Segment {
	t.Helper()
	s, err := DecodeSegment(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// FuzzDecodeSegment: what is read is what was written, and can be believed.
func FuzzDecodeSegment(f *testing.F) {
	s := Segment{prefixes("192.0.2.0/24", "2001:db8::/64"), []Neighbour{host4(1), host6(2)}}
	f.Add(AppendSegment(nil, s, 1280)[0])
	f.Add([]byte{1, 4, 10, 0, 0, 0, 8})
	f.Add([]byte{17})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeSegment(b)
		if err != nil {
			if s.Networks != nil || s.Neighbours != nil {
				t.Fatalf("%v with %v", s, err)
			}
			return
		}
		for _, n := range s.Neighbours {
			if !n.valid() {
				t.Fatalf("%v", n)
			}
		}
		if len(s.Neighbours) > 0 {
			if again := AppendSegment(nil, s, len(b)+64); len(again) != 1 || string(again[0]) != string(b) {
				t.Fatalf("%x reads as %v, which is %x", b, s, again)
			}
		}
		var book Book
		book.Learn(0, s)
		book.Near(0, s.Networks)
	})
}

// TestClaims: of a flood ten are told of in a second, and none is left out of the count.
func TestClaims(t *testing.T) {
	var c Claims
	events, counted := 0, 0
	for i := range 30000 { // ten thousand a second, and two lost with each
		if n, tell := c.Heard(Instant(time.Duration(i)*100*time.Microsecond), vip4, 3); tell {
			events++
			counted += n
		}
	}
	if events != 30 {
		t.Errorf("%d events in three seconds", events)
	}
	if n, tell := c.Heard(Instant(4*time.Second), vip4, 1); !tell || counted+n != 90001 {
		t.Errorf("counted %d, told %v", counted+n, tell)
	}
	if n, tell := c.Heard(Instant(4*time.Second), vip6, 1); !tell || n != 1 {
		t.Errorf("another address: %d, %v", n, tell)
	}
	c.Keep(func(a netip.Addr) bool { return a == vip6 })
	if len(c.of) != 1 {
		t.Errorf("it remembers %v", c.of)
	}
}
