package keepalived

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A translation makes one document of all nodes.
type translation struct {
	opt    Options
	nodes  []*node
	own    int // the node that is written for
	report *Report
	probs  *problems
	checks *checkBook
	groups []*group
	inUse  map[string]bool     // of groups, also of those that went
	taken  map[*statement]bool // lines of track_ blocks that came into a group
	// routesSeen and rulesSeen are those that a group has, by what the kernel tells them apart by.
	routesSeen, rulesSeen map[string]bool
}

func (t *translation) names() string {
	var out []string
	for _, n := range t.nodes {
		out = append(out, n.name)
	}
	return strings.Join(out, ", ")
}

// inOrder are the nodes, the one that is written for first.
func (t *translation) inOrder() []*node {
	out := []*node{t.nodes[t.own]}
	return append(append(out, t.nodes[:t.own]...), t.nodes[t.own+1:]...)
}

// A merged is one instance on all nodes that have it.
type merged struct {
	name string
	all  []*instance // that of the node that is written for first, if it has it
}

func (m *merged) first() *instance { return m.all[0] }

func (m *merged) of(n *node) *instance {
	i := slices.IndexFunc(m.all, func(in *instance) bool { return in.node == n })
	if i < 0 {
		return nil
	}
	return m.all[i]
}

// best is the instance of the highest priority.
func (m *merged) best() *instance {
	best := m.first()
	for _, in := range m.all {
		if in.priority > best.priority {
			best = in
		}
	}
	return best
}

// merge finds the instances of the nodes that are one: by their name, else by what
// keepalived itself knows them by.
func (t *translation) merge() []*merged {
	var out []*merged
	byName := map[string]*merged{}
	for _, n := range t.inOrder() {
		for _, in := range n.instances {
			m := byName[in.name]
			if m == nil {
				if m = likeIt(out, in); m != nil {
					t.report.add(in.at, Changed, in.name, fmt.Sprintf("the same as %s on %s, by virtual_router_id and addresses", m.name, m.first().node.name))
				}
			}
			if m == nil {
				m = &merged{name: in.name}
				out = append(out, m)
				byName[in.name] = m
			}
			m.all = append(m.all, in)
		}
	}
	return out
}

// likeIt finds the instance of other nodes that is the same under another name.
func likeIt(all []*merged, in *instance) *merged {
	for _, m := range all {
		f := m.first()
		if m.of(in.node) == nil && !in.node.named[m.name] && in.vrid == f.vrid && in.v6() == f.v6() && sharesAddress(in, f) {
			return m
		}
	}
	return nil
}

func sharesAddress(a, b *instance) bool {
	return slices.ContainsFunc(a.vips, func(v vip) bool {
		return slices.ContainsFunc(b.vips, func(w vip) bool { return v.prefix.Addr() == w.prefix.Addr() })
	})
}

// compare reports what must be the same on all nodes and is not.
func (t *translation) compare(m *merged) {
	f := m.first()
	for _, in := range m.all[1:] {
		differ := func(keyword string, here, there any, harm string) {
			if here == there {
				return
			}
			at := in.at
			if s := in.lines[keyword]; s != nil {
				at = s.at
			}
			t.report.add(at, Decision, keyword, fmt.Sprintf("%v, and %v on %s: %s; choose: that of %s, as it is written, or change it",
				here, there, f.node.name, harm, f.node.name))
		}
		const bothMaster = "such routers refuse each other's adverts, and both are master"
		differ("virtual_router_id", in.vrid, f.vrid, "such routers do not know each other, and both are master")
		differ("version", in.version, f.version, bothMaster)
		if in.version == 2 && f.version == 2 {
			differ("advert_int", duration(in.interval), duration(f.interval), bothMaster)
		} else if in.version == f.version {
			differ("advert_int", duration(in.interval), duration(f.interval), "a backup learns it from who is master")
		}
		if in.password != f.password {
			differ("auth_pass", "one password", "another", bothMaster)
		}
		differ("use_vmac", in.vmac, f.vmac, "neighbours see two hardware addresses")
		differ("v3_checksum_as_v2", in.plain, f.plain, bothMaster)
		if here, there := addresses(in.vips), addresses(f.vips); here != there {
			t.report.add(in.at, Decision, "virtual_ipaddress", fmt.Sprintf("%s, and %s on %s: keepalived before 2.3.3 refuses such adverts, and both are master; choose: all of them, as they are written, or remove some",
				orNone(here), orNone(there), f.node.name))
		}
		if (len(in.peers) > 0) != (len(f.peers) > 0) {
			t.report.add(in.at, Decision, in.name, fmt.Sprintf("unicast on one of the nodes and multicast on another (%s): such routers do not hear each other; choose: unicast, as it is written, or remove it", f.node.name))
		}
	}
	t.comparePriorities(m)
}

