// Package daemon wires one node together and runs it from start to end.
//
// It decides nothing. The order in which things are opened and closed is its
// subject: an earlier life's addresses are shut before anything else is touched,
// and what keeps the lease runs until the last address is gone.
package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/election/peerlink"
	"github.com/quorate/quorate/election/raftnode"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/metrics"
	"github.com/quorate/quorate/vipctl/fence"
	"github.com/quorate/quorate/vipctl/kernel"
)

// Options is what Run needs besides the configuration.
type Options struct {
	Config  *config.Config
	Version string
	Log     *slog.Logger
	// Links lists the devices of this host with their addresses, for documents that are
	// to be applied.
	Links func() ([]config.Link, error)
	// Reload asks for the configuration file to be read again, by Load; SetLog has the log
	// be as the file says.
	Reload <-chan struct{}
	Load   func() (*config.Config, error)
	SetLog func(config.Log)
	// Stop is closed to end the daemon in good order; cancelling Run's context
	// ends it at once.
	Stop <-chan struct{}
}

// FenceTag tells this cluster's fence from that of another daemon on the host.
func FenceTag(cluster string) string {
	sum := sha256.Sum256([]byte(cluster))
	return hex.EncodeToString(sum[:3])
}

// Now reads CLOCK_BOOTTIME.
func Now() election.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("daemon: read CLOCK_BOOTTIME, which every Linux has: %v", err))
	}
	return election.Instant(ts.Nano())
}

// readClock asks how the kernel steers the clock (adjtimex(2), no privilege needed).
func readClock() (election.ClockReading, error) {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return election.ClockReading{}, fmt.Errorf("adjtimex: %w", err)
	}
	return election.ClockReading{Frequency: t.Freq, Tick: t.Tick}, nil
}

func bootID() (id election.BootID, err error) {
	const path = "/proc/sys/kernel/random/boot_id"
	text, err := os.ReadFile(path)
	if err != nil {
		return id, fmt.Errorf("read the boot id: %w", err)
	}
	plain := make([]byte, 0, 2*len(id))
	for _, c := range text {
		if c != '-' && c != '\n' {
			plain = append(plain, c)
		}
	}
	if n, err := hex.Decode(id[:], plain[:min(len(plain), 2*len(id))]); err != nil || n != len(id) {
		return id, fmt.Errorf("read the boot id: %s holds %q, want 32 hexadecimal digits", path, text)
	}
	return id, nil
}

// A node is everything that one daemon has open.
type node struct {
	opt    Options
	cfg    *config.Config
	log    *slog.Logger
	dir    *raftnode.DataDir // nil with election: vrrp
	kernel *kernel.Kernel
	unlock func()       // of the fence
	fence  *fence.Fence // nil where the lifetime is the fence, and with election: vrrp
	left   []core.Leftover
	part   *Participant // nil with election: vrrp
	agent  *agent.Agent
	api    *api.Server
	macs   *vmacs
	vrrp   *speaker
	file   *reloader
	lan    *lan // nil in shadow
	beside *outside
	shadow *observer // nil: the node does what it decides

	metrics *metrics.Metrics // with web; nil: the file names no address for them
	web     *api.Web

	surveying sync.Mutex // held while the doctor, or a fault on purpose, measures here
	lookouts  *lookouts
	kill      func() // this process
}

// alone: the node is a VRRP router of its own.
func (n *node) alone() bool { return n.cfg.Election == config.ElectVRRP }

// Run is the life of the daemon. It returns nil after a clean end: nothing is held
// then, and nothing of the fence is left on the host. Where an address could not be
// removed, the fence stays with it.
func Run(ctx context.Context, opt Options) error {
	n := &node{opt: opt, cfg: opt.Config, log: opt.Log, file: newReloader(opt.Config), lookouts: newLookouts(), kill: killSelf}
	if err := n.open(); err != nil {
		if n.fence != nil {
			err = errors.Join(err, n.detachFence())
		}
		n.close()
		return err
	}
	err := n.run(ctx)
	if err == nil {
		err = n.detachFence()
	}
	n.close()
	return err
}

