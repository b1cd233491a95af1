package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	stopLimit  = 15 * time.Second
	moveLimit  = 3 * time.Second       // for a refused move to be tried again
	inLease    = 20 * time.Millisecond // much shorter than a lease
	dayAndMore = 400 * 24 * time.Hour  // a step of the time of day that nothing survives that counts by it
)

// A doing is what a fault does.
type doing = func(context.Context, *Case) (func() error, error)

// Faults returns the rows of design.md, section 1, and a planned move: what the demo
// shows. They are the first of [Table].
func Faults() (out []Fault) {
	for _, f := range Table() {
		if f.Shown {
			out = append(out, f)
		}
	}
	return out
}

// Named returns the fault of that name in [Table].
func Named(name string) (Fault, bool) {
	table := Table()
	i := slices.IndexFunc(table, func(f Fault) bool { return f.Name == name })
	if i < 0 {
		return Fault{}, false
	}
	return table[i], true
}

// Table returns all faults that need no more than a cluster; the partition needs one
// with an inside probe, since only that sees what an owner says that is cut off with its
// clients. Those that a cluster's disks and memory groups are for follow in [Squeezes].
func Table() []Fault {
	return slices.Concat(processFaults(), linkFaults(), commandFaults(), pairFaults(), leaderFaults(), clockFaults(), loadFaults())
}

func processFaults() []Fault {
	return []Fault{
		{Name: "kill", Text: "kill -9", At: Owner, Effect: TakeOver, Layer: ProcessLayer, Hold: 3 * time.Second, Shown: true, Do: killed},
		{Name: "freeze", Text: "frozen %v, thawed", At: Owner, Effect: TakeOver, Layer: ProcessLayer, Hold: 5 * time.Second, Shown: true, Do: frozen},
		{Name: "cut", Text: "cut %v, mended", At: Owner, Effect: TakeOver, Layer: LinkLayer, Hold: 5 * time.Second, Shown: true, Do: atLink((*Host).Cut, (*Host).Mend)},
		{Name: "pull", Text: "cable out %v, in", At: Owner, Effect: TakeOver, Layer: LinkLayer, Hold: 5 * time.Second, Shown: true, Do: atLink((*Host).Pull, (*Host).Replug)},
		{Name: "stop", Text: "clean stop, restart", At: Owner, Effect: HandOver, Layer: ProcessLayer, Hold: 3 * time.Second, Shown: true, Do: stopped},
		{Name: "move", Text: "planned move", At: Owner, Effect: HandOver, Layer: CommandLayer, Hold: 2 * time.Second, Shown: true, Do: moved},
		{Name: "kill-start", Text: "kill -9, started within the lease", At: Owner, Effect: TakeOver, Hold: inLease, Fixed: true, Do: killed},
		{Name: "stop-start", Text: "clean stop, started at once", At: Owner, Effect: HandOver, Fixed: true, Do: stopped},
		{Name: "kill-all", Text: "all three killed for %v, started", At: Owner, Effect: Dark, Hold: 3 * time.Second, Do: allKilled},
	}
}

func linkFaults() []Fault {
	deaf := func(h *Host) error { return h.CutOneWay(Inbound) }
	mute := func(h *Host) error { return h.CutOneWay(Outbound) }
	lossy := func(h *Host) error { return h.Lossy(30) }
	return []Fault{
		{Name: "partition", Text: "partitioned %v with a client, healed", At: Owner, Effect: TakeOver, Layer: PartitionLayer, Hold: 5 * time.Second, Do: partitioned},
		{Name: "deaf", Text: "deaf %v", At: Owner, Effect: LateTakeOver, Layer: LinkLayer, Hold: 5 * time.Second, Do: atLink(deaf, (*Host).Mend)},
		{Name: "mute", Text: "mute %v", At: Owner, Effect: TakeOver, Layer: LinkLayer, Hold: 5 * time.Second, Do: atLink(mute, (*Host).Mend)},
		{Name: "flap", Text: "cable out and in, 8 times 60 ms", At: Owner, Effect: LateTakeOver, Layer: LinkLayer, Fixed: true, Do: flapped},
		{Name: "lossy", Text: "30 % of frames lost each way for %v", At: Owner, Effect: Dark, Layer: LinkLayer, Hold: 5 * time.Second, Do: atLink(lossy, (*Host).Mend)},
	}
}

