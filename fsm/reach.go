package fsm

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// An AddressSpec is how one address of a group stands on a host, beyond its prefix.
// The zero value is how addresses usually stand.
type AddressSpec struct {
	Interface     string // empty: the group's
	Scope         Scope  // zero: global
	Label         string // IPv4 only, DEVICE or DEVICE:TEXT, at most 15 bytes; empty: the device's name
	NoPrefixRoute bool   // no route for the address's network comes with it
	Unadvertised  bool   // VRRP adverts do not list it: routers outside know of the others only
}

// Standing is how an address of the group stands on a host, without what is only said of
// it elsewhere.
func (g Group) Standing(a netip.Addr) AddressSpec {
	s := g.Specs[a]
	s.Unadvertised = false
	return s
}

// Advertised returns the group's addresses that VRRP adverts list.
func (g Group) Advertised() []netip.Addr {
	return slices.DeleteFunc(g.Addrs(), func(a netip.Addr) bool { return g.Specs[a].Unadvertised })
}

// A Scope is how far an address or a route reaches (rtnetlink(7)).
type Scope uint8

const (
	_ Scope = iota
	ScopeGlobal
	ScopeSite
	ScopeLink
	ScopeHost
)

// String is the scope's word in the configuration file.
func (s Scope) String() string {
	switch s {
	case ScopeGlobal:
		return "global"
	case ScopeSite:
		return "site"
	case ScopeLink:
		return "link"
	case ScopeHost:
		return "host"
	}
	return fmt.Sprintf("scope(%d)", uint8(s))
}

// A Route is one that the owner of a group has. Via or Interface is set, or both.
type Route struct {
	To        netip.Prefix // masked; 0.0.0.0/0 or ::/0 is the default route
	Via       netip.Addr   // the next hop, of To's family; zero: none, To is on the link
	Interface string       // empty: the device whose network contains Via
	Source    netip.Addr   // what the host's own traffic goes from; zero: the kernel chooses
	Table     uint32       // zero: main
	Metric    uint32       // zero: the kernel's default
	OnLink    bool         // Via is on the link although no network of the device contains it
}

// String is the route as ip-route(8) writes it.
func (r Route) String() string {
	s := r.To.String()
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	if r.Interface != "" {
		s += " dev " + r.Interface
	}
	if r.Source.IsValid() {
		s += " src " + r.Source.String()
	}
	if r.Table != 0 {
		s += fmt.Sprintf(" table %d", r.Table)
	}
	if r.Metric != 0 {
		s += fmt.Sprintf(" metric %d", r.Metric)
	}
	if r.OnLink {
		s += " onlink"
	}
	return s
}

// A Rule sends what it matches to a routing table (ip-rule(8)): source-based routing
// for a group's own addresses.
type Rule struct {
	From, To  netip.Prefix // zero: any; at least one of From, To, Interface and Mark is set
	Interface string       // incoming device; empty: any
	Mark      uint32       // firewall mark; zero: any
	Table     uint32       // 1 to 2^32-1
	Priority  uint32       // zero: the kernel chooses
}

// String is the rule as ip-rule(8) writes it.
func (r Rule) String() string {
	s := ""
	if r.From.IsValid() {
		s += "from " + r.From.String() + " "
	}
	if r.To.IsValid() {
		s += "to " + r.To.String() + " "
	}
	if r.Interface != "" {
		s += "iif " + r.Interface + " "
	}
	if r.Mark != 0 {
		s += fmt.Sprintf("fwmark %d ", r.Mark)
	}
	s += fmt.Sprintf("lookup %d", r.Table)
	if r.Priority != 0 {
		s += fmt.Sprintf(" priority %d", r.Priority)
	}
	return s
}

const (
	maxAlong   = 256        // routes of a group, and rules
	tableLocal = 255        // the kernel's own, of local addresses (rtnetlink(7))
	tableMain  = 254        // where a route without a table goes
	maxRule    = 0x7fffffff // priority of a rule; the kernel's own stand at 0, 32766 and 32767
)

func isDevice(name string) bool {
	return name != "" && len(name) <= maxDevice && !strings.ContainsAny(name, "/ \t\n\x00")
}

