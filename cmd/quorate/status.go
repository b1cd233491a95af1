package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/term"
)

// noSingleOwner is said wherever a node elects by VRRP alone.
const noSingleOwner = "election: vrrp cannot promise a single owner: routers that do not hear each other all answer, and nothing stops a hung one; " +
	"election: raft does"

// alone is the election of a node without a cluster.
const alone = "vrrp"

// A statusReport is the JSON of `quorate status`.
type statusReport struct {
	Verdict  grade     `json:"verdict"`
	Findings []finding `json:"findings"`
	// Error is why the daemon did not answer, and Host what is known without it; then
	// there is nothing else.
	Error string      `json:"error,omitempty"`
	Host  *hostReport `json:"host,omitempty"`
	*core.Status
}

func newStatusCommand() *cobra.Command {
	var t target
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Say whether all is well, who owns each VIP group, and what is wrong",
		Long: "Say whether all is well, and what to do if it is not; then who owns each VIP group since when and why, the nodes, and\n" +
			"everything that is wrong. The first word is OK, WARNING (safe and served, but look), OUTAGE (somebody is not\n" +
			"served) or UNSAFE (two hosts may answer).\n\n" +
			"When the daemon does not answer, it says what that left on this host (as root). The exit code is then 1, and also\n" +
			"when this node has no quorum.",
		Example: "  quorate status\n  quorate status --json | jq '.vips[].owner'",
		Args:    takes(0, "no arguments"),
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := t.client()
		if err != nil {
			return err
		}
		defer client.Close()
		st, err := client.Status(cmd.Context())
		if err := noteVersion(cmd, client); err != nil {
			return err
		}
		if err != nil {
			return t.down(cmd, asJSON, err)
		}
		all := findings(st)
		if asJSON {
			err = showJSON(cmd.OutOrStdout(), statusReport{Verdict: worst(all), Findings: append([]finding{}, all...), Status: &st})
		} else {
			err = write(cmd.OutOrStdout(), statusText(screenOf(cmd), st, all))
		}
		if err == nil && st.Election != alone && st.State != "removed" && !st.Quorum {
			err = errSaid
		}
		return err
	}
	t.flags(c)
	jsonFlag(c, &asJSON)
	return c
}

// down shows what is known without the daemon.
func (t *target) down(cmd *cobra.Command, asJSON bool, asked error) error {
	if !errors.Is(asked, api.ErrNoDaemon) && !errors.Is(asked, api.ErrNoAnswer) {
		return asked
	}
	host := lookAtHost(t.file(), t.socket)
	f := downFinding(asked, host)
	if asJSON {
		err := showJSON(cmd.OutOrStdout(), statusReport{Verdict: f.Grade, Findings: []finding{f}, Error: asked.Error(), Host: &host})
		return errors.Join(err, errSaid)
	}
	return errors.Join(write(cmd.OutOrStdout(), downText(screenOf(cmd), f, host)), errSaid)
}

func statusText(s term.Screen, st core.Status, all []finding) string {
	var b strings.Builder
	if st.Shadow {
		b.WriteString(s.Wrap("SHADOW: this node only looks on; what it says of owners is what would be, and REALLY is what is", "  ") + "\n")
	}
	b.WriteString(headline(s, st, all) + "\n")
	if len(st.VIPs) == 0 {
		b.WriteString("no VIP groups\n")
	} else {
		b.WriteString(s.Table(groupRows(st)))
	}
	if len(st.Members) > 0 {
		b.WriteString("\n" + s.Table(nodeRows(st)))
	}
	if len(all) < 2 {
		return b.String()
	}
	b.WriteString("\n" + s.Paint(term.Strong, "besides") + "\n")
	for _, f := range all[1:] { // the first is in the headline
		b.WriteString(s.Paint(f.Grade.paint(), s.Wrap(fmt.Sprintf("- %s: %s", f.Grade, f.What), "  ")) + "\n")
		if f.Do != "" {
			b.WriteString(s.Wrap("  do: "+f.Do, "      ") + "\n")
		}
	}
	return b.String()
}

