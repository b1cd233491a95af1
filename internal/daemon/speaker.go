package daemon

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/vrrpcompat"
	"github.com/quorate/quorate/vrrpcompat/wire"
)

// A speaker sends the adverts of this node's groups and hears those of others. What
// it hears is noted for a person to look at (vrrpcompat.Listening), and told to the
// agent as far as it concerns a virtual router of this node. Its methods may be called
// from any goroutine.
type speaker struct {
	cfg       speakerConfig
	log       *slog.Logger
	transport *wire.Transport
	seldom    agent.Seldom
	adverts   advertTally

	mu        sync.Mutex // guards what follows; held for computing only
	routers   map[routerKey]*served
	sources   map[route]netip.Addr // what our adverts come from; absent: none, or not known yet
	insiders  map[netip.Addr]bool  // sources of the cluster's other nodes
	listening *vrrpcompat.Listening
	heard     map[string]*tally // by result: accepted, or the reason of a refusal
	scratch   []netip.Addr      // for the addresses of the advert that is being read
}

// A speakerConfig is what a speaker works with. All fields but Overheard and Worst are needed.
type speakerConfig struct {
	IsVirtual func(netip.Addr) bool
	// Via names the device that the adverts of a virtual router with a MAC address of
	// its own go out by; false: there is none at present.
	Via func(routerKey) (device string, ok bool)
	// Heard gets the adverts that may be acted on, coalesced (see relay), and Source the
	// addresses that ours come from, by peer as wire.Options.SourceChanged has it. They
	// must not block.
	Heard  func(group, link string, from netip.Addr, a vrrpcompat.Advert)
	Source func(link string, family vrrpcompat.Family, peer, source netip.Addr)
	// Overheard gets each advert for a virtual router of this node, also if it is refused.
	// Its addresses are not to be kept. Nil: nobody wants to know.
	Overheard func(group string, on port, from netip.Addr, a vrrpcompat.Advert)
	// Worst is how long a failover in the cluster takes at worst. Zero: no cluster.
	Worst time.Duration
	Log   *slog.Logger
}

// A port is a device in one family.
type port struct {
	link   string
	family vrrpcompat.Family
}

// A route names where adverts go: to a peer, or for the zero address to the group.
type route struct {
	port
	peer netip.Addr
}

// A routerKey names a virtual router on this host.
type routerKey struct {
	port
	vrid vrrpcompat.VRID
}

// A served is one virtual router of a group on this host.
type served struct {
	group   string
	virtual vrrpcompat.Virtual
	vrrp    fsm.VRRP
	vmac    bool
	peers   []wire.Peer                       // of its family; none: multicast
	mirrors map[netip.Addr]*vrrpcompat.Mirror // by peer; with multicast that of the zero Addr
	relay   relay
}

func newSpeaker(cfg speakerConfig) (*speaker, error) {
	s := &speaker{
		cfg: cfg, log: cfg.Log, routers: map[routerKey]*served{}, sources: map[route]netip.Addr{},
		listening: vrrpcompat.NewListening(), heard: map[string]*tally{}, scratch: make([]netip.Addr, 0, vrrpcompat.MaxAddresses),
	}
	var err error
	s.transport, err = wire.New(wire.Options{Receive: s.hear, IsVirtual: cfg.IsVirtual, SourceChanged: s.sourceChanged})
	return s, err
}

// forgetEvery is how often routers that have been silent for long are forgotten.
const forgetEvery = time.Minute

// run reads from every device that is listened on, until ctx ends.
func (s *speaker) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.transport.Run(ctx) })
	g.Go(func() error {
		tick := time.NewTicker(forgetEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.mu.Lock()
				s.listening.Forget(vrrpcompat.Instant(Now()))
				s.mu.Unlock()
			case <-ctx.Done():
				return nil
			}
		}
	})
	return g.Wait()
}

func (s *speaker) close() error { return s.transport.Close() }

// Serve has the group's virtual routers heard from now on, in place of those that it
// was told of for the group before. No places: the group is gone. An error says what
// cannot be heard at present; it is tried again by itself.
func (s *speaker) Serve(g fsm.Group, at []core.Place) error {
	routers, err := core.Virtuals(g.VRRP, core.Advertised(g, at))
	if err != nil {
		return err
	}
	if text, do := config.Outrun(g.VRRP, s.cfg.Worst); len(routers) > 0 && s.cfg.Worst > 0 && text != "" && s.seldom.Allow("outrun "+g.Name) {
		s.log.Warn(text, "group", g.Name, "advice", do)
	}
	begun, ended := s.serve(g, routers)
	for _, p := range ended {
		s.transport.Unlisten(p.link, p.family)
	}
	var errs []error
	for _, p := range begun {
		errs = append(errs, s.transport.Listen(p.link, p.family))
	}
	return errors.Join(errs...)
}

// serve returns where to listen and where no longer.
func (s *speaker) serve(g fsm.Group, routers []core.Virtual) (begun, ended []port) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := map[port]bool{}
	old := map[routerKey]*served{}
	for key, r := range s.routers {
		before[key.port] = true
		if r.group == g.Name {
			old[key] = r
			delete(s.routers, key)
		}
	}
	for _, v := range routers {
		key := routerKey{port{v.Link, v.Family}, v.VRID}
		r := newServed(g, v.Virtual)
		if was := old[key]; was != nil && slices.Equal(was.peers, r.peers) {
			r.mirrors, r.relay = was.mirrors, was.relay
		}
		s.routers[key] = r
		if !slices.Contains(begun, key.port) {
			begun = append(begun, key.port)
		}
	}
	for key := range s.routers {
		delete(before, key.port)
	}
	for p := range before {
		ended = append(ended, p)
	}
	s.follow()
	return begun, ended
}

