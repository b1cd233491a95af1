package vrrpcompat

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// A gateRig drives a Gate through virtual time, as a rig does a Router.
type gateRig struct {
	t   *testing.T
	g   *Gate
	now Instant
}

const (
	skew254 = 7812500 * time.Nanosecond
	down254 = 3*sec + skew254
)

var nodeAddr = netip.MustParseAddr("192.0.2.6") // another node of the cluster, above our own address

func gateConfig(edit ...func(c *GateConfig)) GateConfig {
	c := GateConfig{Virtual: virtual3(), Priority: 254, Outranked: PolicyYield}
	for _, f := range edit {
		f(&c)
	}
	return c
}

func hold(c *GateConfig) { c.Outranked = PolicyHold }

// newGate is one on a node that speaks from ourAddr.
func newGate(t *testing.T, edit ...func(c *GateConfig)) *gateRig {
	t.Helper()
	const start = 2_000_000_009
	g, err := NewGate(start, gateConfig(edit...))
	if err != nil {
		t.Fatal(err)
	}
	r := &gateRig{t, g, start}
	r.step(LinkUp{ourAddr})
	r.step(Insiders{[]netip.Addr{nodeAddr}})
	r.step(Speaking{true})
	return r
}

func (g *gateRig) after(d time.Duration) *gateRig { g.now = g.now.Add(d); return g }

func (g *gateRig) step(ev Event, want ...Effect) {
	g.t.Helper()
	if got := g.g.Step(g.now, ev); len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		g.t.Fatalf("%T: effects\n %+v, want\n %+v", ev, got, want)
	}
}

// wakes goes to the instant that Wake names, which must be in d, and delivers the Tick.
func (g *gateRig) wakes(d time.Duration, want ...Effect) {
	g.t.Helper()
	at, ok := g.g.Wake()
	if !ok || at.Sub(g.now) != d {
		g.t.Fatalf("the next tick is due in %v, %v; want in %v", at.Sub(g.now), ok, d)
	}
	if early := g.g.Step(at-1, Tick{}); len(early) != 0 {
		g.t.Fatalf("a nanosecond early: %+v", early)
	}
	g.now = at
	g.step(Tick{}, want...)
}

func (g *gateRig) allows(want bool) {
	g.t.Helper()
	if g.g.Allows() != want {
		g.t.Fatalf("Allows = %v, want %v", !want, want)
	}
}

func (g *gateRig) advert(from netip.Addr, p Priority) Received {
	v := g.g.cfg.Virtual
	return Received{From: from, Advert: v.Advert(v.Version, p)}
}

func rivalOf(from netip.Addr, p Priority) Rival { return Rival{from, p, 100} }

func TestGateYieldsToAHigherPriorityUntilItIsSilent(t *testing.T) {
	g := newGate(t)
	g.allows(true)
	g.step(g.advert(lowAddr, 255), Yield{rivalOf(lowAddr, 255)})
	g.allows(false)
	g.after(2 * sec).step(g.advert(lowAddr, 255)) // goes on: nothing new
	if by, ok := g.g.Outranked(); !ok || by != rivalOf(lowAddr, 255) {
		t.Errorf("Outranked = %+v, %v", by, ok)
	}
	g.wakes(down254, Resume{})
	g.allows(true)
	if _, ok := g.g.Wake(); ok {
		t.Error("something is due with nobody there")
	}
}

func TestGateYieldsToAnEqualPriorityWithAHigherAddress(t *testing.T) {
	g := newGate(t)
	g.step(g.advert(highAddr, 254), Yield{rivalOf(highAddr, 254)})
	low := newGate(t)
	low.step(low.advert(lowAddr, 254), Send{254}, Announce{})
	low.allows(true)
}

func TestGateResumesAfterPriorityZero(t *testing.T) {
	g := newGate(t)
	g.step(g.advert(lowAddr, 255), Yield{rivalOf(lowAddr, 255)})
	g.step(Speaking{false})
	g.after(5 * sec / 2).step(g.advert(lowAddr, 255))
	g.after(300 * ms).step(g.advert(lowAddr, Release))
	g.wakes(skew254, Resume{})
}

