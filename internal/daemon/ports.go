package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/election/gossip"
	"github.com/quorate/quorate/election/peerlink"
	"github.com/quorate/quorate/election/raftnode"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

// identity is who this node is for every connection.
func (n *Participant) identity() peerlink.Identity {
	id := peerlink.Identity{Cluster: n.cfg.Cluster, Instance: n.self.ID}
	if n.raft != nil {
		id.ClusterID = n.raft.State().Cluster
	}
	return id
}

// admit says whether Raft may be spoken with an instance that calls. Nothing is
// accepted before Raft is open.
func (n *Participant) admit(id fsm.InstanceID) bool { return n.raft.AcceptsFrom(id) }

func (n *Participant) meta() gossip.Meta {
	m := gossip.Meta{Instance: n.self.ID, Name: n.self.Name, Role: n.self.Role, Version: n.version}
	if n.raft != nil {
		m.Cluster, m.HasState = n.raft.State().Cluster, n.raft.HasState()
	}
	return m
}

// peerAddresses is where nodes should be: the file's peers and those that the
// cluster knows.
func (n *Participant) peerAddresses() []netip.AddrPort {
	out := slices.Clone(*n.peers.Load())
	for _, m := range n.raft.State().Nodes {
		out = append(out, m.Address)
	}
	return out
}

// raftStream is Raft's share of the port.
type raftStream struct {
	net.Listener
	n *Participant
}

// Dial connects to the instance that the configuration says is at the address.
func (s raftStream) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	at, err := netip.ParseAddrPort(string(to))
	if err != nil {
		return nil, fmt.Errorf("dial raft peer: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	expect, _ := s.n.raft.InstanceAt(to)
	return s.n.link.DialRaft(ctx, at, expect)
}

// raftSink turns what Raft says into events.
type raftSink struct{ n *Participant }

func (s raftSink) Applied(a raftnode.Applied) {
	if s.n.told != nil {
		s.n.told(a.State.Document)
	}
	s.n.agent.Post(core.Applied{State: a.State})
}

func (s raftSink) VoterSets(l election.VoterLog) { s.n.agent.Post(core.Voters{Log: l}) }

func (s raftSink) Leader(l raftnode.LeaderInfo) {
	s.n.agent.Post(core.Leader{ID: l.ID, Self: l.Self, Term: l.Term})
}

func (s raftSink) Disk(h raftnode.DiskHealth) {
	switch {
	case h.Well():
		s.n.agent.Post(core.DiskFailed{})
	case h.Err != nil:
		s.n.agent.Post(core.DiskFailed{Err: h.Err})
	default:
		s.n.agent.Post(core.DiskFailed{Err: fmt.Errorf("a write has been waiting since %s", h.StalledSince.Format(time.TimeOnly))})
	}
}

// gossipSink turns datagrams into events.
type gossipSink struct{ n *Participant }

func (s gossipSink) Datagram(from netip.AddrPort, payload []byte) {
	msg, err := election.Decode(payload)
	if err != nil {
		// A node of another version sends a dozen of them a second.
		if s.n.seldom.Allow("malformed " + from.String()) {
			s.n.log.Warn("dropped a lease datagram", "from", from, "error", err)
		}
		return
	}
	s.n.agent.Post(core.Datagram{Message: msg})
}

// shareNeighbours sends a list to the other nodes. One that is lost is sent again.
func (n *Participant) shareNeighbours(payload []byte) {
	for _, m := range n.gossip.Members() {
		if err := n.gossip.SendNeighbours(m.Address, payload); err != nil {
			n.log.Debug("cannot send a list of neighbours", "to", m.Address, "error", err)
		}
	}
}

func (s gossipSink) MembersChanged(changes []gossip.Change) {
	for _, c := range changes {
		if s.n.replaced(c) {
			continue
		}
		if c.Kind == gossip.NameClash || c.Kind == gossip.InstanceClash {
			s.n.log.Error("two nodes claim one identity: one of them is misconfigured or a copy", "kind", c.Kind.String(),
				"name", c.Member.Name, "instance", c.Member.Instance.Short(), "address", c.Member.Address,
				"other", c.Other.Name, "other_instance", c.Other.Instance.Short(), "other_address", c.Other.Address)
			continue
		}
		s.n.log.Info("gossip member", "change", c.Kind.String(), "name", c.Member.Name, "role", c.Member.Role.String(),
			"address", c.Member.Address, "version", c.Member.Version, "in_cluster", !c.Member.Cluster.IsZero(), "has_state", c.Member.HasState)
	}
}

// raftPort is what the agent asks of Raft.
type raftPort struct{ n *Participant }

// leader is whom to call; an error if nobody is known to lead.
func (p raftPort) leader() (peerlink.Peer, error) {
	l := p.n.raft.Leader()
	if l.ID.IsZero() {
		return peerlink.Peer{}, errors.New("no Raft leader is known: there is no majority, or an election is under way")
	}
	at, err := netip.ParseAddrPort(string(l.Address))
	if err != nil {
		return peerlink.Peer{}, fmt.Errorf("the leader's address: %w", err)
	}
	return peerlink.Peer{Address: at, Instance: l.ID}, nil
}

// Propose puts the command to the leader, wherever that is.
func (p raftPort) Propose(ctx context.Context, cmd fsm.Command) error {
	err := p.n.raft.Propose(ctx, cmd)
	if !errors.Is(err, raftnode.ErrNotLeader) {
		return err
	}
	to, err := p.leader()
	if err != nil {
		return err
	}
	if to.Instance == p.n.self.ID {
		return raftnode.ErrNotLeader // just lost, or not in office yet
	}
	b, err := cmd.Encode()
	if err != nil {
		return fmt.Errorf("encode the command: %w", err)
	}
	_, err = p.n.link.Client().Propose(ctx, to, b)
	return err
}

func (p raftPort) Campaign(ctx context.Context) error { return p.n.raft.Campaign(ctx) }

func (p raftPort) AskCampaign(ctx context.Context, node fsm.Node) error {
	return p.n.link.Client().Campaign(ctx, peerlink.Peer{Address: node.Address, Instance: node.ID})
}

func (p raftPort) AddNonvoter(ctx context.Context, node fsm.Node) error {
	return p.n.raft.AddNonvoter(ctx, node)
}

func (p raftPort) AddVoter(ctx context.Context, node fsm.Node, over election.VoterSet) error {
	return p.n.raft.AddVoter(ctx, node, over)
}

func (p raftPort) RemoveServer(ctx context.Context, id fsm.InstanceID, over election.VoterSet) error {
	return p.n.raft.RemoveServer(ctx, id, over)
}

// peers is what the formation asks of other nodes.
type peers struct{ n *Participant }

func (p peers) Hello(ctx context.Context, at netip.AddrPort) (election.Hello, error) {
	return p.n.link.Client().Hello(ctx, peerlink.Peer{Address: at})
}

func (p peers) Pledge(ctx context.Context, at netip.AddrPort, pledge election.Pledge) error {
	return p.n.link.Client().Pledge(ctx, peerlink.Peer{Address: at}, pledge)
}

func (p peers) Join(ctx context.Context, at netip.AddrPort, self fsm.Node) error {
	return p.n.link.Client().Join(ctx, peerlink.Peer{Address: at}, self)
}

// handlers answers other nodes' calls.
type handlers struct{ n *Participant }

func (h handlers) Hello(context.Context) (election.Hello, error) { return h.n.former.Hello(), nil }

func (h handlers) Pledge(_ context.Context, _ fsm.InstanceID, p election.Pledge) error {
	return h.n.former.TakePledge(p)
}

func (h handlers) Propose(ctx context.Context, from fsm.InstanceID, command []byte) (peerlink.Proposed, error) {
	if err := h.n.mayPropose(from); err != nil {
		return peerlink.Proposed{}, err
	}
	cmd, err := fsm.DecodeCommand(command)
	if err != nil {
		return peerlink.Proposed{}, err
	}
	if err := h.n.raft.Propose(ctx, cmd); err != nil {
		return peerlink.Proposed{}, forCaller(err)
	}
	return peerlink.Proposed{Index: h.n.raft.State().Index}, nil
}

// forCaller names an error of raftnode as the calls between nodes know it.
func forCaller(err error) error {
	if errors.Is(err, raftnode.ErrNotLeader) {
		return fmt.Errorf("%w: %w", peerlink.ErrNotLeader, err)
	}
	return err
}

func (h handlers) Campaign(ctx context.Context, _ fsm.InstanceID) error {
	return h.n.raft.Campaign(ctx)
}

func (h handlers) Join(ctx context.Context, _ fsm.InstanceID, node fsm.Node) error {
	if !h.n.raft.Leader().Self {
		return peerlink.ErrNotLeader
	}
	return h.n.join(ctx, node)
}

// formation takes note of how the node gets on towards a cluster, and tells the
// others once it belongs to one.
func (n *Participant) formation(f election.Formation) {
	n.note.set(f)
	if f.Step != election.StepDone {
		return
	}
	if err := n.gossip.UpdateMeta(n.meta()); err != nil {
		n.log.Warn("cannot tell the other nodes what this one is", "error", err)
	}
}

// A formationNote is the last word on how a node without a cluster gets on.
type formationNote struct {
	mu sync.Mutex
	f  election.Formation
}

func (n *formationNote) set(f election.Formation) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.f = f
}

