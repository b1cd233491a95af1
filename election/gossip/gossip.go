// Package gossip finds the other nodes of a cluster and carries short datagrams
// between them, leases among them, encrypted with the cluster's key.
//
// It is hashicorp/memberlist under a transport of our own: UDP on the node's port,
// streams over the node's TLS port. What it says about who is alive is a hint: an
// address book, and a nudge to look again. Nobody gets or loses a virtual IP by it.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"
)

const (
	// MaxPayload is the longest datagram for Send, in bytes. Together with what is
	// added to it (see maxOverhead) it fits an Ethernet frame of 1500 bytes: a
	// datagram in two fragments is lost twice as often.
	MaxPayload = 1280
	// MaxClusterName is the longest name of a cluster, in bytes: every packet has it
	// in clear, as memberlist's label.
	MaxClusterName = 64
	// maxOverhead is IPv6 and UDP header, label, encryption, memberlist's type byte
	// and our own envelope.
	maxOverhead = 40 + 8 + (2 + MaxClusterName) + 29 + 1 + maxEnvelope
)

const _ = uint(1500 - MaxPayload - maxOverhead) // does not compile when they do not fit

const (
	leaveTimeout  = 200 * time.Millisecond
	streamTimeout = 2 * time.Second
	// Rejoining starts quickly, for a cluster that is about to form, and slows down,
	// for a peer that is off for days.
	rejoinFirst = 250 * time.Millisecond
	rejoinLast  = 10 * time.Second
)

// ErrNotRunning means Send outside of Run.
var ErrNotRunning = errors.New("gossip is not running")

// A Sink takes what comes in.
type Sink interface {
	// Datagram takes one payload. It runs on memberlist's only goroutine for
	// incoming messages: it copies what it keeps of payload and never blocks. from is
	// the sender's own listening address, as it states it; the cluster's key vouches
	// for the sender being a node. Datagrams of a burst may arrive in any order, and
	// twice.
	Datagram(from netip.AddrPort, payload []byte)
	// MembersChanged takes what happened since the last call, oldest first. It runs
	// on a goroutine of its own and may take its time.
	MembersChanged(changes []Change)
}

// Config is what Open needs. All fields are required, except that Peers,
// Neighbours, Survey and Packets may be nil.
type Config struct {
	// Address is where to listen by UDP, and what other nodes are told. Its TCP port
	// of the same number is behind Streams.
	Address netip.AddrPort
	Cluster string // name; packets of other clusters are refused
	Key     []byte // 32 bytes, AES-256
	Meta    Meta
	// Streams has incoming streams of other nodes; Run closes it. Dial opens one to
	// the node at an address.
	Streams net.Listener
	Dial    func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// Peers returns the addresses at which nodes should be; it is asked before each
	// attempt to find those that are missing. Its own address may be among them.
	Peers func() []netip.AddrPort
	Sink  Sink
	// Neighbours takes lists of neighbours, as Sink.Datagram takes leases; nil: they are
	// ignored.
	Neighbours func(from netip.AddrPort, payload []byte)
	// Survey takes tests in the same way; nil: they are ignored.
	Survey func(from netip.AddrPort, payload []byte)
	// Packets carries the packets, and is closed by Run or Close; nil: UDP on Address.
	Packets PacketConn
	Log     *slog.Logger
}

// A Gossip is one node's part. Its methods may be called concurrently.
type Gossip struct {
	cfg     Config
	udp     PacketConn
	foreign *foreign
	table   *table

	list     atomic.Pointer[memberlist.Memberlist] // nil outside of Run
	metaMu   sync.Mutex                            // one update at a time: memberlist does not guard them from each other
	meta     atomic.Pointer[[]byte]                // encoded
	envelope []byte                                // before each lease
	sinkMu   sync.RWMutex                          // held for reading while the sink runs
	ended    bool
}

