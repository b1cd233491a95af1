package core

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

// checkedDocument has a group with checks of weight 0, -20 and 30, and tracked devices.
func checkedDocument() fsm.Document {
	doc := testDocument()
	for name, weight := range map[string]int{"must": 0, "minus": -20, "plus": 30} {
		doc.Checks = append(doc.Checks, fsm.Check{Name: name, File: &fsm.FileCheck{Path: "/x"}, Weight: weight,
			Interval: time.Second, Timeout: time.Second, Rise: 1, Fall: 1})
	}
	g := &doc.Groups[0]
	g.Checks = []string{"must", "minus", "plus"}
	g.TrackInterfaces = []fsm.Track{{Interface: "eth1"}, {Interface: "eth2", Weight: -5}}
	g.VRRP = fsm.VRRP{}
	return doc
}

// said is what the next renewal says of the group; nothing if it does not name it.
func (s *solo) said() election.GroupState {
	r := s.renewal(testRenew)
	if len(r.Groups) == 0 {
		return election.GroupState{}
	}
	return r.Groups[0]
}

func (s *solo) check(name string, pass bool) {
	s.step(Checked{Check: name, Pass: pass, Why: "it is so"})
}

// What checks and tracked devices say is in each renewal, and in what this node sees of
// itself. A group of which nothing is amiss is not named.
func TestConditionIsSaid(t *testing.T) {
	s := newSolo(t, time.Hour)
	s.form(checkedDocument())
	s.attend(time.Second)
	for _, tt := range []struct {
		name   string
		do     func()
		unfit  election.Unfit
		adjust int16
	}{
		{"no result yet, and no device", func() {}, election.UnfitCheck, -25},
		{"a device up", func() { s.step(Link{Name: "eth2", OK: true}) }, election.UnfitCheck, -20},
		{"the other too", func() { s.step(Link{Name: "eth1", OK: true}) }, election.UnfitCheck, -20},
		{"the check passes", func() { s.check("must", true) }, 0, -20},
		{"one that adds passes", func() { s.check("plus", true) }, 0, 10},
		{"one that takes away fails", func() { s.check("minus", false) }, 0, 10},
		{"the check fails", func() { s.check("must", false) }, election.UnfitCheck, 10},
		{"and passes", func() { s.check("must", true) }, 0, 10},
		{"the tracked device is down", func() { s.step(Link{Name: "eth1"}) }, election.UnfitCheck, 10},
		{"so is the other", func() { s.step(Link{Name: "eth2"}) }, election.UnfitCheck, 5},
		{"what cannot be comes first", func() { s.step(Link{Name: "eth0"}) }, election.UnfitNoCarrier, 5},
	} {
		tt.do()
		if got := s.said(); got.Unfit != tt.unfit || got.Adjust != tt.adjust || (got.Group != "" && got.Phase != election.PhaseIdle) {
			t.Fatalf("%s: says %+v, want %v and %+d", tt.name, got, tt.unfit, tt.adjust)
		}
		v := s.core.nodeView(s.self.ID)
		if v.Adjust["web"] != int(tt.adjust) || v.Failing["web"] != (tt.unfit == election.UnfitCheck) ||
			v.Unfit["web"] != (tt.unfit != 0 && tt.unfit != election.UnfitCheck) {
			t.Fatalf("%s: sees itself as %+v", tt.name, v)
		}
	}
}

// What another node says is seen in the same way.
func TestConditionIsHeard(t *testing.T) {
	s := newSolo(t, time.Hour)
	s.form(checkedDocument())
	s.attend(time.Second)
	for _, tt := range []struct {
		said           election.GroupState
		unfit, failing bool
	}{
		{election.GroupState{}, false, false},
		{election.GroupState{Unfit: election.UnfitCheck, Adjust: -7}, false, true},
		{election.GroupState{Unfit: election.UnfitKernel, Adjust: 9}, true, false},
	} {
		tt.said.Group, tt.said.Phase = "web", election.PhaseIdle
		s.tell(election.Renewal{Groups: []election.GroupState{tt.said}})
		v := s.core.nodeView(s.other.ID)
		if v.Unfit["web"] != tt.unfit || v.Failing["web"] != tt.failing || v.Adjust["web"] != int(tt.said.Adjust) {
			t.Errorf("of %+v it sees %+v", tt.said, v)
		}
	}
}

