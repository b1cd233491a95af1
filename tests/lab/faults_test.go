package lab

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// buildDir takes the program under test for the whole test run.
var buildDir string

// tellTime, in its environment, makes this program one that tells the time: each line is
// the time of day in seconds and boot time in nanoseconds.
const tellTime = "QUORATE_LAB_TELL_TIME"

func TestMain(m *testing.M) {
	for os.Getenv(tellTime) != "" {
		fmt.Println(time.Now().Unix(), int64(Now()))
		pause(20 * time.Millisecond)
	}
	os.Exit(RunTests(m, 4, &buildDir))
}

// buildQuorate builds quorate once.
var buildQuorate = sync.OnceValues(func() (string, error) { return Build(buildDir) })

// outageBound is generous on purpose: how fast a fail-over is depends on the machine
// and is for `make demo` to hold to the design; that it comes at all is tested here.
const outageBound = 5 * time.Second

// testFault judges one doing of a fault; its error says that it did not come to its end.
func testFault(t *testing.T, c *Cluster, f Fault) (Row, error) {
	t.Helper()
	row, err := c.RunFault(t.Context(), f)
	v := row.Verdict
	t.Logf("%s at %s, leader %s: outage %v, IPv6 %v, client %v; two owners %v; answered by %v; longest time without a question %v",
		row.Fault, row.Node, row.Leader, v.Outage, v.Outage6, v.ClientOutage, v.TwoOwners, v.Owners, v.Blind)
	if err != nil {
		t.Error(err)
	}
	if v.TwoOwners != 0 {
		t.Errorf("%v with two owners, want none: %v", v.TwoOwners, v.Overlaps)
	}
	if v.Left {
		t.Error("keepalived left Backup")
	}
	if worst := max(row.Outage(), v.ClientOutage); row.Bound != 0 && worst > row.Bound+outageBound {
		t.Errorf("outage %v, want at most %v", worst, row.Bound+outageBound)
	}
	return row, err
}

// TestKillAll ends every daemon at once by SIGKILL, so that only what they left in the
// kernel works on: the fence ends the answers with the lease, the lifetime takes the
// address away later. Then all start again beside those remains.
func TestKillAll(t *testing.T) {
	t.Parallel()
	const (
		lease = 250 * time.Millisecond
		// What the fence tells voters that it may be late by (design, section 3.3), and
		// the way to the probe.
		late = 20 * time.Millisecond
		gone = 12 * time.Second
	)
	c := formedCluster(t, ClusterOptions{IPv6: true, Lease: lease})
	owner, err := c.Owner(t.Context())
	must(t, err)
	for _, vip := range c.vips() {
		a, held, err := owner.Host.Holds(vip.Addr())
		must(t, err)
		if !held || a.Prefix != vip {
			t.Fatalf("owner %s holds %v (%v), want %v", owner.Name, a.Prefix, held, vip)
		}
		if a.ValidLft == Forever || a.ValidLft > 11 {
			t.Errorf("owner %s holds %v for %d s, want a lifetime of about 10 s", owner.Name, vip, a.ValidLft)
		}
		for _, n := range c.Nodes {
			if _, held, err := n.Host.Holds(vip.Addr()); err != nil || held && n != owner {
				t.Errorf("%s beside owner %s: holds %v: %v, %v", n.Name, owner.Name, vip, held, err)
			}
		}
	}

	var wg sync.WaitGroup
	for _, n := range c.Nodes {
		wg.Go(func() {
			if err := n.proc.Kill(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	killed := Now()
	until(t, "the address is gone from every host", gone, func() bool { return !anyHolds(t, c) })
	t.Logf("the address was gone %v after the daemons", Now().Sub(killed))

	end := killed.Add(lease + late)
	for _, p := range append(c.Probes4, c.Probes6...) {
		tr := p.Trace()
		must(t, p.Err())
		if answering(p.Trace, end) {
			t.Errorf("%s was answered %v after the last daemon died, with a lease of %v",
				tr.Target, tr.Answers[len(tr.Answers)-1].At.Sub(killed), lease)
		}
		if got := Overlaps([]Trace{tr}); len(got) > 0 {
			t.Errorf("%s: two owners at %v", tr.Target, got)
		}
	}

	for _, n := range c.Nodes {
		must(t, n.Start())
	}
	must(t, c.WaitHealthy(context.WithoutCancel(t.Context()), 40*time.Second))
	v, err := c.Judge(0, Now())
	must(t, err)
	if v.TwoOwners != 0 {
		t.Errorf("after all started again: %v with two owners at %v", v.TwoOwners, v.Overlaps)
	}
}

func anyHolds(t *testing.T, c *Cluster) bool {
	t.Helper()
	for _, n := range c.Nodes {
		for _, vip := range c.vipAddrs() {
			_, held, err := n.Host.Holds(vip)
			must(t, err)
			if held {
				return true
			}
		}
	}
	return false
}
