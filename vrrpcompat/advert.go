// Package vrrpcompat speaks VRRP as data: it turns adverts into bytes and bytes into adverts, names the reason for
// each one that it refuses, and does the timer arithmetic of RFC 9568.
//
// It is pure: it reads no clock, opens no socket and starts nothing, and every function may be called concurrently.
// Version 3 is spoken for IPv4 and IPv6. The sockets are in vrrpcompat/wire.
//
// The packet (RFC 9568, section 5.1), IPv4 addresses of 4 or IPv6 addresses of 16 bytes:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------+-------+---------------+---------------+---------------+
//	| ver 3 | type 1|      VRID     |   priority    | address count |
//	+-------+-------+---------------+---------------+---------------+
//	| rsvd  |  interval, 12 bit, cs |           checksum            |
//	+-------+-----------------------+-------------------------------+
//	|                          addresses …                          |
//	+---------------------------------------------------------------+
package vrrpcompat

import (
	"fmt"
	"net/netip"
	"time"
)

// Specification constants (RFC 9568, sections 5.1.1, 5.1.2 and 5.2).
const (
	// Protocol is the IP protocol number of VRRP.
	Protocol = 112
	// HopLimit is the IPv4 TTL or IPv6 hop limit that every multicast advert carries: what crossed a router has less.
	HopLimit = 255
	// HeaderLen is how many bytes stand before the first address.
	HeaderLen = 8
	// MaxAddresses is how many addresses one advert can name: the count is one byte.
	MaxAddresses = 255
	// MaxLen is the length in bytes of the longest advert, MaxAddresses of IPv6.
	MaxLen = HeaderLen + 16*MaxAddresses

	version3          = 3
	version2          = 2
	typeAdvertisement = 1
)

// Where adverts are sent (RFC 9568, sections 5.1.1.2 and 5.1.2.2). Read only.
var (
	GroupIPv4 = netip.AddrFrom4([4]byte{224, 0, 0, 18})
	GroupIPv6 = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 0x12})
)

// A VRID is the number of a virtual router, 1 to 255, unique per link and address family. Zero is invalid
// (RFC 9568, section 5.2.3).
type VRID uint8

// A Priority is a sender's claim to be Active, the higher the stronger (RFC 9568, section 5.2.4). All 256 values are valid.
type Priority uint8

const (
	// Release says that the sender lets go: backups wait only their skew time. It does not take part in any election.
	Release Priority = 0
	// Default is what a backup has if nobody says otherwise.
	Default Priority = 100
	// Owner belongs to the router that has the virtual addresses as its own.
	Owner Priority = 255
)

// A Centis is an advertisement interval in hundredths of a second: 12 bits, 1 to 4095 (RFC 9568, section 5.2.7 with
// erratum 8301). Zero is invalid.
type Centis uint16

const (
	// Centi is the unit of a Centis.
	Centi = 10 * time.Millisecond
	// MaxCentis is the longest interval that the 12 bits can carry.
	MaxCentis Centis = 1<<12 - 1
)

// Duration returns the interval as a time.Duration. It is exact.
func (c Centis) Duration() time.Duration { return time.Duration(c) * Centi }

// CentisOf returns d in hundredths of a second. It never rounds: an interval that the packet cannot carry exactly would
// be a different one at each end. The error names the bounds, or the two nearest intervals that can be carried.
func CentisOf(d time.Duration) (Centis, error) {
	if d < Centi || d > MaxCentis.Duration() {
		return 0, fmt.Errorf("advert interval %s: VRRPv3 carries %s to %s", d, Centi, MaxCentis.Duration())
	}
	if rest := d % Centi; rest != 0 {
		return 0, fmt.Errorf("advert interval %s: VRRPv3 counts in steps of %s; use %s or %s", d, Centi, d-rest, d-rest+Centi)
	}
	return Centis(d / Centi), nil
}

// A Family is one of the two kinds of virtual router; a VRID of one has nothing to do with that of the other
// (RFC 9568, section 1). Zero is invalid.
type Family uint8

const (
	_ Family = iota
	// IPv4 routers send to 224.0.0.18.
	IPv4
	// IPv6 routers send to ff02::12 from a link-local address.
	IPv6
)

// FamilyOf returns the family of a, or zero if a is the zero netip.Addr. An IPv4 address mapped into IPv6 counts as IPv6,
// which is what it would be on the wire.
func FamilyOf(a netip.Addr) Family {
	switch {
	case a.Is4():
		return IPv4
	case a.Is6():
		return IPv6
	}
	return 0
}

// String returns "ipv4" or "ipv6".
func (f Family) String() string {
	switch f {
	case IPv4:
		return "ipv4"
	case IPv6:
		return "ipv6"
	}
	return fmt.Sprintf("family(%d)", uint8(f))
}

// Group returns the multicast address to which adverts of the family go. It is the zero netip.Addr for an invalid family.
func (f Family) Group() netip.Addr {
	switch f {
	case IPv4:
		return GroupIPv4
	case IPv6:
		return GroupIPv6
	}
	return netip.Addr{}
}

// addrLen returns the bytes that one address of the family takes in an advert.
func (f Family) addrLen() int {
	if f == IPv4 {
		return 4
	}
	return 16
}

// A Checksum is what an advert's checksum covers. The two forms differ for IPv4 only; IPv6 always covers the
// pseudo-header. Zero is invalid.
type Checksum uint8

const (
	_ Checksum = iota
	// PseudoHeader covers source, destination, protocol and length besides the message: RFC 5798 as keepalived
	// and FRR read it for IPv4, and their default. They refuse the other form.
	PseudoHeader
	// Plain covers the message only: RFC 9568, section 5.2.8, for IPv4.
	Plain
)

// String returns "pseudo-header" or "plain".
func (c Checksum) String() string {
	switch c {
	case PseudoHeader:
		return "pseudo-header"
	case Plain:
		return "plain"
	}
	return fmt.Sprintf("checksum(%d)", uint8(c))
}

// An Advert is one VRRPv3 ADVERTISEMENT (RFC 9568, section 5.2). The order of Addresses is kept in both directions;
// receivers compare them as a set.
type Advert struct {
	VRID     VRID
	Priority Priority
	// Interval is how often the sender advertises. Backups adopt it.
	Interval Centis
	// Addresses are the virtual addresses, 1 to MaxAddresses, all of one family, without zones. RFC 9568 section 5.2.9
	// wants the first IPv6 one to be link-local; neither direction insists, because real routers do not.
	Addresses []netip.Addr
}

// Len returns the bytes that the advert takes, IP header not counted. It is HeaderLen for an advert without addresses,
// which AppendTo refuses.
func (a Advert) Len() int {
	if len(a.Addresses) == 0 {
		return HeaderLen
	}
	return HeaderLen + len(a.Addresses)*FamilyOf(a.Addresses[0]).addrLen()
}