// A long renewal counts when all its parts have come. In half of one, a group of the
// other half would seem well.
func TestHalfARenewal(t *testing.T) {
	s := newSolo(t, time.Hour)
	s.form(testDocument())
	s.attend(time.Second)
	part := func(at election.Instant, part uint8, group string) {
		s.step(Datagram{Message: election.Renewal{
			Sender: election.Sender{Cluster: fsm.ClusterID{9}, From: s.other.ID}, Stamp: election.Stamp{Boot: election.BootID{2}, At: at},
			Part: part, Parts: 2, Groups: []election.GroupState{{Group: group, Phase: election.PhaseIdle, Unfit: election.UnfitKernel}},
		}})
	}
	seen := func() map[string]bool { return s.core.nodeView(s.other.ID).Unfit }
	part(1, 0, "api")
	if v := s.core.nodeView(s.other.ID); v.Alive || len(v.Unfit) != 0 {
		t.Fatalf("by half of its first renewal the other is %+v", v)
	}
	part(1, 0, "api") // once more
	if len(seen()) != 0 {
		t.Fatal("one part twice counts as two")
	}
	part(1, 1, "web")
	part(2, 1, "web")
	if !seen()["web"] || !seen()["api"] {
		t.Fatalf("after one whole renewal and half of the next the other is unfit for %v", seen())
	}
	part(2, 0, "other")
	if seen()["api"] || !seen()["other"] {
		t.Fatalf("after two whole renewals the other is unfit for %v", seen())
	}
}

// An owner that fails a check serves on, and says so. The check of an open group that
// has no result yet is no failure; of another it is.
func TestFailingOwnerServesOn(t *testing.T) {
	s := holding(t)
	doc := checkedDocument()
	doc.Groups[0].TrackInterfaces = nil
	doc.Groups[0].VRRP = s.state.Document.Groups[0].VRRP
	s.replace(doc)
	if got := s.said(); got.Phase != election.PhaseOpen || got.Unfit != 0 {
		t.Fatalf("with a new check it says %+v, want an open group and nothing amiss", got)
	}
	s.check("must", false)
	s.serve(time.Second)
	if got := s.said(); got.Phase != election.PhaseOpen || got.Unfit != election.UnfitCheck {
		t.Fatalf("with a check that fails it says %+v, want that it is open and fails", got)
	}
	v := s.vip()
	if v.State != "active" || !v.Failing || !slices.Equal(v.FailingWhy, []string{"check must: it is so"}) || v.Problem != "check must: it is so" {
		t.Fatalf("status %+v", v)
	}
	s.tell(election.Renewal{Health: election.Health{VoterReady: true}})
	moved := effectsOf[Propose](s.did)
	if len(moved) == 0 || moved[0].Command.Assign == nil || moved[0].Command.Assign.Owner != s.other.ID || moved[0].Command.Assign.Reason != fsm.ReasonCheck {
		t.Fatalf("proposed %+v, want the group to go to the other node", moved)
	}
}

// What was said of a check that is gone says nothing of a later one of that name.
func TestGoneCheckIsForgotten(t *testing.T) {
	s := newSolo(t, time.Hour)
	doc := checkedDocument()
	doc.Groups[0].TrackInterfaces = nil
	s.form(doc)
	s.check("must", true)
	s.check("plus", true)
	s.attend(time.Second)
	if got := s.said(); got.Unfit != 0 || got.Adjust != 10 {
		t.Fatalf("says %+v", got)
	}
	s.replace(testDocument())
	if got := s.said(); got.Group != "" {
		t.Fatalf("without checks it says %+v", got)
	}
	s.replace(doc)
	s.attend(time.Second)
	if got := s.said(); got.Unfit != election.UnfitCheck || got.Adjust != -20 {
		t.Fatalf("with the checks again, which have no result yet, it says %+v", got)
	}
}

