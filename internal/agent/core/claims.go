package core

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/election"
)

const (
	// defendEvery is between two defences of an address: two hosts that both insist would
	// flood the LAN (DEFEND_INTERVAL, RFC 5227, section 2.4).
	defendEvery = 10 * time.Second
	// predecessorTime is for how long after a group opened claims are the last words of who
	// had it before: what a switch or a slow queue still held.
	predecessorTime = time.Second
)

// A claim is what another host says of an address that is held here.
type claim struct {
	mac      string
	count    int
	last     election.Instant
	defended election.Instant // zero: not yet
	named    election.Instant // when the log named who claims it
}

// claimed: another hardware address speaks for an address of the document. Of one that is
// not held here nothing follows: whoever has it is meant to.
func (c *Core) claimed(ev Claimed) {
	for _, g := range c.sorted() {
		i := slices.IndexFunc(g.bound, func(p Place) bool { return p.Prefix.Addr() == ev.Addr && p.Link == ev.Link })
		if i >= 0 && g.phase == active {
			c.contest(g, g.bound[i], ev)
		}
	}
}

// contest says who claims an address, and that it is ours: by law of the lease nobody
// else in the cluster holds it.
func (c *Core) contest(g *group, at Place, ev Claimed) {
	cl := g.claims[ev.Addr]
	if cl == nil {
		cl = &claim{}
		if g.claims == nil {
			g.claims = map[netip.Addr]*claim{}
		}
		g.claims[ev.Addr] = cl
	}
	if cl.defended == 0 || c.now.Sub(cl.defended) >= defendEvery {
		cl.defended = c.now
		c.announceAgain(g, []Place{at})
	}
	if c.now.Sub(max(g.since, g.newcomer.since)) < predecessorTime {
		return
	}
	if cl.count == 0 || cl.mac != ev.MAC && c.now.Sub(cl.named) >= defendEvery { // two that take turns would fill the log
		cl.named = c.now
		c.say(Error, "address conflict: another host claims an address that this node holds; find it and take the address off there",
			"group", g.def.Name, "address", ev.Addr, "mac", ev.MAC, "link", ev.Link)
	}
	cl.mac, cl.last = ev.MAC, c.now
	cl.count += max(ev.Count, 1)
}

// claimStatus is what other hosts claimed since the group opened here, in order.
func (g *group) claimStatus(now election.Instant) []ClaimStatus {
	var out []ClaimStatus
	for addr, cl := range g.claims {
		if cl.count > 0 {
			out = append(out, ClaimStatus{Address: addr.String(), MAC: cl.mac, Count: cl.count, LastAgoMS: ms(now.Sub(cl.last))})
		}
	}
	slices.SortFunc(out, func(a, b ClaimStatus) int { return cmp.Compare(a.Address, b.Address) })
	return out
}

// reannounce has all that is held announced once more: what was said before may not have
// reached everybody, or somebody else was believed meanwhile.
func (c *Core) reannounce(on func(Place) bool) {
	for _, g := range c.sorted() {
		var at []Place
		for _, p := range g.bound {
			if on(p) {
				at = append(at, p)
			}
		}
		c.announceAgain(g, at)
	}
}

func everywhere(Place) bool { return true }
