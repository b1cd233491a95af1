package vrrpcompat

import (
	"fmt"
	"net/netip"
	"slices"
)

// A Virtual is one virtual router as it is configured on one interface of this host: what its adverts say, and what those of
// others must agree with. It is not changed after Validate, and may then be shared.
type Virtual struct {
	VRID   VRID
	Family Family
	// Version is the one that is spoken, and the only one that is listened to unless AlsoV2 is set.
	Version Version
	// AlsoV2 sends each advert of version 3 a second time as version 2, and listens to both, while a link moves from one to
	// the other (RFC 9568, section 8.4.2). IPv4 only. Version 2 adverts may then have another interval than ours.
	AlsoV2 bool
	// Interval is the Advertisement_Interval: how often an Active router sends.
	Interval Centis
	// Auth is what version 2 adverts carry and must carry.
	Auth Auth
	// Addresses are the virtual addresses in the order in which they are sent.
	Addresses []netip.Addr
}

// Validate says what is wrong with the configuration: the field, the value and the bound.
func (v *Virtual) Validate() error {
	if !v.Version.speaks(v.Family) {
		return fmt.Errorf("virtual router %d: there is no VRRP %v for %v: version 3 is for both families, version 2 for %v", v.VRID, v.Version, v.Family, IPv4)
	}
	if v.AlsoV2 && (v.Version != V3 || v.Family != IPv4) {
		return fmt.Errorf("virtual router %d: version 2 beside version %v for %v: only version 3 for %v can be accompanied by version 2", v.VRID, v.Version, v.Family, IPv4)
	}
	for _, version := range v.versions() {
		if err := v.Advert(version, Default).check(v.Family); err != nil {
			return fmt.Errorf("virtual router %d: %w", v.VRID, err)
		}
	}
	if v.Auth != (Auth{}) && v.Version != V2 && !v.AlsoV2 {
		return fmt.Errorf("virtual router %d: version %v has no authentication: leave it out, or use version 2", v.VRID, v.Version)
	}
	return nil
}

// versions are those that are sent.
func (v *Virtual) versions() []Version {
	if v.AlsoV2 {
		return []Version{V3, V2}
	}
	return []Version{v.Version}
}

// Adverts returns what is to be sent when the virtual router speaks with the priority: one advert, or with AlsoV2 one of each
// version. They share the addresses with v.
func (v *Virtual) Adverts(p Priority) []Advert {
	var out []Advert
	for _, version := range v.versions() {
		out = append(out, v.Advert(version, p))
	}
	return out
}

// Advert returns what is to be sent in one version. A version 2 advert states whole seconds, rounded up: where both versions are
// sent more often than that, a version 2 router hears more adverts than it expects, and not fewer.
func (v *Virtual) Advert(version Version, p Priority) Advert {
	a := Advert{Version: version, VRID: v.VRID, Priority: p, Interval: v.Interval, Addresses: v.Addresses}
	if version == V2 {
		a.Auth = v.Auth
		if v.AlsoV2 {
			a.Interval = v.Interval.wholeSeconds()
		}
	}
	return a
}

// Refuse returns why an advert that Decode accepted, and that came on the virtual router's interface and family, must not be
// acted on, or nil. self is the address that this host sends from, or the zero netip.Addr where it has none. The checks are those of RFC 9568 and
// RFC 3768, sections 7.1, but for these:
//
//   - The owner of the addresses listens to others too: RFC 9568 as published makes it discard what it hears, erratum 8298
//     takes that back, so that two owners can settle it.
//   - An advert that names none of our addresses is refused in either version, whatever its priority: whoever sends it does not serve them.
//
// A version 3 advert with some other addresses, or another interval, is accepted, as RFC 9568 has it: Differences names that. Nothing is allocated unless the advert is refused.
func (v *Virtual) Refuse(a Advert, from, self netip.Addr) *Reject {
	refuse := func(r Reason, got, want int) *Reject { return &Reject{r, a.VRID, got, want} }
	switch {
	case a.VRID != v.VRID:
		return refuse(ReasonVRIDUnknown, int(a.VRID), int(v.VRID))
	case self.IsValid() && from.WithZone("") == self.WithZone(""):
		return refuse(ReasonOwnSource, 0, 0)
	case a.Version != v.Version && !(v.AlsoV2 && a.Version == V2):
		return refuse(ReasonVersionMismatch, int(a.Version), int(v.Version))
	}
	if a.Version == V2 {
		switch {
		case a.Auth.Type != v.Auth.Type:
			return refuse(ReasonAuthType, int(a.Auth.Type), int(v.Auth.Type))
		case a.Auth != v.Auth:
			return refuse(ReasonAuthData, 0, 0)
		case a.Interval != v.Interval && !v.AlsoV2:
			return refuse(ReasonIntervalMismatch, int(a.Interval), int(v.Interval))
		}
	}
	same, all := compareSets(a.Addresses, v.Addresses)
	switch {
	case all:
		return nil
	case same == 0:
		return refuse(ReasonCollision, 0, len(v.Addresses))
	case a.Version == V2 && a.Priority != Owner:
		return refuse(ReasonAddressList, same, len(v.Addresses))
	}
	return nil
}

// compareSets returns how many addresses the two lists have in common, each counted once, and whether they are the same
// set. A flood of adverts with 255 addresses each must not cost the square of that, hence the sorting; what comes in our
// order, as a router with our configuration sends it, costs one comparison each.
func compareSets(a, b []netip.Addr) (same int, all bool) {
	if slices.Equal(a, b) {
		return len(a), true
	}
	var storeA, storeB [MaxAddresses]netip.Addr
	a, b = sorted(storeA[:0], a), sorted(storeB[:0], b)
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch c := a[i].Compare(b[j]); {
		case c < 0:
			i++
		case c > 0:
			j++
		default:
			same++
			i++
			j++
		}
	}
	return same, same == len(a) && same == len(b)
}

// sorted appends the addresses to dst in order, each once.
func sorted(dst, addrs []netip.Addr) []netip.Addr {
	dst = append(dst, addrs...)
	slices.SortFunc(dst, netip.Addr.Compare)
	return slices.Compact(dst)
}
