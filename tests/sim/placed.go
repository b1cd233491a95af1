package sim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/tests/sim/raftmodel"
)

// An estate is what operators ask of a cluster in a run, and what is kept account of to
// judge it: documents with every policy, checks and tracked devices that fail, nodes that
// are drained, removed and replaced.
type estate struct {
	*Chaos
	plan    *rand.Rand // documents come from here, so that a fault more does not change them
	hold    bool       // some groups are held without a majority
	bad     map[sickness]bool
	retired *host // the one that was removed; nil: none yet
	spare   *host // comes in its place, under its name; nil: none

	healedAt time.Duration
	judged   uint64     // the index up to which the log was judged
	last     *fsm.State // as of then
	moves    map[string]int
	vain     map[string]int // how often an owner was left that had not opened, or could not
	drained  map[drainSeen]time.Duration
	told     map[*process]map[string]fsm.Check
	seen     map[string]int // what the run was about
}

// A sickness is a check, or a tracked device, that fails on a host.
type sickness struct {
	host int
	what string
}

type drainSeen struct {
	by   *process
	node fsm.InstanceID
}

// trackedDevice is one that groups count on besides their own.
const trackedDevice = "eth1"

var checkNames = []string{"c0", "c1", "c2", "c3"}

// RunPlaced makes the run of a seed with the faults of RunChaos, while operators change
// documents, drain, remove and replace nodes, and services and devices fail. Besides what
// RunChaos asks: does everybody do what the document says, and does it come to rest?
func RunPlaced(seed uint64, story bool) *Chaos { return runEstate(seed, false, story) }

// RunHold makes such a run in which some groups are held without a majority: two may
// answer for those when one of them hears no majority, and for no other.
func RunHold(seed uint64, story bool) *Chaos { return runEstate(seed, true, story) }

func runEstate(seed uint64, hold, story bool) *Chaos {
	env := estateEnv(seed)
	if hold {
		env.Starved, env.Slow = 0, 0 // who is late may not know yet what he has heard
	}
	x := &Chaos{World: New(env, seed), lease: env.Leases[0]}
	defer x.Close()
	e := newEstate(x, seed, hold)
	x.watch.telling = story
	x.net.env = env.Net
	x.tell("%v", env)
	e.tellDocument(x.env.Document)
	x.Run(x.lease * 2)
	for range env.Faults {
		x.Run(x.jitter(0, x.lease*8/5))
		if len(x.watch.violations) > 0 {
			return x
		}
		x.fault()
	}
	e.heal()
	x.settleWithin(estateBound)
	if x.Wrong() == "" {
		e.rest()
	}
	return x
}

// estateBound is within how long everything is as it should be when all is well: besides
// what takes long in a run of TestChaos, voters may have to change three times.
const estateBound = 30 * time.Second

// estateEnv is that of a chaos, with other documents and more to do.
func estateEnv(seed uint64) Env {
	env := chaosEnv(seed)
	r := rand.New(rand.NewPCG(seed, 4))
	if env.Lifetime {
		env.Lifetime, env.Leases, env.Net.Latest = false, []time.Duration{300 * time.Millisecond}, 300*time.Millisecond
	}
	if env.Hosts == env.Founders && env.Hosts < 5 && r.IntN(2) == 0 {
		env.Hosts++ // a spare one
	}
	env.Weights.Member, env.Weights.Document = min(env.Weights.Member, 2), 0
	env.Weights.Estate = 24
	env.Faults = min(60, 180/env.Hosts)
	return env
}

func newEstate(x *Chaos, seed uint64, hold bool) *estate {
	e := &estate{Chaos: x, plan: rand.New(rand.NewPCG(seed, 5)), hold: hold, bad: map[sickness]bool{}, moves: map[string]int{}, vain: map[string]int{},
		drained: map[drainSeen]time.Duration{}, told: map[*process]map[string]fsm.Check{}, seen: map[string]int{}}
	x.estate = e
	if n := len(x.hosts); n > x.env.Founders {
		e.spare = x.hosts[n-1]
	}
	if n := x.env.Founders; n >= 3 && e.plan.IntN(5) == 0 {
		x.hosts[n-1].node.Role = fsm.Witness
	}
	x.env.Document = e.document()
	return e
}

// members are the hosts that can own.
func (e *estate) members() int {
	n := 0
	for _, h := range e.hosts[:e.env.Founders] {
		if h.node.Role == fsm.Member {
			n++
		}
	}
	return n
}

// document is one with policies of every kind.
func (e *estate) document() fsm.Document {
	longest := slices.Max(e.env.Leases)
	for {
		doc := fsm.Document{MaxHold: longest + 10*time.Millisecond}
		for _, name := range checkNames {
			doc.Checks = append(doc.Checks, fsm.Check{Name: name, Systemd: "it.service", Interval: time.Second, Timeout: 500 * time.Millisecond, Rise: 2, Fall: 3,
				Weight: e.pick(0, 0, -30, 40)})
		}
		at := e.plan.Perm(maxAddrs)
		if e.plan.IntN(2) == 0 {
			slices.Sort(at) // each address stays in its group
		}
		n := 1 + e.plan.IntN(4)
		for i, name := range []string{"web", "db", "api", "ntp"}[:n] {
			doc.Groups = append(doc.Groups, e.group(name, i))
			doc.Groups[i].Addresses = []netip.Prefix{Addresses[at[i]]}
		}
		for _, a := range at[n:] {
			if g := &doc.Groups[e.plan.IntN(n)]; e.plan.IntN(2) == 0 {
				g.Addresses = append(g.Addresses, Addresses[a])
			}
		}
		e.company(doc.Groups)
		if doc.Check() == nil {
			return doc
		}
	}
}