// A claim that is released in its first interval stands until that is over.
func TestGateAClaimStandsForAnInterval(t *testing.T) {
	g := newGate(t)
	g.step(g.advert(lowAddr, 255), Yield{rivalOf(lowAddr, 255)})
	g.after(100*ms).step(g.advert(lowAddr, Release), Send{254})
	g.step(Speaking{false})
	g.wakes(900*ms, Resume{})
}

// Somebody else's release ends nobody's claim.
func TestGateAReleaseEndsOnlyItsSendersClaim(t *testing.T) {
	g := newGate(t)
	g.step(g.advert(highAddr, 255), Yield{rivalOf(highAddr, 255)})
	g.step(Speaking{false})
	g.after(sec).step(g.advert(lowAddr, Release))
	g.wakes(down254-sec, Resume{})
}

// A router that falls below us keeps the addresses for what is left of the timer, as with a Backup that preempts.
func TestGateARivalThatFallsBelowUs(t *testing.T) {
	g := newGate(t)
	g.step(g.advert(lowAddr, 255), Yield{rivalOf(lowAddr, 255)})
	g.step(Speaking{false})
	g.after(sec).step(g.advert(lowAddr, 100))
	g.after(sec).step(g.advert(lowAddr, 100))
	g.wakes(down254-2*sec, Resume{})
	g.step(Speaking{true})
	g.step(g.advert(lowAddr, 100), Send{254}, Announce{})
}

func TestGateOfTwoRivalsTheLastDecides(t *testing.T) {
	g := newGate(t)
	g.step(g.advert(highAddr, 254), Yield{rivalOf(highAddr, 254)})
	g.after(sec).step(g.advert(lowAddr, 255))
	if by, _ := g.g.Outranked(); by != rivalOf(lowAddr, 255) {
		t.Errorf("the strongest is %+v", by)
	}
	g.wakes(down254 - sec)
	g.allows(false)
	if by, _ := g.g.Outranked(); by != rivalOf(lowAddr, 255) {
		t.Errorf("the other is %+v", by)
	}
	g.wakes(sec, Resume{})
}

// The claim lasts as long as the claimant's own interval makes it, in version 2 with the skew of version 2.
func TestGateUsesTheRivalsInterval(t *testing.T) {
	g := newGate(t)
	ev := g.advert(lowAddr, 255)
	ev.Advert.Interval = 300
	g.step(ev, Yield{Rival{lowAddr, 255, 300}})
	g.wakes(9*sec+3*skew254, Resume{})

	v2 := newGate(t, func(c *GateConfig) { c.Virtual = virtual2(); c.Virtual.Interval = 300 })
	v2.step(v2.advert(lowAddr, 255), Yield{Rival{lowAddr, 255, 300}})
	v2.wakes(9*sec+skew254, Resume{})
}

func TestGateHoldRaisesAnAlarmAndAnnouncesAgain(t *testing.T) {
	g := newGate(t, hold)
	g.step(g.advert(lowAddr, 255), Alarm{rivalOf(lowAddr, 255)})
	g.allows(true)
	g.after(sec).step(g.advert(lowAddr, 255)) // once is enough
	g.step(g.advert(highAddr, 255))
	g.after(sec).step(g.advert(highAddr, 255))
	g.wakes(down254-sec, []Effect(nil)...)
	g.wakes(sec, AlarmOver{}, Announce{})
}

// Who does not speak has nothing to announce, and answers nobody.
func TestGateOfANodeThatDoesNotSpeak(t *testing.T) {
	g := newGate(t, hold)
	g.step(Speaking{false})
	g.step(g.advert(lowAddr, 100))
	g.step(g.advert(lowAddr, Release))
	g.step(g.advert(lowAddr, 255), Alarm{rivalOf(lowAddr, 255)})
	g.wakes(down254, AlarmOver{})
}

// The verdict is there before the lease is.
func TestGateKnowsBeforeItSpeaks(t *testing.T) {
	g := newGate(t)
	g.step(Speaking{false})
	g.step(g.advert(lowAddr, 255), Yield{rivalOf(lowAddr, 255)})
	g.allows(false)
}

