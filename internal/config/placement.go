package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/quorate/quorate/fsm"
)

// Bounds of the numbers that decide where a group goes.
const (
	maxNodePriority = 254 // as a VRRP router that does not own its address
	maxGroupWeight  = 1000
	maxAdjust       = 254 // weight of a check or a tracked device, either way
	maxPreemptDelay = time.Hour
)

// A rawPolicy is what a group says of where it goes and when it leaves.
type rawPolicy struct {
	byNode       []rawNodePriority
	mapped       state // of priority
	mappedPos    pos
	weight       field[int]
	apart        field[[]field[string]]
	together     field[[]field[string]]
	checks       field[[]field[string]]
	tracks       []rawTrack
	tracked      state // of track_interfaces
	trackedPos   pos
	whenAllFail  field[string]
	onQuorumLoss field[string]
	hooks        rawHooks
}

// A rawTrack is a tracked device: its name alone, or with a weight.
type rawTrack struct {
	pos    pos
	path   string
	name   field[string]
	weight field[int]
}

func readPolicy(m mapping) rawPolicy {
	p := rawPolicy{
		weight: m.integer("weight"), apart: m.list("apart"), together: m.list("together"), checks: m.list("checks"),
		whenAllFail: m.text("when_all_fail"), onQuorumLoss: m.text("on_quorum_loss"), hooks: readHooks(m),
	}
	p.readPriority(m)
	p.readTracks(m)
	return p
}

func (p *rawPolicy) readPriority(m mapping) {
	n, ok := m.vals["priority"]
	if p.mapped = m.without("priority"); !ok {
		return
	}
	path := join(m.path, "priority")
	p.mapped, p.mappedPos = present, at(n)
	if n.Kind != yaml.MappingNode {
		p.mapped = broken
		m.r.wrongType(n, path, "a priority for each node, since all nodes share this section", "write {n1: 150, n2: 100}")
		return
	}
	entries, _ := m.r.entries(n, path)
	for _, e := range entries {
		p.byNode = append(p.byNode, rawNodePriority{e.name, at(e.key), readNode(m.r, e.value, join(path, e.name), m.in.find("priority"), toInt)})
	}
}

func (p *rawPolicy) readTracks(m mapping) {
	items, where, have := m.items("track_interfaces", "write [eth1, {name: eth2, weight: -20}]")
	p.tracked, p.trackedPos = have, where
	for i, item := range items {
		t := rawTrack{pos: at(item), path: fmt.Sprintf("%s.track_interfaces[%d]", m.path, i), weight: none[int]()}
		if item.Kind != yaml.MappingNode {
			t.name = m.item("track_interfaces", item, t.path)
		} else if sub, ok := m.r.mapping(item, t.path, trackKeys); ok {
			t.name, t.weight = sub.text("name"), sub.integer("weight")
		}
		p.tracks = append(p.tracks, t)
	}
}

// policies fills what the groups say of each other and of the checks, when all of
// them are known.
func (c *checker) policies(raw rawConfig) {
	groups := make([]string, 0, len(raw.groups))
	for _, g := range raw.groups {
		groups = append(groups, g.name)
	}
	for i, g := range raw.groups {
		out := &c.cfg.Document.Groups[i]
		out.Weight, out.WhenAllFail, out.OnQuorumLoss = 1, fsm.AllFailKeep, fsm.QuorumLossRelease
		c.where(g)
		if c.plain() {
			c.withoutPolicy(g)
		} else {
			c.policy(g, out, groups)
		}
		out.Checks = c.listed(g.policy.checks, c.checkNames(raw), "check", "write it under checks: at the top level of the file")
		out.TrackInterfaces = c.tracks(g)
		out.Hooks = c.hooks(g.policy.hooks)
	}
	c.contradictions(raw)
}

// where keeps the places of what CheckDocument and Warnings may speak of.
func (c *checker) where(g rawGroup) {
	p := g.policy
	c.cfg.where[p.whenAllFail.path] = p.whenAllFail.pos
	c.cfg.where[p.onQuorumLoss.path] = p.onQuorumLoss.pos
	c.cfg.where[p.weight.path] = p.weight.pos
	c.cfg.where[g.path+".priority"] = p.mappedPos
}

