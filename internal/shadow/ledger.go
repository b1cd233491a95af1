// Package shadow keeps the book of a node that only looks on: who has each group really,
// and who would have it if quorate ran in the place of what runs there now.
//
// It reads no clock: instants come in as arguments, of a clock that never goes back.
package shadow

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// maxNotes bounds each list of a report: a shadow may run for weeks.
const maxNotes = 500

// maxSenders bounds who is remembered of one virtual router: anybody on the LAN can forge
// adverts of as many.
const maxSenders = 64

// A Group is what is known of one group at a look.
type Group struct {
	Name      string
	Addresses []string
	// Here is where addresses of the group stand on this host, put there by another program:
	// "eth0". Empty: nowhere.
	Here []string
	// Would is the node that would have it; empty: nobody, or with a router of its own
	// another router. Known: that is decided at all.
	Would  string
	Known  bool
	Reason string
	// Priority is what its adverts would say, and Listen how long a router that is Active
	// may be silent.
	Priority uint8
	Listen   time.Duration
}

// A Heard is one advert for a virtual router of a group. Priority 0 ends a claim.
type Heard struct {
	Group, Seat string // Seat: device and family
	From        netip.Addr
	Priority    uint8
	Interval    time.Duration
	Down        time.Duration // after which a backup takes its silence for its end
}

// A Verdict is what a look at one group amounts to.
type Verdict uint8

const (
	_       Verdict = iota
	Open            // nothing can be said yet
	Agreed          // the node has it that would have it
	Differs         // another has it
	Nobody          // nobody was heard to have it
)

// String is the verdict as a log has it.
func (v Verdict) String() string {
	return [...]string{"verdict(0)", "open", "agreed", "differs", "nobody"}[v]
}

// A Said is what a look found that the look before did not.
type Said struct {
	Group         string
	Verdict       Verdict
	Really, Would string
}

// A Ledger is the book. Its methods are for one caller at a time.
type Ledger struct {
	node   string
	alone  bool
	name   func(netip.Addr) string
	began  time.Time
	groups map[string]*group
	order  []string
}

// New returns an empty book of a node. alone: it is a router of its own, and knows of no
// other node. name says which node an address is of; empty: none that is known.
func New(began time.Time, node string, alone bool, name func(netip.Addr) string) *Ledger {
	return &Ledger{node: node, alone: alone, name: name, began: began, groups: map[string]*group{}}
}

// A group is the book's page of one group.
type group struct {
	def     Group
	seats   map[string]*seat
	here    bool
	looked  time.Time
	verdict Verdict
	really  string // who has it, of the last look
	would   string
	heard   map[netip.Addr]Router // every router that claimed it, with its highest priority
	report  GroupReport
}

// A seat is one virtual router of the group, and who speaks for it.
type seat struct{ senders map[netip.Addr]*sender }

// A sender claims to be Active.
type sender struct {
	Heard
	first, last time.Time
	// over: another spoke after it, and it has not since. A router that gives way is silent.
	over bool
}

// fresh: it has not missed an advert.
func (s *sender) fresh(now time.Time) bool { return now.Sub(s.last) <= s.Interval*3/2 }

func (l *Ledger) group(name string) *group {
	g := l.groups[name]
	if g == nil {
		g = &group{seats: map[string]*seat{}, verdict: Open, heard: map[netip.Addr]Router{}, report: GroupReport{Group: name}}
		l.groups[name] = g
		l.order = append(l.order, name)
	}
	return g
}

// Hear takes note of an advert.
func (l *Ledger) Hear(now time.Time, h Heard) {
	g := l.group(h.Group)
	at := g.seats[h.Seat]
	if at == nil {
		at = &seat{map[netip.Addr]*sender{}}
		g.seats[h.Seat] = at
	}
	at.expire(now)
	if h.Priority == 0 {
		delete(at.senders, h.From)
		return
	}
	if r, known := g.heard[h.From]; known || len(g.heard) < maxNotes {
		g.heard[h.From] = Router{Address: h.From.String(), Node: l.name(h.From), Priority: max(h.Priority, r.Priority)}
	}
	rivals := at.speaks(now, h)
	if len(rivals) > 0 {
		who := []string{l.router(h.From, h.Priority)}
		since := now
		for _, r := range rivals {
			who = append(who, l.router(r.From, r.Priority))
			if r.last.Before(since) {
				since = r.last
			}
		}
		g.two(since, now, h.Down, who)
	}
}

