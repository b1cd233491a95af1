package fsm

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

var (
	a = InstanceID{1}
	b = InstanceID{2}
	w = InstanceID{3}
)

func node(id InstanceID, name string, role Role) Node {
	return Node{ID: id, Name: name, Role: role, Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, id[0]}), 7950)}
}

func doc(groups ...Group) Document { return Document{MaxHold: 5 * time.Second, Groups: groups} }

func group(name string, addrs ...string) Group {
	g := Group{Name: name, Placement: PlacementLeader}
	for _, s := range addrs {
		g.Addresses = append(g.Addresses, netip.MustParsePrefix(s))
	}
	return g
}

var web, db = group("web", "10.0.0.200/24"), group("db", "10.0.0.201/24")

// must applies commands one after the other, at indices 1, 2, …
func must(t *testing.T, s *State, commands ...Command) *State {
	t.Helper()
	for _, c := range commands {
		next, err := s.Apply(s.Index+1, 1, c)
		if err != nil {
			t.Fatalf("apply %+v: %v", c, err)
		}
		s = next
	}
	return s
}

func formed(t *testing.T, groups ...Group) *State {
	t.Helper()
	return must(t, &State{}, Command{Form: &Form{
		Cluster: ClusterID{9}, Name: "prod", Document: doc(groups...),
		Nodes: []Node{node(a, "n1", Member), node(b, "n2", Member), node(w, "w", Witness)},
	}})
}

func assign(g string, to InstanceID, seen uint64) Command {
	return Command{Assign: &Assign{Group: g, Owner: to, Seen: seen, Reason: ReasonMove}}
}

// The epoch is the log index, and an assignment is compare-and-set on it.
func TestAssign(t *testing.T) {
	s := formed(t, web)
	s = must(t, s, assign("web", a, 0))
	if got := s.Assignments["web"]; got.Owner != a || got.Epoch != 2 {
		t.Fatalf("assignment %+v", got)
	}
	for _, tt := range []struct {
		c    Command
		want error
	}{
		{assign("web", b, 0), ErrStale},
		{assign("web", b, 1), ErrStale},
		{assign("nosuch", b, 0), ErrUnknown},
		{assign("web", InstanceID{99}, 2), ErrUnknown},
	} {
		next, err := s.Apply(3, 1, tt.c)
		if !errors.Is(err, tt.want) {
			t.Errorf("%+v: %v, want %v", tt.c.Assign, err, tt.want)
		}
		if next.Index != 3 || next.Assignments["web"] != s.Assignments["web"] {
			t.Errorf("%+v: the refused command changed something, or the index did not move", tt.c.Assign)
		}
	}
	if s.Index != 2 {
		t.Error("Apply changed its receiver")
	}
}

func TestNothingBeforeForming(t *testing.T) {
	s := &State{}
	if _, err := s.Apply(1, 1, assign("web", a, 0)); !errors.Is(err, ErrNotFormed) {
		t.Fatalf("error %v", err)
	}
	s = must(t, s, Command{Lead: &Lead{Node: a}})
	if s.Index != 1 || s.Formed() {
		t.Fatalf("state %+v", s)
	}
	if _, err := formed(t, web).Apply(2, 1, Command{Form: &Form{Cluster: ClusterID{8}, Document: doc(web)}}); !errors.Is(err, ErrFormed) {
		t.Fatalf("formed twice: %v", err)
	}
}

