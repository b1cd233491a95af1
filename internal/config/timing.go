package config

import (
	"fmt"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
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

// Outrun says what an outside backup can do to a group that is advertised so, when
// a failover in the cluster takes its worst, and what to write instead. Empty: nothing.
func Outrun(v fsm.VRRP, worst time.Duration) (text, do string) {
	cs, err := vrrpcompat.IntervalOf(vrrpcompat.Version(v.Version), v.Interval)
	if v.ID == 0 || err != nil {
		return "", ""
	}
	return outruns(v, cs, worst)
}

// outruns takes the outside backup at the group's own priority: a better one would
// be Active already, and a worse one waits for longer.
func outruns(v fsm.VRRP, interval vrrpcompat.Centis, worst time.Duration) (text, do string) {
	version, priority := vrrpcompat.Version(v.Version), vrrpcompat.Priority(v.Priority)
	if !version.Outruns(priority, interval, worst) {
		return "", ""
	}
	do = "write a shorter lease"
	if least, ok := version.ShortestInterval(priority, worst); ok {
		do = fmt.Sprintf("write interval: %s or more, or a shorter lease", least.Duration())
	}
	if version == vrrpcompat.V2 {
		do += "; version 2 wants the same interval in all routers"
	}
	return fmt.Sprintf("adverts every %s let an outside backup claim the group %s after its owner is lost, and a node of this cluster may need %s",
		interval.Duration(), version.EarliestClaim(priority, interval).Round(time.Millisecond), worst.Round(time.Millisecond)), do
}
