// Package health runs the document's checks on this node and reports what they say.
//
// Each check has a goroutine and a schedule of its own: one that hangs delays nothing
// else. There is at most one run of a check at a time; what counts, and when, is
// decided in verdict.go, without a clock.
package health

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/fsm"
)

// Options is what a Checker needs. All fields are needed.
type Options struct {
	Node string // this node's name, for commands
	// Report is told the first result of a check, each change of it, and once more when
	// the check itself was changed. Why is one line: what failed; empty if it passes. It
	// is called from several goroutines and must not block.
	Report func(check string, pass bool, why string)
	Log    *slog.Logger
}

// A Checker runs the checks of a document. Update may be called from any goroutine.
type Checker struct {
	opt     Options
	build   func(s spec, node string) probe // tests have others
	poke    chan struct{}                   // holds a token while there is something to converge to
	mu      sync.Mutex
	want    []spec
	dropped []string       // see wanted
	runs    sync.WaitGroup // runs that have not returned
}

// A spec is a check, and what its command is told.
type spec struct {
	check  fsm.Check
	groups string // names of the groups that it counts for, separated by spaces
}

// sameRun reports whether the two are run in the same way at the same times.
func (s spec) sameRun(o spec) bool {
	a, b := s.check, o.check
	a.Rise, a.Fall, a.Weight = b.Rise, b.Fall, b.Weight
	return sameCheck(a, b)
}

func (s spec) same(o spec) bool { return s.groups == o.groups && sameCheck(s.check, o.check) }

func sameCheck(a, b fsm.Check) bool {
	if !samePointer(a.HTTP, b.HTTP) || !samePointer(a.File, b.File) {
		return false
	}
	if (a.Command == nil) != (b.Command == nil) ||
		a.Command != nil && (a.Command.User != b.Command.User || !slices.Equal(a.Command.Argv, b.Command.Argv)) {
		return false
	}
	a.HTTP, a.File, a.Command = b.HTTP, b.File, b.Command
	return a == b
}

func samePointer[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// New returns a Checker without checks; Run works.
func New(opt Options) *Checker { return &Checker{opt: opt, build: build, poke: make(chan struct{}, 1)} }

// Update has the checks of this document run from now on. Those that did not change
// go on undisturbed. One that did keeps its verdict until its new form has enough
// results in a row to change it.
func (c *Checker) Update(doc fsm.Document) {
	want := make([]spec, 0, len(doc.Checks))
	for _, check := range doc.Checks {
		var groups []string
		for _, g := range doc.Groups {
			if slices.Contains(g.Checks, check.Name) {
				groups = append(groups, g.Name)
			}
		}
		want = append(want, spec{check, strings.Join(groups, " ")})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.want {
		if !has(want, s.check.Name) {
			c.dropped = append(c.dropped, s.check.Name)
		}
	}
	c.want = want
	select {
	case c.poke <- struct{}{}:
	default:
	}
}

// wanted also returns the names of the checks that a document since the last call did
// not have, though the present one may have them again: what was reported of those was
// forgotten, so they begin anew.
func (c *Checker) wanted() (want []spec, dropped []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dropped, c.dropped = c.dropped, nil
	return c.want, dropped
}

func has(specs []spec, name string) bool {
	return slices.ContainsFunc(specs, func(s spec) bool { return s.check.Name == name })
}

// stopWait is for how long runs are waited for at the end. One that hangs in the kernel
// is left behind.
const stopWait = time.Second

// Run runs the checks until ctx ends; then it kills what still runs. It never fails.
// Call it once.
func (c *Checker) Run(ctx context.Context) error {
	watches := map[string]*watch{}
	for {
		select {
		case <-c.poke:
			c.converge(ctx, watches)
		case <-ctx.Done():
			for _, w := range watches {
				w.stop()
			}
			c.awaitRuns()
			return nil
		}
	}
}

// converge starts, changes and stops watches, so that they are those wanted.
func (c *Checker) converge(ctx context.Context, watches map[string]*watch) {
	want, dropped := c.wanted()
	for name, w := range watches {
		if !has(want, name) || slices.Contains(dropped, name) {
			w.stop()
			delete(watches, name)
		}
	}
	for _, s := range want {
		w, ok := watches[s.check.Name]
		switch {
		case !ok:
			watches[s.check.Name] = c.watch(ctx, s)
		case !w.spec.same(s):
			w.spec = s
			w.changes <- s
		}
	}
}

// awaitRuns returns when all runs have returned, or after stopWait.
func (c *Checker) awaitRuns() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.runs.Wait()
	}()
	select {
	case <-done:
	case <-time.After(stopWait):
		c.opt.Log.Warn("a check hangs in the kernel; the daemon ends without it")
	}
}
