package election

import (
	"bytes"
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/fsm"
)

// A Voter is the half of a node that confirms others' leases. What it remembers
// is in no snapshot and on no disk but for the longest lease that it ever
// confirmed; nothing clears a note but time and its holder's own release.
//
// A Voter belongs to one goroutine. Checking the applied state, computing what
// blocks, and taking the note happen in one call: the critical section of
// design.md 3.2.
type Voter struct {
	sender  Sender
	longest time.Duration // lease + grace, on disk
	readyAt Instant       // rule (b)
	atStart LogAtStart    // rule (a)
	caught  bool          // rule (a) is met
	highest uint64        // the highest index applied in this life
	notes   map[netip.Addr][]noted
	pruneAt Instant            // when to look for notes that have run out
	groups  groupIndex         // of the document
	asked   map[groupKey]Stamp // the newest stamp confirmed
	left    map[groupKey]Stamp // the newest release
	boots   map[fsm.InstanceID]*incarnations
	behind  map[groupKey]question // to answer again after applying
}

// LogAtStart is what the node's log held when its process started.
type LogAtStart struct {
	LastCommand uint64 // index of the last entry that reaches the state machine
	LastTerm    uint64 // term of the last entry of any kind
}

type groupKey struct {
	group string
	node  fsm.InstanceID
}

// A noted says that an instance may answer for an address until an instant. Notes
// are per address, because an address can move to another group, and per instance
// and boot, because a name can come back on another machine (lease.md, V7, V8).
type noted struct {
	noteKey
	note
}

type noteKey struct {
	group string
	node  fsm.InstanceID
	boot  BootID
}

type note struct {
	until Instant
	stamp Instant // the newest stamp that it was taken or kept for
}

// NewVoter returns the voter of a process that starts now, where longest is the
// longest lease and grace that any earlier life confirmed (zero: none).
func NewVoter(self fsm.InstanceID, now Instant, longest time.Duration, at LogAtStart) *Voter {
	return &Voter{
		sender:  Sender{From: self},
		longest: longest,
		readyAt: now.Add(RestartWait(longest)),
		atStart: at,
		notes:   map[netip.Addr][]noted{},
		asked:   map[groupKey]Stamp{},
		left:    map[groupKey]Stamp{},
		boots:   map[fsm.InstanceID]*incarnations{},
		behind:  map[groupKey]question{},
	}
}

// Applied tells the voter what the node has applied. It is ready only when that is
// all that the log held at the start, or an entry of a later term; an uncommitted
// tail may have been cut off.
func (v *Voter) Applied(st *fsm.State) {
	v.sender.Cluster = st.Cluster
	v.caught = v.caught || v.atStart.replayed(st)
	v.highest = max(v.highest, st.Index)
}

// Caught reports whether rule (a) is met: what an earlier life of the node had applied,
// this one has too.
func (v *Voter) Caught() bool { return v.caught }

// replayed is rule (a): what the node had applied before its process started, it
// has applied again.
//
//quorate:rule log-replayed
func (at LogAtStart) replayed(st *fsm.State) bool {
	return st.Index >= at.LastCommand || st.Term > at.LastTerm
}

// Ready reports whether the voter confirms at all, by rules (a) and (b).
func (v *Voter) Ready(now Instant) bool { return v.caught && v.waitedOut(now) }

// waitedOut is rule (b): every note that an earlier life took has run out.
func (v *Voter) waitedOut(now Instant) bool { return !now.Before(v.readyAt) }

// ClockMended tells the voter that its clock was slewed until now. Notes that it
// took or aged meanwhile may have run out too early, so it waits as after a restart.
//
//quorate:rule slew-waited-out
func (v *Voter) ClockMended(now Instant) {
	v.readyAt = max(v.readyAt, now.Add(RestartWait(v.longest)))
}

// Longest is the longest lease and grace that may be confirmed without writing a
// longer one to disk first.
func (v *Voter) Longest() time.Duration { return v.longest }

// SetLongest says that a longer one is on disk now.
func (v *Voter) SetLongest(d time.Duration) { v.longest = max(v.longest, d) }

