package core

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// What follows keeps addresses over a restart of the process. An earlier life leaves
// entries in the fence that are still open, and the voters' notes of it run at least as
// long: to leave them alone adds nothing to what that life could have done. The present
// one has them as an open group whose deadline is the one that the kernel has, and that
// moves by the answers to its own questions alone.

// A Leftover is an address that an earlier life of the process has left on this host,
// behind an entry of the fence that is still open.
type Leftover struct {
	At    Place // as it stands there; without a Spec
	Until election.Instant
}

// missedIn is how long before the deadlines of an earlier life this one can be sure that
// nobody stands for election because of its silence.
const missedIn = 150 * time.Millisecond

// NotMissed reports whether the others have heard the earlier life of a process lately: its
// last lease has some time left, and they wait for as long before they act.
func NotMissed(left []Leftover, now election.Instant) bool {
	return slices.ContainsFunc(left, func(l Leftover) bool { return l.Until.Sub(now) >= missedIn })
}

// A heritage is what an earlier life left open.
type heritage struct {
	left  []Leftover            // found, and not shut
	shut  []netip.Addr          // shut; their entries are to be deleted when they are gone
	away  []Place               // shut, and to be taken off before the sweep
	going []Place               // by an Unbind under way
	gen   uint64                // of that; zero: there is none
	heirs map[string][]Leftover // by group, what the sweep under way leaves alone
	kept  []Leftover            // of groups that go on with it
}

// disown shuts what is found where there is nothing to remember an earlier life by: an
// empty log. The cluster can be another of the same name, whose voters have no notes of it.
//
//quorate:rule inherit-by-log
func (c *Core) disown() bool { return c.cfg.AtStart.LastCommand == 0 }

// renounce keeps nothing of an earlier life when this host may hold nothing: what is found
// is shut and taken off at once, for a deadline on a slewed clock is none, and a device
// without the fence does not look at it. A sweep under way leaves it alone, so there has to
// be another. What has run out before it is known whose it is goes too.
//
//quorate:rule renounce
func (c *Core) renounce() {
	h := &c.heritage
	all := c.disown() || c.slewed() || c.uncovered()
	if c.swept || len(h.left) == 0 || !all && c.sweeping != 0 {
		return
	}
	var kept []netip.Addr
	for _, l := range h.left {
		if all || !l.Until.After(c.now) {
			h.away = append(h.away, l.At)
		} else {
			kept = append(kept, l.At.Prefix.Addr())
		}
	}
	if len(kept) == len(h.left) {
		return
	}
	c.shutHeritage(kept)
	if h.heirs = nil; c.sweeping != 0 {
		c.sweeping = noRevision
	}
	c.takeAway()
}

// takeAway takes off what is not kept, before the sweep: that may never come, where the
// rest of the cluster does not know this node any more.
func (c *Core) takeAway() {
	h := &c.heritage
	if h.gen != 0 || len(h.away) == 0 {
		return
	}
	h.gen, h.going, h.away = c.nextGen(), h.away, nil
	c.do(Unbind{Gen: h.gen, Holding: Holding{At: h.going}})
}

// tookAway has the fence forget what was seen gone. After the sweep it may be held again.
func (c *Core) tookAway(ev Unbound) {
	h := &c.heritage
	if ev.Group != "" || h.gen == 0 || ev.Gen != h.gen {
		return
	}
	if !ev.seenGone() {
		c.leaveAgain()
		return
	}
	going := h.going
	h.gen, h.going = 0, nil
	h.shut = minus(h.shut, addrsOf(going))
	c.do(ClearFence{Addrs: addrsOf(going)})
}

// leaveAgain has it tried once more with the next tick.
func (c *Core) leaveAgain() {
	h := &c.heritage
	h.gen, h.away, h.going = 0, slices.Concat(h.going, h.away), nil
}

// noRevision is of no document.
const noRevision = math.MaxUint64

// beginHeritage takes what the process found when it started.
func (c *Core) beginHeritage() {
	c.heritage.left = c.cfg.Left
	if c.disown() {
		c.renounce()
	}
}

// shutHeritage shuts what is not to be kept.
func (c *Core) shutHeritage(kept []netip.Addr) {
	h := &c.heritage
	h.left = slices.DeleteFunc(slices.Clone(h.left), func(l Leftover) bool {
		addr := l.At.Prefix.Addr()
		if slices.Contains(kept, addr) {
			return false
		}
		h.shut = append(h.shut, addr)
		return true
	})
	if len(h.shut) > 0 {
		c.do(SetFence{Addrs: slices.Clone(h.shut), Until: 0})
	}
}