func TestGateAnswersAndAnnouncesWhenALowerRouterClaims(t *testing.T) {
	g := newGate(t)
	g.step(g.advert(highAddr, 100), Send{254}, Announce{})
	g.after(50 * ms).step(g.advert(highAddr, 100)) // within a tenth of the interval: bounded
	g.after(50*ms).step(g.advert(highAddr, 100), Send{254})
	g.wakes(3*sec/2, Announce{}) // it has fallen back
	g.allows(true)
}

func TestGateInsidersAreNotOutside(t *testing.T) {
	g := newGate(t)
	for _, p := range []Priority{254, 255, 100, Release} {
		g.step(g.advert(nodeAddr, p))
	}
	g.allows(true)
	v6 := newGate(t, func(c *GateConfig) { c.Virtual.Family, c.Virtual.Addresses = IPv6, addrs("fe80::7") })
	v6.step(LinkUp{ourAddr6})
	v6.step(Insiders{[]netip.Addr{highAddr6.WithZone("eth0")}})
	v6.step(v6.advert(highAddr6.WithZone("eth1"), 255))
	v6.allows(true)
}

// Where the advert says what we answer its sender from, that decides a tie, and not what others hear.
func TestGateTieByUnicastSource(t *testing.T) {
	for _, c := range []struct {
		self    string // zero: as LinkUp said, which is below theirs
		outrank bool
	}{{"", true}, {"192.0.2.199", true}, {"192.0.2.201", false}, {"0.0.0.0", true}} {
		g := newGate(t)
		ev := g.advert(netip.MustParseAddr("192.0.2.200"), 254)
		if c.self != "" {
			ev.Self = netip.MustParseAddr(c.self)
		}
		g.g.Step(g.now, ev)
		g.allows(!c.outrank)
	}
	g := newGate(t)
	ev := g.advert(highAddr, 255)
	ev.Self = highAddr
	g.step(ev, Refused{highAddr, &Reject{ReasonOwnSource, 7, 0, 0}})
}

// A node that was heard before it was named was no rival after all.
func TestGateTakesBackAClaimOfAnInsider(t *testing.T) {
	g := newGate(t)
	g.step(Insiders{})
	g.step(g.advert(nodeAddr, 254), Yield{rivalOf(nodeAddr, 254)})
	g.step(Insiders{[]netip.Addr{nodeAddr}}, Resume{})
	g.allows(true)
}

func TestGateRefusedAdvertsAreNoClaims(t *testing.T) {
	g := newGate(t)
	ev := g.advert(highAddr, 255)
	ev.Advert.Addresses = addrs("192.0.2.99")
	g.step(ev, Refused{highAddr, &Reject{ReasonCollision, 7, 0, 2}})
	g.step(g.advert(ourAddr, 255), Refused{ourAddr, &Reject{ReasonOwnSource, 7, 0, 0}})
	g.allows(true)
}

func TestGateListensFirst(t *testing.T) {
	listen := func(c *GateConfig) { c.Listen = sec }
	g := newGate(t, listen)
	g.allows(false)
	g.wakes(sec, Resume{})

	heard := newGate(t, listen)
	heard.after(500 * ms).step(heard.advert(lowAddr, 255)) // not allowed before, not allowed now
	heard.wakes(500 * ms)
	heard.allows(false)
	heard.wakes(down254-500*ms, Resume{})
}

// Without an interface to send from the gate narrows nothing; a claim runs out as it would.
func TestGateLinkDown(t *testing.T) {
	g := newGate(t)
	g.step(LinkDown{})
	g.allows(true)
	g.step(g.advert(lowAddr, 254), Yield{rivalOf(lowAddr, 254)}) // no address of ours to be higher
	g.wakes(down254, Resume{})
}