func (n *formationNote) get() election.Formation {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.f
}

// apiPort is what the API asks of the node.
type apiPort struct{ n *node }

func (p apiPort) Status(ctx context.Context) (core.Status, error) {
	s, err := p.n.agent.Status(ctx)
	if err != nil {
		return s, err
	}
	if s.Cluster == "" {
		s.Cluster = p.n.cfg.Cluster
	}
	if p.n.part != nil {
		p.n.part.describe(&s)
	}
	if problems := p.n.file.problems.Load(); problems != nil {
		s.Problems = append(s.Problems, *problems...)
	}
	s.VRRPHeard = p.n.vrrp.counts()
	s.Neighbours = p.n.lan.known()
	if p.n.fence != nil {
		drops, err := p.n.fence.Drops()
		if err != nil {
			s.Problems = append(s.Problems, err.Error())
		}
		s.FenceDrops = byName(drops)
	}
	if p.n.shadow != nil {
		p.n.shadow.describe(&s)
	}
	return s, nil
}

// describe adds how the node gets on towards a cluster, and whom it turned away.
func (n *Participant) describe(s *core.Status) {
	gone := n.retired(s)
	if f := n.note.get(); s.ClusterID == "" && f.Step != 0 && !gone {
		if s.State == "forming" {
			s.State = f.Step.String()
		}
		s.Problems = append(s.Problems, f.String())
	}
	s.Refused, s.Foreign = byName(n.link.Refusals()), byName(n.gossip.Foreign())
}

// byName names the keys of a count.
func byName[K interface {
	comparable
	fmt.Stringer
}](counts map[K]uint64) map[string]uint64 {
	out := make(map[string]uint64, len(counts))
	for k, v := range counts {
		out[k.String()] = v
	}
	return out
}

func (p apiPort) Move(ctx context.Context, group, node string) error {
	return p.n.agent.Move(ctx, group, node)
}

func (p apiPort) Release() { p.n.agent.Release() }
