package interop

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/shadow"
	"github.com/quorate/quorate/tests/lab"
)

var (
	// The addresses of a pair of keepalived.
	shadowVIP4 = netip.MustParsePrefix("10.0.0.200/24")
	shadowVIP6 = netip.MustParsePrefix("2001:db8::f:1/64")
)

// TestShadowBesideKeepalived has shadows run on the hosts of a pair of keepalived, and on a
// third. The first keepalived stops and comes back: all that is sent for the addresses and
// all that stands on the hosts is keepalived's, and the shadows tell what they saw.
func TestShadowBesideKeepalived(t *testing.T) {
	t.Parallel()
	t.Run("router", func(t *testing.T) {
		t.Parallel()
		shadowed(t, alone)
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		shadowed(t, cluster)
	})
}

func shadowed(t *testing.T, m mode) {
	t.Helper()
	needs(t, "keepalived", "keepalived")
	l := newLab(t)
	hosts := []*lab.Host{addHost(t, l, "n1", 1), addHost(t, l, "n2", 2), addHost(t, l, "n3", 3)}
	judge := addHost(t, l, "judge", judgeNumber)
	w := watch(t, judge, hosts, []netip.Addr{shadowVIP4.Addr(), shadowVIP6.Addr()})
	nodes := shadowNodes(t, l, m, hosts)
	sent := recordSent(t, hosts)

	var pair []*lab.Process
	for i, h := range hosts[:2] {
		k, err := h.StartKeepalived(shadowKeepalived(i))
		must(t, err)
		pair = append(pair, k)
	}
	onlyAnswers(t, w, hosts[0]) // so that the shadows find the addresses in place
	before := hostState(t, hosts[2])
	for _, n := range nodes {
		must(t, n.start())
	}
	nodes[0].awaitStatus(t, "n1", "n1 (this host, on eth0)")
	nodes[2].awaitStatus(t, "n1", "10.0.0.1")
	pause(2 * time.Second) // in which all have looked

	stopped := lab.Now()
	must(t, pair[0].Stop(10*time.Second))
	nodes[1].awaitStatus(t, "", "n2 (this host, on eth0)")
	nodes[2].awaitStatus(t, "n1", "10.0.0.2")
	if got := hostState(t, hosts[2]); got != before {
		t.Errorf("n3 was changed:\n%s\nbefore:\n%s", got, before)
	}
	pause(time.Second)
	returned := lab.Now()
	k, err := hosts[0].StartKeepalived(shadowKeepalived(0))
	must(t, err)
	nodes[0].awaitStatus(t, "n1", "n1 (this host, on eth0)")
	nodes[2].awaitStatus(t, "n1", "10.0.0.1")
	pause(time.Second)
	ended := lab.Now()

	reports := make([]shadow.GroupReport, len(nodes))
	for i, n := range slices.Backward(nodes) { // n1 last: who ends hands over what it would have
		reports[i] = n.end(t)
	}
	must(t, errors.Join(k.Stop(10*time.Second), pair[1].Stop(10*time.Second)))
	if got := hostState(t, hosts[2]); got != before {
		t.Errorf("n3 was changed:\n%s\nbefore:\n%s", got, before)
	}
	keepalivedOnly(t, w, sent, stopped, returned, ended)
	if m == alone {
		sent.nothingFrom(t, "n3")
	}
	told(t, m, reports)
}

// told: the summaries have what happened.
func told(t *testing.T, m mode, reports []shadow.GroupReport) {
	t.Helper()
	moves := []string{"n1", "n2", "n1"}
	if m == alone { // nobody tells it which node an address is of
		moves = []string{"10.0.0.1", "10.0.0.2", "10.0.0.1"}
	}
	for i, r := range reports {
		t.Logf("n%d: agreed %gs, differed %gs, nobody %gs; changes %+v; decisions %+v", i+1, r.AgreedMS/1000, r.DifferedMS/1000, r.NobodyMS/1000, r.Changes, r.Decisions)
		if r.AgreedMS < 1000 || len(r.TwoHosts) > 0 || r.Verdict != "agreed" {
			t.Errorf("n%d: agreed %g ms, two hosts %v, at the end %s", i+1, r.AgreedMS, r.TwoHosts, r.Verdict)
		}
		var seen []string
		for _, c := range r.Changes {
			if c.To != "" && !strings.Contains(c.To, " and n") && !strings.Contains(c.To, ") and ") { // both, for the instant of a hand-over
				seen = append(seen, c.To)
			}
		}
		want := slices.Clone(moves)
		if i < 2 {
			want[i], want[i*2] = fmt.Sprintf("n%d (this host", i+1), fmt.Sprintf("n%d (this host", i+1)
			if i == 1 {
				want = []string{moves[0], "n2 (this host", moves[2]}
			} else {
				want[2] = "n1 (this host"
			}
		}
		if len(seen) != 3 || !strings.Contains(seen[0], want[0]) || !strings.Contains(seen[1], want[1]) || !strings.Contains(seen[2], want[2]) {
			t.Errorf("n%d saw the addresses at %q, want %q", i+1, seen, want)
		}
		// Only of n1 is it known to a router of its own that it would go on.
		if differs := m == cluster || i == 0; differs != (r.DifferedMS > 0) || differs != slices.ContainsFunc(r.Differences, func(d shadow.Difference) bool {
			return d.Would == "n1" && strings.Contains(d.Really, moves[1])
		}) {
			t.Errorf("n%d: differed %g ms, %+v", i+1, r.DifferedMS, r.Differences)
		}
	}
}

