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
	reach    func(from, to int) bool
	trouble  trouble
	withheld *machine // the log does not reach it
	watch    watch
}

// A trouble is how badly the surroundings behave, as chances from 0 to 1. The zero
// value is a quiet day.
type trouble struct {
	loss, dup, late float64       // of a datagram
	latest          time.Duration // how late a late one may come
	slow            float64       // of a job of the host or LAN worker: up to 600 ms
	unbindFails     float64
	bindFails       float64
	fenceFails      float64
	lag             float64 // that a node applies only a part of what it could
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

var (
	testAddr  = netip.MustParsePrefix("10.0.0.200/24")
	otherAddr = netip.MustParsePrefix("10.0.0.201/24")
	testAddrs = []netip.Prefix{testAddr, otherAddr} // all that any document here names
)

func testDocument() fsm.Document {
	return fsm.Document{MaxHold: 5 * time.Second, Groups: []fsm.Group{{
		Name: "web", Addresses: []netip.Prefix{testAddr}, Interface: "eth0", Placement: fsm.PlacementLeader,
		Announce: fsm.Announce{Repeat: 5}, VRRP: fsm.VRRP{ID: 51, Priority: 254, Interval: time.Second},
	}}}
}

func newCluster(t *testing.T, n int, seed uint64) *cluster {
	c := &cluster{t: t, rng: rand.New(rand.NewPCG(seed, 1)), lead: -1, watch: watch{served: -1},
		reach: func(int, int) bool { return true }}
	var nodes []fsm.Node
	for i := range n {
		id := fsm.InstanceID{0: byte(i + 1)}
		nodes = append(nodes, fsm.Node{ID: id, Name: fmt.Sprintf("n%d", i+1), Role: fsm.Member,
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 7950)})
	}
	for i := range n {
		c.hosts = append(c.hosts, newMachine(c, i, nodes[i]))
	}
	c.term = 1
	c.append(fsm.Command{Form: &fsm.Form{Cluster: fsm.ClusterID{9}, Name: "test", Nodes: nodes, Document: testDocument()}})
	for _, m := range c.hosts { // their ticks must not coincide
		c.after(c.jitter(0, testRenew), m.start)
	}
	c.after(testRenew+5*time.Millisecond, func() { c.elect(0) })
	return c
}

func (c *cluster) after(d time.Duration, f func()) {
	c.seq++
	heap.Push(&c.queue, moment{c.now + d, c.seq, f})
}

func (c *cluster) jitter(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(c.rng.Int64N(int64(hi-lo)))
}

// chance is true with the given probability. Nothing is drawn for zero, so that
// quiet runs do not depend on which troubles exist.
func (c *cluster) chance(p float64) bool { return p > 0 && c.rng.Float64() < p }

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

func (c *cluster) index(id fsm.InstanceID) int {
	return slices.IndexFunc(c.hosts, func(m *machine) bool { return m.node.ID == id })
}

// deliver takes a datagram from one host to another, as well as the network does.
func (c *cluster) deliver(from, to *machine, datagram []byte) {
	if !c.reach(from.i, to.i) {
		return
	}
	msg, err := election.Decode(datagram)
	if err != nil {
		c.t.Fatalf("own datagram: %v", err)
	}
	if c.chance(c.trouble.loss) {
		return
	}
	copies := 1
	if c.chance(c.trouble.dup) {
		copies = 2
	}
	for range copies {
		delay := c.jitter(100*time.Microsecond, time.Millisecond)
		if c.chance(c.trouble.late) {
			delay = c.jitter(time.Millisecond, c.trouble.latest)
		}
		c.after(delay, func() { to.event(Datagram{Message: msg}) })
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

// leads reports whether there is a leader that can commit.
func (c *cluster) leads() bool { return c.lead >= 0 && c.up(c.lead, c.lead) && c.majority(c.lead) }

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

// electSoon is a campaign, with the time that one takes.
func (c *cluster) electSoon(i int) {
	c.after(c.jitter(8*time.Millisecond, 20*time.Millisecond), func() { c.elect(i) })
}

// keepElecting is Raft's own election timeout and its repeated sending of the log,
// for runs in which messages and leaders get lost in any way.
func (c *cluster) keepElecting() {
	c.after(c.jitter(300*time.Millisecond, 700*time.Millisecond), func() {
		if c.leads() {
			c.remind()
		} else {
			if c.lead >= 0 { // it steps down, and needs a new term to lead again
				c.hosts[c.lead].event(Leader{})
				c.lead = -1
			}
			c.elect(c.rng.IntN(len(c.hosts)))
		}
		c.keepElecting()
	})
}

// remind brings those in the leader's reach up to date.
func (c *cluster) remind() {
	lead := c.hosts[c.lead]
	for i, h := range c.hosts {
		if !c.up(c.lead, i) {
			continue
		}
		if h.core.leader.ID != lead.node.ID {
			h.event(Leader{ID: lead.node.ID, Self: h == lead, Term: c.term})
		}
		h.catchUp()
	}
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

// move proposes a move at the leader and reports whether that was allowed.
func (c *cluster) move(group string, to *machine) bool {
	if c.lead < 0 || !c.up(c.lead, c.lead) {
		return false
	}
	lead := c.hosts[c.lead]
	cmd, err := lead.core.Move(group, to.node.Name)
	if err == nil {
		lead.propose(cmd)
	}
	return err == nil
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

// catchUp applies what the log holds, if the leader can be reached: only from it
// does a node learn what is committed, also after a restart.
func (m *machine) catchUp() {
	c := m.c
	if c.lead < 0 || !c.up(c.lead, m.i) || !m.alive || m.frozen || m == c.withheld {
		return
	}
	end := len(c.log)
	if m.i != c.lead && end > m.applied && c.chance(c.trouble.lag) {
		end = m.applied + c.rng.IntN(end-m.applied)
		c.after(c.jitter(0, 400*time.Millisecond), m.catchUp)
	}
	oneByOne := c.chance(c.trouble.lag)
	for m.applied < end {
		m.state, _ = m.state.Apply(uint64(m.applied+1), c.terms[m.applied], c.log[m.applied])
		m.applied++
		if oneByOne {
			m.event(Applied{State: m.state})
		}
	}
	m.event(Applied{State: m.state})
}
