package keepalived

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A route is one line of virtual_routes that can be carried over.
type route struct {
	to, src       netip.Prefix // src: of one address; not valid: none
	via           netip.Addr
	dev           string
	table, metric uint32
	onlink        bool
	at            pos
}

// A rule is one line of virtual_rules that can be carried over.
type rule struct {
	from, to              netip.Prefix
	dev                   string
	mark, table, priority uint32
	at                    pos
}

// routeTypes are the words of ip-route(8) for routes that lead nowhere, or are the
// kernel's own.
var routeTypes = []string{"blackhole", "unreachable", "prohibit", "throw", "local", "broadcast", "multicast", "anycast", "nat", "xresolve"}

// readRoutes reads virtual_routes.
func (n *node) readRoutes(s *statement) []route { return readLines(n, s, "routes: ", n.readRoute) }

// readRules reads virtual_rules.
func (n *node) readRules(s *statement) []rule { return readLines(n, s, "rules: ", n.readRule) }

// readLines reads a block whose lines each become an item of a key; why of read says what
// makes one impossible to carry over.
func readLines[T interface{ yaml() string }](n *node, s *statement, key string, read func(*statement) (item T, why string)) []T {
	n.empty(s)
	var out []T
	for _, e := range s.block {
		item, why := read(e)
		if why != "" {
			n.say(e, Lost, why)
			continue
		}
		n.carried(e, key+item.yaml())
		out = append(out, item)
	}
	return out
}

// readRoute reads a line in the syntax of ip route.
func (n *node) readRoute(e *statement) (r route, why string) {
	r.at = e.at
	words, dest := e.texts(0), ""
	for i := 0; i < len(words); i++ {
		w, arg := words[i], ""
		takes := func() string {
			if i++; i < len(words) {
				arg = words[i]
			}
			return arg
		}
		var ok bool
		switch {
		case slices.Contains(routeTypes, w):
			return r, w + ": here a route leads to a next hop or a device; choose: such a route on all nodes, or set it from hooks"
		case w == "or" || w == "nexthop":
			return r, "several next hops: a route here has one; choose: two routes with different metric"
		case w == "to":
			dest = takes()
		case w == "via" || w == "gw":
			if takes(); arg == "inet" || arg == "inet6" {
				takes()
			}
			a, err := netip.ParseAddr(arg)
			if err != nil || a.Zone() != "" {
				return r, "the next hop is no address"
			}
			r.via = a
		case w == "dev" || w == "oif":
			if why := unusableDevice(takes()); why != "" {
				return r, why
			}
			r.dev = arg
		case w == "src":
			a, err := netip.ParseAddr(takes())
			if err != nil {
				return r, "src is no address"
			}
			r.src = netip.PrefixFrom(a, a.BitLen())
		case w == "table":
			if r.table, ok = tableNumber(takes()); !ok || r.table == 255 {
				return r, "table " + arg + ": the number of a table is needed, and not that of the kernel's own; choose: its number, from /etc/iproute2/rt_tables"
			}
			if r.table == 254 {
				r.table = 0 // main, as by default
			}
		case w == "metric" || w == "preference" || w == "priority":
			if r.metric, ok = number(takes()); !ok {
				return r, w + " " + arg + " is no number"
			}
		case w == "onlink":
			r.onlink = true
		case w == "no_track":
			n.report.add(e.at, NotApplicable, w, "a route that is removed by somebody else is put back")
		case w == "add" || w == "append" || w == "prepend" || w == "unicast":
		case w == "proto" || w == "protocol" || w == "scope":
			n.report.add(e.at, NotApplicable, w+" "+takes(), "routes bear quorate's own mark, and have the scope that follows of the next hop")
		case dest == "":
			dest = w
		default:
			return r, w + ": not an option of a route here; choose: set it from hooks"
		}
	}
	return r, r.finish(dest)
}

// finish reads the destination, and says what no host could do.
func (r *route) finish(dest string) string {
	to, ok := network(dest)
	switch {
	case dest == "default" && r.via.Is4():
		to, ok = netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
	case dest == "default" && r.via.IsValid():
		to, ok = netip.PrefixFrom(netip.IPv6Unspecified(), 0), true
	}
	switch {
	case !ok:
		return "its destination is no network; keepalived ignores the line too"
	case !r.via.IsValid() && r.dev == "":
		return "neither a next hop nor a device"
	case r.via.IsValid() && r.via.Is4() != to.Addr().Is4():
		return "the next hop is of another family"
	case r.via.IsUnspecified() || r.via.IsMulticast() || r.via.IsLoopback():
		return "the next hop is not the address of one router"
	case r.via.IsLinkLocalUnicast() && r.dev == "":
		return "the next hop is in every device's network; choose: dev"
	case r.onlink && (r.dev == "" || !r.via.IsValid()):
		return "onlink needs a next hop and a device"
	case r.src.IsValid() && r.src.Addr().Is4() != to.Addr().Is4():
		return "src is of another family"
	}
	r.to = to
	return ""
}

