package core

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// What takes a whole cluster is in tests/sim. Here one core is stepped by hand.

const (
	testLease = 250 * time.Millisecond
	testRenew = 83 * time.Millisecond
)

var (
	testAddr  = netip.MustParsePrefix("10.0.0.200/24")
	otherAddr = netip.MustParsePrefix("10.0.0.201/24")
	errKernel = errors.New("the kernel says no")
)

func testDocument() fsm.Document {
	return fsm.Document{MaxHold: 5 * time.Second, Groups: []fsm.Group{{
		Name: "web", Addresses: []netip.Prefix{testAddr}, Interface: "eth0", Placement: fsm.PlacementLeader,
		Announce: fsm.Announce{Repeat: 5}, VRRP: fsm.VRRP{ID: 51, Version: 3, Priority: 254, Interval: time.Second, Checksum: fsm.ChecksumAuto, Outranked: fsm.OutrankedYield},
	}}}
}

// placedOn answers Resolve: every address is at that device.
func placedOn(link string, e Resolve) Placed {
	out := Placed{Group: e.Group.Name, Gen: e.Gen}
	for _, p := range e.Group.Addresses {
		out.At = append(out.At, Place{Link: link, Prefix: p})
	}
	return out
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

// A snapshot is older than what an earlier life may have held: the log behind it names
// more. Nothing is swept, asked for or released before that is applied, and what earlier
// documents named is looked for too.
func TestSweepWaitsForTheLog(t *testing.T) {
	s := newSolo(t, 0)
	s.core.voter = election.NewVoter(s.self.ID, 0, 0, election.LogAtStart{LastCommand: 2, LastTerm: 1})
	s.form(testDocument())
	if got := effectsOf[Sweep](s.did); len(got) != 0 {
		t.Fatalf("swept %v, and the log has more", got)
	}
	doc := testDocument()
	old := doc.Groups[0].Addresses[0].Addr()
	doc.Groups[0].Addresses = []netip.Prefix{otherAddr}
	s.replace(doc)
	got := effectsOf[Sweep](s.did)
	if len(got) != 1 || !slices.Contains(got[0].Addrs, otherAddr.Addr()) || !slices.Contains(got[0].Addrs, old) {
		t.Fatalf("swept %v, want one sweep for %s and %s", got, old, otherAddr.Addr())
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
	if hears := s.renewal(2 * time.Hour).Hears; len(hears) != 1 || hears[0].Node != s.self.ID {
		t.Fatalf("hears %v, which was silent for two hours", hears)
	}
	s.renewal(2 * year) // can be decoded, and this is what matters
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
	if len(got) != 1 || !slices.Equal(got[0].At, []Place{{Link: "eth0", Prefix: otherAddr}}) {
		t.Fatalf("binds %v, want %s", got, otherAddr)
	}
}

// Two machines run with copies of one data directory. Before the voter hears the
// first of them again and sees what it is, the note of that one must block the other.
func TestCopiedDataDirIsBlocked(t *testing.T) {
	s := newSolo(t, 0)
	s.form(testDocument())
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.other.ID, Reason: fsm.ReasonFirst}})
	epoch := s.state.Index
	ask := func(boot byte, at election.Instant) election.GroupAnswer {
		s.did = nil
		s.step(Datagram{Message: election.Renewal{
			Sender: election.Sender{Cluster: fsm.ClusterID{9}, From: s.other.ID},
			Stamp:  election.Stamp{Boot: election.BootID{boot}, At: at}, Lease: testLease, Grace: election.GraceBPF,
			Groups: []election.GroupState{{Group: "web", Epoch: epoch, Phase: election.PhaseWaiting}},
		}})
		for _, e := range effectsOf[Send](s.did) {
			if a, ok := decoded(t, e).(election.Answer); ok && len(a.Groups) == 1 {
				return a.Groups[0]
			}
		}
		t.Fatalf("no answer to boot %d", boot)
		return election.GroupAnswer{}
	}
	ask(2, 1)
	s.serve(10 * time.Millisecond) // the longest hold is written
	if a := ask(2, 2); a.Verdict != election.Confirmed || a.Blocked != 0 {
		t.Fatalf("answer to the first: %+v, want an unblocked yes", a)
	}
	if a := ask(3, 1); a.Verdict == election.Confirmed && a.Blocked < testLease {
		t.Fatalf("answer to the copy: %+v; it must wait for the other one's lease", a)
	}
}

// A solo is one core that is stepped by hand, the only voter of two nodes.
type solo struct {
	t           *testing.T
	core        *Core
	self, other fsm.Node
	now         election.Instant
	state       *fsm.State
	did         []Effect
	served      int   // of did, by serve
	busy        bool  // connections take long to be reset
	kernel      error // not nil: whoever tests it says what the host is like
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
	did := s.core.Step(s.now, ev)
	s.did = append(s.did, did...)
	for _, e := range did {
		switch e := e.(type) {
		case ResetConnections:
			if !s.busy {
				s.step(ConnectionsReset{Group: e.Group, Gen: e.Gen})
			}
		case Converge:
			if s.kernel == nil {
				s.step(converged(e, nil))
			}
		}
	}
}

// converged answers Converge: nothing is missing, and what was to be renewed is, or not.
func converged(e Converge, err error) (out Converged) {
	for _, h := range e.Held {
		if h.Renew {
			out.Groups = append(out.Groups, Mended{Group: h.Group, Gen: h.Gen, Renewed: true, Err: err})
		}
	}
	return out
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
