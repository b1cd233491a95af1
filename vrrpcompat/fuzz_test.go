package vrrpcompat

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
)

// FuzzDecode: what is accepted says as many addresses as its count byte, and encodes to the bytes that came, but for what
// Decode is to ignore and with it the checksum; the encoding is accepted again, as the same advert.
func FuzzDecode(f *testing.F) {
	for _, g := range byHand {
		f.Add(g.message, g.meta.Source.AsSlice(), g.meta.Destination.AsSlice(), g.meta.HopLimit)
	}
	v4, group := []byte{192, 0, 2, 1}, GroupIPv4.AsSlice()
	f.Add([]byte{0x31, 7, 100, 1, 0xf0, 100, 0x15, 0xf7, 192, 0, 2, 10}, v4, group, 255)                            // reserved bits set
	f.Add([]byte{0x21, 7, 100, 1, 0, 1, 0xb8, 0xea, 192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 1}, v4, group, 255)         // data without a type
	f.Add([]byte{0x21, 7, 100, 1, 2, 1, 0xb6, 0xeb, 192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 0}, v4, group, 255)         // an AH type
	f.Add([]byte{0x21, 7, 100, 1, 0, 1, 0xb8, 0xeb, 192, 0, 2, 10}, v4, group, 255)                                 // no authentication data
	f.Add(append([]byte{0x21, 7, 0, 7, 0, 1}, make([]byte, 30)...), v4, group, 255)                                 // CARP
	f.Add(append(slices.Clone(byHand[1].message), append([]byte{1}, make([]byte, 27)...)...), v4, group, 255)       // an HMAC trailer
	f.Add(resum(append([]byte{0x31, 7, 1, 255, 0, 1}, make([]byte, 2+4*255)...), byHand[1].meta), v4, group, 255)   // 255 addresses
	f.Add(resum(append([]byte{0x31, 7, 1, 255, 0, 1}, make([]byte, 2+16*255)...), byHand[2].meta), v4, group, 1024) // of the other family
	f.Fuzz(func(t *testing.T, b, source, destination []byte, hops int) {
		from, _ := netip.AddrFromSlice(source)
		to, _ := netip.AddrFromSlice(destination)
		m := Meta{from, to, hops, Hops{2, 255}}
		// A mutation seldom guesses a checksum; so that what lies behind it is reached, the same bytes are also tried with the right one.
		decodeAndBack(t, b, m)
		if len(b) >= HeaderLen && from.IsValid() && to.IsValid() {
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
		if c, ok := ParseCARP(b); err.(*Reject).Reason == ReasonCARP && (!ok || c.VHID != VRID(b[1])) {
			t.Fatalf("refused with %v, and no CARP: %+v, %v", err, c, ok)
		}
		return
	}
	family := FamilyOf(m.Source)
	unicast := m.Destination != family.Group()
	if len(a.Addresses) != int(b[3]) || a.Len() != len(b) || !unicast && m.HopLimit != 255 || unicast && (m.HopLimit < 2 || m.HopLimit > 255) {
		t.Fatalf("%d addresses and length %d from %x at hop limit %d", len(a.Addresses), a.Len(), b, m.HopLimit)
	}
	if m.Source.IsUnspecified() || a.Auth.Type == AuthAH {
		return // received so, but never sent so
	}
	again, err := a.AppendTo(nil, m.Source, m.Destination, sum)
	if err != nil {
		t.Fatalf("accepted, but cannot be encoded: %v", err)
	}
	if want := withoutIgnored(b, again); !bytes.Equal(again, want) {
		t.Fatalf("encodes to\n %x, want\n %x", again, want)
	}
	if b, sum2, err := Decode(again, m, nil); err != nil || sum2 != sum || !sameAdvert(a, b) {
		t.Fatalf("its own encoding gives %+v, %v, %v", b, sum2, err)
	}
}

// withoutIgnored clears what a receiver ignores, and takes the checksum from the encoding where it must be another.
func withoutIgnored(b, encoded []byte) []byte {
	want, ignored := slices.Clone(b), false
	clear := func(i int, mask byte) {
		ignored = ignored || want[i]&mask != 0
		want[i] &^= mask
	}
	if b[0]>>4 == 3 {
		clear(4, 0xf0)
	} else if b[4] == 0 {
		for i := len(b) - AuthLen; i < len(b); i++ {
			clear(i, 0xff)
		}
	}
	if ignored || b[6] == 0xff && b[7] == 0xff {
		copy(want[6:8], encoded[6:8]) // another sum, or the other zero
	}
	return want
}

// FuzzEncode: what AppendTo takes, Decode gives back; what it refuses leaves nothing behind.
func FuzzEncode(f *testing.F) {
	f.Add(uint8(3), uint8(7), uint8(100), uint16(100), uint8(0), []byte(nil), []byte{192, 0, 2, 10}, uint8(1))
	f.Add(uint8(3), uint8(255), uint8(255), uint16(4095), uint8(0), []byte(nil), make([]byte, 4*255), uint8(2))
	f.Add(uint8(2), uint8(1), uint8(0), uint16(25500), uint8(1), []byte("password"), []byte{192, 0, 2, 10, 192, 0, 2, 11}, uint8(3))
	f.Add(uint8(2), uint8(0), uint8(0), uint16(0), uint8(2), []byte{1}, []byte(nil), uint8(0))
	f.Fuzz(func(t *testing.T, version, vrid, priority uint8, interval uint16, auth uint8, data, list []byte, sum uint8) {
		a := Advert{Version: Version(version), VRID: VRID(vrid), Priority: Priority(priority), Interval: Centis(interval), Auth: Auth{Type: AuthType(auth)}}
		copy(a.Auth.Data[:], data)
		for ; len(list) >= 4; list = list[4:] {
			a.Addresses = append(a.Addresses, netip.AddrFrom4([4]byte(list)))
		}
		m := byHand[0].meta
		b, err := a.AppendTo([]byte("x"), m.Source, m.Destination, Checksum(sum))
		if err != nil {
			if string(b) != "x" {
				t.Fatalf("refused with %v, and left %x", err, b)
			}
			return
		}
		got, _, err := Decode(b[1:], m, nil)
		if err != nil || !sameAdvert(got, a) || len(b) != 1+a.Len() {
			t.Fatalf("%+v came back as %+v, %v from %x", a, got, err, b)
		}
	})
}
