package raftnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// recorder is a Sink that keeps everything.
type recorder struct {
	mu      sync.Mutex
	applied []Applied
	voters  []election.VoterLog
	leaders []LeaderInfo
	disk    []DiskHealth
}

func (r *recorder) Applied(a Applied) { r.mu.Lock(); r.applied = append(r.applied, a); r.mu.Unlock() }
func (r *recorder) VoterSets(l election.VoterLog) {
	r.mu.Lock()
	r.voters = append(r.voters, l)
	r.mu.Unlock()
}
func (r *recorder) Leader(l LeaderInfo) { r.mu.Lock(); r.leaders = append(r.leaders, l); r.mu.Unlock() }
func (r *recorder) Disk(h DiskHealth)   { r.mu.Lock(); r.disk = append(r.disk, h); r.mu.Unlock() }

func (r *recorder) all() (a []Applied, d []DiskHealth, l []LeaderInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(a, r.applied...), append(d, r.disk...), append(l, r.leaders...)
}

func document() fsm.Document {
	return fsm.Document{MaxHold: time.Second, Groups: []fsm.Group{
		{Name: "web", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.200/24")}, Placement: fsm.PlacementLeader},
	}}
}

// host is one node with memory that outlives its runs: a host with a disk.
type host struct {
	self  fsm.Node
	log   raft.LogStore
	term  raft.StableStore
	snaps raft.SnapshotStore

	*Node
	sink *recorder
	stop func() error
}

// lan is hosts in memory, to be used in a synctest bubble.
type lan struct {
	t      *testing.T
	hosts  []*host
	mu     sync.Mutex
	trans  map[raft.ServerAddress]*raft.InmemTransport
	adjust func(*host, *Node) // before each run
	resume bool               // see Config
	// unreachable gets no connections when it starts.
	unreachable raft.ServerAddress
}

func newLAN(t *testing.T, n int) *lan {
	l := &lan{t: t, trans: map[raft.ServerAddress]*raft.InmemTransport{}}
	for i := range n {
		store := raft.NewInmemStore()
		l.hosts = append(l.hosts, &host{
			self: fsm.Node{
				ID: instance(byte('a' + i)), Name: fmt.Sprint("n", i+1), Role: fsm.Member,
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 7950),
			},
			log: store, term: store, snaps: raft.NewInmemSnapshotStore(),
		})
	}
	return l
}

func (l *lan) start(i int) *host {
	h := l.hosts[i]
	h.sink = &recorder{}
	s, err := newStores(h.log, h.term, h.snaps, newDiskWatch(defaultDiskStall, h.sink.Disk))
	if err != nil {
		l.t.Fatal(err)
	}
	h.Node = newNode(Config{Self: h.self, Sink: h.sink, Log: quiet(), CommitTimeout: defaultCommitTimeout, Resume: l.resume}, s)
	h.Node.newTransport = func() voteTransport { return l.connect(h.self.Address.String()) }
	if l.adjust != nil {
		l.adjust(h, h.Node)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Node.Run(ctx) }()
	h.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	await1(l.t, "node runs", func() bool { return h.Node.raft.Load() != nil })
	return h
}

func (l *lan) connect(addr string) voteTransport {
	l.mu.Lock()
	defer l.mu.Unlock()
	self := raft.ServerAddress(addr)
	_, tr := raft.NewInmemTransport(self)
	if self == l.unreachable {
		for _, other := range l.trans {
			other.Disconnect(self)
		}
		return tr
	}
	l.trans[self] = tr
	for a, other := range l.trans {
		tr.Connect(a, other)
		other.Connect(self, tr)
	}
	return tr
}

// cut ends all connections of a host.
func (l *lan) cut(i int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	self := raft.ServerAddress(l.hosts[i].self.Address.String())
	for a, other := range l.trans {
		if a != self {
			other.Disconnect(self)
			l.trans[self].Disconnect(a)
		}
	}
}

func (l *lan) nodes() (nodes []fsm.Node) {
	for _, h := range l.hosts {
		nodes = append(nodes, h.self)
	}
	return nodes
}

// form starts all hosts, bootstraps on the first, which then leads, and declares
// the cluster.
func (l *lan) form() {
	for i := range l.hosts {
		l.start(i)
	}
	h := l.hosts[0]
	if err := errors.Join(h.Bootstrap(l.t.Context(), l.nodes()), h.Campaign(l.t.Context())); err != nil {
		l.t.Fatal(err)
	}
	await1(l.t, "the first leads", func() bool { return h.Leader().Self })
	l.propose(h, fsm.Command{Form: &fsm.Form{Cluster: instance(99), Name: "prod", Nodes: l.nodes(), Document: document()}})
	l.everywhere("formed", func(h *host) bool { return h.State().Formed() })
}

func (l *lan) propose(h *host, c fsm.Command) {
	l.t.Helper()
	if err := h.Propose(l.t.Context(), c); err != nil {
		l.t.Fatalf("%s proposes %+v: %v", h.self.Name, c, err)
	}
}

func (l *lan) everywhere(what string, ok func(*host) bool) {
	l.t.Helper()
	for _, h := range l.hosts {
		await1(l.t, what+" on "+h.self.Name, func() bool { return ok(h) })
	}
}

func (l *lan) leader() *host {
	l.t.Helper()
	var found *host
	await1(l.t, "a leader", func() bool {
		for _, h := range l.hosts {
			if h.Node.raft.Load() != nil && h.Leader().Self {
				found = h
				return true
			}
		}
		return false
	})
	return found
}

func (l *lan) stopAll() {
	for _, h := range l.hosts {
		if h.stop != nil {
			if err := h.stop(); err != nil {
				l.t.Errorf("%s stopped with %v", h.self.Name, err)
			}
		}
	}
}

// await1 polls until ok, in virtual time where there is a bubble.
func await1(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}
