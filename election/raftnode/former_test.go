package raftnode

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// village is hosts that find each other before there is a cluster. It runs in a
// bubble; data directories are real, the Raft stores in memory.
type village struct {
	*lan
	mu      sync.Mutex
	formers map[netip.AddrPort]*Former // reachable ones
	lost    map[netip.AddrPort]bool    // pledges to these get lost on the way
	doing   map[string]election.Formation
	stops   map[int]func()
}

func newVillage(t *testing.T, n int) *village {
	return &village{lan: newLAN(t, n), formers: map[netip.AddrPort]*Former{}, lost: map[netip.AddrPort]bool{},
		doing: map[string]election.Formation{}, stops: map[int]func(){}}
}

func (v *village) at(a netip.AddrPort) (*Former, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if f := v.formers[a]; f != nil {
		return f, nil
	}
	return nil, errors.New("connection refused")
}

func (v *village) Hello(_ context.Context, a netip.AddrPort) (election.Hello, error) {
	f, err := v.at(a)
	if err != nil {
		return election.Hello{}, err
	}
	return f.Hello(), nil
}

func (v *village) Pledge(_ context.Context, a netip.AddrPort, p election.Pledge) error {
	v.mu.Lock()
	lost := v.lost[a]
	v.mu.Unlock()
	f, err := v.at(a)
	if lost || err != nil {
		return errors.Join(err, errors.New("no answer"))
	}
	return f.TakePledge(p)
}

func (v *village) Join(ctx context.Context, a netip.AddrPort, self fsm.Node) error {
	f, err := v.at(a)
	if err != nil {
		return err
	}
	n := f.cfg.Node
	return errors.Join(n.Propose(ctx, fsm.Command{Enrol: &fsm.Enrol{Node: self}}), n.AddNonvoter(ctx, self))
}

func (v *village) losePledgesTo(a netip.AddrPort, lost bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lost[a] = lost
}

// move starts a host with the data directory; peers are all hosts of the village.
func (v *village) moveIn(i int, d *DataDir, peers ...netip.AddrPort) {
	h := v.hosts[i]
	h.self.ID = d.Instance()
	v.adjust = func(h *host, n *Node) { n.cfg.Dir = d }
	v.start(i)
	f := NewFormer(FormerConfig{Node: h.Node, Cluster: "prod", Peers: peers, Document: document(), Ask: v, Log: quiet(),
		Progress: func(p election.Formation) { v.mu.Lock(); v.doing[h.self.Name] = p; v.mu.Unlock() }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = f.Run(ctx) }()
	v.mu.Lock()
	v.formers[h.self.Address] = f
	v.mu.Unlock()
	v.stops[i] = sync.OnceFunc(func() {
		v.mu.Lock()
		delete(v.formers, h.self.Address)
		v.mu.Unlock()
		cancel()
		<-done
		if err := h.stop(); err != nil {
			v.t.Error(err)
		}
	})
}

func (v *village) addresses() (a []netip.AddrPort) {
	for _, h := range v.hosts {
		a = append(a, h.self.Address)
	}
	return a
}

func (v *village) progress(name string) election.Formation {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.doing[name]
}

func inVillage(t *testing.T, n int, f func(*testing.T, *village, []*DataDir)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		v := newVillage(t, n)
		var dirs []*DataDir
		for range n {
			dirs = append(dirs, openDir(t, t.TempDir()))
		}
		defer func() {
			for _, stop := range v.stops {
				stop()
			}
			time.Sleep(time.Minute) // what is still on its way gives up
		}()
		f(t, v, dirs)
	})
}

func (v *village) formedAsOne() {
	v.t.Helper()
	v.everywhere("formed", func(h *host) bool { return h.State().Formed() })
	for _, h := range v.hosts {
		if a, b := h.State(), v.hosts[0].State(); a.Cluster != b.Cluster || len(a.Nodes) != len(v.hosts) || a.Document.Revision != 1 || a.Name != "prod" {
			v.t.Errorf("%s is in cluster %s with %d nodes, %s in %s", h.self.Name, a.Cluster, len(a.Nodes), v.hosts[0].self.Name, b.Cluster)
		}
	}
}

