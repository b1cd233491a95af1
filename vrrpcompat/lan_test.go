package vrrpcompat

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// A lan is a link in virtual time with routers on it, whose adverts arrive a moment after they were sent.
type lan struct {
	t     *testing.T
	r     *rand.Rand
	now   Instant
	hosts []*lanHost
	queue []lanPacket

	both  bool // more than one host answers
	since Instant
}

// A machine is a Router, or a Gate on a node that always holds the lease.
type machine interface {
	Step(now Instant, ev Event) []Effect
	Wake() (Instant, bool)
}

type lanHost struct {
	machine
	v       Virtual
	addr    netip.Addr
	answers bool // for the addresses
	cut     bool // sends and hears nothing, and does not know it
}

type lanPacket struct {
	at   Instant
	to   *lanHost
	from netip.Addr
	a    Advert
}

const lanDelay = 2 * ms

func (l *lan) step(h *lanHost, ev Event) {
	h.perform(l, h.Step(l.now, ev))
}

func (h *lanHost) perform(l *lan, effects []Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case Send:
			l.send(h, e.Priority)
		case Bind:
			if h.answers {
				l.t.Fatalf("%v binds twice", h.addr)
			}
			h.answers = true
		case Unbind:
			if !h.answers {
				l.t.Fatalf("%v unbinds what it has not bound", h.addr)
			}
			h.answers = false
		case Resume:
			h.answers = true
			l.send(h, 254)
			l.step(h, Speaking{true})
		case Yield:
			h.answers = false
			l.step(h, Speaking{false})
		case Changed:
			if h.answers != (e.To == Active) {
				l.t.Fatalf("%v is %v and answers = %v", h.addr, e.To, h.answers)
			}
		case Refused:
			l.t.Fatalf("%v refuses the advert of %v: %v", h.addr, e.From, e.Err)
		}
	}
}

func (l *lan) send(h *lanHost, p Priority) {
	if _, gate := h.machine.(*speakingGate); gate && !h.answers {
		l.t.Fatalf("%v speaks without answering", h.addr)
	}
	for _, to := range l.hosts {
		if to != h && !to.cut && !h.cut {
			for _, a := range h.v.Adverts(p) {
				l.queue = append(l.queue, lanPacket{l.now.Add(ms + time.Duration(l.r.Int64N(int64(lanDelay-ms)))), to, h.addr, a})
			}
		}
	}
}

// run lets d pass, and returns for how long at most more than one host that is not cut off answered in a stretch.
func (l *lan) run(d time.Duration) (longest time.Duration) {
	end := l.now.Add(d)
	for {
		at, next := end, func() {}
		for i, p := range l.queue {
			if p.at < at {
				at, next = p.at, func() {
					l.queue = slices.Delete(l.queue, i, i+1)
					l.step(p.to, Received{From: p.from, Advert: p.a})
				}
			}
		}
		for _, h := range l.hosts {
			if due, ok := h.Wake(); ok && due < at {
				at, next = max(due, l.now), func() { l.step(h, Tick{}) }
			}
		}
		if now := l.answering() > 1; now != l.both {
			l.both, l.since = now, l.now
		}
		if l.both {
			longest = max(longest, at.Sub(l.since))
		}
		l.now = at
		if at == end {
			return longest
		}
		next()
	}
}

func (l *lan) answering() (n int) {
	for _, h := range l.hosts {
		if h.answers && !h.cut {
			n++
		}
	}
	return n
}

func newLAN(t *testing.T, seed uint64) *lan {
	return &lan{t: t, r: rand.New(rand.NewPCG(seed, 0)), now: 5_000_000_003}
}

func (l *lan) addr() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + len(l.hosts))}) }

func (l *lan) addRouter(c RouterConfig) *lanHost {
	r, err := NewRouter(c)
	if err != nil {
		l.t.Fatal(err)
	}
	h := &lanHost{machine: r, v: c.Virtual, addr: l.addr()}
	l.hosts = append(l.hosts, h)
	l.step(h, LinkUp{h.addr})
	return h
}

