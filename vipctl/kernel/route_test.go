package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vipctl/internal/nstest"
)

var (
	pfx = netip.MustParsePrefix
	ip  = netip.MustParseAddr
)

// marked returns the routes and rules that bear our mark.
func marked(t *testing.T, k *Kernel) (routes []fsm.Route, rules []fsm.Rule) {
	t.Helper()
	v := look(t, k)
	links, err := k.links()
	if err := errors.Join(err, v.findRoutes()); err != nil {
		t.Fatal(err)
	}
	for _, r := range v.routes {
		routes = append(routes, r.public(links[r.device].Name))
	}
	for _, r := range v.rules {
		rules = append(rules, public(r))
	}
	return routes, rules
}

// public keeps the family of a rule that names no address.
func public(h rule) fsm.Rule {
	out := fsm.Rule{From: h.from, To: h.to, Interface: h.device, Mark: h.mark, Table: h.table, Priority: h.priority}
	if !h.from.IsValid() && !h.to.IsValid() {
		out.From = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if h.family == unix.AF_INET6 {
			out.From = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	return out
}

func TestRoutes(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	at := []Address{{Link: "eth0", Prefix: vip4}, {Link: "eth0", Prefix: vip6}, {Link: "eth0", Prefix: pfx("198.51.100.5/24")}}
	routes := []fsm.Route{
		{To: pfx("203.0.113.0/24"), Via: ip("192.0.2.254"), Source: vip4.Addr()},
		{To: pfx("0.0.0.0/0"), Via: ip("192.0.2.254"), Interface: "eth0", Table: 100, Metric: 10},
		{To: pfx("10.1.0.0/16"), Interface: "eth0", Table: 1000},
		{To: pfx("10.2.0.0/16"), Via: ip("198.51.100.1")}, // in the network of a virtual address only
		{To: pfx("10.3.0.0/16"), Via: ip("172.16.0.1"), Interface: "eth0", OnLink: true},
		{To: pfx("2001:db8:9::/48"), Via: ip("2001:db8::fe"), Source: vip6.Addr()},
		{To: pfx("::/0"), Via: ip("2001:db8::fe"), Interface: "eth0", Table: 100, Metric: 7},
	}
	// The address first: without it there is no such source.
	err := k.PutRoutes(routes, at)
	if err == nil || !strings.Contains(err.Error(), "no address of this host") {
		t.Errorf("a source that is not there: %v", err)
	}
	put(t, k, at...)
	for range 2 {
		if err := k.PutRoutes(routes, at); err != nil {
			t.Fatal(err)
		}
		if got, _ := marked(t, k); len(got) != len(routes) {
			t.Fatalf("%d routes are there: %v", len(got), got)
		}
		if d, err := look(t, k).Audit(at, routes, nil); err != nil || !d.Empty() {
			t.Errorf("audit: %v, %v", d, err)
		}
	}
	host.Run(t, func() error {
		got, err := netlink.RouteGet(ip("203.0.113.9").AsSlice())
		if err != nil || got[0].Src.String() != vip4.Addr().String() || got[0].Gw.String() != "192.0.2.254" {
			t.Errorf("route to 203.0.113.9: %v, %v", got, err)
		}
		return nil
	})
	// One that is gone, and one that is otherwise than it should be.
	host.Run(t, func() error {
		return netlink.RouteDel(&netlink.Route{Dst: netlinkAddr(pfx("10.1.0.0/16")).IPNet, Table: 1000, Scope: netlink.SCOPE_LINK})
	})
	routes[3].Via = ip("198.51.100.2")
	d, err := look(t, k).Audit(at, routes, nil)
	if err != nil || !slices.Equal(d.Routes, []fsm.Route{routes[2], routes[3]}) {
		t.Errorf("audit: %v, %v", d.Routes, err)
	}
	if err := k.PutRoutes(d.Routes, at); err != nil {
		t.Fatal(err)
	}
	if d, err := look(t, k).Audit(at, routes, nil); err != nil || !d.Empty() {
		t.Errorf("audit after mending: %v, %v", d, err)
	}
	for range 2 {
		if err := k.TakeRoutes(routes); err != nil {
			t.Fatal(err)
		}
		if got, _ := marked(t, k); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
	}
	if err := k.RemoveAddresses(at); err != nil {
		t.Fatal(err)
	}
	checkOnLink(t, k, host, true)
}

// TestForeignRoute: a route of the host is not replaced and not taken out, and what came before it in the call is undone.
func TestForeignRoute(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	for _, foreign := range []fsm.Route{
		{To: pfx("203.0.113.0/24"), Via: ip("192.0.2.253"), Metric: 5},
		{To: pfx("2001:db8:9::/48"), Via: ip("2001:db8::fd")},
	} {
		there := func() int {
			n := 0
			host.Run(t, func() error {
				list, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
				for _, r := range list {
					if r.Dst.String() == foreign.To.String() && r.Gw.String() == foreign.Via.String() {
						n++
					}
				}
				return err
			})
			return n
		}
		host.Run(t, func() error {
			return netlink.RouteAdd(&netlink.Route{Dst: netlinkAddr(foreign.To).IPNet, Gw: foreign.Via.AsSlice(), Priority: int(foreign.Metric)})
		})
		ours := foreign
		ours.Via = foreign.Via.Next()
		err := k.PutRoutes([]fsm.Route{{To: pfx("10.1.0.0/16"), Via: ip("192.0.2.254")}, ours}, nil)
		if err == nil || !strings.Contains(err.Error(), "another metric") || !errors.Is(err, unix.EEXIST) {
			t.Errorf("%v: %v", foreign.To, err)
		}
		if err := k.TakeRoutes([]fsm.Route{ours, foreign}); err != nil {
			t.Errorf("taking what is not ours: %v", err)
		}
		if got, _ := marked(t, k); len(got) != 0 || there() != 1 {
			t.Errorf("%v: left %v, the host's is there %d times", foreign.To, got, there())
		}
		ours.Metric += 20 // beside it there is room
		if err := k.PutRoutes([]fsm.Route{ours}, nil); err != nil {
			t.Error(err)
		}
		if err := k.TakeRoutes([]fsm.Route{ours}); err != nil || there() != 1 {
			t.Errorf("%v: %v; the host's is there %d times", foreign.To, err, there())
		}
	}
}

func TestRouteErrorsTeach(t *testing.T) {
	k, host, neighbour := lan(t)
	number(t, host, "1")
	nstest.Connect(t, host, "eth1", neighbour, "eth1")
	host.Addr(t, "eth1", "192.0.2.2/24")
	for want, r := range map[string]fsm.Route{
		"onlink: true": {To: pfx("10.1.0.0/16"), Via: ip("172.16.0.1"), Interface: "eth0"},
		"interface:":   {To: pfx("10.1.0.0/16"), Via: ip("172.16.0.1")},
		"several":      {To: pfx("10.1.0.0/16"), Via: ip("192.0.2.254")},
		"eth9":         {To: pfx("10.1.0.0/16"), Interface: "eth9"},
	} {
		err := k.PutRoutes([]fsm.Route{r}, nil)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "10.1.0.0/16") {
			t.Errorf("%v: the error does not say %q: %v", r, want, err)
		}
	}
}

func TestRules(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	rules := []fsm.Rule{
		{From: pfx("192.0.2.200/32"), Table: 100, Priority: 100},
		{From: pfx("2001:db8::200/128"), To: pfx("2001:db8:1::/48"), Table: 100},
		{Interface: "eth0", Mark: 0x17, Table: 1000}, // both families
		{To: pfx("10.0.0.0/8"), Mark: 3, Table: 254, Priority: 90},
	}
	for range 2 {
		if err := k.PutRules(rules); err != nil {
			t.Fatal(err)
		}
		if _, got := marked(t, k); len(got) != 5 {
			t.Fatalf("there are %v", got)
		}
		if d, err := look(t, k).Audit(nil, nil, rules); err != nil || !d.Empty() {
			t.Errorf("audit: %v, %v", d, err)
		}
	}
	if _, got := marked(t, k); !slices.Contains(got, rules[0]) {
		t.Errorf("%v is not among %v", rules[0], got)
	}
	host.Run(t, func() error {
		r := netlink.NewRule()
		r.Src, r.Table, r.Priority = netlinkAddr(rules[0].From).IPNet, 100, 100
		return netlink.RuleDel(r)
	})
	d, err := look(t, k).Audit(nil, nil, rules)
	if err != nil || !slices.Equal(d.Rules, rules[:1]) {
		t.Errorf("audit: %v, %v", d.Rules, err)
	}
	// What came before a rule that is refused is undone.
	if err := k.PutRules([]fsm.Rule{{From: pfx("10.9.0.0/16"), Table: 7}, {From: pfx("10.8.0.0/16")}}); err == nil {
		t.Error("a rule without a table was taken")
	}
	if _, got := marked(t, k); len(got) != 4 {
		t.Errorf("there are %v", got)
	}
	// The host's own rule of the same text stays; the kernel tells the two apart by their protocol.
	host.Run(t, func() error {
		r := netlink.NewRule()
		r.Src, r.Table, r.Priority = netlinkAddr(rules[0].From).IPNet, 100, 100
		return netlink.RuleAdd(r)
	})
	if err := k.PutRules(rules); err != nil && !strings.Contains(err.Error(), "another priority") { // before the kernel did so
		t.Errorf("beside the host's rule: %v", err)
	}
	if _, got := marked(t, k); len(got) != 5 {
		t.Errorf("there are %v", got)
	}
	for range 2 {
		if err := k.TakeRules(rules); err != nil {
			t.Fatal(err)
		}
		if _, got := marked(t, k); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
	}
	host.Run(t, func() error {
		list, err := netlink.RuleList(netlink.FAMILY_V4)
		if !slices.ContainsFunc(list, func(r netlink.Rule) bool { return r.Priority == 100 && r.Table == 100 }) {
			t.Errorf("the host's rule went: %v", list)
		}
		return err
	})
}

// TestFoundAgain: a later life can take out what an earlier one has put in, by their mark.
func TestFoundAgain(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	routes := []fsm.Route{{To: pfx("203.0.113.0/24"), Via: ip("192.0.2.254")}, {To: pfx("2001:db8:9::/48"), Via: ip("2001:db8::fe"), Table: 500}}
	rules := []fsm.Rule{{From: pfx("192.0.2.200/32"), Table: 500}, {Mark: 5, Table: 500}}
	if err := errors.Join(k.PutRoutes(routes, nil), k.PutRules(rules)); err != nil {
		t.Fatal(err)
	}
	next := open(t, host)
	gotRoutes, gotRules := marked(t, next)
	if len(gotRoutes) != 2 || len(gotRules) != 3 {
		t.Fatalf("found %v and %v", gotRoutes, gotRules)
	}
	if err := errors.Join(next.TakeRules(gotRules), next.TakeRoutes(gotRoutes)); err != nil {
		t.Fatal(err)
	}
	if gotRoutes, gotRules = marked(t, next); len(gotRoutes)+len(gotRules) != 0 {
		t.Errorf("left %v and %v", gotRoutes, gotRules)
	}
}

// BenchmarkRoutes says what an audit with routes and rules costs on a host with many routes of its own.
func BenchmarkRoutes(b *testing.B) {
	for _, n := range []int{10, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			k := benchmarkKernel(b)
			index, err := k.index("eth0")
			if err != nil {
				b.Fatal(err)
			}
			var all batch
			to := ip("20.0.0.0")
			for range n {
				r := route{key: routeKey{netip.PrefixFrom(to, 32), unix.RT_TABLE_MAIN, 0}, device: index}
				r.request(&all, unix.RTM_NEWROUTE, unix.NLM_F_CREATE)
				all.buf[all.starts[all.len()-1]+unix.SizeofNlMsghdr+5] = unix.RTPROT_STATIC
				to = to.Next()
			}
			if err := errors.Join(k.conn.run(&all, true)...); err != nil {
				b.Fatal(err)
			}
			routes := []fsm.Route{{To: pfx("203.0.113.0/24"), Via: ip("10.7.0.254")}}
			rules := []fsm.Rule{{From: pfx("10.7.0.9/32"), Table: 500}}
			if err := errors.Join(k.PutRoutes(routes, nil), k.PutRules(rules)); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if d, err := look(b, k).Audit(nil, routes, rules); err != nil || !d.Empty() {
					b.Fatal(d, err)
				}
			}
		})
	}
}
