package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/election/raftnode"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/daemon"
	"github.com/quorate/quorate/internal/term"
	"github.com/quorate/quorate/vipctl"
	"github.com/quorate/quorate/vrrpcompat"
)

// A timingReport is every timeout of a node, and what follows from its lease.
type timingReport struct {
	Node            string        `json:"node"`
	Fence           string        `json:"fence"`
	Voters          int           `json:"voters"`
	WorstFailoverMS float64       `json:"worst_failover_ms"`
	Timeouts        []timeout     `json:"timeouts"`
	Why             []string      `json:"why"` // two nodes cannot answer at once, a sentence each
	Groups          []groupTiming `json:"groups"`
	Leases          []leaseChoice `json:"leases"`
}

// A timeout is one of them.
type timeout struct {
	Name string  `json:"name"` // it never changes
	MS   float64 `json:"ms"`
	Text string  `json:"text"`
}

// A groupTiming is when a group is announced, and how long routers outside wait.
type groupTiming struct {
	Group      string    `json:"group"`
	AnnounceMS []float64 `json:"announce_ms"` // after the take-over
	RefreshMS  float64   `json:"refresh_ms"`  // after that; 0: never
	// The rest is absent without VRRP. ClaimMS is when a backup outside may claim the
	// group at the earliest after its owner was lost, and Outruns: that is sooner than a
	// failover in the cluster may take.
	AdvertMS float64 `json:"advert_ms,omitempty"`
	DownMS   float64 `json:"down_ms,omitempty"`
	ClaimMS  float64 `json:"claim_ms,omitempty"`
	Outruns  bool    `json:"outruns,omitempty"`
}

// A leaseChoice is what a lease would mean for this cluster.
type leaseChoice struct {
	LeaseMS         float64 `json:"lease_ms"`
	Present         bool    `json:"present"`
	RenewMS         float64 `json:"renew_ms"`
	WorstFailoverMS float64 `json:"worst_failover_ms"`
	// StallMS is for how long the owner's process, or the network, may stand still at
	// the worst moment without the lease running out.
	StallMS float64 `json:"stall_ms"`
	// Datagrams is how many each node sends in a second, answers included.
	Datagrams float64 `json:"datagrams_per_second"`
	// AdvertMS is the shortest interval of VRRPv3 adverts with which no router outside
	// outruns a failover.
	AdvertMS float64 `json:"shortest_advert_ms"`
}

func newTiming(st core.Status, doc fsm.Document) *timingReport {
	lease, renew := ofMillis(st.LeaseMS), ofMillis(st.RenewMS)
	grace := election.GraceBPF
	if st.Fence == "lifetime" {
		grace = election.GraceLifetime
	}
	r := &timingReport{Node: st.Node, Fence: st.Fence, WorstFailoverMS: millis(config.WorstFailover(lease, grace)), Groups: []groupTiming{}}
	for _, m := range st.Members {
		if m.Voter {
			r.Voters++
		}
	}
	note, wait := election.WithDrift(lease+grace), election.RestartWait(lease+grace)
	add := func(name string, d time.Duration, text string) {
		r.Timeouts = append(r.Timeouts, timeout{name, millis(d), text})
	}
	add("renew", renew, "how often an owner asks the voters for more")
	add("lease", lease, "how long it may answer after it sent a question that a majority confirmed; and a node that no majority hears for so long is lost")
	add("grace", grace, "how long after the deadline the fence may still let a frame out")
	add("note", note, "how long a voter keeps others off after it confirmed: lease and grace, and 1 % for clocks that differ")
	add("announce-guard", election.AnnounceGuard, "nothing is announced within so long of the deadline")
	add("campaign-step", election.CampaignStep, "when the leader is lost too: how far apart the voters stand for leader, in a fixed order")
	add("not-open", election.NotOpenLeases*lease, "an owner that has not opened its group by then is replaced; the patience doubles with each failure in a row")
	add("probe", daemon.ProbeTime, "for so long the LAN is asked whether another host has an address, before a group is opened there for the first time")
	add("restart-wait", wait, "for so long a voter confirms nothing after its start; restart the next node only when it is ready")
	add("max-hold", doc.MaxHold, "the longest lease and grace that the cluster's document lets any node ask for")
	add("voter-spacing", election.Spacing(doc.MaxHold), "between two changes of the voters: a node that joins gets its vote, and one that is removed loses it, after so long")
	add("raft-heartbeat", raftnode.HeartbeatTimeout, "Raft's own: a follower that hears no leader for one to two of these stands for leader, if every campaign before failed")
	add("raft-election", raftnode.ElectionTimeout, "Raft's own: an election that has no winner after one to two of these is held again")
	r.Why = whyOne(r.Voters, lease, grace, note, wait)
	worst := config.WorstFailover(lease, grace)
	for _, g := range doc.Groups {
		r.Groups = append(r.Groups, timingOf(g, worst))
	}
	r.Leases = choices(lease, renew, grace, len(st.Members))
	return r
}

