package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/election/peerlink"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/try"
)

const (
	maxProbes  = 3               // nodes that ask at the same time
	seatTime   = time.Second     // for a node to say from where it would ask
	startTime  = 3 * time.Second // for those to be answered
	reportTime = 2 * time.Second // for the new owner to report its phases
)

// A trial is one fault on purpose, as the node that was asked for it runs it.
type trial struct {
	p      apiPort
	st     core.Status // before the fault
	report api.TryReport
	epoch  uint64
	vmac   bool
	by     string
	nonce  uint64
	macs   map[string]string // node by hardware address
	probes []*probing
}

// A probing is one node that asks.
type probing struct {
	member core.MemberStatus
	reply  tryReply
	err    error
}

// Try makes a fault on purpose, and measures what it does.
func (p apiPort) Try(ctx context.Context, req api.TryRequest, user string) (api.TryReport, error) {
	if p.n.shadow != nil {
		return api.TryReport{}, errShadow
	}
	if _, err := p.formed(); err != nil {
		return api.TryReport{}, err
	}
	t := &trial{p: p, by: p.by(user), nonce: max(rand.Uint64(), 1), macs: map[string]string{}}
	against, err := t.plan(ctx, req)
	if err != nil {
		return api.TryReport{}, err
	}
	if len(against) > 0 && !req.Force {
		return api.TryReport{}, fmt.Errorf("nothing was done, because the fault would not be survived, or not be measured:\n  %s\n--force does it all the same",
			strings.Join(against, "\n  "))
	}
	t.report.Against = against
	if req.DryRun {
		t.report.Hosts = []try.Host{}
		return t.report, nil
	}
	if err := t.start(ctx, req.Force); err != nil {
		return api.TryReport{}, fmt.Errorf("nothing was done: %w", err)
	}
	p.n.log.Warn("a fault on purpose", "fault", t.report.Fault, "group", req.Group, "owner", t.report.Owner, "by", t.by)
	if err := t.fault(ctx); err != nil {
		t.collect(ctx, true)
		return api.TryReport{}, err
	}
	t.collect(ctx, false)
	t.conclude(ctx)
	return t.report, nil
}

// ask asks a member, which may be this node.
func (t *trial) ask(ctx context.Context, m core.MemberStatus, q tryQuestion) (reply tryReply, err error) {
	if m.Name == t.st.Node {
		return t.p.n.try(ctx, q)
	}
	id, err := fsm.ParseInstanceID(m.Instance)
	if err != nil {
		return reply, err
	}
	part := t.p.n.part
	peer, ok := part.raft.State().Nodes[id]
	if !ok {
		return reply, fsm.ErrUnknown // removed between the two looks
	}
	b, err := json.Marshal(q)
	if err != nil {
		return reply, err
	}
	answer, err := part.link.Client().Try(ctx, peerlink.Peer{Address: peer.Address, Instance: id}, b)
	if err != nil {
		return reply, err
	}
	if err := json.Unmarshal(answer, &reply); err != nil {
		return reply, fmt.Errorf("understand its answer: %w", err)
	}
	return reply, nil
}

