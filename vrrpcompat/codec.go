package vrrpcompat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// AppendTo appends the advert as it stands in an IP packet from one address to another, and returns the longer slice. It
// allocates nothing if dst has room for a.Len() bytes more. Both addresses are part of the checksum unless it is Plain
// (for IPv6 always, where sum makes no difference). On an error, which names the field and its bound, dst comes back as it was.
func (a Advert) AppendTo(dst []byte, from, to netip.Addr, sum Checksum) ([]byte, error) {
	family := FamilyOf(from)
	if family == 0 || from.IsUnspecified() || family != FamilyOf(to) {
		return dst, fmt.Errorf("encode advert of vrid %d: source %v and destination %v must be two addresses of one family", a.VRID, from, to)
	}
	if sum != PseudoHeader && sum != Plain {
		return dst, fmt.Errorf("encode advert of vrid %d: checksum form %v is neither %v nor %v", a.VRID, sum, PseudoHeader, Plain)
	}
	if err := a.check(family); err != nil {
		return dst, fmt.Errorf("encode advert of vrid %d: %w", a.VRID, err)
	}
	start := len(dst)
	dst = append(dst, version3<<4|typeAdvertisement, byte(a.VRID), byte(a.Priority), byte(len(a.Addresses)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(a.Interval)) // the four reserved bits are zero: Interval has 12
	dst = append(dst, 0, 0)
	for _, addr := range a.Addresses {
		dst = appendAddr(dst, addr)
	}
	message := dst[start:]
	covered := sumBytes(0, message)
	if family == IPv6 || sum == PseudoHeader {
		covered = sumPseudoHeader(covered, from, to, len(message))
	}
	binary.BigEndian.PutUint16(message[6:], ^fold(covered))
	return dst, nil
}

// check says what keeps the advert from being sent in the family.
func (a Advert) check(family Family) error {
	switch {
	case a.VRID == 0:
		return fmt.Errorf("vrid is 0, must be 1 to 255")
	case a.Interval == 0 || a.Interval > MaxCentis:
		return fmt.Errorf("interval is %d cs, must be 1 to %d", a.Interval, MaxCentis)
	case len(a.Addresses) == 0 || len(a.Addresses) > MaxAddresses:
		return fmt.Errorf("%d virtual addresses, must be 1 to %d", len(a.Addresses), MaxAddresses)
	}
	for _, addr := range a.Addresses {
		if FamilyOf(addr) != family {
			return fmt.Errorf("virtual address %v is not of family %v: the families have adverts of their own", addr, family)
		}
		if addr.Zone() != "" {
			return fmt.Errorf("virtual address %v has a zone, which the packet cannot carry: write it without", addr)
		}
	}
	return nil
}

// Meta is what the receiver of a packet knows of it from outside the VRRP message.
type Meta struct {
	// Source and Destination are those of the IP header. Zones are ignored.
	Source, Destination netip.Addr
	// HopLimit is the TTL or hop limit at arrival, 0 to 255; a receiver that was not told it leaves 0 and refuses all.
	HopLimit int
}

// Decode reads one advert from b, which is the payload of one whole IP packet and nothing more: its length is the IP
// header's, so that Ethernet padding is not part of it and any byte too many is an error. The virtual addresses are appended to into[:0];
// nothing is allocated if that has room, and the result shares into's storage and none of b's.
//
// The error, if any, is a *Reject with the reason (RFC 9568, section 7.1); the advert is then zero. Reserved bits are
// ignored. For IPv4 either form of checksum is accepted, and the one that fitted is returned: PseudoHeader if both do,
// which about one pair of addresses in 65,535 has as its property. For IPv6 it is always PseudoHeader. Whether the VRID is ours and whether
// we own the addresses is for the caller to judge.
func Decode(b []byte, m Meta, into []netip.Addr) (Advert, Checksum, error) {
	if err := checkEnvelope(b, m); err != nil {
		return Advert{}, 0, err
	}
	family, vrid, count := FamilyOf(m.Source), VRID(b[1]), int(b[3])
	if count == 0 {
		return Advert{}, 0, &Reject{Reason: ReasonNoAddresses, VRID: vrid, Got: 0, Want: 1}
	}
	if want := HeaderLen + count*family.addrLen(); len(b) != want {
		return Advert{}, 0, &Reject{Reason: ReasonLength, VRID: vrid, Got: len(b), Want: want}
	}
	sum, err := verify(b, m, family)
	if err != nil {
		return Advert{}, 0, err
	}
	interval := Centis(binary.BigEndian.Uint16(b[4:])) & MaxCentis
	if vrid == 0 {
		return Advert{}, 0, &Reject{Reason: ReasonVRIDZero, Got: 0, Want: 1}
	}
	if interval == 0 {
		return Advert{}, 0, &Reject{Reason: ReasonIntervalZero, VRID: vrid, Got: 0, Want: 1}
	}
	addrs := into[:0]
	for rest := b[HeaderLen:]; len(rest) > 0; rest = rest[family.addrLen():] {
		addrs = append(addrs, readAddr(rest, family))
	}
	return Advert{VRID: vrid, Priority: Priority(b[2]), Interval: interval, Addresses: addrs}, sum, nil
}

// checkEnvelope judges what can be told before the message's own fields are believed. When it returns nil, b holds a
// whole version 3 header. It returns error and not *Reject so that nil stays nil.
func checkEnvelope(b []byte, m Meta) error {
	var vrid VRID
	if len(b) > 1 {
		vrid = VRID(b[1])
	}
	family := FamilyOf(m.Source)
	switch {
	case family == 0 || family != FamilyOf(m.Destination):
		return &Reject{Reason: ReasonFamilyMismatch, VRID: vrid, Got: int(FamilyOf(m.Destination)), Want: int(family)}
	case m.Destination.WithZone("") != family.Group():
		return &Reject{Reason: ReasonNotMulticast, VRID: vrid}
	case m.HopLimit != HopLimit:
		return &Reject{Reason: ReasonHopLimit, VRID: vrid, Got: m.HopLimit, Want: HopLimit}
	case len(b) < HeaderLen:
		return &Reject{Reason: ReasonTooShort, VRID: vrid, Got: len(b), Want: HeaderLen}
	case b[0]>>4 == version2:
		return &Reject{Reason: ReasonVersion2, VRID: vrid, Got: version2, Want: version3}
	case b[0]>>4 != version3:
		return &Reject{Reason: ReasonVersion, VRID: vrid, Got: int(b[0] >> 4), Want: version3}
	case b[0]&0x0f != typeAdvertisement:
		return &Reject{Reason: ReasonType, VRID: vrid, Got: int(b[0] & 0x0f), Want: typeAdvertisement}
	}
	return nil
}

// verify returns the form of checksum that b carries. A sum of all covered words, the checksum among them, that comes
// to 0xffff is right (RFC 1071); both encodings of a zero checksum pass.
func verify(b []byte, m Meta, family Family) (Checksum, error) {
	const right = 0xffff
	plain := sumBytes(0, b)
	withPseudo := sumPseudoHeader(plain, m.Source, m.Destination, len(b))
	switch {
	case fold(withPseudo) == right:
		return PseudoHeader, nil
	case family == IPv4 && fold(plain) == right:
		return Plain, nil
	}
	got := binary.BigEndian.Uint16(b[6:])
	// ^got cancels got in one's complement, which leaves the sum that the sender should have taken.
	want := ^fold(withPseudo + uint64(^got))
	return 0, &Reject{Reason: ReasonChecksum, VRID: VRID(b[1]), Got: int(got), Want: int(want)}
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

func appendAddr(dst []byte, a netip.Addr) []byte {
	if a.Is4() {
		b := a.As4()
		return append(dst, b[:]...)
	}
	b := a.As16()
	return append(dst, b[:]...)
}

// readAddr reads the first address of b, which holds at least one.
func readAddr(b []byte, family Family) netip.Addr {
	if family == IPv4 {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b))
}
