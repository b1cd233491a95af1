package fsm

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
)

// A maker makes random states and views, the same for the same seed.
type maker struct{ *rand.Rand }

func newMaker(seed uint64) maker { return maker{rand.New(rand.NewPCG(seed, 5))} }

func (m maker) odds(percent int) bool { return m.IntN(100) < percent }

func (m maker) group(i int, nodes []Node) Group {
	g := Group{
		Name:        fmt.Sprintf("g%02d", i),
		Addresses:   []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 24)},
		Placement:   Placement(1 + m.IntN(3)),
		WhenAllFail: AllFail(m.IntN(3)),
		Weight:      m.IntN(5),
		Priority:    map[string]uint8{},
	}
	if m.odds(50) {
		g.Preempt = Preempt{Yes: true, Delay: time.Duration(m.IntN(3)) * time.Second}
	}
	for _, n := range nodes {
		if m.odds(40) {
			g.Priority[n.Name] = []uint8{0, 50, 100, 100, 150, 254}[m.IntN(6)]
		}
	}
	if m.odds(30) {
		g.Checks = []string{"up"}
	}
	if m.odds(30) {
		g.TrackInterfaces = []Track{{"eth1", -20}}
	}
	return g
}

// company adds links between the groups that the document can have.
func (m maker) company(d *Document) {
	for range m.IntN(2 * len(d.Groups)) {
		i, j := m.IntN(len(d.Groups)), m.IntN(len(d.Groups))
		was := d.Groups[i]
		g, other := &d.Groups[i], d.Groups[j]
		if m.odds(60) {
			g.Apart = append(slices.Clone(g.Apart), other.Name)
		} else {
			g.Together = append(slices.Clone(g.Together), other.Name)
			g.Placement, g.Preempt = other.Placement, other.Preempt
		}
		if d.Check() != nil {
			d.Groups[i] = was
		}
	}
}

func (m maker) state() *State {
	s := &State{Cluster: ClusterID{9}, Index: 1000, Nodes: map[InstanceID]Node{}, Assignments: map[string]Assignment{}}
	var nodes []Node
	for i := range 1 + m.IntN(5) {
		role := Member
		if m.odds(10) {
			role = Witness
		}
		n := node(InstanceID{byte(i + 1)}, fmt.Sprintf("n%d", i+1), role)
		nodes = append(nodes, n)
		s.Nodes[n.ID] = n
		if m.odds(10) {
			s.Drained = cloned(s.Drained)
			s.Drained[n.ID] = true
		}
	}
	s.Document = Document{MaxHold: time.Second, Checks: []Check{
		{Name: "up", TCP: "127.0.0.1:80", Interval: time.Second, Timeout: time.Second, Rise: 1, Fall: 1, Weight: []int{0, 20, -20}[m.IntN(3)]}}}
	for i := range 1 + m.IntN(12) {
		s.Document.Groups = append(s.Document.Groups, m.group(i, nodes))
	}
	m.company(&s.Document)
	for i, g := range s.Document.Groups {
		a := Assignment{Epoch: uint64(i + 1), Reason: Reason(1 + m.IntN(int(ReasonRestore)))}
		switch m.IntN(10) {
		case 0:
			continue
		case 1:
			a.Reason = ReasonAllFail
		case 2:
			a.Owner = InstanceID{99}
		default:
			a.Owner = nodes[m.IntN(len(nodes))].ID
		}
		s.Assignments[g.Name] = a
	}
	return s
}

