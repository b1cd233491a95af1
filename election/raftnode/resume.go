package raftnode

import (
	"context"

	"github.com/hashicorp/raft"
)

// The library's own keys for the vote that it gave last.
const (
	keyLastVoteTerm = "LastVoteTerm"
	keyLastVoteCand = "LastVoteCand"
)

// ledLast reports whether the node led the newest term that it knows of, when it was
// opened: it voted for itself, and entries of that term are in its log.
func (s *stores) ledLast(self raft.ServerAddress) bool {
	term, err := s.stable.GetUint64([]byte(keyLastVoteTerm))
	if err != nil { // it never voted, or the disk cannot say
		return false
	}
	candidate, err := s.stable.Get([]byte(keyLastVoteCand))
	return err == nil && raft.ServerAddress(candidate) == self && term == s.stable.term && term == s.atStart.LastTerm
}

// resume has a node stand for election at once that led when its process ended. Nobody
// leads then, and what its own log holds is known to be committed only when somebody does.
// The others' timeouts take up to a second.
func (n *Node) resume(ctx context.Context) {
	if err := n.Campaign(ctx); err != nil && ctx.Err() == nil {
		n.cfg.Log.Warn("cannot campaign for the place that this node had as the leader", "error", err)
	}
}