func commandFaults() []Fault {
	return []Fault{
		{Name: "release", Text: "release by hand", At: Owner, Effect: TakeOver, Layer: CommandLayer, Do: released},
		{Name: "release-frozen", Text: "release by hand while frozen", At: Owner, Effect: TakeOver, Hold: 500 * time.Millisecond, Do: releasedFrozen},
	}
}

func pairFaults() []Fault {
	return []Fault{
		{Name: "pair", Text: "one pair cut for %v", At: Owner, Effect: Unnoticed, Layer: PairLayer, Hold: 5 * time.Second, Do: unheard(true, true)},
		{Name: "pair-from", Text: "not heard by one other for %v", At: Owner, Effect: Unnoticed, Layer: PairLayer, Hold: 5 * time.Second, Do: unheard(true, false)},
		{Name: "pair-to", Text: "deaf to one other for %v", At: Owner, Effect: Unnoticed, Layer: PairLayer, Hold: 5 * time.Second, Do: unheard(false, true)},
	}
}

// leaderFaults are done to a leader that is not the owner.
func leaderFaults() (out []Fault) {
	for _, f := range append(processFaults()[:4], linkFaults()[1:3]...) {
		f.Name, f.Text = "leader-"+f.Name, "leader: "+f.Text
		f.At, f.Effect, f.Layer, f.Shown = Leader, Unnoticed, 0, false
		out = append(out, f)
	}
	return out
}

func clockFaults() []Fault {
	return []Fault{
		{Name: "wall-step", Text: "time of day stepped 400 days ahead for %v, then back", At: Owner, Effect: Unnoticed, Layer: ProcessLayer, Hold: 5 * time.Second, Do: steppedWall},
		{Name: "wall-kill", Text: "time of day stepped 400 days at all, ahead and back; kill -9", At: Owner, Effect: TakeOver, Hold: 3 * time.Second,
			Do: wallsThenKilled, Check: wallsLogged},
	}
}

func loadFaults() []Fault {
	return []Fault{
		{Name: "starve", Text: "busy loops, 2 to a processor, for %v", At: Owner, Effect: Unnoticed, Layer: LoadLayer, Hold: 5 * time.Second, Do: starved},
		{Name: "starve-kill", Text: "starved, and kill -9", At: Owner, Effect: TakeOver, Hold: 3 * time.Second, Do: starvedAnd(killed)},
		{Name: "starve-cut", Text: "starved, and cut %v", At: Owner, Effect: TakeOver, Hold: 5 * time.Second, Do: starvedAnd(atLink((*Host).Cut, (*Host).Mend))},
	}
}

func killed(_ context.Context, k *Case) (func() error, error) {
	return k.Node.Start, k.Node.proc.Kill()
}

func frozen(_ context.Context, k *Case) (func() error, error) {
	p := k.Node.proc
	return p.Thaw, p.Freeze()
}

func stopped(_ context.Context, k *Case) (func() error, error) {
	return k.Node.Start, k.Node.proc.Stop(stopLimit)
}

// moved has the group moved to the peer. One that was stopped and started just now is
// refused until everybody has heard of its new life.
func moved(ctx context.Context, k *Case) (func() error, error) {
	deadline := Now().Add(moveLimit)
	for {
		err := k.Cluster.Move(ctx, k.Node, k.Peer)
		if err == nil || Now() > deadline {
			return nil, err
		}
		if serr := Sleep(ctx, pollEvery); serr != nil {
			return nil, errors.Join(serr, err)
		}
	}
}

func allKilled(_ context.Context, k *Case) (func() error, error) {
	errs := make([]error, len(k.Cluster.Nodes))
	var wg sync.WaitGroup
	for i, n := range k.Cluster.Nodes {
		wg.Go(func() { errs[i] = n.proc.Kill() })
	}
	wg.Wait()
	return func() error {
		var errs []error
		for _, n := range k.Cluster.Nodes {
			errs = append(errs, n.Start())
		}
		return errors.Join(errs...)
	}, errors.Join(errs...)
}

// atLink makes a doing of what is done to a host's cable.
func atLink(do, undo func(*Host) error) doing {
	return func(_ context.Context, k *Case) (func() error, error) {
		return func() error { return undo(k.Node.Host) }, do(k.Node.Host)
	}
}

func partitioned(_ context.Context, k *Case) (func() error, error) {
	l := k.Cluster.Lab
	return l.Heal, l.Partition(k.Node.Host, k.Cluster.Inside)
}

