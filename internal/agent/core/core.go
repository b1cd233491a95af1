// Package core is the agent's mind: what one node does about every group, as a
// pure function of what it knew, what happened, and when.
//
// Step is the only door. It takes one event and returns the effects in the order
// in which they must be carried out; the loop round it (internal/agent) owns the
// clock, the sockets and the goroutines. What decides is further down: fsm.Place
// says who should own, election whether it may answer now. This package puts their
// decisions in order and remembers where each group stands on this host.
package core

import (
	"bytes"
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// Config is what a Core is made of.
type Config struct {
	Self    fsm.Node
	Boot    election.BootID
	Started election.Instant // the process's start
	Lease   time.Duration
	Renew   time.Duration
	Grace   time.Duration // of this node's fence
	// LifetimeFence: the address's own lifetime is the fence, so that it must
	// follow the deadline instead of being a backstop.
	LifetimeFence bool
	Longest       time.Duration // the longest hold that an earlier life confirmed
	AtStart       election.LogAtStart
	Left          []Leftover // by an earlier life; none where the lifetime is the fence
}

// A Core is one node's state. It belongs to one goroutine.
type Core struct {
	cfg     Config
	now     election.Instant
	out     []Effect
	state   *fsm.State
	log     election.VoterLog
	voter   *election.Voter
	hearing *election.Hearing
	clock   error // why the clock cannot be trusted now
	bare    error // why a device is without the fence
	moved   error // the file's address is not the one that the cluster knows
	disk    error // why Raft's disk does not take writes

	nextTick  election.Instant
	lastStamp election.Instant
	askNow    bool // ask everybody: at askAt
	renewDue  bool // the regular renewal is not sent yet
	pace      askPace
	writing   time.Duration    // the hold that is being written down
	silenceAt election.Instant // when a voter will have been silent for a lease

	leader       Leader
	lastCampaign election.Instant
	campaignAt   election.Instant

	heritage   heritage         // of an earlier life, until it is swept
	swept      bool             // nothing of an earlier life is left but what was kept
	sweeping   uint64           // the document's revision whose addresses are being looked for; 0: none
	sweepAt    election.Instant // when a sweep that failed is tried again
	groups     map[string]*group
	gens       uint64           // requests to workers so far
	order      []*group         // of the groups' names; nil: to be made anew
	members    []fsm.Node       // of listed, in a fixed order
	elsewhere  []netip.AddrPort // where the other members listen
	listed     *fsm.State
	linkDown   map[string]bool
	linkMAC    map[string]string
	resolveAt  election.Instant  // when groups without a device are looked at again
	spoken     election.Instant  // until when what was announced is enough
	told       election.Instant  // and what neighbours were told
	convergeAt election.Instant  // when the host is to be looked at next
	converging map[string]uint64 // of the look under way, the groups held then and their gen; nil: none is
	peers      map[fsm.InstanceID]*peer
	lead       leading
	stop       stopping
	handOff    election.Instant // released by hand: unfit for everything until then
	health     health
	advanced   bool             // a group was looked at in this step
	quorumHad  bool             // a majority was heard
	quorumLost bool             // and then no more
	lateAt     election.Instant // when a tick came late last

	alone    bool                 // election: vrrp; there is no cluster
	begun    bool                 // the first step is done
	sources  map[route]netip.Addr // what our adverts come from; absent: none can be sent
	insiders []netip.Addr         // what those of the other nodes come from
}

// New returns the core of a process that starts at cfg.Started.
func New(cfg Config) *Core {
	return &Core{
		cfg:      cfg,
		now:      cfg.Started,
		state:    &fsm.State{},
		voter:    election.NewVoter(cfg.Self.ID, cfg.Started, cfg.Longest, cfg.AtStart),
		hearing:  election.NewHearing(cfg.Self.ID, cfg.Started, cfg.Lease, cfg.Renew),
		nextTick: cfg.Started,
		groups:   map[string]*group{},
		linkDown: map[string]bool{},
		linkMAC:  map[string]string{},
		peers:    map[fsm.InstanceID]*peer{},
		lead:     newLeading(),
		sources:  map[route]netip.Addr{},
		health:   newHealth(),
		lateAt:   cfg.Started,
	}
}

// Step takes one event at clock reading now, which must be read after the event
// came out of its queue, and returns what is to be done, in order.
func (c *Core) Step(now election.Instant, ev Event) []Effect {
	c.now, c.out = max(now, c.now), nil
	if !c.begun {
		c.begin()
	}
	c.handle(ev)
	if _, isClock := ev.(Clock); !isClock || c.due() {
		c.timers()
	}
	c.transitions()
	return c.out
}

// due reports whether anything is to be done now. Most readings of the clock, ten in
// a lease, change nothing.
func (c *Core) due() bool {
	if !c.now.Before(c.Wake()) {
		return true
	}
	for _, g := range c.sorted() {
		if g.touched {
			return true
		}
	}
	return false
}

func (c *Core) handle(ev Event) {
	switch ev := ev.(type) {
	case Woke:
		c.tickSeats()
	case AdvertHeard:
		c.advertHeard(ev)
	case SourceChanged:
		c.sourceChanged(ev)
	case Applied:
		c.applied(ev.State)
	case Voters:
		c.voters(ev.Log)
	case Leader:
		c.newLeader(ev)
	case Datagram:
		c.datagram(ev.Message)
	case Clock:
		c.clockRead(ev)
	case Placed:
		c.placed(ev)
	case Link:
		c.link(ev)
	case AddressGone:
		c.addressGone(ev)
	case Swept:
		c.sweptClean(ev)
	case Bound:
		c.bound(ev)
	case Refreshed:
		c.refreshed(ev)
	case Unbound:
		c.unbound(ev)
	case Converged:
		c.converged(ev)
	case ConnectionsReset:
		c.connectionsReset(ev)
	case Told:
		c.toldSome(ev)
	case Claimed:
		c.claimed(ev)
	case FenceFailed:
		c.fenceFailed(ev)
	case Probed:
		c.probed(ev)
	case HoldWritten:
		c.holdWritten(ev)
	case Proposed:
		c.proposed(ev)
	case JoinAsked:
		c.joinAsked(ev.Node)
	case NonvoterAdded:
		c.nonvoterAdded(ev)
	case VoterAdded:
		c.voterAdded(ev)
	case ServerRemoved:
		c.serverRemoved(ev)
	case Checked:
		c.checked(ev)
	case Covered:
		c.covered(ev.Err)
	case DiskFailed:
		c.diskFailed(ev)
	case Said:
		c.announcedFirst(ev)
	case ReleaseAsked:
		c.handOff = c.now.Add(handOffTime)
		c.fitnessChanged()
	case Stop:
		c.beginStop()
	}
}

// timers does what is due at c.now, whatever the event was.
func (c *Core) timers() {
	if !c.now.Before(c.nextTick) {
		c.tick()
	}
	if c.silenceAt != 0 && !c.now.Before(c.silenceAt) {
		c.askNow = true
	}
	for _, g := range c.sorted() {
		if g.touched || (g.due != 0 && !c.now.Before(g.due)) {
			g.touched = false
			c.advance(g)
		}
	}
	if c.sweepAt != 0 && !c.now.Before(c.sweepAt) {
		c.sweep()
	}
	c.campaign()
	c.stopStep()
	if c.askNow && !c.now.Before(c.askAt()) {
		c.renew()
		for _, g := range c.sorted() { // the own vote may have opened one
			if g.touched {
				g.touched = false
				c.advance(g)
			}
		}
	}
	if at, ok := c.hearing.NextSilence(c.now, c.log.Last); ok {
		c.silenceAt = at
	} else {
		c.silenceAt = 0
	}
}

// tick is the heartbeat: one each renew interval.
func (c *Core) tick() {
	c.late(c.nextTick)
	c.hearing.Tick(c.now)
	c.nextTick = c.now.Add(c.cfg.Renew)
	c.askNow, c.renewDue = true, true
	c.repeatReleases()
	c.renounce()
	c.takeAway()
	c.touchAll()
	c.watchFitness()
	c.watchQuorum()
	c.leaderDuties()
	c.enrolSelf()
	c.abdicate()
	c.resolveMisplaced()
	c.converge()
}

// Wake returns when Step next wants to be called without an event.
func (c *Core) Wake() election.Instant {
	at := c.nextTick
	if c.askNow {
		at = min(at, c.askAt())
	}
	for _, due := range [...]election.Instant{c.silenceAt, c.campaignAt, c.sweepAt, c.stop.due(c)} {
		if due != 0 {
			at = min(at, due)
		}
	}
	for _, g := range c.sorted() {
		if g.due != 0 {
			at = min(at, g.due)
		}
		if g.touched { // by another group's step, after its own turn
			at = min(at, c.now)
		}
		for _, s := range g.seats {
			if due := s.wake(); due != 0 {
				at = min(at, due)
			}
		}
	}
	return at
}

func (c *Core) do(e ...Effect) { c.out = append(c.out, e...) }

func (c *Core) say(l Level, text string, args ...any) {
	c.do(Log{Level: l, Text: text, Args: args})
}

func (c *Core) touchAll() {
	for _, g := range c.groups {
		g.touched = true
	}
}

// sorted returns the groups in a fixed order, so that the same events give the
// same effects.
func (c *Core) sorted() []*group {
	if c.order == nil {
		c.order = slices.SortedFunc(maps.Values(c.groups), func(a, b *group) int { return cmp.Compare(a.def.Name, b.def.Name) })
	}
	return c.order
}

// nodes returns the cluster's nodes in a fixed order.
func (c *Core) nodes() []fsm.Node {
	c.listNodes()
	return c.members
}

// others returns where every other node listens, and every voter that was removed.
func (c *Core) others() []netip.AddrPort {
	c.listNodes()
	return c.elsewhere
}

// listNodes sorts the nodes once for each state and set of voters. What was handed out stays as it is.
func (c *Core) listNodes() {
	if c.listed == c.state {
		return
	}
	c.listed = c.state
	c.members = slices.SortedFunc(maps.Values(c.state.Nodes), func(a, b fsm.Node) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	c.elsewhere = nil
	for _, n := range c.members {
		if n.ID != c.cfg.Self.ID {
			c.elsewhere = append(c.elsewhere, n.Address)
		}
	}
	for id, n := range c.state.Retired {
		if id != c.cfg.Self.ID && c.mayVote(id) {
			c.elsewhere = append(c.elsewhere, n.Address)
		}
	}
	slices.SortFunc(c.elsewhere, netip.AddrPort.Compare)
	c.elsewhere = slices.Compact(c.elsewhere) // a fresh node may be where a removed one was
}

func (c *Core) name(id fsm.InstanceID) string {
	if n, ok := c.state.Nodes[id]; ok {
		return n.Name
	}
	if was, ok := c.state.Retired[id]; ok {
		return was.Name
	}
	if id.IsZero() {
		return ""
	}
	return id.Short()
}

// applied takes the node's new state: new epochs first shut what is no longer
// ours, and only then is anything asked for.
func (c *Core) applied(st *fsm.State) {
	was := c.state
	c.state = st
	c.voter.Applied(st)
	c.termApplied()
	c.nodesLeft(was)
	if !was.Formed() && st.Formed() {
		c.hearing.Begin(c.now) // until now every datagram was a stranger's
	}
	if was.Document.Revision != st.Document.Revision || was.Cluster != st.Cluster {
		c.lead.documentAt, c.lead.documentSeen = st.Index, c.now
		c.askNow = c.askNow || was.Formed() // what is said of the old one is no use to who knows the new one
		c.documentChanged()
	}
	c.beginSweep()
	for _, g := range c.sorted() {
		c.owned(g)
	}
	c.again()
	c.nameInsiders()
	c.leaderDuties()
}

// documentChanged makes the groups those of the document.
func (c *Core) documentChanged() {
	for _, g := range c.groups {
		if _, ok := c.state.Document.Group(g.def.Name); !ok {
			g.gone = true
			g.touched = true
		}
	}
	for _, def := range c.state.Document.Groups {
		g := c.groups[def.Name]
		if waits(def) && (g == nil || !waits(g.def)) {
			c.notFitYet(def.Name)
		}
		if g == nil {
			g = newGroup(def, c.newTenure(), c.now)
			g.anew = c.mayInherit(g)
			c.groups[def.Name], c.order = g, nil
			c.resolve(g)
		} else if !fsm.SameReach(g.def, def) {
			c.changeReach(g, def)
		} else {
			c.redefine(g, def)
		}
		g.gone, g.touched = false, true
	}
	c.checksChanged()
}

// beginSweep has what an earlier life left removed, once: from when it is done this
// process may hold addresses itself.
func (c *Core) beginSweep() {
	if !c.swept && c.sweeping == 0 && c.state.Document.Revision != 0 && c.knowsEarlierLife() {
		c.sweep()
	}
}

// knowsEarlierLife: what an earlier life held stands in the log that was there at the
// start. Before that is applied a group may not be known yet that was held, and whose
// release would be said too early.
//
//quorate:rule sweep-replayed
func (c *Core) knowsEarlierLife() bool { return c.alone || c.voter.Caught() }

// sweep looks for the addresses of all documents that are remembered: an earlier life
// may not have come to the last one.
func (c *Core) sweep() {
	c.sweeping, c.sweepAt = c.state.Document.Revision, 0
	addrs := c.state.Document.Addrs()
	for _, r := range c.state.Revisions {
		addrs = append(addrs, r.Document.Addrs()...)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	e := Sweep{Addrs: c.bequeath(slices.Compact(addrs))}
	e.Routes, e.Rules = c.leftAlong()
	c.do(e)
}

// sweepRetry is between attempts to remove what an earlier life left. Until one
// succeeds this node holds nothing.
const sweepRetry = time.Second

// sweptClean: from here on this process is the only one that holds anything on this
// host.
func (c *Core) sweptClean(ev Swept) {
	if c.swept {
		return
	}
	if ev.Err != nil {
		c.say(Error, "cannot remove what an earlier life left; nothing is held before that is done", "error", ev.Err)
		c.sweepAt = c.now.Add(sweepRetry)
		return
	}
	if len(ev.Removed) > 0 {
		c.say(Warn, "removed what an earlier life of the daemon left", "addresses", ev.Removed)
	}
	if !c.sweptAll() {
		c.sweep()
		return
	}
	c.endSweep()
}

// sweptAll: an earlier life may have held what a later document names, so the sweep
// counts only if the document has not changed since it began.
//
//quorate:rule sweep-all
func (c *Core) sweptAll() bool { return c.sweeping == c.state.Document.Revision }

// fitnessChanged: what this host can hold is not what it was. Everyone is told at
// once, the leader in us too.
func (c *Core) fitnessChanged() {
	c.askNow = true
	c.touchAll()
	c.leaderDuties()
}