// keepalivedOnly: every advert and every claim comes from the keepalived that has the
// addresses.
func keepalivedOnly(t *testing.T, w *wire, sent *sentFrames, stopped, returned, ended lab.Instant) {
	t.Helper()
	const slack = 2 * time.Second // until a keepalived has ended, or come
	may := func(host string, at lab.Instant) bool {
		switch host {
		case "n1":
			return at < stopped.Add(slack) || at > returned
		case "n2":
			return at > stopped && at < returned.Add(10*time.Second) || at > ended
		}
		return false
	}
	priorities := map[string]uint8{"n1": 150, "n2": 100}
	adverts := w.between(51, 0, lab.Now())
	if len(adverts) < 10 {
		t.Errorf("%d adverts were seen", len(adverts))
	}
	for _, s := range adverts {
		if p := uint8(s.advert.Priority); !may(s.host, s.at) || p != 0 && p != priorities[s.host] {
			t.Errorf("not keepalived's: %v", s)
		}
	}
	for _, vip := range []netip.Prefix{shadowVIP4, shadowVIP6} {
		answers := w.answersBetween(vip.Addr(), 0, lab.Now())
		for _, q := range answers {
			if i := slices.IndexFunc(q.by, func(h string) bool { return !may(h, q.at) }); i >= 0 {
				t.Errorf("%s answered for %s", q.by[i], vip)
			}
		}
	}
	sent.mu.Lock()
	defer sent.mu.Unlock()
	if len(sent.claims) == 0 {
		t.Error("no claim was seen: keepalived makes some")
	}
	for _, c := range sent.claims {
		if c.probe || !may(c.host, c.at) {
			t.Errorf("%s sent a frame for the address (probe: %t): %x", c.host, c.probe, c.frame)
		}
	}
}

func shadowKeepalived(i int) lab.Keepalived {
	return lab.Keepalived{Priority: 150 - 50*i, VRID: 51, Interval: time.Second, VIPs: []netip.Prefix{shadowVIP4, shadowVIP6}}
}

// hostState is all of a host's network configuration.
func hostState(t *testing.T, h *lab.Host) string {
	t.Helper()
	var all strings.Builder
	for _, args := range [][]string{{"address"}, {"-d", "link"}, {"route", "show", "table", "all"}, {"-6", "route", "show", "table", "all"}, {"rule"}, {"-6", "rule"}} {
		out, err := exec.Command("ip", append([]string{"-n", h.Namespace()}, args...)...).Output() // its standard error tells of namespaces of other tests that go meanwhile
		if err != nil {
			t.Fatalf("ip %v: %v", args, err)
		}
		all.Write(out)
	}
	return all.String()
}

// A shadowNode is a shadow of ours on a host.
type shadowNode struct {
	*node
	report string
}

func shadowNodes(t *testing.T, l *lab.Lab, m mode, hosts []*lab.Host) []*shadowNode {
	t.Helper()
	binary, err := build()
	must(t, err)
	key := filepath.Join(l.Dir(), "cluster.key")
	must(t, exec.Command(binary, "keygen", "--out", key).Run())
	var out []*shadowNode
	for i, h := range hosts {
		base := filepath.Join(l.Dir(), h.Name)
		text := fmt.Sprintf("node: %s\nsocket: %s.sock\nlog: {level: debug}\n", h.Name, base)
		group := "vips:\n  web:\n    addresses: [" + shadowVIP4.String() + ", " + shadowVIP6.String() + "]\n    interface: eth0\n"
		if m == alone {
			text += "election: vrrp\n" + group + fmt.Sprintf("    vrrp: {id: 51, priority: %d}\n", 150-50*i)
		} else {
			text += fmt.Sprintf("cluster: prod\naddress: %s:7950\npeers: [%s]\nkey_file: %s\ndata_dir: %s\nhttp: %s:7951\n",
				h.IPv4, strings.Join(portsOf(hosts), ", "), key, base, h.IPv4) + group +
				"    placement: priority\n    priority: {n1: 150, n2: 100, n3: 0}\n    vrrp: {id: 51}\n"
		}
		n := &shadowNode{&node{host: h, binary: binary, config: base + ".yaml", socket: base + ".sock.shadow"}, base + ".report"}
		must(t, os.WriteFile(n.config, []byte(text), 0o644))
		out = append(out, n)
	}
	return out
}

