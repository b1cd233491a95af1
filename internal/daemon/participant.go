package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/election/gossip"
	"github.com/quorate/quorate/election/peerlink"
	"github.com/quorate/quorate/election/raftnode"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/doctor"
)

// ParticipantConfig is what Join needs: the configuration, and the host to stand on.
// All fields are needed but Beat and those after Log.
type ParticipantConfig struct {
	Config  *config.Config
	Version string
	Key     peerlink.Key
	Dir     *raftnode.DataDir // stays open
	Boot    election.BootID
	// LifetimeFence: the addresses' own lifetime is the fence, and Fence does nothing.
	LifetimeFence bool
	Left          []core.Leftover         // see core.Config
	Now           func() election.Instant // reads CLOCK_BOOTTIME
	Clock         func() (election.ClockReading, error)
	Fence         agent.Fence
	Host          agent.Host
	Speaker       agent.Speaker
	Beat          func() // see agent.Config
	Log           *slog.Logger
	// Validate says what this host has against a document that somebody wants to apply;
	// nil: nothing. It is called from any goroutine.
	Validate func(fsm.Document) peerlink.Validation
	// Examine is this host's part in a survey of the doctor; nil: it takes none. It is called
	// from any goroutine.
	Examine func(context.Context, doctor.Request) (doctor.Facts, error)
	// Try is this host's part in a fault on purpose; nil: it takes none. It is called from any
	// goroutine.
	Try func(context.Context, json.RawMessage) (json.RawMessage, error)
	// Neighbours takes the other nodes' lists of neighbours, and does not wait for anything;
	// nil: they are ignored.
	Neighbours func(from netip.AddrPort, payload []byte)
	// Hooks are told where this node's groups stand, and Document of each state's document,
	// before anything comes of it. Neither may block, and nil wants to know nothing. A
	// witness, which has no groups, uses neither.
	Hooks    agent.Hooks
	Document func(fsm.Document)
	// Network and Packets connect the node with the others, and Disk stands before
	// Raft's files; nil: those of this host. Simulations have their own.
	Network peerlink.Network
	Packets gossip.PacketConn
	Disk    func(raft.LogStore, raft.StableStore) (raft.LogStore, raft.StableStore)
}

// A Participant is one node's part in its cluster: the node link, gossip, Raft, the
// formation and the agent, wired to each other. The host's own affairs are outside:
// devices, the fence's programs, the API. Its methods may be called concurrently.
type Participant struct {
	cfg     *config.Config
	version string
	log     *slog.Logger
	self    fsm.Node
	link    *peerlink.Link
	gossip  *gossip.Gossip
	raft    *raftnode.Node
	former  *raftnode.Former
	agent   *agent.Agent
	told    func(fsm.Document) // of each state's document; nil: nobody
	note    formationNote
	seldom  agent.Seldom
	// validate is what this host has against a document; nil: nothing
	validate func(fsm.Document) peerlink.Validation
	removed  atomic.Bool                      // the others say that this node was
	peers    atomic.Pointer[[]netip.AddrPort] // of the file, as it was last read
	// survey is what datagrams of a test are for; nil: there is none under way. Examine is
	// this node's part in one; nil, as in a simulation: it takes none.
	survey  atomic.Pointer[datagrams]
	examine func(context.Context, doctor.Request) (doctor.Facts, error)
	tried   func(context.Context, json.RawMessage) (json.RawMessage, error) // nil: it takes no part in faults on purpose
}

// Join opens a node's part: it takes the ports and Raft's files, and starts nothing.
func Join(cfg ParticipantConfig) (*Participant, error) {
	c := cfg.Config
	n := &Participant{cfg: c, version: cfg.Version, log: cfg.Log, validate: cfg.Validate, examine: cfg.Examine, tried: cfg.Try,
		self: fsm.Node{ID: cfg.Dir.Instance(), Name: c.Node, Address: c.Address, Role: c.Role}}
	n.peers.Store(&c.Peers)
	if err := n.open(cfg); err != nil {
		n.Close()
		return nil, err
	}
	if c.Role != fsm.Member {
		cfg.Hooks, cfg.Document = nil, nil
	}
	n.told = cfg.Document
	n.agent = agent.New(agent.Config{
		Core: core.Config{
			Self: n.self, Boot: cfg.Boot, Started: cfg.Now(),
			Lease: c.Lease, Renew: c.Renew, Grace: c.Grace(),
			LifetimeFence: cfg.LifetimeFence, Left: cfg.Left,
			Longest: cfg.Dir.LongestHold(), AtStart: n.raft.AtStart(),
		},
		Now: cfg.Now, Clock: cfg.Clock, Send: n.gossip.Send,
		Fence: cfg.Fence, Host: cfg.Host, Speaker: cfg.Speaker, Raft: raftPort{n},
		WriteHold: cfg.Dir.SetLongestHold,
		Beat:      cfg.Beat,
		Hooks:     cfg.Hooks,
		Log:       n.log,
	})
	return n, nil
}

