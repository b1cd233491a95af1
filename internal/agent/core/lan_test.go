package core

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

// A lan is some routers with election: vrrp on one link, in virtual time.
type lan struct {
	t     *testing.T
	now   election.Instant
	queue []delivery // in order
	hosts []*lanHost
	probe time.Duration // how long asking the LAN takes
}

type delivery struct {
	at election.Instant
	do func()
}

// A lanHost is one router. What it does takes no time, what it sends arrives a tenth of
// a millisecond later.
type lanHost struct {
	lan     *lan
	name    string
	core    *Core
	sources map[vrrpcompat.Family]netip.Addr
	deaf    bool // hears nothing, and is not heard
	bound   map[netip.Addr]bool
	did     []string // what it said and did, with the time
	ended   bool
}

const lanDelay = 100 * time.Microsecond

var (
	lan4 = netip.MustParsePrefix("10.0.0.200/24")
	lan6 = netip.MustParsePrefix("fd00::200/64")
)

// add starts a router; its sources end in these numbers.
func (l *lan) add(name string, v fsm.VRRP, preempt fsm.Preempt, end4, end6 byte, addrs ...netip.Prefix) *lanHost {
	v.ID, v.Checksum, v.Outranked = 51, fsm.ChecksumAuto, fsm.OutrankedYield
	if v.Version == 0 {
		v.Version = 3
	}
	if v.Interval == 0 {
		v.Interval = time.Second
	}
	doc := fsm.Document{MaxHold: time.Minute, Groups: []fsm.Group{{
		Name: "web", Addresses: addrs, Interface: "eth0", Placement: fsm.PlacementLeader, Announce: fsm.Announce{Repeat: 2}, VRRP: v, Preempt: preempt,
	}}}
	if err := doc.Check(); err != nil {
		l.t.Fatal(err)
	}
	h := &lanHost{lan: l, name: name, bound: map[netip.Addr]bool{}, core: NewAlone(AloneConfig{Node: name, Started: l.now, Document: doc})}
	h.sources = map[vrrpcompat.Family]netip.Addr{
		vrrpcompat.IPv4: netip.AddrFrom4([4]byte{10, 0, 0, end4}), vrrpcompat.IPv6: netip.AddrFrom16([16]byte{0xfe, 0x80, 15: end6}),
	}
	l.hosts = append(l.hosts, h)
	for _, f := range []vrrpcompat.Family{vrrpcompat.IPv4, vrrpcompat.IPv6} {
		h.step(SourceChanged{Link: "eth0", Family: f, Addr: h.sources[f]})
	}
	return h
}

func (l *lan) after(d time.Duration, do func()) {
	at := l.now.Add(d)
	i := 0
	for i < len(l.queue) && l.queue[i].at <= at {
		i++
	}
	l.queue = slices.Insert(l.queue, i, delivery{at, do})
}

// run lets a while pass.
func (l *lan) run(d time.Duration) {
	for end := l.now.Add(d); ; {
		next := end
		if len(l.queue) > 0 {
			next = min(next, l.queue[0].at)
		}
		var woken []*lanHost
		for _, h := range l.hosts {
			if w := max(h.core.Wake(), l.now); !h.ended && w <= next {
				if w < next {
					next, woken = w, nil
				}
				woken = append(woken, h)
			}
		}
		l.now = next
		if len(l.queue) > 0 && l.queue[0].at <= next { // what has come is told before what is due
			do := l.queue[0].do
			l.queue = l.queue[1:]
			do()
			continue
		}
		for _, h := range woken {
			h.step(Woke{})
		}
		if next == end && len(woken) == 0 {
			return
		}
	}
}

func (h *lanHost) note(format string, args ...any) {
	h.did = append(h.did, fmt.Sprintf("%v ", h.lan.elapsed())+fmt.Sprintf(format, args...))
}

func (h *lanHost) step(ev Event) {
	if h.ended {
		return
	}
	for _, e := range h.core.Step(h.lan.now, ev) {
		h.do(e)
	}
}

