package lab

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vipctl"
	"github.com/quorate/quorate/vipctl/kernel"
)

// The group edge is on a device that the nodes do not need for each other, so that
// anything can be done to it.
const edge = "edge"

var edgeVIP = netip.MustParsePrefix("10.9.0.200/24")

const edgeGroup = `edge:
  addresses: [10.9.0.200/24, {address: 10.9.0.201/32, scope: link, label: "eth1:edge"}]
  interface: eth1
  routes:
    - {to: 192.0.2.0/24, via: 10.9.0.254, source: 10.9.0.200}
    - {to: 0.0.0.0/0, via: 10.9.0.254, interface: eth1, table: 100}
  rules: [{from: 10.9.0.200/32, table: 100, priority: 100}]
`

// edgeCluster has a second device on each host, with a network of its own.
func edgeCluster(t *testing.T, opt ClusterOptions) *Cluster {
	t.Helper()
	opt.Groups, opt.Stable = edgeGroup, 500*time.Millisecond
	c := newCluster(t, opt)
	for _, n := range c.Nodes {
		plugEdge(t, n.Host)
		must(t, n.Start())
	}
	healthy(t, c)
	edgeOwner(t, c)
	return c
}

func plugEdge(t *testing.T, h *Host) {
	t.Helper()
	br, port := h.lab.bridge.name, "e"+h.Name
	must(t, run("ip", "link", "add", port, "netns", br, "type", "veth", "peer", "name", "eth1", "netns", h.ns.name))
	must(t, run("ip", "-n", br, "link", "set", port, "up")) // to nobody
	ip(t, h, "addr", "add", "10.9.0."+h.IPv4.String()[len("10.0.0."):]+"/24", "dev", "eth1")
	ip(t, h, "link", "set", "eth1", "up")
}

func ip(t *testing.T, h *Host, args ...string) string {
	t.Helper()
	code, out := call(t, h, append([]string{"ip"}, args...)...)
	if code != 0 {
		t.Fatalf("%s: ip %s: %s", h.Name, strings.Join(args, " "), out)
	}
	return out
}

// edgeOwner waits until somebody holds the group edge.
func edgeOwner(t *testing.T, c *Cluster) (owner *Node) {
	t.Helper()
	until(t, "somebody holds "+edge, 10*time.Second, func() bool {
		owner = nil
		for _, n := range c.Nodes {
			s, err := n.Look(t.Context())
			if v, ok := s.vip(edge); err == nil && ok && v.State == "active" {
				owner = n
			}
		}
		return owner != nil
	})
	return owner
}

func moveEdge(t *testing.T, c *Cluster, to *Node) {
	t.Helper()
	until(t, "the move is accepted", 10*time.Second, func() bool { // its device may just have come
		_, err := quorate(t.Context(), c.opt.Binary, "move", edge, to.Name, "--socket", to.Socket)
		return err == nil
	})
	held(t, to, edge, to, 5*time.Second)
}

// edgeThings is what a host has of the group edge.
func edgeThings(t *testing.T, h *Host) (have []string) {
	t.Helper()
	for _, thing := range []struct {
		name  string
		words []string // of one line
		show  []string
	}{
		{"address", []string{" 10.9.0.200/24 "}, []string{"addr", "show"}},
		{"second", []string{" 10.9.0.201/32 scope link ", " eth1:edge"}, []string{"addr", "show"}},
		{"route", []string{"192.0.2.0/24 via 10.9.0.254 dev eth1 ", " src 10.9.0.200"}, []string{"route", "show"}},
		{"default", []string{"default via 10.9.0.254 dev eth1 table 100 "}, []string{"route", "show", "table", "all"}},
		{"rule", []string{"100:", "from 10.9.0.200 lookup 100"}, []string{"rule", "show"}},
	} {
		for line := range strings.Lines(ip(t, h, thing.show...)) {
			if hasAll(line, thing.words...) {
				have = append(have, thing.name)
			}
		}
	}
	return have
}

const allThings = "address second route default rule"

// onlyHas waits until a node, or with nil whoever holds the group edge, has all that
// belongs to it, and no other has any.
func onlyHas(t *testing.T, c *Cluster, owner *Node, limit time.Duration) {
	t.Helper()
	var wrong string
	t.Cleanup(func() {
		if wrong != "" {
			t.Log(wrong)
		}
	})
	until(t, "the owner alone has what belongs to "+edge, limit, func() bool {
		wrong = ""
		holder := owner
		if holder == nil {
			holder = edgeOwner(t, c)
		}
		for _, n := range c.Nodes {
			have := strings.Join(edgeThings(t, n.Host), " ")
			if n == holder && have != allThings || n != holder && have != "" {
				wrong += n.Name + " has " + have + "; "
			}
		}
		return wrong == ""
	})
}

