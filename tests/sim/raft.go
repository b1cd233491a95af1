package sim

import (
	"context"
	"errors"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/tests/sim/raftmodel"
)

// The times of Raft, as election/raftnode has them.
const (
	raftHeartbeat = 100 * time.Millisecond
	raftTimeout   = 500 * time.Millisecond // and up to twice that
)

var (
	errNoLeader = errors.New("no leader is known")
	errNoAnswer = errors.New("no answer")
	errLost     = errors.New("the outcome is unknown: the leader lost its place")
)

// A raftSide is what a host's Raft keeps besides its log.
type raftSide struct {
	heard    time.Duration           // when a leader was heard, as a follower
	patience time.Duration           // until it stands for election
	acked    [maxHosts]time.Duration // as the leader: when a follower answered
	told     raftmodel.Leader
	toldOf   bool
	waiting  []proposal
	applying bool // an applying is under way
	commit   uint64
	// What MayChangeVoters asks of a leader, by its own clock.
	setCommitted, termCommitted election.Instant
	voters                      election.VoterLog
}

// A proposal is an entry whose outcome somebody waits for.
type proposal struct {
	at     raftmodel.Position
	config bool // over when committed; a command is over when applied
	done   func(error)
}

func (w *World) openRaft(ids []fsm.InstanceID) {
	w.raft = raftmodel.New(ids...)
	w.raft.Trailing = w.env.Trailing
	w.raft.OnVoters = func(s int, log election.VoterLog) {
		h := w.hosts[s]
		if log.LastCommitted && (!h.raftOf.voters.LastCommitted || log.Last.Index != h.raftOf.voters.Last.Index) {
			h.raftOf.setCommitted = h.clock()
		}
		h.raftOf.voters = log
		h.post(core.Voters{Log: log})
	}
}

// startRaft opens the log of a process.
func (p *process) startRaft(left []core.Leftover) raftmodel.Started {
	p.raftOf = raftSide{heard: p.w.now, patience: p.host.patience()}
	s := p.w.raft.Start(p.i)
	p.raftOf.voters = s.Voters
	p.later(p.w.jitter(0, raftHeartbeat), p.tickRaft)
	if p.led && core.NotMissed(left, p.clock()) { // who led asks for its place
		p.w.campaignSoon(p.host)
	}
	p.later(p.w.jitter(5*time.Millisecond, 50*time.Millisecond), func() { // who leads is trying to reach it
		if l := p.w.leader(); l != nil && l != p.host {
			p.w.replicateSoon(l, p.host, false)
		}
	})
	return s
}

// patience is how long a host waits for a leader, this time.
func (h *host) patience() time.Duration {
	if h.w.env.Even { // still, not all at once
		return raftTimeout + raftTimeout*time.Duration(h.i)/maxHosts
	}
	return h.w.jitter(raftTimeout, 2*raftTimeout)
}

// closeRaft ends it, with the process.
func (w *World) closeRaft(h *host) {
	h.led = w.raft.Up(h.i) && w.raft.Leads(h.i)
	if w.raft.Up(h.i) {
		w.raft.Crash(h.i)
	}
	for _, p := range h.raftOf.waiting {
		p.done(errNoAnswer)
	}
	h.raftOf.waiting = nil
}

// raftThawed: what is committed can be applied again.
func (w *World) raftThawed(h *host) {
	if h.agent != nil {
		h.tellLeader()
		w.applySoon(h)
	}
}

// tickRaft sends the leader's heartbeats, and has a follower stand that hears none.
func (p *process) tickRaft() {
	if !p.alive {
		return
	}
	if !p.frozen && p.agent != nil {
		p.raftDuties()
	}
	p.w.after(p.w.jitter(raftHeartbeat*9/10, raftHeartbeat*11/10), p.tickRaft)
}

func (h *host) raftDuties() {
	w := h.w
	switch {
	case w.raft.Leads(h.i):
		if !h.hearsMajority() {
			w.raft.Lapse(h.i)
			h.raftOf.heard = w.now
			h.settle()
			h.tellLeader()
			return
		}
		for _, o := range w.hosts {
			if o != h {
				w.replicateSoon(h, o, false)
			}
		}
		w.maybeCompact(h)
	case w.now-h.raftOf.heard > h.raftOf.patience:
		w.raft.Lapse(h.i)
		h.tellLeader()
		w.campaign(h.i, raftmodel.Ordinary)
		h.raftOf.heard, h.raftOf.patience = w.now, h.patience()
	default:
		w.maybeCompact(h)
	}
}

func (h *host) hearsMajority() bool {
	n, voters := 0, h.w.raft.Configuration(h.i).Voters
	for i := range h.w.hosts {
		if voters.Has(i) && (i == h.i || h.w.now-h.raftOf.acked[i] < raftTimeout) {
			n++
		}
	}
	return n > voters.Len()/2
}