// Every node knows for how long each has been fit without a break, where that counts.
func TestFitFor(t *testing.T) {
	s := newSolo(t, time.Hour)
	doc := testDocument()
	doc.Groups[0].Placement, doc.Groups[0].Preempt = fsm.PlacementPriority, fsm.Preempt{Yes: true, Delay: time.Minute}
	s.form(doc)
	tell := func(d time.Duration, r election.Renewal) {
		for end := s.now.Add(d); s.now.Before(end); {
			s.tell(r)
			s.attend(20 * time.Millisecond)
		}
	}
	fitFor := func() time.Duration { return s.core.nodeView(s.other.ID).FitFor["web"] }
	tell(time.Second, election.Renewal{})
	if d := fitFor(); d < 500*time.Millisecond || d > 1100*time.Millisecond {
		t.Fatalf("fit for %v by who has listened for a second", d)
	}
	tell(time.Second, election.Renewal{})
	before := fitFor()
	s.tell(election.Renewal{Groups: []election.GroupState{{Group: "web", Phase: election.PhaseIdle, Unfit: election.UnfitCheck}}})
	s.tell(election.Renewal{}) // between two ticks
	if d := fitFor(); before < time.Second || d > 10*time.Millisecond {
		t.Fatalf("fit for %v, and after a failure that was short for %v", before, d)
	}
	tell(2*time.Second, election.Renewal{})
	s.apply(fsm.Command{Drain: &fsm.Drain{Node: s.other.ID, Drained: true}})
	tell(time.Second, election.Renewal{})
	s.apply(fsm.Command{Drain: &fsm.Drain{Node: s.other.ID}})
	tell(time.Second, election.Renewal{})
	if d := fitFor(); d < 900*time.Millisecond || d > 1200*time.Millisecond {
		t.Fatalf("fit for %v, a second after it was drained", d)
	}
	if got := s.core.nodeView(s.self.ID).FitFor["web"]; got < 4*time.Second {
		t.Fatalf("this node has been fit for %v", got)
	}
}

// A router of its own says a lower priority while a check with a weight fails, so that
// another takes over; and the old one when it passes.
func TestAloneCheckLowersThePriority(t *testing.T) {
	l := newLAN(t)
	a := l.addChecked("a", 150, -60)
	b := l.add("b", fsm.VRRP{Priority: 100}, preempts, 2, 2, lan4)
	a.step(Checked{Check: "c", Pass: true})
	l.run(20 * time.Second)
	l.only(a)
	a.step(Checked{Check: "c"})
	l.run(5 * time.Second)
	l.only(b)
	a.when("advert ipv4 90")
	if v := a.core.Status(l.now).VIPs[0]; v.VRRP.Priority != 90 || v.VRRP.Routers[0].Priority != 90 {
		t.Fatalf("status %+v, want priority 90", v.VRRP)
	}
	a.step(Checked{Check: "c", Pass: true})
	l.run(5 * time.Second)
	l.only(a)
	a.when("advert ipv4 150")
}

// With weight 0 it is in Initialize, and gives the group up with priority 0: nobody
// names another here.
func TestAloneCheckStopsTheRouter(t *testing.T) {
	l := newLAN(t)
	a := l.addChecked("a", 150, 0)
	b := l.add("b", fsm.VRRP{Priority: 100}, preempts, 2, 2, lan4)
	l.run(20 * time.Second)
	l.only(b) // the check has no result yet
	a.step(Checked{Check: "c", Pass: true})
	l.run(5 * time.Second)
	l.only(a)
	failed := l.elapsed()
	a.step(Checked{Check: "c", Why: "it is gone"})
	l.run(5 * time.Second)
	l.only(b)
	if took := b.when("bind") - failed; took > time.Second {
		t.Fatalf("b took over after %v, want its skew", took)
	}
	a.when("advert ipv4 0")
	v := a.core.Status(l.now).VIPs[0]
	if v.VRRP.Routers[0].State != vrrpcompat.Initialize.String() || !strings.Contains(v.Problem, "it is gone") {
		t.Fatalf("status %+v %+v", v, v.VRRP)
	}
}

// Who owns the addresses keeps priority 255 (RFC 9568, section 6.1).
func TestAloneOwnerKeepsItsPriority(t *testing.T) {
	l := newLAN(t)
	a := l.addChecked("a", 255, -60)
	a.step(Checked{Check: "c"})
	l.run(2 * time.Second)
	l.only(a)
	a.when("advert ipv4 255")
}

