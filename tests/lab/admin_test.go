package lab

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// order gives a node an order on its own host; it must end with the code and say the words.
func order(t *testing.T, c *Cluster, n *Node, code int, words []string, args ...string) string {
	t.Helper()
	got, out := call(t, n.Host, append([]string{c.opt.Binary}, args...)...)
	if got != code || !hasAll(out, words...) {
		t.Fatalf("%s: quorate %s: exit %d, want %d with %q; it said:\n%s", n.Name, strings.Join(args, " "), got, code, words, out)
	}
	return out
}

// TestAdminDocuments applies documents: what one node cannot do changes nothing, what
// was made for another revision is refused, and a group that does not change is not
// touched.
func TestAdminDocuments(t *testing.T) {
	t.Parallel()
	c := formedCluster(t, ClusterOptions{
		Stable: 500 * time.Millisecond,
		Groups: "api:\n  addresses: [10.0.0.201/24]\n  interface: eth0\n",
	})
	n1, n2, n3 := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	file := filepath.Join(t.TempDir(), "vips.yaml")
	write := func(text string) { must(t, os.WriteFile(file, []byte(text), 0o600)) }
	present := order(t, c, n1, 0, nil, "history", "1", "--socket", n1.Socket)
	web, _ := status(t, n1).Group()

	must(t, run("ip", "-n", n3.Host.Namespace(), "link", "add", "extra", "type", "veth", "peer", "name", "extra-end"))
	write(strings.Replace(present, "api:\n", "api:\n    track_interfaces: [extra]\n", 1))
	out := order(t, c, n1, 1, []string{"nothing was changed", n1.Name + ": vips.api", n2.Name + ": vips.api", "extra"}, "apply", file, "--socket", n1.Socket)
	if strings.Contains(out, n3.Name+": ") {
		t.Errorf("%s has the device, and is said to miss it:\n%s", n3.Name, out)
	}

	from := Now()
	write(strings.Replace(present, "10.0.0.201/24", "10.0.0.202/24", 1))
	order(t, c, n2, 0, []string{"api: 10.0.0.201/24 goes, 10.0.0.202/24 comes", "would become revision 2"}, "diff", file, "--socket", n2.Socket)
	order(t, c, n2, 0, []string{"revision 1 → 2"}, "apply", file, "--socket", n2.Socket)
	order(t, c, n1, 0, []string{"nothing to change"}, "apply", file, "--socket", n1.Socket)
	order(t, c, n3, 1, []string{"at revision 2, applied by root@" + n2.Name, "made for revision 1"}, "apply", "--seen", "1", file, "--socket", n3.Socket)
	until(t, "the new address is held", 10*time.Second, func() bool { return somebodyHolds(t, c, netip.MustParseAddr("10.0.0.202")) })
	order(t, c, n3, 0, []string{"revision 2 → 3"}, "rollback", "1", "--socket", n3.Socket)
	until(t, "the old address is held again", 10*time.Second, func() bool {
		return somebodyHolds(t, c, netip.MustParseAddr("10.0.0.201")) && !somebodyHolds(t, c, netip.MustParseAddr("10.0.0.202"))
	})
	order(t, c, n1, 0, []string{"root@" + n2.Name, "root@" + n3.Name + " (rollback to 1)"}, "history", "--socket", n1.Socket)
	if got, _ := status(t, n1).Group(); got.Owner != web.Owner || got.Epoch != web.Epoch {
		t.Errorf("web was %+v and is %+v, and no document changed it", web, got)
	}
	v, err := c.Judge(from, Now())
	must(t, err)
	if len(v.Owners) != 1 || v.Outage > stableGap {
		t.Errorf("web: answered by %v, longest outage %v, while documents were applied that leave it alone", v.Owners, v.Outage)
	}
}

func somebodyHolds(t *testing.T, c *Cluster, ip netip.Addr) bool {
	t.Helper()
	for _, n := range c.Nodes {
		if holds(t, n, ip) {
			return true
		}
	}
	return false
}

