package shadow

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	one   = netip.MustParseAddr("10.0.0.1")
	two   = netip.MustParseAddr("10.0.0.2")
	began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

// A tale tells a ledger what happens, by seconds since its beginning.
type tale struct {
	t     *testing.T
	l     *Ledger
	would string
	here  bool
	said  []string
}

func newTale(t *testing.T, node string, alone bool) *tale {
	nodes := map[netip.Addr]string{one: "n1", two: "n2"}
	if alone {
		nodes = nil
	}
	return &tale{t: t, l: New(began, node, alone, func(a netip.Addr) string { return nodes[a] }), would: "n1"}
}

func at(s float64) time.Time { return began.Add(time.Duration(s * float64(time.Second))) }

func (x *tale) hear(s float64, from netip.Addr, priority uint8) {
	x.l.Hear(at(s), Heard{Group: "web", Seat: "eth0 ipv4", From: from, Priority: priority, Interval: time.Second, Down: 3900 * time.Millisecond})
}

func (x *tale) look(s float64) {
	g := Group{Name: "web", Addresses: []string{"10.0.0.200/24"}, Would: x.would, Known: true, Reason: "first", Priority: 254, Listen: 4 * time.Second}
	if x.here {
		g.Here = []string{"eth0"}
	}
	for _, said := range x.l.Look(at(s), []Group{g}) {
		x.said = append(x.said, fmt.Sprintf("%g %v %s|%s", s, said.Verdict, said.Really, said.Would))
	}
}

func (x *tale) report(s float64) GroupReport {
	x.t.Helper()
	r := x.l.Report(at(s))
	if len(r.Groups) != 1 {
		x.t.Fatalf("%d groups, want 1", len(r.Groups))
	}
	return r.Groups[0]
}

func (x *tale) wantSaid(want ...string) {
	x.t.Helper()
	if !slices.Equal(x.said, want) {
		x.t.Errorf("said\n%s\nwant\n%s", strings.Join(x.said, "\n"), strings.Join(want, "\n"))
	}
}

// The owner of keepalived's is killed, and the other takes over: quorate's stays, and the
// times are told apart.
func TestOwnerDies(t *testing.T) {
	x := newTale(t, "n3", false)
	for s := range 10 {
		x.hear(float64(s)+.5, one, 150)
		x.look(float64(s) + 1)
	}
	for s := 11; s < 14; s++ {
		x.look(float64(s))
	}
	x.look(14) // 4.5 s after the last advert
	for s := range 5 {
		x.hear(14.2+float64(s), two, 100)
		x.look(15 + float64(s))
	}
	x.wantSaid("1 agreed n1 (10.0.0.1, priority 150)|n1", "14 nobody |n1", "15 differs n2 (10.0.0.2, priority 100)|n1")
	r := x.report(19)
	if r.AgreedMS != 13000 || r.NobodyMS != 1000 || r.DifferedMS != 4000 {
		t.Errorf("agreed %g, nobody %g, differed %g", r.AgreedMS, r.NobodyMS, r.DifferedMS)
	}
	if len(r.Changes) != 3 || !r.Changes[2].At.Equal(at(14.2)) || r.Changes[2].From != "" || r.Changes[2].Would != "n1" {
		t.Errorf("changes %+v", r.Changes)
	}
	if len(r.Differences) != 2 || r.Differences[0].Really != "" || !r.Differences[0].Until.Equal(at(15)) || !r.Differences[1].Until.Equal(at(19)) {
		t.Errorf("differences %+v", r.Differences)
	}
	if len(r.TwoHosts) != 0 || len(r.Decisions) != 1 || r.Decisions[0].To != "n1" || r.Decisions[0].Reason != "first" {
		t.Errorf("two hosts %+v, decisions %+v", r.TwoHosts, r.Decisions)
	}
	if want := []Router{{"10.0.0.1", "n1", 150}, {"10.0.0.2", "n2", 100}}; !slices.Equal(r.Heard, want) {
		t.Errorf("heard %+v", r.Heard)
	}
}

// A better router that comes back, and one that gives up with priority 0, are no two hosts.
func TestHandover(t *testing.T) {
	x := newTale(t, "n3", false)
	x.hear(.1, two, 100)
	x.hear(1.1, two, 100)
	x.hear(1.3, one, 150) // preempts
	x.look(2)
	x.hear(2.3, one, 150)
	x.hear(2.5, one, 0)
	x.hear(3.1, two, 100)
	x.look(3.5)
	x.hear(4.1, two, 100)
	x.look(4.5)
	x.wantSaid("2 agreed n1 (10.0.0.1, priority 150)|n1", "3.5 differs n2 (10.0.0.2, priority 100)|n1")
	if r := x.report(5); len(r.TwoHosts) != 0 {
		t.Errorf("two hosts %+v", r.TwoHosts)
	}
}

