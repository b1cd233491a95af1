package core

import (
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/election"
)

// convergeEvery is between two looks at the host. What the kernel says by itself is
// mended at once; this finds what it did not say.
const convergeEvery = time.Second

// converge has the host compared with what is held, all groups in one look, and the
// lifetimes of addresses renewed where they are only the backstop of the fence.
func (c *Core) converge() {
	if !c.mayBegin() || c.converging != nil || c.now.Before(c.convergeAt) {
		return
	}
	c.converging, c.convergeAt = map[string]uint64{}, c.now.Add(convergeEvery)
	e := Converge{VIPs: c.state.Document.Addrs()}
	for _, g := range c.sorted() {
		if g.phase != active {
			continue
		}
		at := g.bound
		if len(g.joining.at) > 0 {
			at = minus(g.bound, g.joining.at)
		}
		renew := !c.cfg.LifetimeFence && !c.now.Before(g.refreshAt)
		if renew {
			g.refreshAt = c.now.Add(refreshEvery)
		}
		c.converging[g.def.Name] = g.gen
		e.Held = append(e.Held, Held{Group: g.def.Name, Gen: g.gen, Holding: g.holding(at), Until: g.deadline, Renew: renew})
	}
	c.do(e)
}

// converged: the host was looked at, and what could be put right is.
func (c *Core) converged(ev Converged) {
	held := c.converging
	c.converging = nil
	if ev.Err != nil {
		c.say(Warn, "cannot see what is on this host", "error", ev.Err)
		for _, g := range c.sorted() {
			c.notKept(g, ev.Err)
		}
		return
	}
	for _, m := range ev.Groups {
		c.mendedGroup(m)
	}
	for _, p := range ev.Stray {
		c.strayed(p, held)
	}
}

func (c *Core) mendedGroup(m Mended) {
	g := c.groups[m.Group]
	if g == nil || m.Gen != g.gen || g.phase != active {
		return
	}
	if !m.Missing.Empty() && m.Err == nil {
		g.mended++
		c.say(Warn, "what the group has on this host was not as it should be, and is put right", "group", m.Group,
			"addresses", addrsOf(m.Missing.At), "routes", m.Missing.Routes, "rules", m.Missing.Rules)
		c.announceAgain(g, m.Missing.At)
	}
	switch {
	case m.Err != nil:
		g.missing = g.missing || len(m.Missing.At) > 0
		g.refreshAt = c.now
		c.notKept(g, m.Err)
	case m.Renewed:
		g.refreshed, g.missing = c.now, false
	default:
		g.missing = false
	}
}

// strayed: an address of the document stands on this host, put there by this daemon, and
// no group has it there. Without an entry in the fence it would be answered for. So it is
// let go like one that is held: shut, taken off, seen gone, and only then forgotten. held
// are the groups that were held when the look was asked for: one that was opened since
// then has its own addresses there.
func (c *Core) strayed(p Place, held map[string]uint64) {
	addr := p.Prefix.Addr()
	for _, g := range c.sorted() {
		switch {
		case g.phase == active && held[g.def.Name] == g.gen && slices.ContainsFunc(g.bound, func(b Place) bool { return b.Prefix.Addr() == addr && b.Link != p.Link }):
			c.say(Warn, "an address that is held stands on a second device, and is taken off there", "group", g.def.Name, "address", p.Prefix, "link", p.Link)
			c.do(Unbind{Group: g.def.Name, Holding: Holding{At: []Place{p}}})
			c.refresh(g) // it may have been taken off where it belongs, too
			return
		case !slices.Contains(g.def.Addrs(), addr), g.phase == binding, g.phase == closing, c.handled(addr):
			continue
		case g.phase == active: // it has not joined the others; its entry stays shut until it does
			c.say(Error, "an address that this host does not hold was there, and is taken off", "group", g.def.Name, "address", p.Prefix, "link", p.Link)
			c.shutFence(g, []Place{p})
			c.do(Unbind{Group: g.def.Name, Holding: Holding{At: []Place{p}}})
			return
		}
		c.say(Error, "an address that this host does not hold was there, and is taken off", "group", g.def.Name, "address", p.Prefix, "link", p.Link)
		c.purge(g, []Place{p})
		return
	}
}

