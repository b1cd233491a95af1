package lab

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The second group of the dual master.
const otherGroup = "api"

var otherVIP = netip.MustParseAddr("10.0.0.201")

// fine is how often a probe asks that measures planned moves.
const fine = time.Millisecond

// hiccup is what these tests allow for beyond what the design promises: how long a busy
// machine may stand still. The figures themselves are printed.
const hiccup = 500 * time.Millisecond

// TestPlacementDualMaster has two groups that each prefer another node. Each node covers
// for the other, and has its own back when it has been there for the delay.
func TestPlacementDualMaster(t *testing.T) {
	t.Parallel()
	c := formedCluster(t, ClusterOptions{
		Stable:    500 * time.Millisecond,
		GroupKeys: "placement: priority\npriority: {n1: 150, n2: 120}\npreempt: 1s\n",
		Groups: "api:\n  addresses: [10.0.0.201/24]\n  interface: eth0\n  placement: priority\n" +
			"  priority: {n2: 150, n1: 120}\n  preempt: 1s\n",
	})
	other := secondProbe(t, c, otherVIP, DefaultPeriod)
	n1, n2 := c.Node("n1"), c.Node("n2")
	settled(t, c, n1, n2)

	from := Now()
	must(t, n1.proc.Kill())
	held(t, c.Nodes[1], Group, n2, 5*time.Second)
	held(t, c.Nodes[1], otherGroup, n2, time.Second)
	must(t, n1.Start())
	back := Now()
	settled(t, c, n1, n2)
	if took := Now().Sub(back); took < time.Second {
		t.Errorf("n1 had its group back %v after it was started, want the delay of 1s at least", took)
	}
	healthy(t, c)
	v, err := c.Judge(from, Now())
	must(t, err)
	if want := []string{"n1", "n2", "n1"}; !slices.Equal(v.Owners, want) {
		t.Errorf("%s was answered by %v, want %v", Group, v.Owners, want)
	}
	tr := other.TraceBetween(from, Now())
	if got := Owners(tr.Answers, from, Now()); !slices.Equal(got, []string{"n2"}) {
		t.Errorf("%s was answered by %v, want n2 alone", otherGroup, got)
	}
	t.Logf("n1 killed: %s unanswered for %v; %s, which was not n1's, for %v at most",
		Group, v.Outage, otherGroup, Outage(tr.Answers, from, Now()).Length())
}

// settled waits until each of the two groups is where it is to be.
func settled(t *testing.T, c *Cluster, web, api *Node) {
	t.Helper()
	held(t, c.Nodes[2], Group, web, 20*time.Second)
	held(t, c.Nodes[2], otherGroup, api, 20*time.Second)
}

// held waits until the node asked says that a group is owned and open on another.
func held(t *testing.T, asked *Node, group string, by *Node, limit time.Duration) StatusVIP {
	t.Helper()
	var v StatusVIP
	until(t, fmt.Sprintf("%s is held by %s, as %s sees it", group, by.Name, asked.Name), limit, func() bool {
		s, err := asked.Look(t.Context())
		v, _ = s.vip(group)
		return err == nil && v.Owner == by.Name && (v.Open || v.State == "active")
	})
	return v
}

// secondProbe asks for another address than the cluster's probes do. Nobody may ever
// have seen two owners of it.
func secondProbe(t *testing.T, c *Cluster, addr netip.Addr, period time.Duration) *Probe {
	t.Helper()
	p, err := c.Probes4[0].host.StartProbe(addr, period, 1)
	must(t, err)
	t.Cleanup(func() {
		if spans := Overlaps([]Trace{p.Trace()}); len(spans) > 0 || p.Err() != nil {
			t.Errorf("%v: two owners at %v; the probe: %v", addr, spans, p.Err())
		}
	})
	return p
}