// A group whose addresses change gets a new epoch under the same owner; others,
// and changes of anything else, leave epochs alone (lease.md, V7).
func TestReplaceDocument(t *testing.T) {
	s := must(t, formed(t, web, db), assign("web", a, 0), assign("db", b, 0))
	talkative := db
	talkative.Announce.Repeat = 9
	s = must(t, s, Command{Replace: &Replace{Seen: 1, Document: doc(group("web", "10.0.0.200/24", "10.0.0.210/24"), talkative)}})
	if got := s.Assignments["web"]; got.Epoch != 4 || got.Owner != a || got.Reason != ReasonDocument {
		t.Errorf("web: %+v, want epoch 4 with the same owner", got)
	}
	if got := s.Assignments["db"]; got.Epoch != 3 {
		t.Errorf("db: %+v, want epoch 3 still", got)
	}
	if _, err := s.Apply(5, 1, Command{Replace: &Replace{Seen: 1, Document: doc(web)}}); !errors.Is(err, ErrStale) {
		t.Errorf("an old revision was replaced: %v", err)
	}
	s = must(t, s, Command{Replace: &Replace{Seen: 2, Document: doc(web)}})
	if _, ok := s.Assignments["db"]; ok || s.Document.Revision != 3 {
		t.Errorf("db is still assigned, or revision %d is not 3", s.Document.Revision)
	}
}

// Holds of the old bound may still run, and changes of the voter set are spaced by it.
func TestReplaceNeverLowersTheBound(t *testing.T) {
	s := formed(t, web)
	for seen, bound := range []struct{ asked, want time.Duration }{
		{s.Document.MaxHold / 2, s.Document.MaxHold},
		{s.Document.MaxHold * 2, s.Document.MaxHold * 2},
		{s.Document.MaxHold, s.Document.MaxHold * 2},
	} {
		d := doc(web)
		d.MaxHold = bound.asked
		s = must(t, s, Command{Replace: &Replace{Seen: uint64(seen + 1), Document: d}})
		if s.Document.MaxHold != bound.want {
			t.Fatalf("asked for %v, got %v, want %v", bound.asked, s.Document.MaxHold, bound.want)
		}
	}
}