func TestThreeFormOneCluster(t *testing.T) {
	inVillage(t, 3, func(t *testing.T, v *village, dirs []*DataDir) {
		peers := v.addresses()
		v.moveIn(2, dirs[2], peers...)
		v.moveIn(0, dirs[0], peers...)
		time.Sleep(time.Minute)
		if p := v.progress("n1"); p.Step != election.StepWait || !strings.Contains(p.Reason, "10.0.0.2:7950 (connection refused)") {
			t.Errorf("with n2 missing n1 does %q; want it to wait and name the peer", p)
		}
		if v.hosts[0].HasState() {
			t.Fatal("n1 formed a cluster without n2")
		}
		before := time.Now()
		v.moveIn(1, dirs[1], peers...)
		v.formedAsOne()
		if took := time.Since(before); took > 3*formInterval {
			t.Errorf("forming took %v of virtual time", took)
		}
		await1(t, "done", func() bool { return v.progress("n2").Step == election.StepDone })
		if h := v.hosts[1].Node; !h.AcceptsFrom(instance('q')) {
			t.Error("a member refuses Raft from an instance that its log may not know yet")
		}
	})
}

func TestOneAloneForms(t *testing.T) {
	inVillage(t, 1, func(t *testing.T, v *village, dirs []*DataDir) {
		v.moveIn(0, dirs[0], v.addresses()...)
		v.formedAsOne()
	})
}

func TestFormerThatRestartsKeepsItsPlan(t *testing.T) {
	inVillage(t, 3, func(t *testing.T, v *village, dirs []*DataDir) {
		peers := v.addresses()
		v.losePledgesTo(peers[2], true)
		for i := range v.hosts {
			v.moveIn(i, dirs[i], peers...)
		}
		await1(t, "n2 pledged", func() bool { return !dirs[1].Pledge().IsZero() })
		await1(t, "n1 waits for n3", func() bool { return strings.Contains(v.progress("n1").Reason, "ask n3 (10.0.0.3:7950) for its pledge") })
		if h := v.hosts[1].Node; !h.AcceptsFrom(v.hosts[0].self.ID) || h.AcceptsFrom(instance('q')) {
			t.Error("a pledged node must listen to the nodes of its pledge, and only to them")
		}
		planned := dirs[1].Pledge().Cluster
		v.stops[0]()
		v.losePledgesTo(peers[2], false)
		time.Sleep(time.Minute)
		if p := v.progress("n2"); p.Step != election.StepWait || !strings.Contains(p.Reason, "pledged to the cluster that n1 (10.0.0.1:7950) forms") {
			t.Errorf("a pledged node without its former does %q", p)
		}
		v.moveIn(0, dirs[0], peers...)
		v.formedAsOne()
		if got := v.hosts[2].State().Cluster; got != planned {
			t.Errorf("cluster %s, planned before the restart as %s", got, planned)
		}
	})
}

