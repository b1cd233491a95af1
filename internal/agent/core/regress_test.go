package core

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// Each test here is a hole that was once there, as the smallest run that shows it.

// The sweep's second answer, which a change of the document in the first moments
// once caused, released a group that was held: the voters forgot the note and
// confirmed the next owner while the fence was open.
func TestSecondSweepReleasesNothing(t *testing.T) {
	c := formed(t, 3, 1)
	m := c.owner()
	m.event(Swept{})
	if g := m.core.groups["web"]; g.phase != active {
		t.Fatalf("phase %d after a second Swept, want %d", g.phase, active)
	}
	c.move("web", c.hosts[(m.i+1)%3])
	c.run(time.Second)
	c.finish()
}

// What is swept is what the document names when the sweep is done, and there is one
// sweep at a time.
func TestSweepFollowsTheDocument(t *testing.T) {
	s := newSolo(t, 0)
	s.form(testDocument())
	doc := testDocument()
	doc.Groups[0].Addresses = []netip.Prefix{otherAddr}
	s.replace(doc)
	if got := effectsOf[Sweep](s.did); len(got) != 1 {
		t.Fatalf("%d sweeps at once, want 1", len(got))
	}
	s.step(Swept{})
	got := effectsOf[Sweep](s.did)
	if s.core.swept || len(got) != 2 || !slices.Contains(got[1].Addrs, otherAddr.Addr()) {
		t.Fatalf("swept %v after sweeps %v; %s has not been looked for", s.core.swept, got, otherAddr.Addr())
	}
	if s.step(Swept{}); !s.core.swept || len(effectsOf[Sweep](s.did)) != 2 {
		t.Fatal("the second sweep was not the last")
	}
}

// After an uptime of a year a node could not be heard any more: durations counted
// from the zero instant were out of the decoder's range.
func TestUptimeOfYears(t *testing.T) {
	const year = 365 * 24 * time.Hour
	s := newSolo(t, 2*year)
	s.form(testDocument())
	s.step(Placed{Group: "web", Gen: 1, Err: errKernel}) // so that the renewal has to say so
	if since := s.renewal(testRenew).Groups[0].Since; since > time.Minute {
		t.Fatalf("the group has been idle for %v in a process of some milliseconds", since)
	}
	s.step(Datagram{Message: election.Renewal{Sender: election.Sender{Cluster: fsm.ClusterID{9}, From: s.other.ID},
		Stamp: election.Stamp{Boot: election.BootID{2}, At: 1}}})
	if hears := s.renewal(testRenew).Hears; len(hears) != 1 {
		t.Fatalf("hears %v, want the other node", hears)
	}
	if hears := s.renewal(2 * time.Hour).Hears; len(hears) != 0 {
		t.Fatalf("hears %v, which was silent for two hours", hears)
	}
	s.renewal(2 * year) // can be decoded, and this is what matters
}

// A leader that pauses for less than a lease, and has missed the datagrams just
// before, has heard nobody for a lease and cannot tell from its own ticks that it was
// away. It must not take its owner for lost before it has heard a majority again.
func TestPauseOfTheLeaderMovesNothing(t *testing.T) {
	t.Parallel()
	for _, pause := range []time.Duration{150, 170, 190, 210, 230, 245} {
		for seed := range uint64(60) {
			c := formed(t, 3, seed)
			lead, owner := movedOff(c)
			c.run(c.jitter(0, testRenew))
			c.reach = func(_, to int) bool { return to != lead.i }
			c.run(c.jitter(0, testRenew))
			c.reach = func(int, int) bool { return true }
			lead.freeze()
			c.run(pause * time.Millisecond)
			lead.thaw()
			c.run(time.Second)
			if c.owner() != owner || len(c.watch.outages) > 0 {
				c.fail("seed %d: a pause of %d ms of the leader moved the group to n%d", seed, pause, c.watch.served+1)
			}
			c.finish()
		}
	}
}

// The leader does not hear the owner, and the owner hears too few to open. The
// leader once had no way to know, and the group stayed dark for ever.
func TestDarkOwnerThatTheLeaderDoesNotHear(t *testing.T) {
	for seed := range uint64(20) {
		c := formed(t, 3, seed)
		lead, owner := movedOff(c)
		third := c.hosts[3-lead.i-owner.i]
		c.reach = func(from, to int) bool {
			return (from != owner.i || to != lead.i) && (from != third.i || to != owner.i)
		}
		c.run(5 * time.Second)
		if c.owner() == owner {
			t.Fatalf("seed %d: n%d holds it without answers", seed, owner.i+1)
		}
		c.finish()
	}
}

// The owner's clock is slowed by chrony's worst, so that its fence ends late, and it
// is cut off in the same moment. Once two answered for up to 10 ms.
func TestSlewOfTheOwner(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		c := newCluster(t, 3, seed)
		lead, owner := steady(c)
		owner.beginSlew(-0.083)
		c.cut(owner.i)
		c.move("web", lead)
		c.run(500 * time.Millisecond)
		if c.owner() != lead || len(c.watch.violations) > 0 {
			c.fail("seed %d: n%d holds it; %v", seed, c.watch.served+1, c.watch.violations)
		}
	}
}