// Routers start, stop, change their priority and are cut off in random order. Whenever nothing has happened for some
// down intervals, just one of those that run and hear each other answers: the best claim, where all preempt.
func TestLANHasOneActiveRouter(t *testing.T) {
	for seed := range uint64(300) {
		l := newLAN(t, seed)
		v := virtual3()
		if seed%3 == 1 {
			v = virtual2()
		}
		v.AlsoV2 = seed%3 == 2
		preempt := l.r.IntN(2) == 0
		wanted := map[*lanHost]bool{}
		for range 2 + l.r.IntN(4) {
			l.addRouter(RouterConfig{Virtual: v, Priority: Priority(1 + l.r.IntN(254)), Preempt: preempt})
		}
		for range 12 {
			h := l.hosts[l.r.IntN(len(l.hosts))]
			switch l.r.IntN(6) {
			case 0, 1, 2:
				l.step(h, Startup{})
				wanted[h] = true
			case 3:
				l.step(h, Shutdown{})
				wanted[h] = false
			case 4:
				l.step(h, SetPriority{Priority(1 + l.r.IntN(254))})
			case 5:
				h.cut = !h.cut
			}
			l.run(time.Duration(l.r.Int64N(int64(5 * sec))))
			if l.r.IntN(2) == 0 {
				l.settled(wanted, preempt, seed)
			}
		}
		l.settled(wanted, preempt, seed)
	}
}

func (l *lan) settled(wanted map[*lanHost]bool, preempt bool, seed uint64) {
	l.t.Helper()
	l.run(15 * sec)
	var best *lanHost
	for _, h := range l.hosts {
		ours := claim{h.machine.(*Router).Priority(), h.addr}
		if wanted[h] && !h.cut && (best == nil || ours.priority > best.machine.(*Router).Priority()) {
			best = h
		}
	}
	want := 0
	if best != nil {
		want = 1
	}
	if got := l.answering(); got != want {
		l.t.Fatalf("seed %d at %d: %d routers answer, want %d", seed, l.now, got, want)
	}
	if !preempt || best == nil {
		return
	}
	for _, h := range l.hosts {
		if h.answers && !h.cut && h.machine.(*Router).Priority() != best.machine.(*Router).Priority() {
			l.t.Fatalf("seed %d: %v of priority %d answers, the best is %d", seed, h.addr, h.machine.(*Router).Priority(), best.machine.(*Router).Priority())
		}
	}
}

// A cluster's holder beside a router that outranks it or is outranked by it, which comes and goes: never two that answer
// for longer than one interval, and never nobody for longer than a down interval.
func TestLANGateBesideARouter(t *testing.T) {
	for _, p := range []Priority{100, 254, Owner} {
		for seed := range uint64(50) {
			l := newLAN(t, seed)
			g, err := NewGate(l.now, gateConfig(func(c *GateConfig) { c.Listen = sec }))
			if err != nil {
				t.Fatal(err)
			}
			h := &lanHost{machine: &speakingGate{Gate: g}, v: virtual3(), addr: l.addr()}
			l.hosts = append(l.hosts, h)
			l.step(h, LinkUp{h.addr})
			other := l.addRouter(RouterConfig{Virtual: virtual3(), Priority: p, Preempt: true})
			for i := range 10 {
				ev := Event(Startup{})
				if i%2 == 1 {
					ev = Shutdown{}
				}
				l.step(other, ev)
				if both := l.run(time.Duration(l.r.Int64N(int64(20 * sec)))); both > sec+2*lanDelay {
					t.Fatalf("priority %d, seed %d: two answered for %v", p, seed, both)
				}
				l.run(5 * sec)
				if l.answering() != 1 {
					t.Fatalf("priority %d, seed %d: %d answer", p, seed, l.answering())
				}
			}
		}
	}
}

// A speakingGate sends the adverts that the agent would.
type speakingGate struct {
	*Gate
	on   bool
	next Instant
}

func (s *speakingGate) Step(now Instant, ev Event) []Effect {
	var out []Effect
	if on, ok := ev.(Speaking); ok {
		s.on, s.next = on.Yes, now.Add(sec)
	}
	if _, ok := ev.(Tick); ok && s.on && now >= s.next {
		s.next = s.next.Add(sec)
		out = append(out, Send{254})
	}
	return append(out, s.Gate.Step(now, ev)...)
}

func (s *speakingGate) Wake() (Instant, bool) {
	at, have := s.Gate.Wake()
	return earliest(at, have, s.next, s.on)
}
