package vrrpcompat

import (
	"fmt"
	"net/netip"
	"strconv"
)

// Specification constants (RFC 9568, sections 5.1.1, 5.1.2 and 5.2).
const (
	// Protocol is the IP protocol number of VRRP.
	Protocol = 112
	// HopLimit is the IPv4 TTL or IPv6 hop limit that every multicast advert carries: what crossed a router has less.
	HopLimit = 255
	// HeaderLen is how many bytes stand before the first address.
	HeaderLen = 8
	// AuthLen is how many bytes of authentication data stand after the last address of a version 2 advert, used or not
	// (RFC 3768, section 5.3.10).
	AuthLen = 8
	// MaxAddresses is how many addresses one advert can name: the count is one byte.
	MaxAddresses = 255
	// MaxLen is the length in bytes of the longest advert, MaxAddresses of IPv6: version 2 knows only IPv4.
	MaxLen = HeaderLen + 16*MaxAddresses

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

// A Version of the protocol. Zero is invalid: an advert says which one it is.
type Version uint8

const (
	// V2 is RFC 3768 with the authentication field of RFC 2338: IPv4 only, intervals of whole seconds.
	V2 Version = 2
	// V3 is RFC 9568 and RFC 5798: IPv4 and IPv6, intervals of hundredths of a second.
	V3 Version = 3
)

// String returns "2" or "3", which is how the configuration writes it.
func (v Version) String() string {
	if v == V2 || v == V3 {
		return strconv.Itoa(int(v))
	}
	return fmt.Sprintf("version(%d)", uint8(v))
}

// speaks reports whether adverts of the version exist for the family.
func (v Version) speaks(f Family) bool { return v == V3 && f != 0 || v == V2 && f == IPv4 }

// trailerLen returns the bytes that stand after the last address.
func (v Version) trailerLen() int {
	if v == V2 {
		return AuthLen
	}
	return 0
}

// An Advert is one ADVERTISEMENT (RFC 9568, section 5.2; RFC 3768, section 5.3). The order of Addresses is kept in both
// directions; receivers compare them as a set.
type Advert struct {
	Version  Version
	VRID     VRID
	Priority Priority
	// Interval is how often the sender advertises: for version 2 whole seconds. Backups adopt that of version 3, and
	// insist on having the same in version 2.
	Interval Centis
	// Auth is the authentication of version 2, and zero in version 3, which has none.
	Auth Auth
	// Addresses are the virtual addresses, 1 to MaxAddresses, all of one family, without zones. RFC 9568 section 5.2.9
	// wants the first IPv6 one to be link-local; neither direction insists, because real routers do not.
	Addresses []netip.Addr
}

// Len returns the bytes that the advert takes, IP header not counted. An advert without addresses has none of a family
// either; AppendTo refuses it.
func (a Advert) Len() int {
	n := HeaderLen + a.Version.trailerLen()
	if len(a.Addresses) > 0 {
		n += len(a.Addresses) * FamilyOf(a.Addresses[0]).addrLen()
	}
	return n
}