// TestAdminDrain: a drained node owns nothing, also after it was restarted, and a node
// that is needed or serves is not removed.
func TestAdminDrain(t *testing.T) {
	t.Parallel()
	c := formedCluster(t, ClusterOptions{Stable: 500 * time.Millisecond})
	owner := ownerOf(t, c)
	other := c.Other(owner)
	order(t, c, other, 1, []string{owner.Name + " is alive and owns " + Group, "quorate drain"}, "remove", owner.Name, "--socket", other.Socket)
	order(t, c, owner, 0, []string{owner.Name + " is drained; moved " + Group}, "drain", "--socket", owner.Socket)
	order(t, c, other, 1, []string{"is drained"}, "move", Group, owner.Name, "--socket", other.Socket)
	must(t, owner.proc.Stop(20*time.Second))
	must(t, owner.Start())
	healthy(t, c)
	order(t, c, owner, 0, []string{"this node, drained"}, "members", "--socket", owner.Socket)
	for _, n := range c.without(owner).Nodes {
		order(t, c, other, 0, []string{n.Name + " is drained"}, "drain", n.Name, "--socket", other.Socket, "--timeout", "3s")
		if ownerOf(t, c) == owner {
			t.Fatalf("%s is drained and owns %s", owner.Name, Group)
		}
		order(t, c, other, 0, nil, "undrain", n.Name, "--socket", other.Socket)
	}
	order(t, c, other, 0, nil, "undrain", owner.Name, "--socket", other.Socket)
	order(t, c, other, 0, []string{Group + ":"}, "move", Group, owner.Name, "--socket", other.Socket)
}

// TestAdminAddress gives a node another address: it tells the others, and keeps its vote.
func TestAdminAddress(t *testing.T) {
	t.Parallel()
	c := formedCluster(t, ClusterOptions{Stable: 500 * time.Millisecond})
	owner := ownerOf(t, c)
	moved := c.Other(owner)
	from := Now()
	was := moved.Host.IPv4.String() + ":7950"
	must(t, moved.proc.Stop(20*time.Second))
	must(t, run("ip", "-n", moved.Host.Namespace(), "addr", "add", "10.0.0.9/24", "dev", "eth0"))
	edit(t, moved, "address: "+was, "address: 10.0.0.9:7950")
	edit(t, moved, was, "10.0.0.9:7950") // in peers
	must(t, moved.Start())
	until(t, "all call it there", 30*time.Second, func() bool {
		return strings.Contains(command(t, c, owner, "members"), "10.0.0.9:7950") && votes(status(t, owner), moved.Name)
	})
	healthy(t, c)
	v, err := c.Judge(from, Now())
	must(t, err)
	if len(v.Owners) != 1 || v.Outage > stableGap {
		t.Errorf("answered by %v, longest outage %v, while another node moved", v.Owners, v.Outage)
	}
	// Its vote is needed, and it is called for it where it is now.
	third := c.without(moved).Other(owner)
	must(t, third.proc.Kill())
	order(t, c, moved, 0, []string{Group + ":"}, "move", Group, moved.Name, "--socket", moved.Socket)
}

// TestAdminRecover loses two of three nodes for good, and goes on with the third.
func TestAdminRecover(t *testing.T) {
	t.Parallel()
	c := formedCluster(t, ClusterOptions{Stable: 500 * time.Millisecond})
	owner := ownerOf(t, c)
	last := c.Other(owner)
	lost := c.without(last).Nodes
	yes := lost[0].Name + "," + lost[1].Name
	before := status(t, last).ClusterID
	for _, n := range lost {
		must(t, n.proc.Kill())
		must(t, run("ip", "-n", n.Host.Namespace(), "addr", "flush", "dev", "eth0")) // its power is off
	}
	order(t, c, last, 1, []string{"the daemon runs: stop it first"}, "recover", "--config", last.Config, "--yes", yes)
	must(t, last.proc.Stop(20*time.Second))
	order(t, c, last, 1, []string{"nothing was changed", lost[0].Name, lost[1].Name}, "recover", "--config", last.Config)
	order(t, c, last, 1, []string{"must name every other node"}, "recover", "--config", last.Config, "--yes", lost[0].Name)
	order(t, c, last, 0, []string{"done:"}, "recover", "--config", last.Config, "--yes", yes)
	must(t, last.Start())
	until(t, "it serves alone", 20*time.Second, func() bool {
		s, err := last.Status(t.Context())
		g, _ := s.Group()
		return err == nil && g.State == "active" && s.ClusterID != before
	})
	for _, n := range lost {
		must(t, run("ip", "-n", n.Host.Namespace(), "addr", "add", n.Host.IPv4.String()+"/24", "dev", "eth0"))
	}
	// One that comes back as it was is told so, and one that was emptied joins.
	must(t, lost[0].Start())
	problem(t, lost[0], 20*time.Second, "removed from the cluster")
	must(t, lost[0].proc.Stop(20*time.Second))
	for _, n := range lost {
		must(t, os.RemoveAll(n.Data))
		must(t, n.Start())
	}
	until(t, "both have a vote", 60*time.Second, func() bool {
		s, err := last.Status(t.Context())
		return err == nil && votes(s, lost[0].Name) && votes(s, lost[1].Name)
	})
	healthy(t, c)
}
