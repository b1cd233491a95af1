package raftnode

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm"
)

// leadEnqueue bounds how long the first command of a term waits for the library's
// loop before leadership is looked at again.
const leadEnqueue = 250 * time.Millisecond

// forward empties a channel of the library, which would stall if it were full, and
// turns each value into a kick to look at what is.
func forward[T any](ctx context.Context, from <-chan T, kick chan<- struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-from:
			select {
			case kick <- struct{}{}:
			default: // one is waiting
			}
		}
	}
}

func aboutLeadership(o *raft.Observation) bool {
	switch o.Data.(type) {
	case raft.LeaderObservation, raft.RaftState:
		return true
	}
	return false
}

// watchLeader tells the sink who leads, whenever that changes. Notifications can
// be lost and can be late, so each only says that it is time to look.
func (n *Node) watchLeader(ctx context.Context, r *raft.Raft, kick chan struct{}) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		info := n.look(r)
		if info.Self && n.led.Load() != info.Term {
			n.openTerm(r, info.Term, kick)
		}
		if info != *n.leader.Load() {
			n.leader.Store(&info)
			n.cfg.Sink.Leader(info)
		}
		select {
		case <-ctx.Done():
			return
		case <-kick:
		case <-tick.C:
		}
	}
}

// look reads who leads and in which term, both of the same moment.
func (n *Node) look(r *raft.Raft) LeaderInfo {
	for {
		self := n.id
		term := r.CurrentTerm()
		state := r.State()
		addr, id := r.LeaderWithID()
		if r.CurrentTerm() != term {
			continue
		}
		if heard := n.heard.Load(); heard != nil && heard.Term > term {
			return *heard
		}
		info := LeaderInfo{Self: state == raft.Leader && id == self, Term: term}
		if id == self && !info.Self {
			return info // about to step down: nobody is known
		}
		if instance, err := fsm.ParseInstanceID(string(id)); err == nil {
			info.ID, info.Address = instance, addr
		}
		return info
	}
}

// openTerm proposes the first command of a term that this node leads. Propose lets
// nothing else pass before.
func (n *Node) openTerm(r *raft.Raft, term uint64, kick chan<- struct{}) {
	data, err := fsm.Command{Lead: &fsm.Lead{Node: n.cfg.Self.ID}, At: time.Now()}.Encode()
	if err != nil {
		n.stopWith(err)
		return
	}
	future := r.Apply(data, leadEnqueue) // returns when it is in line
	n.led.Store(term)
	n.opening.Go(func() {
		err := future.Error()
		if err == nil {
			n.tellCommitted(future.Index(), term)
		} else if n.led.CompareAndSwap(term, 0) {
			select {
			case kick <- struct{}{}: // look again: if still leading, try again
			default:
			}
		}
	})
}
