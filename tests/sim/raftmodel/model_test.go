package raftmodel

import (
	"errors"
	"testing"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// join adds a started server.
func join(c *Cluster, id byte) int {
	s := c.AddServer(fsm.InstanceID{id})
	c.Start(s)
	return s
}

func TestRefusals(t *testing.T) {
	c := three(t)
	spare := join(c, 4)
	lead := fsm.Command{Lead: &fsm.Lead{Node: c.ID(0)}}
	enrol := fsm.Command{Enrol: &fsm.Enrol{}}
	do := func(err error, want error, what string) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	_, err := c.Append(1, lead)
	do(err, ErrNotLeader, "a follower appends")
	_, err = c.AddNonvoter(1, spare)
	do(err, ErrNotLeader, "a follower changes members")
	_, err = c.AddVoter(0, spare)
	do(err, ErrNoChange, "a voter that was no non-voter before")
	_, err = c.AddNonvoter(0, 1)
	do(err, ErrNoChange, "a non-voter that votes")
	do(c.Bootstrap(0, Configuration{Voters: 1}), ErrHasState, "bootstrap with state")
	c.Crash(spare)
	do(c.Bootstrap(spare, Configuration{Voters: 1}), ErrDown, "bootstrap when down")

	_, err = c.AddNonvoter(0, spare)
	do(err, nil, "a non-voter")
	_, err = c.AddVoter(0, spare)
	do(err, ErrUnstable, "the next change before the first is committed")
	if !c.Elect(1, Forced, func(from, to int) bool { return from != 0 && to != 0 }) {
		t.Fatal("server 1 was not elected")
	}
	_, err = c.Append(1, enrol)
	do(err, ErrNotOpened, "a command before Lead")
	_, err = c.Remove(1, 2)
	do(err, ErrNotOpened, "a change before Lead")
	_, err = c.Append(1, lead)
	do(err, nil, "Lead")
	_, err = c.Remove(1, 2)
	do(err, ErrUnstable, "a change before anything of the term is committed")
	c.spread(1)
	_, err = c.Remove(1, 2)
	do(err, nil, "a change after that")
}

// A leader that is removed leads until that is committed, without counting itself.
func TestRemovedLeader(t *testing.T) {
	c := three(t)
	at, err := c.Remove(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	c.Replicate(0, 1, 0, true)
	if c.CommitIndex(0) >= at.Index || !c.Leads(0) {
		t.Fatal("committed by the removed leader and one of two others")
	}
	if o := c.Outcome(0, at); o != Pending {
		t.Errorf("the outcome is %s, want pending", o)
	}
	c.Replicate(0, 2, 0, true)
	if c.CommitIndex(0) != at.Index || c.Leads(0) {
		t.Fatal("both others have it, and it is not committed, or the leader still leads")
	}
	if o := c.Outcome(0, at); o != Unknown {
		t.Errorf("the outcome is %s, want unknown", o)
	}
	if c.Elect(0, Forced, nil) {
		t.Error("who has no vote was elected")
	}
}

// A server that knows no configuration votes for anyone; one that knows a leader only
// when it is forced; one that knows the candidate to have no vote for nobody.
func TestWhoVotes(t *testing.T) {
	c := three(t)
	c.Wipe(1)
	c.Start(1)
	c.Crash(2)
	c.Lapse(0)
	if !c.Elect(0, Ordinary, nil) {
		t.Error("the empty server did not vote")
	}
	c = three(t)
	c.Crash(0)
	if c.Elect(1, Ordinary, nil) || c.Term(1) != c.Term(2) {
		t.Error("server 2 knows a leader, and voted or went to a new term")
	}
	c.Lapse(2)
	if !c.Elect(1, Ordinary, nil) || c.Elect(2, Ordinary, nil) {
		t.Error("without a leader server 1 can be elected, and then nobody")
	}
	c.Replicate(1, 2, 0, true)
	if !c.Elect(2, Forced, nil) {
		t.Error("server 2 was not elected when forced")
	}
}

// A vote whose answer is lost is given all the same.
func TestLostVote(t *testing.T) {
	c := three(t)
	c.Crash(0)
	if c.Elect(1, Forced, func(from, to int) bool { return to != 1 }) {
		t.Fatal("elected without an answer")
	}
	voter := c.servers[2]
	if term := c.Term(1); voter.votedTerm != term || voter.votedFor != 1 {
		t.Errorf("server 2 voted in term %d, want %d", voter.votedTerm, term)
	}
}

// Entries that were stored and not acknowledged are there after a crash, and the
// voter sets say so.
func TestStoredNotAcknowledged(t *testing.T) {
	c := three(t)
	spare := join(c, 4)
	var told []election.VoterLog
	c.OnVoters = func(s int, log election.VoterLog) {
		if s == 1 {
			told = append(told, log)
		}
	}
	for _, change := range []func(l, s int) (Position, error){c.AddNonvoter, c.AddVoter} {
		c.spread(0)
		if _, err := change(0, spare); err != nil {
			t.Fatal(err)
		}
	}
	if sent := c.Replicate(0, 1, 0, false); sent != Accepted {
		t.Fatalf("%s, want accepted", sent)
	}
	if c.CommitIndex(0) >= c.Last(0).Index {
		t.Fatal("committed without an answer")
	}
	c.Crash(1)
	s := c.Start(1)
	if got := s.Voters.Last; got.Index != c.Last(0).Index || len(got.Voters) != 4 || s.Voters.LastCommitted {
		t.Errorf("after the restart: %+v", s.Voters)
	}
	if len(told) != 1 || !told[0].Last.Has(c.ID(spare)) {
		t.Errorf("told %+v, want the set with four voters", told)
	}
}

// A late snapshot takes the state back until more is committed (lease.md, section 3,
// wording 6). If what comes next was compacted away, the server cannot go on.
func TestLateSnapshot(t *testing.T) {
	c := three(t)
	_, _ = c.Apply(0, -1)
	if !c.Compact(0) {
		t.Fatal("no snapshot")
	}
	old := c.Snapshot(0)
	more := func() {
		t.Helper()
		if _, err := c.Append(0, fsm.Command{Lead: &fsm.Lead{Node: c.ID(0)}}); err != nil {
			t.Fatal(err)
		}
		c.spread(0)
	}
	late := func() {
		t.Helper()
		sent, applied := c.InstallSnapshot(0, c.Term(0), 2, old, true)
		if n := len(applied); sent != Accepted || n == 0 || !applied[n-1].Restored || c.State(2) != old.State || c.Pending(2) != 0 {
			t.Fatalf("%s, %+v; the state is at %d, want %d", sent, applied, c.State(2).Index, old.State.Index)
		}
	}
	more()
	late()
	more()
	if applied, err := c.Apply(2, -1); err != nil || len(applied) != 2 || c.State(2).Index != c.Last(0).Index {
		t.Fatalf("applied %+v, %v; want the two entries after the snapshot", applied, err)
	}
	if !c.Compact(2) {
		t.Fatal("no snapshot")
	}
	late()
	more()
	if _, err := c.Apply(2, -1); !errors.Is(err, ErrGap) {
		t.Fatalf("error %v, want ErrGap", err)
	}
	c.Crash(2)
	if s := c.Start(2); len(s.Applied) != 1 || s.Applied[0].State.Index != c.Snapshot(2).Index || s.AtStart.LastCommand != c.Last(2).Index {
		t.Fatalf("started with %+v, want the newest snapshot", s)
	}
	more()
	if _, err := c.Apply(2, -1); err != nil || c.State(2).Index != c.Last(0).Index {
		t.Fatalf("after the restart: %v, at %d", err, c.State(2).Index)
	}
}
