package vrrpcompat

import (
	"fmt"
	"time"
)

// A Centis is an advertisement interval in hundredths of a second. Version 3 carries 1 to MaxCentis in 12 bits (RFC 9568,
// section 5.2.7 with erratum 8301); version 2 carries 1 to 255 whole seconds, here 100 to MaxCentisV2 (RFC 3768,
// section 5.3.7). Zero is invalid.
type Centis uint16

const (
	// Centi is the unit of a Centis.
	Centi = 10 * time.Millisecond
	// MaxCentis is the longest interval that the 12 bits of version 3 can carry.
	MaxCentis Centis = 1<<12 - 1
	// MaxCentisV2 is the longest interval that the byte of version 2 can carry.
	MaxCentisV2 = 255 * perSecond

	perSecond Centis = 100
)

// Duration returns the interval as a time.Duration. It is exact.
func (c Centis) Duration() time.Duration { return time.Duration(c) * Centi }

// CentisOf returns d in hundredths of a second, for version 3. It never rounds: an interval that the packet cannot carry
// exactly would be a different one at each end. The error names the bounds, or the two nearest intervals that can be carried.
func CentisOf(d time.Duration) (Centis, error) { return IntervalOf(V3, d) }

// IntervalOf returns d as adverts of the version carry it, under the same promise as CentisOf.
func IntervalOf(v Version, d time.Duration) (Centis, error) {
	step, longest := Centi, MaxCentis
	switch v {
	case V3:
	case V2:
		step, longest = perSecond.Duration(), MaxCentisV2
	default:
		return 0, fmt.Errorf("advert interval %s: there is no VRRP %v; use %v or %v", d, v, V2, V3)
	}
	if d < step || d > longest.Duration() {
		return 0, fmt.Errorf("advert interval %s: VRRPv%v carries %s to %s", d, v, step, longest.Duration())
	}
	if rest := d % step; rest != 0 {
		return 0, fmt.Errorf("advert interval %s: VRRPv%v counts in steps of %s; use %s or %s", d, v, step, d-rest, d-rest+step)
	}
	return Centis(d / Centi), nil
}

// fits reports whether adverts of the version can carry the interval.
func (c Centis) fits(v Version) bool {
	if v == V2 {
		return c != 0 && c <= MaxCentisV2 && c%perSecond == 0
	}
	return c != 0 && c <= MaxCentis
}

// wholeSeconds returns the least interval of version 2 that is not shorter. A router that sends both versions sends the
// older one as often as the newer (RFC 9568, section 8.4.2), and says a second where it cannot say less: whoever waits for three seconds and hears ten adverts is content.
func (c Centis) wholeSeconds() Centis { return (c + perSecond - 1) / perSecond * perSecond }