// plan says what will happen, and what speaks against it.
func (t *trial) plan(ctx context.Context, req api.TryRequest) (against []string, err error) {
	if t.st, err = t.p.Status(ctx); err != nil {
		return nil, err
	}
	v, ok := statusOf(t.st, req.Group)
	doc := t.p.n.document()
	def, known := doc.Group(req.Group)
	switch {
	case !ok || !known:
		return nil, fsm.UnknownGroup(doc, req.Group)
	case v.Owner == "":
		return nil, fmt.Errorf("nothing was done: nobody owns %s, so there is nothing to take away; quorate explain %[1]s says why", req.Group)
	case req.Seen != 0 && v.Epoch != req.Seen:
		return nil, fmt.Errorf("nothing was done: %s has changed hands meanwhile, and is on %s now: %w", req.Group, v.Owner, fsm.ErrStale)
	case req.Kill && v.Owner == t.st.Node:
		return nil, fmt.Errorf("nothing was done: %s is on this node, and the daemon that is to be killed cannot report: run it on another node", req.Group)
	}
	t.epoch, t.vmac, t.report.Epoch = v.Epoch, def.VMAC, v.Epoch
	t.report.TryPlan = api.TryPlan{Group: req.Group, Fault: "move", Address: def.Addresses[0].Addr().String(), Owner: v.Owner,
		Groups: []string{req.Group}, Probes: []string{}, ForMS: req.For().Milliseconds(),
		WorstMS: millis(config.WorstFailover(t.p.n.cfg.Lease, t.p.n.cfg.Grace()))}
	e, err := t.p.Explain(ctx, req.Group)
	if err != nil {
		return nil, err
	}
	if req.Kill {
		t.report.Fault, t.report.Groups = "kill", nil
		for _, other := range t.st.VIPs {
			if other.Owner == v.Owner {
				t.report.Groups = append(t.report.Groups, other.Name)
			}
		}
	} else {
		t.report.Groups = append(t.report.Groups, e.Together...)
	}
	against = append(ailments(t.st, v, req.Kill), tooShort(t.report.TryPlan)...)
	next, why := nextOwner(e, v.Owner, req.To)
	t.report.Next = next
	if why != "" {
		against = append(against, why)
	}
	if req.Kill {
		against = append(against, t.others(ctx, req.Group, v.Owner)...)
	}
	return append(against, t.choose(ctx)...), nil
}

// tooShort says that a fault would not be watched to its end: a daemon that was killed has
// its addresses answered by the kernel until its lease is over.
func tooShort(p api.TryPlan) []string {
	if need := p.WorstMS + millis(steadyFor); float64(p.ForMS) < need {
		return []string{fmt.Sprintf("a failover may take %g ms, and %g ms of watching are needed to see its end; it is for %d ms", p.WorstMS, need, p.ForMS)}
	}
	return nil
}

// ailments are what of the cluster's state speaks against a fault.
func ailments(st core.Status, v core.VIPStatus, kill bool) (out []string) {
	voters, left, lost := 0, 0, []string{}
	for _, m := range st.Members {
		if !m.Voter {
			continue
		}
		voters++
		switch {
		case kill && m.Name == v.Owner:
		case m.Alive && m.Ready:
			left++
		default:
			lost = append(lost, m.Name)
		}
	}
	if !st.Quorum {
		out = append(out, "this node hears no majority of the voters")
	}
	if need := voters/2 + 1; left < need {
		without := ""
		if kill {
			without = "without " + v.Owner + " "
		}
		text := fmt.Sprintf("%s%d of %d voters are there, and %d are needed", without, left, voters, need)
		if len(lost) > 0 {
			text += " (not heard, or not ready: " + strings.Join(lost, ", ") + ")"
		}
		out = append(out, text)
	}
	if v.WithoutProof {
		out = append(out, v.Name+" is held without proof, as no majority confirms it (on_quorum_loss: hold): another node may answer as well")
	} else if !v.Open && v.State != "active" {
		out = append(out, v.Owner+" owns "+v.Name+" and does not answer for it now")
	}
	return out
}

// nextOwner is who will take the group over, or why nobody may.
func nextOwner(e fsm.Explanation, owner, to string) (next, why string) {
	var not []string
	for _, c := range e.Candidates {
		switch {
		case c.Name == owner || to != "" && c.Name != to:
		case c.Fit:
			return c.Name, ""
		default:
			not = append(not, c.Name+" "+strings.Join(c.Why, ", "))
		}
	}
	switch {
	case to != "" && to == owner:
		return to, fmt.Sprintf("%s owns %s already", to, e.Group)
	case to != "" && not == nil:
		return to, fmt.Sprintf("%s is no member of this cluster that could hold %s", to, e.Group)
	case not == nil:
		return "", "no other node could take " + e.Group
	}
	return to, fmt.Sprintf("no other node could take %s: %s", e.Group, strings.Join(not, "; "))
}

// others says which other groups of a node that is to be killed nobody could take.
func (t *trial) others(ctx context.Context, group, owner string) (out []string) {
	for _, name := range t.report.Groups {
		if name == group {
			continue
		}
		e, err := t.p.Explain(ctx, name)
		if err != nil {
			out = append(out, err.Error())
		} else if _, why := nextOwner(e, owner, ""); why != "" {
			out = append(out, fmt.Sprintf("%s is on %s too: %s", name, owner, why))
		}
	}
	return out
}

