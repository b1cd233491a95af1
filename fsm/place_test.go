package fsm

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A scene is a cluster of members n1, n2, … and a witness w, to be placed on.
type scene struct {
	t *testing.T
	s *State
	v View
}

func newScene(t *testing.T, members int, d Document) *scene {
	t.Helper()
	sc := &scene{t: t, v: View{Leader: InstanceID{1}, Nodes: map[InstanceID]NodeView{}}}
	f := &Form{Cluster: ClusterID{9}, Name: "prod", Document: d}
	for i := range members {
		f.Nodes = append(f.Nodes, node(InstanceID{byte(i + 1)}, fmt.Sprintf("n%d", i+1), Member))
	}
	f.Nodes = append(f.Nodes, node(InstanceID{200}, "w", Witness))
	sc.s = must(t, &State{}, Command{Form: f})
	for _, n := range f.Nodes {
		sc.v.Nodes[n.ID] = NodeView{Alive: true}
	}
	return sc
}

func (sc *scene) id(name string) InstanceID {
	sc.t.Helper()
	n, ok := sc.s.NodeByName(name)
	if !ok {
		sc.t.Fatalf("no node %q", name)
	}
	return n.ID
}

// node changes what the leader knows of one node.
func (sc *scene) node(name string, change func(*NodeView)) {
	sc.t.Helper()
	n := sc.v.Nodes[sc.id(name)]
	change(&n)
	sc.v.Nodes[sc.id(name)] = n
}

func (sc *scene) alive(name string, yes bool) { sc.node(name, func(n *NodeView) { n.Alive = yes }) }

func (sc *scene) failing(group string, names ...string) {
	for _, name := range strings.Fields("n1 n2 n3 n4") {
		if n, ok := sc.s.NodeByName(name); ok {
			fails := false
			for _, f := range names {
				fails = fails || f == name
			}
			view := sc.v.Nodes[n.ID]
			put(&view.Failing, group, fails)
			sc.v.Nodes[n.ID] = view
		}
	}
}

func (sc *scene) adjust(name, group string, by int) {
	sc.node(name, func(n *NodeView) { put(&n.Adjust, group, by) })
}

func (sc *scene) do(c Command) { sc.t.Helper(); sc.s = must(sc.t, sc.s, c) }

// on puts groups on nodes, given as "web=n1 db=n2".
func (sc *scene) on(where string, why Reason) *scene {
	sc.t.Helper()
	for _, f := range strings.Fields(where) {
		group, name, _ := strings.Cut(f, "=")
		sc.do(Command{Assign: &Assign{Group: group, Owner: sc.id(name), Seen: sc.s.Assignments[group].Epoch, Reason: why}})
	}
	return sc
}

// want has Place decide, compares what it says with "web=n2:drain db=-:all-fail", and
// carries it out. What follows must be nothing.
func (sc *scene) want(what string) {
	sc.t.Helper()
	var got []string
	all := Place(sc.s, sc.v)
	for i, a := range all {
		to := "-"
		if !a.Owner.IsZero() {
			to = nameOf(sc.s, a.Owner)
		}
		got = append(got, fmt.Sprintf("%s=%s:%s", a.Group, to, a.Reason))
		sc.do(Command{Assign: &all[i]})
	}
	if strings.Join(got, " ") != what {
		sc.t.Fatalf("Place says %q, want %q", strings.Join(got, " "), what)
	}
	if again := Place(sc.s, sc.v); len(again) != 0 {
		sc.t.Fatalf("and then %+v", again)
	}
}

func preferring(name, addr string, p map[string]uint8, preempt Preempt) Group {
	g := group(name, addr)
	g.Placement, g.Priority, g.Preempt = PlacementPriority, p, preempt
	return g
}

func spread(n int, preempt Preempt) []Group {
	var out []Group
	for i := range n {
		g := group(fmt.Sprintf("s%d", i), fmt.Sprintf("10.2.%d.%d/32", i/250, i%250))
		g.Placement, g.Preempt = PlacementSpread, preempt
		out = append(out, g)
	}
	return out
}

// Two groups, each preferring another node, each covering for the other, and back
// after the delay.
func TestDualMaster(t *testing.T) {
	back := Preempt{Yes: true, Delay: 30 * time.Second}
	sc := newScene(t, 2, doc(
		preferring("web", "10.0.0.1/24", map[string]uint8{"n1": 150}, back),
		preferring("db", "10.0.0.2/24", map[string]uint8{"n2": 150}, back)))
	sc.want("web=n1:first db=n2:first")
	sc.alive("n1", false)
	sc.want("web=n2:owner-lost")
	sc.alive("n1", true)
	for _, d := range []time.Duration{0, 29 * time.Second} {
		sc.node("n1", func(n *NodeView) { n.FitFor = map[string]time.Duration{"web": d, "db": d} })
		sc.want("")
	}
	sc.node("n1", func(n *NodeView) { n.FitFor = map[string]time.Duration{"web": 30 * time.Second} })
	sc.want("web=n1:preempt")
}

