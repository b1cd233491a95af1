package keepalived

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/vrrpcompat"
)

// document translates all nodes' instances.
func (t *translation) document() *document {
	t.taken, t.inUse = map[*statement]bool{}, map[string]bool{}
	for _, n := range t.nodes {
		t.spread(n)
	}
	all := t.merge()
	for _, m := range all {
		t.compare(m)
		t.group(m)
	}
	t.sync()
	t.alike()
	for _, g := range t.groups {
		g.hooks = hooksOf(g.run, g.from.first().priority)
	}
	for _, n := range t.nodes {
		t.untaken(n)
		n.unused()
	}
	t.dropTwice()
	t.vrids()
	own := t.nodes[t.own]
	d := &document{mode: t.opt.Mode, cluster: t.opt.Cluster, node: own.name, groups: t.groups, checks: t.used(), fifo: t.fifo()}
	var from []string
	for _, n := range t.nodes {
		from = append(from, n.source.Name)
	}
	d.comments = append(d.comments, "From "+quoted(dedupe(from))+", by quorate import.")
	if len(t.groups) == 0 {
		t.probs.add(pos{}, "no addresses were found to be held", "see that the files have a vrrp_instance with virtual_ipaddress")
		return d
	}
	if t.opt.Mode == Raft {
		t.peers(d)
		return d
	}
	d.cluster = ""
	for _, n := range t.nodes {
		if n != own {
			d.comments = append(d.comments, fmt.Sprintf("On %s write node: %s.", n.name, n.name))
		}
	}
	return d
}

// used are the checks that the groups name.
func (t *translation) used() []*check {
	return slices.DeleteFunc(slices.Clone(t.checks.all), func(c *check) bool {
		return !slices.ContainsFunc(t.groups, func(g *group) bool { return slices.Contains(g.checks, c.name) })
	})
}

func (t *translation) fifo() string {
	for _, n := range t.inOrder() {
		if n.global.fifo != "" {
			return n.global.fifo
		}
	}
	return ""
}

// spread gives what a sync group tracks to its members.
func (t *translation) spread(n *node) {
	for _, g := range n.groups {
		for _, in := range n.instances {
			if slices.Contains(g.members, in.name) {
				in.tracks = append(in.tracks, g.tracks...)
			}
		}
	}
}

// group makes the groups of one instance: one for the addresses that are advertised,
// and others that go with it for those that are not.
func (t *translation) group(m *merged) {
	own := t.nodes[t.own]
	if t.opt.Mode == VRRP && m.of(own) == nil {
		t.report.add(m.first().at, Decision, m.name, fmt.Sprintf("not on node %s, and each router has a file of its own; choose: import again with --node %s for that one", own.name, m.first().node.name))
		return
	}
	f := m.first()
	g := &group{from: m, name: t.freshName(m.name), iface: t.iface(m), preempt: t.preempt(m), vmac: f.vmac}
	for _, in := range m.all {
		if g.repeat == nil {
			g.repeat = in.repeat
		}
		if g.refresh == nil {
			g.refresh = in.refresh
		}
	}
	g.priority = t.priorities(m)
	rest := t.divide(m, g)
	if len(g.addresses) == 0 {
		t.report.add(f.at, Lost, m.name, "no addresses that could be held")
		return
	}
	g.vrrp = t.vrrp(m, g)
	if g.vrrp == nil && t.opt.Mode == VRRP {
		t.report.add(f.at, Lost, m.name, "without virtual_router_id there is no VRRP")
		return
	}
	t.routes(m, g)
	t.track(m, g)
	g.run = []notifier{{"INSTANCE", f.name, f.hooks}}
	t.compareHooks(m)
	t.groups = append(t.groups, g)
	for _, r := range rest {
		r.from, r.priority, r.preempt, r.repeat, r.refresh, r.together = m, g.priority, g.preempt, g.repeat, g.refresh, []string{g.name}
		r.name = t.freshName(r.name)
		t.groups = append(t.groups, r)
	}
}

// freshName makes a group's name that is not taken.
func (t *translation) freshName(name string) string {
	base := sanitise(name, "")
	if base == "" {
		base = "group"
	}
	fresh := unique(base, func(s string) bool { return t.inUse[s] })
	t.inUse[fresh] = true
	return fresh
}

// priorities are those of all nodes; one that has no such instance never has the group.
func (t *translation) priorities(m *merged) []nodePriority {
	var out []nodePriority
	for _, n := range t.nodes {
		in := m.of(n)
		switch {
		case in == nil && t.opt.Mode == Raft:
			t.report.add(m.first().at, Changed, m.name, fmt.Sprintf("not on node %s: priority 0 there, so that it never holds the group", n.name))
			out = append(out, nodePriority{n.name, 0})
		case in == nil:
		case t.opt.Mode == Raft:
			out = append(out, nodePriority{n.name, min(in.priority, 254)})
		default:
			out = append(out, nodePriority{n.name, in.priority})
		}
	}
	return out
}

