package core

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// A stopping node waits until the group is named away, if anybody would take it: by the
// document's placement, and by what the others say of themselves.
func TestStopWaitsForWhoWouldTakeIt(t *testing.T) {
	for name, tt := range map[string]struct {
		do    func(c *crowd)
		waits bool
	}{
		"another is well":  {func(*crowd) {}, true},
		"both are drained": {func(c *crowd) { c.drain(1); c.drain(2) }, false},
		"neither is to have it": {func(c *crowd) {
			doc := c.state.Document
			doc.Groups[0].Priority = map[string]uint8{"n2": 0, "n3": 0}
			c.replace(doc)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCrowd(t, 3, 0)
			c.step(Leader{ID: c.nodes[1].ID, Term: 2}) // who does nothing here
			c.assign(0)
			tt.do(c)
			c.run(time.Second)
			if v := c.vip(); v.State != "active" {
				t.Fatalf("the group is %s", v.State)
			}
			c.step(Stop{})
			c.run(stopPatience / 2)
			if waits := c.vip().State == "active"; waits != tt.waits {
				t.Fatalf("a second after it is asked to stop it waits: %v, want %v", waits, tt.waits)
			}
			c.run(stopPatience)
			if c.vip().State == "active" {
				t.Fatal("it waits for ever")
			}
		})
	}
}

func (c *crowd) drain(i int) {
	c.apply(fsm.Command{Drain: &fsm.Drain{Node: c.nodes[i].ID, Drained: true}})
}

// A group that is given to nobody is let go at once, is open nowhere and asked for by
// nobody, and can be given to somebody again.
func TestNobodyIsNamed(t *testing.T) {
	s := holding(t)
	got := effectsOf[SetFence](s.since(func() {
		s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Seen: s.state.Assignments["web"].Epoch, Reason: fsm.ReasonAllFail}})
	}))
	if len(got) != 1 || got[0].Until != 0 {
		t.Fatalf("nobody is named, and the fence is set to %v; want it shut", got)
	}
	s.attend(time.Second)
	if v := s.vip(); v.State != "unowned" || v.Owner != "" || v.Reason != "all-fail" || v.Held {
		t.Fatalf("status %+v", v)
	}
	if got := effectsOf[Advertise](s.did); len(got) == 0 || got[len(got)-1].VRRP.Priority != 0 {
		t.Fatalf("the last advert is %+v, want priority 0: nobody of the cluster has it", got)
	}
	if got := s.said(); got.Group != "" {
		t.Fatalf("it says %+v of a group that nobody owns", got)
	}
	s.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: s.self.ID, Seen: s.state.Assignments["web"].Epoch, Reason: fsm.ReasonRestore}})
	s.attend(time.Second)
	if v := s.vip(); v.State != "active" {
		t.Fatalf("named again, it is %+v", v)
	}
}

// A move by hand to where the group is not to be is refused, and says why.
func TestRefusedMoves(t *testing.T) {
	for want, do := range map[string]func(c *crowd){
		"n2 is drained":           func(c *crowd) { c.drain(1) },
		"not heard by a majority": func(c *crowd) { c.dead[c.nodes[1].ID] = true },
		"there is no node":        func(c *crowd) { c.retire(c.nodes[1]) },
		"is a witness": func(c *crowd) {
			c.nodes[1].Role = fsm.Witness
			c.apply(fsm.Command{Enrol: &fsm.Enrol{Node: c.nodes[1]}})
		},
		"is on n2 already":             func(c *crowd) { c.assign(1) },
		"has priority 0 for group web": func(c *crowd) { c.prioritize(map[string]uint8{"n2": 0}) },
		"web: check-failed":            func(c *crowd) { c.says(1, election.UnfitCheck) },
		"web: kernel-refused":          func(c *crowd) { c.says(1, election.UnfitKernel) },
	} {
		c := newCrowd(t, 3, 0)
		c.run(time.Second)
		do(c)
		if want != "web: check-failed" && want != "web: kernel-refused" {
			c.run(2 * testLease)
		}
		if _, err := c.core.Move("web", "n2"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("move: %v, want that %q", err, want)
		}
	}
	c := newCrowd(t, 3, 0)
	c.run(time.Second)
	if _, err := c.core.Move("api", "n2"); err == nil {
		t.Error("a group that is not there is moved")
	}
	cmd, err := c.core.Move("web", "n2")
	if err != nil || cmd.Assign == nil || cmd.Assign.Owner != c.nodes[1].ID {
		t.Errorf("move: %+v, %v", cmd, err)
	}
}

func (c *crowd) assign(i int) {
	c.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: c.nodes[i].ID, Seen: c.state.Assignments["web"].Epoch, Reason: fsm.ReasonMove}})
}

func (c *crowd) prioritize(p map[string]uint8) {
	doc := c.state.Document
	doc.Groups[0].Priority = p
	c.replace(doc)
}

