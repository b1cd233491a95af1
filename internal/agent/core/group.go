package core

import (
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vipctl"
)

// A phase is where one group stands on this host.
//
//	idle → waiting → (probing →) binding → active
//	  ↑                              ↓       ↓
//	  └──────────── closing ←────────┴───────┘
type phase uint8

const (
	_       phase = iota
	idle          // not ours, or not to be had
	waiting       // ours; asking the voters
	probing       // the lease is ours; asking the LAN whether the address is free
	binding       // the fence is open; the addresses are on their way
	active        // held
	closing       // the fence is shut; the addresses are being removed
)

// A group is one VIP group on this host.
type group struct {
	def    fsm.Group
	gone   bool // the document no longer has it
	epoch  uint64
	holder *election.Holder
	phase  phase
	since  election.Instant // in this phase; for active: since it opened
	// deadline is what the fence was told, while binding or active.
	deadline election.Instant
	gen      uint64 // of the last Bind, Unbind or Probe; older replies are void
	// stale is the epoch that a voter called stale: newer than what we applied, so
	// not to be asked for again.
	stale uint64

	at       []Place // devices of the addresses on this host
	resolved bool
	asked    uint64 // Resolve effects so far; older replies are void
	// bound is where the addresses were put: what must be taken off, even if the
	// devices have changed since.
	bound []Place
	// proven: some node of this cluster held these addresses in our sight, so no
	// other host has them and a take-over loses no time asking.
	proven bool

	fault      election.Unfit // with faultUntil: why it failed here
	faultUntil election.Instant

	releasedAt  election.Instant // the stamp of the last release; zero: none to repeat
	repeatUntil election.Instant

	announced   int // announcements sent since it opened
	advertAt    election.Instant
	refreshAt   election.Instant
	retryAt     election.Instant // of a failed Unbind
	touched     bool             // look at it before Step ends
	due         election.Instant // look at it then
	unbindFails int

	// For status and for saying a thing once.
	conflict   string // "10.0.0.200 is at 02:…": the last one found
	placeErr   string
	complained uint64 // the epoch at which a voter's refusal was reported
}

const (
	// probeRetry is how long a group with an address conflict stays unfit here.
	probeRetry = 10 * time.Second
	// kernelRetry is how long after the kernel refused an address or the fence.
	kernelRetry = 5 * time.Second
	// unbindRetry is between attempts to remove an address. The fence is shut.
	unbindRetry = 100 * time.Millisecond
	// refreshEvery is how often the lifetime of an address is renewed where it is
	// only the backstop of the fence.
	refreshEvery = 3 * time.Second
	// handOffTime is for how long a release by hand keeps groups off this node:
	// long enough for the leader to move them, if there is anywhere to move them to.
	handOffTime = 10 * time.Second
)

func newGroup(def fsm.Group, h *election.Holder, now election.Instant) *group {
	return &group{def: def, holder: h, phase: idle, since: now}
}

// open reports whether the fence may be open.
func (g *group) open() bool { return g.phase == binding || g.phase == active }

// asks reports whether the voters are to be asked for it.
func (g *group) asks() bool { return g.phase == waiting || g.phase == probing || g.open() }

// owned takes the group's epoch from the applied state. A newer one that names
// this node again leaves the open deadline to run, unextended until answers for it
// come: the holder forgets the others.
func (c *Core) owned(g *group) {
	a := c.state.Assignments[g.def.Name]
	if a.Epoch == g.epoch {
		return
	}
	g.epoch = a.Epoch
	g.holder.SetEpoch(a.Epoch)
	g.touched = true
	if g.asks() && a.Owner == c.cfg.Self.ID {
		c.askNow = true
	}
}

// wants reports whether this node should try to hold the group, and if not, why.
func (c *Core) wants(g *group) (string, bool) {
	a := c.state.Assignments[g.def.Name]
	switch {
	case g.gone:
		return "group-deleted", false
	case a.Owner != c.cfg.Self.ID:
		return a.Reason.String(), false
	case !c.swept:
		return "starting", false
	case g.stale == g.epoch:
		return "stale", false
	case c.stop.forced || c.stop.done:
		return "shutdown", false
	}
	if u := c.unfit(g); u != 0 && u != election.UnfitConflict {
		return u.String(), false
	}
	return "", true
}

// unfit says why this host cannot hold the group now; zero: it can.
func (c *Core) unfit(g *group) election.Unfit {
	switch {
	case c.now.Before(c.handOff):
		return election.UnfitReleased
	case c.clock != nil:
		return election.UnfitClock
	case c.bare != nil:
		return election.UnfitKernel
	case !g.resolved:
		return election.UnfitNoDevice
	case c.onDeadLink(g):
		return election.UnfitNoCarrier
	case c.now.Before(g.faultUntil):
		return g.fault
	}
	return 0
}

// onDeadLink reports whether a device of the group cannot carry anything.
func (c *Core) onDeadLink(g *group) bool {
	return slices.ContainsFunc(g.at, func(p Place) bool { return c.linkDown[p.Link] })
}

