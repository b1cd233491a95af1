package core

import (
	"slices"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// What follows measures how long the parts of a change of owner take, for the history.
// It looks at what the rest of the core did in a step and has no say in anything.

// Said says that the first announcement of a group was handed to the kernel, since the
// group was opened.
type Said struct{ Group string }

func (Said) event() {}

// A measured is what this node has seen of an epoch of a group.
type measured struct {
	epoch uint64
	mine  bool // it names this node
	first bool // to open it for the first time is still to be reported

	named election.Instant // the epoch was applied
	may   election.Instant // the lease allowed it; zero: not yet, or there is nothing to report
	bound election.Instant // the addresses were on; zero: not yet

	held  bool             // it was held in this epoch when it was last looked at
	until election.Instant // the deadline that it had then
	shut  election.Instant // when it was let go; zero: it was not, or not in this life of the process
	why   string           // and why
}

// phases is what is to be reported.
type phases struct {
	proposed map[string]proposal // by group: what this leader proposed
	report   fsm.Report
	at       election.Instant // not before
	underWay bool
	tries    int
}

// A proposal is an assignment on its way into the log.
type proposal struct {
	seen uint64
	to   fsm.InstanceID
	why  fsm.Reason
	at   election.Instant
}

const (
	// reportAfter is how long after the first of them phases are reported: those of many
	// groups that move at once go in one entry, behind everything that they wait for.
	reportAfter = time.Second
	// reportTries is how often a report is proposed until it is dropped.
	reportTries = 5
	// reportMost bounds what one report says of each kind.
	reportMost = 128
)

// measure looks at every group after a step, and reports what is due.
func (c *Core) measure() {
	if c.alone {
		return
	}
	for _, g := range c.sorted() {
		if m := &g.measured; m.epoch != g.epoch || m.mine {
			c.measureGroup(g)
		}
	}
	c.measureProposals()
	c.report()
}

// byRestart is why a group is not held that an earlier life of the process had.
const byRestart = "daemon-restarted"

// measureGroup notes the first instants at which the group was seen in its phases, and
// when it was let go. To open it for the first time is for that life of the process to
// report that was named.
func (c *Core) measureGroup(g *group) {
	m := &g.measured
	if m.epoch != g.epoch {
		earlier := g.epoch <= c.cfg.AtStart.LastCommand
		*m = measured{epoch: g.epoch, mine: c.owns(g), named: c.now, held: g.open()}
		m.first = m.mine && !m.held && !earlier // held: renamed, with no gap
		if earlier {
			m.why = byRestart
		}
	}
	switch {
	case !m.mine:
	case !g.open():
		if m.held {
			m.held, m.shut, m.why = false, min(c.now, m.until), g.left
		}
		m.may, m.bound = 0, 0 // it has to be opened once more
	case m.held:
		m.until = g.deadline
	case g.phase == binding && m.may == 0 && !g.kept:
		m.may = c.now
	case g.phase == active:
		m.held, m.until = true, g.deadline
		if m.may != 0 { // else it was found held
			m.bound = c.now
		}
	}
}

// announcedFirst: the group is open, and those who are to know have been told.
func (c *Core) announcedFirst(ev Said) {
	g := c.groups[ev.Group]
	if g == nil || !g.measured.held || g.measured.bound == 0 || g.measured.epoch != g.epoch {
		return
	}
	m, r := &g.measured, &c.lead.phases.report
	c.beginReport()
	if m.first {
		r.Opened = append(r.Opened, fsm.Opened{
			Group: ev.Group, Epoch: g.epoch, Waited: m.may.Sub(m.named), Bound: m.bound.Sub(m.may), Announced: c.now.Sub(m.bound),
		})
	} else {
		again := fsm.Reopened{Group: ev.Group, Epoch: g.epoch, Why: m.why}
		if m.shut != 0 {
			again.Dark = c.now.Sub(m.shut)
		}
		r.Reopened = append(r.Reopened, again)
	}
	m.first, m.may, m.bound = false, 0, 0
}

// beginReport has what is to be reported wait for company.
func (c *Core) beginReport() {
	if p := &c.lead.phases; p.empty() {
		p.at = c.now.Add(reportAfter)
	}
}

// timeChange adds to a change of owner how long it took to come to it, and remembers when
// it was proposed. Where the old owner serves until it is told there is nothing to say.
func (c *Core) timeChange(a *fsm.Assign) {
	c.lead.phases.proposed[a.Group] = proposal{seen: a.Seen, to: a.Owner, why: a.Reason, at: c.now}
	was, o := c.state.Assignments[a.Group], c.lead.opening[a.Group]
	if was.Owner.IsZero() || o == nil || o.epoch != was.Epoch {
		return
	}
	from, judged := o.from, c.now
	switch a.Reason {
	case fsm.ReasonLost:
		from, judged = c.lostFrom(was.Owner, o)
	case fsm.ReasonUnfit, fsm.ReasonNotOpen, fsm.ReasonGone:
		from = max(from, c.letGoAt(a.Group, was.Owner, o))
	default:
		return
	}
	a.Detected, a.Elected = max(0, judged.Sub(from)), max(0, c.now.Sub(judged))
}

// lostFrom is when a lost owner was last known to hold its group, and when it could be
// judged lost. One that is silent was by the time that it had been so for a lease, even
// if this node came to lead, and to judge, later. One that is not heard to hear anybody
// was last known by its own word.
func (c *Core) lostFrom(owner fsm.InstanceID, o *opening) (from, judged election.Instant) {
	since, _ := c.hearing.Lost(c.now, owner, c.log.Last)
	heard, lease := c.hearing.LastHeard(c.now, owner, c.log.Last), c.hearing.LeaseOf(owner)
	if from = max(o.from, heard); c.now.Sub(from) >= lease {
		return from, min(since, from.Add(lease))
	}
	return o.from, since
}

// letGoAt is when the owner of a group let go of it by its own word; zero: it has not
// said so, or never had it open.
func (c *Core) letGoAt(group string, owner fsm.InstanceID, o *opening) election.Instant {
	if o.open == 0 {
		return 0
	}
	if owner == c.cfg.Self.ID {
		if g := c.groups[group]; g != nil && !g.open() {
			return g.since
		}
		return c.now
	}
	p := c.peers[owner]
	if p == nil {
		return 0
	}
	s, said := p.groups[group]
	switch since := s.at.Add(-s.Since); {
	case !said || s.Phase != election.PhaseIdle:
		return 0
	case since.Before(o.from): // when it was heard to be open: it still is, and is parting with it
		return s.at
	default:
		return since
	}
}

// measureProposals notes how long what this leader proposed took to be committed.
func (c *Core) measureProposals() {
	waiting := c.lead.phases.proposed
	if len(waiting) == 0 {
		return
	}
	for _, g := range c.sorted() {
		name := g.def.Name
		p, ok := waiting[name]
		a := c.state.Assignments[name]
		if !ok || a.Epoch == p.seen && c.leader.Self {
			continue
		}
		delete(waiting, name)
		if a.Owner == p.to && a.Reason == p.why && !a.Owner.IsZero() {
			c.beginReport()
			c.lead.phases.report.Committed = append(c.lead.phases.report.Committed, fsm.Committed{Group: name, Epoch: a.Epoch, Took: c.now.Sub(p.at)})
		}
	}
}

// report has what was measured put into the history. It is of no use to anything else,
// so it waits, and is dropped when it cannot be had.
func (c *Core) report() {
	p := &c.lead.phases
	if p.underWay || c.now.Before(p.at) || c.leader.ID.IsZero() || c.stop.asked || p.empty() {
		return
	}
	p.underWay = true
	c.do(Propose{Command: fsm.Command{Report: &fsm.Report{
		Opened: part(p.report.Opened), Reopened: part(p.report.Reopened), Committed: part(p.report.Committed),
	}}})
}

// reported: a report is in the history, or is not.
func (c *Core) reported(r *fsm.Report, err error) {
	p := &c.lead.phases
	p.underWay = false
	if p.tries++; err != nil && p.tries < reportTries {
		p.at = c.now.Add(reportAfter << p.tries)
		return
	}
	p.tries, p.at = 0, c.now
	p.report.Opened, p.report.Committed = p.report.Opened[len(r.Opened):], p.report.Committed[len(r.Committed):]
	p.report.Reopened = p.report.Reopened[len(r.Reopened):]
}

func (p *phases) empty() bool {
	return len(p.report.Opened)+len(p.report.Reopened)+len(p.report.Committed) == 0
}

// part is what one report says of a list.
func part[T any](all []T) []T { return slices.Clone(all[:min(len(all), reportMost)]) }
