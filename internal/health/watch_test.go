package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorate/quorate/fsm"
)

// A bench is a Checker with made-up probes, in virtual time.
type bench struct {
	*Checker
	began time.Time
	mu    sync.Mutex
	told  []string
	runs  map[string][]time.Duration // when runs of a check began
	act   map[string]func(context.Context) error
}

// start runs a Checker on probes that do what act says of their check.
func start(t *testing.T, doc fsm.Document, act map[string]func(context.Context) error) *bench {
	t.Helper()
	b := &bench{began: time.Now(), runs: map[string][]time.Duration{}, act: act}
	b.Checker = New(Options{Node: "n1", Log: slog.New(slog.DiscardHandler), Report: func(check string, pass bool, why string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.told = append(b.told, strings.TrimSpace(fmt.Sprintf("%s %t %s", check, pass, why)))
	}})
	b.build = func(s spec, _ string) probe {
		return func(ctx context.Context) error {
			b.mu.Lock()
			b.runs[s.check.Name] = append(b.runs[s.check.Name], time.Since(b.began))
			do := b.act[s.check.Name]
			b.mu.Unlock()
			return do(ctx)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	b.Update(doc)
	synctest.Wait()
	return b
}

func (b *bench) set(check string, do func(context.Context) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.act[check] = do
}

// expect takes what was reported since the last time.
func (b *bench) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.told, want) {
		t.Errorf("at %s reported %q, want %q", time.Since(b.began), b.told, want)
	}
	b.told = nil
}

// gaps are the times between the last n runs.
func (b *bench) gaps(check string, n int) []time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []time.Duration
	all := b.runs[check]
	for i := max(1, len(all)-n); i < len(all); i++ {
		out = append(out, all[i]-all[i-1])
	}
	return out
}

func (b *bench) count(check string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.runs[check])
}

func check(name string) fsm.Check {
	return fsm.Check{Name: name, TCP: "192.0.2.1:80", Interval: time.Second, Timeout: 500 * time.Millisecond, Rise: 2, Fall: 3}
}

func document(checks ...fsm.Check) fsm.Document { return fsm.Document{Checks: checks} }

func pass(context.Context) error { return nil }

func fail(context.Context) error { return errors.New("status 500,\n want 200") }

// until waits for the context, as a probe does that hears nothing.
func until(ctx context.Context) error {
	<-ctx.Done()
	return errTimeout
}

// lasts passes after a time.
func lasts(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return errTimeout
	}
}

func TestReportsTheFirstAndEachChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, document(check("web")), map[string]func(context.Context) error{"web": pass})
		b.expect(t, "web true")
		time.Sleep(time.Minute)
		b.expect(t)
		b.set("web", fail)
		time.Sleep(2 * time.Second)
		b.expect(t)
		time.Sleep(time.Second)
		b.expect(t, "web false status 500, want 200")
		b.set("web", pass)
		time.Sleep(time.Second)
		b.expect(t)
		time.Sleep(time.Second)
		b.expect(t, "web true")
	})
}

// Runs begin on a grid, whatever they take themselves.
func TestRunsKeepTheGrid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := time.Duration(0)
		b := start(t, document(check("web")), map[string]func(context.Context) error{"web": func(ctx context.Context) error {
			took = (took + 130*time.Millisecond) % (400 * time.Millisecond)
			return lasts(ctx, took)
		}})
		time.Sleep(time.Minute)
		for _, gap := range b.gaps("web", 50) {
			if gap != time.Second {
				t.Fatalf("a gap of %s, want 1s: %v", gap, b.gaps("web", 50))
			}
		}
		if first := b.runs["web"][1]; first <= 500*time.Millisecond || first > time.Second {
			t.Errorf("the second run began after %s, want half an interval to a whole one", first)
		}
	})
}

// A run that hangs fails at its timeout, delays nobody, and has no other beside it.
func TestOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := start(t, document(check("deaf"), check("well")), map[string]func(context.Context) error{
			"deaf": func(context.Context) error { <-release; return nil }, "well": pass,
		})
		b.expect(t, "well true")
		time.Sleep(700 * time.Millisecond)
		b.expect(t, "deaf false no answer in time (timeout 500ms), and it cannot be stopped")
		time.Sleep(time.Minute)
		if n := b.count("deaf"); n != 1 {
			t.Errorf("%d runs beside each other", n)
		}
		if n := b.count("well"); n < 60 {
			t.Errorf("the other ran %d times in a minute", n)
		}
		b.set("deaf", pass)
		close(release) // its late success counts for nothing
		b.expect(t)
		time.Sleep(2 * time.Second)
		b.expect(t, "deaf true")
	})
}

// What hangs after it passed goes down as fast as what fails.
func TestHangsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := start(t, document(check("web")), map[string]func(context.Context) error{"web": pass})
		b.expect(t, "web true")
		b.set("web", func(context.Context) error { <-release; return nil })
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if len(b.told) != 1 || !strings.HasPrefix(b.told[0], "web false the run that began ") {
			t.Errorf("reported %q", b.told)
		}
		close(release)
	})
}

// A timeout longer than the interval is allowed: the runs follow each other.
func TestTimeoutBeyondTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := check("slow")
		c.Timeout, c.Interval = 2500*time.Millisecond, time.Second
		b := start(t, document(c), map[string]func(context.Context) error{"slow": until})
		time.Sleep(2500 * time.Millisecond)
		b.expect(t, "slow false no answer in time (timeout 2.5s)")
		b.set("slow", func(ctx context.Context) error { return lasts(ctx, 2400*time.Millisecond) })
		time.Sleep(7 * time.Second)
		b.expect(t, "slow true")
	})
}

func TestUpdateDisturbsOnlyWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, document(check("a"), check("b"), check("c")), map[string]func(context.Context) error{"a": pass, "b": pass, "c": pass, "d": fail})
		b.expect(t, sorted(b, "a true", "b true", "c true")...)
		time.Sleep(10300 * time.Millisecond)
		changed := check("b")
		changed.TCP = "192.0.2.1:81"
		b.set("b", fail)
		b.Update(document(check("d"), changed, check("a")))
		// The changed one keeps its verdict until the new form has failed often enough.
		b.expect(t, sorted(b, "b true", "d false status 500, want 200")...)
		time.Sleep(10 * time.Second)
		b.expect(t, "b false status 500, want 200")
		for _, gap := range b.gaps("a", 18) {
			if gap != time.Second {
				t.Errorf("the unchanged one was disturbed: %v", b.gaps("a", 18))
			}
		}
		if n := b.count("c"); n > 11 {
			t.Errorf("the removed one ran on: %d runs", n)
		}
		b.Update(document())
		synctest.Wait()
		was := b.count("a")
		time.Sleep(time.Minute)
		if b.count("a") != was {
			t.Error("without checks, a check ran")
		}
	})
}

// sorted waits and returns what is expected in the order in which it came: checks that
// begin together report in any.
func sorted(b *bench, want ...string) []string {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.Sort(b.told)
	slices.Sort(want)
	return want
}

// A new rise and fall hold at once, and the schedule stays.
func TestUpdateOfTheCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, document(check("a")), map[string]func(context.Context) error{"a": pass})
		time.Sleep(5100 * time.Millisecond)
		c := check("a")
		c.Fall, c.Weight = 1, 20
		b.expect(t, "a true")
		b.set("a", fail)
		b.Update(document(c))
		time.Sleep(2 * time.Second)
		b.expect(t, "a false status 500, want 200")
		for _, gap := range b.gaps("a", 5) {
			if gap != time.Second {
				t.Errorf("the schedule changed: %v", b.gaps("a", 5))
			}
		}
	})
}

// A check that was left out of a document and is in the next one says its result again,
// also when both documents came at once: who forgot it with the first waits for that.
func TestUpdateLeavesOutAndPutsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, document(check("a"), check("b")), map[string]func(context.Context) error{"a": pass, "b": pass})
		b.told = nil
		b.Update(document(check("b")))
		b.Update(document(check("a"), check("b")))
		b.expect(t, "a true")
	})
}

// A change while the old form hangs begins when that has returned.
func TestUpdateWhileItHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := start(t, document(check("a")), map[string]func(context.Context) error{"a": func(context.Context) error { <-release; return nil }})
		time.Sleep(100 * time.Millisecond)
		changed := check("a")
		changed.TCP = "192.0.2.1:81"
		b.set("a", fail)
		b.Update(document(changed))
		time.Sleep(10 * time.Second)
		b.expect(t)
		if n := b.count("a"); n != 1 {
			t.Errorf("%d runs, want only the one that hangs", n)
		}
		close(release)
		b.expect(t, "a false status 500, want 200")
	})
}

// At the end what runs is cut off, and says nothing.
func TestStopReportsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := New(Options{Node: "n1", Log: slog.New(slog.DiscardHandler), Report: func(check string, pass bool, why string) {
			t.Errorf("reported %s %t %s", check, pass, why)
		}})
		c.build = func(spec, string) probe { return until }
		c.Update(document(check("a"), check("b")))
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		time.Sleep(100 * time.Millisecond)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// Commands are told of the groups that the check counts for.
func TestGroupsOfACheck(t *testing.T) {
	c := New(Options{})
	c.Update(fsm.Document{Checks: []fsm.Check{check("a"), check("b")}, Groups: []fsm.Group{
		{Name: "web", Checks: []string{"a", "b"}}, {Name: "db", Checks: []string{"a"}}, {Name: "dns"},
	}})
	if want, _ := c.wanted(); want[0].groups != "web db" || want[1].groups != "web" {
		t.Errorf("groups %q and %q", want[0].groups, want[1].groups)
	}
}

func TestSameCheck(t *testing.T) {
	full := func() fsm.Check {
		return fsm.Check{Name: "a", HTTP: &fsm.HTTPCheck{URL: "http://a"}, Command: &fsm.CommandCheck{Argv: []string{"/a", "b"}}, File: &fsm.FileCheck{Path: "/f"}}
	}
	if !sameCheck(full(), full()) {
		t.Error("two equal ones are taken for different")
	}
	for name, change := range map[string]func(*fsm.Check){
		"url": func(c *fsm.Check) { c.HTTP.URL = "http://b" }, "no http": func(c *fsm.Check) { c.HTTP = nil },
		"argv": func(c *fsm.Check) { c.Command.Argv[1] = "c" }, "user": func(c *fsm.Check) { c.Command.User = "u" },
		"no command": func(c *fsm.Check) { c.Command = nil }, "file": func(c *fsm.Check) { c.File.Match = "x" },
		"tcp": func(c *fsm.Check) { c.TCP = "x:1" }, "weight": func(c *fsm.Check) { c.Weight = 1 }, "interval": func(c *fsm.Check) { c.Interval = 1 },
	} {
		c := full()
		change(&c)
		if sameCheck(full(), c) {
			t.Errorf("a change of %s is not seen", name)
		}
	}
}