// withoutPolicy refuses what only a cluster can do.
func (c *checker) withoutPolicy(g rawGroup) {
	refuse := func(have state, at pos, key, why string) {
		if have == present {
			c.cluster(at, join(g.path, key), why)
		}
	}
	const nobody = "each router elects for each group alone, and nobody spreads them"
	p := g.policy
	if p.mapped == present {
		c.r.add(p.mappedPos, g.path+".priority", "is not for election: vrrp: the priority that routers see is in vrrp", "", "write it as vrrp.priority")
	}
	refuse(p.weight.have, p.weight.pos, "weight", nobody)
	refuse(p.apart.have, p.apart.pos, "apart", nobody)
	refuse(p.together.have, p.together.pos, "together", nobody)
	refuse(p.whenAllFail.have, p.whenAllFail.pos, "when_all_fail", "no router knows whether the others pass")
	refuse(p.onQuorumLoss.have, p.onQuorumLoss.pos, "on_quorum_loss", "there is no quorum to be lost")
}

func (c *checker) policy(g rawGroup, out *fsm.Group, groups []string) {
	p := g.policy
	out.Priority = c.nodePriorities(g)
	if f := p.weight; f.ok() {
		if !f.key.fits(int64(f.v)) {
			bad(c, f, f.key.within(), "write how many ordinary groups it counts for, or leave the key out for 1")
		} else {
			out.Weight = f.v
		}
	}
	out.Apart = c.others(p.apart, g.name, groups, "a group cannot be apart from itself")
	out.Together = c.others(p.together, g.name, groups, "a group is together with itself anyway")
	out.WhenAllFail = oneOf(c, p.whenAllFail, fsm.AllFailKeep)
	out.OnQuorumLoss = oneOf(c, p.onQuorumLoss, fsm.QuorumLossRelease)
	c.preempt(g, out)
}

// preempt is off unless written: what is well where it is stays there.
func (c *checker) preempt(g rawGroup, out *fsm.Group) {
	f := g.preempt
	if !f.ok() {
		return
	}
	if f.v.Yes && out.Placement == fsm.PlacementLeader && g.placement.have != broken {
		bad(c, f, "with placement: leader no node is better than another, and each election of a leader would move the group for nothing",
			"remove the key, or write placement: priority and which node is better, such as priority: {n1: 150, n2: 100}, or placement: spread")
		return
	}
	if c.delay(f) {
		out.Preempt = f.v
	}
}

func (c *checker) delay(f field[fsm.Preempt]) bool {
	if !f.key.lasts(f.v.Delay) {
		bad(c, f, "must be at most "+short(f.key.longest), "write a shorter delay, or false for never")
		return false
	}
	return true
}

func (c *checker) nodePriorities(g rawGroup) map[string]uint8 {
	p := g.policy
	if p.mapped != present {
		return nil
	}
	path := g.path + ".priority"
	if len(p.byNode) == 0 {
		c.r.add(p.mappedPos, path, "names no node", "", fmt.Sprintf("write {n1: 150, n2: 100}, or leave the key out for %d on every node", fsm.DefaultNodePriority))
		return nil
	}
	out := map[string]uint8{}
	for _, n := range p.byNode {
		if text, do := checkName(n.node, "."); text != "" {
			c.r.add(n.pos, n.priority.path, "the name of a node "+text, "", do)
			continue
		}
		c.cfg.where[n.priority.path] = n.pos
		if f := n.priority; f.ok() && !f.key.fits(int64(f.v)) {
			bad(c, f, f.key.within()+", where 0 means never on this node",
				fmt.Sprintf("write one, or leave the node out for %d", fsm.DefaultNodePriority))
		} else if f.ok() {
			out[n.node] = uint8(f.v)
		}
	}
	return out
}

// others checks a list of groups that another one relates to.
func (c *checker) others(f field[[]field[string]], own string, groups []string, self string) []string {
	for _, item := range f.v {
		if item.ok() && item.v == own {
			bad(c, item, self, "write the names of other groups")
		}
	}
	return slices.DeleteFunc(c.listed(f, groups, "group", "write it under vips, or correct the name"), func(s string) bool { return s == own })
}

