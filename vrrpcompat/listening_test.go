package vrrpcompat

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"
)

var eth0 = Origin{Interface: "eth0", From: highAddr, MAC: net.HardwareAddr{0, 0, 0x5e, 0, 1, 7}}

func advert3(p Priority) Advert { v := virtual3(); return v.Advert(V3, p) }

func TestListeningRemembersWhatItHears(t *testing.T) {
	l := NewListening()
	mac, list := slices.Clone(eth0.MAC), addrs("192.0.2.10", "192.0.2.11")
	a := advert3(150)
	a.Addresses = list
	l.Heard(10, Origin{"eth0", highAddr, mac}, a, Plain, nil)
	reject := &Reject{ReasonCollision, 7, 0, 2}
	a.Priority, a.Interval = 160, 200
	l.Heard(20, Origin{"eth0", highAddr, mac}, a, PseudoHeader, reject)
	clear(mac) // both were copied
	clear(list)
	want := []Neighbour{{
		Interface: "eth0", Family: IPv4, VRID: 7, From: highAddr, MAC: eth0.MAC, Dialect: SpeaksVRRP,
		Version: V3, Priority: 160, Interval: 200, Checksum: PseudoHeader, Addresses: addrs("192.0.2.10", "192.0.2.11"),
		First: 10, Last: 20, Adverts: 2, Refused: 1, Reject: *reject, RejectedAt: 20,
	}}
	got := l.Neighbours(30)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("neighbours\n %+v, want\n %+v", got, want)
	}
	got[0].MAC[0], got[0].Addresses[0] = 9, lowAddr // a copy goes out too
	if again := l.Neighbours(30); !reflect.DeepEqual(again, want) {
		t.Errorf("changed from outside: %+v", again)
	}
	c := l.Counts()
	if c.Accepted != 1 || c.Refused[ReasonCollision] != 1 || len(c.Refused) != len(Reasons()) || c.Crowded != 0 {
		t.Errorf("counts are %+v", c)
	}
}

// Each of the things that make another neighbour of one, and the order in which they are listed.
func TestListeningTellsNeighboursApart(t *testing.T) {
	l := NewListening()
	hear := func(o Origin, a Advert) { l.Heard(1, o, a, Plain, nil) }
	other := advert3(1)
	other.VRID = 8
	v2 := advert3(1)
	v2.Version = V2
	hear(Origin{Interface: "eth1", From: highAddr}, advert3(1))
	hear(Origin{Interface: "eth0", From: highAddr6.WithZone("eth0")}, advert3(1))
	hear(Origin{Interface: "eth0", From: highAddr6}, advert3(1)) // the same
	hear(eth0, other)
	hear(eth0, advert3(1))
	hear(eth0, v2)
	hear(Origin{Interface: "eth0", From: lowAddr}, advert3(1))
	var got []string
	for _, n := range l.Neighbours(1) {
		got = append(got, fmt.Sprint(n.Interface, " ", n.Family, " ", n.VRID, " ", n.From, " ", n.Version, " ", n.Adverts))
	}
	want := []string{
		"eth0 ipv4 7 192.0.2.4 3 1", "eth0 ipv4 7 192.0.2.130 2 1", "eth0 ipv4 7 192.0.2.130 3 1", "eth0 ipv4 8 192.0.2.130 3 1",
		"eth0 ipv6 7 fe80::8000:0:0:0 3 2", "eth1 ipv4 7 192.0.2.130 3 1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("heard\n %q, want\n %q", got, want)
	}
}

func TestListeningIgnoresOurOwn(t *testing.T) {
	l := NewListening()
	l.SetOwn([]netip.Addr{lowAddr})
	l.SetOwn([]netip.Addr{ourAddr, ourAddr6.WithZone("eth0")})
	l.Heard(1, Origin{Interface: "eth0", From: ourAddr}, advert3(100), Plain, nil)
	l.Undecoded(1, Origin{Interface: "eth0", From: ourAddr6.WithZone("eth1")}, &Reject{Reason: ReasonType, VRID: 7}, nil)
	if n := l.Neighbours(1); len(n) != 0 {
		t.Errorf("heard %+v", n)
	}
	if c := l.Counts(); c.Refused[ReasonOwnSource] != 2 || c.Accepted != 0 || c.Refused[ReasonType] != 0 {
		t.Errorf("counts are %+v", c)
	}
	l.Heard(1, Origin{Interface: "eth0", From: lowAddr}, advert3(100), Plain, nil)
	if n := l.Neighbours(1); len(n) != 1 {
		t.Errorf("an address that is no longer ours: %+v", n)
	}
}

