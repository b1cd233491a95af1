// Command demo forms three nodes on this machine, breaks their owner in every way of
// the table, and shows what a probe, a client and a keepalived beside them saw.
//
// It needs root; what else it needs it installs by apt-get when it is missing. Its exit
// code is 0 only if nobody ever saw two owners, keepalived stayed Backup, and every
// outage kept its bound.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

// options are the command line.
type options struct {
	binary string
	out    string
	lease  time.Duration
	ipv6   bool
}

func main() {
	var opt options
	flag.StringVar(&opt.binary, "binary", "bin/quorate", "the quorate to be shown")
	flag.StringVar(&opt.out, "out", "out", "directory for demo.json and demo.html")
	flag.DurationVar(&opt.lease, "lease", 250*time.Millisecond, "lease of the cluster")
	flag.BoolVar(&opt.ipv6, "ipv6", true, "give the group an IPv6 address too")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := demo(ctx, opt)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

// demo runs the whole of it, and leaves nothing behind but its reports, and the logs
// when something went wrong.
func demo(ctx context.Context, opt options) (err error) {
	if err := ready(ctx, opt.binary); err != nil {
		return err
	}
	if _, err := lab.Sweep(); err != nil {
		return err
	}
	l, err := lab.New(lab.Options{})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, l.Close())
		if err != nil {
			err = fmt.Errorf("%w\nlogs and configurations of the daemons: %s", err, l.Dir())
			return
		}
		err = os.RemoveAll(l.Dir())
	}()
	s, err := play(ctx, l, opt)
	if err != nil && s == nil {
		return err
	}
	r := newReport(s)
	fmt.Print("\n", r.table())
	return errors.Join(err, r.write(opt.out), r.failure())
}

// ready checks for what the demo cannot do without.
func ready(ctx context.Context, binary string) error {
	if os.Geteuid() != 0 {
		return errors.New("the demo makes network namespaces and needs root: run it with sudo")
	}
	if info, err := os.Stat(binary); err != nil || info.IsDir() {
		return fmt.Errorf("there is no program %s: run `make build` first, or name it by -binary", binary)
	}
	return install(ctx)
}

// A show is what happened.
type show struct {
	opt     options
	cluster *lab.Cluster
	started lab.Instant // when the first daemon was started
	formed  lab.Instant // when the group was first answered for
	ended   lab.Instant
	rows    []lab.Row
	whole   lab.Verdict // from the beginning to the end
}

// play forms the cluster and goes through the faults. It returns what it has also when
// it fails on the way, and nil when there was nothing to see.
func play(ctx context.Context, l *lab.Lab, opt options) (*show, error) {
	binary, err := filepath.Abs(opt.binary)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", opt.binary, err)
	}
	s := &show{opt: opt, started: lab.Now()}
	fmt.Printf(`Three nodes n1, n2, n3 round a switch, lease %v, a keepalived of priority 100 beside them.
From outside, a probe asks every %v who has the address, and a client uses it.

`, opt.lease, lab.DefaultPeriod)
	s.say("forming the cluster")
	s.cluster, err = lab.StartCluster(ctx, l, lab.ClusterOptions{
		Binary: binary, Lease: opt.lease, IPv6: opt.ipv6, Keepalived: true,
	})
	if err != nil {
		return nil, err
	}
	first := s.cluster.Probes4[0].Trace().Answers[0]
	s.formed = first.At
	s.say("formed: %s answered for %s first; keepalived came and is Backup", first.Host, lab.VIP4.Addr())
	for _, f := range lab.Faults() {
		if err = s.try(ctx, f); err != nil {
			break
		}
	}
	s.ended = lab.Now()
	whole, jerr := s.cluster.Judge(s.started, s.ended)
	s.whole = whole
	return s, errors.Join(err, jerr)
}

// attempts is how often a fault is tried when the machine disturbed the measurement.
const attempts = 3

// try does one fault and adds its row. It does it again when the probe itself paused
// and the outage is over its bound; what such an attempt says of two owners and of
// keepalived counts, since the whole run is judged as well.
func (s *show) try(ctx context.Context, f lab.Fault) error {
	s.say("%s", f.Title())
	for n := 1; ; n++ {
		row, err := s.cluster.RunFault(ctx, f)
		if err == nil && n < attempts && row.Disturbed() && !row.Within() {
			s.say("  the machine was too busy to measure (the probe paused for %s): once more", ms(row.Verdict.Blind))
			continue
		}
		s.rows = append(s.rows, row)
		if err == nil {
			s.say("  at %s, %s took over: %s without an answer, %s with two owners",
				row.Owner, row.After, ms(max(row.Verdict.Outage, row.Verdict.Outage6)), ms(row.Verdict.TwoOwners))
		}
		return err
	}
}

// say prints a line with the time since the start.
func (s *show) say(format string, args ...any) {
	fmt.Printf("%6.1f s  %s\n", lab.Now().Sub(s.started).Seconds(), fmt.Sprintf(format, args...))
}

// ms gives milliseconds as a reader wants them: whole ones.
func ms(d time.Duration) string {
	return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
}

// keepalivedDid says what keepalived did.
func keepalivedDid(v lab.Verdict) string {
	if v.Left {
		return "LEFT BACKUP"
	}
	return "stayed Backup"
}

// owners gives the sequence of who answered.
func owners(v lab.Verdict) string { return strings.Join(v.Owners, " → ") }
