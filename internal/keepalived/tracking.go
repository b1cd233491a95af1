package keepalived

import (
	"fmt"
	"slices"
)

// track gives the group what any node tracks for it.
func (t *translation) track(m *merged, g *group) {
	for _, n := range t.nodes {
		in := m.of(n)
		if in == nil {
			continue
		}
		for _, u := range in.tracks {
			t.taken[u.s] = true
			switch {
			case u.kind != trackInterface:
				if c := t.checks.resolve(n, u); c != nil && !slices.Contains(g.checks, c.name) {
					g.checks = append(g.checks, c.name)
				}
			case u.name == g.iface && u.weight == 0:
				n.say(u.s, NotApplicable, "the group's own device, which counts anyway")
			default:
				t.trackDevice(n, g, u)
			}
		}
	}
	t.onSomeNodes(m)
}

// untaken says of what is tracked for nothing that is written.
func (t *translation) untaken(n *node) {
	say := func(all []use) {
		for _, u := range all {
			if !t.taken[u.s] {
				n.say(u.s, NotApplicable, "what it counts for is not written")
			}
		}
	}
	for _, in := range n.instances {
		say(in.tracks)
	}
	for _, g := range n.groups {
		say(g.tracks)
	}
}

func (t *translation) trackDevice(n *node, g *group, u use) {
	i := slices.IndexFunc(g.tracks, func(o track) bool { return o.name == u.name })
	switch {
	case i < 0:
		g.tracks = append(g.tracks, track{u.name, u.weight})
	case g.tracks[i].weight != u.weight:
		n.say(u.s, Decision, fmt.Sprintf("weight %d, and %d for the same device and group elsewhere in the files; choose: %d, as it is written, or the other", u.weight, g.tracks[i].weight, g.tracks[i].weight))
		return
	}
	n.carried(u.s, trackKey(u.weight))
}

// onSomeNodes reports what only some nodes track: here all do.
func (t *translation) onSomeNodes(m *merged) {
	for _, in := range m.all {
		for _, u := range in.tracks {
			for _, other := range m.all {
				if !slices.ContainsFunc(other.tracks, func(o use) bool { return o.kind == u.kind && o.name == u.name }) {
					t.report.add(u.s.at, Changed, u.s.subject(), fmt.Sprintf("not on node %s, and here on all nodes that can hold %s", other.node.name, m.name))
				}
			}
		}
	}
}
