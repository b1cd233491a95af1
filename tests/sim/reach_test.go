package sim

import (
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
)

// replace has the leader put other groups in the document's place.
func (c *cluster) replace(groups ...fsm.Group) {
	c.t.Helper()
	doc := c.state(c.leader()).Document
	doc.Groups = groups
	if !c.byHand(fsm.Command{Replace: &fsm.Replace{Seen: doc.Revision, Document: doc}}) {
		c.fail("nobody leads")
	}
}

// holdsExactly fails unless the host holds these addresses and nothing of any other.
func (c *cluster) holdsExactly(h *host, addrs ...int) {
	c.t.Helper()
	var want [maxAddrs]bool
	for _, a := range addrs {
		want[a] = true
	}
	for a := range Addresses {
		if h.holds(a) != want[a] || !want[a] && (h.has(a) || h.fence[a].set) {
			c.fail("n%d holds %s: %v, want %v; there: %v, fence %+v", h.i+1, Addresses[a].Addr(), h.holds(a), want[a], h.has(a), h.fence[a])
		}
	}
}

// An address that stays in its group is answered for without a gap while others come and
// go, a whole virtual router among them, and the hooks hear nothing of it.
func TestKeptAddress(t *testing.T) {
	t.Parallel()
	seeds(t, 40, 3, func(c *cluster) {
		h := c.owner()
		if c.chance(0.5) {
			_, h = c.movedOff()
		}
		added, told := h.added, h.told.last["web"]
		for _, addrs := range [][]int{{0, 1}, {0, 1, 3}, {0, 3}, {3, 0}, {0, 1}, {0, 1, 2}, {0}, {0, 2}, {0}} {
			c.Run(c.jitter(0, testRenew))
			c.replace(group("web", 51, addrs...))
			c.Run(3 * time.Second)
			if len(c.watch.outages) > 0 || h.told.last["web"] != told {
				c.fail("with %v: outages of the address that stays %v, hooks told %q", addrs, c.watch.outages, h.told.last["web"])
			}
			c.holdsExactly(h, addrs...)
		}
		if got := h.added - added; got != 5 {
			c.fail("%d addresses came to n%d, want 5", got, h.i+1)
		}
	})
}

// Who takes a group over knows that the addresses which joined it are free.
func TestTakeOverAfterJoining(t *testing.T) {
	t.Parallel()
	seeds(t, 20, 3, func(c *cluster) {
		_, h := c.movedOff()
		c.replace(group("web", 51, 0, 1))
		c.Run(time.Second)
		c.holdsExactly(h, 0, 1)
		c.watch.outages = nil
		h.kill()
		c.Run(2 * time.Second)
		if d := c.lastOutage(); d > testLease+150*time.Millisecond {
			c.fail("outage %v", d)
		}
	})
}

// An address that goes from group to group, each on a host of its own, disturbs none of
// those that the group has to which it goes.
func TestAddressOfAnotherGroup(t *testing.T) {
	t.Parallel()
	seeds(t, 40, 3, func(c *cluster) {
		lead, owner := c.movedOff()
		c.replace(group("web", 51, 0), group("db", 52, 1, 3))
		c.Run(time.Second)
		c.holdsExactly(lead, 1, 3)
		c.watch.outages = nil
		c.Run(c.jitter(0, testRenew))
		c.replace(group("web", 51, 0, 3), group("db", 52, 1))
		c.Run(time.Second)
		c.holdsExactly(lead, 1)
		c.holdsExactly(owner, 0, 3)
		if len(c.watch.outages) > 0 {
			c.fail("outages %v", c.watch.outages)
		}
	})
}

// An address that a host outside has does not join the group, which goes on without it,
// and joins it when that host is gone.
func TestConflictOfWhatJoins(t *testing.T) {
	t.Parallel()
	seeds(t, 10, 3, func(c *cluster) {
		h := c.owner()
		c.foreign[Addresses[1].Addr()] = true
		c.replace(group("web", 51, 0, 1))
		c.Run(5 * time.Second)
		c.holdsExactly(h, 0)
		delete(c.foreign, Addresses[1].Addr())
		c.Run(11 * time.Second)
		c.holdsExactly(h, 0, 1)
		if len(c.watch.outages) > 0 {
			c.fail("outages %v", c.watch.outages)
		}
	})
}

// TestDocuments is TestChaos with a new document every now and then, most of which leave
// some addresses of a group where they are.
func TestDocuments(t *testing.T) {
	manyRuns(t, (*chaosSeeds+3)/4, func(seed uint64, story bool) *Chaos {
		env := chaosEnv(seed)
		env.Weights.Document, env.Weights.Member = 16, min(env.Weights.Member, 2)
		return runChaos(env, seed, story)
	})
}
