package core

import (
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vipctl"
)

const (
	// addressPace is what the announcement of one address takes of the time, on average: three
	// frames (both forms of ARP, or NA to nodes and to routers, and a question) at 15,000 a
	// second. A switch handles broadcast in software, and drops what comes faster for everybody.
	addressPace = 200 * time.Microsecond
	// tellPace is between two portions of what neighbours are told one by one, of all groups.
	tellPace = 3200 * time.Microsecond
)

// An address list that is being announced, and how far that is.
type announcing struct {
	left   []Place // of the round under way
	rounds int     // that were begun
	begun  bool    // something of them was sent
	tell   bool    // the neighbours are to be told when this round is over
}

// A telling is of each known neighbour alone, once for each time that addresses come.
type telling struct {
	what  []Place          // to begin with
	gen   uint64           // of the one under way; zero: none is
	after election.Instant // not before
	busy  bool             // a portion is on its way
}

// quietFrom is from when nothing more is said before a deadline: what waits in a
// queue below the fence must not follow what the next owner says.
//
//quorate:rule announce-guard
func quietFrom(deadline election.Instant) election.Instant {
	return deadline.Add(-election.AnnounceGuard)
}

// speak sends the announcements and adverts that are due, and wakes for the next.
func (c *Core) speak(g *group) {
	quiet := quietFrom(g.deadline)
	c.announce(g, g.here(g.bound), g.since, &g.announced, vipctl.Schedule(g.def.Announce.Repeat, g.def.Announce.Refresh))
	if at := g.here(g.newcomer.at); len(at) > 0 {
		c.announce(g, at, g.newcomer.since, &g.newcomer.announced, vipctl.Schedule(g.def.Announce.Repeat, 0))
	}
	c.tell(g)
	if g.def.VRRP.ID == 0 {
		return
	}
	if !c.now.Before(g.advertAt) {
		if !c.now.Before(quiet) {
			return // it goes with the next renewal
		}
		c.adverts(g, c.said(g), g.bound, quiet)
		g.advertAt = nextAdvert(g.advertAt, c.now, g.def.VRRP.Interval)
	}
	g.wakeAt(g.advertAt)
}

// adverts has what of the addresses is advertised at all said by VRRP.
func (c *Core) adverts(g *group, v fsm.VRRP, at []Place, until election.Instant) {
	if at = Advertised(g.def, at); len(at) > 0 {
		c.do(Advertise{Group: g.def.Name, VRRP: v, At: at, Until: until})
	}
}

// announce sends what is due of a schedule that began at an instant, and wakes for the
// next. A round is over before another begins.
func (c *Core) announce(g *group, what []Place, from election.Instant, a *announcing, schedule vipctl.Announcements) {
	if at, ok := schedule.At(a.rounds); ok && len(a.left) == 0 && !c.now.Before(from.Add(at)) {
		a.left, a.tell = what, a.rounds == 0
		a.rounds++
	}
	c.announceChunk(g, a)
	if at, ok := schedule.At(a.rounds); ok && len(a.left) == 0 {
		g.wakeAt(later(c.now, from.Add(at)))
	}
}

// announceChunk sends a part of the round under way, if it is this node's turn to speak:
// the pace is that of all groups together.
func (c *Core) announceChunk(g *group, a *announcing) {
	a.left = g.here(a.left)
	quiet := quietFrom(g.deadline)
	if len(a.left) == 0 || !c.now.Before(quiet) {
		return // the rest goes with the next renewal
	}
	if c.spoken.After(c.now) {
		g.wakeAt(c.spoken)
		return
	}
	var chunk, rest []Place
	for _, p := range a.left {
		if len(chunk) < vipctl.AnnounceChunk && p.Link == a.left[0].Link {
			chunk = append(chunk, p)
		} else {
			rest = append(rest, p)
		}
	}
	a.left = rest
	c.spoken = c.now.Add(time.Duration(len(chunk)) * addressPace)
	c.do(Announce{Group: g.def.Name, At: chunk, Until: quiet, First: a == &g.announced && !a.begun})
	a.begun = true
	if len(rest) > 0 {
		g.wakeAt(c.spoken)
	} else if a.tell {
		a.tell = false
		g.telling.what = g.here(g.bound)
	}
}

// announceAgain has addresses of an open group announced once more, besides the schedule:
// somebody may have forgotten them, or have been told otherwise.
func (c *Core) announceAgain(g *group, at []Place) {
	if g.phase != active {
		return
	}
	g.announced.left = append(g.announced.left[:len(g.announced.left):len(g.announced.left)], minus(g.here(at), g.announced.left)...)
	g.touched = true
}

// tell has each neighbour told that is known to have spoken with the group, in portions.
func (c *Core) tell(g *group) {
	t, quiet := &g.telling, quietFrom(g.deadline)
	switch {
	case t.busy || len(t.what) == 0 && t.gen == 0:
		return
	case !c.now.Before(quiet):
		return // it goes on with the next renewal
	case c.now.Before(max(t.after, c.told)):
		g.wakeAt(max(t.after, c.told))
		return
	}
	c.told = c.now.Add(tellPace)
	e := Tell{Group: g.def.Name, Gen: t.gen, Until: quiet}
	if t.gen == 0 {
		t.gen = c.nextGen()
		e.Gen, e.At, t.what = t.gen, g.here(t.what), nil
	}
	t.busy = true
	c.do(e)
}

// toldSome: a portion has been said, or was too late.
func (c *Core) toldSome(ev Told) {
	g := c.groups[ev.Group]
	if g == nil || g.phase != active || g.telling.gen != ev.Gen {
		return
	}
	g.telling.busy, g.telling.after, g.touched = false, c.now.Add(tellPace), true
	if !ev.More {
		g.telling.gen = 0
	}
}

// nextAdvert keeps the adverts on their grid, so that lateness does not add up,
// and skips what was missed.
func nextAdvert(due, now election.Instant, interval time.Duration) election.Instant {
	next := due.Add(interval)
	if !next.After(now) {
		next = now.Add(interval)
	}
	return next
}
