package lab

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fenceLate is what the fence tells voters that it may be late by (design, section
// 3.3), and the way to the probe.
const fenceLate = 20 * time.Millisecond

// TestKillInPrivateMountNamespace kills an owner whose mount namespace dies with it:
// what it put into the kernel has to work on, and to be found again.
func TestKillInPrivateMountNamespace(t *testing.T) {
	t.Parallel()
	const lease = 250 * time.Millisecond
	c := formedCluster(t, ClusterOptions{IPv6: true, Lease: lease, OwnMounts: true})
	owner := ownerOf(t, c)
	must(t, owner.proc.Kill())
	end := Now().Add(lease + fenceLate)
	until(t, "the lease is over for a while", 5*time.Second, func() bool { return Now() > end.Add(lease) })
	for _, vip := range c.vipAddrs() {
		if !holds(t, owner, vip) {
			t.Errorf("%v left %s already: this test proves nothing of the fence", vip, owner.Name)
		}
	}
	if on := fenced(t, owner.Host); !slices.Contains(on, "eth0") {
		t.Errorf("the fence of the dead daemon stands on %v, want eth0 too", on)
	}
	quietFrom(t, c, owner.Host, end)

	must(t, owner.Start())
	logged(t, owner, 5*time.Second, "removed what an earlier life of the daemon left", VIP4.String(), VIP6.String())
	healthy(t, c)
	onlyOwnerHolds(t, c)
}

// TestReleaseByHand calls quorate release on the owner's host, as an operator or
// systemd would, in each state that the daemon can be in.
func TestReleaseByHand(t *testing.T) {
	t.Parallel()
	const lease = 250 * time.Millisecond
	c := formedCluster(t, ClusterOptions{IPv6: true, Lease: lease})
	release := func(t *testing.T, n *Node) (int, string) {
		t.Helper()
		code, out := call(t, n.Host, n.binary, "release", "--config", n.Config)
		t.Logf("exit code %d: %s", code, strings.TrimSpace(out))
		return code, out
	}
	t.Run("running", func(t *testing.T) {
		owner := ownerOf(t, c)
		asked := Now()
		if code, out := release(t, owner); code != 0 || !hasAll(out, "released", Group) {
			t.Errorf("exit code %d, %q", code, out)
		}
		for _, vip := range c.vipAddrs() {
			if holds(t, owner, vip) {
				t.Errorf("%s still holds %v", owner.Name, vip)
			}
		}
		healthy(t, c)
		if now := ownerOf(t, c); now == owner {
			t.Errorf("%s is owner again", now.Name)
		}
		v, err := c.Judge(asked, Now())
		must(t, err)
		if v.Outage > outageBound {
			t.Errorf("outage %v", v.Outage)
		}
	})
	t.Run("frozen", func(t *testing.T) {
		owner := ownerOf(t, c)
		must(t, owner.proc.Freeze())
		end := Now().Add(lease + fenceLate)
		if code, out := release(t, owner); code != 1 || !hasAll(out, "does not answer", "the kernel shuts", owner.Data) {
			t.Errorf("exit code %d, %q", code, out)
		}
		until(t, "another one answers", outageBound, func() bool {
			got := c.Probes4[0].recent(end).Answers
			return len(got) > 0 && got[len(got)-1].Host != owner.Host.Name
		})
		must(t, owner.proc.Thaw())
		healthy(t, c)
		quietFrom(t, c, owner.Host, end)
	})
	t.Run("dead", func(t *testing.T) {
		owner := ownerOf(t, c)
		must(t, owner.proc.Kill())
		if !holds(t, owner, VIP4.Addr()) || len(fenced(t, owner.Host)) == 0 {
			t.Fatal("the dead daemon left nothing to release")
		}
		if code, out := release(t, owner); code != 0 || !hasAll(out, "dead", VIP4.String(), VIP6.String(), "fence") {
			t.Errorf("exit code %d, %q", code, out)
		}
		for _, vip := range c.vipAddrs() {
			if holds(t, owner, vip) {
				t.Errorf("%s still holds %v", owner.Name, vip)
			}
		}
		if on := fenced(t, owner.Host); len(on) > 0 {
			t.Errorf("a fence is left on %v", on)
		}
		if code, out := release(t, owner); code != 0 || out != "" {
			t.Errorf("the second time: exit code %d, %q, want 0 and nothing", code, out)
		}
		must(t, owner.Start())
		healthy(t, c)
	})
}

// TestSecondSignal has the owner stop while nobody can take over, and loses patience.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	const lease = time.Second
	c := formedCluster(t, ClusterOptions{Lease: lease})
	owner := ownerOf(t, c)
	rest := c.without(owner).Nodes
	for _, n := range rest {
		must(t, n.proc.Freeze())
	}
	must(t, kill(owner.proc.Pid(), unix.SIGTERM))
	logged(t, owner, lease, "stopping: groups go to other nodes first")
	if !answering(c.Probes4[0].Trace, Now().Add(-4*DefaultPeriod)) {
		t.Error("it let go before anybody could take over")
	}
	must(t, kill(owner.proc.Pid(), unix.SIGTERM))
	sent := Now()
	// Raft's own goroutines have two seconds to end; the addresses do not wait for them.
	err := owner.proc.Wait(3 * time.Second)
	if owner.proc.Running() {
		t.Fatal(err)
	}
	t.Logf("it ended %v after the second signal: %v", Now().Sub(sent), err)
	if !hasAll(output(t, owner.proc), "second signal: ending at once") {
		t.Error("it does not log that a second signal came")
	}
	until(t, "the lease is over", 5*time.Second, func() bool { return Now() > sent.Add(lease+fenceLate) })
	silent(t, "after the second signal", c.Probes4[0].Trace)
	quietFrom(t, c, owner.Host, sent.Add(lease+fenceLate))
	for _, n := range rest {
		must(t, n.proc.Thaw())
	}
	must(t, c.without(owner).WaitHealthy(t.Context(), 40*time.Second))
	must(t, owner.Start())
	healthy(t, c)
	onlyOwnerHolds(t, c)
}

