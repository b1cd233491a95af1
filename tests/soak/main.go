// Command soak does random, overlapping faults to a real cluster for as long as asked,
// and stops at the first sign that a promise was broken, with what it takes to see why.
//
// It needs root, and what [github.com/quorate/quorate/tests/lab] needs. The schedule of
// the faults is a function of the seed: -seed and -from do the same ones again, as far as
// a real machine does anything again. Its exit code is 1 when something was broken, and
// 130 when it was interrupted before.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	binary   string
	out      string
	duration time.Duration
	starved  time.Duration
	seed     uint64
	from     int
	nodes    int
	lease    time.Duration
	nice     int
}

const interrupted = 130 // 128 and the number of SIGINT, as a shell has it

func main() {
	var opt options
	flag.StringVar(&opt.binary, "binary", "bin/quorate", "the quorate to be tried")
	flag.StringVar(&opt.out, "out", "out", "directory below which soak-TIME is made")
	flag.DurationVar(&opt.duration, "duration", 10*time.Minute, "how long")
	flag.DurationVar(&opt.starved, "starved", 0, "go on until it was starved without any fault for so long")
	flag.Uint64Var(&opt.seed, "seed", 0, "of the schedule; 0: one at random")
	flag.IntVar(&opt.from, "from", 0, "number of the first phase")
	flag.IntVar(&opt.nodes, "nodes", 3, "how many nodes, 3 to 9")
	flag.DurationVar(&opt.lease, "lease", 250*time.Millisecond, "lease of the cluster")
	flag.IntVar(&opt.nice, "nice", 0, "of the daemons, against busy loops of 0; the packages' unit says -10")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends it at once
	}()
	err := run(ctx, opt)
	if err != nil {
		fmt.Fprintf(os.Stderr, "\nsoak: %v\n", err)
		if errors.Is(err, errInterrupted) {
			os.Exit(interrupted)
		}
		os.Exit(1)
	}
}

// errInterrupted says that nothing was broken until somebody ended it.
var errInterrupted = errors.New("interrupted")

// run checks the command line and runs the soak.
func run(ctx context.Context, opt options) (err error) {
	const fewest, most = 3, 9
	if os.Geteuid() != 0 {
		return errors.New("the soak makes network namespaces and needs root: run it with sudo")
	}
	if opt.nodes < fewest || opt.nodes > most {
		return fmt.Errorf("-nodes %d is outside %d to %d", opt.nodes, fewest, most)
	}
	if opt.from < 0 {
		return fmt.Errorf("-from %d is below 0", opt.from)
	}
	if info, err := os.Stat(opt.binary); err != nil || info.IsDir() {
		return fmt.Errorf("there is no program %s: run `make build` first, or name it by -binary", opt.binary)
	}
	if opt.binary, err = filepath.Abs(opt.binary); err != nil {
		return fmt.Errorf("find the program: %w", err)
	}
	for opt.seed == 0 {
		opt.seed = rand.Uint64N(1 << 32) // short enough to be read aloud
	}
	s, err := newSoak(opt)
	if err != nil {
		return err
	}
	err = s.run(ctx)
	return errors.Join(err, s.report(err))
}