// checkReach reports the first rule that the group breaks in how its addresses stand and
// what goes with them.
func (g Group) checkReach() error {
	addrs := g.Addrs()
	for _, a := range sortedAddrs(g.Specs) {
		if !slices.Contains(addrs, a) {
			return fmt.Errorf("how %s stands is said, and it is no address of the group", a)
		}
		if err := g.Specs[a].check(a); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	for _, a := range addrs {
		said := func(o netip.Addr) bool { return o.Is4() == a.Is4() }
		if g.VRRP.ID != 0 && !slices.ContainsFunc(g.Advertised(), said) {
			return fmt.Errorf("no address of the family of %s is advertised, and a virtual router has one at least", a)
		}
	}
	if len(g.Routes) > maxAlong || len(g.Rules) > maxAlong {
		return fmt.Errorf("%d routes and %d rules, want at most %d of each", len(g.Routes), len(g.Rules), maxAlong)
	}
	for i, r := range g.Routes {
		if err := r.check(addrs); err != nil {
			return fmt.Errorf("routes[%d], to %s: %w", i, r.To, err)
		}
	}
	for i, r := range g.Rules {
		if err := r.check(); err != nil {
			return fmt.Errorf("rules[%d]: %w", i, err)
		}
	}
	return nil
}

func sortedAddrs(specs map[netip.Addr]AddressSpec) []netip.Addr {
	out := make([]netip.Addr, 0, len(specs))
	for a := range specs {
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

func (s AddressSpec) check(a netip.Addr) error {
	device, text, has := strings.Cut(s.Label, ":")
	switch {
	case s.Interface != "" && !isDevice(s.Interface):
		return fmt.Errorf("interface: %q is no name of a device (1 to %d bytes, no space, no slash)", s.Interface, maxDevice)
	case s.Scope > ScopeHost:
		return fmt.Errorf("unknown %v", s.Scope)
	case !a.Is4() && (s.Scope > ScopeGlobal || s.Label != ""):
		return errors.New("scope and label are for IPv4; take them out")
	case s.Label != "" && (len(s.Label) > maxDevice || !isDevice(device) || has && !isDevice(text)):
		return fmt.Errorf("label is %q, want DEVICE or DEVICE:TEXT of at most %d bytes", s.Label, maxDevice)
	}
	return nil
}

// check reports what is wrong with a route of a group with these addresses.
func (r Route) check(addrs []netip.Addr) error {
	sameFamily := func(a netip.Addr) bool { return a.Is4() == r.To.Addr().Is4() && !a.Is4In6() && a.Zone() == "" }
	switch {
	case !r.To.IsValid() || r.To != r.To.Masked() || r.To.Addr().Is4In6():
		return fmt.Errorf("to is %s, want a network without bits beyond its prefix", r.To)
	case !r.Via.IsValid() && r.Interface == "":
		return errors.New("neither via nor interface; write one of them, or both")
	case r.Via.IsValid() && !sameFamily(r.Via):
		return fmt.Errorf("via is %s, want an address of the same family, without a zone", r.Via)
	case slices.Contains(addrs, r.Via):
		return fmt.Errorf("via is %s, an address of the group itself; write the next router's", r.Via)
	case r.Interface != "" && !isDevice(r.Interface):
		return fmt.Errorf("interface: %q is no name of a device (1 to %d bytes, no space, no slash)", r.Interface, maxDevice)
	case r.OnLink && (!r.Via.IsValid() || r.Interface == ""):
		return errors.New("onlink says that via is on the link of interface; write both, or take it out")
	case r.Source.IsValid() && (!sameFamily(r.Source) || !slices.Contains(addrs, r.Source)):
		return fmt.Errorf("source is %s, want an address of the group, of the same family: another may be away while the route is there", r.Source)
	case r.Table == tableLocal:
		return fmt.Errorf("table is %d, which is the kernel's own", r.Table)
	}
	return nil
}

func (r Rule) check() error {
	for _, p := range []netip.Prefix{r.From, r.To} {
		if p.IsValid() && (p.Bits() == 0 || p != p.Masked() || p.Addr().Is4In6()) {
			return fmt.Errorf("%s is no network, which has 1 bit at least and none beyond its prefix; write %s, or leave it out for any", p, p.Masked())
		}
	}
	switch {
	case !r.From.IsValid() && !r.To.IsValid() && r.Interface == "" && r.Mark == 0:
		return errors.New("it matches everything; write from, to, interface or mark")
	case r.From.IsValid() && r.To.IsValid() && r.From.Addr().Is4() != r.To.Addr().Is4():
		return fmt.Errorf("from is %s and to is %s, want two of one family", r.From, r.To)
	case r.Interface != "" && !isDevice(r.Interface):
		return fmt.Errorf("interface: %q is no name of a device (1 to %d bytes, no space, no slash)", r.Interface, maxDevice)
	case r.Table == 0 || r.Table == tableLocal:
		return fmt.Errorf("table is %d, want the number of a routing table that is not the kernel's own", r.Table)
	case r.Priority > maxRule:
		return fmt.Errorf("priority is %d, want at most %d", r.Priority, maxRule)
	}
	return nil
}

// checkShared: what the kernel takes for one route or rule is of one group, or its end
// would take it from the other.
func (d Document) checkShared() error {
	type routeKey struct {
		to            netip.Prefix
		table, metric uint32
	}
	routes, rules := map[routeKey]string{}, map[Rule]string{}
	for _, g := range d.Groups {
		for _, r := range g.Routes {
			key := routeKey{r.To, r.Table, r.Metric}
			if key.table == 0 {
				key.table = tableMain
			}
			if other, had := routes[key]; had {
				return fmt.Errorf("the route to %s in table %d with metric %d is in group %q and in %q; give one of them another metric, or take it out",
					key.to, key.table, key.metric, other, g.Name)
			}
			routes[key] = g.Name
		}
		for _, r := range g.Rules {
			if other, had := rules[r]; had {
				return fmt.Errorf("one rule for table %d is in group %q and in %q; take one out", r.Table, other, g.Name)
			}
			rules[r] = g.Name
		}
	}
	return nil
}
