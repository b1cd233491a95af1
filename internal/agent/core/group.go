package core

import (
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
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
	closing       // the fence is shut; the addresses are being removed, or have just been
)

// A group is one VIP group on this host.
type group struct {
	def    fsm.Group
	gone   bool // the document no longer has it
	epoch  uint64
	holder tenure
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
	anew     bool   // not resolved, and was when the document changed
	asked    uint64 // of the last Resolve; older replies are void
	// bound is where the addresses were put: what must be taken off, even if the
	// devices have changed since.
	bound   []Place
	with    Holding // the routes and rules that were put there besides
	dropped Holding // those that the group has no longer, and that are still to be taken out
	kept    bool    // as an earlier life of the process left it
	// proven: some node of this cluster held these addresses in our sight, so no
	// other host has them and a take-over loses no time asking.
	proven bool

	fault      election.Unfit // with faultUntil: why it failed here
	faultUntil election.Instant

	releasedAt  election.Instant // the stamp of the last release; zero: none to repeat
	repeatUntil election.Instant

	announced announcing // since it opened
	telling   telling
	parting   parting
	resetting uint64                // of the last ResetConnections, until it is answered
	claims    map[netip.Addr]*claim // by other hosts, since it opened
	lingers   []Place               // of a tenure whose connections were left alone: it might have gone on
	mended    int                   // times that something was missing and was put back
	advertAt  election.Instant
	refreshAt election.Instant
	refreshed election.Instant // when the kernel took an address or its lifetime last
	missing   bool             // somebody took an address off, and it is not known to be back
	mending   mending
	touched   bool             // look at it before Step ends
	due       election.Instant // look at it then

	removal  removal // while closing
	leaving  removal // while open: of addresses that left the group
	joining  joining // while open
	newcomer newcomer

	proof    uint64 // the epoch by which a majority last let it be open
	unproven unproven

	measured measured // for the history

	// For hooks.
	stood       string // what they were told last; empty: nothing
	standsAgain bool   // tell them once more
	left        string // why it was let go here last

	// Of VRRP: see seat.
	seats       []*seat
	seated      fsm.Group // what the seats were made for
	seatErr     string
	listenUntil election.Instant // in a cluster: hear first who is Active outside; zero: nothing can be heard
	called      bool             // alone: the Routers are started
	restUntil   election.Instant // alone: after a tie, do not come back before
	cause       vrrpcompat.Cause // of the last change of a Router
	lastWords   []Place          // priority 0 is due for these when the addresses are gone
	quiet       election.Instant // of the deadline until which it was open last

	// For status and for saying a thing once.
	conflictAddr netip.Addr
	conflict     string // "10.0.0.200 is at 02:…": the last one found
	placeErr     string
	complained   uint64 // the epoch at which a voter's refusal was reported
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

func newGroup(def fsm.Group, h tenure, now election.Instant) *group {
	return &group{def: def, holder: h, phase: idle, since: now}
}

// open reports whether the fence may be open.
func (g *group) open() bool { return g.phase == binding || g.phase == active }

// asks reports whether the voters are to be asked for it.
func (g *group) asks() bool {
	return g.phase == waiting || g.phase == probing || g.open() && g.parting.until == 0
}

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
	c.endLingering(g)
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
	case !c.owns(g):
		return a.Reason.String(), false
	case !c.mayBegin():
		return "starting", false
	case g.outdated():
		return "stale", false
	case c.stop.forced || c.stop.done:
		return "shutdown", false
	}
	if u := c.unfit(g); u != 0 && u != election.UnfitConflict {
		return u.String(), false
	}
	if c.alone && len(c.ails(g)) > 0 { // there is nobody to name another
		return election.UnfitCheck.String(), false
	}
	return "", true
}

// owns: who applies that another is named lets go at once, without waiting for the
// end of the lease.
//
//quorate:rule shut-when-named-away
func (c *Core) owns(g *group) bool {
	return c.state.Assignments[g.def.Name].Owner == c.cfg.Self.ID
}

// mayBegin: nothing is asked for before everything that an earlier life left on the
// host is gone, but for what is kept as it is.
//
//quorate:rule sweep-first
func (c *Core) mayBegin() bool { return c.swept }

// outdated: a voter knows of a newer epoch than the one that was applied here.
//
//quorate:rule shut-when-stale
func (g *group) outdated() bool { return g.stale == g.epoch }

// unfit says why this host cannot hold the group now; zero: it can.
func (c *Core) unfit(g *group) election.Unfit {
	switch {
	case c.now.Before(c.handOff):
		return election.UnfitReleased
	case c.slewed():
		return election.UnfitClock
	case c.uncovered():
		return election.UnfitKernel
	case !g.resolved && !g.anew:
		return election.UnfitNoDevice
	case c.onDeadLink(g):
		return election.UnfitNoCarrier
	case c.now.Before(g.faultUntil):
		return g.fault
	}
	return 0
}

// slewed: a deadline on a clock that is being slewed is no deadline. What is open
// is shut, and nothing is opened.
//
//quorate:rule slewed-holds-nothing
func (c *Core) slewed() bool { return c.clock != nil }

// uncovered: a device without the fence answers for whatever is on the host.
//
//quorate:rule fence-everywhere
func (c *Core) uncovered() bool { return c.bare != nil }

// onDeadLink reports whether a device of the group cannot carry anything.
func (c *Core) onDeadLink(g *group) bool {
	return slices.ContainsFunc(g.at, func(p Place) bool { return c.linkDown[p.Link] })
}

