package health

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quorate/quorate/internal/program"
)

// Bounds for a check that came with less, from a node that allows it.
const (
	leastInterval = 100 * time.Millisecond
	leastTimeout  = 10 * time.Millisecond
)

// guardWait is for how long after its timeout a run may take to say so itself.
const guardWait = 200 * time.Millisecond

// maxWhy is the longest reason, in runes.
const maxWhy = 300

// A watch is one check at work.
type watch struct {
	spec    spec // as it was last told; Run's alone
	changes chan spec
	cancel  context.CancelFunc
	done    chan struct{}
}

// stop ends the watch; it reports nothing any more then.
func (w *watch) stop() {
	w.cancel()
	<-w.done
}

// watch starts one.
func (c *Checker) watch(ctx context.Context, s spec) *watch {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{spec: s, changes: make(chan spec), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		defer cancel()
		l := loop{c: c, verdict: verdict{told: true}}
		l.take(s)
		l.run(ctx, w.changes)
	}()
	return w
}

// A loop is what a watch's goroutine knows.
type loop struct {
	c       *Checker
	spec    spec
	probe   probe
	verdict verdict
	why     string    // the last failure
	began   time.Time // of the grid
	wait    *time.Timer
	attempt *attempt // nil: none runs
}

// An attempt is one run that has not returned.
type attempt struct {
	began  time.Time
	cancel context.CancelFunc
	result chan error
	guard  *time.Timer // fires if the run does not see to its timeout itself
	over   bool        // it has counted as a failure already
	stale  bool        // it is of an earlier form of the check
}

func (l *loop) interval() time.Duration { return max(l.spec.check.Interval, leastInterval) }
func (l *loop) timeout() time.Duration  { return max(l.spec.check.Timeout, leastTimeout) }

// take begins with a check, or goes on with its new form.
func (l *loop) take(s spec) {
	anew := l.probe == nil || !l.spec.sameRun(s)
	l.spec = s
	l.probe = l.c.build(s, l.c.opt.Node)
	l.verdict.rise, l.verdict.fall = max(s.check.Rise, 1), max(s.check.Fall, 1)
	if !anew {
		return
	}
	if l.attempt != nil {
		l.attempt.stale = true
		l.attempt.cancel()
	}
	l.beginAtOnce()
}

// beginAtOnce starts the grid anew, with a run now.
func (l *loop) beginAtOnce() {
	l.began = time.Now()
	if l.wait == nil {
		l.wait = time.NewTimer(0)
		return
	}
	l.wait.Reset(0)
}

func (l *loop) run(ctx context.Context, changes <-chan spec) {
	defer l.wait.Stop()
	for ctx.Err() == nil {
		var result chan error
		var guard <-chan time.Time
		if l.attempt != nil {
			result, guard = l.attempt.result, l.attempt.guard.C
		}
		select {
		case <-ctx.Done():
		case s := <-changes:
			l.verdict.told = false
			l.take(s)
		case <-l.wait.C:
			l.turn(ctx)
		case err := <-result:
			if ctx.Err() == nil { // else it was cut off, which says nothing
				l.ended(err)
			}
		case <-guard:
			l.overdue()
		}
	}
	if l.attempt != nil {
		l.attempt.guard.Stop()
		l.attempt.cancel()
	}
}

// turn begins a run, if the one before has returned, and sets the clock for the next.
func (l *loop) turn(ctx context.Context) {
	interval := l.interval()
	l.wait.Reset(time.Until(l.began.Add(due(time.Since(l.began), interval, shift(l.spec.check.Name, interval)))))
	a := l.attempt
	switch {
	case a == nil:
		l.begin(ctx)
	case a.over && !a.stale:
		l.observe(fmt.Errorf("the run that began %s ago has not ended although it was told to: it hangs in the kernel, as on a "+
			"network filesystem that does not answer", time.Since(a.began).Round(time.Second)))
	}
}

func (l *loop) begin(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout())
	a := &attempt{began: time.Now(), cancel: cancel, result: make(chan error, 1), guard: time.NewTimer(l.timeout() + guardWait)}
	probe := l.probe
	l.c.runs.Go(func() { a.result <- probe(ctx) })
	l.attempt = a
}

// ended takes what a run returned.
func (l *loop) ended(err error) {
	a := l.attempt
	l.attempt = nil
	a.guard.Stop()
	a.cancel()
	switch {
	case a.stale:
		l.beginAtOnce()
	case a.over:
	case errors.Is(err, errTimeout), errors.Is(err, program.ErrKilled):
		l.observe(fmt.Errorf("%w (timeout %s)", err, l.timeout()))
	default:
		l.observe(err)
	}
}

// overdue counts a run as failed that does not return.
func (l *loop) overdue() {
	if !l.attempt.stale {
		l.attempt.over = true
		l.observe(fmt.Errorf("%w (timeout %s), and it cannot be stopped", errTimeout, l.timeout()))
	}
}

// observe has one result count.
func (l *loop) observe(err error) {
	name := l.spec.check.Name
	if err != nil {
		l.why = program.OneLine(err.Error(), maxWhy)
		l.c.opt.Log.Debug("a run of a check failed", "check", name, "why", l.why)
	}
	was := l.verdict
	if !l.verdict.observe(err == nil) {
		return
	}
	switch now := l.verdict; {
	case was.known && was.pass == now.pass: // the check was changed, and nothing else
	case now.pass:
		l.c.opt.Log.Info("check passes", "check", name)
	default:
		l.c.opt.Log.Warn("check fails", "check", name, "why", l.why)
	}
	why := ""
	if !l.verdict.pass {
		why = l.why
	}
	l.c.opt.Report(name, l.verdict.pass, why)
}

// A probe is one run of a check. It returns nil if the check passes, else in one line
// why not. It sees to it that it ends with its context, as far as the kernel lets it.
type probe func(context.Context) error

// build makes the probe of a check. Where that cannot be done the probe says why.
func build(s spec, node string) probe {
	p, err := newProbe(s, node)
	if err != nil {
		return func(context.Context) error { return err }
	}
	return p
}

func newProbe(s spec, node string) (probe, error) {
	switch c := s.check; {
	case c.HTTP != nil:
		return httpProbe(*c.HTTP)
	case c.TCP != "":
		return tcpProbe(c.TCP), nil
	case c.ICMP != "":
		return icmpProbe(c.ICMP), nil
	case c.Command != nil:
		return commandProbe(s, node), nil
	case c.Process != "":
		return processProbe("/proc", c.Process), nil
	case c.File != nil:
		return fileProbe(*c.File)
	case c.Systemd != "":
		return systemdProbe(c.Systemd), nil
	}
	return nil, errors.New("the check says nothing of what is to be checked: this node is of an older version than the document's; upgrade it")
}
