package core

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// A cluster is a handful of cores in virtual time, with a made-up network, log and
// kernel between them. Everything that happens is drawn from one seeded source, so
// a run can be repeated. True time is the cluster's; each host's clock has its own
// offset and rate.
type cluster struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Duration
	queue timeline
	seq   int
	hosts []*machine
	log   []fsm.Command
	terms []uint64
	term  uint64
	lead  int // index of the leader; -1: none
	// reach says whether a datagram from one host gets to another.
	reach func(from, to int) bool
	// served is when the address was last answered for, and by whom.
	overlaps []string
	outages  []time.Duration
	lostAt   time.Duration
	served   int // host that answers; -1: none
	trace    []string
	withheld *machine // the log does not reach it
}

// A machine is one host: a kernel that always runs, and a process that may not.
type machine struct {
	c        *cluster
	i        int
	core     *Core
	node     fsm.Node
	offset   time.Duration
	drift    float64
	alive    bool // the process exists
	frozen   bool
	pending  []Event // what came while it was frozen
	life     int
	state    *fsm.State
	applied  int
	longest  time.Duration
	fence    map[netip.Addr]election.Instant
	addrs    map[netip.Addr]bool
	wakes    int
	done     bool
	conflict string
	bindErr  error
	sent     []Effect // announcements and adverts
	changes  []Effect // of the Raft configuration
}

type moment struct {
	at  time.Duration
	seq int
	f   func()
}

type timeline []moment

func (q timeline) Len() int { return len(q) }
func (q timeline) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q timeline) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *timeline) Push(x any)   { *q = append(*q, x.(moment)) }
func (q *timeline) Pop() any {
	old := *q
	m := old[len(old)-1]
	*q = old[:len(old)-1]
	return m
}

const (
	testLease = 250 * time.Millisecond
	testRenew = 83 * time.Millisecond
)

var testAddr = netip.MustParsePrefix("10.0.0.200/24")

func testDocument() fsm.Document {
	return fsm.Document{MaxHold: 5 * time.Second, Groups: []fsm.Group{{
		Name: "web", Addresses: []netip.Prefix{testAddr}, Interface: "eth0", Placement: fsm.PlacementLeader,
		Announce: fsm.Announce{Repeat: 5}, VRRP: fsm.VRRP{ID: 51, Priority: 254, Interval: time.Second},
	}}}
}

func newCluster(t *testing.T, n int, seed uint64) *cluster {
	c := &cluster{t: t, rng: rand.New(rand.NewPCG(seed, 1)), lead: -1, served: -1,
		reach: func(int, int) bool { return true }}
	var nodes []fsm.Node
	for i := range n {
		id := fsm.InstanceID{0: byte(i + 1)}
		nodes = append(nodes, fsm.Node{ID: id, Name: fmt.Sprintf("n%d", i+1), Role: fsm.Member,
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 7950)})
	}
	for i := range n {
		m := &machine{c: c, i: i, node: nodes[i], offset: time.Duration(c.rng.Int64N(int64(time.Hour))),
			drift: 1 + (c.rng.Float64()-0.5)*0.008,
			fence: map[netip.Addr]election.Instant{}, addrs: map[netip.Addr]bool{}}
		c.hosts = append(c.hosts, m)
	}
	c.term = 1
	c.append(fsm.Command{Form: &fsm.Form{Cluster: fsm.ClusterID{9}, Name: "test", Nodes: nodes, Document: testDocument()}})
	for _, m := range c.hosts {
		m.start()
	}
	c.after(5*time.Millisecond, func() { c.elect(0) })
	return c
}

func (c *cluster) after(d time.Duration, f func()) {
	c.seq++
	heap.Push(&c.queue, moment{c.now + d, c.seq, f})
}

func (c *cluster) jitter(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(c.rng.Int64N(int64(hi-lo)))
}

// run lets d of true time pass.
func (c *cluster) run(d time.Duration) {
	end := c.now + d
	for len(c.queue) > 0 && c.queue[0].at <= end {
		m := heap.Pop(&c.queue).(moment)
		c.now = m.at
		m.f()
		c.check()
	}
	c.now = end
	c.check()
}

// check looks at every kernel: who answers for the address at this moment?
func (c *cluster) check() {
	var who []int
	for i, m := range c.hosts {
		if m.answers() {
			who = append(who, i)
		}
	}
	if len(who) > 1 {
		c.overlaps = append(c.overlaps, fmt.Sprintf("%s: hosts %v answer", c.now, who))
	}
	switch {
	case len(who) == 0 && c.served >= 0:
		c.lostAt = c.now
		c.served = -1
	case len(who) > 0 && c.served < 0:
		if c.lostAt > 0 {
			c.outages = append(c.outages, c.now-c.lostAt)
		}
		c.served = who[0]
	case len(who) > 0:
		c.served = who[0]
	}
}

