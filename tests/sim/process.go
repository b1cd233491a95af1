package sim

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/internal/agent"
	"github.com/quorate/quorate/internal/agent/core"
)

// A process is one life of the daemon on a host: an agent and its coroutines.
type process struct {
	*host
	agent   *agent.Agent // nil until the start has come that far
	alive   bool         // it exists
	frozen  bool
	threads []*coroutine
	current *coroutine   // the one that runs
	halted  []*coroutine // what is to go on when it thaws

	loop      *coroutine
	idle      bool // the loop waits for mail or its timer
	mail      bool // it is in World.ready
	woken     bool // what Turn is told
	wake      election.Instant
	timerAt   time.Duration // of the timer that counts; 0: none
	abandon   bool
	stopping  bool // it was asked to end
	bare      bool // a device is without the fence
	bareKnown bool // and the agent has been told

	addresses worker
	lan       worker
	trap      *trap
	ears      ears
	told      told
	found     [maxAddrs]bool // open when this life began, and not written to since
}

// start begins a life of the daemon. What an earlier life left in the fence is shut
// and removed before anything else is touched, but for what is open and in place.
func (h *host) start() {
	if h.alive || h.scrapped {
		return
	}
	h.life++
	p := &process{host: h, alive: true, told: told{w: h.w, i: h.i, last: map[string]string{}}, ears: ears{serves: map[string][]core.Virtual{}, outranked: map[string]time.Duration{}}}
	h.process = p
	clear(h.epochs)
	h.w.tell("n%d starts", h.i+1)
	p.resume(p.spawn(p.main))
}

func (p *process) main(c *coroutine) {
	left := p.takeOver()
	started := p.startRaft(left)
	p.agent = agent.New(agent.Config{
		Core: core.Config{
			Self: p.node, Boot: p.bootID(), Started: p.clock(),
			Lease: p.lease, Renew: p.lease / 3, Grace: p.grace(), LifetimeFence: p.lifetime,
			Longest: p.longest, AtStart: started.AtStart, Left: left,
		},
		Now: p.Now, Clock: p.readClock, Send: p.Send,
		Fence: fencePort{p}, Host: hostPort{p}, Speaker: speakerPort{p}, Raft: raftPort{p},
		WriteHold: p.writeHold,
		Hooks:     p.told,
		Stage:     p,
		Log:       slog.New(logHandler{w: p.w, host: p.i}),
	})
	if p.bare { // since before the agent was there to be told
		p.post(core.Covered{Err: errKernel})
	}
	p.post(core.Voters{Log: started.Voters})
	for _, a := range started.Applied {
		p.post(core.Applied{State: a.State})
	}
	if p.dead {
		p.post(core.Link{Name: device})
	}
	p.says(!p.sick)
	if p.w.estate != nil {
		p.w.estate.began(p.host)
	}
	p.tellLeader()
	p.loop = c
	p.work(c)
}

// takeOver is what the daemon does with the fence before it opens anything else. It
// returns what it leaves to the agent.
func (p *process) takeOver() (left []core.Leftover) {
	var kept [maxAddrs]bool
	for a, e := range p.fence {
		if kept[a] = e.set && p.has(a) && e.until.After(p.clock()); kept[a] {
			left = append(left, core.Leftover{At: core.Place{Link: device, Prefix: Addresses[a]}, Until: e.until})
		}
	}
	for a := range p.fence {
		if p.fence[a].set && !kept[a] {
			p.at(beforeFence)
			p.setFence(a, 0)
		}
	}
	p.sleep(p.w.jitter(50*time.Microsecond, 500*time.Microsecond))
	for a := range p.fence {
		if p.fence[a].set && !kept[a] {
			p.at(beforeRemove)
			p.removed(a)
			p.deleteFence(a)
		}
	}
	p.at(afterClearing)
	p.found = kept
	return left
}

func (p *process) grace() time.Duration {
	if p.lifetime {
		return election.GraceLifetime
	}
	return election.GraceBPF
}

// work is the loop: a turn each time that there is mail or the timer fires.
func (p *process) work(c *coroutine) {
	p.wake = p.clock()
	for {
		p.arm()
		p.idle = true
		c.wait()
		p.idle = false
		if p.abandon {
			p.agent.Abandon()
			break
		}
		bare := p.bare && !p.woken
		began, woken := p.w.now, p.woken
		p.wake = p.agent.Turn(woken)
		if !woken {
			p.ears.taken = began
		}
		p.bareKnown = p.bare && (bare || p.bareKnown)
		if p.agent.Done() {
			break
		}
	}
	p.end()
}

// end waits for the workers, takes the fence off and ends the process.
func (p *process) end() {
	p.timerAt, p.agent = 0, nil
	for !p.addresses.idle() || !p.lan.idle() {
		p.sleep(time.Millisecond)
	}
	p.clearFence()
	p.w.tell("n%d ended", p.i+1)
	p.kill()
}

// abandonAll has the process end at once as when a part of it fails.
func (h *host) abandonAll() {
	p := h.process
	if !p.alive || p.agent == nil {
		return
	}
	p.abandon = true
	if p.idle && !p.frozen {
		p.resume(p.loop)
	}
}

// post hands the agent an event.
func (p *process) post(ev core.Event) {
	if p.alive && p.agent != nil {
		p.agent.Post(ev)
		p.stir()
	}
}

