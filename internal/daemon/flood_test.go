package daemon

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/vrrpcompat"
)

// A flooded is a router of its own behind the speaker's ears, in virtual time: packets go
// in where the socket hands them over, and adverts come out where they would be sent.
type flooded struct {
	*speakerTest
	core    *core.Core
	at      election.Instant
	steps   int // of the core, because of an advert
	adverts []election.Instant
}

func newFlooded(t testing.TB, groups ...fsm.Group) *flooded {
	f := &flooded{speakerTest: newSpeakerTest(t), at: election.Instant(start)}
	f.core = core.NewAlone(core.AloneConfig{Node: "n1", Started: f.at, Document: fsm.Document{MaxHold: time.Second, Groups: groups}})
	f.cfg.Heard = func(group, link string, from netip.Addr, a vrrpcompat.Advert) {
		f.steps++
		f.step(core.AdvertHeard{Group: group, Link: link, From: from, Advert: a})
	}
	for _, g := range groups {
		f.serveGroup(g)
	}
	f.step(core.SourceChanged{Link: nowhere, Family: vrrpcompat.IPv4, Addr: self})
	for end := f.at.Add(5 * time.Second); f.at < end; {
		f.wait(time.Millisecond)
	}
	if st := f.core.Status(f.at); st.VIPs[0].State != "active" {
		t.Fatalf("not Active before the flood: %+v", st.VIPs[0])
	}
	f.adverts = nil
	return f
}

// wait lets the time pass, and the core look at the clock when it wants to.
func (f *flooded) wait(d time.Duration) {
	f.at = f.at.Add(d)
	if !f.at.Before(f.core.Wake()) {
		f.step(core.Woke{})
	}
}

// step has the core take the event, and does what it says at once.
func (f *flooded) step(ev core.Event) {
	for _, e := range f.core.Step(f.at, ev) {
		switch e := e.(type) {
		case core.Sweep:
			f.step(core.Swept{})
		case core.Resolve:
			f.step(core.Placed{Group: e.Group.Name, Gen: e.Gen, At: places(e.Group)})
		case core.Probe:
			f.step(core.Probed{Group: e.Group, Gen: e.Gen})
		case core.Bind:
			f.step(core.Bound{Group: e.Group, Gen: e.Gen})
		case core.Unbind:
			f.step(core.Unbound{Group: e.Group, Gen: e.Gen})
		case core.Advertise:
			if e.VRRP.Priority > 0 {
				f.adverts = append(f.adverts, f.at)
			}
		}
	}
}

// TestFloodDelaysNoAdvert: 10,000 adverts in a second, whatever they are and whoever sends
// them, make the core work seldom, make this router say little more than usual, and put
// off none of its own adverts. Ill-formed ones do not reach the core at all.
func TestFloodDelaysNoAdvert(t *testing.T) {
	const seconds, interval, lower = 5, time.Second, 100
	floods := map[string]struct {
		from  func(i int) netip.Addr
		say   func(i int, a *vrrpcompat.Advert)
		bad   bool
		steps int // at most, in a second
	}{
		"damaged": {from: func(int) netip.Addr { return source(1) }, say: func(int, *vrrpcompat.Advert) {}, bad: true},
		"one router": {from: func(int) netip.Addr { return source(1) }, say: func(int, *vrrpcompat.Advert) {},
			steps: perInterval},
		"one that changes its mind": {from: func(int) netip.Addr { return source(1) },
			say: func(i int, a *vrrpcompat.Advert) { a.Priority = vrrpcompat.Priority(1 + i%lower) }, steps: perInterval},
		"one in a hurry": {from: func(int) netip.Addr { return source(1) },
			say: func(i int, a *vrrpcompat.Advert) {
				a.Priority, a.Interval = vrrpcompat.Priority(1+i%lower), 1
			},
			steps: int(time.Second / (leastInterval / perInterval))},
		"forged sources": {from: source, say: func(int, *vrrpcompat.Advert) {}, steps: newcomers},
		"sixteen in a hurry": {from: func(i int) netip.Addr { return source(i % maxSpeakers) },
			say: func(i int, a *vrrpcompat.Advert) {
				a.Priority, a.Interval = vrrpcompat.Priority(1+i%lower), 1
			},
			steps: maxSpeakers*int(time.Second/(leastInterval/perInterval)) + newcomers},
	}
	for name, tc := range floods {
		t.Run(name, func(t *testing.T) {
			f := newFlooded(t, group(func(g *fsm.Group) { g.VRRP.Priority, g.VRRP.Interval = 200, interval }))
			began := f.at
			for i := range 10000 * seconds {
				p := f.packet(tc.from(i), vrrpcompat.GroupIPv4, theirs(func(a *vrrpcompat.Advert) { a.Priority = lower; tc.say(i, a) }), vrrpcompat.PseudoHeader)
				p.Arrival = f.at
				if tc.bad {
					p.Payload[6] ^= 1
				}
				f.hear(p)
				f.wait(100 * time.Microsecond)
			}
			if most := tc.steps*seconds + newcomers + burst; f.steps > most || (f.steps == 0) != tc.bad || tc.bad && f.steps > 0 {
				t.Errorf("%d steps, want at most %d", f.steps, most)
			}
			last := began
			for _, at := range append(f.adverts, f.at) {
				if gap := at.Sub(last); gap > interval+time.Millisecond {
					t.Errorf("no advert for %s", gap)
				}
				last = at
			}
			if most := (1 + perInterval) * (seconds + 1); len(f.adverts) > most {
				t.Errorf("%d adverts in %d s, want at most %d", len(f.adverts), seconds, most)
			}
			t.Logf("%d steps, %d adverts in %d s", f.steps, len(f.adverts), seconds)
		})
	}
}

// BenchmarkFlood is what one packet of a flood costs from the socket through the core,
// and how many of them the core has to look at.
func BenchmarkFlood(b *testing.B) {
	for _, groups := range []int{1, 250} {
		for _, bad := range []bool{true, false} {
			name := fmt.Sprintf("groups=%d/bad=%v", groups, bad)
			b.Run(name, func(b *testing.B) { benchFlood(b, groups, bad) })
		}
	}
}

func benchFlood(b *testing.B, groups int, bad bool) {
	var all []fsm.Group
	for i := range groups {
		all = append(all, group(func(g *fsm.Group) {
			g.Name, g.VRRP.ID, g.VRRP.Priority = fmt.Sprintf("g%d", i), uint8(1+i), 200
			g.Addresses = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 24)}
		}))
	}
	f := newFlooded(b, all...)
	p := f.packet(stranger, vrrpcompat.GroupIPv4, theirs(func(a *vrrpcompat.Advert) {
		a.VRID, a.Addresses, a.Priority, a.Interval = 1, []netip.Addr{all[0].Addresses[0].Addr()}, 100, 1
	}), vrrpcompat.Plain) // which is right for every source
	if bad {
		p.Payload[6] ^= 1
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		p.Source = source(i % maxSpeakers)
		p.Arrival = f.at
		f.hear(p)
		f.wait(100 * time.Microsecond)
		i++
	}
	b.ReportMetric(float64(f.steps)/float64(i), "steps/packet")
}