// follow has us told of what the adverts to every unicast peer come from. s.mu is held.
func (s *speaker) follow() {
	peers := map[port][]netip.Addr{}
	for key, r := range s.routers {
		all := peers[key.port]
		for _, p := range r.peers {
			all = append(all, p.Addr)
		}
		peers[key.port] = all
	}
	for p, all := range peers {
		slices.SortFunc(all, netip.Addr.Compare)
		s.transport.Follow(p.link, p.family, slices.Compact(all))
	}
}

func newServed(g fsm.Group, v vrrpcompat.Virtual) *served {
	r := &served{group: g.Name, virtual: v, vrrp: g.VRRP, vmac: g.VMAC, mirrors: map[netip.Addr]*vrrpcompat.Mirror{}, peers: peersOf(g.VRRP, v.Family)}
	for _, p := range r.peers {
		r.mirrors[p.Addr] = &vrrpcompat.Mirror{}
	}
	if len(r.peers) == 0 {
		r.mirrors[netip.Addr{}] = &vrrpcompat.Mirror{}
	}
	return r
}

// peersOf returns the group's unicast peers of a family.
func peersOf(v fsm.VRRP, family vrrpcompat.Family) []wire.Peer {
	var out []wire.Peer
	for _, p := range v.Unicast {
		if vrrpcompat.FamilyOf(p.Addr) == family {
			out = append(out, wire.Peer{Addr: p.Addr, Hops: vrrpcompat.Hops{Min: p.MinTTL, Max: p.MaxTTL}})
		}
	}
	return out
}

// Insiders says from which addresses the cluster's other nodes send adverts: nothing
// is learned from those. It replaces the earlier ones.
func (s *speaker) Insiders(from []netip.Addr) {
	insiders := make(map[netip.Addr]bool, len(from))
	for _, a := range from {
		insiders[a.WithZone("")] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.insiders = insiders
}

// sourceChanged takes note of what our adverts to a peer come from on a device.
func (s *speaker) sourceChanged(device string, family vrrpcompat.Family, peer, source netip.Addr) {
	s.mu.Lock()
	if to := (route{port{device, family}, peer}); source.IsValid() {
		s.sources[to] = source
	} else {
		delete(s.sources, to)
	}
	s.listening.SetOwn(slices.Collect(maps.Values(s.sources)))
	s.mu.Unlock()
	s.cfg.Source(device, family, peer, source)
}

// own is the address if our adverts for the virtual router come from it, else zero.
// s.mu is held.
func (s *speaker) own(at port, r *served, a netip.Addr) netip.Addr {
	for to := range r.mirrors {
		if s.sources[route{at, to}] == a {
			return a
		}
	}
	return netip.Addr{}
}

// source stands for all that our adverts for the virtual router come from: what those
// to the first peer do that can be spoken to. s.mu is held.
func (s *speaker) source(at port, r *served) netip.Addr {
	for _, p := range r.peers {
		if a, ok := s.sources[route{at, p.Addr}]; ok {
			return a
		}
	}
	if len(r.peers) > 0 {
		return netip.Addr{}
	}
	return s.sources[route{port: at}]
}

// Advertise sends one advert, or one of each version, for the addresses, which are of
// one family. The priority is sent as it is: 0 says that nobody holds the group any more.
func (s *speaker) Advertise(link string, v fsm.VRRP, addrs []netip.Addr) error {
	at := make([]core.Place, 0, len(addrs))
	for _, a := range addrs {
		at = append(at, core.Place{Link: link, Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	routers, err := core.Virtuals(v, at)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range routers {
		path := wire.Path{Device: link, Family: r.Family, Peers: peersOf(v, r.Family)}
		key := routerKey{port{link, r.Family}, r.VRID}
		if s.hasMAC(key) {
			path.Via, _ = s.cfg.Via(key)
		}
		var messages []wire.Encode
		for _, a := range r.Adverts(vrrpcompat.Priority(v.Priority)) {
			messages = append(messages, func(dst []byte, from, to netip.Addr) ([]byte, error) {
				return a.AppendTo(dst, from, to, s.form(key, v, to))
			})
		}
		err := s.transport.Send(path, messages...)
		s.tallySent(key, err)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *speaker) hasMAC(key routerKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.routers[key]
	return r != nil && r.vmac
}

// form is the checksum for an advert to a peer or the group. What was learned is with
// the virtual router, as long as it is served.
func (s *speaker) form(key routerKey, v fsm.VRRP, to netip.Addr) vrrpcompat.Checksum {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.routers[key]; r != nil && v.Checksum == fsm.ChecksumAuto {
		return r.mirrored(to)
	}
	return written(v.Checksum)
}

// sends is the form of checksum that a router outside gets.
func (r *served) sends(to netip.Addr) vrrpcompat.Checksum {
	if r.vrrp.Checksum == fsm.ChecksumAuto {
		return r.mirrored(to)
	}
	return written(r.vrrp.Checksum)
}

// written is the form that the configuration says; auto is keepalived's until another
// was heard.
func written(c fsm.Checksum) vrrpcompat.Checksum {
	if c == fsm.ChecksumPlain {
		return vrrpcompat.Plain
	}
	return vrrpcompat.PseudoHeader
}

// mirrored is the form learned for adverts to a peer, or to the group.
func (r *served) mirrored(to netip.Addr) vrrpcompat.Checksum {
	if m := r.mirror(to); m != nil {
		return m.Form()
	}
	return vrrpcompat.PseudoHeader
}

// mirror is the one for a router outside; nil for one that is not a peer.
func (r *served) mirror(of netip.Addr) *vrrpcompat.Mirror {
	if len(r.peers) == 0 {
		of = netip.Addr{}
	}
	return r.mirrors[of]
}
