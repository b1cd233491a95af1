package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/quorate/quorate/fsm"
)

// tableLocal is the kernel's own table of local addresses, and tableMain the one
// that is used unless a rule says otherwise (rtnetlink(7)).
const (
	tableMain  = 254
	tableLocal = 255
)

// maxAlong is how many routes a group may have, and how many rules.
const maxAlong = 256

// advertised checks that adverts have an address to name, in each family of the group.
func (c *checker) advertised(raw rawGroup, g fsm.Group) {
	if g.VRRP.ID == 0 {
		return
	}
	families := map[bool]bool{} // by whether it is IPv4
	for _, a := range g.Advertised() {
		families[a.Is4()] = true
	}
	for _, v := range raw.addresses {
		p, err := netip.ParsePrefix(v.address.v)
		if err == nil && v.advertise.ok() && !v.advertise.v && !families[p.Addr().Is4()] {
			bad(c, v.advertise, "would leave adverts without an address in its family, and they need one",
				"remove the key from one of them, or put these into a group of their own without vrrp, together with this one")
			return
		}
	}
}

// spec checks how one address stands on a host. It is zero where all is as usual.
func (c *checker) spec(g rawGroup, v rawVIP, a netip.Addr) fsm.AddressSpec {
	s := fsm.AddressSpec{Interface: c.device(v.iface), NoPrefixRoute: v.noPrefixRoute.ok() && v.noPrefixRoute.v}
	if f := v.scope; f.ok() && !a.Is4() {
		bad(c, f, "is for IPv4: the kernel gives an IPv6 address the scope that its number says", "remove the key")
	} else if scope := oneOf(c, f, fsm.ScopeGlobal); scope != fsm.ScopeGlobal {
		s.Scope = scope
	}
	if f := v.advertise; f.ok() && !f.v {
		s.Unadvertised = true
		if g.vrrp == nil {
			bad(c, f, "is about VRRP adverts, and the group has none", "remove the key, or write vrrp: {id: …} in the group")
		}
	}
	device := s.Interface
	if device == "" && g.iface.ok() {
		device = g.iface.v
	}
	if f := v.label; f.ok() {
		s.Label = f.v
		c.label(f, a, device)
	}
	return s
}

// label checks the name that older tools show an address under.
func (c *checker) label(f field[string], a netip.Addr, device string) {
	named, text, has := strings.Cut(f.v, ":")
	odd := strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' })
	example := "eth0:web"
	if device != "" {
		example = device + ":web"
	}
	switch {
	case !a.Is4():
		bad(c, f, "is for IPv4: the kernel keeps no label of an IPv6 address", "remove the key")
	case len(f.v) > maxIfName:
		bad(c, f, fmt.Sprintf("must have at most %d bytes, has %d", maxIfName, len(f.v)), "write a shorter text after the device")
	case !isDevice(named) || has && text == "" || odd:
		bad(c, f, "must be DEVICE or DEVICE:TEXT", "write one such as "+example)
	case device != "" && named != device:
		bad(c, f, "must begin with the device of the address, "+device, "write one such as "+example)
	}
	c.cfg.where[f.path] = f.pos
}

// device checks the name of a network device that can hold an address, or lead somewhere.
func (c *checker) device(f field[string]) string {
	if !f.ok() {
		return ""
	}
	c.cfg.where[f.path] = f.pos
	switch {
	case !isDevice(f.v):
		bad(c, f, notDevice, "write one that ip link shows, such as eth0")
	case f.v == "lo":
		bad(c, f, "must not be the loopback device, which no other host can reach", "write the device of the clients' network")
	}
	return f.v
}

// A routeKey is what the kernel tells routes apart by.
type routeKey struct {
	to            netip.Prefix
	table, metric uint32
}

// routes checks the routes of a group with these addresses; seen are those of all
// groups so far.
func (c *checker) routes(g rawGroup, addrs []netip.Prefix, seen map[routeKey]field[string]) []fsm.Route {
	var out []fsm.Route
	if n := len(g.routes); n > maxAlong {
		c.r.add(g.routes[0].pos, g.path+".routes", fmt.Sprintf("must be at most %d, are %d", maxAlong, n), "", "write fewer, larger networks, or have a routing daemon do it")
	}
	for _, raw := range g.routes {
		r, ok := c.route(raw, addrs)
		if !ok {
			continue
		}
		key := routeKey{r.To, r.Table, r.Metric}
		if first, dup := seen[key]; dup {
			bad(c, raw.to, "route written twice, "+seeAlso(first)+": the same network in the same table with the same metric", "keep one of the two, or give one another metric")
			continue
		}
		seen[key] = raw.to
		c.cfg.where[routePath(g.name, r.To, r.Table, r.Metric)] = raw.pos
		out = append(out, r)
	}
	return out
}

// routePath is the path under which the place of a route is kept, without its index.
func routePath(group string, to netip.Prefix, table, metric uint32) string {
	path := fmt.Sprintf("vips.%s.routes[%s", group, to)
	if table != 0 {
		path += fmt.Sprintf(" table %d", table)
	}
	if metric != 0 {
		path += fmt.Sprintf(" metric %d", metric)
	}
	return path + "]"
}

