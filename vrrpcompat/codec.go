package vrrpcompat

import (
	"encoding/binary"
	"net/netip"
)

// Meta is what the receiver of a packet knows of it from outside the VRRP message.
type Meta struct {
	// Source and Destination are those of the IP header. Zones are ignored.
	Source, Destination netip.Addr
	// HopLimit is the TTL or hop limit at arrival, 0 to 255; a receiver that was not told it leaves 0 and refuses all.
	HopLimit int
	// Unicast are the hop limits at which an advert that was sent to one of our own addresses is read. Zero: none is read.
	Unicast Hops
}

// Hops is a range of TTLs or hop limits, both ends in it. Zero admits none, {255, 255} only what comes from the same link,
// {1, 255} anything.
type Hops struct{ Min, Max uint8 }

// admits reports whether a packet that arrived with the hop limit is in the range.
func (h Hops) admits(limit int) bool {
	return h != Hops{} && int(h.Min) <= limit && limit <= int(h.Max) && limit > 0
}

// Decode reads one advert from b, which is the payload of one whole IP packet and nothing more: its length is the IP
// header's, so that Ethernet padding is not part of it and any byte too many is an error. The virtual addresses are appended to into[:0];
// nothing is allocated if that has room, and the result shares into's storage and none of b's.
//
// The error, if any, is a *Reject with the reason (RFC 9568, section 7.1; RFC 3768, section 7.1); the advert is then zero.
// Reserved bits are ignored, and so is authentication data where the type says that there is none. For version 3 over
// IPv4 every form of checksum is accepted, and the one that fitted is returned: PseudoHeader if that and Plain do,
// which about one pair of addresses in 65,535 has as its property. For IPv6 it is always PseudoHeader, for version 2 always Plain.
//
// Decode knows no configuration. Whether an advert concerns a virtual router of ours, and agrees with it, is for
// Virtual.Refuse to judge.
func Decode(b []byte, m Meta, into []netip.Addr) (Advert, Checksum, error) {
	m.Source, m.Destination = m.Source.WithZone(""), m.Destination.WithZone("")
	if err := checkEnvelope(b, &m); err != nil {
		return Advert{}, 0, err
	}
	a := Advert{Version: Version(b[0] >> 4), VRID: VRID(b[1]), Priority: Priority(b[2])}
	size := FamilyOf(m.Source).addrLen()
	end, err := checkLength(b, a.Version, size)
	if err != nil {
		return Advert{}, 0, err
	}
	sum, err := verify(b, a.Version, &m)
	if err != nil {
		return Advert{}, 0, err
	}
	if a.Version == V2 {
		a.Interval, a.Auth.Type = Centis(b[5])*perSecond, AuthType(b[4])
		if a.Auth.Type != AuthNone {
			copy(a.Auth.Data[:], b[end:])
		}
	} else {
		a.Interval = Centis(binary.BigEndian.Uint16(b[4:])) & MaxCentis
	}
	if err := checkFields(&a); err != nil {
		return Advert{}, 0, err
	}
	a.Addresses = into[:0]
	for i := HeaderLen; i < end; i += size {
		a.Addresses = append(a.Addresses, readAddr(b[i:], size))
	}
	return a, sum, nil
}

// checkEnvelope judges what can be told before the message's own fields are believed. When it returns nil, b holds a
// whole header of a version that the family has. It returns error and not *Reject so that nil stays nil.
func checkEnvelope(b []byte, m *Meta) error {
	var vrid VRID
	if len(b) > 1 {
		vrid = VRID(b[1])
	}
	family := FamilyOf(m.Source)
	if family == 0 || family != FamilyOf(m.Destination) {
		return &Reject{Reason: ReasonFamilyMismatch, VRID: vrid, Got: int(FamilyOf(m.Destination)), Want: int(family)}
	}
	if m.Destination == family.Group() {
		if m.HopLimit != HopLimit {
			return &Reject{Reason: ReasonHopLimit, VRID: vrid, Got: m.HopLimit, Want: HopLimit}
		}
	} else {
		if m.Unicast == (Hops{}) || m.Destination.IsMulticast() || m.Destination == broadcast {
			return &Reject{Reason: ReasonNotMulticast, VRID: vrid}
		}
		if !m.Unicast.admits(m.HopLimit) {
			return &Reject{Reason: ReasonHopLimit, VRID: vrid, Got: m.HopLimit, Want: int(m.Unicast.Min)}
		}
	}
	switch {
	case len(b) < HeaderLen:
		return &Reject{Reason: ReasonTooShort, VRID: vrid, Got: len(b), Want: HeaderLen}
	case isCARP(b):
		return &Reject{Reason: ReasonCARP, VRID: vrid, Got: int(b[0] >> 4), Want: int(V3)}
	case !Version(b[0] >> 4).speaks(family):
		return &Reject{Reason: ReasonVersion, VRID: vrid, Got: int(b[0] >> 4), Want: int(V3)}
	case b[0]&0x0f != typeAdvertisement:
		return &Reject{Reason: ReasonType, VRID: vrid, Got: int(b[0] & 0x0f), Want: typeAdvertisement}
	}
	return nil
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// checkLength compares the length with the address count, and returns where the addresses end.
func checkLength(b []byte, v Version, size int) (end int, err error) {
	vrid, count := VRID(b[1]), int(b[3])
	if count == 0 {
		return 0, &Reject{Reason: ReasonNoAddresses, VRID: vrid, Got: 0, Want: 1}
	}
	end = HeaderLen + count*size
	switch want := end + v.trailerLen(); len(b) {
	case want:
		return end, nil
	case want + hmacLen:
		if b[want] == hmacType {
			return 0, &Reject{Reason: ReasonHMACTrailer, VRID: vrid, Got: len(b), Want: want}
		}
		fallthrough
	default:
		return 0, &Reject{Reason: ReasonLength, VRID: vrid, Got: len(b), Want: want}
	}
}

// What keepalived 2.4 puts behind a packet with auth_hmac: 28 bytes that begin with a type.
const (
	hmacLen  = 28
	hmacType = 1
)

// checkFields judges the fields of an advert whose checksum was right.
func checkFields(a *Advert) error {
	switch {
	case a.VRID == 0:
		return &Reject{Reason: ReasonVRIDZero, Got: 0, Want: 1}
	case a.Auth.Type > AuthAH:
		return &Reject{Reason: ReasonAuthType, VRID: a.VRID, Got: int(a.Auth.Type), Want: int(AuthNone)}
	case a.Interval == 0:
		return &Reject{Reason: ReasonIntervalZero, VRID: a.VRID, Got: 0, Want: 1}
	}
	return nil
}

// readAddr reads the first address of b, which holds at least one of the size.
func readAddr(b []byte, size int) netip.Addr {
	if size == 4 {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b))
}