// Open takes the UDP port. Nothing is sent or received before Run.
func Open(cfg Config) (*Gossip, error) {
	if n := len(cfg.Cluster); n == 0 || n > MaxClusterName {
		return nil, fmt.Errorf("open gossip: cluster name %q has %d bytes, want 1 to %d", cfg.Cluster, n, MaxClusterName)
	}
	if len(cfg.Key) != 32 {
		return nil, fmt.Errorf("open gossip: the key has %d bytes, want 32", len(cfg.Key))
	}
	a := cfg.Address
	if !a.IsValid() || a.Port() == 0 || a.Addr().IsUnspecified() || a.Addr().Zone() != "" {
		return nil, fmt.Errorf("open gossip on %s: want an address and port at which other nodes reach this one, "+
			"not a wildcard and not link-local", a)
	}
	cfg.Address = unmap(a)
	if cfg.Meta.life == 0 {
		cfg.Meta.life = newLife()
	}
	meta, err := cfg.Meta.encode()
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	if cfg.Packets == nil {
		if cfg.Packets, err = listenUDP(cfg.Address); err != nil {
			return nil, err
		}
	}
	g := &Gossip{
		cfg:      cfg,
		udp:      cfg.Packets,
		foreign:  newForeign(cfg.Log),
		table:    newTable(Member{Meta: cfg.Meta, Address: cfg.Address}),
		envelope: appendEnvelope(nil, lease, cfg.Address),
	}
	g.meta.Store(&meta)
	return g, nil
}

// Close gives the port back. It is for a Gossip that will not Run; Run closes by itself.
func (g *Gossip) Close() error { return errors.Join(g.udp.Close(), g.cfg.Streams.Close()) }

// Send sends one payload of at most MaxPayload bytes to the node at an address, as
// one UDP packet without any promise, also to a node that is thought dead. It
// keeps nothing of payload.
func (g *Gossip) Send(to netip.AddrPort, payload []byte) error {
	return g.send(g.envelope, to, payload)
}

// SendNeighbours is Send for a list of neighbours.
func (g *Gossip) SendNeighbours(to netip.AddrPort, payload []byte) error {
	return g.send(appendEnvelope(nil, neighbours, g.cfg.Address), to, payload)
}

// SendSurvey is Send for a test.
func (g *Gossip) SendSurvey(to netip.AddrPort, payload []byte) error {
	return g.send(appendEnvelope(nil, survey, g.cfg.Address), to, payload)
}

// PacketLength is how long the IP packet is, in bytes, that carries a payload between two
// nodes of a cluster, one of which listens on the address.
func PacketLength(cluster string, address netip.Addr, payload int) int {
	header, envelope := 40, 2+16+2
	if address.Unmap().Is4() {
		header, envelope = 20, 2+4+2
	}
	return maxOverhead - 40 - maxEnvelope - MaxClusterName + header + envelope + len(cluster) + payload
}

func (g *Gossip) send(envelope []byte, to netip.AddrPort, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("send %d bytes to %s: at most %d fit a datagram", len(payload), to, MaxPayload)
	}
	list := g.list.Load()
	if list == nil {
		return fmt.Errorf("send to %s: %w", to, ErrNotRunning)
	}
	to = unmap(to)
	msg := make([]byte, 0, len(envelope)+len(payload))
	msg = append(append(msg, envelope...), payload...)
	// A node made up on the spot: sending does not depend on what memberlist thinks
	// of the real one. PMax below 5 leaves out a checksum; the encryption has its own.
	node := memberlist.Node{Addr: to.Addr().AsSlice(), Port: to.Port(), PMax: 4}
	if err := list.SendBestEffort(&node, msg); err != nil {
		return fmt.Errorf("send to %s: %w", to, err)
	}
	return nil
}

// UpdateMeta tells the others what this node is now. The instance must stay the
// same. It takes effect within some 100 ms at the others.
func (g *Gossip) UpdateMeta(m Meta) error {
	g.metaMu.Lock()
	defer g.metaMu.Unlock()
	if m.Instance != g.cfg.Meta.Instance {
		return fmt.Errorf("update what other nodes know: instance %s is not this node's %s", m.Instance.Short(), g.cfg.Meta.Instance.Short())
	}
	m.life = g.cfg.Meta.life
	encoded, err := m.encode()
	if err != nil {
		return fmt.Errorf("update what other nodes know: %w", err)
	}
	g.meta.Store(&encoded)
	g.table.renameSelf(m)
	if list := g.list.Load(); list != nil {
		// Its only error is that the news was not yet sent often enough after the
		// given time; it goes on by itself.
		_ = list.UpdateNode(time.Nanosecond)
	}
	return nil
}

// Members returns the other nodes that seem alive, in order of their instance ids.
func (g *Gossip) Members() []Member { return g.table.members() }

// Foreign counts the packets and streams that were not of this cluster.
func (g *Gossip) Foreign() map[ForeignReason]uint64 { return g.foreign.snapshot() }

