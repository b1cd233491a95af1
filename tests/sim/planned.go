package sim

import (
	"math/rand/v2"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

// theCheck is the one check that documents here name.
const theCheck = "service"

// plannedEnv draws the surroundings of a run of TestPlanned: those of TestChaos, with a
// document whose groups follow priorities, loads and checks.
func plannedEnv(seed uint64) Env {
	e := chaosEnv(seed)
	r := rand.New(rand.NewPCG(seed, 3))
	e.Weights.Document, e.Weights.Member = 0, min(e.Weights.Member, 2)
	e.Weights.Drain, e.Weights.Check = 4, 6
	if e.Hosts > 3 && !e.Lifetime { // there the spacing of the voters' changes takes longer than a run
		e.Weights.Remove = 2
	}
	e.Document = fsm.Document{MaxHold: e.Document.MaxHold, Checks: []fsm.Check{{Name: theCheck, Systemd: "it.service",
		Interval: time.Second, Timeout: 500 * time.Millisecond, Rise: 2, Fall: 3, Weight: []int{0, -30, 40}[r.IntN(3)]}}}
	for i, name := range []string{"web", "db", "api"}[:1+r.IntN(3)] {
		g := group(name, uint8(51+i), []int{0, 1, 3}[i])
		g.Checks = []string{theCheck}
		g.Placement = []fsm.Placement{fsm.PlacementLeader, fsm.PlacementPriority, fsm.PlacementSpread}[r.IntN(3)]
		if g.Placement == fsm.PlacementPriority {
			g.Priority = map[string]uint8{"n1": uint8(90 + r.IntN(40)), "n2": uint8(90 + r.IntN(40))}
		}
		if g.Placement != fsm.PlacementLeader && r.IntN(2) == 0 {
			g.Preempt = fsm.Preempt{Yes: true, Delay: time.Duration(r.IntN(3)) * 300 * time.Millisecond}
		}
		if i > 0 {
			switch r.IntN(4) {
			case 0:
				g.Apart = []string{"web"}
			case 1:
				first := e.Document.Groups[0]
				g.Placement, g.Priority, g.Preempt, g.Together = first.Placement, first.Priority, first.Preempt, []string{"web"}
			}
		}
		e.Document.Groups = append(e.Document.Groups, g)
	}
	if err := e.Document.Check(); err != nil {
		panic("sim: " + err.Error())
	}
	return e
}

// byHand has the leader append what an operator asks of it.
func (w *World) byHand(cmd fsm.Command) bool {
	l := w.leader()
	if l == nil || !w.state(l).Formed() {
		return false
	}
	_, err := w.append(l.i, cmd)
	return err == nil
}

// drain has a node own nothing, or lets it again.
func (x *Chaos) drain(h *host) {
	l := x.leader()
	if l == nil {
		return
	}
	if _, known := x.state(l).Nodes[h.node.ID]; known {
		x.byHand(fsm.Command{Drain: &fsm.Drain{Node: h.node.ID, Drained: !x.state(l).Drained[h.node.ID]}})
	}
}

// undrain lets every node own again, as soon as somebody leads.
func (w *World) undrain() {
	l := w.leader()
	if l != nil && w.state(l).Formed() {
		for _, h := range w.hosts {
			if w.state(l).Drained[h.node.ID] {
				w.byHand(fsm.Command{Drain: &fsm.Drain{Node: h.node.ID}})
			}
		}
		if len(w.state(l).Drained) == 0 {
			return
		}
	}
	w.after(50*time.Millisecond, w.undrain)
}

// check has the service of a host fail, or work again.
func (x *Chaos) check(h *host) { h.says(h.sick) }

// says has the host's checks say that its service is well, or not.
func (h *host) says(well bool) {
	h.sick = !well
	if len(h.w.env.Document.Checks) > 0 {
		h.post(core.Checked{Check: theCheck, Pass: well, Why: "it is down"})
	}
}

// remove takes a node out of the cluster for good, while three are left.
func (x *Chaos) remove(h *host) {
	l := x.leader()
	if l == nil {
		return
	}
	if _, known := x.state(l).Nodes[h.node.ID]; known && len(x.state(l).Nodes) > 3 {
		x.byHand(fsm.Command{Retire: &fsm.Retire{Node: h.node.ID}})
	}
}

// removedVoter is a node that was removed and still has a vote, by a leader's log.
func (w *World) removedVoter(l *host) *host {
	for _, h := range w.hosts {
		if _, retired := w.state(l).Retired[h.node.ID]; retired && w.raft.Configuration(l.i).Voters.Has(h.i) {
			return h
		}
	}
	return nil
}

// told is what the hooks of a process were told.
type told struct {
	w    *World
	i    int
	last map[string]string // by group
}

// Transition judges what hooks are told: each change from where the group was.
func (t told) Transition(e core.Transition) {
	if last := t.last[e.Group]; e.From != last && (e.From != "" || last == "active") { // "": the group was deleted, and came back
		t.w.violated("n%d: hooks are told that %s was %q, and were told last that it is %q", t.i+1, e.Group, e.From, t.last[e.Group])
	}
	switch e.To {
	case "active", "backup", "fault":
	default:
		t.w.violated("n%d: hooks are told that %s is %q", t.i+1, e.Group, e.To)
	}
	t.last[e.Group] = e.To
}
