package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate/election/gossip"
	"github.com/quorate/quorate/election/peerlink"
	"github.com/quorate/quorate/fsm"
)

const (
	// seekEvery is between two looks at whether the cluster knows where this node is.
	seekEvery = 2 * time.Second
	// seekTime bounds one question to all the others.
	seekTime = time.Second
)

// seek keeps the cluster's word for where its nodes are. A node that belongs to a
// cluster and that no leader calls says to the others where it is: it may have another
// address than before. So a node that was removed learns of it too, if it was away then.
func (n *Participant) seek(ctx context.Context) error {
	tick := time.NewTicker(seekEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if n.raft.Leader().Self {
			n.correctAddresses(ctx)
		}
		if n.raft.HasState() && !n.found() {
			n.callOthers(ctx)
		}
	}
}

// found reports whether the cluster calls this node where it is.
func (n *Participant) found() bool {
	for _, m := range n.raft.Stats().Members {
		if m.ID == n.self.ID && m.Address != n.self.Address {
			return false
		}
	}
	return !n.raft.Leader().ID.IsZero()
}

// callOthers asks everybody who may lead to take this node at its address.
func (n *Participant) callOthers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, seekTime)
	defer cancel()
	if n.raft.Leader().Self {
		if err := n.join(ctx, n.self); err != nil {
			n.log.Debug("the cluster does not take this node's new address", "error", err)
		}
		return
	}
	others := n.peerAddresses()
	slices.SortFunc(others, netip.AddrPort.Compare)
	var calls sync.WaitGroup
	for _, at := range slices.Compact(others) {
		if at == n.self.Address {
			continue
		}
		calls.Go(func() {
			err := n.link.Client().Join(ctx, peerlink.Peer{Address: at}, n.self)
			if errors.Is(err, fsm.ErrRetired) {
				n.learnRemoved()
			} else if err != nil {
				n.log.Debug("no answer to where this node is", "peer", at, "error", err)
			}
		})
	}
	calls.Wait()
}

// learnRemoved notes that the cluster goes on without this node.
func (n *Participant) learnRemoved() {
	if !n.removed.Swap(true) {
		n.log.Error("this node was removed from the cluster; stop it, and remove its data_dir if it is to join again", "data_dir", n.cfg.DataDir)
	}
}

// correctAddresses has Raft call each node where the cluster's list of nodes says that
// it is. Who votes does not change by it.
func (n *Participant) correctAddresses(ctx context.Context) {
	nodes := n.raft.State().Nodes
	for _, m := range n.raft.Stats().Members {
		node, known := nodes[m.ID]
		if !known || node.Address == m.Address {
			continue
		}
		if err := n.raft.AddNonvoter(ctx, node); err != nil {
			n.log.Warn("a node's new address is not taken up; it is tried again", "node", node.Name, "address", node.Address, "error", err)
			return
		}
		n.log.Info("a node has another address", "node", node.Name, "address", node.Address, "was", m.Address)
	}
}

// join takes a node's request to belong to the cluster where it says that it is.
func (n *Participant) join(ctx context.Context, node fsm.Node) error {
	st := n.raft.State()
	if !st.Formed() {
		return fsm.ErrNotFormed
	}
	for _, other := range st.Nodes {
		if other.ID != node.ID && other.Address == node.Address {
			return fmt.Errorf("the address %s belongs to node %s (instance %s), and this is instance %s: %w; if that one is lost for good: quorate remove %s",
				node.Address, other.Name, other.ID.Short(), node.ID.Short(), fsm.ErrNameTaken, other.Name)
		}
	}
	return n.agent.Join(ctx, node)
}

// replaced reports whether two nodes of one name are a removed one, of which gossip has
// heard a while ago, and who took its place. A node that belongs to no cluster yet cannot
// know; that it may not have its name it is told when it asks to join.
func (n *Participant) replaced(c gossip.Change) bool {
	st := n.raft.State()
	_, member := st.Retired[c.Member.Instance]
	_, other := st.Retired[c.Other.Instance]
	return c.Kind == gossip.NameClash && (!st.Formed() || member || other)
}
