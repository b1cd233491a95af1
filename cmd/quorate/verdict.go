package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/term"
)

// A grade is how bad something is, the worst last.
type grade uint8

const (
	_       grade = iota
	fine          // served, and by one node at most
	warning       // that too, and somebody should look
	outage        // somebody is not served
	unsafe        // two hosts may answer
)

// String is the grade as people and JSON have it.
func (g grade) String() string {
	return [...]string{"grade(0)", "ok", "warning", "outage", "unsafe"}[g]
}

// MarshalText makes it a word in JSON.
func (g grade) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

func (g grade) paint() term.Paint {
	switch g {
	case fine:
		return term.Good
	case warning:
		return term.Warn
	}
	return term.Bad
}

// A finding is one thing that a person should look at.
type finding struct {
	Grade grade  `json:"grade"`
	What  string `json:"what"`
	Do    string `json:"do,omitempty"`
}

// worst is the grade of all of them together.
func worst(all []finding) grade {
	g := fine
	for _, f := range all {
		g = max(g, f.Grade)
	}
	return g
}

// findings returns what a person should look at, the gravest first.
func findings(s core.Status) []finding {
	var out []finding
	add := func(g grade, do, format string, args ...any) {
		out = append(out, finding{Grade: g, What: fmt.Sprintf(format, args...), Do: do})
	}
	if s.Election != alone {
		out = clusterFindings(s)
	}
	if s.State == "stopping" || s.State == "refused" {
		add(warning, "journalctl -u quorate says why", "this node is %s", s.State)
	}
	for _, p := range s.Problems {
		add(warning, "", "%s", p)
	}
	if s.ClusterID != "" && !s.Ready {
		add(warning, "do not stop another node now; wait until quorate members says READY yes",
			"this node does not confirm leases yet")
	}
	for _, m := range s.Members {
		if !m.Alive {
			add(warning, fmt.Sprintf("look at its host, at its network and at systemctl status quorate there; if it is lost for good: quorate remove %s", m.Name),
				"node %s (%s) is not heard", m.Name, m.Address)
		}
	}
	for _, v := range s.VIPs {
		out = append(out, groupFindings(s, v)...)
	}
	slices.SortStableFunc(out, func(a, b finding) int { return cmp.Compare(b.Grade, a.Grade) })
	return out
}

func clusterFindings(s core.Status) []finding {
	switch {
	case s.State == "removed": // which is said, and there is nothing more to it
		return nil
	case s.ClusterID == "":
		return []finding{{outage, fmt.Sprintf("the cluster is not formed yet (%s)", s.State), "start quorate on every node of peers; all of them must be reached once"}}
	case !s.Quorum:
		return []finding{{outage, "no quorum: this node is not in touch with a majority, so no VIP can be held or moved from here",
			"start the nodes that are not heard, or mend the network to them; if a majority is lost for good: quorate recover --help"}}
	}
	var out []finding
	if s.Leader == "" {
		out = append(out, finding{warning, "no leader: owners keep their VIPs, and nothing can be moved", "wait two seconds and look again; journalctl -u quorate says who stands for it"})
	}
	if s.Fence == "lifetime" {
		out = append(out, finding{warning, "fence: lifetime is the weaker fence: a freeze at the wrong moment can let two nodes answer", "write fence: bpf where the kernel has BPF"})
	}
	return out
}

// outranked reports whether a router outside the cluster keeps the group from being held.
func outranked(v core.VIPStatus) bool {
	return v.Problem != "" && v.VRRP != nil &&
		slices.ContainsFunc(v.VRRP.Routers, func(r core.RouterStatus) bool { return r.Outranked != nil && !r.Alarm })
}

// contested reports whether the group is answered for here beside a better router.
func contested(v core.VIPStatus) bool {
	return v.VRRP != nil && slices.ContainsFunc(v.VRRP.Routers, func(r core.RouterStatus) bool { return r.Alarm })
}

// claimFresh is for how long a claim of another host counts as present, in milliseconds.
const claimFresh = 60_000

