package election

import (
	"slices"
	"time"

	"github.com/quorate/quorate/fsm"
)

// maxKept is how many confirmations of one voter a holder keeps. Normally each
// new one makes the older ones useless; under blocking a few matter side by side.
const maxKept = 8

// A Holder keeps the answers that one node has to its requests for one group. Its
// right to answer for the group is a function of them, evaluated anew each time:
// nothing is remembered as "started".
//
// A Holder belongs to one goroutine.
type Holder struct {
	boot      BootID
	notBefore Instant // the process's start, or its last release
	epoch     uint64
	answers   map[fsm.InstanceID][]confirmation
}

// A confirmation is one voter's yes to one datagram.
type confirmation struct {
	start    Instant // receipt + blocked: not to be used before
	deadline Instant // sent + the lease stated in that datagram
	log      VoterLog
}

// NewHolder returns a Holder of a process that started at the given instant.
// Answers to what an earlier life of the process asked do not count (lease.md, V2b).
//
//quorate:rule this-life
func NewHolder(boot BootID, started Instant) *Holder {
	return &Holder{boot: boot, notBefore: started, answers: map[fsm.InstanceID][]confirmation{}}
}

// SetEpoch makes the holder count answers for that epoch only. Those for an
// earlier one are forgotten; a deadline that was already written may run out.
//
//quorate:rule epoch-forgets
func (h *Holder) SetEpoch(epoch uint64) {
	if h.epoch != epoch {
		h.epoch = epoch
		clear(h.answers)
	}
}

// Epoch is the epoch whose answers count.
func (h *Holder) Epoch() uint64 { return h.epoch }

// Released forgets every answer, and those still under way: what was asked
// before the release does not count after it (lease.md, V2).
//
//quorate:rule release-forgets
func (h *Holder) Released(at Instant) {
	h.voidBefore(at)
	clear(h.answers)
}

// voidBefore has the answers not count that are still under way to what was asked
// until then.
//
//quorate:rule release-voids
func (h *Holder) voidBefore(at Instant) { h.notBefore = max(h.notBefore, at) }

// Confirm takes one voter's confirmation, received at the given instant. It
// reports whether the answer counts: one of another boot, from the future, from
// before the process started or last released, or of another epoch does not. A
// late or repeated one is harmless and never shortens what a newer one gave.
func (h *Holder) Confirm(receipt Instant, a Answer, g GroupAnswer) bool {
	if !h.counts(receipt, a.Echo, g) {
		return false
	}
	c := h.worth(receipt, a, g)
	kept := slices.DeleteFunc(h.answers[a.From], func(o confirmation) bool {
		return o.deadline <= receipt || (o.start >= c.start && o.deadline <= c.deadline)
	})
	if len(kept) >= maxKept {
		kept = kept[1:]
	}
	h.answers[a.From] = append(kept, c)
	return true
}

// worth is what one answer allows. Start and deadline both come from it: what else
// that voter said does not help.
//
//quorate:rule one-answer
func (h *Holder) worth(receipt Instant, a Answer, g GroupAnswer) confirmation {
	return confirmation{
		start:    notBlockedUntil(claimFrom(a.Echo.At, receipt), g.Blocked),
		deadline: holdUntil(letGoFrom(a.Echo.At, receipt), a.Lease),
		log:      a.Log,
	}
}

func (h *Holder) counts(receipt Instant, asked Stamp, g GroupAnswer) bool {
	return g.Verdict == Confirmed && h.epoch != 0 && h.ofThisEpoch(g.Epoch) &&
		h.ofThisBoot(asked) && notOfTheFuture(asked, receipt) && h.askedSince(asked)
}

// ofThisEpoch: a yes to an earlier epoch says nothing of the present one.
//
//quorate:rule answer-epoch
func (h *Holder) ofThisEpoch(epoch uint64) bool { return epoch == h.epoch }

// ofThisBoot: instants of another boot are another clock's.
//
//quorate:rule answer-boot
func (h *Holder) ofThisBoot(asked Stamp) bool { return asked.Boot == h.boot }

// notOfTheFuture: nothing can be answered that was not yet asked.
//
//quorate:rule answer-not-of-the-future
func notOfTheFuture(asked Stamp, receipt Instant) bool { return asked.At <= receipt }

