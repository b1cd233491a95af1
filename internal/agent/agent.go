// Package agent is the loop: one goroutine owns every group of this node, takes
// events in and carries effects out.
//
// What to do is decided in internal/agent/core. What may take its time (netlink,
// proposals, the disk) is handed to workers, whose results come back as events;
// what must not be overtaken (the fence, lease datagrams) is done in the loop.
//
//	raft, gossip, kernel, API ──events──▶ mailbox ──▶ loop: core.Step
//	                                                   │ fence, datagrams (here)
//	                                                   ├─▶ host: addresses, in order
//	                                                   ├─▶ lan: GARP, NA, adverts
//	                                                   └─▶ proposals, disk (one goroutine each)
//
// All concurrency is behind Stage, and one round of the loop is Turn: Run puts both
// on goroutines, and tests/sim on coroutines in virtual time.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

// A Fence shuts an address by itself when its deadline has passed. Only the loop
// calls it. Where the lifetime of the address is the fence, it does nothing.
//
// Set and Delete write every address that they can; the error names those that could not
// be written.
type Fence interface {
	Set(addrs []netip.Addr, until election.Instant) error
	Delete(addrs []netip.Addr) error
}

// A Host has addresses and devices.
type Host interface {
	// Put has all of it on the host: the addresses, then the routes, then the rules, each in
	// order; what is there has its lifetime renewed. Each of the three is added as a whole or
	// not at all. On an error what came before may be there: the core has it taken off, or
	// tries again.
	Put(h core.Holding, valid time.Duration) error
	// Take takes all of it off, in reverse. Nil: every address was seen gone, and the routes
	// and rules are not there any more.
	Take(h core.Holding) error
	// Converge looks once at the host, puts back what is missing of each holding, and renews
	// the lifetimes of those that are due. valid says for how long, just before. Of the vips
	// it reports which are on the host with this daemon's mark and are in no holding.
	Converge(held []core.Held, vips []netip.Addr, valid func(until election.Instant) time.Duration) core.Converged
	// ResetConnections ends the TCP connections of this host with these local addresses:
	// the other end is told by an RST, if the fence lets it pass.
	ResetConnections(addrs []netip.Addr) error
	// LinkFor finds the device whose network contains the address.
	LinkFor(addr netip.Addr) (string, error)
	// HasLink fails if there is no such device.
	HasLink(name string) error
	// RemoveLeftovers takes off what an earlier life of the daemon left of these addresses,
	// and of the routes and rules.
	RemoveLeftovers(addrs []netip.Addr, with core.Holding) (removed []netip.Addr, err error)
	// Announce sends gratuitous ARP or unsolicited NA for each of a few dozen addresses.
	Announce(link string, addrs []netip.Addr) error
	// Tell has the same said to each neighbour alone that is known to have spoken with one
	// of the addresses: each call of next sends a few dozen frames, and more says that there
	// are others.
	Tell(link string, addrs []netip.Addr) (next func() (more bool, err error))
	// Probe asks the LAN for other hosts that have the addresses, and returns the first found.
	Probe(ctx context.Context, link string, addrs []netip.Addr) (addr netip.Addr, mac net.HardwareAddr, found bool, err error)
}

// A Speaker sends VRRP adverts and hears those of others.
type Speaker interface {
	// Serve has the group's virtual routers (core.Virtuals) heard from now on, in place of
	// those that it was told of for the group before, until the group leaves the document.
	// An error says what cannot be heard at present; it is tried again by itself.
	Serve(g fsm.Group, at []core.Place) error
	// Insiders says from which addresses the cluster's other nodes send adverts, on any
	// device: nothing is learned from those. It replaces the earlier ones.
	Insiders(from []netip.Addr)
	// Advertise sends one advert, or one of each version, for the addresses, which are of
	// one family. The priority is sent as it is; 0 says that nobody holds the group.
	Advertise(link string, v fsm.VRRP, addrs []netip.Addr) error
}

// A Raft is this node's part in the cluster's log.
type Raft interface {
	// Propose puts a command to the leader, wherever that is.
	Propose(ctx context.Context, cmd fsm.Command) error
	Campaign(ctx context.Context) error
	AskCampaign(ctx context.Context, node fsm.Node) error
	AddNonvoter(ctx context.Context, node fsm.Node) error
	// AddVoter and RemoveServer fail if over is not the last set of voters any more.
	AddVoter(ctx context.Context, node fsm.Node, over election.VoterSet) error
	// RemoveServer takes a voter or non-voter from the members; nil if it is none.
	RemoveServer(ctx context.Context, id fsm.InstanceID, over election.VoterSet) error
}