func TestPriority(t *testing.T) {
	p := map[string]uint8{"n1": 150, "n2": 120, "n3": 120, "n4": 0}
	for name, tt := range map[string]struct {
		preempt Preempt
		on      string
		why     Reason
		view    func(*scene)
		want    string
	}{
		"the highest":                 {on: "", want: "web=n1:first"},
		"of equals the lowest name":   {on: "web=n1", view: func(sc *scene) { sc.alive("n1", false) }, want: "web=n2:owner-lost"},
		"no preempt":                  {on: "web=n2", want: ""},
		"preempt":                     {on: "web=n2", preempt: Preempt{Yes: true}, want: "web=n1:preempt"},
		"an equal takes nothing":      {on: "web=n3", preempt: Preempt{Yes: true}, view: func(sc *scene) { sc.alive("n1", false) }, want: ""},
		"not what a person put there": {on: "web=n2", why: ReasonMove, preempt: Preempt{Yes: true}, want: ""},
		"not one tried in vain":       {on: "web=n2", preempt: Preempt{Yes: true}, view: func(sc *scene) { sc.node("n1", func(n *NodeView) { n.Failed = map[string]int{"web": 1} }) }, want: ""},
		"priority 0 is left":          {on: "web=n4", want: "web=n1:document"},
		"priority 0 is better than none": {on: "web=n4", view: func(sc *scene) {
			for _, n := range []string{"n1", "n2", "n3"} {
				sc.alive(n, false)
			}
		}, want: ""},
		"priority 0 is never chosen": {on: "web=n1", view: func(sc *scene) {
			for _, n := range []string{"n1", "n2", "n3"} {
				sc.alive(n, false)
			}
		}, want: ""},
		"weights move the order":     {on: "", view: func(sc *scene) { sc.adjust("n1", "web", -40) }, want: "web=n2:first"},
		"who comes down leaves":      {on: "web=n1", view: func(sc *scene) { sc.adjust("n1", "web", -40) }, want: "web=n2:check-failed"},
		"not if still the best":      {on: "web=n1", view: func(sc *scene) { sc.adjust("n1", "web", -20) }, want: ""},
		"not if all come down":       {on: "web=n1", view: func(sc *scene) { sc.adjust("n1", "web", -90); sc.adjust("n2", "web", -90); sc.adjust("n3", "web", -90) }, want: ""},
		"who comes up needs preempt": {on: "web=n1", view: func(sc *scene) { sc.adjust("n2", "web", 90) }, want: ""},
		"who comes up with preempt":  {on: "web=n1", preempt: Preempt{Yes: true}, view: func(sc *scene) { sc.adjust("n2", "web", 90) }, want: "web=n2:preempt"},
		"a score has an end":         {on: "web=n1", preempt: Preempt{Yes: true}, view: func(sc *scene) { sc.adjust("n1", "web", 110); sc.adjust("n2", "web", 250) }, want: ""},
		"coming down asks for no delay": {on: "web=n1", preempt: Preempt{Yes: true, Delay: time.Hour}, view: func(sc *scene) {
			sc.adjust("n1", "web", -90)
			sc.node("n2", func(n *NodeView) { n.FitFor = map[string]time.Duration{"web": 0} })
		}, want: "web=n2:check-failed"},
	} {
		t.Run(name, func(t *testing.T) {
			sc := newScene(t, 4, doc(preferring("web", "10.0.0.1/24", p, tt.preempt)))
			sc.on(tt.on, max(tt.why, ReasonFirst))
			if tt.view != nil {
				tt.view(sc)
			}
			sc.want(tt.want)
		})
	}
}

// A positive weight that is missing brings its node down as a negative one does.
func TestPositiveWeight(t *testing.T) {
	byDevice := preferring("web", "10.0.0.1/24", map[string]uint8{"n1": 110}, Preempt{})
	byCheck := byDevice
	byDevice.TrackInterfaces, byCheck.Checks = []Track{{"eth1", 20}}, []string{"c"}
	for _, g := range []Group{byDevice, byCheck} {
		d := doc(g)
		d.Checks = []Check{check("c")}
		d.Checks[0].Weight = 20
		sc := newScene(t, 2, d).on("web=n1", ReasonFirst)
		sc.adjust("n1", "web", 20)
		sc.want("")
		sc.adjust("n2", "web", 20)
		sc.want("")
		sc.adjust("n1", "web", 0) // 110 against 120
		sc.want("web=n2:check-failed")
		sc.adjust("n1", "web", 20) // 130 against 120, and no preempt
		sc.want("")
	}
}

