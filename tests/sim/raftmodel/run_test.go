package raftmodel

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// A run drives a cluster by operations drawn from a seed, and has a checker look at
// what came of each.
type run struct {
	*Cluster
	rng      *rand.Rand
	check    checker
	loss     float64 // of each message or answer
	restless float64 // how much of all that happens is elections
	cut      []Set   // by server: whom it does not reach
	kinds    runKinds
	old      []sentSnapshot
	wrong    string // what the checker found first
}

// runKinds says what may happen in a run.
type runKinds struct {
	members bool // configurations change
	late    bool // snapshots arrive late, and again
	lost    bool // and take the configuration back
	single  bool // a message has one entry at most
	mutant  func(x *run)
}

type sentSnapshot struct {
	from int
	term uint64
	snap *Snapshot
}

const (
	runServers = 5 // of them, those at the end are spare when members change
	runSteps   = 400
)

func newRun(seed uint64, kinds runKinds) *run {
	x := &run{rng: rand.New(rand.NewPCG(seed, 2)), kinds: kinds, Cluster: New(), cut: make([]Set, runServers)}
	for i := range runServers {
		x.AddServer(fsm.InstanceID{byte(0x10 * (7 - i)), byte(i)}) // their order is not the servers'
		x.Start(i)
	}
	voters := SetOf(0, 1, 2, 3, 4)
	if kinds.members {
		voters = SetOf(0, 1, 2)
	}
	x.LostConfigurations = kinds.lost
	x.Trailing = []uint64{0, 0, 3}[x.rng.IntN(3)]
	x.loss = []float64{0, 0.1, 0.4}[x.rng.IntN(3)]
	x.restless = []float64{0.04, 0.1, 0.3}[x.rng.IntN(3)]
	if err := x.Bootstrap(0, Configuration{Voters: voters}); err != nil {
		panic(err)
	}
	x.check.init(x.Cluster)
	return x
}

// all makes the whole run, and stops when something is wrong.
func (x *run) all() *run {
	for range runSteps {
		if x.step(); x.wrong != "" {
			break
		}
	}
	return x
}

// step does one thing and looks.
func (x *run) step() {
	s := x.rng.IntN(x.Len())
	what := x.do(s)
	if x.kinds.mutant != nil {
		x.kinds.mutant(x)
	}
	if wrong := x.check.look(x.Cluster); wrong != "" && x.wrong == "" {
		x.wrong = fmt.Sprintf("after %s on server %d: %s", what, s, wrong)
	}
}

func (x *run) reach(from, to int) bool {
	return !x.cut[from].Has(to) && !(x.loss > 0 && x.rng.Float64() < x.loss)
}

func (x *run) do(s int) string {
	if x.rng.Float64() < x.restless {
		x.Elect(s, Campaign(1+x.rng.IntN(2)), x.reach)
		return "elect"
	}
	switch n := x.rng.IntN(200); {
	case n < 10:
		x.Lapse(s)
		return "lapse"
	case n < 135:
		return x.send(s)
	case n < 155:
		x.propose(s)
		return "propose"
	case n < 170:
		_, _ = x.Apply(s, x.rng.IntN(6)-1)
		return "apply"
	case n < 182:
		if x.rng.IntN(2) == 0 {
			_, _ = x.Apply(s, -1)
		}
		x.Compact(s)
		return "compact"
	case n < 185:
		x.Crash(s)
		return "crash"
	case n < 193:
		x.start(s)
		return "start"
	case n < 196:
		x.cut[s] = Set(x.rng.Uint64()) & SetOf(0, 1, 2, 3, 4)
		return "cut"
	default:
		clear(x.cut)
		return "mend"
	}
}

// start starts a server if it is stopped, and looks at what it says of its log.
func (x *run) start(s int) {
	if x.Up(s) {
		return
	}
	want := election.LogAtStart{LastTerm: x.Last(s).Term}
	if snap := x.Snapshot(s); snap != nil {
		want.LastCommand = snap.State.Index
	}
	for _, e := range x.Log(s) {
		if e.Kind == KindCommand {
			want.LastCommand = e.Index
		}
	}
	if got := x.Start(s).AtStart; got != want {
		x.wrong = fmt.Sprintf("server %d starts with %+v, want %+v", s, got, want)
	}
}

// send has a leader, if there is one, send something.
func (x *run) send(s int) string {
	what := "nothing"
	for i := range x.Len() {
		if l := (s + i) % x.Len(); x.Leads(l) {
			for range 1 + x.rng.IntN(4) {
				what = x.sendFrom(l)
			}
			break
		}
	}
	return what
}

func (x *run) sendFrom(l int) string {
	f := x.rng.IntN(x.Len())
	answered := x.reach(f, l)
	if x.kinds.late && len(x.old) > 0 && x.rng.IntN(8) == 0 {
		o := x.old[x.rng.IntN(len(x.old))]
		x.InstallSnapshot(o.from, o.term, f, o.snap, answered)
		return "late snapshot"
	}
	if !x.reach(l, f) {
		return "lost"
	}
	if x.rng.IntN(8) == 0 {
		x.Heartbeat(l, f, answered)
		return "heartbeat"
	}
	upTo := uint64(0)
	if x.kinds.single {
		upTo = x.servers[l].next[f]
	} else if x.rng.IntN(3) == 0 {
		upTo = x.rng.Uint64N(x.Last(l).Index + 2)
	}
	if x.Replicate(l, f, upTo, answered) == NeedsSnapshot {
		o := sentSnapshot{l, x.Term(l), x.Snapshot(l)}
		x.old = append(x.old, o)
		x.InstallSnapshot(o.from, o.term, f, o.snap, answered)
		return "snapshot"
	}
	return "replicate"
}

// propose appends something on a leader.
func (x *run) propose(s int) {
	for i := range x.Len() {
		l := (s + i) % x.Len()
		if !x.Leads(l) {
			continue
		}
		if _, err := x.Append(l, x.command(l)); err == ErrNotOpened {
			_, _ = x.Append(l, fsm.Command{Lead: &fsm.Lead{Node: x.ID(l)}})
		}
		if x.kinds.members && x.rng.IntN(2) == 0 {
			change := []func(l, s int) (Position, error){x.AddNonvoter, x.AddVoter, x.AddVoter, x.Demote, x.Remove}
			_, _ = change[x.rng.IntN(len(change))](l, x.rng.IntN(x.Len()))
		}
		return
	}
}

// command forms the cluster, and then moves a group about.
func (x *run) command(l int) fsm.Command {
	st := x.State(l)
	if !st.Formed() {
		f := &fsm.Form{Cluster: fsm.ClusterID{9}, Document: fsm.Document{MaxHold: time.Second,
			Groups: []fsm.Group{{Name: "web", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.200/24")}}}}}
		for i := range x.Len() {
			f.Nodes = append(f.Nodes, fsm.Node{ID: x.ID(i), Name: fmt.Sprint("n", i), Role: fsm.Member,
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 7950)})
		}
		return fsm.Command{Form: f}
	}
	return fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: x.ID(x.rng.IntN(x.Len())), Seen: st.Assignments["web"].Epoch}}
}
