package interop

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

// TestMatrix tries every combination of version, family, transport, hardware address and
// mode with every program in every scenario, and prints what came of it.
func TestMatrix(t *testing.T) {
	t.Parallel() // it waits most of the time
	rows := matrix()
	t.Run("beside", func(t *testing.T) {
		for _, k := range []kind{keepalivedKind, frrKind} {
			for _, m := range []mode{cluster, alone} {
				t.Run(fmt.Sprintf("%v_%v", k, m), func(t *testing.T) {
					t.Parallel()
					n := newNetwork(t, k, m, rows)
					n.tryAll()
				})
			}
		}
	})
	t.Logf("the matrix:\n%s", layOut(rows))
	for _, r := range rows {
		for _, s := range scenarios {
			if _, run := r.cells[s]; !run && r.nonsense() == "" && r.pointless(s) == "" && !t.Failed() {
				t.Errorf("%v, %v was not tried", r, s)
			}
		}
	}
}

// What the peer says in its places.
const (
	lowPriority, highPriority, wrongPriority = 100, 200, 254
	startLimit                               = 40 * time.Second
	// grace is what a busy machine may add to a timer.
	grace = 2 * time.Second
)

// downTimer is how long a Backup of a priority waits.
func downTimer(v virtual, priority int) time.Duration {
	skew := time.Duration(256-priority) * v.interval / 256
	if v.version == 2 {
		skew = time.Duration(256-priority) * time.Second / 256
	}
	return 3*v.interval + skew
}

// longestDown is longer than every Backup waits here.
const longestDown = 3*interval2 + time.Second

func (n *network) tryAll() {
	must(n.t, n.ours.start(n.t.Context()))
	n.begin(weAreActive)
	n.await(n.rows, n.us(), "our side comes up", lab.Now(), startLimit)
	n.weAreActive()
	n.theyTakeOver()
	n.weComeBack()
	n.theyAreActive()
	n.theyAreGone()
	n.equalPriority()
	n.wrongAuth()
	n.wrongInterval()
	n.wrongList()
	n.badChecksum()
}

func (n *network) weAreActive() {
	n.sayAll(n.rows, lowPriority, nil)
	from := lab.Now()
	pause(longestDown + time.Second)
	n.onlyActive(n.rows, n.us(), from, lab.Now())
	n.pass(n.rows, "")
}

// theyTakeOver: our side ends in order.
func (n *network) theyTakeOver() {
	n.begin(takeoverToThem)
	must(n.t, n.ours.stop())
	stopped := lab.Now()
	took := n.await(n.rows, n.them(), "they take over", n.from, longestDown+stopped.Sub(n.from)+grace)
	two := n.oneAtATime(n.rows, n.from, whenTheyCome)
	n.t.Logf("our clean end: they answered after %v; two hosts answered for at most %v", span(took), two)
}

// weComeBack: our side starts, with the better priority.
func (n *network) weComeBack() {
	n.begin(takeoverToUs)
	must(n.t, n.ours.start(n.t.Context()))
	took := n.await(n.rows, n.us(), "we take it back", n.from, startLimit)
	two := n.oneAtATime(n.rows, n.from, anInterval)
	n.t.Logf("we come back: we answered after %v; two hosts answered for at most %v", span(took), two)
}

// theyAreActive: they come with the better priority, and stay.
func (n *network) theyAreActive() {
	n.begin(takeoverToThem)
	n.sayAll(n.rows, highPriority, nil)
	said := lab.Now()
	took := n.await(n.rows, n.them(), "they take over, having the better priority", n.from, longestDown+said.Sub(n.from)+grace)
	two := n.oneAtATime(n.rows, n.from, whenTheyCome)
	n.t.Logf("their better priority: they answered after %v; two hosts answered for at most %v", span(took), two)
	late, others := split(n.rows, lateFirstAdvert)
	n.pass(late, "FRR answers for IPv6 an interval before its first advert: for so long two hosts may answer")
	n.pass(others, "")
	n.begin(theyAreActive)
	pause(longestDown + time.Second)
	n.onlyActive(n.rows, n.them(), n.from, lab.Now())
	n.pass(n.rows, "")
}

