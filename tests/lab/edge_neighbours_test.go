package lab

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vipctl"
)

// filter loads a script into the host's own packet filter.
func filter(t *testing.T, h *Host, script string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, h.Do(cmd.Start))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("nft on %s: %v: %s", h.Name, err, &out)
	}
}

// deafened adds a client that hears no ARP by broadcast and no Neighbor Advertisement by
// multicast; what else it does not hear is in more, in the words of nft.
func deafened(t *testing.T, c *Cluster, name string, n int, more string) []*Client {
	t.Helper()
	h := addHost(t, c.Lab, name, n)
	filter(t, h, fmt.Sprintf(`table netdev deaf { chain in { type filter hook ingress device "eth0" priority 0; policy accept;
		ether type arp ether daddr ff:ff:ff:ff:ff:ff drop
		ether daddr & ff:ff:00:00:00:00 == 33:33:00:00:00:00 icmpv6 type nd-neighbor-advert drop
		%s
	}
	}`, more))
	var out []*Client
	for _, vip := range c.vipAddrs() {
		client, err := h.StartClient(vip, DefaultPeriod)
		must(t, err)
		out = append(out, client)
	}
	return out
}

// lag is how much later than the probe, which knows of no cache, a client first heard of
// a host after an instant.
func lag(t *testing.T, c *Client, p *Probe, host string, from Instant) (time.Duration, bool) {
	t.Helper()
	first := func(tr Trace) (Instant, bool) {
		i := slices.IndexFunc(tr.Answers, func(a Answer) bool { return a.Host == host && a.At >= from })
		if i < 0 {
			return 0, false
		}
		return tr.Answers[i].At, true
	}
	theirs, ok := first(c.Trace())
	judges, seen := first(p.Trace())
	return theirs.Sub(judges), ok && seen
}

// TestEdgeNeighbour: a client that hears no announcement reaches the address on its new
// owner at once, after a move and after the owner's end, because it is told by itself. One
// that does not let that in either goes on talking to the old one, for seconds.
func TestEdgeNeighbour(t *testing.T) {
	t.Parallel()
	c := newCluster(t, ClusterOptions{IPv6: true})
	deaf := deafened(t, c, "deaf", 20, "")
	deafer := deafened(t, c, "deafer", 21, fmt.Sprintf("arp saddr ip %s arp operation request drop\nip6 saddr %s icmpv6 type nd-neighbor-solicit drop",
		VIP4.Addr(), VIP6.Addr()))
	for _, n := range c.Nodes {
		must(t, n.Start())
	}
	healthy(t, c)
	for _, client := range append(slices.Clone(deaf), deafer...) {
		since := Now()
		until(t, client.host.Name+" reaches the owner", 5*time.Second, func() bool { return answering(client.Trace, since) })
	}
	owner := ownerOf(t, c)
	next := c.Other(owner)
	until(t, "the next owner knows the neighbours", 15*time.Second, func() bool { return status(t, next).Neighbours >= 4 })

	const at = 100 * time.Millisecond
	arrives := func(what string, host string, from Instant) {
		t.Helper()
		for i, p := range []*Probe{c.Probes4[0], c.Probes6[0]} {
			var late time.Duration
			until(t, fmt.Sprintf("%s: %s answers for %s", what, host, deaf[i].trace.Target), 10*time.Second, func() (ok bool) {
				late, ok = lag(t, deaf[i], p, host, from)
				return ok
			})
			t.Logf("%s: %s reaches %s on %s %v after the probe", what, deaf[i].host.Name, deaf[i].trace.Target, host, late)
			if late > at {
				t.Errorf("%s: a client that hears no announcement of %s is %v late, want %v at most", what, deaf[i].trace.Target, late, at)
			}
		}
	}
	moved := Now()
	must(t, c.Move(t.Context(), owner, next))
	arrives("a move", next.Name, moved)
	for i, client := range deafer {
		if late, ok := lag(t, client, []*Probe{c.Probes4[0], c.Probes6[0]}[i], next.Name, moved); ok && late < at {
			t.Errorf("who is not told of %s knows it after %v: this test proves nothing", client.trace.Target, late)
		}
	}
	for _, client := range deafer {
		client.Close()
	}
	healthy(t, c)
	last := c.Other(next)
	until(t, "the others know the neighbours", 15*time.Second, func() bool { return status(t, last).Neighbours >= 4 })
	killed := Now()
	must(t, next.proc.Kill())
	rest := c.without(next)
	var heir *Node
	until(t, "somebody takes over", 10*time.Second, func() bool {
		for _, n := range rest.Nodes {
			if s, err := n.Status(t.Context()); err == nil {
				if g, ok := s.Group(); ok && g.State == "active" {
					heir = n
					return true
				}
			}
		}
		return false
	})
	arrives("the owner's end", heir.Name, killed)
}