// A Poll is what surrounds one renewal at the voter: read after the datagram was
// taken from the socket, in the goroutine that owns the state.
type Poll struct {
	Now     Instant
	State   *fsm.State
	Log     VoterLog
	ClockOK bool // the host's clock runs at its rate
}

// Renewal judges each group of a renewal, takes the notes and returns the answer.
// need, if positive, is a lease and grace longer than any on disk: write it,
// call SetLongest, and then call Again. Groups that need no answer are left out.
func (v *Voter) Renewal(p Poll, r Renewal) (a Answer, need time.Duration) {
	v.prune(p.Now)
	v.sender.Cluster = p.State.Cluster
	a = Answer{Sender: v.sender, Echo: r.Stamp, Lease: r.Lease, Log: p.Log}
	cloned := v.seen(r.From).cloned(p.Now, r.Stamp.Boot)
	for _, g := range r.Groups {
		if !g.Asks() {
			continue
		}
		ga := GroupAnswer{Group: g.Group, Epoch: g.Epoch}
		ga.Blocked = v.blocked(p.Now, p.State, g.Group, r)
		ga.Verdict = v.verdict(p, r, g, cloned)
		hold := holdOf(r)
		if ga.Verdict == Confirmed && v.mustPersist(hold) {
			ga.Verdict, need = NotReady, hold
			v.remember(p.Now, r, g)
		}
		switch ga.Verdict {
		case Confirmed:
			v.take(p.Now, p.State, r, g)
		case Behind:
			v.remember(p.Now, r, g)
		case Repeated:
			continue
		}
		a.Groups = append(a.Groups, ga)
	}
	return a, need
}

// mustPersist is V4's rule: a longer hold than any before is on disk before it is
// first confirmed, so that a restarted voter waits long enough.
//
//quorate:rule longest-written-first
func (v *Voter) mustPersist(hold time.Duration) bool { return hold > v.longest }

// verdict says whether the voter may confirm group g to the sender of r.
func (v *Voter) verdict(p Poll, r Renewal, g GroupState, cloned bool) Verdict {
	k, a := groupKey{g.Group, r.From}, p.State.Assignments[g.Group]
	switch {
	case cloned:
		return Cloned
	case v.repeated(k, r.Stamp) || v.releasedSince(k, r.Stamp):
		return Repeated
	case !bounded(r, p.State.Document.MaxHold):
		return TooLong
	case !p.ticksTrue():
		return ClockOff
	case !v.Ready(p.Now):
		return NotReady
	case v.steppedBack(p.State), notApplied(a, g):
		return Behind
	case superseded(a, g, r.From) && a.Owner == r.From:
		return Renewed
	case superseded(a, g, r.From):
		return Stale
	}
	return Confirmed
}

// repeated refuses a question that is not newer than the last one confirmed: a late
// copy of it, from an owner that is gone, would block the next one anew.
//
//quorate:rule asked-in-order
func (v *Voter) repeated(k groupKey, s Stamp) bool { return !newerThanKnown(s, v.asked[k]) }

// releasedSince refuses what was asked before the release that it knows (V2).
//
//quorate:rule asked-since-release
func (v *Voter) releasedSince(k groupKey, s Stamp) bool { return !newerThanKnown(s, v.left[k]) }

// newerThanKnown refuses a stamp that is not newer than one known of the same boot.
func newerThanKnown(s, known Stamp) bool { return s.Boot != known.Boot || s.At > known.At }

// bounded refuses a hold that is longer than the document allows: it could block
// everyone, and outlast the time between two changes of the voter set.
//
//quorate:rule hold-bounded
func bounded(r Renewal, most time.Duration) bool {
	return r.Lease > 0 && r.Grace >= 0 && holdOf(r) <= most
}

// ticksTrue: a voter whose own clock is slewed would age its notes wrongly.
//
//quorate:rule slewed-voter-refuses
func (p Poll) ticksTrue() bool { return p.ClockOK }

// steppedBack reports whether the state is older than one that was applied in this
// life, as a late snapshot can make it.
//
//quorate:rule never-older-state
func (v *Voter) steppedBack(st *fsm.State) bool { return st.Index < v.highest }

