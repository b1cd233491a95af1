package core

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// told are the transitions of the effects, in short.
func told(all []Effect) []string {
	var out []string
	for _, e := range effectsOf[Transition](all) {
		out = append(out, fmt.Sprintf("%s→%s %s", e.From, e.To, e.Reason))
	}
	return out
}

func (s *solo) mustTell(what string, f func(), want ...string) {
	s.t.Helper()
	if got := told(s.since(f)); !slices.Equal(got, want) {
		s.t.Fatalf("%s: hooks are told %q, want %q", what, got, want)
	}
}

// Hooks are told where a group stands once that is known, at each change, and with all
// that they may want to know.
func TestTransitions(t *testing.T) {
	s := newSolo(t, time.Hour)
	doc := testDocument()
	doc.Groups[0].VRRP = fsm.VRRP{}
	s.mustTell("before anything is known", func() { s.form(doc) })
	s.mustTell("nobody owns it", func() { s.attend(100 * time.Millisecond) }, "→backup ")
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.self.ID, Reason: fsm.ReasonFirst}})
	s.mustTell("named", func() { s.attend(time.Second) }, "backup→active first")
	last := effectsOf[Transition](s.did)
	if e := last[len(last)-1]; e.Group != "web" || e.Epoch != s.state.Assignments["web"].Epoch || !slices.Equal(e.Addresses, doc.Groups[0].Addresses) {
		t.Fatalf("hooks are told %+v", e)
	}
	s.mustTell("nothing new", func() { s.attend(time.Second) })
	s.mustTell("no carrier", func() { s.step(Link{Name: "eth0"}) }, "active→fault no-carrier")
	s.mustTell("carrier", func() { s.step(Link{Name: "eth0", OK: true}); s.attend(time.Second) }, "fault→backup no-carrier", "backup→active first")
	s.mustTell("another is named", func() {
		s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.other.ID, Seen: s.state.Assignments["web"].Epoch, Reason: fsm.ReasonMove}})
	}, "active→backup move")
	doc.Checks = []fsm.Check{{Name: "c", File: &fsm.FileCheck{Path: "/x"}, Interval: time.Second, Timeout: time.Second, Rise: 1, Fall: 1}}
	doc.Groups[0].Checks = []string{"c"}
	s.mustTell("a check without a result", func() { s.replace(doc); s.attend(time.Second) })
	s.mustTell("a check that fails", func() { s.step(Checked{Check: "c"}) }, "backup→fault check-failed")
	s.mustTell("and passes", func() { s.step(Checked{Check: "c", Pass: true}) }, "fault→backup move")
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.self.ID, Seen: s.state.Assignments["web"].Epoch, Reason: fsm.ReasonMove}})
	s.mustTell("named again", func() { s.attend(time.Second) }, "backup→active move")
	s.mustTell("nobody is named", func() {
		s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Seen: s.state.Assignments["web"].Epoch, Reason: fsm.ReasonAllFail}})
	}, "active→backup all-fail")
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.self.ID, Seen: s.state.Assignments["web"].Epoch, Reason: fsm.ReasonRestore}})
	s.mustTell("named once more", func() { s.attend(time.Second) }, "backup→active restore")
	gone := doc
	gone.Groups = nil
	s.mustTell("the group is deleted", func() { s.replace(gone); s.attend(time.Second) }, "active→backup group-deleted")
	if _, still := s.core.groups["web"]; still {
		t.Fatal("the group is still there")
	}
}

// Hooks come after the fence and the addresses in each step, also when the process gives
// up in a hurry.
func TestTransitionsComeLast(t *testing.T) {
	s := holding(t)
	for name, effects := range map[string][]Effect{
		"no carrier": s.since(func() { s.step(Link{Name: "eth0"}) }),
		"abandoned":  holding(t).core.Abandon(s.now),
	} {
		if len(told(effects)) != 1 || len(effectsOf[Unbind](effects)) != 1 {
			t.Fatalf("%s: %v", name, effects)
		}
		first := slices.IndexFunc(effects, func(e Effect) bool { _, is := e.(Transition); return is })
		for _, e := range effects[first:] {
			if _, is := e.(Transition); !is {
				t.Fatalf("%s: %T comes after a hook", name, e)
			}
		}
	}
}

// A witness has no groups to speak of.
func TestWitnessHasNoTransitions(t *testing.T) {
	s := newSolo(t, time.Hour)
	s.core.cfg.Self.Role = fsm.Witness
	s.form(testDocument())
	s.mustTell("on a witness", func() { s.attend(time.Second); s.step(Link{Name: "eth0"}) })
}

// When a cut is over, hooks are told once more: all of them by who has a majority again,
// the active ones by who hears another again that had not said good-bye.
func TestTransitionsAfterAHeal(t *testing.T) {
	p := newPair(t, fsm.QuorumLossRelease)
	p.cut = true
	p.mustTell("cut off", func() { p.run(2 * testLease) }, "active→backup lease-expired")
	p.cut = false
	p.mustTell("healed", func() { p.run(2 * testLease) }, "backup→backup lease-expired", "backup→active first")
	p.mustTell("and no more", func() { p.run(time.Second) })

	s := holding(t)
	back := func(stopping bool) func() {
		s.tell(election.Renewal{Health: election.Health{Stopping: stopping}})
		s.serve(2 * testLease)
		return func() { s.tell(election.Renewal{}); s.serve(testLease) }
	}
	s.mustTell("another is back", back(false), "active→active first")
	s.mustTell("another is back that had said that it would end", back(true))
}
