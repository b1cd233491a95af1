package raftnode

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A notice is tried for some 300 ms, in which a follower with a slow disk may get the entry.
const (
	noticeTries = 60
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
//
// One message at a time is under way to a follower, and tells the newest commit: with
// hundreds at once, as when many groups move, each would else dial a connection of its own.
func (n *Node) tellCommitted(index, term uint64) {
	for _, s := range n.servers() {
		if s.ID == n.id {
			continue
		}
		v, _ := n.notices.LoadOrStore(s.ID, &notice{})
		if told := v.(*notice); told.want(index, term) {
			go n.notify(s, told) // ends with the transport's timeout
		}
	}
}

// A notice is the newest commit that a follower is to be told.
type notice struct {
	mu          sync.Mutex
	index, term uint64
	busy        bool // somebody is telling
}

// want takes note of a commit, and reports whether somebody has to begin telling.
func (x *notice) want(index, term uint64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if term < x.term || term == x.term && index <= x.index {
		return false
	}
	x.index, x.term = index, term
	begin := !x.busy
	x.busy = true
	return begin
}

func (x *notice) newest() (index, term uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.index, x.term
}

// over ends the telling, unless there is something newer than what was told last.
func (x *notice) over(index, term uint64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.busy = x.index != index || x.term != term
	return !x.busy
}

// notify tells a follower the newest commit until it takes it.
func (n *Node) notify(s raft.Server, x *notice) {
	for try := 0; ; try++ {
		index, term := x.newest()
		// A failure costs what it costs without: the follower learns later.
		r, err := n.tell(s.ID, s.Address, index, term)
		if err == nil && !r.Success && r.Term <= term && try < noticeTries-1 {
			time.Sleep(noticePause) // a majority had the entry before this one did
			continue
		}
		if x.over(index, term) {
			return
		}
		try = -1
	}
}

// tell tells one follower, once. It goes round the patient sending.
func (n *Node) tell(id raft.ServerID, to raft.ServerAddress, index, term uint64) (r raft.AppendEntriesResponse, err error) {
	self := raft.ServerAddress(n.cfg.Self.Address.String())
	err = n.trans.voteTransport.AppendEntries(id, to, &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.id), Addr: n.trans.EncodePeer(n.id, self)},
		Term:      term, PrevLogEntry: index, PrevLogTerm: term, LeaderCommitIndex: index,
	}, &r)
	return r, err
}

// tellOnReturn tells a follower that does not answer as soon as it does: one that has
// restarted takes nothing of its log for committed before, and holds nothing.
func (n *Node) tellOnReturn(id raft.ServerID, to raft.ServerAddress, term uint64) {
	if _, waits := n.away.LoadOrStore(id, true); waits {
		return
	}
	go func() { // ends with the term at the latest, or with the node
		defer n.away.Delete(id)
		for n.trans.leads(term) && n.trans.knows(id, to) {
			if st := n.State(); st.Term == term {
				if _, err := n.tell(id, to, st.Index, term); err == nil {
					return
				}
			}
			select {
			case <-time.After(retryInterval):
			case <-n.stores.stopped:
				return
			}
		}
	}()
}
