package core

import (
	"slices"
	"time"

	"github.com/quorate/quorate/election"
)

// clockRead keeps the node out of leases while its clock is slewed, or while nobody
// can say whether it is. What it holds it lets go at once: the deadline in the fence
// is measured by the same clock.
func (c *Core) clockRead(ev Clock) {
	err := ev.Err
	if err == nil {
		err = election.CheckClock(ev.Reading)
	}
	switch {
	case err != nil && c.clock == nil:
		c.say(Error, "leases are suspended on this node", "reason", err.Error())
	case err == nil && c.clock != nil:
		c.say(Info, "the clock runs at its rate again")
		c.voter.ClockMended(c.now)
	}
	changed := (err == nil) != (c.clock == nil)
	c.clock = err
	c.renounce()
	if changed {
		c.fitnessChanged()
	}
}

// covered: a device without the fence could answer for an address whose lease is
// over, so nothing is held while there is one.
func (c *Core) covered(err error) {
	if err != nil && c.bare == nil {
		c.say(Error, "a device is without the fence; this node holds nothing until that is mended", "error", err)
	}
	if (err == nil) != (c.bare == nil) {
		c.bare = err
		c.renounce()
		c.fitnessChanged()
	}
}

// placed: the devices of the group on this host.
func (c *Core) placed(ev Placed) {
	g := c.groups[ev.Group]
	if g == nil || ev.Gen != g.asked {
		return // for an older version of the group
	}
	g.touched = true
	if ev.Err != nil {
		if g.resolved || g.placeErr != ev.Err.Error() {
			c.say(Warn, "no device for the group on this host", "group", ev.Group, "error", ev.Err)
		}
		g.resolved, g.anew, g.placeErr = false, false, ev.Err.Error()
		return
	}
	if g.open() && len(minus(g.bound, ev.At)) > 0 {
		c.shut(g, "device-changed")
	}
	g.resolved, g.anew, g.at, g.placeErr = true, false, ev.At, ""
	before := g.seats
	c.seat(g)
	if g.open() {
		c.joins(g, before)
	}
}

// link: a device came or went. What is placed on one that cannot carry anything
// is let go at once: waiting for the lease would only cost time.
func (c *Core) link(ev Link) {
	c.hardware(ev)
	down, known := c.linkDown[ev.Name]
	c.linkDown[ev.Name] = !ev.OK
	if (known || !c.tracked(ev.Name)) && down == !ev.OK {
		return
	}
	c.weighAll()
	c.supplyAll()
	for _, g := range c.sorted() {
		if c.misplaced(g) || slices.ContainsFunc(g.at, func(p Place) bool { return p.Link == ev.Name }) {
			c.resolve(g)
		}
	}
	c.fitnessChanged()
}

// hardware: a device has another hardware address, which neighbours do not learn by
// themselves.
func (c *Core) hardware(ev Link) {
	if !ev.OK || ev.MAC == "" {
		return
	}
	was, known := c.linkMAC[ev.Name]
	c.linkMAC[ev.Name] = ev.MAC
	if known && was != ev.MAC {
		c.say(Warn, "a device has another hardware address; what is held there is announced again", "link", ev.Name, "was", was, "is", ev.MAC)
		c.reannounce(func(p Place) bool { return p.Link == ev.Name })
	}
}

// misplaced reports whether the group has no device that works on this host now, so
// that another may have come to be the right one. A group that is well placed is
// left alone: what happens to other devices must not move it.
func (c *Core) misplaced(g *group) bool { return !g.resolved || c.onDeadLink(g) }

// resolveMisplaced looks again for devices now and then: an address that comes to a
// device, and makes it the right one, is no event.
func (c *Core) resolveMisplaced() {
	if c.now.Before(c.resolveAt) {
		return
	}
	c.resolveAt = c.now.Add(resolveEvery)
	for _, g := range c.sorted() {
		if c.misplaced(g) {
			c.resolve(g)
		}
	}
}

// resolveEvery is between two looks for the device of a group that has none.
const resolveEvery = 5 * time.Second
