package config

import (
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/vrrpcompat"
)

// failoverMargin is what a failover needs beyond the old owner's lease at worst
// while campaigns work: a whole round of them lost (a turn of 50 ms for each voter
// and a lease until the next round), an election and two commits on a busy disk, and
// the address with its announcement. Where every campaign is lost Raft's own timers
// elect after one to one and a half seconds; no advert interval is asked to cover that.
const failoverMargin = 600 * time.Millisecond

// WorstFailover bounds the time from the loss of an owner to the first advert of
// the next one, both nodes of this cluster: every voter's note of the old lease
// must have run out, and the rest is failoverMargin.
func WorstFailover(lease, grace time.Duration) time.Duration {
	return election.WithDrift(lease+grace) + failoverMargin
}

// EarliestClaim is how soon after the loss of an owner an outside backup may hold
// the group for masterless: its Active_Down_Interval (RFC 9568, section 6.1)
// counts from the last advert, and the owner may be lost one interval after that,
// just before the next. The backup is taken at the owner's own priority: a better
// one would be Active already, and a worse one waits for longer.
func EarliestClaim(owner vrrpcompat.Priority, interval vrrpcompat.Centis) time.Duration {
	return vrrpcompat.ActiveDownInterval(owner, interval) - interval.Duration()
}

// ShortestInterval is the least advert interval at which no outside backup claims
// before the worst failover is over. There always is one: the longest lease needs
// less than half of the longest interval.
func ShortestInterval(owner vrrpcompat.Priority, worst time.Duration) time.Duration {
	cs := vrrpcompat.Centis(1)
	for cs < vrrpcompat.MaxCentis && EarliestClaim(owner, cs) <= worst {
		cs++
	}
	return cs.Duration()
}
