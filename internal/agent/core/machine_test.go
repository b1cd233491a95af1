package core

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// A machine is one host: a kernel that always runs, and a process that may not.
type machine struct {
	c    *cluster
	i    int
	node fsm.Node

	// The clock: true time at a rate of its own, and what a slew adds.
	offset time.Duration
	drift  float64
	slew   float64 // by how much it is being slewed; 0: it is not
	slewAt time.Duration

	// The kernel. It outlives the process.
	boot  byte
	fence map[netip.Addr]election.Instant
	addrs map[netip.Addr]bool

	// The disk. longest is the hold that is written there; the log is as long as
	// what was applied.
	longest time.Duration

	// The process.
	core    *Core
	lease   time.Duration
	alive   bool // it exists
	frozen  bool
	life    int
	pending []Event // what came while it was frozen
	state   *fsm.State
	applied int
	wakes   int
	host    worker
	lan     worker
	clockAt election.Instant // when it reads next how its clock is steered; 0: all is well
	done    bool

	// What the test wants of it, and what it saw.
	conflict  string // the MAC of another host with the addresses
	bindErr   error
	probeTime time.Duration
	sent      []Effect // announcements and adverts
	changes   []Effect // of the Raft configuration
	sweeps    int
	refreshed int // addresses that Refresh brought back
}

// A worker does one job after the other, as the agent's two do.
type worker struct {
	free   time.Duration // when it will have done what it has
	halted []func()      // what would have been done while the process was frozen
}

func newMachine(c *cluster, i int, node fsm.Node) *machine {
	return &machine{c: c, i: i, node: node,
		offset: time.Duration(c.rng.Int64N(int64(time.Hour))),
		drift:  1 + (c.rng.Float64()-0.5)*0.008,
		fence:  map[netip.Addr]election.Instant{}, addrs: map[netip.Addr]bool{},
		lease: testLease, probeTime: 300 * time.Millisecond,
	}
}

func (m *machine) clock() election.Instant {
	slewed := m.slew * float64(m.c.now-m.slewAt)
	return election.Instant(m.offset + time.Duration(float64(m.c.now)*m.drift+slewed))
}

func (m *machine) start() {
	m.life++
	m.alive, m.frozen, m.done, m.pending = true, false, false, nil
	m.host, m.lan = worker{}, worker{}
	clear(m.addrs) // what the daemon does before it starts
	clear(m.fence)
	had := election.LogAtStart{LastCommand: uint64(m.applied)}
	if m.applied > 0 {
		had.LastTerm = m.c.terms[m.applied-1]
	}
	m.applied, m.state = 0, &fsm.State{}
	m.core = New(Config{
		Self: m.node, Boot: election.BootID{byte(m.i), m.boot}, Started: m.clock(),
		Lease: m.lease, Renew: m.lease / 3, Grace: election.GraceBPF, Longest: m.longest, AtStart: had,
	})
	var voters []fsm.InstanceID
	for _, h := range m.c.hosts {
		voters = append(voters, h.node.ID)
	}
	if m.slew != 0 {
		m.clockAt = m.clock()
	}
	m.event(Voters{Log: election.VoterLog{Last: election.VoterSet{Term: 1, Index: 1, Voters: voters}, LastCommitted: true}})
}

// event gives the core an event, now or when it thaws. As in the agent's loop, the
// clock's reading comes first when it is due.
func (m *machine) event(ev Event) {
	if !m.alive {
		return
	}
	if m.frozen {
		m.pending = append(m.pending, ev)
		return
	}
	if m.clockAt != 0 && !m.clock().Before(m.clockAt) {
		m.readClock()
	}
	m.perform(m.core.Step(m.clock(), ev))
	m.sleep()
}

// readClock reads the clock at the agent's pace for as long as it is slewed, and
// once more after that.
func (m *machine) readClock() {
	m.clockAt = m.clock().Add(m.lease / 10)
	if m.slew == 0 {
		m.clockAt = 0
	}
	m.perform(m.core.Step(m.clock(), Clock{Reading: election.ClockReading{Tick: 10_000 + int64(m.slew*10_000)}}))
}

// sleep wakes the core when it wants.
func (m *machine) sleep() {
	if !m.alive {
		return
	}
	m.wakes++
	mine, life := m.wakes, m.life
	at := m.core.Wake()
	if m.clockAt != 0 {
		at = min(at, m.clockAt)
	}
	wait := time.Duration(float64(at.Sub(m.clock()))/m.drift) + 50*time.Microsecond
	m.c.after(max(wait, 10*time.Microsecond), func() {
		if m.wakes == mine && m.life == life {
			m.event(Woke{})
		}
	})
}

// later reports an event of this life after a while.
func (m *machine) later(d time.Duration, f func() Event) {
	life := m.life
	m.c.after(d, func() {
		if m.life == life && m.alive {
			m.event(f())
		}
	})
}

// job has a worker do f after what it has already, in this life of the process.
func (m *machine) job(w *worker, f func()) {
	takes := m.c.jitter(50*time.Microsecond, 600*time.Microsecond)
	if m.c.chance(m.c.trouble.slow) {
		takes = m.c.jitter(time.Millisecond, 600*time.Millisecond)
	}
	w.free = max(w.free, m.c.now) + takes
	life := m.life
	m.c.after(w.free-m.c.now, func() {
		switch {
		case m.life != life || !m.alive:
		case m.frozen:
			w.halted = append(w.halted, f)
		default:
			f()
		}
	})
}

