package core

import (
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// A pair is a core that is one of two voters, and as much of the other as it hears.
type pair struct {
	*solo
	cut     bool // they do not hear each other
	silent  bool // the other speaks and does not answer
	verdict election.Verdict
	toldAt  election.Instant
	sent    int // of did, by run
}

// newPair returns a node that leads, owns its group, and holds it by both votes.
func newPair(t *testing.T, loss fsm.QuorumLoss) *pair {
	t.Helper()
	p := &pair{solo: newSolo(t, time.Hour), verdict: election.Confirmed}
	set := election.VoterSet{Term: 1, Index: 2, Voters: []fsm.InstanceID{p.self.ID, p.other.ID}}
	p.step(Voters{Log: election.VoterLog{Last: set, LastCommitted: true}})
	doc := testDocument()
	doc.Groups[0].OnQuorumLoss = loss
	doc.Groups[0].VRRP = fsm.VRRP{}
	p.form(doc)
	p.step(Leader{ID: p.self.ID, Self: true, Term: 1})
	p.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: p.self.ID, Reason: fsm.ReasonFirst}})
	p.run(2 * time.Second)
	p.mustHold(true, false)
	return p
}

// run lets a while pass; the other hears every word, and answers at once.
func (p *pair) run(d time.Duration) {
	for end := p.now.Add(d); p.now.Before(end); {
		p.attend(time.Millisecond)
		for ; p.sent < len(p.did); p.sent++ {
			if e, ok := p.did[p.sent].(Send); ok {
				for _, b := range e.Datagrams {
					p.hears(b)
				}
			}
		}
		if !p.cut && p.now.Sub(p.toldAt) >= testRenew {
			p.toldAt = p.now
			p.tell(election.Renewal{Health: election.Health{VoterReady: true}})
		}
	}
}

func (p *pair) hears(b []byte) {
	msg, err := election.Decode(b)
	if err != nil {
		p.t.Fatal(err)
	}
	r, asks := msg.(election.Renewal)
	if !asks || p.cut || p.silent {
		return
	}
	a := election.Answer{Sender: election.Sender{Cluster: fsm.ClusterID{9}, From: p.other.ID}, Echo: r.Stamp, Lease: r.Lease, Log: p.core.log}
	for _, g := range r.Groups {
		if g.Asks() {
			a.Groups = append(a.Groups, election.GroupAnswer{Group: g.Group, Epoch: g.Epoch, Verdict: p.verdict})
		}
	}
	p.step(Datagram{Message: a})
}

// freeze has the process stand still.
func (p *pair) freeze(d time.Duration) { p.now = p.now.Add(d) }

func (p *pair) mustHold(held, unproven bool) {
	p.t.Helper()
	if v := p.vip(); (v.State == "active") != held || v.WithoutProof != unproven {
		p.t.Fatalf("state %s, without proof: %v; want held: %v, without proof: %v", v.State, v.WithoutProof, held, unproven)
	}
}

// Cut off from the majority a group is let go with its lease. Nothing that was not said
// counts as hold.
func TestReleaseNeedsProof(t *testing.T) {
	for _, loss := range []fsm.QuorumLoss{0, fsm.QuorumLossRelease} {
		p := newPair(t, loss)
		p.cut = true
		p.run(testLease + 5*time.Millisecond)
		p.mustHold(false, false)
	}
}

// With hold it goes on for as long as that lasts, never unproven before it must be, and
// says so at once and again and again. With an answer it is as always.
func TestHoldWithoutProof(t *testing.T) {
	p := newPair(t, fsm.QuorumLossHold)
	p.cut = true
	deadline := p.core.groups["web"].deadline
	p.run(deadline.Sub(p.now) - testRenew/2 - 3*time.Millisecond)
	p.mustHold(true, false)
	var loud []string
	p.run(testRenew)
	for range 25 * 4 {
		p.mustHold(true, true)
		p.run(250 * time.Millisecond)
	}
	for _, e := range effectsOf[Log](p.did) {
		if e.Level == Error {
			loud = append(loud, e.Text)
		}
	}
	if len(loud) != 3 || !strings.Contains(loud[2], "WITHOUT PROOF") {
		t.Fatalf("in 25 s the log says %q, want three errors", loud)
	}
	p.cut = false
	p.run(3 * testLease)
	p.mustHold(true, false)
	p.cut = true
	p.run(testLease)
	p.mustHold(true, true)
}

// What ends it, for good: each of these leaves the group shut, and nothing opens it
// again while no majority says so.
func TestHoldEnds(t *testing.T) {
	for name, end := range map[string]func(p *pair){
		"the process stood still": func(p *pair) { p.freeze(2 * testLease) },
		"a voter says stale": func(p *pair) {
			p.step(Datagram{Message: election.Answer{
				Sender: election.Sender{Cluster: fsm.ClusterID{9}, From: p.other.ID},
				Echo:   election.Stamp{Boot: election.BootID{1}, At: p.now}, Lease: testLease,
				Groups: []election.GroupAnswer{{Group: "web", Epoch: p.state.Assignments["web"].Epoch, Verdict: election.Stale}},
			}})
		},
		"another asks by a newer epoch": func(p *pair) {
			p.tell(election.Renewal{Groups: []election.GroupState{{Group: "web", Epoch: 99, Phase: election.PhaseWaiting}}})
		},
		"another is named": func(p *pair) {
			p.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: p.other.ID, Seen: p.state.Assignments["web"].Epoch, Reason: fsm.ReasonMove}})
		},
		"a newer epoch": func(p *pair) {
			p.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: p.self.ID, Seen: p.state.Assignments["web"].Epoch, Reason: fsm.ReasonMove}})
		},
		"the voters are heard and do not answer": func(p *pair) { p.cut, p.silent = false, true },
		"the voters are heard and say no":        func(p *pair) { p.cut, p.verdict = false, election.NotReady },
		"the device is down":                     func(p *pair) { p.step(Link{Name: "eth0"}); p.run(testLease); p.step(Link{Name: "eth0", OK: true}) },
		"the process is to end":                  func(p *pair) { p.step(Stop{}) },
		"the document says release": func(p *pair) {
			doc := p.state.Document
			doc.Groups = testDocument().Groups
			doc.Groups[0].VRRP = fsm.VRRP{}
			p.replace(doc)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, fsm.QuorumLossHold)
			p.cut = true
			p.run(2 * time.Second)
			p.mustHold(true, true)
			end(p)
			p.run(testLease + 50*time.Millisecond)
			p.cut = true
			p.mustHold(false, false)
			p.run(2 * time.Second)
			p.mustHold(false, false)
		})
	}
}

// A process that was late when its lease ran out may only not have heard the answers yet.
func TestLateProcessDoesNotHold(t *testing.T) {
	p := newPair(t, fsm.QuorumLossHold)
	p.cut = true
	p.freeze(testRenew + 30*time.Millisecond)
	p.run(testLease)
	p.mustHold(false, false)
}

// A process that has just begun has no proof to go on from.
func TestFreshStartDoesNotHold(t *testing.T) {
	p := &pair{solo: newSolo(t, time.Hour), cut: true}
	set := election.VoterSet{Term: 1, Index: 2, Voters: []fsm.InstanceID{p.self.ID, p.other.ID}}
	p.step(Voters{Log: election.VoterLog{Last: set, LastCommitted: true}})
	doc := testDocument()
	doc.Groups[0].OnQuorumLoss = fsm.QuorumLossHold
	p.form(doc)
	p.apply(fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: p.self.ID, Reason: fsm.ReasonFirst}})
	p.run(5 * time.Second)
	p.mustHold(false, false)
}