// absence has somebody take an address off, and returns for how long it was gone by the
// kernel's own news.
func absence(t *testing.T, h *Host, addr netip.Addr, takeOff func()) time.Duration {
	t.Helper()
	updates, done := make(chan netlink.AddrUpdate), make(chan struct{})
	defer close(done)
	must(t, h.Do(func() error { return netlink.AddrSubscribe(updates, done) }))
	back := make(chan time.Duration, 100)
	go func() {
		var gone Instant
		for u := range updates {
			a, _ := netip.AddrFromSlice(u.LinkAddress.IP)
			switch {
			case a.Unmap() != addr:
			case !u.NewAddr:
				gone = Now()
			case gone != 0:
				back <- Now().Sub(gone)
				gone = 0
			}
		}
	}()
	takeOff()
	select {
	case was := <-back:
		return was
	case <-time.After(3 * time.Second):
		t.Fatalf("%s is not back on %s", addr, h.Name)
		return 0
	}
}

// TestEdgeAddress: what a group has on its owner stays there, whoever takes it off; moves
// with the group; is there as a whole or not at all; and is nowhere else.
func TestEdgeAddress(t *testing.T) {
	t.Parallel()
	c := edgeCluster(t, ClusterOptions{IPv6: true})

	t.Run("taken off by hand", func(t *testing.T) {
		owner := ownerOf(t, c)
		time.Sleep(300 * time.Millisecond) // news of an address within a moment of the takeover may be old
		for _, vip := range []netip.Prefix{VIP4, VIP6, VIP4} {
			was := absence(t, owner.Host, vip.Addr(), func() { ip(t, owner.Host, "addr", "del", vip.String(), "dev", "eth0") })
			t.Logf("%s was gone for %v", vip, was.Round(10*time.Microsecond))
			if was > 50*time.Millisecond {
				t.Errorf("%s was gone for %v, want 50ms at most", vip, was)
			}
		}
	})
	t.Run("connections", func(t *testing.T) {
		owner := ownerOf(t, c)
		conn := talk(t, c, owner)
		from := Now()
		must(t, c.Move(t.Context(), owner, c.Other(owner)))
		must(t, conn.SetReadDeadline(time.Now().Add(3*time.Second)))
		_, err := conn.Read(make([]byte, 1))
		t.Logf("after %v the client's connection says: %v", Now().Sub(from).Round(time.Millisecond), err)
		if !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the client of a group that moved away reads %v, want a reset", err)
		}
	})
	t.Run("routes and rules", func(t *testing.T) {
		owner := edgeOwner(t, c)
		onlyHas(t, c, owner, 5*time.Second)
		ip(t, owner.Host, "route", "del", "192.0.2.0/24")
		ip(t, owner.Host, "rule", "del", "from", "10.9.0.200", "table", "100")
		onlyHas(t, c, owner, 3*time.Second)
		ip(t, owner.Host, "addr", "flush", "dev", "eth1", "scope", "link")
		onlyHas(t, c, owner, 3*time.Second)
		next := c.Other(owner)
		moveEdge(t, c, next)
		onlyHas(t, c, next, 3*time.Second)
	})
	t.Run("all or nothing", func(t *testing.T) {
		owner := edgeOwner(t, c)
		broken := c.Other(owner)
		ip(t, broken.Host, "route", "add", "192.0.2.0/24", "via", "10.0.0.250") // the same, of somebody else
		if _, err := quorate(t.Context(), c.opt.Binary, "move", edge, broken.Name, "--socket", owner.Socket); err != nil {
			t.Logf("the move: %v", err)
		}
		logged(t, broken, 5*time.Second, "group=edge", "192.0.2.0/24")
		next := edgeOwner(t, c)
		until(t, "another node has "+edge, 10*time.Second, func() bool { next = edgeOwner(t, c); return next != broken })
		if have := edgeThings(t, broken.Host); len(have) > 0 {
			t.Errorf("%s, where a route could not be put in, has %v of the group", broken.Name, have)
		}
		ip(t, broken.Host, "route", "del", "192.0.2.0/24")
		onlyHas(t, c, next, 3*time.Second)
	})
	t.Run("where it is not held", func(t *testing.T) {
		other := c.Other(edgeOwner(t, c))
		must(t, other.Host.Do(func() error {
			k, err := kernel.Open()
			if err != nil {
				return err
			}
			defer k.Close()
			return k.AddAddresses([]kernel.Address{{Link: "eth1", Prefix: edgeVIP}}, time.Minute)
		}))
		onlyHas(t, c, edgeOwner(t, c), 5*time.Second)
		logged(t, other, time.Second, "that this host does not hold", edgeVIP.String())
	})
}

