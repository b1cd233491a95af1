package raftnode

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

const (
	formInterval = 250 * time.Millisecond
	askTimeout   = 500 * time.Millisecond // for one question to one peer
	joinInterval = 2 * time.Second        // between two requests to be added
)

// Peers asks other nodes while there is no cluster. Each call ends with its
// context; its error is shown to people as the reason.
type Peers interface {
	// Hello asks the node at an address who it is.
	Hello(ctx context.Context, at netip.AddrPort) (election.Hello, error)
	// Pledge asks it for its pledge; nil means that it is on its disk.
	Pledge(ctx context.Context, at netip.AddrPort, p election.Pledge) error
	// Join asks it to have self added to its cluster. It may be asked again while
	// an earlier request is under way.
	Join(ctx context.Context, at netip.AddrPort, self fsm.Node) error
}

// FormerConfig is what a Former needs; Progress may be nil.
type FormerConfig struct {
	Node     *Node
	Cluster  string // the name in the configuration
	Peers    []netip.AddrPort
	Document fsm.Document // the cluster's first, should this node form it
	Ask      Peers
	Log      *slog.Logger
	// Progress is told each change of what the node does towards a cluster. It is
	// called from Run's goroutine.
	Progress func(election.Formation)
}

// A Former brings a node without state into a cluster: it forms one with its
// peers, once and never beside an existing one, or joins theirs. What it may do is
// election.DecideFormation's to say. Its methods may be called concurrently.
type Former struct {
	cfg FormerConfig

	told   election.Formation
	joined time.Time // when last asked to be added
}

// NewFormer returns a Former; Run does the work.
func NewFormer(cfg FormerConfig) *Former { return &Former{cfg: cfg} }

// Hello is how this node introduces itself to others.
func (f *Former) Hello() election.Hello {
	n := f.cfg.Node
	h := election.Hello{
		Cluster:  f.cfg.Cluster,
		Node:     n.cfg.Self,
		Peers:    f.cfg.Peers,
		HasState: n.HasState(),
		Pledge:   n.pledge(),
	}
	state := n.State()
	if !state.Formed() {
		return h
	}
	h.ClusterID = state.Cluster
	for _, m := range state.Nodes {
		h.Members = append(h.Members, m)
	}
	slices.SortFunc(h.Members, func(a, b fsm.Node) int { return a.Address.Compare(b.Address) })
	// An address that does not parse cannot come from us; then the leader is unknown.
	h.Leader, _ = netip.ParseAddrPort(string(n.Leader().Address))
	return h
}

// TakePledge answers a peer that asks for this node's pledge: nil when it is given
// and on the disk, else an error of election.AcceptPledge's or of the disk's.
func (f *Former) TakePledge(p election.Pledge) error {
	n := f.cfg.Node
	n.forming.Lock()
	defer n.forming.Unlock()
	if err := election.AcceptPledge(f.Hello(), p); err != nil {
		return err
	}
	return n.cfg.Dir.setPledge(p)
}