// readRule reads a line in the syntax of ip rule.
func (n *node) readRule(e *statement) (r rule, why string) {
	r.at = e.at
	words := e.texts(0)
	for i := 0; i < len(words); i++ {
		w, arg := words[i], ""
		if i+1 < len(words) {
			arg = words[i+1]
		}
		ok := true
		switch w {
		case "from", "to":
			p, isNet := network(arg)
			if ok = isNet || arg == "all" || arg == "any" || arg == "default"; ok && isNet && p.Bits() > 0 {
				if w == "from" {
					r.from = p
				} else {
					r.to = p
				}
			}
		case "table", "lookup":
			r.table, ok = tableNumber(arg)
			ok = ok && r.table != 255
		case "priority", "preference", "pref", "order":
			r.priority, ok = number(arg)
		case "iif", "dev":
			r.dev, ok = arg, arg == "lo" || unusableDevice(arg) == ""
		case "fwmark":
			r.mark, ok = number(arg)
		case "no_track":
			n.report.add(e.at, NotApplicable, w, "a rule that is removed by somebody else is put back")
			continue
		default:
			return r, w + ": not an option of a rule here; choose: set it from hooks"
		}
		if !ok {
			return r, strings.TrimSpace(w+" "+arg) + ": not what a rule here can have; a table is a number, and not that of the kernel's own; choose: set it from hooks"
		}
		i++
	}
	switch {
	case r.table == 0:
		return r, "no table; choose: set it from hooks"
	case !r.from.IsValid() && !r.to.IsValid() && r.dev == "" && r.mark == 0:
		return r, "it selects nothing, and would send all traffic of the host to the table; choose: from with an address of the group"
	case r.from.IsValid() && r.to.IsValid() && r.from.Addr().Is4() != r.to.Addr().Is4():
		return r, "from and to are of two families"
	}
	return r, ""
}

// network reads a network, or one address. Bits beyond the prefix are left out, as
// keepalived and the kernel do.
func network(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil && !p.Addr().Is4In6() {
		return p.Masked(), true
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" && !a.Is4In6() {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	return netip.Prefix{}, false
}

// tableNumber knows the names that every host has.
func tableNumber(s string) (uint32, bool) {
	switch s {
	case "main":
		return 254, true
	case "default":
		return 253, true
	}
	return number(s)
}

// number reads what is more than 0 and has 32 bits, decimal or hexadecimal.
func number(s string) (uint32, bool) {
	v, err := strconv.ParseUint(s, 0, 32)
	return uint32(v), err == nil && v > 0
}

// routes gives the group those of its instance that it can have.
func (t *translation) routes(m *merged, g *group) {
	f := m.first()
	for _, in := range m.all[1:] {
		if !sameRoutes(in, f) {
			t.report.add(in.at, Decision, in.name, fmt.Sprintf("the routes or rules are not those of %s, and they are the same for all nodes; choose: those of %s, as they are written, or the others", f.node.name, f.node.name))
		}
	}
	for _, r := range f.routes {
		switch key := r.key(); {
		case g.holds(r.via):
			t.report.instead(r.at, Lost, r.to.String(), "the next hop is an address of the group itself")
			continue
		case t.routesSeen[key]:
			t.report.instead(r.at, Lost, r.to.String(), "the same network is in the same table with the same metric already: the second would take the first away; choose: another metric")
			continue
		default:
			t.routesSeen[key] = true
		}
		g.routes = append(g.routes, r)
	}
	t.ownSources(g)
	for _, r := range f.rules {
		if key := r.yaml(); t.rulesSeen[key] {
			t.report.instead(r.at, Lost, r.yaml(), "the same rule is there already: the second would take the first away")
		} else {
			t.rulesSeen[key] = true
			g.rules = append(g.rules, r)
		}
	}
}

func (g *group) holds(a netip.Addr) bool {
	return slices.ContainsFunc(g.addresses, func(p netip.Prefix) bool { return p.Addr() == a })
}

// ownSources leaves out sources of routes that are no addresses of the group.
func (t *translation) ownSources(g *group) {
	for i, r := range g.routes {
		if r.src.IsValid() && !g.holds(r.src.Addr()) {
			t.report.add(r.at, Lost, "src "+r.src.Addr().String(), "not an address of the group, which could be away while the route is there; the kernel chooses")
			g.routes[i].src = netip.Prefix{}
		}
	}
}

func sameRoutes(a, b *instance) bool {
	return slices.EqualFunc(a.routes, b.routes, func(x, y route) bool { return x.yaml() == y.yaml() }) &&
		slices.EqualFunc(a.rules, b.rules, func(x, y rule) bool { return x.yaml() == y.yaml() })
}

// key is what the kernel tells routes apart by.
func (r route) key() string { return fmt.Sprintf("%s %d %d", r.to, r.table, r.metric) }

func (r route) yaml() string {
	out := []string{"to: " + scalar(r.to.String())}
	if r.via.IsValid() {
		out = append(out, "via: "+scalar(r.via.String()))
	}
	if r.dev != "" {
		out = append(out, "interface: "+scalar(r.dev))
	}
	if r.src.IsValid() {
		out = append(out, "source: "+scalar(r.src.Addr().String()))
	}
	if r.table != 0 {
		out = append(out, fmt.Sprintf("table: %d", r.table))
	}
	if r.metric != 0 {
		out = append(out, fmt.Sprintf("metric: %d", r.metric))
	}
	if r.onlink {
		out = append(out, "onlink: true")
	}
	return "{" + strings.Join(out, ", ") + "}"
}

func (r rule) yaml() string {
	var out []string
	if r.from.IsValid() {
		out = append(out, "from: "+scalar(r.from.String()))
	}
	if r.to.IsValid() {
		out = append(out, "to: "+scalar(r.to.String()))
	}
	if r.dev != "" {
		out = append(out, "interface: "+scalar(r.dev))
	}
	if r.mark != 0 {
		out = append(out, fmt.Sprintf("mark: %d", r.mark))
	}
	out = append(out, fmt.Sprintf("table: %d", r.table))
	if r.priority != 0 {
		out = append(out, fmt.Sprintf("priority: %d", r.priority))
	}
	return "{" + strings.Join(out, ", ") + "}"
}
