package lab

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// TestFormationWaits starts two of three nodes: they must not form anything, since the
// third might be the memory of a cluster.
func TestFormationWaits(t *testing.T) {
	t.Parallel()
	c := newCluster(t, ClusterOptions{})
	late := c.Nodes[2]
	for _, n := range c.Nodes[:2] {
		must(t, n.Start())
	}
	for _, n := range c.Nodes[:2] {
		s := problem(t, n, 5*time.Second, "all peers must be there", late.Host.IPv4.String())
		if s.State != "waiting" {
			t.Errorf("%s: state %q, want waiting", n.Name, s.State)
		}
	}
	pause(3 * time.Second)
	for _, n := range c.Nodes[:2] {
		if s := status(t, n); s.ClusterID != "" || s.Leader != "" || s.Quorum {
			t.Errorf("%s formed something: %+v", n.Name, s)
		}
	}
	if got := len(c.Probes4[0].Trace().Answers); got > 0 {
		t.Errorf("%d answers, and no cluster", got)
	}
	must(t, late.Start())
	must(t, c.WaitHealthy(t.Context(), 15*time.Second))
}

// TestJoinAndWipe has a fourth node join, then a node lose its memory and come back.
func TestJoinAndWipe(t *testing.T) {
	t.Parallel()
	c := formedCluster(t, ClusterOptions{})
	id := status(t, c.Nodes[0]).ClusterID
	inCluster := func(t *testing.T, nodes ...*Node) {
		t.Helper()
		for _, n := range nodes {
			if s := status(t, n); s.ClusterID != id || id == "" {
				t.Errorf("%s is in cluster %q, want %q", n.Name, s.ClusterID, id)
			}
		}
	}
	voter := func(t *testing.T, n *Node) {
		t.Helper()
		asked := Now()
		until(t, n.Name+" votes, as every node sees", 30*time.Second, func() bool {
			for _, m := range c.Nodes {
				s, err := m.Status(t.Context())
				if err != nil || !votes(s, n.Name) {
					return false
				}
			}
			return true
		})
		t.Logf("%s votes after %v", n.Name, Now().Sub(asked))
	}

	fourth := addNode(t, c, "n4", 4)
	must(t, fourth.Start())
	c.Nodes = append(c.Nodes, fourth)
	voter(t, fourth)
	inCluster(t, c.Nodes...)
	if _, err := testFault(t, c, Faults()[0]); err != nil {
		t.FailNow()
	}

	owner := ownerOf(t, c)
	group, _ := status(t, owner).Group()
	wiped := c.Other(owner)
	must(t, wiped.proc.Stop(10*time.Second))
	must(t, os.RemoveAll(wiped.Data))
	rest := c.without(wiped)
	must(t, wiped.Start())
	s := problem(t, wiped, 10*time.Second, "refused", fmt.Sprintf("the name %q belongs to instance", wiped.Name), "choose another `node` name")
	logged(t, wiped, 5*time.Second, "step=refused", "belongs to instance")
	pause(3 * time.Second)
	if s = status(t, wiped); s.State != "refused" || s.ClusterID != "" {
		t.Errorf("%s: state %q, cluster %q, want refused and none", wiped.Name, s.State, s.ClusterID)
	}
	inCluster(t, rest.Nodes...)
	g, _ := status(t, owner).Group()
	if g.Owner != group.Owner || g.Epoch != group.Epoch || g.State != "active" {
		t.Errorf("the group was disturbed: %+v, and was %+v", g, group)
	}

	// Under another name and another address it is welcome.
	must(t, wiped.proc.Stop(10*time.Second))
	must(t, run("ip", "-n", wiped.Host.Namespace(), "addr", "add", "10.0.0.9/24", "dev", "eth0"))
	edit(t, wiped, "node: "+wiped.Name+"\n", "node: n9\n")
	edit(t, wiped, "address: "+wiped.Host.IPv4.String()+":7950", "address: 10.0.0.9:7950")
	edit(t, wiped, "peers: [", "peers: [10.0.0.9:7950, ")
	wiped.Name = "n9"
	must(t, wiped.Start())
	voter(t, wiped)
	healthy(t, c)
	inCluster(t, c.Nodes...)
}

func votes(s Status, name string) bool {
	for _, m := range s.Members {
		if m.Name == name {
			return m.Voter && m.Alive
		}
	}
	return false
}
