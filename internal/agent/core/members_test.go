package core

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// A crowd is a leader and as much of the others as it hears.
type crowd struct {
	*solo
	nodes  []fsm.Node // the first is this one
	dead   map[fsm.InstanceID]bool
	index  uint64
	toldAt election.Instant
	behind map[fsm.InstanceID]bool // it has not applied everything
	old    map[fsm.InstanceID]uint64
	adjust map[fsm.InstanceID]int16
	obeyed int            // of did, by obey
	open   fsm.InstanceID // who of the others says that it has the group open
	seen   int            // of did, by run
}

// newCrowd returns a leader of so many voters, and so many nodes besides.
func newCrowd(t *testing.T, voters, besides int) *crowd {
	t.Helper()
	c := &crowd{solo: newSolo(t, time.Hour), dead: map[fsm.InstanceID]bool{}, behind: map[fsm.InstanceID]bool{}, index: 1,
		old: map[fsm.InstanceID]uint64{}, adjust: map[fsm.InstanceID]int16{}}
	for i := range voters + besides {
		c.nodes = append(c.nodes, fsm.Node{ID: fsm.InstanceID{byte(i + 1)}, Name: fmt.Sprintf("n%d", i+1), Role: fsm.Member,
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 7950)})
	}
	doc := testDocument()
	doc.Groups[0].VRRP = fsm.VRRP{}
	c.vote(c.nodes[:voters]...)
	c.apply(fsm.Command{Form: &fsm.Form{Cluster: fsm.ClusterID{9}, Name: "x", Nodes: c.nodes[:voters], Document: doc}})
	c.step(Leader{ID: c.self.ID, Self: true, Term: 1})
	c.apply(fsm.Command{Lead: &fsm.Lead{Node: c.self.ID}})
	for _, n := range c.nodes[voters:] {
		c.apply(fsm.Command{Enrol: &fsm.Enrol{Node: n}})
	}
	return c
}

// vote makes these the voters, by an entry that is committed.
func (c *crowd) vote(nodes ...fsm.Node) {
	c.index++
	set := election.VoterSet{Term: 1, Index: c.index}
	for _, n := range nodes {
		set.Voters = append(set.Voters, n.ID)
	}
	c.step(Voters{Log: election.VoterLog{Last: set, Previous: c.core.log.Last, LastCommitted: true}})
}

func (c *crowd) voters() []fsm.Node {
	return slices.DeleteFunc(slices.Clone(c.nodes), func(n fsm.Node) bool { return !c.core.log.Last.Has(n.ID) })
}

// run lets a while pass in which the others say that they are well, and Raft does at
// once what it is asked. It returns what was asked of Raft.
func (c *crowd) run(d time.Duration) []string {
	var asked []string
	for end := c.now.Add(d); c.now.Before(end); {
		if c.now.Sub(c.toldAt) >= testRenew {
			c.toldAt = c.now
			c.tellAll()
		}
		c.attend(time.Millisecond)
		for ; c.seen < len(c.did); c.seen++ {
			switch e := c.did[c.seen].(type) {
			case Send:
				c.answer(e)
			case AddNonvoter:
				asked = append(asked, "log "+e.Node.Name)
				c.step(NonvoterAdded{Node: e.Node})
			case AddVoter:
				asked = append(asked, "vote "+e.Node.Name)
				c.vote(append(c.voters(), e.Node)...)
				c.step(VoterAdded{Node: e.Node})
			case RemoveServer:
				asked = append(asked, "remove "+c.core.name(e.ID))
				c.vote(slices.DeleteFunc(c.voters(), func(n fsm.Node) bool { return n.ID == e.ID })...)
				c.step(ServerRemoved{ID: e.ID})
			case AskCampaign:
				asked = append(asked, "hand over to "+e.Node.Name)
			case Campaign:
				asked = append(asked, "campaign")
			}
		}
	}
	return asked
}