func (m maker) view(s *State) View {
	v := View{Nodes: map[InstanceID]NodeView{}}
	trouble := m.IntN(40) // percent
	for i := range len(s.Nodes) {
		id := InstanceID{byte(i + 1)}
		n := NodeView{Alive: !m.odds(trouble / 2), Stopping: m.odds(trouble / 4)}
		for _, g := range s.Document.Groups {
			if m.odds(trouble / 3) {
				put(&n.Unfit, g.Name, true)
			}
			if m.odds(trouble) {
				put(&n.Failing, g.Name, true)
			}
			if m.odds(trouble) {
				put(&n.Failed, g.Name, 1+m.IntN(3))
			}
			if m.odds(trouble) {
				put(&n.Adjust, g.Name, m.IntN(60)-40)
			}
			if m.odds(trouble) {
				put(&n.FitFor, g.Name, time.Duration(m.IntN(4))*time.Second)
			}
			if s.Assignments[g.Name].Owner == id && m.odds(trouble/3) {
				put(&n.Overdue, g.Name, true)
			}
		}
		v.Nodes[id] = n
		if m.odds(30) {
			v.Leader = id
		}
	}
	return v
}

func put[V any](m *map[string]V, key string, v V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = v
}

const randomRuns = 2000

// commit applies one assignment, and has the view say of it what a leader would: the
// new owner is not overdue.
func commit(t *testing.T, s *State, v View, a Assign) *State {
	t.Helper()
	if n := v.Nodes[a.Owner]; n.Overdue[a.Group] {
		t.Fatalf("%+v is to an owner that is overdue", a)
	}
	return must(t, s, Command{Assign: &a})
}

// What Place promises, for random states and views.
func TestPlaceKeepsItsPromises(t *testing.T) {
	for seed := range uint64(randomRuns) {
		m := newMaker(seed)
		s := m.state()
		v := m.view(s)
		out := Place(s, v)
		if again := Place(s, v); !reflect.DeepEqual(again, out) {
			t.Fatalf("seed %d: twice the same gives\n%+v\nand\n%+v", seed, out, again)
		}
		after := s
		for _, a := range out {
			checkAssign(t, seed, s, v, a)
			after = commit(t, after, v, a)
		}
		if again := Place(after, v); len(again) != 0 {
			t.Fatalf("seed %d: Place is not content with its own result: %+v then %+v", seed, out, again)
		}
		checkLeft(t, seed, after, v)
	}
}

// checkAssign: nobody but a node that can gets a group, and a group that is well moves
// for a reason of the document's only.
func checkAssign(t *testing.T, seed uint64, s *State, v View, a Assign) {
	t.Helper()
	g, _ := s.Document.Group(a.Group)
	was, had := s.Assignments[a.Group]
	anyFit := false
	for id := range s.Nodes {
		anyFit = anyFit || fitByName(s, v, a.Group, id) && !v.Nodes[id].Overdue[a.Group]
	}
	if a.Seen != was.Epoch || had && a.Owner == was.Owner {
		t.Fatalf("seed %d: %+v of %+v", seed, a, was)
	}
	switch {
	case a.Owner.IsZero():
		if a.Reason != ReasonAllFail || anyFit || g.WhenAllFail != AllFailRelease || !v.Nodes[was.Owner].Failing[a.Group] {
			t.Fatalf("seed %d: nobody gets it, %+v", seed, a)
		}
	case fitByName(s, v, a.Group, a.Owner):
	case anyFit, g.WhenAllFail == AllFailRelease, objection(s, s.Nodes[a.Owner], v.Nodes[a.Owner], &g) != ReasonCheck:
		t.Fatalf("seed %d: %+v to a node that is not fit", seed, a)
	}
	well := had && fitByName(s, v, a.Group, was.Owner) && !v.Nodes[was.Owner].Overdue[a.Group]
	asked := len(g.Apart)+len(g.Together) > 0 || linked(s, a.Group)
	switch a.Reason {
	case ReasonApart, ReasonTogether:
		if !well || !asked {
			t.Fatalf("seed %d: %+v, which is well, or alone", seed, a)
		}
	case ReasonPreempt:
		if !well || !g.Preempt.Yes || g.Placement == PlacementLeader {
			t.Fatalf("seed %d: %+v without preempt", seed, a)
		}
	default:
		if well && a.Reason != ReasonCheck {
			t.Fatalf("seed %d: %+v, which is well", seed, a)
		}
	}
}

