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

	"github.com/quorate/quorate/election/gossip"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/doctor"
	"github.com/quorate/quorate/vipctl"
	"github.com/quorate/quorate/vipctl/kernel"
)

const (
	// While something is held, its neighbours are looked at this long after it was taken,
	// and then again and again: who talks with it is to be known before it is lost.
	firstLook = 2 * time.Second
	lookEvery = 10 * time.Second
	// shareAgain is how often the other nodes are told of a list that has not changed: one
	// of them may be new, or the datagram was lost.
	shareAgain = time.Minute
	// tellPace is between two frames to neighbours, of all groups together and on average,
	// and tellChunk is how many go at once.
	tellPace  = 200 * time.Microsecond
	tellChunk = 64
	// tellGone is after how long without a turn somebody has nothing to tell any more.
	tellGone = 2 * time.Second
	// tellRest is after how long without a frame another take-over has begun, with
	// vipctl.MaxTold frames of its own.
	tellRest = 2 * time.Second
	// strangers is added to the age of those who only talk with this host: they come last,
	// as they may not know the addresses at all.
	strangers = 24 * time.Hour
	// acquaintFor is how lately a neighbour was heard of that the kernel is told of.
	acquaintFor = 2 * time.Minute
	// tableFor is how long the kernel's table is believed: groups are taken over together.
	tableFor = time.Second
)

// A lanKernel is what a lan asks of the kernel.
type lanKernel interface {
	Neighbours(link string) (vipctl.Segment, error)
	Tell(link string, tell []vipctl.Telling) error
	Acquaint(link string, with []vipctl.Neighbour) error
	WatchClaims(ctx context.Context, link string, addrs []netip.Addr, heard func(kernel.Claim)) error
}

// A lan knows who talks with the addresses that the cluster holds, and listens for others
// that say they have one which is held here. Its methods may be called from any goroutine;
// those of a nil lan do nothing.
type lan struct {
	kernel lanKernel
	doc    func() fsm.Document
	post   func(core.Event)
	now    func() vipctl.Instant
	// share sends a list to the other nodes; nil: there are none.
	share  func(payload []byte)
	log    *slog.Logger
	seldom agent.Seldom

	changed chan struct{} // what is held is not what it was

	mu     sync.Mutex                     // guards what follows; never held while the kernel is asked
	held   map[string]map[netip.Addr]bool // by the device that the agent names
	claims vipctl.Claims
	book   vipctl.Book
	shared map[string]shared // by device
	tables map[string]table
	met    map[string]vipctl.Instant // by device, when the kernel was last told of neighbours
	// Of telling neighbours: what has something to say; how many frames this take-over may
	// still send, and how many at once, as of toldAt.
	telling map[*telling]bool
	left    int
	each    map[netip.Addr]int // by neighbour: what it is told in this take-over
	room    float64
	toldAt  vipctl.Instant
}

// shared is what the others were told last of a device.
type shared struct {
	neighbours []vipctl.Neighbour
	at         vipctl.Instant
}

// A table is what the kernel said of a device, and when.
type table struct {
	segment vipctl.Segment
	at      vipctl.Instant
}

func newLAN(k lanKernel, doc func() fsm.Document, post func(core.Event), log *slog.Logger) *lan {
	return &lan{kernel: k, doc: doc, post: post, now: lanNow, log: log, changed: make(chan struct{}, 1),
		held: map[string]map[netip.Addr]bool{}, shared: map[string]shared{}, tables: map[string]table{}, met: map[string]vipctl.Instant{},
		telling: map[*telling]bool{}}
}

func lanNow() vipctl.Instant { return vipctl.Instant(Now()) }

// put takes note that the addresses are held here.
func (l *lan) put(at []core.Place) {
	l.note(at, func(on map[netip.Addr]bool, a netip.Addr) bool {
		known := on[a]
		on[a] = true
		return !known
	})
}

// took takes note that they are not any more.
func (l *lan) took(at []core.Place) {
	l.note(at, func(on map[netip.Addr]bool, a netip.Addr) bool {
		known := on[a]
		delete(on, a)
		return known
	})
}

