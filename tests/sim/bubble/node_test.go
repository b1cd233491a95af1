package bubble

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/election/raftnode"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/daemon"
)

const (
	lease = 250 * time.Millisecond
	renew = 83 * time.Millisecond
)

// A host is a machine: its kernel and its disk, and the process, when there is one.
type host struct {
	c      *cluster
	i      int
	addr   netip.AddrPort
	kernel *kernel
	dir    string
	life   *life   // the last one; nil: there was none
	lives  []*life // all
}

// A life is one process on a host.
type life struct {
	host    *host
	gate    *gate
	part    *daemon.Participant
	packets *socket
	streams *streams
	cancel  context.CancelFunc
	ended   chan struct{} // closed when everything of it has ended
	asked   bool          // to stop
	dead    bool          // killed: it can do nothing any more. Under the judge's lock
	disk    *disk
}

func (h *host) name() string { return h.kernel.name }

// up reports whether there is a process that was not told to end.
func (h *host) up() bool {
	if h.life == nil || h.life.asked {
		return false
	}
	return !h.life.over() && !h.life.isDead()
}

// start begins a life. The one before was killed, or has ended.
func (h *host) start() {
	if h.life != nil && !h.life.over() {
		h.dir = h.life.disk.copy(h.dir + "+") // what is left of that process still has its files open
	}
	h.c.net.setPower(h.addr.Addr(), true)
	h.c.judge.tell("%s starts", h.name())
	h.kernel.j.mu.Lock()
	h.kernel.clear()
	boot := h.kernel.boot
	h.kernel.j.mu.Unlock()
	dir, err := raftnode.OpenDataDir(h.dir)
	if err != nil {
		h.c.fail("start %s: %v", h.name(), err)
	}
	g := &gate{}
	l := &life{host: h, gate: g, packets: h.c.net.packets(h.addr, g), streams: h.c.net.streamsOf(h.addr.Addr(), g), ended: make(chan struct{})}
	l.disk = &disk{life: l, slow: &h.c.slowDisks, net: h.c.net, dir: h.dir}
	p := ports{l}
	l.part, err = daemon.Join(daemon.ParticipantConfig{
		Config: h.config(), Version: "test", Key: h.c.key, Dir: dir, Boot: boot,
		Now: p.now, Clock: func() (election.ClockReading, error) { return election.ClockReading{Tick: 10_000}, nil },
		Fence: p, Host: p, Speaker: p, Log: l.log(),
		Network: l.streams, Packets: l.packets, Disk: l.disk.before,
	})
	if err != nil {
		h.c.fail("start %s: %v", h.name(), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel, h.life = cancel, l
	h.lives = append(h.lives, l)
	go l.run(ctx, dir)
}

func (l *life) run(ctx context.Context, dir *raftnode.DataDir) {
	err := l.part.Run(ctx)
	j := l.host.kernel.j
	j.mu.Lock()
	switch {
	case l.dead: // nobody could see
	case err != nil:
		j.violated("%s ends with %v", l.host.name(), err)
	default:
		j.tellLocked("%s has ended", l.host.name())
	}
	j.mu.Unlock()
	l.streams.end()
	dir.Close()
	close(l.ended)
}

func (h *host) config() *config.Config {
	return &config.Config{
		Cluster: "test", Node: h.name(), Address: h.addr, Peers: h.c.peersOf(h), Role: fsm.Member,
		Lease: lease, Renew: renew, Fence: config.BPF, Document: document(),
	}
}

var (
	webAddr = netip.MustParsePrefix("10.0.0.200/24")
	dbAddr  = netip.MustParsePrefix("10.0.0.201/24")
	vips    = []netip.Addr{webAddr.Addr(), dbAddr.Addr()}
)

func document() fsm.Document {
	group := func(name string, id uint8, a netip.Prefix) fsm.Group {
		return fsm.Group{Name: name, Addresses: []netip.Prefix{a}, Interface: "eth0", Placement: fsm.PlacementLeader,
			Announce: fsm.Announce{Repeat: 5}, VRRP: fsm.VRRP{ID: id, Version: 3, Priority: 254, Interval: time.Second, Checksum: fsm.ChecksumAuto, Outranked: fsm.OutrankedYield}}
	}
	return fsm.Document{MaxHold: time.Second, Groups: []fsm.Group{group("web", 51, webAddr), group("db", 52, dbAddr)}}
}

// kill ends the process without a word. The kernel closes what it had open; power
// says whether the host goes with it.
func (l *life) kill(power bool) {
	j := l.host.kernel.j
	j.mu.Lock()
	l.dead = true
	if power {
		l.host.kernel.reboot()
	}
	j.mu.Unlock()
	if power {
		l.host.c.net.setPower(l.host.addr.Addr(), false)
	}
	_ = l.packets.Close()
	l.streams.end()
	l.cancel()
	l.gate.open() // what is left of it must come to its end
}

func (l *life) isDead() bool {
	l.host.kernel.j.mu.Lock()
	defer l.host.kernel.j.mu.Unlock()
	return l.dead
}

// stop asks the process to end in good order.
func (l *life) stop() {
	l.asked = true
	l.part.Stop()
}

func (l *life) log() *slog.Logger {
	if !l.host.c.verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(storyHandler{slog.DiscardHandler, l})
}

// A storyHandler puts what a node logs into the story.
type storyHandler struct {
	slog.Handler
	l *life
}

func (s storyHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (s storyHandler) Handle(_ context.Context, r slog.Record) error {
	if s.l.isDead() {
		return nil
	}
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	s.l.host.c.judge.tell("%s   %s %s", s.l.host.name(), r.Level, line)
	return nil
}

// ports are what one life does to its host. They wait while it is frozen, and are
// without effect when it is dead.
type ports struct{ life *life }

// hold keeps the process waiting while it is frozen, and sometimes a goroutine besides.
// Virtual time passes only where somebody waits: without this, nothing could come
// between the reading of a clock and what is done about it.
func (p ports) hold() {
	if d := p.life.host.c.net.stalled(); d > 0 {
		time.Sleep(d)
	}
	p.life.gate.pass()
}

// act does f to the kernel, if the process is alive.
func (p ports) act(f func(k *kernel)) {
	p.hold()
	k := p.life.host.kernel
	k.j.mu.Lock()
	if !p.life.dead {
		f(k)
	}
	k.j.mu.Unlock()
	p.hold()
}

// now reads the clock. The process may be held up before or after, and then what it has
// is an old reading.
func (p ports) now() (at election.Instant) {
	p.hold()
	k := p.life.host.kernel
	k.j.mu.Lock()
	at = k.clock()
	k.j.mu.Unlock()
	p.hold()
	return at
}

func (p ports) Set(addrs []netip.Addr, until election.Instant) error {
	for _, a := range addrs {
		p.act(func(k *kernel) { k.setFence(a, until, lease) })
	}
	return nil
}

func (p ports) Delete(addrs []netip.Addr) error {
	for _, a := range addrs {
		p.act(func(k *kernel) { k.deleteFence(a) })
	}
	return nil
}

// takes is how long the kernel is busy with a request.
func (p ports) takes() {
	time.Sleep(p.life.host.c.net.jitter(50*time.Microsecond, 600*time.Microsecond))
}

func (p ports) Put(h core.Holding, valid time.Duration) error {
	for _, at := range h.At {
		p.takes()
		p.act(func(k *kernel) { k.add(at.Prefix.Addr(), valid) })
	}
	return nil
}

func (p ports) Take(h core.Holding) error {
	for _, at := range h.At {
		p.takes()
		p.act(func(k *kernel) { delete(k.addrs, at.Prefix.Addr()) })
	}
	return nil
}

func (p ports) Converge(held []core.Held, vips []netip.Addr, valid func(election.Instant) time.Duration) (out core.Converged) {
	p.takes()
	ours := map[netip.Addr]bool{}
	p.act(func(k *kernel) {
		for _, h := range held {
			m := core.Mended{Group: h.Group, Gen: h.Gen, Renewed: h.Renew}
			for _, at := range h.At {
				ours[at.Prefix.Addr()] = true
				if !k.has(at.Prefix.Addr()) {
					m.Missing.At = append(m.Missing.At, at)
				}
				if h.Renew || !k.has(at.Prefix.Addr()) {
					k.add(at.Prefix.Addr(), valid(h.Until))
				}
			}
			if m.Renewed || !m.Missing.Empty() {
				out.Groups = append(out.Groups, m)
			}
		}
		for _, a := range vips {
			if k.has(a) && !ours[a] {
				out.Stray = append(out.Stray, core.Place{Link: "eth0", Prefix: netip.PrefixFrom(a, 24)})
			}
		}
	})
	return out
}

func (p ports) ResetConnections([]netip.Addr) error { return nil }

func (p ports) LinkFor(netip.Addr) (string, error) { return "eth0", nil }
func (p ports) HasLink(string) error               { return nil }

func (p ports) RemoveLeftovers(of []netip.Addr, _ core.Holding) (removed []netip.Addr, err error) {
	p.takes()
	p.act(func(k *kernel) {
		for _, a := range of {
			if k.has(a) {
				removed = append(removed, a)
			}
			delete(k.addrs, a)
		}
	})
	return removed, nil
}

func (p ports) Announce(_ string, addrs []netip.Addr) error {
	for _, a := range addrs {
		p.act(func(k *kernel) { k.speak("an announcement", a) })
	}
	return nil
}

func (p ports) Tell(link string, addrs []netip.Addr) (next func() (more bool, err error)) {
	return func() (bool, error) { return false, p.Announce(link, addrs) }
}

// Probe asks the LAN: another host that answers is found unless the link to it is cut.
// It takes a fifth of a second on a real host; that must not be what keeps two owners apart.
func (p ports) Probe(ctx context.Context, _ string, addrs []netip.Addr) (at netip.Addr, _ net.HardwareAddr, found bool, err error) {
	if err := pause(ctx, p.life.host.c.net.jitter(time.Millisecond, 300*time.Millisecond)); err != nil {
		return at, nil, false, err
	}
	p.act(func(k *kernel) {
		for _, a := range addrs {
			for i, o := range k.j.kernels {
				if o != k && o.serves(a) && p.life.host.c.net.both(p.life.host.addr.Addr(), p.life.host.c.hosts[i].addr.Addr()) {
					at, found = a, true
				}
			}
		}
	})
	return at, net.HardwareAddr{2, 0, 0, 0, 0, 1}, found, nil
}

func (p ports) Serve(fsm.Group, []core.Place) error { return nil }

func (p ports) Insiders([]netip.Addr) {}

func (p ports) Advertise(_ string, v fsm.VRRP, addrs []netip.Addr) error {
	if v.Priority == 0 {
		return nil // no claim
	}
	p.act(func(k *kernel) {
		for _, a := range addrs {
			k.speak("an advert", a)
		}
	})
	return nil
}

var (
	_ agent.Fence   = ports{}
	_ agent.Host    = ports{}
	_ agent.Speaker = ports{}
)

// A disk makes the writes of Raft as slow as a disk's, by the bubble's clock. Those
// of a process that is dead fail, and of a frozen one wait.
type disk struct {
	life *life
	net  *network
	slow *atomic.Bool
	dir  string
	mu   sync.Mutex // held while the real file is written
}

func (d *disk) before(l raft.LogStore, s raft.StableStore) (raft.LogStore, raft.StableStore) {
	return diskLog{l, d}, diskStable{s, d}
}

// write does one write. Nothing is slow before the cluster is formed: until then the
// nodes hold locks meanwhile, for which others would wait in real time.
func (d *disk) write(do func() error) error {
	if d.slow.Load() {
		time.Sleep(d.net.jitter(500*time.Microsecond, 4*time.Millisecond))
	}
	d.life.gate.pass()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.life.isDead() {
		return fmt.Errorf("write: %w", net.ErrClosed)
	}
	return do()
}

// copy makes a directory with what a process that was killed has left, and returns it.
func (d *disk) copy(to string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := os.CopyFS(to, os.DirFS(d.dir)); err != nil {
		d.life.host.c.fail("copy the disk of %s: %v", d.life.host.name(), err)
	}
	return to
}

type diskLog struct {
	raft.LogStore
	d *disk
}

func (l diskLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

func (l diskLog) StoreLogs(e []*raft.Log) error {
	return l.d.write(func() error { return l.LogStore.StoreLogs(e) })
}

func (l diskLog) DeleteRange(first, last uint64) error {
	return l.d.write(func() error { return l.LogStore.DeleteRange(first, last) })
}

type diskStable struct {
	raft.StableStore
	d *disk
}

func (s diskStable) Set(k, v []byte) error {
	return s.d.write(func() error { return s.StableStore.Set(k, v) })
}

// SetUint64 also sees that the term never goes back: a node that votes in one term and
// follows in an older one can make logs diverge.
func (s diskStable) SetUint64(k []byte, v uint64) error {
	return s.d.write(func() error {
		if was, err := s.StableStore.GetUint64(k); err == nil && was > v {
			h := s.d.life.host
			h.kernel.j.mu.Lock()
			h.kernel.j.violated("%s writes %s %d over %d", h.name(), k, v, was)
			h.kernel.j.mu.Unlock()
		}
		return s.StableStore.SetUint64(k, v)
	})
}

// dirOf is where a host's files are.
func dirOf(base string, i int) string { return filepath.Join(base, fmt.Sprintf("n%d", i+1)) }
