package election

import (
	"bytes"
	"slices"
	"time"

	"github.com/quorate/quorate/fsm"
)

// Hearing is who hears whom, as one node knows it: what it heard itself, and what
// the others' renewals said that they heard. From it come the two judgements of
// liveness: a node is lost, and it is time to campaign. Neither touches safety.
//
// A Hearing belongs to one goroutine.
type Hearing struct {
	self    fsm.InstanceID
	lease   time.Duration
	renew   time.Duration
	heard   map[fsm.InstanceID]Instant
	reports map[fsm.InstanceID]report
	ticked  Instant // the loop's last tick
	steady  Instant // since when no tick was late
	lost    map[fsm.InstanceID]Instant
}

// A report is what one node last said it hears, and the lease that it asks for.
type report struct {
	at    Instant
	lease time.Duration
	ago   map[fsm.InstanceID]time.Duration
}

// NewHearing returns the hearing of a process that starts now.
func NewHearing(self fsm.InstanceID, now Instant, lease, renew time.Duration) *Hearing {
	return &Hearing{
		self: self, lease: lease, renew: renew,
		heard:   map[fsm.InstanceID]Instant{},
		reports: map[fsm.InstanceID]report{},
		ticked:  now, steady: now,
		lost: map[fsm.InstanceID]Instant{},
	}
}

// Heard notes that a datagram of that node came.
func (h *Hearing) Heard(now Instant, from fsm.InstanceID) { h.heard[from] = now }

// Reported notes whom a node says it hears, and the lease that it states.
func (h *Hearing) Reported(now Instant, from fsm.InstanceID, lease time.Duration, hears []Hearsay) {
	r := report{at: now, lease: lease, ago: make(map[fsm.InstanceID]time.Duration, len(hears))}
	for _, s := range hears {
		r.ago[s.Node] = s.Ago
	}
	h.reports[from] = r
}

// Hears returns what this node says of whom it hears, in a stable order.
func (h *Hearing) Hears(now Instant) []Hearsay {
	out := make([]Hearsay, 0, len(h.heard))
	for id, at := range h.heard {
		out = append(out, Hearsay{Node: id, Ago: now.Sub(at)})
	}
	slices.SortFunc(out, func(a, b Hearsay) int { return bytes.Compare(a.Node[:], b.Node[:]) })
	return out[:min(len(out), maxVoters)]
}

// Tick notes a tick of the loop. One that is late by more than two renewals means
// that this process was not running: everyone looks silent to it, and it must
// listen for a whole lease before it judges.
func (h *Hearing) Tick(now Instant) {
	if late := now.Sub(h.ticked) - h.renew; late > 2*h.renew {
		h.steady = now
		clear(h.lost)
	}
	h.ticked = now
	for id, at := range h.heard {
		if now.Sub(at) > forgetAfter {
			delete(h.heard, id)
			delete(h.reports, id)
		}
	}
}

// forgetAfter is for how long a node that is silent is still spoken of.
const forgetAfter = time.Hour

// Begin starts the listening anew: before this instant nothing could be heard, so
// nobody was silent.
func (h *Hearing) Begin(now Instant) {
	h.steady, h.ticked = now, now
	clear(h.lost)
}

// MayJudge reports whether the node has been listening for a whole lease.
func (h *Hearing) MayJudge(now Instant) bool {
	return now.Sub(h.steady) >= h.lease && now.Sub(h.ticked) <= 3*h.renew
}

// LeaseOf is after how long a silence of the node means something: the lease that it last
// stated, and no less than this node's own. Who asks for longer leases speaks less often,
// as during a rolling restart with another lease in the file, and nobody could take over
// from it any sooner.
func (h *Hearing) LeaseOf(id fsm.InstanceID) time.Duration { return max(h.lease, h.reports[id].lease) }

// Silent reports whether this node has heard nothing of id for a lease.
func (h *Hearing) Silent(now Instant, id fsm.InstanceID) bool {
	return id != h.self && !h.hearsIt(now, h.self, id)
}

// HeardWithin reports whether this node has heard id within the last d.
func (h *Hearing) HeardWithin(now Instant, id fsm.InstanceID, d time.Duration) bool {
	at, ok := h.heard[id]
	return ok && now.Sub(at) < d
}