func (m *machine) answers() bool {
	a := testAddr.Addr()
	if !m.addrs[a] {
		return false
	}
	until, fenced := m.fence[a]
	return !fenced || m.clock().Before(until)
}

func (m *machine) clock() election.Instant {
	return election.Instant(m.offset + time.Duration(float64(m.c.now)*m.drift))
}

func (m *machine) start() {
	m.life++
	m.alive, m.frozen, m.done, m.pending = true, false, false, nil
	m.applied, m.state = 0, &fsm.State{}
	for a := range m.fence { // what the daemon does before it starts
		m.fence[a] = 0
		delete(m.addrs, a)
		delete(m.fence, a)
	}
	m.core = New(Config{
		Self: m.node, Boot: election.BootID{byte(m.i)}, Started: m.clock(),
		Lease: testLease, Renew: testRenew, Grace: election.GraceBPF, Longest: m.longest,
		AtStart: election.LogAtStart{LastCommand: uint64(len(m.c.log)), LastTerm: m.c.term},
	})
	var voters []fsm.InstanceID
	for _, h := range m.c.hosts {
		voters = append(voters, h.node.ID)
	}
	m.event(Voters{Log: election.VoterLog{Last: election.VoterSet{Term: 1, Index: 1, Voters: voters}, LastCommitted: true}})
	m.catchUp()
}

// event gives the core an event, now or when it thaws.
func (m *machine) event(ev Event) {
	if !m.alive {
		return
	}
	if m.frozen {
		m.pending = append(m.pending, ev)
		return
	}
	m.perform(m.core.Step(m.clock(), ev))
	m.sleep()
}

// sleep wakes the core when it wants.
func (m *machine) sleep() {
	m.wakes++
	mine, life := m.wakes, m.life
	wait := time.Duration(float64(m.core.Wake().Sub(m.clock()))/m.drift) + 50*time.Microsecond
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

func (m *machine) perform(effects []Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case Send:
			m.send(e)
		case SetFence:
			for _, a := range e.Addrs {
				m.fence[a] = e.Until
			}
		case ClearFence:
			for _, a := range e.Addrs {
				delete(m.fence, a)
			}
		case Bind:
			m.later(500*time.Microsecond, func() Event {
				if m.bindErr != nil {
					return Bound{Group: e.Group, Gen: e.Gen, Err: m.bindErr}
				}
				for _, p := range e.At {
					m.addrs[p.Prefix.Addr()] = true
				}
				return Bound{Group: e.Group, Gen: e.Gen}
			})
		case Unbind:
			m.later(500*time.Microsecond, func() Event {
				for _, p := range e.At {
					delete(m.addrs, p.Prefix.Addr())
				}
				return Unbound{Group: e.Group, Gen: e.Gen}
			})
		case Probe:
			m.later(300*time.Millisecond, func() Event {
				return Probed{Group: e.Group, Gen: e.Gen, Addr: testAddr.Addr(), MAC: m.conflict}
			})
		case Resolve:
			m.later(0, func() Event { return Placed{Group: e.Group.Name, Gen: e.Gen, At: []Place{{"eth0", testAddr}}} })
		case Sweep:
			m.later(0, func() Event { return Swept{} })
		case WriteHold:
			m.longest = max(m.longest, e.Hold)
			m.later(time.Millisecond, func() Event { return HoldWritten{Hold: e.Hold} })
		case Propose:
			m.propose(e.Command)
		case Campaign:
			m.c.after(m.c.jitter(8*time.Millisecond, 20*time.Millisecond), func() { m.c.elect(m.i) })
		case AskCampaign:
			to := m.c.index(e.Node.ID)
			m.c.after(m.c.jitter(8*time.Millisecond, 20*time.Millisecond), func() { m.c.elect(to) })
		case AddNonvoter:
			m.changes = append(m.changes, e)
			m.later(5*time.Millisecond, func() Event { return NonvoterAdded{Node: e.Node} })
		case AddVoter:
			m.changes = append(m.changes, e)
			m.later(5*time.Millisecond, func() Event { return VoterAdded{Node: e.Node} })
		case Announce, Advertise:
			m.sent = append(m.sent, e)
		case Log:
			m.c.trace = append(m.c.trace, fmt.Sprintf("%v n%d %s %v", m.c.now, m.i+1, e.Text, e.Args))
		case Done:
			m.done, m.alive = true, false
		}
	}
}

func (c *cluster) index(id fsm.InstanceID) int {
	return slices.IndexFunc(c.hosts, func(m *machine) bool { return m.node.ID == id })
}

func (m *machine) send(e Send) {
	for _, to := range e.To {
		at := slices.IndexFunc(m.c.hosts, func(h *machine) bool { return h.node.Address == to })
		if at < 0 {
			continue // a node that the test only talks about
		}
		h := m.c.hosts[at]
		for _, d := range e.Datagrams {
			if !m.c.reach(m.i, h.i) {
				continue
			}
			msg, err := election.Decode(d)
			if err != nil {
				m.c.t.Fatalf("own datagram: %v", err)
			}
			m.c.after(m.c.jitter(100*time.Microsecond, time.Millisecond), func() { h.event(Datagram{Message: msg}) })
		}
	}
}