func groupFindings(s core.Status, v core.VIPStatus) []finding {
	var out []finding
	add := func(g grade, do, format string, args ...any) {
		out = append(out, finding{Grade: g, What: v.Name + ": " + fmt.Sprintf(format, args...), Do: do})
	}
	why := "quorate explain " + v.Name
	g := warning
	switch {
	case s.Election == alone: // who else answers is not known here
		why = "quorate vrrp"
		if v.State == "fault" {
			g = outage
		}
	case v.WithoutProof:
		g = unsafe
		why = "mend the network to the other nodes; on_quorum_loss: hold asked for this"
	case outranked(v): // that is why nobody here answers, and Problem says so
		why = "quorate vrrp"
	case v.State == "unowned":
		add(outage, why, "no node owns it")
	case !v.Open && v.State != "active" && v.Owner == s.Node:
		text := "this node owns it and does not answer for it"
		if v.Problem != "" {
			text += ": " + v.Problem
			v.Problem = "" // that is said
		}
		add(outage, why, "%s", text)
	case !v.Open && v.State != "active":
		add(outage, fmt.Sprintf("quorate status on %s says more; %s", v.Owner, why), "its owner %s does not answer for it", v.Owner)
	}
	for _, c := range v.Claims {
		if c.LastAgoMS < claimFresh {
			add(unsafe, "find that host and take the address off it; "+why, "another host, %s, claims %s too (%s, the last %s)",
				c.MAC, c.Address, plural(int(c.Count), "time"), ago(c.LastAgoMS))
		}
	}
	if contested(v) {
		add(unsafe, "quorate vrrp", "a router outside with the better claim answers too (outranked: hold)")
	}
	if v.Problem != "" {
		add(g, why, "%s", v.Problem)
	}
	if v.Failing {
		add(warning, why, "fails on this node: %s", strings.Join(v.FailingWhy, "; "))
	}
	return out
}

// facts is what the promise rests on at present.
func facts(s core.Status) string {
	voters, heard := 0, 0
	for _, m := range s.Members {
		if m.Voter {
			voters++
			if m.Alive {
				heard++
			}
		}
	}
	out := fmt.Sprintf("%d of %s heard", heard, plural(voters, "voter"))
	switch bear := heard - (voters/2 + 1); {
	case voters == 0:
		out = "no voters known"
	case bear == 1:
		out += ", 1 may fail"
	case bear > 1:
		out += fmt.Sprintf(", %d may fail", bear)
	case bear == 0:
		out += ", none may fail"
	}
	out += fmt.Sprintf("; fence %s; lease %s", s.Fence, shortMillis(s.LeaseMS))
	if left, some := leastLease(s); some {
		out += fmt.Sprintf(", %s left at least", shortMillis(left))
	}
	if s.Leader != "" {
		out += "; leader " + s.Leader
	}
	return out
}

// leastLease is the least that is left of the leases held here, in milliseconds.
func leastLease(s core.Status) (left float64, some bool) {
	for _, v := range s.VIPs {
		if v.State == "active" && !v.WithoutProof && (!some || v.LeaseRemainingMS < left) {
			left, some = v.LeaseRemainingMS, true
		}
	}
	return left, some
}

// headline is what a glance should say, what to do, and what that rests on.
func headline(s term.Screen, st core.Status, all []finding) string {
	name := "cluster " + orNone(st.Cluster)
	if st.Cluster == "" {
		name = "no cluster"
	}
	where := fmt.Sprintf("%s, seen from %s: %s", name, st.Node, facts(st))
	what := "one owner at most, all groups served"
	if st.Election == alone {
		where = st.Node + ", a VRRP router of its own: " + noSingleOwner
		what = "every group has its state by VRRP"
	}
	if st.Shadow {
		what = "every group would be served"
	}
	g := worst(all)
	if g != fine {
		what = all[0].What
		if more := len(all) - 1; more > 0 {
			what += fmt.Sprintf(" (and %d more, below)", more)
		}
	}
	lines := []string{strings.ToUpper(g.String()) + ": " + what}
	if g != fine && all[0].Do != "" {
		lines = append(lines, "do: "+all[0].Do)
	}
	text := s.Paint(g.paint(), s.Wrap(lines[0], "  ")) + "\n"
	for _, l := range lines[1:] {
		text += s.Wrap("  "+l, "      ") + "\n"
	}
	return text + s.Wrap(where, "  ") + "\n"
}
