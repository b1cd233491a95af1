package interop

import (
	"fmt"
	"testing"

	"github.com/quorate/quorate/tests/lab"
)

// noStrangers fails the test unless our nodes know each other's adverts for the
// cluster's own, while nobody else speaks.
func (n *network) noStrangers() {
	n.t.Helper()
	pause(2 * interval3) // each has heard who is Active
	for _, node := range n.ours.nodes {
		until(n.t, node.host.Name+" knows whose adverts it hears", startLimit, func() bool {
			heard, err := node.heard(n.t.Context())
			must(n.t, err)
			return len(heard) == 0
		})
	}
}

// TestUnicastTies breaks ties with keepalived by IPv6 unicast, where adverts come from
// global addresses and not from the link-local ones of multicast. Each goes to the
// higher address, whosever it is and whatever decides on our side. The matrix has only
// one of the two ways for each mode.
func TestUnicastTies(t *testing.T) {
	t.Parallel()
	for _, m := range []mode{cluster, alone} {
		for higher, at := range map[string]numbers{"ours": {11, 1}, "theirs": {1, 104}} {
			t.Run(fmt.Sprintf("%v_%s_is_higher", m, higher), func(t *testing.T) {
				t.Parallel()
				var rows []*row
				for i := range 2 {
					r := &row{peer: keepalivedKind, mode: m, version: 3, ip6: true, unicast: true, vmac: i == 1, cells: map[scenario]result{}}
					r.virtual = makeVirtual(r, i)
					rows = append(rows, r)
				}
				n := assembleAt(t, keepalivedKind, m, at, rows, longLease)
				must(t, n.ours.start(t.Context()))
				n.begin(weAreActive)
				n.await(n.rows, n.us(), "our side comes up", lab.Now(), startLimit)
				n.noStrangers()
				n.equalPriority()
			})
		}
	}
}
