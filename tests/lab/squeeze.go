package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Squeezes returns the faults that take disk or memory from a node. They need a cluster
// with Disks, or with Memory.
func Squeezes() []Fault {
	both := func(f Fault) []Fault {
		of, at := f, f
		of.Name, of.Text, of.At = f.Name+"-leader", "leader: "+f.Text, Leader
		at.At = OwnerLeader
		return []Fault{of, at}
	}
	var out []Fault
	out = append(out, both(Fault{Name: "disk-full", Text: "disk full", Effect: HandOver, Fixed: true, Do: diskFull})...)
	out = append(out, both(Fault{Name: "disk-hangs", Text: "disk hangs", Effect: HandOver, Fixed: true, Do: diskHangs})...)
	return append(out,
		Fault{Name: "memory", Text: "memory full for %v", At: Owner, Effect: Unnoticed, Hold: 5 * time.Second, Do: memoryFull, Check: memoryWasFull},
		Fault{Name: "oom", Text: "killed for want of memory", At: Owner, Effect: TakeOver, Hold: 3 * time.Second, Do: oomKilled},
	)
}

// Possible returns why a fault cannot be done in a cluster, or nil.
func (c *Cluster) Possible(f Fault) error {
	kind, _, _ := strings.Cut(f.Name, "-")
	switch {
	case kind == "disk" && !c.opt.Disks:
		return ErrNoDisks
	case (kind == "memory" || kind == "oom") && !c.opt.Memory:
		return ErrNoMemoryGroups
	case kind == "wall" && runtime.GOARCH != "amd64":
		return ErrNoWallStep
	case kind == "partition" && c.Inside == nil:
		return errors.New("the cluster has no host inside")
	}
	return nil
}

func diskFull(ctx context.Context, k *Case) (func() error, error) {
	if err := k.Node.disk.Fill(); err != nil {
		return nil, err
	}
	return k.Node.disk.Empty, k.leadsElsewhere(ctx)
}

func diskHangs(ctx context.Context, k *Case) (func() error, error) {
	if err := k.Node.disk.Hang(); err != nil {
		return nil, err
	}
	return k.Node.disk.Thaw, k.leadsElsewhere(ctx)
}

// leadsElsewhere has the cluster commit things, which a leader with a bad disk cannot,
// until another node leads.
func (k *Case) leadsElsewhere(ctx context.Context) error {
	const limit = 20 * time.Second
	deadline := Now().Add(limit)
	to := [2]*Node{k.Peer, k.Cluster.third(k.Node, k.Peer)}
	var last error
	for turn := 0; Now() < deadline; turn++ {
		// It is there already, or the leader can write nothing: either is expected.
		soon, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		last = k.Cluster.Move(soon, k.Peer, to[turn%2])
		cancel()
		s, err := k.Peer.Look(ctx)
		if err == nil && s.Leader != "" && s.Leader != k.Node.Name {
			return nil
		}
		// A move there and back within three of its questions looks to the judge like
		// two owners, see judge.go.
		if err := Sleep(ctx, 10*DefaultPeriod); err != nil {
			return err
		}
	}
	return fmt.Errorf("after %v %s still leads, with a disk that takes nothing; the last move said: %w", limit, k.Node.Name, last)
}

// third returns a node that is neither.
func (c *Cluster) third(a, b *Node) *Node {
	for _, n := range c.Nodes {
		if n != a && n != b {
			return n
		}
	}
	return a
}

// room is what is left of a node's memory when it is squeezed.
const room = 32 << 20 // bytes

// memoryFull has the daemon share its memory with something that uses all that is left:
// whatever it asks for, the kernel has to find first.
func memoryFull(_ context.Context, k *Case) (func() error, error) {
	n, path := k.Node, filepath.Join(k.Cluster.Lab.dir, "long")
	if err := errors.Join(longFile(path, 4*room), n.memory.Leave(room)); err != nil {
		return nil, err
	}
	p, err := n.Host.Start(Command{Name: "reader", Args: reader(path), Memory: n.memory})
	if err != nil {
		return nil, err
	}
	return func() error { return errors.Join(p.Kill(), n.memory.Unlimit(), os.Remove(path)) }, nil
}

// memoryWasFull looks whether it was.
func memoryWasFull(_ context.Context, k *Case) error {
	const often = 100
	times, err := k.Node.memory.Full()
	if err == nil && times < often {
		err = fmt.Errorf("the memory of %s was full only %d times", k.Node.Name, times)
	}
	return err
}

// oomKilled takes all memory that the daemon's group may have, so that the kernel ends
// the daemon.
func oomKilled(_ context.Context, k *Case) (func() error, error) {
	const limit = 20 * time.Second
	n := k.Node
	if err := errors.Join(n.proc.dieFirst(), n.memory.Leave(room)); err != nil {
		return nil, err
	}
	p, err := n.Host.Start(Command{Name: "hog", Args: hog(), Memory: n.memory})
	if err != nil {
		return nil, err
	}
	err = n.proc.Wait(limit)
	if n.proc.Running() {
		return nil, errors.Join(fmt.Errorf("the kernel does not end it: %w", err), p.Kill())
	}
	return func() error { return errors.Join(n.memory.Unlimit(), n.Start()) }, p.Kill()
}
