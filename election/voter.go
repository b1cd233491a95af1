package election

import (
	"bytes"
	"cmp"
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
	notes   map[noteKey]note
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

// A note says that an instance may answer for an address until an instant. Notes
// are per address, because an address can move to another group, and per instance
// and boot, because a name can come back on another machine (lease.md, V7, V8).
type noteKey struct {
	addr  netip.Addr
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
		notes:   map[noteKey]note{},
		asked:   map[groupKey]Stamp{},
		left:    map[groupKey]Stamp{},
		boots:   map[fsm.InstanceID]*incarnations{},
		behind:  map[groupKey]question{},
	}
}

// Applied tells the voter what the node has applied. It reports rule (a): ready
// only when all that the log held at the start is applied, or an entry of a later
// term; an uncommitted tail may have been cut off.
func (v *Voter) Applied(st *fsm.State) {
	v.sender.Cluster = st.Cluster
	if st.Index >= v.atStart.LastCommand || st.Term > v.atStart.LastTerm {
		v.caught = true
	}
	v.highest = max(v.highest, st.Index)
}

// Ready reports whether the voter confirms at all, by rules (a) and (b).
func (v *Voter) Ready(now Instant) bool { return v.caught && v.waitedOut(now) }

// waitedOut is rule (b): every note that an earlier life took has run out.
func (v *Voter) waitedOut(now Instant) bool { return !now.Before(v.readyAt) }

// ClockMended tells the voter that its clock was slewed until now. Notes that it
// took or aged meanwhile may have run out too early, so it waits as after a restart.
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
		hold := r.Lease + r.Grace
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
func (v *Voter) mustPersist(hold time.Duration) bool { return hold > v.longest }

// verdict says whether the voter may confirm group g to the sender of r.
func (v *Voter) verdict(p Poll, r Renewal, g GroupState, cloned bool) Verdict {
	k := groupKey{g.Group, r.From}
	switch {
	case cloned:
		return Cloned
	case !newerThanKnown(r.Stamp, v.asked[k]) || !newerThanKnown(r.Stamp, v.left[k]):
		return Repeated
	case r.Lease <= 0 || r.Grace < 0 || r.Lease+r.Grace > p.State.Document.MaxHold:
		return TooLong
	case !p.ClockOK:
		return ClockOff
	case !v.Ready(p.Now):
		return NotReady
	case p.State.Index < v.highest:
		return Behind // the state stepped back, as a late snapshot can make it
	}
	return judgeEpoch(p.State, g, r.From)
}

// newerThanKnown refuses a stamp that is not newer than one known of the same boot.
func newerThanKnown(s, known Stamp) bool { return s.Boot != known.Boot || s.At > known.At }

// judgeEpoch confirms only what the applied state says exactly.
func judgeEpoch(st *fsm.State, g GroupState, from fsm.InstanceID) Verdict {
	a := st.Assignments[g.Group]
	switch {
	case g.Epoch > a.Epoch:
		return Behind
	case g.Epoch < a.Epoch || a.Owner != from:
		return Stale
	}
	return Confirmed
}

// blocked is how long the longest note of anyone else on any address of the group
// still runs. The same instance on another boot is someone else: either it has
// rebooted, and the wait is short, or its data directory was copied to another host.
func (v *Voter) blocked(now Instant, st *fsm.State, group string, asks Renewal) time.Duration {
	g, _ := st.Document.Group(group)
	addrs := g.Addrs()
	var longest time.Duration
	for k, n := range v.notes {
		if (k.node != asks.From || k.boot != asks.Stamp.Boot) && slices.Contains(addrs, k.addr) {
			longest = max(longest, n.until.Sub(now))
		}
	}
	return longest
}

// take notes that the sender may answer for the group's addresses. A note is only
// ever lengthened: a shorter lease does not shorten what was confirmed (V3).
func (v *Voter) take(now Instant, st *fsm.State, r Renewal, g GroupState) {
	until := now.Add(WithDrift(r.Lease + r.Grace))
	group, _ := st.Document.Group(g.Group)
	for _, addr := range group.Addrs() {
		k := noteKey{addr, g.Group, r.From, r.Stamp.Boot}
		n := v.notes[k]
		v.notes[k] = note{until: max(n.until, until), stamp: max(n.stamp, r.Stamp.At)}
	}
	v.asked[groupKey{g.Group, r.From}] = r.Stamp
	delete(v.behind, groupKey{g.Group, r.From})
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
		for nk, n := range v.notes {
			if nk.group == g.Group && nk.node == r.From && nk.boot == r.Boot && n.stamp < g.At {
				delete(v.notes, nk)
			}
		}
	}
}

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

// prune forgets the notes that have run out.
func (v *Voter) prune(now Instant) {
	for k, n := range v.notes {
		if !n.until.After(now) {
			delete(v.notes, k)
		}
	}
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
func (c *incarnations) cloned(now Instant, boot BootID) bool {
	switch {
	case c.current == BootID{}:
		c.current = boot
	case boot == c.current:
	case slices.Contains(c.earlier, boot):
		c.until = now.Add(cloneAlarm)
	default:
		c.earlier = append(c.earlier[max(0, len(c.earlier)+1-maxIncarnations):], c.current)
		c.current = boot
	}
	return now.Before(c.until)
}