// The voters' clocks are hurried for a while and well again: their notes of the
// owner run out early, so they must wait before they confirm another.
func TestSlewOfTheVoters(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		c := newCluster(t, 3, seed)
		lead, owner := steady(c)
		for _, h := range c.hosts {
			if h != owner {
				h.beginSlew(0.083)
				c.after(215*time.Millisecond, h.endSlew)
			}
		}
		c.cut(owner.i)
		c.move("web", lead)
		c.run(time.Second)
		if c.owner() == owner || len(c.watch.violations) > 0 {
			c.fail("seed %d: n%d holds it; %v", seed, c.watch.served+1, c.watch.violations)
		}
	}
}

// A reply about devices that was asked for before the addresses changed once had
// the old address bound, under a fence that was open for the new one.
func TestLatePlacedIsVoid(t *testing.T) {
	s := newSolo(t, 0)
	s.form(testDocument())
	s.step(Swept{})
	s.step(Leader{ID: s.self.ID, Self: true, Term: 1})
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.self.ID, Reason: fsm.ReasonFirst}})
	doc := testDocument()
	doc.Groups[0].Addresses = []netip.Prefix{otherAddr}
	s.replace(doc)
	resolves := effectsOf[Resolve](s.did)
	if len(resolves) != 2 {
		t.Fatalf("asked %d times for the devices, want 2", len(resolves))
	}
	s.step(placedOn("eth0", resolves[0]))
	s.serve(time.Second)
	if got := effectsOf[Bind](s.did); len(got) > 0 {
		t.Fatalf("binds %v by a reply for an older document", got)
	}
	s.step(placedOn("eth0", resolves[1]))
	s.serve(time.Second)
	got := effectsOf[Bind](s.did)
	if len(got) != 1 || !slices.Equal(got[0].At, []Place{{"eth0", otherAddr}}) {
		t.Fatalf("binds %v, want %s", got, otherAddr)
	}
}

// Two machines run with copies of one data directory. Before the voter hears the
// first of them again and sees what it is, the note of that one must block the other.
func TestCopiedDataDirIsBlocked(t *testing.T) {
	c := formed(t, 3, 1)
	owner := c.owner()
	voter := c.hosts[(owner.i+1)%3]
	effects := voter.core.Step(voter.clock(), Datagram{Message: election.Renewal{
		Sender: election.Sender{Cluster: fsm.ClusterID{9}, From: owner.node.ID},
		Stamp:  election.Stamp{Boot: election.BootID{77}, At: 1}, Lease: testLease, Grace: election.GraceBPF,
		Groups: []election.GroupState{{Group: "web", Epoch: owner.core.groups["web"].epoch, Phase: election.PhaseWaiting}},
	}})
	for _, e := range effectsOf[Send](effects) {
		if a, ok := decoded(t, e).(election.Answer); ok {
			if len(a.Groups) != 1 || a.Groups[0].Verdict == election.Confirmed && a.Groups[0].Blocked <= testLease-2*testRenew {
				t.Fatalf("answer to the copy: %+v; it must wait for the other one's lease", a.Groups)
			}
			return
		}
	}
	t.Fatal("no answer to the copy")
}

// An address moves between two groups of one node while its removal takes its time.
// The removal's end once deleted the fence entry of the address under its new name.
func TestAddressChangesItsGroup(t *testing.T) {
	for seed := range uint64(50) {
		c := formed(t, 1, seed)
		m := c.owner()
		m.probeTime = time.Millisecond
		c.trouble.slow = 0.5
		doc := testDocument()
		doc.Groups[0].Name = "db"
		m.propose(fsm.Command{Replace: &fsm.Replace{Seen: m.state.Document.Revision, Document: doc}})
		c.run(5 * time.Second)
		c.finish()
		if wrong := c.unsettled(); wrong != "" {
			c.fail("seed %d: %s", seed, wrong)
		}
	}
}

// A host that lets go and is fit again before the addresses are gone asks anew with
// the release. A question of the release's own instant is void, and the host once
// waited for its next renewal.
func TestAsksAnewAfterRelease(t *testing.T) {
	for seed := range uint64(50) {
		c := formed(t, 1, seed)
		m := c.owner()
		c.run(c.jitter(0, testRenew))
		m.event(Link{Name: "eth0", OK: false})
		m.event(Link{Name: "eth0", OK: true})
		c.run(time.Second)
		c.owner()
		if d := c.lastOutage(); d > 10*time.Millisecond {
			t.Fatalf("seed %d: outage %v", seed, d)
		}
		c.finish()
	}
}

// An owner that the log does not reach learns from a voter's word that another was
// named, and lets go without waiting for its lease.
func TestStaleOwnerLetsGo(t *testing.T) {
	for seed := range uint64(50) {
		c := formed(t, 3, seed)
		lead, owner := movedOff(c)
		c.withheld = owner
		c.move("web", lead)
		var until election.Instant
		for owner.holds(testAddr.Addr()) {
			until = owner.fence[testAddr.Addr()]
			c.run(time.Millisecond)
		}
		if left := until.Sub(owner.clock()); left < testRenew {
			t.Fatalf("seed %d: it let go %v before the end of its lease", seed, left)
		}
		if c.run(2 * testRenew); c.owner() != lead {
			t.Fatalf("seed %d: n%d holds it, want n%d", seed, c.watch.served+1, lead.i+1)
		}
		c.finish()
	}
}

