package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Verdict is what was seen from outside in a window of time.
type Verdict struct {
	From         Instant       `json:"from"`
	To           Instant       `json:"to"`
	Outage       time.Duration `json:"outage_ns"`          // longest time in which nobody answered by ARP
	Outage6      time.Duration `json:"outage6_ns"`         // the same by neighbour discovery; 0 without IPv6
	ClientOutage time.Duration `json:"client_outage_ns"`   // longest time in which the client got nothing
	TwoOwners    time.Duration `json:"two_owners_ns"`      // time with two owners, of either family
	Overlaps     []Span        `json:"overlaps"`           // when that was
	Owners       []string      `json:"owners"`             // who answered, in order
	Left         bool          `json:"keepalived_left"`    // keepalived sent an advert or held an address
	Blind        time.Duration `json:"longest_unasked_ns"` // longest time in which the probe itself asked nothing
}

// Judge looks at everything recorded from one instant to another. It fails when an
// observer was broken, since its silence would prove nothing.
func (c *Cluster) Judge(from, to Instant) (Verdict, error) {
	v := Verdict{From: from, To: to}
	traces := func(probes []*Probe) (out []Trace) {
		for _, p := range probes {
			out = append(out, p.Trace().Between(from, to))
		}
		return out
	}
	t4, t6 := traces(c.Probes4), traces(c.Probes6)
	v.Outage = Outage(t4[0].Answers, from, to).Length()
	v.Owners = Owners(t4[0].Answers, from, to)
	v.Blind = Blind(t4[0], from, to).Length()
	v.Overlaps = Overlaps(t4)
	if len(t6) > 0 {
		v.Outage6 = Outage(t6[0].Answers, from, to).Length()
		v.Overlaps = union(append(v.Overlaps, Overlaps(t6)...))
	}
	v.TwoOwners = Total(v.Overlaps)
	v.ClientOutage = Outage(c.Client.Trace().Answers, from, to).Length()
	if c.router != nil {
		v.Left = c.Watches[c.router.Name].Acted(from, to)
	}
	return v, c.observersErr()
}

func (c *Cluster) observersErr() error {
	var errs []error
	for _, p := range append(slices.Clone(c.Probes4), c.Probes6...) {
		errs = append(errs, p.Err())
	}
	for _, w := range c.Watches {
		errs = append(errs, w.Err())
	}
	if c.Keepalived != nil && !c.Keepalived.Running() {
		errs = append(errs, fmt.Errorf("keepalived ended by itself: %w; its log is %s", c.Keepalived.Wait(0), c.Keepalived.Log))
	}
	return errors.Join(errs...)
}

// A Fault is one row of the table: what is done to the owner, and undone.
type Fault struct {
	Name string
	// Planned faults let the owner hand over; others have to be noticed.
	Planned bool
	Inject  func(context.Context, *Cluster, *Node) error
	Hold    time.Duration // between Inject and Restore
	Restore func(*Cluster, *Node) error
}

// Bound returns how long a fault may leave the group without an answer.
func (f Fault) Bound(lease time.Duration) time.Duration {
	if f.Planned {
		return 50 * time.Millisecond
	}
	return lease + 150*time.Millisecond
}

// Faults returns the rows of design.md, section 1, and a planned move.
func Faults() []Fault {
	restart := func(_ *Cluster, n *Node) error { return n.Start() }
	return []Fault{
		{
			Name:   "kill -9",
			Inject: func(_ context.Context, _ *Cluster, n *Node) error { return n.proc.Kill() },
			Hold:   3 * time.Second, Restore: restart,
		},
		{
			Name:   "frozen 5 s, thawed",
			Inject: func(_ context.Context, _ *Cluster, n *Node) error { return n.proc.Freeze() },
			Hold:   5 * time.Second, Restore: func(_ *Cluster, n *Node) error { return n.proc.Thaw() },
		},
		{
			Name:   "cut 5 s, mended",
			Inject: func(_ context.Context, _ *Cluster, n *Node) error { return n.Host.Cut() },
			Hold:   5 * time.Second, Restore: func(_ *Cluster, n *Node) error { return n.Host.Mend() },
		},
		{
			Name:   "cable out 5 s, in",
			Inject: func(_ context.Context, _ *Cluster, n *Node) error { return n.Host.Pull() },
			Hold:   5 * time.Second, Restore: func(_ *Cluster, n *Node) error { return n.Host.Replug() },
		},
		{
			Name: "clean stop, restart", Planned: true,
			Inject: func(_ context.Context, _ *Cluster, n *Node) error { return n.proc.Stop(10 * time.Second) },
			Hold:   3 * time.Second, Restore: restart,
		},
		{
			Name: "planned move", Planned: true,
			Inject: func(ctx context.Context, c *Cluster, n *Node) error { return c.Move(ctx, n, c.Other(n)) },
			Hold:   2 * time.Second,
		},
	}
}

