package election

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
)

const (
	lease = 100 * time.Millisecond
	grace = 5 * time.Millisecond
	msec  = Instant(time.Millisecond)
)

var (
	n0, n1, n2, n3, n4 = fsm.InstanceID{10}, fsm.InstanceID{11}, fsm.InstanceID{12}, fsm.InstanceID{13}, fsm.InstanceID{14}
	boot               = BootID{1}
	addrWeb            = netip.MustParsePrefix("10.0.0.200/24")
	addrDB             = netip.MustParsePrefix("10.0.0.201/24")
	trio               = set(1, 1, n0, n1, n2)
)

func set(term, index uint64, ids ...fsm.InstanceID) VoterSet {
	return VoterSet{Term: term, Index: index, Voters: ids}
}

func committed(s VoterSet) VoterLog { return VoterLog{Last: s, LastCommitted: true} }

// state returns a state in which the group is owned by that node at that epoch.
func state(owner fsm.InstanceID, epoch uint64, addrs ...netip.Prefix) *fsm.State {
	if addrs == nil {
		addrs = []netip.Prefix{addrWeb}
	}
	return &fsm.State{
		Cluster: fsm.ClusterID{9}, Index: epoch, Term: 1,
		Document:    fsm.Document{MaxHold: 5 * time.Second, Groups: []fsm.Group{{Name: "web", Addresses: addrs}}},
		Assignments: map[string]fsm.Assignment{"web": {Owner: owner, Epoch: epoch}},
	}
}

func ask(from fsm.InstanceID, at Instant, epoch uint64) Renewal {
	return Renewal{
		Sender: Sender{fsm.ClusterID{9}, from}, Stamp: Stamp{boot, at}, Lease: lease, Grace: grace,
		Groups: []GroupState{{Group: "web", Epoch: epoch, Phase: PhaseWaiting}},
	}
}

// newVoter returns a voter that is ready at instant 0 and may confirm up to 5 s.
func newVoter(id fsm.InstanceID) *Voter {
	v := NewVoter(id, -1e12, 0, LogAtStart{})
	v.SetLongest(5 * time.Second)
	return v
}

func poll(now Instant, st *fsm.State) Poll {
	return Poll{Now: now, State: st, Log: committed(trio), ClockOK: true}
}

// vote has the voter apply the state and judge the renewal's only group.
func vote(t *testing.T, v *Voter, now Instant, st *fsm.State, r Renewal) GroupAnswer {
	t.Helper()
	v.Applied(st)
	a, _ := v.Renewal(poll(now, st), r)
	if len(a.Groups) == 0 {
		return GroupAnswer{Verdict: Repeated}
	}
	return a.Groups[0]
}

func wantVote(t *testing.T, got GroupAnswer, verdict Verdict, blocked time.Duration) {
	t.Helper()
	if got.Verdict != verdict || got.Blocked != blocked {
		t.Fatalf("verdict %v, blocked %v; want %v, %v", got.Verdict, got.Blocked, verdict, blocked)
	}
}

func release(from fsm.InstanceID, at Instant) Release {
	return Release{Sender: Sender{fsm.ClusterID{9}, from}, Boot: boot, Groups: []GroupRelease{{"web", at}}}
}

// The note of one owner blocks the next for lease and grace, times (1+ρ), from
// when the voter took it.
func TestNoteBlocksTheNextOwner(t *testing.T) {
	v := newVoter(n0)
	wantVote(t, vote(t, v, 10*msec, state(n1, 4), ask(n1, 9*msec, 4)), Confirmed, 0)
	full := WithDrift(lease + grace)
	wantVote(t, vote(t, v, 10*msec, state(n2, 5), ask(n2, 9*msec, 5)), Confirmed, full)
	wantVote(t, vote(t, v, 50*msec, state(n2, 5), ask(n2, 49*msec, 5)), Confirmed, full-40*time.Millisecond)
	wantVote(t, vote(t, v, Instant(10*time.Millisecond+full), state(n2, 5), ask(n2, 51*msec, 5)), Confirmed, 0)
}

