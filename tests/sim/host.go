package sim

import (
	"net/netip"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

// maxAddrs bounds the addresses that any document names.
const maxAddrs = 4

// A host is a kernel that always runs, a disk, and a process that may not.
type host struct {
	w    *World
	i    int
	node fsm.Node

	// The clock: true time at a rate of its own, and what a slew adds.
	offset time.Duration
	rate   float64
	slew   float64 // by how much it is being slewed; 0: it is not
	slewAt time.Duration

	// The kernel. It outlives the process.
	boot     byte
	lifetime bool // the lifetime of an address is its fence
	fence    [maxAddrs]entry
	gone     [maxAddrs]time.Duration    // true time at which the address leaves; 0: it is not there
	tail     [maxAddrs]election.Instant // until then frames can leave that the fence let pass before it was shut
	dead     bool                       // eth0 has no carrier

	// The disk, besides what Raft has there: the longest hold.
	longest time.Duration

	// What the file says to the next process.
	lease time.Duration

	*process
	life           int
	probeTime      time.Duration
	refuses        bool // the kernel refuses every address
	keepsLeftovers bool // it does not let go of what an earlier life left
	sick           bool // its service fails
	scrapped       bool // it is gone for good
	thawedAt       time.Duration
	unproved       [maxAddrs]bool          // its deadline was last moved when no majority was heard
	heardAt        [maxHosts]time.Duration // when a datagram of a host last came

	epochs map[string]uint64 // the newest that this life of the process applied
	raftOf raftSide
	led    bool // when its process ended

	added int // times that an address came to the host
}

// An entry is a fence's word on one address.
type entry struct {
	set   bool
	until election.Instant
}

func newHost(w *World, i int) *host {
	h := &host{w: w, i: i, node: nodeOf(i),
		offset: time.Duration(w.rng.Int64N(int64(time.Hour))),
		rate:   w.rate(),
		lease:  w.env.Leases[0], lifetime: w.env.Lifetime,
		probeTime: w.env.Probe, epochs: map[string]uint64{},
	}
	if w.env.Even {
		h.offset = time.Duration(i+1) * time.Hour
	}
	h.process = &process{host: h}
	return h
}

func (w *World) rate() float64 {
	switch {
	case w.env.Drift == 0:
		return 1
	case w.env.Extreme:
		return 1 + w.env.Drift*float64(2*w.rng.IntN(2)-1)
	}
	return 1 + w.env.Drift*(2*w.rng.Float64()-1)
}

// clock reads CLOCK_BOOTTIME.
func (h *host) clock() election.Instant {
	t := float64(h.w.now) * h.rate
	if h.slew != 0 {
		t += h.slew * float64(h.w.now-h.slewAt)
	}
	return election.Instant(h.offset + time.Duration(t))
}

func (h *host) bootID() election.BootID { return election.BootID{byte(h.i + 1), h.boot} }

// address returns the number of an address among those of all documents.
func (w *World) address(a netip.Addr) int {
	for i, p := range Addresses {
		if p.Addr() == a {
			return i
		}
	}
	panic("sim: no document names " + a.String())
}

// Addresses are all that any document here names.
var Addresses = [maxAddrs]netip.Prefix{
	netip.MustParsePrefix("10.0.0.200/24"),
	netip.MustParsePrefix("10.0.0.201/24"),
	netip.MustParsePrefix("2001:db8::200/64"),
	netip.MustParsePrefix("10.0.0.202/24"),
}

// has reports whether the address is on the host.
func (h *host) has(a int) bool { return h.gone[a] > h.w.now }

// open reports whether the host may answer for the address at this instant: its
// frames can leave for the fence's grace after the deadline, or after the fence was
// shut or the address removed. Where the lifetime is the fence, an address that is
// there answers.
func (h *host) open(a int) bool {
	if h.clock().Before(h.tail[a]) {
		return true
	}
	if h.lifetime || !h.fence[a].set {
		return h.has(a)
	}
	return h.fence[a].until != 0 && h.clock().Before(h.fence[a].until.Add(election.GraceBPF))
}

// holds reports whether the host serves the address by right.
func (h *host) holds(a int) bool {
	return h.has(a) && (h.lifetime || h.clock().Before(h.fence[a].until))
}

// letting takes note that frames with the address pass until now, or passed until a
// moment ago, because that may be about to end.
func (h *host) letting(a int) {
	last := h.clock()
	if e := h.fence[a]; e.set && !h.lifetime {
		last = min(last, e.until)
	}
	if h.has(a) && last != 0 {
		h.tail[a] = max(h.tail[a], last.Add(election.GraceBPF))
	}
}

// setFence writes an entry of the map.
func (h *host) setFence(a int, until election.Instant) {
	h.letting(a)
	h.fence[a] = entry{true, until}
	h.w.opened(h, a)
}

func (h *host) deleteFence(a int) {
	h.letting(a)
	h.fence[a] = entry{}
	h.w.opened(h, a)
}

// addAddress puts an address on the host for a while, or renews it.
func (h *host) addAddress(a int, valid time.Duration) {
	late := h.w.jitter(20*time.Millisecond, 800*time.Millisecond) // never early
	until := h.w.now + time.Duration(float64(valid)/h.rate) + late
	fresh := !h.has(a)
	h.gone[a] = until
	if fresh {
		h.added++
	}
	h.w.opened(h, a)
	h.w.after(until-h.w.now, func() {
		if h.gone[a] == until {
			h.removed(a)
		}
	})
}

// removed takes an address off, whoever wanted that.
func (h *host) removed(a int) {
	if h.gone[a] == 0 {
		return
	}
	h.letting(a)
	h.gone[a] = 0
	h.w.lost(h, a)
	late := h.w.jitter(100*time.Microsecond, 2*time.Millisecond)
	h.later(late, func() { h.post(core.AddressGone{Link: device, Addr: Addresses[a].Addr()}) })
}

// device is the one device that a host has here besides the way to the other nodes.
const device = "eth0"

// reboot takes the whole host down: the kernel forgets everything, and its clock
// begins anew.
func (h *host) reboot() {
	h.kill()
	h.boot++
	h.fence, h.tail = [maxAddrs]entry{}, [maxAddrs]election.Instant{}
	for a := range h.gone {
		if h.gone[a] != 0 {
			h.gone[a] = 0
			h.w.lost(h, a)
		}
	}
	h.offset = h.w.jitter(time.Second, time.Minute) - time.Duration(float64(h.w.now)*h.rate)
}

// setRate gives the clock another rate from here on.
func (h *host) setRate(rate float64) {
	now := h.clock()
	h.rate = rate
	h.offset += now.Sub(h.clock())
}

// beginSlew has something like chrony steer the clock off its rate.
func (h *host) beginSlew(by float64) {
	h.endSlew()
	h.slew, h.slewAt = by, h.w.now
}

func (h *host) endSlew() {
	h.offset += time.Duration(h.slew * float64(h.w.now-h.slewAt))
	h.slew = 0
}

// carrier takes the carrier of the VIPs' device away, or gives it back.
func (h *host) carrier(ok bool) {
	h.dead = !ok
	h.later(h.w.jitter(0, time.Millisecond), func() { h.post(core.Link{Name: device, OK: !h.dead}) })
}

// uncovered tells the agent that a device is without the fence, or that all have it.
func (h *host) uncovered(bare bool) {
	p := h.process
	ev := core.Covered{}
	if p.bare, p.bareKnown = bare, false; bare {
		ev.Err = errKernel
	}
	h.post(ev)
}

// releaseByHand is `quorate release` on this host: a dead daemon's leavings are
// removed, a daemon that lives is asked, and one that is frozen keeps its lock.
func (h *host) releaseByHand() {
	switch {
	case h.alive && h.frozen:
		h.w.tell("n%d release by hand: refused, the daemon holds the lock", h.i+1)
	case h.alive:
		h.post(core.ReleaseAsked{})
	default:
		h.w.tell("n%d release by hand: the daemon is dead", h.i+1)
		h.clearFence()
	}
}

// clearFence shuts every entry, removes those addresses, and forgets the entries.
func (h *host) clearFence() {
	for a := range h.fence {
		if h.fence[a].set {
			h.setFence(a, 0)
		}
	}
	for a := range h.fence {
		if h.fence[a].set || h.lifetime {
			h.removed(a)
			h.deleteFence(a)
		}
	}
}
