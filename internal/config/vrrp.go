package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

// bothVersions is the file's word for version 3 accompanied by version 2.
const bothVersions = "both"

// vrrp checks the section of a group with these addresses.
func (c *checker) vrrp(g rawGroup, addrs []netip.Prefix) fsm.VRRP {
	raw := g.vrrp
	v := fsm.VRRP{Checksum: fsm.ChecksumAuto, Outranked: fsm.OutrankedYield}
	switch f := raw.id; {
	case f.have == absent && c.plain():
		c.missing(raw.pos, f.path, "write id: 1 to 255, that of the other routers of this group")
	case f.have == absent:
		c.missing(raw.pos, f.path, "write id: 1 to 255, that of the outside routers of this group, or leave vrrp out for no adverts")
	case f.ok() && !f.key.fits(int64(f.v)):
		bad(c, f, f.key.within(), "write that of the outside routers of this group")
	case f.ok():
		v.ID = uint8(f.v)
		c.cfg.where[f.path] = f.pos
	}
	v.Version, v.AlsoV2 = c.versions(raw, addrs)
	v.Priority = c.priority(raw)
	c.checksum(raw, &v)
	c.password(raw, &v)
	v.Unicast = c.unicast(raw, addrs)
	if raw.outranked.have != absent && c.plain() {
		c.cluster(raw.outranked.pos, raw.outranked.path, "a router of its own always gives way to a better one (RFC 9568, section 6.4)")
	} else {
		v.Outranked = oneOf(c, raw.outranked, fsm.OutrankedYield)
	}
	v.Interval = c.interval(raw, v)
	return v
}

// versions returns the version to speak, and whether version 2 goes beside it.
func (c *checker) versions(raw *rawVRRP, addrs []netip.Prefix) (version uint8, alsoV2 bool) {
	f := raw.version
	v4 := slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Addr().Is4() })
	v6 := slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return !p.Addr().Is4() })
	switch {
	case !f.ok() || f.v == "3":
		return 3, false
	case f.v == "2" && v6:
		bad(c, f, "version 2 knows no IPv6 addresses, and the group has some", "write 3, or both for version 2 beside it in IPv4, or make a group for each family")
		return 3, true // so that no second error is made of it
	case f.v == "2":
		return 2, false
	case f.v == bothVersions && !v4 && len(addrs) > 0:
		bad(c, f, "version 2 knows no IPv6 addresses, and the group has no others", "write 3, or leave the key out")
		return 3, true
	case f.v == bothVersions:
		return 3, true
	}
	bad(c, f, "must be 2, 3 or both", "write 3, or leave the key out")
	return 3, false
}

func (c *checker) checksum(raw *rawVRRP, v *fsm.VRRP) {
	f := raw.checksum
	if f.ok() && v.Version == 2 {
		bad(c, f, "version 2 has one form of checksum, and this is for version 3", "leave the key out")
		return
	}
	v.Checksum = oneOf(c, f, fsm.ChecksumAuto)
}

// password never shows the value: the log may be read by more people than the file.
func (c *checker) password(raw *rawVRRP, v *fsm.VRRP) {
	f := raw.password
	if !f.ok() {
		return
	}
	switch {
	case f.v == "":
		c.r.add(f.pos, f.path, "is empty", "", "leave the key out for adverts without a password")
	case len(f.v) > fsm.MaxVRRPPassword:
		c.r.add(f.pos, f.path, fmt.Sprintf("must have at most %d bytes, has %d: version 2 carries no more (RFC 2338, section 5.3.6), "+
			"and what is not sent protects nothing", fsm.MaxVRRPPassword, len(f.v)), "",
			fmt.Sprintf("write the first %d bytes, which is what keepalived sends of a longer one", fsm.MaxVRRPPassword))
	case strings.ContainsRune(f.v, 0):
		c.r.add(f.pos, f.path, "has a zero byte, with which the packet fills up shorter ones", "", "write printable characters")
	case v.Version == 3 && !v.AlsoV2:
		c.r.add(f.pos, f.path, "version 3 has no authentication (RFC 9568, section 9)", "", "leave the key out, or write version: 2 or both")
	default:
		v.Password = f.v
	}
}