// Two that go on beside each other are two hosts, for as long as both do.
func TestTwoSpeak(t *testing.T) {
	x := newTale(t, "n3", false)
	for s := range 5 {
		x.hear(float64(s), one, 150)
		x.hear(float64(s)+.4, two, 100)
	}
	x.look(4.9)
	for s := range 5 {
		x.hear(5+float64(s), one, 150)
	}
	x.look(9.5)
	r := x.report(10)
	want := TwoHosts{At: at(.4), Until: at(5), Who: []string{"n1 (10.0.0.1, priority 150)", "n2 (10.0.0.2, priority 100)"}}
	if len(r.TwoHosts) != 1 || !r.TwoHosts[0].At.Equal(want.At) || !r.TwoHosts[0].Until.Equal(want.Until) || !slices.Equal(r.TwoHosts[0].Who, want.Who) {
		t.Errorf("two hosts %+v, want %+v", r.TwoHosts, want)
	}
	x.wantSaid("4.9 differs n1 (10.0.0.1, priority 150) and n2 (10.0.0.2, priority 100)|n1", "9.5 agreed n1 (10.0.0.1, priority 150)|n1")
}

// The address stands here while another router claims it: only if it does before and
// after the claim are these two hosts.
func TestHereAndHeard(t *testing.T) {
	x := newTale(t, "n1", false)
	x.hear(.5, two, 100)
	x.here = true // taken from it
	x.look(1)
	x.look(2)
	if r := x.report(2); len(r.TwoHosts) != 0 {
		t.Errorf("after a take-over: two hosts %+v", r.TwoHosts)
	}
	x.hear(2.5, two, 200) // takes it back
	x.l.Gone("web")
	x.here = false
	x.look(3)
	x.hear(3.5, two, 200)
	x.look(4)
	if r := x.report(4); len(r.TwoHosts) != 0 {
		t.Errorf("given up: two hosts %+v", r.TwoHosts)
	}
	x.here = true
	x.look(5)
	x.hear(5.5, two, 200)
	x.look(6)
	if r := x.report(6); len(r.TwoHosts) != 1 || !strings.Contains(r.TwoHosts[0].Who[0], "this host, on eth0") {
		t.Errorf("two hosts %+v, want one", r.TwoHosts)
	}
	x.wantSaid("1 agreed n1 (this host, on eth0)|n1", "3 differs n2 (10.0.0.2, priority 200)|n1", "5 agreed n1 (this host, on eth0)|n1",
		"6 differs n1 (this host, on eth0) and n2 (10.0.0.2, priority 200)|n1")
}

// A router of its own knows whether it would have the group, and not who else would.
func TestAlone(t *testing.T) {
	x := newTale(t, "n2", true)
	x.would = ""
	x.hear(.5, one, 150)
	x.look(1)
	x.would = "n2"
	x.look(2)
	x.here = true
	x.look(3)
	x.would = ""
	x.look(4)
	x.wantSaid("1 agreed 10.0.0.1 (priority 150)|", "2 differs 10.0.0.1 (priority 150)|n2", "3 agreed n2 (this host, on eth0)|n2",
		"4 differs n2 (this host, on eth0)|")
}

// A router of both families is one, whether its node is known or not.
func TestTwoFamilies(t *testing.T) {
	for _, alone := range []bool{false, true} {
		x := newTale(t, "n3", alone)
		six := netip.MustParseAddr("fe80::1")
		name := x.l.name
		x.l.name = func(a netip.Addr) string {
			if a == six && !alone {
				return "n1"
			}
			return name(a)
		}
		x.hear(.5, one, 150)
		x.l.Hear(at(.5), Heard{Group: "web", Seat: "eth0 ipv6", From: six, Priority: 150, Interval: time.Second, Down: 4 * time.Second})
		if alone {
			x.would = ""
		}
		x.look(1)
		want := "1 agreed n1 (10.0.0.1 and fe80::1, priority 150)|n1"
		if alone {
			want = "1 agreed 10.0.0.1 and fe80::1 (priority 150)|"
		}
		x.wantSaid(want)
	}
}

// Before a router that is Active must have been heard, nothing is said of there being none.
func TestSilence(t *testing.T) {
	x := newTale(t, "n1", false)
	x.look(1)
	x.look(3)
	x.look(5)
	x.wantSaid("5 nobody |n1")
	if r := x.report(5); r.NobodyMS != 0 || r.Changes == nil || r.TwoHosts == nil || r.Heard == nil {
		t.Errorf("report %+v", r)
	}
}

// What does not fit into a list is counted.
func TestBounded(t *testing.T) {
	x := newTale(t, "n1", false)
	for s := range 2 * maxNotes {
		x.here = s%2 == 0
		x.look(float64(10 + s))
	}
	if r := x.report(1e4); len(r.Changes) != maxNotes || len(r.Differences) != maxNotes || r.Left != maxNotes {
		t.Errorf("%d changes, %d differences, %d left out", len(r.Changes), len(r.Differences), r.Left)
	}
}

// Forged senders are not remembered without bound, and do not keep out who was there.
func TestForgedSenders(t *testing.T) {
	x := newTale(t, "n3", false)
	x.hear(0, one, 150)
	from := netip.MustParseAddr("10.1.0.0")
	for range 10 * maxSenders {
		from = from.Next()
		x.hear(.1, from, 254)
	}
	if n := len(x.l.groups["web"].seats["eth0 ipv4"].senders); n != maxSenders {
		t.Errorf("%d senders are remembered, want %d", n, maxSenders)
	}
	for s := 1.0; s < 10; s++ {
		x.hear(s, one, 150)
	}
	x.look(10)
	x.wantSaid("10 agreed n1 (10.0.0.1, priority 150)|n1")
}
