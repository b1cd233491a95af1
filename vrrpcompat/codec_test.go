package vrrpcompat

import (
	"bytes"
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
	a := Advert{VRID: VRID(1 + r.IntN(255)), Priority: Priority(r.IntN(256)), Interval: Centis(1 + r.IntN(4095))}
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
// refused: the sum covers the reserved bits too.
func TestRoundTrip(t *testing.T) {
	const seed = 9568
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range 5000 {
		f := Family(1 + r.IntN(2))
		sum := Checksum(1 + r.IntN(2))
		a, m := randomAdvert(r, f), Meta{randomAddr(r, f), f.Group(), 255}
		b, err := a.AppendTo(nil, m.Source, m.Destination, sum)
		if err != nil {
			t.Fatalf("seed %d, advert %d: %v", seed, i, err)
		}
		got, gotSum, err := Decode(b, m, nil)
		if err != nil || !sameAdvert(got, a) {
			t.Fatalf("seed %d, advert %d: decoded %+v, %v; want %+v", seed, i, got, err, a)
		}
		both := fold(sumPseudoHeader(0, m.Source, m.Destination, len(b))) == 0xffff
		if f == IPv6 || both {
			sum = PseudoHeader
		}
		if gotSum != sum {
			t.Fatalf("seed %d, advert %d: checksum %v, want %v", seed, i, gotSum, sum)
		}
		bit := r.IntN(len(b) * 8)
		b[bit/8] ^= 1 << (bit % 8)
		if got, _, err := Decode(b, m, nil); err == nil {
			t.Fatalf("seed %d, advert %d: bit %d turned over and still accepted as %+v", seed, i, bit, got)
		}
	}
}

// For some pairs of addresses the pseudo-header adds nothing, and the two forms are the same bytes.
func TestChecksumFormsCoincide(t *testing.T) {
	a := Advert{7, Default, 100, addrs("192.0.2.10")}
	from := netip.MustParseAddr("31.0.0.113") // 1f00+0071+e000+0012+0070+000c = ffff
	plain, err := a.AppendTo(nil, from, GroupIPv4, Plain)
	if err != nil {
		t.Fatal(err)
	}
	pseudo, err := a.AppendTo(nil, from, GroupIPv4, PseudoHeader)
	if err != nil || !bytes.Equal(plain, pseudo) {
		t.Fatalf("%x and %x, %v: expected the same bytes", plain, pseudo, err)
	}
	if _, sum, err := Decode(plain, Meta{from, GroupIPv4, 255}, nil); err != nil || sum != PseudoHeader {
		t.Errorf("checksum %v, %v; want %v", sum, err, PseudoHeader)
	}
}

// A zero checksum may come as 0x0000 or 0xffff: one's complement has two zeros.
func TestBothZeroChecksums(t *testing.T) {
	a := Advert{7, Default, 100, addrs("192.0.170.146")} // 5777 + (aa92 - 020a) = ffff
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
	good := Advert{7, Default, 100, addrs("192.0.2.10")}
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
		{"zero address", with(func(a *Advert) { a.Addresses = []netip.Addr{{}} }), from4, GroupIPv4, Plain, "is not of family ipv4"},
		{"zone", with(func(a *Advert) { a.Addresses = addrs("fe80::7%eth0") }), from6, GroupIPv6, Plain, "has a zone"},
		{"no checksum form", good, from4, GroupIPv4, 0, "checksum form checksum(0)"},
		{"unknown checksum form", good, from4, GroupIPv4, 3, "checksum form checksum(3)"},
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

// FuzzDecode: what is accepted says as many addresses as its count byte, and encodes to the bytes that came, but for the
// reserved bits and with them the checksum; the encoding is accepted again, as the same advert.
func FuzzDecode(f *testing.F) {
	for _, g := range byHand {
		f.Add(g.message, g.meta.Source.AsSlice(), 255)
	}
	f.Add([]byte{0x31, 7, 100, 1, 0xf0, 100, 0x15, 0xf7, 192, 0, 2, 10}, []byte{192, 0, 2, 1}, 255) // reserved bits set
	f.Add([]byte{0x21, 53, 100, 1, 0, 1, 0xb8, 0x61, 192, 0, 2, 102, 0, 0, 0, 0, 0, 0, 0, 0}, []byte{192, 0, 2, 2}, 255)
	f.Fuzz(func(t *testing.T, b, source []byte, hops int) {
		from, _ := netip.AddrFromSlice(source)
		m := Meta{from, FamilyOf(from).Group(), hops}
		// A mutation seldom guesses a checksum; so that what lies behind it is reached, the same bytes are also tried with the right one.
		decodeAndBack(t, b, m)
		if len(b) >= HeaderLen && from.IsValid() {
			decodeAndBack(t, resum(slices.Clone(b), m), m)
		}
	})
}

func decodeAndBack(t *testing.T, b []byte, m Meta) {
	a, sum, err := Decode(b, m, nil)
	if err != nil {
		if !sameAdvert(a, Advert{}) || sum != 0 || err.Error() == "" {
			t.Fatalf("refused with %v, and gave %+v, %v", err, a, sum)
		}
		return
	}
	if len(a.Addresses) != int(b[3]) || a.Len() != len(b) || m.HopLimit != 255 {
		t.Fatalf("%d addresses and length %d from %x at hop limit %d", len(a.Addresses), a.Len(), b, m.HopLimit)
	}
	if m.Source.IsUnspecified() {
		return // received so, but never sent so
	}
	again, err := a.AppendTo(nil, m.Source, m.Destination, sum)
	if err != nil {
		t.Fatalf("accepted, but cannot be encoded: %v", err)
	}
	want := slices.Clone(b)
	want[4] &= 0x0f
	if reserved := b[4] & 0xf0; reserved != 0 || b[6] == 0xff && b[7] == 0xff {
		copy(want[6:8], again[6:8]) // another sum, or the other zero
	}
	if !bytes.Equal(again, want) {
		t.Fatalf("encodes to\n %x, want\n %x", again, want)
	}
	if b, sum2, err := Decode(again, m, nil); err != nil || sum2 != sum || !sameAdvert(a, b) {
		t.Fatalf("its own encoding gives %+v, %v, %v", b, sum2, err)
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, g := range byHand[1:] {
		b.Run(g.name, func(b *testing.B) {
			b.ReportAllocs()
			buf := make([]byte, 0, MaxLen)
			for b.Loop() {
				if _, err := g.advert.AppendTo(buf, g.meta.Source, g.meta.Destination, g.sum); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, g := range byHand[1:] {
		b.Run(g.name, func(b *testing.B) {
			b.ReportAllocs()
			into := make([]netip.Addr, 0, MaxAddresses)
			for b.Loop() {
				if _, _, err := Decode(g.message, g.meta, into); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
