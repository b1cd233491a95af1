package bubble

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seeds = flag.Int("bubble.seeds", 10, "how many runs TestBubble makes")
	seed  = flag.Int64("bubble.seed", -1, "make only this run of TestBubble, and tell its story")
)

const (
	faultsPerRun = 30
	// formBound is for a cluster that starts with empty disks.
	formBound = 30 * time.Second
	// takeoverBound is within how long another host must serve when the owner of a
	// cluster that is well was killed: a lease and its grace, and Raft's own timers,
	// should every campaign fail.
	takeoverBound = 3 * time.Second
	// settleBound is within how long each address must be served by one host again
	// when all faults are over. The longest that a rule alone may take is 10 s: an
	// instance that was heard from two boots in turn is under alarm for so long.
	settleBound = 20 * time.Second
	stopBound   = 30 * time.Second
)

// TestBubble makes many runs with faults of every kind, and asks: could two hosts
// ever answer for one address, did anybody speak for one without a fence, is
// everything served again when all is well, and is nothing left at the end?
func TestBubble(t *testing.T) {
	list := []uint64{uint64(*seed)}
	if *seed < 0 {
		list = list[:0]
		for s := range uint64(*seeds) {
			list = append(list, s)
		}
	}
	sum := stats{takeovers: map[string][]time.Duration{}}
	for _, s := range list {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { sum.add(chaos(t, s, *seed >= 0)) })
		})
	}
	t.Logf("%d runs, %d faults; an address was opened %d times; %d announcements and adverts left, %d were kept back by a fence",
		len(sum.settled), sum.faults, sum.handed, sum.spoken, sum.dropped)
	for _, what := range slices.Sorted(maps.Keys(sum.takeovers)) {
		t.Logf("an owner that %s: another host served after %s", what, spread(sum.takeovers[what]))
	}
	t.Logf("settled after the last fault: %s", spread(sum.settled))
}

func (s *stats) add(o stats) {
	for what, took := range o.takeovers {
		s.takeovers[what] = append(s.takeovers[what], took...)
	}
	s.settled = append(s.settled, o.settled...)
	s.faults, s.handed, s.spoken, s.dropped = s.faults+o.faults, s.handed+o.handed, s.spoken+o.spoken, s.dropped+o.dropped
}

// spread is the median and the maximum.
func spread(of []time.Duration) string {
	if len(of) == 0 {
		return "never seen"
	}
	of = slices.Sorted(slices.Values(of))
	return fmt.Sprintf("median %v, maximum %v, of %d", of[len(of)/2].Round(time.Millisecond), of[len(of)-1].Round(time.Millisecond), len(of))
}

// chaos is one run: of three hosts, of five, or of three that a fourth joins while
// everything fails.
func chaos(t *testing.T, s uint64, story bool) stats {
	n, founders := 3, 3
	switch s % 4 {
	case 2:
		n = 4
	case 3:
		n, founders = 5, 5
	}
	c := newCluster(t, n, s)
	c.founders, c.verbose = founders, story
	c.form()
	for _, l := range losses {
		c.stats.takeovers[l.name] = append(c.stats.takeovers[l.name], c.takeover(l))
	}
	for _, h := range c.hosts[founders:] {
		h.start()
	}
	c.turnWeather()
	for range faultsPerRun {
		c.run(c.jitter(0, 2*lease))
		c.fault()
	}
	c.heal()
	c.stats.settled = append(c.stats.settled, c.settle(settleBound))
	c.agree()
	c.stopAll()
	wrong := c.judge.verdict()
	if story || len(wrong) > 0 {
		t.Logf("the story of seed %d:\n%s", s, c.judge.text())
	}
	if len(wrong) > 0 {
		t.Errorf("seed %d: %s", s, strings.Join(wrong, "\n"))
	}
	c.stats.handed, c.stats.spoken, c.stats.dropped = c.judge.handed, c.judge.spoken, c.judge.dropped
	return c.stats
}

// A loss is one way in which a cluster that is well loses an owner.
type loss struct {
	name  string
	begin func(c *cluster, h *host)
	mend  func(c *cluster, h *host)
}

var losses = []loss{
	{"is killed", func(_ *cluster, h *host) { h.life.kill(false) }, func(_ *cluster, h *host) { h.start() }},
	{"loses its power", func(_ *cluster, h *host) { h.life.kill(true) }, func(_ *cluster, h *host) { h.start() }},
	{"is cut off", (*cluster).cutOff, func(c *cluster, _ *host) { c.net.mendAll() }},
	{"freezes", func(_ *cluster, h *host) { h.life.gate.shut() }, func(_ *cluster, h *host) { h.life.gate.open() }},
}

// takeover has the owner of a cluster that is well be lost, and returns how long it
// took until another host served in its place.
func (c *cluster) takeover(l loss) time.Duration {
	c.t.Helper()
	old := c.owner()
	c.run(c.jitter(0, 4*lease))
	c.judge.tell("the owner %s %s", old.name(), l.name)
	l.begin(c, old)
	took := c.await("another owner", takeoverBound, func() bool {
		k := c.judge.server(vips[0])
		return k != nil && k != old.kernel
	})
	c.judge.tell("%s served after %v", vips[0], took)
	l.mend(c, old)
	c.settle(settleBound)
	return took
}
