package interop

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/tests/lab"
	"github.com/quorate/quorate/vrrpcompat"
)

// A peer is the other side: one host with a virtual router for each of ours.
type peer interface {
	// say has it be what is listed, and nothing else; it leaves what it was before cleanly.
	say([]saying) error
	// quit ends all its virtual routers cleanly.
	quit() error
}

// peerName is its host's.
const peerName = "peer"

// A network is one LAN with our nodes, one peer and the judge. All rows of a peer and a
// mode are tried in it at once, each with a virtual router of its own, because nearly
// all the time goes by in waiting for timers.
type network struct {
	t    *testing.T
	rows []*row
	ours *fleet
	host *lab.Host // the peer's
	peer peer
	wire *wire
	from lab.Instant // the beginning of the scenario
	now  scenario
}

// numbers are what the hosts' addresses end in; ours begin there. The peer's are above
// ours or below, so that a tie goes either way: a tie is for the higher one.
type numbers struct{ ours, peer int }

var hostNumbers = map[kind]map[mode]numbers{
	keepalivedKind: {cluster: {1, 104}, alone: {11, 1}},
	frrKind:        {cluster: {11, 2}, alone: {1, 104}},
	0:              {cluster: {1, 104}}, // nobody's: see assemble
}

const judgeNumber = 102

// newNetwork is the network for the rows of a peer and a mode.
func newNetwork(t *testing.T, k kind, m mode, rows []*row) *network {
	t.Helper()
	var mine []*row
	for _, r := range rows {
		if r.peer == k && r.mode == m && r.nonsense() == "" {
			r.virtual = makeVirtual(r, len(mine))
			mine = append(mine, r)
		}
	}
	return assemble(t, k, m, mine, longLease)
}

// assemble makes a network for rows that have their virtual routers, with daemons that
// are not started. Without a kind the peer's host runs nothing.
func assemble(t *testing.T, k kind, m mode, rows []*row, lease time.Duration) *network {
	t.Helper()
	return assembleAt(t, k, m, hostNumbers[k][m], rows, lease)
}

// assembleAt is assemble with other numbers for the hosts.
func assembleAt(t *testing.T, k kind, m mode, at numbers, rows []*row, lease time.Duration) *network {
	t.Helper()
	l := newLab(t)
	size := map[mode]int{cluster: 3, alone: 1}[m]
	var hosts []*lab.Host
	for i := range size {
		hosts = append(hosts, addHost(t, l, fmt.Sprintf("n%d", i+1), at.ours+i))
	}
	n := &network{t: t, rows: rows, host: addHost(t, l, peerName, at.peer)}
	var all []virtual
	for _, r := range n.rows {
		all = append(all, r.virtual)
	}
	for _, v := range n.twins() {
		all = append(all, v)
	}
	var asked []netip.Addr
	for _, v := range all {
		asked = append(asked, v.addresses[0].Addr())
	}
	switch k {
	case keepalivedKind:
		n.peer = startKeepalived(t, n.host, hosts)
	case frrKind:
		n.peer = startFRR(t, n.host)
	}
	n.wire = watch(t, addHost(t, l, "judge", judgeNumber), append(hosts[:size:size], n.host), asked)
	n.ours = newFleet(t, l, m, hosts, n.host, lease, all)
	t.Cleanup(func() {
		for _, node := range n.ours.nodes {
			noPanic(t, node.proc)
		}
	})
	return n
}

const (
	firstVRID = 11
	// Version 2 has whole seconds, and in version 3 a busy machine has to keep up with it.
	interval2, interval3 = time.Second, 500 * time.Millisecond
	ourPassword          = "lan-only"
)

// makeVirtual numbers the virtual router of the n-th row of a network. With version 2
// every second one has a password, where the other side can have one.
func makeVirtual(r *row, n int) virtual {
	v := virtual{vrid: uint8(firstVRID + n), version: r.version, unicast: r.unicast, vmac: r.vmac, interval: interval3}
	v.addresses, v.elsewhere = addresses(r.ip6, n)
	if r.version == 2 {
		v.interval = interval2
		if r.vmac && r.peer == keepalivedKind {
			v.password = ourPassword
		}
	}
	return v
}