func (e *estate) pick(of ...int) int { return of[e.plan.IntN(len(of))] }

func (e *estate) group(name string, i int) fsm.Group {
	r := e.plan
	g := group(name, uint8(51+i), i)
	g.Placement = fsm.Placement(1 + r.IntN(3))
	g.Weight = e.pick(0, 1, 3)
	if g.Placement != fsm.PlacementLeader && r.IntN(3) > 0 {
		g.Preempt = fsm.Preempt{Yes: true, Delay: time.Duration(e.pick(0, 300, 900)) * time.Millisecond}
	}
	if r.IntN(2) == 0 {
		g.Priority = map[string]uint8{}
		for h := range e.hosts {
			if r.IntN(2) == 0 {
				g.Priority[fmt.Sprintf("n%d", h+1)] = uint8(80 + r.IntN(40))
			}
		}
		if e.members() >= 3 && r.IntN(4) == 0 {
			g.Priority["n1"] = 0
		}
	}
	for _, c := range checkNames {
		if r.IntN(3) == 0 {
			g.Checks = append(g.Checks, c)
		}
	}
	if r.IntN(4) == 0 {
		g.TrackInterfaces = []fsm.Track{{Interface: trackedDevice, Weight: e.pick(0, -20, 20)}}
	}
	g.WhenAllFail = fsm.AllFail(e.pick(1, 2))
	if e.hold && r.IntN(2) == 0 {
		g.OnQuorumLoss = fsm.QuorumLossHold
	}
	return g
}

// company has some of the groups be apart, or together.
func (e *estate) company(groups []fsm.Group) {
	for i := 1; i < len(groups); i++ {
		with := &groups[e.plan.IntN(i)]
		switch e.plan.IntN(4) {
		case 0:
			groups[i].Apart = []string{with.Name}
		case 1:
			groups[i].Together = []string{with.Name}
			groups[i].Placement, groups[i].Preempt = with.Placement, with.Preempt
		}
	}
}

func (e *estate) tellDocument(doc fsm.Document) {
	if !e.watch.telling {
		return
	}
	for _, g := range doc.Groups {
		e.tell("  %s %v: %v, preempt %v, priority %v, weight %d, apart %v, together %v, checks %v, track %v, %v, %v", g.Name, g.Addresses, g.Placement,
			g.Preempt, g.Priority, g.Weight, g.Apart, g.Together, g.Checks, g.TrackInterfaces, g.WhenAllFail, g.OnQuorumLoss)
	}
	for _, c := range doc.Checks {
		e.tell("  check %s: weight %d", c.Name, c.Weight)
	}
}

// work is something that an operator, or a service, does.
func (x *Chaos) work(h *host) {
	e := x.estate
	l := x.leader()
	if l == nil || !x.state(l).Formed() {
		return
	}
	st := x.state(l)
	switch n := x.rng.IntN(26); {
	case n < 3:
		e.apply(st)
	case n < 4: // two at once
		e.apply(st)
		e.apply(st)
	case n < 10:
		what := checkNames[x.rng.IntN(len(checkNames))]
		e.fails(h, what, !e.bad[sickness{h.i, what}])
	case n < 12: // everywhere at once
		what, fail := checkNames[x.rng.IntN(len(checkNames))], x.chance(0.5)
		for _, o := range x.hosts {
			e.fails(o, what, fail)
		}
	case n < 14:
		e.fails(h, trackedDevice, !e.bad[sickness{h.i, trackedDevice}])
	case n < 19:
		x.drain(h)
	case n < 20: // nobody is to have it
		g := x.group()
		x.byHand(fsm.Command{Assign: &fsm.Assign{Group: g, Seen: st.Assignments[g].Epoch, Reason: fsm.ReasonAllFail}})
	case n < 22:
		e.retire(l, h)
	case n < 23:
		x.campaign(h.i, raftmodel.Forced)
	case n < 24:
		if h != l && e.retired == nil && l.mayChangeVoters() {
			if _, err := x.raft.Demote(l.i, h.i); err == nil {
				x.tell("n%d loses its vote", h.i+1)
				x.spread(l)
			}
		}
	default:
		if n, known := st.Nodes[h.node.ID]; known && n.Role == fsm.Member && !st.Drained[h.node.ID] {
			x.move(x.group(), h)
		}
	}
}

// apply puts in another document.
func (e *estate) apply(st *fsm.State) {
	doc := e.document()
	e.tell("apply, for revision %d", st.Document.Revision)
	e.tellDocument(doc)
	e.byHand(fsm.Command{Replace: &fsm.Replace{Seen: st.Document.Revision, Document: doc, By: "root"}})
}