func (w *World) maybeCompact(h *host) {
	if w.chance(w.env.Snapshots) && w.raft.Compact(h.i) {
		w.tell("n%d snapshot", h.i+1)
	}
}

// responds reports whether a host's Raft answers another's.
func (w *World) responds(from, to int) bool {
	return w.connects(from, to) && w.hosts[to].up() && w.hosts[from].up()
}

// campaignSoon is a campaign by request, with the time that one takes.
func (w *World) campaignSoon(h *host) {
	h.later(w.jitter(8*time.Millisecond, 20*time.Millisecond), func() { w.campaign(h.i, raftmodel.Forced) })
}

// campaign has a host stand for election.
func (w *World) campaign(i int, how raftmodel.Campaign) bool {
	h := w.hosts[i]
	if !h.up() || w.raft.Leads(i) {
		return false
	}
	won := w.raft.Elect(i, how, w.responds)
	for _, o := range w.hosts { // those who voted have a new term
		if o.agent != nil {
			o.settle()
			o.tellLeader()
		}
	}
	if !won {
		return false
	}
	w.tell("n%d leads term %d", i+1, w.raft.Term(i))
	for o := range h.raftOf.acked {
		h.raftOf.acked[o] = w.now
	}
	h.raftOf.termCommitted = 0
	h.tellLeader()
	_, _ = w.append(i, fsm.Command{Lead: &fsm.Lead{Node: h.node.ID}}) // it leads, so it can
	return true
}

// tellLeader tells the agent whom Raft takes for the leader, if that changed.
func (h *host) tellLeader() {
	if h.agent == nil {
		return
	}
	l := h.w.raft.Leader(h.i)
	if h.raftOf.toldOf && l == h.raftOf.told {
		return
	}
	h.raftOf.told, h.raftOf.toldOf = l, true
	ev := core.Leader{Self: l.Self, Term: l.Term}
	if l.Server >= 0 {
		ev.ID = h.w.raft.ID(l.Server)
	}
	h.post(ev)
}

// append has a leader take a command into its log and send it.
func (w *World) append(l int, cmd fsm.Command) (raftmodel.Position, error) {
	pos, err := w.raft.Append(l, cmd)
	if err == nil {
		w.spread(w.hosts[l])
	}
	return pos, err
}

// spread sends what the leader's log has to everybody.
func (w *World) spread(l *host) {
	for _, o := range w.hosts {
		if o != l {
			w.replicateSoon(l, o, true)
		}
	}
	w.advance(l)
}

// replicateSoon has an exchange take place after the time that it takes.
func (w *World) replicateSoon(l, f *host, entries bool) {
	delay := w.jitter(200*time.Microsecond, time.Millisecond)
	if entries {
		delay += w.diskTime()
	}
	p := l.process
	w.after(delay, func() {
		if p.alive {
			w.replicate(l, f)
		}
	})
}

// replicate is one exchange between a leader and a follower.
func (w *World) replicate(l, f *host) {
	if !w.responds(l.i, f.i) || !w.raft.Leads(l.i) {
		return
	}
	upTo := uint64(0)
	if w.chance(w.env.Lag) {
		upTo = w.raft.CommitIndex(f.i) + uint64(w.rng.IntN(4))
	}
	answered := w.connects(f.i, l.i)
	term := w.raft.Term(l.i)
	sent := w.raft.Replicate(l.i, f.i, upTo, answered)
	switch sent {
	case raftmodel.Accepted:
		f.raftOf.heard = w.now
	case raftmodel.NeedsSnapshot:
		f.raftOf.heard = w.now
		w.sendSnapshot(l, f, term)
	}
	if answered && (sent == raftmodel.Accepted || sent == raftmodel.NeedsSnapshot) {
		l.raftOf.acked[f.i] = w.now
	}
	f.settle()
	f.tellLeader()
	l.tellLeader()
	w.applySoon(f)
	w.advance(l)
}

// advance has a leader make use of what was committed: it applies it, and tells the
// others at once.
func (w *World) advance(l *host) {
	l.settle()
	commit := w.raft.CommitIndex(l.i)
	if commit == l.raftOf.commit || !w.raft.Leads(l.i) {
		return
	}
	l.raftOf.commit = commit
	w.applySoon(l)
	for _, o := range w.hosts {
		if o != l {
			w.replicateSoon(l, o, false)
		}
	}
}

