package metrics

import "github.com/quorate/quorate/internal/agent/core"

const (
	// maxMACs bounds the hardware addresses that are told apart for a group: who claims an
	// address chooses the one that it does so from.
	maxMACs = 32
	// otherMAC stands for all further ones.
	otherMAC = "other"
)

// claims adds up what a group's status says of foreign claims. That counts anew each time
// that the group is opened, and a counter must not go back.
type claims struct {
	last  map[string]uint64 // by address, as the status had it last
	total map[string]uint64 // by label
}

func newClaims() *claims { return &claims{last: map[string]uint64{}, total: map[string]uint64{}} }

// take adds what is new in one status. Of several hosts that claimed one address since
// the status before, the last gets the blame.
func (c *claims) take(now []core.ClaimStatus) {
	last := make(map[string]uint64, len(now))
	for _, s := range now {
		count := uint64(max(0, s.Count))
		fresh := count
		if was := c.last[s.Address]; was <= count {
			fresh -= was
		}
		c.total[c.label(s.MAC)] += fresh
		last[s.Address] = count
	}
	c.last = last
}

// label is the mac itself, as long as there is room.
func (c *claims) label(mac string) string {
	if _, known := c.total[mac]; known || len(c.total) < maxMACs {
		return mac
	}
	return otherMAC
}