func TestListeningUndecoded(t *testing.T) {
	l := NewListening()
	reject := &Reject{ReasonChecksum, 7, 1, 2}
	l.Undecoded(5, eth0, reject, nil)
	carp := append([]byte{0x21, 9, 240, 7, 3, 1}, make([]byte, 30)...)
	_, _, err := Decode(carp, byHand[0].meta, nil)
	l.Undecoded(6, eth0, err.(*Reject), carp)
	got := l.Neighbours(6)
	if len(got) != 2 {
		t.Fatalf("heard %+v", got)
	}
	if n := got[0]; n.Dialect != Unreadable || n.Reject != *reject || n.Refused != 1 || n.Adverts != 0 || n.Speaking(6) {
		t.Errorf("unreadable: %+v", n)
	}
	n := got[1]
	if n.Dialect != SpeaksCARP || n.VRID != 9 || n.CARP != (CARP{VHID: 9, AdvBase: 1, AdvSkew: 240, Demote: 3}) || n.Reject.Reason != ReasonCARP {
		t.Errorf("carp: %+v", n)
	}
	const three = 3*sec + 3*240*sec/256
	if !n.Speaking(Instant(6).Add(three-1)) || n.Speaking(Instant(6).Add(three)) {
		t.Errorf("a carp speaker is heard for three of its intervals")
	}
	if c := l.Counts(); c.Refused[ReasonChecksum] != 1 || c.Refused[ReasonCARP] != 1 {
		t.Errorf("counts are %+v", c)
	}
}

