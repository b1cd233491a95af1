// Package raftnode runs hashicorp/raft for one node and turns what it does into
// events: commands applied, voter sets, leadership, the health of the disk.
//
// It also owns the data directory (DataDir) and forms or joins a cluster when that
// is empty (Former). It decides nothing about owners or leases.
package raftnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// Settings of the library. Nothing that is safe rests on them.
const (
	// HeartbeatTimeout and ElectionTimeout are the fallback: a healthy voter campaigns
	// long before (Node.Campaign). They are generous so that three slow fsyncs fit
	// into an election. The library waits for one to two of them.
	HeartbeatTimeout = 500 * time.Millisecond
	ElectionTimeout  = 500 * time.Millisecond

	leaderLease = 500 * time.Millisecond // nothing of ours rests on it
	// The commit timeout is how often a leader tells its commit index when nothing
	// else is sent. Commits are told by tellCommitted; this is for what it loses.
	defaultCommitTimeout = 200 * time.Millisecond
	rpcTimeout           = 500 * time.Millisecond
	// One connection each for heartbeats, entries and votes.
	maxPool           = 3
	snapshotThreshold = 1024
	trailingLogs      = 512

	defaultDiskStall = time.Second
	// shutdownWait bounds how long Run waits for the library's goroutines: one can
	// sit in a call to a peer that drops everything.
	shutdownWait = 2 * time.Second
	// pollInterval is the backstop behind the library's notifications, which can be
	// dropped, and how often the disk is looked at.
	pollInterval = 100 * time.Millisecond
)

// Stream carries Raft between nodes: the listener side accepts connections whose
// far end has been identified, Dial makes them, within the timeout.
type Stream interface {
	net.Listener
	Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error)
}

// A Sink takes the node's events. It is called from the library's goroutines,
// several at a time, each kind in order; it must not block and must not call the
// node back.
type Sink interface {
	Applied(Applied)
	VoterSets(election.VoterLog)
	Leader(LeaderInfo)
	Disk(DiskHealth)
}

// LeaderInfo is who leads, as this node believes.
type LeaderInfo struct {
	ID      fsm.InstanceID // zero: unknown
	Address raft.ServerAddress
	Self    bool
	Term    uint64
}

// Config is what Open needs. Self, Dir, Stream, Sink and Log must be set.
type Config struct {
	Self   fsm.Node // its ID is that of Dir
	Dir    *DataDir
	Stream Stream // closed by Run
	Sink   Sink
	Log    *slog.Logger
	// Resume has the node stand for election at once if it led when its process ended. For
	// one that the others cannot miss yet: two that stand at once keep each other out.
	Resume bool
	// CommitTimeout is how often an idle leader tells its commit index, at least 1 ms;
	// zero: 200 ms. Followers are told of each commit besides.
	CommitTimeout time.Duration
	// DiskStall is how long a write may take before the disk counts as stalled;
	// zero: 1 s.
	DiskStall time.Duration
	// Disk, if set, puts something between Raft and its files: what a simulation
	// makes slow. It is called once, by Open.
	Disk func(raft.LogStore, raft.StableStore) (raft.LogStore, raft.StableStore)
}

// A Node is one Raft server. Its methods may be called concurrently; those that
// need Raft fail with ErrStopped outside of Run.
type Node struct {
	cfg     Config
	id      raft.ServerID
	stores  *stores
	machine *machine
	fatal   chan error // what stops Run, capacity 1

	raft    atomic.Pointer[raft.Raft]
	trans   patient
	ran     atomic.Bool
	led     atomic.Uint64  // the term whose first command this node proposed
	opening sync.WaitGroup // those first commands, on their way
	leader  atomic.Pointer[LeaderInfo]
	heard   atomic.Pointer[LeaderInfo] // of the newest term that a heartbeat brought; nil: none

	commits latency  // of Propose
	away    sync.Map // followers that do not answer, and are to be told when they do
	notices sync.Map // by follower: its *notice

	forming sync.Mutex // pledging and bootstrapping exclude each other

	newTransport func() voteTransport // tests put another one in
}

// Open opens the stores in cfg.Dir and reads what they hold. It starts nothing;
// Run closes them.
func Open(cfg Config) (*Node, error) {
	if cfg.Self.ID != cfg.Dir.Instance() {
		return nil, fmt.Errorf("open Raft: this node is instance %s, and %s is that of instance %s", cfg.Self.ID, cfg.Dir.Path(), cfg.Dir.Instance())
	}
	if cfg.DiskStall == 0 {
		cfg.DiskStall = defaultDiskStall
	}
	if cfg.CommitTimeout == 0 {
		cfg.CommitTimeout = defaultCommitTimeout
	}
	s, err := openStores(cfg.Dir, bridge(cfg.Log), newDiskWatch(cfg.DiskStall, cfg.Sink.Disk))
	if err != nil {
		return nil, err
	}
	if cfg.Disk != nil {
		s.log.LogStore, s.stable.StableStore = cfg.Disk(s.log.LogStore, s.stable.StableStore)
	}
	return newNode(cfg, s), nil
}

