package interop

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

// A spoilt is a virtual router whose packets from the peer have to be refused.
type spoilt struct {
	row    *row
	router virtual // the row's, or its twin
	reason string  // one of vrrpcompat's names
}

// counted is how many packets have to be refused in each row. keepalived 2.2 sends one,
// and no more while it is sent adverts that it refuses.
const counted = 1

// refuses waits until our Active node has counted the peer's packets under their name,
// and fails the rows in which they moved anything: our adverts and answers since the
// instant.
func (n *network) refuses(all []spoilt, before map[*row]uint64, since lab.Instant, limit time.Duration) {
	n.t.Helper()
	left := slices.Clone(all)
	last := map[*row]string{}
	least := since.Add(2*interval2 + grace/4) // in which adverts of ours are due in every row
	for deadline := since.Add(limit); (len(left) > 0 || lab.Now() < least) && lab.Now() < deadline; pause(100 * time.Millisecond) {
		all, err := n.hear()
		must(n.t, err)
		left = slices.DeleteFunc(left, func(s spoilt) bool {
			count, reasons, err := n.refusedByActive(all, s.router)
			last[s.row] = fmt.Sprintf("%d packets, the last %q, %v", count-before[s.row], reasons, err)
			return err == nil && slices.Contains(reasons, s.reason) && count >= before[s.row]+counted
		})
	}
	for _, s := range left {
		n.fail(s.row, "not within %v: %d packets counted as %s; %s", limit, counted, s.reason, last[s.row])
	}
	for _, s := range all {
		n.undisturbed(s.row, s.router, since)
	}
}

// undisturbed fails a row in which our adverts came from more than one host since an
// instant, or they or our answers were missing. Theirs may be there too.
func (n *network) undisturbed(r *row, v virtual, since lab.Instant) {
	n.t.Helper()
	now := lab.Now()
	if hosts := n.speakers(v, n.us(), since, now); len(hosts) != 1 {
		n.fail(r, "our adverts came from %v, want one host throughout", hosts)
	}
	mine := slices.DeleteFunc(n.wire.between(v.vrid, since, now), func(s sighting) bool { return s.host == peerName })
	qs := n.wire.answersBetween(v.addresses[0].Addr(), since, now)
	for i := range qs {
		qs[i].by = slices.DeleteFunc(qs[i].by, n.them())
	}
	n.steady(r, mine, qs, since, now)
}

