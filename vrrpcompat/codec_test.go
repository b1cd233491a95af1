package vrrpcompat

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func randomAddr(r *rand.Rand, f Family) netip.Addr {
	var b [16]byte
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	if f == IPv4 {
		b[0] |= 1 // not 0.0.0.0, which is no source
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	b[0] |= 1
	return netip.AddrFrom16(b)
}

func randomAdvert(r *rand.Rand, f Family) Advert {
	a := Advert{Version: V3, VRID: VRID(1 + r.IntN(255)), Priority: Priority(r.IntN(256)), Interval: Centis(1 + r.IntN(4095))}
	if f == IPv4 && r.IntN(2) == 0 {
		a.Version, a.Interval = V2, perSecond*Centis(1+r.IntN(255))
		if r.IntN(2) == 0 {
			a.Auth.Type = AuthSimple
			binary.BigEndian.PutUint64(a.Auth.Data[:], r.Uint64())
		}
	}
	n := 1 + r.IntN(4)
	if r.IntN(20) == 0 {
		n = MaxAddresses
	}
	for range n {
		a.Addresses = append(a.Addresses, randomAddr(r, f))
	}
	return a
}

// What is encoded is decoded to the same advert, with the same form of checksum; any one bit turned over on the way is
// refused: the sum covers the reserved bits too. One in three goes by unicast, where there is one form more.
func TestRoundTrip(t *testing.T) {
	const seed = 9568
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range 5000 {
		f := Family(1 + r.IntN(2))
		sum := Checksum(1 + r.IntN(3))
		a, m := randomAdvert(r, f), Meta{Source: randomAddr(r, f), Destination: f.Group(), HopLimit: 255, Unicast: Hops{255, 255}}
		if r.IntN(3) == 0 {
			m.Destination = randomUnicast(r, f)
		}
		b, err := a.AppendTo(nil, m.Source, m.Destination, sum)
		if err != nil {
			t.Fatalf("seed %d, advert %d: %v", seed, i, err)
		}
		got, gotSum, err := Decode(b, m, nil)
		if err != nil || !sameAdvert(got, a) {
			t.Fatalf("seed %d, advert %d: decoded %+v, %v; want %+v", seed, i, got, err, a)
		}
		if want := firstForm(a, m, sum, len(b)); gotSum != want {
			t.Fatalf("seed %d, advert %d: checksum %v, want %v", seed, i, gotSum, want)
		}
		bit := r.IntN(len(b) * 8)
		b[bit/8] ^= 1 << (bit % 8)
		if got, _, err := Decode(b, m, nil); err == nil {
			t.Fatalf("seed %d, advert %d: bit %d turned over and still accepted as %+v", seed, i, bit, got)
		}
	}
}

func randomUnicast(r *rand.Rand, f Family) netip.Addr {
	for {
		if a := randomAddr(r, f); !a.IsMulticast() && a != broadcast {
			return a
		}
	}
}

// firstForm is the form that Decode names for an advert that was encoded with sum: the first of those that come to the
// same, as a second reading of the rules on checksums.
func firstForm(a Advert, m Meta, sum Checksum, length int) Checksum {
	if a.Version == V2 {
		return Plain
	}
	if m.Source.Is6() {
		return PseudoHeader
	}
	covered := map[Checksum]uint16{
		PseudoHeader:      fold(sumPseudoHeader(0, m.Source, m.Destination, length)),
		Plain:             0xffff, // the other zero: adding either to a sum that is not zero changes nothing
		GroupPseudoHeader: fold(sumPseudoHeader(0, m.Source, GroupIPv4, length)),
	}
	for _, form := range []Checksum{PseudoHeader, Plain, GroupPseudoHeader} {
		if covered[form] == covered[sum] {
			return form
		}
	}
	return 0
}

// For some pairs of addresses the pseudo-header adds nothing, and the two forms are the same bytes.
func TestChecksumFormsCoincide(t *testing.T) {
	a := Advert{V3, 7, Default, 100, Auth{}, addrs("192.0.2.10")}
	from := netip.MustParseAddr("31.0.0.113") // 1f00+0071+e000+0012+0070+000c = ffff
	plain, err := a.AppendTo(nil, from, GroupIPv4, Plain)
	if err != nil {
		t.Fatal(err)
	}
	pseudo, err := a.AppendTo(nil, from, GroupIPv4, PseudoHeader)
	if err != nil || !bytes.Equal(plain, pseudo) {
		t.Fatalf("%x and %x, %v: expected the same bytes", plain, pseudo, err)
	}
	if _, sum, err := Decode(plain, Meta{Source: from, Destination: GroupIPv4, HopLimit: 255}, nil); err != nil || sum != PseudoHeader {
		t.Errorf("checksum %v, %v; want %v", sum, err, PseudoHeader)
	}
}

// A zero checksum may come as 0x0000 or 0xffff: one's complement has two zeros.
func TestBothZeroChecksums(t *testing.T) {
	a := Advert{V3, 7, Default, 100, Auth{}, addrs("192.0.170.146")} // 5777 + (aa92 - 020a) = ffff
	from := byHand[0].meta.Source
	b, err := a.AppendTo(nil, from, GroupIPv4, Plain)
	if err != nil || b[6] != 0 || b[7] != 0 {
		t.Fatalf("%x, %v: the address was chosen for a checksum of zero", b, err)
	}
	for _, zero := range []byte{0x00, 0xff} {
		b[6], b[7] = zero, zero
		if _, sum, err := Decode(b, byHand[0].meta, nil); err != nil || sum != Plain {
			t.Errorf("checksum bytes %x: %v, %v; want %v", zero, sum, err, Plain)
		}
	}
}

func TestAppendToRefuses(t *testing.T) {
	from4, from6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1")
	good := Advert{V3, 7, Default, 100, Auth{}, addrs("192.0.2.10")}
	with := func(f func(a *Advert)) Advert { a := good; f(&a); return a }
	cases := []struct {
		name     string
		a        Advert
		from, to netip.Addr
		sum      Checksum
		want     string
	}{
		{"vrid 0", with(func(a *Advert) { a.VRID = 0 }), from4, GroupIPv4, Plain, "vrid is 0"},
		{"interval 0", with(func(a *Advert) { a.Interval = 0 }), from4, GroupIPv4, Plain, "interval is 0 cs, must be 1 to 4095"},
		{"interval of 13 bits", with(func(a *Advert) { a.Interval = 4096 }), from4, GroupIPv4, Plain, "interval is 4096 cs"},
		{"no address", with(func(a *Advert) { a.Addresses = nil }), from4, GroupIPv4, Plain, "0 virtual addresses"},
		{"256 addresses", with(func(a *Advert) { a.Addresses = slices.Repeat(a.Addresses, 256) }), from4, GroupIPv4, Plain, "256 virtual addresses, must be 1 to 255"},
		{"other family's address", with(func(a *Advert) { a.Addresses = addrs("192.0.2.10", "fe80::7") }), from4, GroupIPv4, Plain, "fe80::7 is not of family ipv4"},
		{"no version", with(func(a *Advert) { a.Version = 0 }), from4, GroupIPv4, Plain, "there is no VRRP version(0)"},
		{"version 4", with(func(a *Advert) { a.Version = 4 }), from4, GroupIPv4, Plain, "there is no VRRP version(4)"},
		{"version 2 for ipv6", Advert{V2, 7, Default, 100, Auth{}, addrs("fe80::7")}, from6, GroupIPv6, Plain, "there is no VRRP 2 for ipv6"},
		{"version 2 with half a second", with(func(a *Advert) { a.Version, a.Interval = V2, 50 }), from4, GroupIPv4, Plain, "interval is 50 cs, must be whole seconds"},
		{"version 2 with 256 seconds", with(func(a *Advert) { a.Version, a.Interval = V2, 25600 }), from4, GroupIPv4, Plain, "1 to 255"},
		{"version 2 with interval 0", with(func(a *Advert) { a.Version, a.Interval = V2, 0 }), from4, GroupIPv4, Plain, "interval is 0 cs"},
		{"version 3 with a password", with(func(a *Advert) { a.Auth.Type = AuthSimple }), from4, GroupIPv4, Plain, "version 3 has no authentication"},
		{"version 2 with an ah type", with(func(a *Advert) { a.Version, a.Auth.Type = V2, AuthAH }), from4, GroupIPv4, Plain, "authentication type ah cannot be sent"},
		{"version 2 with data and no type", with(func(a *Advert) { a.Version, a.Auth.Data[0] = V2, 1 }), from4, GroupIPv4, Plain, "authentication data without a type"},
		{"zero address", with(func(a *Advert) { a.Addresses = []netip.Addr{{}} }), from4, GroupIPv4, Plain, "is not of family ipv4"},
		{"zone", with(func(a *Advert) { a.Addresses = addrs("fe80::7%eth0") }), from6, GroupIPv6, Plain, "has a zone"},
		{"no checksum form", good, from4, GroupIPv4, 0, "checksum form checksum(0)"},
		{"unknown checksum form", good, from4, GroupIPv4, 4, "checksum form checksum(4)"},
		{"families of the header differ", good, from4, GroupIPv6, Plain, "one family"},
		{"unspecified source", good, netip.IPv4Unspecified(), GroupIPv4, Plain, "one family"},
		{"no source", good, netip.Addr{}, netip.Addr{}, Plain, "one family"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := []byte("kept")
			b, err := c.a.AppendTo(before, c.from, c.to, c.sum)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %v, want one with %q", err, c.want)
			}
			if string(b) != "kept" {
				t.Errorf("dst became %q", b)
			}
		})
	}
}

