package fsm

import (
	"cmp"
	"maps"
	"slices"
)

// nowhere is the place of a unit that has no owner, or one that the state does not know.
const nowhere = -1

// A plan is Place at work: where everything is, and where it is to be.
//
// That it comes to an end: settle puts every unit that can be somewhere fit to a node
// that is fit, and no later step moves one to a node that is not. Of the later steps
// separate lessens the pairs on one node that are to be apart; improve raises the sum
// of merits and adds no such pair; balance lessens the sum of the squares of the loads,
// and neither adds a pair nor lowers a merit. So no arrangement ever comes back.
type plan struct {
	s      *State
	v      View
	groups []Group            // the document's
	nodes  []Node             // by name
	seen   []NodeView         // of nodes
	number map[InstanceID]int // of nodes
	units  []unit
	load   []int          // of nodes: weight of the units with placement spread
	weight map[string]int // of the document's checks
	steps  int            // units moved so far
}

// A unit is what is placed as one: a group, or all that are together.
type unit struct {
	members []int // of groups, in their order; the first one's policy counts
	at      int   // of nodes, where it is to be
	rival   []int // of units: those to be apart from
	split   []int // of units: those to be together with, were a node fit for all
	byHand  bool  // a person put it where it is
	reason  Reason
	step    int // of plan.steps when it was moved last
}