// up reports whether a host takes part in Raft, seen from another.
func (c *cluster) up(from, i int) bool {
	h := c.hosts[i]
	return h.alive && !h.frozen && (from == i || c.reach(from, i) && c.reach(i, from))
}

func (c *cluster) majority(from int) bool {
	n := 0
	for i := range c.hosts {
		if c.up(from, i) {
			n++
		}
	}
	return n > len(c.hosts)/2
}

// elect makes a host the leader if a majority can be had.
func (c *cluster) elect(i int) {
	if !c.up(i, i) || !c.majority(i) {
		return
	}
	c.term++
	c.lead = i
	for j, h := range c.hosts {
		if c.up(i, j) {
			h.event(Leader{ID: c.hosts[i].node.ID, Self: i == j, Term: c.term})
		}
	}
	c.commit(i, fsm.Command{Lead: &fsm.Lead{Node: c.hosts[i].node.ID}}, nil)
}

func (c *cluster) append(cmd fsm.Command) {
	c.log = append(c.log, cmd)
	c.terms = append(c.terms, c.term)
}

var errNoLeader = errors.New("no leader")

func (m *machine) propose(cmd fsm.Command) {
	lead := m.c.lead
	if lead < 0 || !m.c.up(m.i, lead) {
		m.later(time.Millisecond, func() Event { return Proposed{Command: cmd, Err: errNoLeader} })
		return
	}
	m.c.commit(lead, cmd, func(err error) { m.later(0, func() Event { return Proposed{Command: cmd, Err: err} }) })
}

// commit appends an entry after a disk's time and has everyone in reach apply it,
// the leader at once and the others a little later.
func (c *cluster) commit(lead int, cmd fsm.Command, done func(error)) {
	term := c.term
	c.after(c.jitter(2*time.Millisecond, 8*time.Millisecond), func() {
		if c.term != term || c.lead != lead || !c.majority(lead) {
			if done != nil {
				done(errNoLeader)
			}
			return
		}
		c.append(cmd)
		for i, h := range c.hosts {
			if i == lead {
				h.catchUp()
			} else if c.up(lead, i) {
				c.after(c.jitter(5*time.Millisecond, 10*time.Millisecond), h.catchUp)
			}
		}
		if done != nil {
			done(nil)
		}
	})
}

// catchUp applies what the log holds, as far as the host can reach the leader.
func (m *machine) catchUp() {
	if !m.alive || m.frozen || m == m.c.withheld {
		return
	}
	for m.applied < len(m.c.log) {
		m.state, _ = m.state.Apply(uint64(m.applied+1), m.c.terms[m.applied], m.c.log[m.applied])
		m.applied++
	}
	m.event(Applied{State: m.state})
}

// Faults.

func (m *machine) kill() { m.alive = false; m.life++ }

func (m *machine) freeze() { m.frozen = true }

// thaw runs what was waiting, and lets the host hear of the log again.
func (m *machine) thaw() {
	m.frozen = false
	pending := m.pending
	m.pending = nil
	m.event(Woke{})
	for _, ev := range pending {
		m.event(ev)
	}
	m.heal()
}

// heal is Raft's part of a host coming back: it learns of the leader and the log.
func (m *machine) heal() {
	if m.c.lead >= 0 {
		m.later(20*time.Millisecond, func() Event {
			return Leader{ID: m.c.hosts[m.c.lead].node.ID, Self: m.c.lead == m.i, Term: m.c.term}
		})
	}
	m.c.after(30*time.Millisecond, m.catchUp)
}

func (c *cluster) cut(i int) {
	c.reach = func(from, to int) bool { return from != i && to != i }
}

func (c *cluster) mend(i int) {
	c.reach = func(int, int) bool { return true }
	c.hosts[i].heal()
}

// owner is the host that holds the address; it fails the test when there is none.
func (c *cluster) owner() *machine {
	c.t.Helper()
	c.check()
	if c.served < 0 {
		for _, l := range c.trace {
			c.t.Log(l)
		}
		c.t.Fatalf("%v: nobody answers", c.now)
	}
	return c.hosts[c.served]
}

// finish fails the test if two hosts ever answered at once.
func (c *cluster) finish() {
	c.t.Helper()
	if len(c.overlaps) > 0 {
		for _, l := range c.trace {
			c.t.Log(l)
		}
		c.t.Fatalf("two owners: %s (and %d more)", c.overlaps[0], len(c.overlaps)-1)
	}
}

// lastOutage returns the last outage and forgets it.
func (c *cluster) lastOutage() time.Duration {
	c.t.Helper()
	if len(c.outages) == 0 {
		c.t.Fatal("there was no outage")
	}
	d := c.outages[len(c.outages)-1]
	c.outages = nil
	return d
}