func (n *shadowNode) start() (err error) {
	n.proc, err = n.host.Start(lab.Command{Name: "shadow", Args: []string{
		"sh", "-c", fmt.Sprintf("exec %s shadow --config %s --json > %s", n.binary, n.config, n.report)}})
	return err
}

// awaitStatus waits until the shadow says where the group is and would be. An empty would
// is not looked at.
func (n *shadowNode) awaitStatus(t *testing.T, would, really string) {
	t.Helper()
	until(t, fmt.Sprintf("the group is at %s, and would be at %s, as %s has it", really, would, n.host.Name), 20*time.Second, func() bool {
		var st struct {
			Shadow  bool
			Cluster string
			VIPs    []struct{ Owner, Really string }
		}
		if err := lab.Ask(t.Context(), n.socket, "/v1/status", &st); err != nil || len(st.VIPs) == 0 {
			if !n.proc.Running() {
				log, _ := os.ReadFile(n.proc.Log)
				t.Fatalf("%s ended: %s", n.host.Name, log)
			}
			return false
		}
		if !st.Shadow || st.Cluster != "" && st.Cluster != "prod-shadow" {
			t.Fatalf("status of %s: %+v", n.host.Name, st)
		}
		v := st.VIPs[0]
		return strings.Contains(v.Really, really) && (would == "" || v.Owner == would || v.Owner == "" && st.Cluster == "" && n.host.Name != would)
	})
}

// end has the shadow end, and returns what it says of the group.
func (n *shadowNode) end(t *testing.T) shadow.GroupReport {
	t.Helper()
	must(t, n.proc.Stop(15*time.Second))
	noPanic(t, n.proc)
	text, err := os.ReadFile(n.report)
	must(t, err)
	var r shadow.Report
	must(t, json.Unmarshal(text, &r))
	if len(r.Groups) != 1 || r.Node != n.host.Name {
		t.Fatalf("the report of %s: %s", n.host.Name, text)
	}
	return r.Groups[0]
}

// A claim is a frame that says who has one of the addresses, or asks as one who wants it.
type claim struct {
	host  string
	at    lab.Instant
	probe bool
	frame []byte
}

// sentFrames is what the hosts sent.
type sentFrames struct {
	mu     sync.Mutex
	claims []claim
	others map[string][]byte // by host: the first frame that is not of joining a group
}

func recordSent(t *testing.T, hosts []*lab.Host) *sentFrames {
	t.Helper()
	s := &sentFrames{others: map[string][]byte{}}
	for _, h := range hosts {
		_, err := h.Capture(nil, func(frame []byte, at lab.Instant) { s.take(h.Name, frame, at) })
		must(t, err)
	}
	return s
}

func (s *sentFrames) take(host string, frame []byte, at lab.Instant) {
	if len(frame) < etherLen+28 {
		return
	}
	body, joins := frame[etherLen:], false
	claims, probe := false, false
	addr := func(b []byte) netip.Addr { a, _ := netip.AddrFromSlice(b); return a }
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_ARP:
		claims = addr(body[14:18]) == shadowVIP4.Addr()
		probe = !claims && addr(body[24:28]) == shadowVIP4.Addr()
		joins = true // answers and questions of the host itself: the judge asks
	case unix.ETH_P_IP:
		claims = addr(body[12:16]) == shadowVIP4.Addr()
		joins = body[9] == unix.IPPROTO_IGMP
	case unix.ETH_P_IPV6:
		if len(body) < 64 {
			return
		}
		claims = addr(body[8:24]) == shadowVIP6.Addr()
		if body[6] == unix.IPPROTO_ICMPV6 {
			const solicitation, advertisement = 135, 136
			target := addr(body[48:64]) == shadowVIP6.Addr()
			claims = claims || target && body[40] == advertisement
			probe = target && body[40] == solicitation
		}
		joins = body[6] == unix.IPPROTO_ICMPV6 || body[6] == 0 // MLD comes behind hop-by-hop options
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if claims || probe {
		s.claims = append(s.claims, claim{host, at, probe, slices.Clone(frame)})
	}
	if !joins && s.others[host] == nil {
		s.others[host] = slices.Clone(frame)
	}
}

// nothingFrom: the host sent nothing but that it joins the groups it listens to.
func (s *sentFrames) nothingFrom(t *testing.T, host string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.others[host]; f != nil {
		t.Errorf("%s sent %x", host, f)
	}
}
