package core

import (
	"slices"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// What follows changes some addresses of a group that is open, and leaves those alone
// that stay: their entries in the fence run on to the deadline that they have, and are
// extended when the answers for the new epoch come. Those that go are shut at once, and
// those that come are opened by the new epoch's answers.

// A joining is what is still to be done for the addresses that came to an open group.
type joining struct {
	at    []Place          // none: nothing is to come
	gen   uint64           // of the Probe or Bind under way; zero: neither is
	free  bool             // the LAN was asked: no other host has them
	after election.Instant // not before
}

// A newcomer is what joined a group last, and is still to be announced.
type newcomer struct {
	at        []Place
	since     election.Instant
	announced announcing
}

// changeReach gives the group other addresses or devices. What can stay does. Else all
// that is held under the old ones is shut first, and the LAN is asked about the new ones.
func (c *Core) changeReach(g *group, def fsm.Group) {
	stay, away := divide(g.bound, def)
	restands := len(minus(stay, g.bound)) > 0
	if c.mayStay(g, def, stay, away) {
		g.bound, g.at = stay, stay
		c.depart(g, away)
	} else {
		c.shut(g, fsm.ReasonDocument.String())
		g.proven, g.seats, g.listenUntil = false, nil, 0
		if g.phase == probing { // what comes of that is of other addresses
			g.enter(waiting, g.since)
		}
	}
	g.def, g.anew, g.resolved = def, g.anew || g.resolved, false
	if g.open() {
		if along := c.accompany(g, g.bound); along || restands {
			c.refresh(g)
		}
	}
	c.resolve(g)
}

// mayStay reports whether the addresses that stay can be held meanwhile. One change is
// done at a time, and only of addresses: whatever else is under way, or changes too, has
// the whole group shut.
func (c *Core) mayStay(g *group, def fsm.Group, stay, away []Place) bool {
	switch {
	case c.alone, g.phase != active, !g.resolved, g.unproven.since != 0, !c.owns(g), len(stay) == 0:
		return false
	case len(g.leaving.at) > 0, len(g.joining.at) > 0:
		return false
	case g.def.Interface != def.Interface, g.def.VMAC != def.VMAC, g.def.Preempt != def.Preempt, !sameVRRP(g.def.VRRP, def.VRRP):
		return false
	}
	if _, outranked := g.outranked(); outranked { // the gates are made anew, and listen
		return false
	}
	return !c.awaited(away)
}

// awaited reports whether another node holds, or is to hold, a group that gets one of
// these addresses: then that one's other addresses would have to wait for the voters'
// notes of ours to run out. The release that ends them is of the whole group.
func (c *Core) awaited(at []Place) bool {
	return slices.ContainsFunc(c.state.Document.Groups, func(o fsm.Group) bool {
		owner := c.state.Assignments[o.Name].Owner
		return !owner.IsZero() && owner != c.cfg.Self.ID && slices.ContainsFunc(at, func(p Place) bool { return slices.Contains(o.Addrs(), p.Prefix.Addr()) })
	})
}

// divide tells the places that the group goes on to have from those that it has not. One
// that is to stand otherwise on its device stays: it is replaced where it is.
func divide(at []Place, def fsm.Group) (stay, away []Place) {
	for _, p := range at {
		if is := def.Standing(p.Prefix.Addr()); slices.Contains(def.Addresses, p.Prefix) && is.Interface == p.Spec.Interface {
			p.Spec = is
			stay = append(stay, p)
		} else {
			away = append(away, p)
		}
	}
	return stay, away
}

// minus is what of these is not among the others.
func minus[T comparable](of, not []T) []T {
	has := func(v T) bool { return slices.Contains(not, v) }
	if len(of)*len(not) > manyPairs {
		there := make(map[T]struct{}, len(not))
		for _, v := range not {
			there[v] = struct{}{}
		}
		has = func(v T) bool { _, ok := there[v]; return ok }
	}
	var out []T
	for _, v := range of {
		if !has(v) {
			out = append(out, v)
		}
	}
	return out
}

// manyPairs is from when it pays to look things up rather than to compare each with each.
const manyPairs = 256

// depart shuts and takes off what leaves an open group. Nothing is released: that would
// end the voters' notes of the addresses that stay. The notes of those that go run out
// by themselves, within a lease.
func (c *Core) depart(g *group, at []Place) {
	c.say(Info, "the addresses of the group change, those that stay are held on", "group", g.def.Name, "stay", g.bound, "go", at)
	if len(at) == 0 {
		return
	}
	g.leaving = removal{at: at, gen: c.nextGen(), reset: !g.def.KeepConnections && !c.cfg.LifetimeFence}
	if g.telling.gen != 0 { // with addresses that go
		g.telling = telling{what: g.bound}
	}
	c.shutFence(g, at)
	c.unbind(g, &g.leaving)
}

// whileLeaving ends what left the group, when nothing of it can be heard any more.
func (c *Core) whileLeaving(g *group) {
	if len(g.leaving.at) > 0 && c.removed(g, &g.leaving) {
		g.leaving = removal{}
		c.touchAll()
	}
}

// gather makes one of all that is on the host, or may be: the group is let go. What had
// not joined it is unknown to the LAN.
func (g *group) gather() {
	g.bound = slices.Concat(g.bound, g.leaving.at)
	if len(g.joining.at) > 0 {
		g.proven = false
	}
	g.leaving, g.joining, g.newcomer = removal{}, joining{}, newcomer{}
}

// joins takes note of the addresses that an open group has still to get, now that their
// devices are known. Where they make a new virtual router it is listened to before.
func (c *Core) joins(g *group, before []*seat) {
	at := minus(g.at, g.bound)
	if len(at) == 0 {
		g.bound = g.at // in the order of the document
		return
	}
	if slices.Equal(at, g.joining.at) {
		return
	}
	g.joining = joining{at: at}
	for _, s := range g.seats {
		if !slices.ContainsFunc(before, func(b *seat) bool { return b.Link == s.Link && b.Family == s.Family }) {
			g.joining.after = c.now.Add(listenFor(g.def.VRRP.Interval))
		}
	}
}

// whileJoining opens what came to the group, by answers for the present epoch alone, and
// for as long as the others are open.
func (c *Core) whileJoining(g *group) {
	j := &g.joining
	if len(j.at) == 0 || j.gen != 0 {
		return
	}
	if c.now.Before(j.after) {
		g.wakeAt(j.after)
		return
	}
	if d, ok := g.holder.Deadline(c.now, c.log); !ok || d != g.deadline || c.occupied(g) {
		return
	}
	j.gen = c.nextGen()
	if ask := g.unaskedOf(j.at); !j.free && len(ask) > 0 {
		c.do(Probe{Group: g.def.Name, Gen: j.gen, At: ask})
		return
	}
	g.bound = g.at
	c.accompany(g, g.bound)
	c.fenceThenAddress(g, j.at, j.gen)
}

// unaskedOf are those of which the LAN is to be asked.
func (g *group) unaskedOf(at []Place) []Place { return minus(at, minus(at, g.unasked())) }

// joinProbed: the LAN was asked about what is to join the group. An address that another
// host has does not join it, and is asked for again and again; the others are served.
func (c *Core) joinProbed(g *group, ev Probed) {
	j := &g.joining
	j.gen, g.touched = 0, true
	switch {
	case ev.Err != nil:
		c.say(Error, "cannot ask the LAN whether the address is free", "group", ev.Group, "error", ev.Err)
		j.after = c.now.Add(kernelRetry)
	case ev.MAC != "" && !slices.Contains(addrsOf(g.unaskedOf(j.at)), ev.Addr): // a router was heard meanwhile that advertises it
	case ev.MAC != "":
		c.say(Error, "address conflict: another host answers for the address; it does not join the group", "group", ev.Group,
			"address", ev.Addr, "mac", ev.MAC)
		g.conflict, g.conflictAddr = ev.Addr.String()+" is at "+ev.MAC, ev.Addr
		j.after = c.now.Add(probeRetry)
	default:
		j.free, g.conflict = true, ""
	}
}

// joined: the addresses are on. What the kernel refuses is refused as of a whole group.
func (c *Core) joined(g *group, ev Bound) {
	g.touched = true
	if ev.Err != nil {
		c.refusedAddress(g, ev.Err)
		return
	}
	c.say(Info, "addresses joined the group", "group", ev.Group, "epoch", g.epoch, "addresses", addrsOf(g.joining.at))
	g.newcomer = newcomer{at: g.joining.at, since: c.now}
	g.joining, g.conflict = joining{}, ""
}

// here are those that are on this host under the group, and stay.
func (g *group) here(at []Place) []Place {
	if len(g.joining.at) == 0 && len(at) > 0 && len(at) == len(g.bound) && &at[0] == &g.bound[0] {
		return at
	}
	return minus(at, slices.Concat(minus(at, g.bound), g.joining.at))
}

// openFor is what the renewal says of an open group: for how long it is, and nothing
// while some addresses of it are still to come. They are not known yet to be free.
func (c *Core) openFor(g *group) time.Duration {
	if !g.resolved || len(g.joining.at) > 0 {
		return 0
	}
	return max(c.now.Sub(g.since), time.Microsecond)
}

// holdsAll reports whether who says that the group is open has all its addresses.
func holdsAll(s election.GroupState) bool { return s.Phase == election.PhaseOpen && s.Since > 0 }

// redefine takes what the document says of a group whose addresses stay where they
// are. Who listens for its virtual routers must know what they are now.
func (c *Core) redefine(g *group, def fsm.Group) {
	same := sameVRRP(g.def.VRRP, def.VRRP) && g.def.Preempt == def.Preempt && slices.Equal(g.def.Advertised(), def.Advertised())
	g.def = def
	if g.open() && c.accompany(g, minus(g.bound, g.joining.at)) {
		c.refresh(g)
	}
	if same {
		return
	}
	if g.resolved {
		c.seat(g)
	}
	c.resolve(g)
}

// resolve asks for the devices of the group's addresses.
func (c *Core) resolve(g *group) {
	g.asked = c.nextGen()
	c.do(Resolve{Group: g.def, Gen: g.asked})
}
