package core

import (
	"time"

	"github.com/quorate/quorate/election"
)

// A tenure says whether and until when this host may hold a group, as far as its own
// side is concerned: in a cluster the answers of the voters, an [election.Holder], and
// with election: vrrp always. Everything else about a group is the same in both.
type tenure interface {
	SetEpoch(epoch uint64)
	Confirm(receipt election.Instant, a election.Answer, g election.GroupAnswer) bool
	Deadline(now election.Instant, own election.VoterLog) (election.Instant, bool)
	NextStart(now election.Instant, own election.VoterLog) (election.Instant, bool)
	Released(at election.Instant)
}

// always is the tenure of a router of its own. Its deadline moves on each second; a
// process that stood still for so long begins anew.
type always struct{}

// alwaysFor is as long as the addresses stay on a host whose process has died.
const alwaysFor = 10 * time.Second

func (always) Deadline(now election.Instant, _ election.VoterLog) (election.Instant, bool) {
	return (now - now%election.Instant(time.Second)).Add(alwaysFor), true
}

func (always) NextStart(election.Instant, election.VoterLog) (election.Instant, bool) {
	return 0, false
}

func (always) SetEpoch(uint64)           {}
func (always) Released(election.Instant) {}
func (always) Confirm(election.Instant, election.Answer, election.GroupAnswer) bool {
	return false
}