// askedSince: only what this process asked, and asked since its last release.
//
//quorate:rule answer-since
func (h *Holder) askedSince(asked Stamp) bool { return asked.At > h.notBefore }

// letGoFrom is the instant from which a holder counts the time after which it must
// have let go: the earlier of sending and receipt. Every voter counts from the
// arrival of the question, which is later.
//
//quorate:rule let-go-from-sending
func letGoFrom(sent, receipt Instant) Instant { return min(sent, receipt) }

// claimFrom is the instant from which a holder counts the time after which it may
// start: the later of sending and receipt. The voter counted from the sending of
// its answer, which is earlier.
//
//quorate:rule claim-from-receipt
func claimFrom(sent, receipt Instant) Instant { return max(sent, receipt) }

// holdUntil is when a holder must have let go, by the lease that the question
// stated: what the voter's note was taken for, whatever the lease is by now.
//
//quorate:rule stated-lease
func holdUntil(from Instant, stated time.Duration) Instant { return from.Add(stated) }

// notBlockedUntil is when a holder may start on an answer: when the longest note of
// anyone else has run out.
//
//quorate:rule start-after-blocked
func notBlockedUntil(from Instant, blocked time.Duration) Instant { return from.Add(blocked) }

// Deadline returns the latest instant until which the answers allow the group to
// be held at clock reading now, and whether that is later than now. own is what
// the node's own log says of the voters. What blocks counts on every renewal: it
// does not matter whether the group is open already.
//
//quorate:rule anew
func (h *Holder) Deadline(now Instant, own VoterLog) (Instant, bool) {
	d, ok := h.deadlineAt(now, now, own)
	return d, ok && d.After(now)
}

// NextStart returns the earliest instant after now at which the answers at hand
// will allow the group to be held, if there is one.
func (h *Holder) NextStart(now Instant, own VoterLog) (Instant, bool) {
	var starts []Instant
	for _, kept := range h.answers {
		for _, c := range kept {
			if c.start.After(now) {
				starts = append(starts, c.start)
			}
		}
	}
	slices.Sort(starts)
	for _, at := range starts {
		if d, ok := h.deadlineAt(now, at, own); ok && d.After(at) {
			return at, true
		}
	}
	return 0, false
}

// deadlineAt evaluates the answers that are unexpired now as of instant at.
func (h *Holder) deadlineAt(now, at Instant, own VoterLog) (Instant, bool) {
	var (
		roomForLogs  [MaxVoters]VoterLog
		roomForVotes [MaxVoters]ballot
	)
	logs, votes := roomForLogs[:0], roomForVotes[:0]
	for id, kept := range h.answers {
		best := ballot{of: id}
		for _, c := range kept {
			if c.expired(now) {
				continue
			}
			logs = append(logs, c.log)
			if c.start <= at {
				best.until = max(best.until, c.deadline)
			}
		}
		if best.until != 0 {
			votes = append(votes, best)
		}
	}
	required := Required(knownLogs(own, logs))
	if len(required) == 0 {
		return 0, false
	}
	deadline := Instant(1<<63 - 1)
	for _, set := range required {
		d, ok := majorityDeadline(set, votes)
		if !ok {
			return 0, false
		}
		deadline = min(deadline, d)
	}
	return deadline, true
}

// expired: neither the vote of an answer nor the voter set in it counts for longer
// than the lease that it confirmed. A set that was rolled back is else never forgotten.
//
//quorate:rule unexpired
func (c confirmation) expired(now Instant) bool { return c.deadline <= now }

// A ballot is until when one voter allows a group to be held.
type ballot struct {
	of    fsm.InstanceID
	until Instant
}

// majorityDeadline returns the latest instant that a majority of the set allows.
func majorityDeadline(set VoterSet, votes []ballot) (Instant, bool) {
	var room [MaxVoters]Instant
	given := room[:0]
	for _, v := range votes {
		if set.Has(v.of) {
			given = append(given, v.until)
		}
	}
	need := set.Majority()
	if len(given) < need {
		return 0, false
	}
	slices.Sort(given)
	return latestOfAll(given, need), true
}

// latestOfAll is the latest instant which each of some so many voters allows: the
// most generous of them does not speak for the others.
//
//quorate:rule every-member
func latestOfAll(ascending []Instant, need int) Instant { return ascending[len(ascending)-need] }
