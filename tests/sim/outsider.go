package sim

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/vrrpcompat"
)

// outsideAddr is from where a router outside the cluster sends: higher than every host.
var outsideAddr = map[vrrpcompat.Family]netip.Addr{
	vrrpcompat.IPv4: netip.MustParseAddr("10.0.0.250"), vrrpcompat.IPv6: netip.MustParseAddr("fe80::fa"),
}

// outsideInterval is how often that one advertises, when it does, and the cluster.
const outsideInterval = 200 * time.Millisecond

// ears is what one process hears of VRRP.
type ears struct {
	serves map[string][]core.Virtual // by group
	// outranked is the true time at which a better claim on a group was last put into
	// the mailbox, and taken that at which the last turn that took mail began and ended.
	outranked map[string]time.Duration
	taken     time.Duration
}

// RunOutsider makes the run of a seed with a router outside that claims now and then.
// No host may open a group while a better claim stands which it has heard. Documents do
// not change meanwhile: a new virtual router has heard nobody.
func RunOutsider(seed uint64, outranked fsm.Outranked, story bool) *Chaos {
	env := chaosEnv(seed)
	env.Outsider, env.Weights.Document, env.Weights.Member = true, 0, 0
	for i := range env.Document.Groups {
		g := &env.Document.Groups[i]
		g.VRRP.Interval, g.VRRP.Outranked = outsideInterval, outranked
	}
	return runChaos(env, seed, story)
}

// outside has the router speak for a while, and fall silent for a while.
func (x *Chaos) outside() {
	if x.healed {
		return
	}
	if x.chance(0.05) {
		x.outsider = [...]vrrpcompat.Priority{0, 0, 100, 254, 255}[x.rng.IntN(5)]
		x.tell("the router outside has priority %d", x.outsider)
	}
	if x.outsider != 0 {
		for _, h := range x.hosts {
			if h.up() && !h.dead && !x.chance(0.1) {
				h.hearOutside(x.outsider)
			}
		}
	}
	x.after(x.jitter(outsideInterval/8, outsideInterval/4), x.outside)
}

func (p *process) hearOutside(priority vrrpcompat.Priority) {
	for _, group := range slices.Sorted(maps.Keys(p.ears.serves)) {
		for _, v := range p.ears.serves[group] {
			p.post(core.AdvertHeard{Group: group, Link: v.Link, From: outsideAddr[v.Family], Advert: v.Advert(vrrpcompat.V3, priority)})
		}
		if priority >= vrrpcompat.Priority(254) {
			p.ears.outranked[group] = p.w.now
		}
	}
}

// tellOthers has the other hosts hear an advert of this one.
func (p *process) tellOthers(v fsm.VRRP, from netip.Addr, a vrrpcompat.Advert) {
	if !p.w.env.Outsider || p.dead {
		return
	}
	for _, o := range p.w.hosts {
		if o == p.host || !o.up() || o.dead {
			continue
		}
		for _, group := range slices.Sorted(maps.Keys(o.ears.serves)) {
			for _, s := range o.ears.serves[group] {
				if uint8(s.VRID) == v.ID && s.Family == vrrpcompat.FamilyOf(from) {
					o.post(core.AdvertHeard{Group: group, Link: s.Link, From: from, Advert: a})
				}
			}
		}
	}
}

// checkGate: what the agent has taken from its mailbox in an earlier turn it knows.
func (p *process) checkGate(addr netip.Addr) {
	for group, at := range p.ears.outranked {
		for _, v := range p.ears.serves[group] {
			for _, a := range v.Addresses {
				if a == addr && at < p.ears.taken && p.w.now-at < outsideInterval*5/2 {
					p.w.violated("n%d opens %s or keeps it open, and has heard a router with a better claim", p.i+1, addr)
				}
			}
		}
	}
}