// Weights count with every placement; priorities only with their own.
func TestWeightsWithoutPriorities(t *testing.T) {
	for _, placement := range []Placement{PlacementLeader, PlacementSpread} {
		g := group("web", "10.0.0.1/24")
		g.Placement, g.Priority = placement, map[string]uint8{"n2": 10}
		sc := newScene(t, 2, doc(g)).on("web=n1", ReasonFirst)
		sc.adjust("n1", "web", -1)
		sc.want("web=n2:check-failed")
		sc.adjust("n2", "web", -1)
		sc.want("")
		sc.adjust("n1", "web", 0)
		sc.want("web=n1:check-failed")
	}
}

func TestChecks(t *testing.T) {
	keep, release := group("web", "10.0.0.1/24"), group("web", "10.0.0.1/24")
	release.WhenAllFail = AllFailRelease
	for _, g := range []Group{keep, release} {
		sc := newScene(t, 2, doc(g)).on("web=n1", ReasonFirst)
		sc.failing("web", "n1")
		sc.want("web=n2:check-failed")
		sc.failing("web")
		sc.want("") // who has it keeps it
		sc.failing("web", "n1", "n2")
		if g.WhenAllFail != AllFailRelease {
			sc.want("") // and is not passed round
			sc.alive("n2", false)
			sc.want("web=n1:owner-lost") // a check may be wrong, a dead owner is wrong for sure
			sc.alive("n2", true)
			sc.want("")
			sc.failing("web", "n1")
			sc.want("web=n2:check-failed")
			continue
		}
		sc.alive("n2", false)
		sc.want("") // not served where it is, and nobody passes
		sc.alive("n2", true)
		sc.want("web=-:all-fail")
		sc.want("")
		sc.failing("web", "n1")
		sc.want("web=n2:restore")
		sc.alive("n2", false)
		sc.want("") // the one that is left fails, and nobody serves already
	}
}

// A group that never had an owner gets one under keep, and waits under release.
func TestFirstOwnerWhenAllFail(t *testing.T) {
	g := group("web", "10.0.0.1/24")
	for policy, want := range map[AllFail]string{AllFailKeep: "web=n1:first", AllFailRelease: ""} {
		g.WhenAllFail = policy
		sc := newScene(t, 2, doc(g))
		sc.failing("web", "n1", "n2")
		sc.want(want)
	}
}

// Nobody had it, and then the document wants someone to have it in any case.
func TestReleaseBecomesKeep(t *testing.T) {
	g := group("web", "10.0.0.1/24")
	g.WhenAllFail = AllFailRelease
	sc := newScene(t, 2, doc(g)).on("web=n2", ReasonFirst)
	sc.failing("web", "n1", "n2")
	sc.want("web=-:all-fail")
	g.WhenAllFail = AllFailKeep
	sc.do(Command{Replace: &Replace{Seen: 1, Document: doc(g)}})
	sc.want("web=n1:first")
}

func TestDrain(t *testing.T) {
	sc := newScene(t, 2, doc(web, db)).on("web=n1 db=n2", ReasonFirst)
	drain := func(name string, yes bool) {
		sc.do(Command{Drain: &Drain{Node: sc.id(name), Drained: yes, By: "root@n1"}})
	}
	drain("n1", true)
	sc.want("web=n2:drain")
	drain("n1", true)
	sc.want("")
	drain("n2", true)
	sc.want("") // nobody else: better a drained owner than none
	sc.node("n2", func(n *NodeView) { n.Unfit = map[string]bool{"web": true} })
	sc.want("") // and a drained node takes nothing
	drain("n1", false)
	sc.want("web=n1:owner-unfit db=n1:drain")
	drain("n2", false)
	sc.want("")
}

func TestRetiredOwner(t *testing.T) {
	sc := newScene(t, 2, doc(web, db)).on("web=n1 db=n2", ReasonFirst)
	sc.do(Command{Retire: &Retire{Node: sc.id("n1"), By: "root@n2"}})
	sc.want("web=n2:owner-gone")
}

// 50 groups on 5 nodes; one dies: only its groups move, and the rest is even again.
func TestSpread(t *testing.T) {
	sc := newScene(t, 5, doc(spread(50, Preempt{})...))
	for _, a := range Place(sc.s, sc.v) {
		sc.do(Command{Assign: &a})
	}
	if got := sc.counts(); got != "10 10 10 10 10" {
		t.Fatalf("groups on n1 to n5: %s", got)
	}
	sc.alive("n3", false)
	out := Place(sc.s, sc.v)
	for _, a := range out {
		if sc.s.Assignments[a.Group].Owner != sc.id("n3") || a.Reason != ReasonLost {
			t.Fatalf("%+v moves", a)
		}
		sc.do(Command{Assign: &a})
	}
	if got := sc.counts(); len(out) != 10 || got != "13 13 0 12 12" {
		t.Fatalf("%d moves, and groups on n1 to n5: %s", len(out), got)
	}
	sc.alive("n3", true)
	sc.want("") // who comes back takes nothing
}