func (t *translation) comparePriorities(m *merged) {
	by := map[int]*instance{}
	var masters []string
	for _, in := range m.all {
		if in.master {
			masters = append(masters, in.node.name)
		}
		if other := by[in.priority]; other != nil {
			text := fmt.Sprintf("priority %d on %s and on %s: keepalived lets the higher address win, and moves the group for that", in.priority, other.node.name, in.node.name)
			if t.opt.Mode == Raft {
				text += "; in a cluster neither is better, and whichever has the group keeps it"
			}
			t.report.add(in.at, Trap, in.name, text)
		} else {
			by[in.priority] = in
		}
	}
	if len(masters) > 1 {
		t.report.add(m.all[len(m.all)-1].at, Trap, m.name, fmt.Sprintf("state MASTER on %s: it decides nothing unless priority is 255, but preempt_delay and nopreempt do not work with it", quoted(masters)))
	}
}

// addresses is a set of addresses as a text.
func addresses(all []vip) string {
	var out []string
	for _, v := range all {
		out = append(out, v.prefix.String())
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func orNone(s string) string {
	if s == "" {
		return "no addresses"
	}
	return s
}

// union are the addresses of an instance on all nodes, each once, in the order of the
// first node that has them.
func union(m *merged, of func(*instance) []vip) []vip {
	var out []vip
	seen := map[netip.Addr]bool{}
	for _, in := range m.all {
		for _, v := range of(in) {
			if a := v.prefix.Addr(); !seen[a] {
				seen[a] = true
				out = append(out, v)
			}
		}
	}
	return out
}

// preempt is whether the group goes back: as the node of the highest priority has it,
// since that is the one to take it back.
func (t *translation) preempt(m *merged) string {
	best := m.best()
	for _, in := range m.all {
		if in.preempt() != best.preempt() {
			t.report.add(in.at, Decision, in.name, fmt.Sprintf("preempt %s on %s, and %s on %s: here it is the group's; choose: that of the node with the highest priority (%s), as it is written, or the other",
				in.preempt(), in.node.name, best.preempt(), best.node.name, best.node.name))
			break
		}
	}
	return best.preempt()
}

// iface is the device of all nodes: none, if they differ.
func (t *translation) iface(m *merged) string {
	f := m.first()
	for _, in := range m.all[1:] {
		if in.iface == f.iface {
			continue
		}
		linkLocal := slices.ContainsFunc(f.vips, func(v vip) bool { return v.prefix.Addr().IsLinkLocalUnicast() })
		if linkLocal {
			t.report.add(in.at, Decision, in.name, fmt.Sprintf("interface %s, and %s on %s: a link-local address needs one name; choose: rename the device on one node (systemd.link); %s is written", in.iface, f.iface, f.node.name, f.iface))
			return f.iface
		}
		t.report.add(in.at, Changed, in.name, fmt.Sprintf("interface %s, and %s on %s: interface is left out, and each node finds the device by the address", in.iface, f.iface, f.node.name))
		return ""
	}
	return f.iface
}
