package raftmodel

import (
	"fmt"
	"maps"
	"math/bits"
	"reflect"
	"slices"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// A checker looks at a cluster from outside after each operation. It keeps its own
// books, and shares nothing with the model's truth.
type checker struct {
	entries map[Position]seen
	chosen  []Position            // committed, by index - 1
	within  []uint64              // the term in which that was so first
	leaders map[uint64]int        // by term
	states  map[uint64]*fsm.State // by index, as recomputed here
	life    []life
	back    int // how often a state stepped back within one life
}

// seen is an entry and what stood before it when it was first seen.
type seen struct {
	Entry
	before Position
}

// life is what was last seen of a server.
type life struct {
	term     uint64
	votedFor int
	voted    uint64
	state    *fsm.State // nil: was not running
}

func (k *checker) init(c *Cluster) {
	*k = checker{entries: map[Position]seen{}, leaders: map[uint64]int{}, states: map[uint64]*fsm.State{}, life: make([]life, c.Len())}
}

// look returns what is wrong now, empty if nothing is.
func (k *checker) look(c *Cluster) string {
	for s := range c.Len() {
		for _, look := range []func(*Cluster, int) string{k.disk, k.matching, k.committed, k.leader, k.state, k.views} {
			if wrong := look(c, s); wrong != "" {
				return fmt.Sprintf("server %d: %s", s, wrong)
			}
		}
	}
	return ""
}

// disk: terms only grow, and a vote is given once in a term.
func (k *checker) disk(c *Cluster, s int) string {
	sv, was := c.servers[s], k.life[s]
	k.life[s] = life{sv.term, sv.votedFor, sv.votedTerm, sv.state}
	if was.state != nil && sv.state != nil && sv.state.Index < was.state.Index {
		k.back++
	}
	if sv.term < was.term || sv.votedTerm < was.voted || sv.votedTerm == was.voted && was.voted > 0 && sv.votedFor != was.votedFor {
		return fmt.Sprintf("term %d, vote in %d for %d; it was %d, %d, %d", sv.term, sv.votedTerm, sv.votedFor, was.term, was.voted, was.votedFor)
	}
	return ""
}

// matching: an entry is the same wherever it stands, and so is all before it.
func (k *checker) matching(c *Cluster, s int) string {
	for i, e := range c.Log(s) {
		now := seen{Entry: e}
		if i > 0 {
			now.before = c.Log(s)[i-1].Position
			if now.before.Index != e.Index-1 || now.before.Term > e.Term {
				return fmt.Sprintf("%+v follows %+v", e.Position, now.before)
			}
		}
		was, ok := k.entries[e.Position]
		if !ok || was.before == (Position{}) {
			k.entries[e.Position] = now
		}
		if ok && was.Entry != e || ok && i > 0 && was.before != (Position{}) && was.before != now.before {
			return fmt.Sprintf("%+v is %+v here and was %+v", e.Position, now, was)
		}
	}
	return ""
}

// committed: at each index one entry is ever committed.
func (k *checker) committed(c *Cluster, s int) string {
	for _, e := range c.Log(s) {
		if e.Index > c.CommitIndex(s) {
			break
		}
		if n := uint64(len(k.chosen)); e.Index == n+1 {
			k.chosen = append(k.chosen, e.Position)
			k.within = append(k.within, c.Term(s))
			if wrong := k.oneVoter(e); wrong != "" {
				return wrong
			}
		} else if e.Index <= n && k.chosen[e.Index-1] != e.Position {
			return fmt.Sprintf("has %+v committed, and %+v was", e.Position, k.chosen[e.Index-1])
		}
	}
	return ""
}

// oneVoter: each committed voter set differs from the one before in one voter.
func (k *checker) oneVoter(e Entry) string {
	if e.Kind != KindConfiguration {
		return ""
	}
	for i := len(k.chosen) - 2; i >= 0; i-- {
		if before := k.entries[k.chosen[i]]; before.Kind == KindConfiguration {
			if bits.OnesCount64(uint64(before.Configuration.Voters^e.Configuration.Voters)) > 1 {
				return fmt.Sprintf("%+v commits %b after %b", e.Position, e.Configuration.Voters, before.Configuration.Voters)
			}
			return ""
		}
	}
	return ""
}

// leader: one in a term, and it has everything that is committed.
func (k *checker) leader(c *Cluster, s int) string {
	if !c.Leads(s) {
		return ""
	}
	term := c.Term(s)
	if other, ok := k.leaders[term]; ok && other != s {
		return fmt.Sprintf("leads in term %d, and so did %d", term, other)
	}
	k.leaders[term] = s
	for i, p := range k.chosen {
		e := c.servers[s].at(p.Index)
		if k.within[i] < term && (e == nil && p.Index > c.Snapshot(s).index() || e != nil && e.Term != p.Term) {
			return fmt.Sprintf("leads in term %d and lacks %+v, committed in term %d", term, p, k.within[i])
		}
	}
	return ""
}

func (s *Snapshot) index() uint64 {
	if s == nil {
		return 0
	}
	return s.Index
}

// state: it is what the committed entries make of an empty one.
func (k *checker) state(c *Cluster, s int) string {
	st := c.State(s)
	if st == nil || st.Index == 0 {
		return ""
	}
	if st.Index > uint64(len(k.chosen)) {
		return fmt.Sprintf("applied entry %d, which is not committed", st.Index)
	}
	want := k.states[st.Index]
	if want == nil {
		want = k.recompute(st.Index)
	}
	if !reflect.DeepEqual(st, want) {
		return fmt.Sprintf("state %+v, want %+v", st, want)
	}
	return ""
}

func (k *checker) recompute(index uint64) *fsm.State {
	st, from := &fsm.State{}, uint64(0)
	for i := range maps.Keys(k.states) {
		if i <= index && i > from {
			st, from = k.states[i], i
		}
	}
	for _, p := range k.chosen[from:index] {
		if e := k.entries[p]; e.Kind == KindCommand {
			st, _ = st.Apply(p.Index, p.Term, *e.Command)
			k.states[p.Index] = st
		}
	}
	return st
}

// views: what a server says of voter sets is what its log and snapshot hold. A set
// that came with a snapshot is under the snapshot's term, and a set that changed
// non-voters only stands where it changed voters last, so positions are not compared.
func (k *checker) views(c *Cluster, s int) string {
	if !c.Up(s) {
		return ""
	}
	var sets []configured
	add := func(conf Configuration, index uint64) {
		if n := len(sets); n == 0 || sets[n-1].Voters != conf.Voters {
			sets = append(sets, configured{conf, index})
		}
	}
	snap := c.Snapshot(s)
	if snap != nil {
		add(snap.Configuration, snap.ConfiguredAt)
	}
	for _, e := range c.Log(s) {
		if e.Kind == KindConfiguration && e.Index > snap.index() {
			add(e.Configuration, e.Index)
		}
	}
	view := c.Voters(s)
	if len(sets) == 0 {
		if !view.Last.IsZero() {
			return fmt.Sprintf("says %+v with an empty log", view)
		}
		return ""
	}
	last := sets[len(sets)-1]
	if !sameVoters(c, view.Last, last) {
		return fmt.Sprintf("says %+v, and the last set is %b", view, last.Voters)
	}
	if len(sets) > 1 && !sameVoters(c, view.Previous, sets[len(sets)-2]) {
		return fmt.Sprintf("says %+v, and the last but one is %b", view, sets[len(sets)-2].Voters)
	}
	if view.LastCommitted && (view.Last.Index > uint64(len(k.chosen)) || view.Last.Index > last.index) {
		return fmt.Sprintf("says %+v, which is not committed", view)
	}
	return ""
}

func sameVoters(c *Cluster, view election.VoterSet, want configured) bool {
	if len(view.Voters) != want.Voters.Len() || !slices.IsSortedFunc(view.Voters, func(a, b fsm.InstanceID) int { return slices.Compare(a[:], b[:]) }) {
		return false
	}
	for s := range c.Len() {
		if want.Voters.Has(s) && !view.Has(c.ID(s)) {
			return false
		}
	}
	return true
}
