package core

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

// A seat is one virtual router of a group on this host, with what decides there about
// the routers that are heard: a Gate in a cluster, a Router with election: vrrp. All
// seats of a group must allow it to be held; what they do otherwise (adverts, addresses)
// is done by the group, for all of them together.
type seat struct {
	Virtual
	at     []Place                   // its addresses
	gate   *vrrpcompat.Gate          // in a cluster
	router *vrrpcompat.Router        // with election: vrrp
	peers  []netip.Addr              // who is spoken to; the zero address: the group
	source map[netip.Addr]netip.Addr // by peer; empty: it can send nothing
	// heard: a router which is none of the cluster's was heard to answer for the
	// addresses. That it answers the LAN's question too is then no conflict.
	heard bool
	owner netip.Addr // who claims to own the addresses as we do
}

// A route names where adverts go: from a device and family to a peer, or for the zero
// address to the group.
type route struct {
	link   string
	family vrrpcompat.Family
	peer   netip.Addr
}

func (s *seat) step(now election.Instant, ev vrrpcompat.Event) []vrrpcompat.Effect {
	if s.router != nil {
		return s.router.Step(vrrpcompat.Instant(now), ev)
	}
	return s.gate.Step(vrrpcompat.Instant(now), ev)
}

// wake returns when a Tick is due; zero: it is not.
func (s *seat) wake() election.Instant {
	at, ok := vrrpcompat.Instant(0), false
	if s.router != nil {
		at, ok = s.router.Wake()
	} else {
		at, ok = s.gate.Wake()
	}
	if !ok {
		return 0
	}
	return election.Instant(at)
}

// seat gives the group its virtual routers: where its addresses are is known now, or
// the document says something else of them. Those that are as they were stay.
func (c *Core) seat(g *group) {
	old, was := g.seats, g.seated
	g.seats, g.seated, g.seatErr = nil, g.def, ""
	virtuals, err := Virtuals(g.def.VRRP, Advertised(g.def, g.at))
	for _, v := range virtuals {
		i := slices.IndexFunc(old, func(s *seat) bool { return s.Link == v.Link && s.Family == v.Family })
		var before *seat
		if i >= 0 {
			before = old[i]
		}
		if before != nil && slices.Equal(before.Addresses, v.Addresses) && sameVRRP(was.VRRP, g.def.VRRP) && was.Preempt == g.def.Preempt {
			before.at = placesOf(Advertised(g.def, g.at), v)
			g.seats = append(g.seats, before)
			continue
		}
		s := &seat{Virtual: v, at: placesOf(Advertised(g.def, g.at), v), peers: peersOf(g.def.VRRP, v.Family)}
		if err = c.furnish(g, s, before); err != nil {
			break
		}
		g.seats = append(g.seats, s)
	}
	if err != nil {
		g.seats, g.seatErr = nil, err.Error()
		c.say(Error, "the group cannot be a virtual router, and is not held", "group", g.def.Name, "error", err)
	}
	for _, s := range g.seats {
		c.supply(g, s)
	}
	g.touched = true
}

// sameVRRP reports whether the two say the same.
func sameVRRP(a, b fsm.VRRP) bool {
	return a.ID == b.ID && a.Version == b.Version && a.AlsoV2 == b.AlsoV2 && a.Priority == b.Priority && a.Interval == b.Interval &&
		a.Checksum == b.Checksum && a.Password == b.Password && a.Outranked == b.Outranked && slices.Equal(a.Unicast, b.Unicast)
}

// placesOf are the addresses of the virtual router.
func placesOf(at []Place, v Virtual) []Place {
	var out []Place
	for _, p := range at {
		if p.Link == v.Link && vrrpcompat.FamilyOf(p.Prefix.Addr()) == v.Family {
			out = append(out, p)
		}
	}
	return out
}

// peersOf are those to whom a virtual router speaks.
func peersOf(v fsm.VRRP, family vrrpcompat.Family) (out []netip.Addr) {
	for _, p := range v.Unicast {
		if vrrpcompat.FamilyOf(p.Addr) == family {
			out = append(out, p.Addr)
		}
	}
	if len(out) == 0 {
		out = []netip.Addr{{}}
	}
	return out
}

