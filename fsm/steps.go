package fsm

import (
	"cmp"
	"slices"
)

// settle finds a place for every unit that must leave its own, or has none. They are
// all lifted before the first is put down, so that none is in another's way where it
// is not going to stay.
func (p *plan) settle() {
	var lifted []*unit
	for i := range p.units {
		u := &p.units[i]
		u.at = nowhere
		switch at, stays := p.stays(u); {
		case !stays:
			lifted = append(lifted, u)
		case at != nowhere:
			p.load[at] += p.heft(u)
			u.at, u.byHand = at, p.byHand(u, at)
		}
	}
	for _, u := range lifted {
		c, ok := p.best(u, func(c claim) bool { return p.fit(u, c.node) })
		if !ok {
			c, ok = p.best(u, func(c claim) bool { return p.mightServe(u, c.node) })
		}
		if ok {
			p.put(u, c.node, ReasonTogether)
		}
	}
}

// stays reports whether the unit is to be left where it is, and where that is:
// nowhere for one that nobody is to have, or nobody can.
func (p *plan) stays(u *unit) (at int, ok bool) {
	at = p.anchor(u)
	if at != nowhere && p.fit(u, at) {
		return at, true
	}
	if p.anyFit(u) {
		return nowhere, false
	}
	// From here on it is one group: several are a unit because a node is fit for them.
	g := u.members[0]
	serving := at != nowhere && p.objection(g, at).Serves()
	switch {
	case serving && p.groups[g].WhenAllFail == AllFailRelease && p.seen[at].Failing[p.groups[g].Name]:
		u.reason = ReasonAllFail
		return nowhere, true
	case serving:
		return at, true
	}
	for n := range p.nodes {
		if p.mightServe(u, n) {
			return nowhere, false
		}
	}
	return at, true
}

// mightServe reports whether nothing but a failing check is against the node, and the
// document would rather have the group there than nowhere.
func (p *plan) mightServe(u *unit, n int) bool {
	for _, g := range u.members {
		if why := p.objection(g, n); why != 0 && (why != ReasonCheck || p.groups[g].WhenAllFail == AllFailRelease) {
			return false
		}
	}
	return true
}

func (p *plan) byHand(u *unit, at int) bool {
	return slices.ContainsFunc(u.members, func(g int) bool {
		return p.owner(g) == at && p.s.Assignments[p.groups[g].Name].Reason == ReasonMove
	})
}

// movable reports whether a unit may be moved though it could stay: not one whose set
// is split for now, it would only come to be further apart.
func (p *plan) movable(u *unit) bool {
	return u.at != nowhere && len(u.split) == 0 && p.fit(u, u.at)
}

// separate moves units away from those that they are to be apart from, as far as a
// node with fewer of them is fit. Of two, first goes the one that does not stay by a
// person's wish, then the one that gains more by it, then the later in the document.
func (p *plan) separate() bool {
	type mover struct {
		unit, gain int
		byHand     bool
	}
	var movers []mover
	for i := range p.units {
		u := &p.units[i]
		if c, ok := p.wayOut(u); ok {
			movers = append(movers, mover{i, c.merit - p.merit(u, u.at), u.byHand})
		}
	}
	slices.SortFunc(movers, func(a, b mover) int {
		return cmp.Or(compareBool(a.byHand, b.byHand), cmp.Compare(b.gain, a.gain), cmp.Compare(b.unit, a.unit))
	})
	for _, m := range movers {
		u := &p.units[m.unit]
		if c, ok := p.wayOut(u); ok { // still, now that others have gone
			p.put(u, c.node, ReasonApart)
		}
	}
	return len(movers) > 0
}

// wayOut is where a unit can go to be with fewer of those that it is to be apart from.
func (p *plan) wayOut(u *unit) (claim, bool) {
	if len(u.rival) == 0 || !p.movable(u) {
		return claim{}, false
	}
	now := p.count(u.rival, u.at)
	if now == 0 {
		return claim{}, false
	}
	return p.best(u, func(c claim) bool {
		return c.failed == 0 && c.rivals < now && p.fit(u, c.node) && p.settled(u, c.node)
	})
}

// improve moves units to nodes of higher merit: from one that is down at once, and
// otherwise where preempt has it so.
func (p *plan) improve() bool {
	moved := false
	for i := range p.units {
		u := &p.units[i]
		if c, why := p.better(u); why != 0 {
			p.put(u, c.node, why)
			moved = true
		}
	}
	return moved
}