// addresses are two for the n-th virtual router of a network, and one that it does not have.
func addresses(ip6 bool, n int) (all []netip.Prefix, elsewhere netip.Prefix) {
	const most = (lab.LastVIP - lab.FirstVIP + 1) / 3
	at := func(kind int) netip.Prefix {
		if ip6 {
			return netip.MustParsePrefix(fmt.Sprintf("2001:db8::f:%d/64", 100*kind+n))
		}
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(lab.FirstVIP + most*kind + n)}), 24)
	}
	return []netip.Prefix{at(0), at(1)}, at(2)
}

// twins are virtual routers of ours with a password for the rows of version 2 beside
// FRR, which has none: only wrongAuth tries them.
func (n *network) twins() map[*row]virtual {
	out := map[*row]virtual{}
	for i, r := range n.rows {
		if r.peer == frrKind && r.version == 2 {
			v := makeVirtual(r, len(n.rows)+i)
			v.password = ourPassword
			out[r] = v
		}
	}
	return out
}

// begin opens a scenario.
func (n *network) begin(s scenario) { n.now, n.from = s, lab.Now() }

// fail notes a failed cell, with what was on the wire.
func (n *network) fail(r *row, format string, args ...any) {
	n.t.Helper()
	if !r.cells[n.now].failed {
		n.t.Errorf("%v, %v: %s\n%s", r, n.now, fmt.Sprintf(format, args...), n.wire.text(r.virtual, n.from, lab.Now()))
	}
	r.cells[n.now] = result{failed: true}
}

// pass notes what has not failed.
func (n *network) pass(rows []*row, why string) {
	for _, r := range rows {
		if !r.cells[n.now].failed {
			r.cells[n.now] = result{why: why}
		}
	}
}

// sayAll has the peer's routers for the rows say the same, but for what change says.
func (n *network) sayAll(rows []*row, priority int, change func(*row, *saying)) {
	n.t.Helper()
	var all []saying
	for _, r := range rows {
		v := r.virtual
		s := saying{virtual: v, priority: priority, interval: v.interval, password: v.password, list: v.addresses}
		if change != nil {
			change(r, &s)
		}
		all = append(all, s)
	}
	must(n.t, n.peer.say(all))
}

// split parts rows into those of which something is true, and the others.
func split(rows []*row, ok func(*row) bool) (yes, no []*row) {
	for _, r := range rows {
		if ok(r) {
			yes = append(yes, r)
		} else {
			no = append(no, r)
		}
	}
	return yes, no
}

// A side says which hosts it is made of.
type side func(host string) bool

func (n *network) us() side   { return func(host string) bool { return host != peerName } }
func (n *network) them() side { return func(host string) bool { return host == peerName } }

// taken reports whether one side alone is Active since an instant: its latest packet is
// an advert of no priority 0, the other's are none at all, and it alone answers.
func (n *network) taken(v virtual, by side, since lab.Instant) bool {
	seen := n.wire.between(v.vrid, since, lab.Now())
	mine := slices.DeleteFunc(slices.Clone(seen), func(s sighting) bool { return !by(s.host) })
	if len(mine) < len(seen) || len(mine) == 0 {
		return false
	}
	if last := mine[len(mine)-1]; last.err != nil || last.advert.Priority == vrrpcompat.Release {
		return false
	}
	qs := n.wire.answersBetween(v.addresses[0].Addr(), since, lab.Now())
	return len(qs) > 0 && !slices.ContainsFunc(qs, func(q question) bool { return len(q.by) == 0 || slices.ContainsFunc(q.by, not(by)) })
}

func not(s side) func(string) bool { return func(host string) bool { return !s(host) } }

// awaited is for how long a side is looked at before it counts as the only Active one.
const awaited = 300 * time.Millisecond

// await waits until a side alone has been Active for a while in every row, and returns
// when it first answered after an instant. A row for which it does not come in time fails.
func (n *network) await(rows []*row, by side, what string, since lab.Instant, limit time.Duration) map[*row]time.Duration {
	n.t.Helper()
	took := map[*row]time.Duration{}
	left := slices.Clone(rows)
	for deadline := since.Add(limit); len(left) > 0 && lab.Now() < deadline; pause(20 * time.Millisecond) {
		left = slices.DeleteFunc(left, func(r *row) bool {
			window := lab.Now().Add(-max(awaited, r.virtual.interval+awaited))
			if window < since || !n.taken(r.virtual, by, window) {
				return false
			}
			took[r] = n.firstAnswer(r.virtual, by, since).Sub(since)
			return true
		})
	}
	for _, r := range left {
		n.fail(r, "not within %v: %s", limit, what)
	}
	return took
}

