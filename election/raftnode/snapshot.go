package raftnode

import (
	"context"
	"io"

	"github.com/hashicorp/raft"
)

// passSnapshot answers for the main loop when the leader sends a snapshot of what is
// here already, and reports whether it did.
//
// The library installs every snapshot of its term. An old one takes the state back,
// and with it the members: a configuration that stands in the log behind the
// snapshot's end is forgotten until the next start. Should the node lead then, and
// change the members, two sets that follow each other differ by two voters, and their
// majorities need not meet. Old ones do come: a snapshot that was held up on one
// connection arrives after the next, and what followed it, came on another; or the
// answer was lost and it is sent again.
//
// Success is the true answer: the leader takes from it that the node has everything
// up to the snapshot's end, and goes on behind that. An error would have it send the
// same snapshot for ever.
func (o orderly) passSnapshot(ctx context.Context, rpc raft.RPC, s *raft.InstallSnapshotRequest) bool {
	if !o.follows(ctx, s) || !o.n.hasUpTo(s.LastLogIndex, s.LastLogTerm) {
		return false
	}
	go func() { // ends with the connection at the latest
		// A sender that is gone has no use for the answer, and the next request on a
		// connection stands behind the snapshot.
		_, _ = io.Copy(io.Discard, rpc.Reader)
		rpc.Respond(&raft.InstallSnapshotResponse{Term: s.Term, Success: true}, nil)
	}()
	return true
}

// follows tells the main loop what a snapshot says besides: who leads in which term.
// As a heartbeat that is, and the library does with the term what it always does: a
// newer one is taken up, with an older the answer is no, and then the snapshot is
// the library's to refuse. When the answer is there, all that came before is done,
// and nothing that changes the log can come until the snapshot is dealt with: all of
// it comes through forward. To look at the log earlier would be a guess.
func (o orderly) follows(ctx context.Context, s *raft.InstallSnapshotRequest) bool {
	answer := make(chan raft.RPCResponse, 1)
	beat := &raft.AppendEntriesRequest{RPCHeader: s.RPCHeader, Term: s.Term}
	if !o.hand(ctx, raft.RPC{Command: beat, RespChan: answer}) {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case a := <-answer:
		r, ok := a.Response.(*raft.AppendEntriesResponse)
		return ok && a.Error == nil && r.Success
	}
}

// hasUpTo reports whether the node has all that a leader's snapshot has which ends
// with this entry. What it has applied was committed, and so was what is in a
// snapshot; committed entries are the same everywhere, so the higher index has the
// lower one's entries. And where the log has the very entry, by index and term, it
// has those before it too, and they are applied when the leader says how far.
//
// That holds as long as Raft's logs do: a node whose log was lost does not come back
// as itself (DataDir).
func (n *Node) hasUpTo(index, term uint64) bool {
	r := n.raft.Load()
	if r == nil {
		return false
	}
	if index <= r.AppliedIndex() {
		return true
	}
	var e raft.Log
	err := n.stores.log.GetLog(index, &e)
	return err == nil && e.Term == term
}
