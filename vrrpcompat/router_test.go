package vrrpcompat

import (
	"net/netip"
	"reflect"
	"testing"
	"time"
)

// The tests of the state machine are one for each clause, and named by it: section 6.4.x of RFC 9568, and the line of the
// pseudo-code that RFC 5798 numbered, which RFC 9568 has as lists. Where version 2 differs (RFC 3768, section 6.4), the
// name ends in V2.

const ms, sec = time.Millisecond, time.Second

// A rig drives a Router through virtual time.
type rig struct {
	t   *testing.T
	r   *Router
	now Instant
}

// config is a router of priority 100 that preempts, on virtual router 7.
func config(edit ...func(c *RouterConfig)) RouterConfig {
	c := RouterConfig{Virtual: virtual3(), Priority: 100, Preempt: true}
	for _, f := range edit {
		f(&c)
	}
	return c
}

func asV2(c *RouterConfig)      { c.Virtual = virtual2() }
func asOwner(c *RouterConfig)   { c.Priority = Owner }
func noPreempt(c *RouterConfig) { c.Preempt = false }

// newRig starts at an odd instant, so that nothing hides behind a zero.
func newRig(t *testing.T, edit ...func(c *RouterConfig)) *rig {
	t.Helper()
	r, err := NewRouter(config(edit...))
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t, r, 1_000_000_007}
}

// backup and active return a rig in that state; the clock stands where it was entered.
func backup(t *testing.T, edit ...func(c *RouterConfig)) *rig {
	t.Helper()
	g := newRig(t, edit...)
	g.r.Step(g.now, LinkUp{ourAddr})
	g.r.Step(g.now, Startup{})
	g.in(Backup)
	return g
}

func active(t *testing.T, edit ...func(c *RouterConfig)) *rig {
	t.Helper()
	g := backup(t, edit...)
	g.wakes()
	g.in(Active)
	return g
}

// wakes goes to the instant that Wake names and delivers the Tick.
func (g *rig) wakes(want ...Effect) {
	g.t.Helper()
	at, ok := g.r.Wake()
	if !ok || at < g.now {
		g.t.Fatalf("Wake = %d, %v at %d", at, ok, g.now)
	}
	if early := g.r.Step(at-1, Tick{}); len(early) != 0 {
		g.t.Fatalf("a nanosecond early: %+v", early)
	}
	g.now = at
	got := g.r.Step(at, Tick{})
	if want != nil && !reflect.DeepEqual(got, want) {
		g.t.Fatalf("at %d: effects\n %+v, want\n %+v", at, got, want)
	}
}

func (g *rig) after(d time.Duration) *rig { g.now = g.now.Add(d); return g }

// step delivers the event and compares the effects; none given means none wanted.
func (g *rig) step(ev Event, want ...Effect) {
	g.t.Helper()
	if got := g.r.Step(g.now, ev); len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		g.t.Fatalf("%T: effects\n %+v, want\n %+v", ev, got, want)
	}
}

func (g *rig) in(s State) {
	g.t.Helper()
	if g.r.State() != s {
		g.t.Fatalf("state is %v, want %v", g.r.State(), s)
	}
}

// due says how long it is until the next Tick.
func (g *rig) due(want time.Duration) {
	g.t.Helper()
	if at, ok := g.r.Wake(); !ok || at.Sub(g.now) != want {
		g.t.Fatalf("the next tick is due in %v, %v; want in %v", at.Sub(g.now), ok, want)
	}
}

func (g *rig) idle() {
	g.t.Helper()
	if at, ok := g.r.Wake(); ok {
		g.t.Fatalf("a tick is due at %d, want none", at)
	}
}

// advert is one that agrees with the rig's configuration.
func (g *rig) advert(from netip.Addr, p Priority) Received {
	v := g.r.cfg.Virtual
	return Received{From: from, Advert: v.Advert(v.Version, p)}
}

// every is an advert with another interval.
func (g *rig) every(c Centis, from netip.Addr, p Priority) Received {
	ev := g.advert(from, p)
	ev.Advert.Interval = c
	return ev
}

const (
	down100 = 3609375 * time.Microsecond // the Active_Down_Interval of priority 100 at one second
	skew100 = 609375 * time.Microsecond
)