// notApplied: the epoch asked for is not in the applied state yet, so neither are
// the addresses that it is for.
//
//quorate:rule applied-only
func notApplied(a fsm.Assignment, g GroupState) bool { return g.Epoch > a.Epoch }

// superseded: a newer epoch was applied than the one asked for, or another owner.
//
//quorate:rule never-superseded
func superseded(a fsm.Assignment, g GroupState, from fsm.InstanceID) bool {
	return g.Epoch < a.Epoch || g.Epoch == a.Epoch && a.Owner != from
}

// holdOf is for how long the sender may answer after a confirmation, at worst: its
// lease, and what its fence may run on after that.
//
//quorate:rule grace-counts
func holdOf(r Renewal) time.Duration { return r.Lease + r.Grace }

// blocked is how long the longest note of anyone else on any address of the group
// still runs.
//
//quorate:rule blocked
func (v *Voter) blocked(now Instant, st *fsm.State, group string, asks Renewal) time.Duration {
	var longest time.Duration
	for n := range v.touching(v.groups.find(st, group)) {
		if n.ofAnother(asks) {
			longest = max(longest, n.until.Sub(now))
		}
	}
	return longest
}

// ofAnother: the same instance on another boot is someone else. Either it has
// rebooted, and the wait is short, or its data directory was copied to another host.
//
//quorate:rule boots-block
func (k noteKey) ofAnother(asks Renewal) bool {
	return k.node != asks.From || k.boot != asks.Stamp.Boot
}

// touching are the notes on the addresses of a group: what counts is the address,
// whatever group it was in when it was confirmed (V7).
//
//quorate:rule note-per-address
func (v *Voter) touching(g fsm.Group) iter.Seq[noted] {
	return func(yield func(noted) bool) {
		for _, p := range g.Addresses {
			for _, n := range v.notes[p.Addr()] {
				if !yield(n) {
					return
				}
			}
		}
	}
}

// take notes that the sender may answer for the group's addresses.
//
//quorate:rule note
func (v *Voter) take(now Instant, st *fsm.State, r Renewal, g GroupState) {
	until := now.Add(WithDrift(holdOf(r)))
	k := noteKey{g.Group, r.From, r.Stamp.Boot}
	for _, p := range v.groups.find(st, g.Group).Addresses {
		v.note(p.Addr(), noted{k, note{until: until, stamp: r.Stamp.At}})
	}
	v.asked[groupKey{g.Group, r.From}] = r.Stamp
	delete(v.behind, groupKey{g.Group, r.From})
}

func (v *Voter) note(addr netip.Addr, by noted) {
	on := v.notes[addr]
	for i, n := range on {
		if n.noteKey == by.noteKey {
			on[i].note = n.lengthened(by.note)
			return
		}
	}
	v.notes[addr] = append(on, by)
}

// lengthened: a shorter lease, or an older question, does not shorten what was
// confirmed before (V3).
//
//quorate:rule note-max
func (n note) lengthened(by note) note {
	return note{until: max(n.until, by.until), stamp: max(n.stamp, by.stamp)}
}

// Release drops the notes that the releasing instance took before its stamp, and
// refuses from now on what it asked before. The notes of another boot, and newer
// ones, stay (V1, V2).
func (v *Voter) Release(now Instant, r Release) {
	if v.seen(r.From).cloned(now, r.Boot) {
		return
	}
	for _, g := range r.Groups {
		k, s := groupKey{g.Group, r.From}, Stamp{r.Boot, g.At}
		if !newerThanKnown(s, v.left[k]) {
			continue
		}
		v.left[k] = s
		v.forget(func(n noted) bool { return n.group == g.Group && n.node == r.From && n.endedBy(n.boot, s) })
	}
}

// endedBy: a release ends what was noted before its stamp, on its own boot. A newer
// note is of a later tenure (V1).
//
//quorate:rule release-order
func (n note) endedBy(boot BootID, left Stamp) bool { return boot == left.Boot && n.stamp < left.At }

// A question is one group of a renewal that could not be confirmed yet.
type question struct {
	at      Instant // when it came
	renewal Renewal
}

func (v *Voter) remember(now Instant, r Renewal, g GroupState) {
	r.Groups, r.Hears = []GroupState{g}, nil
	v.behind[groupKey{g.Group, r.From}] = question{now, r}
}

