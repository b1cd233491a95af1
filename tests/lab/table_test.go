package lab

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	runs  = flag.Int("runs", 5, "how often TestFaults does each fault")
	table = flag.String("table", "", "file to which TestFaults writes its table, in Markdown")
)

// lastingLeases is how long most faults last in TestFaults: after two leases somebody
// else has taken over, where that is to be.
const lastingLeases = 3

// A lane is a cluster and the faults that it goes through.
type lane struct {
	name   string
	opt    ClusterOptions
	faults []laneFault
}

type laneFault struct {
	Fault
	times int
	leads bool // whether the owner is to lead
	also  bool // and the other way, in turn
}

// TestFaults does every fault of the table *runs times, with an IPv6 address in the group
// and a keepalived of lower priority beside it. Outside there must never be two owners.
func TestFaults(t *testing.T) {
	if _, err := exec.LookPath("keepalived"); err != nil {
		t.Skip("SKIPPED: keepalived is not installed (apt-get install keepalived)")
	}
	usual := ClusterOptions{
		IPv6: true, Keepalived: true, Inside: true, Stable: 500 * time.Millisecond,
		// When all nodes are down a router beside them does right to take over, after three of these.
		Interval: 3 * time.Second,
	}
	beside, alone := []lane{ownerLeads(usual), anotherLeads(usual), lifetimeFence(usual)}, squeezed(usual)
	all := newResults(append(slices.Clone(beside), alone)...)
	// These wait most of the time, and each has a cluster of its own.
	// Not by t.Parallel, which allows no more of them than there are processors.
	var wg sync.WaitGroup
	for _, l := range beside {
		wg.Go(func() { t.Run(l.name, func(t *testing.T) { l.run(t, all) }) })
	}
	wg.Wait()
	// These take the machine from all.
	t.Run(alone.name, func(t *testing.T) { alone.run(t, all) })
	text := all.markdown()
	t.Log("\n" + text)
	if *table != "" {
		must(t, os.WriteFile(*table, []byte(text), 0o644))
	}
}

// Every fault is complete, and the demo's six are among them.
func TestTable(t *testing.T) {
	names := map[string]bool{}
	for _, f := range append(Table(), Squeezes()...) {
		if names[f.Name] {
			t.Errorf("two faults are called %s", f.Name)
		}
		names[f.Name] = true
		if f.Text == "" || f.At < Owner || f.At > Leader || f.Effect < Unnoticed || f.Effect > Dark || f.Do == nil {
			t.Errorf("fault %s lacks something: %+v", f.Name, f)
		}
		if f.Fixed && f.Lasting(time.Hour).Hold == time.Hour {
			t.Errorf("fault %s is of a fixed length, and has another", f.Name)
		}
		if f.Layer != 0 && f.At != Owner {
			t.Errorf("fault %s is done to the %v, and is to be done to any node beside others", f.Name, f.At)
		}
	}
	var shown []string
	for _, f := range Faults() {
		shown = append(shown, f.Title())
	}
	want := []string{"kill -9", "frozen 5 s, thawed", "cut 5 s, mended", "cable out 5 s, in", "clean stop, restart", "planned move"}
	if !slices.Equal(shown, want) {
		t.Errorf("the demo shows %q, want %q", shown, want)
	}
	if f, ok := Named("freeze"); !ok || f.Lasting(750*time.Millisecond).Title() != "frozen 750 ms, thawed" {
		t.Errorf("freeze is %+v, %v", f, ok)
	}
}

// ownerLeads and anotherLeads share the doings of a fault.
func ownerLeads(opt ClusterOptions) lane {
	l := lane{name: "owner_leads", opt: opt}
	for _, f := range Table() {
		if f.At == Owner && f.Layer != LoadLayer && !strings.HasPrefix(f.Name, "starve-") {
			l.add(f, (*runs+1)/2, true)
		}
	}
	return l
}

func anotherLeads(opt ClusterOptions) lane {
	l := lane{name: "another_leads", opt: opt}
	for _, f := range ownerLeads(opt).faults {
		l.add(f.Fault, *runs/2, false)
	}
	for _, f := range Table() {
		if f.At == Leader {
			l.add(f, *runs, false)
		}
	}
	return l
}

// lifetimeFence leaves out freezing: docs/safety.md says why that may show two owners.
func lifetimeFence(opt ClusterOptions) lane {
	opt.Fence, opt.Lease = "lifetime", 3*time.Second
	l := lane{name: "lifetime", opt: opt}
	for _, name := range []string{"kill", "cut", "stop", "move"} {
		f, _ := Named(name)
		f.Text = "fence: lifetime; " + f.Text
		l.add(f, *runs, true)
		hold := 2 * opt.Lease
		if f.Effect == HandOver { // no lease is waited for
			hold = time.Second
		}
		l.faults[len(l.faults)-1].Fault = f.Lasting(hold)
	}
	return l
}

