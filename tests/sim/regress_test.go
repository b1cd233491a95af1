package sim

import (
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

// Each test here is a hole that was once there, as the smallest run that shows it.

// The sweep's second answer, which a change of the document in the first moments
// once caused, released a group that was held: the voters forgot the note and
// confirmed the next owner while the fence was open.
func TestSecondSweepReleasesNothing(t *testing.T) {
	t.Parallel()
	seeds(t, 20, 3, func(c *cluster) {
		h := c.owner()
		h.post(core.Swept{})
		c.Run(time.Millisecond)
		if c.owner() != h || len(c.watch.outages) > 0 {
			c.fail("n%d let go", h.i+1)
		}
		c.move("web", c.next(h))
		c.Run(time.Second)
	})
}

// A leader that pauses for less than a lease, and has missed the datagrams just
// before, has heard nobody for a lease and cannot tell from its own ticks that it was
// away. It must not take its owner for lost before it has heard a majority again.
func TestPauseOfTheLeaderMovesNothing(t *testing.T) {
	t.Parallel()
	for _, pause := range []time.Duration{150, 170, 190, 210, 230, 245} {
		seeds(t, 60, 3, func(c *cluster) {
			lead, owner := c.movedOff()
			c.Run(c.jitter(0, testRenew))
			c.deafen(lead)
			c.Run(c.jitter(0, testRenew))
			c.mend()
			lead.freeze()
			c.Run(pause * time.Millisecond)
			lead.thaw()
			c.Run(time.Second)
			if c.owner() != owner || len(c.watch.outages) > 0 {
				c.fail("a pause of %d ms of the leader moved the group to n%d", pause, c.owner().i+1)
			}
		})
	}
}

// The leader does not hear the owner, and the owner hears too few to open. The
// leader once had no way to know, and the group stayed dark for ever.
func TestDarkOwnerThatTheLeaderDoesNotHear(t *testing.T) {
	t.Parallel()
	seeds(t, 20, 3, func(c *cluster) {
		lead, owner := c.movedOff()
		third := c.hosts[3-lead.i-owner.i]
		c.net.data[owner.i][lead.i], c.net.data[third.i][owner.i] = true, true
		c.Run(5 * time.Second)
		if c.owner() == owner {
			c.fail("n%d holds it without answers", owner.i+1)
		}
	})
}

// The owner's clock is slowed by chrony's worst, so that its fence ends late, and it
// is cut off in the same moment. Once two answered for up to 10 ms.
func TestSlewOfTheOwner(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200 / slowdown) {
		c, lead, owner := steady(t, seed)
		owner.beginSlew(-0.083)
		c.cut(owner.i)
		c.move("web", lead)
		c.Run(500 * time.Millisecond)
		if c.owner() != lead {
			c.fail("n%d holds it", c.owner().i+1)
		}
		c.finish()
		c.Close()
	}
}

// The voters' clocks are hurried for a while and well again: their notes of the
// owner run out early, so they must wait before they confirm another.
func TestSlewOfTheVoters(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200 / slowdown) {
		c, lead, owner := steady(t, seed)
		for _, h := range c.hosts {
			if h != owner {
				h.beginSlew(0.083)
				c.after(215*time.Millisecond, h.endSlew)
			}
		}
		c.cut(owner.i)
		c.move("web", lead)
		c.Run(time.Second)
		if c.owner() == owner {
			c.fail("n%d holds it", owner.i+1)
		}
		c.finish()
		c.Close()
	}
}

// An address moves between two groups of one node while its removal takes its time.
// The removal's end once deleted the fence entry of the address under its new name.
func TestAddressChangesItsGroup(t *testing.T) {
	t.Parallel()
	seeds(t, 50, 1, func(c *cluster) {
		h := c.owner()
		h.probeTime = time.Millisecond
		c.env.Slow = 0.5
		doc := document(5*time.Second, 3)
		if _, err := c.append(h.i, fsm.Command{Replace: &fsm.Replace{Seen: 1, Document: doc}}); err != nil {
			c.fail("%v", err)
		}
		c.Run(5 * time.Second)
		if wrong := c.unsettled(); wrong != "" {
			c.fail("%s", wrong)
		}
	})
}

// A host that lets go and is fit again before the addresses are gone asks anew with
// the release. A question of the release's own instant is void, and the host once
// waited for its next renewal.
func TestAsksAnewAfterRelease(t *testing.T) {
	t.Parallel()
	seeds(t, 50, 1, func(c *cluster) {
		h := c.owner()
		c.Run(c.jitter(0, testRenew))
		h.post(core.Link{Name: device, OK: false})
		h.post(core.Link{Name: device, OK: true})
		c.Run(time.Second)
		c.owner()
		if d := c.lastOutage(); d > 10*time.Millisecond {
			c.fail("outage %v", d)
		}
	})
}

// An owner that the log does not reach learns from a voter's word that another was
// named, and lets go without waiting for its lease.
func TestStaleOwnerLetsGo(t *testing.T) {
	t.Parallel()
	seeds(t, 50, 3, func(c *cluster) {
		lead, owner := c.movedOff()
		for _, h := range c.hosts {
			c.noRaft(owner.i, h.i)
		}
		c.move("web", lead)
		var until election.Instant
		for owner.holds(0) {
			until = owner.fence[0].until
			c.Run(time.Millisecond)
		}
		if left := until.Sub(owner.clock()); left < testRenew {
			c.fail("it let go %v before the end of its lease", left)
		}
		if c.Run(2 * testRenew); c.owner() != lead {
			c.fail("n%d holds it, want n%d", c.owner().i+1, lead.i+1)
		}
	})
}

// An address that somebody removes by hand is put back at once.
func TestRemovedByHandComesBack(t *testing.T) {
	t.Parallel()
	seeds(t, 20, 3, func(c *cluster) {
		h := c.owner()
		added := h.added
		h.removed(0)
		c.Run(10 * time.Millisecond)
		if c.owner() != h || h.added != added+1 {
			c.fail("n%d holds it, brought back %d times; want n%d, once", c.owner().i+1, h.added-added, h.i+1)
		}
	})
}