// addChecked starts a router whose group has the check "c".
func (l *lan) addChecked(name string, priority uint8, weight int) *lanHost {
	h := l.add(name, fsm.VRRP{Priority: priority}, preempts, 1, 1, lan4)
	doc := h.core.state.Document
	doc.Checks = []fsm.Check{{Name: "c", File: &fsm.FileCheck{Path: "/x"}, Weight: weight, Interval: time.Second, Timeout: time.Second, Rise: 1, Fall: 1}}
	doc.Groups = slices.Clone(doc.Groups)
	doc.Groups[0].Checks = []string{"c"}
	if err := doc.Check(); err != nil {
		l.t.Fatal(err)
	}
	h.core = NewAlone(AloneConfig{Node: name, Started: l.now, Document: doc})
	for _, f := range []vrrpcompat.Family{vrrpcompat.IPv4, vrrpcompat.IPv6} {
		h.step(SourceChanged{Link: "eth0", Family: f, Addr: h.sources[f]})
	}
	return h
}

// As long as a node speaks of an earlier document, what checks and weights say cannot be
// compared: a group would be passed to whoever speaks of the better one. What must be
// done is done all the same, and after three leases nobody is waited for.
func TestUnsureOfTheDocument(t *testing.T) {
	setup := func() *crowd {
		c := newCrowd(t, 3, 0)
		c.assign(0)
		doc := checkedDocument()
		doc.Groups[0].TrackInterfaces, doc.Groups[0].Checks = nil, []string{"plus"}
		doc.Groups[0].Placement, doc.Groups[0].Preempt = fsm.PlacementPriority, fsm.Preempt{Yes: true}
		doc.Groups[0].Priority = map[string]uint8{"n1": 100, "n2": 90, "n3": 90}
		c.replace(doc)
		for _, n := range c.nodes[1:] {
			c.adjust[n.ID] = 30
		}
		c.check("plus", true)
		c.run(2 * time.Second)
		if c.vip().State != "active" || c.core.unsure() {
			t.Fatalf("%+v, unsure %v", c.vip(), c.core.unsure())
		}
		return c
	}
	assigned := func(c *crowd, first func(c *crowd)) []fsm.Assign {
		var out []fsm.Assign
		for _, e := range effectsOf[Propose](c.since(func() { first(c); c.run(2 * testLease) })) {
			out = append(out, *e.Command.Assign)
		}
		return out
	}
	without := func(c *crowd) {
		for _, n := range c.nodes[1:] {
			c.old[n.ID] = c.state.Index // they say what they said before
		}
		doc := c.state.Document
		doc.Groups = slices.Clone(doc.Groups)
		doc.Groups[0].Checks = nil
		doc.Groups = append(doc.Groups, fsm.Group{Name: "new", Addresses: []netip.Prefix{otherAddr}, Interface: "eth0",
			Placement: fsm.PlacementLeader, Announce: fsm.Announce{Repeat: 5}})
		c.replace(doc)
	}

	c := setup()
	if got := assigned(c, without); len(got) > 0 {
		t.Fatalf("by words of an earlier document it assigns %+v", got)
	}
	if got := assigned(c, func(c *crowd) { clear(c.adjust); clear(c.old) }); len(got) != 1 || got[0].Group != "new" {
		t.Fatalf("when all speak of this one it assigns %+v, want the new group and nothing else", got)
	}

	c = setup()
	if got := assigned(c, func(c *crowd) { without(c); c.step(Link{Name: "eth0"}) }); len(got) > 0 {
		t.Fatalf("to a node that does not know the document it gives %+v", got)
	}
	if got := assigned(c, func(c *crowd) { delete(c.old, c.nodes[2].ID) }); len(got) == 0 || got[0].Group != "web" ||
		got[0].Owner != c.nodes[2].ID || got[0].Reason != fsm.ReasonUnfit {
		t.Fatalf("with one that does, and an owner that cannot hold its group, it assigns %+v", got)
	}

	c = setup()
	without(c)
	c.run(unsurePatience * testLease)
	if c.core.unsure() {
		t.Fatal("it waits for ever")
	}
}