func squeezed(opt ClusterOptions) lane {
	opt.Disks, opt.Memory = true, true
	l := lane{name: "squeezed", opt: opt}
	for _, f := range append(loadFaults(), Squeezes()...) {
		l.add(f, *runs, f.At != Leader)
		last := &l.faults[len(l.faults)-1]
		last.also = f.At == Owner
		if f.Effect == Unnoticed { // what is not to be noticed has to last
			last.Fault = f.Lasting(2 * time.Second)
		}
	}
	return l
}

func (l *lane) add(f Fault, times int, leads bool) {
	f = f.Lasting(lastingLeases * cmp.Or(l.opt.Lease, 250*time.Millisecond))
	l.faults = append(l.faults, laneFault{Fault: f, times: times, leads: leads})
}

// run goes through the lane. A fault that leaves its cluster unhealthy ends it: nothing
// could be made of the next ones.
func (l lane) run(t *testing.T, all *results) {
	c := l.cluster(t)
	for n, well := 0, true; well && n < *runs; n++ {
		t.Run(fmt.Sprintf("round_%d", n+1), func(t *testing.T) { well = l.round(t, c, n, all) })
	}
	v, err := c.Judge(0, Now())
	must(t, err)
	if v.TwoOwners != 0 || v.Left {
		t.Errorf("from start to end: %v with two owners at %v, keepalived left Backup: %v", v.TwoOwners, v.Overlaps, v.Left)
	}
	for _, n := range c.Nodes {
		noPanic(t, n.proc)
	}
}

// round does every fault once that is to be done more than n times, and says whether the
// cluster is well in the end.
func (l lane) round(t *testing.T, c *Cluster, n int, all *results) (well bool) {
	for _, f := range l.faults {
		if n >= f.times {
			continue
		}
		well = true
		t.Run(f.Name, func(t *testing.T) {
			if err := c.Possible(f.Fault); err != nil {
				t.Skip("SKIPPED: ", err)
			}
			well = false
			must(t, c.Arrange(t.Context(), f.leads != (f.also && n%2 == 1)))
			row, err := testFault(t, c, f.Fault)
			if err == nil {
				all.add(row)
				well = true
			}
		})
		if !well {
			return false
		}
	}
	return true
}

// cluster forms the lane's cluster, without disks or memory groups where there are none.
func (l lane) cluster(t *testing.T) *Cluster {
	t.Helper()
	path, err := buildQuorate()
	must(t, err)
	l.opt.Binary = path
	for {
		c, err := StartCluster(t.Context(), newLab(t), l.opt)
		switch {
		case errors.Is(err, ErrNoDisks) && l.opt.Disks:
			l.opt.Disks = false
		case errors.Is(err, ErrNoMemoryGroups) && l.opt.Memory:
			l.opt.Memory = false
		default:
			must(t, err)
			return c
		}
		t.Logf("SKIPPED in part: %v", err)
	}
}

// results are the rows of all lanes, by fault.
type results struct {
	mu    sync.Mutex
	order []string
	rows  map[string][]Row
}

// newResults has a line for every fault of the lanes, in their order.
func newResults(lanes ...lane) *results {
	r := &results{rows: map[string][]Row{}}
	for _, l := range lanes {
		for _, f := range l.faults {
			if !slices.Contains(r.order, f.Title()) {
				r.order = append(r.order, f.Title())
			}
		}
	}
	return r
}

func (r *results) add(row Row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows[row.Fault] = append(r.rows[row.Fault], row)
}

func (r *results) markdown() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	b.WriteString("| fault | runs (owner led) | outage, median | maximum | bound | two owners | owner changed | keepalived |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|\n")
	for _, fault := range r.order {
		rows := r.rows[fault]
		if len(rows) == 0 {
			fmt.Fprintf(&b, "| %s | not done | | | | | | |\n", fault)
			continue
		}
		b.WriteString(summary(fault, rows) + "\n")
	}
	return b.String()
}

func summary(fault string, rows []Row) string {
	var outages []time.Duration
	var two time.Duration
	led, changed, kept := 0, 0, "Backup"
	for _, r := range rows {
		outages = append(outages, r.Outage())
		two += r.Verdict.TwoOwners
		if r.Owner == r.Leader {
			led++
		}
		if len(r.Verdict.Owners) > 1 {
			changed++
		}
		if r.Verdict.Left {
			kept = "LEFT"
		}
	}
	bound := "none"
	if rows[0].Bound != 0 {
		bound = millis(rows[0].Bound)
	}
	slices.Sort(outages)
	return fmt.Sprintf("| %s | %d (%d) | %s | %s | %s | %s | %d of %d | %s |", fault, len(rows), led,
		millis(outages[len(outages)/2]), millis(outages[len(outages)-1]), bound, millis(two), changed, len(rows), kept)
}

func millis(d time.Duration) string {
	return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
}
