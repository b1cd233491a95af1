package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

const (
	// roundLength is how long one cluster is used; then a new one is formed. What the
	// observers record stays within bounds that way.
	roundLength = 10 * time.Minute
	// healsWithin is how long a cluster may take to be well once all faults are undone.
	healsWithin = 60 * time.Second
	// explains is for how long after its end a fault may be why a group moves.
	explains = 2 * time.Second
	// advertInterval is long, so that a time in which faults leave nobody a majority does
	// not end with the keepalived beside taking over, as it should then.
	advertInterval = 10 * time.Second
	// judgeEvery is how soon a violation is noticed.
	judgeEvery = 2 * time.Second
)

// A soak is the whole run.
type soak struct {
	opt     options
	journal *journal
	tally   *tally

	lab     *lab.Lab
	cluster *lab.Cluster

	mu    sync.Mutex
	held  map[claim]bool
	spans []lab.Span // of the faults of the last chaos phase
	hands sync.Mutex // one hand-over by an operator at a time, see step
}

// A claim is a layer of a node, or of the lab, that a fault has hold of.
type claim struct {
	layer lab.Layer
	node  string // empty for a layer of the lab
}

func newSoak(opt options) (*soak, error) {
	debug.SetMemoryLimit(garbageLimit)
	if _, err := lab.Sweep(); err != nil {
		return nil, err
	}
	j, err := newJournal(opt.out)
	if err != nil {
		return nil, err
	}
	return &soak{opt: opt, journal: j, tally: newTally(), held: map[claim]bool{}}, nil
}

// run goes through rounds until the time is over or something is broken.
func (s *soak) run(ctx context.Context) error {
	s.journal.add(entry{What: "start", Detail: map[string]any{
		"seed": s.opt.seed, "from": s.opt.from, "nodes": s.opt.nodes, "lease": s.opt.lease.String(), "nice": s.opt.nice, "binary": s.opt.binary,
	}})
	fmt.Printf("soak: seed %d, %d nodes of nice %d, lease %v, for %v; journal in %s\n",
		s.opt.seed, s.opt.nodes, s.opt.nice, s.opt.lease, s.opt.duration, s.journal.dir)
	number := s.opt.from
	for {
		next, err := s.round(ctx, number)
		if err == nil && ctx.Err() != nil {
			err = errInterrupted
		}
		if err != nil || s.over() {
			return err
		}
		number = next
	}
}

// over says whether all that was asked for is done.
func (s *soak) over() bool {
	return lab.Now().Sub(s.journal.start) >= s.opt.duration && s.tally.starvedOnly >= s.opt.starved
}

// garbageLimit is how much memory garbage may take before it is collected in a phase.
const garbageLimit = 1 << 30 // bytes

// round forms a cluster and takes it through phases. It returns the number of the next.
func (s *soak) round(ctx context.Context, number int) (next int, err error) {
	if s.lab, err = lab.New(lab.Options{}); err != nil {
		return number, err
	}
	defer func() {
		if err != nil && !errors.Is(err, errInterrupted) {
			err = errors.Join(err, s.keep(number))
		}
		err = errors.Join(err, s.lab.Close(), os.RemoveAll(s.lab.Dir()))
	}()
	s.cluster, err = lab.StartCluster(ctx, s.lab, lab.ClusterOptions{
		Binary: s.opt.binary, Nodes: s.opt.nodes, Lease: s.opt.lease, IPv6: true, Keepalived: true, Inside: true, Interval: advertInterval,
		Nice: s.opt.nice,
	})
	if err != nil {
		return number, s.orInterrupted(ctx, err)
	}
	s.journal.add(entry{Phase: number, What: "formed"})
	debug.SetGCPercent(-1) // see phase; the lab sets it as it was
	began := lab.Now()
	for ctx.Err() == nil && !s.over() && lab.Now().Sub(began) < roundLength {
		if err := s.orInterrupted(ctx, s.phase(ctx, s.next(number))); err != nil {
			return number, err
		}
		number++
	}
	return number, nil
}

// orInterrupted is what came of something, unless somebody ended it.
func (s *soak) orInterrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && !errors.Is(err, errBroken) {
		return errInterrupted
	}
	return err
}

// next is the phase of that number; when the time is over and it was not starved for
// long enough, a starved one.
func (s *soak) next(number int) phase {
	if lab.Now().Sub(s.journal.start) >= s.opt.duration {
		const longest = time.Minute
		return phase{Number: number, Kind: starved, Length: min(longest, s.opt.starved-s.tally.starvedOnly)}
	}
	return planned(s.opt.seed, number, s.opt.nodes)
}

// errBroken is in every error that says that a promise was broken.
var errBroken = errors.New("broken")

// phase does one phase, waits until the cluster is well, and judges it.
func (s *soak) phase(ctx context.Context, p phase) error {
	s.journal.add(entry{Phase: p.Number, What: "phase", Detail: p})
	// Collecting garbage halts the probes' threads until every other one has had a
	// processor, which on a starved machine takes long: it is done between phases.
	runtime.GC()
	from := lab.Now()
	inner, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { s.watch(inner, cancel, from) })
	var err error
	switch p.Kind {
	case chaos:
		err = s.chaos(inner, p)
	case starved:
		err = s.starvedOnly(inner, p, from)
	}
	if err == nil {
		if herr := s.cluster.WaitHealthy(inner, healsWithin); herr != nil && inner.Err() == nil {
			err = fmt.Errorf("%w: faults were undone, and: %w", errBroken, herr)
		}
	}
	if cause := context.Cause(inner); cause != nil && ctx.Err() == nil {
		err = errors.Join(cause, err) // the watch saw it first
	}
	cancel(nil)
	watching.Wait()
	if jerr := s.judge(p, from); !errors.Is(err, errBroken) {
		err = errors.Join(err, jerr)
	}
	return err
}

// watch looks now and then for what may not wait until the phase is over.
func (s *soak) watch(ctx context.Context, cancel context.CancelCauseFunc, from lab.Instant) {
	for lab.Sleep(ctx, judgeEvery) == nil {
		v, err := s.cluster.Judge(from, lab.Now())
		if err = errors.Join(broken(v), err); err != nil {
			cancel(err)
			return
		}
	}
}

// broken says what a verdict has against the cluster.
func broken(v lab.Verdict) error {
	var errs []error
	if v.TwoOwners > 0 {
		errs = append(errs, fmt.Errorf("%w: %v with two owners, at %v", errBroken, v.TwoOwners, v.Overlaps))
	}
	if v.Left {
		errs = append(errs, fmt.Errorf("%w: the keepalived beside left Backup", errBroken))
	}
	return errors.Join(errs...)
}

// judge judges a whole phase and adds it up.
func (s *soak) judge(p phase, from lab.Instant) error {
	to := lab.Now()
	v, err := s.cluster.Judge(from, to)
	answers := s.cluster.Probes4[0].TraceBetween(from, to).Answers
	s.tally.phase(p, v, len(changesIn(answers)))
	s.journal.add(entry{Phase: p.Number, What: "judged", Detail: v})
	fmt.Printf("%8.1f s  phase %d, %s: %d faults, %d changes of owner, longest without an answer %v, two owners %v\n",
		s.journal.seconds(to), p.Number, p, s.tally.last, len(changesIn(answers)),
		max(v.Outage, v.Outage6).Round(time.Millisecond), v.TwoOwners)
	return errors.Join(broken(v), err, s.panics())
}
