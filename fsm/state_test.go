package fsm

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"
)

func drain(id InstanceID, yes bool) Command { return Command{Drain: &Drain{Node: id, Drained: yes}} }

func TestDrainIsRemembered(t *testing.T) {
	s := must(t, formed(t, web), drain(a, true), drain(a, true), drain(w, true))
	if !s.Drained[a] || !s.Drained[w] || s.Drained[b] {
		t.Fatalf("drained %v", s.Drained)
	}
	before := s
	if s = must(t, s, drain(a, false), drain(w, false), drain(w, false)); s.Drained != nil {
		t.Fatalf("drained %v", s.Drained)
	}
	if !before.Drained[a] {
		t.Fatal("Apply changed its receiver")
	}
	if _, err := s.Apply(9, 1, drain(InstanceID{99}, true)); !errors.Is(err, ErrUnknown) {
		t.Fatalf("an unknown node is drained: %v", err)
	}
}

// What a retired node owned stays in its name, and it does not come back; another
// instance may have the name.
func TestRetire(t *testing.T) {
	s := must(t, formed(t, web), assign("web", a, 0), drain(a, true))
	before := s
	retire := Command{Retire: &Retire{Node: a}}
	s = must(t, s, retire, retire)
	if _, ok := s.Nodes[a]; ok || s.Drained != nil || s.Retired[a].Name != "n1" || s.Assignments["web"].Owner != a {
		t.Fatalf("state %+v", s)
	}
	if _, ok := before.Nodes[a]; !ok || !before.Drained[a] || before.Retired != nil {
		t.Fatal("Apply changed its receiver")
	}
	if _, err := s.Apply(9, 1, Command{Enrol: &Enrol{node(a, "n1", Member)}}); !errors.Is(err, ErrRetired) {
		t.Fatalf("it came back: %v", err)
	}
	s = must(t, s, Command{Enrol: &Enrol{node(InstanceID{7}, "n1", Member)}})
	if _, err := s.Apply(9, 1, Command{Retire: &Retire{Node: InstanceID{99}}}); !errors.Is(err, ErrUnknown) {
		t.Fatalf("an unknown node was removed: %v", err)
	}
	if _, err := s.Apply(9, 1, assign("web", a, s.Assignments["web"].Epoch)); !errors.Is(err, ErrUnknown) {
		t.Fatalf("a retired node was named: %v", err)
	}
}

// Nobody is an owner for one reason only.
func TestNobodyOwns(t *testing.T) {
	s := must(t, formed(t, web, db), assign("web", a, 0))
	for r := ReasonFirst; r <= ReasonRestore; r++ {
		next, err := s.Apply(3, 1, Command{Assign: &Assign{Group: "web", Seen: 2, Reason: r}})
		if r != ReasonAllFail {
			if !errors.Is(err, ErrUnknown) {
				t.Errorf("nobody for %v: %v", r, err)
			}
			continue
		}
		if got := next.Assignments["web"]; err != nil || !got.Owner.IsZero() || got.Epoch != 3 || got.Reason != ReasonAllFail {
			t.Errorf("%+v, %v", got, err)
		}
		s = next
	}
	// Other addresses under nobody are no new epoch: nobody was confirmed for the old ones.
	s = must(t, s, Command{Replace: &Replace{Seen: 1, Document: doc(group("web", "10.0.0.222/24"), db)}})
	if got := s.Assignments["web"]; got.Epoch != 3 || got.Reason != ReasonAllFail || len(s.Events) != 4 {
		t.Errorf("%+v after a change of addresses, history %+v", got, s.Events)
	}
}

func TestRevisions(t *testing.T) {
	s := formed(t, web)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const more = 40
	for i := range more {
		d := doc(web)
		d.MaxHold += time.Duration(i)
		s = must(t, s, Command{At: at.Add(time.Duration(i)), Replace: &Replace{Seen: uint64(i + 1), Document: d, By: fmt.Sprint("root@n", i)}})
	}
	if len(s.Revisions) != RevisionsKept {
		t.Fatalf("%d revisions, want %d", len(s.Revisions), RevisionsKept)
	}
	last := s.Revisions[RevisionsKept-1]
	want := Revision{Revision: more + 1, At: at.Add(more - 1), By: fmt.Sprint("root@n", more-1), Document: s.Document}
	if !reflect.DeepEqual(last, want) {
		t.Fatalf("the last is %+v, want %+v", last, want)
	}
	if got, ok := s.Revision(more); !ok || got.Revision != more || got.Document.Revision != more {
		t.Fatalf("revision %d is %+v", more, got)
	}
	if _, ok := s.Revision(more + 1 - RevisionsKept); ok {
		t.Fatal("a revision that should be forgotten is there")
	}
	if first := formed(t, web).Revisions; len(first) != 1 || first[0].Revision != 1 || first[0].By != "" {
		t.Fatalf("a new cluster's revisions: %+v", first)
	}
	// A refused document is no revision.
	if next, err := s.Apply(99, 1, Command{Replace: &Replace{Seen: more + 1}}); err == nil || len(next.Revisions) != RevisionsKept || next.Revisions[0].Revision != s.Revisions[0].Revision {
		t.Fatalf("%v", err)
	}
}

func TestSnapshotOfEverything(t *testing.T) {
	s := must(t, formed(t, web), assign("web", a, 0), drain(b, true), Command{Retire: &Retire{Node: w}})
	s = must(t, s, Command{Replace: &Replace{Seen: 1, Document: full(), By: "root@n1"}}, Command{Assign: &Assign{Group: "web", Seen: 2, Reason: ReasonAllFail}})
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeState(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, s) {
		t.Fatalf("got %+v, want %+v", got, s)
	}
	back := must(t, s, drain(b, false))
	if data, err = back.Encode(); err != nil {
		t.Fatal(err)
	}
	if got, err = DecodeState(data); err != nil || !reflect.DeepEqual(got, back) {
		t.Fatalf("%v: got %+v, want %+v", err, got, back)
	}
}
