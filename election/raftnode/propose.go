package raftnode

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// Errors of Propose, Campaign, AddNonvoter, AddVoter, RemoveServer and Bootstrap.
var (
	// ErrNotLeader means that this node does not lead; nothing was proposed.
	ErrNotLeader = errors.New("this node is not the Raft leader")
	// ErrUnknownOutcome means that the entry may be committed still, or may be not:
	// look at what is applied, or propose again what tolerates being there twice.
	ErrUnknownOutcome = errors.New("the outcome is not known")
	// ErrBusy means that the leader did not take the entry in time; nothing was proposed.
	ErrBusy = errors.New("the Raft leader is busy")
	// ErrStopped means that Raft does not run.
	ErrStopped = errors.New("the Raft node is not running")
	// ErrNotVoter means that the node has no vote in its newest configuration.
	ErrNotVoter = errors.New("the node has no vote")
	// ErrNotNonvoter means that a node was to become a voter without having caught
	// up as a non-voter first.
	ErrNotNonvoter = errors.New("the node is not a non-voter of the cluster")
	// ErrVotersChanged means that a change of voters was judged by a set that is not the
	// last one any more. Nothing was changed.
	ErrVotersChanged = errors.New("the voters have changed since this was decided")
	// ErrLastVoter means that nobody would have a vote any more.
	ErrLastVoter = errors.New("it is the cluster's last voter")
	// ErrLeads means that the leader cannot be removed while it leads.
	ErrLeads = errors.New("it is the Raft leader")
)

// enqueueWait bounds how long an entry waits for the library's loop.
const enqueueWait = time.Second

// outcome says what an error of the library means for an entry.
func outcome(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNotLeader
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrBusy
	case errors.Is(err, raft.ErrNotVoter):
		return ErrNotVoter
	case errors.Is(err, raft.ErrCantBootstrap):
		return election.ErrHasState
	}
	// Leadership lost, shutdown, a disk that failed while it wrote: the entry can be
	// in a log and be committed by the next leader.
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

// await runs a call of the library that takes no context. When ctx ends first the
// call goes on, and what comes of it is not known.
func await(ctx context.Context, call func() error) error {
	result := make(chan error, 1)
	go func() { result <- call() }()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, context.Cause(ctx))
	}
}

// Propose has a command committed and applied here. It returns an error of fsm's
// when the command was applied and refused. Only the leader can; it lets nothing
// pass before the first command of its term.
func (n *Node) Propose(ctx context.Context, c fsm.Command) error {
	r, err := n.leading()
	if err != nil {
		return err
	}
	data, err := c.Encode()
	if err != nil {
		return fmt.Errorf("encode command: %w", err)
	}
	term, began := n.led.Load(), time.Now()
	return await(ctx, func() error {
		future := r.Apply(data, enqueueWait)
		if err := future.Error(); err != nil {
			return outcome(err)
		}
		n.commits.add(time.Since(began))
		n.tellCommitted(future.Index(), term)
		if err, refused := future.Response().(error); refused {
			return err
		}
		return nil
	})
}

func (n *Node) leading() (*raft.Raft, error) {
	r := n.raft.Load()
	if r == nil {
		return nil, ErrStopped
	}
	if r.State() != raft.Leader || n.led.Load() != r.CurrentTerm() {
		return nil, ErrNotLeader
	}
	return r, nil
}

// Campaign makes this node stand for election at once, whoever leads, by a message
// to itself over its own transport (design.md 3.4). The leader, if there is one,
// is deposed. It returns when the node has taken that up, not when it has won; it
// fails with ErrNotVoter in a node that has no vote or no log.
func (n *Node) Campaign(ctx context.Context) error {
	r := n.raft.Load()
	if r == nil {
		return ErrStopped
	}
	if r.LastIndex() == 0 || !n.VoterLog().Last.Has(n.cfg.Self.ID) {
		return fmt.Errorf("campaign: %w", ErrNotVoter)
	}
	if r.State() == raft.Leader {
		return nil
	}
	self := raft.ServerAddress(n.cfg.Self.Address.String())
	err := await(ctx, func() error {
		request := raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.id), Addr: []byte(self)}}
		return n.trans.TimeoutNow(n.id, self, &request, new(raft.TimeoutNowResponse))
	})
	if err != nil {
		return fmt.Errorf("campaign: %w", err)
	}
	return nil
}

