package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// A Fault is one row of the table: what is done to a node, and undone.
type Fault struct {
	Name   string // one word, for journals and the names of tests
	Text   string // for people; %v in it is Hold
	At     Target
	Effect Effect        // what it may do to the group
	Layer  Layer         // what of a node it takes hold of
	Hold   time.Duration // between Do and its undoing
	Fixed  bool          // another Hold would make another fault of it
	Shown  bool          // by make demo

	// Do does it and returns how it is undone, also when it failed half-way; nil: there
	// is nothing to undo.
	Do func(context.Context, *Case) (undo func() error, err error)
	// Check looks in the end whether it was what it says, and did what it should. May be nil.
	Check func(context.Context, *Case) error
}

// Title is the fault's text with its length.
func (f Fault) Title() string {
	length := fmt.Sprintf("%d ms", f.Hold.Milliseconds())
	if f.Hold%time.Second == 0 {
		length = fmt.Sprintf("%d s", f.Hold/time.Second)
	}
	return strings.ReplaceAll(f.Text, "%v", length)
}

// Lasting returns the fault with another length, unless that is fixed.
func (f Fault) Lasting(d time.Duration) Fault {
	if !f.Fixed {
		f.Hold = d
	}
	return f
}

// A Target says to whom a fault is done.
type Target int

// Targets.
const (
	Owner       Target = iota + 1 // whoever is owner
	OwnerLeader                   // an owner that leads Raft as well
	Leader                        // the Raft leader, which is not the owner
)

// String gives words for a table.
func (t Target) String() string {
	switch t {
	case Owner:
		return "owner"
	case OwnerLeader:
		return "owner and leader"
	case Leader:
		return "leader"
	}
	return fmt.Sprintf("Target(%d)", int(t))
}

// An Effect is what a fault may do to the group.
type Effect int

// Effects.
const (
	Unnoticed    Effect = iota + 1 // nothing
	HandOver                       // the owner hands the group over in order
	TakeOver                       // the owner is lost, and another takes over
	LateTakeOver                   // the same, and the owner itself has to say first that it hears nobody
	Dark                           // nobody may be able to answer while it lasts: no bound
)

// String gives a word for a table.
func (e Effect) String() string {
	switch e {
	case Unnoticed:
		return "unnoticed"
	case HandOver:
		return "hand-over"
	case TakeOver:
		return "take-over"
	case LateTakeOver:
		return "late take-over"
	case Dark:
		return "dark"
	}
	return fmt.Sprintf("Effect(%d)", int(e))
}

// Bound returns how long the design lets a fault of this effect leave the group without
// an answer; 0 is no bound.
func (e Effect) Bound(lease time.Duration) time.Duration {
	const work = 150 * time.Millisecond // a campaign, a commit, taking over
	switch e {
	case Unnoticed, HandOver:
		return 50 * time.Millisecond
	case TakeOver:
		return lease + work
	case LateTakeOver:
		return 2*lease + work
	}
	return 0
}

// A Layer is the part of a node, or of the lab, that a fault takes hold of. Two faults
// in one layer of one node would undo each other.
type Layer int

// Layers. Those from Pairs on belong to the lab as a whole.
const (
	ProcessLayer Layer = iota + 1
	LinkLayer
	CommandLayer // an operator's
	PairLayer
	PartitionLayer
	LoadLayer
)

// String gives a word.
func (l Layer) String() string {
	switch l {
	case ProcessLayer:
		return "process"
	case LinkLayer:
		return "link"
	case CommandLayer:
		return "command"
	case PairLayer:
		return "pair"
	case PartitionLayer:
		return "partition"
	case LoadLayer:
		return "load"
	}
	return fmt.Sprintf("Layer(%d)", int(l))
}

// OfLab says that only one fault of the layer can be in a lab, whatever its node.
func (l Layer) OfLab() bool { return l >= PairLayer }

// A Case is one doing of a fault.
type Case struct {
	Cluster *Cluster
	Node    *Node // to whom it is done
	Peer    *Node // another one; neither owner nor leader if there is one like that

	logs map[*Node]int // lengths of the logs when it began
}

// NewCase prepares to do a fault to a node.
func (c *Cluster) NewCase(node, peer *Node) (*Case, error) {
	k := &Case{Cluster: c, Node: node, Peer: peer, logs: map[*Node]int{}}
	for _, n := range c.Nodes {
		b, err := os.ReadFile(n.proc.Log)
		if err != nil {
			return nil, fmt.Errorf("read the log of %s: %w", n.Name, err)
		}
		k.logs[n] = len(b)
	}
	return k, nil
}

// logged returns what a node has logged since the case began.
func (k *Case) logged(n *Node) (string, error) {
	b, err := os.ReadFile(n.proc.Log)
	if err != nil {
		return "", fmt.Errorf("read the log of %s: %w", n.Name, err)
	}
	return string(b[k.logs[n]:]), nil
}

// A Row is a fault as it went.
type Row struct {
	Fault    string        `json:"fault"`
	Bound    time.Duration `json:"bound_ns"` // 0: none
	Node     string        `json:"node"`     // to which it was done
	Owner    string        `json:"owner"`    // before
	Leader   string        `json:"leader"`   // before
	After    string        `json:"after"`    // owner in the end
	Injected Instant       `json:"injected"`
	Restored Instant       `json:"restored"` // 0 when there was nothing to undo
	Verdict  Verdict       `json:"verdict"`
}

