package fsm

import "time"

// A View is what the leader knows of the nodes at one moment. It is made from
// what they say of themselves and of each other, not replicated.
type View struct {
	Leader InstanceID
	Nodes  map[InstanceID]NodeView
	// Pending: assignments are proposed and not committed yet. Then Place moves only
	// what must leave its owner: half of a plan is no ground for another one.
	Pending bool
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
	// Failing holds the groups of which a check or tracked interface of weight 0 fails.
	// Unlike Unfit it is no reason to stop answering: the owner serves until it is moved.
	Failing map[string]bool
	// Adjust is by group the sum of the weights that count now: the positive ones of
	// what passes, the negative ones of what fails.
	Adjust map[string]int
	// FitFor is by group for how long it has been fit without a break; absent: for as
	// long as anyone asks for.
	FitFor map[string]time.Duration
}

// Place says which groups need another owner, and whom: the whole of the leader's
// will. Nothing is returned for a group that is well where it is, or that nobody
// could take. It is a pure function of its arguments, and committing its result
// makes it return nothing.
//
// All policies are sticky. A group leaves its owner
//   - when it must: the owner is gone, lost, stopping, unfit or not open in time;
//   - when another node is fit and the owner is drained, has priority 0 or fails a
//     check. If no node passes, the group stays (keep) or gets nobody (release). A
//     group that is held by nobody at all is under keep given to a failing node
//     rather than to none: the check may be wrong, and no owner is wrong for sure;
//   - to be where the groups are that it is together with, as far as some node is fit
//     for all of them; until there is one, each is placed by itself. They gather where
//     the one is that was moved last, so that moving one by hand moves them all;
//   - to be apart from another, when that can be had;
//   - when the weights of its checks and devices have brought the owner down, that
//     is, below what it has when all is well, and another is better: a weight that
//     moved nothing would be none, so this does not ask for preempt;
//   - with preempt, and not if it was put there by hand: to a node of higher score
//     (placement priority), or to one that has less (spread).
//
// The new owner is fit, was tried in vain the fewest times, is away from groups to be
// apart from, and then: has the highest score (priority), or has lost the least by
// weights and is the Raft leader (leader) or has the least (spread); at last, has the
// lowest name. What a node has is the weight of the groups with placement spread that
// are on it: others neither count nor move because of them.
func Place(s *State, v View) []Assign {
	p := newPlan(s, v)
	p.settle()
	for !v.Pending && (p.separate() || p.improve() || p.balance()) {
		// Each step gets nearer to the end: see plan.
	}
	return p.assigns()
}

// Fit reports whether the node could hold the group now, with all that the document
// asks of it. False for a node that the state does not have.
func Fit(s *State, v View, g *Group, id InstanceID) bool {
	node, known := s.Nodes[id]
	return known && objection(s, node, v.Nodes[id], g) == 0
}

// Score is how good the node is for the group: its priority and the weights that
// count now, 1 to 254. 0: it is never to be there, or the state does not have it. It
// decides with placement priority; the others go by the weights alone.
func Score(s *State, v View, group string, id InstanceID) int {
	node, known := s.Nodes[id]
	g, ok := s.Document.Group(group)
	if !known || !ok {
		return 0
	}
	return score(&g, node, v.Nodes[id])
}

func score(g *Group, n Node, seen NodeView) int {
	base := g.priority(n.Name)
	if base == 0 || n.Role != Member {
		return 0
	}
	return min(max(base+seen.Adjust[g.Name], 1), maxScore)
}

// priority is that of the node of this name.
func (g *Group) priority(node string) int {
	if p, ok := g.Priority[node]; ok {
		return int(p)
	}
	return DefaultNodePriority
}

// objection is the first reason why the group is not to be on the node, as the reason
// for which it would be moved away from there; zero if it may be there.
func objection(s *State, n Node, seen NodeView, g *Group) Reason {
	switch {
	case n.Role != Member:
		return ReasonGone
	case !seen.Alive:
		return ReasonLost
	case seen.Stopping:
		return ReasonShutdown
	case seen.Unfit[g.Name]:
		return ReasonUnfit
	case s.Drained[n.ID]:
		return ReasonDrain
	case g.priority(n.Name) == 0:
		return ReasonDocument
	case seen.Failing[g.Name]:
		return ReasonCheck
	}
	return 0
}

// Serves reports whether an owner goes on serving that is to be left for this reason:
// then there is no hurry, and no point unless another can do better.
func (r Reason) Serves() bool { return r == ReasonDrain || r == ReasonDocument || r == ReasonCheck }
