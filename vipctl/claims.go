package vipctl

import (
	"net/netip"
	"time"
)

const (
	// claimsEach is in how long an address has at most claimsMost of its claims told of:
	// whoever forges ten thousand a second is one event ten times a second.
	claimsEach = time.Second
	claimsMost = 10
)

// Claims counts the claims of others to addresses of ours, and says of which to tell. The
// zero value is ready to use. It belongs to one goroutine.
type Claims struct {
	of map[netip.Addr]*claimed
}

type claimed struct {
	since  Instant // of the window
	told   int     // in it
	silent int     // claims since it was last told
}

// Heard counts so many claims to an address and says whether to tell of them now. count is
// how many there were since the last that was told of, these included.
func (c *Claims) Heard(now Instant, addr netip.Addr, n int) (count int, tell bool) {
	if c.of == nil {
		c.of = map[netip.Addr]*claimed{}
	}
	a := c.of[addr]
	if a == nil {
		a = &claimed{since: now}
		c.of[addr] = a
	}
	a.silent += n
	if now-a.since >= Instant(claimsEach) {
		a.since, a.told = now, 0
	}
	if a.told == claimsMost {
		return 0, false
	}
	a.told++
	count, a.silent = a.silent, 0
	return count, true
}

// Keep forgets all addresses but those that keep says.
func (c *Claims) Keep(keep func(netip.Addr) bool) {
	for a := range c.of {
		if !keep(a) {
			delete(c.of, a)
		}
	}
}
