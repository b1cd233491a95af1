package daemon

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/vrrpcompat"
	"github.com/quorate/quorate/vrrpcompat/wire"
)

// nowhere is a device that no host has, so that the tests hear nothing but what they say.
const nowhere = "q-none"

var (
	self     = netip.MustParseAddr("10.0.0.1")
	stranger = netip.MustParseAddr("10.0.0.9")
	vip      = netip.MustParsePrefix("10.0.0.200/24")
	vip6     = netip.MustParsePrefix("2001:db8::200/64")
)

// A heardAdvert is what the speaker told the agent.
type heardAdvert struct {
	group, link string
	from        netip.Addr
	advert      vrrpcompat.Advert
}

type speakerTest struct {
	*speaker
	t       testing.TB
	now     election.Instant
	told    []heardAdvert
	sources []string // as the agent was told
	log     strings.Builder
}

func newSpeakerTest(t testing.TB) *speakerTest {
	t.Helper()
	st := &speakerTest{t: t, now: election.Instant(start)}
	var err error
	st.speaker, err = newSpeaker(speakerConfig{
		IsVirtual: func(netip.Addr) bool { return false },
		Via:       func(routerKey) (string, bool) { return "", false },
		Heard: func(group, link string, from netip.Addr, a vrrpcompat.Advert) {
			st.told = append(st.told, heardAdvert{group, link, from, a})
		},
		Source: func(link string, family vrrpcompat.Family, peer, source netip.Addr) {
			st.sources = append(st.sources, fmt.Sprintf("%s %v to %v from %v", link, family, peer, source))
		},
		Log: slog.New(slog.NewTextHandler(&st.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

// group is one of a virtual router 51, changed by change.
func group(change func(*fsm.Group)) fsm.Group {
	g := fsm.Group{Name: "web", Addresses: []netip.Prefix{vip}, Placement: fsm.PlacementLeader,
		VRRP: fsm.VRRP{ID: 51, Version: 3, Priority: 254, Interval: time.Second, Checksum: fsm.ChecksumAuto, Outranked: fsm.OutrankedYield}}
	change(&g)
	return g
}

func places(g fsm.Group) (at []core.Place) {
	for _, p := range g.Addresses {
		at = append(at, core.Place{Link: nowhere, Prefix: p})
	}
	return at
}

func (st *speakerTest) serveGroup(g fsm.Group) {
	st.t.Helper()
	if err := st.Serve(g, places(g)); err == nil || !strings.Contains(err.Error(), nowhere) {
		st.t.Fatalf("Serve on a device that is not there: %v", err)
	}
	st.sourceChanged(nowhere, vrrpcompat.IPv4, netip.Addr{}, self)
}

// theirs is the advert of a router outside.
func theirs(change func(*vrrpcompat.Advert)) vrrpcompat.Advert {
	a := vrrpcompat.Advert{Version: vrrpcompat.V3, VRID: 51, Priority: 100, Interval: 100, Addresses: []netip.Addr{vip.Addr()}}
	change(&a)
	return a
}

// packet puts an advert into a packet from one address to another.
func (st *speakerTest) packet(from, to netip.Addr, a vrrpcompat.Advert, sum vrrpcompat.Checksum) *wire.Packet {
	st.t.Helper()
	b, err := a.AppendTo(nil, from, to, sum)
	if err != nil {
		st.t.Fatal(err)
	}
	st.now = st.now.Add(time.Second)
	return &wire.Packet{Device: nowhere, Family: vrrpcompat.FamilyOf(from), Source: from, Destination: to, HopLimit: 255,
		MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, Arrival: st.now, Payload: b}
}

func (st *speakerTest) multicast(from netip.Addr, a vrrpcompat.Advert, sum vrrpcompat.Checksum) {
	st.t.Helper()
	st.hear(st.packet(from, vrrpcompat.FamilyOf(from).Group(), a, sum))
}

// TestSpeakerResults: every packet ends in one result, is counted, and goes on to the
// agent only when it may be acted on.
func TestSpeakerResults(t *testing.T) {
	plain := func(st *speakerTest, change func(*vrrpcompat.Advert)) *wire.Packet {
		return st.packet(stranger, vrrpcompat.GroupIPv4, theirs(change), vrrpcompat.PseudoHeader)
	}
	for _, tt := range []struct {
		result string
		packet func(*speakerTest) *wire.Packet
	}{
		{"accepted", func(st *speakerTest) *wire.Packet { return plain(st, func(*vrrpcompat.Advert) {}) }},
		{"vrid-unknown", func(st *speakerTest) *wire.Packet { return plain(st, func(a *vrrpcompat.Advert) { a.VRID = 52 }) }},
		{"version-mismatch", func(st *speakerTest) *wire.Packet {
			return plain(st, func(a *vrrpcompat.Advert) { a.Version = vrrpcompat.V2 })
		}},
		{"vrid-collision", func(st *speakerTest) *wire.Packet {
			return plain(st, func(a *vrrpcompat.Advert) { a.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.1")} })
		}},
		{"own-source", func(st *speakerTest) *wire.Packet {
			return st.packet(self, vrrpcompat.GroupIPv4, theirs(func(*vrrpcompat.Advert) {}), vrrpcompat.PseudoHeader)
		}},
		{"hop-limit", func(st *speakerTest) *wire.Packet {
			p := plain(st, func(*vrrpcompat.Advert) {})
			p.HopLimit = 64
			return p
		}},
		{"checksum", func(st *speakerTest) *wire.Packet {
			p := plain(st, func(*vrrpcompat.Advert) {})
			p.Payload[6] ^= 1
			return p
		}},
		{"too-short", func(st *speakerTest) *wire.Packet {
			p := plain(st, func(*vrrpcompat.Advert) {})
			p.Payload = p.Payload[:1]
			return p
		}},
		{"own-address-spoofed", func(st *speakerTest) *wire.Packet {
			p := plain(st, func(*vrrpcompat.Advert) {})
			p.Reason = wire.ReasonSpoofed
			return p
		}},
		{"unicast", func(st *speakerTest) *wire.Packet {
			return st.packet(stranger, self, theirs(func(*vrrpcompat.Advert) {}), vrrpcompat.PseudoHeader)
		}},
	} {
		t.Run(tt.result, func(t *testing.T) {
			st := newSpeakerTest(t)
			st.serveGroup(group(func(*fsm.Group) {}))
			st.hear(tt.packet(st))
			if got := st.counts(); len(got) != 1 || got[tt.result] != 1 {
				t.Errorf("counted %v", got)
			}
			if want := tt.result == accepted; want != (len(st.told) == 1) {
				t.Errorf("told the agent %v", st.told)
			}
			if want := tt.result != accepted && tt.result != "vrid-unknown"; want != strings.Contains(st.log.String(), "reason="+tt.result) {
				t.Errorf("log %q", st.log.String())
			}
			v := st.view(vrrpcompat.Instant(st.now))
			if tt.result != accepted && (len(v.Refused) != 1 || v.Refused[0].Reason != tt.result || v.Refused[0].Text == "" || v.Refused[0].Device != nowhere) {
				t.Errorf("refused %+v", v.Refused)
			}
		})
	}
}

// A router that is refused for how its packets come is among the neighbours all the same.
func TestSpeakerNotesRefused(t *testing.T) {
	st := newSpeakerTest(t)
	st.serveGroup(group(func(*fsm.Group) {}))
	st.hear(st.packet(stranger, self, theirs(func(*vrrpcompat.Advert) {}), vrrpcompat.PseudoHeader))
	ah := st.packet(netip.MustParseAddr("10.0.0.8"), vrrpcompat.GroupIPv4, theirs(func(a *vrrpcompat.Advert) { a.Version = vrrpcompat.V2 }), vrrpcompat.Plain)
	ah.Reason = wire.ReasonAH
	st.hear(ah)
	var got []string
	for _, n := range st.view(vrrpcompat.Instant(st.now)).Neighbours {
		got = append(got, n.Address+" "+n.LastRefusal.Reason)
	}
	if !slices.Equal(got, []string{"10.0.0.8 auth-type", "10.0.0.9 not-multicast"}) || len(st.told) != 0 {
		t.Errorf("neighbours %q, told %v", got, st.told)
	}
}

func TestWhyNotIsWhole(t *testing.T) {
	for r := wire.Reason(1); !strings.HasPrefix(r.String(), "reason("); r++ {
		if whyNot[r] == "" {
			t.Errorf("%v has no text", r)
		}
	}
}

// What the agent is told stays as it is when the next packet comes.
func TestSpeakerTellsCopies(t *testing.T) {
	st := newSpeakerTest(t)
	st.serveGroup(group(func(g *fsm.Group) { g.Addresses = append(g.Addresses, netip.MustParsePrefix("10.0.0.201/24")) }))
	two := []netip.Addr{vip.Addr(), netip.MustParseAddr("10.0.0.201")}
	st.multicast(stranger, theirs(func(a *vrrpcompat.Advert) { a.Addresses = two }), vrrpcompat.PseudoHeader)
	st.multicast(stranger, theirs(func(a *vrrpcompat.Advert) { a.Addresses = []netip.Addr{two[1], two[0]} }), vrrpcompat.PseudoHeader)
	if len(st.told) != 2 || !slices.Equal(st.told[0].advert.Addresses, two) {
		t.Fatalf("told %v", st.told)
	}
	if got := st.told[0]; got.group != "web" || got.link != nowhere || got.from != stranger || got.advert.Priority != 100 {
		t.Errorf("told %+v", got)
	}
}

// TestSpeakerMirrors: with checksum auto the adverts get the form of a router outside,
// of no node of the cluster, and the log and the view say of whom.
func TestSpeakerMirrors(t *testing.T) {
	st := newSpeakerTest(t)
	g := group(func(*fsm.Group) {})
	st.serveGroup(g)
	key := routerKey{port{nowhere, vrrpcompat.IPv4}, 51}
	form := func() vrrpcompat.Checksum { return st.form(key, g.VRRP, vrrpcompat.GroupIPv4) }

	node := netip.MustParseAddr("10.0.0.2")
	st.Insiders([]netip.Addr{node})
	st.multicast(node, theirs(func(*vrrpcompat.Advert) {}), vrrpcompat.Plain)
	if form() != vrrpcompat.PseudoHeader {
		t.Error("learned from a node of the cluster")
	}
	st.multicast(stranger, theirs(func(*vrrpcompat.Advert) {}), vrrpcompat.Plain)
	if form() != vrrpcompat.Plain || !strings.Contains(st.log.String(), "checksum=plain of=10.0.0.9") {
		t.Errorf("form %v, log %q", form(), st.log.String())
	}
	st.multicast(netip.MustParseAddr("10.0.0.8"), theirs(func(*vrrpcompat.Advert) {}), vrrpcompat.PseudoHeader)
	if form() != vrrpcompat.Plain || !strings.Contains(st.log.String(), "use different checksums") {
		t.Errorf("form %v, log %q", form(), st.log.String())
	}
	to := st.view(vrrpcompat.Instant(st.now)).Routers[0].To
	if want := (api.VRRPDestination{Address: "224.0.0.18", Checksum: "plain", Mirrored: true, Of: "10.0.0.9"}); len(to) != 1 || to[0] != want {
		t.Errorf("view %+v, want %+v", to, want)
	}

	// What was learned is kept when the group is served anew, and not where the form is written.
	st.serveGroup(group(func(g *fsm.Group) { g.VRRP.Priority = 200 }))
	if form() != vrrpcompat.Plain {
		t.Error("forgot what was learned")
	}
	g.VRRP.Checksum = fsm.ChecksumPseudoHeader
	st.serveGroup(g)
	st.multicast(stranger, theirs(func(*vrrpcompat.Advert) {}), vrrpcompat.Plain)
	if form() != vrrpcompat.PseudoHeader {
		t.Error("mirrors though pseudo-header is written")
	}
}

// TestSpeakerUnicast: peers are heard by unicast, each with a form of its own; others
// and multicast are not.
func TestSpeakerUnicast(t *testing.T) {
	st := newSpeakerTest(t)
	other := netip.MustParseAddr("10.0.0.8")
	g := group(func(g *fsm.Group) {
		g.VRRP.Unicast = []fsm.Peer{{Addr: stranger, MinTTL: 1, MaxTTL: 255}, {Addr: other, MinTTL: 255, MaxTTL: 255}, {Addr: netip.MustParseAddr("fe80::9"), MinTTL: 255, MaxTTL: 255}}
	})
	st.serveGroup(g)
	a := theirs(func(*vrrpcompat.Advert) {})
	st.hear(st.packet(stranger, self, a, vrrpcompat.Plain))
	far := st.packet(other, self, a, vrrpcompat.PseudoHeader)
	far.HopLimit = 254
	st.hear(far)
	st.multicast(stranger, a, vrrpcompat.Plain)
	st.hear(st.packet(netip.MustParseAddr("10.0.0.7"), self, a, vrrpcompat.PseudoHeader))
	if got := st.counts(); got["accepted"] != 1 || got["hop-limit"] != 1 || got["multicast"] != 1 || got["not-a-peer"] != 1 {
		t.Errorf("counted %v", got)
	}
	key := routerKey{port{nowhere, vrrpcompat.IPv4}, 51}
	if got := st.form(key, g.VRRP, stranger); got != vrrpcompat.Plain {
		t.Errorf("to the teacher: %v", got)
	}
	if got := st.form(key, g.VRRP, other); got != vrrpcompat.PseudoHeader {
		t.Errorf("to another: %v", got)
	}
	if r := st.view(vrrpcompat.Instant(st.now)).Routers; len(r) != 1 || len(r[0].To) != 2 || r[0].To[0].Checksum != "plain" || r[0].To[1].Of != "" {
		t.Errorf("view %+v", r)
	}
}

// TestSpeakerServes: what a group no longer has is no longer listened for, and another
// group's is.
func TestSpeakerServes(t *testing.T) {
	st := newSpeakerTest(t)
	st.serveGroup(group(func(g *fsm.Group) { g.Addresses = append(g.Addresses, vip6) }))
	st.serveGroup(group(func(g *fsm.Group) {
		g.Name, g.VRRP.ID, g.Addresses = "db", 52, []netip.Prefix{netip.MustParsePrefix("10.0.0.201/24")}
	}))
	names := func() (out []string) {
		for _, r := range st.view(vrrpcompat.Instant(st.now)).Routers {
			out = append(out, fmt.Sprintf("%s %s %d", r.Group, r.Family, r.VRID))
		}
		return out
	}
	if got := names(); !slices.Equal(got, []string{"web ipv4 51", "db ipv4 52", "web ipv6 51"}) {
		t.Fatalf("serves %q", got)
	}
	if begun, ended := st.serve(group(func(*fsm.Group) {}), nil); begun != nil || !slices.Equal(ended, []port{{nowhere, vrrpcompat.IPv6}}) {
		t.Errorf("begun %v, ended %v", begun, ended)
	}
	if got := names(); !slices.Equal(got, []string{"db ipv4 52"}) {
		t.Errorf("serves %q", got)
	}
	if st.multicast(stranger, theirs(func(*vrrpcompat.Advert) {}), vrrpcompat.PseudoHeader); len(st.told) != 0 {
		t.Errorf("told of a group that is gone: %v", st.told)
	}
	if err := st.Serve(group(func(g *fsm.Group) { g.VRRP.Interval = time.Millisecond }), places(group(func(*fsm.Group) {}))); err == nil {
		t.Error("an interval that no advert carries was taken")
	}
}

// TestSpeakerFlood: thousands of adverts cost the agent and the log a bounded number of
// messages, whoever sends them.
func TestSpeakerFlood(t *testing.T) {
	st := newSpeakerTest(t)
	st.serveGroup(group(func(*fsm.Group) {}))
	a := theirs(func(a *vrrpcompat.Advert) { a.Priority = 255 })
	const packets = 10000
	for i := range packets {
		p := st.packet(source(i), vrrpcompat.GroupIPv4, a, vrrpcompat.PseudoHeader)
		p.Arrival = election.Instant(start).Add(time.Duration(i) * 100 * time.Microsecond) // one second in all
		if i%2 == 1 {
			p.Payload[6] ^= 1
		}
		st.hear(p)
	}
	got := st.counts()
	if got["accepted"] != packets/2 || got["checksum"] != packets/2 {
		t.Errorf("counted %v", got)
	}
	if len(st.told) == 0 || len(st.told) > 2*newcomers {
		t.Errorf("told the agent %d times", len(st.told))
	}
	if lines := strings.Count(st.log.String(), "\n"); lines != 1 {
		t.Errorf("%d lines in the log", lines)
	}
	if v := st.view(vrrpcompat.Instant(st.now)); len(v.Neighbours) > vrrpcompat.MaxNeighbours || v.Accepted != packets/2 {
		t.Errorf("%d neighbours, %d accepted", len(v.Neighbours), v.Accepted)
	}
}

// TestSpeakerView: what a person is shown of one router outside.
func TestSpeakerView(t *testing.T) {
	st := newSpeakerTest(t)
	st.serveGroup(group(func(g *fsm.Group) { g.VRRP.AlsoV2, g.VRRP.Password, g.VMAC = true, "secret", true }))
	other, err := vrrpcompat.SimplePassword("another")
	if err != nil {
		t.Fatal(err)
	}
	st.multicast(stranger, theirs(func(a *vrrpcompat.Advert) { a.Version, a.Auth, a.Interval = vrrpcompat.V2, other, 200 }), vrrpcompat.Plain)
	v := st.view(vrrpcompat.Instant(st.now.Add(time.Second)))
	r := v.Routers[0]
	if r.Version != "both" || !r.Password || r.MAC != "00:00:5e:00:01:33" || r.Source != "10.0.0.1" || r.Listening || r.IntervalMS != 1000 {
		t.Errorf("router %+v", r)
	}
	if len(v.Neighbours) != 1 {
		t.Fatalf("neighbours %+v", v.Neighbours)
	}
	n := v.Neighbours[0]
	if n.Address != "10.0.0.9" || n.MAC != "02:00:00:00:00:09" || !n.Speaking || n.Version != 2 || *n.Priority != 100 || n.Auth != "simple password" ||
		n.LastAgoMS != 1000 || n.LastRefusal == nil || n.LastRefusal.Reason != "auth-data" {
		t.Errorf("neighbour %+v", n)
	}
	var fields []string
	for _, d := range n.Differences {
		fields = append(fields, d.Field)
		if strings.Contains(d.Here+d.There+d.Advice, "secret") || strings.Contains(d.There, "another\x00") || d.Group != "web" {
			t.Errorf("difference %+v", d)
		}
	}
	if !slices.Equal(fields, []string{"auth", "interval"}) {
		t.Errorf("differences %q", fields)
	}
	st.Insiders([]netip.Addr{stranger})
	if n := st.view(vrrpcompat.Instant(st.now)).Neighbours[0]; !n.Insider || n.Differences != nil {
		t.Errorf("a node of the cluster: %+v", n)
	}
}

// TestSpeakerTellsSources: the agent is told where adverts come from, each time that the
// transport says so; that tells when a source is none any more, so what it said last is
// not forgotten with the last group on a device.
func TestSpeakerTellsSources(t *testing.T) {
	st := newSpeakerTest(t)
	g := group(func(*fsm.Group) {})
	st.serveGroup(g)
	st.sourceChanged(nowhere, vrrpcompat.IPv4, netip.Addr{}, netip.Addr{})
	st.sourceChanged(nowhere, vrrpcompat.IPv4, netip.Addr{}, self)
	st.sourceChanged(nowhere, vrrpcompat.IPv4, stranger, stranger.Next())
	if err := st.Serve(g, nil); err != nil {
		t.Fatal(err)
	}
	_ = st.Serve(g, places(g)) // the device is not there
	want := []string{"q-none ipv4 to invalid IP from 10.0.0.1", "q-none ipv4 to invalid IP from invalid IP",
		"q-none ipv4 to invalid IP from 10.0.0.1", "q-none ipv4 to 10.0.0.9 from 10.0.0.10"}
	if !slices.Equal(st.sources, want) {
		t.Errorf("told %q, want %q", st.sources, want)
	}
	if r := st.view(vrrpcompat.Instant(st.now)).Routers; len(r) != 1 || r[0].Source != self.String() {
		t.Errorf("routers %+v", r)
	}
}

// TestFillStates: each virtual router is shown as the agent has it, with who outranks it;
// one that the agent does not have yet has not begun.
func TestFillStates(t *testing.T) {
	routers := []api.VRRPRouter{
		{Group: "web", Device: "eth0", Family: "ipv4"}, {Group: "web", Device: "eth0", Family: "ipv6"},
		{Group: "web", Device: "eth1", Family: "ipv4"}, {Group: "db", Device: "eth0", Family: "ipv4"},
	}
	fillStates(routers, []core.VIPStatus{
		{Name: "web", VRRP: &core.VRRPStatus{State: "Active", Routers: []core.RouterStatus{
			{Link: "eth0", Family: "ipv4", State: "Active", Outranked: &core.RivalStatus{From: "10.0.0.9", Priority: 255}, Alarm: true},
			{Link: "eth0", Family: "ipv6", State: "Backup", Outranked: &core.RivalStatus{From: "fe80::9", Priority: 254}},
		}}},
		{Name: "db"},
	})
	var got []string
	for _, r := range routers {
		text := r.State
		if r.Rival != nil {
			text += fmt.Sprintf(" %s %d %v", r.Rival.Address, r.Rival.Priority, r.Rival.Held)
		}
		got = append(got, text)
	}
	if want := []string{"Active 10.0.0.9 255 true", "Backup fe80::9 254 false", "Initialize", "Initialize"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
