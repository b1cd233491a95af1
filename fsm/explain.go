package fsm

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// An Explanation says for people why a group is where it is, and what would move it.
type Explanation struct {
	Group      string      `json:"group"`
	Placement  string      `json:"placement"`
	Owner      string      `json:"owner"` // node name; empty: nobody
	Epoch      uint64      `json:"epoch"`
	Reason     string      `json:"reason"`             // why it was given to the owner; empty: it never had one
	Together   []string    `json:"together,omitempty"` // groups that move with it
	Candidates []Candidate `json:"candidates"`         // the owner first, then in the order in which they would get it
	Next       []string    `json:"next"`               // what will or would move it, a sentence each
}

// A Candidate is a node as the placement of one group sees it.
type Candidate struct {
	Name  string   `json:"name"`
	Score int      `json:"score"` // see Score
	Fit   bool     `json:"fit"`   // it could hold the group, and those that move with it
	Why   []string `json:"why"`   // what speaks for and against it
}

// Explain says why the group is where it is in this view, and what would move it. Its
// error is an ErrUnknown.
func Explain(s *State, v View, group string) (Explanation, error) {
	g, ok := s.Document.Group(group)
	if !ok {
		return Explanation{}, UnknownGroup(s.Document, group)
	}
	a := s.Assignments[group]
	e := Explanation{Group: group, Placement: g.placement().String(), Owner: nameOf(s, a.Owner), Epoch: a.Epoch}
	if a.Epoch != 0 {
		e.Reason = a.Reason.String()
	}
	p, u := planAsIs(s, v, group)
	for _, m := range p.together(u) {
		if p.groups[m].Name != group {
			e.Together = append(e.Together, p.groups[m].Name)
		}
	}
	e.Candidates = p.candidates(u, &g)
	e.Next = p.next(u, &g)
	return e, nil
}

// planAsIs is the plan before its first step, with every unit where it is now, and
// the unit of the group.
func planAsIs(s *State, v View, group string) (*plan, *unit) {
	p := newPlan(s, v)
	var mine *unit
	for i := range p.units {
		u := &p.units[i]
		if u.at = p.anchor(u); u.at != nowhere {
			p.load[u.at] += p.heft(u)
			u.byHand = p.byHand(u, u.at)
		}
		if slices.ContainsFunc(u.members, func(g int) bool { return p.groups[g].Name == group }) {
			mine = u
		}
	}
	return p, mine
}

// together are all groups of the unit's set, also of one that is split for now.
func (p *plan) together(u *unit) []int {
	all := slices.Clone(u.members)
	for _, i := range u.split {
		all = append(all, p.units[i].members...)
	}
	slices.Sort(all)
	return all
}

func (p *plan) candidates(u *unit, g *Group) []Candidate {
	order := make([]claim, len(p.nodes))
	for n := range p.nodes {
		order[n] = p.claim(u, n)
	}
	rank := func(c claim) int {
		switch {
		case c.node == u.at:
			return 0
		case p.fit(u, c.node):
			return 1
		case p.nodes[c.node].Role == Member:
			return 2
		}
		return 3
	}
	slices.SortFunc(order, func(a, b claim) int {
		if ra, rb := rank(a), rank(b); ra != rb {
			return ra - rb
		}
		return a.compare(b)
	})
	out := make([]Candidate, 0, len(order))
	for _, c := range order {
		out = append(out, Candidate{
			Name: p.nodes[c.node].Name, Score: score(g, p.nodes[c.node], p.seen[c.node]),
			Fit: p.fit(u, c.node), Why: p.why(u, g, c),
		})
	}
	return out
}