// answer has every other voter that lives confirm what is asked.
func (c *crowd) answer(e Send) {
	r, is := decoded(c.t, e).(election.Renewal)
	if !is {
		return
	}
	for _, n := range c.nodes[1:] {
		if c.dead[n.ID] || !c.core.log.Last.Has(n.ID) {
			continue
		}
		a := election.Answer{Sender: election.Sender{Cluster: fsm.ClusterID{9}, From: n.ID}, Echo: r.Stamp, Lease: r.Lease, Log: c.core.log}
		for _, g := range r.Groups {
			if g.Asks() {
				a.Groups = append(a.Groups, election.GroupAnswer{Group: g.Group, Epoch: g.Epoch, Verdict: election.Confirmed})
			}
		}
		c.step(Datagram{Message: a})
	}
}

func (c *crowd) tellAll() {
	var hears []election.Hearsay
	for _, n := range c.nodes {
		if !c.dead[n.ID] {
			hears = append(hears, election.Hearsay{Node: n.ID})
		}
	}
	for _, n := range c.nodes[1:] {
		if c.dead[n.ID] {
			continue
		}
		r := election.Renewal{Sender: election.Sender{Cluster: fsm.ClusterID{9}, From: n.ID}, Lease: testLease, Applied: c.state.Index,
			Stamp: election.Stamp{Boot: election.BootID{n.ID[0]}, At: c.now}, Health: election.Health{VoterReady: true}, Hears: hears}
		if c.behind[n.ID] {
			r.Applied--
		}
		if at := c.old[n.ID]; at != 0 {
			r.Applied = at
		}
		if n.ID == c.open {
			r.Groups = append(r.Groups, election.GroupState{Group: "web", Epoch: c.state.Assignments["web"].Epoch, Phase: election.PhaseOpen})
		}
		if a := c.adjust[n.ID]; a != 0 {
			r.Groups = append(r.Groups, election.GroupState{Group: "web", Phase: election.PhaseIdle, Adjust: a})
		}
		c.step(Datagram{Message: r})
	}
}

func (c *crowd) retire(n fsm.Node) { c.apply(fsm.Command{Retire: &fsm.Retire{Node: n.ID}}) }

func (c *crowd) want(what string, got []string, want ...string) {
	c.t.Helper()
	if !slices.Equal(got, want) {
		c.t.Fatalf("%s: Raft is asked for %q, want %q", what, got, want)
	}
}

// spaced is how long two changes of the voters are apart.
var spaced = election.Spacing(testDocument().MaxHold)

// A removed node loses its vote, spaced as any change of the voters.
func TestRemovedVoter(t *testing.T) {
	c := newCrowd(t, 3, 0)
	c.retire(c.nodes[2])
	c.want("too soon", c.run(spaced-100*time.Millisecond))
	c.want("in time", c.run(300*time.Millisecond), "remove n3")
	c.retire(c.nodes[1])
	c.want("too soon again", c.run(spaced-400*time.Millisecond))
	c.want("in time again", c.run(800*time.Millisecond), "remove n2")
	c.want("and no more", c.run(2*spaced))
}

// While the removed node has a vote it is asked, and its word counts: the others may
// need it.
func TestRemovedVoterIsAsked(t *testing.T) {
	c := newCrowd(t, 2, 0)
	c.run(time.Second)
	c.retire(c.nodes[1])
	asked := func() bool {
		return slices.ContainsFunc(effectsOf[Send](c.since(func() { c.run(testLease) })), func(e Send) bool {
			return slices.Contains(e.To, c.nodes[1].Address)
		})
	}
	if !asked() || !c.core.alive(c.nodes[1].ID) {
		t.Fatal("the removed voter is not asked, or not heard")
	}
	c.run(2 * spaced)
	c.dead[c.nodes[1].ID] = true // else its questions are answered
	if len(c.voters()) != 1 || asked() {
		t.Fatalf("%d voters, and the one that lost its vote is still asked", len(c.voters()))
	}
}

// A living node keeps its vote until it owns nothing and another has one in its place;
// a dead one does not.
func TestRemovalOfTheLivingWaits(t *testing.T) {
	c := newCrowd(t, 3, 1)
	c.behind[c.nodes[3].ID] = true
	c.want("a newcomer", c.run(time.Second), "log n4")
	c.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: c.nodes[2].ID, Reason: fsm.ReasonFirst}})
	c.retire(c.nodes[2])
	c.want("it owns a group", c.run(2*spaced))
	c.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: c.self.ID, Seen: c.state.Assignments["web"].Epoch, Reason: fsm.ReasonGone}})
	c.behind = map[fsm.InstanceID]bool{}
	c.want("it owns nothing", c.run(3*spaced), "vote n4", "remove n3")

	c = newCrowd(t, 3, 1)
	c.want("a newcomer", c.run(time.Second), "log n4")
	c.dead[c.nodes[2].ID] = true
	c.retire(c.nodes[2])
	c.want("it is dead", c.run(3*spaced), "remove n3", "vote n4")
}