// named reports whether a group's owner names the host for all of these addresses.
func named(g StatusVIP, by *Host, addrs ...string) bool {
	for _, a := range addrs {
		if !slices.ContainsFunc(g.Claims, func(c StatusClaim) bool { return c.Address == a && c.MAC == by.MAC.String() }) {
			return false
		}
	}
	return true
}

// TestEdgeConflict: a host outside that claims an address of the owner is named by it, and
// the owner insists once; nodes that hand the address over name nobody.
func TestEdgeConflict(t *testing.T) {
	t.Parallel()
	c := formedCluster(t, ClusterOptions{IPv6: true, GroupKeys: "announce: {repeat: 2}", Groups: `
often:
  addresses: [10.0.0.201/24, 2001:db8::201/64]
  interface: eth0
  announce: {repeat: 1, refresh: 1s}`})
	intruder := addHost(t, c.Lab, "intruder", 20)
	owner := ownerOf(t, c)
	next := c.Other(owner)
	must(t, c.Move(t.Context(), owner, next))
	healthy(t, c)
	for _, n := range c.Nodes {
		if g, _ := status(t, n).Group(); len(g.Claims) != 0 || strings.Contains(output(t, n.proc), "address conflict") {
			t.Errorf("%s takes the others for intruders: %v", n.Name, g.Claims)
		}
	}
	// A host that only has the address, and says nothing by itself, answers the next
	// announcement.
	for _, a := range []string{"10.0.0.201/24", "2001:db8::201/64"} {
		vip := netip.MustParsePrefix(a)
		must(t, run("ip", append([]string{"-n", intruder.Namespace(), "addr", "add", a, "dev", "eth0"}, nodad(vip.Addr().Is6())...)...))
	}
	until(t, "who has the addresses too is named", 3*time.Second, func() bool {
		for _, n := range c.Nodes {
			if g, ok := status(t, n).vip("often"); ok && named(g, intruder, "10.0.0.201", "2001:db8::201") {
				return true
			}
		}
		return false
	})
	must(t, run("ip", "-n", intruder.Namespace(), "addr", "del", "10.0.0.201/24", "dev", "eth0"))
	must(t, run("ip", "-n", intruder.Namespace(), "addr", "del", "2001:db8::201/64", "dev", "eth0"))

	owner = next
	said := func(p *Probe, from Instant) (n int) {
		last := Instant(0)
		for _, a := range p.Trace().Between(from, Now()).Announcements {
			if a.Host == owner.Name && a.At.Sub(last) > 50*time.Millisecond { // several forms at once are one
				n++
			}
			if a.Host == owner.Name {
				last = a.At
			}
		}
		return n
	}
	until(t, "the owner has announced enough", 15*time.Second, func() bool {
		return said(c.Probes4[0], Now().Add(-500*time.Millisecond)) == 0
	})
	var conn *packet.Conn
	must(t, intruder.Do(func() (err error) {
		conn, err = packet.Listen(intruder.ifi, packet.Raw, unix.ETH_P_ARP, nil)
		return err
	}))
	t.Cleanup(func() { _ = conn.Close() })
	from := Now()
	claim := func() {
		request, err := vipctl.GratuitousARP(VIP4.Addr(), intruder.MAC[:], vipctl.Request)
		must(t, err)
		na, err := vipctl.UnsolicitedNA(VIP6.Addr(), intruder.MAC[:], false, vipctl.AllNodes)
		must(t, err)
		for _, f := range [][]byte{request, na} {
			_, err := conn.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]})
			must(t, err)
		}
	}
	claim()
	until(t, "the intruder is named", time.Second, func() bool {
		g, _ := status(t, owner).Group()
		return named(g, intruder, VIP4.Addr().String(), VIP6.Addr().String()) && g.Claims[0].Count == 1
	})
	t.Logf("named after %v", Now().Sub(from))
	logged(t, owner, time.Second, "address conflict", VIP4.Addr().String(), intruder.MAC.String())
	mine := func(vip netip.Addr) bool {
		_, out := call(t, c.Client.host, "ip", "neigh", "show", vip.String(), "dev", "eth0")
		return strings.Contains(out, owner.Host.MAC.String())
	}
	until(t, "the client believes the owner again", 2*time.Second, func() bool { return mine(VIP4.Addr()) })
	for range 30 {
		claim()
		pause(50 * time.Millisecond)
	}
	for _, p := range []*Probe{c.Probes4[0], c.Probes6[0]} {
		if n := said(p, from); n != 1 {
			t.Errorf("%d defences of %s in two seconds of claims, want one", n, p.Trace().Target)
		}
	}
	pause(time.Second) // what was too much for one second is told of with the first of the next
	claim()
	until(t, "all claims are counted", time.Second, func() bool {
		g, _ := status(t, owner).Group()
		return len(g.Claims) == 2 && g.Claims[0].Count == 32 && g.Claims[1].Count == 32
	})
}