func (c *checker) unicast(raw *rawVRRP, addrs []netip.Prefix) []fsm.Peer {
	if raw.unicast != present {
		return nil
	}
	var out []fsm.Peer
	seen := map[netip.Addr]field[string]{}
	families := map[vrrpcompat.Family]bool{}
	for _, p := range raw.peers {
		peer, ok := c.peer(p, addrs)
		if !ok {
			continue
		}
		if first, dup := seen[peer.Addr]; dup {
			bad(c, p.address, "peer written twice, "+seeAlso(first), "keep one of the two")
			continue
		}
		seen[peer.Addr] = p.address
		families[vrrpcompat.FamilyOf(peer.Addr)] = true
		out = append(out, peer)
	}
	if len(raw.peers) > len(out) {
		return out
	}
	for _, a := range addrs {
		if fam := vrrpcompat.FamilyOf(a.Addr()); len(out) > 0 && !families[fam] {
			c.r.add(raw.peersPos, join(raw.path, "unicast"), fmt.Sprintf("names no %v peer, and the group has the address %s: nobody would hear its adverts", fam, a.Addr()), "",
				"add the address of a peer in that family, or make a group for each family")
			break
		}
	}
	return out
}

// peer checks one unicast peer.
func (c *checker) peer(raw rawPeer, addrs []netip.Prefix) (p fsm.Peer, ok bool) {
	f := raw.address
	if f.have == absent {
		c.missing(raw.pos, join(raw.path, "address"), "write address: with that of the router")
	}
	if !f.ok() {
		return p, false
	}
	a, err := netip.ParseAddr(f.v)
	switch {
	case err != nil || a.Zone() != "":
		bad(c, f, "must be the address of a router, without port or zone", "write one such as 10.0.0.2 or fe80::2")
	case a.Is4In6():
		bad(c, f, "must not be an IPv4 address in IPv6 form", "write "+a.Unmap().String())
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == limitedBroadcast:
		bad(c, f, "must be the address of one router on the network", "write that of its device, or leave unicast out for multicast")
	case slices.ContainsFunc(addrs, func(v netip.Prefix) bool { return v.Addr() == a }):
		bad(c, f, "is an address of the group itself, which moves", "write the router's own address")
	default:
		p.Addr, ok = a, true
	}
	lo, okLo := c.ttl(raw.minTTL, 1)
	hi, okHi := c.ttl(raw.maxTTL, 255)
	if okLo && okHi && lo > hi {
		bad(c, raw.minTTL, fmt.Sprintf("must be at most max_ttl, which is %d", hi), "write both 255 for routers on the same link only")
		okLo = false
	}
	p.MinTTL, p.MaxTTL = lo, hi
	return p, ok && okLo && okHi
}

func (c *checker) ttl(f field[int], def uint8) (uint8, bool) {
	switch {
	case f.have == absent:
		return def, true
	case f.ok() && !f.key.fits(int64(f.v)):
		bad(c, f, f.key.within(), fmt.Sprintf("write 255 for routers on the same link only, or leave the key out for %d", def))
		return def, false
	case f.ok():
		return uint8(f.v), true
	}
	return def, false
}

// interval checks that adverts can carry the interval, and that outside backups
// give us the time to fail over. In version 2 all must have the same, so there it
// may be the outside routers that leave no choice.
func (c *checker) interval(raw *rawVRRP, v fsm.VRRP) time.Duration {
	f, version := raw.interval, vrrpcompat.Version(v.Version)
	if f.have == broken {
		return DefaultInterval
	}
	if f.have == absent {
		f.v, f.pos = DefaultInterval, raw.pos
	}
	cs, err := vrrpcompat.IntervalOf(version, f.v)
	if err != nil {
		bad(c, f, intervalBounds(version), fmt.Sprintf("write %s, or leave the key out", DefaultInterval))
		return DefaultInterval
	}
	if c.plain() || c.cfg.Lease == 0 {
		return f.v
	}
	text, do := outruns(v, cs, WorstFailover(c.cfg.Lease, c.cfg.Grace()))
	switch {
	case text == "":
	case version == vrrpcompat.V2:
		c.warn(f.pos, f.path, text, do)
	default:
		c.r.add(f.pos, f.path, text, "", do)
	}
	return f.v
}