// open takes everything that can be taken, and fails with the first that cannot.
func (n *node) open() (err error) {
	n.beside = newOutside(n.cfg, func(ev core.Event) { n.agent.Post(ev) }, n.log)
	if n.alone() {
		err = n.openRouter()
	} else {
		err = n.openMember()
	}
	if err != nil {
		return err
	}
	n.api, err = api.Listen(n.cfg.Socket, apiPort{n}, api.Options{Version: n.opt.Version, Log: n.log})
	if err != nil || n.shadow != nil {
		return err
	}
	return n.openHTTP()
}

// openRouter opens a router of its own: the host and the agent are all of it.
func (n *node) openRouter() error {
	if err := n.openHost(); err != nil {
		return err
	}
	n.agent = agent.New(agent.Config{
		Alone: &core.AloneConfig{Node: n.cfg.Node, Started: Now(), Document: n.cfg.Document},
		Now:   Now, Host: n.host(), Speaker: n.speaker(), Beat: newWatchdog(n.log).beat, Log: n.log,
		Hooks: n.hooks(),
	})
	n.beside.take(n.cfg.Document)
	return nil
}

// openMember opens a node of a cluster.
func (n *node) openMember() error {
	if err := fence.CheckTimeNamespace(); err != nil {
		return err
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	key, err := peerlink.LoadKey(n.cfg.KeyFile)
	if err != nil {
		return err
	}
	if n.dir, err = raftnode.OpenDataDir(n.cfg.DataDir); err != nil {
		return err
	}
	if err := n.openHost(); err != nil {
		return err
	}
	n.part, err = Join(ParticipantConfig{
		Config: n.cfg, Version: n.opt.Version, Key: key, Dir: n.dir, Boot: boot, LifetimeFence: n.cfg.Fence != config.BPF, Left: n.left,
		Now: Now, Clock: readClock, Fence: n.fenceOf(), Host: n.host(), Speaker: n.speaker(),
		Beat: newWatchdog(n.log).beat, Log: n.log, Hooks: n.hooks(), Document: n.beside.changed, Validate: n.validate, Examine: n.examine, Try: n.tried,
		Neighbours: n.lan.heard,
	})
	if err != nil {
		return err
	}
	n.agent = n.part.Agent()
	if n.lan != nil {
		n.lan.share = n.part.shareNeighbours
	}
	return nil
}

// openHost takes what is this host's: its devices, the fence, and the VRRP sockets.
func (n *node) openHost() (err error) {
	if n.kernel, err = kernel.Open(); err != nil {
		return err
	}
	if n.shadow != nil {
		return n.openObserver()
	}
	if n.unlock, err = LockFence(n.cfg.Cluster); err != nil {
		return err
	}
	if err := n.openFence(); err != nil {
		return err
	}
	n.macs = newVMACs(n.kernel, FenceTag(n.cfg.Cluster), n.document, n.coverNow, n.log)
	n.lan = newLAN(n.kernel, n.document, func(ev core.Event) { n.agent.Post(ev) }, n.log)
	n.vrrp, err = newSpeaker(n.speaking())
	return err
}

// document is what the cluster agreed on last, or all that a router of its own knows.
func (n *node) document() fsm.Document {
	if n.alone() {
		return n.cfg.Document
	}
	return n.part.raft.State().Document
}

// isVirtual reports whether an address is a VIP: adverts are not sent from one.
func (n *node) isVirtual(a netip.Addr) bool { return slices.Contains(n.document().Addrs(), a) }

// run starts everything and waits until the agent has let go of all, or something
// fails.
func (n *node) run(ctx context.Context) error {
	tasks := []Task{
		{"kernel watch", n.watchKernel}, {"fence", n.keepCovered}, {"vrrp", n.vrrp.run}, {"neighbours", n.lan.run}, {"api", n.api.Run}, {"signals", n.awaitStop},
		{"checks", n.beside.checks.Run}, {"http", n.serveHTTP}, {"configuration file", n.followFile}, {"watches", n.lookouts.run},
	}
	if n.shadow != nil {
		tasks = n.observerTasks()
	}
	defer n.beside.begin(ctx)()
	notify("READY=1")
	if n.shadow != nil {
		n.sayShadow()
		if n.alone() {
			return runAgent(ctx, n.agent, tasks...)
		}
		return n.part.Run(ctx, tasks...)
	}
	if n.alone() {
		n.log.Warn("quorate runs as a VRRP router of its own: nothing promises a single owner", "version", n.opt.Version, "node", n.cfg.Node)
		return runAgent(ctx, n.agent, tasks...)
	}
	self := n.part.self
	n.log.Info("quorate runs", "version", n.opt.Version, "cluster", n.cfg.Cluster, "node", self.Name,
		"instance", self.ID.Short(), "address", self.Address, "fence", n.fenceName(), "lease", n.cfg.Lease, "renew", n.cfg.Renew)
	return n.part.Run(ctx, tasks...)
}

// awaitStop turns the wish to stop into an event.
func (n *node) awaitStop(ctx context.Context) error {
	select {
	case <-n.opt.Stop:
		notify("STOPPING=1")
		n.agent.Post(core.Stop{})
	case <-ctx.Done():
	}
	return nil
}

// close gives back what open took and run did not close itself.
func (n *node) close() {
	if n.fence != nil {
		if err := n.fence.Close(); err != nil {
			n.log.Warn("cannot close the fence", "error", err)
		}
	}
	if n.unlock != nil {
		n.unlock()
	}
	if n.part != nil {
		n.part.Close()
	}
	if n.vrrp != nil {
		if err := n.vrrp.close(); err != nil {
			n.log.Warn("cannot close the VRRP sockets", "error", err)
		}
	}
	if n.kernel != nil {
		if err := n.kernel.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			n.log.Warn("cannot close the netlink sockets", "error", err)
		}
	}
	if n.dir != nil {
		n.dir.Close()
	}
}