// advance brings the group as far as it can go now and sets when to look again.
func (c *Core) advance(g *group) {
	g.due = 0
	why, wants := c.wants(g)
	switch g.phase {
	case idle:
		c.leaveIdle(g, wants)
	case waiting:
		c.whileWaiting(g, wants)
	case probing:
		if !wants {
			c.released(g)
		}
	case binding, active:
		c.whileOpen(g, why, wants)
	case closing:
		if g.retryAt != 0 && !c.now.Before(g.retryAt) {
			g.retryAt = 0
			c.unbind(g)
		}
		g.wakeAt(g.retryAt)
	}
	if g.phase == idle && g.gone && c.now.After(g.repeatUntil) {
		delete(c.groups, g.def.Name)
	}
}

// wakeAt asks to be looked at again at the given instant, if it is set.
func (g *group) wakeAt(at election.Instant) {
	if at != 0 && (g.due == 0 || at < g.due) {
		g.due = at
	}
}

func (c *Core) leaveIdle(g *group, wants bool) {
	g.wakeAt(later(c.now, c.handOff))
	g.wakeAt(later(c.now, g.faultUntil))
	if wants {
		g.enter(waiting, c.now)
		c.askNow = true
	}
}

// later returns at if it is still to come, else zero.
func later(now, at election.Instant) election.Instant {
	if at.After(now) {
		return at
	}
	return 0
}

func (g *group) enter(p phase, now election.Instant) { g.phase, g.since = p, now }

// whileWaiting opens the group as soon as the answers allow it.
func (c *Core) whileWaiting(g *group, wants bool) {
	if !wants {
		c.released(g)
		return
	}
	if g.faultUntil.After(c.now) {
		g.wakeAt(g.faultUntil)
		return
	}
	deadline, ok := g.holder.Deadline(c.now, c.log)
	if !ok {
		if at, ok := g.holder.NextStart(c.now, c.log); ok {
			g.wakeAt(at)
		}
		return
	}
	if c.occupied(g) {
		return
	}
	if !g.proven {
		g.gen++
		g.enter(probing, g.since)
		c.do(Probe{Group: g.def.Name, Gen: g.gen, At: g.at})
		return
	}
	c.openFence(g, deadline)
}

// occupied reports whether an address of the group is still on this host under
// another group that it moved away from. That one's removal must not hit ours, nor
// its forgetting of the fence.
func (c *Core) occupied(g *group) bool {
	for _, o := range c.groups {
		if o != g && slices.ContainsFunc(o.bound, func(p Place) bool { return slices.Contains(g.def.Addrs(), p.Prefix.Addr()) }) {
			return true
		}
	}
	return false
}

// openFence writes the deadline, and then lets the address follow.
func (c *Core) openFence(g *group, deadline election.Instant) {
	g.gen++
	g.deadline = deadline
	g.bound = g.at
	g.refreshAt = c.now.Add(refreshEvery)
	g.enter(binding, g.since)
	c.do(
		SetFence{Group: g.def.Name, Addrs: g.def.Addrs(), Until: deadline},
		Bind{Group: g.def.Name, Gen: g.gen, At: g.bound, Until: deadline},
	)
	g.wakeAt(deadline)
}

// whileOpen extends the deadline as far as the answers go, and shuts when they no
// longer do or the group is no longer ours.
func (c *Core) whileOpen(g *group, why string, wants bool) {
	if !wants {
		c.shut(g, why)
		return
	}
	if d, ok := g.holder.Deadline(c.now, c.log); ok && d.After(g.deadline) && c.now.Before(g.deadline) {
		g.deadline = d
		c.do(SetFence{Group: g.def.Name, Addrs: g.def.Addrs(), Until: d})
		c.refreshLifetime(g)
	}
	if !c.now.Before(g.deadline) {
		c.shut(g, "lease-expired")
		return
	}
	if g.phase == active {
		c.speak(g)
	}
	g.wakeAt(g.deadline)
}

// refreshLifetime keeps the addresses on the host: each few seconds where the
// lifetime is the backstop, with every new deadline where it is the fence.
func (c *Core) refreshLifetime(g *group) {
	if g.phase != active || (!c.cfg.LifetimeFence && c.now.Before(g.refreshAt)) {
		return
	}
	g.refreshAt = c.now.Add(refreshEvery)
	c.do(Refresh{Group: g.def.Name, At: g.bound, Until: g.deadline})
}

// speak sends the announcements and adverts that are due, and wakes for the next.
func (c *Core) speak(g *group) {
	schedule := vipctl.Schedule(g.def.Announce.Repeat, g.def.Announce.Refresh)
	quiet := g.deadline.Add(-election.AnnounceGuard)
	if at, ok := schedule.At(g.announced); ok {
		if due := g.since.Add(at); !c.now.Before(due) {
			if c.now.Before(quiet) {
				c.do(Announce{Group: g.def.Name, At: g.bound, Until: quiet})
				g.announced++
			}
		} else {
			g.wakeAt(due)
		}
	}
	if at, ok := schedule.At(g.announced); ok {
		g.wakeAt(later(c.now, g.since.Add(at)))
	}
	if g.def.VRRP.ID == 0 {
		return
	}
	if !c.now.Before(g.advertAt) {
		c.do(Advertise{Group: g.def.Name, VRRP: g.def.VRRP, At: g.bound, Until: quiet})
		g.advertAt = nextAdvert(g.advertAt, c.now, g.def.VRRP.Interval)
	}
	g.wakeAt(g.advertAt)
}