// better is the node that a unit is to go to for its higher merit, and why; zero if
// there is none.
func (p *plan) better(u *unit) (claim, Reason) {
	if !p.movable(u) {
		return claim{}, 0
	}
	down := p.down(u, u.at)
	if g := p.policy(u); !down && (g.placement() != PlacementPriority || !g.Preempt.Yes || u.byHand) {
		return claim{}, 0
	}
	merit, rivals := p.merit(u, u.at), p.count(u.rival, u.at)
	c, ok := p.best(u, func(c claim) bool {
		return c.merit > merit && c.failed == 0 && c.rivals <= rivals && p.fit(u, c.node) && (down || p.settled(u, c.node))
	})
	switch {
	case !ok:
		return claim{}, 0
	case down:
		return c, ReasonCheck
	}
	return c, ReasonPreempt
}

// balance moves units with placement spread and preempt from the node that has most,
// then from the next: one at a time, each only if the difference between the two nodes
// becomes smaller by more than the weight moved. A smaller gain is not worth a move,
// and a node that is a little fuller for a moment would give and take back.
func (p *plan) balance() bool {
	of := make(map[int][]*unit)
	for i := range p.units {
		u := &p.units[i]
		if g := p.policy(u); g.placement() == PlacementSpread && g.Preempt.Yes && !u.byHand && p.movable(u) {
			of[u.at] = append(of[u.at], u)
		}
	}
	moved := false
	for len(of) > 0 {
		fullest := nowhere
		for n := range p.nodes {
			if len(of[n]) > 0 && (fullest == nowhere || p.load[n] > p.load[fullest]) {
				fullest = n
			}
		}
		u := of[fullest][len(of[fullest])-1] // the later in the document goes first
		if of[fullest] = of[fullest][:len(of[fullest])-1]; len(of[fullest]) == 0 {
			delete(of, fullest)
		}
		if c, ok := p.lighter(u); ok {
			p.put(u, c.node, ReasonPreempt)
			moved = true
		}
	}
	return moved
}

func (p *plan) lighter(u *unit) (claim, bool) {
	here := p.claim(u, u.at)
	return p.best(u, func(c claim) bool {
		// From d to |d-2w|: smaller by more than w if 2d > 3w.
		return 2*(here.tie-c.tie) > 3*p.heft(u) && c.failed == 0 && c.rivals <= here.rivals && c.merit >= here.merit &&
			p.fit(u, c.node) && p.settled(u, c.node)
	})
}

// assigns turns the plan into commands, in the order in which it was made: then what
// is left of it after some are committed is the same plan.
func (p *plan) assigns() []Assign {
	order := make([]*unit, 0, len(p.units))
	for i := range p.units {
		if u := &p.units[i]; u.step > 0 || len(u.members) > 1 || u.reason == ReasonAllFail {
			order = append(order, u)
		}
	}
	slices.SortStableFunc(order, func(a, b *unit) int { return cmp.Compare(a.step, b.step) })
	var out []Assign
	for _, u := range order {
		for _, g := range u.members {
			var to InstanceID
			if u.at != nowhere {
				to = p.nodes[u.at].ID
			}
			a := p.s.Assignments[p.groups[g].Name]
			why := p.reason(u, g)
			if a.Owner == to || p.v.Pending && why == ReasonTogether {
				continue // there already, or no harm in waiting
			}
			out = append(out, Assign{Group: p.groups[g].Name, Owner: to, Seen: a.Epoch, Reason: why})
		}
	}
	return out
}

// reason says why one group of the unit is moved.
func (p *plan) reason(u *unit, group int) Reason {
	a, had := p.s.Assignments[p.groups[group].Name]
	at := p.owner(group)
	switch {
	case u.reason == ReasonAllFail:
		return ReasonAllFail
	case !had, a.Owner.IsZero() && p.objection(group, u.at) != 0:
		return ReasonFirst
	case a.Owner.IsZero():
		return ReasonRestore
	case at == nowhere:
		return ReasonGone
	}
	if why := p.objection(group, at); why != 0 {
		return why
	}
	if at == p.anchor(u) && u.reason != 0 {
		return u.reason
	}
	return ReasonTogether
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