// divide gives the group the addresses that its adverts name, and returns groups for
// the others: those that are excluded, too many, or on another device.
func (t *translation) divide(m *merged, g *group) []*group {
	f := m.first()
	vips, excluded := union(m, func(in *instance) []vip { return in.vips }), union(m, func(in *instance) []vip { return in.excluded })
	usable := func(all []vip) []vip {
		return slices.DeleteFunc(all, func(v vip) bool {
			homeless := v.prefix.Addr().IsLinkLocalUnicast() && v.dev == "" && g.iface == ""
			if homeless {
				t.report.add(v.at, Lost, v.prefix.String(), "a link-local address is in every device's network, and no interface is named; choose: interface, or dev with the address")
			}
			return homeless
		})
	}
	excluded = usable(excluded)
	var named []vip
	for _, v := range usable(vips) {
		switch {
		case v.prefix.Addr().Is6() != f.v6():
			t.report.add(v.at, Lost, v.prefix.String(), "not of the family of the instance's first address: keepalived ignores it; choose: virtual_ipaddress_excluded, or an instance of its own")
		case len(named) == room(f.v6()):
			t.report.add(v.at, Changed, v.prefix.String(), fmt.Sprintf("one advert has room for %d addresses: the others are held and not advertised, as by keepalived, which may draw the line elsewhere", room(f.v6())))
			excluded = append(excluded, v)
		default:
			named = append(named, v)
		}
	}
	byDevice := map[string][]vip{}
	var devices []string
	sort := func(v vip) {
		dev := v.dev
		if dev == "" {
			dev = g.iface
		}
		if _, ok := byDevice[dev]; !ok {
			devices = append(devices, dev)
		}
		byDevice[dev] = append(byDevice[dev], v)
	}
	for _, v := range named {
		sort(v)
	}
	t.chooseDevice(m, g, byDevice, devices, len(named))
	t.place(g, byDevice[g.iface])
	delete(byDevice, g.iface)
	return t.rest(m, g, byDevice, devices, excluded)
}

// chooseDevice moves a group whose addresses are all on another device than the
// instance to that device.
func (t *translation) chooseDevice(m *merged, g *group, byDevice map[string][]vip, devices []string, n int) {
	if n == 0 || len(byDevice[g.iface]) > 0 {
		return
	}
	old := g.iface
	g.iface = devices[0]
	t.report.add(m.first().at, Decision, m.name, fmt.Sprintf("adverts on %s and addresses on %s: here both are on one device; choose: %s, as it is written, with the other routers' adverts there too, or no vrrp when none is left",
		orNoDevice(old), g.iface, g.iface))
}

func orNoDevice(s string) string {
	if s == "" {
		return "no device"
	}
	return s
}

// rest makes the groups that go with the main one.
func (t *translation) rest(m *merged, g *group, byDevice map[string][]vip, devices []string, excluded []vip) []*group {
	var out []*group
	for _, dev := range devices {
		all := byDevice[dev]
		if len(all) == 0 {
			continue
		}
		if t.opt.Mode == VRRP {
			t.report.add(all[0].at, Lost, m.name, fmt.Sprintf("the addresses on %s: a group is on one device, and with election: vrrp nothing ties two groups", dev))
			continue
		}
		t.report.add(all[0].at, Changed, m.name, fmt.Sprintf("the addresses on %s are a group of their own, together with %s, and not in its adverts: keepalived peers before 2.3.3 refuse those then", dev, g.name))
		r := &group{name: g.name + "-" + dev, iface: dev}
		t.place(r, all)
		out = append(out, r)
	}
	return append(out, t.excluded(m, g, excluded)...)
}

// room is how many addresses of a family one advert can name on Ethernet.
func room(six bool) int {
	const inEthernet = (1500 - 40 - vrrpcompat.HeaderLen) / 16
	if six {
		return min(vrrpcompat.MaxAddresses, inEthernet)
	}
	return vrrpcompat.MaxAddresses
}

func noRoom(six bool) string {
	return fmt.Sprintf("one advert has room for %d addresses; choose: an instance of its own for the others", room(six))
}

// vrrp is the group as routers outside see it; nil without an id.
func (t *translation) vrrp(m *merged, g *group) *vrrp {
	f := m.first()
	if f.vrid == 0 {
		t.report.add(f.at, Trap, m.name, "no virtual_router_id: keepalived does not run this instance")
		return nil
	}
	v := &vrrp{id: f.vrid, version: f.version, interval: f.interval, plain: f.plain, password: f.password, unicast: t.unicast(m, g)}
	if t.opt.Mode == VRRP {
		v.priority = g.priority
		return v
	}
	worst := config.WorstFailover(config.DefaultLease, election.GraceBPF)
	version := vrrpcompat.Version(f.version)
	cs, err := vrrpcompat.IntervalOf(version, f.interval)
	if err == nil && version == vrrpcompat.V3 && version.Outruns(config.DefaultPriority, cs, worst) {
		if least, ok := version.ShortestInterval(config.DefaultPriority, worst); ok {
			v.interval = least.Duration()
			t.report.add(f.at, Changed, m.name, fmt.Sprintf("vrrp.interval: %s instead of %s: an outside backup must not outrun a failover in the cluster, which the lease decides (within %s)",
				duration(v.interval), duration(f.interval), worst.Round(time.Millisecond)))
		}
	}
	return v
}