// why says what speaks for and against one node.
func (p *plan) why(u *unit, g *Group, c claim) []string {
	node, seen := p.nodes[c.node], p.seen[c.node]
	why := []string{}
	say := func(when bool, format string, args ...any) {
		if when {
			why = append(why, fmt.Sprintf(format, args...))
		}
	}
	say(p.s.Assignments[g.Name].Owner == node.ID, "owns it")
	if node.Role != Member {
		return append(why, fmt.Sprintf("is a %s and never holds an address", node.Role))
	}
	say(!seen.Alive, "is not heard by a majority")
	say(seen.Stopping, "is stopping")
	say(p.s.Drained[node.ID], "is drained")
	for _, m := range u.members {
		other := ""
		if name := p.groups[m].Name; name != g.Name {
			other = " " + name + ", which moves with it"
		}
		name := p.groups[m].Name
		say(p.groups[m].priority(node.Name) == 0, "has priority 0 for%s: never there", orIt(other))
		say(seen.Unfit[name], "says that it cannot hold%s now", orIt(other))
		say(seen.Failing[name], "fails a check of%s", orIt(other))
		say(seen.Overdue[name], "has not opened%s in time", orIt(other))
	}
	say(c.failed > 0, "was tried in vain %s", times(c.failed))
	for _, i := range u.rival {
		if r := &p.units[i]; r.at == c.node {
			say(true, "has %s, which is to be apart from it", p.names(r.members))
		}
	}
	adjust := seen.Adjust[g.Name]
	say(adjust != 0, "has priority %d and %+d by checks and devices", g.priority(node.Name), adjust)
	if p.policy(u).placement() == PlacementSpread {
		say(true, "carries a weight of %d", p.load[c.node])
	}
	say(g.placement() == PlacementLeader && node.ID == p.v.Leader, "leads the cluster")
	if d, ok := seen.FitFor[g.Name]; ok && d < g.Preempt.Delay {
		say(true, "has been fit for %s of the %s that preempt waits", d.Round(time.Second), g.Preempt.Delay)
	}
	return why
}

// next says what Place will do about the group, or what would have it do something.
func (p *plan) next(u *unit, g *Group) []string {
	plan := Place(p.s, p.v)
	if a, ok := assignOf(plan, g.Name); ok {
		if a.Owner.IsZero() {
			return []string{"nobody will hold it: no node passes its checks, and when_all_fail is release"}
		}
		return []string{fmt.Sprintf("it goes to %s now: %s", nameOf(p.s, a.Owner), a.Reason.why())}
	}
	if p.s.Assignments[g.Name].Owner.IsZero() {
		return []string{"it goes to the first node that is fit for it; none is"}
	}
	out := []string{}
	if why := p.objectionOf(g.Name, p.s.Assignments[g.Name].Owner); why != 0 {
		out = append(out, fmt.Sprintf("it should leave (%s), and stays until another node is fit: %s", why, why.why()))
	} else {
		out = append(out, p.gone(g))
	}
	if len(u.split) > 0 {
		out = append(out, "no node is fit for all groups that are to be together; they gather as soon as one is")
	}
	out = append(out, p.ofPolicy(u, g)...)
	return append(out, p.company(u, plan)...)
}

// gone says where the group would go if its owner were lost now.
func (p *plan) gone(g *Group) string {
	owner := p.s.Assignments[g.Name].Owner
	lost := View{Leader: p.v.Leader, Nodes: maps.Clone(p.v.Nodes)}
	lost.Nodes[owner] = NodeView{}
	if lost.Leader == owner {
		lost.Leader = InstanceID{}
	}
	a, ok := assignOf(Place(p.s, lost), g.Name)
	switch {
	case ok && g.placement() == PlacementLeader && lost.Leader.IsZero():
		return fmt.Sprintf("if %s is lost, it goes to the node that leads then, or to %s", nameOf(p.s, owner), nameOf(p.s, a.Owner))
	case ok:
		return fmt.Sprintf("if %s is lost, it goes to %s", nameOf(p.s, owner), nameOf(p.s, a.Owner))
	}
	return fmt.Sprintf("if %s is lost, nobody can take it", nameOf(p.s, owner))
}

// ofPolicy says when it would move although its owner is well.
func (p *plan) ofPolicy(u *unit, g *Group) []string {
	var out []string
	switch {
	case g.placement() == PlacementLeader:
		out = append(out, "placement leader: who has it keeps it, also when another node comes to lead")
	case !g.Preempt.Yes:
		out = append(out, "preempt is off: who has it keeps it while well")
	case u.byHand:
		out = append(out, "it was moved there by hand: preempt leaves it there until it must leave or is moved again")
	case g.placement() == PlacementPriority:
		out = append(out, fmt.Sprintf("preempt: it goes to a node of higher score that has been fit for %s", g.Preempt.Delay))
	default:
		out = append(out, fmt.Sprintf("preempt: it goes to a node that has been fit for %s and carries less, if the difference between the two shrinks by more than the group's weight", g.Preempt.Delay))
	}
	if p.weighted(g) {
		out = append(out, "if a check or device with a weight brings its owner down and another node is better, it goes there, whatever preempt says")
	}
	return out
}