// sendSnapshot brings a follower up that the log alone cannot. The message can come
// a second time, later.
func (w *World) sendSnapshot(l, f *host, term uint64) {
	snap := w.raft.Snapshot(l.i)
	if snap == nil {
		return
	}
	install := func() {
		if !w.responds(l.i, f.i) {
			return
		}
		_, applied := w.raft.InstallSnapshot(l.i, term, f.i, snap, w.connects(f.i, l.i))
		if len(applied) > 0 {
			w.tell("n%d takes n%d's snapshot, index %d", f.i+1, l.i+1, applied[0].State.Index)
		}
		w.applied(f, applied)
		f.tellLeader()
		l.tellLeader()
	}
	w.after(w.jitter(time.Millisecond, 10*time.Millisecond), install)
	if w.chance(w.env.StaleSnapshots) {
		w.after(w.jitter(10*time.Millisecond, 1500*time.Millisecond), install)
	}
}

// applySoon has a server apply what it knows to be committed.
func (w *World) applySoon(h *host) {
	if h.raftOf.applying || !h.up() || w.raft.Pending(h.i) == 0 {
		return
	}
	h.raftOf.applying = true
	delay := w.jitter(20*time.Microsecond, 300*time.Microsecond)
	if w.chance(w.env.Lag) {
		delay = w.jitter(0, 400*time.Millisecond)
	}
	h.later(delay, func() {
		h.raftOf.applying = false
		if !h.up() {
			return
		}
		n := -1
		if w.chance(w.env.Lag) {
			n = 1
		}
		all, err := w.raft.Apply(h.i, n)
		w.applied(h, all)
		if err != nil { // the library panics there
			w.tell("n%d falls over its log: %v", h.i+1, err)
			h.restart(10 * time.Millisecond)
			return
		}
		h.settle()
		w.applySoon(h)
	})
}

// applied hands the agent what its state machine did, and answers the proposers.
func (w *World) applied(h *host, all []raftmodel.Applied) {
	for _, a := range all {
		w.checkEpochs(h, a)
		if w.estate != nil {
			w.estate.applied(h, a)
		}
		if h.raftOf.termCommitted == 0 && w.raft.Leads(h.i) && a.State.Term == w.raft.Term(h.i) {
			h.raftOf.termCommitted = h.clock()
		}
		h.post(core.Applied{State: a.State})
		for i, p := range h.raftOf.waiting {
			if !p.config && p.at == a.Position {
				h.raftOf.waiting = append(h.raftOf.waiting[:i:i], h.raftOf.waiting[i+1:]...)
				p.done(a.Err)
				break
			}
		}
	}
}

// settle answers those who wait for entries that are decided.
func (h *host) settle() {
	kept := h.raftOf.waiting[:0]
	for _, p := range h.raftOf.waiting {
		switch h.w.raft.Outcome(h.i, p.at) {
		case raftmodel.Unknown:
			p.done(errLost)
		case raftmodel.Done:
			if p.config {
				p.done(nil)
				continue
			}
			kept = append(kept, p)
		default:
			kept = append(kept, p)
		}
	}
	h.raftOf.waiting = kept
}

// propose takes a command to the leader that the host knows, and its answer back.
func (w *World) propose(from *host, cmd fsm.Command, done func(error)) {
	l := w.raft.Leader(from.i)
	if l.Server < 0 {
		done(errNoLeader)
		return
	}
	lead := w.hosts[l.Server]
	there, back := time.Duration(0), time.Duration(0)
	if lead != from {
		there, back = w.jitter(100*time.Microsecond, time.Millisecond), w.jitter(100*time.Microsecond, time.Millisecond)
	}
	w.after(there, func() {
		if !w.responds(from.i, lead.i) {
			w.after(50*time.Millisecond, func() { done(errNoAnswer) })
			return
		}
		pos, err := w.append(lead.i, cmd)
		if err != nil {
			w.after(back, func() { done(err) })
			return
		}
		lead.raftOf.waiting = append(lead.raftOf.waiting, proposal{at: pos, done: func(err error) {
			w.after(back, func() {
				if w.connects(lead.i, from.i) {
					done(err)
				}
			})
		}})
		w.advance(lead)
	})
}

// change makes a change of the members on this node, which leads.
func (p raftPort) change(ctx context.Context, node fsm.Node, do func(l, s int) (raftmodel.Position, error)) error {
	return p.await(ctx, func(done func(error)) {
		other := p.w.byID(node.ID)
		if other == nil {
			done(errNoAnswer)
			return
		}
		pos, err := do(p.i, other.i)
		if errors.Is(err, raftmodel.ErrNoChange) {
			err = nil
			done(nil)
			return
		}
		if err != nil {
			done(err)
			return
		}
		p.w.tell("n%d changes the members: %v", p.i+1, p.w.raft.Configuration(p.i))
		p.raftOf.waiting = append(p.raftOf.waiting, proposal{at: pos, config: true, done: done})
		p.w.spread(p.host)
	})
}

func (w *World) byID(id fsm.InstanceID) *host {
	for _, h := range w.hosts {
		if h.node.ID == id {
			return h
		}
	}
	return nil
}
