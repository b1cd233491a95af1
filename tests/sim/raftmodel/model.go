// Package raftmodel is an abstract Raft log for the simulator: terms, votes, logs,
// configurations, snapshots and commits of a handful of servers, without clock,
// goroutines, network or randomness of its own.
//
// Every operation is one exchange between two servers, or one step of one server,
// and the caller chooses which comes next and what of it is lost: the model can be
// driven into any order of events that Raft allows, and is a million times faster
// than the library. Where hashicorp/raft has ways of its own that the leases could
// feel, the model has them too; comments name them. It checks itself: see Violation.
package raftmodel

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// MaxServers is how many servers a Cluster can have, wiped and replaced ones included.
const MaxServers = 16

// A Set is a set of servers by number.
type Set uint16

// SetOf returns the set of the given servers.
func SetOf(servers ...int) Set {
	var s Set
	for _, i := range servers {
		s = s.With(i)
	}
	return s
}

// Has reports whether server i is in the set.
func (s Set) Has(i int) bool { return s>>i&1 != 0 }

// With returns the set and server i.
func (s Set) With(i int) Set { return s | 1<<i }

// Without returns the set less server i.
func (s Set) Without(i int) Set { return s &^ (1 << i) }

// Len is how many servers are in the set.
func (s Set) Len() int { return bits.OnesCount16(uint16(s)) }

// first is the lowest server of a set that is not empty.
func (s Set) first() int { return bits.TrailingZeros16(uint16(s)) }

// rest is the set without its lowest server.
func (s Set) rest() Set { return s & (s - 1) }

// A Configuration is who gets the log. No server is in both sets.
type Configuration struct{ Voters, Nonvoters Set }

func (c Configuration) all() Set { return c.Voters | c.Nonvoters }

// majority is how many voters decide.
func (c Configuration) majority() int { return c.Voters.Len()/2 + 1 }

// A Kind says what an Entry is for.
type Kind uint8

// The kinds of entries. All take an index; only commands change the state machine.
const (
	_                 Kind = iota
	KindNoop               // the first of a term
	KindCommand            // for fsm.State.Apply
	KindConfiguration      // who gets the log from here on
)

