package core

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// formed returns a cluster in which somebody has held the address for a while.
func formed(t *testing.T, n int, seed uint64) *cluster {
	t.Helper()
	c := newCluster(t, n, seed)
	c.run(3 * time.Second)
	c.owner()
	c.watch.outages, c.watch.lostAt = nil, 0
	return c
}

// Each fault is done to the owner, which is also the leader, over many seeds. The
// bound is on virtual time: it does not depend on the machine.
func TestFaultsOfTheOwner(t *testing.T) {
	t.Parallel()
	const seeds = 200
	tests := []struct {
		name  string
		bound time.Duration
		fault func(c *cluster, m *machine)
		mend  func(c *cluster, m *machine)
	}{
		{"kill", testLease + 150*time.Millisecond, func(_ *cluster, m *machine) { m.kill() }, func(_ *cluster, m *machine) { m.revive() }},
		{"freeze", testLease + 150*time.Millisecond, func(_ *cluster, m *machine) { m.freeze() }, func(_ *cluster, m *machine) { m.thaw() }},
		{"cut", testLease + 150*time.Millisecond, func(c *cluster, m *machine) { c.cut(m.i) }, func(c *cluster, m *machine) { c.mend(m.i) }},
		{"pull", testLease + 150*time.Millisecond, func(c *cluster, m *machine) {
			c.cut(m.i)
			m.event(Link{Name: "eth0", OK: false})
		}, func(c *cluster, m *machine) {
			m.event(Link{Name: "eth0", OK: true})
			c.mend(m.i)
		}},
		{"stop", 50 * time.Millisecond, func(_ *cluster, m *machine) { m.event(Stop{}) }, func(_ *cluster, m *machine) { m.revive() }},
		{"carrier only", 60 * time.Millisecond, func(_ *cluster, m *machine) { m.event(Link{Name: "eth0", OK: false}) },
			func(_ *cluster, m *machine) { m.event(Link{Name: "eth0", OK: true}) }},
		{"release by hand", 60 * time.Millisecond, func(_ *cluster, m *machine) { m.event(ReleaseAsked{}) }, func(*cluster, *machine) {}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var worst time.Duration
			for seed := range uint64(seeds) {
				c := formed(t, 3, seed)
				m := c.owner()
				c.run(c.jitter(0, 2*testRenew))
				began := c.now
				tt.fault(c, m)
				c.run(4 * time.Second)
				if c.owner() == m {
					t.Fatalf("seed %d: still at the faulty host", seed)
				}
				// From the fault, not from the last answer: a frozen host answers until
				// its lease ends.
				outage := c.lastOutage()
				worst = max(worst, outage)
				if outage > tt.bound {
					c.fail("seed %d: outage %v after the fault at %v, want at most %v", seed, outage, began, tt.bound)
				}
				now := c.owner()
				tt.mend(c, m)
				c.run(3 * time.Second)
				if c.owner() != now {
					t.Fatalf("seed %d: the group moved when the host came back", seed)
				}
				c.finish()
			}
			t.Logf("worst outage over %d seeds: %v", seeds, worst)
		})
	}
}

func TestMove(t *testing.T) {
	for seed := range uint64(100) {
		c := formed(t, 3, seed)
		from := c.owner()
		to := c.hosts[(from.i+1)%3]
		cmd, err := from.core.Move("web", to.node.Name)
		if err != nil {
			t.Fatal(err)
		}
		from.propose(cmd)
		c.run(time.Second)
		if c.owner() != to {
			t.Fatalf("seed %d: n%d holds it, want n%d", seed, c.watch.served+1, to.i+1)
		}
		if d := c.lastOutage(); d > 50*time.Millisecond {
			t.Fatalf("seed %d: outage %v", seed, d)
		}
		c.finish()
	}
}

// Nobody may answer when a majority is gone, and everything comes back with it.
func TestNoMajority(t *testing.T) {
	c := formed(t, 3, 1)
	m := c.owner()
	for _, h := range c.hosts {
		if h != m {
			h.kill()
		}
	}
	c.run(testLease + 20*time.Millisecond)
	if c.serves() {
		t.Fatal("the address is answered for without a majority")
	}
	for _, h := range c.hosts {
		if h != m {
			h.start()
			h.heal()
		}
	}
	c.run(3 * time.Second)
	c.owner()
	c.finish()
}

