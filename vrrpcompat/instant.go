package vrrpcompat

import "time"

// An Instant is a reading of one clock in nanoseconds. The package compares instants and adds to them, and does not
// mind where they count from, so long as all come from the same clock and that does not go back; an election.Instant converts to one as it is.
type Instant int64

// Add returns the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns how much later i is than j.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }
