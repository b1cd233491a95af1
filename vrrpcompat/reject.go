package vrrpcompat

import "fmt"

// A Reason is why a received packet is not an advert to act on. String gives a short kebab-case name that serves as a
// metric label and never changes. Zero is invalid.
type Reason uint8

const (
	_ Reason = iota
	// ReasonFamilyMismatch: source and destination are not two addresses of one family.
	ReasonFamilyMismatch
	// ReasonNotMulticast: not sent to the family's VRRP group (sections 5.1.1.2 and 5.1.2.2). Unicast peers are not spoken to yet.
	ReasonNotMulticast
	// ReasonHopLimit: TTL or hop limit is not 255, so it may come from beyond the link (section 7.1).
	ReasonHopLimit
	// ReasonTooShort: shorter than the fixed fields (section 7.1).
	ReasonTooShort
	// ReasonVersion2: VRRPv2, or CARP, which looks like it. Not spoken yet.
	ReasonVersion2
	// ReasonVersion: neither version 2 nor 3 (section 7.1).
	ReasonVersion
	// ReasonType: not an ADVERTISEMENT, the only type there is (section 5.2.2).
	ReasonType
	// ReasonNoAddresses: the address count is zero (section 5.2.5, erratum 8299).
	ReasonNoAddresses
	// ReasonLength: the length is not what the address count says: cut off, or bytes too many (section 7.1).
	ReasonLength
	// ReasonChecksum: the checksum fits neither form that the family allows (section 7.1).
	ReasonChecksum
	// ReasonVRIDZero: the VRID is zero (section 5.2.3).
	ReasonVRIDZero
	// ReasonIntervalZero: the interval is zero, which would make every down timer zero (section 5.2.7, erratum 8301).
	ReasonIntervalZero

	reasonEnd
)

var reasonNames = [reasonEnd]string{
	ReasonFamilyMismatch: "family-mismatch",
	ReasonNotMulticast:   "not-multicast",
	ReasonHopLimit:       "hop-limit",
	ReasonTooShort:       "too-short",
	ReasonVersion2:       "version-2",
	ReasonVersion:        "version",
	ReasonType:           "type",
	ReasonNoAddresses:    "no-addresses",
	ReasonLength:         "length",
	ReasonChecksum:       "checksum",
	ReasonVRIDZero:       "vrid-zero",
	ReasonIntervalZero:   "interval-zero",
}

// String returns the name, such as "hop-limit".
func (r Reason) String() string {
	if r == 0 || r >= reasonEnd {
		return fmt.Sprintf("reason(%d)", uint8(r))
	}
	return reasonNames[r]
}

// A Reject is the error for a packet that Decode refuses. It holds numbers and makes its text only when asked, so that a
// flood of bad packets costs little.
type Reject struct {
	Reason Reason
	// VRID is the second byte of the message as it came, unverified; zero if there was none.
	VRID VRID
	// Got and Want are the offending value and the one in its place, in the unit of the reason: hops, bytes, a version, a checksum.
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
		return fmt.Sprintf("it was not sent to %v or %v; unicast is not spoken yet", GroupIPv4, GroupIPv6)
	case ReasonHopLimit:
		return fmt.Sprintf("hop limit is %d, must be %d: it crossed a router, or its sender is not set up for VRRP", r.Got, r.Want)
	case ReasonTooShort:
		return fmt.Sprintf("%d bytes, the fixed fields alone take %d", r.Got, r.Want)
	case ReasonVersion2:
		return "version 2 is not spoken yet: set the sender to version 3 (CARP speakers look like this too)"
	case ReasonVersion:
		return fmt.Sprintf("version is %d, must be %d", r.Got, r.Want)
	case ReasonType:
		return fmt.Sprintf("type is %d, must be %d (ADVERTISEMENT)", r.Got, r.Want)
	case ReasonNoAddresses:
		return "it names no virtual address, at least one is required"
	case ReasonLength:
		return fmt.Sprintf("%d bytes, the address count says %d", r.Got, r.Want)
	case ReasonChecksum:
		return fmt.Sprintf("checksum is 0x%04x, with the pseudo-header it would be 0x%04x: damaged, or an address was rewritten on the way", r.Got, r.Want)
	case ReasonVRIDZero:
		return "vrid must be 1 to 255"
	case ReasonIntervalZero:
		return fmt.Sprintf("interval is 0 cs, must be 1 to %d", MaxCentis)
	}
	return fmt.Sprintf("got %d, want %d", r.Got, r.Want)
}
