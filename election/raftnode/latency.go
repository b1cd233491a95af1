package raftnode

import (
	"slices"
	"sync"
	"time"
)

// LatencyBounds are the upper ends of the classes of Latency.Classes.
var LatencyBounds = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond,
}

// A Latency counts how long something took since the process began.
type Latency struct {
	Count   uint64
	Sum     time.Duration
	Classes [len(LatencyBounds)]uint64 // how many took at most that long, each class with those below it
}

// latency counts. It may be used concurrently.
type latency struct {
	mu  sync.Mutex
	all Latency
}

func (l *latency) add(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Count++
	l.all.Sum += took
	class, _ := slices.BinarySearch(LatencyBounds[:], took)
	for i := class; i < len(LatencyBounds); i++ {
		l.all.Classes[i]++
	}
}

func (l *latency) get() Latency {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}
