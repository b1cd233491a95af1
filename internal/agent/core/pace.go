package core

import (
	"time"

	"github.com/quorate/quorate/election"
)

// An askPace keeps what is asked beside the regular renewals within bounds. Each question
// has every voter answer for every group: where hundreds of them open or move at once,
// every node would else ask hundreds of times a second, and none would get to listen.
type askPace struct {
	spent election.Instant // when all that was asked beside the pace is made up for
	gap   time.Duration    // between two questions, when there were many
}

const (
	// askBurst is how many are asked at once after a time of quiet: one change of owner
	// takes two.
	askBurst = 4
	// askCost is what one group in a question is reckoned at.
	askCost = 200 * time.Microsecond
)

// asked takes note of a question for so many groups.
func (p *askPace) asked(now election.Instant, groups int, renew time.Duration) {
	p.gap = min(time.Duration(groups)*askCost, renew/2)
	p.spent = max(p.spent, now).Add(p.gap)
}

// next is from when another may be asked.
func (p *askPace) next() election.Instant { return p.spent.Add(-(askBurst - 1) * p.gap) }

// askAt is when what askNow wants is done: two questions never carry one stamp, and a
// regular renewal waits for nothing else.
func (c *Core) askAt() election.Instant {
	if c.renewDue {
		return c.lastStamp + 1
	}
	return max(c.lastStamp+1, c.pace.next())
}
