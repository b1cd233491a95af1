package vrrpcompat

import (
	"fmt"
)

// A Reason is why a received packet is not an advert to act on. String gives a short kebab-case name that serves as a
// metric label and never changes. Zero is invalid.
//
// Sections are those of RFC 9568 unless another is named.
type Reason uint8

const (
	_ Reason = iota
	// ReasonFamilyMismatch: source and destination are not two addresses of one family.
	ReasonFamilyMismatch
	// ReasonNotMulticast: sent neither to the family's VRRP group (sections 5.1.1.2 and 5.1.2.2) nor, where unicast is
	// spoken, to an address of ours.
	ReasonNotMulticast
	// ReasonHopLimit: TTL or hop limit is not 255, so it may come from beyond the link (section 7.1), or is outside what
	// is configured for unicast.
	ReasonHopLimit
	// ReasonTooShort: shorter than the fixed fields (section 7.1).
	ReasonTooShort
	// ReasonCARP: an advert of CARP, which shares the protocol number and the group, and looks like version 2.
	ReasonCARP
	// ReasonVersion: neither version 2 nor 3, or version 2 over IPv6 (section 7.1).
	ReasonVersion
	// ReasonType: not an ADVERTISEMENT, the only type there is (section 5.2.2).
	ReasonType
	// ReasonNoAddresses: the address count is zero (section 5.2.5, erratum 8299).
	ReasonNoAddresses
	// ReasonLength: the length is not what the address count says: cut off, or bytes too many (section 7.1).
	ReasonLength
	// ReasonHMACTrailer: too long by the trailer that keepalived's auth_hmac adds, which is not spoken.
	ReasonHMACTrailer
	// ReasonChecksum: the checksum fits no form that the version and the family allow (section 7.1).
	ReasonChecksum
	// ReasonVRIDZero: the VRID is zero (section 5.2.3).
	ReasonVRIDZero
	// ReasonIntervalZero: the interval is zero, which would make every down timer zero (section 5.2.7, erratum 8301).
	ReasonIntervalZero

	// ReasonOwnSource: it bears our own source address: a switch sent it back, or somebody pretends.
	ReasonOwnSource
	// ReasonVRIDUnknown: no virtual router of ours on the interface has the VRID (section 7.1).
	ReasonVRIDUnknown
	// ReasonVersionMismatch: of the version that this virtual router does not speak.
	ReasonVersionMismatch
	// ReasonAuthType: the authentication type is not ours, or unknown (RFC 3768, section 7.1).
	ReasonAuthType
	// ReasonAuthData: the password is not ours (RFC 2338, section 7.1).
	ReasonAuthData
	// ReasonIntervalMismatch: the interval of a version 2 advert is not ours (RFC 3768, section 7.1).
	ReasonIntervalMismatch
	// ReasonAddressList: a version 2 advert, not from the address owner, names other addresses than ours, some of them
	// the same (RFC 3768, section 7.1).
	ReasonAddressList
	// ReasonCollision: it names none of our addresses: another virtual router uses our VRID.
	ReasonCollision

	reasonEnd
)

var reasonNames = [reasonEnd]string{
	ReasonFamilyMismatch:   "family-mismatch",
	ReasonNotMulticast:     "not-multicast",
	ReasonHopLimit:         "hop-limit",
	ReasonTooShort:         "too-short",
	ReasonCARP:             "carp",
	ReasonVersion:          "version",
	ReasonType:             "type",
	ReasonNoAddresses:      "no-addresses",
	ReasonLength:           "length",
	ReasonHMACTrailer:      "hmac-trailer",
	ReasonChecksum:         "checksum",
	ReasonVRIDZero:         "vrid-zero",
	ReasonIntervalZero:     "interval-zero",
	ReasonOwnSource:        "own-source",
	ReasonVRIDUnknown:      "vrid-unknown",
	ReasonVersionMismatch:  "version-mismatch",
	ReasonAuthType:         "auth-type",
	ReasonAuthData:         "auth-data",
	ReasonIntervalMismatch: "interval-mismatch",
	ReasonAddressList:      "address-list",
	ReasonCollision:        "vrid-collision",
}

// Reasons returns every reason in the order of the constants, for counters that must exist before they count.
func Reasons() []Reason {
	out := make([]Reason, 0, reasonEnd-1)
	for r := Reason(1); r < reasonEnd; r++ {
		out = append(out, r)
	}
	return out
}

