package vipctl

import (
	"math"
	"time"
)

// AnnounceChunk is how many addresses are announced at once: 192 frames, few enough
// for the queue of any device and switch port.
const AnnounceChunk = 64

// Announcements is when a new owner announces its addresses. See Schedule.
type Announcements struct {
	repeat  int
	refresh time.Duration
}

const (
	// second is for a first frame that was lost, on a switch port that was still
	// learning or in a full queue: soon, but not in the same burst of losses.
	second = 100 * time.Millisecond
	// apart is longer than the second for which Linux by default ignores a new
	// hardware address for a neighbour that it has just updated (locktime). If
	// the old owner was heard the instant before we began, all that we send in
	// the first second is ignored, and the announcement at 1.2 s is the first that
	// counts.
	apart = 1200 * time.Millisecond
)

// Schedule returns when to announce, counted from becoming Active: repeat times
// at 0, 0.1, 1.2, 2.4, 3.6 s and so on, and from the last of these on each
// refresh, for as long as the address is held. A repeat below 1 counts as 1: an
// owner that announces nothing is not found. A refresh of 0 or less means none.
func Schedule(repeat int, refresh time.Duration) Announcements {
	return Announcements{max(repeat, 1), refresh}
}

// At returns the offset of announcement n, counted from 0; false when there is no
// such announcement. Offsets grow with n.
func (a Announcements) At(n int) (time.Duration, bool) {
	if n < 0 {
		return 0, false
	}
	if n < a.repeat {
		return burst(n), true
	}
	if a.refresh <= 0 {
		return 0, false
	}
	last, k := burst(a.repeat-1), time.Duration(n-a.repeat+1)
	if k > (math.MaxInt64-last)/a.refresh {
		return 0, false // in 292 years
	}
	return last + k*a.refresh, true
}

func burst(n int) time.Duration {
	switch n {
	case 0:
		return 0
	case 1:
		return second
	default:
		return time.Duration(n-1) * apart
	}
}
