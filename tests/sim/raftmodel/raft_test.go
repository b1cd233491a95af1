package raftmodel

import (
	"flag"
	"testing"

	"github.com/quorate/quorate/fsm"
)

var seeds = flag.Int("seeds", 300, "how many runs of each kind are made")

// TestIsRaft drives clusters at random and asks after each operation whether what
// Raft promises holds: one leader in a term, equal logs up to an equal entry, one
// entry committed at an index and every later leader has it, equal states, and voter
// sets that change by one.
func TestIsRaft(t *testing.T) {
	for name, kinds := range map[string]runKinds{
		"five voters":    {},
		"members change": {members: true},
		"late snapshots": {late: true, members: true},
		"single entries": {members: true, single: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var progress, leaders, snapshots, back int
			for seed := range uint64(*seeds) {
				x := newRun(seed, kinds).all()
				if err := x.Violation(); x.wrong != "" || err != nil {
					t.Fatalf("seed %d: %s; the model itself says: %v", seed, x.wrong, err)
				}
				progress += len(x.check.chosen)
				leaders += len(x.check.leaders)
				snapshots += len(x.old)
				back += x.check.back
			}
			t.Logf("%d runs: %d entries committed, %d leaders, %d snapshots sent, %d steps back of a state", *seeds, progress, leaders, snapshots, back)
			if n := *seeds; progress < 5*n || leaders < 2*n || snapshots < n/4 || kinds.late && back < n/20 {
				t.Error("too little happened for the test to mean anything")
			}
		})
	}
}

// TestMutants breaks Raft in the ways that its rules forbid. The checker must find
// each, and so must the model itself.
func TestMutants(t *testing.T) {
	each := func(x *run, do func(s int, sv *server)) {
		for s, sv := range x.servers {
			do(s, sv)
		}
	}
	for name, m := range map[string]struct {
		kinds  runKinds
		break_ func(x *run)
	}{
		"votes are forgotten": {runKinds{}, func(x *run) {
			each(x, func(_ int, sv *server) { sv.votedTerm = 0 })
		}},
		"a vote for whoever has an older log": {runKinds{}, func(x *run) {
			each(x, func(s int, sv *server) {
				if sv.role == candidate && x.rng.IntN(4) == 0 {
					x.servers[s].term = x.newestTerm() + 1
					x.lead(s)
				}
			})
		}},
		"what a follower has beyond the message counts as committed": {runKinds{}, func(x *run) {
			each(x, func(s int, sv *server) {
				if l := sv.leader; sv.up && l != nobody && l != s && x.servers[l].role == leader && x.servers[l].term == sv.term {
					if i := min(x.servers[l].commit, sv.last().Index); i > sv.commit {
						x.committed(s, i)
					}
				}
			})
		}},
		"a minority commits": {runKinds{}, func(x *run) {
			each(x, func(s int, sv *server) {
				if i := sv.last().Index; sv.role == leader && i > sv.commit && x.rng.IntN(8) == 0 {
					x.committed(s, i)
				}
			})
		}},
		"a change of voters does not wait for the one before": {runKinds{members: true}, func(x *run) {
			each(x, func(s int, sv *server) {
				if sv.role == leader {
					sv.committed, sv.first = sv.latest, 0
				}
			})
		}},
		"late snapshots take the configuration back": {runKinds{members: true, late: true, lost: true}, nil},
		"disks are lost": {runKinds{}, func(x *run) {
			if x.rng.IntN(40) == 0 {
				s := x.rng.IntN(x.Len())
				x.Wipe(s)
				x.Start(s)
				x.check.life[s] = life{}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m.kinds.mutant = m.break_
			var outside, itself bool
			for seed := range uint64(20 * *seeds) {
				x := newRun(seed, m.kinds).all()
				if x.wrong != "" && !outside {
					outside = true
					t.Logf("the checker, seed %d: %s", seed, x.wrong)
				}
				if err := x.Violation(); err != nil && !itself {
					itself = true
					t.Logf("the model, seed %d: %v", seed, err)
				}
				if outside && itself {
					return
				}
			}
			t.Fatalf("found by the checker: %v; by the model itself: %v", outside, itself)
		})
	}
}

// TestEarlierTerms is the story of figure 8 of the Raft paper: an entry of an earlier
// term is on a majority, and the leader must not count it, for one who lacks it can
// still win. A leader that does count it is found out.
func TestEarlierTerms(t *testing.T) {
	for _, mutant := range []bool{false, true} {
		c := New(fsm.InstanceID{1}, fsm.InstanceID{2}, fsm.InstanceID{3}, fsm.InstanceID{4}, fsm.InstanceID{5})
		for s := range c.Len() {
			c.Start(s)
		}
		among := func(set Set) func(from, to int) bool {
			return func(from, to int) bool { return set.Has(from) && set.Has(to) }
		}
		elect := func(s int, set Set) {
			t.Helper()
			c.Lapse(s)
			for range 2 { // the first try may only teach it the others' term
				if c.Elect(s, Forced, among(set)) {
					return
				}
			}
			t.Fatalf("server %d was not elected", s)
		}
		if err := c.Bootstrap(0, Configuration{Voters: SetOf(0, 1, 2, 3, 4)}); err != nil {
			t.Fatal(err)
		}
		elect(0, SetOf(0, 1, 2)) // term 2: entries 1 and 2 come to all
		for f := 1; f < 5; f++ {
			c.Replicate(0, f, 0, true)
		}
		first, _ := c.Append(0, fsm.Command{Lead: &fsm.Lead{Node: c.ID(0)}}) // to server 1 only
		c.Replicate(0, 1, 0, true)
		elect(4, SetOf(2, 3, 4)) // term 3: an entry at the same index, for itself only
		elect(0, SetOf(0, 1, 2)) // term 4
		if mutant {
			c.servers[0].first = 1
		}
		c.Replicate(0, 1, 0, true)
		c.Replicate(0, 2, first.Index, true) // not the entry of term 4 behind it
		if committed := c.CommitIndex(0) >= first.Index; committed != mutant {
			t.Errorf("mutant %v: the old entry is committed: %v", mutant, committed)
		}
		elect(4, SetOf(2, 3, 4))
		if err := c.Violation(); (err != nil) != mutant {
			t.Errorf("mutant %v: %v", mutant, err)
		}
	}
}

func (x *run) newestTerm() uint64 {
	var t uint64
	for s := range x.Len() {
		t = max(t, x.Term(s))
	}
	return t
}