func TestVoterConfirmsOnlyWhatItApplied(t *testing.T) {
	v := newVoter(n0)
	wantVote(t, vote(t, v, 10*msec, state(n1, 4), ask(n2, 9*msec, 4)), Stale, 0)
	wantVote(t, vote(t, v, 11*msec, state(n1, 4), ask(n1, 9*msec, 3)), Renewed, 0)
	wantVote(t, vote(t, v, 12*msec, state(n1, 4), ask(n2, 10*msec, 5)), Behind, 0)
	// It answers again as soon as it has applied the epoch.
	v.Applied(state(n2, 5))
	replies, _ := v.Again(poll(13*msec, state(n2, 5)))
	if len(replies) != 1 || replies[0].To != n2 || replies[0].Answer.Groups[0].Verdict != Confirmed || replies[0].Answer.Echo.At != 10*msec {
		t.Fatalf("replies %+v", replies)
	}
	if replies, _ := v.Again(poll(14*msec, state(n2, 5))); len(replies) != 0 {
		t.Fatal("answered twice")
	}
}

func TestPutOffQuestionExpires(t *testing.T) {
	v := newVoter(n0)
	wantVote(t, vote(t, v, 0, state(n1, 4), ask(n2, -1, 5)), Behind, 0)
	v.Applied(state(n2, 5))
	if replies, _ := v.Again(poll(Instant(lease), state(n2, 5))); len(replies) != 0 {
		t.Fatal("a question as old as its lease was confirmed")
	}
}

// V1: a late repetition of the release of an earlier tenure must not clear the
// note of the present one.
func TestReleaseOfAnEarlierTenure(t *testing.T) {
	v := newVoter(n0)
	vote(t, v, 10*msec, state(n2, 5), ask(n2, 10*msec, 5))
	v.Release(20*msec, release(n2, 19*msec))
	wantVote(t, vote(t, v, 30*msec, state(n2, 7), ask(n2, 30*msec, 7)), Confirmed, 0)
	v.Release(40*msec, release(n2, 19*msec)) // repeated, with its own stamp
	if got := vote(t, v, 41*msec, state(n0, 8), ask(n0, 41*msec, 8)); got.Blocked == 0 {
		t.Fatal("the note of the present tenure was dropped")
	}
}

// V2: what was asked before a release is not confirmed after it, in either order
// of arrival, and the answers to it do not count with the owner.
func TestReleaseThenOlderQuestion(t *testing.T) {
	v := newVoter(n0)
	v.Release(20*msec, release(n1, 15*msec))
	wantVote(t, vote(t, v, 21*msec, state(n1, 4), ask(n1, 14*msec, 4)), Repeated, 0)
	wantVote(t, vote(t, v, 22*msec, state(n1, 4), ask(n1, 16*msec, 4)), Confirmed, 0)
	v.Release(23*msec, release(n1, 15*msec)) // the note is newer: it stays
	if got := vote(t, v, 24*msec, state(n2, 5), ask(n2, 24*msec, 5)); got.Blocked == 0 {
		t.Fatal("an older release dropped a newer note")
	}

	h := holderAt(4, 0)
	h.Released(15 * msec)
	if h.Confirm(20*msec, answer(n0, 14*msec, trio), yes(4, 0)) {
		t.Fatal("an answer to a question from before the release counts")
	}
	if !h.Confirm(20*msec, answer(n0, 16*msec, trio), yes(4, 0)) {
		t.Fatal("an answer to a question from after the release does not count")
	}
}

// V3: a shorter lease does not shorten what was confirmed before.
func TestNoteIsOnlyLengthened(t *testing.T) {
	v := newVoter(n0)
	long := ask(n1, 10*msec, 4)
	long.Lease = 300 * time.Millisecond
	vote(t, v, 10*msec, state(n1, 4), long)
	short := ask(n1, 20*msec, 4)
	short.Lease = 50 * time.Millisecond
	vote(t, v, 20*msec, state(n1, 4), short)
	want := WithDrift(305*time.Millisecond) - 10*time.Millisecond
	wantVote(t, vote(t, v, 20*msec, state(n2, 5), ask(n2, 20*msec, 5)), Confirmed, want)
}