// stir has the loop take its mail when the present moment is over, or a little later
// where the machine is starved.
func (p *process) stir() {
	if p.mail || p.agent == nil || !p.agent.Pending() {
		return
	}
	p.mail = true
	if late := p.w.starved(p.lease); late > 0 {
		p.w.after(late, func() { p.w.ready = append(p.w.ready, p) })
		return
	}
	p.w.ready = append(p.w.ready, p)
}

// takeMail has the loop go round, unless it is in the middle of something: then it
// looks again when it has done with that.
func (p *process) takeMail() {
	p.mail = false
	if p.alive && !p.frozen && p.idle {
		p.woken = false
		p.resume(p.loop)
	}
}

// arm sets the timer for when the agent wants to be woken.
func (p *process) arm() {
	at := p.w.now + p.trueUntil(p.wake)
	if p.timerAt != 0 && p.timerAt <= at {
		return // that one will see that it is too early
	}
	p.timerAt = at
	p.w.after(at-p.w.now, func() { p.fire(at) })
}

// trueUntil is how much true time passes until the clock shows an instant, and a bit:
// timers fire late.
func (p *process) trueUntil(at election.Instant) time.Duration {
	return max(p.untilTrue(at)+50*time.Microsecond, 10*time.Microsecond)
}

// untilTrue is how much true time passes until the clock shows an instant.
func (h *host) untilTrue(at election.Instant) time.Duration {
	return time.Duration(float64(at.Sub(h.clock())) / (h.rate + h.slew))
}

func (p *process) fire(at time.Duration) {
	if p.timerAt != at || !p.alive {
		return
	}
	p.timerAt = 0
	switch {
	case p.frozen || !p.idle: // looked at when that is over
	case p.clock().Before(p.wake):
		p.arm()
	default:
		p.woken = true
		p.resume(p.loop)
	}
}

// later does something after a while if this life of the process goes on; in a
// frozen one it is done all the same: sockets and the mailbox take it.
func (h *host) later(d time.Duration, do func()) {
	p := h.process
	h.w.after(d, func() {
		if p.alive {
			do()
		}
	})
}

// up reports whether the process can take part in anything now.
func (h *host) up() bool { return h.alive && !h.frozen && h.agent != nil }

// kill ends the process at once; the kernel goes on. What can be promised of a fence
// on a slewed clock needs a daemon that looks, so the slewing ends with it.
func (h *host) kill() {
	p := h.process
	h.endSlew()
	if !p.alive {
		return
	}
	p.alive, p.frozen, p.agent = false, false, nil
	h.w.closeRaft(h)
	for _, c := range p.threads {
		if c != p.current && !c.ended {
			c.stop()
		}
	}
	p.threads, p.halted = nil, nil
}

// restart kills the process and starts another after a while.
func (h *host) restart(after time.Duration) {
	h.kill()
	h.w.after(after, h.start)
}

// freeze stops the process wherever it is.
func (h *host) freeze() {
	if h.alive && !h.frozen {
		h.endSlew()
		h.frozen = true
		h.w.tell("n%d frozen", h.i+1)
	}
}

// thaw lets every thread go on, in any order. The loop finds its timer and its
// mailbox ready and takes either first.
func (h *host) thaw() {
	p := h.process
	if !p.alive || !p.frozen {
		return
	}
	p.frozen, h.thawedAt = false, h.w.now
	h.w.tell("n%d thaws", h.i+1)
	halted := p.halted
	p.halted = nil
	h.w.rng.Shuffle(len(halted), func(i, j int) { halted[i], halted[j] = halted[j], halted[i] })
	for _, c := range halted {
		p.resume(c)
	}
	if !p.alive || p.frozen || p.agent == nil {
		return
	}
	if p.idle && h.w.chance(0.5) {
		p.woken = true
		p.resume(p.loop)
	}
	p.stir()
	if p.alive && p.idle && p.timerAt == 0 {
		p.arm()
	}
	h.w.raftThawed(h)
}

// A trap stops or ends the process the next time that it comes to a point.
type trap struct {
	point Point
	skip  int // times that it is let pass first
	do    func()
}

// A Point is a place in the agent's work at which the process can be stopped.
type Point uint8

const (
	_ Point = iota
	afterClock
	beforeFence
	afterFence
	beforeAdd
	afterAdd
	beforeRemove
	afterRemove
	beforeAnnounce
	beforeAdvert
	beforeSend
	beforeHold
	afterHold
	afterClearing
	points
	beforeReset // in RunReturns alone: the seeds of the others stay what they are
)

var pointNames = [...]string{"", "after-clock", "before-fence", "after-fence", "before-add", "after-add", "before-remove", "after-remove",
	"before-announce", "before-advert", "before-send", "before-hold", "after-hold", "after-clearing", "", "before-reset"}

// String names the point.
func (p Point) String() string {
	if int(p) < len(pointNames) && p != 0 {
		return pointNames[p]
	}
	return fmt.Sprintf("point(%d)", uint8(p))
}

// at is where a trap for the point goes off.
func (p *process) at(point Point) {
	t := p.trap
	if t == nil || t.point != point {
		return
	}
	if t.skip > 0 {
		t.skip--
		return
	}
	p.trap = nil
	p.w.tell("n%d TRAP %v", p.i+1, point)
	t.do()
	c := p.current
	switch {
	case c == nil:
	case !p.alive:
		panic(unwinding{})
	case p.frozen:
		p.halted = append(p.halted, c)
		c.wait()
	}
}

// sleep has the running coroutine wait.
func (p *process) sleep(d time.Duration) {
	c := p.current
	p.w.after(d, func() { p.resume(c) })
	c.wait()
}