// String is the kind's word in stories.
func (k Kind) String() string {
	switch k {
	case KindNoop:
		return "no-op"
	case KindCommand:
		return "command"
	case KindConfiguration:
		return "configuration"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// A Position is where an entry stands in a log. In a correct Raft it names the entry.
type Position struct{ Term, Index uint64 }

// An Entry is one entry of a log.
type Entry struct {
	Position
	Kind          Kind
	Command       *fsm.Command  // of KindCommand
	Configuration Configuration // of KindConfiguration
}

// A Snapshot is what stands for all entries up to its position.
type Snapshot struct {
	Position
	State         *fsm.State
	Configuration Configuration
	ConfiguredAt  uint64 // index of the entry that made the configuration
}

// A Cluster is a number of servers and what is true of them. It belongs to one
// goroutine. Servers are named by their number, from 0.
type Cluster struct {
	// Trailing is how many entries a server keeps behind its snapshot, for followers
	// that are a little late.
	Trailing uint64
	// LostConfigurations has a snapshot that comes late take the configuration back, as
	// it does in the library: then this is no Raft any more. See InstallSnapshot.
	LostConfigurations bool
	// OnVoters, if set, is told within any operation when a server's own view of the
	// voter sets changed. It must not call the Cluster.
	OnVoters func(server int, log election.VoterLog)

	servers []*server
	empty   *fsm.State
	voters  map[Set][]fsm.InstanceID // sorted, as election wants them
	steps   []step                   // by index: the last application of an entry there
	out     []Applied
	truth   truth
}

// A step remembers an application, so that servers with the same log share states.
type step struct {
	from    *fsm.State
	command *fsm.Command
	at      Position
	to      *fsm.State
	err     error
}

type role uint8

const (
	_ role = iota
	follower
	candidate
	leader
)

const nobody = -1

// A server is one instance: what is on its disk, and what its process knows.
type server struct {
	id fsm.InstanceID

	// On the disk.
	term      uint64
	votedTerm uint64
	votedFor  int
	log       []Entry     // without gaps
	snapshots []*Snapshot // newest first, at most snapshotsKept

	// In the process.
	up          bool
	role        role
	leader      int // whom it takes for the leader
	latest      configured
	committed   configured // the latest that is known to be committed
	commit      uint64
	handed      uint64 // entries up to here were handed to the state machine
	applied     uint64 // up to here it has taken them
	state       *fsm.State
	seen        Position // the last entry that the state machine saw: no no-op
	trail       election.VoterTrail
	replication // while it leads
}

// configured is a configuration and the index of its entry.
type configured struct {
	Configuration
	index uint64
}

// replication is what a leader keeps.
type replication struct {
	first  uint64 // the first index of its term
	opened bool   // it has appended the Lead of its term
	next   [MaxServers]uint64
	match  [MaxServers]uint64 // voters only
}

const snapshotsKept = 2

// New returns a cluster of stopped servers with empty disks, one for each id.
func New(ids ...fsm.InstanceID) *Cluster {
	c := &Cluster{empty: &fsm.State{}, voters: map[Set][]fsm.InstanceID{}}
	for _, id := range ids {
		c.AddServer(id)
	}
	return c
}

// AddServer adds a stopped server with an empty disk and returns its number. A host
// that comes back without its disk is a new server.
func (c *Cluster) AddServer(id fsm.InstanceID) int {
	if len(c.servers) == MaxServers {
		panic(fmt.Sprintf("raftmodel: more than %d servers in one cluster", MaxServers))
	}
	s := &server{id: id}
	s.wipe()
	c.servers = append(c.servers, s)
	return len(c.servers) - 1
}

// Len is how many servers there are.
func (c *Cluster) Len() int { return len(c.servers) }

// ID is the instance id of a server.
func (c *Cluster) ID(s int) fsm.InstanceID { return c.servers[s].id }

// Up reports whether a server's process runs.
func (c *Cluster) Up(s int) bool { return c.servers[s].up }

// Term is a server's current term.
func (c *Cluster) Term(s int) uint64 { return c.servers[s].term }

// Last is the position of the last entry of a server's log or snapshot.
func (c *Cluster) Last(s int) Position { return c.servers[s].last() }

// CommitIndex is up to where a server knows its log to be committed; 0 after a start.
func (c *Cluster) CommitIndex(s int) uint64 { return c.servers[s].commit }

// Pending is how many entries a server knows to be committed and has not applied.
func (c *Cluster) Pending(s int) int {
	if sv := c.servers[s]; sv.handed > sv.applied {
		return int(sv.handed - sv.applied)
	}
	return 0
}

// State is a server's state as applied. It is shared with other servers: read-only.
func (c *Cluster) State(s int) *fsm.State { return c.servers[s].state }

// Configuration is the newest in a server's log, committed or not.
func (c *Cluster) Configuration(s int) Configuration { return c.servers[s].latest.Configuration }

// Voters is what a server's log says about who votes (lease.md, V5).
func (c *Cluster) Voters(s int) election.VoterLog { return c.servers[s].trail.View() }

// Snapshot is the newest snapshot on a server's disk, nil if there is none.
func (c *Cluster) Snapshot(s int) *Snapshot {
	if l := c.servers[s].snapshots; len(l) > 0 {
		return l[0]
	}
	return nil
}

// Log is a server's log behind its compaction. It is valid until the next operation
// and must not be changed.
func (c *Cluster) Log(s int) []Entry { return c.servers[s].log }

// Leader is whom a server takes for the leader.
type Leader struct {
	Server int // -1: nobody
	Self   bool
	Term   uint64
}

// Leader returns whom a server takes for the leader, and its term.
func (c *Cluster) Leader(s int) Leader {
	sv := c.servers[s]
	return Leader{Server: sv.leader, Self: sv.role == leader, Term: sv.term}
}

// Leads reports whether a server thinks that it leads. More than one can, in
// different terms.
func (c *Cluster) Leads(s int) bool { return c.servers[s].role == leader }

// last is the position of the last entry that the server holds in any form.
func (s *server) last() Position {
	top := s.top()
	if n := len(s.log); n > 0 && s.log[n-1].Index >= top.Index {
		return s.log[n-1].Position
	}
	return top
}

// top is where the newest snapshot on the disk ends.
func (s *server) top() Position {
	if len(s.snapshots) == 0 {
		return Position{}
	}
	return s.snapshots[0].Position
}

// at returns the entry at an index, nil if the log does not hold it.
func (s *server) at(index uint64) *Entry {
	if len(s.log) == 0 || index < s.log[0].Index || index > s.log[len(s.log)-1].Index {
		return nil
	}
	return &s.log[index-s.log[0].Index]
}

// follow makes the server a follower that knows no leader.
func (s *server) follow() { s.role, s.leader = follower, nobody }

// wipe empties the disk and stops the process.
func (s *server) wipe() {
	*s = server{id: s.id, votedFor: nobody, leader: nobody}
}

// sorted returns the instances of a set in the order that election wants.
func (c *Cluster) sorted(set Set) []fsm.InstanceID {
	if v, ok := c.voters[set]; ok {
		return v
	}
	var v []fsm.InstanceID
	for r := set; r != 0; r = r.rest() {
		v = append(v, c.servers[r.first()].id)
	}
	slices.SortFunc(v, func(a, b fsm.InstanceID) int { return slices.Compare(a[:], b[:]) })
	c.voters[set] = v
	return v
}

func (c *Cluster) voterSet(e *Entry) election.VoterSet {
	return election.VoterSet{Term: e.Term, Index: e.Index, Voters: c.sorted(e.Configuration.Voters)}
}

// viewChanged tells that a server's view of the voter sets changed, if it did.
func (c *Cluster) viewChanged(s int, changed bool) {
	if changed && c.OnVoters != nil {
		c.OnVoters(s, c.servers[s].trail.View())
	}
}
