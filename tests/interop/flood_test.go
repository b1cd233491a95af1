package interop

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/tests/lab"
	"github.com/quorate/quorate/vrrpcompat"
)

// A bad is a packet that has to be refused.
type bad struct {
	reason string // as quorate vrrp names it
	frame  []byte
}

// A spoiler makes bad packets out of adverts that claim everything.
type spoiler struct {
	from   *lab.Host
	target *lab.Host // the node of ours that is flooded
	all    []bad
}

// add spoils an advert, then its message and its envelope.
func (s *spoiler) add(reason string, v virtual, advert func(*vrrpcompat.Advert), out func(*envelope), message func([]byte) []byte) error {
	a := advertOf(v, vrrpcompat.Owner)
	if advert != nil {
		advert(&a)
	}
	e := toGroup(address(s.from, v), s.from.MAC)
	m, err := a.AppendTo(nil, e.from, e.to, vrrpcompat.PseudoHeader)
	if err != nil {
		return fmt.Errorf("%s: %w", reason, err)
	}
	if message != nil {
		m = message(m)
	}
	if out != nil {
		out(&e)
	}
	s.all = append(s.all, bad{reason, e.frame(m)})
	return nil
}

// resum is the checksum of a message anew, in the form without a pseudo-header.
func resum(m []byte) []byte {
	m[6], m[7] = 0, 0
	binary.BigEndian.PutUint16(m[6:], onesComplement(m))
	return m
}

// spoil makes a packet for each reason, for a virtual router of version 3, one of version
// 2 with a password, and one of IPv6. Not among them are damaged IP headers and
// fragments, which a bridge with netfilter lets nobody have, packets longer than the
// network takes, and our own: a frame with a node's hardware address would have the
// bridge send everything for it to the wrong port.
func (s *spoiler) spoil(v3, v2, six virtual) (err error) {
	add := func(reason string, v virtual, advert func(*vrrpcompat.Advert), out func(*envelope), message func([]byte) []byte) {
		if err == nil {
			err = s.add(reason, v, advert, out, message)
		}
	}
	type m = []byte
	for _, v := range []virtual{v3, six} {
		add("hop-limit", v, nil, func(e *envelope) { e.hops = 254 }, nil)
		add("too-short", v, nil, nil, func(b m) m { return b[:6] })
		add("version", v, nil, nil, func(b m) m { b[0] = 0x51; return b })
		add("type", v, nil, nil, func(b m) m { b[0]++; return b })
		add("length", v, nil, nil, func(b m) m { return append(b, 0, 0, 0, 0) })
		add("checksum", v, nil, nil, func(b m) m { b[6] ^= 0xa5; return b })
		add("vrid-unknown", v, func(a *vrrpcompat.Advert) { a.VRID = 99 }, nil, nil)
		add("vrid-collision", v, func(a *vrrpcompat.Advert) { a.Addresses = []netip.Addr{v.elsewhere.Addr()} }, nil, nil)
		add("own-address-spoofed", v, nil, func(e *envelope) { e.from = address(s.target, v) }, nil)
		add("unicast", v, nil, func(e *envelope) { e.to, e.dstMAC = address(s.target, v), s.target.MAC }, nil)
	}
	add("hmac-trailer", v3, nil, nil, func(b m) m { return append(append(b, 1), make(m, 27)...) })
	add("no-addresses", v3, nil, nil, func(b m) m { b[3] = 0; return resum(b[:vrrpcompat.HeaderLen]) })
	add("vrid-zero", v3, nil, nil, func(b m) m { b[1] = 0; return resum(b) })
	add("interval-zero", v3, nil, nil, func(b m) m { b[4], b[5] = 0, 0; return resum(b) })
	add("carp", v3, nil, nil, func(b m) m { return append(m{0x21, b[1], 0, 7}, make(m, 32)...) })
	add("destination", v3, nil, func(e *envelope) { e.to = netip.AddrFrom4([4]byte{224, 0, 0, 5}) }, nil)
	add("ipsec-ah", v2, nil, func(e *envelope) { e.proto = protoAH }, func(b m) m {
		return append(append(m{vrrpcompat.Protocol, 4}, make(m, 22)...), b...) // RFC 2402, section 2: 24 bytes with a hash of 12
	})
	add("version-mismatch", v3, func(a *vrrpcompat.Advert) { a.Version, a.Interval = vrrpcompat.V2, 100 }, nil, nil)
	add("auth-type", v2, func(a *vrrpcompat.Advert) { a.Auth = vrrpcompat.Auth{} }, nil, nil)
	add("auth-data", v2, func(a *vrrpcompat.Advert) { a.Auth.Data[0]++ }, nil, nil)
	add("interval-mismatch", v2, func(a *vrrpcompat.Advert) { a.Interval *= 2 }, nil, nil)
	add("address-list", v2, func(a *vrrpcompat.Advert) { a.Priority, a.Addresses = 254, a.Addresses[:1] }, nil, nil)
	return err
}

// A count is the part of `quorate vrrp --json` that counts.
type count struct {
	Refused []struct {
		Reason string
		Count  uint64
	}
	Overruns uint64
}

