package bubble

import (
	"context"
	"slices"
	"time"

	"github.com/quorate/quorate/internal/agent/core"
)

// A fault is one thing that is done to the cluster, as likely as its weight.
type fault struct {
	name   string
	weight int
	do     func(c *cluster, h *host)
}

var faults = []fault{
	{"cut", 3, (*cluster).cutOff},
	{"deaf", 2, (*cluster).deafen},
	{"mute", 2, (*cluster).muteHost},
	{"one way", 2, (*cluster).oneWay},
	{"partition", 2, (*cluster).partition},
	{"mend", 5, func(c *cluster, _ *host) { c.net.mendAll() }},
	{"freeze", 4, (*cluster).freeze},
	{"kill", 4, func(c *cluster, h *host) { c.kill(h, false) }},
	{"power", 2, func(c *cluster, h *host) { c.kill(h, true) }},
	{"stop", 2, (*cluster).stopHost},
	{"carrier", 2, (*cluster).carrier},
	{"move", 5, (*cluster).move},
	{"campaign", 4, (*cluster).campaign},
	{"ambush", 8, (*cluster).ambush},
	{"amnesia", 3, (*cluster).amnesia},
	{"weather", 2, func(c *cluster, _ *host) { c.turnWeather() }},
}

// fault does one thing, to a host that is drawn; every second time to one that
// serves an address.
func (c *cluster) fault() {
	total := 0
	for _, f := range faults {
		total += f.weight
	}
	at := c.rng.IntN(total)
	h := c.hosts[c.rng.IntN(len(c.hosts))]
	if k := c.judge.server(vips[c.rng.IntN(len(vips))]); k != nil && c.chance(0.5) {
		h = c.hostOf(k)
	}
	for _, f := range faults {
		if at -= f.weight; at < 0 {
			c.judge.tell("FAULT %s, %s", f.name, h.name())
			c.stats.faults++
			f.do(c, h)
			return
		}
	}
}

func (c *cluster) others(h *host, f func(o *host)) {
	for _, o := range c.hosts {
		if o != h {
			f(o)
		}
	}
}

func (c *cluster) cutBoth(a, b *host) {
	c.net.cut(a.addr.Addr(), b.addr.Addr(), true)
	c.net.cut(b.addr.Addr(), a.addr.Addr(), true)
}

func (c *cluster) cutOff(h *host) { c.others(h, func(o *host) { c.cutBoth(h, o) }) }

func (c *cluster) deafen(h *host) {
	c.others(h, func(o *host) { c.net.cut(o.addr.Addr(), h.addr.Addr(), true) })
}

func (c *cluster) muteHost(h *host) {
	c.others(h, func(o *host) { c.net.cut(h.addr.Addr(), o.addr.Addr(), true) })
}

func (c *cluster) oneWay(h *host) {
	if o := c.hosts[c.rng.IntN(len(c.hosts))]; o != h {
		c.net.cut(h.addr.Addr(), o.addr.Addr(), true)
	}
}

func (c *cluster) partition(*host) {
	side := map[*host]bool{}
	for _, h := range c.hosts {
		side[h] = c.chance(0.5)
	}
	for _, a := range c.hosts {
		for _, b := range c.hosts {
			if side[a] != side[b] {
				c.cutBoth(a, b)
			}
		}
	}
}

// freeze stops the process for a while: it neither sees the world nor touches it.
func (c *cluster) freeze(h *host) {
	if !h.up() {
		return
	}
	l := h.life
	l.gate.shut()
	c.later(c.jitter(5*time.Millisecond, 6*lease), l.gate.open)
}

// kill ends the process, or the whole host, and starts it again after a while.
func (c *cluster) kill(h *host, power bool) {
	if h.life == nil || h.life.over() {
		return
	}
	h.life.kill(power)
	c.restart(h, c.jitter(time.Millisecond, time.Second))
}

// restart starts a host after a while, and not before a process that was told to end
// has done so.
func (c *cluster) restart(h *host, after time.Duration) {
	l := h.life
	c.later(after, func() {
		switch {
		case h.life != l: // somebody else did
		case !l.over() && !l.isDead():
			c.restart(h, 5*time.Millisecond)
		default:
			h.start()
		}
	})
}

func (c *cluster) stopHost(h *host) {
	if h.up() {
		h.life.stop()
		c.restart(h, c.jitter(time.Millisecond, time.Second))
	}
}

