package vrrpcompat

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func toBackup() []Effect { return []Effect{Unbind{}, Changed{Active, Backup, CauseOutranked}} }

func TestActive_6_4_3_L655_Shutdown(t *testing.T) {
	g := active(t)
	// 665, 670: silent on the addresses before the others are told to take them
	g.step(Shutdown{}, Unbind{}, Send{Release}, Changed{Active, Initialize, CauseShutdown})
	g.idle() // 660
	g.step(g.advert(highAddr, 200))
}

func TestActive_6_4_3_L680_AdverTimer(t *testing.T) {
	g := active(t)
	for range 5 {
		g.due(sec)
		g.wakes(Send{100}) // 685, 690
	}
}

// A Tick that comes late is followed by one on the old beat; one that comes very late does not make up for lost adverts.
func TestActive_6_4_3_L690_KeepsTheBeat(t *testing.T) {
	g := active(t)
	g.after(sec+300*ms).step(Tick{}, Send{100})
	g.due(700 * ms)
	g.after(10*sec).step(Tick{}, Send{100})
	g.due(sec)
	g.after(2*sec).step(Tick{}, Send{100}) // the next is due this instant: it was missed
	g.due(sec)
}

// 685: the interval is our own, whatever a router sent that was Active before us.
func TestActive_6_4_3_L685_OwnInterval(t *testing.T) {
	g := backup(t, func(c *RouterConfig) { c.Virtual.Interval = 25 })
	g.step(g.every(300, highAddr, 200))
	g.wakes(toActive(CauseSilence)...)
	g.due(250 * ms)
}

func TestActive_6_4_3_L705_PriorityZeroIsAnswered(t *testing.T) {
	g := active(t)
	g.after(400*ms).step(g.advert(highAddr, Release), Send{100}) // 710
	g.due(sec)                                                   // 715
	g.in(Active)
}

func TestActive_6_4_3_L725_HigherPriorityWins(t *testing.T) {
	g := active(t)
	g.after(400*ms).step(g.every(200, lowAddr, 101), toBackup()...) // 740, 765, and no priority 0
	g.due(2 * down100)                                              // 745 to 760
}

func TestActive_6_4_3_L735_EqualPriorityHigherAddressWins(t *testing.T) {
	g := active(t)
	g.step(g.advert(highAddr, 100), toBackup()...)
}

func TestActive_6_4_3_L735_EqualPriorityLowerAddressLoses(t *testing.T) {
	g := active(t)
	g.step(g.advert(lowAddr, 100), Send{100}, Announce{})
	g.in(Active)
}

// RFC 9568, section 6.4.3: unsigned, in network byte order.
func TestActive_6_4_3_L735_AddressesAreUnsigned(t *testing.T) {
	for _, c := range []struct {
		ours, theirs string
		theyWin      bool
	}{
		{"10.0.0.1", "192.0.2.1", true},
		{"192.0.2.1", "10.0.0.1", false},
		{"127.255.255.255", "128.0.0.0", true},
		{"9.0.0.0", "10.0.0.0", true}, // as text it would be the other way round
		{"10.0.0.255", "10.0.1.0", true},
		{"10.0.1.0", "10.0.0.255", false},
	} {
		g := newRig(t)
		g.step(LinkUp{netip.MustParseAddr(c.ours)})
		g.r.Step(g.now, Startup{})
		g.wakes()
		g.r.Step(g.now, g.advert(netip.MustParseAddr(c.theirs), 100))
		if won := g.r.State() == Backup; won != c.theyWin {
			t.Errorf("%s against our %s: they win = %v, want %v", c.theirs, c.ours, won, c.theyWin)
		}
	}
}

func TestActive_6_4_3_L735_IPv6(t *testing.T) {
	g := newRig(t, func(c *RouterConfig) {
		c.Virtual.Family, c.Virtual.Addresses = IPv6, addrs("fe80::7", "2001:db8::7")
	})
	g.step(LinkUp{ourAddr6.WithZone("eth0")})
	g.r.Step(g.now, Startup{})
	g.wakes()
	g.step(g.advert(ourAddr6.WithZone("eth1"), 100), Refused{ourAddr6, &Reject{ReasonOwnSource, 7, 0, 0}})
	g.step(g.advert(highAddr6.WithZone("eth0"), 100), toBackup()...)
}