func toActive(why Cause) []Effect {
	return []Effect{Send{100}, Bind{false}, Announce{}, Changed{Backup, Active, why}}
}

func TestInitialize_6_4_1_L100_NothingBeforeStartup(t *testing.T) {
	g := newRig(t)
	g.step(LinkUp{ourAddr})
	g.step(g.advert(highAddr, 200))
	g.step(g.advert(highAddr, Release))
	g.step(Tick{})
	g.step(Shutdown{})
	g.in(Initialize)
	g.idle()
}

func TestInitialize_6_4_1_L105_OwnerBecomesActiveAtOnce(t *testing.T) {
	g := newRig(t, asOwner)
	g.step(LinkUp{ourAddr})
	// 110 send, 120 and 130 announce, 145 transition; 650 of the owner: it accepts
	g.step(Startup{}, Send{255}, Bind{true}, Announce{}, Changed{Initialize, Active, CauseStartup})
	g.due(sec) // 140 Adver_Timer to Advertisement_Interval
}

func TestInitialize_6_4_1_L150_OthersBecomeBackup(t *testing.T) {
	g := newRig(t)
	g.step(LinkUp{ourAddr})
	g.step(Startup{}, Changed{Initialize, Backup, CauseStartup}) // 165
	g.due(down100)                                               // 155, 160: from our own Advertisement_Interval
}

// The learned interval of an earlier life is forgotten.
func TestInitialize_6_4_1_L155_OwnIntervalAfterRestart(t *testing.T) {
	g := backup(t)
	g.step(g.every(400, highAddr, 200))
	g.step(Shutdown{}, Changed{Backup, Initialize, CauseShutdown})
	g.step(Startup{}, Changed{Initialize, Backup, CauseStartup})
	g.due(down100)
}

func TestInitialize_WaitsForTheInterface(t *testing.T) {
	g := newRig(t)
	g.step(Startup{})
	g.in(Initialize)
	g.step(LinkUp{netip.Addr{}})
	g.step(LinkUp{ourAddr6})
	g.step(LinkUp{netip.IPv4Unspecified()})
	g.in(Initialize)
	g.step(LinkUp{ourAddr}, Changed{Initialize, Backup, CauseLinkUp})
	g.step(Startup{}) // again: nothing new
	g.step(LinkUp{ourAddr})
	g.due(down100)
}

func TestBackup_6_4_2_L345_Shutdown(t *testing.T) {
	g := backup(t)
	g.step(Shutdown{}, Changed{Backup, Initialize, CauseShutdown}) // 350, 355: and no advert
	g.idle()
	g.step(Shutdown{})
}

func TestBackup_6_4_2_L365_TimerFires(t *testing.T) {
	g := backup(t)
	g.due(down100)
	// 370 send, 380 and 395 announce, 410 transition
	g.wakes(Send{100}, Bind{false}, Announce{}, Changed{Backup, Active, CauseSilence})
	g.due(sec) // 405
}

func TestBackup_6_4_2_L365_AcceptMode(t *testing.T) {
	g := backup(t, func(c *RouterConfig) { c.Accept = true })
	g.wakes(Send{100}, Bind{true}, Announce{}, Changed{Backup, Active, CauseSilence})
}

func TestBackup_6_4_2_L425_PriorityZeroSetsSkewTime(t *testing.T) {
	for name, edit := range map[string]func(*RouterConfig){"preempt": func(*RouterConfig) {}, "no preempt": noPreempt} {
		t.Run(name, func(t *testing.T) {
			g := backup(t, edit)
			g.after(2 * sec).step(g.advert(lowAddr, Release)) // whoever sent it
			g.due(skew100)
			g.wakes(toActive(CauseReleased)...)
		})
	}
}

// The Skew_Time is a share of the Active router's interval, not of ours and not of the one in the release.
func TestBackup_6_4_2_L430_SkewOfTheLearnedInterval(t *testing.T) {
	g := backup(t)
	g.step(g.every(10, highAddr, 200))
	g.step(g.every(300, highAddr, Release))
	g.due(skew100 / 10)
}