func (n *node) count(ctx context.Context) (by map[string]uint64, overruns uint64, err error) {
	var c count
	if err := lab.Ask(ctx, n.socket, "/v1/vrrp", &c); err != nil {
		return nil, 0, fmt.Errorf("ask %s what it has refused: %w", n.host.Name, err)
	}
	by = map[string]uint64{}
	for _, r := range c.Refused {
		by[r.Reason] = r.Count
	}
	return by, c.Overruns, nil
}

const (
	floodRate = 10_000 // packets in a second
	floodFor  = 5 * time.Second
	floodStep = 5 * time.Millisecond
)

// TestFlood sends 10,000 bad packets a second, of every kind, to a cluster: each is
// counted under its name, the owner stays, and its adverts are late by no more than an
// interval.
func TestFlood(t *testing.T) {
	var rows []*row
	var all []virtual
	for i, r := range []*row{{version: 3}, {version: 2, vmac: true, peer: keepalivedKind}, {version: 3, ip6: true}} {
		r.virtual, r.cells = makeVirtual(r, i), map[scenario]result{}
		rows, all = append(rows, r), append(all, r.virtual)
	}
	n := assemble(t, 0, cluster, rows, 250*time.Millisecond)
	must(t, n.ours.start(t.Context()))
	n.begin(weAreActive)
	n.await(n.rows, n.us(), "the cluster is formed", lab.Now(), startLimit)
	pause(interval2)
	owner := n.ours.node(n.speakers(all[0], n.us(), lab.Now().Add(-2*interval3), lab.Now())[0])
	before, lostBefore, err := owner.count(t.Context())
	must(t, err)
	used, from := processorTime(t, owner.proc), lab.Now()
	sent := n.flood(owner, all)
	now, lost, err := owner.count(t.Context())
	for deadline := lab.Now().Add(5 * time.Second); err == nil && sum(now)-sum(before)+lost-lostBefore < sum(sent) && lab.Now() < deadline; pause(50 * time.Millisecond) {
		now, lost, err = owner.count(t.Context())
	}
	must(t, err)
	to := lab.Now()
	t.Logf("%d packets of %d kinds in %v to the owner %s, %d of them lost before they were read; %.0f %% of a processor",
		sum(sent), len(sent), to.Sub(from).Round(time.Millisecond), owner.host.Name, lost-lostBefore,
		100*(processorTime(t, owner.proc)-used).Seconds()/to.Sub(from).Seconds())
	for reason, count := range sent {
		if got := now[reason] - before[reason]; got > count || got+lost-lostBefore < count {
			t.Errorf("%s: %d packets counted, %d sent", reason, got, count)
		}
	}
	for _, r := range n.rows {
		seen := slices.DeleteFunc(n.wire.between(r.virtual.vrid, from, to), func(s sighting) bool { return s.host == peerName })
		if hosts := n.speakers(r.virtual, n.us(), from, to); len(hosts) != 1 {
			t.Errorf("vrid %d: adverts came from %v, want one host throughout", r.virtual.vrid, hosts)
		}
		qs := n.wire.answersBetween(r.virtual.addresses[0].Addr(), from, to)
		n.steady(r, seen, qs, from, to)
		t.Logf("vrid %d: at most %v between two adverts, the interval is %v; at most %v without an answer",
			r.virtual.vrid, longestGap(seen, from, to).Round(time.Millisecond), r.virtual.interval, longest(qs, noneAnswers))
	}
}

// flood sends the packets, and returns how many of each kind.
func (n *network) flood(owner *node, all []virtual) map[string]uint64 {
	n.t.Helper()
	s := &spoiler{from: n.host, target: owner.host}
	must(n.t, s.spoil(all[0], all[1], all[2]))
	f, err := newForger(n.host)
	must(n.t, err)
	defer f.close()
	sent := map[string]uint64{}
	tick := time.NewTicker(floodStep)
	defer tick.Stop()
	began := lab.Now()
	for i := 0; ; <-tick.C {
		passed := min(lab.Now().Sub(began), floodFor)
		for due := int(passed.Seconds() * floodRate); i < due; i++ {
			b := s.all[i%len(s.all)]
			must(n.t, f.send(b.frame))
			sent[b.reason]++
		}
		if passed == floodFor {
			return sent
		}
	}
}

func sum(counts map[string]uint64) (all uint64) {
	for _, c := range counts {
		all += c
	}
	return all
}

// longestGap is the longest time in [from, to] without an advert.
func longestGap(seen []sighting, from, to lab.Instant) (worst time.Duration) {
	last := from
	for _, s := range slices.Concat(seen, []sighting{{at: to}}) {
		worst = max(worst, s.at.Sub(last))
		last = s.at
	}
	return worst
}

// processorTime is what a process has had of the processors (proc_pid_stat(5)).
func processorTime(t *testing.T, p *lab.Process) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
	must(t, err)
	const user, system, perSecond = 11, 12, 100 // counted from behind the program's name; USER_HZ
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	var ticks int
	for _, i := range []int{user, system} {
		n, err := strconv.Atoi(fields[i])
		must(t, err)
		ticks += n
	}
	return time.Duration(ticks) * time.Second / perSecond
}
