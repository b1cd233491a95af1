package hooks

// maxWaiting is how many transitions of one group may wait for the hooks of an earlier
// one. Whoever gets there flaps faster than the hooks work.
const maxWaiting = 16

// A job is one transition, and the programs that are to hear of it.
type job struct {
	t       Transition
	skipped int // transitions right before it that were left out
	run     []invocation
}

// A queue is what waits for the hooks of one group, oldest first. It belongs to the
// Runner's lock.
type queue struct {
	waiting []job
	busy    bool // somebody works it off
}

// add puts a job at the end. When too many wait, those between the next and the latest
// are left out: the next one is due, and the latest is how things are. It returns how
// many were left out.
func (q *queue) add(j job) (skipped int) {
	if len(q.waiting) >= maxWaiting {
		first := q.waiting[0]
		for _, w := range q.waiting[1:] {
			skipped += 1 + w.skipped
		}
		j.skipped = skipped
		j.t.From = first.t.To // what its hooks were told last
		q.waiting = append(q.waiting[:0:0], first)
	}
	q.waiting = append(q.waiting, j)
	return skipped
}

// next takes the oldest out.
func (q *queue) next() (job, bool) {
	if len(q.waiting) == 0 {
		return job{}, false
	}
	j := q.waiting[0]
	q.waiting = q.waiting[1:]
	return j, true
}
