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
func NewHolder(boot BootID, started Instant) *Holder {
	return &Holder{boot: boot, notBefore: started, answers: map[fsm.InstanceID][]confirmation{}}
}

// SetEpoch makes the holder count answers for that epoch only. Those for an
// earlier one are forgotten; a deadline that was already written may run out.
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
func (h *Holder) Released(at Instant) {
	h.notBefore = max(h.notBefore, at)
	clear(h.answers)
}

// Confirm takes one voter's confirmation, received at the given instant. It
// reports whether the answer counts: one of another boot, from the future, from
// before the process started or last released, or of another epoch does not. A
// late or repeated one is harmless and never shortens what a newer one gave.
func (h *Holder) Confirm(receipt Instant, a Answer, g GroupAnswer) bool {
	if !h.counts(receipt, a.Echo, g) {
		return false
	}
	c := confirmation{
		start:    notBlockedUntil(receipt, g.Blocked),
		deadline: holdUntil(a.Echo.At, a.Lease),
		log:      a.Log,
	}
	kept := slices.DeleteFunc(h.answers[a.From], func(o confirmation) bool {
		return o.deadline <= receipt || (o.start >= c.start && o.deadline <= c.deadline)
	})
	if len(kept) >= maxKept {
		kept = kept[1:]
	}
	h.answers[a.From] = append(kept, c)
	return true
}

func (h *Holder) counts(receipt Instant, asked Stamp, g GroupAnswer) bool {
	return g.Verdict == Confirmed && g.Epoch == h.epoch && h.epoch != 0 &&
		asked.Boot == h.boot && asked.At <= receipt && asked.At > h.notBefore
}

// holdUntil is when a holder must have let go: counted from the sending of the
// question, as every voter counts from its later arrival.
func holdUntil(sent Instant, lease time.Duration) Instant { return sent.Add(lease) }

// notBlockedUntil is when a holder may start on an answer: counted from the
// answer's arrival, as the voter counted from its earlier sending.
func notBlockedUntil(receipt Instant, blocked time.Duration) Instant { return receipt.Add(blocked) }

// Deadline returns the latest instant until which the answers allow the group to
// be held at clock reading now, and whether that is later than now. own is what
// the node's own log says of the voters.
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
	logs := []VoterLog{own}
	best := map[fsm.InstanceID]Instant{}
	for id, kept := range h.answers {
		for _, c := range kept {
			if c.deadline <= now {
				continue // expired: neither its vote nor its voter set counts
			}
			logs = append(logs, c.log)
			if c.start <= at {
				best[id] = max(best[id], c.deadline)
			}
		}
	}
	required := Required(logs)
	if len(required) == 0 {
		return 0, false
	}
	deadline := Instant(1<<63 - 1)
	for _, set := range required {
		d, ok := majorityDeadline(set, best)
		if !ok {
			return 0, false
		}
		deadline = min(deadline, d)
	}
	return deadline, true
}

// majorityDeadline returns the latest instant that a majority of the set allows.
func majorityDeadline(set VoterSet, best map[fsm.InstanceID]Instant) (Instant, bool) {
	var given []Instant
	for _, id := range set.Voters {
		if d, ok := best[id]; ok {
			given = append(given, d)
		}
	}
	need := set.Majority()
	if len(given) < need {
		return 0, false
	}
	slices.Sort(given)
	return given[len(given)-need], true
}