func (sc *scene) counts() string {
	var out []string
	for i := range len(sc.s.Nodes) - 1 { // but the witness
		n := 0
		for _, a := range sc.s.Assignments {
			if a.Owner == (InstanceID{byte(i + 1)}) {
				n++
			}
		}
		out = append(out, fmt.Sprint(n))
	}
	return strings.Join(out, " ")
}

// With preempt the node that comes back gets its part, with the fewest moves.
func TestSpreadBack(t *testing.T) {
	sc := newScene(t, 3, doc(spread(9, Preempt{Yes: true, Delay: time.Minute})...))
	for i := range 9 {
		sc.on(fmt.Sprintf("s%d=n%d", i, 1+i%2), ReasonLost)
	}
	sc.node("n3", func(n *NodeView) {
		n.FitFor = map[string]time.Duration{}
		for i := range 9 {
			n.FitFor[fmt.Sprintf("s%d", i)] = 59 * time.Second
		}
	})
	sc.want("")
	sc.node("n3", func(n *NodeView) { n.FitFor = nil })
	sc.want("s8=n3:preempt s6=n3:preempt s7=n3:preempt")
	if got := sc.counts(); got != "3 3 3" {
		t.Fatalf("groups on n1 to n3: %s", got)
	}
}

func TestSpreadWeights(t *testing.T) {
	groups := spread(4, Preempt{Yes: true})
	groups[0].Weight = 3
	sc := newScene(t, 2, doc(groups...))
	sc.want("s0=n1:first s1=n2:first s2=n2:first s3=n2:first")
	groups[1].Weight = 2 // 3 against 4: not worth a move
	sc.do(Command{Replace: &Replace{Seen: 1, Document: doc(groups...)}})
	sc.want("")
	groups[0].Weight = 1 // 1 against 4: one of weight 1 goes
	sc.do(Command{Replace: &Replace{Seen: 2, Document: doc(groups...)}})
	sc.want("s3=n1:preempt")
}

// What balance leaves alone: a difference that a move would not make much smaller, what a
// person moved, and a node that was tried in vain.
func TestSpreadStays(t *testing.T) {
	groups := spread(3, Preempt{Yes: true})
	groups[0].Weight, groups[1].Weight = 2, 2
	sc := newScene(t, 2, doc(groups...)).on("s0=n1 s1=n1 s2=n2", ReasonLost)
	sc.want("") // 4 against 1
	sc.on("s2=n1", ReasonMove).on("s1=n1 s0=n1", ReasonMove)
	sc.want("") // 5 against 0, as a person wanted
	sc.on("s2=n1", ReasonLost)
	sc.node("n2", func(n *NodeView) { n.Failed = map[string]int{"s2": 1} })
	sc.want("")
	sc.node("n2", func(n *NodeView) { n.Failed = nil })
	sc.want("s2=n2:preempt")
}

func TestScoreAndFit(t *testing.T) {
	g := preferring("web", "10.0.0.1/24", map[string]uint8{"n1": 150, "n3": 0}, Preempt{})
	sc := newScene(t, 3, doc(g))
	sc.adjust("n1", "web", 200)
	sc.adjust("n2", "web", -200)
	sc.adjust("n3", "web", 50)
	for name, want := range map[string]struct {
		score int
		fit   bool
	}{"n1": {254, true}, "n2": {1, true}, "n3": {0, false}, "w": {0, false}} {
		if got := Score(sc.s, sc.v, "web", sc.id(name)); got != want.score {
			t.Errorf("score of %s is %d, want %d", name, got, want.score)
		}
		if got := fitByName(sc.s, sc.v, "web", sc.id(name)); got != want.fit {
			t.Errorf("%s is fit: %v", name, got)
		}
	}
	if Score(sc.s, sc.v, "nosuch", sc.id("n1")) != 0 || Score(sc.s, sc.v, "web", InstanceID{99}) != 0 || fitByName(sc.s, sc.v, "nosuch", sc.id("n1")) {
		t.Error("a group or node that the state does not have has a score")
	}
	sc.failing("web", "n1")
	sc.do(Command{Drain: &Drain{Node: sc.id("n2"), Drained: true}})
	if fitByName(sc.s, sc.v, "web", sc.id("n1")) || fitByName(sc.s, sc.v, "web", sc.id("n2")) {
		t.Error("a node that fails a check, or is drained, is fit")
	}
}

func fitByName(s *State, v View, group string, id InstanceID) bool {
	g, ok := s.Document.Group(group)
	return ok && Fit(s, v, &g, id)
}