// choose finds the nodes that ask: those on the group's LAN but the owner, and of these
// first who is not likely to become it.
func (t *trial) choose(ctx context.Context) (against []string) {
	ctx, cancel := context.WithTimeout(ctx, seatTime)
	defer cancel()
	all := make([]*probing, 0, len(t.st.Members))
	var asking sync.WaitGroup
	for _, m := range t.st.Members {
		if !m.Alive {
			continue
		}
		a := &probing{member: m}
		all = append(all, a)
		asking.Go(func() { a.reply, a.err = t.ask(ctx, m, tryQuestion{Seat: &trySeat{Group: t.report.Group}}) })
	}
	asking.Wait()
	var not []string
	for _, a := range all {
		switch {
		case a.err != nil:
			not = append(not, a.member.Name+": "+a.err.Error())
		case !t.vmac:
			t.macs[a.reply.MAC] = a.member.Name
		}
		if a.err == nil && a.member.Name != t.report.Owner {
			t.probes = append(t.probes, a)
		}
	}
	rank := func(a *probing) int {
		switch {
		case a.member.Name == t.report.Next:
			return 2
		case a.member.Role == fsm.Witness.String():
			return 0
		}
		return 1
	}
	slices.SortStableFunc(t.probes, func(a, b *probing) int { return rank(a) - rank(b) })
	t.probes = t.probes[:min(len(t.probes), maxProbes)]
	for _, a := range t.probes {
		t.report.Probes = append(t.report.Probes, a.member.Name)
	}
	if len(t.probes) == 0 || rank(t.probes[0]) == 2 {
		text := "no node is left on the LAN to ask who answers: the owner cannot, nor can who takes over"
		if not != nil {
			text += " (" + strings.Join(not, "; ") + ")"
		}
		against = append(against, text)
	}
	return against
}

// start returns when those that ask are answered.
func (t *trial) start(ctx context.Context, force bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	q := tryQuestion{Watch: &tryWatch{Nonce: t.nonce, Group: t.report.Group, Epoch: t.epoch, ForMS: t.report.ForMS}}
	var asking sync.WaitGroup
	for _, a := range t.probes {
		asking.Go(func() { _, a.err = t.ask(ctx, a.member, q) })
	}
	asking.Wait()
	var errs []error
	useful := false
	for _, a := range t.probes {
		if a.err != nil {
			errs = append(errs, fmt.Errorf("%s cannot ask: %w", a.member.Name, a.err))
		} else if a.member.Name != t.report.Next {
			useful = true
		}
	}
	if useful || force {
		return nil
	}
	t.collect(context.WithoutCancel(ctx), true)
	return errors.Join(errs...)
}

// fault makes it.
func (t *trial) fault(ctx context.Context) error {
	r := t.report
	if r.Fault == "move" {
		if err := t.p.Move(ctx, r.Group, r.Next); err != nil {
			return fmt.Errorf("move %s to %s: %w", r.Group, r.Next, err)
		}
		return nil
	}
	for _, m := range t.st.Members {
		if m.Name != r.Owner {
			continue
		}
		if _, err := t.ask(ctx, m, tryQuestion{Die: &tryDie{Group: r.Group, Epoch: t.epoch, By: t.by}}); err != nil {
			return fmt.Errorf("have the daemon of %s kill itself: %w", r.Owner, err)
		}
		return nil
	}
	return fsm.ErrUnknown
}

// collect waits for what the others have seen; with stop it has them end.
func (t *trial) collect(ctx context.Context, stop bool) {
	if stop {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, seatTime)
		defer cancel()
	}
	var asking sync.WaitGroup
	for _, a := range t.probes {
		if a.err == nil {
			asking.Go(func() {
				a.reply, a.err = t.ask(ctx, a.member, tryQuestion{Result: &tryResult{Nonce: t.nonce, Stop: stop}})
			})
		}
	}
	asking.Wait()
}