// TestPlacementHealth fails a check where the group is. It moves while the old owner
// still serves, so it costs no more than a planned move does.
func TestPlacementHealth(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := formedCluster(t, ClusterOptions{
		Stable:    500 * time.Millisecond,
		GroupKeys: "checks: [service]\n",
		Checks: fmt.Sprintf("checks:\n  service:\n    command: [/bin/sh, -c, 'test ! -e %s/$QUORATE_NODE']\n"+
			"    interval: 200ms\n    timeout: 2s\n    rise: 2\n    fall: 2\n", dir),
	})
	probe := secondProbe(t, c, VIP4.Addr(), fine)
	for range 3 {
		healthy(t, c)
		owner := ownerOf(t, c)
		from := Now()
		mark := filepath.Join(dir, owner.Name)
		must(t, os.WriteFile(mark, nil, 0o600))
		until(t, Group+" leaves "+owner.Name, 10*time.Second, func() bool {
			got := Owners(probe.TraceBetween(from, Now()).Answers, from, Now())
			return len(got) == 2
		})
		pause(300 * time.Millisecond)
		v, err := c.Judge(from, Now())
		must(t, err)
		outage := Outage(probe.TraceBetween(from, Now()).Answers, from, Now()).Length()
		t.Logf("check failed on %s: answered by %v; outage %v, as the client saw it %v", owner.Name, v.Owners, outage, v.ClientOutage)
		if bound := HandOver.Bound(0) + hiccup; outage > bound {
			t.Errorf("a move by a check took %v without an answer, want at most %v", outage, bound)
		}
		must(t, os.Remove(mark))
	}

	// When it fails everywhere, the group stays where it is.
	owner := ownerOf(t, c)
	from := Now()
	for _, n := range c.Nodes {
		must(t, os.WriteFile(filepath.Join(dir, n.Name), nil, 0o600))
	}
	pause(2 * time.Second)
	v, err := c.Judge(from, Now())
	must(t, err)
	t.Logf("the checks fail everywhere: before on %s, answered by %v, outage %v", owner.Name, v.Owners, v.Outage)
	if len(v.Owners) > 2 { // who is the first to fail may lose it to one that does not fail yet
		t.Errorf("the checks fail everywhere, and the group is passed round: %v", v.Owners)
	}
}

// manyGroups is how many are spread.
const manyGroups = 50

// TestPlacementSpread spreads fifty groups over five nodes, and kills one of them: its
// groups move, and no other.
func TestPlacementSpread(t *testing.T) {
	t.Parallel()
	var groups strings.Builder
	for i := range manyGroups {
		fmt.Fprintf(&groups, "g%02d: {addresses: [10.0.0.%d/24], interface: eth0, placement: spread}\n", i, int(otherVIP.As4()[3])+i)
	}
	c := formedCluster(t, ClusterOptions{
		Nodes: 5, Stable: 500 * time.Millisecond, GroupKeys: "placement: spread\n", Groups: groups.String(),
	})
	before := spread(t, c)
	for name, n := range load(before) {
		if n < manyGroups/5 || n > manyGroups/5+1 {
			t.Errorf("%s holds %d of %d groups, want an even share", name, n, manyGroups+1)
		}
	}
	victim := c.Other(ownerOf(t, c))
	from := Now()
	must(t, victim.proc.Kill())
	rest := c.without(victim)
	until(t, "the groups of "+victim.Name+" are held by others", 10*time.Second, func() bool {
		s, err := rest.Nodes[0].Look(t.Context())
		return err == nil && !slices.ContainsFunc(s.VIPs, func(v StatusVIP) bool {
			return v.Owner == victim.Name || !v.Open && v.State != "active"
		})
	})
	took := Now().Sub(from)
	after := spread(t, rest)
	moved := 0
	for name, was := range before {
		is := after[name]
		switch {
		case was.Owner == victim.Name:
			moved++
		case is.Owner != was.Owner || is.Epoch != was.Epoch:
			t.Errorf("%s was disturbed: on %s at epoch %d, then on %s at epoch %d", name, was.Owner, was.Epoch, is.Owner, is.Epoch)
		}
	}
	shares := load(after)
	for name, n := range shares {
		if n < manyGroups/4-1 || n > manyGroups/4+2 {
			t.Errorf("afterwards %s holds %d groups, want an even share: %v", name, n, shares)
		}
	}
	t.Logf("%s killed: its %d groups were all held again within %v; shares %v", victim.Name, moved, took, shares)
	must(t, victim.Start())
	healthy(t, c)
	if got := spread(t, c); load(got)[victim.Name] != 0 {
		t.Errorf("%s is back and took %d groups, want none: placement is sticky", victim.Name, load(got)[victim.Name])
	}
}