// All daemons are killed and none comes back: the fence alone ends it.
func TestAllKilled(t *testing.T) {
	c := formed(t, 3, 2)
	for _, h := range c.hosts {
		h.kill()
	}
	c.run(testLease + 10*time.Millisecond)
	if c.serves() {
		t.Fatal("the address is answered for after the lease")
	}
	for _, h := range c.hosts {
		h.start()
	}
	c.elect(1)
	c.run(3 * time.Second)
	c.owner()
	c.finish()
}

// The owner's questions arrive and the answers do not: it says itself that it hears
// nobody, and is as good as lost.
func TestOneWayCutToTheOwner(t *testing.T) {
	for seed := range uint64(100) {
		c := formed(t, 3, seed)
		m := c.owner()
		c.reach = func(_, to int) bool { return to != m.i }
		c.run(5 * time.Second)
		if c.owner() == m {
			t.Fatalf("seed %d: still at the deaf host", seed)
		}
		if d := c.lastOutage(); d > testLease+150*time.Millisecond {
			t.Fatalf("seed %d: outage %v", seed, d)
		}
		c.finish()
	}
}

// The owner hears everybody and cannot open all the same, whatever the reason: it
// has three leases, and then another is tried.
func TestOwnerThatDoesNotOpen(t *testing.T) {
	c := formed(t, 3, 3)
	m := c.owner()
	to := c.hosts[(m.i+1)%3]
	to.core.swept = false // as while the leavings of an earlier life cannot be removed
	cmd, err := m.core.Move("web", to.node.Name)
	if err != nil {
		t.Fatal(err)
	}
	m.propose(cmd)
	c.run(5 * time.Second)
	if c.owner() == to {
		t.Fatal("it opened")
	}
	if d := c.lastOutage(); d < election.NotOpenLeases*testLease || d > (election.NotOpenLeases+1)*testLease+50*time.Millisecond {
		t.Fatalf("outage %v, want some three leases", d)
	}
	c.finish()
}

// A node that comes back late to a healthy cluster disturbs nothing: before it knew
// the cluster it could hear nobody.
func TestLateReturnDisturbsNothing(t *testing.T) {
	for seed := range uint64(50) {
		c := formed(t, 3, seed)
		owner := c.owner()
		m := c.hosts[(owner.i+1)%3]
		m.kill()
		c.run(time.Second)
		c.withheld = m // the log reaches it late
		m.start()
		m.event(Leader{ID: owner.node.ID, Term: c.term})
		c.run(c.jitter(time.Second, 2*time.Second))
		term := c.term
		c.withheld = nil
		m.heal()
		c.run(2 * time.Second)
		if c.term != term || c.owner() != owner || len(c.watch.outages) > 0 {
			t.Fatalf("seed %d: term %d, was %d; owner n%d, was n%d; %d outages", seed, c.term, term, c.watch.served+1, owner.i+1, len(c.watch.outages))
		}
		c.finish()
	}
}

// Only the leader does not hear the owner: nothing may move.
func TestAsymmetricCutMovesNothing(t *testing.T) {
	c := formed(t, 3, 4)
	m := c.owner()
	lead := (m.i + 1) % 3
	c.elect(lead)
	c.run(time.Second)
	c.reach = func(from, to int) bool { return (from != m.i || to != lead) && (from != lead || to != m.i) }
	c.watch.outages = nil
	c.run(5 * time.Second)
	if c.owner() != m || len(c.watch.outages) > 0 {
		c.fail("n%d holds it after %d outages; n%d was heard by a majority", c.watch.served+1, len(c.watch.outages), m.i+1)
	}
	c.finish()
}

func TestAddressConflict(t *testing.T) {
	c := newCluster(t, 3, 5)
	for _, h := range c.hosts {
		h.conflict = "02:00:00:00:00:99"
	}
	c.run(8 * time.Second)
	if c.serves() {
		t.Fatal("the address was bound beside another host's")
	}
	if !slices.ContainsFunc(c.watch.story, func(l string) bool {
		return strings.Contains(l, "address conflict") && strings.Contains(l, "02:00:00:00:00:99")
	}) {
		t.Fatal("nobody named the other host")
	}
	for _, h := range c.hosts {
		h.conflict = ""
	}
	c.run(30 * time.Second)
	c.owner()
	c.finish()
}

