package vrrpcompat

import (
	"fmt"
	"net/netip"
	"time"
)

// RouterConfig is how a Router is set up (RFC 9568, section 6.1).
type RouterConfig struct {
	Virtual Virtual
	// Priority is 1 to 255; 255 says that the addresses are this host's own.
	Priority Priority
	// Preempt takes over from a living Active router of a lower priority. The owner of the addresses always does.
	Preempt bool
	// PreemptDelay is for how long such a router is left alone after it was first heard. Zero: not at all. RFC 9568 has no such
	// delay; it serves a host that comes back and needs a moment until it can do the work.
	PreemptDelay time.Duration
	// Accept takes packets to the addresses although this host is not their owner.
	Accept bool
}

// A Router is the state machine of one virtual router on one interface, for a node that is a VRRP router in its own
// right (RFC 9568, section 6.4; for version 2 RFC 3768, section 6.4). Step is the only thing that changes it.
//
// It goes beyond the letter in these points, all on the side of fewer Active routers or fewer packets:
//
//   - A losing advert is answered at once in version 2 as well, as keepalived does. Answers are at most ten in an interval.
//   - While a Skew_Time runs after a priority 0, another priority 0 does not start it anew.
//   - A Tick that comes late by more than an interval finds this host deaf rather than the Active router silent: it
//     listens for one more interval and the Skew_Time, once.
//   - Adverts never touch the advert timer, refused ones touch no timer at all: nobody can talk a Router into silence.
type Router struct {
	cfg      RouterConfig
	priority Priority
	wanted   bool
	source   netip.Addr // zero: no adverts can be sent
	state    State

	// In Backup: the timer runs out at since + what wait says, computed when asked, so that a new priority counts at once.
	since  Instant
	wait   wait
	active activeRouter

	delaying     bool // a living router of a lower priority was heard
	preemptAfter Instant

	// In Active.
	advertAt Instant
	contest  contest
}

// An activeRouter is what a Backup has learned of the router that is Active.
type activeRouter struct {
	version  Version
	interval Centis
	// v3From and v3Until say whose version 2 adverts are copies of version 3 ones: two intervals long, so that they count
	// again before the timer runs out if the version 3 ones end.
	v3From  netip.Addr
	v3Until Instant
}

// A wait is what a Backup waits for. Zero is invalid.
type wait uint8

const (
	_        wait = iota
	downWait      // the Active_Down_Interval
	skewWait      // the Skew_Time, after a priority 0
	deafWait      // one interval and the Skew_Time, after a Tick that came late
)

// A claim is with what a router stands for election.
type claim struct {
	priority Priority
	from     netip.Addr
}

// NewRouter returns a Router in Initialize, without an interface. The error names the field, the value and the bound.
func NewRouter(cfg RouterConfig) (*Router, error) {
	if err := cfg.Virtual.Validate(); err != nil {
		return nil, err
	}
	if cfg.Priority == 0 {
		return nil, fmt.Errorf("virtual router %d: priority is 0, must be 1 to 255: 0 is how a router says that it stops", cfg.Virtual.VRID)
	}
	if cfg.PreemptDelay < 0 {
		return nil, fmt.Errorf("virtual router %d: preempt delay is %s, must not be negative", cfg.Virtual.VRID, cfg.PreemptDelay)
	}
	return &Router{cfg: cfg, priority: cfg.Priority, state: Initialize}, nil
}

// State returns where the router stands.
func (r *Router) State() State { return r.state }

// Priority returns the priority that the router has now.
func (r *Router) Priority() Priority { return r.priority }

// Wake returns the instant at which a Tick has something to do, and false if none has. It may change with every Step.
func (r *Router) Wake() (Instant, bool) {
	switch r.state {
	case Backup:
		return r.downAt(), true
	case Active:
		at, have := r.contest.wake()
		return earliest(r.advertAt, true, at, have)
	}
	return 0, false
}

// Step tells the router what happened and returns what to do about it, in order. Instants must not go back.
func (r *Router) Step(now Instant, ev Event) []Effect {
	switch ev := ev.(type) {
	case Startup:
		r.wanted = true
		return r.start(now, CauseStartup)
	case Shutdown:
		r.wanted = false
		return r.stop(CauseShutdown)
	case LinkUp:
		return r.linkUp(now, ev.Source.WithZone(""))
	case LinkDown:
		r.source = netip.Addr{}
		return r.stop(CauseLinkDown)
	case Received:
		return r.received(now, ev)
	case SetPriority:
		r.setPriority(ev.Priority)
	case Tick:
		return r.tick(now)
	}
	return nil
}

func (r *Router) linkUp(now Instant, source netip.Addr) []Effect {
	if FamilyOf(source) != r.cfg.Virtual.Family || source.IsUnspecified() {
		return r.Step(now, LinkDown{})
	}
	r.source = source
	return r.start(now, CauseLinkUp)
}

// setPriority keeps the owner and everybody else apart, as the RFC does: the one is 255, the others never are. A
// Backup's timer follows, since downAt asks; an Active router says it in its next advert.
func (r *Router) setPriority(p Priority) {
	if r.cfg.Priority != Owner {
		r.priority = min(max(p, 1), Owner-1)
	}
}

// start is section 6.4.1.
func (r *Router) start(now Instant, why Cause) []Effect {
	if r.state != Initialize || !r.wanted || !r.source.IsValid() {
		return nil
	}
	if r.priority == Owner {
		return r.becomeActive(now, why)
	}
	v := &r.cfg.Virtual
	r.active = activeRouter{version: v.Version, interval: v.Interval}
	r.since, r.wait = now, downWait
	return r.enter(Backup, why)
}