// V4: a voter that restarted waits out the longest lease and grace that it ever
// confirmed, whatever the document says now; and a longer one is on disk first.
func TestRestartWait(t *testing.T) {
	longest := 300*time.Millisecond + GraceLifetime
	v := NewVoter(n0, 0, longest, LogAtStart{})
	at := Instant(WithDrift(longest))
	wantVote(t, vote(t, v, at-1, state(n1, 4), ask(n1, at-2, 4)), NotReady, 0)
	wantVote(t, vote(t, v, at, state(n1, 4), ask(n1, at-1, 4)), Confirmed, 0)

	v = NewVoter(n0, 0, 0, LogAtStart{})
	v.Applied(state(n1, 4))
	a, need := v.Renewal(poll(10*msec, state(n1, 4)), ask(n1, 9*msec, 4))
	if a.Groups[0].Verdict == Confirmed || need != lease+grace {
		t.Fatalf("confirmed %v before it was on disk, need %v", a.Groups[0].Verdict, need)
	}
	v.SetLongest(need)
	if replies, _ := v.Again(poll(12*msec, state(n1, 4))); len(replies) != 1 {
		t.Fatal("not answered again once it was on disk")
	}
}

// Rule (a), and its way out when the tail of the log was never committed.
func TestVoterWaitsForItsLog(t *testing.T) {
	v := NewVoter(n0, 0, 0, LogAtStart{LastCommand: 9, LastTerm: 3})
	v.SetLongest(time.Second)
	behind := state(n1, 4)
	wantVote(t, vote(t, v, 10*msec, behind, ask(n1, 9*msec, 4)), NotReady, 0)
	later := state(n1, 4)
	later.Index, later.Term = 6, 4 // the tail was replaced by an entry of a later term
	wantVote(t, vote(t, v, 11*msec, later, ask(n1, 10*msec, 4)), Confirmed, 0)
}

// A snapshot that came late moves the state back: nothing is confirmed on it.
func TestStateSteppedBack(t *testing.T) {
	v := newVoter(n0)
	v.Applied(state(n2, 9))
	wantVote(t, vote(t, v, 10*msec, state(n1, 4), ask(n1, 9*msec, 4)), Behind, 0)
}

// V7: notes are per address. A group that takes an address over is blocked by the
// note that another group's owner has on it.
func TestAddressMovesBetweenGroups(t *testing.T) {
	v := newVoter(n0)
	vote(t, v, 10*msec, state(n1, 4), ask(n1, 9*msec, 4))
	moved := state(n1, 6, addrDB)
	moved.Document.Groups = append(moved.Document.Groups, fsm.Group{Name: "db", Addresses: []netip.Prefix{addrWeb}})
	moved.Assignments["db"] = fsm.Assignment{Owner: n2, Epoch: 6}
	r := ask(n2, 20*msec, 6)
	r.Groups[0].Group = "db"
	if got := vote(t, v, 20*msec, moved, r); got.Blocked == 0 {
		t.Fatal("the new group is not blocked by the note on its address")
	}
}

// V8: the same name on a new machine is another instance, and a cloned data
// directory is noticed.
func TestClonedInstance(t *testing.T) {
	v := newVoter(n0)
	st := state(n1, 4)
	x, y := ask(n1, 10*msec, 4), ask(n1, 11*msec, 4)
	y.Stamp.Boot = BootID{2}
	wantVote(t, vote(t, v, 10*msec, st, x), Confirmed, 0)
	// It may have rebooted; but if it has not, the other one still answers.
	wantVote(t, vote(t, v, 11*msec, st, y), Confirmed, WithDrift(lease+grace)-time.Millisecond)
	for i, r := range []Renewal{x, y} {
		at := Instant(12+i) * msec
		r.Stamp.At = at
		if got := vote(t, v, at, st, r); got.Verdict != Cloned {
			t.Fatalf("%v for an instance that was heard from two boots in turn", got.Verdict)
		}
	}
}