func (c *checker) route(raw rawRoute, addrs []netip.Prefix) (r fsm.Route, ok bool) {
	before := len(c.r.errs) + c.r.more
	if raw.to.have == absent {
		c.missing(raw.pos, raw.path+".to", "write to: with the network, such as 192.0.2.0/24, or 0.0.0.0/0 for everything")
	}
	r.Via = c.nextHop(raw, addrs)
	r.To = c.target(raw)
	r.Interface = c.device(raw.iface)
	r.Source = c.source(raw.source, r.To, addrs)
	r.OnLink = raw.onLink.ok() && raw.onLink.v
	if r.Table = c.table(raw.table, "leave the key out for main, or write another"); r.Table == tableMain {
		r.Table = 0
	}
	r.Metric = c.positive(raw.metric, "leave the key out for the kernel's default, or write 1 or more")
	switch {
	case raw.via.have == absent && raw.iface.have == absent:
		c.missing(raw.pos, raw.path+".via", "write via: with the next hop, or interface: for a network on the link itself")
	case r.OnLink && raw.via.have == absent:
		bad(c, raw.onLink, "is about the next hop, and the route has none", "remove the key, or write via:")
	case r.OnLink && raw.iface.have == absent:
		bad(c, raw.onLink, "needs interface: no network says on which device the next hop is", "write interface: beside it")
	case r.Via.IsValid() && r.To.IsValid() && r.Via.Is4() != r.To.Addr().Is4():
		bad(c, raw.via, fmt.Sprintf("is of another family than %s", r.To), "write a next hop of the same family, or another route")
	case r.Via.IsLinkLocalUnicast() && raw.iface.have == absent:
		bad(c, raw.via, "is a link-local address, which every device's network contains", "write interface: beside it")
	}
	whole := !slices.Contains([]state{raw.via.have, raw.iface.have, raw.source.have, raw.table.have, raw.metric.have, raw.onLink.have}, broken)
	return r, whole && raw.to.ok() && len(c.r.errs)+c.r.more == before
}

