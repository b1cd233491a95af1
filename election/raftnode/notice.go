package raftnode

import (
	"time"

	"github.com/hashicorp/raft"
)

const (
	noticeTries = 5
	noticePause = 5 * time.Millisecond
)

// tellCommitted tells every follower at once that an entry of this term is
// committed. The library leaves that to the next message that it happens to send,
// up to twice the commit timeout later, and a follower that was named an owner
// learns of it only then. To make the timeout short instead would have an idle
// leader send hundreds of messages a second.
//
// It is an ordinary message of Raft from the leader of the term, without entries: a
// follower that does not have the committed entry, or knows a newer term, refuses
// it, and one that has it may take everything up to it as committed.
func (n *Node) tellCommitted(index, term uint64) {
	self := raft.ServerAddress(n.cfg.Self.Address.String())
	for _, s := range n.servers() {
		if s.ID == n.id {
			continue
		}
		go func() { // ends with the transport's timeout
			request := raft.AppendEntriesRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.id), Addr: n.trans.EncodePeer(n.id, self)},
				Term:      term, PrevLogEntry: index, PrevLogTerm: term, LeaderCommitIndex: index,
			}
			for range noticeTries {
				var r raft.AppendEntriesResponse
				// A failure costs what it costs without: the follower learns later. So this
				// goes round the patient sending.
				err := n.trans.voteTransport.AppendEntries(s.ID, s.Address, &request, &r)
				if err != nil || r.Success || r.Term > term {
					return
				}
				time.Sleep(noticePause) // a majority had the entry before this one did
			}
		}()
	}
}
