package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent"
	"github.com/quorate/quorate/vrrpcompat"
	"github.com/quorate/quorate/vrrpcompat/wire"
)

// A speaker sends the adverts of this node's groups and counts those that it
// hears. It keeps one socket for each device and address family.
type speaker struct {
	log       *slog.Logger
	isVirtual func(netip.Addr) bool
	mu        sync.Mutex
	conns     map[connKey]openConn
	heard     map[string]uint64 // by result: accepted, or the reason of a refusal
	seldom    agent.Seldom
	started   chan *wire.Conn
}

type connKey struct {
	link   string
	family vrrpcompat.Family
}

// An openConn is a socket on one life of a device: a device that was deleted and
// made again under the same name has another index, and needs another socket.
type openConn struct {
	*wire.Conn
	index int
}

func newSpeaker(log *slog.Logger, isVirtual func(netip.Addr) bool) *speaker {
	return &speaker{
		log: log, isVirtual: isVirtual,
		conns: map[connKey]openConn{},
		heard: map[string]uint64{},
		// A few devices and two families: enough that Listen does not wait for run.
		started: make(chan *wire.Conn, 64),
	}
}

// run reads from every socket that Listen opens, until ctx ends.
func (s *speaker) run(ctx context.Context) error {
	var readers sync.WaitGroup
	defer readers.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-s.started:
			readers.Go(func() { s.read(ctx, c) })
		}
	}
}

func (s *speaker) read(ctx context.Context, c *wire.Conn) {
	err := c.Run(ctx, s.hear)
	s.mu.Lock()
	if key := (connKey{c.Interface(), c.Family()}); s.conns[key].Conn == c {
		delete(s.conns, key)
	}
	s.mu.Unlock()
	_ = c.Close() // it is of no more use either way
	if err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
		s.log.Warn("no longer listening for VRRP adverts", "link", c.Interface(), "family", c.Family().String(), "error", err)
	}
}

func (s *speaker) hear(h wire.Heard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.Err == nil {
		s.heard["accepted"]++
		return
	}
	reason := h.Err.Reason.String()
	s.heard[reason]++
	if s.seldom.Allow(reason) {
		s.log.Warn("refused a VRRP advert", "link", h.Interface, "source", h.Source, "reason", reason, "error", h.Err)
	}
}

// counts returns what was heard so far.
func (s *speaker) counts() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]uint64, len(s.heard))
	for k, v := range s.heard {
		out[k] = v
	}
	return out
}

// Listen joins the group of the address's family on the device, once for each life
// of the device.
func (s *speaker) Listen(link string, addr netip.Addr) error {
	_, err := s.conn(link, addr)
	return err
}

func (s *speaker) conn(link string, addr netip.Addr) (*wire.Conn, error) {
	key := connKey{link, vrrpcompat.FamilyOf(addr)}
	s.mu.Lock()
	defer s.mu.Unlock()
	device, err := net.InterfaceByName(link)
	if err != nil {
		return nil, fmt.Errorf("look for device %s: %w", link, err)
	}
	if c, ok := s.conns[key]; ok {
		if c.index == device.Index {
			return c.Conn, nil
		}
		_ = c.Close() // its reader ends with that
		delete(s.conns, key)
	}
	c, err := wire.Open(link, key.family)
	if err != nil {
		return nil, err
	}
	select {
	case s.started <- c:
	default:
		_ = c.Close()
		return nil, errors.New("too many devices are being opened at once")
	}
	s.conns[key] = openConn{c, device.Index}
	return c, nil
}

// Advertise sends one advert for the addresses, which are of one family.
func (s *speaker) Advertise(link string, v fsm.VRRP, addrs []netip.Addr) error {
	c, err := s.conn(link, addrs[0])
	if err != nil {
		return err
	}
	interval, err := vrrpcompat.CentisOf(v.Interval)
	if err != nil {
		return fmt.Errorf("advert interval: %w", err)
	}
	source, err := wire.SourceAddress(link, c.Family(), s.isVirtual)
	if err != nil {
		return err
	}
	sum := vrrpcompat.PseudoHeader
	if v.PlainChecksum {
		sum = vrrpcompat.Plain
	}
	advert := vrrpcompat.Advert{VRID: vrrpcompat.VRID(v.ID), Priority: vrrpcompat.Priority(v.Priority), Interval: interval, Addresses: addrs}
	return c.Send(advert, source, sum)
}
