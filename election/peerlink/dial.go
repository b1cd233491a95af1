package peerlink

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"

	"github.com/quorate/quorate/fsm"
)

// DialRaft opens a Raft stream to the node at an address, hello included. With an
// expected instance (zero: any) it fails when another one is there. It ends with
// ctx, at the latest after two seconds.
func (l *Link) DialRaft(ctx context.Context, to netip.AddrPort, expect fsm.InstanceID) (net.Conn, error) {
	conn, err := l.dial(ctx, to, ProtocolRaft, func(c *tls.Conn) error {
		id, ok := certified(c.ConnectionState())
		return dialHello(c, l.cfg.Identity(), expect, id, ok)
	})
	if err != nil {
		return nil, err // no typed nil in the interface
	}
	return conn, nil
}

// DialGossip opens a gossip stream to the node at an address. It ends with ctx, at
// the latest after two seconds.
func (l *Link) DialGossip(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	conn, err := l.dial(ctx, to, ProtocolGossip, nil)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// dial connects, secures and greets. Refusals are counted and, once in a while,
// logged here; so a caller that meets a *Refused need not log each.
func (l *Link) dial(ctx context.Context, to netip.AddrPort, protocol string, greet func(*tls.Conn) error) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := l.cfg.Network.Dial(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("connect to node %s: %w", to, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	secure := tls.Client(conn, l.cfg.Credentials.config(false, protocol))
	err = secure.HandshakeContext(ctx)
	if err == nil && secure.ConnectionState().NegotiatedProtocol != protocol {
		err = &Refused{Reason: BadHello, Detail: "it does not speak " + protocol}
	}
	if err == nil && greet != nil {
		err = greet(secure)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return secure, nil
	}
	conn.Close()
	if ctx.Err() != nil && ReasonOf(err) == 0 {
		err = ctx.Err()
	}
	return nil, fmt.Errorf("connect to node %s: %w", to, l.tally.noteError(handshakeError(err, to, l.cfg.Credentials.authority)))
}