func groupRows(st core.Status) [][]term.Cell {
	rows := plainGroupRows(st)
	if !st.Shadow {
		return rows
	}
	rows[0] = append(rows[0], term.Cell{Text: "REALLY"})
	for i, v := range st.VIPs {
		rows[i+1] = append(rows[i+1], term.Cell{Text: orNobody(v.Really)})
	}
	return rows
}

func plainGroupRows(st core.Status) [][]term.Cell {
	if st.Election == alone {
		rows := [][]term.Cell{term.Cells("GROUP", "STATE", "ADDRESSES", "VRRP")}
		for _, v := range st.VIPs {
			rows = append(rows, []term.Cell{{Text: v.Name}, stateCell(st, v), {Text: strings.Join(v.Addresses, ", ")}, {Text: vrrpText(st, v)}})
		}
		return rows
	}
	rows := [][]term.Cell{term.Cells("GROUP", "OWNER", "STATE", "LEASE", "SINCE", "WHY", "ADDRESSES", "VRRP")}
	for _, v := range st.VIPs {
		lease := term.Cell{Text: "-"}
		if v.State == "active" {
			lease = term.Cell{Text: showMillis(v.LeaseRemainingMS), Paint: leasePaint(v.LeaseRemainingMS, st.LeaseMS)}
		}
		rows = append(rows, []term.Cell{{Text: v.Name}, {Text: orNone(v.Owner)}, stateCell(st, v), lease, {Text: when(v.Since)}, {Text: orDash(v.Reason)},
			{Text: strings.Join(v.Addresses, ", ")}, {Text: vrrpText(st, v)}})
	}
	return rows
}

// leasePaint warns when half of the lease is gone: an answer comes each third of it.
func leasePaint(left, lease float64) term.Paint {
	switch {
	case left >= lease/2:
		return term.Good
	case left > 0:
		return term.Warn
	}
	return term.Bad
}

// stateCell is the group's state on this node, and whether anybody answers for it.
func stateCell(st core.Status, v core.VIPStatus) term.Cell {
	c := term.Cell{Text: v.State}
	switch {
	case v.WithoutProof:
		c = term.Cell{Text: v.State + ", WITHOUT PROOF", Paint: term.Bad}
	case v.State == "active":
		c.Paint = term.Good
	case v.State == "fault" || v.State == "unowned":
		c.Paint = term.Bad
	case st.Election == alone:
	case outranked(v):
		c.Paint = term.Warn
	case !v.Open:
		c = term.Cell{Text: v.State + ", NOT SERVED", Paint: term.Bad}
	}
	return c
}

func nodeRows(st core.Status) [][]term.Cell {
	rows := [][]term.Cell{term.Cells("NODE", "ROLE", "HEARD", "READY", "ADDRESS", "")}
	for _, m := range st.Members {
		role := m.Role
		if !m.Voter {
			role += ", no vote"
		}
		rows = append(rows, []term.Cell{{Text: m.Name}, {Text: role}, yesNoCell(m.Alive), yesNoCell(m.Ready), {Text: m.Address}, {Text: memberNote(st, m)}})
	}
	return rows
}

func yesNoCell(b bool) term.Cell {
	if b {
		return term.Cell{Text: "yes", Paint: term.Good}
	}
	return term.Cell{Text: "NO", Paint: term.Bad}
}

func vrrpText(st core.Status, v core.VIPStatus) string {
	if v.VRRP == nil {
		return "-"
	}
	text := fmt.Sprintf("id %d %s", v.VRRP.ID, vrrpState(v.VRRP))
	if v.VRRP.State == "Active" {
		text += " (master)"
	}
	if st.Election == alone { // in a cluster it matters to the holder only, and quorate vrrp has it
		text += fmt.Sprintf(" priority %d", v.VRRP.Priority)
	}
	return text
}

// vrrpState is the state of the group's virtual routers: it moves as one.
func vrrpState(v *core.VRRPStatus) string {
	begun := func(r core.RouterStatus) bool { return r.State != "Initialize" }
	if len(v.Routers) > 0 && !slices.ContainsFunc(v.Routers, begun) {
		return "Initialize"
	}
	return v.State
}
