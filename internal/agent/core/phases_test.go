package core

import (
	"errors"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// opensWeb is a leader that has been given a group and holds it.
func opensWeb(t *testing.T, before func(s *solo)) *solo {
	t.Helper()
	s := newSolo(t, time.Hour)
	doc := testDocument()
	doc.Groups[0].VRRP = fsm.VRRP{}
	before(s)
	s.form(doc)
	s.attend(100 * time.Millisecond)
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.self.ID, Reason: fsm.ReasonFirst}})
	s.step(Leader{ID: s.other.ID, Term: 1})
	s.attend(500 * time.Millisecond)
	if s.core.groups["web"].phase != active {
		t.Fatal("it does not hold the group")
	}
	return s
}

// reports are the reports that were proposed.
func reports(did []Effect) (out []fsm.Report) {
	for _, p := range effectsOf[Propose](did) {
		if p.Command.Report != nil {
			out = append(out, *p.Command.Report)
		}
	}
	return out
}

// The owner reports once, when it has announced, and not at once; a report that fails is
// tried again, and in the end dropped.
func TestReportOfTheOwner(t *testing.T) {
	s := opensWeb(t, func(*solo) {})
	if n := len(effectsOf[Announce](s.did)); n == 0 || !effectsOf[Announce](s.did)[0].First || n > 1 && effectsOf[Announce](s.did)[1].First {
		t.Fatal("of the announcements not the first is marked as such")
	}
	if got := reports(s.since(func() { s.attend(2 * reportAfter) })); len(got) != 0 {
		t.Fatalf("it reports %+v before it has announced", got)
	}
	epoch := s.state.Assignments["web"].Epoch
	if got := reports(s.since(func() { s.step(Said{Group: "web"}); s.attend(reportAfter - 100*time.Millisecond) })); len(got) != 0 {
		t.Fatalf("it reports %+v at once", got)
	}
	got := reports(s.since(func() { s.attend(200 * time.Millisecond) }))
	if len(got) != 1 || len(got[0].Opened) != 1 || len(got[0].Committed) != 0 {
		t.Fatalf("it reports %+v", got)
	}
	if o := got[0].Opened[0]; o.Group != "web" || o.Epoch != epoch || o.Waited < 0 || o.Bound <= 0 || o.Announced < 2*reportAfter {
		t.Fatalf("it reports %+v of epoch %d", o, epoch)
	}
	for try := 1; try < reportTries; try++ {
		again := reports(s.since(func() {
			s.step(Proposed{Command: fsm.Command{Report: &got[0]}, Err: errors.New("nobody leads")})
			s.attend(reportAfter<<try + 200*time.Millisecond)
		}))
		if len(again) != 1 || again[0].Opened[0] != got[0].Opened[0] {
			t.Fatalf("after %d failures it reports %+v", try, again)
		}
	}
	if again := reports(s.since(func() {
		s.step(Proposed{Command: fsm.Command{Report: &got[0]}, Err: errors.New("nobody leads")})
		s.step(Said{Group: "web"})
		s.attend(time.Minute)
	})); len(again) != 0 {
		t.Fatalf("it goes on reporting: %+v", again)
	}
}

// What an earlier life of the process was named for is not this one's to report: it would
// count its own start. It holds the group again, and nobody knows since when nobody did.
func TestReportAfterARestart(t *testing.T) {
	s := opensWeb(t, func(s *solo) { s.core.cfg.AtStart = election.LogAtStart{LastCommand: 2} })
	got := reports(s.since(func() { s.step(Said{Group: "web"}); s.attend(2 * reportAfter) }))
	if len(got) != 1 || len(got[0].Opened) != 0 || len(got[0].Reopened) != 1 || got[0].Reopened[0].Dark != 0 || got[0].Reopened[0].Why != byRestart {
		t.Fatalf("it reports %+v", got)
	}
}

// A group that its owner let go and took again is told of once it is announced: for how
// long it was away, and why.
func TestReportOfAnInterruption(t *testing.T) {
	s := opensWeb(t, func(*solo) {})
	s.step(Said{Group: "web"})
	s.attend(5 * reportAfter)
	got := reports(s.since(func() {
		s.step(Proposed{Command: fsm.Command{Report: &reports(s.did)[0]}})
		s.step(Link{Name: "eth0"})
		s.attend(3 * time.Second)
		s.step(Link{Name: "eth0", OK: true})
		s.attend(500 * time.Millisecond)
		s.step(Said{Group: "web"})
		s.step(Said{Group: "web"})
		s.attend(5 * reportAfter)
	}))
	if len(got) != 1 || len(got[0].Reopened) != 1 || len(got[0].Opened) != 0 {
		t.Fatalf("it reports %+v", got)
	}
	if r := got[0].Reopened[0]; r.Group != "web" || r.Epoch != s.state.Assignments["web"].Epoch || r.Why != "no-carrier" || r.Dark < 3*time.Second || r.Dark > 3600*time.Millisecond {
		t.Errorf("it reports %+v", r)
	}
}

// Renamed without a gap there is nothing to report.
func TestNoReportWithoutAGap(t *testing.T) {
	s := opensWeb(t, func(*solo) {})
	s.step(Said{Group: "web"})
	doc := testDocument()
	doc.Groups[0].VRRP, doc.Groups[0].Addresses = fsm.VRRP{}, append(doc.Groups[0].Addresses, otherAddr)
	s.replace(doc)
	s.attend(500 * time.Millisecond)
	g := s.core.groups["web"]
	if g.phase != active || g.epoch != s.state.Index {
		t.Fatalf("%+v", g)
	}
	s.step(Said{Group: "web"})
	for _, r := range reports(s.since(func() { s.attend(5 * reportAfter) })) {
		for _, o := range r.Opened {
			if o.Epoch == g.epoch {
				t.Errorf("it reports %+v", o)
			}
		}
	}
}

// A leader reports how long its own proposals took, in few entries however many there are.
func TestReportsAreFew(t *testing.T) {
	s := opensWeb(t, func(*solo) {})
	p := &s.core.lead.phases
	for i := range 2*reportMost + 1 {
		s.core.beginReport()
		p.report.Opened = append(p.report.Opened, fsm.Opened{Group: "web", Epoch: uint64(i)})
	}
	var all []fsm.Report
	for range 5 {
		got := reports(s.since(func() { s.attend(2 * reportAfter) }))
		for i := range got {
			s.step(Proposed{Command: fsm.Command{Report: &got[i]}})
		}
		all = append(all, got...)
	}
	if len(all) != 3 || len(all[0].Opened) != reportMost || len(all[2].Opened) != 1 || all[2].Opened[0].Epoch != 2*reportMost {
		t.Errorf("%d reports", len(all))
	}
}