// A stream of releases does not keep a Backup waiting.
func TestBackup_6_4_2_L430_ReleaseAgainDoesNotStartAnew(t *testing.T) {
	g := backup(t)
	g.step(g.advert(highAddr, Release))
	g.after(600 * ms).step(g.advert(highAddr, Release))
	g.due(skew100 - 600*ms)
}

// Somebody better than us speaks before our Skew_Time is over.
func TestBackup_6_4_2_L445_AfterAReleaseTheNextActiveRouterIsFollowed(t *testing.T) {
	g := backup(t)
	g.step(g.advert(highAddr, Release))
	g.after(200 * ms).step(g.advert(lowAddr, 200))
	g.due(down100)
}

func TestBackup_6_4_2_L445_HigherPriorityIsFollowed(t *testing.T) {
	g := backup(t)
	g.after(3 * sec).step(g.advert(highAddr, 101))
	g.due(down100) // 465
}

// Equal is enough for a Backup: no address is compared.
func TestBackup_6_4_2_L445_EqualPriorityIsFollowed(t *testing.T) {
	for _, from := range []netip.Addr{lowAddr, highAddr} {
		g := backup(t)
		g.after(3 * sec).step(g.advert(from, 100))
		g.due(down100)
	}
}

func TestBackup_6_4_2_L445_WithoutPreemptALowerPriorityIsFollowed(t *testing.T) {
	g := backup(t, noPreempt)
	g.after(3 * sec).step(g.advert(lowAddr, 1))
	g.due(down100)
}

// 450 to 465: what is learned is exact to the nanosecond.
func TestBackup_6_4_2_L450_LearnsTheInterval(t *testing.T) {
	for _, c := range []struct {
		interval Centis
		down     time.Duration
	}{
		{1, 36093750 * time.Nanosecond}, // 30 ms + 156/256 of 10 ms
		{33, 1191093750 * time.Nanosecond},
		{300, 10828125 * time.Microsecond},
		{4095, 147803906250 * time.Nanosecond},
	} {
		g := backup(t)
		g.after(sec).step(g.every(c.interval, highAddr, 200))
		g.due(c.down)
		g.wakes(toActive(CauseSilence)...)
		g.due(sec) // as Active it is our own interval again
	}
}

func TestBackup_6_4_2_L470_LowerPriorityIsDiscarded(t *testing.T) {
	g := backup(t)
	g.after(3 * sec).step(g.every(400, highAddr, 99))
	g.due(down100 - 3*sec) // neither the timer nor the interval is touched
	g.wakes(toActive(CauseSilence)...)
}

func TestBackup_6_4_2_TimersV2(t *testing.T) {
	g := backup(t, asV2, func(c *RouterConfig) { c.Virtual.Interval = 300 })
	g.due(9*sec + skew100) // the skew is a share of a second, whatever the interval
	g.step(g.advert(highAddr, Release))
	g.due(skew100)
}

// RFC 3768, section 7.1: the interval must be ours, or the advert counts for nothing.
func TestBackup_6_4_2_OtherIntervalV2(t *testing.T) {
	g := backup(t, asV2)
	g.after(sec).step(g.every(200, highAddr, 200), Refused{highAddr, &Reject{ReasonIntervalMismatch, 7, 200, 100}})
	g.due(down100 - sec)
}

func TestBackup_RefusedAdvertsTouchNoTimer(t *testing.T) {
	g := backup(t)
	ev := g.advert(highAddr, 200)
	ev.Advert.Addresses = addrs("192.0.2.99")
	g.after(sec).step(ev, Refused{highAddr, &Reject{ReasonCollision, 7, 0, 2}})
	ev.Advert.Priority = Release
	g.step(ev, Refused{highAddr, &Reject{ReasonCollision, 7, 0, 2}})
	g.step(g.advert(ourAddr, 200), Refused{ourAddr, &Reject{ReasonOwnSource, 7, 0, 0}})
	g.due(down100 - sec)
}

func TestBackup_LinkDown(t *testing.T) {
	g := backup(t)
	g.step(LinkDown{}, Changed{Backup, Initialize, CauseLinkDown})
	g.idle()
	g.after(sec).step(LinkUp{ourAddr}, Changed{Initialize, Backup, CauseLinkUp})
	g.due(down100)
}

