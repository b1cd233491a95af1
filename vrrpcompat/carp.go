package vrrpcompat

// A CARP is what an advert of the Common Address Redundancy Protocol says of its sender (OpenBSD and FreeBSD carp(4),
// ucarp). It is read to be named: CARP uses VRRP's protocol number, group and virtual MAC addresses, and its shorter
// interval wins an election, not its priority.
type CARP struct {
	// VHID is its virtual host id, which ends up in the same virtual MAC address as a VRID.
	VHID VRID
	// AdvBase are whole seconds between adverts, AdvSkew 256ths of a second on top; the demotion counter comes from other faults.
	AdvBase, AdvSkew, Demote uint8
}

// The layout of a CARP header: version and type, vhid, advskew, how many 32-bit words of authentication follow, demotion
// counter, advbase, checksum, a counter of 8 and a hash of 20 bytes.
const (
	carpLen       = 36
	carpAuthWords = 7
)

// isCARP reports whether a message is CARP's. The same first byte begins a version 2 advert, which with an address
// count of 7 in that place would be of 44 bytes.
func isCARP(b []byte) bool {
	return len(b) == carpLen && b[0] == byte(V2)<<4|typeAdvertisement && b[3] == carpAuthWords
}

// ParseCARP reads the payload of an IP packet that Decode refused with ReasonCARP. Its checksum and hash are not verified.
func ParseCARP(b []byte) (CARP, bool) {
	if !isCARP(b) {
		return CARP{}, false
	}
	return CARP{VHID: VRID(b[1]), AdvSkew: b[2], Demote: b[4], AdvBase: b[5]}, true
}
