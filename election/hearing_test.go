package election

import (
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
)

const renew = 30 * time.Millisecond

// listening returns the hearing of n0 that has ticked in time until now and has
// just heard everyone, who all hear each other.
func listening(now Instant) *Hearing {
	h := NewHearing(n0, now-Instant(10*lease), lease, renew)
	for at := now - Instant(10*lease); at <= now; at += Instant(renew) {
		h.Tick(at)
	}
	h.Tick(now)
	for _, id := range []fsm.InstanceID{n1, n2} {
		h.Heard(now, id)
		h.Reported(now, id, lease, []Hearsay{{n0, 0}, {n1, 0}, {n2, 0}})
	}
	return h
}

func isLost(h *Hearing, now Instant, id fsm.InstanceID) bool {
	_, lost := h.Lost(now, id, trio)
	return lost
}

// A node is lost when no majority hears it, which takes the others' word.
func TestLostNeedsAMajority(t *testing.T) {
	h := listening(0)
	now := Instant(lease)
	h.Heard(now-msec, n2)
	h.Reported(now-msec, n2, lease, []Hearsay{{n1, 50 * time.Millisecond}, {n0, 0}})
	h.Reported(now-msec, n1, lease, []Hearsay{{n2, 0}})
	if !h.Silent(now, n1) {
		t.Fatal("n1 is not silent after a lease")
	}
	if isLost(h, now, n1) {
		t.Fatal("n1 is lost although n2 hears it")
	}
	h.Reported(now, n2, lease, []Hearsay{{n1, lease}, {n0, 0}})
	if !isLost(h, now, n1) {
		t.Fatal("n1 is not lost although nobody hears it")
	}
	h.Heard(now+msec, n1)
	if isLost(h, now+msec, n1) {
		t.Fatal("n1 is still lost after it was heard")
	}
}

// A node that says itself that it hears nobody is lost, although everyone hears it.
func TestDeafNodeIsLost(t *testing.T) {
	h := listening(0)
	if isLost(h, 0, n1) {
		t.Fatal("n1 is lost at the start")
	}
	h.Reported(msec, n1, lease, []Hearsay{{n0, lease}, {n2, lease}})
	if !isLost(h, msec, n1) {
		t.Fatal("n1 is not lost although it hears nobody")
	}
	h.Reported(2*msec, n1, lease, []Hearsay{{n0, lease}, {n2, 0}})
	if isLost(h, 2*msec, n1) {
		t.Fatal("n1 is lost although it hears a majority, itself included")
	}
}

// A node that begins to listen has not been listening before.
func TestBegin(t *testing.T) {
	h := listening(0)
	h.Begin(msec)
	if h.MayJudge(msec) || h.MayJudge(Instant(lease)) {
		t.Fatal("judges at once")
	}
	h.Tick(Instant(lease) / 2)
	h.Tick(Instant(lease))
	if !h.MayJudge(Instant(lease) + msec) {
		t.Fatal("does not judge after a lease")
	}
}

// The word of a voter that is silent itself is worth nothing.
func TestOldReportDoesNotCount(t *testing.T) {
	h := listening(0)
	if !isLost(h, Instant(lease), n1) {
		t.Fatal("a report as old as a lease keeps n1 alive")
	}
}

// A process that wakes from a pause hears nobody and must not judge.
func TestPausedProcessDoesNotJudge(t *testing.T) {
	h := listening(0)
	woke := Instant(time.Second)
	if h.MayJudge(woke) {
		t.Fatal("judges before its first tick after the pause")
	}
	h.Tick(woke)
	for at := woke; at < woke.Add(lease); at += Instant(renew) {
		h.Tick(at)
		if h.MayJudge(at) {
			t.Fatalf("judges %v after waking", at.Sub(woke))
		}
		if _, ok := h.CampaignAt(at, n1, trio, 0); ok {
			t.Fatal("campaigns after waking")
		}
	}
	h.Tick(woke.Add(lease))
	if !h.MayJudge(woke.Add(lease)) {
		t.Fatal("does not judge after a lease of listening")
	}
}

// A tick that is late by two renewals is still in time.
func TestTickLateness(t *testing.T) {
	h := listening(0)
	h.Tick(Instant(3 * renew))
	if !h.MayJudge(Instant(3 * renew)) {
		t.Fatal("a tick late by two renewals counts as a pause")
	}
	h.Tick(Instant(3*renew) + Instant(3*renew) + 1)
	if h.MayJudge(Instant(6*renew) + 1) {
		t.Fatal("a tick late by more does not")
	}
}