// perform carries the effects out as SetFence asks of the agent: a fence that cannot
// be written keeps the group's later effects of this step from happening.
func (m *machine) perform(effects []Effect) {
	failed := map[string]bool{}
	for _, e := range effects {
		m.tell(e)
		switch e := e.(type) {
		case SetFence:
			failed[e.Group] = !m.setFence(e)
		case Bind:
			if !failed[e.Group] {
				m.job(&m.host, func() { m.event(Bound{Group: e.Group, Gen: e.Gen, Err: m.bind(e.At)}) })
			}
		case Refresh:
			if !failed[e.Group] {
				m.job(&m.host, func() { m.refresh(e.At) })
			}
		case Unbind:
			if !failed[e.Group] {
				m.job(&m.host, func() { m.unbind(e) })
			}
		case Announce:
			if !failed[e.Group] {
				m.order(e, e.At, e.Until)
			}
		case Advertise:
			if !failed[e.Group] {
				m.order(e, e.At, e.Until)
			}
		default:
			m.performOther(e)
		}
	}
}

func (m *machine) performOther(e Effect) {
	switch e := e.(type) {
	case Send:
		m.send(e)
	case ClearFence:
		for _, a := range e.Addrs {
			delete(m.fence, a)
		}
	case Probe:
		m.later(m.probeTime, func() Event {
			return Probed{Group: e.Group, Gen: e.Gen, Addr: e.At[0].Prefix.Addr(), MAC: m.conflict}
		})
	case Resolve:
		m.job(&m.host, func() { m.event(placedOn("eth0", e)) })
	case Sweep:
		m.sweeps++
		m.job(&m.host, func() { m.sweep(e) })
	case WriteHold:
		m.later(time.Millisecond, func() Event {
			m.longest = max(m.longest, e.Hold)
			return HoldWritten{Hold: e.Hold}
		})
	case Propose:
		m.propose(e.Command)
	case Campaign:
		m.c.electSoon(m.i)
	case AskCampaign:
		m.c.electSoon(m.c.index(e.Node.ID))
	case AddNonvoter:
		m.changes = append(m.changes, e)
		m.later(5*time.Millisecond, func() Event { return NonvoterAdded{Node: e.Node} })
	case AddVoter:
		m.changes = append(m.changes, e)
		m.later(5*time.Millisecond, func() Event { return VoterAdded{Node: e.Node} })
	case Done:
		m.done, m.alive = true, false
	}
}

// setFence writes each address. One that fails shuts them all as far as it goes,
// which may be nowhere.
func (m *machine) setFence(e SetFence) bool {
	if e.Until.After(m.clock().Add(m.lease)) {
		m.c.violated("n%d opens the fence for longer than its lease: until %v at %v", m.i+1, e.Until, m.clock())
	}
	if !m.c.chance(m.c.trouble.fenceFails) {
		for _, a := range e.Addrs {
			m.fence[a] = e.Until
		}
		return true
	}
	if e.Until != 0 && m.c.chance(0.5) {
		for _, a := range e.Addrs {
			m.fence[a] = 0
		}
	}
	m.later(0, func() Event { return FenceFailed{Group: e.Group, Err: errKernel} })
	return false
}

var errKernel = errors.New("the kernel says no")

// bind puts the addresses on the host one by one, so that a failure leaves some.
func (m *machine) bind(at []Place) error {
	for _, p := range at {
		if m.bindErr != nil {
			return m.bindErr
		}
		if m.c.chance(m.c.trouble.bindFails) {
			return errKernel
		}
		m.addrs[p.Prefix.Addr()] = true
	}
	return nil
}

// refresh renews a lifetime, and so brings an address back that somebody removed.
func (m *machine) refresh(at []Place) {
	for _, p := range at {
		if !m.addrs[p.Prefix.Addr()] {
			m.refreshed++
		}
		m.addrs[p.Prefix.Addr()] = true
	}
}

// unbind is answered through the LAN's queue: after what was still to be said.
func (m *machine) unbind(e Unbind) {
	gone := Unbound{Group: e.Group, Gen: e.Gen}
	if m.c.chance(m.c.trouble.unbindFails) {
		gone.Err = errKernel
	} else {
		for _, p := range e.At {
			delete(m.addrs, p.Prefix.Addr())
		}
	}
	m.job(&m.lan, func() { m.event(gone) })
}

func (m *machine) sweep(e Sweep) {
	for _, a := range e.Addrs {
		delete(m.addrs, a)
	}
	m.event(Swept{})
}

// placedOn answers Resolve: every address is at that device.
func placedOn(link string, e Resolve) Placed {
	out := Placed{Group: e.Group.Name, Gen: e.Gen}
	for _, p := range e.Group.Addresses {
		out.At = append(out.At, Place{link, p})
	}
	return out
}

func (m *machine) send(e Send) {
	for _, to := range e.To {
		at := slices.IndexFunc(m.c.hosts, func(h *machine) bool { return h.node.Address == to })
		if at < 0 {
			continue // a node that the test only talks about
		}
		for _, d := range e.Datagrams {
			m.c.deliver(m, m.c.hosts[at], d)
		}
	}
}

// tell puts what matters of an effect into the story.
func (m *machine) tell(e Effect) {
	if m.c.watch.quiet {
		return
	}
	switch e := e.(type) {
	case Log:
		m.c.tell("n%d %s %v", m.i+1, e.Text, e.Args)
	case SetFence, ClearFence, Bind, Unbind, Sweep:
		m.c.tell("n%d    %s %v (clock %v)", m.i+1, fmt.Sprintf("%T", e)[len("core."):], e, m.clock())
	}
}