// Again answers once more what it had to put off, after the node applied
// something or wrote a longer lease down. Only confirmations are returned; a
// question older than the lease that it asks for is worth nothing any more.
func (v *Voter) Again(p Poll) (replies []Reply, need time.Duration) {
	keys := slices.SortedFunc(maps.Keys(v.behind), func(a, b groupKey) int {
		return cmp.Or(cmp.Compare(a.group, b.group), bytes.Compare(a.node[:], b.node[:]))
	})
	for _, k := range keys {
		q := v.behind[k]
		delete(v.behind, k)
		if p.Now.Sub(q.at) >= q.renewal.Lease {
			continue
		}
		a, n := v.Renewal(p, q.renewal)
		need = max(need, n)
		if len(a.Groups) == 1 && a.Groups[0].Verdict == Confirmed {
			replies = append(replies, Reply{To: q.renewal.From, Answer: a})
		} else if _, kept := v.behind[k]; kept {
			v.behind[k] = q // with its own time of arrival
		}
	}
	return replies, need
}

// A Reply is an answer and whom it is for.
type Reply struct {
	To     fsm.InstanceID
	Answer Answer
}

// pruneEvery is between two looks for notes that have run out. They block nobody
// meanwhile.
const pruneEvery = time.Second

// prune forgets the notes that have run out.
func (v *Voter) prune(now Instant) {
	if now.Before(v.pruneAt) {
		return
	}
	v.pruneAt = now.Add(pruneEvery)
	v.forget(func(n noted) bool { return !n.until.After(now) })
}

func (v *Voter) forget(which func(noted) bool) {
	for addr, on := range v.notes {
		if on = slices.DeleteFunc(on, which); len(on) == 0 {
			delete(v.notes, addr)
		} else {
			v.notes[addr] = on
		}
	}
}

// A groupIndex finds the groups of a document by name: a renewal can be of hundreds.
type groupIndex struct {
	of   *fsm.Group // the first group of the document that it was made for
	many int
	at   map[string]int
}

// find returns the group of the applied document; the zero Group if there is none.
func (x *groupIndex) find(st *fsm.State, name string) fsm.Group {
	groups := st.Document.Groups
	if len(groups) == 0 {
		return fsm.Group{}
	}
	if x.of != &groups[0] || x.many != len(groups) { // a document is replaced as a whole
		*x = groupIndex{of: &groups[0], many: len(groups), at: make(map[string]int, len(groups))}
		for i := range groups {
			x.at[groups[i].Name] = i
		}
	}
	i, ok := x.at[name]
	if !ok {
		return fsm.Group{}
	}
	return groups[i]
}

// cloneAlarm is for how long an instance that was heard from two boots in turn is
// confirmed by nobody.
const cloneAlarm = 10 * time.Second

// incarnations are the boots that one instance id was heard from. A host reboots
// into a new one and never back: hearing an earlier one again means that two
// machines run with copies of one data directory.
type incarnations struct {
	current BootID
	earlier []BootID // at most maxIncarnations
	until   Instant  // the alarm holds until then
}

const maxIncarnations = 8

func (v *Voter) seen(id fsm.InstanceID) *incarnations {
	inc := v.boots[id]
	if inc == nil {
		inc = &incarnations{}
		v.boots[id] = inc
	}
	return inc
}

// cloned takes note of a boot and reports whether the instance is under alarm.
//
//quorate:rule clone-refused
func (c *incarnations) cloned(now Instant, boot BootID) bool {
	switch {
	case c.current == BootID{}:
		c.current = boot
	case boot == c.current:
	case slices.Contains(c.earlier, boot):
		// It is the present one from here on: two machines alarm at each turn, and a single
		// late datagram of an earlier boot costs no more than one alarm.
		c.earlier = append(slices.DeleteFunc(c.earlier, func(b BootID) bool { return b == boot }), c.current)
		c.current, c.until = boot, now.Add(cloneAlarm)
	default:
		c.earlier = append(c.earlier[max(0, len(c.earlier)+1-maxIncarnations):], c.current)
		c.current = boot
	}
	return now.Before(c.until)
}