func newNode(cfg Config, s *stores) *Node {
	n := &Node{
		cfg:    cfg,
		id:     raft.ServerID(cfg.Self.ID.String()),
		stores: s,
		fatal:  make(chan error, 1),
	}
	n.machine = &machine{sink: cfg.Sink, voters: s.voters, fail: n.stopWith}
	n.machine.state.Store(&fsm.State{})
	n.leader.Store(&LeaderInfo{})
	n.newTransport = n.networkTransport
	return n
}

func (n *Node) stopWith(err error) {
	select {
	case n.fatal <- err:
	default: // stopping already
	}
}

func (n *Node) networkTransport() voteTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  addressed{n.cfg.Stream, raft.ServerAddress(n.cfg.Self.Address.String())},
		MaxPool: maxPool,
		Timeout: rpcTimeout,
		Logger:  bridge(n.cfg.Log),
	})
}

// addressed makes the transport call itself by the node's address, whatever the
// listener was bound to: peers compare it with the one in the configuration.
type addressed struct {
	Stream
	self raft.ServerAddress
}

func (a addressed) Addr() net.Addr { return nodeAddr(a.self) }

type nodeAddr string

func (nodeAddr) Network() string  { return "tcp" }
func (a nodeAddr) String() string { return string(a) }

func (n *Node) settings(notify chan<- bool) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = n.id
	c.HeartbeatTimeout = HeartbeatTimeout
	c.ElectionTimeout = ElectionTimeout
	c.LeaderLeaseTimeout = leaderLease
	c.CommitTimeout = n.cfg.CommitTimeout
	c.ShutdownOnRemove = false
	c.SnapshotThreshold = snapshotThreshold
	c.TrailingLogs = trailingLogs
	c.NoLegacyTelemetry = true
	c.NotifyCh = notify
	c.Logger = bridge(n.cfg.Log)
	return c
}

// Run takes part in Raft until ctx ends, which returns nil, or until the node
// cannot go on: an entry that this version does not understand. It may be called
// once.
func (n *Node) Run(ctx context.Context) error {
	if n.ran.Swap(true) {
		return errors.New("run Raft: Run was called twice")
	}
	n.stores.voters.attach(n.cfg.Sink.VoterSets)
	notify := make(chan bool, 16)
	kick := make(chan struct{}, 1)
	requests := newOrderly(n.newTransport(), n)
	n.trans = patient{requests, n}
	led := n.cfg.Resume && n.stores.ledLast(raft.ServerAddress(n.cfg.Self.Address.String()))
	r, err := raft.NewRaft(n.settings(notify), n.machine, n.stores.log, &onward{StableStore: n.stores.stable}, n.stores.snaps, n.trans)
	if err != nil {
		return errors.Join(fmt.Errorf("start Raft: %w", err), n.trans.Close(), n.stores.close())
	}
	n.raft.Store(r)
	observed := make(chan raft.Observation, 16)
	r.RegisterObserver(raft.NewObserver(observed, false, aboutLeadership))
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var tasks sync.WaitGroup
	tasks.Go(func() { requests.forward(running) })
	tasks.Go(func() { forward(running, notify, kick) })
	tasks.Go(func() { forward(running, observed, kick) })
	tasks.Go(func() { n.watchLeader(running, r, kick) })
	tasks.Go(func() { n.watchDisk(running) })
	if led {
		tasks.Go(func() { n.resume(running) })
	}
	select {
	case <-ctx.Done():
	case err = <-n.fatal:
	}
	ended := n.shutdown(r)
	stop()
	tasks.Wait()
	if !ended {
		// The library may still be writing; the end of the process closes the files.
		return err
	}
	n.opening.Wait()
	return errors.Join(err, n.stores.close())
}

// shutdown stops the library and reports whether it ended in time.
func (n *Node) shutdown(r *raft.Raft) bool {
	n.raft.Store(nil)
	close(n.stores.stopped)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Shutdown().Error() // is always nil
	}()
	late := time.NewTimer(shutdownWait)
	defer late.Stop()
	select {
	case <-done:
		return true
	case <-late.C:
		n.cfg.Log.Warn("Raft did not stop in time, leaving it to the end of the process", "waited", shutdownWait)
		_ = n.trans.Close() // nothing more can be done about it
		return false
	}
}

