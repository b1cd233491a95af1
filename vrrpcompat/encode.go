package vrrpcompat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// AppendTo appends the advert as it stands in an IP packet from one address to another, and returns the longer slice. It
// allocates nothing if dst has room for a.Len() bytes more. Both addresses are part of the checksum unless it is Plain;
// for IPv6, and for version 2, sum makes no difference. On an error, which names the field and its bound, dst comes back as it was.
func (a Advert) AppendTo(dst []byte, from, to netip.Addr, sum Checksum) ([]byte, error) {
	family := FamilyOf(from)
	if family == 0 || from.IsUnspecified() || family != FamilyOf(to) {
		return dst, fmt.Errorf("encode advert of vrid %d: source %v and destination %v must be two addresses of one family", a.VRID, from, to)
	}
	if sum < PseudoHeader || sum > GroupPseudoHeader {
		return dst, fmt.Errorf("encode advert of vrid %d: checksum form %v is none of %v, %v and %v", a.VRID, sum, PseudoHeader, Plain, GroupPseudoHeader)
	}
	if err := a.check(family); err != nil {
		return dst, fmt.Errorf("encode advert of vrid %d: %w", a.VRID, err)
	}
	start := len(dst)
	dst = append(dst, byte(a.Version)<<4|typeAdvertisement, byte(a.VRID), byte(a.Priority), byte(len(a.Addresses)))
	if a.Version == V2 {
		dst = append(dst, byte(a.Auth.Type), byte(a.Interval/perSecond))
	} else {
		dst = binary.BigEndian.AppendUint16(dst, uint16(a.Interval)) // the four reserved bits are zero: Interval has 12
	}
	dst = append(dst, 0, 0)
	for _, addr := range a.Addresses {
		dst = appendAddr(dst, addr)
	}
	if a.Version == V2 {
		dst = append(dst, a.Auth.Data[:]...)
	}
	message := dst[start:]
	binary.BigEndian.PutUint16(message[6:], ^fold(checksumOf(message, a.Version, from, to, sum)))
	return dst, nil
}

// check says what keeps the advert from being sent in the family.
func (a Advert) check(family Family) error {
	switch {
	case !a.Version.speaks(family):
		return fmt.Errorf("there is no VRRP %v for %v: version 3 is for both families, version 2 for %v", a.Version, family, IPv4)
	case a.VRID == 0:
		return fmt.Errorf("vrid is 0, must be 1 to 255")
	case a.Version == V2 && !a.Interval.fits(V2):
		return fmt.Errorf("interval is %d cs, must be whole seconds of %d cs, 1 to %d", a.Interval, perSecond, MaxCentisV2/perSecond)
	case !a.Interval.fits(a.Version):
		return fmt.Errorf("interval is %d cs, must be 1 to %d", a.Interval, MaxCentis)
	case len(a.Addresses) == 0 || len(a.Addresses) > MaxAddresses:
		return fmt.Errorf("%d virtual addresses, must be 1 to %d", len(a.Addresses), MaxAddresses)
	}
	if err := a.Auth.check(a.Version); err != nil {
		return err
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

// check says what keeps the authentication from being sent in the version.
func (a Auth) check(v Version) error {
	switch {
	case v != V2 && a != Auth{}:
		return fmt.Errorf("version %v has no authentication, the advert says %v: leave it out, or use version 2", v, a.Type)
	case a.Type == AuthNone && a != Auth{}:
		return fmt.Errorf("authentication data without a type: use SimplePassword, or leave it zero")
	case a.Type != AuthNone && a.Type != AuthSimple:
		return fmt.Errorf("authentication type %v cannot be sent, only %v and %v", a.Type, AuthNone, AuthSimple)
	}
	return nil
}

func appendAddr(dst []byte, a netip.Addr) []byte {
	if a.Is4() {
		b := a.As4()
		return append(dst, b[:]...)
	}
	b := a.As16()
	return append(dst, b[:]...)
}