// expire forgets who was silent for too long.
func (s *seat) expire(now time.Time) {
	maps.DeleteFunc(s.senders, func(_ netip.Addr, x *sender) bool { return now.Sub(x.last) > x.Down })
}

// speaks takes note of a claim, and returns who else is Active. Who speaks for the first
// time takes over, and those before are over; one that speaks on all the same is Active
// beside it.
func (s *seat) speaks(now time.Time, h Heard) (rivals []*sender) {
	x := s.senders[h.From]
	if x == nil && len(s.senders) >= maxSenders {
		return nil
	}
	if x == nil {
		for _, o := range s.senders {
			o.over = true
		}
		s.senders[h.From] = &sender{Heard: h, first: now, last: now}
		return nil
	}
	if x.over {
		x.first = now
	}
	x.over, x.last, x.Heard = false, now, h
	for _, o := range s.senders {
		if o == x || o.over {
			continue
		}
		if o.over = !o.fresh(now); !o.over {
			rivals = append(rivals, o)
		}
	}
	return rivals
}

// two takes note that two hosts had the group.
func (g *group) two(from, until time.Time, pause time.Duration, who []string) {
	slices.Sort(who)
	all := g.report.TwoHosts
	if n := len(all); n > 0 && slices.Equal(all[n-1].Who, who) && from.Sub(all[n-1].Until) <= pause {
		all[n-1].Until = until
		return
	}
	note(&g.report.TwoHosts, &g.report.Left, TwoHosts{At: from, Until: until, Who: who})
}

// note adds to a list, or counts what does not fit.
func note[T any](list *[]T, left *int, v T) {
	if len(*list) < maxNotes {
		*list = append(*list, v)
		return
	}
	*left++
}

// Gone: another program took an address of the group off this host.
func (l *Ledger) Gone(group string) { l.group(group).here = false }

// Look compares once, and returns what has changed. Call it each second.
func (l *Ledger) Look(now time.Time, groups []Group) []Said {
	var out []Said
	for _, def := range groups {
		g := l.group(def.Name)
		g.def = def
		g.heed(now, l)
		v, really, would := l.judge(now, g)
		g.spend(now)
		if said, changed := g.turn(now, v, really, would); changed {
			said.Group = def.Name
			out = append(out, said)
		}
		g.looked = now
	}
	return out
}

// heed sets who is over by what stands on this host.
func (g *group) heed(now time.Time, l *Ledger) {
	was := g.here
	g.here = len(g.def.Here) > 0
	for _, s := range g.seats {
		s.expire(now)
		for _, x := range s.senders {
			if !g.here || x.over {
				continue
			}
			if spoke := was && x.last.After(g.looked); !spoke {
				x.over = true
				continue
			}
			g.two(x.last, now, x.Down, []string{l.this(g), l.router(x.From, x.Priority)})
		}
	}
}

// this is the host itself as people read it.
func (l *Ledger) this(g *group) string {
	return fmt.Sprintf("%s (this host, on %s)", l.node, strings.Join(g.def.Here, ", "))
}

func (l *Ledger) router(from netip.Addr, priority uint8) string {
	if name := l.name(from); name != "" {
		return fmt.Sprintf("%s (%s, priority %d)", name, from, priority)
	}
	return fmt.Sprintf("%s (priority %d)", from, priority)
}

// judge says who has the group, and whether that is who would have it.
func (l *Ledger) judge(now time.Time, g *group) (v Verdict, really, would string) {
	texts, nodes, two := l.having(g)
	really, would = strings.Join(texts, " and "), g.def.Would
	switch {
	case !g.def.Known, len(nodes) == 0 && now.Sub(l.began) < g.def.Listen:
		return Open, really, would
	case len(nodes) == 0:
		return Nobody, really, would
	case two || len(nodes) > 1:
		return Differs, really, would
	case l.alone && would == "" && nodes[0] != l.node, nodes[0] == would:
		return Agreed, really, would
	}
	return Differs, really, would
}

