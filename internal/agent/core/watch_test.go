package core

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/quorate/quorate/election"
)

// A watch is what somebody sees who looks at every kernel after every event.
type watch struct {
	quiet      bool // keep no story
	story      []string
	violations []string
	seen       map[string]bool
	// Of testAddr: the host that answers for it (-1: none), and for how long nobody did.
	served  int
	lostAt  time.Duration
	outages []time.Duration
}

func (c *cluster) tell(format string, args ...any) {
	if !c.watch.quiet {
		c.watch.story = append(c.watch.story, fmt.Sprintf("%v ", c.now)+fmt.Sprintf(format, args...))
	}
}

// violated notes a broken promise, each wording once.
func (c *cluster) violated(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if c.watch.seen[what] {
		return
	}
	if c.watch.seen == nil {
		c.watch.seen = map[string]bool{}
	}
	c.watch.seen[what] = true
	c.watch.violations = append(c.watch.violations, fmt.Sprintf("%v: %s", c.now, what))
	c.tell("VIOLATION %s", what)
}

// check looks at every kernel: who answers for each address at this moment?
func (c *cluster) check() {
	for _, p := range testAddrs {
		first := -1
		for i, m := range c.hosts {
			if !m.answers(p.Addr()) {
				continue
			}
			if first >= 0 {
				c.violated("n%d and n%d answer for %s", first+1, i+1, p.Addr())
			}
			first = i
		}
	}
	c.count()
}

// count keeps account of the outages of testAddr.
func (c *cluster) count() {
	w, who := &c.watch, -1
	for i, m := range c.hosts {
		if m.holds(testAddr.Addr()) {
			who = i
		}
	}
	switch {
	case who < 0 && w.served >= 0:
		w.lostAt = c.now
	case who >= 0 && w.served < 0 && w.lostAt > 0:
		w.outages = append(w.outages, c.now-w.lostAt)
	}
	w.served = who
}

// answers reports whether the host may answer for an address: its frames can leave
// for the fence's grace after the deadline. A fence that was shut lets nothing out.
func (m *machine) answers(a netip.Addr) bool {
	if !m.addrs[a] {
		return false
	}
	until, fenced := m.fence[a]
	if !fenced {
		m.c.violated("n%d has %s without an entry in the fence", m.i+1, a)
		return true
	}
	return until != 0 && m.clock().Before(until.Add(election.GraceBPF))
}

// holds reports whether the host serves an address by right.
func (m *machine) holds(a netip.Addr) bool {
	return m.addrs[a] && m.clock().Before(m.fence[a])
}

// order takes an announcement or advert into the LAN's queue: only who holds speaks,
// and for no longer than the fence is open.
func (m *machine) order(e Effect, at []Place, until election.Instant) {
	for _, p := range at {
		open := m.fence[p.Prefix.Addr()]
		if !m.clock().Before(open) {
			m.c.violated("n%d speaks for %s while its fence is shut", m.i+1, p.Prefix)
		}
		if until.After(open) {
			m.c.violated("n%d may speak for %s after its lease", m.i+1, p.Prefix)
		}
	}
	m.job(&m.lan, func() { m.speak(e, at, until) })
}

// speak is the moment at which it leaves, or is dropped because it waited too long.
// Nobody else may answer then.
func (m *machine) speak(e Effect, at []Place, until election.Instant) {
	if !m.clock().Before(until) {
		return
	}
	m.sent = append(m.sent, e)
	for _, p := range at {
		for _, h := range m.c.hosts {
			if h != m && h.answers(p.Prefix.Addr()) {
				m.c.violated("n%d speaks for %s, and n%d answers", m.i+1, p.Prefix, h.i+1)
			}
		}
	}
}

// unsettled says what keeps the cluster from being as its document wants it: each
// address held by one host, and nothing left anywhere else. Empty: nothing.
func (c *cluster) unsettled() string {
	if c.lead < 0 || c.hosts[c.lead].applied < len(c.log) {
		return "nobody leads"
	}
	wanted := map[netip.Addr]bool{}
	for _, g := range c.hosts[c.lead].state.Document.Groups {
		for _, p := range g.Addresses {
			wanted[p.Addr()] = true
		}
	}
	for _, p := range testAddrs {
		holders, a := 0, p.Addr()
		for _, m := range c.hosts {
			_, fenced := m.fence[a]
			if m.holds(a) {
				holders++
			} else if m.addrs[a] || fenced {
				return fmt.Sprintf("n%d has leavings of %s", m.i+1, a)
			}
		}
		if want := map[bool]int{true: 1}[wanted[a]]; holders != want {
			return fmt.Sprintf("%s has %d holders, want %d", a, holders, want)
		}
	}
	return ""
}

// serves reports whether somebody holds testAddr now.
func (c *cluster) serves() bool {
	c.check()
	return c.watch.served >= 0
}

// owner is the host that holds testAddr; it fails the test when there is none.
func (c *cluster) owner() *machine {
	c.t.Helper()
	if !c.serves() {
		c.fail("%v: nobody answers", c.now)
	}
	return c.hosts[c.watch.served]
}

// fail ends the test with the story.
func (c *cluster) fail(format string, args ...any) {
	c.t.Helper()
	for _, l := range c.watch.story {
		c.t.Log(l)
	}
	c.t.Fatalf(format, args...)
}

// finish fails the test if any promise was ever broken.
func (c *cluster) finish() {
	c.t.Helper()
	if v := c.watch.violations; len(v) > 0 {
		c.fail("%s (and %d more)", v[0], len(v)-1)
	}
}

// lastOutage returns the last outage and forgets it.
func (c *cluster) lastOutage() time.Duration {
	c.t.Helper()
	if len(c.watch.outages) == 0 {
		c.t.Fatal("there was no outage")
	}
	d := c.watch.outages[len(c.watch.outages)-1]
	c.watch.outages = nil
	return d
}
