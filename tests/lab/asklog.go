package lab

import (
	"sort"
	"sync/atomic"
)

// An askLog keeps the instants of a probe's questions. One goroutine adds, any may
// read, and the adding one never waits: it runs ahead of ordinary load, and a reader
// that lost its processor inside a lock would hold it up.
type askLog struct {
	n      atomic.Int64
	chunks [askChunks]atomic.Pointer[[askChunk]Instant]
}

// Room for 4096·4096 questions: 23 hours at one in 5 ms. Later ones are not logged,
// which makes the probe blind, and says so.
const askChunk, askChunks = 4096, 4096

// add appends one instant, and says whether there was room.
func (l *askLog) add(at Instant) bool {
	n := l.n.Load()
	if n == askChunk*askChunks {
		return false
	}
	c := l.chunks[n/askChunk].Load()
	if c == nil {
		c = new([askChunk]Instant)
		l.chunks[n/askChunk].Store(c)
	}
	c[n%askChunk] = at
	l.n.Store(n + 1) // only now may it be read
	return true
}

// len returns how many there are.
func (l *askLog) len() int { return int(l.n.Load()) }

// at returns the n-th, which must be below len.
func (l *askLog) at(n int) Instant { return l.chunks[n/askChunk].Load()[n%askChunk] }

// first returns the number of the first question asked at an instant or later.
func (l *askLog) first(from Instant) int {
	return sort.Search(l.len(), func(n int) bool { return l.at(n) >= from })
}

// all returns a copy of all.
func (l *askLog) all() []Instant {
	out := make([]Instant, l.len())
	for n := range out {
		out[n] = l.at(n)
	}
	return out
}

// find returns the latest question with the sender id that was asked before the answer
// came.
func (l *askLog) find(id int, at Instant) (n int, ok bool) {
	for n = l.len() - 1; n >= 0; n-- {
		if n%senderIDs == id && l.at(n) <= at.Add(clockSlack) {
			return n, true
		}
	}
	return 0, false
}