// HarderFaults returns rows beyond that table. The partition needs a cluster with an
// inside probe: only that sees what an owner says that is cut off with its clients.
func HarderFaults() []Fault {
	mend := func(_ *Cluster, n *Node) error { return n.Host.Mend() }
	return []Fault{
		{
			Name:   "partitioned 5 s with a client, healed",
			Inject: func(_ context.Context, c *Cluster, n *Node) error { return c.Lab.Partition(n.Host, c.Inside) },
			Hold:   5 * time.Second, Restore: func(c *Cluster, _ *Node) error { return c.Lab.Heal() },
		},
		{
			Name:   "deaf 5 s",
			Inject: func(_ context.Context, _ *Cluster, n *Node) error { return n.Host.CutOneWay(Inbound) },
			Hold:   5 * time.Second, Restore: mend,
		},
		{
			Name:   "mute 5 s",
			Inject: func(_ context.Context, _ *Cluster, n *Node) error { return n.Host.CutOneWay(Outbound) },
			Hold:   5 * time.Second, Restore: mend,
		},
	}
}

// A Row is a fault as it went.
type Row struct {
	Fault    string        `json:"fault"`
	Bound    time.Duration `json:"bound_ns"`
	Owner    string        `json:"owner"` // before
	After    string        `json:"after"` // owner in the end
	Injected Instant       `json:"injected"`
	Restored Instant       `json:"restored"` // 0 when there was nothing to undo
	Verdict  Verdict       `json:"verdict"`
}

// Within says whether the row's outage keeps its bound, in both families.
func (r Row) Within() bool { return max(r.Verdict.Outage, r.Verdict.Outage6) <= r.Bound }

// probeJitter is how late a probe may be with a question and still measure an outage.
const probeJitter = 50 * time.Millisecond

// Disturbed says that the probe itself paused for so long that the row's outage may be
// the measuring machine's and not the cluster's. What it says of two owners holds.
func (r Row) Disturbed() bool { return r.Verdict.Blind > probeJitter }

// RunFault waits until the cluster is healthy, does a fault to the owner, undoes it,
// waits until the cluster is healthy again, and judges all that time. A Row returned
// with an error holds what was seen until then.
func (c *Cluster) RunFault(ctx context.Context, f Fault) (row Row, err error) {
	row = Row{Fault: f.Name, Bound: f.Bound(c.opt.Lease)}
	if err := c.WaitHealthy(ctx, 40*time.Second); err != nil {
		return row, fmt.Errorf("before %q: %w", f.Name, err)
	}
	owner, err := c.Owner(ctx)
	if err != nil {
		return row, fmt.Errorf("before %q: %w", f.Name, err)
	}
	row.Owner, row.Injected = owner.Name, Now()
	defer func() {
		// A few periods ahead, so that the last answer before the fault is in the window.
		v, jerr := c.Judge(row.Injected.Add(-4*DefaultPeriod), Now())
		row.Verdict, err = v, errors.Join(err, jerr)
		if n := len(v.Owners); n > 0 {
			row.After = v.Owners[n-1]
		}
	}()
	if err := f.Inject(ctx, c, owner); err != nil {
		return row, fmt.Errorf("inject %q on %s: %w", f.Name, owner.Name, err)
	}
	if err := Sleep(ctx, f.Hold); err != nil {
		return row, err
	}
	if f.Restore != nil {
		row.Restored = Now()
		if err := f.Restore(c, owner); err != nil {
			return row, fmt.Errorf("undo %q on %s: %w", f.Name, owner.Name, err)
		}
	}
	if err := c.WaitHealthy(ctx, 40*time.Second); err != nil {
		return row, fmt.Errorf("after %q: %w", f.Name, err)
	}
	return row, nil
}