// Notes that were taken or aged on a slewed clock may have run out too early: the
// voter waits as after a restart.
func TestVoterWaitsAfterASlew(t *testing.T) {
	v := newVoter(n0)
	v.Applied(state(n1, 4))
	v.ClockMended(10 * msec)
	ready := (10 * msec).Add(RestartWait(v.Longest()))
	wantVote(t, vote(t, v, ready-1, state(n1, 4), ask(n1, ready-2, 4)), NotReady, 0)
	wantVote(t, vote(t, v, ready, state(n1, 4), ask(n1, ready-1, 4)), Confirmed, 0)
}

func TestVoterRefuses(t *testing.T) {
	v := newVoter(n0)
	st := state(n1, 4)
	long := ask(n1, 10*msec, 4)
	long.Lease = 6 * time.Second
	wantVote(t, vote(t, v, 10*msec, st, long), TooLong, 0)
	v.Applied(st)
	p := poll(11*msec, st)
	p.ClockOK = false
	if a, _ := v.Renewal(p, ask(n1, 11*msec, 4)); a.Groups[0].Verdict != ClockOff {
		t.Fatalf("verdict %v on a slewed clock", a.Groups[0].Verdict)
	}
	wantVote(t, vote(t, v, 12*msec, st, ask(n1, 12*msec, 4)), Confirmed, 0)
	wantVote(t, vote(t, v, 13*msec, st, ask(n1, 12*msec, 4)), Repeated, 0)
}

// The holder.

func holderAt(epoch uint64, started Instant) *Holder {
	h := NewHolder(boot, started)
	h.SetEpoch(epoch)
	return h
}

func answer(from fsm.InstanceID, asked Instant, s VoterSet) Answer {
	return Answer{Sender: Sender{fsm.ClusterID{9}, from}, Echo: Stamp{boot, asked}, Lease: lease, Log: committed(s)}
}

func yes(epoch uint64, blocked time.Duration) GroupAnswer {
	return GroupAnswer{Group: "web", Epoch: epoch, Verdict: Confirmed, Blocked: blocked}
}

// The deadline counts from the sending of the question, however late the answer.
func TestDeadlineCountsFromSending(t *testing.T) {
	h := holderAt(4, 0)
	h.Confirm(60*msec, answer(n0, 10*msec, trio), yes(4, 0))
	if _, ok := h.Deadline(60*msec, committed(trio)); ok {
		t.Fatal("one vote of three is enough")
	}
	h.Confirm(70*msec, answer(n1, 20*msec, trio), yes(4, 0))
	d, ok := h.Deadline(70*msec, committed(trio))
	if want := (10 * msec).Add(lease); !ok || d != want {
		t.Fatalf("deadline %v %v, want %v", d, ok, want)
	}
	if _, ok := h.Deadline((10 * msec).Add(lease), committed(trio)); ok {
		t.Fatal("held at the deadline itself")
	}
}

// Blocking is honoured on every answer: the same answer must allow start and end.
func TestBlockedAnswer(t *testing.T) {
	h := holderAt(5, 0)
	h.Confirm(20*msec, answer(n0, 19*msec, trio), yes(5, 0))
	h.Confirm(20*msec, answer(n1, 19*msec, trio), yes(5, 30*time.Millisecond))
	if _, ok := h.Deadline(49*msec, committed(trio)); ok {
		t.Fatal("started while another may still answer")
	}
	if at, ok := h.NextStart(20*msec, committed(trio)); !ok || at != 50*msec {
		t.Fatalf("next start %v %v, want 50 ms", at, ok)
	}
	if _, ok := h.Deadline(50*msec, committed(trio)); !ok {
		t.Fatal("not started when the block is over")
	}
	// A renewal that is blocked gives nothing until its own block is over.
	h.Confirm(60*msec, answer(n1, 59*msec, trio), yes(5, 200*time.Millisecond))
	h.Confirm(60*msec, answer(n0, 59*msec, trio), yes(5, 0))
	if d, _ := h.Deadline(60*msec, committed(trio)); d != (19 * msec).Add(lease) {
		t.Fatalf("deadline %v was extended by a blocked answer", d)
	}
}