// An address that somebody removes by hand comes back with the next Refresh.
func TestRemovedByHandComesBack(t *testing.T) {
	c := formed(t, 3, 1)
	m := c.owner()
	delete(m.addrs, testAddr.Addr())
	c.run(refreshEvery + testLease)
	if c.owner() != m || m.refreshed != 1 {
		t.Fatalf("n%d holds it, brought back %d times; want n%d, once", c.watch.served+1, m.refreshed, m.i+1)
	}
	c.finish()
}

// movedOff moves the group to a host that does not lead and returns both.
func movedOff(c *cluster) (lead, owner *machine) {
	c.t.Helper()
	lead = c.owner()
	owner = c.hosts[(lead.i+1)%len(c.hosts)]
	c.move("web", owner)
	c.run(time.Second)
	if c.owner() != owner || c.lead != lead.i {
		c.fail("n%d holds it and n%d leads, want n%d and n%d", c.watch.served+1, c.lead+1, owner.i+1, lead.i+1)
	}
	c.watch.outages = nil
	return lead, owner
}

// steady is a cluster whose clocks are exact, at a random moment, with an owner that
// does not lead.
func steady(c *cluster) (lead, owner *machine) {
	for _, m := range c.hosts {
		m.drift = 1
	}
	c.run(3 * time.Second)
	lead, owner = movedOff(c)
	c.run(c.jitter(0, testRenew))
	return lead, owner
}

// A solo is one core that is stepped by hand, the only voter of two nodes.
type solo struct {
	t           *testing.T
	core        *Core
	self, other fsm.Node
	now         election.Instant
	state       *fsm.State
	did         []Effect
	served      int // of did, by serve
}

func newSolo(t *testing.T, uptime time.Duration) *solo {
	s := &solo{t: t, now: election.Instant(uptime), state: &fsm.State{}}
	for i, n := range []*fsm.Node{&s.self, &s.other} {
		*n = fsm.Node{ID: fsm.InstanceID{byte(i + 1)}, Name: fmt.Sprintf("n%d", i+1), Role: fsm.Member,
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 7950)}
	}
	s.core = New(Config{Self: s.self, Boot: election.BootID{1}, Started: s.now, Lease: testLease, Renew: testRenew, Grace: election.GraceBPF})
	set := election.VoterSet{Term: 1, Index: 1, Voters: []fsm.InstanceID{s.self.ID}}
	s.step(Voters{Log: election.VoterLog{Last: set, LastCommitted: true}})
	return s
}

// step gives it an event, a millisecond later.
func (s *solo) step(ev Event) {
	s.now = s.now.Add(time.Millisecond)
	s.did = append(s.did, s.core.Step(s.now, ev)...)
}

func (s *solo) apply(cmd fsm.Command) {
	s.t.Helper()
	next, err := s.state.Apply(s.state.Index+1, 1, cmd)
	if err != nil {
		s.t.Fatal(err)
	}
	s.state = next
	s.step(Applied{State: next})
}

func (s *solo) form(doc fsm.Document) {
	s.apply(fsm.Command{Form: &fsm.Form{Cluster: fsm.ClusterID{9}, Name: "x", Nodes: []fsm.Node{s.self, s.other}, Document: doc}})
}

func (s *solo) replace(doc fsm.Document) {
	s.apply(fsm.Command{Replace: &fsm.Replace{Seen: s.state.Document.Revision, Document: doc}})
}

// serve lets a while pass in which writes succeed and no other host has an address.
func (s *solo) serve(d time.Duration) {
	for end := s.now.Add(d); s.now.Before(end); s.step(Woke{}) {
		for ; s.served < len(s.did); s.served++ {
			switch e := s.did[s.served].(type) {
			case WriteHold:
				s.step(HoldWritten{Hold: e.Hold})
			case Probe:
				s.step(Probed{Group: e.Group, Gen: e.Gen})
			}
		}
	}
}

// renewal returns what it says to the other node after a while, as that one hears it.
func (s *solo) renewal(after time.Duration) election.Renewal {
	s.t.Helper()
	s.did, s.served, s.now = nil, 0, s.now.Add(after)
	s.step(Woke{})
	for _, e := range effectsOf[Send](s.did) {
		if r, ok := decoded(s.t, e).(election.Renewal); ok {
			return r
		}
	}
	s.t.Fatal("no renewal")
	return election.Renewal{}
}

func decoded(t *testing.T, e Send) any {
	t.Helper()
	msg, err := election.Decode(e.Datagrams[0])
	if err != nil {
		t.Fatalf("own datagram: %v", err)
	}
	return msg
}

// effectsOf returns the effects of one kind.
func effectsOf[E Effect](all []Effect) []E {
	var out []E
	for _, e := range all {
		if e, ok := e.(E); ok {
			out = append(out, e)
		}
	}
	return out
}