// conclude judges what was seen.
func (t *trial) conclude(ctx context.Context) {
	r := &t.report
	state := t.p.n.part.raft.State()
	now := state.Assignments[r.Group]
	r.NewOwner, r.Epoch = nameOf(state, now.Owner), now.Epoch
	r.Hosts = []try.Host{}
	two := 0.0
	for _, a := range t.probes {
		switch {
		case a.err != nil:
			r.Notes = append(r.Notes, fmt.Sprintf("%s could not measure: %v", a.member.Name, a.err))
			continue
		case a.reply.Seen == nil:
			r.Notes = append(r.Notes, a.member.Name+" says nothing of what it saw")
			continue
		}
		two = max(two, a.reply.Seen.TwoOwnersMS)
		if r.Probe == "" && !a.reply.Own && a.member.Name != r.NewOwner {
			r.Probe, r.Seen = a.member.Name, *a.reply.Seen
		}
	}
	r.TwoOwnersMS = two
	for i, h := range r.Hosts {
		r.Hosts[i].Node = t.macs[h.MAC]
	}
	r.Kept = r.Fault == "kill" && now.Epoch == t.epoch && r.AnsweredLast && t.back(ctx)
	if t.vmac {
		r.Notes = append(r.Notes, "the group has a virtual MAC, which every owner answers with: two at once would not be seen by it")
	}
	if now.Epoch != t.epoch {
		r.Event = t.event(ctx)
	}
	r.Failures = judgeTry(*r, t.epoch)
	r.Passed = len(r.Failures) == 0
}

// back reports whether the owner's daemon is heard.
func (t *trial) back(ctx context.Context) bool {
	st, err := t.p.Status(ctx)
	return err == nil && slices.ContainsFunc(st.Members, func(m core.MemberStatus) bool { return m.Name == t.report.Owner && m.Alive })
}

// event is the change of owner that the fault led to, when it has all its phases or that
// takes too long.
func (t *trial) event(ctx context.Context) *api.Event {
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	tick := time.NewTicker(watchPoll)
	defer tick.Stop()
	for {
		event, whole := t.changed()
		if whole {
			return event
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return event
		}
	}
}

// changed is the first change of the group's owner since the fault, if there is one yet,
// and whether the new owner has reported on it.
func (t *trial) changed() (event *api.Event, whole bool) {
	state := t.p.n.part.raft.State()
	for _, e := range state.EventsAfter(t.epoch) {
		if e.Kind == fsm.EventOwner && e.Group == t.report.Group && e.Index > t.epoch {
			shown := shownEvent(state, e)
			return &shown, e.Opened
		}
	}
	return nil, false
}

// judgeTry says what about a fault was not as it should be.
func judgeTry(r api.TryReport, before uint64) (failures []string) {
	add := func(format string, args ...any) { failures = append(failures, fmt.Sprintf(format, args...)) }
	switch {
	case r.Probe == "":
		add("nothing was measured: no node could tell that is not the new owner itself")
	case r.TwoOwnersMS > 0:
		add("two hosts answered for %s at once, for %g ms: find out at once which they are", r.Address, r.TwoOwnersMS)
	}
	switch {
	case r.Kept:
	case r.Epoch == before, r.NewOwner == "":
		add("nobody took over from %s", r.Owner)
	case r.Probe != "" && !r.AnsweredLast:
		add("%s took over, and nobody answers", r.NewOwner)
	}
	switch {
	case r.Probe == "":
	case r.OutageMS > r.WorstMS:
		add("%s was unanswered for %g ms, and for at least %g; the configuration allows for %g ms", r.Address, r.OutageMS, r.AtLeastMS, r.WorstMS)
	case r.ResolutionMS > r.WorstMS:
		add("%s asked nothing for %g ms, which is longer than an outage may be: try again when it is less busy", r.Probe, r.ResolutionMS)
	}
	return failures
}

// Try answers another node that asks for this one's part in a fault on purpose.
func (h handlers) Try(ctx context.Context, _ fsm.InstanceID, question json.RawMessage) (json.RawMessage, error) {
	if h.n.tried == nil {
		return nil, errors.New("this node takes no part in faults on purpose")
	}
	return h.n.tried(ctx, question)
}