// hear asks every node of ours what it hears.
func (n *network) hear() (map[string]map[uint8][]heard, error) {
	out := map[string]map[uint8][]heard{}
	for _, node := range n.ours.nodes {
		var err error
		if out[node.host.Name], err = node.heard(n.t.Context()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// refusedSoFar is what refuses counts from.
func (n *network) refusedSoFar(all []spoilt) map[*row]uint64 {
	n.t.Helper()
	now, err := n.hear()
	must(n.t, err)
	out := map[*row]uint64{}
	for _, s := range all {
		if out[s.row], _, err = n.refusedByActive(now, s.router); err != nil {
			n.fail(s.row, "%v", err)
		}
	}
	return out
}

// refusedByActive counts the peer's packets that were refused by the node of ours that
// sends the adverts, with the reasons for the last.
func (n *network) refusedByActive(all map[string]map[uint8][]heard, v virtual) (count uint64, reasons []string, err error) {
	hosts := n.speakers(v, n.us(), lab.Now().Add(-2*v.interval-answersSlack), lab.Now())
	if len(hosts) != 1 {
		return 0, nil, fmt.Errorf("our adverts come from %v", hosts)
	}
	for _, h := range all[hosts[0]][v.vrid] {
		count += h.Refused
		if h.LastRefusal != nil {
			reasons = append(reasons, h.LastRefusal.Reason)
		}
	}
	return count, reasons, nil
}

func isV2(r *row) bool { return r.version == 2 }

// whyBoth explains why two hosts may answer while one refuses the other.
const whyBoth = "each refuses the other, as the RFC has it, and so both are Active until the files agree: quorate vrrp says what differs"

func (n *network) wrongAuth() {
	n.begin(wrongAuth)
	twins := n.twins()
	rows, _ := split(n.rows, isV2)
	var all []spoilt
	for _, r := range rows {
		s := spoilt{r, r.virtual, "auth-data"}
		if v, ok := twins[r]; ok {
			s = spoilt{r, v, "auth-type"}
		} else if r.virtual.password == "" {
			s.reason = "auth-type"
		}
		all = append(all, s)
	}
	from, before := lab.Now(), n.refusedSoFar(all)
	n.sayAll(rows, wrongPriority, func(r *row, s *saying) {
		if v, ok := twins[r]; ok {
			s.virtual, s.list = v, v.addresses
			return // FRR sends none, and we want one
		}
		s.password = "mistaken"
	})
	n.refuses(all, before, from, longestDown+4*interval2+grace)
	n.pass(rows, whyBoth)
	must(n.t, n.peer.quit())
}

// With version 2 another interval is refused. With version 3 a Backup learns it: theirs
// is longer than our own down timer, so that who has not learned it claims too soon.
func (n *network) wrongInterval() {
	n.begin(wrongInterval)
	const theirs = 2 * time.Second
	v2, v3 := split(n.rows, isV2)
	var all []spoilt
	for _, r := range v2 {
		all = append(all, spoilt{r, r.virtual, "interval-mismatch"})
	}
	from, before := lab.Now(), n.refusedSoFar(all)
	n.sayAll(n.rows, wrongPriority, func(_ *row, s *saying) { s.interval = theirs })
	var slow []*row // the rows of version 3, looked at for an interval of theirs
	for _, r := range v3 {
		s := *r
		s.virtual.interval = theirs
		slow = append(slow, &s)
	}
	n.await(slow, n.them(), "they take over", from, longestDown+4*theirs+grace)
	n.refuses(all, before, from, longestDown+4*theirs+grace)
	pause(theirs + interval2)
	now := lab.Now()
	for _, r := range v3 {
		if hosts := n.speakers(r.virtual, n.us(), n.theirFirst(r, from).Add(r.virtual.interval), now); len(hosts) > 0 {
			n.fail(r, "%v claimed beside a router that advertises every %v", hosts, theirs)
		}
		n.differs(r, "interval")
	}
	n.pass(v2, whyBoth)
	n.pass(v3, "nothing is wrong with it in version 3: the Backup, which is we, learns the interval of the Active router, and does not claim sooner")
	from = lab.Now()
	must(n.t, n.peer.quit())
	n.await(n.rows, n.us(), "we are Active in the end", from, longestDown+3*theirs+grace)
}

// theirFirst is when the peer sent its first advert after an instant.
func (n *network) theirFirst(r *row, since lab.Instant) lab.Instant {
	for _, s := range n.wire.between(r.virtual.vrid, since, lab.Now()) {
		if s.host == peerName {
			return s.at
		}
	}
	return lab.Now()
}

// With version 2 a list that is not all ours is refused, with version 3 one that has
// nothing of ours. Another one is accepted in version 3, here from a worse router.
func (n *network) wrongList() {
	n.begin(wrongList)
	v2, v3 := split(n.rows, isV2)
	nothing, some := split(v3, func(r *row) bool { return r.vmac })
	var all []spoilt
	for _, r := range v2 {
		all = append(all, spoilt{r, r.virtual, "address-list"})
	}
	for _, r := range nothing {
		all = append(all, spoilt{r, r.virtual, "vrid-collision"})
	}
	from, before := lab.Now(), n.refusedSoFar(all)
	n.sayAll(n.rows, wrongPriority, func(r *row, s *saying) {
		s.list = []netip.Prefix{r.virtual.addresses[1], r.virtual.elsewhere}
		switch {
		case slices.Contains(nothing, r):
			s.list = s.list[1:]
		case slices.Contains(some, r):
			s.priority = lowPriority
		}
	})
	n.refuses(all, before, from, longestDown+4*interval2+grace)
	for _, r := range some {
		n.undisturbed(r, r.virtual, from)
		if len(n.speakers(r.virtual, n.them(), from, lab.Now())) > 0 {
			n.differs(r, "addresses")
		}
	}
	const frr, ours = "FRR takes our list for good and claims with its better priority, we refuse its: both are Active", "version 3 accepts another list " +
		"(RFC 9568, section 7.1), here of a worse router: we stay Active. "
	both := map[kind]string{keepalivedKind: whyBoth, frrKind: frr}
	backup := map[kind]string{keepalivedKind: "keepalived 2.2 refuses ours and is Active too", frrKind: "So does FRR, and is Backup"}
	for _, r := range v2 {
		n.pass([]*row{r}, both[r.peer])
	}
	for _, r := range nothing {
		n.pass([]*row{r}, "none of our addresses: refused in version 3 too. "+both[r.peer])
	}
	for _, r := range some {
		n.pass([]*row{r}, ours+backup[r.peer])
	}
	must(n.t, n.peer.quit())
	pause(interval2)
}

// differs fails a row in which no node of ours names the difference.
func (n *network) differs(r *row, field string) {
	all, err := n.hear()
	must(n.t, err)
	var said []string
	for _, node := range all {
		for _, h := range node[r.virtual.vrid] {
			for _, d := range h.Differences {
				said = append(said, d.Field)
			}
		}
	}
	if !slices.Contains(said, field) {
		n.fail(r, "no node of ours names the difference %q: %q", field, said)
	}
}

func (n *network) badChecksum() {
	n.begin(badChecksum)
	f, err := newForger(n.host)
	must(n.t, err)
	defer f.close()
	var all []spoilt
	for _, r := range n.rows {
		all = append(all, spoilt{r, r.virtual, "checksum"})
	}
	from, before := lab.Now(), n.refusedSoFar(all)
	const rounds = 5
	for range rounds {
		for _, r := range n.rows {
			n.forge(f, r)
		}
		pause(askEvery)
	}
	n.refuses(all, before, from, 10*time.Second)
	n.pass(n.rows, "made here, for no program sends any")
}

// forge sends the packets of a wrong checksum in the peer's name.
func (n *network) forge(f *forger, r *row) {
	e := toGroup(n.sourceOf(r), n.host.MAC)
	if r.unicast {
		hosts := n.speakers(r.virtual, n.us(), lab.Now().Add(-2*r.virtual.interval-answersSlack), lab.Now())
		if len(hosts) != 1 {
			n.fail(r, "our adverts come from %v", hosts)
			return
		}
		h := n.ours.node(hosts[0]).host
		e.to, e.dstMAC = address(h, r.virtual), h.MAC
	}
	all, err := badSums(r.virtual, e)
	must(n.t, err)
	for _, m := range all {
		must(n.t, f.send(e.frame(m)))
	}
}

// sourceOf is what the peer's adverts have come from.
func (n *network) sourceOf(r *row) netip.Addr {
	if r.virtual.is6() && !r.unicast {
		for _, s := range n.wire.between(r.virtual.vrid, 0, lab.Now()) {
			if s.host == peerName {
				return s.src
			}
		}
	}
	return address(n.host, r.virtual)
}
