package vrrpcompat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// resum puts the right checksum over whatever b says, so that the refusal under test is not the checksum's.
func resum(b []byte, m Meta) []byte {
	b[6], b[7] = 0, 0
	binary.BigEndian.PutUint16(b[6:], ^fold(checksumOf(b, Version(b[0]>>4), m.Source, m.Destination, PseudoHeader)))
	return b
}

type decodeReject struct {
	name string
	b    []byte
	m    Meta
	want Reject
}

// One case or more for each reason of Decode; every one is a good packet with one thing wrong.
func decodeRejects() []decodeReject {
	good, v4 := byHand[1].message, byHand[1].meta
	good6, v6 := byHand[2].message, byHand[2].meta
	good2 := byHand[3].message
	edit := func(good []byte, f func(b []byte)) []byte {
		b := slices.Clone(good)
		f(b)
		return resum(b, v4)
	}
	longer := func(good, more []byte) []byte { return resum(append(slices.Clone(good), more...), v4) }
	to := func(m Meta, dst string) Meta { m.Destination = netip.MustParseAddr(dst); return m }
	hops := func(m Meta, n int) Meta { m.HopLimit = n; return m }
	near := func(m Meta, least, most uint8) Meta { m.Unicast = Hops{least, most}; return m }
	peer := near(to(v4, "192.0.2.2"), 64, 200)
	hmac := make([]byte, 28)
	hmac[0] = 1
	carp := append([]byte{0x21, 7, 240, 7, 0, 1}, make([]byte, 30)...)
	return []decodeReject{
		{"families differ", good, to(v4, "ff02::12"), Reject{ReasonFamilyMismatch, 7, int(IPv6), int(IPv4)}},
		{"no source", good, Meta{Destination: GroupIPv4, HopLimit: 255}, Reject{ReasonFamilyMismatch, 7, int(IPv4), 0}},
		{"nothing known", good, Meta{}, Reject{Reason: ReasonFamilyMismatch, VRID: 7}},
		{"unicast where none is spoken", good, to(v4, "192.0.2.2"), Reject{Reason: ReasonNotMulticast, VRID: 7}},
		{"other group", good, to(v4, "224.0.0.1"), Reject{Reason: ReasonNotMulticast, VRID: 7}},
		{"other group where unicast is spoken", good, near(to(v4, "224.0.0.1"), 1, 255), Reject{Reason: ReasonNotMulticast, VRID: 7}},
		{"broadcast where unicast is spoken", good, near(to(v4, "255.255.255.255"), 1, 255), Reject{Reason: ReasonNotMulticast, VRID: 7}},
		{"other ipv6 group", good6, to(v6, "ff02::1"), Reject{Reason: ReasonNotMulticast, VRID: 7}},
		{"ttl 254", good, hops(v4, 254), Reject{ReasonHopLimit, 7, 254, 255}},
		{"ttl 254 to the group where unicast is spoken", good, near(hops(v4, 254), 1, 255), Reject{ReasonHopLimit, 7, 254, 255}},
		{"hop limit 254", good6, hops(v6, 254), Reject{ReasonHopLimit, 7, 254, 255}},
		{"ttl unknown", good, hops(v4, 0), Reject{ReasonHopLimit, 7, 0, 255}},
		{"unicast from too far", good, hops(peer, 63), Reject{ReasonHopLimit, 7, 63, 64}},
		{"unicast from too near", good, hops(peer, 201), Reject{ReasonHopLimit, 7, 201, 64}},
		{"unicast with ttl unknown", good, near(hops(peer, 0), 0, 255), Reject{ReasonHopLimit, 7, 0, 0}},
		{"empty", nil, v4, Reject{ReasonTooShort, 0, 0, 8}},
		{"one byte", good[:1], v4, Reject{ReasonTooShort, 0, 1, 8}},
		{"header cut", good[:7], v4, Reject{ReasonTooShort, 7, 7, 8}},
		{"carp", carp, v4, Reject{ReasonCARP, 7, 2, 3}},
		{"carp over ipv6", carp, v6, Reject{ReasonCARP, 7, 2, 3}},
		{"version 2 over ipv6", resum(slices.Clone(good2), v6), v6, Reject{ReasonVersion, 7, 2, 3}},
		{"version 4", edit(good, func(b []byte) { b[0] = 0x41 }), v4, Reject{ReasonVersion, 7, 4, 3}},
		{"version 1", edit(good, func(b []byte) { b[0] = 0x11 }), v4, Reject{ReasonVersion, 7, 1, 3}},
		{"version 0", edit(good, func(b []byte) { b[0] = 0x01 }), v4, Reject{ReasonVersion, 7, 0, 3}},
		{"type 2", edit(good, func(b []byte) { b[0] = 0x32 }), v4, Reject{ReasonType, 7, 2, 1}},
		{"type 0", edit(good, func(b []byte) { b[0] = 0x30 }), v4, Reject{ReasonType, 7, 0, 1}},
		{"version 2, type 2", edit(good2, func(b []byte) { b[0] = 0x22 }), v4, Reject{ReasonType, 7, 2, 1}},
		{"count 0", resum([]byte{0x31, 7, 100, 0, 0, 100, 0, 0}, v4), v4, Reject{ReasonNoAddresses, 7, 0, 1}},
		{"count 0 beside an address", edit(good, func(b []byte) { b[3] = 0 }), v4, Reject{ReasonNoAddresses, 7, 0, 1}},
		{"version 2, count 0", resum(append([]byte{0x21, 7, 100, 0, 0, 1}, make([]byte, 10)...), v4), v4, Reject{ReasonNoAddresses, 7, 0, 1}},
		{"count above what is there", edit(good, func(b []byte) { b[3] = 2 }), v4, Reject{ReasonLength, 7, 12, 16}},
		{"address cut", resum(slices.Clone(good[:11]), v4), v4, Reject{ReasonLength, 7, 11, 12}},
		{"trailing byte", longer(good, []byte{0}), v4, Reject{ReasonLength, 7, 13, 12}},
		{"ethernet padding", longer(good, make([]byte, 14)), v4, Reject{ReasonLength, 7, 26, 12}},
		{"ipv4 advert in ipv6", resum(slices.Clone(good), v6), v6, Reject{ReasonLength, 7, 12, 24}},
		{"version 2 without authentication data", resum(slices.Clone(good2[:12]), v4), v4, Reject{ReasonLength, 7, 12, 20}},
		{"version 2 with 7 bytes of it", resum(slices.Clone(good2[:19]), v4), v4, Reject{ReasonLength, 7, 19, 20}},
		{"version 2 with a byte more", longer(good2, []byte{0}), v4, Reject{ReasonLength, 7, 21, 20}},
		{"28 bytes too many that are no hmac", longer(good, make([]byte, 28)), v4, Reject{ReasonLength, 7, 40, 12}},
		{"hmac trailer", longer(good, hmac), v4, Reject{ReasonHMACTrailer, 7, 40, 12}},
		{"hmac trailer on version 2", longer(good2, hmac), v4, Reject{ReasonHMACTrailer, 7, 48, 20}},
		{"checksum", append(append(slices.Clone(good[:6]), 0x05, 0xf7), good[8:]...), v4, Reject{ReasonChecksum, 7, 0x05f7, 0x05f8}},
		{"source rewritten", good, Meta{Source: netip.MustParseAddr("192.0.2.9"), Destination: GroupIPv4, HopLimit: 255}, Reject{ReasonChecksum, 7, 0x05f8, 0x05f0}},
		{"version 2 with a pseudo-header", append(append(slices.Clone(good2[:6]), 0x16, 0x53), good2[8:]...), v4, Reject{ReasonChecksum, 7, 0x1653, 0xb8eb}},
		{"vrid 0", edit(good, func(b []byte) { b[1] = 0 }), v4, Reject{ReasonVRIDZero, 0, 0, 1}},
		{"version 2, vrid 0", edit(good2, func(b []byte) { b[1] = 0 }), v4, Reject{ReasonVRIDZero, 0, 0, 1}},
		{"interval 0", edit(good, func(b []byte) { b[5] = 0 }), v4, Reject{ReasonIntervalZero, 7, 0, 1}},
		{"interval 0 beside reserved bits", edit(good, func(b []byte) { b[4], b[5] = 0xf0, 0 }), v4, Reject{ReasonIntervalZero, 7, 0, 1}},
		{"version 2, interval 0", edit(good2, func(b []byte) { b[5] = 0 }), v4, Reject{ReasonIntervalZero, 7, 0, 1}},
		{"unknown authentication", edit(good2, func(b []byte) { b[4] = 3 }), v4, Reject{ReasonAuthType, 7, 3, 0}},
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range decodeRejects() {
		t.Run(c.name, func(t *testing.T) {
			a, sum, err := Decode(c.b, c.m, nil)
			got, ok := errors.AsType[*Reject](fmt.Errorf("wrapped: %w", err))
			if !ok || *got != c.want {
				t.Fatalf("error = %+v, want %+v", got, c.want)
			}
			if !sameAdvert(a, Advert{}) || sum != 0 {
				t.Errorf("a refused packet still gave %+v, %v", a, sum)
			}
			if !strings.Contains(err.Error(), c.want.Reason.String()) {
				t.Errorf("text %q lacks the reason's name", err)
			}
		})
	}
}

func TestEveryReasonHasACase(t *testing.T) {
	seen := map[Reason]bool{}
	for _, c := range decodeRejects() {
		seen[c.want.Reason] = true
	}
	for _, c := range virtualRejects() {
		seen[c.want.Reason] = true
	}
	for _, r := range Reasons() {
		if !seen[r] {
			t.Errorf("no case for %v", r)
		}
	}
}

// RFC 9568 leaves the IPv6 checksum no choice: without the pseudo-header it is wrong.
func TestIPv6PlainChecksumIsRefused(t *testing.T) {
	b, m := slices.Clone(byHand[2].message), byHand[2].meta
	b[6], b[7] = 0, 0
	binary.BigEndian.PutUint16(b[6:], ^fold(sumBytes(0, b)))
	_, _, err := Decode(b, m, nil)
	if r, ok := errors.AsType[*Reject](err); !ok || r.Reason != ReasonChecksum {
		t.Fatalf("error = %v, want %v", err, ReasonChecksum)
	}
}

// RFC 9568, section 5.2.6: reserved bits are ignored on receipt, though the checksum covers them.
func TestReservedBitsAreIgnored(t *testing.T) {
	b, m := slices.Clone(byHand[1].message), byHand[1].meta
	b[4] |= 0xf0
	a, _, err := Decode(resum(b, m), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !sameAdvert(a, byHand[1].advert) {
		t.Errorf("decoded %+v, want %+v", a, byHand[1].advert)
	}
}

// Names are metric labels: unique, lower case, and there for each reason.
func TestReasonNames(t *testing.T) {
	label := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	seen := map[string]bool{}
	for r := Reason(1); r < reasonEnd; r++ {
		if name := r.String(); !label.MatchString(name) || seen[name] {
			t.Errorf("reason %d: name %q is not a new kebab-case label", r, name)
		}
		seen[r.String()] = true
	}
	for _, r := range []Reason{0, reasonEnd} {
		if got, want := r.String(), fmt.Sprintf("reason(%d)", r); got != want {
			t.Errorf("String() = %q, want %q", got, want)
		}
	}
}