// advance brings the group as far as it can go now and sets when to look again.
func (c *Core) advance(g *group) {
	g.due, c.advanced = 0, true
	why, wants := c.wants(g)
	c.callRouters(g, wants)
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
		c.whileClosing(g)
	}
	if g.phase == idle && g.gone && c.now.After(g.repeatUntil) {
		delete(c.groups, g.def.Name)
		c.order = nil
		c.do(Unserve{Group: g.def})
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
		c.askNow, g.touched = true, c.alone // alone, nobody's answer brings it further
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
	if !g.resolved {
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
	if c.forbids(g) != "" {
		g.wakeAt(later(c.now, g.listenUntil))
		g.wakeAt(later(c.now, g.restUntil))
		c.probeAhead(g)
		return
	}
	if !g.proven && len(g.unasked()) > 0 {
		c.probe(g)
		return
	}
	c.openFence(g, deadline)
}

// probe asks the LAN whether another host has the addresses.
func (c *Core) probe(g *group) {
	g.gen = c.nextGen()
	g.enter(probing, g.since)
	c.do(Probe{Group: g.def.Name, Gen: g.gen, At: g.unasked()})
}

// occupied reports whether an address of the group is still on this host under
// another group that it moved away from, or is being taken off. That removal must not
// hit ours, nor the forgetting of the fence after it.
//
//quorate:rule address-free
func (c *Core) occupied(g *group) bool {
	addrs := g.def.Addrs()
	ours := func(p Place) bool { return slices.Contains(addrs, p.Prefix.Addr()) }
	for _, o := range c.groups {
		if slices.ContainsFunc(o.leaving.at, ours) || o != g && slices.ContainsFunc(o.bound, ours) {
			return true
		}
	}
	return false
}

// openFence writes the deadline, and then lets the address follow.
func (c *Core) openFence(g *group, deadline election.Instant) {
	g.gen = c.nextGen()
	g.deadline = deadline
	g.bound, g.with = g.at, g.wanted(g.at)
	g.refreshAt = c.now.Add(refreshEvery)
	g.enter(binding, g.since)
	g.lastWords, g.left, g.kept = nil, "", false
	g.proof = g.epoch
	c.fenceThenAddress(g, g.bound, g.gen)
	g.wakeAt(deadline)
}

// fenceThenAddress: the entry with the deadline is there before the address is. An
// address without an entry passes. Between the two goes an advert (RFC 9568, section
// 6.4.2, has it first too), so that a router outside that is Active falls silent before
// this host answers.
//
//quorate:rule fence-first
func (c *Core) fenceThenAddress(g *group, at []Place, gen uint64) {
	c.do(SetFence{Group: g.def.Name, Addrs: addrsOf(at), Until: g.deadline})
	if g.def.VRRP.ID != 0 {
		c.adverts(g, c.said(g), g.bound, quietFrom(g.deadline))
	}
	c.do(Bind{Group: g.def.Name, Gen: gen, Holding: g.holding(at), Until: g.deadline})
}

// whileOpen extends the deadline as far as the answers go, and shuts when they no
// longer do or the group is no longer ours.
func (c *Core) whileOpen(g *group, why string, wants bool) {
	if !wants || g.parting.until != 0 {
		c.leave(g, why)
		return
	}
	if why := c.forbids(g); why != "" {
		c.shut(g, why)
		return
	}
	c.extend(g)
	if !c.now.Before(g.deadline) {
		c.shut(g, "lease-expired")
		return
	}
	if g.phase == active {
		c.whileLeaving(g)
		c.whileJoining(g)
		c.speak(g)
	}
	if at, ok := g.holder.NextStart(c.now, c.log); ok && g.proof != g.epoch {
		g.wakeAt(at)
	}
	if holdAsked(g.def) {
		g.wakeAt(later(c.now, c.holdOnAt(g)))
	}
	g.wakeAt(g.deadline)
}

// bound: the addresses are on; from here on the node is Active.
func (c *Core) bound(ev Bound) {
	g := c.groups[ev.Group]
	if g != nil && g.phase == active && ev.Gen == g.joining.gen {
		c.joined(g, ev)
		return
	}
	if g == nil || ev.Gen != g.gen || g.phase != binding {
		return // shut meanwhile: an Unbind follows in the same queue
	}
	g.touched = true
	if ev.Err != nil {
		c.refusedAddress(g, ev.Err)
		return
	}
	c.say(Info, "vip active", "group", ev.Group, "epoch", g.epoch, "reason", c.why(g), "waited", c.now.Sub(g.since))
	g.enter(active, c.now)
	g.proven = true
	g.announced, g.telling, g.advertAt = announcing{}, telling{}, c.now
	g.claims, g.lingers, g.mending = nil, nil, mending{}
	g.refreshed, g.missing = c.now, false
	c.speaking(g, true)
	c.askNow = true // so that everyone knows that it is open
}

func (c *Core) refusedAddress(g *group, err error) {
	c.failed(g, election.UnfitKernel, kernelRetry)
	c.say(Error, "the kernel refused the address", "group", g.def.Name, "error", err)
	c.shut(g, election.UnfitKernel.String())
}

// failed makes the host unfit for the group for a while.
func (c *Core) failed(g *group, why election.Unfit, wait time.Duration) {
	g.fault, g.faultUntil = why, c.now.Add(wait)
	c.askNow = true
}

// nextGen numbers a request to a worker, so that its own reply is the only one that
// counts. The numbers are this process's and not the group's: a group can be deleted,
// and another of its name be there when the reply comes.
//
//quorate:rule own-replies
func (c *Core) nextGen() uint64 {
	c.gens++
	return c.gens
}