// A new priority counts from the last advert on, as if it had been so then.
func TestBackup_SetPriority(t *testing.T) {
	g := backup(t)
	g.step(g.advert(highAddr, 200))
	g.after(sec).step(SetPriority{228})
	g.due(2*sec + 109375*time.Microsecond) // 3 s + 28/256 s, one of them gone
	g.after(2 * sec).step(SetPriority{1})
	g.due(996093750 * time.Nanosecond)
	g.step(SetPriority{254})
	g.due(7812500 * time.Nanosecond)
	g.wakes(Send{254}, Bind{false}, Announce{}, Changed{Backup, Active, CauseSilence})
}

func TestSetPriorityKeepsOwnersApart(t *testing.T) {
	g := newRig(t)
	for set, want := range map[Priority]Priority{0: 1, 1: 1, 254: 254, 255: 254} {
		g.step(SetPriority{set})
		if got := g.r.Priority(); got != want {
			t.Errorf("SetPriority(%d) gives %d, want %d", set, got, want)
		}
	}
	o := newRig(t, asOwner)
	o.step(SetPriority{10})
	if got := o.r.Priority(); got != Owner {
		t.Errorf("an owner's priority became %d", got)
	}
}

func TestPreemptDelay(t *testing.T) {
	g := backup(t, func(c *RouterConfig) { c.PreemptDelay = 30 * sec })
	for range 31 { // heard at 1 s to 31 s; the delay ends at the last
		g.after(sec).step(g.advert(lowAddr, 50))
		if elapsed := g.now.Sub(1_000_000_007); elapsed < 31*sec {
			g.due(down100)
		}
	}
	g.due(down100 - sec) // discarded now: what is left of the timer runs
	g.after(sec).step(g.advert(lowAddr, 50))
	g.due(down100 - 2*sec)
	g.wakes(toActive(CauseSilence)...)
}

func TestPreemptDelay_BeginsAnewAfterABetterRouter(t *testing.T) {
	g := backup(t, func(c *RouterConfig) { c.PreemptDelay = 2 * sec })
	g.step(g.advert(lowAddr, 50))
	g.after(sec).step(g.advert(highAddr, 100))
	g.after(sec).step(g.advert(lowAddr, 50)) // two seconds after the first, and followed again
	g.due(down100)
}

// The delay is for a living router only.
func TestPreemptDelay_DoesNotHoldUpATakeover(t *testing.T) {
	g := backup(t, func(c *RouterConfig) { c.PreemptDelay = 300 * sec })
	g.step(g.advert(lowAddr, 50))
	g.wakes(toActive(CauseSilence)...)
}

// RFC 9568, section 6.1, Preempt_Mode: the owner preempts in any case, and at once.
func TestOwnerAlwaysPreempts(t *testing.T) {
	g := newRig(t, asOwner, noPreempt, func(c *RouterConfig) { c.PreemptDelay = 30 * sec })
	g.step(LinkUp{ourAddr})
	g.step(Startup{}, Send{255}, Bind{true}, Announce{}, Changed{Initialize, Active, CauseStartup})
	g.step(g.advert(highAddr, Owner), OwnerConflict{highAddr}, Unbind{}, Changed{Active, Backup, CauseOutranked})
	g.after(sec).step(g.advert(lowAddr, 254)) // the other owner has gone, its backup has taken over
	g.due(2*sec + 3906250)
}

// A Tick that comes late by more than an interval: the process was stopped, and heard nobody for that reason.
func TestBackup_ListensOnceMoreAfterAPause(t *testing.T) {
	g := backup(t)
	g.after(down100 + sec + 1).step(Tick{})
	g.in(Backup)
	g.due(sec + skew100)
	g.after(5*sec).step(Tick{}, toActive(CauseSilence)...) // late again: once is enough
}

func TestBackup_ALittleLateIsNotAPause(t *testing.T) {
	g := backup(t)
	g.after(down100+sec).step(Tick{}, toActive(CauseSilence)...)
}

func TestBackup_PauseInTheSkewTime(t *testing.T) {
	g := backup(t)
	g.step(g.advert(highAddr, Release))
	g.after(skew100 + sec + 1).step(Tick{})
	g.due(sec + skew100)
	g.step(g.advert(highAddr, 200))
	g.due(down100)
}