// furnish gives the seat its Gate or Router, which knows what this node is doing.
func (c *Core) furnish(g *group, s, before *seat) (err error) {
	if before != nil {
		s.heard = before.heard
	}
	if !c.alone {
		if s.gate, err = newGate(c.now, g, s, before); err == nil {
			s.step(c.now, vrrpcompat.Insiders{From: c.insiders})
			s.step(c.now, vrrpcompat.Speaking{Yes: g.phase == active})
		}
		return err
	}
	if s.router, err = newRouter(g, s); err != nil {
		return err
	}
	c.weigh(g, s)
	if g.called {
		c.play(g, s, vrrpcompat.Startup{})
	}
	return nil
}

// longestListen bounds how long a group that nobody of the cluster held is put off.
const longestListen = 3 * time.Second

// listenFor is how long to listen before an address is taken that this cluster may
// never have held: one advert of a router that is Active already comes in that time.
func listenFor(interval time.Duration) time.Duration {
	return min(interval+interval/10, longestListen)
}

// supply tells the seat from where it can send adverts now.
func (c *Core) supply(g *group, s *seat) {
	source := map[netip.Addr]netip.Addr{}
	for _, peer := range s.peers {
		if a, ok := c.sources[route{s.Link, s.Family, peer}]; ok && !c.linkDown[s.Link] {
			source[peer] = a
		}
	}
	if maps.Equal(source, s.source) {
		return
	}
	s.source = source
	if len(source) == 0 {
		c.play(g, s, vrrpcompat.LinkDown{})
		return
	}
	if g.listenUntil == 0 { // before, nothing could be heard
		g.listenUntil = c.now.Add(listenFor(g.def.VRRP.Interval))
	}
	c.play(g, s, vrrpcompat.LinkUp{Source: s.shown()})
}

// shown is the source that stands for all of the seat's: that towards the first peer who
// can be spoken to. The zero address: nobody can.
func (s *seat) shown() netip.Addr {
	for _, peer := range s.peers {
		if a := s.source[peer]; a.IsValid() {
			return a
		}
	}
	return netip.Addr{}
}