// open opens the ports and Raft's files.
func (n *Participant) open(cfg ParticipantConfig) (err error) {
	credentials, err := cfg.Key.Credentials(n.self.ID)
	if n.cfg.TLS != nil {
		credentials, err = peerlink.TLSFiles{CA: n.cfg.TLS.CA, Cert: n.cfg.TLS.Cert, Key: n.cfg.TLS.Key}.Credentials()
	}
	if err != nil {
		return err
	}
	n.link, err = peerlink.Listen(peerlink.Config{
		Address: n.cfg.Address, Credentials: credentials, Identity: n.identity, Admit: n.admit, Network: cfg.Network, Log: n.log,
	})
	if err != nil {
		return err
	}
	n.gossip, err = gossip.Open(gossip.Config{
		Address: n.cfg.Address, Cluster: n.cfg.Cluster, Key: cfg.Key.Gossip(), Meta: n.meta(),
		Streams: n.link.Gossip(), Dial: n.link.DialGossip, Peers: n.peerAddresses,
		Sink: gossipSink{n}, Neighbours: cfg.Neighbours, Survey: n.surveyed, Packets: cfg.Packets, Log: n.log,
	})
	if err != nil {
		return err
	}
	n.raft, err = raftnode.Open(raftnode.Config{
		Self: n.self, Dir: cfg.Dir, Stream: raftStream{Listener: n.link.Raft(), n: n}, Sink: raftSink{n}, Disk: cfg.Disk, Log: n.log,
		Resume: core.NotMissed(cfg.Left, cfg.Now()),
	})
	if err != nil {
		return err
	}
	n.former = raftnode.NewFormer(raftnode.FormerConfig{
		Node: n.raft, Cluster: n.cfg.Cluster, Peers: n.cfg.Peers, Document: n.cfg.Document,
		Ask: peers{n}, Log: n.log, Progress: n.formation,
	})
	return nil
}

// A Task runs beside a Participant until its context ends; its error ends all.
type Task struct {
	Name string
	Run  func(context.Context) error
}

// Run takes part until the agent has let go of everything after Stop, until ctx ends,
// or until something fails; it closes what Join opened but the data directory. Call it once.
func (n *Participant) Run(ctx context.Context, beside ...Task) error {
	n.agent.Post(core.Voters{Log: n.raft.VoterLog()})
	return runAgent(ctx, n.agent, append([]Task{
		{"node link", func(ctx context.Context) error { return n.link.Run(ctx, handlers{n}) }},
		{"gossip", n.gossip.Run}, {"raft", n.raft.Run}, {"formation", n.former.Run}, {"seek", n.seek},
	}, beside...)...)
}

// runAgent runs the agent with what it needs, until it has let go of everything after a
// Stop, until ctx ends, or until something fails.
func runAgent(ctx context.Context, a *agent.Agent, beside ...Task) error {
	all, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(all)
	g.Go(func() error {
		defer cancel() // the agent is the last to go: when it is done, so is everybody
		return a.Run(ctx)
	})
	for _, t := range beside {
		g.Go(func() error {
			if err := t.Run(ctx); err != nil {
				return fmt.Errorf("%s: %w", t.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// Stop has the agent hand over what it holds and end; Run returns then.
func (n *Participant) Stop() { n.agent.Post(core.Stop{}) }

// Agent is the node's agent, to be asked and told.
func (n *Participant) Agent() *agent.Agent { return n.agent }

// Raft is the node's Raft server, to be asked and told.
func (n *Participant) Raft() *raftnode.Node { return n.raft }

// Close gives the ports back. It is for a Participant that will not Run; after Run
// it does nothing.
func (n *Participant) Close() {
	if n.link != nil {
		_ = n.link.Close() // after Run it is closed already
	}
	if n.gossip != nil {
		_ = n.gossip.Close()
	}
}
