package bubble

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/election"
)

// A judge sees all kernels at once, in true time. Everything that a kernel does is
// done under its lock.
type judge struct {
	mu         sync.Mutex
	began      time.Time
	kernels    []*kernel
	story      []string
	violations []string
	dropped    int // frames that a fence kept from leaving
	spoken     int // those that left
	handed     int // times that an address was opened
}

func newJudge() *judge { return &judge{began: time.Now()} }

// now is true time: the bubble's, since the run began.
func (j *judge) now() time.Duration { return time.Since(j.began) }

func (j *judge) tell(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.tellLocked(format, args...)
}

func (j *judge) tellLocked(format string, args ...any) {
	j.story = append(j.story, fmt.Sprintf("%12v  ", j.now().Round(time.Microsecond))+fmt.Sprintf(format, args...))
}

func (j *judge) violated(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	j.violations = append(j.violations, fmt.Sprintf("%v: %s", j.now(), what))
	j.tellLocked("VIOLATION %s", what)
}

// verdict is what must not be; nil: nothing.
func (j *judge) verdict() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.violations)
}

func (j *judge) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.story, "\n")
}

// server returns the host that serves an address by right; nil: nobody.
func (j *judge) server(a netip.Addr) *kernel {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, k := range j.kernels {
		if k.serves(a) {
			return k
		}
	}
	return nil
}

// A kernel is one host without its process: what goes on when that is gone.
type kernel struct {
	j     *judge
	name  string
	boot  election.BootID
	boots byte

	// The clock: true time at a rate of its own, from an offset.
	offset time.Duration
	rate   float64

	fence map[netip.Addr]election.Instant
	tail  map[netip.Addr]election.Instant // until then frames can leave that an earlier word of the fence let pass
	addrs map[netip.Addr]time.Duration    // until when, in true time
	// sleeps makes a fence that forgets its deadlines: what a test breaks on purpose.
	sleeps bool
}

func newKernel(j *judge, i int, offset time.Duration, rate float64) *kernel {
	k := &kernel{j: j, name: fmt.Sprintf("n%d", i+1), boot: election.BootID{byte(i + 1), 1}, boots: 1, offset: offset, rate: rate,
		fence: map[netip.Addr]election.Instant{}, tail: map[netip.Addr]election.Instant{}, addrs: map[netip.Addr]time.Duration{}}
	j.kernels = append(j.kernels, k)
	return k
}

// clock is CLOCK_BOOTTIME of the host. Like all methods of a kernel, it needs the
// judge's lock.
func (k *kernel) clock() election.Instant {
	return election.Instant(k.offset + time.Duration(float64(k.j.now())*k.rate))
}

// has reports whether the address is on the host.
func (k *kernel) has(a netip.Addr) bool {
	until, ok := k.addrs[a]
	return ok && k.j.now() < until
}

// open reports whether the fence lets frames of the address pass.
func (k *kernel) open(a netip.Addr) bool {
	until := k.fence[a]
	return until != 0 && (k.sleeps || k.clock().Before(until))
}

// answers reports whether frames of the address can leave the host: those that the
// fence let pass stand in a queue for its grace, after a deadline and after the fence
// was shut. The address need not be there: it may be any moment. So one that was
// removed counts for as long as its fence is open, and for the grace after that.
func (k *kernel) answers(a netip.Addr) bool {
	if k.clock().Before(k.tail[a]) {
		return true
	}
	until := k.fence[a]
	return until != 0 && (k.sleeps || k.clock().Before(until.Add(election.GraceBPF)))
}

// letting takes note that frames of the address passed until now, or until the
// deadline, because that is about to be forgotten.
func (k *kernel) letting(a netip.Addr) {
	if until := k.fence[a]; until != 0 {
		k.tail[a] = max(k.tail[a], min(k.clock(), until).Add(election.GraceBPF))
	}
}

func (k *kernel) serves(a netip.Addr) bool { return k.has(a) && k.open(a) }

// setFence writes a deadline; zero shuts.
func (k *kernel) setFence(a netip.Addr, until election.Instant, lease time.Duration) {
	was := k.open(a)
	k.letting(a)
	k.fence[a] = until
	switch is := k.open(a); {
	case is && !was:
		k.j.handed++
		k.j.tellLocked("%s opens the fence for %s", k.name, a)
	case was && !is:
		k.j.tellLocked("%s shuts the fence for %s", k.name, a)
	}
	if until.Sub(k.clock()) > lease {
		k.j.violated("%s opens its fence for %s, its lease is %s", k.name, until.Sub(k.clock()), lease)
	}
	if !k.answers(a) {
		return
	}
	for _, o := range k.j.kernels {
		if o != k && o.answers(a) {
			k.j.violated("%s opens %s, for which %s can still answer until %v, its last frames until %v (it is %v there)", k.name, a, o.name, o.fence[a], o.tail[a], o.clock())
		}
	}
}

func (k *kernel) deleteFence(a netip.Addr) {
	if k.has(a) {
		k.j.violated("%s takes the fence from %s, which is on the host", k.name, a)
	}
	k.letting(a)
	delete(k.fence, a)
}

func (k *kernel) add(a netip.Addr, valid time.Duration) {
	if _, fenced := k.fence[a]; !fenced {
		k.j.violated("%s has %s without an entry in the fence", k.name, a)
	}
	k.addrs[a] = k.j.now() + valid
}

// speak sends a frame for the address: an announcement, or an advert that lists it.
func (k *kernel) speak(what string, a netip.Addr) {
	if _, fenced := k.fence[a]; !fenced {
		k.j.violated("%s sends %s for %s without an entry in the fence", k.name, what, a)
		return
	}
	if !k.open(a) {
		k.j.dropped++ // the process was held up after it had looked at the clock
		return
	}
	k.j.spoken++
	for _, o := range k.j.kernels {
		if o != k && o.answers(a) {
			k.j.violated("%s sends %s for %s, for which %s can answer", k.name, what, a, o.name)
		}
	}
}

// clear is what the daemon does with what an earlier life left, before anything else.
func (k *kernel) clear() {
	for a := range k.fence {
		k.letting(a)
	}
	clear(k.addrs)
	clear(k.fence)
}

// reboot begins another boot, with a clock that begins again.
func (k *kernel) reboot() {
	clear(k.addrs)
	clear(k.fence)
	clear(k.tail)
	k.boots++
	k.boot[1] = k.boots
	k.offset = 10*time.Second - time.Duration(float64(k.j.now())*k.rate)
}

// leavings says what is on the host that should not be.
func (k *kernel) leavings() string {
	for a := range k.fence {
		if !k.serves(a) {
			return fmt.Sprintf("%s has a fence entry for %s and does not serve it", k.name, a)
		}
	}
	for a := range k.addrs {
		if k.has(a) && !k.serves(a) {
			return fmt.Sprintf("%s has %s and does not serve it", k.name, a)
		}
	}
	return ""
}