// linked reports whether another group wants to be apart from or together with this one.
func linked(s *State, group string) bool {
	return slices.ContainsFunc(s.Document.Groups, func(g Group) bool {
		return slices.Contains(g.Apart, group) || slices.Contains(g.Together, group)
	})
}

// checkLeft: no group is left where it cannot be while a node is fit for it, and all
// that are together are, if a node is fit for them.
func checkLeft(t *testing.T, seed uint64, s *State, v View) {
	t.Helper()
	p := newPlan(s, v)
	for i := range p.units {
		u := &p.units[i]
		if !p.anyFit(u) {
			continue
		}
		for _, g := range u.members {
			if at := p.owner(g); at == nowhere || at != p.anchor(u) || !p.fit(u, at) {
				t.Fatalf("seed %d: %s is left at %d", seed, p.groups[g].Name, at)
			}
		}
	}
}

// The leader proposes all and decides anew as each is committed: meanwhile nothing may
// move but what is under way.
func TestPlaceOneByOne(t *testing.T) {
	for seed := range uint64(randomRuns) {
		m := newMaker(seed)
		s := m.state()
		v := m.view(s)
		out := Place(s, v)
		v.Pending = true
		for i, a := range out {
			s = commit(t, s, v, a)
			for _, b := range Place(s, v) {
				if !slices.ContainsFunc(out[i+1:], func(c Assign) bool { return c.Group == b.Group }) {
					t.Fatalf("seed %d: of %+v after %d now %+v", seed, out, i+1, b)
				}
			}
		}
	}
}

// A change of one group moves no other that does not ask to be apart from or together
// with something; with placement spread and preempt it may, that is what they ask for.
func TestPlaceLeavesOthersAlone(t *testing.T) {
	for seed := range uint64(randomRuns) {
		m := newMaker(seed)
		s := m.state()
		v := m.view(s)
		for _, a := range Place(s, v) {
			s = commit(t, s, v, a)
		}
		changed := m.IntN(len(s.Document.Groups))
		was := s.Document.Groups[changed]
		s.Document.Groups = slices.Clone(s.Document.Groups)
		g := m.group(changed, slices.Collect(func(yield func(Node) bool) {
			for _, n := range s.Nodes {
				_ = yield(n)
			}
		}))
		g.Apart, g.Together = was.Apart, was.Together
		s.Document.Groups[changed] = g
		if s.Document.Check() != nil {
			continue
		}
		for _, a := range Place(s, v) {
			moved, _ := s.Document.Group(a.Group)
			if a.Group != g.Name && len(moved.Apart)+len(moved.Together) == 0 && !linked(s, a.Group) &&
				(moved.Placement != PlacementSpread || !moved.Preempt.Yes) {
				t.Fatalf("seed %d: %s was changed and %+v moves", seed, g.Name, a)
			}
		}
	}
}

// Explain agrees with Place, and has something to say of every node.
func TestExplainAgreesWithPlace(t *testing.T) {
	for seed := range uint64(randomRuns / 10) {
		m := newMaker(seed)
		s := m.state()
		v := m.view(s)
		for _, g := range s.Document.Groups {
			e, err := Explain(s, v, g.Name)
			if err != nil || len(e.Next) == 0 || len(e.Candidates) != len(s.Nodes) {
				t.Fatalf("seed %d: %+v, %v", seed, e, err)
			}
			for _, c := range e.Candidates {
				if !c.Fit && len(c.Why) == 0 {
					t.Fatalf("seed %d: %s of %s is not fit, and nothing says why", seed, c.Name, g.Name)
				}
			}
		}
	}
}

func FuzzPlace(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		s := newMaker(a).state()
		v := newMaker(b).view(s)
		for _, as := range Place(s, v) {
			checkAssign(t, a, s, v, as)
			s = commit(t, s, v, as)
		}
		if again := Place(s, v); len(again) != 0 {
			t.Fatalf("not content with its own result: %+v", again)
		}
	})
}
