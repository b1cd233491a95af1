package raftnode

import (
	"testing"
	"time"
)

func TestLatency(t *testing.T) {
	var l latency
	for _, d := range []time.Duration{500 * time.Microsecond, 501 * time.Microsecond, time.Minute} {
		l.add(d)
	}
	got := l.get()
	if got.Count != 3 || got.Sum != time.Minute+1001*time.Microsecond {
		t.Errorf("%+v", got)
	}
	if got.Classes[0] != 1 || got.Classes[1] != 2 || got.Classes[len(got.Classes)-1] != 2 {
		t.Errorf("classes %v", got.Classes)
	}
}