// handled reports whether a group has the address on this host, or is taking it off.
func (c *Core) handled(addr netip.Addr) bool {
	is := func(p Place) bool { return p.Prefix.Addr() == addr }
	for _, o := range c.groups {
		if slices.ContainsFunc(o.bound, is) || slices.ContainsFunc(o.leaving.at, is) || o.phase == closing && slices.ContainsFunc(o.removal.at, is) {
			return true
		}
	}
	return false
}

// purge lets go of what is on the host of a group that does not hold it.
func (c *Core) purge(g *group, at []Place) {
	g.bound = at
	c.takeOff(g)
	g.touched = true
	c.shutFence(g, g.bound)
	c.unbind(g, &g.removal)
}

// refreshLifetime follows each new deadline where the address's lifetime is the fence.
func (c *Core) refreshLifetime(g *group) {
	if g.phase == active && c.cfg.LifetimeFence {
		c.refresh(g)
	}
}

func (c *Core) refresh(g *group) {
	c.do(Refresh{Group: g.def.Name, Gen: g.gen, Holding: g.holding(g.bound), Drop: g.dropped, Until: g.deadline})
}

// refreshTries is for how long a kernel that does not renew the lifetime of an address is
// borne with: two times in a row are too many, and the lifetime is not over yet.
const refreshTries = refreshEvery * 3 / 2

// refreshed: all of it is on the host, or is not.
func (c *Core) refreshed(ev Refreshed) {
	g := c.groups[ev.Group]
	if g == nil || ev.Gen != g.gen || g.phase != active {
		return
	}
	m := g.mending
	g.mending = mending{}
	if ev.Err != nil {
		c.notKept(g, ev.Err)
		return
	}
	g.refreshed, g.missing = c.now, false
	g.dropped = g.dropped.without(ev.Dropped)
	if len(m.at) > 0 {
		g.mended++
		c.announceAgain(g, m.at)
	}
	if m.again {
		c.mend(g, nil)
	}
}

// notKept: a kernel that does not keep the addresses on the host, and what goes with them,
// serves nobody, however good the lease is. Another node may do better.
func (c *Core) notKept(g *group, err error) {
	if g.phase != active || !g.missing && c.now.Sub(g.refreshed) < refreshTries {
		return
	}
	c.say(Error, "the kernel does not keep the address", "group", g.def.Name, "error", err)
	c.failed(g, election.UnfitKernel, kernelRetry)
	c.shut(g, election.UnfitKernel.String())
	g.touched = true
}

// A mending is a Refresh under way because something was taken off the host.
type mending struct {
	busy  bool
	at    []Place // what was seen to go
	again bool    // something went since it began
}

// addressGone: somebody took an address off that is held here. It is put back, as
// long as the lease is ours, and what went with it.
func (c *Core) addressGone(ev AddressGone) {
	for _, g := range c.sorted() {
		at := slices.IndexFunc(g.bound, func(p Place) bool { return p.Prefix.Addr() == ev.Addr })
		if at < 0 || g.phase != active || c.now.Sub(max(g.since, g.newcomer.since)) < settled || slices.Contains(g.joining.at, g.bound[at]) {
			continue
		}
		if !g.mending.busy { // a device that is flushed loses a thousand at once
			c.say(Warn, "the address was removed by somebody else and is put back", "group", g.def.Name, "address", ev.Addr, "link", ev.Link)
		}
		g.missing = true
		c.mend(g, g.bound[at:at+1])
	}
}

// mend puts all of the group back that is missing, in one go at a time.
func (c *Core) mend(g *group, gone []Place) {
	m := &g.mending
	m.at = slices.Concat(m.at, gone)
	if m.busy {
		m.again = true
		return
	}
	m.busy = true
	c.refresh(g)
}

// settled is how long after a group opened the news of its own last removal, which
// can be late, may still come.
const settled = 200 * time.Millisecond