// theyAreGone: they fall silent, come back, and end in order.
func (n *network) theyAreGone() {
	n.begin(takeoverToUs)
	must(n.t, n.host.Cut())
	cut := lab.Now()
	took := n.awaitBehindCut(n.us(), "we take over from a silent router", longestDown+grace)
	for r, d := range took {
		if least := downTimer(r.virtual, ourPriority) - r.virtual.interval - 2*askEvery; d < least {
			n.fail(r, "we answered %v after their silence began, the least is %v", d, least)
		}
	}
	n.t.Logf("their silence: we answered after %v", span(took))
	must(n.t, n.host.Mend())
	mended := lab.Now()
	n.await(n.rows, n.them(), "we let go of it again", mended, longestDown+grace)
	two := n.oneAtATime(n.rows, cut, afterACut)
	n.t.Logf("their return: two hosts answered for at most %v", two)
	from := lab.Now()
	must(n.t, n.peer.quit())
	took = n.await(n.rows, n.us(), "we take over from a router that ended", from, longestDown+grace)
	for r, d := range took {
		if d > 3*r.virtual.interval {
			n.fail(r, "we answered %v after they had sent priority 0, no sooner than after silence", d)
		}
	}
	two = n.oneAtATime(n.rows, from, anInterval)
	n.t.Logf("their clean end: we answered after %v; two hosts answered for at most %v", span(took), two)
	n.pass(n.rows, "")
}

// awaitBehindCut is await while the peer's adverts, which are seen at its port, reach nobody.
func (n *network) awaitBehindCut(by side, what string, limit time.Duration) map[*row]time.Duration {
	n.t.Helper()
	since := lab.Now()
	took := map[*row]time.Duration{}
	for deadline := since.Add(limit); len(took) < len(n.rows) && lab.Now() < deadline; pause(20 * time.Millisecond) {
		for _, r := range n.rows {
			// By unicast nothing need be on the wire: the kernel does not find the one neighbour.
			if _, done := took[r]; done || !r.unicast && len(n.speakers(r.virtual, by, since, lab.Now())) == 0 {
				continue
			}
			if at := n.firstAnswer(r.virtual, by, since); lab.Now().Sub(at) > answersSlack {
				took[r] = at.Sub(since)
			}
		}
	}
	for _, r := range n.rows {
		if _, done := took[r]; !done {
			n.fail(r, "not within %v: %s", limit, what)
		}
	}
	return took
}

// equalPriority: a Backup of our priority stays so; cut off it becomes Active, and when
// it is back the higher address decides.
func (n *network) equalPriority() {
	n.begin(equalPriority)
	n.sayAll(n.rows, ourPriority, nil)
	from := lab.Now()
	pause(longestDown + time.Second)
	n.onlyActive(n.rows, n.us(), from, lab.Now())
	must(n.t, n.host.Cut())
	cut := lab.Now()
	pause(longestDown + interval2) // now both are Active, and have sent something from where they will be compared
	winners := map[bool][]*row{}
	for _, r := range n.rows {
		theirs, err := n.theirAddressIsHigher(r, cut)
		if err != nil {
			n.fail(r, "after the cut: %v", err)
			continue
		}
		winners[theirs] = append(winners[theirs], r)
	}
	must(n.t, n.host.Mend())
	mended := lab.Now()
	n.await(winners[false], n.us(), "our address is the higher one and we stay Active alone", mended, longestDown+grace)
	n.await(winners[true], n.them(), "their address is the higher one and they stay Active alone", mended, longestDown+grace)
	two := n.oneAtATime(n.rows, mended, afterACut)
	n.t.Logf("equal priority: %d ties for us, %d for them; two hosts answered for at most %v", len(winners[false]), len(winners[true]), two)
	n.pass(n.rows, "")
	from = lab.Now()
	must(n.t, n.peer.quit())
	n.await(n.rows, n.us(), "we are Active in the end", from, longestDown+grace)
}

// theirAddressIsHigher compares what the two sides' adverts come from. By unicast it is
// what was configured, for those of a host that is cut off from all its peers stay in it.
func (n *network) theirAddressIsHigher(r *row, cut lab.Instant) (bool, error) {
	var ours, theirs netip.Addr
	if r.unicast {
		theirs = address(n.host, r.virtual)
	}
	for _, s := range n.wire.between(r.virtual.vrid, n.from, lab.Now()) {
		switch {
		case s.host != peerName:
			ours = s.src
		case s.at > cut:
			theirs = s.src
		}
	}
	if !ours.IsValid() || !theirs.IsValid() {
		return false, fmt.Errorf("no advert on the wire of ours, or of theirs: they come from %v and %v", ours, theirs)
	}
	return theirs.Compare(ours) > 0, nil
}

// span is the shortest and the longest of the times.
func span(took map[*row]time.Duration) string {
	if len(took) == 0 {
		return "never"
	}
	var all []time.Duration
	for _, d := range took {
		all = append(all, d)
	}
	return fmt.Sprintf("%.2f to %.2f s", slices.Min(all).Seconds(), slices.Max(all).Seconds())
}