// whyOne is the argument of docs/safety.md in five sentences, with this cluster's figures.
func whyOne(voters int, lease, grace, note, wait time.Duration) []string {
	words := func(d time.Duration) string { return inWords(millis(d)) }
	return []string{
		fmt.Sprintf("An owner answers only until a deadline that %d of the %s confirmed: %s after it sent its question, by its own clock.",
			voters/2+1, plural(voters, "voter"), words(lease)),
		fmt.Sprintf("The kernel keeps that deadline, whatever becomes of the process: what comes later is dropped, and %s after it nothing is on its way any more.",
			words(grace)),
		fmt.Sprintf("Each voter that confirms keeps every other node off for %s from when it got the question, which is later than the sending, "+
			"and so long that clocks may differ by 1 %% (each is steered by %d ppm at most): that ends after the deadline.", words(note), election.MaxClockDeviation),
		fmt.Sprintf("The next owner needs %d of the voters too, and two majorities have a voter in common, which tells it how long it must still wait.", voters/2+1),
		fmt.Sprintf("A voter that has restarted, and forgotten whom it confirmed, confirms nothing for %s.", words(wait)),
	}
}

func timingOf(g fsm.Group, worst time.Duration) groupTiming {
	t := groupTiming{Group: g.Name, AnnounceMS: []float64{}, RefreshMS: millis(g.Announce.Refresh)}
	schedule := vipctl.Schedule(g.Announce.Repeat, g.Announce.Refresh)
	for n := range g.Announce.Repeat {
		at, _ := schedule.At(n)
		t.AnnounceMS = append(t.AnnounceMS, millis(at))
	}
	version, priority := vrrpcompat.Version(g.VRRP.Version), vrrpcompat.Priority(g.VRRP.Priority)
	if interval, err := vrrpcompat.IntervalOf(version, g.VRRP.Interval); err == nil && g.VRRP.ID != 0 {
		t.AdvertMS = millis(g.VRRP.Interval)
		t.DownMS = millis(version.DownInterval(priority, interval))
		t.ClaimMS = millis(version.EarliestClaim(priority, interval))
		t.Outruns = version.Outruns(priority, interval, worst)
	}
	return t
}

// candidates are the leases that are compared, by fence; each is one that a configuration
// may have.
var candidates = map[bool][]time.Duration{
	false: {50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 3 * time.Second},
	true:  {3 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second},
}

// choices compares leases, with renewals in the proportion that is configured.
func choices(lease, renew, grace time.Duration, nodes int) []leaseChoice {
	all := append([]time.Duration{lease}, candidates[grace == election.GraceLifetime]...)
	slices.Sort(all)
	var out []leaseChoice
	for _, l := range slices.Compact(all) {
		every := time.Duration(float64(l) * (float64(renew) / float64(lease)))
		worst := config.WorstFailover(l, grace)
		c := leaseChoice{LeaseMS: millis(l), Present: l == lease, RenewMS: millis(every), WorstFailoverMS: millis(worst), StallMS: millis(l - every)}
		c.Datagrams = 2 * float64(max(nodes-1, 0)) / every.Seconds()
		if advert, ok := vrrpcompat.V3.ShortestInterval(config.DefaultPriority, worst); ok {
			c.AdvertMS = millis(advert.Duration())
		}
		out = append(out, c)
	}
	return out
}