// listed checks names that must be written elsewhere in the file, each once. A nil
// known means that what is there could not be read, so that nothing is unknown.
func (c *checker) listed(f field[[]field[string]], known []string, what, do string) []string {
	var out []string
	seen := map[string]field[string]{}
	for _, item := range f.v {
		if !item.ok() {
			continue
		}
		if first, dup := seen[item.v]; dup {
			bad(c, item, what+" written twice, "+seeAlso(first), "keep one of the two")
			continue
		}
		seen[item.v] = item
		if known != nil && !slices.Contains(known, item.v) {
			do := do
			if near, ok := nearest(item.v, known); ok {
				do = "did you mean " + near + "?"
			} else if len(known) > 0 {
				do += "; there are " + strings.Join(known[:min(len(known), 10)], ", ")
			}
			bad(c, item, "no "+what+" of this name in the file", do)
			continue
		}
		c.cfg.where[item.path] = item.pos
		out = append(out, item.v)
	}
	return out
}

func (c *checker) tracks(g rawGroup) []fsm.Track {
	var out []fsm.Track
	seen := map[string]field[string]{}
	for _, t := range g.policy.tracks {
		f := t.name
		if f.have == absent {
			c.missing(t.pos, join(t.path, "name"), "write name: with that of the device")
		}
		if !f.ok() {
			continue
		}
		if first, dup := seen[f.v]; dup {
			bad(c, f, "device written twice, "+seeAlso(first), "keep one of the two")
			continue
		}
		seen[f.v] = f
		switch {
		case !isDevice(f.v):
			bad(c, f, notDevice, "write one that ip link shows, such as eth1")
		case f.v == "lo":
			bad(c, f, "must not be the loopback device, which is always there", "write a device that can lose its carrier")
		}
		c.cfg.where[trackPath(g.name, f.v)] = f.pos
		out = append(out, fsm.Track{Interface: f.v, Weight: c.adjust(t.weight)})
	}
	return out
}

// trackPath is the path under which the place of a tracked device is kept.
func trackPath(group, device string) string {
	return fmt.Sprintf("vips.%s.track_interfaces[%s]", group, device)
}

// adjust checks the weight of a check or of a tracked device.
func (c *checker) adjust(f field[int]) int {
	if !f.ok() {
		return 0
	}
	if !f.key.fits(int64(f.v)) {
		bad(c, f, f.key.within(),
			"write how much it changes the node's priority, or leave the key out: then a node on which it fails does not hold the group")
		return 0
	}
	return f.v
}

// contradictions finds groups that are to be on one node and on two, and groups that
// are to move as one and say differently how.
func (c *checker) contradictions(raw rawConfig) {
	doc := c.cfg.Document
	head := together(doc)
	first := map[string]fsm.Group{}
	for i, g := range raw.groups {
		for _, f := range g.policy.apart.v {
			if f.ok() && f.v != g.name && head[f.v] == head[g.name] {
				bad(c, f, "is to be together with "+g.name+" as well, directly or by way of other groups", "remove one of the two")
			}
		}
		out := doc.Groups[i]
		one, have := first[head[g.name]]
		if !have {
			first[head[g.name]] = out
			continue
		}
		differs := func(at pos, key, want, got string) {
			c.r.add(cmp.Or(at, g.pos), join(g.path, key), fmt.Sprintf("must be as that of group %s, %s: the two are together and move as one", one.Name, want), got,
				"write the same in both")
		}
		if out.Placement != one.Placement && g.placement.have != broken {
			differs(g.placement.pos, "placement", one.Placement.String(), out.Placement.String())
		}
		if out.Preempt != one.Preempt && g.preempt.have != broken {
			differs(g.preempt.pos, "preempt", preemptWord(one.Preempt), preemptWord(out.Preempt))
		}
	}
}

// together gives for each group one of those that it is together with, directly or by
// way of others: the same one for all of them.
func together(doc fsm.Document) map[string]string {
	head := map[string]string{}
	for _, g := range doc.Groups {
		head[g.Name] = g.Name
	}
	find := func(name string) string {
		for head[name] != name {
			head[name] = head[head[name]]
			name = head[name]
		}
		return name
	}
	for _, g := range doc.Groups {
		for _, other := range g.Together {
			head[find(other)] = find(g.Name)
		}
	}
	for name := range head {
		head[name] = find(name)
	}
	return head
}

// preemptWord is the value as it is written in the file.
func preemptWord(p fsm.Preempt) string {
	switch {
	case !p.Yes:
		return "false"
	case p.Delay == 0:
		return "true"
	}
	return short(p.Delay)
}
