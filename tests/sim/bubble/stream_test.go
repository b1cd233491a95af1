package bubble

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// A stream is one end of a connection.
type stream struct {
	of            *streams
	local, remote netip.AddrPort
	peer          *stream

	mu      sync.Mutex
	changed chan struct{} // closed and made anew when something below changes
	in      []byte        // arrived and not read
	inEOF   bool
	out     []piece // not arrived at the peer
	closed  bool    // by this process
	broken  error
	silent  time.Time // since when the peer cannot be reached; zero: it can

	reading, writing deadline
}

// A piece is what one Write sent.
type piece struct {
	b   []byte
	due time.Time
}

func newStream(of *streams, local, remote netip.AddrPort) *stream {
	return &stream{of: of, local: local, remote: remote, changed: make(chan struct{})}
}

// change wakes everybody that waits for a change. It needs the lock.
func (c *stream) change() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *stream) Read(b []byte) (int, error) {
	for {
		thaw := c.of.gate.thawed()
		c.mu.Lock()
		changed := c.changed
		switch {
		case c.closed:
			c.mu.Unlock()
			return 0, net.ErrClosed
		case thaw != nil: // nothing is read before the thaw, but a Close must get through
		case len(c.in) > 0:
			n := copy(b, c.in)
			c.in = c.in[n:]
			c.mu.Unlock()
			return n, nil
		case c.broken != nil:
			err := c.broken
			c.mu.Unlock()
			return 0, err
		case c.inEOF:
			c.mu.Unlock()
			return 0, io.EOF
		}
		c.mu.Unlock()
		select {
		case <-changed:
		case <-thaw:
		case <-c.reading.past():
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// Write never blocks, as a connection with little traffic never does.
func (c *stream) Write(b []byte) (int, error) {
	select {
	case <-c.writing.past():
		return 0, os.ErrDeadlineExceeded
	default:
	}
	due := time.Now().Add(c.of.net.jitter(quickest, slowest))
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case c.broken != nil:
		return 0, c.broken
	}
	if n := len(c.out); n > 0 && c.out[n-1].due.After(due) {
		due = c.out[n-1].due
	}
	c.out = append(c.out, piece{append([]byte(nil), b...), due})
	c.change()
	return len(b), nil
}

// pump takes pieces to the peer, in order, and at last the end of the stream.
func (c *stream) pump() {
	defer c.of.forget(c)
	for {
		c.mu.Lock()
		changed, broken, closed := c.changed, c.broken, c.closed
		var next *piece
		if len(c.out) > 0 {
			next = &c.out[0]
		}
		c.mu.Unlock()
		switch {
		case broken != nil:
			return
		case next != nil:
			if !c.carry(next) {
				return
			}
			c.mu.Lock()
			c.out = c.out[1:]
			c.mu.Unlock()
		case closed:
			if c.through() {
				c.peer.arrive(nil)
			}
			return
		default:
			<-changed
		}
	}
}

// carry brings one piece to the peer, and waits for the answer that it has come: a
// window of one, where TCP's is larger. It reports false when the connection is broken.
func (c *stream) carry(p *piece) bool {
	if d := time.Until(p.due); d > 0 {
		time.Sleep(d)
	}
	c.of.gate.pass()
	if !c.through() {
		return false
	}
	if !c.peer.arrive(p.b) {
		c.fail(syscall.ECONNRESET)
		return false
	}
	return true
}

// through waits until the peer's host can be reached and can answer, as long as TCP
// would.
func (c *stream) through() bool {
	n := c.of.net
	since, wait := time.Now(), retransmit
	for n.lost() || !n.both(c.local.Addr(), c.remote.Addr()) {
		if time.Since(since) >= userTimeout {
			c.fail(syscall.ETIMEDOUT)
			return false
		}
		time.Sleep(wait)
		wait = min(2*wait, userTimeout)
		c.mu.Lock()
		broken := c.broken
		c.mu.Unlock()
		if broken != nil {
			return false
		}
	}
	return true
}

// arrive takes what the peer sent; nil is the end. It reports false when nobody is
// there to take it.
func (c *stream) arrive(b []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil || c.closed {
		return b == nil
	}
	if b == nil {
		c.inEOF = true
	}
	c.in = append(c.in, b...)
	c.change()
	return true
}

// fail breaks this end.
func (c *stream) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		c.broken = &net.OpError{Op: "tcp", Net: "tcp", Addr: net.TCPAddrFromAddrPort(c.remote), Err: err}
		c.change()
	}
	c.of.forgetSoon(c)
}

// forgetSoon is forget for callers that hold the stream's lock.
func (s *streams) forgetSoon(c *stream) { go s.forget(c) }

// reset breaks this end, and the other if it can be told.
func (c *stream) reset() {
	c.fail(syscall.ECONNRESET)
	n := c.of.net
	time.AfterFunc(n.jitter(quickest, slowest), func() {
		if n.open(c.local.Addr(), c.remote.Addr()) {
			c.peer.fail(syscall.ECONNRESET)
		}
	})
}

// Close sends what is left, and then the end.
func (c *stream) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	c.change()
	return nil
}

func (c *stream) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }
func (c *stream) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

func (c *stream) SetDeadline(t time.Time) error {
	c.reading.set(t)
	c.writing.set(t)
	return nil
}
func (c *stream) SetReadDeadline(t time.Time) error  { c.reading.set(t); return nil }
func (c *stream) SetWriteDeadline(t time.Time) error { c.writing.set(t); return nil }

// keepAlive looks at every connection once in a while, as TCP's keep-alive does for
// the idle ones.
func (n *network) keepAlive() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-n.closed:
			return
		case <-tick.C:
		}
		n.mu.Lock()
		var all []*stream
		for c := range n.streams {
			all = append(all, c)
		}
		n.mu.Unlock()
		for _, c := range all {
			c.checkPeer()
		}
	}
}

func (c *stream) checkPeer() {
	alive := c.of.net.both(c.local.Addr(), c.remote.Addr()) && c.peer.there()
	c.mu.Lock()
	switch {
	case alive:
		c.silent = time.Time{}
	case c.silent.IsZero():
		c.silent = time.Now()
	}
	late := !c.silent.IsZero() && time.Since(c.silent) >= deadAfter
	c.mu.Unlock()
	if late {
		c.fail(syscall.ETIMEDOUT)
	}
}

func (c *stream) there() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken == nil && !c.closed
}

// A deadline is one of a connection's two. The zero value is none.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	over  chan struct{}
}

func (d *deadline) past() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.channel()
}

// channel needs the lock.
func (d *deadline) channel() chan struct{} {
	if d.over == nil {
		d.over = make(chan struct{})
	}
	return d.over
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	over := d.channel()
	if d.timer != nil && !d.timer.Stop() {
		<-over // its function runs, and needs no lock
	}
	d.timer = nil
	select {
	case <-over:
		d.over = make(chan struct{})
		over = d.over
	default:
	}
	switch left := time.Until(t); {
	case t.IsZero():
	case left <= 0:
		close(over)
	default:
		d.timer = time.AfterFunc(left, func() { close(over) })
	}
}