// firstAnswer is when a side first answered after an instant.
func (n *network) firstAnswer(v virtual, by side, since lab.Instant) lab.Instant {
	for _, q := range n.wire.answersBetween(v.addresses[0].Addr(), since, lab.Now()) {
		if slices.ContainsFunc(q.by, by) {
			return q.at
		}
	}
	return lab.Now()
}

// oneAtATime fails the rows in which two hosts answered for longer than it is allowed
// since an instant, and returns the longest time of all rows.
func (n *network) oneAtATime(rows []*row, since lab.Instant, allowed func(*row) time.Duration) (worst time.Duration) {
	n.t.Helper()
	for _, r := range rows {
		two := longest(n.wire.answersBetween(r.virtual.addresses[0].Addr(), since, lab.Now()), twoAnswer)
		if limit := allowed(r); two > limit+seenLate {
			n.fail(r, "two hosts answered for %v, allowed are %v", two, limit)
		}
		worst = max(worst, two)
	}
	return worst
}

// seenLate is by how much what is asked once in askEvery, on a busy machine, may look longer than it was.
const seenLate = 5 * askEvery

// anInterval is for how long two hosts may answer: until the next advert.
func anInterval(r *row) time.Duration { return r.virtual.interval }

// lateFirstAdvert: FRR answers for IPv6 an interval before its first advert. Its device
// has just come up, and the first one does not get out.
func lateFirstAdvert(r *row) bool { return r.peer == frrKind && r.ip6 }

// whenTheyCome is the same where the other side takes over.
func whenTheyCome(r *row) time.Duration {
	if lateFirstAdvert(r) {
		return 2 * r.virtual.interval
	}
	return r.virtual.interval
}

// afterACut is the same where the hosts did not reach each other before. By unicast the
// kernel has to find its neighbour again, for which it asks once a second.
func afterACut(r *row) time.Duration {
	if r.unicast {
		return r.virtual.interval + time.Second
	}
	return r.virtual.interval
}

// onlyActive fails the rows in which in [from, to] somebody else than one host of a side
// sent an advert or answered, or in which adverts were late by more than an interval.
func (n *network) onlyActive(rows []*row, by side, from, to lab.Instant) {
	n.t.Helper()
	for _, r := range rows {
		v := r.virtual
		seen := n.wire.between(v.vrid, from, to)
		if i := slices.IndexFunc(seen, func(s sighting) bool { return !by(s.host) }); i >= 0 {
			n.fail(r, "%s sent an advert", seen[i].host)
			continue
		}
		qs := n.wire.answersBetween(v.addresses[0].Addr(), from, to)
		for host := range answerers(qs) {
			if !by(host) {
				n.fail(r, "%s answered", host)
			}
		}
		n.steady(r, seen, qs, from, to)
	}
}

// steady fails a row in which a side's adverts came late or its answers were missing.
func (n *network) steady(r *row, mine []sighting, qs []question, from, to lab.Instant) {
	n.t.Helper()
	last := from
	for _, s := range append(mine, sighting{at: to}) {
		if gap := s.at.Sub(last); gap > 2*r.virtual.interval {
			n.fail(r, "no advert for %v, the interval is %v", gap, r.virtual.interval)
		}
		last = s.at
	}
	if gap := longest(qs, noneAnswers); gap > r.virtual.interval || len(qs) == 0 {
		n.fail(r, "nobody answered for %v", gap)
	}
}

// speakers are the hosts of a side that sent adverts in [from, to].
func (n *network) speakers(v virtual, by side, from, to lab.Instant) (hosts []string) {
	for _, s := range n.wire.between(v.vrid, from, to) {
		if by(s.host) && !slices.Contains(hosts, s.host) {
			hosts = append(hosts, s.host)
		}
	}
	return hosts
}