// A clock that is slewed takes the node out: it neither asks nor confirms.
func TestSlewedClock(t *testing.T) {
	c := formed(t, 3, 6)
	m := c.owner()
	m.event(Clock{Reading: election.ClockReading{Tick: 10_800}}) // 8 %
	c.run(testLease + 10*time.Millisecond)
	if m.holds(testAddr.Addr()) {
		t.Fatal("still answering on a slewed clock")
	}
	c.run(5 * time.Second)
	if c.owner() == m {
		t.Fatal("the slewed host got it back")
	}
	c.finish()
}

func TestKernelRefusesTheAddress(t *testing.T) {
	c := formed(t, 3, 7)
	m := c.owner()
	for _, h := range c.hosts {
		if h != m {
			h.bindErr = errKernel
		}
	}
	m.event(ReleaseAsked{})
	c.run(3 * time.Second)
	if c.serves() {
		t.Fatal("somebody holds it although the kernel refuses")
	}
	for _, h := range c.hosts {
		h.bindErr = nil
	}
	c.run(20 * time.Second)
	c.owner()
	c.finish()
}

func TestSingleNode(t *testing.T) {
	c := formed(t, 1, 8)
	m := c.owner()
	m.event(Stop{})
	c.run(time.Second)
	if !m.done || len(m.addrs) > 0 || len(m.fence) > 0 {
		t.Fatalf("after stop: done %v, addresses %v, fence %v", m.done, m.addrs, m.fence)
	}
	m.start()
	m.heal()
	c.run(2 * time.Second)
	c.owner()
	c.finish()
}

// Only the owner speaks, for no longer than its fence is open; a new owner
// announces at once, repeats past 1.1 s, and advertises each interval.
func TestSpeaking(t *testing.T) {
	c := formed(t, 3, 9)
	m := c.owner()
	var announced, advertised int
	for _, e := range m.sent {
		switch e.(type) {
		case Announce:
			announced++
		case Advertise:
			advertised++
		}
	}
	if announced < 3 || advertised < 2 {
		t.Fatalf("%d announcements and %d adverts in the first seconds", announced, advertised)
	}
	for _, h := range c.hosts {
		if h != m && len(h.sent) > 0 {
			t.Fatalf("n%d spoke without holding: %v", h.i+1, h.sent)
		}
	}
	c.finish() // the watch sees whether any may leave after the lease
}

// A node that asks to join becomes known, gets the log, and gets its vote only when
// it has caught up and the last change of voters is long enough ago.
func TestJoin(t *testing.T) {
	c := formed(t, 3, 10)
	m := c.owner()
	joiner := m.node
	joiner.ID, joiner.Name = fsm.InstanceID{99}, "n9"
	if err := m.core.CheckJoin(fsm.Node{ID: joiner.ID, Name: "n2"}); err == nil {
		t.Fatal("a second instance may have a name")
	}
	m.event(JoinAsked{Node: joiner})
	c.run(time.Second)
	if m.state.Nodes[joiner.ID] != joiner {
		t.Fatal("the cluster does not know it")
	}
	changes := func() string {
		var out []string
		for _, e := range m.changes {
			out = append(out, fmt.Sprintf("%T", e))
		}
		return strings.Join(out, " ")
	}
	if got := changes(); got != "core.AddNonvoter" {
		t.Fatalf("changes before it has caught up: %q", got)
	}
	heardFor := func(until time.Duration) {
		for c.now < until {
			for _, h := range c.hosts {
				h.event(Datagram{Message: renewalOf(c, joiner, m.state.Index)})
			}
			c.run(testRenew)
		}
	}
	heardFor(9 * time.Second)
	if got := changes(); got != "core.AddNonvoter" {
		t.Fatalf("changes within the spacing: %q", got)
	}
	heardFor(12 * time.Second)
	if got := changes(); !strings.HasPrefix(got, "core.AddNonvoter core.AddVoter") {
		t.Fatalf("changes after the spacing: %q", got)
	}
	c.finish()
}

// renewalOf is what a node without groups that hears everybody says of itself.
func renewalOf(c *cluster, n fsm.Node, applied uint64) election.Renewal {
	var hears []election.Hearsay
	for _, h := range c.hosts {
		hears = append(hears, election.Hearsay{Node: h.node.ID})
	}
	return election.Renewal{
		Hears:  hears,
		Sender: election.Sender{Cluster: fsm.ClusterID{9}, From: n.ID},
		Stamp:  election.Stamp{Boot: election.BootID{99}, At: election.Instant(c.now)},
		Lease:  testLease, Grace: election.GraceBPF, Applied: applied, Health: election.Health{VoterReady: true},
	}
}
