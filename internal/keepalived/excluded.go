package keepalived

import (
	"cmp"
	"fmt"
	"net/netip"
)

// excluded puts the addresses that adverts do not name into the group, and returns groups
// for those that cannot be in it: of a family that has no adverts.
func (t *translation) excluded(m *merged, g *group, all []vip) []*group {
	if len(g.addresses) == 0 {
		all = t.promote(m, g, all)
	}
	advertised := map[bool]bool{} // by whether they are IPv6
	for _, p := range g.addresses {
		advertised[p.Addr().Is6()] = true
	}
	apart := map[string][]vip{}
	var order []string
	for _, v := range all {
		dev := cmp.Or(v.dev, g.iface)
		if m.first().vrid != 0 && !advertised[v.prefix.Addr().Is6()] {
			if apart[dev] == nil {
				order = append(order, dev)
			}
			apart[dev] = append(apart[dev], v)
			continue
		}
		v.spec.unadvertised = m.first().vrid != 0
		if dev != g.iface {
			v.spec.iface = dev
		}
		t.place(g, []vip{v})
	}
	var out []*group
	for _, dev := range order {
		if t.opt.Mode == VRRP {
			t.report.add(apart[dev][0].at, Lost, m.name, "addresses of the other family: with election: vrrp a group has adverts in each family of its addresses, and nothing ties two; choose: an instance for them")
			continue
		}
		name := g.name + "-excluded"
		if dev != g.iface {
			name += "-" + dev
		}
		t.report.add(apart[dev][0].at, Changed, m.name, fmt.Sprintf("addresses of a family that is not advertised: a group without vrrp, together with %s", g.name))
		r := &group{name: name, iface: dev}
		t.place(r, apart[dev])
		out = append(out, r)
	}
	return out
}

// promote has excluded addresses advertised, where a group would have none, and returns
// those that cannot be: of the other family, or on another device.
func (t *translation) promote(m *merged, g *group, all []vip) (rest []vip) {
	var named []vip
	for _, v := range all {
		if v.prefix.Addr().Is6() == m.first().v6() && cmp.Or(v.dev, g.iface) == g.iface {
			named = append(named, v)
		} else {
			rest = append(rest, v)
		}
	}
	if len(named) > 0 {
		t.report.add(named[0].at, Decision, m.name, "virtual_ipaddress_excluded: these are advertised here; choose: that, if all other routers are of this kind or keepalived 2.3.3 and later, or list them as virtual_ipaddress there")
		t.advertise(g, named)
	}
	return rest
}

// advertise adds addresses to those that adverts name, as many as fit.
func (t *translation) advertise(g *group, all []vip) {
	count := map[bool]int{} // by whether they are IPv6
	for _, p := range g.addresses {
		count[p.Addr().Is6()]++
	}
	for _, v := range all {
		six := v.prefix.Addr().Is6()
		if count[six]++; count[six] > room(six) {
			t.report.add(v.at, Lost, v.prefix.String(), noRoom(six))
			continue
		}
		t.place(g, []vip{v})
	}
}

// oneAdvertised has all addresses of a family advertised, if those that were are gone.
func (t *translation) oneAdvertised(g *group) {
	for _, six := range []bool{false, true} {
		var hidden []netip.Addr
		named := false
		for _, p := range g.addresses {
			switch a := p.Addr(); {
			case a.Is6() != six:
			case g.specs[a].unadvertised:
				hidden = append(hidden, a)
			default:
				named = true
			}
		}
		for _, a := range hidden {
			if s := g.specs[a]; !named && s.iface == "" {
				s.unadvertised = false
				g.specs[a] = s
			}
		}
	}
}
