package sim

import (
	"reflect"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

// When all lose their majority for a while and the same owner comes back, that is told too.
func TestHistoryOfAnInterruption(t *testing.T) {
	t.Parallel()
	again, runs := 0, 50
	seeds(t, runs, 3, func(c *cluster) {
		h := c.owner()
		for _, o := range c.hosts {
			if o != h {
				c.cut(o.i)
			}
		}
		c.Run(c.jitter(2*testLease, 10*testLease))
		c.mend()
		c.Run(4 * time.Second)
		now, seen := c.owner(), c.lastOutage()
		events := c.state(now).Events
		last := events[len(events)-1]
		for i := len(events) - 1; last.Group != "web"; i-- {
			last = events[i]
		}
		if now != h {
			return // another was named
		}
		again++
		said, known := last.Outage()
		if last.Kind != fsm.EventReopened || last.To != h.node.ID || last.Why != "lease-expired" || !known || max(said-seen, seen-said) > 10*time.Millisecond {
			c.fail("nobody had it for %v, and the history ends with %+v", seen, last)
		}
	})
	if again*4 < runs/slowdown {
		t.Errorf("in %d of %d runs the owner came back, want a quarter at least", again, runs)
	}
}

// What the history says of a change of owner is what somebody sees who looks at every
// kernel with true time. Each fault is done to the owner; the estimate of the outage may
// be longer than what was seen by as much as the old owner served on unheard: up to a
// lease where only its process or its network died, nothing where it let go by itself.
func TestHistoryIsTrue(t *testing.T) {
	t.Parallel()
	const slack = 5 * time.Millisecond // of messages on their way, and of clocks
	tests := []struct {
		name     string
		why      fsm.Reason
		leads    bool          // the owner leads too
		min, max time.Duration // by how much the estimate may be longer
		fault    func(c *cluster, h *host)
	}{
		{"kill", fsm.ReasonLost, false, testLease - testRenew, testLease, func(_ *cluster, h *host) { h.kill() }},
		{"kill of the leader", fsm.ReasonLost, true, testLease - testRenew, testLease, func(_ *cluster, h *host) { h.kill() }},
		{"freeze", fsm.ReasonLost, true, testLease - testRenew, testLease, func(_ *cluster, h *host) { h.freeze() }},
		{"cut", fsm.ReasonLost, false, testLease - testRenew, testLease, func(c *cluster, h *host) { c.cut(h.i) }},
		{"carrier", fsm.ReasonUnfit, false, 0, 0, func(_ *cluster, h *host) { h.carrier(false) }},
		{"carrier of the leader", fsm.ReasonUnfit, true, 0, 0, func(_ *cluster, h *host) { h.carrier(false) }},
		{"stop", fsm.ReasonShutdown, false, 0, 0, func(_ *cluster, h *host) { h.post(core.Stop{}) }},
		{"release by hand", fsm.ReasonUnfit, false, 0, 0, func(_ *cluster, h *host) { h.releaseByHand() }},
		{"move", fsm.ReasonMove, true, 0, 0, func(c *cluster, h *host) { c.move("web", c.next(h)) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			seeds(t, 100, 3, func(c *cluster) {
				h := c.owner()
				if !tt.leads {
					_, h = c.movedOff()
				}
				c.Run(c.jitter(0, 2*testRenew))
				tt.fault(c, h)
				c.Run(4 * time.Second)
				now, seen := c.owner(), c.lastOutage()
				st := c.state(now)
				e, ok := st.Change("web", st.Assignments["web"].Epoch)
				if !ok || e.From != h.node.ID || e.To != now.node.ID || e.Reason != tt.why {
					c.fail("n%d was to lose it (%v) and n%d has it, and the history says %+v", h.i+1, tt.why, now.i+1, e)
				}
				said, known := e.Outage()
				if more := said - seen; !known || more < tt.min-slack || more > tt.max+slack {
					c.fail("nobody had it for %v, and the history says %v (%v): %+v; want %v to %v more", seen, said, known, e.Phases, tt.min, tt.max)
				}
				if own := e.Phases.Waited + e.Phases.Bound; own > seen+slack || e.Phases.Bound <= 0 || e.Phases.Announced <= 0 {
					c.fail("nobody had it for %v, and the new owner says %+v of its own part", seen, e.Phases)
				}
				for _, o := range c.hosts {
					if st := c.state(o); o != h && !reflect.DeepEqual(st.Events, c.state(now).Events) {
						c.fail("n%d and n%d have other histories", o.i+1, now.i+1)
					}
				}
			})
		})
	}
}