func (c *crowd) says(i int, u election.Unfit) {
	n := c.nodes[i]
	c.step(Datagram{Message: election.Renewal{Sender: election.Sender{Cluster: fsm.ClusterID{9}, From: n.ID}, Lease: testLease,
		Stamp: election.Stamp{Boot: election.BootID{n.ID[0]}, At: c.now}, Hears: []election.Hearsay{{Node: c.self.ID}, {Node: c.nodes[2].ID}},
		Groups: []election.GroupState{{Group: "web", Phase: election.PhaseIdle, Unfit: u}}}})
}

// Status tells what people need to know of a node and the document.
func TestStatusOfNodes(t *testing.T) {
	c := newCrowd(t, 3, 0)
	c.drain(1)
	s := c.core.Status(c.now)
	if s.Revision != c.state.Document.Revision || s.Members[0].Drained || !s.Members[1].Drained {
		t.Fatalf("status %+v", s)
	}
}

// obey lets a while pass in which what is proposed is committed, and returns who is named.
func (c *crowd) obey(d time.Duration) []string {
	var named []string
	for end := c.now.Add(d); c.now.Before(end); {
		c.run(5 * time.Millisecond)
		for ; c.obeyed < len(c.did); c.obeyed++ {
			e, is := c.did[c.obeyed].(Propose)
			if !is || e.Command.Assign == nil {
				continue
			}
			if a := e.Command.Assign; a.Seen == c.state.Assignments[a.Group].Epoch {
				c.apply(e.Command)
				c.step(Proposed{Command: e.Command})
				named = append(named, c.core.name(a.Owner)+" "+a.Reason.String())
			}
		}
	}
	return named
}

// A node that did not open its group is not preferred for a while, longer each time, and
// not forgiven because another has it open. Who has held it for ten leases is.
func TestFailuresAreRemembered(t *testing.T) {
	for name, reason := range map[string]fsm.Reason{"not open in time": fsm.ReasonNotOpen, "unfit before it was open": fsm.ReasonUnfit} {
		t.Run(name, func(t *testing.T) {
			c := newCrowd(t, 3, 0)
			doc := c.state.Document
			doc.Groups = slices.Clone(doc.Groups)
			doc.Groups[0].Placement, doc.Groups[0].Preempt = fsm.PlacementPriority, fsm.Preempt{Yes: true}
			doc.Groups[0].Priority = map[string]uint8{"n1": 150, "n2": 200, "n3": 100}
			c.replace(doc)
			c.run(time.Second)
			fail := func() (after time.Duration) { // until it is named again, and fails again
				t.Helper()
				from := c.now
				for len(c.obey(20*time.Millisecond)) == 0 {
					if c.now.Sub(from) > time.Minute {
						t.Fatal("n2 is not named any more")
					}
				}
				if c.state.Assignments["web"].Owner != c.nodes[1].ID {
					t.Fatalf("named: %+v", c.state.Assignments["web"])
				}
				after = c.now.Sub(from)
				if reason == fsm.ReasonUnfit {
					c.says(1, election.UnfitKernel)
				}
				for len(c.obey(20*time.Millisecond)) == 0 && c.now.Sub(from) < time.Minute {
				}
				if a := c.state.Assignments["web"]; a.Owner != c.self.ID || a.Reason != reason {
					t.Fatalf("from n2 the group goes by %+v", a)
				}
				return after
			}
			fail()
			first, second := fail(), fail()
			if first < time.Second || second < first+time.Second {
				t.Fatalf("n2 is named again after %v, and then after %v", first, second)
			}
			c.run(testLease)
			o := c.core.lead.opening["web"]
			if o.tries != 0 || o.failed[c.nodes[1].ID].times != 3 {
				t.Fatalf("with the group open elsewhere: %+v", o)
			}
			for len(c.obey(20*time.Millisecond)) == 0 {
			}
			c.open = c.nodes[1].ID
			c.run(forgiven*testLease - testLease)
			if o.failed[c.nodes[1].ID].times == 0 {
				t.Fatal("forgiven at once")
			}
			c.run(2 * testLease)
			if o.failed[c.nodes[1].ID].times != 0 {
				t.Fatal("never forgiven")
			}
		})
	}
}

// That its owner is stopping is a reason to move a group at once, and not with the next
// tick: the owner waits for that.
func TestStoppingIsNews(t *testing.T) {
	p := newPair(t, fsm.QuorumLossRelease)
	p.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: p.other.ID, Seen: p.state.Assignments["web"].Epoch, Reason: fsm.ReasonMove}})
	p.run(2 * testRenew)
	p.step(Woke{}) // its own tick is over
	did := p.since(func() { p.tell(election.Renewal{Health: election.Health{VoterReady: true, Stopping: true}}) })
	moved := effectsOf[Propose](did)
	if len(moved) != 1 || moved[0].Command.Assign == nil || moved[0].Command.Assign.Owner != p.self.ID || moved[0].Command.Assign.Reason != fsm.ReasonShutdown {
		t.Fatalf("proposed %+v, want web to be moved at once", moved)
	}
}
