package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

// A tally is what a soak adds up to. done and refuse may be called concurrently.
type tally struct {
	mu      sync.Mutex
	kinds   map[string]int
	refused int
	last    int // faults of the present phase

	phases      int
	failovers   int
	outage      time.Duration
	outageIn    int // the phase of the longest outage
	twoOwners   time.Duration
	left        bool
	starved     time.Duration // in all
	starvedOnly time.Duration
	quiet       time.Duration // the longest outage while only starved
	blind       time.Duration // the longest time then in which the probe asked nothing
	wrong       int           // false failovers while only starved
	leaders     int           // changes of leader while only starved
}

func newTally() *tally { return &tally{kinds: map[string]int{}} }

func (t *tally) done(fault string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kinds[fault]++
	t.last++
}

func (t *tally) refuse() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused++
}

func (t *tally) starve(d time.Duration, only bool) {
	t.starved += d
	if only {
		t.starvedOnly += d
	}
}

func (t *tally) phase(p phase, v lab.Verdict, failovers int) {
	t.phases++
	t.failovers += failovers
	t.twoOwners += v.TwoOwners
	t.left = t.left || v.Left
	outage := max(v.Outage, v.Outage6)
	if outage > t.outage {
		t.outage, t.outageIn = outage, p.Number
	}
	if p.Kind == starved {
		t.quiet, t.blind = max(t.quiet, outage), max(t.blind, v.Blind)
	}
}

// A summary is the tally as summary.json has it.
type summary struct {
	OK              bool           `json:"ok"`
	Broken          string         `json:"broken,omitempty"`
	Seed            uint64         `json:"seed"`
	Nodes           int            `json:"nodes"`
	Lease           string         `json:"lease"`
	Nice            int            `json:"nice"`
	Length          string         `json:"length"`
	Phases          int            `json:"phases"`
	Faults          map[string]int `json:"faults"`
	Refused         int            `json:"refused"`
	Failovers       int            `json:"failovers"`
	LongestOutageMS int64          `json:"longest_outage_ms"`
	TwoOwnersMS     int64          `json:"two_owners_ms"`
	KeepalivedLeft  bool           `json:"keepalived_left"`
	Starved         string         `json:"starved"`
	StarvedOnly     string         `json:"starved_only"`
	StarvedOutageMS int64          `json:"starved_only_longest_outage_ms"`
	StarvedBlindMS  int64          `json:"starved_only_longest_unasked_ms"`
	FalseFailovers  int            `json:"false_failovers"`
	LeaderChanges   int            `json:"starved_only_leader_changes"`
}

// report prints and writes what it all came to.
func (s *soak) report(broken error) error {
	t, length := s.tally, lab.Now().Sub(s.journal.start).Round(time.Second)
	sum := summary{
		OK: broken == nil || errors.Is(broken, errInterrupted), Seed: s.opt.seed, Nodes: s.opt.nodes, Lease: s.opt.lease.String(), Nice: s.opt.nice,
		Length: length.String(), Phases: t.phases, Faults: t.kinds, Refused: t.refused, Failovers: t.failovers,
		LongestOutageMS: t.outage.Milliseconds(), TwoOwnersMS: t.twoOwners.Milliseconds(), KeepalivedLeft: t.left,
		Starved: t.starved.Round(time.Second).String(), StarvedOnly: t.starvedOnly.Round(time.Second).String(),
		StarvedOutageMS: t.quiet.Milliseconds(), StarvedBlindMS: t.blind.Milliseconds(), FalseFailovers: t.wrong, LeaderChanges: t.leaders,
	}
	if broken != nil {
		sum.Broken = broken.Error()
	}
	s.journal.add(entry{What: "end", Detail: sum})
	all := 0
	var kinds []string
	for _, k := range slices.Sorted(maps.Keys(t.kinds)) {
		all += t.kinds[k]
		kinds = append(kinds, fmt.Sprintf("%s %d", k, t.kinds[k]))
	}
	kept := "stayed Backup"
	if t.left {
		kept = "LEFT BACKUP"
	}
	fmt.Printf(`
seed %d, %d phases in %v
faults injected   %d: %s
                  %d commands were refused, or asked of a node that could not answer
failovers         %d changes of owner, seen from outside
longest outage    %d ms, in phase %d; faults may leave nobody a majority
two owners        %d ms
keepalived        %s
starved           %v, of which %v without any fault:
                  %d false failovers, %d changes of leader, longest time without an answer %d ms,
                  of which the probe may not have asked for %d ms
`, s.opt.seed, t.phases, length, all, strings.Join(kinds, ", "), t.refused, t.failovers, sum.LongestOutageMS, t.outageIn,
		sum.TwoOwnersMS, kept, sum.Starved, sum.StarvedOnly, t.wrong, t.leaders, sum.StarvedOutageMS, sum.StarvedBlindMS)
	fmt.Printf("Written: %s\n", s.journal.dir)
	return errors.Join(s.journal.write("summary.json", sum), s.journal.close())
}

// evidence is what the observers recorded round a violation, and what the nodes say.
type evidence struct {
	Started  lab.Instant           `json:"started"`
	Probes   []lab.Trace           `json:"probes"`
	Client   lab.Trace             `json:"client"`
	Adverts  []lab.Advert          `json:"adverts"`
	Holdings []lab.Holding         `json:"holdings"`
	Status   map[string]lab.Status `json:"status"`
	Silent   map[string]string     `json:"silent"` // nodes that do not answer, and why
}

// keep saves what there is about a violation in the phase of that number, while the
// cluster still stands.
func (s *soak) keep(number int) error {
	replay := fmt.Sprintf("make soak SEED=%d FROM=%d NODES=%d LEASE=%v NICE=%d", s.opt.seed, number, s.opt.nodes, s.opt.lease, s.opt.nice)
	fmt.Printf("\nsomething is broken in phase %d; the same faults again: %s\n", number, replay)
	errs := []error{os.WriteFile(filepath.Join(s.journal.dir, "replay"), []byte(replay+"\n"), 0o644)}
	if s.cluster != nil {
		errs = append(errs, s.journal.write("traces.json", s.evidence()))
	}
	return errors.Join(append(errs, copyLogs(s.lab.Dir(), filepath.Join(s.journal.dir, "logs")))...)
}

// before is how much of the time before its end a violation's traces show.
const before = 2 * time.Minute

func (s *soak) evidence() evidence {
	c, to := s.cluster, lab.Now()
	from := to.Add(-before)
	e := evidence{
		Started: s.journal.start, Client: c.Client.TraceBetween(from, to),
		Status: map[string]lab.Status{}, Silent: map[string]string{},
	}
	for _, n := range c.Nodes {
		st, err := n.Look(context.Background())
		if err != nil {
			e.Silent[n.Name] = err.Error()
			continue
		}
		e.Status[n.Name] = st
	}
	for _, p := range append(slices.Clone(c.Probes4), c.Probes6...) {
		e.Probes = append(e.Probes, p.TraceBetween(from, to))
	}
	for _, w := range c.Watches {
		e.Adverts = append(e.Adverts, w.Adverts(from, to)...)
		e.Holdings = append(e.Holdings, w.Holdings()...)
	}
	return e
}

// copyLogs copies what is small and explains something; keys and data stay.
func copyLogs(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return fmt.Errorf("keep the logs: %w", err)
	}
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		switch filepath.Ext(path) {
		case ".log", ".yaml", ".conf":
		default:
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("keep the logs: %w", err)
		}
		return os.WriteFile(filepath.Join(to, filepath.Base(path)), b, 0o644)
	})
}
