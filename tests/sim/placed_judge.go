package sim

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/tests/sim/raftmodel"
)

// applied judges what one host applied, and the log by who applied it first.
func (e *estate) applied(h *host, a raftmodel.Applied) {
	st := a.State
	for id := range st.Nodes {
		k := drainSeen{h.process, id}
		if _, seen := e.drained[k]; !st.Drained[id] {
			delete(e.drained, k)
		} else if !seen {
			e.drained[k] = e.now
		}
	}
	e.documentOf(h, st.Document)
	if st.Index <= e.judged {
		return
	}
	was := e.last
	e.judged, e.last = st.Index, st
	if was == nil || a.Restored || !was.Formed() {
		return
	}
	e.seen["removed"] += len(st.Retired) - len(was.Retired)
	e.seen["joined"] += max(0, len(st.Nodes)-len(was.Nodes))
	if a.Err != nil {
		e.seen["refused"]++
	}
	for _, g := range st.Document.Groups {
		old, now := was.Assignments[g.Name], st.Assignments[g.Name]
		if old.Epoch == now.Epoch {
			continue
		}
		e.moves[g.Name]++
		e.seen[now.Reason.String()]++
		if now.Reason == fsm.ReasonNotOpen || now.Reason == fsm.ReasonUnfit {
			e.vain[g.Name]++
		}
		e.tell("  %s: epoch %d, %s to %s (%v)", g.Name, now.Epoch, was.Nodes[old.Owner].Name, st.Nodes[now.Owner].Name, now.Reason)
		if was.Document.Revision != st.Document.Revision {
			before, had := was.Document.Group(g.Name)
			if !had || fsm.SameReach(before, g) {
				e.violated("a document gives %s a new epoch, and its addresses are the same", g.Name)
			}
		}
		if _, known := st.Nodes[now.Owner]; !known && !now.Owner.IsZero() && now.Reason != fsm.ReasonDocument {
			e.violated("%s is assigned to a node that the cluster does not have", g.Name)
		}
	}
}

// proposes judges what a host's agent proposes.
func (e *estate) proposes(h *host, cmd fsm.Command) {
	a := cmd.Assign
	if a == nil {
		return
	}
	st := e.state(h)
	if since, drained := e.drained[drainSeen{h.process, a.Owner}]; drained && st.Drained[a.Owner] && e.now-max(since, h.thawedAt) > e.lease {
		e.violated("n%d assigns %s to %s, which is drained", h.i+1, a.Group, st.Nodes[a.Owner].Name)
	}
	if _, retired := st.Retired[h.node.ID]; retired {
		e.tell("n%d proposes, and was removed", h.i+1)
	}
}

// ideal is what a leader sees when all is well.
func (e *estate) ideal(st *fsm.State, l *host) fsm.View {
	v := fsm.View{Leader: l.node.ID, Nodes: map[fsm.InstanceID]fsm.NodeView{}}
	weight := map[string]int{}
	for _, c := range st.Document.Checks {
		weight[c.Name] = max(c.Weight, 0)
	}
	for id := range st.Nodes {
		n := fsm.NodeView{Alive: true, Adjust: map[string]int{}}
		for _, g := range st.Document.Groups {
			for _, c := range g.Checks {
				n.Adjust[g.Name] += weight[c]
			}
			for _, t := range g.TrackInterfaces {
				n.Adjust[g.Name] += max(t.Weight, 0)
			}
		}
		v.Nodes[id] = n
	}
	return v
}

const (
	// restAfter is how long after all is well the last that is left of it ends: 10 s for
	// which a released host, or one with a conflict, keeps off.
	restAfter = 12 * time.Second
	// restFor is for how long nothing moves then.
	restFor = 3 * time.Second
	// mostMoves is how often a group may change its owner from when all is well until
	// everything rests.
	mostMoves = 12
	// muchInVain is so often that a node may be passed over for longer than that.
	muchInVain = 4
)

// inVain is how often a node was named in vain. Groups that are apart change places, so that
// what fails with one counts for the other.
func (e *estate) inVain() (n int) {
	for _, times := range e.vain {
		n += times
	}
	return n
}

// rest asks that everything comes to rest where the document wants it.
func (e *estate) rest() {
	e.Run(max(0, e.healedAt+restAfter-e.now))
	for _, name := range slices.Sorted(maps.Keys(e.moves)) {
		if n := e.moves[name]; n > mostMoves {
			e.violated("%s changed its owner %d times after all was well", name, n)
		}
	}
	clear(e.moves)
	e.Run(restFor)
	if wrong := e.unsettled(); wrong != "" {
		e.violated("later on %s", wrong)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(e.moves)) {
		if e.inVain() < muchInVain {
			e.violated("%s does not stay where it is", name)
		}
	}
	l := e.leader()
	st := e.state(l)
	for _, a := range fsm.Place(st, e.ideal(st, l)) {
		if e.inVain() >= muchInVain {
			continue
		}
		e.violated("%s is on %s and should be on %s (%v)", a.Group, st.Nodes[st.Assignments[a.Group].Owner].Name, st.Nodes[a.Owner].Name, a.Reason)
	}
	if len(e.watch.violations) == 0 {
		e.changeAddresses(l, st)
	}
	if len(e.watch.violations) == 0 {
		e.changeOne(l, e.state(l))
	}
}

