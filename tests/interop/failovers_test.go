package interop

import (
	"cmp"
	"flag"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

var failoversFor = flag.Duration("failovers", 15*time.Second, "how long the failovers inside a cluster beside an outside Backup go on")

// TestFailoversBesideKeepalived has a keepalived as Backup beside a cluster in which the
// group fails over again and again, then takes the whole cluster away and brings it back.
func TestFailoversBesideKeepalived(t *testing.T) {
	t.Parallel() // it waits most of the time
	testFailovers(t, func(h *lab.Host) peer { return startKeepalived(t, h, nil) })
}

// TestFailoversBesideFRR does the same beside FRR's vrrpd.
func TestFailoversBesideFRR(t *testing.T) {
	t.Parallel()
	testFailovers(t, func(h *lab.Host) peer { return startFRR(t, h) })
}

// What goes on beside the outside router.
const (
	besideInterval = time.Second
	besidePriority = 100
	besideLease    = 250 * time.Millisecond
	faultFor       = 1500 * time.Millisecond
)

// A beside is a cluster with one group in both families, and a Backup outside.
type beside struct {
	t       *testing.T
	cluster *lab.Cluster
	router  *lab.Host
	watch   *lab.VRRPWatch
	worst   time.Duration // the longest moment with two answering hosts
}

func testFailovers(t *testing.T, start func(*lab.Host) peer) {
	l := newLab(t)
	binary, err := build()
	must(t, err)
	b := &beside{t: t, router: addHost(t, l, "outside", 104)}
	b.watch, err = b.router.Watch(lab.VIP4.Addr(), lab.VIP6.Addr())
	must(t, err)
	outside := start(b.router)
	b.cluster, err = lab.StartCluster(t.Context(), l, lab.ClusterOptions{
		Binary: binary, IPv6: true, Interval: besideInterval, Lease: besideLease, Stable: 500 * time.Millisecond,
	})
	must(t, err)
	var sayings []saying
	for _, v := range []netip.Prefix{lab.VIP4, lab.VIP6} {
		addrs := []netip.Prefix{v}
		sayings = append(sayings, saying{
			virtual:  virtual{vrid: lab.VRID, version: 3, addresses: addrs, interval: besideInterval},
			priority: besidePriority, interval: besideInterval, list: addrs,
		})
	}
	must(t, outside.say(sayings))
	began := lab.Now()
	pause(longestDown) // had it heard nobody, it would act by now
	b.failovers(began)
	b.wholeClusterAway("stopped", b.stopAll)
	b.wholeClusterAway("killed", b.killAll)
	t.Logf("the longest moment with two answering hosts: %v, the interval is %v", b.worst, besideInterval)
	for _, n := range b.cluster.Nodes {
		noPanic(t, n.Process())
	}
}

// failovers lets the group fail over inside the cluster, which nobody outside may act on.
func (b *beside) failovers(began lab.Instant) {
	b.t.Helper()
	count := 0
	for end := lab.Now().Add(*failoversFor); lab.Now() < end; {
		for _, name := range []string{"kill", "move", "freeze", "stop"} {
			f, ok := lab.Named(name)
			if !ok {
				b.t.Fatalf("the lab knows no fault %q", name)
			}
			row, err := b.cluster.RunFault(b.t.Context(), f.Lasting(faultFor))
			must(b.t, err)
			if b.watch.Acted(began, lab.Now()) {
				b.t.Fatalf("the outside router left Backup during %s at %s: outage %v, IPv6 %v; its adverts: %+v",
					row.Fault, row.Node, row.Verdict.Outage, row.Verdict.Outage6, b.watch.Adverts(began, lab.Now()))
			}
			if row.Verdict.TwoOwners != 0 {
				b.t.Errorf("%s: %v with two owners inside the cluster, want none", row.Fault, row.Verdict.TwoOwners)
			}
			count++
			if lab.Now() > end {
				break
			}
		}
	}
	must(b.t, b.watch.Err())
	b.t.Logf("%d failovers inside the cluster in %v, and the outside router stayed Backup", count, lab.Now().Sub(began).Round(time.Second))
}

// wholeClusterAway takes all nodes away. The outside router takes over in its time, and
// gives the group back when they are there again.
func (b *beside) wholeClusterAway(how string, away func() error) {
	b.t.Helper()
	from := lab.Now()
	must(b.t, away())
	last := b.lastAdvert(from)
	// A Backup that was told waits for its skew time, and one that was not for its down timer, from the last advert on.
	limit := downTimer(virtual{version: 3, interval: besideInterval}, besidePriority)
	if last.Priority == 0 {
		limit -= 3 * besideInterval
	}
	b.answeredBy(from, last.At.Add(limit+besideLease+grace/2))
	b.t.Logf("the whole cluster %s: the last advert has priority %d; the outside router answered %v later (IPv6: %v), its timer is %v",
		how, last.Priority, b.firstAnswer(b.cluster.Probes4[0], from).Sub(last.At), b.firstAnswer(b.cluster.Probes6[0], from).Sub(last.At), limit)
	pause(besideInterval)
	back := lab.Now()
	for _, n := range b.cluster.Nodes {
		must(b.t, n.Start())
	}
	if err := b.cluster.WaitHealthy(b.t.Context(), startLimit); err != nil {
		b.t.Fatalf("the cluster is back, and the outside router does not give the group back: %v", err)
	}
	two := longestSpan(b.overlaps(from, lab.Now()))
	b.t.Logf("the whole cluster back: healthy after %v; two hosts answered for at most %v", lab.Now().Sub(back).Round(time.Millisecond), two)
	if two > besideInterval {
		b.t.Errorf("two hosts answered for %v, the interval is %v", two, besideInterval)
	}
	b.worst = max(b.worst, two)
	settled := lab.Now()
	pause(2 * besideInterval)
	if last := b.watch.Adverts(settled, lab.Now()); len(last) > 0 {
		b.t.Errorf("the outside router still advertises: %+v", last)
	}
}

func (b *beside) stopAll() error {
	return b.each(func(n *lab.Node) error { return n.Process().Stop(15 * time.Second) })
}

func (b *beside) killAll() error {
	return b.each(func(n *lab.Node) error { return n.Process().Kill() })
}

func (b *beside) each(f func(*lab.Node) error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(b.cluster.Nodes))
	for i, n := range b.cluster.Nodes {
		wg.Go(func() { errs[i] = f(n) })
	}
	wg.Wait()
	return cmp.Or(errs...)
}