// nextAdvert keeps the adverts on their grid, so that lateness does not add up,
// and skips what was missed.
func nextAdvert(due, now election.Instant, interval time.Duration) election.Instant {
	next := due.Add(interval)
	if !next.After(now) {
		next = now.Add(interval)
	}
	return next
}

// bound: the addresses are on; from here on the node is Active.
func (c *Core) bound(ev Bound) {
	g := c.groups[ev.Group]
	if g == nil || ev.Gen != g.gen || g.phase != binding {
		return // shut meanwhile: an Unbind follows in the same queue
	}
	g.touched = true
	if ev.Err != nil {
		c.failed(g, election.UnfitKernel, kernelRetry)
		c.say(Error, "the kernel refused the address", "group", ev.Group, "error", ev.Err)
		c.shut(g, election.UnfitKernel.String())
		return
	}
	c.say(Info, "vip active", "group", ev.Group, "epoch", g.epoch,
		"reason", c.state.Assignments[ev.Group].Reason.String(), "waited", c.now.Sub(g.since))
	g.enter(active, c.now)
	g.proven = true
	g.announced, g.advertAt = 0, c.now
	c.askNow = true // so that everyone knows that it is open
}

// failed makes the host unfit for the group for a while.
func (c *Core) failed(g *group, why election.Unfit, wait time.Duration) {
	g.fault, g.faultUntil = why, c.now.Add(wait)
	c.askNow = true
}

// shut closes the fence first, and then takes the addresses off.
func (c *Core) shut(g *group, why string) {
	if !g.open() {
		return
	}
	c.say(Info, "vip released", "group", g.def.Name, "epoch", g.epoch, "reason", why, "held", c.now.Sub(g.since))
	g.gen++
	g.enter(closing, c.now)
	g.deadline, g.unbindFails = 0, 0
	c.do(SetFence{Group: g.def.Name, Addrs: g.def.Addrs(), Until: 0})
	c.unbind(g)
}

func (c *Core) unbind(g *group) {
	c.do(Unbind{Group: g.def.Name, Gen: g.gen, At: g.bound})
}

// unbound: with the addresses gone, the voters may forget our claim.
func (c *Core) unbound(ev Unbound) {
	g := c.groups[ev.Group]
	if g == nil || ev.Gen != g.gen || g.phase != closing {
		return
	}
	g.touched = true
	if ev.Err != nil {
		if g.unbindFails++; g.unbindFails == 1 {
			c.say(Error, "cannot remove the address; the fence stays shut and it is tried again", "group", ev.Group, "error", ev.Err)
		}
		g.retryAt = c.now.Add(unbindRetry)
		return
	}
	c.do(ClearFence{Group: g.def.Name, Addrs: addrsOf(g.bound)})
	g.bound = nil
	c.released(g)
	c.touchAll()
}

func addrsOf(at []Place) []netip.Addr {
	out := make([]netip.Addr, 0, len(at))
	for _, p := range at {
		out = append(out, p.Prefix.Addr())
	}
	return out
}

// released: at this instant the fence is shut and nothing of the group is on the
// host. The stamp is taken now and stays the same in every repetition.
func (c *Core) released(g *group) {
	g.enter(idle, c.now)
	g.deadline, g.touched = 0, true
	g.releasedAt, g.repeatUntil = c.now, c.now.Add(c.cfg.Lease)
	c.lastStamp = max(c.lastStamp, c.now) // a question of the same instant would be void
	g.holder.Released(c.now)
	c.tellRelease(g)
}

// fenceFailed: without its fence a group is not to be held.
func (c *Core) fenceFailed(ev FenceFailed) {
	g := c.groups[ev.Group]
	if g == nil {
		return
	}
	c.say(Error, "the fence could not be written", "group", ev.Group, "error", ev.Err)
	c.failed(g, election.UnfitKernel, kernelRetry)
	switch {
	case g.open():
		// Its last deadline stands in the kernel and runs out by itself. Take the
		// address off meanwhile; the release is said only when that has happened.
		g.gen++
		g.enter(closing, c.now)
		c.unbind(g)
	case g.phase == closing:
		c.unbind(g)
	}
}

// changeReach gives the group other addresses or devices: what is held under the
// old ones is shut first, and the LAN is asked about the new ones.
func (c *Core) changeReach(g *group, def fsm.Group) {
	c.shut(g, fsm.ReasonDocument.String())
	g.def, g.proven, g.resolved = def, false, false
	c.resolve(g)
}

// resolve asks for the devices of the group's addresses.
func (c *Core) resolve(g *group) {
	g.asked++
	c.do(Resolve{Group: g.def, Gen: g.asked})
}
