package raftnode

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm"
)

// orderly keeps heartbeats from changing the term behind the back of the library's
// main loop. The transport hands them over on the connection's goroutine, so that a
// slow disk does not look like a leader that is gone; there the library checks term
// and state and then sets both, without a lock. Meanwhile the main loop may append an
// entry, which gets a term that this node does not lead, or write a newer term, which
// is then overwritten by the older: logs can diverge (hashicorp/raft#695).
//
// So the short way is for heartbeats that change neither: of the present term, to a
// node that follows. The others go through the main loop, as all other requests do.
type orderly struct {
	voteTransport
	n    *Node
	rpcs chan raft.RPC
}

func newOrderly(t voteTransport, n *Node) orderly {
	return orderly{voteTransport: t, n: n, rpcs: make(chan raft.RPC)}
}

// Consumer is where the main loop takes requests from.
func (o orderly) Consumer() <-chan raft.RPC { return o.rpcs }

// forward brings requests to Consumer until ctx ends.
func (o orderly) forward(ctx context.Context) {
	from := o.voteTransport.Consumer()
	for {
		select {
		case <-ctx.Done():
			return
		case rpc := <-from:
			if s, ok := rpc.Command.(*raft.InstallSnapshotRequest); ok && o.passSnapshot(ctx, rpc, s) {
				continue
			}
			if !o.hand(ctx, rpc) {
				return
			}
		}
	}
}

// hand gives the main loop one request, and reports false when ctx has ended.
func (o orderly) hand(ctx context.Context, rpc raft.RPC) bool {
	select {
	case o.rpcs <- rpc:
		return true
	case <-ctx.Done():
		return false
	}
}

// SetHeartbeatHandler is called by the library with its own handler.
func (o orderly) SetHeartbeatHandler(short func(raft.RPC)) {
	o.voteTransport.SetHeartbeatHandler(func(rpc raft.RPC) {
		a, ok := rpc.Command.(*raft.AppendEntriesRequest)
		if r := o.n.raft.Load(); ok && r != nil {
			if r.State() == raft.Follower && r.CurrentTerm() == a.Term {
				short(rpc)
				return
			}
			o.n.heardOf(a)
		}
		o.queue(rpc)
	})
}

// errHeldUp is for the sender of a heartbeat, who tries again.
var errHeldUp = errors.New("the Raft loop of this node is held up, by its disk mostly")

// queue waits for the main loop as long as the sender waits for an answer.
func (o orderly) queue(rpc raft.RPC) {
	late := time.NewTimer(rpcTimeout)
	defer late.Stop()
	select {
	case o.rpcs <- rpc:
	case <-late.C:
		rpc.Respond(nil, errHeldUp)
	case <-o.n.stores.stopped:
		rpc.Respond(nil, ErrStopped)
	}
}

// heardOf takes note of who leads in a newer term. The main loop may be waiting for
// the disk of a leader that is none any more, and then this is how it becomes known.
func (n *Node) heardOf(a *raft.AppendEntriesRequest) {
	id, err := fsm.ParseInstanceID(string(a.ID))
	if err != nil {
		return
	}
	news := &LeaderInfo{ID: id, Address: n.trans.DecodePeer(a.Addr), Term: a.Term}
	for {
		was := n.heard.Load()
		if was != nil && was.Term >= news.Term || n.heard.CompareAndSwap(was, news) {
			return
		}
	}
}

// onward keeps the term from going back, should a heartbeat be overtaken by the main
// loop after all between the look at the term and its use.
type onward struct {
	raft.StableStore
	mu   sync.Mutex
	term uint64
}

// SetUint64 ends the goroutine that brings an older term than is stored. It is a
// connection's: the main loop never does, and the leader connects again.
func (o *onward) SetUint64(key []byte, value uint64) error {
	if string(key) == keyCurrentTerm && !o.advance(value) {
		runtime.Goexit()
	}
	return o.StableStore.SetUint64(key, value)
}

func (o *onward) advance(term uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if term < o.term {
		return false
	}
	o.term = term
	return true
}