// Run works until the node is in a formed cluster, or ctx ends; both return nil.
func (f *Former) Run(ctx context.Context) error {
	tick := time.NewTicker(formInterval)
	defer tick.Stop()
	for {
		if f.cfg.Node.State().Formed() {
			f.tell(election.Formation{Step: election.StepDone})
			return nil
		}
		f.tell(f.step(ctx))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (f *Former) tell(d election.Formation) {
	if d.Step == f.told.Step && d.String() == f.told.String() {
		return
	}
	f.told = d
	level := slog.LevelInfo
	if d.Step == election.StepRefused {
		level = slog.LevelError
	}
	f.cfg.Log.Log(context.Background(), level, "cluster formation", "step", d.Step, "detail", d.String())
	if f.cfg.Progress != nil {
		f.cfg.Progress(d)
	}
}

// step does one round and returns where it stands then.
func (f *Former) step(ctx context.Context) election.Formation {
	self := f.Hello()
	if self.HasState {
		return f.declare(ctx)
	}
	d := election.DecideFormation(self, f.askAll(ctx))
	var err error
	switch d.Step {
	case election.StepForm:
		err = f.form(ctx, d.Nodes)
	case election.StepJoin:
		err = f.join(ctx, d.To)
	}
	if err != nil {
		return election.Formation{Step: election.StepWait, Reason: fmt.Sprintf("%s: %s", d, err)}
	}
	return d
}

func (f *Former) askAll(ctx context.Context) []election.Peer {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var others []election.Peer
	for _, at := range f.cfg.Peers {
		if at != f.cfg.Node.cfg.Self.Address {
			others = append(others, election.Peer{Address: at})
		}
	}
	var asking sync.WaitGroup
	for i := range others {
		asking.Go(func() {
			h, err := f.cfg.Ask.Hello(ctx, others[i].Address)
			if err != nil {
				others[i].Problem = cause(err)
				return
			}
			others[i].Hello = &h
		})
	}
	asking.Wait()
	return others
}

// cause is why a peer could not be reached, without the peer's address, which stands
// beside it wherever it is shown.
func cause(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return err.Error()
}

func (f *Former) join(ctx context.Context, to netip.AddrPort) error {
	if time.Since(f.joined) < joinInterval {
		return nil
	}
	f.joined = time.Now()
	ctx, cancel := context.WithTimeout(ctx, joinInterval)
	defer cancel()
	return f.cfg.Ask.Join(ctx, to, f.cfg.Node.cfg.Self)
}

// form collects the pledges and bootstraps. The node's own comes first: it keeps
// the cluster's identity over a restart, and whoever leads first declares it.
func (f *Former) form(ctx context.Context, nodes []fsm.Node) error {
	n := f.cfg.Node
	plan := election.Pledge{
		Cluster:  n.pledge().Cluster,
		Name:     f.cfg.Cluster,
		Former:   n.cfg.Self.ID,
		Nodes:    nodes,
		Document: f.cfg.Document,
	}
	if plan.Cluster.IsZero() {
		if _, err := rand.Read(plan.Cluster[:]); err != nil {
			return fmt.Errorf("make a cluster id: %w", err)
		}
	}
	if err := f.TakePledge(plan); err != nil {
		return fmt.Errorf("pledge: %w", err)
	}
	for _, node := range nodes {
		if node.ID == n.cfg.Self.ID {
			continue
		}
		if err := f.askPledge(ctx, node, plan); err != nil {
			return err
		}
	}
	n.forming.Lock()
	defer n.forming.Unlock()
	if err := n.Bootstrap(ctx, nodes); err != nil {
		return err
	}
	// The others have no log, so nobody else stands. If it fails, Raft's own timer
	// does the same a second later.
	if err := n.Campaign(ctx); err != nil {
		f.cfg.Log.Debug("the first election is left to Raft's timer", "error", err)
	}
	return nil
}

func (f *Former) askPledge(ctx context.Context, node fsm.Node, plan election.Pledge) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := f.cfg.Ask.Pledge(ctx, node.Address, plan); err != nil {
		return fmt.Errorf("ask %s (%s) for its pledge: %w", node.Name, node.Address, err)
	}
	return nil
}

// declare makes the plan the cluster's first command, once this node leads and if
// the log is that plan's. Every node that pledged can, so the one that made the
// plan may be gone by then.
func (f *Former) declare(ctx context.Context) election.Formation {
	n := f.cfg.Node
	plan := n.pledge()
	leader := n.Leader()
	// Having applied its own term's first command, a leader has applied all before.
	knows := leader.Self && n.State().Term == leader.Term
	if !knows || plan.IsZero() || !samePlan(plan, n.servers()) {
		return election.Formation{Step: election.StepWait, Reason: "this node has Raft state; waiting for a leader, and for what the cluster has agreed on"}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*enqueueWait)
	defer cancel()
	err := n.Propose(ctx, fsm.Command{At: time.Now(), Form: &fsm.Form{
		Cluster: plan.Cluster, Name: plan.Name, Nodes: plan.Nodes, Document: plan.Document,
	}})
	if err != nil && !errors.Is(err, fsm.ErrFormed) {
		return election.Formation{Step: election.StepWait, Reason: "declare the cluster: " + err.Error()}
	}
	return election.Formation{Step: election.StepDone}
}

// samePlan reports whether the servers in the log are the nodes of the plan. A plan
// that was made anew before it was formed may have an older version elsewhere.
func samePlan(plan election.Pledge, servers []raft.Server) bool {
	same := func(s raft.Server) bool {
		return slices.ContainsFunc(plan.Nodes, func(n fsm.Node) bool { return n.ID.String() == string(s.ID) })
	}
	return len(plan.Nodes) == len(servers) && !slices.ContainsFunc(servers, func(s raft.Server) bool { return !same(s) })
}
