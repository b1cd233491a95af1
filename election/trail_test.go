package election

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/quorate/quorate/fsm"
)

// A plainLog is a log that forgets nothing, to compare a trail with.
type plainLog struct {
	rng       *rand.Rand
	term      uint64
	terms     []uint64 // of the entries, by index - 1
	sets      []VoterSet
	committed uint64
}

func (p *plainLog) end() uint64 { return uint64(len(p.terms)) }

// store appends some entries and returns the sets in them.
func (p *plainLog) store() []VoterSet {
	var sets []VoterSet
	for range 1 + p.rng.IntN(3) {
		p.terms = append(p.terms, p.term)
		if p.rng.IntN(3) == 0 {
			sets = append(sets, VoterSet{Term: p.term, Index: p.end(), Voters: p.someVoters()})
		}
	}
	p.sets = append(p.sets, sets...)
	return sets
}

// someVoters returns one of few sets, so that some that follow each other are equal.
func (p *plainLog) someVoters() []fsm.InstanceID {
	return []fsm.InstanceID{{1}, {2}, {3}, {4}}[:2+p.rng.IntN(3)]
}

// cut goes on to a later term, whose leader lacks some of what is not committed, and
// returns the first index that is cut off.
func (p *plainLog) cut() uint64 {
	p.term++
	first := p.someOpen() + 1
	p.terms = p.terms[:first-1]
	p.sets = slices.DeleteFunc(p.sets, func(s VoterSet) bool { return s.Index >= first })
	return first
}

// someOpen is an index from the committed one to the last.
func (p *plainLog) someOpen() uint64 { return p.committed + p.rng.Uint64N(p.end()-p.committed+1) }

// committedSet is the set in force at the end of what is committed.
func (p *plainLog) committedSet() VoterSet {
	var set VoterSet
	for _, s := range p.sets {
		if s.Index <= p.committed {
			set = s
		}
	}
	return set
}

// view is the last two sets that differ, each where it was made.
func (p *plainLog) view() VoterLog {
	made := slices.CompactFunc(slices.Clone(p.sets), func(a, b VoterSet) bool { return slices.Equal(a.Voters, b.Voters) })
	var l VoterLog
	if n := len(made); n > 0 {
		l.Last, l.LastCommitted = made[n-1], made[n-1].Index <= p.committed
		if n > 1 {
			l.Previous = made[n-2]
		}
	}
	return l
}

// step does one thing to the log and to a trail, and says what, and whether the trail
// reported a change.
func (p *plainLog) step(trail *VoterTrail) (string, bool) {
	switch end := p.end(); p.rng.IntN(8) {
	case 0:
		return "cut off", trail.Deleted(p.cut(), end)
	case 1:
		first := p.cut()
		return "replaced without a word", trail.Stored(first, p.store()...)
	case 2:
		p.committed = p.someOpen()
		return "committed", trail.Commit(p.committed)
	case 3:
		if p.committed == 0 {
			break
		}
		changed := trail.Snapshot(p.terms[p.committed-1], p.committed, p.committedSet())
		return "compacted", trail.Deleted(1, p.committed) || changed
	case 4:
		if p.committed == 0 {
			break
		}
		old := p.committed - 1
		changed := trail.Commit(old)
		return "told again what is old", trail.Snapshot(p.term, old, VoterSet{Index: old, Voters: p.someVoters()}) || changed
	}
	first := p.end() + 1
	return "stored", trail.Stored(first, p.store()...)
}

// TestVoterTrail: whatever is stored, replaced, cut off, committed and compacted, the
// view is that of a log which forgets nothing, and a change is reported exactly when
// there is one.
func TestVoterTrail(t *testing.T) {
	for seed := range uint64(200) {
		var trail VoterTrail
		log := plainLog{rng: rand.New(rand.NewPCG(seed, 3)), term: 1}
		for range 200 {
			was := trail.View()
			what, changed := log.step(&trail)
			got, want := trail.View(), log.view()
			if !got.Equal(want) {
				t.Fatalf("seed %d, %s:\n got %+v\nwant %+v", seed, what, got, want)
			}
			if changed == got.Equal(was) {
				t.Fatalf("seed %d, %s: changed is %v, from %+v to %+v", seed, what, changed, was, got)
			}
		}
	}
}
