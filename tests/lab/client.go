package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// EchoPort is the UDP port of the service that [Host.ServeEcho] runs.
const EchoPort = 7007

// ServeEcho runs the host's service: it answers each datagram, from the address that
// it was sent to, with the datagram and the host's name behind it. The service belongs
// to the lab, not to the daemon under test: no fault at the daemon stops it.
func (h *Host) ServeEcho() error {
	var c4, c6 *net.UDPConn
	err := h.Do(func() (err error) {
		if c4, err = net.ListenUDP("udp4", &net.UDPAddr{Port: EchoPort}); err != nil {
			return err
		}
		if c6, err = net.ListenUDP("udp6", &net.UDPAddr{Port: EchoPort}); err != nil {
			return errors.Join(err, c4.Close())
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("serve echo on %s: %w", h.Name, err)
	}
	p4, p6 := ipv4.NewPacketConn(c4), ipv6.NewPacketConn(c6)
	if err := errors.Join(p4.SetControlMessage(ipv4.FlagDst, true), p6.SetControlMessage(ipv6.FlagDst, true)); err != nil {
		return errors.Join(fmt.Errorf("serve echo on %s: %w", h.Name, err), c4.Close(), c6.Close())
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		h.echo(func(b []byte) (int, error) {
			n, cm, from, err := p4.ReadFrom(b)
			if err != nil {
				return 0, err
			}
			// A failed write is a lost datagram, as on any network. So is the next one's.
			_, _ = p4.WriteTo(append(b[:n], h.Name...), &ipv4.ControlMessage{Src: cm.Dst}, from)
			return n, nil
		})
	})
	wg.Go(func() {
		h.echo(func(b []byte) (int, error) {
			n, cm, from, err := p6.ReadFrom(b)
			if err != nil {
				return 0, err
			}
			_, _ = p6.WriteTo(append(b[:n], h.Name...), &ipv6.ControlMessage{Src: cm.Dst}, from)
			return n, nil
		})
	})
	h.lab.onClose(func() {
		_, _ = c4.Close(), c6.Close() // ends both loops
		wg.Wait()
	})
	return nil
}

// echo serves until its socket is closed.
func (h *Host) echo(serve func([]byte) (int, error)) {
	buf := make([]byte, 64, 128)
	for {
		if _, err := serve(buf); errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// A Client is an ordinary user of the virtual address: it sends a datagram a period
// through its kernel's own neighbour cache to EchoPort and records who answers.
type Client struct {
	host   *Host
	conn   *net.UDPConn
	cancel chan struct{}
	wg     sync.WaitGroup
	once   sync.Once

	mu    sync.Mutex
	trace Trace
}

// StartClient starts a client of target on the host; it ends with Close of the client
// or of the lab. A client should not share its host with a probe, whose answers would
// keep the host's neighbour cache fresh.
func (h *Host) StartClient(target netip.Addr, period time.Duration) (*Client, error) {
	c := &Client{
		host: h, cancel: make(chan struct{}),
		trace: Trace{Observer: h.Name, Target: target, Period: period},
	}
	network := "udp4"
	if target.Is6() {
		network = "udp6"
	}
	err := h.Do(func() (err error) {
		c.conn, err = net.ListenUDP(network, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open the client's socket on %s: %w", h.Name, err)
	}
	c.wg.Add(2)
	go c.ask()
	go c.listen()
	h.lab.onClose(c.Close)
	return c, nil
}

// Close ends the client; its trace stays. It may be called again.
func (c *Client) Close() {
	c.once.Do(func() {
		close(c.cancel)
		_ = c.conn.Close() // ends the reader
		c.wg.Wait()
	})
}

// Trace returns a copy of what was recorded so far.
func (c *Client) Trace() Trace {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.trace
	t.Asked = slices.Clone(t.Asked)
	t.Answers = slices.Clone(t.Answers)
	return t
}

// TraceBetween returns the answers in [from, to], and no questions.
func (c *Client) TraceBetween(from, to Instant) Trace {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.trace
	t.Asked, t.Answers = nil, within(t.Answers, from, to)
	return t
}

func (c *Client) ask() {
	defer c.wg.Done()
	to := netip.AddrPortFrom(c.trace.Target, EchoPort)
	due := Now()
	for n := 0; ; n++ {
		select {
		case <-c.cancel:
			return
		default:
		}
		c.mu.Lock()
		c.trace.Asked = append(c.trace.Asked, Now())
		c.mu.Unlock()
		// An address without an owner, or a cable that is out, is what a client sits through.
		_, _ = c.conn.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, uint64(n)), to)
		// Sleeping the ordinary way, as a client does: it is no measuring device.
		due = max(due.Add(c.trace.Period), Now())
		<-time.After(due.Sub(Now()))
	}
}

func (c *Client) listen() {
	defer c.wg.Done()
	buf := make([]byte, 128)
	for {
		n, _, err := c.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		at := Now()
		if err != nil || n <= 8 {
			continue
		}
		seq := int(binary.BigEndian.Uint64(buf))
		c.mu.Lock()
		if seq < len(c.trace.Asked) {
			c.trace.Answers = append(c.trace.Answers, Answer{
				Host: string(buf[8:n]), At: at, Seq: seq, Sent: c.trace.Asked[seq],
			})
		}
		c.mu.Unlock()
	}
}
