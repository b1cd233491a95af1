package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/shadow"
	"github.com/quorate/quorate/vipctl/kernel"
	"github.com/quorate/quorate/vrrpcompat"
)

const (
	// shadowSuffix tells shadows from a cluster: each refuses the other's nodes.
	shadowSuffix = "-shadow"
	// longestCluster is how long a cluster's name may be (internal/config).
	longestCluster = 63
	// compareEvery is how often what is and what would be are compared.
	compareEvery = time.Second
)

// errShadow answers what a shadow takes no part in.
var errShadow = errors.New("this node is a shadow: it sends nothing to the LAN and changes nothing on this host, and this would; " +
	"it can be done when quorate run has taken its place")

// Shadow is Run of a node that decides everything and does nothing: no address, route,
// rule, device or setting of this host is changed, and nothing is sent for a virtual IP.
// It listens to adverts and looks at addresses, and returns what it saw. Only what a
// cluster's nodes say to each other is sent. Options.Reload is not used, and
// Options.Links must leave out the addresses of the groups, which stand here already.
func Shadow(ctx context.Context, opt Options) (shadow.Report, error) {
	opt.Config = ShadowConfig(opt.Config)
	opt.Log = opt.Log.With("shadow", true)
	n := &node{opt: opt, cfg: opt.Config, log: opt.Log, file: newReloader(opt.Config)}
	n.shadow = newObserver(n)
	err := n.open()
	if err == nil {
		err = n.run(ctx)
	}
	n.close()
	return n.shadow.report(), err
}

// ShadowConfig is the configuration of a shadow of the node: with a cluster's name, a
// socket and a data directory of its own, and without what others rely on.
func ShadowConfig(of *config.Config) *config.Config {
	c := *of
	c.Socket += ".shadow"
	c.HTTP, c.FIFO = "", ""
	if c.Election == config.ElectVRRP {
		return &c
	}
	c.Cluster += shadowSuffix
	if len(c.Cluster) > longestCluster {
		sum := sha256.Sum256([]byte(of.Cluster))
		tail := "-" + hex.EncodeToString(sum[:4]) + shadowSuffix
		c.Cluster = of.Cluster[:longestCluster-len(tail)] + tail
	}
	c.DataDir = filepath.Join(c.DataDir, "shadow")
	return &c
}

// An observer is what a shadow has in the place of hands: it compares.
type observer struct {
	n     *node
	began time.Time

	mu    sync.Mutex // guards what follows
	book  *shadow.Ledger
	nodes map[netip.Addr]string // by what their adverts come from
	at    map[netip.Prefix]string
}

func newObserver(n *node) *observer {
	l := &observer{n: n, began: time.Now(), nodes: map[netip.Addr]string{}, at: map[netip.Prefix]string{}}
	l.book = shadow.New(l.began, n.cfg.Node, n.alone(), func(a netip.Addr) string { return l.nodes[a.WithZone("")] })
	return l
}

// openObserver takes of this host what can be taken without a change.
func (n *node) openObserver() (err error) {
	n.macs = newVMACs(nil, FenceTag(n.cfg.Cluster), n.document, n.coverNow, n.log)
	n.beside.hooks = nil
	cfg := n.speaking()
	cfg.Overheard = n.shadow.overheard
	if !n.alone() {
		// The question is who would have the groups if what runs now were stopped everywhere:
		// its adverts must not keep the shadow from deciding. A router of its own hears of the
		// others by nothing else: there they stand for the quorate that would run in their place.
		cfg.Heard = func(string, string, netip.Addr, vrrpcompat.Advert) {}
	}
	n.vrrp, err = newSpeaker(cfg)
	return err
}

func (n *node) observerTasks() []Task {
	return []Task{
		{"kernel watch", n.watchBelow}, {"vrrp", n.vrrp.run}, {"api", n.api.Run}, {"signals", n.awaitStop},
		{"checks", n.beside.checks.Run}, {"shadow", n.shadow.run},
	}
}

// watchBelow tells the agent of carrier. Of addresses it is not told: they are not its.
func (n *node) watchBelow(ctx context.Context) error {
	return n.kernel.Watch(ctx, func(c kernel.LinkChange) {
		n.agent.Post(core.Link{Name: c.Name, OK: c.Up && c.Carrier && !c.Gone, MAC: c.MAC.String()})
	}, func(a kernel.AddressGone) { n.shadow.gone(a.Addr) })
}

// gone: another program took an address off this host.
func (l *observer) gone(addr netip.Addr) {
	for _, g := range l.n.document().Groups {
		if slices.Contains(g.Addrs(), addr) {
			l.mu.Lock()
			l.book.Gone(g.Name)
			l.mu.Unlock()
		}
	}
}

func (n *node) sayShadow() {
	if n.alone() {
		n.log.Info("quorate runs in shadow: nothing is changed on this host, and nothing is sent", "version", n.opt.Version,
			"node", n.cfg.Node, "socket", n.cfg.Socket)
		return
	}
	n.log.Info("quorate runs in shadow: nothing is changed on this host, and nothing is sent but to the other shadows",
		"version", n.opt.Version, "cluster", n.cfg.Cluster, "node", n.cfg.Node, "address", n.cfg.Address, "socket", n.cfg.Socket, "data_dir", n.cfg.DataDir)
	if n.part.raft.State().Formed() {
		n.compareDocument(n.cfg.Document)
	}
}

// host, speaker and hooks are what the agent acts through.
func (n *node) host() agent.Host {
	if n.shadow != nil {
		return handless{sight{n.kernel, n.opt.Links}, n.shadow}
	}
	return host{n.kernel, n.macs, n.lan}
}

