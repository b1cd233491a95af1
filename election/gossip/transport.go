package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sys/unix"
)

// receiveBuffer is how much the kernel keeps for us while the process does not
// get to run, in bytes: some thousand datagrams.
const receiveBuffer = 2 << 20

// A PacketConn sends and receives packets, each whole or not at all, as
// *net.UDPConn does. Close ends a read that waits.
type PacketConn interface {
	ReadFromUDPAddrPort(b []byte) (n int, from netip.AddrPort, err error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	Close() error
}

// listenUDP takes the port.
func listenUDP(addr netip.AddrPort) (PacketConn, error) {
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on UDP %s: another process has this port (see `ss -lunp 'sport = :%d'`): "+
			"stop it, or set another port in `address:` here and in `peers:` everywhere: %w", addr, addr.Port(), err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen on UDP %s: no device of this host has the address %s: correct `address:`, "+
			"or bring the device up first: %w", addr, addr.Addr(), err)
	case err != nil:
		return nil, fmt.Errorf("listen on UDP %s: %w", addr, err)
	}
	if err := enlargeBuffer(udp); err != nil {
		return nil, errors.Join(fmt.Errorf("set up UDP %s: %w", addr, err), udp.Close())
	}
	return udp, nil
}

// enlargeBuffer first tries the way past net.core.rmem_max, which CAP_NET_ADMIN
// allows, and else takes what that limit leaves.
func enlargeBuffer(udp *net.UDPConn) error {
	raw, err := udp.SyscallConn()
	if err != nil {
		return err
	}
	var refused error
	err = raw.Control(func(fd uintptr) {
		refused = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	})
	if err == nil && refused != nil {
		err = udp.SetReadBuffer(receiveBuffer)
	}
	return err
}

// A transport is memberlist's way to the network.
type transport struct {
	udp     PacketConn
	streams net.Listener
	dial    func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	address netip.AddrPort
	label   []byte // header of every packet of this cluster
	foreign *foreign

	packetCh chan *memberlist.Packet
	streamCh chan net.Conn
	failed   chan error // of the UDP socket, at most one

	ctx    context.Context // ends with Shutdown
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

// labelHeader is memberlist's marker before a packet's label: a type byte and the
// length.
const labelType = 244

// newTransport starts receiving; Shutdown ends it.
func newTransport(g *Gossip) *transport {
	t := &transport{
		udp:      g.udp,
		streams:  g.cfg.Streams,
		dial:     g.cfg.Dial,
		address:  g.cfg.Address,
		label:    append([]byte{labelType, byte(len(g.cfg.Cluster))}, g.cfg.Cluster...),
		foreign:  g.foreign,
		packetCh: make(chan *memberlist.Packet, 64),
		streamCh: make(chan net.Conn),
		failed:   make(chan error, 1),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.wg.Go(t.receive)
	t.wg.Go(t.accept)
	return t
}

func (t *transport) receive() {
	buf := make([]byte, 65536)
	for {
		n, from, err := t.udp.ReadFromUDPAddrPort(buf)
		at := time.Now()
		if err != nil {
			if t.ctx.Err() == nil {
				t.failed <- err
			}
			return
		}
		from = unmap(from)
		if why := t.judge(buf[:n]); why != 0 {
			t.foreign.note(why, from)
			continue
		}
		// memberlist keeps the packet in its queue.
		packet := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: net.UDPAddrFromAddrPort(from), Timestamp: at}
		select {
		case t.packetCh <- packet:
		case <-t.ctx.Done():
			return
		}
	}
}

// judge looks at a packet's label before memberlist does, so that a stranger's
// packet costs a comparison and not a log line.
func (t *transport) judge(packet []byte) ForeignReason {
	switch {
	case len(packet) < 2 || packet[0] != labelType:
		return ForeignFormat
	case !bytes.HasPrefix(packet, t.label):
		return ForeignCluster
	}
	return 0
}

func (t *transport) accept() {
	for {
		conn, err := t.streams.Accept()
		if err != nil {
			return // the listener's owner reports why, and Shutdown closes it
		}
		select {
		case t.streamCh <- t.bound(conn):
		case <-t.ctx.Done():
			conn.Close()
			return
		}
	}
}

// bound closes conn when the transport ends; memberlist itself would keep it until
// its own timeout.
func (t *transport) bound(conn net.Conn) net.Conn {
	return &boundConn{Conn: conn, stop: context.AfterFunc(t.ctx, func() { conn.Close() })}
}

type boundConn struct {
	net.Conn
	stop func() bool
}

func (c *boundConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// FinalAdvertiseAddr returns the address that was configured.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.address.Addr().AsSlice(), int(t.address.Port()), nil
}

// WriteTo sends one packet.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.udp.WriteToUDPAddrPort(b, to)
	return time.Now(), err
}

// WriteToAddress is WriteTo; the name of the node does not matter.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

// PacketCh has the packets received.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packetCh }

// DialTimeout opens a stream.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	conn, err := t.dial(ctx, to)
	if err != nil {
		return nil, err
	}
	return t.bound(conn), nil
}

// DialAddressTimeout is DialTimeout; the name of the node does not matter.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// StreamCh has the streams accepted.
func (t *transport) StreamCh() <-chan net.Conn { return t.streamCh }

// Shutdown closes the port, the listener and every stream.
func (t *transport) Shutdown() error {
	t.cancel()
	err := errors.Join(t.udp.Close(), t.streams.Close())
	t.wg.Wait()
	return err
}
