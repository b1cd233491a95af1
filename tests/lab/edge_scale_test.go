package lab

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var scaleRounds = flag.Int("scale-rounds", 1, "how often TestEdgeScale cuts each owner off")

const (
	scaleVIPs    = 1000
	scaleNoticed = 2 * time.Second
	scaleLimit   = 30 * time.Second
)

// scaleAddrs are the addresses of the group of many.
func scaleAddrs() []netip.Addr {
	var out []netip.Addr
	for i := range scaleVIPs {
		out = append(out, netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(1 + i%250)}))
	}
	return out
}

// sampled is one in ten of the addresses, in order, the first and the last among them:
// each of so many is asked for every ten milliseconds.
func sampled(addrs []netip.Addr) (out []netip.Addr) {
	for i := 0; i < len(addrs)-1; i += 10 {
		out = append(out, addrs[i])
	}
	return append(out, addrs[len(addrs)-1])
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
	first, last := callRoll(t, judge, sampled(addrs), owner.MAC).Span()
	must(t, owner.Mend())
	return takeover{first.Sub(at), last.Sub(at)}
}

// TestEdgeScale has 1,000 addresses in one group taken over, by quorate and by
// keepalived in one run, and beside them put on a host by `ip -batch`: the kernel's own
// limit. It reports how long it takes from the first that answers again to the last, and
// fails where that is a time that people notice: the ratios are of use on a quiet machine.
func TestEdgeScale(t *testing.T) {
	addrs := scaleAddrs()
	var ours, theirs, kernels []takeover
	for range *scaleRounds {
		ours = append(ours, scaleQuorate(t, addrs))
		theirs = append(theirs, scaleKeepalived(t, addrs))
		kernels = append(kernels, scaleKernel(t, addrs))
		t.Logf("quorate: %v; keepalived: %v", ours[len(ours)-1], theirs[len(theirs)-1])
	}
	q, k, limit := medianSpan(ours), medianSpan(theirs), medianSpan(kernels)
	t.Logf("medians of %d: quorate %v, keepalived %v, ratio %.2f; the kernel by itself %v", *scaleRounds, q, k, float64(q)/float64(k), limit)
	if q > scaleNoticed {
		t.Errorf("from the first to the last it took %v, want at most %v", q, scaleNoticed)
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
	l := newLab(t)
	path, err := buildQuorate()
	must(t, err)
	// No other observer than the crier, as beside keepalived: each hears all its questions.
	c := &Cluster{Lab: l, opt: ClusterOptions{Binary: path, Nodes: 3, Lease: 250 * time.Millisecond, Interval: time.Second,
		Groups: fmt.Sprintf("bulk:\n  addresses: [%s]\n  interface: eth0\n", strings.Join(slashed(addrs), ", "))}}
	must(t, c.prepare(t.Context()))
	for _, n := range c.Nodes {
		must(t, n.Start())
	}
	judge := addHost(t, l, "crier", 105)
	var owner *Node
	until(t, "the group of many is open", 40*time.Second, func() bool {
		s, err := c.Nodes[0].Look(t.Context())
		if bulk, ok := s.vip("bulk"); err == nil && ok && bulk.Open {
			owner = c.Node(bulk.Owner)
		}
		return owner != nil
	})
	callRoll(t, judge, addrs, MAC{})
	pause(3 * time.Second) // the announcements of this take-over are over
	out := cutOff(t, judge, owner.Host, addrs)
	for _, n := range c.Nodes {
		must(t, n.proc.Stop(10*time.Second))
		noPanic(t, n.proc)
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
		// The second comes when the first is master: it has no reason to act then.
		until(t, "k1 has the addresses", 20*time.Second, func() bool {
			_, on, err := hosts[0].Holds(addrs[len(addrs)-1])
			must(t, err)
			return on
		})
	}
	callRoll(t, judge, addrs, MAC{})
	pause(2 * time.Second)
	out := cutOff(t, judge, hosts[0], addrs)
	for _, p := range procs {
		must(t, p.Kill())
	}
	return out
}

// scaleKernel is the kernel by itself: the addresses are put on a host by one program that
// does nothing else.
func scaleKernel(t *testing.T, addrs []netip.Addr) takeover {
	t.Helper()
	l := newLab(t)
	judge, h := addHost(t, l, "crier", 105), addHost(t, l, "k1", 1)
	var b strings.Builder
	for _, a := range addrs {
		fmt.Fprintf(&b, "addr add %s/32 dev eth0\n", a)
	}
	file := filepath.Join(l.Dir(), "addresses")
	must(t, os.WriteFile(file, []byte(b.String()), 0o644))
	at := Now()
	done := make(chan RollCall, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), scaleLimit)
		defer cancel()
		roll, _ := judge.CallRoll(ctx, sampled(addrs), MAC{}) // what is missing shows below
		done <- roll
	}()
	pause(200 * time.Millisecond)
	if code, out := call(t, h, "ip", "-batch", file); code != 0 {
		t.Fatalf("ip -batch: exit code %d: %s", code, out)
	}
	roll := <-done
	if len(roll.Answered) < len(sampled(addrs)) {
		t.Fatalf("%d of %d addresses answered", len(roll.Answered), len(sampled(addrs)))
	}
	first, last := roll.Span()
	return takeover{first.Sub(at), last.Sub(at)}
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