// later has it told something that took a moment.
func (h *lanHost) later(d time.Duration, ev Event) { h.lan.after(d, func() { h.step(ev) }) }

func (h *lanHost) do(e Effect) {
	switch e := e.(type) {
	case Sweep:
		h.later(0, Swept{})
	case Resolve:
		h.later(0, placedOn("eth0", e))
	case Probe:
		h.note("probe")
		p := Probed{Group: e.Group, Gen: e.Gen}
		for _, at := range e.At {
			for _, o := range h.lan.hosts {
				if o != h && o.bound[at.Prefix.Addr()] {
					p.Addr, p.MAC = at.Prefix.Addr(), "02:00:00:00:00:09"
				}
			}
		}
		h.later(h.lan.probe, p)
	case Bind:
		h.note("bind")
		for _, p := range e.At {
			h.bound[p.Prefix.Addr()] = true
		}
		h.later(0, Bound{Group: e.Group, Gen: e.Gen})
	case Unbind:
		h.note("unbind")
		clear(h.bound)
		h.later(0, Unbound{Group: e.Group, Gen: e.Gen})
	case Converge:
		out := converged(e, nil)
		for range out.Groups {
			h.note("refresh")
		}
		h.later(0, out)
	case Advertise:
		h.advertise(e)
	case Send, Propose, Campaign:
		h.lan.t.Fatalf("%s does what only a cluster does: %#v", h.name, e)
	case Done:
		h.note("done")
		h.ended = true
	}
}

func (h *lanHost) advertise(e Advertise) {
	routers, err := Virtuals(e.VRRP, e.At)
	if err != nil {
		h.lan.t.Fatal(err)
	}
	for _, r := range routers {
		h.note("advert %v %d", r.Family, e.VRRP.Priority)
		for _, a := range r.Adverts(vrrpcompat.Priority(e.VRRP.Priority)) {
			h.lan.broadcast(h, h.sources[r.Family], a)
		}
	}
}

// broadcast has all others hear the advert.
func (l *lan) broadcast(by *lanHost, from netip.Addr, a vrrpcompat.Advert) {
	for _, o := range l.hosts {
		if o != by && !o.deaf && (by == nil || !by.deaf) {
			o.later(lanDelay, AdvertHeard{Group: "web", Link: "eth0", From: from, Advert: a})
		}
	}
}

// kill ends it without a word; the kernel keeps its addresses.
func (h *lanHost) kill() { h.ended = true }

func (h *lanHost) active() bool { return !h.ended && len(h.bound) > 0 }

// only fails the test unless just this router holds the group, and says so.
func (l *lan) only(h *lanHost) {
	l.t.Helper()
	for _, o := range l.hosts {
		if o.active() != (o == h) {
			l.t.Fatalf("at %v %s holds the group: %v\n%s", l.elapsed(), o.name, o.active(), strings.Join(o.did, "\n"))
		}
	}
	if h != nil {
		if v := h.core.Status(l.now).VIPs[0]; v.State != "active" || v.Owner != h.name || v.VRRP.State != "Active" {
			l.t.Fatalf("%s says of itself %+v %+v", h.name, v, v.VRRP)
		}
	}
}

// when says at what time the router did something last; it fails if it never did.
func (h *lanHost) when(what string) time.Duration {
	h.lan.t.Helper()
	for _, line := range slices.Backward(h.did) {
		if at, did, _ := strings.Cut(line, " "); did == what {
			d, err := time.ParseDuration(at)
			if err != nil {
				h.lan.t.Fatal(err)
			}
			return d
		}
	}
	h.lan.t.Fatalf("%s never did %q:\n%s", h.name, what, strings.Join(h.did, "\n"))
	return 0
}

// lanStart is how long the hosts are up: no instant is zero.
const lanStart = election.Instant(time.Hour)

func (l *lan) elapsed() time.Duration { return l.now.Sub(lanStart) }

func newLAN(t *testing.T) *lan { return &lan{t: t, now: lanStart, probe: 350 * time.Millisecond} }