// Hooks are told where each group stands on this node. They must not block: the loop waits.
type Hooks interface{ Transition(core.Transition) }

// Config is what an Agent is made of. All fields are needed but Beat, Hooks and
// Stage. With
// Alone there is no cluster: Core, Clock, Send, Fence, Raft and WriteHold are not used.
type Config struct {
	Core    core.Config
	Alone   *core.AloneConfig       // election: vrrp
	Now     func() election.Instant // reads CLOCK_BOOTTIME
	Clock   func() (election.ClockReading, error)
	Send    func(to netip.AddrPort, datagram []byte) error
	Fence   Fence
	Host    Host
	Speaker Speaker
	Raft    Raft
	// WriteHold makes the longest hold durable.
	WriteHold func(time.Duration) error
	Hooks     Hooks // nil: none
	// Beat is called each time round the loop: it feeds the watchdog.
	Beat func()
	// Stage is where the work beside the loop is done; nil: on goroutines.
	Stage Stage
	Log   *slog.Logger
}

// An Agent runs one node. Post, Status, Move, Join and Release may be called from any
// goroutine.
type Agent struct {
	cfg     Config
	core    *core.Core // the loop's alone
	box     *mailbox
	crew    *crew                  // the stage, unless Config has another
	clockAt election.Instant       // when the clock's steering is to be read next
	clock   *election.ClockReading // what the core knows of it; nil: nothing, or that it cannot be read
	done    bool
	ended   chan struct{} // closed when Run is over
	seldom  Seldom
	tellers map[string]*teller // by group; the LAN jobs' alone
}

// New returns an Agent; Run works.
func New(cfg Config) *Agent {
	a := &Agent{box: newMailbox(), ended: make(chan struct{}), tellers: map[string]*teller{}}
	if cfg.Beat == nil {
		cfg.Beat = func() {}
	}
	if cfg.Stage == nil {
		a.crew = newCrew()
		cfg.Stage = a.crew
	}
	if cfg.Alone != nil {
		cfg.Fence = unfencedHost{}
		a.cfg, a.core = cfg, core.NewAlone(*cfg.Alone)
	} else {
		a.cfg, a.core = cfg, core.New(cfg.Core)
	}
	return a
}

// An unfencedHost has no fence: a router of its own has no lease that one could keep.
type unfencedHost struct{}

func (unfencedHost) Set([]netip.Addr, election.Instant) error { return nil }
func (unfencedHost) Delete([]netip.Addr) error                { return nil }

// Post hands the agent an event. It never blocks, and no event is lost.
func (a *Agent) Post(ev core.Event) { a.box.put(ev) }