// changeAddresses has one group lose or get an address, and asks that all others are
// answered for without a break.
func (e *estate) changeAddresses(l *host, st *fsm.State) {
	doc := st.Document
	doc.Groups = slices.Clone(doc.Groups)
	g := &doc.Groups[e.plan.IntN(len(doc.Groups))]
	if st.Assignments[g.Name].Reason == fsm.ReasonMove {
		return // the new epoch forgets that it was moved by hand, and it may go back
	}
	stay := doc.Addrs()
	free := slices.IndexFunc(Addresses[:], func(p netip.Prefix) bool { return !slices.Contains(stay, p.Addr()) })
	switch n := len(g.Addresses); {
	case n > 1 && (free < 0 || e.plan.IntN(2) == 0):
		gone := g.Addresses[e.plan.IntN(n)]
		e.tell("%s loses %v", g.Name, gone)
		g.Addresses = slices.DeleteFunc(slices.Clone(g.Addresses), func(p netip.Prefix) bool { return p == gone })
		stay = doc.Addrs()
	case free >= 0:
		e.tell("%s gets %v", g.Name, Addresses[free])
		g.Addresses = append(slices.Clone(g.Addresses), Addresses[free])
	default:
		return
	}
	if doc.Check() != nil || !e.byHand(fsm.Command{Replace: &fsm.Replace{Seen: doc.Revision, Document: doc}}) {
		return
	}
	for range 500 {
		e.Run(2 * time.Millisecond)
		for _, addr := range stay {
			if e.Holder(e.address(addr)) == nil {
				e.violated("nobody answers for %s, and another address of %s was changed", addr, g.Name)
				return
			}
		}
	}
	e.Run(2 * time.Second) // a new virtual router is listened to first
	if wrong := e.unsettled(); wrong != "" {
		e.violated("three seconds after a change of %s, %s", g.Name, wrong)
	}
}

// changeOne changes the policy of a group that has nothing to do with the others, and
// asks that the others keep their epochs.
func (e *estate) changeOne(l *host, st *fsm.State) {
	doc := st.Document
	doc.Groups = slices.Clone(doc.Groups)
	i := e.plan.IntN(len(doc.Groups))
	changed := doc.Groups[i]
	with := e.group(changed.Name, i)
	with.Addresses, with.VRRP, with.Apart, with.Together = changed.Addresses, changed.VRRP, nil, nil
	if e.plan.IntN(3) == 0 { // it gets a check that nobody has a result of yet
		doc.Checks = append(slices.Clone(doc.Checks), fsm.Check{Name: "new", Systemd: "it.service", Interval: time.Second, Timeout: 500 * time.Millisecond, Rise: 2, Fall: 3,
			Weight: e.pick(0, -30, 40)})
		with.Checks = append(with.Checks, "new")
	}
	doc.Groups[i] = with
	spread := changed.Placement == fsm.PlacementSpread || with.Placement == fsm.PlacementSpread
	for _, o := range doc.Groups {
		if slices.Contains(o.Apart, changed.Name) || slices.Contains(o.Together, changed.Name) ||
			slices.Contains(changed.Apart, o.Name) || slices.Contains(changed.Together, o.Name) || spread && o.Placement == fsm.PlacementSpread && o.Name != with.Name {
			return
		}
	}
	e.tell("only %s is changed", with.Name)
	e.tellDocument(doc)
	cmd := fsm.Command{Replace: &fsm.Replace{Seen: doc.Revision, Document: doc}}
	next, err := st.Apply(st.Index+1, st.Term, cmd)
	if err != nil || !e.byHand(cmd) {
		return
	}
	due := map[string]int{with.Name: len(fsm.Place(next, e.ideal(next, l)))}
	clear(e.moves)
	e.Run(1500 * time.Millisecond)
	for _, name := range slices.Sorted(maps.Keys(e.moves)) {
		if n := e.moves[name]; n > due[name] {
			e.violated("%s moves %d times and not %d when only %s was changed", name, n, due[name], with.Name)
		}
	}
}

// mayBoth reports whether two hosts may answer for an address: its group is held without
// a majority, by one that has heard none since it last moved its deadline.
func (w *World) mayBoth(a int, hosts ...*host) bool {
	if w.estate == nil || !w.estate.hold {
		return false
	}
	for _, h := range hosts {
		if h.unproved[a] {
			w.estate.seen["both"]++
			return true
		}
	}
	return false
}

// extends notes whether a host that moves a deadline can have had answers.
func (w *World) extends(h *host, a int) {
	if w.estate == nil || !w.estate.hold {
		return
	}
	h.unproved[a] = false
	for _, g := range w.state(h).Document.Groups {
		if g.OnQuorumLoss != fsm.QuorumLossHold || !slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p == Addresses[a] }) {
			continue
		}
		window := time.Duration(float64(h.lease/3*5/4)*0.99) - 2*time.Millisecond
		heard := 0
		voters := w.raft.Voters(h.i).Last
		for _, o := range w.hosts {
			if voters.Has(o.node.ID) && (o == h || w.now-h.heardAt[o.i] < window) {
				heard++
			}
		}
		h.unproved[a] = heard < voters.Majority() || w.now-h.thawedAt < h.lease
	}
}
