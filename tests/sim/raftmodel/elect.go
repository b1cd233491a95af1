package raftmodel

// A Campaign is the way in which a server stands for election.
type Campaign uint8

// The ways.
const (
	_ Campaign = iota
	// Forced is the library's TimeoutNow, and raftnode's Node.Campaign: the votes are
	// asked for at once, and voters give them whoever leads.
	Forced
	// Ordinary is what follows a timeout: a pre-vote comes first, which changes
	// nothing, and a voter that knows a leader gives neither.
	Ordinary
)

// String is the way's word in stories.
func (w Campaign) String() string {
	if w == Forced {
		return "forced"
	}
	return "ordinary"
}

// A ballot is what a candidate asks with.
type ballot struct {
	from int
	term uint64
	last Position
	way  Campaign
}

// Elect has a server stand for election and reports whether it leads now. Of each
// voter in its newest configuration reach is asked for the way there, and for the
// way back if an answer is sent: a vote can be given and lost. A nil reach reaches
// everyone. A server that does not run, leads already, or has no vote of its own
// does not stand.
//
// A new leader appends the no-op of its term. Its first command must be Lead.
func (c *Cluster) Elect(s int, way Campaign, reach func(from, to int) bool) bool {
	sv := c.servers[s]
	if !sv.up || sv.role == leader || !sv.latest.Voters.Has(s) {
		return false
	}
	sv.role, sv.leader = candidate, nobody
	b := ballot{from: s, term: sv.term + 1, last: sv.last(), way: way}
	if way == Ordinary && !c.poll(b, reach, (*server).preVote) {
		return false
	}
	sv.term, sv.votedTerm, sv.votedFor = b.term, b.term, s
	if !c.poll(b, reach, (*server).vote) {
		return false
	}
	c.lead(s)
	return true
}

// poll asks everyone for a vote and reports whether a majority gave it. A candidate
// that did not win and hears of a newer term follows.
func (c *Cluster) poll(b ballot, reach func(from, to int) bool, ask func(*server, ballot) (bool, uint64)) bool {
	sv := c.servers[b.from]
	granted, newest := 1, b.term
	for set := sv.latest.Voters.Without(b.from); set != 0; set = set.rest() {
		v := set.first()
		voter := c.servers[v]
		if !voter.up || reach != nil && !reach(b.from, v) {
			continue
		}
		yes, term := ask(voter, b)
		if reach != nil && !reach(v, b.from) {
			continue
		}
		newest = max(newest, term)
		if yes {
			granted++
		}
	}
	if granted >= sv.latest.majority() {
		return true
	}
	if newest > b.term {
		sv.term = newest
		sv.follow()
	}
	return false
}

// preVote says whether the server would vote, and its term.
func (s *server) preVote(b ballot) (bool, uint64) {
	return !s.refuses(b) && b.term >= s.term && s.votesFor(b.from) && !newer(s.last(), b.last), s.term
}

// refuses reports whether the server does not even look at a ballot's term: the
// candidate is unknown to it, or it has a leader. A server without a configuration
// knows nobody and refuses nobody.
func (s *server) refuses(b ballot) bool {
	known := s.latest.all()
	return known != 0 && !known.Has(b.from) || b.way != Forced && s.leader != nobody && s.leader != b.from
}

func (s *server) votesFor(candidate int) bool {
	return s.latest.all() == 0 || s.latest.Voters.Has(candidate)
}

// vote gives a vote or not, and says the server's term before or, if that was raised,
// after.
func (s *server) vote(b ballot) (bool, uint64) {
	if s.refuses(b) || b.term < s.term {
		return false, s.term
	}
	if b.term > s.term {
		s.follow()
		s.term = b.term
	}
	if !s.votesFor(b.from) {
		return false, s.term
	}
	if s.votedTerm == b.term {
		return s.votedFor == b.from, s.term
	}
	if newer(s.last(), b.last) {
		return false, s.term
	}
	s.votedTerm, s.votedFor = b.term, b.from
	return true, s.term
}

// lead makes a server that won its election the leader.
func (c *Cluster) lead(s int) {
	sv := c.servers[s]
	sv.role, sv.leader = leader, s
	sv.replication = replication{first: sv.last().Index + 1}
	for set := sv.latest.all(); set != 0; set = set.rest() {
		sv.next[set.first()] = sv.first
	}
	c.truth.leads(s, sv)
	c.appendOwn(s, Entry{Kind: KindNoop})
}

// Lapse tells a server that its election timeout, or as a leader the library's own
// leader lease, has passed without a word: it knows no leader any more.
func (c *Cluster) Lapse(s int) {
	if sv := c.servers[s]; sv.up && sv.role != candidate {
		sv.follow()
	}
}