// spread waits until every group is open, and returns them.
func spread(t *testing.T, c *Cluster) map[string]StatusVIP {
	t.Helper()
	groups := map[string]StatusVIP{}
	until(t, "every group is held", 30*time.Second, func() bool {
		s, err := c.Nodes[0].Look(t.Context())
		clear(groups)
		for _, v := range s.VIPs {
			if v.Open || v.State == "active" {
				groups[v.Name] = v
			}
		}
		return err == nil && len(groups) == manyGroups+1
	})
	return groups
}

func load(groups map[string]StatusVIP) map[string]int {
	out := map[string]int{}
	for _, v := range groups {
		out[v.Owner]++
	}
	return out
}

// TestPlacementMoves moves a group a hundred times under a probe that asks each
// millisecond.
func TestPlacementMoves(t *testing.T) {
	t.Parallel()
	c := formedCluster(t, ClusterOptions{Stable: 500 * time.Millisecond})
	probe := secondProbe(t, c, VIP4.Addr(), fine)
	var outages []time.Duration
	owner := ownerOf(t, c)
	for range 100 {
		to := c.Other(owner)
		from := Now()
		must(t, c.Move(t.Context(), owner, to))
		until(t, to.Name+" answers", 2*time.Second, func() bool { // its commit may be slow; the old owner serves meanwhile
			answers := probe.TraceBetween(from, Now()).Answers
			return len(answers) > 0 && answers[len(answers)-1].Host == to.Name
		})
		pause(50 * time.Millisecond)
		tr := probe.TraceBetween(from, Now())
		outages = append(outages, Outage(tr.Answers, from, Now()).Length())
		owner = to
	}
	slices.Sort(outages)
	t.Logf("100 planned moves: outage p50 %v, p90 %v, p99 %v, max %v", outages[49], outages[89], outages[98], outages[99])
	if bound := HandOver.Bound(0); outages[49] > bound { // half of them: no machine stands still that often
		t.Errorf("half of the moves took more than %v", bound)
	}
}

// TestPlacementRollingRestart restarts all nodes, one after the other, as
// deploy/rolling-restart.sh does. Clients pay for a planned move each time at most.
func TestPlacementRollingRestart(t *testing.T) {
	t.Parallel()
	c := formedCluster(t, ClusterOptions{Stable: 500 * time.Millisecond})
	from := Now()
	for _, n := range c.Nodes {
		command(t, c, n, "drain")
		must(t, n.proc.Stop(20*time.Second))
		must(t, n.Start())
		until(t, n.Name+" is ready", 20*time.Second, func() bool {
			s, err := n.Look(t.Context())
			return err == nil && s.Ready
		})
		command(t, c, n, "undrain")
		healthy(t, c)
	}
	v, err := c.Judge(from, Now())
	must(t, err)
	if moves := len(v.Owners) - 1; moves > len(c.Nodes) {
		t.Errorf("answered by %v: %d moves, want %d at most", v.Owners, moves, len(c.Nodes))
	}
	if bound := HandOver.Bound(0) + hiccup; max(v.Outage, v.ClientOutage) > bound {
		t.Errorf("the longest outage was %v, as the client saw it %v; want %v at most", v.Outage, v.ClientOutage, bound)
	}
	t.Logf("three nodes restarted: answered by %v, longest outage %v, as the client saw it %v", v.Owners, v.Outage, v.ClientOutage)
}

