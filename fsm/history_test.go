package fsm

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

func report(o ...Opened) Command { return Command{Report: &Report{Opened: o}} }

func kinds(s *State) (out []string) {
	for _, e := range s.Events {
		out = append(out, e.Kind.String())
	}
	return out
}

// Everything that changes the cluster is in the history, once, and what changes nothing
// is not.
func TestHistoryOfEverything(t *testing.T) {
	s := formed(t, web)
	s = must(t, s,
		Command{Lead: &Lead{Node: a}}, // of the term that the state is in already: said a second time
		assign("web", a, 0),
		Command{Drain: &Drain{Node: b, Drained: true, By: "root@n1"}},
		Command{Drain: &Drain{Node: b, Drained: true}},
		Command{Drain: &Drain{Node: b}},
		Command{Enrol: &Enrol{node(InstanceID{7}, "n7", Member)}},
		Command{Enrol: &Enrol{node(InstanceID{7}, "n7", Member)}},
		Command{Enrol: &Enrol{node(InstanceID{7}, "n8", Member)}},
		Command{Retire: &Retire{Node: InstanceID{7}}},
		Command{Retire: &Retire{Node: InstanceID{7}}},
		Command{Replace: &Replace{Seen: 1, Document: doc(group("web", "10.0.0.222/24")), By: "root@n2"}},
	)
	s, err := s.Apply(s.Index+1, s.Term+1, Command{Lead: &Lead{Node: b}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"formed", "owner", "drain", "undrain", "joined", "changed", "removed", "document", "owner", "leader"}
	if got := kinds(s); !slices.Equal(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	if e := s.Events[2]; e.Node != b || e.By != "root@n1" {
		t.Errorf("drain: %+v", e)
	}
	if e := s.Events[9]; e.Node != b || e.Term != s.Term || e.Index != s.Index {
		t.Errorf("leader: %+v", e)
	}
	if e := s.Events[8]; e.From != a || e.To != a || e.Reason != ReasonDocument || e.Index != s.Events[7].Index {
		t.Errorf("a group whose addresses changed: %+v after %+v", e, s.Events[7])
	}
}

// A report adds to the event of its epoch, once, and to nothing else.
func TestReport(t *testing.T) {
	lost := assign("web", b, 2)
	lost.Assign.Reason, lost.Assign.Detected, lost.Assign.Elected = ReasonLost, 250*ms, 30*ms
	s := must(t, formed(t, web, db), assign("web", a, 0), lost)
	if _, known := s.Events[2].Outage(); known {
		t.Error("an outage is known before anybody said that it is over")
	}
	before := s
	s = must(t, s,
		report(Opened{"web", 3, 20 * ms, 6 * ms, 4 * ms}, Opened{"db", 3, ms, ms, ms}, Opened{"web", 99, ms, ms, ms}),
		report(Opened{"web", 3, ms, ms, ms}),
		Command{Report: &Report{Committed: []Committed{{"web", 3, 8 * ms}, {"web", 1, ms}}}},
		Command{Report: &Report{Committed: []Committed{{"web", 3, ms}}}},
	)
	e, ok := s.Change("web", 3)
	want := Phases{250 * ms, 30 * ms, 8 * ms, 20 * ms, 6 * ms, 4 * ms}
	if !ok || e.Phases != want || !e.Opened || e.Updated != 6 {
		t.Fatalf("%+v", e)
	}
	if out, known := e.Outage(); !known || out != 318*ms {
		t.Errorf("outage %v, %v", out, known)
	}
	if len(s.Events) != len(before.Events) || before.Events[2].Opened || s.Events[1] != before.Events[1] {
		t.Error("a report changed another event, or an earlier state")
	}
	if got := s.EventsAfter(3); len(got) != 1 || got[0] != e {
		t.Errorf("behind index 3: %+v", got)
	}
	if got := s.EventsAfter(6); len(got) != 0 {
		t.Errorf("behind index 6: %+v", got)
	}
}

// What counts as an outage depends on whether the old owner served until it was told.
func TestOutage(t *testing.T) {
	at := time.Unix(1000, 0)
	change := func(to InstanceID, seen uint64, why Reason, detected time.Duration, at time.Time) Command {
		c := assign("web", to, seen)
		c.At, c.Assign.Reason, c.Assign.Detected, c.Assign.Elected = at, why, detected, 10*ms
		return c
	}
	opened := func(epoch uint64) Command { return report(Opened{"web", epoch, 3 * ms, 2 * ms, ms}) }
	tests := []struct {
		name  string
		then  []Command // after a has it at epoch 2, which is reported at 3
		epoch uint64
		want  time.Duration
		known bool
	}{
		{"first", nil, 2, 0, false},
		{"moved", []Command{change(b, 2, ReasonMove, 0, at), opened(4)}, 4, 6 * ms, true},
		{"lost", []Command{change(b, 2, ReasonLost, 250*ms, at), opened(4)}, 4, 266 * ms, true},
		{"given to one that does not open", []Command{change(b, 2, ReasonLost, 250*ms, at), change(w, 4, ReasonNotOpen, 700*ms, at), opened(5)}, 5, 976 * ms, true},
		{"moved to one that does not open", []Command{change(b, 2, ReasonMove, 0, at), change(w, 4, ReasonNotOpen, 700*ms, at), opened(5)}, 5, 716 * ms, true},
		{"nobody had it", []Command{change(InstanceID{}, 2, ReasonAllFail, 0, at), change(b, 4, ReasonRestore, 0, at.Add(time.Minute)), opened(5)}, 5, time.Minute + 6*ms, true},
		{"nobody has it", []Command{change(InstanceID{}, 2, ReasonAllFail, 0, at)}, 4, 0, false},
		{"renamed", []Command{change(a, 2, ReasonDocument, 0, at), opened(4)}, 4, 0, false},
	}
	for _, tt := range tests {
		s := must(t, formed(t, web), append([]Command{change(a, 0, ReasonFirst, 0, at), opened(2)}, tt.then...)...)
		e, ok := s.Change("web", tt.epoch)
		if !ok {
			t.Errorf("%s: no event of epoch %d", tt.name, tt.epoch)
			continue
		}
		if out, known := e.Outage(); out != tt.want || known != tt.known {
			t.Errorf("%s: outage %v, known %v; want %v, %v", tt.name, out, known, tt.want, tt.known)
		}
	}
}

// That an owner holds its group again is told of the epoch that it has now, and of no
// other: who was named since has its own story.
func TestReopened(t *testing.T) {
	s := must(t, formed(t, web), assign("web", a, 0), assign("web", b, 2), Command{Report: &Report{Reopened: []Reopened{
		{"web", 2, time.Second, "lease-expired"}, {"web", 3, 5 * time.Second, strings.Repeat("x", 99)}, {"db", 3, time.Second, ""},
	}}})
	if want := []string{"formed", "owner", "owner", "reopened"}; !slices.Equal(kinds(s), want) {
		t.Fatalf("%v, want %v", kinds(s), want)
	}
	e := s.Events[3]
	if out, known := e.Outage(); e.Group != "web" || e.To != b || e.Index != 4 || len(e.Why) != maxWhy || out != 5*time.Second || !known {
		t.Errorf("%+v", e)
	}
}

// A snapshot keeps the history as it is.
func TestHistoryInSnapshot(t *testing.T) {
	s := must(t, formed(t, web), assign("web", a, 0), report(Opened{"web", 2, ms, ms, ms}), Command{Drain: &Drain{Node: b, Drained: true}})
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeState(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(back.Events) != len(s.Events) {
		t.Fatalf("%d events, had %d", len(back.Events), len(s.Events))
	}
	for i, e := range back.Events {
		if !e.At.Equal(s.Events[i].At) || *e != *s.Events[i] {
			t.Errorf("%+v, was %+v", *e, *s.Events[i])
		}
	}
}
