package fsm

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// HistoryLength is how many events the state remembers.
const HistoryLength = 1024

// An EventKind says what an Event is about.
type EventKind uint8

// The kinds of events.
const (
	_             EventKind = iota
	EventFormed             // the cluster was formed
	EventOwner              // a group has another owner, or a new epoch under the same one
	EventDocument           // there is a new document
	EventDrain              // a node is drained
	EventUndrain            // and no longer
	EventJoined             // a node has become known
	EventChanged            // a node has another name, address or role
	EventRemoved            // a node was removed
	EventLeader             // a node leads, in a new term
	EventReopened           // the owner of a group holds it again, which it did not for a while
)

var eventKinds = [...]string{"", "formed", "owner", "document", "drain", "undrain", "joined", "changed", "removed", "leader", "reopened"}

// String is the kind as JSON and the command line have it.
func (k EventKind) String() string {
	if int(k) < len(eventKinds) && k != 0 {
		return eventKinds[k]
	}
	return fmt.Sprintf("event(%d)", uint8(k))
}

// An Event is one entry of the history. Which fields are set depends on Kind; those
// that are not are zero. It never changes once it is in a State: a report replaces it.
type Event struct {
	Index   uint64     // of the log entry; a new document can have several events at one
	Updated uint64     `json:",omitzero"` // the index of the last report on it; zero: none yet
	At      time.Time  `json:",omitzero"` // the proposer's wall clock; for people only
	Kind    EventKind  // what it is about
	Node    InstanceID `json:",omitzero"` // of drain, undrain, joined, changed, removed and leader
	By      string     `json:",omitzero"` // who asked, such as root@n1; empty: nobody
	// Revision is that of a new document, and Term that of a new leader.
	Revision uint64 `json:",omitzero"`
	Term     uint64 `json:",omitzero"`

	// Of EventOwner, where Index is the new epoch, and of EventReopened as far as it goes.
	Group    string     `json:",omitzero"`
	From, To InstanceID `json:",omitzero"` // zero: nobody
	Reason   Reason     `json:",omitzero"`
	Phases   Phases     `json:",omitzero"`
	Opened   bool       `json:",omitzero"` // To has said that it holds the group and has announced it
	// Before is for how long nobody had held the group already when the phases began: it
	// was named for nodes that did not open it, or all nodes failed its checks. Of
	// EventReopened it is all there is; zero: not known.
	Before time.Duration `json:",omitzero"`
	Why    string        `json:",omitzero"` // of EventReopened: why it had been let go
}

// Phases are how long the parts of a change of owner took, each on the clock of the
// node that measured it. Detected, Elected and Committed are the leader's to say, the
// rest is the new owner's.
type Phases struct {
	Detected  time.Duration `json:",omitzero"` // from when the old owner was last known to hold the group until it was judged lost
	Elected   time.Duration `json:",omitzero"` // until another was proposed, a change of the leader included
	Committed time.Duration `json:",omitzero"` // until that was committed
	Waited    time.Duration `json:",omitzero"` // until the new owner was allowed to hold it
	Bound     time.Duration `json:",omitzero"` // until the addresses were on its devices
	Announced time.Duration `json:",omitzero"` // until the first announcement was handed to the kernel
}

// Outage is for how long nobody answered for the group, at most, and whether that is
// known. Where the old owner served until it was told, only the new owner's part counts.
// Where it was lost, it is counted from when it was last heard: an owner of which only
// the process died still answers until its lease is over, up to a lease longer.
func (e *Event) Outage() (time.Duration, bool) {
	if e.Kind == EventReopened {
		return e.Before, e.Before > 0
	}
	if e.Kind != EventOwner || !e.Opened || e.Reason == ReasonFirst || e.From == e.To {
		return 0, false
	}
	out := e.Before + e.Phases.Waited + e.Phases.Bound + e.Phases.Announced
	if !e.From.IsZero() && !e.Reason.untilTold() {
		out += e.Phases.Detected + e.Phases.Elected + e.Phases.Committed
	}
	return out, true
}

// untilTold reports whether the old owner holds the group until it applies the change.
func (r Reason) untilTold() bool {
	switch r {
	case ReasonLost, ReasonNotOpen, ReasonUnfit, ReasonGone:
		return false
	}
	return true
}

// A Report adds to the history what only those could measure who did it. It changes
// nothing else, and what the history has forgotten is passed over.
type Report struct {
	Opened    []Opened    `json:",omitempty"` // by the owner
	Reopened  []Reopened  `json:",omitempty"` // by the owner
	Committed []Committed `json:",omitempty"` // by the leader that proposed the change
}

// Opened says how long it took the owner of a group to open it.
type Opened struct {
	Group                    string
	Epoch                    uint64
	Waited, Bound, Announced time.Duration // as in Phases
}