// A pause of the process makes nobody else silent.
func TestGateListensOnceMoreAfterAPause(t *testing.T) {
	g := newGate(t)
	g.step(g.advert(lowAddr, 255), Yield{rivalOf(lowAddr, 255)})
	g.after(down254 + sec + 1).step(Tick{})
	g.allows(false)
	g.wakes(sec+skew254, Resume{})

	little := newGate(t) // a little late is no pause
	little.step(little.advert(lowAddr, 255), Yield{rivalOf(lowAddr, 255)})
	little.after(down254+sec).step(Tick{}, Resume{})

	again := newGate(t)
	again.step(again.advert(lowAddr, 255), Yield{rivalOf(lowAddr, 255)})
	again.after(10 * sec).step(Tick{})
	again.after(10*sec).step(Tick{}, Resume{})
}

// RFC 9568, section 8.4.2: the version 2 copy of a claim does not make it longer.
func TestGateBothVersions(t *testing.T) {
	g := newGate(t, func(c *GateConfig) { c.Virtual.AlsoV2, c.Virtual.Interval = true, 50 })
	g.step(g.advert(lowAddr, 255), Yield{Rival{lowAddr, 255, 50}})
	copied := Received{From: lowAddr, Advert: g.g.cfg.Virtual.Advert(V2, 255)}
	g.after(sec - 1).step(copied)
	if by, _ := g.g.Outranked(); by.Interval != 50 {
		t.Errorf("the copy was taken for the claim: %+v", by)
	}
	g.after(1).step(copied) // two intervals after the last of version 3: that has stopped
	g.wakes(down254, Resume{})
}

// However claims and releases alternate, and from however many sources: two changes in an interval at most, and no more
// claims are kept than there is room for.
func TestGateDoesNotFlap(t *testing.T) {
	for _, sources := range []int{1, 3, 200} {
		for _, every := range []time.Duration{100 * time.Microsecond, 9 * ms, 50 * ms} {
			g := newGate(t)
			changes := 0
			const span = 60 * sec
			for i, at := 0, time.Duration(0); at < span; i, at = i+1, at+every {
				from := netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i/2%sources)})
				p := Owner
				if i%2 == 1 {
					p = Release
				}
				effects := g.g.Step(g.now, g.advert(from, p))
				if due, ok := g.g.Wake(); ok && due <= g.now {
					effects = append(effects, g.g.Step(g.now, Tick{})...)
				}
				for _, e := range effects {
					switch e.(type) {
					case Yield, Resume:
						changes++
					}
				}
				if len(g.g.rivals) > maxRivals {
					t.Fatalf("%d claims are kept", len(g.g.rivals))
				}
				g.after(every)
			}
			if limit := 2 * int(span/sec); changes < 1 || changes > limit {
				t.Errorf("%d sources, one packet each %v: %d changes in %v, want 1 to %d", sources, every, changes, span, limit)
			}
		}
	}
}

// Claims beyond those that there is room for: the ones with the longest time to run decide.
func TestGateManyRivals(t *testing.T) {
	g := newGate(t)
	g.step(g.advert(lowAddr, 255), Yield{rivalOf(lowAddr, 255)})
	for i := range 3 * maxRivals {
		g.after(ms).step(g.advert(netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)}), 255))
	}
	last := g.now
	for {
		at, ok := g.g.Wake()
		if !ok {
			break
		}
		g.now = at
		g.g.Step(at, Tick{})
		if g.g.Allows() != (at == last.Add(down254)) {
			t.Fatalf("at %v after the last claim: Allows = %v", at.Sub(last), g.g.Allows())
		}
	}
}

func TestNewGateRefuses(t *testing.T) {
	for want, edit := range map[string]func(*GateConfig){
		"vrid is 0":                func(c *GateConfig) { c.Virtual.VRID = 0 },
		"priority is 0":            func(c *GateConfig) { c.Priority = 0 },
		"outranked is policy(0)":   func(c *GateConfig) { c.Outranked = 0 },
		"time to listen is -1s":    func(c *GateConfig) { c.Listen = -sec },
		"must be yield or hold":    func(c *GateConfig) { c.Outranked = 3 },
		"there is no VRRP version": func(c *GateConfig) { c.Virtual.Version = 0 },
	} {
		if g, err := NewGate(0, gateConfig(edit)); err == nil || g != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want one with %q", err, want)
		}
	}
}
