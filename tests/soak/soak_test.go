package main

import (
	"reflect"
	"testing"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

// The schedule is a function of seed, number and nodes; another seed makes another one.
func TestPlannedAgain(t *testing.T) {
	for number := range 30 {
		a, b := planned(7, number, 3), planned(7, number, 3)
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("phase %d of seed 7 is not the same twice:\n%+v\n%+v", number, a, b)
		}
		if c := planned(8, number, 3); a.Kind == chaos && reflect.DeepEqual(a.Steps, c.Steps) {
			t.Errorf("phase %d is the same with seeds 7 and 8", number)
		}
	}
}

// Every step names a fault that can be done to any node beside others, at a node that
// there is and with another one as its peer, within the limits of time.
func TestPlannedSteps(t *testing.T) {
	const nodes, phases = 5, 300
	seen := map[string]int{}
	busy, owner := 0, 0
	for number := range phases {
		p := planned(1, number, nodes)
		if (p.Kind == starved) != (number%starvedEvery == starvedEvery-1) || (p.Kind == starved) != (len(p.Steps) == 0) {
			t.Fatalf("phase %d is %v with %d steps", number, p.Kind, len(p.Steps))
		}
		if p.Busy {
			busy++
		}
		last := time.Duration(0)
		for _, st := range p.Steps {
			seen[st.Fault]++
			if st.Node == theOwner {
				owner++
			}
			if st.Node < theOwner || st.Node >= nodes || st.Peer < 1 || st.Peer >= nodes {
				t.Fatalf("phase %d: a step at node %d with peer +%d of %d nodes", number, st.Node, st.Peer, nodes)
			}
			if gap := st.At - last; gap < shortestGap || gap > longestGap || st.At > chaosLength {
				t.Fatalf("phase %d: a step at %v, %v after the one before", number, st.At, gap)
			}
			if st.Hold < shortestHold || st.Hold > longestHold {
				t.Fatalf("phase %d: a step is held for %v", number, st.Hold)
			}
			last = st.At
		}
	}
	for _, w := range weights {
		f, ok := lab.Named(w.fault)
		if !ok || f.Layer == 0 {
			t.Errorf("fault %q is not one of lab.Table that can be done beside others", w.fault)
		}
		if seen[w.fault] == 0 {
			t.Errorf("fault %q never comes in %d phases", w.fault, phases)
		}
	}
	if busy == 0 || owner == 0 {
		t.Errorf("of %d phases %d are busy, %d steps are at the owner", phases, busy, owner)
	}
}

// Every fault of the table that can be done beside others is in the schedule.
func TestPlannedAll(t *testing.T) {
	named := map[string]bool{"starve": true} // phases are, as a whole
	for _, w := range weights {
		named[w.fault] = true
	}
	for _, f := range lab.Table() {
		if f.Layer != 0 && !named[f.Name] {
			t.Errorf("%q has no weight", f.Name)
		}
	}
}

func at(ms int) lab.Instant { return lab.Instant(time.Duration(ms) * time.Millisecond) }

func TestChangesIn(t *testing.T) {
	var answers []lab.Answer
	for i, host := range []string{"n1", "n1", "n2", "n2", "n1", "n3"} {
		answers = append(answers, lab.Answer{Host: host, At: at(i)})
	}
	want := []change{{at(2), "n1", "n2"}, {at(4), "n2", "n1"}, {at(5), "n1", "n3"}}
	if got := changesIn(answers); !reflect.DeepEqual(got, want) {
		t.Errorf("changesIn = %v, want %v", got, want)
	}
	if got := changesIn(nil); got != nil {
		t.Errorf("changesIn of nothing = %v", got)
	}
}

func TestWithoutCause(t *testing.T) {
	faults := []lab.Span{{From: at(100), To: at(200)}, {From: at(1000), To: at(1000)}}
	const within = 50 * time.Millisecond
	for ms, explained := range map[int]bool{99: false, 100: true, 200: true, 250: true, 251: false, 999: false, 1050: true, 1051: false} {
		got := withoutCause([]change{{At: at(ms)}}, faults, within)
		if (len(got) == 0) != explained {
			t.Errorf("a change at %d ms: explained %v, want %v", ms, len(got) == 0, explained)
		}
	}
}
