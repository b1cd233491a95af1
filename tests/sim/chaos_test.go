package sim

import (
	"flag"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	chaosSeeds = flag.Int("seeds", 2400/slowdown, "how many runs TestChaos makes; TestPlanned makes a quarter")
	chaosFirst = flag.Uint64("first", 0, "the seed of the first of them")
	chaosSeed  = flag.Int64("seed", -1, "make only this run of TestChaos, and tell its story")
)

// TestChaos makes many runs in each of which everything fails, and asks: did two
// hosts ever answer for one address, was an address open without a fence, did
// anybody speak without holding, did an epoch step back, and is every address held
// again when all is well?
func TestChaos(t *testing.T) { manyRuns(t, *chaosSeeds, RunChaos) }

// TestPlanned asks the same while nodes are drained and removed, services fail, and the
// placement moves groups for all of that.
func TestPlanned(t *testing.T) { manyRuns(t, (*chaosSeeds+3)/4, RunPlanned) }

func manyRuns(t *testing.T, runs int, run func(seed uint64, story bool) *Chaos) {
	if *chaosSeed >= 0 {
		x := run(uint64(*chaosSeed), true)
		for _, line := range x.Story() {
			t.Log(line)
		}
		if wrong := x.Wrong(); wrong != "" {
			t.Fatal(wrong)
		}
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // a run leaves much and keeps nothing
	var next atomic.Uint64
	var all sync.WaitGroup
	var mu sync.Mutex
	var worst time.Duration
	failed := 0
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < uint64(runs); i = next.Add(1) - 1 {
				seed := *chaosFirst + i
				x := run(seed, false)
				mu.Lock()
				worst = max(worst, x.Settled)
				if wrong := x.Wrong(); wrong != "" {
					failed++
					t.Errorf("seed %d: %s\n\tits story: go test ./tests/sim -run '%s$' -v -seed %d", seed, wrong, t.Name(), seed)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	t.Logf("%d runs, %d failed; settled at worst %v after all was well", runs, failed, worst)
}

// Processes that restart within their lease keep their addresses often enough for TestChaos
// to say something of that.
func TestChaosKeepsAddresses(t *testing.T) {
	t.Parallel()
	kept := 0
	const runs = 100
	for seed := range uint64(runs) {
		kept += RunChaos(seed, false).watch.carried
	}
	if t.Logf("%d addresses were kept over a restart in %d runs", kept, runs); kept < runs/25 {
		t.Errorf("%d addresses were kept over a restart in %d runs, want four at least", kept, runs)
	}
}

// The same seed is the same run: otherwise a failure could not be replayed.
func TestChaosRepeats(t *testing.T) {
	for i := range uint64(24 / slowdown) {
		seed, run := i, RunChaos
		if i%3 == 0 {
			run = RunPlanned
		}
		a, b := run(seed, true), run(seed, true)
		if !slices.Equal(a.Story(), b.Story()) {
			t.Fatalf("seed %d tells two stories, of %d and of %d lines", seed, len(a.Story()), len(b.Story()))
		}
	}
}
