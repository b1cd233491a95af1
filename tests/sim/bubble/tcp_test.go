package bubble

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// The times of TCP, as the node link sets them.
const (
	retransmit  = 200 * time.Millisecond // first wait for a piece that was lost; doubles
	userTimeout = 2 * time.Second        // how long data waits for an answer
	deadAfter   = 4 * time.Second        // when an idle connection notices that its peer is gone
	synRetry    = time.Second
)

// A streams is one process's TCP: a peerlink.Network.
type streams struct {
	net  *network
	self netip.Addr
	gate *gate

	mu   sync.Mutex
	mine map[*stream]bool
	dead bool
}

func (n *network) streamsOf(self netip.Addr, g *gate) *streams {
	return &streams{net: n, self: self, gate: g, mine: map[*stream]bool{}}
}

// Listen takes the port.
func (s *streams) Listen(at netip.AddrPort) (net.Listener, error) {
	l := &listener{of: s, at: at, backlog: make(chan *stream, 128), gone: make(chan struct{})}
	s.net.mu.Lock()
	s.net.listeners[at] = l
	s.net.mu.Unlock()
	return l, nil
}

// Dial asks again, as TCP does, until the listener can be reached or ctx ends.
func (s *streams) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	for {
		s.gate.pass()
		if s.net.both(s.self, to.Addr()) {
			if err := pause(ctx, 2*s.net.jitter(quickest, slowest)); err != nil {
				return nil, err
			}
			if c, err := s.connect(to); c != nil || err != nil {
				return c, err
			}
		}
		if err := pause(ctx, synRetry); err != nil {
			return nil, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connect returns nothing at all when the question got lost.
func (s *streams) connect(to netip.AddrPort) (net.Conn, error) {
	n := s.net
	n.mu.Lock()
	l := n.listeners[to]
	n.nextPort++
	from := netip.AddrPortFrom(s.self, 32768+n.nextPort%28000)
	n.mu.Unlock()
	if !n.both(s.self, to.Addr()) {
		return nil, nil
	}
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: syscall.ECONNREFUSED}
	}
	a, b := newStream(s, from, to), newStream(l.of, to, from)
	a.peer, b.peer = b, a
	if !s.adopt(a) || !l.of.adopt(b) {
		a.fail(net.ErrClosed)
		return nil, syscall.ECONNREFUSED
	}
	select {
	case l.backlog <- b:
	case <-l.gone:
		a.fail(net.ErrClosed)
		b.fail(net.ErrClosed)
		return nil, syscall.ECONNREFUSED
	}
	go a.pump()
	go b.pump()
	return a, nil
}

// adopt reports false when the process is gone.
func (s *streams) adopt(c *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return false
	}
	s.mine[c] = true
	s.net.mu.Lock()
	s.net.streams[c] = true
	s.net.mu.Unlock()
	return true
}

func (s *streams) forget(c *stream) {
	s.mu.Lock()
	delete(s.mine, c)
	s.mu.Unlock()
	s.net.mu.Lock()
	delete(s.net.streams, c)
	s.net.mu.Unlock()
}

// end is what the kernel does when the process is gone: it resets every connection,
// which the peers learn if the network is there.
func (s *streams) end() {
	s.mu.Lock()
	s.dead = true
	var all []*stream
	for c := range s.mine {
		all = append(all, c)
	}
	s.mu.Unlock()
	s.net.mu.Lock()
	for at, l := range s.net.listeners {
		if l.of == s {
			delete(s.net.listeners, at)
		}
	}
	s.net.mu.Unlock()
	for _, c := range all {
		c.reset()
	}
}

// A listener is a port that takes streams.
type listener struct {
	of      *streams
	at      netip.AddrPort
	backlog chan *stream
	once    sync.Once
	gone    chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		l.of.gate.pass()
		return c, nil
	case <-l.gone:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.of.net.mu.Lock()
		if l.of.net.listeners[l.at] == l {
			delete(l.of.net.listeners, l.at)
		}
		l.of.net.mu.Unlock()
		close(l.gone)
		for {
			select {
			case c := <-l.backlog:
				c.reset()
				continue
			default:
			}
			return
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }
