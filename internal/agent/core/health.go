package core

import (
	"fmt"
	"iter"
	"slices"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

// health is what this node knows of the services on it, and since when it has known
// each node to be well.
type health struct {
	results map[string]Checked // by check; absent: no result yet
	weights map[string]int     // of the document's checks
	// broken is when a node was last seen not fit for a group, so that each node can
	// say, if it becomes the leader, for how long another has been.
	broken map[fitnessKey]election.Instant
}

type fitnessKey struct {
	node  fsm.InstanceID
	group string
}

func newHealth() health {
	return health{results: map[string]Checked{}, weights: map[string]int{}, broken: map[fitnessKey]election.Instant{}}
}

// mostAdjust bounds what weights add up to: more makes no difference to a priority of
// 1 to 254.
const mostAdjust = 254

// A condition is what checks and tracked devices say of a group on this node.
type condition struct {
	// failing says what of weight zero fails. It is soft: an owner serves on until the
	// leader has named another.
	failing []string
	// pending says what of weight zero has no result yet. Who has the group open is not
	// to lose it for that.
	pending []string
	adjust  int
}

// condition of a group, from the checks and tracked devices that it names.
func (c *Core) condition(g *group) condition {
	var out condition
	for _, name := range g.def.Checks {
		r, known := c.health.results[name]
		switch w := c.health.weights[name]; {
		case known:
			out.add(w, r.Pass, "check "+name, r.Why)
		case w == 0:
			out.pending = append(out.pending, "check "+name+" has no result yet")
		default: // with the doubt in favour of who serves: a new check is no reason to move
			out.add(w, g.open() || c.mayInherit(g), "check "+name, "")
		}
	}
	for _, t := range g.def.TrackInterfaces {
		down, known := c.linkDown[t.Interface]
		out.add(t.Weight, known && !down || !known && c.mayInherit(g), "interface "+t.Interface, "it is missing or down")
	}
	out.adjust = min(max(out.adjust, -mostAdjust), mostAdjust)
	return out
}

func (k *condition) add(weight int, pass bool, what, why string) {
	switch {
	case weight == 0 && !pass:
		k.failing = append(k.failing, fmt.Sprintf("%s: %s", what, why))
	case weight > 0 && pass, weight < 0 && !pass:
		k.adjust += weight
	}
}

// ails says why this node should not be chosen for the group; none: nothing is amiss.
func (c *Core) ails(g *group) []string {
	k := c.condition(g)
	if g.open() {
		return k.failing
	}
	return append(k.failing, k.pending...)
}

// fitness is what this node says of itself and the group: why it cannot hold it or is
// not to be chosen, and what is added to its priority.
func (c *Core) fitness(g *group) (election.Unfit, int16) {
	u, k := c.unfit(g), c.condition(g)
	if u == 0 && (len(k.failing) > 0 || len(k.pending) > 0 && !g.open() && !c.mayInherit(g)) {
		u = election.UnfitCheck
	}
	return u, int16(k.adjust)
}

// checked takes the result of a check.
func (c *Core) checked(ev Checked) {
	was, known := c.health.results[ev.Check]
	c.health.results[ev.Check] = ev
	if known && was.Pass == ev.Pass {
		return // only the words are others
	}
	c.weighAll()
	c.fitnessChanged()
}

// checksChanged makes the checks those of the document. What was said of one that is
// gone says nothing of a later one with its name.
func (c *Core) checksChanged() {
	weights := map[string]int{}
	for _, check := range c.state.Document.Checks {
		weights[check.Name] = check.Weight
	}
	for name := range c.health.weights {
		if _, still := weights[name]; !still {
			delete(c.health.results, name)
		}
	}
	c.health.weights = weights
	c.weighAll()
}

// tracked reports whether a group counts on the device besides its own.
func (c *Core) tracked(link string) bool {
	for _, g := range c.groups {
		if slices.ContainsFunc(g.def.TrackInterfaces, func(t fsm.Track) bool { return t.Interface == link }) {
			return true
		}
	}
	return false
}

// patient are the groups that wait for a better node to have been fit for some time:
// those for which it matters for how long.
func (c *Core) patient() iter.Seq[*group] {
	return func(yield func(*group) bool) {
		for _, g := range c.sorted() {
			if waits(g.def) && !yield(g) {
				return
			}
		}
	}
}

func waits(g fsm.Group) bool { return g.Preempt.Yes && g.Preempt.Delay > 0 }

// notFitYet begins the account of a group that waits from now on.
func (c *Core) notFitYet(group string) {
	for id := range c.state.Nodes {
		c.health.broken[fitnessKey{id, group}] = c.now
	}
}

// watchFitness notes, each tick, who is not fit for what. Who knows of no majority does
// not judge: to it everybody seems lost.
func (c *Core) watchFitness() {
	waited := slices.ContainsFunc(c.sorted(), func(g *group) bool { return waits(g.def) })
	if !waited || c.alone || !c.hearing.MayJudge(c.now) || !c.hearing.Informed(c.now, c.log.Last) {
		return
	}
	v := c.view()
	for g := range c.patient() {
		for id := range c.state.Nodes {
			if !fsm.Fit(c.state, v, &g.def, id) {
				c.health.broken[fitnessKey{id, g.def.Name}] = c.now
			}
		}
	}
	for f := range c.health.broken {
		if _, known := c.state.Nodes[f.node]; !known || c.groups[f.group] == nil {
			delete(c.health.broken, f)
		}
	}
}

// noteLost notes, whenever the leader looks, who is lost: that can be over by the next tick.
func (c *Core) noteLost(v fsm.View) {
	for id, n := range v.Nodes {
		if !n.Alive {
			c.noteBroken(id)
		}
	}
}

// noteBroken notes that a node is fit for nothing, or was not a moment ago.
func (c *Core) noteBroken(id fsm.InstanceID) {
	for g := range c.patient() {
		c.health.broken[fitnessKey{id, g.def.Name}] = c.now
	}
}

// fitFor adds to a node's view for how long it has been fit for each group that waits
// for a better node to have been so. Nobody is known to have been fit for longer than
// this process has listened.
func (c *Core) fitFor(id fsm.InstanceID, n *fsm.NodeView) {
	for g := range c.patient() {
		put(&n.FitFor, g.def.Name, c.now.Sub(max(c.cfg.Started, c.health.broken[fitnessKey{id, g.def.Name}])))
	}
}

// priority is what the group's adverts say: of a router of its own what the document
// gives it with what its checks and tracked devices add (RFC 9568, section 6.1: 1 to 254,
// and 255 for the owner of the addresses, who stays that).
func (c *Core) priority(g *group) vrrpcompat.Priority {
	p := vrrpcompat.Priority(g.def.VRRP.Priority)
	if !c.alone || p == vrrpcompat.Owner {
		return p
	}
	return vrrpcompat.Priority(min(max(int(p)+c.condition(g).adjust, 1), int(vrrpcompat.Owner)-1))
}

// said is the group's VRRP as its adverts say it.
func (c *Core) said(g *group) fsm.VRRP {
	v := g.def.VRRP
	v.Priority = uint8(c.priority(g))
	return v
}

// weighAll tells the Routers what their priority is now. A backup's timer follows, and
// who is Active says it in its next advert.
func (c *Core) weighAll() {
	for _, g := range c.sorted() {
		for _, s := range g.seats {
			c.weigh(g, s)
		}
	}
}

func (c *Core) weigh(g *group, s *seat) {
	if p := c.priority(g); s.router != nil && s.router.Priority() != p {
		c.play(g, s, vrrpcompat.SetPriority{Priority: p})
		g.touched = true
	}
}
