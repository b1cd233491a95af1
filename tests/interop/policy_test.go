package interop

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

// plainRow is a row of version 3, IPv4, multicast, for what the matrix leaves as it is by default.
func plainRow(m mode, number int, change func(*virtual)) *row {
	r := &row{peer: keepalivedKind, mode: m, version: 3, cells: map[scenario]result{}}
	r.virtual = makeVirtual(r, number)
	change(&r.virtual)
	return r
}

// TestOutrankedHold: a cluster that was told to keep its addresses does so beside a
// keepalived of a better priority. Two hosts answer, which is what was asked for, and it
// says so.
func TestOutrankedHold(t *testing.T) {
	t.Parallel() // it waits most of the time
	r := plainRow(cluster, 0, func(v *virtual) { v.outranked = "hold" })
	n := assemble(t, keepalivedKind, cluster, []*row{r}, longLease)
	must(t, n.ours.start(t.Context()))
	n.begin(theyAreActive)
	n.await(n.rows, n.us(), "our side comes up", lab.Now(), startLimit)
	from := lab.Now()
	n.sayAll(n.rows, highPriority, nil)
	until(t, "keepalived advertises", longestDown+grace, func() bool { return len(n.speakers(r.virtual, n.them(), from, lab.Now())) > 0 })
	pause(longestDown)
	n.undisturbed(r, r.virtual, from)
	var problems []string
	for _, node := range n.ours.nodes {
		var s lab.Status
		must(t, lab.Ask(t.Context(), node.socket, "/v1/status", &s))
		for _, v := range s.VIPs {
			problems = append(problems, v.Problem)
		}
	}
	if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, n.host.IPv4.String()) }) {
		t.Errorf("no node names the router that has the better claim: %q", problems)
	}
	if two := longest(n.wire.answersBetween(r.virtual.addresses[0].Addr(), from, lab.Now()), twoAnswer); two < longestDown/2 {
		t.Errorf("two hosts answered for %v, and both should all the time", two)
	}
	gone := lab.Now()
	must(t, n.peer.quit())
	n.await(n.rows, n.us(), "we alone are Active in the end", gone, longestDown+grace)
}

// TestPreempt: a router of its own that comes to a keepalived of a worse priority leaves
// it alone for as long as it was told to.
func TestPreempt(t *testing.T) {
	t.Parallel()
	const delay = 3 * time.Second
	never := plainRow(alone, 0, func(v *virtual) { v.preempt = "false" })
	later := plainRow(alone, 1, func(v *virtual) { v.preempt = delay.String() })
	n := assemble(t, keepalivedKind, alone, []*row{never, later}, 0)
	n.begin(theyAreActive)
	n.sayAll(n.rows, lowPriority, nil)
	n.await(n.rows, n.them(), "keepalived comes up", lab.Now(), longestDown+grace)
	from := lab.Now()
	must(t, n.ours.start(t.Context()))
	took := n.await([]*row{later}, n.us(), "we take over after the delay", from, delay+longestDown+grace)
	if took[later] < delay {
		t.Errorf("we answered %v after we came, the delay is %v", took[later], delay)
	}
	two := n.oneAtATime(n.rows, from, anInterval)
	t.Logf("with preempt: %v we answered after %v; two hosts answered for at most %v", delay, took[later], two)
	pause(longestDown)
	n.onlyActive([]*row{never}, n.them(), from, lab.Now())
	gone := lab.Now()
	must(t, n.peer.quit())
	n.await(n.rows, n.us(), "we are Active in the end", gone, longestDown+grace)
}