func TestAnswersThatDoNotCount(t *testing.T) {
	h := holderAt(4, 5*msec)
	other := answer(n0, 10*msec, trio)
	other.Echo.Boot = BootID{7}
	for name, counted := range map[string]bool{
		"another boot":           h.Confirm(20*msec, other, yes(4, 0)),
		"from the future":        h.Confirm(20*msec, answer(n0, 21*msec, trio), yes(4, 0)),
		"before the start":       h.Confirm(20*msec, answer(n0, 5*msec, trio), yes(4, 0)),
		"an older epoch":         h.Confirm(20*msec, answer(n0, 10*msec, trio), yes(3, 0)),
		"not a confirmation":     h.Confirm(20*msec, answer(n0, 10*msec, trio), GroupAnswer{Epoch: 4, Verdict: Behind}),
		"before an epoch at all": NewHolder(boot, 0).Confirm(20*msec, answer(n0, 10*msec, trio), yes(0, 0)),
	} {
		if counted {
			t.Errorf("%s: it counts", name)
		}
	}
}

// The lease is the one stated in the datagram that was confirmed, not today's.
func TestLeaseOfTheDatagram(t *testing.T) {
	h := holderAt(4, 0)
	for _, id := range []fsm.InstanceID{n0, n1} {
		a := answer(id, 10*msec, trio)
		a.Lease = 30 * time.Millisecond
		h.Confirm(12*msec, a, yes(4, 0))
	}
	if d, _ := h.Deadline(12*msec, committed(trio)); d != 40*msec {
		t.Fatalf("deadline %v, want 40 ms", d)
	}
}

func TestNewEpochForgetsAnswers(t *testing.T) {
	h := holderAt(4, 0)
	h.Confirm(11*msec, answer(n0, 10*msec, trio), yes(4, 0))
	h.Confirm(11*msec, answer(n1, 10*msec, trio), yes(4, 0))
	h.SetEpoch(6)
	if _, ok := h.Deadline(12*msec, committed(trio)); ok {
		t.Fatal("answers of the older epoch still count")
	}
}

// V5: siblings. The newest set is not committed, so its predecessor's majority is
// needed too; two of the newest alone would not meet the other child's majority.
func TestRolledBackVoterSet(t *testing.T) {
	four, child := set(1, 1, n0, n1, n2, n3), set(1, 5, n0, n1, n2)
	h := holderAt(4, 0)
	told := answer(n0, 10*msec, child)
	told.Log = VoterLog{Last: child, Previous: four}
	h.Confirm(11*msec, told, yes(4, 0))
	h.Confirm(11*msec, answer(n1, 10*msec, four), yes(4, 0))
	if _, ok := h.Deadline(12*msec, committed(four)); ok {
		t.Fatal("two of four held by an uncommitted set of three")
	}
	h.Confirm(12*msec, answer(n3, 10*msec, four), yes(4, 0))
	if _, ok := h.Deadline(12*msec, committed(four)); !ok {
		t.Fatal("a majority of both sets does not hold")
	}
}

// Once the answer that told of it has expired, a set that was rolled back is forgotten.
// Else the votes of a majority would not be enough for ever.
func TestRolledBackVoterSetIsForgotten(t *testing.T) {
	h := holderAt(4, 0)
	told := answer(n0, 10*msec, set(1, 5, n0, n1, n2, n3))
	told.Log.LastCommitted, told.Log.Previous = false, trio
	h.Confirm(11*msec, told, yes(4, 0))
	h.Confirm(11*msec, answer(n1, 10*msec, trio), yes(4, 0))
	if _, ok := h.Deadline(12*msec, committed(trio)); ok {
		t.Fatal("two of the newest four hold")
	}
	late := 10*msec + Instant(lease)
	for _, id := range []fsm.InstanceID{n1, n2} {
		h.Confirm(late, answer(id, late-msec, trio), yes(4, 0))
	}
	if _, ok := h.Deadline(late, committed(trio)); !ok {
		t.Fatal("the set that was rolled back sticks")
	}
}

