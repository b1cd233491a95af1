package sim

import (
	"net/netip"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/internal/agent/core"
)

// A network is what lies between the hosts. Connections carry Raft and the calls
// between nodes: they are slow or broken, never out of order. Datagrams are also lost,
// doubled and late.
type network struct {
	data, conn [maxHosts][maxHosts]bool // what is kept back, [from][to]
	env        Net
	// The last datagram that was decoded: one is sent to several hosts.
	bytes   []byte
	message any
	post    *post // of a story; nil: none
}

// A Net is how badly datagrams fare: chances from 0 to 1.
type Net struct {
	Loss, Dup, Late float64
	Latest          time.Duration // how late a late one may come
}

// reach reports whether datagrams from one host get to another.
func (w *World) reach(from, to int) bool { return !w.net.data[from][to] }

// connects reports whether what is sent over a connection gets there.
func (w *World) connects(from, to int) bool { return !w.net.conn[from][to] }

// both reports whether a call from one host to another is answered.
func (w *World) both(a, b int) bool { return w.connects(a, b) && w.connects(b, a) }

// block keeps everything that one host sends from another.
func (w *World) block(from, to int) {
	w.net.data[from][to], w.net.conn[from][to] = from != to, from != to
}

// unblock lets it through again.
func (w *World) unblock(from, to int) { w.net.data[from][to], w.net.conn[from][to] = false, false }

// apart keeps two hosts from each other.
func (w *World) apart(a, b int) {
	w.block(a, b)
	w.block(b, a)
}

// noRaft keeps two hosts' connections from each other, and lets datagrams pass.
func (w *World) noRaft(a, b int) { w.net.conn[a][b], w.net.conn[b][a] = a != b, a != b }

// noData keeps their datagrams from each other, and lets connections pass.
func (w *World) noData(a, b int) { w.net.data[a][b], w.net.data[b][a] = a != b, a != b }

// cut keeps a host from all others, both ways.
func (w *World) cut(i int) {
	for o := range w.hosts {
		w.apart(i, o)
	}
}

// mend lets everything through again.
func (w *World) mend() {
	w.net.data, w.net.conn = [maxHosts][maxHosts]bool{}, [maxHosts][maxHosts]bool{}
}

// Send is the agent's way to other nodes.
func (p *process) Send(to netip.AddrPort, datagram []byte) error {
	p.at(beforeSend)
	for _, h := range p.w.hosts {
		if h.node.Address == to {
			p.w.deliver(p.host, h, datagram)
			break
		}
	}
	return nil
}

// deliver takes a datagram from one host to another, as well as the network does.
func (w *World) deliver(from, to *host, datagram []byte) {
	if !w.reach(from.i, to.i) || w.chance(w.net.env.Loss) {
		return
	}
	msg := w.decode(datagram)
	if w.net.post != nil && w.net.post.takes(w, from, to, msg) {
		return
	}
	copies := 1
	if w.chance(w.net.env.Dup) {
		copies = 2
	}
	for range copies {
		delay := w.jitter(100*time.Microsecond, time.Millisecond)
		if w.chance(w.net.env.Late) {
			delay = w.jitter(time.Millisecond, w.net.env.Latest)
		}
		w.after(delay, func() {
			to.heardAt[from.i] = w.now
			to.post(core.Datagram{Message: msg})
		})
	}
}

// decode reads a datagram as the receiver would. The message is shared by all
// receivers: nobody writes to it.
func (w *World) decode(datagram []byte) any {
	n := &w.net
	if len(n.bytes) == len(datagram) && &n.bytes[0] == &datagram[0] {
		return n.message
	}
	msg, err := election.Decode(datagram)
	if err != nil {
		w.violated("a datagram of our own cannot be decoded: %v", err)
	}
	n.bytes, n.message = datagram, msg
	return msg
}