func TestAnotherDeclaresWhenTheFormerIsGone(t *testing.T) {
	inVillage(t, 3, func(t *testing.T, v *village, dirs []*DataDir) {
		plan := election.Pledge{Cluster: instance(77), Name: "prod", Former: dirs[0].Instance(), Document: document()}
		for i, h := range v.hosts {
			h.self.ID = dirs[i].Instance()
			plan.Nodes = append(plan.Nodes, h.self)
		}
		older := plan // of which n2 did not hear that it was replaced
		older.Cluster, older.Nodes = instance(66), append(slices.Clone(plan.Nodes[:2]), fsm.Node{ID: instance('q'), Name: "n3", Address: plan.Nodes[2].Address})
		for i, d := range dirs {
			if err := d.setPledge([]election.Pledge{plan, older, plan}[i]); err != nil {
				t.Fatal(err)
			}
			v.moveIn(i, d, netip.MustParseAddrPort("10.9.9.9:1")) // so none of them forms
		}
		h := v.hosts[0]
		if err := h.Bootstrap(t.Context(), plan.Nodes); err != nil {
			t.Fatal(err)
		}
		await1(t, "the log reached n2 and n3", func() bool {
			return v.hosts[1].VoterLog().Last.Has(h.self.ID) && v.hosts[2].VoterLog().Last.Has(h.self.ID)
		})
		v.stops[0]()
		delete(v.stops, 0)
		v.hosts = v.hosts[1:]
		if err := v.hosts[0].Campaign(t.Context()); err != nil {
			t.Fatal(err)
		}
		await1(t, "n2 leads", func() bool { return v.hosts[0].Leader().Self })
		time.Sleep(time.Minute)
		if v.hosts[0].State().Formed() {
			t.Fatal("n2 declared a plan that is not the log's")
		}
		if err := v.hosts[1].Campaign(t.Context()); err != nil {
			t.Fatal(err)
		}
		v.everywhere("declared", func(h *host) bool { return h.State().Cluster == plan.Cluster && len(h.State().Nodes) == 3 })
	})
}

func TestLateNodeJoinsAndWipedOneIsRefused(t *testing.T) {
	inVillage(t, 4, func(t *testing.T, v *village, dirs []*DataDir) {
		all := v.hosts
		v.hosts = all[:3]
		peers := v.addresses()
		for i := range v.hosts {
			v.moveIn(i, dirs[i], peers...)
		}
		v.formedAsOne()
		v.hosts = all
		v.moveIn(3, dirs[3], peers...)
		await1(t, "n4 is in", func() bool { return all[3].State().Cluster == all[0].State().Cluster && len(all[3].State().Nodes) == 4 })

		v.stops[1]()
		old := all[1].self.ID
		store := raft.NewInmemStore()
		all[1].log, all[1].term, all[1].snaps = store, store, raft.NewInmemSnapshotStore()
		wiped := openDir(t, t.TempDir())
		v.unreachable = raft.ServerAddress(peers[1].String()) // streams are refused to an instance that is not the one expected
		v.moveIn(1, wiped, peers...)
		await1(t, "n2 is refused", func() bool { return v.progress("n2").Step == election.StepRefused })
		for _, want := range []string{`"n2"`, old.String(), wiped.Instance().String()} {
			if p := v.progress("n2"); !strings.Contains(p.Reason, want) {
				t.Errorf("refused with %q; want it to name %s", p, want)
			}
		}
		time.Sleep(time.Minute)
		if all[1].HasState() {
			t.Error("the wiped node got state from somewhere")
		}
	})
}

func TestPledgeIsGivenOnce(t *testing.T) {
	inVillage(t, 2, func(t *testing.T, v *village, dirs []*DataDir) {
		v.moveIn(1, dirs[1], v.addresses()...)
		f, err := v.at(v.hosts[1].self.Address)
		if err != nil {
			t.Fatal(err)
		}
		ask := func(former byte, cluster byte) error {
			n1 := v.hosts[0].self
			n1.ID = instance(former)
			return f.TakePledge(election.Pledge{Cluster: instance(cluster), Name: "prod", Former: n1.ID, Nodes: []fsm.Node{n1, v.hosts[1].self}})
		}
		if err := errors.Join(ask(1, 10), ask(1, 11)); err != nil {
			t.Errorf("the same former asks again: %v", err)
		}
		if err := ask(2, 12); !errors.Is(err, election.ErrPledged) || !strings.Contains(fmt.Sprint(err), instance(1).String()) {
			t.Errorf("another former asks: %v; want ErrPledged with the first", err)
		}
		if got := dirs[1].Pledge().Cluster; got != instance(11) {
			t.Errorf("pledged to cluster %s", got)
		}
	})
}