// company says what is on the same node and is to be apart from the unit, in view of
// what is about to be done.
func (p *plan) company(u *unit, plan []Assign) []string {
	var out []string
	for _, i := range u.rival {
		r := &p.units[i]
		if u.at == nowhere || r.at != u.at {
			continue
		}
		if a, ok := assignOf(plan, p.policy(r).Name); ok {
			out = append(out, fmt.Sprintf("it is to be apart from %s, which goes to %s now", p.names(r.members), nameOf(p.s, a.Owner)))
		} else {
			out = append(out, fmt.Sprintf("it is to be apart from %s, and no other node is free to take either", p.names(r.members)))
		}
	}
	return out
}

// weighted reports whether a check or device of the group has a weight.
func (p *plan) weighted(g *Group) bool {
	return slices.ContainsFunc(g.Checks, func(c string) bool { return p.weight[c] != 0 }) ||
		slices.ContainsFunc(g.TrackInterfaces, func(t Track) bool { return t.Weight != 0 })
}

func (p *plan) objectionOf(group string, owner InstanceID) Reason {
	n, ok := p.number[owner]
	if !ok {
		return ReasonGone
	}
	i := slices.IndexFunc(p.groups, func(g Group) bool { return g.Name == group })
	return p.objection(i, n)
}

func (p *plan) names(members []int) string {
	var out []string
	for _, g := range members {
		out = append(out, p.groups[g].Name)
	}
	return strings.Join(out, " and ")
}

// why is the reason as a sentence.
func (r Reason) why() string {
	switch r {
	case ReasonFirst:
		return "it has no owner"
	case ReasonLost:
		return "no majority hears its owner"
	case ReasonNotOpen:
		return "its owner has not opened it in time"
	case ReasonUnfit:
		return "its owner says that it cannot hold it"
	case ReasonShutdown:
		return "its owner is stopping"
	case ReasonDocument:
		return "the document gives its owner priority 0"
	case ReasonGone:
		return "its owner is no member of the cluster any more"
	case ReasonCheck:
		return "its owner fails a check, or one has brought its score down"
	case ReasonDrain:
		return "its owner is drained"
	case ReasonPreempt:
		return "that node is better, and preempt is on"
	case ReasonApart:
		return "that keeps it apart from another group"
	case ReasonTogether:
		return "the groups that it is together with are there, or go there"
	case ReasonRestore:
		return "that node passes its checks"
	}
	return r.String()
}

func assignOf(all []Assign, group string) (Assign, bool) {
	if i := slices.IndexFunc(all, func(a Assign) bool { return a.Group == group }); i >= 0 {
		return all[i], true
	}
	return Assign{}, false
}

// nameOf is the node's name for people, also of one that was removed; empty for none.
func nameOf(s *State, id InstanceID) string {
	if id.IsZero() {
		return ""
	}
	if n, ok := s.Nodes[id]; ok {
		return n.Name
	}
	if was, ok := s.Retired[id]; ok {
		return was.Name + " (removed)"
	}
	return id.Short()
}

// namesShown is how many of the document's groups an error lists.
const namesShown = 12

// UnknownGroup is the error for a group that the document does not have. It is an
// ErrUnknown, and lists the groups that there are.
func UnknownGroup(d Document, group string) error {
	var names []string
	for _, g := range d.Groups {
		names = append(names, g.Name)
	}
	text := fmt.Sprintf("there is no group %q; the document has ", group)
	switch more := len(names) - namesShown; {
	case len(names) == 0:
		text += "none"
	case more > 0:
		text += strings.Join(names[:namesShown], ", ") + fmt.Sprintf(" and %d more", more)
	default:
		text += strings.Join(names, ", ")
	}
	return unknown(text)
}

// An unknown is an ErrUnknown in words of its own.
type unknown string

// Error is the text.
func (u unknown) Error() string { return string(u) }

// Is makes it an ErrUnknown.
func (u unknown) Is(target error) bool { return target == ErrUnknown }

func orIt(other string) string {
	if other == "" {
		return " it"
	}
	return other
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