// The voters campaign in the order of their ids, a step apart, and again only
// after everyone's turn.
func TestCampaignTurns(t *testing.T) {
	now := Instant(lease)
	at := func(self fsm.InstanceID, silent ...fsm.InstanceID) (Instant, bool) {
		h := NewHearing(self, -1e12, lease, renew)
		for i := Instant(-1e9); i <= now; i += Instant(renew) {
			h.Tick(i)
		}
		h.Tick(now)
		for _, id := range []fsm.InstanceID{n0, n1, n2, n3, n4} {
			if id == self || id == n2 {
				continue
			}
			quiet := false
			for _, s := range silent {
				quiet = quiet || s == id
			}
			if !quiet {
				h.Heard(now, id)
				h.Reported(now, id, lease, []Hearsay{{n2, lease}, {n0, 0}, {n1, 0}, {n3, 0}, {n4, 0}})
			}
		}
		return h.CampaignAt(now, n2, set(1, 1, n0, n1, n2, n3, n4), 0)
	}
	for _, tt := range []struct {
		self   fsm.InstanceID
		silent []fsm.InstanceID
		want   Instant
		ok     bool
	}{
		{n0, nil, now, true},
		{n1, nil, now.Add(CampaignStep), true},
		{n3, nil, now.Add(2 * CampaignStep), true},
		{n1, []fsm.InstanceID{n0}, now, true},
		{n1, []fsm.InstanceID{n0, n3, n4}, 0, false}, // no majority
		{n2, nil, 0, false},                          // the leader itself
	} {
		if got, ok := at(tt.self, tt.silent...); ok != tt.ok || got != tt.want {
			t.Errorf("%s with %d silent: %v %v, want %v %v", tt.self.Short(), len(tt.silent), got, ok, tt.want, tt.ok)
		}
	}
	h := listening(0)
	h.Tick(now / 2)
	h.Tick(now)
	h.Heard(now, n2)
	h.Reported(now, n2, lease, []Hearsay{{n1, lease}})
	if got, ok := h.CampaignAt(now, n1, trio, now); !ok || got != now.Add(3*CampaignStep+lease) {
		t.Errorf("second campaign at %v %v", got, ok)
	}
}

func TestNextSilence(t *testing.T) {
	h := listening(0)
	h.Heard(20*msec, n2)
	if at, ok := h.NextSilence(30*msec, trio); !ok || at != Instant(lease) {
		t.Fatalf("next silence %v %v, want n1's at %v", at, ok, lease)
	}
	if at, ok := h.NextSilence(Instant(lease), trio); !ok || at != 20*msec+Instant(lease) {
		t.Fatalf("next silence %v %v, want n2's", at, ok)
	}
}

// Who asks for longer leases is silent for longer: by its own lease it is well, and that
// is how all judge it, or a rolling restart with another lease in the file would move
// its groups at each of its pauses.
func TestJudgedByTheLongerLease(t *testing.T) {
	h := NewHearing(n0, 0, lease, lease/3)
	voters := VoterSet{Voters: []fsm.InstanceID{n0, n1, n2}}
	tick := func(to Instant) {
		for at := h.ticked; at < to; at = at.Add(lease / 3) {
			h.Tick(at)
		}
	}
	tick(Instant(10 * lease))
	now := Instant(10 * lease)
	for _, id := range []fsm.InstanceID{n1, n2} {
		h.Heard(now, id)
	}
	h.Reported(now, n1, 4*lease, []Hearsay{{n0, 0}, {n2, 0}})
	h.Reported(now, n2, lease, []Hearsay{{n0, 0}, {n1, 0}})
	later := now.Add(2 * lease)
	h.Heard(later, n2)
	h.Reported(later, n2, lease, []Hearsay{{n0, 0}, {n1, 2 * lease}})
	if _, lost := h.Lost(later, n1, voters); lost || h.Silent(later, n1) {
		t.Error("lost after half of the lease that it states")
	}
	end := now.Add(4 * lease)
	h.Heard(end, n2)
	h.Reported(end, n2, lease, []Hearsay{{n0, 0}, {n1, 4 * lease}})
	if _, lost := h.Lost(end, n1, voters); !lost {
		t.Error("not lost after the whole lease that it states")
	}
}
