package fsm

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

var (
	reachAddr  = netip.MustParseAddr("10.0.0.200")
	reachAddr6 = netip.MustParseAddr("2001:db8::200")
)

// reaching is a document of one group with both families, changed.
func reaching(change func(*Group)) Document {
	return withVRRP(func(g *Group) {
		g.VRRP = VRRP{}
		g.Addresses = []netip.Prefix{netip.PrefixFrom(reachAddr, 24), netip.PrefixFrom(reachAddr6, 64)}
		change(g)
	})
}

func TestCheckReach(t *testing.T) {
	network := netip.MustParsePrefix("192.0.2.0/24")
	via := netip.MustParseAddr("10.0.0.254")
	route := func(change func(*Route)) func(*Group) {
		return func(g *Group) {
			r := Route{To: network, Via: via, Source: reachAddr}
			change(&r)
			g.Routes = []Route{r}
		}
	}
	rule := func(change func(*Rule)) func(*Group) {
		return func(g *Group) {
			r := Rule{From: netip.PrefixFrom(reachAddr, 32), Table: 100}
			change(&r)
			g.Rules = []Rule{r}
		}
	}
	spec := func(a netip.Addr, s AddressSpec) func(*Group) {
		return func(g *Group) { g.Specs = map[netip.Addr]AddressSpec{a: s} }
	}
	for name, tt := range map[string]struct {
		change func(*Group)
		want   string
	}{
		"plain":                     {func(*Group) {}, ""},
		"a spec":                    {spec(reachAddr, AddressSpec{Interface: "eth1", Scope: ScopeLink, Label: "eth1:web", NoPrefixRoute: true}), ""},
		"a spec of another address": {spec(via, AddressSpec{}), "no address of the group"},
		"a device that is none":     {spec(reachAddr, AddressSpec{Interface: "a/b"}), "no name of a device"},
		"a scope of IPv6":           {spec(reachAddr6, AddressSpec{Scope: ScopeLink}), "for IPv4"},
		"a label that is too long":  {spec(reachAddr, AddressSpec{Label: "eth1:abcdefghijk"}), "at most 15 bytes"},
		"a label without its end":   {spec(reachAddr, AddressSpec{Label: "eth1:"}), "DEVICE:TEXT"},
		"nothing advertised": {func(g *Group) {
			g.VRRP = withVRRP(func(*Group) {}).Groups[0].VRRP
			g.Specs = map[netip.Addr]AddressSpec{reachAddr6: {Unadvertised: true}}
		}, "is advertised"},
		"a route":                    {route(func(*Route) {}), ""},
		"a default route":            {route(func(r *Route) { r.To = netip.MustParsePrefix("0.0.0.0/0") }), ""},
		"a route to an address":      {route(func(r *Route) { r.To = netip.PrefixFrom(reachAddr, 24) }), "without bits beyond its prefix"},
		"a route by nothing":         {route(func(r *Route) { r.Via = netip.Addr{} }), "neither via nor interface"},
		"a route by the other":       {route(func(r *Route) { r.Via = netip.MustParseAddr("fe80::1") }), "the same family"},
		"a route by itself":          {route(func(r *Route) { r.Via = reachAddr }), "of the group itself"},
		"a route from elsewhere":     {route(func(r *Route) { r.Source = via }), "may be away"},
		"onlink by no device":        {route(func(r *Route) { r.OnLink = true }), "onlink"},
		"a route in the local table": {route(func(r *Route) { r.Table = 255 }), "the kernel's own"},
		"a rule":                     {rule(func(*Rule) {}), ""},
		"a rule for everything":      {rule(func(r *Rule) { r.From = netip.Prefix{} }), "matches everything"},
		"a rule of two families":     {rule(func(r *Rule) { r.To = netip.PrefixFrom(reachAddr6, 128) }), "one family"},
		"a rule for no table":        {rule(func(r *Rule) { r.Table = 0 }), "table is 0"},
		"a rule of any":              {rule(func(r *Rule) { r.From = netip.MustParsePrefix("0.0.0.0/0") }), "leave it out"},
	} {
		err := reaching(tt.change).Check()
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.want != "" && (!errors.Is(err, ErrBadDocument) || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: error %v, want %q in it", name, err, tt.want)
		}
	}
}

// What the kernel takes for one route or rule is of one group.
func TestRoutesAreOfOneGroup(t *testing.T) {
	d := reaching(func(g *Group) {
		g.Routes = []Route{{To: netip.MustParsePrefix("192.0.2.0/24"), Interface: "eth0"}}
		g.Rules = []Rule{{Mark: 1, Table: 100}}
	})
	second := d.Groups[0]
	second.Name, second.Addresses = "second", []netip.Prefix{netip.MustParsePrefix("10.0.0.222/24")}
	for name, tt := range map[string]struct {
		change func(*Group)
		want   string
	}{
		"both the same":  {func(*Group) {}, "the route to 192.0.2.0/24"},
		"the main table": {func(g *Group) { g.Routes = []Route{{To: g.Routes[0].To, Interface: "eth1", Table: 254}} }, "the route to 192.0.2.0/24"},
		"one rule":       {func(g *Group) { g.Routes = nil }, "one rule"},
		"another metric": {func(g *Group) { g.Routes = []Route{{To: g.Routes[0].To, Interface: "eth0", Metric: 5}}; g.Rules = nil }, ""},
	} {
		g := second
		tt.change(&g)
		both := d
		both.Groups = []Group{d.Groups[0], g}
		if err := both.Check(); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// How an address stands is part of what others rely on; what goes with it is not.
func TestSameReachOfSpecs(t *testing.T) {
	was := reaching(func(*Group) {}).Groups[0]
	for name, tt := range map[string]struct {
		change func(*Group)
		want   bool
	}{
		"a spec that says nothing": {func(g *Group) { g.Specs = map[netip.Addr]AddressSpec{reachAddr: {}} }, true},
		"another device":           {func(g *Group) { g.Specs = map[netip.Addr]AddressSpec{reachAddr: {Interface: "eth1"}} }, false},
		"another scope":            {func(g *Group) { g.Specs = map[netip.Addr]AddressSpec{reachAddr: {Scope: ScopeLink}} }, false},
		"not advertised":           {func(g *Group) { g.Specs = map[netip.Addr]AddressSpec{reachAddr: {Unadvertised: true}} }, true},
		"a route":                  {func(g *Group) { g.Routes = []Route{{Interface: "eth0"}} }, true},
		"a rule":                   {func(g *Group) { g.Rules = []Rule{{Mark: 1, Table: 100}} }, true},
		"connections kept":         {func(g *Group) { g.KeepConnections = true }, true},
	} {
		is := was
		tt.change(&is)
		if got := SameReach(was, is); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