// String returns the name, such as "hop-limit".
func (r Reason) String() string {
	if r == 0 || r >= reasonEnd {
		return fmt.Sprintf("reason(%d)", uint8(r))
	}
	return reasonNames[r]
}

// A Reject is the error for a packet that Decode or Virtual.Refuse refuses. It holds numbers and makes its text only when
// asked, so that a flood of bad packets costs little. It never holds a password.
type Reject struct {
	Reason Reason
	// VRID is the second byte of the message as it came, unverified; zero if there was none.
	VRID VRID
	// Got and Want are the offending value and the one in its place, in the unit of the reason: hops, bytes, a version, a
	// checksum, hundredths of a second, how many addresses.
	Got, Want int
}

// Error says what was wrong, the value, the bound, and where to look.
func (r *Reject) Error() string {
	return fmt.Sprintf("advert of vrid %d refused (%v): %s", r.VRID, r.Reason, r.detail())
}

func (r *Reject) detail() string {
	switch r.Reason {
	case ReasonFamilyMismatch:
		return "source and destination must be addresses of one family"
	case ReasonNotMulticast:
		return fmt.Sprintf("it was sent neither to %v or %v nor to an address at which unicast is expected", GroupIPv4, GroupIPv6)
	case ReasonHopLimit:
		return fmt.Sprintf("hop limit is %d, must be %d: it crossed a router, or its sender is not set up for VRRP", r.Got, r.Want)
	case ReasonTooShort:
		return fmt.Sprintf("%d bytes, the fixed fields alone take %d", r.Got, r.Want)
	case ReasonCARP:
		return "it is CARP's (ucarp, or carp of a BSD), which is another protocol: give one of the two another VRID, so that they do not share a virtual MAC"
	case ReasonVersion:
		return fmt.Sprintf("version is %d, must be %d, or 2 for IPv4", r.Got, r.Want)
	case ReasonType:
		return fmt.Sprintf("type is %d, must be %d (ADVERTISEMENT)", r.Got, r.Want)
	case ReasonNoAddresses:
		return "it names no virtual address, at least one is required"
	case ReasonLength:
		return fmt.Sprintf("%d bytes, the address count says %d: %s", r.Got, r.Want, lengthFault(r.Got, r.Want))
	case ReasonHMACTrailer:
		return fmt.Sprintf("%d bytes instead of %d: keepalived's auth_hmac is not spoken; take it out of the sender's file", r.Got, r.Want)
	case ReasonChecksum:
		return fmt.Sprintf("checksum is 0x%04x, must be 0x%04x: damaged, or an address was rewritten on the way", r.Got, r.Want)
	case ReasonVRIDZero:
		return "vrid must be 1 to 255"
	case ReasonIntervalZero:
		return fmt.Sprintf("interval is 0, must be 1 to %d cs, or 1 to %d s in version 2", MaxCentis, MaxCentisV2/perSecond)
	}
	return r.mismatch()
}

// mismatch is the text where a whole advert does not agree with the configuration.
func (r *Reject) mismatch() string {
	switch r.Reason {
	case ReasonOwnSource:
		return "it bears the address that we send from: a switch sends adverts back, two hosts have one address, or somebody pretends"
	case ReasonVRIDUnknown:
		return "no virtual router here has the VRID"
	case ReasonVersionMismatch:
		return fmt.Sprintf("version is %d, here it is %d: write the same in both files", r.Got, r.Want)
	case ReasonAuthType:
		return fmt.Sprintf("authentication is %v, here it is %v: write the same in both files", AuthType(r.Got), AuthType(r.Want))
	case ReasonAuthData:
		return "the password is another than ours: write the same in both files"
	case ReasonIntervalMismatch:
		return fmt.Sprintf("interval is %s, here it is %s: version 2 wants the same everywhere", Centis(r.Got).Duration(), Centis(r.Want).Duration())
	case ReasonAddressList:
		return fmt.Sprintf("of its virtual addresses and our %d, %d are the same: version 2 wants the same list everywhere", r.Want, r.Got)
	case ReasonCollision:
		return "it names none of our virtual addresses: another virtual router uses our VRID; give one of the two another"
	}
	return fmt.Sprintf("got %d, want %d", r.Got, r.Want)
}

func lengthFault(got, want int) string {
	if got < want {
		return "cut off, or version 2 without its 8 bytes of authentication data"
	}
	return "bytes too many"
}