// AddNonvoter has a node get the log without a vote, so that it can catch up. Only
// the leader can. A server that is there already, with or without a vote, keeps what it
// has, and gets the node's address in the place of its old one. The set of voters is the
// same afterwards.
func (n *Node) AddNonvoter(ctx context.Context, node fsm.Node) error {
	r, err := n.leading()
	if err != nil {
		return err
	}
	id, addr := raft.ServerID(node.ID.String()), raft.ServerAddress(node.Address.String())
	for _, s := range n.servers() {
		if s.ID == id && s.Address == addr {
			return nil
		}
	}
	return n.change(ctx, "add "+node.Name, func() error { return r.AddNonvoter(id, addr, 0, enqueueWait).Error() })
}

// AddVoter gives a non-voter its vote. Only the leader can, and only when the
// caller knows that the node has caught up and that the last change of voters, which
// made the set over, is long enough ago (lease.md, V6). When that is no longer the last
// set it fails with ErrVotersChanged, however late the call comes to be made. It fails
// with ErrNotNonvoter for a node that AddNonvoter has not added.
func (n *Node) AddVoter(ctx context.Context, node fsm.Node, over election.VoterSet) error {
	r, err := n.leading()
	if err != nil {
		return err
	}
	last, err := n.stores.voters.inForce(over)
	if err != nil {
		return fmt.Errorf("give %s a vote: %w", node.Name, err)
	}
	id, addr := raft.ServerID(node.ID.String()), raft.ServerAddress(node.Address.String())
	for _, s := range n.servers() {
		switch {
		case s.ID != id:
		case s.Address != addr:
			return fmt.Errorf("give %s at %s a vote: the cluster has it at %s: %w", node.Name, addr, s.Address, ErrNotNonvoter)
		case s.Suffrage == raft.Voter:
			return nil
		default:
			return n.change(ctx, "give "+node.Name+" a vote", func() error { return r.AddVoter(id, addr, last, enqueueWait).Error() })
		}
	}
	return fmt.Errorf("give %s at %s a vote: %w", node.Name, addr, ErrNotNonvoter)
}

// RemoveServer takes a server out of the cluster's configuration, whatever it was in it;
// a server that is not there is no error. Only the leader can, and only when the caller
// knows that the last change of voters, which made the set over, is long enough ago
// (lease.md, V6): see AddVoter. It fails with
// ErrLastVoter for the only voter, and with ErrLeads for this node itself.
func (n *Node) RemoveServer(ctx context.Context, id fsm.InstanceID, over election.VoterSet) error {
	r, err := n.leading()
	if err != nil {
		return err
	}
	last, err := n.stores.voters.inForce(over)
	if err != nil {
		return fmt.Errorf("remove server %s: %w", id.Short(), err)
	}
	voters, found := 0, false
	for _, s := range n.servers() {
		switch {
		case s.ID == raft.ServerID(id.String()):
			found = true
		case s.Suffrage == raft.Voter:
			voters++
		}
	}
	switch {
	case !found:
		return nil
	case voters == 0:
		return fmt.Errorf("remove server %s: %w", id.Short(), ErrLastVoter)
	case id == n.cfg.Self.ID:
		return fmt.Errorf("remove server %s: it leads, so hand the leadership over first: %w", id.Short(), ErrLeads)
	}
	return n.change(ctx, "remove server "+id.Short(), func() error { return r.RemoveServer(raft.ServerID(id.String()), last, enqueueWait).Error() })
}

func (n *Node) change(ctx context.Context, what string, call func() error) error {
	if err := await(ctx, func() error { return outcome(call()) }); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Bootstrap writes the first configuration: all nodes are voters. It fails with
// election.ErrHasState in a node that has state, and may be called only by the one
// node that forms the cluster.
func (n *Node) Bootstrap(ctx context.Context, nodes []fsm.Node) error {
	r := n.raft.Load()
	if r == nil {
		return ErrStopped
	}
	if n.HasState() {
		return fmt.Errorf("bootstrap: %w", election.ErrHasState)
	}
	var c raft.Configuration
	for _, node := range nodes {
		c.Servers = append(c.Servers, raft.Server{
			Suffrage: raft.Voter,
			ID:       raft.ServerID(node.ID.String()),
			Address:  raft.ServerAddress(node.Address.String()),
		})
	}
	return n.change(ctx, "bootstrap", func() error { return r.BootstrapCluster(c).Error() })
}