// Run works until a Stop event has been carried out or ctx ends; in the latter
// case everything that is held is let go on the spot.
func (a *Agent) Run(ctx context.Context) error {
	defer func() {
		a.box.close()
		close(a.ended)
	}()
	if a.crew != nil {
		a.crew.start(ctx)
		defer a.crew.end() // what it still posts is read by nobody
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !a.done {
		var wake election.Instant
		select {
		case <-ctx.Done():
			a.Abandon()
			return nil
		case <-a.box.ready:
			wake = a.Turn(false)
		case <-timer.C:
			wake = a.Turn(true)
		}
		timer.Reset(max(0, wake.Sub(a.cfg.Now())))
	}
	return nil
}

// Turn is once round the loop: it takes what is in the mailbox, or, if woken, does
// what is due by now. It returns when it is to be woken if nothing is posted before.
// Run calls it, or whoever drives the agent in its place; never two at once.
func (a *Agent) Turn(woken bool) (wake election.Instant) {
	if woken {
		if a.cfg.Alone != nil {
			a.takeAll() // nobody is silent whose adverts wait to be read
		}
		a.readClock()
		if now := a.cfg.Now(); !now.Before(a.core.Wake()) { // else it was time to read the clock only
			a.perform(a.core.Step(now, core.Woke{}))
		}
	} else {
		a.takeAll()
	}
	a.cfg.Beat()
	if a.cfg.Alone != nil {
		return a.core.Wake()
	}
	return min(a.core.Wake(), a.clockAt)
}

// takeAll takes all items. Of several states that were applied meanwhile the last one is
// what counts: with hundreds of assignments in a moment the others would each have the
// core look at every group for nothing.
func (a *Agent) takeAll() {
	items := a.box.take()
	newest := lastApplied(items)
	for i, item := range items {
		if a.done {
			return
		}
		if _, applied := item.(core.Applied); applied && i < newest {
			continue
		}
		a.readClock()
		a.one(item)
	}
}

func lastApplied(items []any) int {
	for i, item := range slices.Backward(items) {
		if _, applied := item.(core.Applied); applied {
			return i
		}
	}
	return -1
}

// Abandon lets go of everything on the spot, as when Run's context ends.
func (a *Agent) Abandon() { a.perform(a.core.Abandon(a.cfg.Now())) }

// Pending reports whether something waits in the mailbox for the next Turn.
func (a *Agent) Pending() bool { return a.box.waiting() }

// Done reports whether a Stop has been carried out: there is no other Turn.
func (a *Agent) Done() bool { return a.done }

// one takes one item from the mailbox. The clock is read after it was taken out.
func (a *Agent) one(item any) {
	switch item := item.(type) {
	case core.Event:
		a.perform(a.core.Step(a.present(), item))
	case func():
		item()
	}
}

// present is the clock's reading for an event: of now, after it was taken out of
// its queue. An older one would make a note too short.
//
//quorate:rule clock-read-after
func (a *Agent) present() election.Instant { return a.cfg.Now() }

// clockEvery is how often it is looked at how the clock is steered: twenty times in
// a lease, so that slews at chrony's worst (8.3 %) which begin on two hosts within a
// lease shift a deadline by less than the 1 % that is allowed for before they are seen.
//
//quorate:rule clock-watched
func (a *Agent) clockEvery() time.Duration { return min(a.cfg.Core.Renew, a.cfg.Core.Lease/20) }

// readClock has the core know how the clock is steered, when that is due, before
// anything else that happens.
func (a *Agent) readClock() {
	now := a.cfg.Now()
	if a.cfg.Alone != nil || now.Before(a.clockAt) {
		return // without a lease the clock's rate matters to nobody else
	}
	a.clockAt = now.Add(a.clockEvery())
	r, err := a.cfg.Clock()
	switch {
	case err != nil:
		a.clock = nil
	case a.clock != nil && *a.clock == r:
		return
	default:
		a.clock = &r
	}
	a.perform(a.core.Step(a.cfg.Now(), core.Clock{Reading: r, Err: err}))
}

// query runs f in the loop and returns its result.
func query[T any](ctx context.Context, a *Agent, f func() T) (T, error) {
	result := make(chan T, 1)
	if !a.box.put(func() { result <- f() }) {
		var zero T
		return zero, errStopped
	}
	select {
	case r := <-result:
		return r, nil
	case <-a.ended:
		var zero T
		return zero, errStopped
	case <-ctx.Done():
		var zero T
		return zero, fmt.Errorf("ask the agent: %w", ctx.Err())
	}
}

// Status describes this node as it is now.
func (a *Agent) Status(ctx context.Context) (core.Status, error) {
	return query(ctx, a, func() core.Status { return a.core.Status(a.cfg.Now()) })
}

// Move makes a node the owner of a group and returns when that is committed. The
// node opens the group when the old owner has let go: see Status.
func (a *Agent) Move(ctx context.Context, group, node string) error {
	type plan struct {
		cmd fsm.Command
		err error
	}
	p, err := query(ctx, a, func() plan {
		cmd, err := a.core.Move(group, node)
		return plan{cmd, err}
	})
	if err != nil {
		return err
	}
	if p.err != nil {
		return p.err
	}
	p.cmd.At = a.cfg.Stage.Wall()
	return a.cfg.Raft.Propose(ctx, p.cmd)
}

// Join takes a node's request to become a voter; only the leader acts on it.
func (a *Agent) Join(ctx context.Context, n fsm.Node) error {
	refusal, err := query(ctx, a, func() error { return a.core.CheckJoin(n) })
	if err == nil {
		err = refusal
	}
	if err == nil {
		a.Post(core.JoinAsked{Node: n})
	}
	return err
}

// Release lets go of every group that this node holds; the leader moves them on.
func (a *Agent) Release() { a.Post(core.ReleaseAsked{}) }

// warn reports a trouble of a worker, not more than once a minute for each what.
func (a *Agent) warn(what, text string, args ...any) {
	if a.seldom.allow(a.cfg.Stage.Wall(), what) {
		a.cfg.Log.Warn(text, args...)
	}
}

// seldomEvery is how often one trouble that goes on is reported.
const seldomEvery = time.Minute

// A Seldom keeps a trouble that goes on from filling the log. The zero value is
// ready to use, from any goroutine.
type Seldom struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// Allow reports whether what was last allowed a minute ago, or never.
func (s *Seldom) Allow(what string) bool { return s.allow(time.Now(), what) }

func (s *Seldom) allow(now time.Time, what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, said := s.last[what]; said && now.Sub(last) < seldomEvery {
		return false
	}
	if s.last == nil {
		s.last = map[string]time.Time{}
	}
	s.last[what] = now
	return true
}
