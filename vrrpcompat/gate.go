package vrrpcompat

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// A Policy is what the holder of a lease does when a router outside the cluster outranks it. Zero is invalid.
type Policy uint8

const (
	_ Policy = iota
	// PolicyYield stays Backup until that router is gone.
	PolicyYield
	// PolicyHold keeps the addresses and raises an alarm.
	PolicyHold
)

// String returns "yield" or "hold", which is how the configuration writes it.
func (p Policy) String() string {
	switch p {
	case PolicyYield:
		return "yield"
	case PolicyHold:
		return "hold"
	}
	return fmt.Sprintf("policy(%d)", uint8(p))
}

// GateConfig is how a Gate is set up.
type GateConfig struct {
	Virtual Virtual
	// Priority is what the cluster's adverts say, 1 to 255.
	Priority Priority
	// Outranked says what to do about a router with a better claim.
	Outranked Policy
	// Listen is for how long a new Gate allows nothing, so that a router which is Active already is heard before it is contradicted.
	// One advert interval finds it, unless an advert is lost. Zero: not at all; then the two may both answer until its next advert.
	Listen time.Duration
}

// A Gate is the last of the three decisions on who answers: Raft has named this node or another, the lease says whether
// now, and the Gate says whether a router outside the cluster has a better claim (design, section 3.5). It knows nothing
// of the other two and can only narrow them: the caller opens a group only while the lease and all the group's Gates
// allow it. There is one Gate for each virtual router (interface, family and VRID) on every node, whether it holds the lease or not, so that a
// new holder knows at once who is there. Step is the only thing that changes it.
//
// A router outside outranks us if it sends adverts that Virtual.Refuse accepts, with a higher priority, or an equal one
// and a higher address. Such a claim stands until that router was silent for the Active_Down_Interval that a backup of our
// priority would wait. An advert with which it does not outrank us does not end the claim and does not prolong it, as in a
// Backup that preempts: it is still Active, and loses nothing by going on until then. Priority 0 ends the claim after our Skew_Time.
//
// Hysteresis: a claim stands for at least one interval of the claimant from when it was first heard, whatever it sends
// after that. So the verdict changes twice in an advert interval at most, however adverts and releases alternate. Coming
// back is never put off for longer, because nobody may be answering meanwhile.
//
// The adverts of the cluster's own nodes are not claims. Until the caller has named those nodes by Insiders, they cannot be told from
// strangers: name them before the first advert is delivered.
type Gate struct {
	cfg       GateConfig
	source    netip.Addr
	insiders  []netip.Addr
	speaking  bool
	listening bool
	openAt    Instant // when listening ends
	rivals    []rival // the claims that stand, at most maxRivals
	contest   contest
}

// A Rival is a router outside the cluster that outranks us.
type Rival struct {
	From     netip.Addr
	Priority Priority
	Interval Centis
}

// A rival is a Rival's claim.
type rival struct {
	Rival
	version Version
	since   Instant // when it was first heard
	heard   Instant // when it was last heard
	until   Instant // when it ends
	deaf    bool    // it was prolonged once because we woke late
}

// maxRivals bounds how many claims are told apart. More routers than that which all outrank us are a forgery, and then
// those with the longest time to run decide.
const maxRivals = 8

// NewGate returns a Gate that has heard nobody yet. The error names the field, the value and the bound.
func NewGate(now Instant, cfg GateConfig) (*Gate, error) {
	if err := cfg.Virtual.Validate(); err != nil {
		return nil, err
	}
	switch {
	case cfg.Priority == 0:
		return nil, fmt.Errorf("virtual router %d: priority is 0, must be 1 to 255: 0 is how a router says that it stops", cfg.Virtual.VRID)
	case cfg.Outranked != PolicyYield && cfg.Outranked != PolicyHold:
		return nil, fmt.Errorf("virtual router %d: outranked is %v, must be %v or %v", cfg.Virtual.VRID, cfg.Outranked, PolicyYield, PolicyHold)
	case cfg.Listen < 0:
		return nil, fmt.Errorf("virtual router %d: time to listen is %s, must not be negative", cfg.Virtual.VRID, cfg.Listen)
	}
	return &Gate{cfg: cfg, listening: cfg.Listen > 0, openAt: now.Add(cfg.Listen)}, nil
}

// Allows reports whether this node may answer for the addresses, as far as routers outside are concerned.
func (g *Gate) Allows() bool {
	return !g.listening && (g.cfg.Outranked == PolicyHold || len(g.rivals) == 0)
}

// Outranked returns the strongest router outside that outranks us, and false if none does.
func (g *Gate) Outranked() (Rival, bool) {
	if len(g.rivals) == 0 {
		return Rival{}, false
	}
	best := slices.MaxFunc(g.rivals, func(a, b rival) int {
		if (claim{a.Priority, a.From}).outranks(claim{b.Priority, b.From}) {
			return 1
		}
		return -1
	})
	return best.Rival, true
}

// Wake returns the instant at which a Tick has something to do, and false if none has. It may change with every Step.
func (g *Gate) Wake() (at Instant, have bool) {
	at, have = g.contest.wake()
	at, have = earliest(at, have, g.openAt, g.listening)
	for _, r := range g.rivals {
		at, have = earliest(at, have, r.until, true)
	}
	return at, have
}