// Run takes part until ctx ends, then says goodbye and returns nil; it then has
// ended all that it started, and calls the sink no more. Call it once.
func (g *Gossip) Run(ctx context.Context) error {
	t := newTransport(g)
	list, err := memberlist.Create(g.memberlistConfig(t))
	if err != nil {
		return errors.Join(fmt.Errorf("start gossip: %w", err), t.Shutdown())
	}
	g.list.Store(list)
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { g.rejoin(ctx, list); return nil })
	tasks.Go(func() error { g.report(ctx); return nil })
	tasks.Go(func() error {
		var failed error
		select {
		case <-ctx.Done():
			// An error is that not all have heard; they will notice.
			_ = list.Leave(leaveTimeout)
		case failed = <-t.failed:
			failed = fmt.Errorf("receive on UDP %s: %w", g.cfg.Address, failed)
		}
		g.list.Store(nil)
		return errors.Join(failed, list.Shutdown())
	})
	err = tasks.Wait()
	// memberlist does not wait for its goroutines; at least none reaches the sink.
	g.sinkMu.Lock()
	g.ended = true
	g.sinkMu.Unlock()
	return err
}

// rejoin looks for the peers that are missing, for ever: memberlist itself forgets
// the dead and so never finds them again after a partition.
func (g *Gossip) rejoin(ctx context.Context, list *memberlist.Memberlist) {
	pause := rejoinFirst
	for {
		if g.cfg.Peers != nil {
			for _, peer := range g.table.missing(g.cfg.Peers()) {
				if ctx.Err() != nil {
					return
				}
				if _, err := list.Join([]string{peer.String()}); err != nil {
					g.cfg.Log.Debug("peer not found", "peer", peer, "error", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, rejoinLast)
	}
}

// report brings changes to the sink: memberlist announces them with its lock held.
func (g *Gossip) report(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.table.changed:
			g.cfg.Sink.MembersChanged(g.table.take())
		}
	}
}

func (g *Gossip) memberlistConfig(t *transport) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = g.cfg.Meta.Instance.String() // and not the node's: names may clash, instances do not
	c.Label = g.cfg.Cluster
	c.SecretKey = g.cfg.Key
	c.Transport = t
	c.BindAddr, c.BindPort = g.cfg.Address.Addr().String(), int(g.cfg.Address.Port())
	c.AdvertiseAddr, c.AdvertisePort = c.BindAddr, c.BindPort
	c.ProtocolVersion = memberlist.ProtocolVersionMax
	c.TCPTimeout = streamTimeout
	c.EnableCompression = false // costs time and saves nothing at this size
	// One probe a second: the leases know much earlier who is silent.
	c.ProbeInterval, c.ProbeTimeout = time.Second, 300*time.Millisecond
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = 3, 2
	c.AwarenessMaxMultiplier = 2
	// News leave with the next tick; at 100 ms a goodbye fits into leaveTimeout. A
	// tick without news costs a few microseconds.
	c.GossipInterval, c.GossipNodes = 100*time.Millisecond, 4
	c.PushPullInterval = 30 * time.Second
	c.DeadNodeReclaimTime = time.Second // an instance may come back at another address
	c.HandoffQueueDepth = 4096          // a queue that is full drops leases; it is emptied newest first
	c.MsgpackUseNewTimeFormat = true
	c.Delegate = (*delegate)(g)
	c.Alive = (*delegate)(g)
	c.Events = g.table
	c.Conflict = g.table
	c.Logger = newLogBridge(g.cfg.Log, g.foreign)
	return c
}

// A delegate is the Gossip as memberlist sees it.
type delegate Gossip

func (d *delegate) NodeMeta(int) []byte               { return *d.meta.Load() }
func (d *delegate) GetBroadcasts(_, _ int) [][]byte   { return nil }
func (d *delegate) LocalState(bool) []byte            { return nil }
func (d *delegate) MergeRemoteState(_ []byte, _ bool) {}

// NotifyAlive refuses a member that does not say what we need to know of it.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	_, err := memberOf(n)
	return err
}

func (d *delegate) NotifyMsg(msg []byte) {
	k, from, payload, ok := openEnvelope(msg)
	if !ok {
		d.foreign.note(ForeignFormat, netip.AddrPort{})
		return
	}
	d.sinkMu.RLock()
	defer d.sinkMu.RUnlock()
	switch {
	case d.ended:
	case k == lease:
		d.cfg.Sink.Datagram(from, payload)
	case k == survey:
		if d.cfg.Survey != nil {
			d.cfg.Survey(from, payload)
		}
	case k != neighbours:
		d.foreign.note(ForeignKind, from)
	case d.cfg.Neighbours != nil:
		d.cfg.Neighbours(from, payload)
	}
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
