package sim

import (
	"testing"
	"time"
)

const (
	testLease = 250 * time.Millisecond
	testRenew = testLease / 3
)

// A cluster is a World in a test, which ends with the story when something is wrong.
type cluster struct {
	*World
	t    *testing.T
	seed uint64
}

func newCluster(t *testing.T, env Env, seed uint64) *cluster {
	c := &cluster{World: New(env, seed), t: t, seed: seed}
	c.watch.telling = true
	return c
}

// formed is a cluster in which somebody has held the address for a while.
func formed(t *testing.T, n int, seed uint64) *cluster {
	t.Helper()
	c := newCluster(t, Quiet(n), seed)
	c.Run(3 * time.Second)
	c.owner()
	c.watch.outages = nil
	return c
}

// seeds makes the same test with many seeds. Each ends without a broken promise.
func seeds(t *testing.T, n int, hosts int, test func(c *cluster)) {
	t.Helper()
	for seed := range uint64((n + slowdown - 1) / slowdown) {
		c := formed(t, hosts, seed)
		test(c)
		c.finish()
		c.Close()
	}
}

// owner is the host that holds the first address; it fails the test if there is none.
func (c *cluster) owner() *host {
	c.t.Helper()
	h := c.Holder(0)
	if h == nil {
		c.fail("nobody answers")
	}
	return h
}

// fail ends the test with the story.
func (c *cluster) fail(format string, args ...any) {
	c.t.Helper()
	for _, l := range c.watch.story {
		c.t.Log(l)
	}
	c.t.Logf("seed %d, at %v:", c.seed, c.now)
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
		c.fail("there was no outage")
	}
	d := c.watch.outages[len(c.watch.outages)-1]
	c.watch.outages = nil
	return d
}

// next is the host after h, in a ring.
func (c *cluster) next(h *host) *host { return c.hosts[(h.i+1)%len(c.hosts)] }

// deafen keeps every datagram and connection from a host, and lets out what it sends.
func (c *cluster) deafen(h *host) {
	for _, o := range c.hosts {
		c.block(o.i, h.i)
	}
}

// movedOff moves the group to a host that does not lead and returns both.
func (c *cluster) movedOff() (lead, owner *host) {
	c.t.Helper()
	lead = c.owner()
	owner = c.next(lead)
	c.move("web", owner)
	c.Run(time.Second)
	if c.owner() != owner || c.leader() != lead {
		c.fail("n%d holds it and n%d leads, want n%d and n%d", c.owner().i+1, c.leader().i+1, owner.i+1, lead.i+1)
	}
	c.watch.outages = nil
	return lead, owner
}

// steady is a cluster whose clocks are exact, at a random moment, with an owner that
// does not lead.
func steady(t *testing.T, seed uint64) (c *cluster, lead, owner *host) {
	t.Helper()
	env := Quiet(3)
	env.Drift = 0
	c = newCluster(t, env, seed)
	c.Run(3 * time.Second)
	lead, owner = c.movedOff()
	c.Run(c.jitter(0, testRenew))
	return c, lead, owner
}