func (r *timingReport) text(s term.Screen) string {
	var b strings.Builder
	b.WriteString(s.Paint(term.Strong, s.Wrap(fmt.Sprintf("a lost owner is replaced within %s at worst (%s)", inWords(r.WorstFailoverMS), r.Node), "  ")) + "\n")
	b.WriteString(s.Wrap("That is with a whole round of campaigns lost and a busy disk; usually it takes about a lease.", "  ") + "\n\n")
	rows := [][]string{{"TIMEOUT", "", "WHAT FOR"}}
	for _, t := range r.Timeouts {
		rows = append(rows, []string{t.Name, inWords(t.MS), t.Text})
	}
	b.WriteString(table(s, rows))
	b.WriteString("\n" + s.Paint(term.Strong, "why two nodes cannot answer at once") + "\n")
	for i, w := range r.Why {
		b.WriteString(s.Wrap(fmt.Sprintf("%d. %s", i+1, w), "   ") + "\n")
	}
	if len(r.Groups) > 0 {
		b.WriteString("\n" + s.Paint(term.Strong, "groups") + "\n" + s.Table(r.groupRows()))
	}
	b.WriteString("\n" + s.Paint(term.Strong, "what another lease would mean") + "\n" + s.Table(r.leaseRows()))
	b.WriteString(s.Wrap("A shorter lease is a shorter outage. It costs datagrams, and a stall of the process or the network that lasts longer than "+
		"STALL costs the lease: nobody answers until the next owner does.", "") + "\n")
	return b.String()
}

func (r *timingReport) groupRows() [][]term.Cell {
	rows := [][]term.Cell{term.Cells("GROUP", "ANNOUNCED AFTER", "AGAIN EACH", "ADVERTS EACH", "A BACKUP OUTSIDE CLAIMS AFTER")}
	for _, g := range r.Groups {
		var at []string
		for _, ms := range g.AnnounceMS {
			at = append(at, inWords(ms))
		}
		refresh, advert, claim := "never", "-", term.Cell{Text: "-"}
		if g.RefreshMS > 0 {
			refresh = inWords(g.RefreshMS)
		}
		if g.AdvertMS > 0 {
			advert = inWords(g.AdvertMS)
			claim = term.Cell{Text: fmt.Sprintf("%s (down timer %s)", inWords(g.ClaimMS), inWords(g.DownMS)), Paint: term.Good}
		}
		if g.Outruns {
			claim = term.Cell{Text: claim.Text + ", SOONER than a failover may take", Paint: term.Bad}
		}
		rows = append(rows, []term.Cell{{Text: g.Group}, {Text: strings.Join(at, ", ")}, {Text: refresh}, {Text: advert}, claim})
	}
	return rows
}

func (r *timingReport) leaseRows() [][]term.Cell {
	rows := [][]term.Cell{term.Cells("LEASE", "RENEW", "WORST FAILOVER", "STALL", "DATAGRAMS/S", "SHORTEST ADVERTS", "")}
	for _, c := range r.Leases {
		row := term.Cells(inWords(c.LeaseMS), inWords(c.RenewMS), inWords(c.WorstFailoverMS), inWords(c.StallMS),
			fmt.Sprintf("%.0f", c.Datagrams), inWords(c.AdvertMS), "")
		if c.Present {
			row[6].Text = "now"
			for i := range row {
				row[i].Paint = term.Good
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func ofMillis(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// inWords is a length of time with the digits that matter.
func inWords(ms float64) string {
	d := ofMillis(ms).Round(100 * time.Microsecond)
	if d < time.Second {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", millis(d)), ".0") + " ms"
	}
	if d%time.Minute == 0 {
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", d.Seconds()), "0"), ".") + " s"
}