// Nobody is removed without whom the others have no majority, and never the last.
func TestRemovalLeavesAMajority(t *testing.T) {
	c := newCrowd(t, 3, 0)
	c.dead[c.nodes[2].ID] = true
	c.retire(c.nodes[1])
	c.want("one of the two that are left is dead", c.run(3*spaced))
	delete(c.dead, c.nodes[2].ID)
	c.want("it is back", c.run(spaced), "remove n2")

	c = newCrowd(t, 1, 0)
	if c.core.suffice(c.self.ID) || c.core.mayRemove(c.self.ID) {
		t.Fatal("the last voter may be removed")
	}
}

// A leader that was removed hands over, and does not remove itself. It does not stand
// for leader any more.
func TestRemovedLeaderHandsOver(t *testing.T) {
	c := newCrowd(t, 3, 0)
	c.run(time.Second)
	c.retire(c.self)
	got := c.run(3 * spaced)
	if len(got) < 3 || slices.ContainsFunc(got, func(s string) bool { return s != "hand over to n2" }) {
		t.Fatalf("Raft is asked for %q, want the leadership to be handed to n2, again and again", got)
	}
	if s := c.core.Status(c.now); s.State != "removed" {
		t.Fatalf("state %q, want removed", s.State)
	}
	c.step(Leader{ID: c.nodes[1].ID, Term: 2})
	c.dead[c.nodes[1].ID] = true
	c.want("the new leader is lost", c.run(2*time.Second))
}

// More voters than there may be get the log only, and one of them the vote of a voter
// that is removed.
func TestStandby(t *testing.T) {
	c := newCrowd(t, election.MaxVoters, 2)
	c.want("two more", c.run(3*spaced), "log n8", "log n9")
	c.dead[c.nodes[3].ID] = true
	c.behind[c.nodes[7].ID] = true
	c.retire(c.nodes[3])
	c.want("one is removed", c.run(3*spaced), "remove n4", "vote n9")
	c.behind = map[fsm.InstanceID]bool{}
	c.retire(c.nodes[7])
	c.want("so is one without a vote", c.run(time.Second), "remove n8")
	if v := c.core.log.Last.Voters; len(v) != election.MaxVoters {
		t.Fatalf("%d voters, want %d", len(v), election.MaxVoters)
	}
}

// A change that Raft refuses is tried again.
func TestRemovalIsTriedOnceMore(t *testing.T) {
	c := newCrowd(t, 3, 0)
	c.run(spaced)
	c.retire(c.nodes[2])
	if got := effectsOf[RemoveServer](c.did); len(got) != 1 {
		t.Fatalf("asked %d times", len(got))
	}
	c.seen = len(c.did)
	c.step(ServerRemoved{ID: c.nodes[2].ID, Err: errKernel})
	c.want("after a while", c.run(proposalPatience+time.Second), "remove n3")
}

// A fresh node at the address of a removed one waits until that has left Raft's members,
// which has one server at an address.
func TestFreshNodeAtTheSameAddress(t *testing.T) {
	for name, dead := range map[string]bool{"of a dead one": true, "of one that still runs": false} {
		t.Run(name, func(t *testing.T) {
			c := newCrowd(t, 3, 0)
			c.run(2 * spaced)
			c.dead[c.nodes[2].ID] = dead
			c.vote(c.nodes...) // the set has just changed
			c.run(time.Second)
			c.retire(c.nodes[2])
			fresh := c.nodes[2]
			fresh.ID = fsm.InstanceID{77}
			c.nodes = append(c.nodes, fresh)
			c.apply(fsm.Command{Enrol: &fsm.Enrol{Node: fresh}})
			c.want("too soon", c.run(spaced/2))
			c.want("in time", c.run(3*spaced), "remove n3", "log n3", "vote n3")
		})
	}
}