func (l *lan) note(at []core.Place, set func(on map[netip.Addr]bool, a netip.Addr) (changed bool)) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := false
	for _, p := range at {
		on := l.held[p.Link]
		if on == nil {
			on = map[netip.Addr]bool{}
			l.held[p.Link] = on
		}
		changed = set(on, p.Prefix.Addr()) || changed
		if len(on) == 0 {
			delete(l.held, p.Link)
		}
	}
	if changed {
		select {
		case l.changed <- struct{}{}:
		default:
		}
	}
}

// holding returns the addresses that are held, sorted, by device.
func (l *lan) holding() map[string][]netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string][]netip.Addr, len(l.held))
	for link, on := range l.held {
		out[link] = slices.SortedFunc(maps.Keys(on), netip.Addr.Compare)
	}
	return out
}

// run watches and looks while something is held, until ctx ends.
func (l *lan) run(ctx context.Context) error {
	w := watches{lan: l, ctx: ctx, on: map[string]*claimWatch{}}
	defer w.end()
	look := time.NewTimer(firstLook)
	look.Stop()
	looking := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.changed:
			held := l.holding()
			w.follow(held)
			if hold := len(held) > 0; hold != looking {
				look.Stop()
				if looking = hold; looking {
					look.Reset(firstLook)
				}
			}
		case <-look.C:
			l.look(l.now())
			look.Reset(lookEvery)
		}
	}
}

// look takes note of who talks with what is held, and tells the other nodes if that is
// new.
func (l *lan) look(now vipctl.Instant) {
	for link := range l.holding() {
		s, err := l.table(link, now)
		if err != nil {
			if l.seldom.Allow("neighbours " + link) {
				l.log.Warn("cannot see who talks with the addresses", "link", link, "error", err)
			}
			continue
		}
		l.mu.Lock()
		l.book.Learn(now, s)
		was, known := l.shared[link]
		say := !known || now-was.at >= vipctl.Instant(shareAgain) || !vipctl.Same(was.neighbours, s.Neighbours)
		if say {
			l.shared[link] = shared{s.Neighbours, now}
		}
		l.mu.Unlock()
		if !say || l.share == nil {
			continue
		}
		for _, payload := range vipctl.AppendSegment(nil, s, gossip.MaxPayload) {
			l.share(payload)
		}
	}
}

