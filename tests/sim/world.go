package sim

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/tests/sim/raftmodel"
)

// maxHosts bounds a World.
const maxHosts = 6

// A World is a cluster and everything round it. True time is its own; each host's
// clock has an offset and a rate. It belongs to one goroutine.
type World struct {
	env     Env
	rng     *rand.Rand
	now     time.Duration // true time since the beginning
	queue   timeline
	seq     uint64
	ready   []*process // those whose loop has mail
	hosts   []*host
	raft    *raftmodel.Cluster
	net     network
	watch   watch
	foreign map[netip.Addr]bool // addresses that a host outside has
	copies  int                 // questions of a copied data directory
	estate  *estate             // of a run with operators; nil: none
}

// New returns a cluster that is about to form, in the surroundings that env names.
func New(env Env, seed uint64) *World {
	w := &World{env: env, rng: rand.New(rand.NewPCG(seed, 1)), foreign: map[netip.Addr]bool{}}
	var ids []fsm.InstanceID
	for i := range env.Hosts {
		h := newHost(w, i)
		w.hosts = append(w.hosts, h)
		ids = append(ids, h.node.ID)
	}
	w.openRaft(ids)
	for i, h := range w.hosts { // their ticks must not coincide
		renew := env.Leases[0] / 3
		at := w.jitter(0, renew)
		if env.Even {
			at = renew * time.Duration(i) / time.Duration(env.Hosts)
		}
		w.after(at, h.start)
	}
	w.after(env.Leases[0]/3+20*time.Millisecond, w.form)
	return w
}

// Close ends every process. A World that is not closed leaves its coroutines behind.
func (w *World) Close() {
	for _, h := range w.hosts {
		h.kill()
	}
}

// after has something happen when d of true time has passed.
func (w *World) after(d time.Duration, do func()) {
	w.seq++
	w.queue.push(moment{w.now + max(d, 0), w.seq, do})
}

// Run lets d of true time pass.
func (w *World) Run(d time.Duration) {
	end := w.now + d
	for len(w.queue) > 0 && w.queue[0].at <= end {
		m := w.queue.pop()
		w.now = m.at
		m.do()
		w.deliverMail()
	}
	w.now = end
}

// deliverMail has every loop that was posted to take what there is.
func (w *World) deliverMail() {
	for i := 0; i < len(w.ready); i++ {
		w.ready[i].takeMail()
	}
	w.ready = w.ready[:0]
}

func (w *World) jitter(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	if w.env.Even {
		return lo + (hi-lo)/2
	}
	return lo + time.Duration(w.rng.Int64N(int64(hi-lo)))
}

// chance is true with the given probability. Nothing is drawn for zero.
func (w *World) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// form has the first host write the first configuration and the first document.
func (w *World) form() {
	first := w.hosts[0]
	if !first.up() {
		w.after(10*time.Millisecond, w.form)
		return
	}
	var founders raftmodel.Set
	var nodes []fsm.Node
	for _, h := range w.hosts[:w.env.Founders] {
		founders = founders.With(h.i)
		nodes = append(nodes, h.node)
	}
	if err := w.raft.Bootstrap(0, raftmodel.Configuration{Voters: founders}); err != nil {
		panic(fmt.Sprintf("sim: bootstrap: %v", err))
	}
	w.campaign(0, raftmodel.Forced)
	w.formWith(fsm.Command{Form: &fsm.Form{Cluster: clusterID, Name: "test", Nodes: nodes, Document: w.env.Document}})
}

// formWith proposes the first command until some leader has committed it.
func (w *World) formWith(cmd fsm.Command) {
	if l := w.leader(); l != nil {
		if w.state(l).Formed() {
			return
		}
		_, _ = w.append(l.i, cmd) // tried again below
	}
	w.after(50*time.Millisecond, func() { w.formWith(cmd) })
}

var clusterID = fsm.ClusterID{9}

// nodeOf is the i-th host as the cluster knows it.
func nodeOf(i int) fsm.Node {
	return fsm.Node{
		ID: fsm.InstanceID{0: byte(i + 1)}, Name: fmt.Sprintf("n%d", i+1), Role: fsm.Member,
		Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 7950),
	}
}

func macOf(i int) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, byte(i + 1)} }

// leader is the host that leads by the newest term, of those that run; nil: none.
func (w *World) leader() *host {
	var best *host
	for _, h := range w.hosts {
		if h.up() && w.raft.Leads(h.i) && (best == nil || w.raft.Term(h.i) > w.raft.Term(best.i)) {
			best = h
		}
	}
	return best
}

// state is what a host has applied; empty where the process is dead.
func (w *World) state(h *host) *fsm.State {
	if st := w.raft.State(h.i); st != nil {
		return st
	}
	return &fsm.State{}
}