// target reads the network that a route is for.
func (c *checker) target(raw rawRoute) netip.Prefix {
	f := raw.to
	if f.ok() && f.v == "default" {
		a, err := netip.ParseAddr(raw.via.v)
		switch {
		case err == nil && a.Is4():
			return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		case err == nil:
			return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		bad(c, f, "without via it is of no family", "write 0.0.0.0/0 or ::/0")
		return netip.Prefix{}
	}
	return c.network(f)
}

// network reads a network, without bits beyond its prefix.
func (c *checker) network(f field[string]) netip.Prefix {
	if !f.ok() {
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(f.v)
	switch a, alone := netip.ParseAddr(f.v); {
	case err != nil && alone == nil && a.Zone() == "":
		bad(c, f, "must be a network, with the length of its prefix", fmt.Sprintf("write %s/%d for this one address", a.Unmap(), a.Unmap().BitLen()))
	case err != nil:
		bad(c, f, "must be a network, with the length of its prefix", "write one such as 192.0.2.0/24 or 2001:db8::/48")
	case p.Addr().Is4In6():
		bad(c, f, "must not be an IPv4 network in IPv6 form", "write it as one such as 192.0.2.0/24")
	case p != p.Masked():
		bad(c, f, "is an address in a network, and not the network", "write "+p.Masked().String()+", or "+netip.PrefixFrom(p.Addr(), p.Addr().BitLen()).String()+" for the one address")
	default:
		return p
	}
	return netip.Prefix{}
}

func (c *checker) nextHop(raw rawRoute, addrs []netip.Prefix) netip.Addr {
	f := raw.via
	if !f.ok() {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(f.v)
	switch {
	case err != nil:
		bad(c, f, "must be the address of a router", "write one such as 10.0.0.254 or fe80::1")
	case a.Zone() != "":
		bad(c, f, "must be an address without a zone", "write "+a.WithZone("").String()+", and interface: "+a.Zone()+" beside it")
	case a.Is4In6():
		bad(c, f, "must not be an IPv4 address in IPv6 form", "write "+a.Unmap().String())
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == limitedBroadcast:
		bad(c, f, "must be the address of one router on the link", "write that of the next hop, or leave the key out and write interface:")
	case slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Addr() == a }):
		bad(c, f, "is an address of the group itself: a host is no next hop of its own", "write the router's address")
	default:
		return a
	}
	return netip.Addr{}
}

// source checks the address that the host's own traffic goes from. Another than one of
// the group's could be away while the route is there.
func (c *checker) source(f field[string], to netip.Prefix, addrs []netip.Prefix) netip.Addr {
	if !f.ok() {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(f.v)
	if err == nil {
		for _, p := range addrs {
			if p.Addr() == a && to.IsValid() && to.Addr().Is4() != a.Is4() {
				bad(c, f, "is of another family than "+to.String(), "write an address of the same family, or leave the key out")
			}
			if p.Addr() == a {
				return a
			}
		}
	}
	own := make([]string, 0, len(addrs))
	for _, p := range addrs {
		if !to.IsValid() || p.Addr().Is4() == to.Addr().Is4() {
			own = append(own, p.Addr().String())
		}
	}
	do := "leave the key out"
	if len(own) > 0 {
		do = "write " + strings.Join(own[:min(len(own), 5)], " or ") + ", or leave the key out"
	}
	bad(c, f, "must be an address of the group, which is there whenever the route is", do)
	return netip.Addr{}
}

// table checks the number of a routing table.
func (c *checker) table(f field[uint32], do string) uint32 {
	switch {
	case !f.ok():
		return 0
	case !f.key.fits(int64(f.v)):
		bad(c, f, f.key.within()+", and not 255: 0 is no table", do)
	case f.v == tableLocal:
		bad(c, f, "is the kernel's own table of local addresses, which it fills by itself", do)
	}
	return f.v
}

func (c *checker) positive(f field[uint32], do string) uint32 {
	if f.ok() && !f.key.fits(int64(f.v)) {
		bad(c, f, f.key.within(), do)
	}
	return f.v
}

// rules checks the rules of a group; seen are those of all groups so far.
func (c *checker) rules(g rawGroup, seen map[fsm.Rule]rawRule) []fsm.Rule {
	var out []fsm.Rule
	if n := len(g.rules); n > maxAlong {
		c.r.add(g.rules[0].pos, g.path+".rules", fmt.Sprintf("must be at most %d, are %d", maxAlong, n), "", "write fewer, for larger networks")
	}
	for _, raw := range g.rules {
		before := len(c.r.errs) + c.r.more
		r := c.rule(raw)
		whole := !slices.Contains([]state{raw.from.have, raw.to.have, raw.iface.have, raw.mark.have, raw.priority.have}, broken)
		if len(c.r.errs)+c.r.more > before || !whole || raw.table.have != present {
			continue
		}
		if first, dup := seen[r]; dup {
			c.r.add(raw.pos, raw.path, fmt.Sprintf("rule written twice, first at line %d column %d (%s)", first.pos.line, first.pos.column, first.path), "", "keep one of the two")
			continue
		}
		seen[r] = raw
		c.cfg.where[rulePath(g.name, r)] = raw.pos
		out = append(out, r)
	}
	return out
}

// rulePath is the path under which the place of a rule is kept, without its index.
func rulePath(group string, r fsm.Rule) string {
	var parts []string
	part := func(name string, v any, set bool) {
		if set {
			parts = append(parts, fmt.Sprintf("%s %v", name, v))
		}
	}
	part("from", r.From, r.From.IsValid())
	part("to", r.To, r.To.IsValid())
	part("interface", r.Interface, r.Interface != "")
	part("mark", r.Mark, r.Mark != 0)
	part("table", r.Table, true)
	part("priority", r.Priority, r.Priority != 0)
	return fmt.Sprintf("vips.%s.rules[%s]", group, strings.Join(parts, " "))
}

func (c *checker) rule(raw rawRule) fsm.Rule {
	if raw.table.have == absent {
		c.missing(raw.pos, raw.path+".table", "write table: with the number of the routing table to look in")
	}
	r := fsm.Rule{
		From: c.selector(raw.from), To: c.selector(raw.to),
		Mark:  c.positive(raw.mark, "write the mark that a firewall sets, or leave the key out for any"),
		Table: c.table(raw.table, "write the table that the group's routes are in, such as 100"),
		Priority: c.positive(raw.priority, "leave the key out for the kernel's choice, just before the rules that there are; "+
			"at 0 is the kernel's own rule for local addresses"),
	}
	if f := raw.iface; f.ok() {
		if r.Interface = f.v; !isDevice(f.v) {
			bad(c, f, notDevice, "write the device that the traffic comes in by, such as eth0; lo is for that of the host itself")
		}
		c.cfg.where[f.path] = f.pos
	}
	if raw.from.have == absent && raw.to.have == absent && raw.iface.have == absent && raw.mark.have == absent {
		c.r.add(raw.pos, raw.path, "selects nothing, and would send all traffic of the host to the table", "", "write from: with an address of the group, or to:, interface: or mark:")
	}
	if r.From.IsValid() && r.To.IsValid() && r.From.Addr().Is4() != r.To.Addr().Is4() {
		bad(c, raw.to, "is of another family than from, "+r.From.String()+": nothing matches both", "write both of one family")
	}
	return r
}

// selector reads what a rule matches. All addresses together are no selection.
func (c *checker) selector(f field[string]) netip.Prefix {
	p := c.network(f)
	if p.IsValid() && p.Bits() == 0 {
		bad(c, f, "matches everything, and would send all traffic of the host to the table", "write an address of the group with its whole length, such as 10.0.0.200/32, or leave the key out")
	}
	return p
}
