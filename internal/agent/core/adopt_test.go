package core

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// leftFor is how long the entries that the tests find are still open.
const leftFor = 200 * time.Millisecond

// twoGroups is a document with both addresses in web, and a third in db.
func twoGroups() fsm.Document {
	doc := testDocument()
	db := doc.Groups[0]
	doc.Groups[0].Addresses = []netip.Prefix{testAddr, otherAddr}
	db.Name, db.Addresses, db.VRRP.ID = "db", []netip.Prefix{thirdAddr}, 52
	doc.Groups = append(doc.Groups, db)
	return doc
}

// A relict is a core whose process has just begun, on a node that held things.
type relict struct {
	*solo
	left []Leftover
}

// restarted returns one that finds these addresses on eth0, behind open entries. Its log
// says that it owns every group of the document. Its own vote waits.
func restarted(t *testing.T, doc fsm.Document, left ...netip.Prefix) *relict {
	t.Helper()
	r := &relict{solo: newSolo(t, time.Hour)}
	for i, p := range left {
		until := r.now.Add(leftFor + time.Duration(i)*time.Millisecond)
		r.left = append(r.left, Leftover{At: Place{Link: "eth0", Prefix: p}, Until: until})
	}
	cmds := []fsm.Command{{Form: &fsm.Form{Cluster: fsm.ClusterID{9}, Name: "x", Nodes: []fsm.Node{r.self, r.other}, Document: doc}}}
	for _, g := range doc.Groups {
		cmds = append(cmds, fsm.Command{Assign: &fsm.Assign{Group: g.Name, Owner: r.self.ID, Reason: fsm.ReasonFirst}})
	}
	for i, cmd := range cmds {
		var err error
		if r.state, err = r.state.Apply(uint64(i)+1, 1, cmd); err != nil {
			t.Fatal(err)
		}
	}
	r.begin(election.LogAtStart{LastCommand: r.state.Index, LastTerm: 1})
	return r
}

// begin starts the process, on a log that held so much.
func (r *relict) begin(at election.LogAtStart) {
	r.core = New(Config{Self: r.self, Boot: election.BootID{1}, Started: r.now, Lease: testLease, Renew: testRenew,
		Grace: election.GraceBPF, Longest: 2 * testLease, AtStart: at, Left: r.left})
	r.did, r.served = nil, 0
	set := election.VoterSet{Term: 1, Index: 1, Voters: []fsm.InstanceID{r.self.ID}}
	r.step(Voters{Log: election.VoterLog{Last: set, LastCommitted: true}})
}

// sweep has it apply what its log holds, find its devices, and be done with its sweep.
func (r *relict) sweep(link string) {
	r.step(Applied{State: r.state})
	for _, e := range effectsOf[Resolve](r.did) {
		r.step(placedOn(link, e))
	}
	r.step(Swept{})
	for _, e := range effectsOf[Bind](r.did) {
		r.step(Bound{Group: e.Group, Gen: e.Gen})
	}
}