func flapped(ctx context.Context, k *Case) (func() error, error) {
	const times, length = 8, 60 * time.Millisecond
	h := k.Node.Host
	for range times {
		err := h.Pull()
		if err == nil {
			err = Sleep(ctx, length)
		}
		if err := errors.Join(err, h.Replug()); err != nil {
			return nil, err
		}
		if err := Sleep(ctx, length); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// released has the daemon let go by hand. The command is to succeed.
func released(ctx context.Context, k *Case) (func() error, error) {
	_, err := k.release(ctx)
	return nil, err
}

// releasedFrozen calls the same while the daemon cannot answer: it is to refuse, and to
// leave the daemon's fence alone.
func releasedFrozen(ctx context.Context, k *Case) (func() error, error) {
	p := k.Node.proc
	if err := p.Freeze(); err != nil {
		return nil, err
	}
	out, err := k.release(ctx)
	if err == nil {
		return p.Thaw, fmt.Errorf("quorate release succeeded beside a frozen daemon: %s", out)
	}
	if !strings.Contains(err.Error(), "does not answer") {
		return p.Thaw, fmt.Errorf("quorate release does not say why it refuses: %w", err)
	}
	return p.Thaw, nil
}

// release calls quorate release on the node's host.
func (k *Case) release(ctx context.Context) ([]byte, error) {
	return quorateIn(ctx, k.Node.Host, k.Node.binary, "release", "--config", k.Node.Config)
}

// unheard cuts the way from the node to its peer, the way back, or both.
func unheard(there, back bool) doing {
	return func(_ context.Context, k *Case) (func() error, error) {
		var pairs [][2]*Host
		if there {
			pairs = append(pairs, [2]*Host{k.Node.Host, k.Peer.Host})
		}
		if back {
			pairs = append(pairs, [2]*Host{k.Peer.Host, k.Node.Host})
		}
		each := func(f func(a, b *Host) error) error {
			var errs []error
			for _, p := range pairs {
				errs = append(errs, f(p[0], p[1]))
			}
			return errors.Join(errs...)
		}
		l := k.Cluster.Lab
		return func() error { return each(l.Unblock) }, each(l.Block)
	}
}

func steppedWall(_ context.Context, k *Case) (func() error, error) {
	p := k.Node.proc
	return func() error { return p.StepWall(-dayAndMore) }, p.StepWall(dayAndMore)
}

// wallsThenKilled steps one node ahead and the others back, then kills the owner, so
// that all that follows is decided by nodes of different days.
func wallsThenKilled(ctx context.Context, k *Case) (func() error, error) {
	step := -dayAndMore
	for _, n := range k.Cluster.Nodes {
		if n == k.Node {
			continue
		}
		if err := n.proc.StepWall(step); err != nil {
			return nil, err
		}
		step = dayAndMore
	}
	if err := k.Node.proc.StepWall(dayAndMore); err != nil {
		return nil, err
	}
	back, err := killed(ctx, k)
	return func() error { // steps are undone by a second one the other way
		errs := []error{back()}
		step := dayAndMore
		for _, n := range k.Cluster.Nodes {
			if n != k.Node {
				errs = append(errs, n.proc.StepWall(step))
				step = -step
			}
		}
		return errors.Join(errs...)
	}, err
}

// wallsLogged looks whether the daemons took the stepped time for the time: each line of
// their logs begins with it.
func wallsLogged(_ context.Context, k *Case) error {
	ahead := "time=" + time.Now().Add(dayAndMore).Format("2006-01-")
	back := "time=" + time.Now().Add(-dayAndMore).Format("2006-01-")
	var all strings.Builder
	for _, n := range k.Cluster.Nodes {
		text, err := k.logged(n)
		if err != nil {
			return err
		}
		all.WriteString(text)
	}
	// Whoever only follows may have nothing to log.
	if !strings.Contains(all.String(), ahead) && !strings.Contains(all.String(), back) {
		return fmt.Errorf("no line of the logs has %q or %q: the step was not seen; they are\n%s", ahead, back, all.String())
	}
	return nil
}

func starved(_ context.Context, k *Case) (func() error, error) {
	ld, err := k.Cluster.Lab.Starve()
	if err != nil {
		return nil, err
	}
	return ld.Stop, nil
}

// starvedAnd does something on a machine that was starved a while before.
func starvedAnd(do doing) doing {
	return func(ctx context.Context, k *Case) (func() error, error) {
		fed, err := starved(ctx, k)
		if err != nil {
			return nil, err
		}
		err = Sleep(ctx, 300*time.Millisecond)
		if err != nil {
			return nil, errors.Join(err, fed())
		}
		undo, err := do(ctx, k)
		return func() error { return errors.Join(undo(), fed()) }, err
	}
}