// TestLifetimeFence kills an owner that has no fence but the lifetime of its addresses.
// Freezing it is left out: docs/safety.md says why that may show two owners.
func TestLifetimeFence(t *testing.T) {
	t.Parallel()
	const (
		lease = 3 * time.Second
		grace = 1500 * time.Millisecond
	)
	c := formedCluster(t, ClusterOptions{IPv6: true, Lease: lease, Fence: "lifetime", Interval: 3 * time.Second})
	owner := ownerOf(t, c)
	if on := fenced(t, owner.Host); len(on) > 0 {
		t.Errorf("with fence: lifetime there are programs on %v", on)
	}
	must(t, owner.proc.Kill())
	killed := Now()
	until(t, "the addresses are gone", lease+grace, func() bool {
		return !slices.ContainsFunc(c.vipAddrs(), func(vip netip.Addr) bool { return holds(t, owner, vip) })
	})
	t.Logf("the addresses were gone %v after the kill", Now().Sub(killed))
	must(t, c.without(owner).WaitHealthy(t.Context(), 20*time.Second))
	quietFrom(t, c, owner.Host, killed.Add(lease+grace))
	v, err := c.Judge(killed.Add(-4*DefaultPeriod), Now())
	must(t, err)
	t.Logf("outage %v, IPv6 %v, owners %v", v.Outage, v.Outage6, v.Owners)
	// A lease, its grace, 1 % and a commit (docs/safety.md, section 4), and a busy machine.
	if worst := max(v.Outage, v.Outage6); worst > lease+grace+2*time.Second {
		t.Errorf("outage %v", worst)
	}
}

// TestShortLease is five nodes with about the shortest lease that can be written.
func TestShortLease(t *testing.T) {
	t.Parallel()
	c := formedCluster(t, ClusterOptions{Nodes: 5, Lease: 60 * time.Millisecond})
	if _, err := testFault(t, c, Faults()[0]); err != nil {
		t.FailNow()
	}
	onlyOwnerHolds(t, c)
}
