package vrrpcompat

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
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

// Written out by hand from the layout of RFC 9568, section 5.1, with the sums beside them.
var byHand = []golden{
	{
		// 3107+6401+0064+c000+020a = 15776 → 5777; complement a888.
		"ipv4 plain",
		[]byte{0x31, 7, 100, 1, 0x00, 0x64, 0xa8, 0x88, 192, 0, 2, 10},
		meta("192.0.2.1"),
		Advert{7, Default, 100, addrs("192.0.2.10")}, Plain,
	},
	{
		// The same 5777, and the pseudo-header c000+0201+e000+0012+0070+000c = 1a28f → a290: fa07; complement 05f8.
		"ipv4 pseudo-header",
		[]byte{0x31, 7, 100, 1, 0x00, 0x64, 0x05, 0xf8, 192, 0, 2, 10},
		meta("192.0.2.1"),
		Advert{7, Default, 100, addrs("192.0.2.10")}, PseudoHeader,
	},
	{
		// 3107+ff01+0fff+fe80+0007 = 23e8e; pseudo-header fe80+0001+ff02+0012+0070+0018 = 1fe1d; 43cab → 3caf; complement c350.
		"ipv6, owner, longest interval",
		[]byte{0x31, 7, 255, 1, 0x0f, 0xff, 0xc3, 0x50, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7},
		meta("fe80::1"),
		Advert{7, Owner, 4095, addrs("fe80::7")}, PseudoHeader,
	},
}

// captured are testdata/*.hex, whole IP packets; each file says where it comes from.
func captured(t *testing.T) []golden {
	t.Helper()
	v4, v6 := addrs("192.0.2.100", "192.0.2.101"), addrs("fe80::34", "2001:db8::100")
	out := []golden{
		{name: "keepalived-v3-ipv4", advert: Advert{51, 100, 100, v4}, sum: PseudoHeader},
		{name: "keepalived-v3-ipv4-release", advert: Advert{51, Release, 100, v4}, sum: PseudoHeader},
		{name: "keepalived-v3-ipv6", advert: Advert{52, 150, 50, v6}, sum: PseudoHeader},
		{name: "keepalived-v3-ipv6-release", advert: Advert{52, Release, 50, v6}, sum: PseudoHeader},
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
		return b[20:], Meta{netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), int(b[8])}
	}
	if total := 40 + int(binary.BigEndian.Uint16(b[4:])); total != len(b) || b[6] != Protocol {
		t.Fatalf("%s: not one whole IPv6 packet of protocol 112", name)
	}
	return b[40:], Meta{netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), int(b[7])}
}

func sameAdvert(a, b Advert) bool {
	return a.VRID == b.VRID && a.Priority == b.Priority && a.Interval == b.Interval && slices.Equal(a.Addresses, b.Addresses)
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

func TestVersion2OfKeepalivedHasItsOwnReason(t *testing.T) {
	b, m := packet(t, "keepalived-v2-ipv4")
	_, _, err := Decode(b, m, nil)
	want := Reject{ReasonVersion2, 53, 2, 3}
	if r, ok := errors.AsType[*Reject](err); !ok || *r != want {
		t.Fatalf("error = %#v, want %#v", err, want)
	}
	if !strings.Contains(err.Error(), "version 2 is not spoken yet") {
		t.Errorf("the text does not say it: %v", err)
	}
}
