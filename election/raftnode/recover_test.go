package raftnode

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// lostCluster is a cluster of three that has stopped. web was assigned to n3.
func lostCluster(t *testing.T) (selves []fsm.Node, dirs []*DataDir, epoch uint64) {
	nodes, selves, dirs, stops := realCluster(t, 0)
	await1(t, "n1 leads", func() bool { return nodes[0].Leader().Self })
	for _, c := range []fsm.Command{
		{Form: &fsm.Form{Cluster: instance(9), Name: "prod", Nodes: selves, Document: document()}},
		{Drain: &fsm.Drain{Node: selves[1].ID, Drained: true}},
		{Assign: &fsm.Assign{Group: "web", Owner: selves[2].ID, Reason: fsm.ReasonFirst}},
	} {
		if err := nodes[0].Propose(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	epoch = nodes[0].State().Assignments["web"].Epoch
	for _, stop := range stops {
		stop()
	}
	return selves, dirs, epoch
}

// checkRecovered starts the node and looks whether it is a cluster of its own.
func checkRecovered(t *testing.T, self fsm.Node, d *DataDir, lost []fsm.Node, epoch uint64) {
	t.Helper()
	n, _ := runReal(t, self, d, listen(t, self.Address.String()), 0)
	await1(t, "the node leads by itself", func() bool { return n.Leader().Self })
	st := n.State()
	if !st.Formed() || st.Cluster != instance(77) || st.Name != "prod" || len(st.Nodes) != 1 || st.Nodes[self.ID] != self {
		t.Errorf("cluster %s (%s) with nodes %v", st.Cluster, st.Name, st.Nodes)
	}
	if len(st.Document.Groups) != 1 || st.Document.Revision != 1 || len(st.Drained) != 0 {
		t.Errorf("document %+v, drained %v", st.Document, st.Drained)
	}
	for _, l := range lost {
		if st.Retired[l.ID].Name != l.Name || n.AcceptsFrom(l.ID) {
			t.Errorf("%s: retired as %q, accepted %v", l.Name, st.Retired[l.ID].Name, n.AcceptsFrom(l.ID))
		}
		enrol := n.Propose(t.Context(), fsm.Command{Enrol: &fsm.Enrol{Node: l}})
		if !errors.Is(enrol, fsm.ErrRetired) {
			t.Errorf("%s comes back: %v, want ErrRetired", l.Name, enrol)
		}
	}
	if got := n.VoterLog(); len(got.Last.Voters) != 1 || !got.Last.Has(self.ID) || !got.LastCommitted || !got.Previous.IsZero() {
		t.Errorf("voters %+v", got)
	}
	voter := election.NewVoter(self.ID, 0, 0, n.AtStart())
	voter.Applied(st)
	if !voter.Ready(1) {
		t.Errorf("the voter waits for what the log no longer has: %+v, state at %d", n.AtStart(), st.Index)
	}
	// The log goes on behind what there was: no epoch comes twice.
	if err := n.Propose(t.Context(), fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: self.ID, Seen: epoch, Reason: fsm.ReasonGone}}); err != nil {
		t.Fatal(err)
	}
	if got := n.State().Assignments["web"]; got.Owner != self.ID || got.Epoch <= epoch {
		t.Errorf("assigned %+v, was at epoch %d", got, epoch)
	}
}

func TestRecover(t *testing.T) {
	selves, dirs, epoch := lostCluster(t)
	left, err := ReadSurvivor(dirs[0], quiet())
	if err != nil {
		t.Fatal(err)
	}
	if left.State.Assignments["web"].Epoch != epoch || left.LastIndex < epoch || left.LastTerm == 0 || len(left.Voters) != 3 {
		t.Errorf("survivor %+v of state %+v; want web at epoch %d", left, left.State, epoch)
	}
	moved := selves[0] // its address may be another by now
	moved.Address = netip.MustParseAddrPort(listenOnce(t))
	if err := Recover(dirs[0], moved, instance(77), quiet()); err != nil {
		t.Fatal(err)
	}
	checkRecovered(t, moved, dirs[0], selves[1:], epoch)
}

// listenOnce is an address on which nobody listens.
func listenOnce(t *testing.T) string {
	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	return l.Addr().String()
}

// Broken off after the snapshot was written, it is recovered all the same.
func TestRecoverBrokenOff(t *testing.T) {
	selves, dirs, epoch := lostCluster(t)
	s, err := openStores(dirs[0], bridge(quiet()), newDiskWatch(time.Hour, func(DiskHealth) {}))
	if err != nil {
		t.Fatal(err)
	}
	left, err := s.survivor()
	if err != nil {
		t.Fatal(err)
	}
	state, err := lastOne(left.State, selves[0], instance(77))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.endIn(state, selves[0], left), s.close()); err != nil {
		t.Fatal(err)
	}
	checkRecovered(t, selves[0], dirs[0], selves[1:], epoch)
}

func TestRecoverNothing(t *testing.T) {
	d := realDir(t)
	if _, err := ReadSurvivor(d, quiet()); !errors.Is(err, ErrNothingToRecover) {
		t.Errorf("a directory without a cluster: %v", err)
	}
	if err := Recover(d, fsm.Node{ID: d.Instance(), Name: "n1"}, instance(77), quiet()); !errors.Is(err, ErrNothingToRecover) {
		t.Errorf("recovered from nothing: %v", err)
	}
}

// What a snapshot of the leader's overtook can stand in the log behind it, of an older
// term. It was never committed and does not count.
func TestSurvivorWithAnOvertakenTail(t *testing.T) {
	log, snaps := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	st := &fsm.State{}
	st, err := st.Apply(3, 5, fsm.Command{Form: &fsm.Form{Cluster: instance(9), Name: "prod", Document: document(), Nodes: []fsm.Node{
		{ID: instance('a'), Name: "n1", Role: fsm.Member, Address: netip.MustParseAddrPort("10.0.0.1:7950")}}}})
	if err != nil {
		t.Fatal(err)
	}
	_, trans := raft.NewInmemTransport("a")
	sink, err := snaps.Create(1, 3, 5, raft.Configuration{}, 1, trans)
	if err != nil {
		t.Fatal(err)
	}
	if err := (frozen{st}).Persist(sink); err != nil {
		t.Fatal(err)
	}
	tail, err := fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: instance('a'), Reason: fsm.ReasonFirst}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := log.StoreLog(&raft.Log{Index: 4, Term: 4, Type: raft.LogCommand, Data: tail}); err != nil {
		t.Fatal(err)
	}
	s, err := newStores(log, log, snaps, newDiskWatch(time.Hour, func(DiskHealth) {}))
	if err != nil {
		t.Fatal(err)
	}
	left, err := s.survivor()
	if err != nil || left.LastIndex != 3 || left.LastTerm != 5 || len(left.State.Assignments) != 0 {
		t.Errorf("survivor %+v with assignments %v, error %v; want the snapshot's end", left, left.State.Assignments, err)
	}
}