// A party is one host that speaks for the group, as far as can be told.
type party struct {
	node     string // empty: not known
	seat     string // with node empty and several in one seat
	priority uint8
	from     []string
}

func (p *party) String() string {
	at := strings.Join(p.from, " and ")
	if p.node == "" {
		return fmt.Sprintf("%s (priority %d)", at, p.priority)
	}
	return fmt.Sprintf("%s (%s, priority %d)", p.node, at, p.priority)
}

// having returns who has the group, as people read it and by nodes; two: several in one
// virtual router, whoever they are. A router whose node is not known speaks with another
// address in each family.
func (l *Ledger) having(g *group) (texts, nodes []string, two bool) {
	if g.here {
		texts, nodes = []string{l.this(g)}, []string{l.node}
	}
	var all []*party
	for _, key := range slices.Sorted(maps.Keys(g.seats)) {
		active := g.seats[key].active()
		two = two || len(active) > 1
		for _, x := range active {
			p := &party{node: l.name(x.From), priority: x.Priority}
			if p.node == "" && len(active) > 1 {
				p.seat = x.From.String()
			}
			i := slices.IndexFunc(all, func(o *party) bool { return o.node == p.node && o.seat == p.seat && o.priority == p.priority })
			if i < 0 {
				i, all = len(all), append(all, p)
			}
			if a := x.From.String(); !slices.Contains(all[i].from, a) {
				all[i].from = append(all[i].from, a)
			}
		}
	}
	for _, p := range all {
		texts, nodes = append(texts, p.String()), append(nodes, p.node)
	}
	slices.Sort(nodes)
	return texts, slices.Compact(nodes), two
}

// active are those that speak for the virtual router, by address.
func (s *seat) active() (out []*sender) {
	for _, x := range s.senders {
		if !x.over {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b *sender) int { return a.From.Compare(b.From) })
	return out
}

// spend counts the time since the last look for what that found.
func (g *group) spend(now time.Time) {
	if g.looked.IsZero() {
		return
	}
	d := now.Sub(g.looked)
	switch g.verdict {
	case Agreed:
		g.report.agreed += d
	case Differs:
		g.report.differed += d
	case Nobody:
		g.report.nobody += d
	}
	if n := len(g.report.Differences); n > 0 && (g.verdict == Differs || g.verdict == Nobody) {
		if last := &g.report.Differences[n-1]; last.until.Equal(g.looked) {
			last.Until, last.until = now, now
		}
	}
}

// turn takes note of what is otherwise than at the last look.
func (g *group) turn(now time.Time, v Verdict, really, would string) (Said, bool) {
	if v == g.verdict && really == g.really && would == g.would {
		return Said{}, false
	}
	if really != g.really && !(g.verdict == Open && g.really == "" && really == "") {
		at := now
		for _, s := range g.seats {
			if a := s.active(); len(a) == 1 && !g.here && a[0].first.After(g.looked) && a[0].first.Before(at) {
				at = a[0].first
			}
		}
		note(&g.report.Changes, &g.report.Left, Change{At: at, From: g.really, To: really, Would: would})
	}
	if would != g.would {
		note(&g.report.Decisions, &g.report.Left, Decision{At: now, From: g.would, To: would, Reason: g.def.Reason})
	}
	if v == Differs || v == Nobody {
		note(&g.report.Differences, &g.report.Left, Difference{At: now, Until: now, until: now, Really: really, Would: would})
	}
	g.verdict, g.really, g.would = v, really, would
	return Said{Verdict: v, Really: really, Would: would}, v != Open
}

// Really is who has the group, of the last look; empty: nobody was heard.
func (l *Ledger) Really(name string) string {
	if g := l.groups[name]; g != nil {
		return g.really
	}
	return ""
}