// A later leader does not know who was taken from Raft's members, and asks once more.
func TestNextLeaderAsksAgain(t *testing.T) {
	c := newCrowd(t, 3, 0)
	c.run(2 * spaced)
	c.retire(c.nodes[2])
	c.want("removed", c.run(time.Second), "remove n3")
	for term := range uint64(2) {
		c.step(Leader{ID: c.nodes[1].ID, Term: 2 + 2*term})
		c.step(Leader{ID: c.self.ID, Self: true, Term: 3 + 2*term})
		c.want("by a new leader", c.run(time.Second), "remove n3")
	}
}

// That the cluster calls the node elsewhere is a problem for as long as it is so.
func TestAddressOfAnother(t *testing.T) {
	c := newCrowd(t, 3, 0)
	moved := c.self
	moved.Address = netip.MustParseAddrPort("10.9.9.9:7950")
	for _, n := range []fsm.Node{moved, c.self} {
		c.apply(fsm.Command{Enrol: &fsm.Enrol{Node: n}})
		c.run(time.Second)
		if p := c.core.Status(c.now).Problems; (len(p) == 1) != (n == moved) {
			t.Fatalf("known at %v it has the problems %q", n.Address, p)
		}
	}
}

// Who was removed does not come back, and neither does its name keep another out.
func TestJoinOfTheRemoved(t *testing.T) {
	c := newCrowd(t, 3, 0)
	c.retire(c.nodes[2])
	err := c.core.CheckJoin(c.nodes[2])
	if !errors.Is(err, fsm.ErrRetired) || !strings.Contains(err.Error(), "remove its data_dir") {
		t.Fatalf("the removed instance: %v", err)
	}
	fresh := c.nodes[2]
	fresh.ID = fsm.InstanceID{77}
	if err := c.core.CheckJoin(fresh); err != nil {
		t.Fatalf("a fresh instance of that name: %v", err)
	}
	fresh.Name = c.nodes[1].Name
	if err := c.core.CheckJoin(fresh); !errors.Is(err, fsm.ErrNameTaken) {
		t.Fatalf("another name's: %v", err)
	}
}

// A removed owner serves on until another is named, and then its release counts.
func TestRemovedOwnerServesOn(t *testing.T) {
	p := newPair(t, fsm.QuorumLossRelease)
	p.apply(fsm.Command{Retire: &fsm.Retire{Node: p.self.ID}})
	p.run(2 * testLease)
	p.mustHold(true, false)
	p.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: p.other.ID, Seen: p.state.Assignments["web"].Epoch, Reason: fsm.ReasonGone}})
	p.mustHold(false, false)

	s := newSolo(t, time.Hour)
	s.form(testDocument())
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.other.ID, Reason: fsm.ReasonFirst}})
	s.attend(time.Second)
	ask := func() {
		s.tell(election.Renewal{Groups: []election.GroupState{{Group: "web", Epoch: s.state.Assignments["web"].Epoch, Phase: election.PhaseOpen}}})
		s.serve(5 * time.Millisecond)
	}
	ask()
	s.apply(fsm.Command{Retire: &fsm.Retire{Node: s.other.ID}})
	answers := func(f func()) (got []election.Verdict) {
		for _, e := range effectsOf[Send](s.since(f)) {
			if a, is := decoded(t, e).(election.Answer); is && slices.Contains(e.To, s.other.Address) {
				got = append(got, a.Groups[0].Verdict)
			}
		}
		return got
	}
	if got := answers(ask); !slices.Equal(got, []election.Verdict{election.Confirmed}) {
		t.Fatalf("the removed owner is answered %v", got)
	}
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.self.ID, Seen: s.state.Assignments["web"].Epoch, Reason: fsm.ReasonGone}})
	s.step(Datagram{Message: election.Release{Sender: election.Sender{Cluster: fsm.ClusterID{9}, From: s.other.ID}, Boot: election.BootID{2},
		Groups: []election.GroupRelease{{Group: "web", At: s.now}}}})
	s.step(Datagram{Message: election.Release{Sender: election.Sender{Cluster: fsm.ClusterID{8}, From: s.other.ID}}})
	s.attend(30 * time.Millisecond)
	if v := s.vip(); v.State != "active" {
		t.Fatalf("30 ms after the removed owner's release the group is %s", v.State)
	}
}
