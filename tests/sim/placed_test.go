package sim

import (
	"maps"
	"slices"
	"sync"
	"testing"
)

// TestPlaced makes runs in which operators work on the cluster, services fail and
// everything else fails too.
func TestPlaced(t *testing.T) {
	estateRuns(t, (*chaosSeeds+23)/24, RunPlaced, "first", "owner-lost", "not-open", "owner-unfit", "move", "shutdown", "document", "owner-gone", "check-failed", "drain",
		"preempt", "apart", "together", "all-fail", "restore", "removed", "joined", "refused")
}

// TestHold makes runs in which some groups are held without a majority.
func TestHold(t *testing.T) { estateRuns(t, (*chaosSeeds+47)/48, RunHold, "both") }

// estateRuns makes runs, which together must be about all that they are for.
func estateRuns(t *testing.T, runs int, run func(seed uint64, story bool) *Chaos, about ...string) {
	var mu sync.Mutex
	seen := map[string]int{}
	manyRuns(t, runs, func(seed uint64, story bool) *Chaos {
		x := run(seed, story)
		mu.Lock()
		defer mu.Unlock()
		for what, n := range x.estate.seen {
			seen[what] += n
		}
		return x
	})
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%-14s %d", what, seen[what])
	}
	for _, what := range about {
		if *chaosSeed < 0 && runs >= 50 && seen[what] == 0 {
			t.Errorf("in %d runs there was no %s: they are too tame", runs, what)
		}
	}
}

// TestStanding makes runs in which something fails and stays so: nothing is passed round
// for ever, and what can be served is.
func TestStanding(t *testing.T) { manyRuns(t, (*chaosSeeds+79)/80, RunStanding) }

// The same seed is the same run here too.
func TestPlacedRepeats(t *testing.T) {
	for seed := range uint64(6) {
		a, b := RunPlaced(seed, true), RunPlaced(seed, true)
		if !slices.Equal(a.Story(), b.Story()) {
			t.Fatalf("seed %d tells two stories, of %d and of %d lines", seed, len(a.Story()), len(b.Story()))
		}
	}
}
