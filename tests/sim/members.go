package sim

import (
	"time"

	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/tests/sim/raftmodel"
)

// changeMembers has hosts ask to join, takes a voter's vote away, or does more of that
// at once than chance would.
func (x *Chaos) changeMembers(h *host) {
	l := x.leader()
	if l == nil || !x.state(l).Formed() {
		return
	}
	switch x.rng.IntN(5) {
	case 0, 1:
		x.rearrange(x.rollBack)
	case 2, 3:
		x.rearrange(x.joinInHaste)
	default:
		if x.join(l, h); h != l {
			x.takeVote(l, h)
		}
	}
}

// rearrange does something with an owner that does not lead, and with a leader that
// has been one for a moment.
func (x *Chaos) rearrange(do func(l, owner *host, group string)) {
	owner, group := x.anyOwner()
	if owner == nil {
		return
	}
	l := x.leader()
	if l == owner {
		for _, h := range x.voters(l) {
			if h != owner && x.campaign(h.i, raftmodel.Forced) {
				l = h
				break
			}
		}
	}
	x.meanwhile(x.jitter(20*time.Millisecond, 40*time.Millisecond), func() {
		if l != owner && l.up() && x.raft.Leads(l.i) {
			do(l, owner, group)
		}
	})
}

// join has a host that the cluster does not know ask its leader.
func (x *Chaos) join(l, h *host) {
	if _, known := x.state(l).Nodes[h.node.ID]; h.up() && !known {
		l.post(core.JoinAsked{Node: h.node})
	}
}

// takeVote has a leader take a vote away, as slowly as it changes voters itself. The
// node goes on and its leader gives it a vote again. It reports whether the entry was
// appended.
func (x *Chaos) takeVote(l, h *host) bool {
	if !l.mayChangeVoters() {
		return false
	}
	take := x.raft.Remove
	if x.chance(0.5) {
		take = x.raft.Demote
	}
	if _, err := take(l.i, h.i); err != nil {
		return false
	}
	x.tell("n%d takes n%d's vote away: %v", l.i+1, h.i+1, x.raft.Configuration(l.i))
	x.spread(l)
	return true
}

// voters are the hosts that vote, by a host's log.
func (x *Chaos) voters(of *host) []*host {
	var out []*host
	for _, h := range x.hosts {
		if x.raft.Configuration(of.i).Voters.Has(h.i) {
			out = append(out, h)
		}
	}
	return out
}

// rollBack: a leader appends a change to its own log only, and is cut off together
// with the owner. The others elect one who changes the voters otherwise, and names
// another owner (lease.md, V5).
func (x *Chaos) rollBack(l, owner *host, group string) {
	voters := x.voters(l)
	if len(voters) < 4 || !l.mayChangeVoters() {
		return
	}
	var rest []*host
	for _, h := range voters {
		if h != l && h != owner && h.up() {
			rest = append(rest, h)
		}
	}
	if len(rest) < 2 {
		return
	}
	next, gone := rest[0], rest[1]
	x.tell("ROLL BACK: n%d cut off with the owner n%d, n%d follows", l.i+1, owner.i+1, next.i+1)
	x.mend()
	x.cut(l.i)
	x.unblock(l.i, owner.i)
	x.unblock(owner.i, l.i)
	x.noRaft(l.i, owner.i)
	x.takeVote(l, gone)
	x.meanwhile(x.jitter(5*time.Millisecond, 20*time.Millisecond), func() { x.campaign(next.i, raftmodel.Forced) })
	x.meanwhile(x.jitter(25*time.Millisecond, 60*time.Millisecond), func() {
		x.split(l, owner)
		x.when(6*x.lease, func() bool { return next.up() && x.raft.Leads(next.i) && x.takeVote(next, l) }, func() {
			x.when(2*x.lease, func() bool { return next.up() && x.move(group, next) }, func() {})
		})
	})
}

// joinInHaste: two hosts join, and then the owner and one voter are cut off: with a
// majority of the first three, against a majority of the five.
func (x *Chaos) joinInHaste(l, owner *host, group string) {
	voters := x.voters(l)
	if len(x.hosts) < 5 || len(voters) != 3 || !x.raft.Configuration(l.i).Voters.Has(owner.i) {
		return
	}
	var with *host
	for _, h := range voters {
		if h != l && h != owner {
			with = h
		}
	}
	x.tell("JOIN IN HASTE: the owner n%d, with n%d, against n%d", owner.i+1, with.i+1, l.i+1)
	x.mend()
	has := func(n int) bool {
		return l.up() && x.raft.Leads(l.i) && len(x.voters(l)) >= n && x.raft.Voters(l.i).LastCommitted
	}
	split := func() { x.split(owner, with) }
	if x.chance(0.5) { // the owner does not see the sets change
		for _, h := range x.hosts {
			x.noRaft(owner.i, h.i)
			x.join(l, h)
		}
		x.when(12*x.lease, func() bool { return has(5) }, split)
		return
	}
	// The others know nothing of its lease, and it all takes less than that.
	for _, h := range x.hosts {
		if h != with {
			x.noData(owner.i, h.i)
		}
	}
	x.meanwhile(x.lease*5/4, func() {
		for _, h := range x.hosts {
			x.join(l, h)
		}
	})
	x.when(8*x.lease, func() bool { return has(4) }, split)
	x.when(12*x.lease, func() bool { return has(5) && x.move(group, l) }, func() {})
}

// split keeps two hosts from all others, and not from each other.
func (x *Chaos) split(a, b *host) {
	x.cut(a.i)
	x.cut(b.i)
	x.unblock(a.i, b.i)
	x.unblock(b.i, a.i)
}

// when does something as soon as something is so, unless it takes too long.
func (x *Chaos) when(patience time.Duration, so func() bool, do func()) {
	if patience <= 0 || x.healed {
		return
	}
	if so() {
		do()
		return
	}
	x.meanwhile(time.Millisecond, func() { x.when(patience-time.Millisecond, so, do) })
}