func TestBadDocument(t *testing.T) {
	for name, d := range map[string]Document{
		"no bound":          {Groups: []Group{web}},
		"no address":        doc(group("web")),
		"name twice":        doc(web, group("web", "10.0.0.9/24")),
		"address twice":     doc(web, group("db", "10.0.0.200/32")),
		"name missing":      doc(group("", "10.0.0.9/24")),
		"name over 63 byte": doc(group(string(make([]byte, 64)), "10.0.0.9/24")),
	} {
		if err := d.Check(); !errors.Is(err, ErrBadDocument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A name that comes back with another instance id is refused.
func TestEnrol(t *testing.T) {
	s := formed(t, web)
	if _, err := s.Apply(2, 1, Command{Enrol: &Enrol{node(InstanceID{7}, "n1", Member)}}); !errors.Is(err, ErrNameTaken) {
		t.Fatalf("error %v", err)
	}
	s = must(t, s, Command{Enrol: &Enrol{node(InstanceID{7}, "n7", Member)}}, Command{Enrol: &Enrol{node(a, "n1", Witness)}})
	if s.Nodes[a].Role != Witness || len(s.Nodes) != 4 {
		t.Fatalf("nodes %+v", s.Nodes)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	s := formed(t, web)
	for i := range HistoryLength + 10 {
		s = must(t, s, assign("web", []InstanceID{a, b}[i%2], s.Assignments["web"].Epoch))
	}
	if len(s.Events) != HistoryLength {
		t.Fatalf("%d changes kept, want %d", len(s.Events), HistoryLength)
	}
	if last := s.Events[HistoryLength-1]; last.Index != s.Assignments["web"].Epoch {
		t.Fatalf("the newest is %+v", last)
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	s := must(t, formed(t, web, db), assign("web", a, 0))
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
}

// FuzzDecodeCommand: an entry is refused, or has exactly one command that can be
// written again and applied without a panic.
func FuzzDecodeCommand(f *testing.F) {
	for _, c := range []Command{assign("web", a, 3), {Lead: &Lead{a}}, {Enrol: &Enrol{node(a, "n1", Member)}}, {Replace: &Replace{Seen: 1, Document: doc(web)}}} {
		data, err := c.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"Assign":{},"Lead":{}}`))
	f.Add([]byte(`{"Unknown":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := DecodeCommand(data)
		if err != nil {
			return
		}
		if _, err := c.Encode(); err != nil {
			t.Fatalf("cannot be written again: %v", err)
		}
		s := &State{Cluster: ClusterID{1}}
		next, _ := s.Apply(1, 1, c)
		if next.Index != 1 {
			t.Fatalf("index %d after one entry", next.Index)
		}
	})
}

// Place.

func alive(ids ...InstanceID) View {
	v := View{Nodes: map[InstanceID]NodeView{}}
	for _, id := range ids {
		v.Nodes[id] = NodeView{Alive: true}
	}
	if len(ids) > 0 {
		v.Leader = ids[0]
	}
	return v
}

func TestPlace(t *testing.T) {
	owned := func(t *testing.T) *State { return must(t, formed(t, web), assign("web", a, 0)) }
	with := func(v View, id InstanceID, n NodeView) View { v.Nodes[id] = n; return v }
	mark := map[string]bool{"web": true}
	tests := []struct {
		name   string
		state  func(*testing.T) *State
		view   View
		to     InstanceID // zero: nothing to do
		reason Reason
	}{
		{"first owner is the leader", func(t *testing.T) *State { return formed(t, web) }, alive(b, a, w), b, ReasonFirst},
		{"a witness never owns", func(t *testing.T) *State { return formed(t, web) }, alive(w, b), b, ReasonFirst},
		{"who has it keeps it", owned, alive(b, a), InstanceID{}, 0},
		{"lost", owned, alive(b), b, ReasonLost},
		{"nobody else", owned, alive(w), InstanceID{}, 0},
		{"stopping", owned, with(alive(b), a, NodeView{Alive: true, Stopping: true}), b, ReasonShutdown},
		{"unfit", owned, with(alive(b), a, NodeView{Alive: true, Unfit: mark}), b, ReasonUnfit},
		{"overdue", owned, with(alive(b), a, NodeView{Alive: true, Overdue: mark}), b, ReasonNotOpen},
		{"the next one is unfit too", owned, with(alive(), b, NodeView{Alive: true, Unfit: mark}), InstanceID{}, 0},
		{"role taken away", func(t *testing.T) *State {
			return must(t, owned(t), Command{Enrol: &Enrol{node(a, "n1", Witness)}})
		}, alive(a, b), b, ReasonGone},
		{"the least tried first", func(t *testing.T) *State { return formed(t, web) },
			with(alive(b, a), b, NodeView{Alive: true, Failed: map[string]int{"web": 1}}), a, ReasonFirst},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.state(t)
			got := Place(s, tt.view)
			if tt.to.IsZero() {
				if len(got) != 0 {
					t.Fatalf("Place = %+v, want nothing", got)
				}
				return
			}
			if len(got) != 1 || got[0].Owner != tt.to || got[0].Reason != tt.reason {
				t.Fatalf("Place = %+v, want %s for %v", got, tt.to.Short(), tt.reason)
			}
			s = must(t, s, Command{Assign: &got[0]})
			if tt.view.Nodes[tt.to].Failed == nil {
				if again := Place(s, tt.view); len(again) != 0 {
					t.Fatalf("Place is not content with its own result: %+v", again)
				}
			}
		})
	}
}

// Two nodes that are removed at once, each by the other's word: one stays.
func TestRetireLeavesOne(t *testing.T) {
	n1 := Node{ID: InstanceID{1}, Name: "n1", Role: Member, Address: netip.MustParseAddrPort("10.0.0.1:7950")}
	n2 := Node{ID: InstanceID{2}, Name: "n2", Role: Member, Address: netip.MustParseAddrPort("10.0.0.2:7950")}
	s := &State{Cluster: ClusterID{9}, Nodes: map[InstanceID]Node{n1.ID: n1, n2.ID: n2}}
	s, err := s.Apply(5, 1, Command{Retire: &Retire{Node: n1.ID}})
	if err != nil {
		t.Fatal(err)
	}
	next, err := s.Apply(6, 1, Command{Retire: &Retire{Node: n2.ID}})
	if !errors.Is(err, ErrStale) || len(next.Nodes) != 1 || len(next.Retired) != 1 {
		t.Errorf("%v; nodes %v, removed %v", err, next.Nodes, next.Retired)
	}
}