// Reopened says that the owner of a group had let it go, and holds it again in the same
// epoch. It is an event of its own, if the epoch is still the group's.
type Reopened struct {
	Group string
	Epoch uint64
	Dark  time.Duration // for how long nobody held it; zero: not known
	Why   string        // why it was let go
}

// Committed says how long it took until a change of owner was committed.
type Committed struct {
	Group string
	Epoch uint64
	Took  time.Duration
}

// maxWhy bounds what the history keeps of a reason in words, in bytes.
const maxWhy = 64

// record appends an event, and forgets the oldest when there are too many.
func (s *State) record(e Event) {
	s.Events = append(slices.Clone(s.Events[max(0, len(s.Events)+1-HistoryLength):]), &e)
}

// Change returns the event by which a group got this epoch, if it is remembered.
func (s *State) Change(group string, epoch uint64) (*Event, bool) {
	if i := s.find(group, epoch); i >= 0 {
		return s.Events[i], true
	}
	return nil, false
}

// find is the place of that event; -1: there is none.
func (s *State) find(group string, epoch uint64) int {
	for i := len(s.Events) - 1; i >= 0 && s.Events[i].Index >= epoch; i-- {
		if e := s.Events[i]; e.Kind == EventOwner && e.Group == group && e.Index == epoch {
			return i
		}
	}
	return -1
}

// EventsAfter returns what is new, or was reported on, behind a log index, oldest first.
func (s *State) EventsAfter(index uint64) []*Event {
	var out []*Event
	for _, e := range s.Events {
		if max(e.Index, e.Updated) > index {
			out = append(out, e)
		}
	}
	return out
}

// darkBefore is for how long a group has been without anybody who holds it when it is
// given to another, besides what the phases of that change say.
func (s *State) darkBefore(e Event, seen uint64) time.Duration {
	last, ok := s.Change(e.Group, seen)
	switch {
	case !ok:
		return 0
	case e.Reason == ReasonRestore:
		return max(0, e.At.Sub(last.At))
	case e.Reason == ReasonNotOpen && !last.Opened && !last.Reason.untilTold():
		return last.Before + last.Phases.Detected + last.Phases.Elected + last.Phases.Committed
	}
	return 0
}

// report applies a Report: for each epoch the first word counts.
func (s *State) report(index uint64, c Command) {
	r := c.Report
	s.Events = slices.Clone(s.Events)
	for _, o := range r.Opened {
		s.amend(index, o.Group, o.Epoch, func(e *Event) bool {
			if e.Opened {
				return false
			}
			e.Opened = true
			e.Phases.Waited, e.Phases.Bound, e.Phases.Announced = max(0, o.Waited), max(0, o.Bound), max(0, o.Announced)
			return true
		})
	}
	for _, o := range r.Reopened {
		if a := s.Assignments[o.Group]; a.Epoch == o.Epoch && !a.Owner.IsZero() {
			s.record(Event{Index: index, At: c.At, Kind: EventReopened, Group: o.Group, To: a.Owner, Before: max(0, o.Dark), Why: strings.ToValidUTF8(o.Why[:min(len(o.Why), maxWhy)], "")})
		}
	}
	for _, c := range r.Committed {
		s.amend(index, c.Group, c.Epoch, func(e *Event) bool {
			if e.Phases.Committed != 0 {
				return false
			}
			e.Phases.Committed = max(0, c.Took)
			return true
		})
	}
}

// amend puts a changed copy of an event in its place, if there is one and it is changed.
func (s *State) amend(index uint64, group string, epoch uint64, change func(*Event) bool) {
	i := s.find(group, epoch)
	if i < 0 {
		return
	}
	if e := *s.Events[i]; change(&e) {
		e.Updated = index
		s.Events[i] = &e
	}
}

// note records what a command that was applied did, but for what assign and replace
// record themselves.
func (s *State) note(was *State, index uint64, c Command) {
	e := Event{Index: index, At: c.At}
	switch {
	case c.Form != nil:
		e.Kind, e.Revision = EventFormed, s.Document.Revision
	case c.Lead != nil:
		if !s.Formed() || was.Term == s.Term { // said twice in one term
			return
		}
		e.Kind, e.Node, e.Term = EventLeader, c.Lead.Node, s.Term
	case c.Enrol != nil:
		before, known := was.Nodes[c.Enrol.Node.ID]
		if before == c.Enrol.Node {
			return
		}
		e.Kind, e.Node = EventJoined, c.Enrol.Node.ID
		if known {
			e.Kind = EventChanged
		}
	case c.Drain != nil:
		if was.Drained[c.Drain.Node] == c.Drain.Drained {
			return
		}
		e.Kind, e.Node, e.By = EventUndrain, c.Drain.Node, c.Drain.By
		if c.Drain.Drained {
			e.Kind = EventDrain
		}
	case c.Retire != nil:
		if len(was.Retired) == len(s.Retired) {
			return
		}
		e.Kind, e.Node, e.By = EventRemoved, c.Retire.Node, c.Retire.By
	default:
		return
	}
	s.record(e)
}