// unicast are all routers of the group: every node's own address and its peers.
func (t *translation) unicast(m *merged, g *group) []unicastPeer {
	if !slices.ContainsFunc(m.all, func(in *instance) bool { return len(in.peers) > 0 }) {
		return nil
	}
	var out []unicastPeer
	add := func(p unicastPeer) {
		i := slices.IndexFunc(out, func(o unicastPeer) bool { return o.addr == p.addr })
		switch {
		case !p.addr.IsValid() || p.addr.Is6() != m.first().v6():
		case slices.ContainsFunc(g.addresses, func(a netip.Prefix) bool { return a.Addr() == p.addr }):
		case i < 0:
			out = append(out, p)
		case out[i].minTTL+out[i].maxTTL == 0:
			out[i] = p
		}
	}
	for _, n := range t.nodes {
		if in := m.of(n); in != nil {
			add(unicastPeer{addr: in.source})
			for _, p := range in.peers {
				if p.minTTL > 0 && p.maxTTL > 0 && p.minTTL > p.maxTTL {
					t.report.add(in.at, Trap, p.addr.String(), "min_ttl above max_ttl: keepalived takes no advert of it; both are left out")
					p.minTTL, p.maxTTL = 0, 0
				}
				add(p)
			}
		}
	}
	return out
}

// compareHooks: hooks are those of the first node, and those of others must be the same.
func (t *translation) compareHooks(m *merged) {
	f := m.first()
	of := func(in *instance) hooks {
		return hooksOf([]notifier{{"INSTANCE", f.name, in.hooks}}, f.priority)
	}
	out := of(f)
	for _, in := range m.all[1:] {
		if !of(in).equal(out) {
			t.report.add(in.at, Decision, in.name, fmt.Sprintf("the notify commands are not those of %s, and hooks are the same for all nodes; choose: those of %s, as they are written, or one program that knows the node", f.node.name, f.node.name))
		}
	}
}

// dropTwice leaves out addresses that another group has.
func (t *translation) dropTwice() {
	owner := map[netip.Addr]string{}
	for _, g := range t.groups {
		g.addresses = slices.DeleteFunc(g.addresses, func(p netip.Prefix) bool {
			other, dup := owner[p.Addr()]
			if dup {
				t.report.add(g.from.first().at, Lost, p.String(), fmt.Sprintf("in %s and in %s: an address has one owner; it stays in %s", other, g.name, other))
			} else {
				owner[p.Addr()] = g.name
			}
			return dup
		})
	}
	gone := map[string]bool{}
	t.groups = slices.DeleteFunc(t.groups, func(g *group) bool {
		gone[g.name] = len(g.addresses) == 0
		return gone[g.name]
	})
	for _, g := range t.groups {
		t.ownSources(g)
		t.oneAdvertised(g)
		g.together = slices.DeleteFunc(g.together, func(s string) bool { return gone[s] })
	}
}

// vrids takes the adverts away from a group whose id is in use on its link. keepalived
// allows it for unicast to different peers.
func (t *translation) vrids() {
	type link struct {
		id    int
		iface string
	}
	before := map[link][]*group{}
	keep := t.groups[:0]
	for _, g := range t.groups {
		if g.vrrp == nil {
			keep = append(keep, g)
			continue
		}
		on := link{g.vrrp.id, g.iface}
		i := slices.IndexFunc(before[on], func(o *group) bool { return sameLink(o, g) })
		switch {
		case i < 0:
			before[on] = append(before[on], g)
			keep = append(keep, g)
		case t.opt.Mode == VRRP:
			t.report.add(g.from.first().at, Lost, g.name, fmt.Sprintf("virtual_router_id %d is that of %s on the same link: an id is one router here", g.vrrp.id, before[on][i].name))
		default:
			t.report.add(g.from.first().at, Decision, g.name, fmt.Sprintf("virtual_router_id %d is that of %s on the same link: an id is one router here; choose: no vrrp, as it is written, or another id, also in the outside routers", g.vrrp.id, before[on][i].name))
			g.vrrp, g.vmac = nil, false
			keep = append(keep, g)
		}
	}
	t.groups = keep
}

// sameLink reports whether two groups share a link in one family, as far as a file says.
func sameLink(a, b *group) bool {
	if a.iface != b.iface {
		return false
	}
	for _, p := range a.addresses {
		for _, q := range b.addresses {
			if a.iface == "" && p.Overlaps(q) || a.iface != "" && p.Addr().Is4() == q.Addr().Is4() {
				return true
			}
		}
	}
	return false
}
