package daemon

import (
	"net/netip"
	"time"

	"github.com/quorate/quorate/vrrpcompat"
)

// Bounds on what of the adverts for one virtual router goes on to the agent. A
// router that speaks as it should is never held back by them; whoever sends
// thousands in a second gets through as often as these say.
const (
	// maxSpeakers is how many routers are told apart.
	maxSpeakers = 16
	// newcomers is how many that were not heard before get through in a second.
	newcomers = 32
	// perInterval is how often one router gets through in one of its intervals, and
	// burst how many in a row, as when it changes its mind.
	perInterval, burst = 10, 4
	// leastInterval is what a shorter interval counts as.
	leastInterval = 100 * time.Millisecond
)

// A relay decides which adverts for one virtual router go on to the agent: those that
// say something new, and of those that repeat what was said so many that no timer
// runs out for want of them. It reads no clock.
type relay struct {
	speakers map[speakerKey]*talk
	fresh    bucket
}

// A speakerKey is one router in one version: who sends both would seem to change its
// mind with each advert.
type speakerKey struct {
	from    netip.Addr
	version vrrpcompat.Version
}

// A talk is what was heard of one router.
type talk struct {
	priority vrrpcompat.Priority
	interval vrrpcompat.Centis
	passed   vrrpcompat.Instant // when something of it last went on
	heard    vrrpcompat.Instant
	adverts  int // heard, at most 2
	allow    bucket
}

// pass reports whether an advert that came at now is to go on.
func (r *relay) pass(now vrrpcompat.Instant, from netip.Addr, a vrrpcompat.Advert) bool {
	step := max(a.Interval.Duration(), leastInterval) / perInterval
	key := speakerKey{from.WithZone(""), a.Version}
	t := r.speakers[key]
	if t == nil {
		if !r.fresh.take(now, newcomers, time.Second/newcomers) || !r.room(now) {
			return false
		}
		r.speakers[key] = &talk{priority: a.Priority, interval: a.Interval, passed: now, heard: now, adverts: 1, allow: bucket{left: burst - 1, since: now}}
		return true
	}
	t.heard, t.adverts = now, 2
	same := t.priority == a.Priority && t.interval == a.Interval
	if same && now.Sub(t.passed) < step || !t.allow.take(now, burst, step) {
		return false
	}
	t.priority, t.interval, t.passed = a.Priority, a.Interval, now
	return true
}

// room makes room for one more speaker, at the cost of one that is silent or was heard
// only once, as forged ones are. It reports false if there is none such.
func (r *relay) room(now vrrpcompat.Instant) bool {
	if r.speakers == nil {
		r.speakers = map[speakerKey]*talk{}
	}
	if len(r.speakers) < maxSpeakers {
		return true
	}
	for key, t := range r.speakers {
		if t.adverts == 1 || now.Sub(t.heard) > key.version.DownInterval(1, t.interval) {
			delete(r.speakers, key)
			return true
		}
	}
	return false
}

// A bucket holds permissions that come back with time. The zero value is full.
type bucket struct {
	left  int
	since vrrpcompat.Instant // when the count was right; zero: it is full
}

// take takes a permission out of a bucket of that size, into which one comes back each
// time that every has passed.
func (b *bucket) take(now vrrpcompat.Instant, size int, every time.Duration) bool {
	back := int(min(now.Sub(b.since)/every, time.Duration(size)))
	switch {
	case b.since == 0 || b.left+back >= size:
		b.left, b.since = size, now
	default:
		b.left += back
		b.since = b.since.Add(time.Duration(back) * every)
	}
	if b.left == 0 {
		return false
	}
	b.left--
	return true
}