// 770: the advert is discarded, and answered at once so that bridges learn again where we are; the Adver_Timer runs on.
func TestActive_6_4_3_L775_LosingAdvertIsAnswered(t *testing.T) {
	for name, edit := range map[string]func(*RouterConfig){"v3": func(*RouterConfig) {}, "v2, as keepalived does": asV2} {
		t.Run(name, func(t *testing.T) {
			g := active(t, edit)
			g.after(300*ms).step(g.advert(highAddr, 99), Send{100}, Announce{})
			g.due(700 * ms)
			g.wakes(Send{100})
		})
	}
}

// When the loser has fallen silent the addresses are announced again: it had announced them too.
func TestActive_AnnouncesAgainWhenTheLoserHasFallenSilent(t *testing.T) {
	g := active(t)
	g.after(300*ms).step(g.advert(lowAddr, 99), Send{100}, Announce{})
	g.after(500*ms).step(g.advert(lowAddr, 99), Send{100}) // it goes on: answered, and not announced again
	g.after(200*ms).step(Tick{}, Send{100})
	g.after(sec).step(Tick{}, Send{100})
	g.due(300 * ms) // 1.5 s after its last
	g.wakes(Announce{})
	g.due(700 * ms)
	g.wakes(Send{100})
	g.step(g.advert(lowAddr, 99), Send{100}, Announce{}) // and all over again
}

// A flood does not make us flood, and does not silence us.
func TestActive_FloodOfLosingAdverts(t *testing.T) {
	for name, p := range map[string]Priority{"losing": 99, "releases": Release} {
		t.Run(name, func(t *testing.T) {
			g := active(t)
			sent, announced := 0, 0
			var gap, last time.Duration
			const every = 100 * time.Microsecond // 10,000 a second
			for at := time.Duration(0); at < 10*sec; at += every {
				effects := g.r.Step(g.now, g.advert(lowAddr, p))
				if due, _ := g.r.Wake(); due <= g.now {
					effects = append(effects, g.r.Step(g.now, Tick{})...)
				}
				for _, e := range effects {
					switch e.(type) {
					case Send:
						gap, last = max(gap, at-last), at
						sent++
					case Announce:
						announced++
					}
				}
				g.after(every)
			}
			g.in(Active)
			if sent < 10 || sent > 120 || gap > sec || announced > 1 {
				t.Errorf("in ten intervals %d adverts with gaps up to %v and %d announcements; want 10 to 120, 1s, at most 1", sent, gap, announced)
			}
		})
	}
}

func TestActive_RefusedAdvertsAreNotAnswered(t *testing.T) {
	g := active(t)
	ev := g.advert(highAddr, 200)
	ev.Advert.Version = V2
	g.after(300*ms).step(ev, Refused{highAddr, &Reject{ReasonVersionMismatch, 7, 2, 3}})
	g.step(g.advert(ourAddr, 255), Refused{ourAddr, &Reject{ReasonOwnSource, 7, 0, 0}})
	g.due(700 * ms)
	g.in(Active)
}

// Erratum 8298: two owners are a mistake to report, and settle it as others do.
func TestActive_TwoOwners(t *testing.T) {
	for _, c := range []struct {
		from netip.Addr
		want []Effect
	}{
		{lowAddr, []Effect{OwnerConflict{lowAddr}, Send{255}, Announce{}}},
		{highAddr, []Effect{OwnerConflict{highAddr}, Unbind{}, Changed{Active, Backup, CauseOutranked}}},
	} {
		g := newRig(t, asOwner)
		g.step(LinkUp{ourAddr})
		g.r.Step(g.now, Startup{})
		g.step(g.advert(c.from, Owner), c.want...)
	}
}

func TestActive_LinkDown(t *testing.T) {
	g := active(t)
	g.step(LinkDown{}, Unbind{}, Changed{Active, Initialize, CauseLinkDown}) // no advert: it could not leave
	g.idle()
	g.after(sec).step(LinkUp{ourAddr}, Changed{Initialize, Backup, CauseLinkUp})
	g.due(down100)
}

func TestActive_LinkDownAndShutdown(t *testing.T) {
	g := active(t)
	g.step(LinkUp{ourAddr6}, Unbind{}, Changed{Active, Initialize, CauseLinkDown}) // not of our family: no source
	g.step(Shutdown{})
	g.step(LinkUp{ourAddr})
	g.in(Initialize)
}

