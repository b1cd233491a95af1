package bubble

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A weather is how badly things behave, as chances from 0 to 1.
type weather struct {
	loss, dup, late float64       // of a datagram; of a piece of a stream, loss makes it late
	latest          time.Duration // how late a late datagram may come
	stall           float64       // that a goroutine does not get to run where the agent deals with its host
}

const (
	quickest = 100 * time.Microsecond // one way through the network
	slowest  = time.Millisecond
)

// A network connects the hosts of one bubble. It is a switch between hosts: each
// direction between two of them can be cut.
type network struct {
	mu        sync.Mutex
	rng       *rand.Rand
	weather   weather
	cuts      map[[2]netip.Addr]bool // from, to
	off       map[netip.Addr]bool    // hosts without power
	sockets   map[netip.AddrPort]*socket
	listeners map[netip.AddrPort]*listener
	streams   map[*stream]bool
	nextPort  uint16
	closed    chan struct{}
}

func newNetwork(seed uint64) *network {
	n := &network{
		rng:  rand.New(rand.NewPCG(seed, 2)),
		cuts: map[[2]netip.Addr]bool{}, off: map[netip.Addr]bool{},
		sockets: map[netip.AddrPort]*socket{}, listeners: map[netip.AddrPort]*listener{}, streams: map[*stream]bool{},
		closed: make(chan struct{}),
	}
	go n.keepAlive()
	return n
}

func (n *network) close() { close(n.closed) }

func (n *network) setWeather(w weather) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.weather = w
}

// cut ends, or mends, what goes from one host to another.
func (n *network) cut(from, to netip.Addr, is bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[[2]netip.Addr{from, to}] = is
}

func (n *network) mendAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cuts)
}

func (n *network) setPower(host netip.Addr, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.off[host] = !on
}

// open reports whether frames get from one host to another.
func (n *network) open(from, to netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.openLocked(from, to)
}

func (n *network) openLocked(from, to netip.Addr) bool {
	return !n.cuts[[2]netip.Addr{from, to}] && !n.off[from] && !n.off[to]
}

// both reports whether frames get through in both directions.
func (n *network) both(a, b netip.Addr) bool { return n.open(a, b) && n.open(b, a) }

func (n *network) jitter(lo, hi time.Duration) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.jitterLocked(lo, hi)
}

func (n *network) jitterLocked(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(n.rng.Int64N(int64(hi-lo)))
}

func (n *network) chanceLocked(p float64) bool { return p > 0 && n.rng.Float64() < p }

// lost draws whether a piece of a stream must be sent again.
func (n *network) lost() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.chanceLocked(n.weather.loss)
}

// stalled draws for how long a goroutine that should run does not.
func (n *network) stalled() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.chanceLocked(n.weather.stall) {
		return 0
	}
	return n.jitterLocked(0, 2*lease)
}

// deliver takes a datagram to whoever has the port when it arrives. A cut that comes
// while it is under way does not stop it.
func (n *network) deliver(from, to netip.AddrPort, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.openLocked(from.Addr(), to.Addr()) || n.chanceLocked(n.weather.loss) {
		return
	}
	copies := 1
	if n.chanceLocked(n.weather.dup) {
		copies = 2
	}
	for range copies {
		takes := n.jitterLocked(quickest, slowest)
		if n.chanceLocked(n.weather.late) {
			takes = n.jitterLocked(slowest, n.weather.latest)
		}
		time.AfterFunc(takes, func() { n.arrive(from, to, b) })
	}
}

func (n *network) arrive(from, to netip.AddrPort, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.sockets[to]; s != nil && !n.off[to.Addr()] {
		select {
		case s.in <- packet{from, b}:
		default: // the socket's buffer is full
		}
	}
}

type packet struct {
	from netip.AddrPort
	b    []byte
}

// socketBuffer is how many packets wait for a process that does not read.
const socketBuffer = 4096

// A socket is one process's UDP port: a gossip.PacketConn.
type socket struct {
	net  *network
	at   netip.AddrPort
	gate *gate
	in   chan packet
	once sync.Once
	gone chan struct{}
}

// packets takes a UDP port for a process.
func (n *network) packets(at netip.AddrPort, g *gate) *socket {
	s := &socket{net: n, at: at, gate: g, in: make(chan packet, socketBuffer), gone: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sockets[at] = s
	return s
}

func (s *socket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case p := <-s.in:
		s.gate.pass()
		return copy(b, p.b), p.from, nil
	case <-s.gone:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

// WriteToUDPAddrPort never blocks: what a frozen process would send leaves when it
// thaws. Its goroutines may be holding locks, for which others would wait in real
// time, and virtual time would stand still.
func (s *socket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	select {
	case <-s.gone:
		return 0, net.ErrClosed
	default:
	}
	copied := append([]byte(nil), b...)
	s.gate.whenOpen(func() {
		select {
		case <-s.gone:
		default:
			s.net.deliver(s.at, to, copied)
		}
	})
	return len(b), nil
}

func (s *socket) Close() error {
	s.once.Do(func() {
		close(s.gone)
		s.net.mu.Lock()
		defer s.net.mu.Unlock()
		if s.net.sockets[s.at] == s {
			delete(s.net.sockets, s.at)
		}
	})
	return nil
}

// A gate stands before everything that a process does to the world. While it is
// shut, the process is frozen as far as anybody can see.
type gate struct {
	mu     sync.Mutex
	thaw   chan struct{} // nil: open
	queued []func()
}

// pass waits until the gate is open.
func (g *gate) pass() {
	for thaw := g.thawed(); thaw != nil; thaw = g.thawed() {
		<-thaw
	}
}

// whenOpen does f now, or when the gate opens.
func (g *gate) whenOpen(f func()) {
	g.mu.Lock()
	if g.thaw != nil {
		g.queued = append(g.queued, f)
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	f()
}

// shut freezes the process.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.thaw == nil {
		g.thaw = make(chan struct{})
	}
}

// open thaws the process.
func (g *gate) open() {
	g.mu.Lock()
	queued := g.queued
	g.queued = nil
	if g.thaw != nil {
		close(g.thaw)
		g.thaw = nil
	}
	g.mu.Unlock()
	for _, f := range queued {
		f()
	}
}

// thawed is closed when the gate opens; nil when it is open already.
func (g *gate) thawed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.thaw
}
