package fsm

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// RevisionsKept is how many documents the state remembers, the present one included.
const RevisionsKept = 32

// State is the replicated state at one log index. Treat a State that was handed
// to you as read-only: Apply returns a new one and shares what did not change, so
// any number of goroutines may read the same State.
type State struct {
	Cluster     ClusterID
	Name        string // the cluster's name, for people
	Index, Term uint64 // of the last command applied
	Nodes       map[InstanceID]Node
	// Drained are the nodes that are to own nothing; absent: not drained.
	Drained map[InstanceID]bool `json:",omitempty"`
	// Retired are the nodes that were removed, as they were last: those instances cannot
	// come back. Where they listened is kept, for they are to be told.
	Retired     map[InstanceID]Node `json:",omitempty"`
	Document    Document
	Revisions   []Revision            // oldest first, the present one last, at most RevisionsKept
	Assignments map[string]Assignment // by group; absent: never had an owner
	Events      []*Event              // oldest first, at most HistoryLength
}

// A Revision is one document that the cluster had.
type Revision struct {
	Revision uint64
	At       time.Time // the proposing leader's wall clock; for people only
	By       string    // who asked for it; empty: the document that the cluster was formed with
	Document Document
}

// Revision returns the document of that revision, if the state still remembers it.
func (s *State) Revision(n uint64) (Revision, bool) {
	for _, r := range s.Revisions {
		if r.Revision == n {
			return r, true
		}
	}
	return Revision{}, false
}

// Formed reports whether the cluster exists.
func (s *State) Formed() bool { return !s.Cluster.IsZero() }

// NodeByName returns the node of that name.
func (s *State) NodeByName(name string) (Node, bool) {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return Node{}, false
}

// Apply returns the state after command c at the given log index and term. On an
// error nothing changed but Index and Term: the entry is in everyone's log and
// everyone refuses it alike.
func (s *State) Apply(index, term uint64, c Command) (*State, error) {
	next := *s
	next.Index, next.Term = index, term
	var err error
	switch {
	case c.Lead != nil: // only Index and Term, see Lead
	case c.Form != nil:
		err = next.form(c)
	case !s.Formed():
		err = ErrNotFormed
	case c.Assign != nil:
		err = next.assign(index, c)
	case c.Replace != nil:
		err = next.replace(index, c)
	case c.Enrol != nil:
		err = next.enrol(c.Enrol.Node)
	case c.Drain != nil:
		err = next.drain(c.Drain)
	case c.Retire != nil:
		err = next.retire(c.Retire.Node)
	case c.Report != nil:
		next.report(index, c)
	}
	if err != nil {
		unchanged := *s
		unchanged.Index, unchanged.Term = index, term
		return &unchanged, err
	}
	next.note(s, index, c)
	return &next, nil
}

func (s *State) form(c Command) error {
	f := c.Form
	if s.Formed() {
		return ErrFormed
	}
	if err := f.Document.Check(); err != nil {
		return err
	}
	s.Nodes = map[InstanceID]Node{}
	for _, n := range f.Nodes {
		if err := s.enrol(n); err != nil {
			return err
		}
	}
	s.Cluster, s.Name = f.Cluster, f.Name
	s.Document = f.Document
	s.Document.Revision = 1
	s.remember(c, "")
	s.Assignments = map[string]Assignment{}
	return nil
}

func (s *State) assign(index uint64, c Command) error {
	a := c.Assign
	if _, ok := s.Document.Group(a.Group); !ok {
		return fmt.Errorf("assign %q: %w", a.Group, ErrUnknown)
	}
	if _, ok := s.Nodes[a.Owner]; !ok && (!a.Owner.IsZero() || a.Reason != ReasonAllFail) {
		return fmt.Errorf("assign %q to %s: %w", a.Group, a.Owner.Short(), ErrUnknown)
	}
	if s.Assignments[a.Group].Epoch != a.Seen {
		return fmt.Errorf("assign %q: decided at epoch %d, now at %d: %w", a.Group, a.Seen, s.Assignments[a.Group].Epoch, ErrStale)
	}
	s.setOwner(index, *a, c)
	return nil
}

func (s *State) setOwner(index uint64, a Assign, c Command) {
	was := s.Assignments[a.Group]
	s.Assignments = cloned(s.Assignments)
	s.Assignments[a.Group] = Assignment{Owner: a.Owner, Epoch: index, Reason: a.Reason}
	e := Event{Index: index, At: c.At, Kind: EventOwner, Group: a.Group, From: was.Owner, To: a.Owner, Reason: a.Reason,
		Phases: Phases{Detected: max(0, a.Detected), Elected: max(0, a.Elected)}}
	e.Before = s.darkBefore(e, was.Epoch)
	s.record(e)
}

// replace puts in a new document. A group whose addresses or device changed gets
// a new epoch under the same owner: voters then know that what they confirmed
// before was for other addresses (lease.md, V7). A group that is gone loses its
// assignment; the notes of the voters run on regardless. So may holds of the old
// MaxHold, which changes of the voter set are spaced by: it only grows.
func (s *State) replace(index uint64, c Command) error {
	if c.Replace.Seen != s.Document.Revision {
		return fmt.Errorf("replace the document: decided at revision %d, now at %d: %w", c.Replace.Seen, s.Document.Revision, ErrStale)
	}
	doc := c.Replace.Document
	if err := doc.Check(); err != nil {
		return err
	}
	old := s.Document
	doc.Revision = old.Revision + 1
	doc.MaxHold = max(old.MaxHold, doc.MaxHold)
	s.Document = doc
	s.remember(c, c.Replace.By)
	s.record(Event{Index: index, At: c.At, Kind: EventDocument, Revision: doc.Revision, By: c.Replace.By})
	s.Assignments = cloned(s.Assignments)
	for name := range s.Assignments {
		if _, ok := doc.Group(name); !ok {
			delete(s.Assignments, name)
		}
	}
	for _, g := range doc.Groups {
		was, had := old.Group(g.Name)
		if a := s.Assignments[g.Name]; !a.Owner.IsZero() && had && !SameReach(was, g) {
			s.setOwner(index, Assign{Group: g.Name, Owner: a.Owner, Reason: ReasonDocument}, c)
		}
	}
	return nil
}

// remember keeps the present document among the revisions.
func (s *State) remember(c Command, by string) {
	kept := s.Revisions[max(0, len(s.Revisions)+1-RevisionsKept):]
	s.Revisions = append(slices.Clone(kept), Revision{Revision: s.Document.Revision, At: c.At, By: by, Document: s.Document})
}

// SameReach reports whether two versions of a group answer for the same
// addresses on the same devices, where they stand in the same way. Routes and rules are
// not part of it: they follow the addresses, and nobody else has to know.
//
//quorate:rule reach-is-epoch
func SameReach(a, b Group) bool {
	sameDevice := a.Interface == b.Interface && a.VMAC == b.VMAC && (!a.VMAC || a.VRRP.ID == b.VRRP.ID)
	return sameDevice && slices.Equal(a.Addresses, b.Addresses) &&
		!slices.ContainsFunc(b.Addresses, func(p netip.Prefix) bool { return a.Standing(p.Addr()) != b.Standing(p.Addr()) })
}

func (s *State) enrol(n Node) error {
	if n.ID.IsZero() || n.Name == "" || !n.Address.IsValid() {
		return fmt.Errorf("enrol node %q (%s) at %s: %w", n.Name, n.ID.Short(), n.Address, ErrUnknown)
	}
	if other, ok := s.NodeByName(n.Name); ok && other.ID != n.ID {
		return fmt.Errorf("enrol instance %s as %q: it belongs to instance %s: %w", n.ID.Short(), n.Name, other.ID.Short(), ErrNameTaken)
	}
	if was, ok := s.Retired[n.ID]; ok {
		return fmt.Errorf("enrol instance %s as %q: it was node %q and has been removed; start it with an empty data_dir to join as a new one: %w",
			n.ID.Short(), n.Name, was.Name, ErrRetired)
	}
	s.Nodes = cloned(s.Nodes)
	s.Nodes[n.ID] = n
	return nil
}

func (s *State) drain(d *Drain) error {
	if _, ok := s.Nodes[d.Node]; !ok {
		return fmt.Errorf("drain node %s: %w", d.Node.Short(), ErrUnknown)
	}
	s.Drained = without(s.Drained, d.Node)
	if d.Drained {
		s.Drained = cloned(s.Drained)
		s.Drained[d.Node] = true
	}
	return nil
}

func (s *State) retire(id InstanceID) error {
	n, ok := s.Nodes[id]
	if _, done := s.Retired[id]; done {
		return nil
	}
	if !ok {
		return fmt.Errorf("remove node %s: %w", id.Short(), ErrUnknown)
	}
	if len(s.Nodes) == 1 { // two that remove each other at once
		return fmt.Errorf("remove node %q: it is the last one by now: %w", n.Name, ErrStale)
	}
	s.Nodes, s.Drained, s.Retired = without(s.Nodes, id), without(s.Drained, id), cloned(s.Retired)
	s.Retired[id] = n
	return nil
}

// Encode returns the state as a snapshot.
func (s *State) Encode() ([]byte, error) { return json.Marshal(s) }

// DecodeState reads a snapshot.
func DecodeState(b []byte) (*State, error) {
	s := new(State)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("decode snapshot: %w", err)
	}
	return s, nil
}

func cloned[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return maps.Clone(m)
}

// without is the map without that key; nil if nothing is left, as a snapshot has it.
func without[K comparable, V any](m map[K]V, key K) map[K]V {
	out := cloned(m)
	delete(out, key)
	if len(out) == 0 {
		return nil
	}
	return out
}
