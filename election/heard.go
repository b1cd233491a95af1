package election

import (
	"slices"

	"github.com/quorate/quorate/fsm"
)

// LastHeard is when a majority of voters last heard the node, as far as this node knows:
// by what it heard itself and what the others said last. Zero: there was no such instant.
// The node hears itself at all times.
func (h *Hearing) LastHeard(now Instant, id fsm.InstanceID, voters VoterSet) Instant {
	var at []Instant
	for _, v := range voters.Voters {
		r, reported := h.reports[v]
		ago, said := r.ago[id]
		switch {
		case v == id:
			at = append(at, now)
		case v == h.self:
			at = append(at, h.heard[id])
		case reported && said:
			at = append(at, r.at.Add(-ago))
		}
	}
	if n := voters.Majority(); n >= 1 && len(at) >= n {
		slices.Sort(at)
		return at[len(at)-n]
	}
	return 0
}
