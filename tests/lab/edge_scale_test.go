package lab

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

var scaleRounds = flag.Int("scale-rounds", 1, "how often TestEdgeScale cuts each owner off")

const (
	scaleVIPs  = 1000
	scaleRatio = 0.25 // of keepalived's time, at most
	scaleLimit = 30 * time.Second
)

// scaleAddrs are the addresses of the group of many.
func scaleAddrs() []netip.Addr {
	var out []netip.Addr
	for i := range scaleVIPs {
		out = append(out, netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(1 + i%250)}))
	}
	return out
}

// slashed is the addresses as the configuration has them.
func slashed(addrs []netip.Addr) (out []string) {
	for _, a := range addrs {
		out = append(out, a.String()+"/32")
	}
	return out
}

// A takeover is when the first and the last of many addresses was answered for by a new
// host, after the owner was cut off.
type takeover struct{ first, last time.Duration }

func (t takeover) String() string {
	return fmt.Sprintf("first after %v, last %v later", t.first.Round(time.Millisecond), (t.last - t.first).Round(time.Millisecond/10))
}

func callRoll(t *testing.T, from *Host, addrs []netip.Addr, not MAC) RollCall {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scaleLimit)
	defer cancel()
	roll, err := from.CallRoll(ctx, addrs, not)
	must(t, err)
	return roll
}

// cutOff cuts an owner off and calls the roll until another host answers for all.
func cutOff(t *testing.T, judge, owner *Host, addrs []netip.Addr) takeover {
	t.Helper()
	at := Now()
	must(t, owner.Cut())
	first, last := callRoll(t, judge, addrs, owner.MAC).Span()
	must(t, owner.Mend())
	return takeover{first.Sub(at), last.Sub(at)}
}

// TestEdgeScale has 1,000 addresses in one group taken over, by quorate and by
// keepalived in one run. From the first of them that answers again to the last may take
// a quarter of keepalived's time. A round on a machine that is busy with something else
// says little: when it is over the bound, the median of three is what counts.
func TestEdgeScale(t *testing.T) {
	addrs := scaleAddrs()
	var ours, theirs []takeover
	ratio := scaleRatio + 1
	for len(ours) < *scaleRounds || ratio > scaleRatio && len(ours) < 3 {
		ours = append(ours, scaleQuorate(t, addrs))
		theirs = append(theirs, scaleKeepalived(t, addrs))
		q, k := medianSpan(ours), medianSpan(theirs)
		ratio = float64(q) / float64(k)
		t.Logf("quorate: %v; keepalived: %v; medians of %d: %v, %v, ratio %.2f", ours[len(ours)-1], theirs[len(theirs)-1], len(ours), q, k, ratio)
	}
	if ratio > scaleRatio {
		t.Errorf("the ratio is %.2f, want at most %.2f", ratio, scaleRatio)
	}
}

// medianSpan is the median time from the first to the last address.
func medianSpan(of []takeover) time.Duration {
	var spans []time.Duration
	for _, o := range of {
		spans = append(spans, o.last-o.first)
	}
	slices.Sort(spans)
	return spans[len(spans)/2]
}

func scaleQuorate(t *testing.T, addrs []netip.Addr) takeover {
	t.Helper()
	c := newCluster(t, ClusterOptions{Groups: fmt.Sprintf("bulk:\n  addresses: [%s]\n  interface: eth0\n", strings.Join(slashed(addrs), ", "))})
	for _, n := range c.Nodes {
		must(t, n.Start())
	}
	healthy(t, c)
	judge := addHost(t, c.Lab, "crier", 105)
	callRoll(t, judge, addrs, MAC{})
	s := status(t, c.Nodes[0])
	bulk, _ := s.vip("bulk")
	owner := c.Node(bulk.Owner)
	if owner == nil {
		t.Fatalf("bulk is owned by %q", bulk.Owner)
	}
	out := cutOff(t, judge, owner.Host, addrs)
	for _, n := range c.Nodes {
		must(t, n.proc.Stop(10*time.Second))
	}
	return out
}

func scaleKeepalived(t *testing.T, addrs []netip.Addr) takeover {
	t.Helper()
	if _, err := exec.LookPath("keepalived"); err != nil {
		t.Skip("SKIPPED: keepalived is not installed (apt-get install keepalived)")
	}
	l := newLab(t)
	judge := addHost(t, l, "crier", 105)
	var hosts []*Host
	var procs []*Process
	for i, name := range []string{"k1", "k2"} {
		h := addHost(t, l, name, i+1)
		p, err := h.RunKeepalived(scaleConfig(name, 150-50*i, addrs))
		must(t, err)
		hosts, procs = append(hosts, h), append(procs, p)
	}
	until(t, "k1 has the addresses", 20*time.Second, func() bool {
		_, on, err := hosts[0].Holds(addrs[len(addrs)-1])
		must(t, err)
		return on
	})
	callRoll(t, judge, addrs, MAC{})
	out := cutOff(t, judge, hosts[0], addrs)
	for _, p := range procs {
		must(t, p.Kill())
	}
	return out
}

// scaleConfig is one instance with all addresses. An advert has room for the first
// twenty; the others are as its manual wants it.
func scaleConfig(router string, priority int, addrs []netip.Addr) string {
	lines := func(of []netip.Addr) string {
		var b strings.Builder
		for _, a := range of {
			fmt.Fprintf(&b, "\t\t%s/32\n", a)
		}
		return b.String()
	}
	return fmt.Sprintf(`global_defs {
	router_id %s
	vrrp_version 3
}
vrrp_instance bulk {
	state BACKUP
	interface eth0
	virtual_router_id 61
	priority %d
	advert_int 1
	virtual_ipaddress {
%s	}
	virtual_ipaddress_excluded {
%s	}
}
`, router, priority, lines(addrs[:20]), lines(addrs[20:]))
}