// fails has a check, or the tracked device, of a host fail or be well again.
func (e *estate) fails(h *host, what string, bad bool) {
	e.bad[sickness{h.i, what}] = bad
	if what == trackedDevice {
		h.post(core.Link{Name: what, OK: !bad})
		return
	}
	if _, runs := e.told[h.process][what]; runs {
		h.post(core.Checked{Check: what, Pass: !bad, Why: "it is down"})
	}
}

// retire takes a node out of the cluster for good, once in a run. It goes on, or is
// taken away with what it had.
func (e *estate) retire(l, h *host) {
	st, log := e.state(l), e.raft.Voters(l.i)
	if _, known := st.Nodes[h.node.ID]; !known || e.retired != nil || h == e.spare || !log.LastCommitted {
		return
	}
	member := func(id fsm.InstanceID) bool { return id != h.node.ID && st.Nodes[id].Role == fsm.Member }
	if !slices.ContainsFunc(log.Last.Voters, member) || !e.byHand(fsm.Command{Retire: &fsm.Retire{Node: h.node.ID, By: "root"}}) {
		return
	}
	e.tell("n%d is removed", h.i+1)
	e.retired = h
	if len(log.Last.Voters) >= 3 && e.env.Weights.Member == 0 && e.chance(0.4) { // else another may lose its vote beside it
		e.after(e.jitter(0, 2*e.lease), func() { e.scrap(h) })
	}
}

// scrap has a host be gone for good.
func (e *estate) scrap(h *host) {
	if _, gone := e.last.Retired[h.node.ID]; !gone {
		return // it was not committed
	}
	set := e.raft.Voters(h.i).Last
	for _, o := range e.hosts { // one who does not know it has lost its vote would give none to who has one now
		if log := e.raft.Voters(o.i); set.Has(o.node.ID) && (log.Last.Index != set.Index || !log.LastCommitted) {
			return
		}
	}
	e.tell("n%d is scrapped", h.i+1)
	h.reboot()
	h.scrapped = true
}

// joinSpare has the spare host take the place of the one that was removed.
func (e *estate) joinSpare() {
	h, l := e.spare, e.leader()
	if h == nil {
		return
	}
	if l != nil && e.state(l).Formed() {
		if _, known := e.state(l).Nodes[h.node.ID]; known {
			return
		}
		if e.retired != nil && h.node.Name != e.retired.node.Name {
			if _, gone := e.state(l).Retired[e.retired.node.ID]; gone {
				h.node.Name = e.retired.node.Name
				h.restart(time.Millisecond)
			}
		}
		if h.up() {
			l.post(core.JoinAsked{Node: h.node})
		}
	}
	e.after(200*time.Millisecond, e.joinSpare)
}

// heal ends every fault, and undoes what keeps nodes from owning.
func (e *estate) heal() {
	e.healAll()
	e.healedAt = e.now
	clear(e.moves)
	clear(e.bad)
	for _, h := range e.hosts {
		for _, what := range append(slices.Clone(checkNames), trackedDevice) {
			e.fails(h, what, false)
		}
	}
	e.undrainAll()
	e.joinSpare()
	e.nudge()
}

// nudge has something be committed while a host is behind: in this model, and not in
// raftnode, a snapshot that came a second time leaves a state back until then.
func (e *estate) nudge() {
	l := e.leader()
	if l != nil && e.state(l).Formed() && slices.ContainsFunc(e.hosts, func(h *host) bool { return h.up() && e.state(h).Index < e.state(l).Index }) {
		e.byHand(fsm.Command{Drain: &fsm.Drain{Node: l.node.ID}})
	}
	e.after(500*time.Millisecond, e.nudge)
}

// undrainAll lets every node own again, those too whose draining is still on its way
// into the log.
func (e *estate) undrainAll() {
	e.undrain()
	if e.now-e.healedAt < 5*time.Second {
		e.after(500*time.Millisecond, e.undrainAll)
	}
}

// began has a process learn what its checks and devices say.
func (e *estate) began(h *host) {
	e.told[h.process] = map[string]fsm.Check{}
	h.post(core.Link{Name: trackedDevice, OK: !e.bad[sickness{h.i, trackedDevice}]})
}

// documentOf has the checks of a document run that a host has applied, as the daemon
// does: each says how it is once it has run.
func (e *estate) documentOf(h *host, doc fsm.Document) {
	p, runs := h.process, e.told[h.process]
	if runs == nil {
		return
	}
	next := map[string]bool{}
	for _, c := range doc.Checks {
		next[c.Name] = true
		if was, ok := runs[c.Name]; ok && was.Systemd == c.Systemd {
			continue
		}
		h.later(e.jitter(time.Millisecond, 300*time.Millisecond), func() {
			if h.process == p && p.alive {
				runs[c.Name] = c
				h.post(core.Checked{Check: c.Name, Pass: !e.bad[sickness{h.i, c.Name}], Why: "it is down"})
			}
		})
	}
	for name := range runs {
		if !next[name] {
			delete(runs, name)
		}
	}
}