func (n *Node) watchDisk(ctx context.Context) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			n.stores.disk.check()
		}
	}
}

// AtStart is what the log held when the node was opened (lease.md, section 3,
// wording 5). LastCommand counts in indices of commands, as State.Index does.
func (n *Node) AtStart() election.LogAtStart { return n.stores.atStart }

// HasState reports whether Raft ever stored anything here: a node without state
// belongs to no cluster.
func (n *Node) HasState() bool { return n.stores.hasAny.Load() }

// State is the state as applied last, empty at first. Treat it as read-only.
func (n *Node) State() *fsm.State { return n.machine.state.Load() }

// AppliedIndex is the log index of the last command applied.
func (n *Node) AppliedIndex() uint64 { return n.State().Index }

// VoterLog is what the log says about who votes.
func (n *Node) VoterLog() election.VoterLog { return n.stores.voters.current() }

// Leader is who leads, as the Sink was told last.
func (n *Node) Leader() LeaderInfo { return *n.leader.Load() }

// servers returns the newest configuration in the log, committed or not.
func (n *Node) servers() []raft.Server {
	r := n.raft.Load()
	if r == nil {
		return nil
	}
	return r.GetConfiguration().Configuration().Servers
}

// InstanceAt returns who the newest configuration says is at an address: whom a
// stream that is dialled there must reach. Unknown in a node without state.
func (n *Node) InstanceAt(addr raft.ServerAddress) (fsm.InstanceID, bool) {
	for _, s := range n.servers() {
		if s.Address == addr {
			id, err := fsm.ParseInstanceID(string(s.ID))
			return id, err == nil
		}
	}
	return fsm.InstanceID{}, false
}

// AcceptsFrom reports whether Raft may be spoken with an instance that calls. A
// node that gave its pledge, and has no state yet, listens to the nodes of that
// cluster only: an instance that lost its memory or comes from elsewhere must not
// get its vote, which a node without state gives to anyone.
//
// Nor does a node listen to an instance that was removed, once the configuration has
// forgotten it: it goes on calling as long as it runs.
func (n *Node) AcceptsFrom(id fsm.InstanceID) bool {
	if _, retired := n.State().Retired[id]; retired && !n.inConfiguration(id) {
		return false
	}
	pledge := n.pledge()
	if n.HasState() || pledge.IsZero() {
		return true
	}
	for _, node := range pledge.Nodes {
		if node.ID == id {
			return true
		}
	}
	return false
}

func (n *Node) inConfiguration(id fsm.InstanceID) bool {
	return slices.ContainsFunc(n.servers(), func(s raft.Server) bool { return s.ID == raft.ServerID(id.String()) })
}

func (n *Node) pledge() election.Pledge {
	if n.cfg.Dir == nil {
		return election.Pledge{} // on stores of its own, in tests
	}
	return n.cfg.Dir.Pledge()
}

// Stats is how Raft stands, for status and metrics.
type Stats struct {
	State       string // "leader", "follower", "candidate", "stopped"
	Term        uint64
	LastIndex   uint64
	CommitIndex uint64
	Applied     uint64        // entries of any kind
	LastContact time.Duration // since the leader was heard; 0: leads or never heard one
	Writes      Latency       // to the disk, until they are durable
	Commits     Latency       // of what was proposed here as the leader
	Members     []Member
}

// Member is one server of the newest configuration.
type Member struct {
	ID      fsm.InstanceID
	Address netip.AddrPort
	Voter   bool
}

// Stats reads how Raft stands without touching the disk.
func (n *Node) Stats() Stats {
	r := n.raft.Load()
	if r == nil {
		return Stats{State: "stopped"}
	}
	s := Stats{Term: r.CurrentTerm(), LastIndex: r.LastIndex(), CommitIndex: r.CommitIndex(), Applied: r.AppliedIndex(),
		Writes: n.stores.disk.took.get(), Commits: n.commits.get()}
	switch r.State() {
	case raft.Leader:
		s.State = "leader"
	case raft.Candidate:
		s.State = "candidate"
	case raft.Follower:
		s.State = "follower"
	case raft.Shutdown:
		s.State = "stopped"
	}
	if at := r.LastContact(); s.State != "leader" && !at.IsZero() {
		s.LastContact = time.Since(at)
	}
	for _, server := range n.servers() {
		id, err := fsm.ParseInstanceID(string(server.ID))
		addr, err2 := netip.ParseAddrPort(string(server.Address))
		if err == nil && err2 == nil {
			s.Members = append(s.Members, Member{ID: id, Address: addr, Voter: server.Suffrage == raft.Voter})
		}
	}
	return s
}