func TestCodecDoesNotAllocate(t *testing.T) {
	for _, g := range byHand {
		buf, into := make([]byte, 0, MaxLen), make([]netip.Addr, 0, MaxAddresses)
		encode := testing.AllocsPerRun(100, func() {
			if _, err := g.advert.AppendTo(buf, g.meta.Source, g.meta.Destination, g.sum); err != nil {
				t.Fatal(err)
			}
		})
		decode := testing.AllocsPerRun(100, func() {
			if _, _, err := Decode(g.message, g.meta, into); err != nil {
				t.Fatal(err)
			}
		})
		if encode != 0 || decode != 0 {
			t.Errorf("%s: %v allocations to encode, %v to decode; want none", g.name, encode, decode)
		}
	}
}

// Zones say what an address is relative to on one host; the packet has none.
func TestDecodeIgnoresZones(t *testing.T) {
	g := byHand[2]
	m := g.meta
	m.Source, m.Destination = m.Source.WithZone("eth0"), m.Destination.WithZone("eth0")
	if a, _, err := Decode(g.message, m, nil); err != nil || !sameAdvert(a, g.advert) {
		t.Errorf("decoded %+v, %v", a, err)
	}
}

// Types that are not spoken are decoded if they exist, so that the refusal can say which one the sender has.
func TestDecodeReadsAnAHType(t *testing.T) {
	b := bytes.Clone(byHand[3].message)
	b[4], b[19] = byte(AuthAH), 9
	a, _, err := Decode(resum(b, byHand[3].meta), byHand[3].meta, nil)
	if want := (Auth{AuthAH, [8]byte{7: 9}}); err != nil || a.Auth != want {
		t.Errorf("decoded %v %v, %v", a.Auth, a.Auth.Data, err)
	}
}
