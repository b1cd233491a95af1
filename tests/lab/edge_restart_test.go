package lab

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"
)

var restartRounds = flag.Int("restart-rounds", 1, "how often TestEdgeRestart kills and starts each kind of owner")

// TestEdgeRestart kills owners outright and starts them again at once. They are back within
// their lease and keep the addresses: nobody outside sees anything of it, and nothing moves.
func TestEdgeRestart(t *testing.T) {
	t.Parallel()
	const lease = 3 * time.Second
	c := formedCluster(t, ClusterOptions{IPv6: true, Lease: lease, Interval: 3 * time.Second, Stable: 500 * time.Millisecond})
	for _, of := range []struct {
		name  string
		leads bool
	}{{"owner", false}, {"leader", true}} {
		t.Run(of.name, func(t *testing.T) {
			must(t, c.Arrange(t.Context(), of.leads))
			for range *restartRounds {
				restartOwner(t, c, lease)
			}
		})
	}
	onlyOwnerHolds(t, c)
}

// restartOwner kills the owner, starts it again and watches for two leases.
func restartOwner(t *testing.T, c *Cluster, lease time.Duration) {
	t.Helper()
	owner := ownerOf(t, c)
	epoch := groupOf(t, owner).Epoch
	from := Now()
	const said = "the addresses are kept that an earlier life of the daemon held"
	before := strings.Count(output(t, owner.proc), said)
	must(t, owner.proc.Kill())
	must(t, owner.Start())
	until(t, owner.Name+" logs that it keeps the addresses", lease, func() bool { return strings.Count(output(t, owner.proc), said) > before })
	kept := Now().Sub(from)
	until(t, "the lease is asked for", 2*lease, func() bool { return Now() > from.Add(lease) && groupOf(t, owner).State == "active" })
	must(t, c.WaitHealthy(t.Context(), patience))
	v, err := c.Judge(from.Add(-20*DefaultPeriod), Now())
	must(t, err)
	t.Logf("kept %v after the kill; the client got nothing for %v", kept.Round(time.Millisecond), v.ClientOutage.Round(time.Millisecond))
	for _, p := range append(c.Probes4[:1:1], c.Probes6...) {
		tr := p.TraceBetween(v.From, v.To)
		gap, blind := Outage(tr.Answers, v.From, v.To).Length(), Blind(tr, v.From, v.To).Length()
		t.Logf("%s unanswered for %v at most, not asked for %v", tr.Target, gap.Round(time.Millisecond), blind.Round(time.Millisecond))
		if gap > blind+4*DefaultPeriod {
			t.Errorf("%s was unanswered for %v, and asked all the time but for %v", tr.Target, gap, blind)
		}
	}
	if !slices.Equal(v.Owners, []string{owner.Host.Name}) || v.TwoOwners != 0 {
		t.Errorf("owners %v, two for %v", v.Owners, v.TwoOwners)
	}
	if now := groupOf(t, owner); now.Owner != owner.Name || now.Epoch != epoch {
		t.Errorf("owner %s by epoch %d, want %s by %d: it was moved", now.Owner, now.Epoch, owner.Name, epoch)
	}
}

// groupOf is the group as a node sees it.
func groupOf(t *testing.T, n *Node) StatusVIP {
	t.Helper()
	s, err := n.Look(t.Context())
	must(t, err)
	g, ok := s.Group()
	if !ok {
		t.Fatalf("%s knows no group %q", n.Name, Group)
	}
	return g
}