// table is the kernel's, of a second ago at most, without the virtual addresses in it.
func (l *lan) table(link string, now vipctl.Instant) (vipctl.Segment, error) {
	l.mu.Lock()
	t, known := l.tables[link]
	l.mu.Unlock()
	if known && now-t.at < vipctl.Instant(tableFor) {
		return t.segment, nil
	}
	s, err := l.kernel.Neighbours(link)
	if err != nil {
		return s, err
	}
	vips := map[netip.Addr]bool{}
	for _, a := range l.doc().Addrs() {
		vips[a] = true
	}
	s.Neighbours = slices.DeleteFunc(s.Neighbours, func(n vipctl.Neighbour) bool {
		foreign := !slices.ContainsFunc(s.Networks, func(p netip.Prefix) bool { return p.Contains(n.Addr) })
		return vips[n.Addr] || foreign && doctor.IsTestAddress(n.Addr) // there is nobody there
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tables[link] = table{s, now}
	return s, nil
}

// heard takes a list of another node. It does not wait for anything.
func (l *lan) heard(from netip.AddrPort, payload []byte) {
	if l == nil {
		return
	}
	s, err := vipctl.DecodeSegment(payload)
	if err != nil {
		if l.seldom.Allow("neighbours of " + from.String()) {
			l.log.Warn("dropped a list of neighbours", "from", from, "error", err)
		}
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.book.Learn(l.now(), s)
}

// known returns how many neighbours the cluster knows of.
func (l *lan) known() int {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.book.Forget(l.now())
}

// A telling is what is still to be said of some addresses to neighbours on a device.
type telling struct {
	link    string
	addrs   []netip.Addr
	plan    []vipctl.Telling
	planned bool
	share   float64 // frames that it may send, as of at
	at      vipctl.Instant
}

// tell returns a function that tells a few neighbours on the device where the addresses
// are now, those first that talked with their last owner. It says whether there are more;
// whoever calls it leaves time between, and stops when it is too late. The first call
// reads the kernel's table.
func (l *lan) tell(link string, addrs []netip.Addr) (next func() (more bool, err error)) {
	if l == nil {
		return nil
	}
	t := &telling{link: link, addrs: addrs}
	return func() (bool, error) {
		now := l.now()
		var unplanned error
		if !t.planned {
			unplanned = l.plan(t, now)
		}
		chunk := l.turn(t, now)
		err := l.kernel.Tell(link, chunk)
		return len(t.plan) > 0, errors.Join(unplanned, err)
	}
}

// plan says whom to tell; with an error there may be somebody to tell all the same. A
// virtual MAC address moves with its addresses: nobody need be told of those.
func (l *lan) plan(t *telling, now vipctl.Instant) error {
	t.planned = true
	doc := l.doc()
	addrs := slices.DeleteFunc(slices.Clone(t.addrs), func(a netip.Addr) bool {
		_, above := groupOf(doc, a)
		return above
	})
	if len(addrs) == 0 {
		return nil
	}
	own, err := l.table(t.link, now)
	if err != nil {
		return err
	}
	l.mu.Lock()
	to := l.book.Near(now, own.Networks)
	met, meeting := l.met[t.link]
	meet := !meeting || now-met > vipctl.Instant(tellRest)
	l.met[t.link] = now
	l.mu.Unlock()
	for _, n := range own.Neighbours {
		n.Age += strangers
		to = append(to, n)
	}
	to = vipctl.Newest(to, vipctl.MaxNeighbours)
	t.plan = vipctl.Tellings(addrs, to, vipctl.MaxTold)
	if !meet {
		return nil
	}
	// They are answered without a question: who hears no broadcasts would not answer that.
	return l.kernel.Acquaint(t.link, slices.DeleteFunc(to, func(n vipctl.Neighbour) bool { return n.Age > acquaintFor }))
}

// rested begins the count anew when nobody was told for a while: another take-over.
func (l *lan) rested(now vipctl.Instant) {
	if l.each == nil || now-l.toldAt > vipctl.Instant(tellRest) {
		l.left, l.each = vipctl.MaxTold, map[netip.Addr]int{}
	}
}

// turn takes what may be sent of the plan now: what tellPace leaves, shared by those that
// have something to say, and no more than vipctl.MaxTold in a take-over, nor
// vipctl.MaxToldEach for one neighbour.
func (l *lan) turn(t *telling, now vipctl.Instant) []vipctl.Telling {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rested(now)
	l.room = min(tellChunk, l.room+float64(now-l.toldAt)/float64(tellPace))
	l.toldAt = now
	for other := range l.telling {
		if now-other.at > vipctl.Instant(tellGone) {
			delete(l.telling, other)
		}
	}
	if l.telling[t] {
		t.share += float64(now-t.at) / float64(tellPace) / float64(len(l.telling))
	} else if len(l.telling) == 0 {
		t.share = tellChunk
	}
	t.share = min(t.share, tellChunk)
	l.telling[t], t.at = true, now
	t.plan = t.plan[:min(len(t.plan), l.left)]
	var chunk []vipctl.Telling
	for most := min(int(l.room), int(t.share)); len(t.plan) > 0 && len(chunk) < most; t.plan = t.plan[1:] {
		if next := t.plan[0]; l.each[next.To.Addr] < vipctl.MaxToldEach {
			l.each[next.To.Addr]++
			chunk = append(chunk, next)
		}
	}
	l.left -= len(chunk)
	l.room -= float64(len(chunk))
	t.share -= float64(len(chunk))
	if len(t.plan) == 0 {
		delete(l.telling, t)
	}
	return chunk
}