// talk connects the lab's client to a service on the owner of the group.
func talk(t *testing.T, c *Cluster, owner *Node) (conn net.Conn) {
	t.Helper()
	var l net.Listener
	must(t, owner.Host.Do(func() (err error) {
		l, err = net.Listen("tcp4", "0.0.0.0:9999")
		return err
	}))
	t.Cleanup(func() { l.Close() })
	served := make(chan net.Conn, 1)
	go func() {
		if s, err := l.Accept(); err == nil {
			served <- s
		}
	}()
	must(t, c.Client.host.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp4", netip.AddrPortFrom(VIP4.Addr(), 9999).String(), 3*time.Second)
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	s := <-served
	t.Cleanup(func() { s.Close() })
	return conn
}

// TestEdgeInterface: a device of a group's owner may go, come back, flap, and have another
// name or hardware address. Nothing of the group stays where it is not held.
func TestEdgeInterface(t *testing.T) {
	t.Parallel()
	c := edgeCluster(t, ClusterOptions{})

	t.Run("another hardware address", func(t *testing.T) {
		owner := edgeOwner(t, c)
		const mac = "02:00:00:00:99:01"
		conn := edgeTap(t, owner.Host)
		ip(t, owner.Host, "link", "set", "eth1", "address", mac)
		must(t, conn.SetReadDeadline(time.Now().Add(3*time.Second)))
		for buf, heard := make([]byte, 1500), false; !heard; {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				t.Fatalf("the new hardware address is not announced: %v", err)
			}
			addr, from, ok := vipctl.ParseConflict(buf[:n])
			heard = ok && addr == edgeVIP.Addr() && from.String() == mac
		}
		logged(t, owner, time.Second, "another hardware address", mac)
		if now := edgeOwner(t, c); now != owner {
			t.Errorf("it moved to %s", now.Name)
		}
	})
	t.Run("deleted and made again", func(t *testing.T) {
		owner := edgeOwner(t, c)
		ip(t, owner.Host, "link", "del", "eth1")
		next := anotherThan(t, c, owner)
		plugEdge(t, owner.Host)
		moveEdge(t, c, owner)
		onlyHas(t, c, owner, 5*time.Second)
		t.Logf("%s, %s, %s again", owner.Name, next.Name, owner.Name)
	})
	t.Run("renamed while it is up", func(t *testing.T) {
		owner := edgeOwner(t, c)
		onlyHas(t, c, owner, 3*time.Second)
		ip(t, owner.Host, "link", "set", "eth1", "name", "lan1")
		anotherThan(t, c, owner)
		onlyHas(t, c, nil, 5*time.Second) // on a busy machine it may have gone on to the third
		if now := edgeOwner(t, c); now == owner {
			t.Errorf("%s holds it without its device", now.Name)
		}
		ip(t, owner.Host, "link", "set", "lan1", "name", "eth1")
		moveEdge(t, c, owner)
		onlyHas(t, c, owner, 5*time.Second)
	})
	t.Run("down and up", func(t *testing.T) {
		owner := edgeOwner(t, c)
		ip(t, owner.Host, "link", "set", "eth1", "down")
		ip(t, owner.Host, "link", "set", "eth1", "up")
		onlyHas(t, c, nil, 5*time.Second) // it may move for that, and need not
	})
	t.Run("its main address is lost", func(t *testing.T) {
		owner := edgeOwner(t, c)
		onlyHas(t, c, owner, 3*time.Second)
		ip(t, owner.Host, "addr", "del", "10.9.0."+owner.Host.IPv4.String()[len("10.0.0."):]+"/24", "dev", "eth1")
		until(t, "the address brings a route for its network", 3*time.Second, func() bool {
			return strings.Contains(ip(t, owner.Host, "route", "show"), "10.9.0.0/24 dev eth1")
		})
		onlyHas(t, c, owner, 3*time.Second)
	})
}

// anotherThan waits until another node holds the group edge.
func anotherThan(t *testing.T, c *Cluster, n *Node) (next *Node) {
	t.Helper()
	until(t, "another than "+n.Name+" holds "+edge, 5*time.Second, func() bool { next = edgeOwner(t, c); return next != n })
	return next
}

// edgeTap sees what goes out by eth1.
func edgeTap(t *testing.T, h *Host) (conn *packet.Conn) {
	t.Helper()
	must(t, h.Do(func() error {
		ifi, err := net.InterfaceByName("eth1")
		if err != nil {
			return err
		}
		conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
		return err
	}))
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestEdgeLeftovers: a daemon that comes back when others have taken over finds what it
// left, and takes it off before anything else, routes and rules too.
func TestEdgeLeftovers(t *testing.T) {
	t.Parallel()
	c := edgeCluster(t, ClusterOptions{})
	owner := edgeOwner(t, c)
	onlyHas(t, c, owner, 3*time.Second)
	must(t, owner.proc.Kill())
	next := c.Other(owner)
	until(t, "another holds "+edge, 5*time.Second, func() bool {
		s, err := next.Look(t.Context())
		v, _ := s.vip(edge)
		return err == nil && v.Owner != owner.Name && v.Open
	})
	if have := strings.Join(edgeThings(t, owner.Host), " "); have != allThings {
		t.Fatalf("the dead daemon left %q, want %q: nothing is tested here", have, allThings)
	}
	must(t, owner.Start())
	from := Now()
	until(t, "nothing is left on "+owner.Name, 5*time.Second, func() bool { return len(edgeThings(t, owner.Host)) == 0 })
	t.Logf("gone %v after the start", Now().Sub(from).Round(time.Millisecond))
}
