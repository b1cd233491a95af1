package peerlink

import (
	"net"
	"net/netip"
	"sync"
)

// A queue is the net.Listener of one protocol on the shared port.
type queue struct {
	addr  net.Addr
	ready chan net.Conn

	mu     sync.Mutex
	closed bool
}

func newQueue(addr net.Addr) *queue {
	return &queue{addr: addr, ready: make(chan net.Conn, backlog)}
}

// put hands conn over, or reports that nobody takes it.
func (q *queue) put(conn net.Conn) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	select {
	case q.ready <- conn:
		return true
	default:
		return false
	}
}

// Accept waits for a connection; after Close it returns net.ErrClosed.
func (q *queue) Accept() (net.Conn, error) {
	conn, ok := <-q.ready
	if !ok {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: q.addr, Err: net.ErrClosed}
	}
	return conn, nil
}

// Close refuses further connections and closes those that nobody took. The port
// itself stays open. It may be called again.
func (q *queue) Close() error {
	q.mu.Lock()
	first := !q.closed
	q.closed = true
	if first {
		close(q.ready)
	}
	q.mu.Unlock()
	if first {
		for conn := range q.ready {
			conn.Close()
		}
	}
	return nil
}

// Addr is the address of the shared port.
func (q *queue) Addr() net.Addr { return q.addr }

const (
	maxHandshakes       = 128
	maxHandshakesOfOne  = 16
	maxHandshakesStrict = maxHandshakes - maxHandshakesOfOne
)

// A gate bounds the handshakes under way. One address can use up its own share
// only, and the last share is kept for addresses that have nothing under way, so
// that strangers with few addresses do not lock the nodes out.
type gate struct {
	mu    sync.Mutex
	total int
	of    map[netip.Addr]int
}

func newGate() *gate { return &gate{of: map[netip.Addr]int{}} }

func (g *gate) enter(a netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.of[a]
	if n >= maxHandshakesOfOne || g.total >= maxHandshakes || (n > 0 && g.total >= maxHandshakesStrict) {
		return false
	}
	g.of[a], g.total = n+1, g.total+1
	return true
}

func (g *gate) leave(a netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.of[a]--; g.of[a] == 0 {
		delete(g.of, a)
	}
}