func (n *node) speaker() agent.Speaker {
	if n.shadow != nil {
		return mute{n.vrrp}
	}
	return announcer{n.vrrp, n.macs}
}

func (n *node) hooks() agent.Hooks {
	if n.shadow != nil {
		return n.shadow
	}
	return onlookers{n}
}

// run compares each second, until ctx ends.
func (l *observer) run(ctx context.Context) error {
	tick := time.NewTicker(compareEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.look(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// look compares once, and tells the log what is new.
func (l *observer) look(ctx context.Context) {
	st, err := l.n.agent.Status(ctx)
	if err != nil {
		return // it has ended
	}
	doc := l.n.document()
	here, err := standing(l.n.kernel, doc.Addrs())
	if err != nil {
		l.n.log.Warn("cannot look at this host's addresses", "error", err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.learn(st.Members)
	for _, s := range l.book.Look(time.Now(), l.seen(st, doc, here)) {
		l.say(s)
	}
}

// learn takes note of which node an advert comes from. l.mu is held.
func (l *observer) learn(members []core.MemberStatus) {
	for _, m := range members {
		if at, err := netip.ParseAddrPort(m.Address); err == nil {
			l.nodes[at.Addr().Unmap().WithZone("")] = m.Name
		}
		for _, s := range m.Sources {
			if a, err := netip.ParseAddr(s); err == nil {
				l.nodes[a.WithZone("")] = m.Name
			}
		}
	}
}

// seen is each group as the book wants it.
func (l *observer) seen(st core.Status, doc fsm.Document, here map[netip.Addr][]string) []shadow.Group {
	alone := l.n.alone()
	var out []shadow.Group
	for _, g := range doc.Groups {
		i := slices.IndexFunc(st.VIPs, func(v core.VIPStatus) bool { return v.Name == g.Name })
		if i < 0 {
			continue
		}
		v := st.VIPs[i]
		s := shadow.Group{Name: g.Name, Addresses: v.Addresses, Would: v.Owner, Reason: v.Reason, Priority: g.VRRP.Priority, Listen: listenTime(g.VRRP)}
		for _, a := range g.Addrs() {
			s.Here = append(s.Here, here[a]...)
		}
		slices.Sort(s.Here)
		s.Here = slices.Compact(s.Here)
		s.Known = !alone && v.Epoch != 0 || alone && time.Since(l.began) > s.Listen+compareEvery
		out = append(out, s)
	}
	return out
}

// listenTime is how long a router that is Active may be silent, at most.
func listenTime(v fsm.VRRP) time.Duration {
	if v.ID == 0 {
		return 0
	}
	version := vrrpcompat.Version(v.Version)
	interval, err := vrrpcompat.IntervalOf(version, v.Interval)
	if err != nil {
		return 0 // which the document's check does not let pass
	}
	return version.DownInterval(1, interval)
}

// say tells the log of a change. l.mu is held.
func (l *observer) say(s shadow.Said) {
	level, text := slog.LevelInfo, "quorate would have it where it is"
	switch s.Verdict {
	case shadow.Differs:
		level, text = slog.LevelWarn, "quorate would have it elsewhere"
	case shadow.Nobody:
		level, text = slog.LevelWarn, "nobody was heard to have it"
	}
	would := s.Would
	if would == "" {
		would = "nobody"
		if l.n.alone() {
			would = "another router"
		}
	}
	l.n.log.Log(context.Background(), level, text, "group", s.Group, "really", s.Really, "quorate", would)
}

// overheard takes an advert, also one that quorate would refuse.
func (l *observer) overheard(group string, on port, from netip.Addr, a vrrpcompat.Advert) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.book.Hear(time.Now(), shadow.Heard{
		Group: group, Seat: on.link + " " + on.family.String(), From: from.WithZone(""), Priority: uint8(a.Priority),
		Interval: a.Interval.Duration(), Down: a.Version.DownInterval(1, a.Interval),
	})
}

// Transition says what the node would do.
func (l *observer) Transition(t core.Transition) {
	l.mu.Lock()
	var at []string
	for _, p := range t.Addresses {
		at = append(at, p.String()+" on "+l.at[p])
	}
	l.mu.Unlock()
	switch {
	case t.To == t.From:
	case t.To == "active":
		l.n.log.Info("would take the group", "group", t.Group, "addresses", at, "reason", t.Reason)
	case t.From == "active":
		l.n.log.Info("would let the group go", "group", t.Group, "addresses", at, "reason", t.Reason, "to", t.To)
	}
}

// placed takes note of where addresses would be.
func (l *observer) placed(at []core.Place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range at {
		l.at[p.Prefix] = p.Link
	}
}

// describe adds to a status who has the groups really.
func (l *observer) describe(s *core.Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Shadow = true
	for i := range s.VIPs {
		s.VIPs[i].Really = l.book.Really(s.VIPs[i].Name)
	}
}

func (l *observer) report() shadow.Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.book.Report(time.Now())
	r.Cluster = l.n.cfg.Cluster
	return r
}

// standing says on which devices of this host the addresses stand.
func standing(k *kernel.Kernel, addrs []netip.Addr) (map[netip.Addr][]string, error) {
	these := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		these[a] = true
	}
	match := func(a netip.Addr) bool { return these[a] }
	foreign, err := k.Foreign(match)
	if err != nil {
		return nil, err
	}
	ours, err := k.Leftovers(match)
	if err != nil {
		return nil, err
	}
	out := map[netip.Addr][]string{}
	for _, f := range slices.Concat(foreign, ours) {
		out[f.Prefix.Addr()] = append(out[f.Prefix.Addr()], f.Link)
	}
	return out, nil
}
