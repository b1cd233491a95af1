package raftnode

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// retryInterval is between attempts to give a follower its next entries.
const retryInterval = 50 * time.Millisecond

// A voteTransport is what the library's transports are, pre-votes included.
type voteTransport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// patient keeps the library from giving up on a follower that is away. After each
// failure to send entries it waits twice as long, in the end ten seconds, and
// nothing wakes it when the follower is back: a voter that restarted would be of no
// use for as long as it was gone. Here the sending itself lasts until it succeeds or
// the term is over. Heartbeats fail as they do: leadership rests on them.
type patient struct {
	voteTransport
	n *Node
}

// AppendEntries sends until the follower answers, is no longer a server of the
// cluster at that address, or this node no longer leads in the request's term. To send the same
// entries again is harmless.
func (p patient) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	beat := isHeartbeat(args)
	args.LeaderCommitIndex = shownCommit(args)
	for {
		err := p.voteTransport.AppendEntries(id, to, args, resp)
		if err != nil && beat {
			p.n.tellOnReturn(id, to, args.Term)
		}
		if err == nil || beat || !p.leads(args.Term) || !p.knows(id, to) {
			return err
		}
		retry := time.NewTimer(retryInterval)
		select {
		case <-retry.C:
		case <-p.n.stores.stopped:
			retry.Stop()
			return err
		}
	}
}

// AppendEntriesPipeline refuses, and the library then sends one message at a time, by
// AppendEntries. A pipeline can lose a follower for ever while heartbeats keep it
// looking healthy.
func (p patient) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// shownCommit is as much of the leader's commit index as the message shows to be the
// leader's: up to its last entry. A follower of the library's takes as committed
// whatever it has up to the index it is told, and what it has beyond the message can
// be another leader's, never committed. The leader may well say more: it reads the
// end of its log first and its commit index later, and one message has no more than
// 64 entries. The rest is said with the next message.
func shownCommit(a *raft.AppendEntriesRequest) uint64 {
	return min(a.LeaderCommitIndex, a.PrevLogEntry+uint64(len(a.Entries)))
}

func (p patient) leads(term uint64) bool {
	r := p.n.raft.Load()
	return r != nil && r.State() == raft.Leader && r.CurrentTerm() == term
}

// knows reports whether the server is still one of the cluster's, and at that address.
func (p patient) knows(id raft.ServerID, at raft.ServerAddress) bool {
	return slices.ContainsFunc(p.n.servers(), func(s raft.Server) bool { return s.ID == id && s.Address == at })
}

// isHeartbeat recognises a heartbeat as the library's own transport does.
func isHeartbeat(args *raft.AppendEntriesRequest) bool {
	return args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && len(args.Entries) == 0 && args.LeaderCommitIndex == 0
}