func intervalBounds(version vrrpcompat.Version) string {
	if version == vrrpcompat.V2 {
		return fmt.Sprintf("must be %s to %s in whole seconds with version 2", time.Second, vrrpcompat.MaxCentisV2.Duration())
	}
	return fmt.Sprintf("must be %s to %s in whole %s", vrrpcompat.Centi, vrrpcompat.MaxCentis.Duration(), vrrpcompat.Centi)
}

// vmac checks that there is an id to make the hardware address of.
func (c *checker) vmac(g rawGroup) bool {
	if g.vmac.ok() && g.vmac.v && g.vrrp == nil {
		bad(c, g.vmac, "a virtual MAC address is made of the VRRP id (RFC 9568, section 7.3), and the group has none", "write vrrp: {id: …}, or leave vmac out")
		return false
	}
	return g.vmac.ok() && g.vmac.v
}

// ethernetMTU is the size of the packet that an advert must fit: adverts are not
// fragmented, and the devices' own MTU is not known here.
const ethernetMTU = 1500

// fits checks that one advert can name all addresses of each family.
func (c *checker) fits(raw rawGroup, g fsm.Group) {
	count := map[vrrpcompat.Family]int{}
	for _, a := range g.Advertised() {
		count[vrrpcompat.FamilyOf(a)]++
	}
	const ip4Header, ip6Header = 20, 40
	room := map[vrrpcompat.Family]int{
		vrrpcompat.IPv4: min(vrrpcompat.MaxAddresses, (ethernetMTU-ip4Header-vrrpcompat.HeaderLen)/4),
		vrrpcompat.IPv6: min(vrrpcompat.MaxAddresses, (ethernetMTU-ip6Header-vrrpcompat.HeaderLen)/16),
	}
	for _, fam := range []vrrpcompat.Family{vrrpcompat.IPv4, vrrpcompat.IPv6} {
		if count[fam] > room[fam] {
			c.r.add(raw.addressesPos, raw.path+".addresses", fmt.Sprintf("%d %s addresses, and one advert has room for %d in %d bytes",
				count[fam], fam, room[fam], ethernetMTU), "", "make two groups of them, each with a VRRP id of its own, or write advertise: false in some")
		}
	}
}

// A vridUse is one group's use of a virtual router id.
type vridUse struct {
	raw   rawGroup
	group fsm.Group
}

// vrid checks the id against those of the groups before. An id names one virtual
// router for each link and family. Which link a group without an interface is on
// is known only by its networks; CheckHost looks again on the host itself.
func (c *checker) vrid(before []vridUse, u vridUse) []vridUse {
	if u.group.VRRP.ID == 0 {
		return before
	}
	for _, b := range before {
		if b.group.VRRP.ID != u.group.VRRP.ID || !sameLink(b.group, u.group) {
			continue
		}
		bad(c, u.raw.vrrp.id, "VRRP id used twice on one link, "+seeAlso(b.raw.vrrp.id), "give each group its own id, or make one group of the two")
		break
	}
	return append(before, u)
}

// sameLink reports whether two groups surely share a link in one family: they
// name the same device and have a family in common, or neither names one and
// their networks overlap.
func sameLink(a, b fsm.Group) bool {
	if a.Interface != b.Interface {
		return false
	}
	for _, p := range a.Addresses {
		for _, q := range b.Addresses {
			if a.Interface == "" && p.Overlaps(q) {
				return true
			}
			if a.Interface != "" && p.Addr().Is4() == q.Addr().Is4() {
				return true
			}
		}
	}
	return false
}
