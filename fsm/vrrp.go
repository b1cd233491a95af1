package fsm

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// VRRP is how the group appears to VRRP speakers outside the cluster, and with
// election: vrrp what this node is there.
type VRRP struct {
	ID      uint8 // virtual router id, 1 to 255; 0: no adverts, and the rest is without meaning
	Version uint8 // 2 or 3. Addresses of IPv6 are advertised in version 3 only
	// AlsoV2 sends each version 3 advert of IPv4 a second time as version 2, and
	// listens to both (RFC 9568, section 8.4.2). It needs Version 3.
	AlsoV2   bool
	Priority uint8 // 1 to 255
	// Interval is how often the Active router speaks: 10 ms to 40.95 s in whole
	// hundredths of a second, and with Version 2 1 s to 255 s in whole seconds.
	Interval time.Duration
	// Checksum is the form of version 3 adverts for IPv4; the others have one form.
	Checksum Checksum
	// Password is what version 2 adverts carry and must carry, in clear text, at
	// most MaxVRRPPassword bytes (RFC 2338, section 5.3.6). Empty: none.
	Password string
	// Unicast are the routers to speak to in place of the multicast group, at least
	// one for each family of the group's addresses. Empty: multicast.
	Unicast   []Peer
	Outranked Outranked
}

// MaxVRRPPassword is the longest password of a version 2 advert, in bytes.
const MaxVRRPPassword = 8

// Bounds of an advert interval: what the packets of the two versions can carry.
const (
	vrrpTick          = 10 * time.Millisecond
	maxVRRPInterval   = 4095 * vrrpTick
	maxVRRPIntervalV2 = 255 * time.Second
)

// A Peer is a router that is spoken to by unicast.
type Peer struct {
	Addr netip.Addr
	// MinTTL and MaxTTL are with which TTL or hop limit its adverts may arrive, 1 to
	// 255. Both 255: only from the same link.
	MinTTL, MaxTTL uint8
}

// A Checksum is the choice of a form of checksum for version 3 adverts over IPv4.
type Checksum uint8

const (
	_                    Checksum = iota
	ChecksumAuto                  // the form of the routers outside, and until one was heard that of keepalived
	ChecksumPseudoHeader          // with the pseudo-header, as keepalived and FRR have it
	ChecksumPlain                 // without, as RFC 9568 (5.2.8) has it
)

// String is the form's word in the configuration file.
func (c Checksum) String() string {
	switch c {
	case ChecksumAuto:
		return "auto"
	case ChecksumPseudoHeader:
		return "pseudo-header"
	case ChecksumPlain:
		return "plain"
	}
	return fmt.Sprintf("checksum(%d)", uint8(c))
}

// Outranked is what the owner of a group does when a router outside the cluster
// has the better claim.
type Outranked uint8

const (
	_              Outranked = iota
	OutrankedYield           // stay Backup until that router is gone
	OutrankedHold            // keep the addresses, and raise an alarm: two answer
)

// String is the policy's word in the configuration file.
func (o Outranked) String() string {
	switch o {
	case OutrankedYield:
		return "yield"
	case OutrankedHold:
		return "hold"
	}
	return fmt.Sprintf("outranked(%d)", uint8(o))
}

// check reports the first rule that the VRRP section of a group with these
// addresses breaks.
func (v VRRP) check(addrs []netip.Addr) error {
	if v.ID == 0 {
		return nil
	}
	switch {
	case v.Version != 2 && v.Version != 3:
		return fmt.Errorf("version is %d, want 2 or 3", v.Version)
	case v.AlsoV2 && v.Version != 3:
		return fmt.Errorf("version 2 beside version %d, want it beside 3 only", v.Version)
	case v.Priority == 0:
		return errors.New("priority is 0, want 1 to 255")
	case v.Checksum < ChecksumAuto || v.Checksum > ChecksumPlain:
		return fmt.Errorf("unknown %v", v.Checksum)
	case v.Outranked != OutrankedYield && v.Outranked != OutrankedHold:
		return fmt.Errorf("unknown %v", v.Outranked)
	case len(v.Password) > MaxVRRPPassword:
		return fmt.Errorf("a password of %d bytes, want at most %d", len(v.Password), MaxVRRPPassword)
	case v.Password != "" && v.Version != 2 && !v.AlsoV2:
		return fmt.Errorf("a password with version %d, which has none", v.Version)
	}
	if err := v.checkInterval(); err != nil {
		return err
	}
	return v.checkFamilies(addrs)
}

func (v VRRP) checkInterval() error {
	least, most := vrrpTick, maxVRRPInterval
	if v.Version == 2 {
		least, most = time.Second, maxVRRPIntervalV2
	}
	if v.Interval < least || v.Interval > most || v.Interval%least != 0 {
		return fmt.Errorf("interval is %s, want %s to %s in whole %s with version %d", v.Interval, least, most, least, v.Version)
	}
	return nil
}

// checkFamilies: a family whose adverts could not be sent would be a virtual router
// that nobody hears of.
func (v VRRP) checkFamilies(addrs []netip.Addr) error {
	peers := map[bool]int{} // by whether IPv4
	seen := map[netip.Addr]bool{}
	for _, p := range v.Unicast {
		if !p.Addr.IsValid() || p.Addr.Zone() != "" || p.Addr.IsMulticast() || p.Addr.IsUnspecified() || seen[p.Addr] {
			return fmt.Errorf("unicast peer %s is no address of a host, or there twice", p.Addr)
		}
		if p.MinTTL == 0 || p.MinTTL > p.MaxTTL {
			return fmt.Errorf("unicast peer %s: TTL %d to %d, want 1 to 255 in order", p.Addr, p.MinTTL, p.MaxTTL)
		}
		seen[p.Addr] = true
		peers[p.Addr.Is4()]++
	}
	for _, a := range addrs {
		if !a.Is4() && v.Version == 2 {
			return fmt.Errorf("version 2 with the IPv6 address %s, want version 3", a)
		}
		if len(v.Unicast) > 0 && peers[a.Is4()] == 0 {
			return fmt.Errorf("unicast without a peer of the family of address %s", a)
		}
	}
	return nil
}