// shut are the addresses whose entries were shut so far.
func (r *relict) shut() (out []netip.Addr) {
	for _, e := range effectsOf[SetFence](r.did) {
		if e.Until == 0 {
			out = append(out, e.Addrs...)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// releases are the groups whose release was sent so far.
func (r *relict) releases() (out []string) {
	for _, e := range effectsOf[Send](r.did) {
		if m, ok := decoded(r.t, e).(election.Release); ok {
			for _, g := range m.Groups {
				out = append(out, g.Group)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// What an earlier life held is kept where all of a group is there and the group is still
// this node's. It is asked for, and nothing of it is shut, taken off or released; the fence
// is written when answers come.
func TestAddressesAreKept(t *testing.T) {
	r := restarted(t, twoGroups(), testAddr, otherAddr, thirdAddr)
	r.sweep("eth0")
	for _, name := range []string{"web", "db"} {
		if g := r.core.groups[name]; g.phase != active {
			t.Fatalf("%s is in phase %d, want it held", name, g.phase)
		}
	}
	if got := effectsOf[Sweep](r.did); len(got) != 1 || len(got[0].Addrs) != 0 {
		t.Errorf("takes off %v, want nothing", got)
	}
	if got := r.renewal(testRenew).Groups; len(got) != 2 || got[0].Phase != election.PhaseOpen || got[1].Phase != election.PhaseOpen {
		t.Errorf("its renewal says %+v, want two open groups", got)
	}
	if w := effectsOf[SetFence](r.did); len(w) != 0 || len(r.releases()) != 0 {
		t.Errorf("wrote %v and released %v before any answer", w, r.releases())
	}
	g := r.core.groups["web"]
	if r.step(Said{Group: "web"}); !r.core.lead.phases.empty() {
		t.Errorf("reports %+v, and nothing was opened", r.core.lead.phases.report)
	}
	r.step(Datagram{Message: election.Answer{ // of a voter that was not heard of yet
		Sender: election.Sender{Cluster: fsm.ClusterID{9}, From: r.other.ID}, Lease: testLease,
		Echo:   election.Stamp{Boot: election.BootID{1}, At: r.core.cfg.Started.Add(-time.Millisecond)},
		Groups: []election.GroupAnswer{{Group: "web", Epoch: g.epoch, Verdict: election.Confirmed}},
		Log:    election.VoterLog{Last: election.VoterSet{Term: 2, Index: 2, Voters: []fsm.InstanceID{r.other.ID}}, LastCommitted: true},
	}})
	if w := effectsOf[SetFence](r.did); len(w) != 0 {
		t.Errorf("an answer to the earlier life has it write %v", w)
	}
}

// The deadline is what the fence has: the first of the group's entries. Without answers
// the group is shut then, and all its addresses are taken off.
func TestInheritedDeadline(t *testing.T) {
	r := restarted(t, twoGroups(), otherAddr, testAddr, thirdAddr)
	r.sweep("eth0")
	g := r.core.groups["web"]
	if g.deadline != r.left[0].Until {
		t.Fatalf("deadline %v, want %v", g.deadline, r.left[0].Until)
	}
	for r.now.Before(g.deadline) && g.phase == active {
		r.step(Woke{})
	}
	if g.phase != closing || r.now.Before(r.left[0].Until) {
		t.Fatalf("phase %d at %v, want it to be let go at %v", g.phase, r.now, r.left[0].Until)
	}
	if got := effectsOf[Unbind](r.did); len(got) != 1 || len(got[0].At) != 2 {
		t.Fatalf("takes off %v, want both addresses", got)
	}
}

// What cannot be kept as it is, is shut at once and taken off before anything is asked for.
func TestNotKept(t *testing.T) {
	all := []netip.Addr{testAddr.Addr(), otherAddr.Addr()}
	for name, tt := range map[string]struct {
		change func(doc *fsm.Document)
		left   []netip.Prefix
		shut   []netip.Addr
	}{
		"an address is not there":        {nil, []netip.Prefix{otherAddr}, all[1:]},
		"the document does not have one": {func(d *fsm.Document) { d.Groups[0].Addresses = d.Groups[0].Addresses[:1] }, []netip.Prefix{testAddr, otherAddr}, all[1:]},
		"the network is another":         {func(d *fsm.Document) { d.Groups[0].Addresses[0] = netip.PrefixFrom(testAddr.Addr(), 25) }, []netip.Prefix{testAddr, otherAddr}, all},
		"it gets a virtual MAC address":  {func(d *fsm.Document) { d.Groups[0].VMAC = true }, []netip.Prefix{testAddr, otherAddr}, all},
		"the group is gone":              {func(d *fsm.Document) { d.Groups[0].Name = "web2" }, []netip.Prefix{testAddr}, all[:1]},
	} {
		t.Run(name, func(t *testing.T) {
			doc := twoGroups()
			if tt.change != nil {
				tt.change(&doc)
			}
			r := restarted(t, doc, tt.left...)
			r.step(Applied{State: r.state})
			if got := r.shut(); !slices.Equal(got, tt.shut) {
				t.Errorf("shuts %v, want %v", got, tt.shut)
			}
			if got := effectsOf[Sweep](r.did); len(got) != 1 || !slices.Equal(got[0].Addrs, minus(got[0].Addrs, minus(got[0].Addrs, tt.shut))) && len(got[0].Addrs) < len(tt.shut) {
				t.Errorf("takes off %v, want %v among them", got, tt.shut)
			}
			r.step(Swept{})
			if got := effectsOf[ClearFence](r.did); len(got) != 1 || !slices.Equal(got[0].Addrs, tt.shut) {
				t.Errorf("forgets the entries of %v, want %v", got, tt.shut)
			}
		})
	}
}

// Where the group is not to be held here, it is let go like any open one: shut, taken off,
// seen gone, and only then released.
func TestKeptIsLetGo(t *testing.T) {
	for name, tt := range map[string]struct {
		link string
		do   func(r *relict)
	}{
		"another owner": {"eth0", func(r *relict) {
			r.state, _ = r.state.Apply(r.state.Index+1, 1, fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: r.other.ID, Seen: r.state.Assignments["web"].Epoch, Reason: fsm.ReasonMove}})
		}},
		"another device": {"eth1", func(*relict) {}},
	} {
		t.Run(name, func(t *testing.T) {
			r := restarted(t, twoGroups(), testAddr, otherAddr)
			tt.do(r)
			r.sweep(tt.link)
			want := []netip.Addr{testAddr.Addr(), otherAddr.Addr()}
			if got := r.shut(); !slices.Equal(got, want) {
				t.Fatalf("shuts %v, want %v", got, want)
			}
			off := effectsOf[Unbind](r.did)
			if len(off) != 1 || len(off[0].At) != 2 || off[0].At[0].Link != "eth0" {
				t.Fatalf("takes off %v, want both from eth0", off)
			}
			r.serve(testRenew)
			if got := r.releases(); len(got) != 0 {
				t.Fatalf("%v released, and the addresses are there", got)
			}
			r.step(Unbound{Group: "web", Gen: off[0].Gen, Shut: r.now})
			r.serve(3 * election.GraceBPF)
			if got := r.releases(); !slices.Contains(got, "web") {
				t.Fatalf("released %v, want web: its addresses are gone", got)
			}
		})
	}
}

// Who finds before it knows what is to be kept that this host may hold nothing shuts all of
// it and takes it off at once, also when a sweep is under way that means to leave it alone.
func TestRenounced(t *testing.T) {
	want := []netip.Addr{testAddr.Addr(), otherAddr.Addr()}
	for name, tt := range map[string]struct{ before, then, after func(r *relict) }{
		"a slewed clock, nothing is applied yet": {
			func(*relict) {}, func(r *relict) { r.step(Clock{Err: errKernel}) }, func(r *relict) { r.step(Clock{}) },
		},
		"a slewed clock, while the host is swept": {
			func(r *relict) { r.step(Applied{State: r.state}) }, func(r *relict) { r.step(Clock{Err: errKernel}) }, func(r *relict) { r.step(Clock{}) },
		},
		"a bare device, nothing is applied yet": {
			func(*relict) {}, func(r *relict) { r.step(Covered{Err: errKernel}) }, func(r *relict) { r.step(Covered{}) },
		},
		"a bare device, while the host is swept": {
			func(r *relict) { r.step(Applied{State: r.state}) }, func(r *relict) { r.step(Covered{Err: errKernel}) }, func(r *relict) { r.step(Covered{}) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := restarted(t, twoGroups(), testAddr, otherAddr)
			tt.before(r)
			tt.then(r)
			if got := r.shut(); !slices.Equal(got, want) {
				t.Fatalf("shuts %v, want %v", got, want)
			}
			if off := effectsOf[Unbind](r.did); len(off) != 1 || !slices.Equal(addrsOf(off[0].At), want) || off[0].At[0].Link != "eth0" {
				t.Fatalf("takes off %+v, want %v from eth0", off, want)
			}
			tt.after(r) // what was shut stays so
			r.sweep("eth0")
			r.step(Swept{}) // of the second one
			sweeps := effectsOf[Sweep](r.did)
			if got := sweeps[len(sweeps)-1].Addrs; len(minus(want, got)) > 0 {
				t.Errorf("the last sweep is of %v, want %v", got, want)
			}
			if got := effectsOf[ClearFence](r.did); len(got) != 1 || !slices.Equal(got[0].Addrs, want) {
				t.Errorf("forgets the entries of %v, want %v once", got, want)
			}
			if g := r.core.groups["web"]; g.open() || !r.core.swept {
				t.Errorf("swept %v, and web is in phase %d", r.core.swept, g.phase)
			}
		})
	}
}

// A node that gets nothing of its log, because the others do not know it any more, say,
// does not keep what has run out: it is taken off, again where that fails, and the fence
// forgets it. What is heard of that after the sweep counts for nothing.
func TestRunsOutBeforeTheSweep(t *testing.T) {
	r := restarted(t, twoGroups(), testAddr, otherAddr)
	want := []netip.Addr{testAddr.Addr(), otherAddr.Addr()}
	off := func() []Unbind {
		did := r.since(func() { r.serve(2 * testRenew) })
		return effectsOf[Unbind](did)
	}
	if got := effectsOf[Unbind](r.since(func() { r.serve(leftFor - testRenew) })); len(got) != 0 || len(r.shut()) != 0 {
		t.Fatalf("takes off %v and shuts %v, and nothing has run out", got, r.shut())
	}
	first := off()
	if len(first) != 1 || !slices.Equal(addrsOf(first[0].At), want) || !slices.Equal(r.shut(), want) {
		t.Fatalf("takes off %+v and shuts %v, want %v", first, r.shut(), want)
	}
	r.step(Unbound{Gen: first[0].Gen, Err: errKernel})
	second := off()
	if len(second) != 1 || len(effectsOf[ClearFence](r.did)) != 0 {
		t.Fatalf("tried again: %+v; forgotten: %v", second, effectsOf[ClearFence](r.did))
	}
	late := Unbound{Gen: first[0].Gen}
	r.step(late)
	if got := effectsOf[ClearFence](r.did); len(got) != 0 {
		t.Fatalf("forgets %v by an old reply", got)
	}
	r.step(Unbound{Gen: second[0].Gen})
	if got := effectsOf[ClearFence](r.did); len(got) != 1 || !slices.Equal(got[0].Addrs, want) {
		t.Fatalf("forgets %v, want %v", got, want)
	}
	if len(r.releases()) != 0 {
		t.Fatalf("released %v before the host was swept", r.releases())
	}
}

// The same reply after the sweep: the address may be held by then.
func TestLateReplyOfTheRenounced(t *testing.T) {
	r := restarted(t, twoGroups(), testAddr, otherAddr)
	r.step(Clock{Err: errKernel})
	off := effectsOf[Unbind](r.did)
	r.step(Clock{})
	r.sweep("eth0")
	did := r.since(func() { r.step(Unbound{Gen: off[0].Gen}) })
	if got := effectsOf[ClearFence](did); len(got) != 0 {
		t.Fatalf("forgets the entries of %v after the sweep", got)
	}
}

// A release ends all notes of its group, and the earlier life may have held under it what
// is in another group now. So none is said while something kept can be open by what the
// earlier life was given; afterwards it is said with the stamp of its own instant.
func TestReleaseWaitsForWhatIsKept(t *testing.T) {
	r := restarted(t, twoGroups(), thirdAddr) // web is not there: it has nothing to let go
	r.sweep("eth0")
	let := r.now
	for r.now.Before(r.left[0].Until) {
		if got := r.releases(); len(got) != 0 {
			t.Fatalf("%v released %v before what was kept is over", got, r.left[0].Until.Sub(r.now))
		}
		r.step(Woke{})
	}
	for _, e := range effectsOf[Unbind](r.did) {
		r.step(Unbound{Group: e.Group, Gen: e.Gen, Shut: r.now})
	}
	r.did, r.served = nil, 0
	r.serve(testRenew + 2*election.GraceBPF)
	if got := r.releases(); !slices.Contains(got, "web") {
		t.Fatalf("released %v, want web by now", got)
	}
	if at := r.core.groups["web"].releasedAt; at.Sub(let) > 2*election.GraceBPF {
		t.Errorf("stamped %v after it was let go", at.Sub(let))
	}
}

// What the earlier life may have held without proof does not wait to be shut while its
// connections are reset; what it held by the word of a majority does.
func TestKeptMayBeUnproven(t *testing.T) {
	for loss, resets := range map[fsm.QuorumLoss]int{fsm.QuorumLossHold: 0, fsm.QuorumLossRelease: 1} {
		doc := twoGroups()
		doc.Groups[0].OnQuorumLoss = loss
		r := restarted(t, doc, testAddr, otherAddr)
		r.sweep("eth0")
		if g := r.core.groups["web"]; g.phase != active {
			t.Fatalf("%v: web is in phase %d, want it kept", loss, g.phase)
		}
		r.busy = true
		did := r.since(r.nameOther)
		shut, _ := shuts(did)
		if got := len(effectsOf[ResetConnections](did)); got != resets || shut != 1-resets {
			t.Errorf("%v: %d resets and shut %d times, want %d and %d", loss, got, shut, resets, 1-resets)
		}
	}
}

// A node whose log was empty when it started cannot have held what it finds by right: it
// is shut before anything else.
func TestEmptyLogKeepsNothing(t *testing.T) {
	r := restarted(t, twoGroups(), testAddr, otherAddr, thirdAddr)
	r.begin(election.LogAtStart{})
	if got := r.shut(); len(got) != 3 {
		t.Fatalf("shuts %v in its first step, want all three", got)
	}
	r.sweep("eth0")
	if g := r.core.groups["db"]; g.open() {
		t.Fatal("db is open")
	}
}

// Who has only begun says neither that it hears nobody nor that it cannot hold what it may
// turn out to have: the leader would name another.
func TestRestartIsNoReasonToMove(t *testing.T) {
	doc := twoGroups()
	doc.Checks = []fsm.Check{{Name: "nginx", File: &fsm.FileCheck{Path: "/x"}, Interval: time.Second, Timeout: time.Second / 2, Rise: 1, Fall: 1}}
	doc.Groups[0].Checks = []string{"nginx"}
	r := restarted(t, doc, testAddr, otherAddr, thirdAddr)
	r.step(Voters{Log: election.VoterLog{Last: election.VoterSet{Term: 1, Index: 2, Voters: []fsm.InstanceID{r.self.ID, r.other.ID}}, LastCommitted: true}})
	r.step(Applied{State: r.state})
	said := r.renewal(testRenew)
	if len(said.Hears) != 0 {
		t.Errorf("hears %v, want nothing said of that yet", said.Hears)
	}
	for _, g := range said.Groups {
		if g.Unfit != 0 {
			t.Errorf("unfit for %s: %s", g.Group, g.Unfit)
		}
	}
	if said = r.renewal(testLease); len(said.Hears) != 1 || said.Hears[0].Node != r.self.ID {
		t.Errorf("after a lease it hears %v, want itself alone", said.Hears)
	}
}

// Who stands for election at once because it led must be the only one: the others wait for
// as long as the lease that they last heard of.
func TestNotMissed(t *testing.T) {
	left := []Leftover{{Until: election.Instant(time.Second)}, {Until: election.Instant(2 * time.Second)}}
	for _, tt := range []struct {
		left []Leftover
		now  time.Duration
		want bool
	}{{nil, 0, false}, {left, 0, true}, {left, 2*time.Second - missedIn, true}, {left, 2*time.Second - missedIn + 1, false}, {left, 3 * time.Second, false}} {
		if got := NotMissed(tt.left, election.Instant(tt.now)); got != tt.want {
			t.Errorf("%v left at %v: %v, want %v", tt.left, tt.now, got, tt.want)
		}
	}
}