// Outage is the longest time without an answer, by ARP or by neighbour discovery.
func (r Row) Outage() time.Duration { return max(r.Verdict.Outage, r.Verdict.Outage6) }

// Within says whether the row's outage keeps its bound, in both families.
func (r Row) Within() bool { return r.Bound == 0 || r.Outage() <= r.Bound }

// probeJitter is how late a probe may be with a question and still measure an outage.
const probeJitter = 50 * time.Millisecond

// Disturbed says that the probe itself paused for so long that the row's outage may be
// the measuring machine's and not the cluster's. What it says of two owners holds.
func (r Row) Disturbed() bool { return r.Verdict.Blind > probeJitter }

// Arrange moves the group until its owner is, or is not, the Raft leader.
func (c *Cluster) Arrange(ctx context.Context, leads bool) error {
	const tries = 5
	for range tries {
		if err := c.WaitHealthy(ctx, patience); err != nil {
			return err
		}
		owner, leader, err := c.agreed(ctx)
		if err != nil {
			return err
		}
		if (owner == leader) == leads {
			return nil
		}
		to := leader
		if !leads {
			to = c.Other(leader)
		}
		if err := c.Move(ctx, owner, to); err != nil {
			// It was told to keep off for a while; a new life knows nothing of that.
			if rerr := errors.Join(to.proc.Stop(stopLimit), to.Start()); rerr != nil {
				return errors.Join(err, rerr)
			}
		}
	}
	return fmt.Errorf("after %d moves leader and owner are still not arranged (owner leads: want %v)", tries, leads)
}

// patience is how long a cluster may take to be well again once a fault is undone.
const patience = 40 * time.Second

// RunFault waits until the cluster is healthy, does a fault to its target, undoes it,
// waits until the cluster is healthy again, and judges all that time. Whether the owner
// leads is as it is: see [Cluster.Arrange]. A Row returned with an error holds what was
// seen until then.
func (c *Cluster) RunFault(ctx context.Context, f Fault) (row Row, err error) {
	row = Row{Fault: f.Title(), Bound: c.bound(f.Effect)}
	k, err := c.target(ctx, f, &row)
	if err != nil {
		return row, fmt.Errorf("before %q: %w", f.Title(), err)
	}
	row.Injected = Now()
	defer func() {
		// A few periods ahead, so that the last answer before the fault is in the window.
		v, jerr := c.Judge(row.Injected.Add(-4*DefaultPeriod), Now())
		row.Verdict, err = v, errors.Join(err, jerr)
		if n := len(v.Owners); n > 0 {
			row.After = v.Owners[n-1]
		}
	}()
	undo, err := f.Do(ctx, k)
	if err != nil {
		if undo != nil {
			err = errors.Join(err, undo())
		}
		return row, fmt.Errorf("do %q to %s: %w", f.Title(), k.Node.Name, err)
	}
	if err := Sleep(ctx, f.Hold); err != nil {
		return row, err
	}
	if undo != nil {
		row.Restored = Now()
		if err := undo(); err != nil {
			return row, fmt.Errorf("undo %q at %s: %w", f.Title(), k.Node.Name, err)
		}
	}
	if err := c.WaitHealthy(ctx, patience); err != nil {
		return row, fmt.Errorf("after %q: %w", f.Title(), err)
	}
	if f.Check != nil {
		if err := f.Check(ctx, k); err != nil {
			return row, fmt.Errorf("check %q at %s: %w", f.Title(), k.Node.Name, err)
		}
	}
	return row, nil
}

// target waits until the cluster is healthy and finds to whom the fault is done.
func (c *Cluster) target(ctx context.Context, f Fault, row *Row) (*Case, error) {
	if err := c.WaitHealthy(ctx, patience); err != nil {
		return nil, err
	}
	owner, leader, err := c.agreed(ctx)
	if err != nil {
		return nil, err
	}
	row.Owner, row.Leader = owner.Name, leader.Name
	if f.At == Leader && owner == leader || f.At == OwnerLeader && owner != leader {
		return nil, fmt.Errorf("it is done to the %v, and the owner is %s, the leader %s: arrange them first",
			f.At, owner.Name, leader.Name)
	}
	node := owner
	if f.At == Leader {
		node = leader
	}
	row.Node = node.Name
	peer := c.Other(owner)
	if peer == leader {
		peer = c.Other(leader)
	}
	if peer == owner { // of two nodes that are all
		peer = leader
	}
	return c.NewCase(node, peer)
}

// lifetimeGrace is what `fence: lifetime` tells voters that it may be late by.
const lifetimeGrace = 1500 * time.Millisecond

// bound is the effect's bound in this cluster.
func (c *Cluster) bound(e Effect) time.Duration {
	if c.opt.Fence == "lifetime" && e == TakeOver {
		// docs/lease.md, section 4: WorstFailover.
		return (c.opt.Lease+lifetimeGrace)*101/100 + 600*time.Millisecond
	}
	return e.Bound(c.opt.Lease)
}