func TestRequired(t *testing.T) {
	old, next := set(1, 1, n0, n1, n2), set(2, 7, n0, n1, n2, n3)
	tests := []struct {
		name string
		logs []VoterLog
		want []VoterSet
	}{
		{"none", []VoterLog{{}}, nil},
		{"one", []VoterLog{committed(old)}, []VoterSet{old}},
		{"newer uncommitted", []VoterLog{committed(old), {Last: next, Previous: old}}, []VoterSet{next, old}},
		{"somebody knows it committed", []VoterLog{{Last: next, Previous: old}, {Last: next, LastCommitted: true}}, []VoterSet{next}},
		{"a later term wins over a higher index", []VoterLog{{Last: set(1, 99, n4), Previous: old}, committed(next)}, []VoterSet{next}},
		{"predecessor known to one only", []VoterLog{{Last: next}, {Last: next, Previous: old}}, []VoterSet{next, old}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Required(tt.logs)
			if !slices.EqualFunc(got, tt.want, func(a, b VoterSet) bool { return a.Term == b.Term && a.Index == b.Index }) {
				t.Fatalf("required %v, want %v", got, tt.want)
			}
		})
	}
}

// Spacing counts from when the change, and the first entry of the own term, were
// seen committed (V6).
func TestMayChangeVoters(t *testing.T) {
	gap := Instant(Spacing(lease))
	for _, tt := range []struct {
		set, term Instant
		now       Instant
		want      bool
	}{
		{0, 0, gap - 1, false},
		{0, 0, gap, true},
		{0, 10, gap, false},
		{10, 0, gap, false},
		{10, 5, gap + 10, true},
	} {
		if got := MayChangeVoters(tt.now, tt.set, tt.term, lease); got != tt.want {
			t.Errorf("MayChangeVoters(%v, %v, %v) = %v", tt.now, tt.set, tt.term, got)
		}
	}
}

func TestCheckClock(t *testing.T) {
	for _, tt := range []struct {
		r  ClockReading
		ok bool
	}{
		{ClockReading{Tick: 10_000}, true},
		{ClockReading{Tick: 10_000, Frequency: 500 << 16}, true},
		{ClockReading{Tick: 10_040}, true},
		{ClockReading{Tick: 10_041}, false},
		{ClockReading{Tick: 9_200}, false},
		{ClockReading{Tick: 10_040, Frequency: 1 << 16}, false},
	} {
		if err := CheckClock(tt.r); (err == nil) != tt.ok {
			t.Errorf("CheckClock(%+v) = %v", tt.r, err)
		}
	}
}

func TestWithDriftRoundsUp(t *testing.T) {
	for _, tt := range []struct{ d, want time.Duration }{{0, 0}, {1, 2}, {100, 101}, {101, 103}, {250 * time.Millisecond, 252500 * time.Microsecond}} {
		if got := WithDrift(tt.d); got != tt.want {
			t.Errorf("WithDrift(%d) = %d, want %d", tt.d, got, tt.want)
		}
	}
}

// One late datagram of an earlier boot is an alarm of its own length and no longer, and
// two machines that speak in turn are under alarm all the time.
func TestCloneAlarmEnds(t *testing.T) {
	a, b := BootID{1}, BootID{2}
	var c incarnations
	now := Instant(0)
	for _, boot := range []BootID{b, a} { // a is late, and new to this voter
		c.cloned(now, boot)
	}
	last := now
	for end := now.Add(3 * cloneAlarm); now.Before(end); now = now.Add(cloneAlarm / 20) {
		if c.cloned(now, b) {
			last = now
		}
	}
	if last.Sub(0) > cloneAlarm {
		t.Errorf("under alarm for %v after one late datagram, want %v at most", last.Sub(0), cloneAlarm)
	}
	for i := range 100 {
		now = now.Add(cloneAlarm / 20)
		if alarm := c.cloned(now, [2]BootID{a, b}[i%2]); !alarm && i > 1 {
			t.Fatalf("turn %d: two machines speak in turn, and there is no alarm", i)
		}
	}
}