// self is the address by which the sender of an advert knows us, and by which a tie with
// it is broken. Our own advert, sent back to us, is known by it too. A peer that we cannot
// speak to does not know of us, and so has the better address (vrrpcompat.Received).
func (s *seat) self(from netip.Addr) netip.Addr {
	from = from.WithZone("")
	for _, a := range s.source {
		if a == from {
			return a
		}
	}
	switch a := s.source[from]; {
	case !s.peers[0].IsValid():
		return s.source[netip.Addr{}]
	case a.IsValid():
		return a
	case from.Is4():
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func (c *Core) supplyAll() {
	for _, g := range c.sorted() {
		for _, s := range g.seats {
			c.supply(g, s)
		}
	}
}

// sourceChanged: adverts come from another address of this host, or none can be sent.
func (c *Core) sourceChanged(ev SourceChanged) {
	at := route{ev.Link, ev.Family, ev.Peer}
	if addr := ev.Addr.WithZone(""); addr.IsValid() {
		c.sources[at] = addr
	} else {
		delete(c.sources, at)
	}
	c.supplyAll()
	c.askNow = true // the other nodes must know whose adverts these are
}

// advertHeard: another router speaks for one of the group's virtual routers.
func (c *Core) advertHeard(ev AdvertHeard) {
	g := c.groups[ev.Group]
	if g == nil {
		return
	}
	for i, s := range g.seats {
		if s.Link == ev.Link && s.Family == vrrpcompat.FamilyOf(ev.From) && s.Refuse(ev.Advert, ev.From, s.self(ev.From)) == nil {
			c.noteSpeaker(g, s, ev)
			if c.alone {
				c.heardAlone(g, i, ev)
			} else {
				c.play(g, s, vrrpcompat.Received{From: ev.From, Advert: ev.Advert, Self: s.self(ev.From)})
			}
		}
	}
}

// noteSpeaker: who advertises an address answers for it, and is not in conflict with
// us but in competition. What the LAN was asked before that is void.
func (c *Core) noteSpeaker(g *group, s *seat, ev AdvertHeard) {
	if s.heard || ev.Advert.Priority == vrrpcompat.Release || slices.Contains(c.insiders, ev.From.WithZone("")) {
		return
	}
	s.heard = true
	if g.fault == election.UnfitConflict && slices.Contains(addrsOf(s.at), g.conflictAddr) {
		g.faultUntil, g.conflict, g.touched = c.now, "", true
	}
}

// tickSeats gives every Gate and Router its time. It is done when nothing else waits:
// what the socket held must be told before anybody is found silent.
func (c *Core) tickSeats() {
	for _, g := range c.sorted() {
		for _, s := range g.seats {
			if at := s.wake(); at != 0 && !c.now.Before(at) {
				c.play(g, s, vrrpcompat.Tick{})
			}
		}
	}
}

// play tells the seat what happened and does what it says.
func (c *Core) play(g *group, s *seat, ev vrrpcompat.Event) {
	for _, e := range s.step(c.now, ev) {
		c.heed(g, s, ev, e)
	}
}

// heed does what a Gate or Router says, as far as it is for one seat to say. Bind and
// Unbind are the group's: it looks at all its seats.
func (c *Core) heed(g *group, s *seat, because vrrpcompat.Event, e vrrpcompat.Effect) {
	switch e := e.(type) {
	case vrrpcompat.Send:
		_, answer := because.(vrrpcompat.Received)
		switch {
		case e.Priority == vrrpcompat.Release:
			if g.open() { // else nothing was claimed
				g.lastWords = append(g.lastWords, s.at...)
			}
		case answer: // what is due by the clock is in speak
			c.advertise(g, s.at)
		}
	case vrrpcompat.Announce:
		c.announceAgain(g, s.at)
	case vrrpcompat.Changed:
		g.touched, g.cause = true, e.Cause
		c.say(Debug, "virtual router", "group", g.def.Name, "link", s.Link, "family", s.Family.String(),
			"from", e.From.String(), "to", e.To.String(), "reason", e.Cause.String())
	case vrrpcompat.OwnerConflict:
		if s.owner != e.From {
			s.owner = e.From
			c.say(Error, "another router claims to own the addresses too (priority 255)", "group", g.def.Name, "link", s.Link, "router", e.From)
		}
	default:
		c.heedGate(g, s, e)
	}
}

// advertise sends the adverts of these addresses at once, while they may be sent.
func (c *Core) advertise(g *group, at []Place) {
	if quiet := quietFrom(g.deadline); g.phase == active && c.now.Before(quiet) {
		c.adverts(g, c.said(g), g.here(at), quiet)
	}
}

// forbids says why the routers that are heard do not let this node hold the group;
// empty: they do. It only narrows what the tenure allows.
func (c *Core) forbids(g *group) string {
	switch {
	case g.def.VRRP.ID == 0 && !c.alone:
		return ""
	case len(g.seats) == 0:
		return "no-virtual-router"
	case c.alone:
		return c.routersForbid(g)
	}
	return c.gatesForbid(g)
}

// unasked are the addresses of which the LAN is to be asked whether another host has
// them. One that is advertised is had by a router, and taken from it by VRRP's rules; so
// are those with it that adverts leave out.
func (g *group) unasked() []Place {
	if len(g.seats) == 0 {
		return g.at
	}
	var spoken []Place
	for _, s := range g.seats {
		if s.heard {
			spoken = append(spoken, s.at...)
		}
	}
	if len(spoken) == 0 {
		return g.at
	}
	for _, p := range g.at {
		if g.def.Specs[p.Prefix.Addr()].Unadvertised {
			spoken = append(spoken, p)
		}
	}
	return minus(g.at, spoken)
}

// farewell says priority 0 for what was let go, now that the addresses are gone.
func (c *Core) farewell(g *group) {
	if len(g.lastWords) > 0 && c.now.Before(g.quiet) {
		v := g.def.VRRP
		v.Priority = uint8(vrrpcompat.Release)
		c.adverts(g, v, g.lastWords, g.quiet)
	}
	g.lastWords = nil
}