func TestParseCARPTakesNothingElse(t *testing.T) {
	five := Advert{V2, 7, Default, 100, Auth{}, addrs("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5")}
	b, err := five.AppendTo(nil, highAddr, GroupIPv4, Plain)
	if err != nil || len(b) != carpLen {
		t.Fatalf("%d bytes, %v: the advert was chosen to be as long as CARP's", len(b), err)
	}
	for name, b := range map[string][]byte{"vrrp of its length": b, "cut": make([]byte, 35), "other version": append([]byte{0x31, 9, 240, 7}, make([]byte, 32)...)} {
		if c, ok := ParseCARP(b); ok || c != (CARP{}) {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func TestNeighbourSpeaking(t *testing.T) {
	l := NewListening()
	l.Heard(0, eth0, advert3(200), Plain, nil)
	n := l.Neighbours(0)[0]
	const wait = 3*sec + 996093750
	if !n.Speaking(Instant(wait-1)) || n.Speaking(Instant(wait)) {
		t.Error("it counts as Active for as long as the least backup would wait")
	}
	l.Heard(1, eth0, advert3(Release), Plain, nil)
	if n := l.Neighbours(1)[0]; n.Speaking(1) {
		t.Error("who released counts as Active")
	}
}

func TestListeningForgets(t *testing.T) {
	l := NewListening()
	l.Heard(0, eth0, advert3(200), Plain, nil)
	l.Heard(0, eth0, advert3(200), Plain, nil)
	l.Heard(0, Origin{Interface: "eth0", From: lowAddr}, advert3(200), Plain, nil) // once
	for _, c := range []struct {
		at   time.Duration
		want int
	}{{time.Minute - 1, 2}, {time.Minute, 1}, {time.Hour - 1, 1}, {time.Hour, 0}} {
		if got := len(l.Neighbours(Instant(c.at))); got != c.want {
			t.Errorf("after %v: %d remembered, want %d", c.at, got, c.want)
		}
	}
}

func TestListeningHearsAgainWhomItForgot(t *testing.T) {
	l := NewListening()
	l.Heard(0, eth0, advert3(200), Plain, nil)
	l.Forget(Instant(time.Hour))
	l.Heard(Instant(time.Hour), eth0, advert3(200), Plain, nil)
	if got := l.Neighbours(Instant(time.Hour)); len(got) != 1 || got[0].First != Instant(time.Hour) || got[0].Adverts != 1 {
		t.Errorf("heard %+v", got)
	}
}

// What is not known this time does not make known what was before.
func TestListeningKeepsTheMAC(t *testing.T) {
	l := NewListening()
	l.Heard(0, eth0, advert3(200), Plain, nil)
	l.Heard(1, Origin{Interface: "eth0", From: highAddr}, advert3(200), Plain, nil)
	if got := l.Neighbours(1); len(got) != 1 || !slices.Equal(got[0].MAC, eth0.MAC) {
		t.Errorf("heard %+v", got)
	}
}

// A reason that there is not is counted nowhere, and does no harm.
func TestListeningUnknownReason(t *testing.T) {
	l := NewListening()
	l.Undecoded(0, eth0, &Reject{Reason: reasonEnd, VRID: 7}, nil)
	if got := l.Neighbours(0); len(got) != 1 || got[0].Refused != 1 {
		t.Errorf("heard %+v", got)
	}
}

// When it is full, those that come in turn take one place each, and leave nothing of who was there.
func TestListeningGivesEachItsOwnPlace(t *testing.T) {
	l := NewListening()
	flood(l, 0, MaxNeighbours, 0)
	l.Heard(1, Origin{Interface: "eth0", From: highAddr}, advert3(1), Plain, nil)
	l.Heard(1, Origin{Interface: "eth0", From: lowAddr}, advert3(1), Plain, nil)
	found := 0
	for _, n := range l.Neighbours(1) {
		if n.From == highAddr || n.From == lowAddr {
			found++
			if n.MAC != nil || n.Priority != 1 || n.Adverts != 1 || n.First != 1 {
				t.Errorf("%v has %+v", n.From, n)
			}
		}
	}
	if found != 2 || len(l.neighbours) != MaxNeighbours {
		t.Errorf("%d of the two that came last, %d in all", found, len(l.neighbours))
	}
}

// flood delivers n adverts from forged sources, one each every.
func flood(l *Listening, now Instant, n int, every time.Duration) Instant {
	a, mac := advert3(255), slices.Clone(eth0.MAC)
	for i := range n {
		var from [4]byte
		binary.BigEndian.PutUint32(from[:], 10<<24|uint32(i))
		mac[5] = byte(i)
		l.Heard(now, Origin{"eth0", netip.AddrFrom4(from), mac}, a, Plain, nil)
		now = now.Add(every)
	}
	return now
}

// Ten seconds of 10,000 a second from as many sources, beside one real router: that one stays, and memory does not grow.
func TestListeningFlood(t *testing.T) {
	l := NewListening()
	var now Instant
	second := func() {
		l.Heard(now, eth0, advert3(200), Plain, nil)
		now = flood(l, now, 10_000, 100*time.Microsecond)
	}
	l.Heard(now, eth0, advert3(200), Plain, nil)
	second()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 9 {
		second()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<10 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	got := l.Neighbours(now)
	i := slices.IndexFunc(got, func(n Neighbour) bool { return n.From == highAddr })
	if len(got) != MaxNeighbours || i < 0 || got[i].Adverts != 11 {
		t.Errorf("%d remembered, the real router at %d", len(got), i)
	}
	if c := l.Counts(); c.Accepted != 100_011 {
		t.Errorf("accepted %d", c.Accepted)
	}
	// When the flood is over a new router gets in.
	now = now.Add(time.Minute)
	l.Heard(now, Origin{Interface: "eth0", From: lowAddr}, advert3(100), Plain, nil)
	if got := l.Neighbours(now); len(got) != 2 && len(got) != 3 {
		t.Errorf("a minute later: %d remembered", len(got))
	}
}

// Where every place is taken by somebody who speaks, the next is counted and not remembered.
func TestListeningCrowded(t *testing.T) {
	l := NewListening()
	flood(l, 0, MaxNeighbours, 0)
	flood(l, 1, MaxNeighbours, 0) // all heard twice
	l.Heard(2, eth0, advert3(100), Plain, nil)
	l.Undecoded(2, eth0, &Reject{Reason: ReasonType, VRID: 7}, nil)
	if c := l.Counts(); c.Crowded != 2 || c.Accepted != 2*MaxNeighbours+1 || c.Refused[ReasonType] != 1 {
		t.Errorf("counts are accepted %d, crowded %d, type %d", c.Accepted, c.Crowded, c.Refused[ReasonType])
	}
	const silent = 4 * sec
	l.Heard(Instant(silent), eth0, advert3(100), Plain, nil) // they have fallen silent: there is room
	if got := l.Neighbours(Instant(silent)); len(got) != MaxNeighbours || !slices.ContainsFunc(got, func(n Neighbour) bool { return n.From == highAddr }) {
		t.Errorf("%d remembered, without the new one", len(got))
	}
}

func TestListeningDoesNotAllocateForWhomItKnows(t *testing.T) {
	l := NewListening()
	a := advert3(200)
	l.Heard(0, eth0, a, Plain, nil)
	if n := testing.AllocsPerRun(100, func() { l.Heard(1, eth0, a, Plain, nil) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func TestDialectNames(t *testing.T) {
	for d, want := range map[Dialect]string{SpeaksVRRP: "vrrp", SpeaksCARP: "carp", Unreadable: "unreadable", 0: "dialect(0)"} {
		if got := d.String(); got != want {
			t.Errorf("%d prints %q, want %q", uint8(d), got, want)
		}
	}
	for l, want := range map[Lesson]string{LessonKnown: "known", LessonLearned: "learned", LessonConflict: "conflict", 0: "lesson(0)"} {
		if got := l.String(); got != want {
			t.Errorf("%d prints %q, want %q", uint8(l), got, want)
		}
	}
}