// command calls a command of the node's own command line.
func command(t *testing.T, c *Cluster, n *Node, args ...string) string {
	t.Helper()
	out, err := quorate(t.Context(), c.opt.Binary, append(args, "--socket", n.Socket)...)
	must(t, err)
	return string(out)
}

// TestPlacementLeaderKilled kills the Raft leader twenty times while it owns nothing. No
// question may go without an answer for that.
func TestPlacementLeaderKilled(t *testing.T) {
	t.Parallel()
	c := formedCluster(t, ClusterOptions{Stable: 300 * time.Millisecond})
	var worst time.Duration
	for range 20 {
		must(t, c.Arrange(t.Context(), false))
		healthy(t, c)
		leader, err := c.Leader(t.Context())
		must(t, err)
		owner := ownerOf(t, c)
		before, _ := status(t, owner).Group()
		from := Now()
		must(t, leader.proc.Kill())
		rest := c.without(leader)
		until(t, "another leads", 10*time.Second, func() bool {
			s, err := owner.Look(t.Context())
			return err == nil && s.Quorum && s.Leader != "" && s.Leader != leader.Name
		})
		pause(3 * cmp.Or(c.opt.Lease, 250*time.Millisecond))
		v, err := c.Judge(from, Now())
		must(t, err)
		worst = max(worst, v.Outage-v.Blind)
		after, _ := status(t, rest.Nodes[0]).Group()
		if len(v.Owners) != 1 || after.Epoch != before.Epoch {
			t.Errorf("leader %s killed: answered by %v, epoch %d and before %d", leader.Name, v.Owners, after.Epoch, before.Epoch)
		}
		if bound := HandOver.Bound(0) + hiccup; v.Outage > bound {
			t.Errorf("leader %s killed: nobody answered for %v", leader.Name, v.Outage)
		}
		must(t, leader.Start())
		healthy(t, c)
	}
	t.Logf("the leader was killed 20 times: longest time without an answer, beyond the probe's own pauses: %v", worst)
}

// TestPlacementReplace puts a fresh node in the place of a dead one, once under the same
// name and once under another, as docs/operations.md has it.
func TestPlacementReplace(t *testing.T) {
	t.Parallel()
	c := formedCluster(t, ClusterOptions{Stable: 500 * time.Millisecond})
	owner := ownerOf(t, c)
	dead := c.Other(owner)
	from := Now()
	must(t, dead.proc.Kill())
	must(t, os.RemoveAll(dead.Data))
	rest := c.without(dead)
	until(t, dead.Name+" is seen dead", 10*time.Second, func() bool { return !votes(status(t, owner), dead.Name) })
	command(t, c, owner, "remove", dead.Name)

	must(t, os.Mkdir(dead.Data, 0o700))
	must(t, dead.Start())
	until(t, dead.Name+" votes again", 60*time.Second, func() bool { return votes(status(t, owner), dead.Name) })
	healthy(t, c)

	must(t, dead.proc.Kill())
	until(t, dead.Name+" is seen dead", 10*time.Second, func() bool { return !votes(status(t, owner), dead.Name) })
	command(t, c, owner, "remove", dead.Name)
	fresh := addNode(t, c, "n4", 4)
	must(t, fresh.Start())
	until(t, fresh.Name+" votes", 60*time.Second, func() bool { return votes(status(t, owner), fresh.Name) })
	rest.Nodes = append(rest.Nodes, fresh)
	must(t, rest.WaitHealthy(t.Context(), 40*time.Second))
	v, err := c.Judge(from, Now())
	must(t, err)
	if len(v.Owners) != 1 || v.Outage > HandOver.Bound(0)+hiccup {
		t.Errorf("answered by %v, longest outage %v; want %s all the time", v.Owners, v.Outage, owner.Name)
	}
	t.Logf("a dead node was replaced twice: longest time without an answer %v, in which the probe itself asked nothing for %v", v.Outage, v.Blind)
	c.Nodes = rest.Nodes
	if len(status(t, owner).Members) != 3 {
		t.Errorf("members: %+v, want three", status(t, owner).Members)
	}
}
