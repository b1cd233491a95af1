package keepalived

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// sync ties what keepalived's sync groups tie.
func (t *translation) sync() {
	done := map[string]bool{}
	for _, n := range t.inOrder() {
		for _, s := range n.groups {
			t.syncGroup(n, s, done[s.name])
			done[s.name] = true
		}
	}
}

func (t *translation) syncGroup(n *node, s *syncGroup, before bool) {
	var all []*group
	for _, name := range s.members {
		i := slices.IndexFunc(t.groups, func(g *group) bool {
			in := g.from.of(n)
			return g.vrrp != nil && in != nil && in.name == name || in != nil && in.name == name && len(g.together) == 0
		})
		switch {
		case i >= 0:
			all = append(all, t.groups[i])
		case !n.named[name]:
			t.report.add(s.s.at, Trap, name, "no vrrp_instance of this name: keepalived leaves it out of the group, and drops a group without members")
		}
	}
	all = dedupe(all)
	for _, g := range all {
		if in := g.from.of(n); slices.ContainsFunc(in.tracks, func(u use) bool { return u.written && u.weight != 0 }) {
			t.report.add(in.at, Trap, in.name, "keepalived ignores the weights of what a member of a sync group tracks; here they count")
		}
	}
	switch {
	case len(all) == 0:
		n.say(s.s, Lost, "no member that could be written")
	case len(all) == 1:
		n.say(s.s, NotApplicable, "one group, "+all[0].name)
	case t.joined(all):
		n.say(s.s, Changed, fmt.Sprintf("one group, %s: its members have one virtual_router_id, one for each address family", t.join(s, all)))
	case t.opt.Mode == VRRP:
		n.say(s.s, Lost, fmt.Sprintf("nothing ties %s with election: vrrp, where each elects alone; choose: --election raft, or one instance with all addresses in every router", quoted(groupNames(all))))
	default:
		t.tie(n, s, all)
	}
	if len(all) == 0 {
		return
	}
	own := notifier{"GROUP", s.name, s.hooks}
	switch i := slices.IndexFunc(all[0].run, func(o notifier) bool { return o.kind == own.kind && o.name == own.name }); {
	case !before:
		all[0].run = append(all[0].run, own) // after those of the instance
	case i >= 0 && !hooksOf([]notifier{own}, 0).equal(hooksOf(all[0].run[i:i+1], 0)):
		n.say(s.s, Decision, "the notify commands are not those of the node before, and hooks are the same for all nodes; choose: those, as they are written, or one program that knows the node")
	}
}

func groupNames(all []*group) []string {
	var out []string
	for _, g := range all {
		out = append(out, g.name)
	}
	return out
}

// tie has groups that cannot be one move as one.
func (t *translation) tie(n *node, s *syncGroup, all []*group) {
	first := all[0]
	for _, g := range all[1:] {
		if !slices.Contains(g.together, first.name) {
			g.together = append(g.together, first.name)
		}
		if !slices.Equal(g.priority, first.priority) {
			t.report.add(s.s.at, Trap, s.name, fmt.Sprintf("%s and %s have other priorities, which makes keepalived elect again and again; here they stay together, and %s counts", first.name, g.name, first.name))
		}
	}
	text := fmt.Sprintf("%s: tied by together, and move as one", quoted(groupNames(all)))
	ids := map[int]bool{}
	for _, g := range all {
		if g.vrrp != nil {
			ids[g.vrrp.id] = true
		}
	}
	if len(ids) > 1 {
		text += "; they have different virtual_router_ids, and a group has one; choose: that, as it is written, or one group with one id, also in the outside routers, or without vrrp when none is left"
	}
	n.say(s.s, Decision, text)
}

// joined reports whether the members can be one group: one id, one for each family,
// and in everything else the same.
func (t *translation) joined(all []*group) bool {
	if len(all) != 2 || all[0].vrrp == nil || all[1].vrrp == nil {
		return false
	}
	a, b := all[0], all[1]
	va, vb := a.vrrp, b.vrrp
	return a.from.first().v6() != b.from.first().v6() && va.id == vb.id && va.version == 3 && vb.version == 3 && va.interval == vb.interval &&
		va.plain == vb.plain && (len(va.unicast) > 0) == (len(vb.unicast) > 0) && a.iface == b.iface && a.vmac == b.vmac && a.preempt == b.preempt &&
		slices.Equal(a.priority, b.priority)
}

// join makes one group of two, and returns its name.
func (t *translation) join(s *syncGroup, all []*group) string {
	a, b := all[0], all[1]
	a.addresses = append(a.addresses, b.addresses...)
	a.routes, a.rules = append(a.routes, b.routes...), append(a.rules, b.rules...)
	if a.specs == nil {
		a.specs = map[netip.Addr]spec{}
	}
	maps.Copy(a.specs, b.specs)
	a.vrrp.unicast = append(a.vrrp.unicast, b.vrrp.unicast...)
	a.checks = dedupe(append(a.checks, b.checks...))
	a.tracks = dedupe(append(a.tracks, b.tracks...))
	a.run = append(a.run, b.run...)
	t.groups = slices.DeleteFunc(t.groups, func(g *group) bool { return g == b })
	old := []string{a.name, b.name}
	t.inUse[a.name], t.inUse[b.name] = false, false // they are free again
	a.name = t.freshName(s.name)
	for _, g := range t.groups {
		for i, name := range g.together {
			if slices.Contains(old, name) {
				g.together[i] = a.name
			}
		}
		g.together = dedupe(g.together)
		for _, o := range old {
			if rest, ok := strings.CutPrefix(g.name, o+"-"); ok && slices.Contains(g.together, a.name) {
				g.name = t.freshName(a.name + "-" + rest)
			}
		}
	}
	a.from.all = append(slices.Clone(a.from.all), b.from.all...)
	return a.name
}

// alike gives groups that move as one the same preempt, that of the first.
func (t *translation) alike() {
	head := map[string]string{} // of a group: another one that it moves with; none: itself
	find := func(name string) string {
		for head[name] != "" {
			name = head[name]
		}
		return name
	}
	for _, g := range t.groups {
		for _, other := range g.together {
			if a, b := find(g.name), find(other); a != b {
				head[a] = b
			}
		}
	}
	first := map[string]*group{}
	for _, g := range t.groups {
		one := first[find(g.name)]
		if one == nil {
			first[find(g.name)] = g
			continue
		}
		if g.preempt == one.preempt {
			continue
		}
		if g.vrrp != nil { // one that was split off follows without a word
			t.report.add(g.from.first().at, Decision, g.name, fmt.Sprintf("preempt %s, and %s for %s, with which it moves as one; choose: %s for both, as it is written, or the other", g.preempt, one.preempt, one.name, one.preempt))
		}
		g.preempt = one.preempt
	}
}
