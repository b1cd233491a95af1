// Package election decides who may answer for a group and who should be replaced:
// the two halves of the lease (Voter and Holder), who hears whom, who campaigns,
// and the arithmetic of time that all of it rests on.
//
// It is pure: every instant comes in as an argument and every decision goes out as
// a value. The protocol is described in docs/design.md, and each rule that keeps
// two nodes from answering at once is one small named function here.
package election

import (
	"fmt"
	"time"
)

// What a fence may run on after its deadline, told to every voter with the lease.
const (
	// GraceBPF covers frames that passed the hook just before the deadline and are
	// still in a queue below it.
	GraceBPF = 5 * time.Millisecond
	// GraceLifetime covers the kernel's own lateness in removing an address whose
	// lifetime is over: whole seconds, measured 0.02 to 0.8 s late.
	GraceLifetime = 1500 * time.Millisecond
)

const (
	// AnnounceGuard is how long before its deadline a holder stops sending
	// gratuitous ARP and NA: one that waited in a queue must not follow those of
	// the next owner.
	AnnounceGuard = 20 * time.Millisecond
	// CampaignStep is how far apart the voters campaign when the leader is lost.
	CampaignStep = 50 * time.Millisecond
	// NotOpenLeases is within how many leases of its epoch an owner must be open.
	NotOpenLeases = 3
	// MaxClockDeviation is by how much, in parts per million, a host's clock may be
	// steered off its nominal rate while it takes part. Two hosts at opposite ends
	// then differ by less than drift.
	MaxClockDeviation = 4000
	// driftPercent is ρ of the design: the most by which the rates of two hosts'
	// clocks may differ, in percent.
	driftPercent = 1
)

// WithDrift returns how long someone who waits for another host's d must wait on
// his own clock: d·(1+ρ), rounded up.
//
//quorate:rule drift
func WithDrift(d time.Duration) time.Duration {
	return d + (d*driftPercent+99)/100
}

// RestartWait is how long after its start a voter confirms nothing, given the
// longest lease and grace that it ever confirmed: every note that an earlier life
// took, and this one does not remember, has then run out (rule (b); lease.md, V4).
//
//quorate:rule restart-wait
func RestartWait(longest time.Duration) time.Duration { return WithDrift(longest) }

// Spacing is how far apart a leader makes two changes of the voter set, where
// longest bounds lease and grace of anyone (lease.md, V6).
func Spacing(longest time.Duration) time.Duration { return 2 * WithDrift(longest) }

// MayChangeVoters reports whether a leader may append a change of the voter set:
// both the previous change and the first entry of its own term must have been
// seen committed a whole Spacing ago.
//
//quorate:rule spacing
func MayChangeVoters(now, setCommitted, termCommitted Instant, longest time.Duration) bool {
	return now.Sub(spacedFrom(setCommitted, termCommitted)) >= Spacing(longest)
}

// spacedFrom is from when the Spacing counts. A set that a dead leader appended may
// commit only with the next leader's first entry, so counting from the appending
// would count nothing (lease.md, V6).
//
//quorate:rule spacing-from-commit
func spacedFrom(setCommitted, termCommitted Instant) Instant {
	return max(setCommitted, termCommitted)
}

// A ClockReading is what adjtimex(2) says of how the kernel steers the clock.
type ClockReading struct {
	Frequency int64 // timex.freq: parts per million, times 65,536
	Tick      int64 // timex.tick: microseconds per tick of 1/100 s
}

// Deviation is how far the clock's rate is steered off nominal, in parts per million.
func (r ClockReading) Deviation() int64 {
	const nominalTick = 10_000 // microseconds
	return r.Frequency/65_536 + (r.Tick-nominalTick)*(1_000_000/nominalTick)
}

// CheckClock returns an error while the clock is steered further off its rate
// than the lease arithmetic allows for. chrony by default slews a large offset by
// up to 8.3 %, eight times ρ (lease.md, V11).
//
//quorate:rule clock-bound
func CheckClock(r ClockReading) error {
	if d := r.Deviation(); d > MaxClockDeviation || d < -MaxClockDeviation {
		return fmt.Errorf("the clock is being slewed by %d ppm, the lease allows ±%d: "+
			"leases are neither asked for nor confirmed until it is over; with chrony, set maxslewrate 1000", d, MaxClockDeviation)
	}
	return nil
}