// lastAdvert is the cluster's last one; none since an instant: the last before it.
func (b *beside) lastAdvert(since lab.Instant) (last lab.Advert) {
	for _, n := range b.cluster.Nodes {
		for _, a := range b.cluster.Watches[n.Name].Adverts(since.Add(-2*besideInterval), lab.Now()) {
			if a.At > last.At {
				last = a
			}
		}
	}
	return last
}

// answeredBy waits until the outside router answers in both families.
func (b *beside) answeredBy(since, deadline lab.Instant) {
	b.t.Helper()
	for lab.Now() < deadline {
		if b.firstAnswer(b.cluster.Probes4[0], since) > 0 && b.firstAnswer(b.cluster.Probes6[0], since) > 0 {
			return
		}
		pause(20 * time.Millisecond)
	}
	b.t.Fatalf("the outside router does not answer in both families when its timer is over")
}

// firstAnswer is when a probe was first answered after an instant by somebody who is no
// node of the cluster; 0: not at all. FRR answers from a virtual hardware address.
func (b *beside) firstAnswer(p *lab.Probe, since lab.Instant) lab.Instant {
	for _, a := range p.TraceBetween(since, lab.Now()).Answers {
		if b.cluster.Node(a.Host) == nil {
			return a.At
		}
	}
	return 0
}

func (b *beside) overlaps(from, to lab.Instant) (all []lab.Span) {
	for _, p := range []*lab.Probe{b.cluster.Probes4[0], b.cluster.Probes6[0]} {
		must(b.t, p.Err())
		all = append(all, lab.Overlaps([]lab.Trace{p.TraceBetween(from, to)})...)
	}
	return all
}

func longestSpan(all []lab.Span) (worst time.Duration) {
	for _, s := range all {
		worst = max(worst, s.Length())
	}
	return worst
}