// The source is what the tie is broken with, from the moment that it changes.
func TestActive_SourceChanges(t *testing.T) {
	g := active(t)
	g.step(LinkUp{netip.MustParseAddr("192.0.2.200")})
	g.step(g.advert(highAddr, 100), Send{100}, Announce{})
	g.step(LinkUp{lowAddr})
	g.after(sec).step(g.advert(highAddr, 100), toBackup()...)
}

// Where the advert says what we answer its sender from, that decides, and not what others hear.
func TestActive_TieByUnicastSource(t *testing.T) {
	v6 := func(c *RouterConfig) { c.Virtual.Family, c.Virtual.Addresses = IPv6, addrs("fe80::7", "2001:db8::7") }
	theirs := netip.MustParseAddr("2001:db8::104")
	for self, want := range map[string]State{"": Active, "2001:db8::3": Backup, "2001:db8::200": Active, "::": Backup} {
		g := newRig(t, v6)
		g.step(LinkUp{ourAddr6}) // link-local: above all global ones
		g.r.Step(g.now, Startup{})
		g.wakes()
		ev := g.advert(theirs, 100)
		if self != "" {
			ev.Self = netip.MustParseAddr(self)
		}
		g.r.Step(g.now, ev)
		if got := g.r.State(); got != want {
			t.Errorf("heard %v where we speak from %q: %v, want %v", theirs, self, got, want)
		}
	}
	g := active(t)
	ev := g.advert(highAddr, 255)
	ev.Self = highAddr
	g.step(ev, Refused{highAddr, &Reject{ReasonOwnSource, 7, 0, 0}})
}

func TestActive_SetPriority(t *testing.T) {
	g := active(t)
	g.after(sec / 2).step(SetPriority{90})
	g.after(sec/2).step(Tick{}, Send{90})
	g.step(g.advert(lowAddr, 91), toBackup()...)
	g.step(SetPriority{100})
	g.after(sec).step(g.advert(lowAddr, 91)) // lower than ours again: discarded
	g.due(down100 - sec)
}

// RFC 9568, section 8.4.2: both versions are heard, and a version 2 copy of a version 3 advert counts for nothing.
func TestBothVersions(t *testing.T) {
	both := func(c *RouterConfig) { c.Virtual.AlsoV2, c.Virtual.Interval = true, 50 }
	v2 := func(g *rig, from netip.Addr, p Priority) Received {
		return Received{From: from, Advert: g.r.cfg.Virtual.Advert(V2, p)}
	}
	g := backup(t, both)
	g.step(v2(g, highAddr, 200)) // an older router: three of its seconds, and its skew
	g.due(down100)
	g.after(sec).step(v2(g, highAddr, 200)) // no copy of anything
	g.due(down100)
	g.after(3 * sec).step(g.advert(highAddr, 200)) // the newer version of it
	g.due(down100 / 2)
	g.after(sec - 1).step(v2(g, highAddr, 200)) // a copy, for two intervals
	g.due(down100/2 - sec + 1)
	g.after(1).step(v2(g, highAddr, 200)) // its version 3 adverts have stopped
	g.due(down100)
	g.step(g.advert(highAddr, 200))
	g.step(v2(g, lowAddr, 200)) // another router
	g.due(down100)
}

func TestNewRouterRefuses(t *testing.T) {
	for want, edit := range map[string]func(*RouterConfig){
		"vrid is 0":            func(c *RouterConfig) { c.Virtual.VRID = 0 },
		"priority is 0":        func(c *RouterConfig) { c.Priority = 0 },
		"preempt delay is -1s": func(c *RouterConfig) { c.PreemptDelay = -sec },
	} {
		if r, err := NewRouter(config(edit)); err == nil || r != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want one with %q", err, want)
		}
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for c := Cause(1); c < causeEnd; c++ {
		if name := c.String(); name == "" || strings.HasPrefix(name, "cause(") || seen[name] {
			t.Errorf("cause %d has the name %q", c, name)
		}
		seen[c.String()] = true
	}
	for got, want := range map[string]string{
		Cause(0).String(): "cause(0)", causeEnd.String(): "cause(8)",
		Initialize.String(): "Initialize", Backup.String(): "Backup", Active.String(): "Active", State(0).String(): "state(0)",
		V2.String(): "2", V3.String(): "3", Version(7).String(): "version(7)",
		Plain.String(): "plain", PseudoHeader.String(): "pseudo-header", GroupPseudoHeader.String(): "group-pseudo-header", Checksum(0).String(): "checksum(0)",
	} {
		if got != want {
			t.Errorf("prints %q, want %q", got, want)
		}
	}
}
