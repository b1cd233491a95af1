package lab

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// problem waits until a node's status names all the words among its problems.
func problem(t *testing.T, n *Node, limit time.Duration, words ...string) Status {
	t.Helper()
	var s Status
	until(t, n.Name+" has the problem "+strings.Join(words, ", "), limit, func() bool {
		var err error
		// It may not have its socket yet.
		s, err = n.Status(t.Context())
		return err == nil && hasAll(strings.Join(s.Problems, "\n"), words...)
	})
	return s
}

// TestStrangers starts nodes beside a cluster that are not to be let in. They say why
// they are outside, the cluster says whom it refuses, and nothing of it changes.
func TestStrangers(t *testing.T) {
	c := formedCluster(t, ClusterOptions{IPv6: true})
	before := status(t, c.Nodes[0])
	group, _ := before.Group()
	from := Now()
	for i, tt := range []struct {
		name     string
		old, new string
		want     []string // in the stranger's problems and in its log
		refused  []string // in the log of some node of the cluster
	}{
		{name: "otherkey", old: c.key, new: filepath.Join(c.Lab.dir, "other.key"),
			want: []string{"other-key"}, refused: []string{"refused", "other-key"}},
		{name: "othername", old: "cluster: demo", new: "cluster: elsewhere",
			want: []string{"other-cluster", "elsewhere"}, refused: []string{"refused", "other-cluster", "elsewhere"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := addNode(t, c, tt.name, 10+i)
			edit(t, n, tt.old, tt.new)
			if tt.name == "otherkey" {
				_, err := quorate(t.Context(), n.binary, "keygen", "--out", tt.new)
				must(t, err)
			}
			must(t, n.Start())
			s := problem(t, n, 10*time.Second, tt.want...)
			t.Logf("state %q: %q", s.State, s.Problems)
			if s.ClusterID != "" || s.State == "running" {
				t.Errorf("it is in a cluster %q, state %q", s.ClusterID, s.State)
			}
			logged(t, n, 10*time.Second, tt.want...)
			until(t, "the cluster's log says whom it refuses", 10*time.Second, func() bool {
				for _, m := range c.Nodes {
					if hasAll(output(t, m.proc), append(tt.refused, n.Host.IPv4.String())...) {
						return true
					}
				}
				return false
			})
			healthy(t, c) // two seconds with the stranger at the door
			must(t, n.proc.Stop(5*time.Second))
			noPanic(t, n.proc)
		})
	}
	healthy(t, c)
	after := status(t, c.Nodes[0])
	if g, _ := after.Group(); g.Epoch != group.Epoch || g.Owner != group.Owner || after.ClusterID != before.ClusterID || len(after.Members) != 3 {
		t.Errorf("the cluster changed: %+v, and was %+v", after, before)
	}
	v, err := c.Judge(from, Now())
	must(t, err)
	if worst := max(v.Outage, v.Outage6); worst > 500*time.Millisecond && v.Blind < worst/2 {
		t.Errorf("an outage of %v, while strangers knocked", worst)
	}
}

// TestAddressTaken forms a cluster on a LAN where another host has one of the group's
// addresses. Nobody binds beside it; when it gives the address up, the owner does.
func TestAddressTaken(t *testing.T) {
	for i, name := range []string{"IPv4", "IPv6"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait most of the time
			testAddressTaken(t, i)
		})
	}
}

func testAddressTaken(t *testing.T, index int) {
	c := newCluster(t, ClusterOptions{IPv6: true})
	vip := c.vips()[index]
	printer := addHost(t, c.Lab, "printer", 20)
	must(t, run("ip", append([]string{"-n", printer.Namespace(), "addr", "add", vip.String(), "dev", "eth0"}, nodad(vip.Addr().Is6())...)...))
	for _, n := range c.Nodes {
		must(t, n.Start())
	}
	var refuser *Node
	until(t, "a node finds the address taken", 20*time.Second, func() bool {
		for _, n := range c.Nodes {
			s, err := n.Status(t.Context())
			if g, ok := s.Group(); err == nil && ok && g.State == "fault" && hasAll(g.Problem, vip.Addr().String(), printer.MAC.String()) {
				refuser = n
				return true
			}
		}
		return false
	})
	if !hasAll(output(t, refuser.proc), "address conflict", vip.Addr().String(), printer.MAC.String()) {
		t.Errorf("%s does not log the conflict", refuser.Name)
	}
	pause(3 * time.Second) // the others are tried meanwhile
	if anyHolds(t, c) {
		t.Error("a node holds an address of the group, of which another host has one")
	}
	for _, p := range append(c.Probes4[:1:1], c.Probes6...) {
		for _, a := range p.Trace().Answers {
			if a.Host != printer.Name {
				t.Fatalf("%s answered for %s beside %s", a.Host, p.Trace().Target, printer.Name)
			}
		}
	}

	must(t, run("ip", "-n", printer.Namespace(), "addr", "del", vip.String(), "dev", "eth0"))
	given := Now()
	must(t, c.WaitHealthy(t.Context(), 25*time.Second))
	t.Logf("healthy %v after the address was given up (2 s of that are the looking)", Now().Sub(given))
	onlyOwnerHolds(t, c)
}

func nodad(is6 bool) []string {
	if is6 {
		return []string{"nodad"}
	}
	return nil
}