func newPlan(s *State, v View) *plan {
	p := &plan{s: s, v: v, groups: s.Document.Groups, number: make(map[InstanceID]int, len(s.Nodes))}
	p.nodes = slices.SortedFunc(maps.Values(s.Nodes), func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	p.seen = make([]NodeView, len(p.nodes))
	p.load = make([]int, len(p.nodes))
	for i, n := range p.nodes {
		p.seen[i], p.number[n.ID] = v.Nodes[n.ID], i
	}
	p.weight = make(map[string]int, len(s.Document.Checks))
	for _, c := range s.Document.Checks {
		p.weight[c.Name] = c.Weight
	}
	p.makeUnits()
	p.makeRivals()
	return p
}

// makeUnits: groups that are together are one unit if a node is fit for all of them,
// and each its own otherwise: an address served apart is better than one not served.
func (p *plan) makeUnits() {
	p.units = make([]unit, 0, len(p.groups))
	all := make([]int, len(p.groups)) // what the members below are cut from
	sets := map[int][]int{}
	head := p.s.Document.heads()
	for i := range p.groups {
		all[i] = i
		if head[i] != i {
			sets[head[i]] = append(sets[head[i]], i)
		}
	}
	for i := range p.groups {
		members := all[i : i+1 : i+1]
		switch {
		case head[i] != i:
			continue
		case len(sets[i]) == 0:
			p.units = append(p.units, unit{members: members})
			continue
		}
		members = append(members, sets[i]...)
		u := unit{members: members}
		if p.anyFit(&u) {
			p.units = append(p.units, u)
			continue
		}
		first := len(p.units)
		for k := range members {
			p.units = append(p.units, unit{members: members[k : k+1 : k+1]})
			for other := range members {
				if other != k {
					p.units[first+k].split = append(p.units[first+k].split, first+other)
				}
			}
		}
	}
}

// makeRivals: apart holds both ways, whichever of the two says it.
func (p *plan) makeRivals() {
	if !slices.ContainsFunc(p.groups, func(g Group) bool { return len(g.Apart) > 0 }) {
		return
	}
	of := map[string]int{}
	for i := range p.units {
		for _, g := range p.units[i].members {
			of[p.groups[g].Name] = i
		}
	}
	for i := range p.groups {
		mine := of[p.groups[i].Name]
		for _, name := range p.groups[i].Apart {
			if other, ok := of[name]; ok && other != mine {
				p.units[mine].rival = append(p.units[mine].rival, other)
				p.units[other].rival = append(p.units[other].rival, mine)
			}
		}
	}
	for i := range p.units {
		slices.Sort(p.units[i].rival)
		p.units[i].rival = slices.Compact(p.units[i].rival)
	}
}

// owner is the node that a group is on now, or nowhere.
func (p *plan) owner(group int) int {
	if n, ok := p.number[p.s.Assignments[p.groups[group].Name].Owner]; ok {
		return n
	}
	return nowhere
}

// anchor is where the unit is: where its member is that was moved last.
func (p *plan) anchor(u *unit) int {
	at, newest := nowhere, uint64(0)
	for _, g := range u.members {
		a := p.s.Assignments[p.groups[g].Name]
		if n := p.owner(g); n != nowhere && a.Epoch >= newest {
			at, newest = n, a.Epoch
		}
	}
	return at
}

// policy is the group by whose policy the unit is placed.
func (p *plan) policy(u *unit) *Group { return &p.groups[u.members[0]] }

// objection is that to one group's being on a node, where it may be already.
func (p *plan) objection(group, n int) Reason {
	why := objection(p.s, p.nodes[n], p.seen[n], &p.groups[group])
	if (why == 0 || why.Serves()) && p.seen[n].Overdue[p.groups[group].Name] {
		return ReasonNotOpen
	}
	return why
}

func (p *plan) fit(u *unit, n int) bool {
	for _, g := range u.members {
		if p.objection(g, n) != 0 {
			return false
		}
	}
	return true
}

func (p *plan) anyFit(u *unit) bool {
	for n := range p.nodes {
		if p.fit(u, n) {
			return true
		}
	}
	return false
}

// merit is what the policy looks for in a node; of several groups the lowest, so
// that what brings one of them down brings the unit down.
func (p *plan) merit(u *unit, n int) int {
	lowest := 0
	for i, g := range u.members {
		group := &p.groups[g]
		m := p.seen[n].Adjust[group.Name]
		if group.placement() == PlacementPriority {
			m = score(group, p.nodes[n], p.seen[n])
		}
		if i == 0 || m < lowest {
			lowest = m
		}
	}
	return lowest
}

// down reports whether the node has less for the unit than when all is well there.
func (p *plan) down(u *unit, n int) bool {
	for _, g := range u.members {
		group := &p.groups[g]
		best := 0
		for _, c := range group.Checks {
			best += max(p.weight[c], 0)
		}
		for _, t := range group.TrackInterfaces {
			best += max(t.Weight, 0)
		}
		if p.seen[n].Adjust[group.Name] < best {
			return true
		}
	}
	return false
}

func (p *plan) failed(u *unit, n int) int {
	most := 0
	for _, g := range u.members {
		most = max(most, p.seen[n].Failed[p.groups[g].Name])
	}
	return most
}

// settled reports whether the node has been fit for as long as preempt waits.
func (p *plan) settled(u *unit, n int) bool {
	for _, g := range u.members {
		if d, ok := p.seen[n].FitFor[p.groups[g].Name]; ok && d < p.policy(u).Preempt.Delay {
			return false
		}
	}
	return true
}

// count says how many of the units are on the node.
func (p *plan) count(units []int, n int) int {
	total := 0
	for _, i := range units {
		if p.units[i].at == n {
			total++
		}
	}
	return total
}

func (p *plan) heft(u *unit) int {
	if p.policy(u).placement() != PlacementSpread {
		return 0
	}
	total := 0
	for _, g := range u.members {
		total += p.groups[g].weight()
	}
	return total
}

// put moves the unit in the plan.
func (p *plan) put(u *unit, n int, why Reason) {
	if u.at != nowhere {
		p.load[u.at] -= p.heft(u)
	}
	if n != nowhere {
		p.load[n] += p.heft(u)
	}
	p.steps++
	u.at, u.step, u.byHand = n, p.steps, false
	if u.reason == 0 {
		u.reason = why
	}
}

// A claim is how good a node is for a unit, the first field first.
type claim struct {
	failed, rivals, company, merit, tie, node int
}

func (c claim) compare(d claim) int {
	return cmp.Or(
		cmp.Compare(c.failed, d.failed),
		cmp.Compare(c.rivals, d.rivals),
		cmp.Compare(d.company, c.company),
		cmp.Compare(d.merit, c.merit),
		cmp.Compare(c.tie, d.tie),
		cmp.Compare(c.node, d.node),
	)
}

func (p *plan) claim(u *unit, n int) claim {
	c := claim{failed: p.failed(u, n), rivals: p.count(u.rival, n), company: p.count(u.split, n), merit: p.merit(u, n), node: n}
	switch p.policy(u).placement() {
	case PlacementLeader:
		if p.nodes[n].ID != p.v.Leader {
			c.tie = 1
		}
	case PlacementSpread:
		c.tie = p.load[n]
	}
	return c
}

// best is the best node of those that may be.
func (p *plan) best(u *unit, may func(claim) bool) (claim, bool) {
	var best claim
	found := false
	for n := range p.nodes {
		if n == u.at {
			continue
		}
		if c := p.claim(u, n); may(c) && (!found || c.compare(best) < 0) {
			best, found = c, true
		}
	}
	return best, found
}
