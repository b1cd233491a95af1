package core

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

// newGate returns the gate of a seat. One that takes the place of a gate by which a
// router was found to outrank us listens before it allows anything.
func newGate(now election.Instant, g *group, s, before *seat) (*vrrpcompat.Gate, error) {
	cfg := vrrpcompat.GateConfig{Virtual: s.Virtual.Virtual, Priority: vrrpcompat.Priority(g.def.VRRP.Priority), Outranked: vrrpcompat.PolicyYield}
	if g.def.VRRP.Outranked == fsm.OutrankedHold {
		cfg.Outranked = vrrpcompat.PolicyHold
	}
	if before != nil {
		if _, outranked := before.gate.Outranked(); outranked {
			cfg.Listen = listenFor(g.def.VRRP.Interval)
		}
	}
	return vrrpcompat.NewGate(vrrpcompat.Instant(now), cfg)
}

// gatesForbid: a group is held only while every gate of it allows that. One that no
// node of the cluster was seen to hold is not taken before the LAN was listened to.
func (c *Core) gatesForbid(g *group) string {
	if !g.proven && c.now.Before(g.listenUntil) {
		return "listening"
	}
	if slices.ContainsFunc(g.seats, func(s *seat) bool { return !s.gate.Allows() }) {
		return "outranked"
	}
	return ""
}

// heedGate tells people what a gate found; what follows from it for the group is in
// advance, and everyone is told by the next renewal.
func (c *Core) heedGate(g *group, s *seat, e vrrpcompat.Effect) {
	switch e := e.(type) {
	case vrrpcompat.Yield:
		if e.To.From.IsValid() {
			c.say(Warn, "a router outside the cluster has the better claim: the group yields to it", "group", g.def.Name,
				"link", s.Link, "router", e.To.From, "priority", uint8(e.To.Priority))
		}
	case vrrpcompat.Resume:
		c.say(Info, "no router outside the cluster has the better claim any more", "group", g.def.Name, "link", s.Link)
	case vrrpcompat.Alarm:
		c.say(Error, "a router outside the cluster has the better claim, and the group is held all the same (outranked: hold): "+
			"two hosts answer", "group", g.def.Name, "link", s.Link, "router", e.Of.From, "priority", uint8(e.Of.Priority))
	case vrrpcompat.AlarmOver:
		c.say(Info, "the router outside the cluster that had the better claim is gone", "group", g.def.Name, "link", s.Link)
	default:
		return
	}
	g.touched, c.askNow = true, true
}

// yielded reports whether only the routers outside keep this node from opening the
// group: the lease is at hand. Said in the renewal, so that the leader does not name
// another, which would find the same or, worse, not hear the router that we hear.
func (c *Core) yielded(g *group) bool {
	if g.phase != waiting || c.forbids(g) == "" {
		return false
	}
	_, ok := g.holder.Deadline(c.now, c.log)
	return ok
}

// speaking tells the gates whether this node sends the group's adverts.
func (c *Core) speaking(g *group, yes bool) {
	for _, s := range g.seats {
		if s.gate != nil {
			c.play(g, s, vrrpcompat.Speaking{Yes: yes})
		}
	}
}

// ownSources are the addresses that this node's adverts come from, those to groups first.
func (c *Core) ownSources() []netip.Addr {
	var group, all []netip.Addr
	for r, a := range c.sources {
		if all = append(all, a); !r.peer.IsValid() {
			group = append(group, a)
		}
	}
	slices.SortFunc(group, netip.Addr.Compare)
	slices.SortFunc(all, netip.Addr.Compare)
	out := slices.Compact(group)
	for _, a := range slices.Compact(all) {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out[:min(len(out), election.MaxSources)]
}

// nameInsiders makes known whose adverts are the cluster's own: those from the
// addresses that the other nodes state, and from where they listen. They stay named
// when a node falls silent, for its last adverts are no claim either. An insider that
// is not named yet counts as a stranger: then nothing is opened until its next renewal.
func (c *Core) nameInsiders() {
	var from []netip.Addr
	for _, n := range c.nodes() {
		if n.ID == c.cfg.Self.ID {
			continue
		}
		from = append(from, n.Address.Addr().Unmap().WithZone(""))
		if p := c.peers[n.ID]; p != nil {
			from = append(from, p.sources...)
		}
	}
	slices.SortFunc(from, netip.Addr.Compare)
	from = slices.Compact(from)
	if slices.Equal(from, c.insiders) {
		return
	}
	c.insiders = from
	c.do(Insiders{From: from})
	for _, g := range c.sorted() {
		for _, s := range g.seats {
			c.play(g, s, vrrpcompat.Insiders{From: from})
		}
	}
}

// lastHolder reports whether what is let go now is let go by the cluster, for it is
// certain that no other node can hold it. Only then may the routers outside be told to
// hurry: to a planned move they would answer with a claim.
func (c *Core) lastHolder(g *group) bool {
	if _, wants := c.wants(g); wants {
		return false // it is let go for a moment only
	}
	if g.gone {
		return !c.lives(g)
	}
	return c.nobodyNamed(g) || c.owns(g) && !g.outdated() && c.nobodyElse(g)
}

// nobodyNamed reports whether the cluster wants nobody to hold the group.
func (c *Core) nobodyNamed(g *group) bool {
	a := c.state.Assignments[g.def.Name]
	return a.Epoch != 0 && a.Owner.IsZero()
}

// lives reports whether another group of the document has an address of this one, or
// its virtual router id.
func (c *Core) lives(g *group) bool {
	return slices.ContainsFunc(c.state.Document.Groups, func(o fsm.Group) bool {
		return o.VRRP.ID == g.def.VRRP.ID ||
			slices.ContainsFunc(o.Addrs(), func(a netip.Addr) bool { return slices.Contains(g.def.Addrs(), a) })
	})
}

// nobodyElse reports whether every other node has said itself that it cannot hold the
// group: that its process ends, or, lately, that it is unfit. Of a node that is only
// silent nothing is certain.
func (c *Core) nobodyElse(g *group) bool {
	for _, n := range c.nodes() {
		if n.ID == c.cfg.Self.ID || n.Role != fsm.Member {
			continue
		}
		p := c.peers[n.ID]
		switch {
		case p == nil:
			return false
		case p.health.Stopping: // when it is back, its next word replaces this
		case c.hearing.Silent(c.now, n.ID):
			return false
		case p.groups[g.def.Name].Unfit == 0, p.groups[g.def.Name].Unfit == election.UnfitCheck: // who fails a check may serve, if all do
			return false
		}
	}
	return true
}

// outranked is the strongest router outside that has a better claim than the cluster.
func (g *group) outranked() (vrrpcompat.Rival, bool) {
	var all []vrrpcompat.Rival
	for _, s := range g.seats {
		if s.gate == nil {
			continue
		}
		if r, ok := s.gate.Outranked(); ok {
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		return vrrpcompat.Rival{}, false
	}
	return slices.MaxFunc(all, func(a, b vrrpcompat.Rival) int { return cmp.Compare(a.Priority, b.Priority) }), true
}

// outrankedProblem is what status says of it; empty: nothing.
func (g *group) outrankedProblem() string {
	r, ok := g.outranked()
	switch {
	case !ok:
		return ""
	case g.def.VRRP.Outranked == fsm.OutrankedHold:
		return fmt.Sprintf("router %s (priority %d) has the better claim, and two hosts answer (outranked: hold)", r.From, r.Priority)
	}
	return fmt.Sprintf("router %s (priority %d) has the better claim", r.From, r.Priority)
}
