// Package peerlink is the one TCP port between the nodes of a cluster: Raft
// streams, gossip streams and the peer RPC, always under mutual TLS 1.3.
//
// The protocol is chosen by ALPN, so one listener serves all three. A connection
// is handed on only when its handshake is complete and the other side is known to
// be a node of this cluster: what receives it needs no deadlines of its own
// against strangers.
package peerlink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quorate/quorate/fsm"
)

// The protocols on the port, by their ALPN names.
const (
	ProtocolRaft   = "quorate-raft/1"
	ProtocolGossip = "quorate-gossip/1"
	ProtocolRPC    = "http/1.1"
)

const (
	// handshakeTimeout is for TLS and hello together, on both sides. A node under
	// full load needs some ten milliseconds.
	handshakeTimeout = 2 * time.Second
	// deadPeer is how long the kernel waits for a peer that answers nothing at all.
	deadPeer = 2 * time.Second
	// backlog is how many ready connections wait for a consumer that is not yet there.
	backlog = 16
)

// Config is what Listen needs. All fields are required.
type Config struct {
	// Address is where to listen, and the source of outgoing connections. Port 0:
	// any free one, see Link.Address.
	Address netip.AddrPort
	// Credentials come from Key.Credentials or TLSFiles.Credentials.
	Credentials Credentials
	// Identity says who this node is now; it is called for every connection, from
	// any goroutine. Its cluster id may appear later.
	Identity func() Identity
	// Admit says whether Raft may be spoken with an instance that calls, however well
	// it introduces itself. It is called from any goroutine. Nil: with all.
	Admit func(fsm.InstanceID) bool
	// Network makes the connections; nil: TCP on this host.
	Network Network
	Log     *slog.Logger
}

// A Link is this node's end of everything between the nodes. Its methods may be
// called concurrently.
type Link struct {
	cfg    Config
	tcp    net.Listener
	tally  *tally
	gate   *gate
	raft   *queue
	gossip *queue
	rpc    *queue
	client *Client
}

// Listen takes the port. Nothing is accepted before Run.
func Listen(cfg Config) (*Link, error) {
	id := cfg.Identity()
	if n := len(id.Cluster); n == 0 || n > MaxClusterName {
		return nil, fmt.Errorf("cluster name %q has %d bytes, want 1 to %d", id.Cluster, n, MaxClusterName)
	}
	if id.Instance.IsZero() {
		return nil, errors.New("listen for nodes: this node's instance id is zero")
	}
	if cfg.Network == nil {
		cfg.Network = newHostTCP(cfg.Address.Addr())
	}
	tcp, err := cfg.Network.Listen(cfg.Address)
	if err != nil {
		return nil, err
	}
	l := &Link{cfg: cfg, tcp: tcp, tally: newTally(cfg.Log), gate: newGate()}
	for _, q := range []**queue{&l.raft, &l.gossip, &l.rpc} {
		*q = newQueue(tcp.Addr())
	}
	l.client = newClient(l)
	return l, nil
}

// Address is where the port really is.
func (l *Link) Address() netip.AddrPort {
	return l.tcp.Addr().(*net.TCPAddr).AddrPort()
}

// Raft hands out Raft streams whose hello is done. Closing it refuses further ones.
func (l *Link) Raft() net.Listener { return l.raft }

// Gossip hands out gossip streams. Closing it refuses further ones.
func (l *Link) Gossip() net.Listener { return l.gossip }

// Client calls the other nodes.
func (l *Link) Client() *Client { return l.client }

// Refusals counts the connections and calls refused so far, in both directions.
func (l *Link) Refusals() map[Reason]uint64 { return l.tally.snapshot() }

// Close gives the port back. It is for a Link that will not Run; Run closes by itself.
func (l *Link) Close() error {
	return errors.Join(l.tcp.Close(), l.raft.Close(), l.gossip.Close(), l.rpc.Close())
}

// Run accepts connections and answers the peer RPC with h until ctx ends; then
// it closes the port and returns nil when all that it started has ended.
// Connections that were handed out belong to their receivers. Call it once.
func (l *Link) Run(ctx context.Context, h Handlers) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.accept(ctx) })
	g.Go(func() error { return l.serveRPC(ctx, h) })
	g.Go(func() error {
		<-ctx.Done()
		l.client.http.CloseIdleConnections()
		return l.Close()
	})
	return g.Wait()
}

// accept takes connections and gives each a goroutine for its handshake, so that
// a slow stranger delays nobody.
func (l *Link) accept(ctx context.Context) error {
	var handshakes sync.WaitGroup
	defer handshakes.Wait()
	pause := 5 * time.Millisecond
	for {
		conn, err := l.tcp.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept nodes: %w", err)
		case err != nil: // out of file descriptors, mostly: it passes
			l.cfg.Log.Warn("cannot accept a node's connection", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		peer := addrOf(conn)
		if !l.gate.enter(peer.Addr()) {
			conn.Close()
			l.tally.note(&Refused{Reason: TooMany, Peer: peer, Detail: "too many unfinished handshakes at once"})
			continue
		}
		handshakes.Go(func() {
			defer l.gate.leave(peer.Addr())
			l.admit(ctx, conn, peer)
		})
	}
}

// admit does the handshake of an accepted connection and hands it on.
func (l *Link) admit(ctx context.Context, conn net.Conn, peer netip.AddrPort) {
	secure, err := l.handshake(ctx, conn)
	if err == nil {
		to := map[string]*queue{ProtocolRaft: l.raft, ProtocolGossip: l.gossip, ProtocolRPC: l.rpc}
		if q := to[secure.ConnectionState().NegotiatedProtocol]; q == nil {
			err = &Refused{Reason: BadHello, Detail: "it asked for no protocol of ours"}
		} else if !q.put(secure) {
			l.cfg.Log.Debug("node turned away, this part is not running", "peer", peer)
			secure.Close()
			return
		}
	}
	if err == nil {
		return
	}
	conn.Close()
	if ctx.Err() != nil {
		return
	}
	err = handshakeError(err, peer, l.cfg.Credentials.authority)
	if ReasonOf(err) == 0 && errors.Is(err, context.DeadlineExceeded) {
		err = &Refused{Reason: TooSlow, Peer: peer, Detail: fmt.Sprintf("its handshake was not done after %s", handshakeTimeout)}
	}
	if ReasonOf(err) != 0 {
		l.tally.noteError(err)
		return
	}
	l.cfg.Log.Debug("handshake with a peer failed", "peer", peer, "error", err)
}

// handshake makes an accepted connection secure and, for Raft, says hello. On an
// error conn is closed by the caller; the TLS alert has gone out by then.
func (l *Link) handshake(ctx context.Context, conn net.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	secure := tls.Server(conn, l.cfg.Credentials.config(true, ProtocolRaft, ProtocolGossip, ProtocolRPC))
	err := secure.HandshakeContext(ctx)
	if err == nil && secure.ConnectionState().NegotiatedProtocol == ProtocolRaft {
		id, ok := certified(secure.ConnectionState())
		if err = acceptHello(secure, l.cfg.Identity(), id, ok, l.cfg.Admit); err != nil {
			secure.CloseWrite() // so that the refusal arrives before the connection ends
		}
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if ctx.Err() != nil && ReasonOf(err) == 0 {
		err = ctx.Err()
	}
	return secure, err
}

func addrOf(conn net.Conn) netip.AddrPort {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