// bequeath names the groups that go on with what an earlier life left of them, and shuts
// everything else of it. It returns those of the addresses that are to be taken off, and
// what was shut with them.
func (c *Core) bequeath(addrs []netip.Addr) []netip.Addr {
	h := &c.heritage
	h.heirs = map[string][]Leftover{}
	var kept []netip.Addr
	for _, def := range c.state.Document.Groups {
		if left := c.inheritance(def); len(left) > 0 {
			h.heirs[def.Name] = left
			for _, l := range left {
				kept = append(kept, l.At.Prefix.Addr())
			}
		}
	}
	c.shutHeritage(kept)
	addrs = slices.Concat(minus(addrs, kept), h.shut)
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// inheritance is what an earlier life left of a group: each of its addresses, open, or
// nothing. The device of a virtual MAC address is made anew, and nothing stays on it.
func (c *Core) inheritance(def fsm.Group) []Leftover {
	var out []Leftover
	for _, p := range def.Addresses {
		i := slices.IndexFunc(c.heritage.left, func(l Leftover) bool { return l.At.Prefix == p && l.Until.After(c.now) })
		if i < 0 || def.VMAC {
			return nil
		}
		out = append(out, c.heritage.left[i])
	}
	return out
}

// endSweep: nothing of an earlier life is on the host any more but what groups go on
// with. Of all others this process says so to the voters.
func (c *Core) endSweep() {
	c.swept = true
	if len(c.heritage.shut) > 0 {
		c.do(ClearFence{Addrs: c.heritage.shut})
	}
	for _, left := range c.heritage.heirs {
		c.heritage.kept = append(c.heritage.kept, left...)
	}
	for _, g := range c.sorted() {
		g.touched = true
		if left := c.heritage.heirs[g.def.Name]; len(left) > 0 {
			c.adopt(g, left)
		} else {
			g.close(c.now, removal{goneAt: c.now})
		}
	}
	c.heritage = heritage{kept: c.heritage.kept}
}

// adopt has the group open with what an earlier life left of it. Whatever is against that
// (it is not this node's any more, its device is another, the clock is slewed) shuts it as
// it would shut any open group.
func (c *Core) adopt(g *group, left []Leftover) {
	g.gen = c.nextGen()
	g.deadline = inheritedDeadline(left)
	g.bound, g.with = nil, g.wanted(g.at)
	for _, l := range left {
		g.bound = append(g.bound, l.At)
	}
	g.refreshAt = c.now.Add(refreshEvery)
	g.enter(binding, g.since)
	g.proven, g.kept = true, true
	if !g.resolved || !standsAt(g.at, left) {
		c.shut(g, "device-changed")
		return
	}
	g.bound = g.at
	c.askNow = true
	c.say(Info, "the addresses are kept that an earlier life of the daemon held", "group", g.def.Name, "epoch", g.epoch,
		"addresses", addrsOf(g.bound), "left", g.deadline.Sub(c.now))
	c.do(Bind{Group: g.def.Name, Gen: g.gen, Holding: g.holding(g.bound), Until: g.deadline})
}

// standsAt reports whether each address is where it belongs. One that is elsewhere would
// not be found when it is to be taken off, and one that is not there has no entry in the fence.
//
//quorate:rule inherit-in-place
func standsAt(at []Place, left []Leftover) bool {
	return !slices.ContainsFunc(at, func(p Place) bool {
		return !slices.ContainsFunc(left, func(l Leftover) bool { return l.At.Link == p.Link && l.At.Prefix == p.Prefix })
	})
}

// inheritedDeadline is the first of those that the kernel has. A later one comes by
// answers.
//
//quorate:rule inherited-deadline
func inheritedDeadline(left []Leftover) election.Instant {
	return slices.MinFunc(left, func(a, b Leftover) int { return cmp.Compare(a.Until, b.Until) }).Until
}

// inheritedUntil is until when something may be open by what an earlier life was given.
func (c *Core) inheritedUntil() election.Instant {
	var until election.Instant
	for _, l := range c.heritage.kept {
		until = max(until, l.Until.Add(election.GraceBPF))
	}
	return until
}

// mayRelease: a release ends every note that the voters have of the group, and an earlier
// life may have held under it an address that is in another group now. So nothing is
// released before all that was kept is gone, or open by this life's answers alone.
//
//quorate:rule release-outlives
func (c *Core) mayRelease() bool { return !c.now.Before(c.inheritedUntil()) }

// outlived forgets what is seen gone of an earlier life.
func (c *Core) outlived(at []Place) {
	gone := addrsOf(at)
	c.heritage.kept = slices.DeleteFunc(c.heritage.kept, func(l Leftover) bool { return slices.Contains(gone, l.At.Prefix.Addr()) })
}

// mayInherit reports whether the group may turn out to be open already. Until that is
// known its checks and devices, of which nothing is known either, are no reason to move it.
func (c *Core) mayInherit(g *group) bool {
	return !c.swept && slices.ContainsFunc(c.heritage.left, func(l Leftover) bool { return slices.Contains(g.def.Addrs(), l.At.Prefix.Addr()) })
}