// carrier takes the link away from a host for a while: it knows, and is cut off.
func (c *cluster) carrier(h *host) {
	if !h.up() {
		return
	}
	c.cutOff(h)
	l := h.life
	l.part.Agent().Post(core.Link{Name: "eth0"})
	c.later(c.jitter(10*time.Millisecond, time.Second), func() {
		l.part.Agent().Post(core.Link{Name: "eth0", OK: true})
		c.others(h, func(o *host) {
			c.net.cut(h.addr.Addr(), o.addr.Addr(), false)
			c.net.cut(o.addr.Addr(), h.addr.Addr(), false)
		})
	})
}

// move asks a node to have a group moved to the host.
func (c *cluster) move(h *host) {
	c.moveTo(c.hosts[c.rng.IntN(len(c.hosts))], groups[c.rng.IntN(len(groups))], h)
}

var groups = []string{"web", "db"} // of vips, in their order

func (c *cluster) moveTo(asked *host, group string, to *host) {
	if !asked.up() {
		return
	}
	part := asked.life.part
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := part.Agent().Move(ctx, group, to.name()); err != nil {
			c.judge.tell("move of %s to %s: %v", group, to.name(), err)
		}
	}()
}

// ambush takes the network or the processor away from an owner, and at the same time
// names another: one that could hold at once, if it did not wait for the old lease.
func (c *cluster) ambush(h *host) {
	c.net.mendAll()
	i := c.rng.IntN(len(vips))
	if k := c.judge.server(vips[i]); k != nil {
		h = c.hostOf(k)
	}
	take := []func(*host){c.cutOff, c.muteHost, c.deafen, c.freeze}[c.rng.IntN(4)]
	take(h)
	c.usurp(c.another(h), groups[i], 5*time.Millisecond)
}

// usurp makes a host the leader and then the owner.
func (c *cluster) usurp(o *host, group string, soon time.Duration) {
	c.later(soon, func() { c.campaign(o) })
	for range 3 { // one of them comes when it leads, and has not moved it yet
		soon += c.jitter(10*time.Millisecond, 50*time.Millisecond)
		c.later(soon, func() { c.moveTo(o, group, o) })
	}
}

// amnesia cuts an owner off and restarts all others at once: none of them remembers
// in memory whom it confirmed.
func (c *cluster) amnesia(h *host) {
	c.net.mendAll()
	i := c.rng.IntN(len(vips))
	if k := c.judge.server(vips[i]); k != nil {
		h = c.hostOf(k)
	}
	c.cutOff(h)
	c.others(h, func(o *host) {
		if o.up() {
			o.life.kill(false)
			c.restart(o, time.Millisecond)
		}
	})
	c.usurp(c.another(h), groups[i], 20*time.Millisecond)
}

func (c *cluster) hostOf(k *kernel) *host {
	return c.hosts[slices.IndexFunc(c.hosts, func(h *host) bool { return h.kernel == k })]
}

// another is any host but this one.
func (c *cluster) another(h *host) *host {
	return c.hosts[(h.i+1+c.rng.IntN(len(c.hosts)-1))%len(c.hosts)]
}

// campaign makes the host stand for leader.
func (c *cluster) campaign(h *host) {
	if !h.up() {
		return
	}
	raft := h.life.part.Raft()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := raft.Campaign(ctx); err != nil {
			c.judge.tell("campaign of %s: %v", h.name(), err)
		}
	}()
}

func (c *cluster) turnWeather() {
	w := weather{loss: c.oneOf(0, 0.02, 0.1), dup: c.oneOf(0, 0.1), late: c.oneOf(0, 0.02, 0.2), latest: 4 * lease, stall: c.oneOf(0, 0.002, 0.01)}
	if c.chance(0.5) {
		w.latest = lease
	}
	c.net.setWeather(w)
}

func (c *cluster) oneOf(of ...float64) float64 { return of[c.rng.IntN(len(of))] }

// heal ends every fault, and has every host run.
func (c *cluster) heal() {
	c.judge.tell("HEALED")
	c.net.mendAll()
	c.net.setWeather(weather{})
	c.due = nil
	for _, h := range c.hosts {
		if h.life == nil {
			h.start()
		}
		h.life.gate.open()
		h.life.part.Agent().Post(core.Link{Name: "eth0", OK: true})
	}
	for _, h := range c.hosts {
		if !h.up() {
			c.await(h.name()+" to end", stopBound, func() bool { return h.life.over() || h.life.isDead() })
			h.start()
		}
	}
}
