package vrrpcompat

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A golden is a packet whose bytes do not come from this package, and what it says.
type golden struct {
	name    string
	message []byte
	meta    Meta
	advert  Advert
	sum     Checksum
}

func addrs(ss ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// meta describes a packet that came as it should.
func meta(source string) Meta {
	from := netip.MustParseAddr(source)
	return Meta{Source: from, Destination: FamilyOf(from).Group(), HopLimit: 255}
}

// Written out by hand from the layouts of RFC 9568 and RFC 3768, sections 5.1, with the sums beside them.
var byHand = []golden{
	{
		// 3107+6401+0064+c000+020a = 15776 → 5777; complement a888.
		"ipv4 plain",
		[]byte{0x31, 7, 100, 1, 0x00, 0x64, 0xa8, 0x88, 192, 0, 2, 10},
		meta("192.0.2.1"),
		Advert{V3, 7, Default, 100, Auth{}, addrs("192.0.2.10")}, Plain,
	},
	{
		// The same 5777, and the pseudo-header c000+0201+e000+0012+0070+000c = 1a28f → a290: fa07; complement 05f8.
		"ipv4 pseudo-header",
		[]byte{0x31, 7, 100, 1, 0x00, 0x64, 0x05, 0xf8, 192, 0, 2, 10},
		meta("192.0.2.1"),
		Advert{V3, 7, Default, 100, Auth{}, addrs("192.0.2.10")}, PseudoHeader,
	},
	{
		// 3107+ff01+0fff+fe80+0007 = 23e8e; pseudo-header fe80+0001+ff02+0012+0070+0018 = 1fe1d; 43cab → 3caf; complement c350.
		"ipv6, owner, longest interval",
		[]byte{0x31, 7, 255, 1, 0x0f, 0xff, 0xc3, 0x50, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7},
		meta("fe80::1"),
		Advert{V3, 7, Owner, 4095, Auth{}, addrs("fe80::7")}, PseudoHeader,
	},
	{
		// 2107+6401+0001+c000+020a = 14713 → 4714; complement b8eb. No pseudo-header in version 2.
		"version 2",
		[]byte{0x21, 7, 100, 1, 0, 1, 0xb8, 0xeb, 192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 0},
		meta("192.0.2.1"),
		Advert{V2, 7, Default, 100, Auth{}, addrs("192.0.2.10")}, Plain,
	},
	{
		// 2107+6401+01ff+c000+020a = 14911 → 4912; the password 6162+6300 = c462: 10d74 → 0d75; complement f28a.
		"version 2 with a password, longest interval",
		[]byte{0x21, 7, 100, 1, 1, 255, 0xf2, 0x8a, 192, 0, 2, 10, 'a', 'b', 'c', 0, 0, 0, 0, 0},
		meta("192.0.2.1"),
		Advert{V2, 7, Default, 25500, Auth{AuthSimple, [8]byte{'a', 'b', 'c'}}, addrs("192.0.2.10")}, Plain,
	},
	{
		// 5777 of the first, and the pseudo-header c000+0201+c000+0202+0070+000c = 1847f → 8480: dbf7; complement 2408.
		"ipv4 unicast",
		[]byte{0x31, 7, 100, 1, 0x00, 0x64, 0x24, 0x08, 192, 0, 2, 10},
		Meta{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), 64, Hops{64, 255}},
		Advert{V3, 7, Default, 100, Auth{}, addrs("192.0.2.10")}, PseudoHeader,
	},
	{
		// The sum of the second: the pseudo-header names the group, the packet goes to a peer.
		"ipv4 unicast as keepalived 1.3.6",
		[]byte{0x31, 7, 100, 1, 0x00, 0x64, 0x05, 0xf8, 192, 0, 2, 10},
		Meta{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), 255, Hops{255, 255}},
		Advert{V3, 7, Default, 100, Auth{}, addrs("192.0.2.10")}, GroupPseudoHeader,
	},
}

// captured are testdata/*.hex, whole IP packets; each file says where it comes from.
func captured(t *testing.T) []golden {
	t.Helper()
	v4, v6 := addrs("192.0.2.100", "192.0.2.101"), addrs("fe80::34", "2001:db8::100")
	out := []golden{
		{name: "keepalived-v2-ipv4", advert: Advert{V2, 53, 100, 100, Auth{}, addrs("192.0.2.102")}, sum: Plain},
		{name: "keepalived-v3-ipv4", advert: Advert{V3, 51, 100, 100, Auth{}, v4}, sum: PseudoHeader},
		{name: "keepalived-v3-ipv4-release", advert: Advert{V3, 51, Release, 100, Auth{}, v4}, sum: PseudoHeader},
		{name: "keepalived-v3-ipv6", advert: Advert{V3, 52, 150, 50, Auth{}, v6}, sum: PseudoHeader},
		{name: "keepalived-v3-ipv6-release", advert: Advert{V3, 52, Release, 50, Auth{}, v6}, sum: PseudoHeader},
	}
	for i := range out {
		out[i].message, out[i].meta = packet(t, out[i].name)
	}
	return out
}

// packet reads testdata/name.hex and splits the IP header off.
func packet(t *testing.T, name string) ([]byte, Meta) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			digits.WriteString(strings.Join(strings.Fields(line), ""))
		}
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	if b[0]>>4 == 4 {
		if total := int(binary.BigEndian.Uint16(b[2:])); b[0] != 0x45 || total != len(b) || b[9] != Protocol {
			t.Fatalf("%s: not one whole IPv4 packet of protocol 112 without options", name)
		}
		return b[20:], Meta{Source: netip.AddrFrom4([4]byte(b[12:])), Destination: netip.AddrFrom4([4]byte(b[16:])), HopLimit: int(b[8])}
	}
	if total := 40 + int(binary.BigEndian.Uint16(b[4:])); total != len(b) || b[6] != Protocol {
		t.Fatalf("%s: not one whole IPv6 packet of protocol 112", name)
	}
	return b[40:], Meta{Source: netip.AddrFrom16([16]byte(b[8:])), Destination: netip.AddrFrom16([16]byte(b[24:])), HopLimit: int(b[7])}
}

func sameAdvert(a, b Advert) bool {
	return a.Version == b.Version && a.VRID == b.VRID && a.Auth == b.Auth && a.Priority == b.Priority && a.Interval == b.Interval && slices.Equal(a.Addresses, b.Addresses)
}

func TestGolden(t *testing.T) {
	for _, g := range append(captured(t), byHand...) {
		t.Run(g.name, func(t *testing.T) {
			got, sum, err := Decode(g.message, g.meta, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !sameAdvert(got, g.advert) || sum != g.sum {
				t.Errorf("decoded %+v with checksum %v, want %+v with %v", got, sum, g.advert, g.sum)
			}
			b, err := g.advert.AppendTo(nil, g.meta.Source, g.meta.Destination, g.sum)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, g.message) {
				t.Errorf("encoded\n %x, want\n %x", b, g.message)
			}
			if g.advert.Len() != len(g.message) {
				t.Errorf("Len() = %d, want %d", g.advert.Len(), len(g.message))
			}
		})
	}
}
