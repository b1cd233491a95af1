package config

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/quorate/quorate/fsm"
)

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// maxIfName is the longest name of a network device, in bytes (IFNAMSIZ less the
// final zero).
const maxIfName = 15

// groups makes the document.
func (c *checker) groups(raw rawConfig) {
	switch {
	case raw.vips == absent && c.applied:
		c.missing(raw.topPos, "vips", "write at least one group: what is applied replaces the whole document")
	case raw.vips == absent && raw.topPos != (pos{}):
		c.missing(raw.topPos, "vips", "write at least one group; also on a witness, since any node may be the one that forms the cluster")
	case raw.vips == present && len(raw.groups) == 0:
		c.missing(raw.vipsPos, "vips", "write at least one group, such as web: {addresses: [10.0.0.200/24]}")
	}
	seen := map[netip.Addr]field[string]{}
	routes, rules := map[routeKey]field[string]{}, map[fsm.Rule]rawRule{}
	var vrids []vridUse
	for _, g := range raw.groups {
		if text, do := checkName(g.name, ""); text != "" {
			c.r.add(g.pos, g.path, "the name of a group "+text, "", do)
		}
		out := fsm.Group{Name: g.name}
		out.Addresses, out.Specs = c.vips(g, seen)
		out.Interface = c.device(g.iface)
		out.Routes = c.routes(g, out.Addresses, routes)
		out.Rules = c.rules(g, rules)
		out.KeepConnections = g.reset.ok() && !g.reset.v
		out.Placement = c.placement(g.placement)
		out.Announce = c.announce(g)
		c.modeOf(g, &out)
		if g.vrrp != nil && g.vrrp.have == present {
			out.VRRP = c.vrrp(g, out.Addresses)
			c.advertised(g, out)
			c.fits(g, out)
			vrids = c.vrid(vrids, vridUse{raw: g, group: out})
		}
		out.VMAC = c.vmac(g)
		c.cfg.Document.Groups = append(c.cfg.Document.Groups, out)
	}
	c.policies(raw)
}

// vips checks the addresses of a group. seen are those of all groups so far.
func (c *checker) vips(g rawGroup, seen map[netip.Addr]field[string]) (out []netip.Prefix, specs map[netip.Addr]fsm.AddressSpec) {
	if g.addressesHave == absent {
		c.missing(g.pos, g.path+".addresses", "write addresses: [10.0.0.200/24], with the length of the network's prefix")
	}
	if g.addressesHave == present && len(g.addresses) == 0 {
		c.r.add(g.addressesPos, g.path+".addresses", "must name at least one address", "", "write [10.0.0.200/24], or remove the group")
	}
	for _, v := range g.addresses {
		f := v.address
		if f.have == absent {
			c.missing(v.pos, v.path+".address", "write address: 10.0.0.200/24, with the length of the network's prefix")
		}
		if !f.ok() {
			continue
		}
		p, text, do := parseVIP(f.v)
		if text != "" {
			bad(c, f, text, do)
			continue
		}
		if p.Addr().IsLinkLocalUnicast() && g.iface.have == absent && v.iface.have == absent {
			bad(c, f, "is a link-local address, which every device's network contains", "write interface: in the group")
		}
		if first, dup := seen[p.Addr()]; dup {
			bad(c, f, "address written twice, "+seeAlso(first), "keep one of the two")
			continue
		}
		seen[p.Addr()] = f
		c.cfg.where[vipPath(g.name, p)] = f.pos
		out = append(out, p)
		if s := c.spec(g, v, p.Addr()); s != (fsm.AddressSpec{}) {
			if specs == nil {
				specs = map[netip.Addr]fsm.AddressSpec{}
			}
			specs[p.Addr()] = s
		}
	}
	return out, specs
}

// vipPath is the path under which the place of an address is kept. It has the
// address and not its index, which a caller of CheckHost does not know.
func vipPath(group string, p netip.Prefix) string {
	return fmt.Sprintf("vips.%s.addresses[%s]", group, p.Addr())
}

// parseVIP reads an address with its prefix length, and says what is wrong with
// one that no host could hold.
func parseVIP(s string) (p netip.Prefix, text, do string) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, "must be an address with the length of its network's prefix", "write " + suggestVIP(s)
	}
	a, host := p.Addr(), p.Bits() == p.Addr().BitLen()
	switch {
	case a.Is4In6():
		text, do = "must not be an IPv4 address in IPv6 form", "write "+a.Unmap().String()+"/24 with the length of your network"
	case a.IsUnspecified() || a.Is4() && a.As4()[0] == 0:
		text, do = "must not be an unspecified address", "write the address that clients use"
	case a.IsLoopback():
		text, do = "must not be a loopback address: clients on other hosts cannot reach it", "write an address of the clients' network"
	case a.IsMulticast():
		text, do = "must not be a multicast address: it has no owner", "write a unicast address"
	case a == limitedBroadcast:
		text, do = "must not be the broadcast address", "write the address that clients use"
	case p.Bits() == 0:
		text, do = "must not have prefix length 0: the whole internet would be on the device's link", "write the length of the network's prefix"
	case !host && p.Bits() < a.BitLen()-1 && p.Masked().Addr() == a:
		text, do = "is the address of the network itself", "write an address of a host in "+p.String()
	case a.Is4() && p.Bits() < 31 && a == lastOf(p):
		text, do = "is the broadcast address of its network", "write an address of a host in "+p.Masked().String()
	}
	return p, text, do
}

func suggestVIP(s string) string {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return "one such as 10.0.0.200/24 or 2001:db8::200/64"
	case a.WithZone("").Is4():
		return a.String() + "/24, with the length of your network"
	default:
		return a.WithZone("").String() + "/64, with the length of your network"
	}
}

// lastOf is the last address of an IPv4 network.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

var notDevice = fmt.Sprintf("must be the name of a network device, 1 to %d characters without space, / or :", maxIfName)

func isDevice(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= maxIfName && !strings.ContainsAny(s, "/: \t\r\n\v\f\x00%")
}

func (c *checker) placement(f field[string]) fsm.Placement {
	if f.have != absent && c.plain() {
		c.cluster(f.pos, f.path, "where a group goes is the cluster's to say, and there is none: the router with the highest priority has it")
		return fsm.PlacementLeader
	}
	return oneOf(c, f, fsm.PlacementLeader)
}

func (c *checker) announce(g rawGroup) fsm.Announce {
	a := fsm.Announce{Repeat: DefaultRepeat, Refresh: DefaultRefresh}
	if f := g.announceRepeat; f.ok() {
		if !f.key.fits(int64(f.v)) {
			bad(c, f, f.key.within(), fmt.Sprintf("write %d, or leave the key out", DefaultRepeat))
		}
		a.Repeat = f.v
	}
	if f := g.refresh; f.ok() {
		if f.v != 0 && !f.key.lasts(f.v) {
			bad(c, f, "must be 1s or more, or 0 for none", fmt.Sprintf("write %s, or leave the key out", short(DefaultRefresh)))
		}
		a.Refresh = f.v
	}
	return a
}
