package lab

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/api"
)

// TestTry makes faults on purpose with the command line, and compares what it reports
// with what the judge outside saw.
func TestTry(t *testing.T) {
	t.Parallel()
	const six = "six"
	c := formedCluster(t, ClusterOptions{Stable: 500 * time.Millisecond,
		Groups: fmt.Sprintf("%s:\n  addresses: [2001:db8::201/64]\n  interface: eth0\n  vmac: true\n  vrrp: {id: 53}\n%s:\n  addresses: [%s/24]\n  interface: eth0\n",
			six, sideGroup, sideVIP)})
	t.Run("move", func(t *testing.T) {
		owner := ownerOf(t, c)
		r := c.tried(t, c.Other(owner), 0, "--move", Group)
		if now := ownerOf(t, c); now == owner || r.Owner != owner.Name || r.NewOwner != now.Name || r.NewOwner != r.Next || r.Event == nil || r.Event.Reason != "move" {
			t.Errorf("%s owns the group, and the report says %+v", now.Name, r)
		}
	})
	t.Run("kill", func(t *testing.T) {
		owner := ownerOf(t, c)
		asker := c.Other(owner)
		r := c.tried(t, asker, 0, "--kill", Group)
		until(t, "the daemon is gone", patience, func() bool { return !owner.proc.Running() })
		if g := groupOf(t, asker); g.Owner == owner.Name || r.NewOwner != g.Owner || r.Event == nil || r.Event.Phases == nil || r.Event.Phases.AnnouncedMS == nil {
			t.Errorf("%s owns the group, and the report says %+v", g.Owner, r)
		}
		if !hasAll(output(t, owner.proc), "kills itself", "by=root@"+asker.Name) {
			t.Errorf("%s does not say who asked:\n%s", owner.Name, output(t, owner.proc))
		}
		// With two of three left, another such fault would end the service.
		before := groupOf(t, asker)
		other := c.Node(before.Owner)
		if other == asker {
			other = c.Other(owner)
			asker = c.without(owner).Other(other)
		}
		until(t, owner.Name+" counts as lost", patience, func() bool {
			return slices.ContainsFunc(status(t, asker).Members, func(m StatusMember) bool { return m.Name == owner.Name && !m.Alive })
		})
		for _, fault := range []string{"--kill", "--move"} {
			code, out := call(t, asker.Host, asker.binary, "try", fault, Group, "--yes", "--socket", asker.Socket)
			if code != 1 || !hasAll(out, "nothing was done") {
				t.Errorf("%s with two of three: exit %d\n%s", fault, code, out)
			}
		}
		if now := groupOf(t, asker); now.Owner != before.Owner || now.Epoch != before.Epoch || !other.proc.Running() {
			t.Errorf("a fault that was refused was made: %+v, before %+v", now, before)
		}
		must(t, owner.Start())
		healthy(t, c)
	})
	t.Run("by IPv6, with a virtual MAC", func(t *testing.T) {
		asker := c.Nodes[0]
		r := c.trying(t, asker, 0, "--move", six)
		if v, _ := status(t, asker).vip(six); v.Owner != r.NewOwner || r.NewOwner == r.Owner || r.TwoOwnersMS != 0 || len(r.Notes) != 1 || r.Answered == 0 {
			t.Errorf("%s owns the group, and the report says %+v", v.Owner, r)
		}
	})
	t.Run("with a second host that answers", func(t *testing.T) {
		address := func(what string) error {
			return run("ip", "-n", c.Client.host.Namespace(), "addr", what, sideVIP.String()+"/32", "dev", "eth0")
		}
		must(t, address("add"))
		defer func() { must(t, address("del")) }()
		r := c.trying(t, c.Nodes[0], 1, "--move", sideGroup, "--for", "2s")
		if r.TwoOwnersMS == 0 || len(r.Failures) == 0 || !hasAll(r.Failures[0], "two hosts answered", sideVIP.String()) {
			t.Errorf("the report says %+v", r)
		}
	})
	t.Run("on the owner itself", func(t *testing.T) {
		owner := ownerOf(t, c)
		code, out := call(t, owner.Host, owner.binary, "try", "--kill", Group, "--yes", "--socket", owner.Socket)
		if code != 1 || !hasAll(out, "run it on another node") || !owner.proc.Running() {
			t.Errorf("exit %d\n%s", code, out)
		}
	})
	onlyOwnerHolds(t, c)
}

// trying makes a fault from a node, and wants the exit code.
func (c *Cluster) trying(t *testing.T, from *Node, want int, args ...string) (r api.TryReport) {
	t.Helper()
	begun := Now()
	code, out := call(t, from.Host, append([]string{from.binary, "try", "--yes", "--json", "--socket", from.Socket}, args...)...)
	i := strings.IndexByte(out, '{') // what will happen was on stderr
	if i < 0 || json.Unmarshal([]byte(out[i:]), &r) != nil {
		t.Fatalf("exit %d, no JSON in:\n%s", code, out)
	}
	t.Logf("%v: %s saw %g ms (at least %g, to within %g): %+v", Now().Sub(begun).Round(time.Millisecond), r.Probe, r.OutageMS, r.AtLeastMS, r.ResolutionMS, r)
	if code != want || r.Passed != (want == 0) {
		t.Errorf("exit %d, want %d:\n%s", code, want, out)
	}
	return r
}

// tried is trying with the judge's group, and wants that the report agrees with the judge.
func (c *Cluster) tried(t *testing.T, from *Node, want int, args ...string) api.TryReport {
	t.Helper()
	begun := Now()
	r := c.trying(t, from, want, args...)
	v, err := c.Judge(begun, Now())
	must(t, err)
	t.Logf("the judge saw %v (blind for %v)", v.Outage.Round(time.Millisecond), v.Blind.Round(time.Millisecond))
	if v.TwoOwners != 0 || r.TwoOwnersMS != 0 {
		t.Errorf("two owners for %v, and by the report for %g ms", v.TwoOwners, r.TwoOwnersMS)
	}
	const slack = 50 * time.Millisecond
	seen, paused := time.Duration(r.OutageMS*float64(time.Millisecond)), time.Duration(r.ResolutionMS*float64(time.Millisecond))
	if differ := time.Duration(math.Abs(float64(seen - v.Outage))); differ > slack+paused+v.Blind {
		t.Errorf("it reports %v, and the judge saw %v", seen, v.Outage)
	}
	var nodes []string
	for _, h := range r.Hosts {
		nodes = append(nodes, h.Node)
	}
	if !slices.Equal(nodes, v.Owners) {
		t.Errorf("it says that %q answered, and the judge %q", nodes, v.Owners)
	}
	return r
}