// hearsIt reports whether voter hears id, as far as this node knows. A voter whose
// own report is a lease old does not count: it may be gone itself.
func (h *Hearing) hearsIt(now Instant, voter, id fsm.InstanceID) bool {
	if voter == id {
		return true
	}
	if voter == h.self {
		at, ok := h.heard[id]
		return ok && now.Sub(at) < h.LeaseOf(id)
	}
	r, ok := h.reports[voter]
	ago, said := r.ago[id]
	return ok && said && now.Sub(r.at) < h.LeaseOf(voter) && ago < h.LeaseOf(id)
}

// Lost reports whether no majority of voters hears the node, or it says itself that
// it hears none, and since when this node has known. Either way no answers reach it
// and it cannot hold anything. Only a node that may judge should ask. What the
// leader alone does not hear is not lost: an asymmetric cut at the leader moves
// nothing.
func (h *Hearing) Lost(now Instant, id fsm.InstanceID, voters VoterSet) (since Instant, lost bool) {
	if id == h.self || (h.audible(now, id, voters) && !h.deaf(now, id, voters)) {
		delete(h.lost, id)
		return 0, false
	}
	if _, ok := h.lost[id]; !ok {
		h.lost[id] = now
	}
	return h.lost[id], true
}

func (h *Hearing) audible(now Instant, id fsm.InstanceID, voters VoterSet) bool {
	n := 0
	for _, v := range voters.Voters {
		if h.hearsIt(now, v, id) {
			n++
		}
	}
	return n >= voters.Majority()
}

// deaf reports whether the node's own, fresh word is that it hears no majority. Who names
// nobody, not even itself, has only begun to listen.
func (h *Hearing) deaf(now Instant, id fsm.InstanceID, voters VoterSet) bool {
	r, ok := h.reports[id]
	if !ok || now.Sub(r.at) >= h.LeaseOf(id) || len(r.ago) == 0 {
		return false
	}
	n := 0
	for _, v := range voters.Voters {
		if ago, said := r.ago[v]; v == id || said && ago < h.LeaseOf(v) {
			n++
		}
	}
	return n < voters.Majority()
}

// Quorum reports whether this node hears a majority of the voters, itself included.
func (h *Hearing) Quorum(now Instant, voters VoterSet) bool {
	n := 0
	for _, v := range voters.Voters {
		if v == h.self || h.hearsIt(now, h.self, v) {
			n++
		}
	}
	return len(voters.Voters) > 0 && n >= voters.Majority()
}

// Informed reports whether a majority of the voters, this node included, has lately
// said whom it hears. Who is not informed finds everybody lost: a process that was
// away for less than it notices, say, and whose first datagram is an answer.
func (h *Hearing) Informed(now Instant, voters VoterSet) bool {
	n := 0
	for _, v := range voters.Voters {
		if r, ok := h.reports[v]; v == h.self || ok && now.Sub(r.at) < h.LeaseOf(v) {
			n++
		}
	}
	return len(voters.Voters) > 0 && n >= voters.Majority()
}

// NextSilence returns the next instant at which a voter that this node hears will
// have been silent for a lease. At that instant the node tells the others at once,
// so that they can judge without waiting for its next renewal.
func (h *Hearing) NextSilence(now Instant, voters VoterSet) (Instant, bool) {
	var next Instant
	found := false
	for _, id := range voters.Voters {
		at, ok := h.heard[id]
		if id == h.self || !ok {
			continue
		}
		if s := at.Add(h.LeaseOf(id)); s.After(now) && (!found || s < next) {
			next, found = s, true
		}
	}
	return next, found
}

// CampaignAt returns the instant at which this node should campaign for the place
// of a leader that is lost: the voters that are not silent themselves take turns,
// CampaignStep apart, in the order of their ids. last is when this node last
// campaigned; after everyone's turn and a lease more it may try again.
func (h *Hearing) CampaignAt(now Instant, leader fsm.InstanceID, voters VoterSet, last Instant) (Instant, bool) {
	if leader.IsZero() || leader == h.self || !voters.Has(h.self) || !h.MayJudge(now) || !h.Informed(now, voters) {
		return 0, false
	}
	since, lost := h.Lost(now, leader, voters)
	if !lost {
		return 0, false
	}
	if last >= since {
		round := time.Duration(len(voters.Voters))*CampaignStep + h.lease
		return last.Add(round), true
	}
	turn := 0
	for _, id := range voters.Voters {
		if id == h.self {
			break
		}
		if id != leader && !h.Silent(now, id) {
			turn++
		}
	}
	return since.Add(time.Duration(turn) * CampaignStep), true
}