// watchKernel covers new devices with the fence, and tells the agent of carrier.
func (n *node) watchKernel(ctx context.Context) error {
	return n.kernel.Watch(ctx, func(l kernel.LinkChange) {
		n.cover()
		if _, above := n.macs.parent(l.Name); !above { // one of those is up only while it is needed
			n.agent.Post(core.Link{Name: l.Name, OK: l.Up && l.Carrier && !l.Gone, MAC: l.MAC.String()})
		}
	}, func(a kernel.AddressGone) {
		if below, above := n.macs.parent(a.Link); above {
			a.Link = below
		}
		n.agent.Post(core.AddressGone{Link: a.Link, Addr: a.Addr})
	})
}

// coverEvery is how often the fence looks whether it still stands on every device,
// besides each time that a device changes: somebody else may have taken it off.
const coverEvery = 5 * time.Second

func (n *node) keepCovered(ctx context.Context) error {
	tick := time.NewTicker(coverEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			n.cover()
		case <-ctx.Done():
			return nil
		}
	}
}

// cover puts the fence on every device. A device without it could answer for an
// address whose lease is over, so an error keeps this node from holding anything.
func (n *node) cover() {
	if n.fence != nil {
		n.agent.Post(core.Covered{Err: n.coverNow()})
	}
}

// coverNow returns when the fence is on every device that there was.
func (n *node) coverNow() error {
	if n.fence == nil {
		return nil
	}
	added, err := n.fence.Cover()
	if len(added) > 0 {
		n.log.Info("fence attached", "devices", added, "kind", n.fence.Kind().String())
	}
	return err
}
