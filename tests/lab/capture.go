package lab

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A Capture hears what a host sends, at its switch port: also the frames that a cut
// swallows, and whatever hardware address they bear.
type Capture struct {
	host *Host
	conn *packet.Conn
	raw  syscall.RawConn
	take func(frame []byte, at Instant)
	wg   sync.WaitGroup
	once sync.Once
	done chan struct{}

	mu  sync.Mutex
	err error
}

// Capture calls take with each Ethernet frame that the host sends and the filter lets
// pass, one after the other, and with the instant at which the kernel got it. The frame
// is valid during the call. It ends with Close of the capture or of the lab.
func (h *Host) Capture(filter []bpf.RawInstruction, take func(frame []byte, at Instant)) (*Capture, error) {
	c := &Capture{host: h, take: take, done: make(chan struct{})}
	err := h.lab.bridge.do(func() error {
		port, err := net.InterfaceByName(h.port)
		if err != nil {
			return err
		}
		// ETH_P_ALL, because a bridge takes its ports' frames before taps of a single
		// protocol are asked.
		c.conn, err = packet.Listen(port, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: filter})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capture at the switch port of %s: %w", h.Name, err)
	}
	c.raw, err = stamped(c.conn)
	if err == nil {
		err = c.ignoreOutgoing()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("capture at the switch port of %s: %w", h.Name, err), c.conn.Close())
	}
	c.wg.Go(c.listen)
	h.lab.onClose(c.Close)
	return c, nil
}

// ignoreOutgoing leaves out what the switch sends to the host.
func (c *Capture) ignoreOutgoing() error {
	var serr error
	err := c.raw.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	})
	return errors.Join(err, serr)
}

func (c *Capture) listen() { c.fail(receiveAll(c.raw, c.take)) }

func (c *Capture) fail(err error) {
	select {
	case <-c.done:
		return // closing the socket under its reader is how a capture ends
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = fmt.Errorf("capture of %s: %w", c.host.Name, err)
}

// Err returns what went wrong in the capture itself, if anything: its silence is then
// no evidence.
func (c *Capture) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the capture. It may be called again.
func (c *Capture) Close() {
	c.once.Do(func() {
		close(c.done)
		_ = c.conn.Close() // ends the reader
		c.wg.Wait()
	})
}
