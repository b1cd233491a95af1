package peerlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Network makes the connections between nodes. The addresses of what it returns
// are *net.TCPAddr; its connections honour deadlines, and Close ends their calls.
// It may be called concurrently.
type Network interface {
	// Listen takes a port. Closing the listener leaves the accepted connections open.
	Listen(at netip.AddrPort) (net.Listener, error)
	// Dial connects, and ends with ctx.
	Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error)
}

// hostTCP is the Network of this host.
type hostTCP struct{ dialer net.Dialer }

// newHostTCP returns TCP with outgoing connections from that address.
func newHostTCP(from netip.Addr) *hostTCP {
	h := &hostTCP{net.Dialer{KeepAliveConfig: keepAlive, Control: socketOptions}}
	if !from.IsUnspecified() {
		// Otherwise the kernel may choose a virtual IP as the source, and the
		// connection would die when that moves away.
		h.dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	return h
}

// Listen takes the port on this host.
func (*hostTCP) Listen(at netip.AddrPort) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive, Control: socketOptions}
	tcp, err := lc.Listen(context.Background(), "tcp", at.String())
	if err != nil {
		return nil, listenError(at, err)
	}
	return tcp, nil
}

// Dial connects by TCP.
func (h *hostTCP) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return h.dialer.DialContext(ctx, "tcp", to.String())
}

func listenError(addr netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen on TCP %s: another process has this port (see `ss -ltnp 'sport = :%d'`): "+
			"stop it, or set another port in `address:` here and in `peers:` everywhere: %w", addr, addr.Port(), err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen on TCP %s: no device of this host has the address %s: correct `address:`, "+
			"or bring the device up first: %w", addr, addr.Addr(), err)
	}
	return fmt.Errorf("listen on TCP %s: %w", addr, err)
}

// keepAlive finds a peer that went away while its connection was idle.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 2}

// socketOptions sets TCP_USER_TIMEOUT, which finds a peer that went away while
// data was under way to it: by retransmission alone that takes a quarter of an hour.
// Accepted sockets inherit it from the listening one.
func socketOptions(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadPeer.Milliseconds()))
	})
	return errors.Join(err, failed)
}
