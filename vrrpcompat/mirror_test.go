package vrrpcompat

import (
	"testing"
	"time"
)

func TestMirror(t *testing.T) {
	var m Mirror
	at := func(seconds int) Instant { return Instant(1_000_000_007).Add(sec * time.Duration(seconds)) }
	if _, ok := m.Teacher(); ok || m.Form() != PseudoHeader {
		t.Fatalf("a new mirror says %v", m.Form())
	}
	for _, c := range []struct {
		name string
		at   int
		from string
		form Checksum
		want Lesson
		then Checksum
	}{
		{"the default confirmed", 0, "192.0.2.4", PseudoHeader, LessonKnown, PseudoHeader},
		{"another router, another form, too soon", 9, "192.0.2.130", Plain, LessonConflict, PseudoHeader},
		{"the first again", 9, "192.0.2.4", PseudoHeader, LessonKnown, PseudoHeader},
		{"the other once more, nine seconds after the first", 18, "192.0.2.130", Plain, LessonConflict, PseudoHeader},
		{"the other, when the first was silent for long", 19, "192.0.2.130", Plain, LessonLearned, Plain},
		{"the same router was set up anew", 20, "192.0.2.130", GroupPseudoHeader, LessonLearned, GroupPseudoHeader},
		{"and agrees with itself", 21, "192.0.2.130", GroupPseudoHeader, LessonKnown, GroupPseudoHeader},
		{"after days it is not forgotten", 500_000, "192.0.2.130", GroupPseudoHeader, LessonKnown, GroupPseudoHeader},
	} {
		if got := m.Learn(at(c.at), addrs(c.from)[0], c.form); got != c.want || m.Form() != c.then {
			t.Fatalf("%s: %v, form %v; want %v, %v", c.name, got, m.Form(), c.want, c.then)
		}
	}
	if from, ok := m.Teacher(); !ok || from != highAddr {
		t.Errorf("the teacher is %v, %v", from, ok)
	}
	// What was only the default is learned as soon as anybody says otherwise.
	var fresh Mirror
	if got := fresh.Learn(at(0), lowAddr, Plain); got != LessonLearned || fresh.Form() != Plain {
		t.Errorf("a new mirror: %v, form %v", got, fresh.Form())
	}
}