// stop is the Shutdown event of sections 6.4.2 and 6.4.3. The addresses are given up before the advert that says so, and
// where no advert can be sent there is none.
func (r *Router) stop(why Cause) []Effect {
	var out []Effect
	switch r.state {
	case Initialize:
		return nil
	case Active:
		out = append(out, Unbind{})
		if r.source.IsValid() {
			out = append(out, Send{Release})
		}
	}
	return append(out, r.enter(Initialize, why)...)
}

// enter changes the state and forgets what belonged to the old one.
func (r *Router) enter(s State, why Cause) []Effect {
	from := r.state
	r.state, r.delaying, r.contest = s, false, contest{}
	return []Effect{Changed{from, s, why}}
}

// becomeActive is what all ways to Active have in common: the advert first, so that another Active router falls silent
// before we answer.
func (r *Router) becomeActive(now Instant, why Cause) []Effect {
	r.advertAt = now.Add(r.cfg.Virtual.Interval.Duration())
	out := []Effect{Send{r.priority}, Bind{r.cfg.Accept || r.priority == Owner}, Announce{}}
	return append(out, r.enter(Active, why)...)
}

// downAt is when the Active_Down_Timer fires.
func (r *Router) downAt() Instant {
	v, interval := r.active.version, r.active.interval
	d := v.Skew(r.priority, interval)
	switch r.wait {
	case downWait:
		d = v.DownInterval(r.priority, interval)
	case deafWait:
		d += interval.Duration()
	}
	return r.since.Add(d)
}

func (r *Router) tick(now Instant) []Effect {
	switch r.state {
	case Backup:
		return r.tickBackup(now)
	case Active:
		return r.tickActive(now)
	}
	return nil
}

func (r *Router) tickBackup(now Instant) []Effect {
	due := r.downAt()
	switch {
	case now < due:
		return nil
	case r.wait != deafWait && now.Sub(due) > r.active.interval.Duration():
		r.since, r.wait = now, deafWait
		return nil
	case r.wait == skewWait:
		return r.becomeActive(now, CauseReleased)
	}
	return r.becomeActive(now, CauseSilence)
}

func (r *Router) tickActive(now Instant) []Effect {
	var out []Effect
	if now >= r.advertAt {
		r.advertAt = laterOf(r.advertAt, now, r.cfg.Virtual.Interval.Duration())
		out = append(out, Send{r.priority})
	}
	if r.contest.over(now) {
		out = append(out, Announce{})
	}
	return out
}

func (r *Router) received(now Instant, ev Received) []Effect {
	if r.state == Initialize {
		return nil
	}
	from, self, a := ev.From.WithZone(""), ev.self(r.source), ev.Advert
	if reject := r.cfg.Virtual.Refuse(a, from, self); reject != nil {
		return []Effect{Refused{from, reject}}
	}
	if a.Version == V2 && from == r.active.v3From && now < r.active.v3Until {
		return nil // the same said again for older routers (RFC 9568, section 8.4.2)
	}
	var out []Effect
	if a.Priority == Owner && r.cfg.Priority == Owner {
		out = append(out, OwnerConflict{from})
	}
	if r.state == Backup {
		r.backupHears(now, from, a)
		return out
	}
	return append(out, r.activeHears(now, from, self, a)...)
}

// backupHears is the ADVERTISEMENT of section 6.4.2.
func (r *Router) backupHears(now Instant, from netip.Addr, a Advert) {
	switch {
	case a.Priority == Release:
		if r.wait != skewWait {
			r.since, r.wait = now, skewWait
		}
	case a.Priority >= r.priority:
		r.delaying = false
		r.follow(now, from, a)
	case !r.preempts(now):
		r.follow(now, from, a)
	}
}

// preempts reports whether an advert of a lower priority is to be discarded, so that the timer runs out.
func (r *Router) preempts(now Instant) bool {
	switch {
	case r.cfg.Priority == Owner:
		return true
	case !r.cfg.Preempt:
		return false
	case !r.delaying:
		r.delaying, r.preemptAfter = true, now.Add(r.cfg.PreemptDelay)
	}
	return now >= r.preemptAfter
}

// follow takes the sender for the Active router.
func (r *Router) follow(now Instant, from netip.Addr, a Advert) {
	r.active.version, r.active.interval = a.Version, a.Interval
	r.since, r.wait = now, downWait
	if a.Version == V3 && r.cfg.Virtual.AlsoV2 {
		r.active.v3From, r.active.v3Until = from, now.Add(2*a.Interval.Duration())
	}
}

// activeHears is the ADVERTISEMENT of section 6.4.3.
func (r *Router) activeHears(now Instant, from, self netip.Addr, a Advert) []Effect {
	v := &r.cfg.Virtual
	switch {
	case a.Priority == Release:
		if !r.contest.mayAnswer(now, v.Interval) {
			return nil
		}
		r.advertAt = now.Add(v.Interval.Duration())
		return []Effect{Send{r.priority}}
	case claim{a.Priority, from}.outranks(claim{r.priority, self}):
		r.follow(now, from, a)
		return append([]Effect{Unbind{}}, r.enter(Backup, CauseOutranked)...)
	}
	var out []Effect
	if r.contest.mayAnswer(now, v.Interval) {
		out = append(out, Send{r.priority})
	}
	if r.contest.claimed(now, a.Interval) {
		out = append(out, Announce{})
	}
	return out
}