// Step tells the gate what happened and returns what to do about it, in order. Instants must not go back. As with a
// Router, what the socket holds is delivered before a Tick. Events that only a Router has do nothing.
func (g *Gate) Step(now Instant, ev Event) []Effect {
	switch ev := ev.(type) {
	case LinkUp:
		g.source = ev.Source.WithZone("")
	case LinkDown:
		g.source = netip.Addr{}
	case Insiders:
		return g.setInsiders(ev.From)
	case Speaking:
		if ev.Yes != g.speaking {
			g.speaking, g.contest = ev.Yes, contest{}
		}
	case Received:
		return g.received(now, ev)
	case Tick:
		return g.tick(now)
	}
	return nil
}

// setInsiders takes the claims back that were none: a node that has just joined may have been heard before it was named.
func (g *Gate) setInsiders(from []netip.Addr) []Effect {
	g.insiders = g.insiders[:0]
	for _, a := range from {
		g.insiders = append(g.insiders, a.WithZone(""))
	}
	return g.settle(func() {
		g.rivals = slices.DeleteFunc(g.rivals, func(r rival) bool { return slices.Contains(g.insiders, r.From) })
	})
}

func (g *Gate) received(now Instant, ev Received) []Effect {
	from, self, a := ev.From.WithZone(""), ev.self(g.source), ev.Advert
	if slices.Contains(g.insiders, from) {
		return nil
	}
	if reject := g.cfg.Virtual.Refuse(a, from, self); reject != nil {
		return []Effect{Refused{from, reject}}
	}
	switch {
	case a.Priority == Release:
		return g.released(now, from)
	case claim{a.Priority, from}.outranks(claim{g.cfg.Priority, self}):
		return g.settle(func() { g.claimed(now, from, a) })
	}
	return g.contradict(now, from, a)
}

// claimed takes a claim, or prolongs the one that stands.
func (g *Gate) claimed(now Instant, from netip.Addr, a Advert) {
	i := slices.IndexFunc(g.rivals, func(r rival) bool { return r.From == from })
	if i < 0 {
		i = g.place()
		g.rivals[i] = rival{since: now}
	}
	r := &g.rivals[i]
	if a.Version == V2 && r.version == V3 && now.Sub(r.heard) < 2*r.Interval.Duration() {
		return // the same said again for older routers (RFC 9568, section 8.4.2)
	}
	*r = rival{
		Rival: Rival{from, a.Priority, a.Interval}, version: a.Version, since: r.since,
		heard: now, until: now.Add(a.Version.DownInterval(g.cfg.Priority, a.Interval)),
	}
}

// place returns the index for a new claim: a free one, or that of the claim which would end first.
func (g *Gate) place() int {
	if len(g.rivals) < maxRivals {
		g.rivals = append(g.rivals, rival{})
		return len(g.rivals) - 1
	}
	first := 0
	for i, r := range g.rivals {
		if r.until < g.rivals[first].until {
			first = i
		}
	}
	return first
}

// released is priority 0. A speaker answers it with an advert, since other backups count their Skew_Time from here.
func (g *Gate) released(now Instant, from netip.Addr) []Effect {
	for i := range g.rivals {
		if r := &g.rivals[i]; r.From == from {
			skew := now.Add(r.version.Skew(g.cfg.Priority, r.Interval))
			r.until = min(r.until, max(skew, r.since.Add(r.Interval.Duration())))
		}
	}
	if g.speaking && g.contest.mayAnswer(now, g.cfg.Virtual.Interval) {
		return []Effect{Send{g.cfg.Priority}}
	}
	return nil
}

// contradict answers a router that speaks although we outrank it, where we are the speaker.
func (g *Gate) contradict(now Instant, from netip.Addr, a Advert) []Effect {
	if !g.speaking {
		return nil
	}
	var out []Effect
	if g.contest.mayAnswer(now, g.cfg.Virtual.Interval) {
		out = append(out, Send{g.cfg.Priority})
	}
	if g.contest.claimed(now, a.Interval) {
		out = append(out, Announce{})
	}
	return out
}

func (g *Gate) tick(now Instant) []Effect {
	out := g.settle(func() {
		g.listening = g.listening && now < g.openAt
		g.rivals = slices.DeleteFunc(g.rivals, func(r rival) bool { return now >= r.until && !late(r, now) })
		for i := range g.rivals {
			if r := &g.rivals[i]; now >= r.until {
				r.deaf, r.until = true, now.Add(r.Interval.Duration()+r.version.Skew(g.cfg.Priority, r.Interval))
			}
		}
	})
	if g.contest.over(now) {
		out = append(out, Announce{})
	}
	return out
}

// late reports whether a claim has run out while this process did not run: then we were deaf, and listen for one more
// interval, once.
func late(r rival, now Instant) bool {
	return !r.deaf && now.Sub(r.until) > r.Interval.Duration()
}

// settle makes a change and returns what follows from the change of the verdict.
func (g *Gate) settle(change func()) []Effect {
	allowed, outranked := g.Allows(), len(g.rivals) > 0
	change()
	var out []Effect
	if by, now := g.Outranked(); g.cfg.Outranked == PolicyHold && now != outranked {
		if now {
			out = append(out, Alarm{by})
		} else {
			out = append(out, AlarmOver{})
			if g.speaking {
				out = append(out, Announce{}) // hosts and switches may have believed the other
			}
		}
	}
	switch now := g.Allows(); {
	case now && !allowed:
		out = append(out, Resume{})
	case !now && allowed:
		by, _ := g.Outranked()
		out = append(out, Yield{by})
	}
	return out
}
