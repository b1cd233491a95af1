package fsm

import (
	"cmp"
	"slices"
)

// A View is what the leader knows of the nodes at one moment. It is made from
// what they say of themselves and of each other, not replicated.
type View struct {
	Leader InstanceID
	Nodes  map[InstanceID]NodeView
}

// A NodeView is what the leader knows of one node.
type NodeView struct {
	// Alive: a majority of voters heard it within a lease.
	Alive bool
	// Stopping: it has announced that its process is about to end.
	Stopping bool
	// Unfit holds the groups that the node says it cannot hold now.
	Unfit map[string]bool
	// Failed counts, by group, how often the node was named and did not open in
	// time; the most tried comes last.
	Failed map[string]int
	// Overdue holds the groups that it owns and should have opened by now.
	Overdue map[string]bool
}

// Place says which groups need another owner, and whom: the whole of the
// leader's will. Nothing is returned for a group that is well where it is, or
// that nobody could take. It is a pure function of its arguments, and committing
// its result makes it return nothing.
func Place(s *State, v View) []Assign {
	var out []Assign
	for _, g := range s.Document.Groups {
		a, owned := s.Assignments[g.Name]
		why, move := ReasonFirst, !owned
		if owned {
			why, move = unwell(s, v, g.Name, a.Owner)
		}
		if !move {
			continue
		}
		to, ok := choose(s, v, g.Name, a.Owner)
		if !ok {
			continue
		}
		out = append(out, Assign{Group: g.Name, Owner: to, Seen: a.Epoch, Reason: why})
	}
	return out
}

// unwell says whether a group must leave its owner, and the first reason.
func unwell(s *State, v View, group string, owner InstanceID) (Reason, bool) {
	node, known := s.Nodes[owner]
	seen := v.Nodes[owner]
	switch {
	case !known || node.Role != Member:
		return ReasonGone, true
	case !seen.Alive:
		return ReasonLost, true
	case seen.Stopping:
		return ReasonShutdown, true
	case seen.Unfit[group]:
		return ReasonUnfit, true
	case seen.Overdue[group]:
		return ReasonNotOpen, true
	}
	return 0, false
}

// Fit reports whether the node could hold the group now.
func Fit(s *State, v View, group string, id InstanceID) bool {
	node, known := s.Nodes[id]
	seen := v.Nodes[id]
	return known && node.Role == Member && seen.Alive && !seen.Stopping && !seen.Unfit[group]
}

// choose picks the new owner under placement `leader`: whoever was least often
// tried in vain, then the leader, then the lowest name. It never picks the owner
// that the group is to leave.
func choose(s *State, v View, group string, not InstanceID) (InstanceID, bool) {
	var fit []Node
	for id, n := range s.Nodes {
		if id != not && Fit(s, v, group, id) {
			fit = append(fit, n)
		}
	}
	if len(fit) == 0 {
		return InstanceID{}, false
	}
	best := slices.MinFunc(fit, func(a, b Node) int {
		return cmp.Or(
			cmp.Compare(v.Nodes[a.ID].Failed[group], v.Nodes[b.ID].Failed[group]),
			-compareBool(a.ID == v.Leader, b.ID == v.Leader),
			cmp.Compare(a.Name, b.Name),
		)
	})
	return best.ID, true
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
