package vrrpcompat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// A Checksum is what an advert's checksum covers. The forms differ for version 3 over IPv4 only: IPv6 always covers the
// pseudo-header, and version 2 never. Zero is invalid.
type Checksum uint8

const (
	_ Checksum = iota
	// PseudoHeader covers source, destination, protocol and length besides the message: RFC 5798 as keepalived
	// and FRR read it for IPv4, and their default. They refuse Plain.
	PseudoHeader
	// Plain covers the message only: RFC 9568, section 5.2.8, for IPv4, and the vendors of switches before it.
	Plain
	// GroupPseudoHeader covers a pseudo-header that names the multicast group, though the advert went to one peer:
	// keepalived before 1.3.7, and later ones that adapted to such a peer. For multicast it is the same as PseudoHeader.
	GroupPseudoHeader
)

// String returns "pseudo-header", "plain" or "group-pseudo-header".
func (c Checksum) String() string {
	switch c {
	case PseudoHeader:
		return "pseudo-header"
	case Plain:
		return "plain"
	case GroupPseudoHeader:
		return "group-pseudo-header"
	}
	return fmt.Sprintf("checksum(%d)", uint8(c))
}

// checksumOf returns the sum, not yet complemented, over a message whose checksum field is zero or its own.
func checksumOf(b []byte, v Version, from, to netip.Addr, form Checksum) uint64 {
	plain := sumBytes(0, b)
	switch {
	case v == V2:
		return plain
	case from.Is6():
		return sumPseudoHeader(plain, from, to, len(b))
	case form == Plain:
		return plain
	case form == GroupPseudoHeader:
		to = GroupIPv4
	}
	return sumPseudoHeader(plain, from, to, len(b))
}

// verify returns the form of checksum that b carries. A sum of all covered words, the checksum among them, that comes
// to 0xffff is right (RFC 1071); both encodings of a zero checksum pass. Where two forms fit, the first that is tried is named.
func verify(b []byte, v Version, m *Meta) (Checksum, error) {
	plain := sumBytes(0, b)
	if v == V2 {
		if fold(plain) == rightSum {
			return Plain, nil
		}
		return 0, wrongChecksum(b, plain)
	}
	pseudo := sumPseudoHeader(plain, m.Source, m.Destination, len(b))
	switch {
	case fold(pseudo) == rightSum:
		return PseudoHeader, nil
	case m.Source.Is6():
	case fold(plain) == rightSum:
		return Plain, nil
	case fold(sumPseudoHeader(plain, m.Source, GroupIPv4, len(b))) == rightSum:
		return GroupPseudoHeader, nil
	}
	return 0, wrongChecksum(b, pseudo)
}

// rightSum is what the covered words come to if the checksum among them is right.
const rightSum = 0xffff

// wrongChecksum refuses a message whose covered words come to sum. ^got cancels its own checksum in one's complement, which
// leaves the sum that the sender should have taken.
func wrongChecksum(b []byte, sum uint64) error {
	got := binary.BigEndian.Uint16(b[6:])
	return &Reject{Reason: ReasonChecksum, VRID: VRID(b[1]), Got: int(got), Want: int(^fold(sum + uint64(^got)))}
}

// sumPseudoHeader adds the pseudo-header (RFC 8200, section 8.1, and its IPv4 likeness) to a sum. Zero bytes and the
// place of a word make no difference to the sum, so one form serves both families.
func sumPseudoHeader(sum uint64, from, to netip.Addr, length int) uint64 {
	return sumAddr(sumAddr(sum, from), to) + Protocol + uint64(length)
}

func sumAddr(sum uint64, a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return sumBytes(sum, b[:])
	}
	b := a.As16()
	return sumBytes(sum, b[:])
}

// sumBytes adds the 16-bit words of b, whose length is even: every advert and address has that property.
func sumBytes(sum uint64, b []byte) uint64 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint64(binary.BigEndian.Uint16(b))
	}
	return sum
}

// fold brings a sum down to 16 bits, adding the carries back in (RFC 1071).
func fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
