package sim

import "time"

// A moment is something that is going to happen.
type moment struct {
	at  time.Duration
	seq uint64 // of two at one instant, the one that was planned first
	do  func()
}

func (m moment) before(o moment) bool { return m.at < o.at || m.at == o.at && m.seq < o.seq }

// A timeline is a heap of moments. It is written out because container/heap
// allocates for each of the thousands in a run.
type timeline []moment

func (q *timeline) push(m moment) {
	h := append(*q, m)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !m.before(h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = m
	*q = h
}

func (q *timeline) pop() moment {
	h := *q
	first, last := h[0], h[len(h)-1]
	h[len(h)-1] = moment{}
	h = h[:len(h)-1]
	*q = h
	if len(h) == 0 {
		return first
	}
	i := 0
	for {
		down := 2*i + 1
		if down >= len(h) {
			break
		}
		if down+1 < len(h) && h[down+1].before(h[down]) {
			down++
		}
		if !h[down].before(last) {
			break
		}
		h[i] = h[down]
		i = down
	}
	h[i] = last
	return first
}
