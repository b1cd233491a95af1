package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/agent/core"
)

// noSingleOwner is said wherever a node elects by VRRP alone.
const noSingleOwner = "election: vrrp cannot promise a single owner: routers that do not hear each other all answer, and nothing stops a hung one; " +
	"election: raft does"

func newStatusCommand() *cobra.Command {
	return readingCommand(&cobra.Command{
		Use:     "status",
		Short:   "Show this node, its cluster and who owns each VIP group",
		Example: "  quorate status\n  quorate status --json | jq '.vips[].owner'",
	}, func(s core.Status) any { return s }, showStatus)
}

// readingCommand completes a command that shows a part of the status: as JSON, or
// in a form for people.
func readingCommand(c *cobra.Command, part func(core.Status) any, show func(*cobra.Command, core.Status) error) *cobra.Command {
	var t target
	var asJSON bool
	c.Args = takes(0, "no arguments")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := t.status(cmd)
		if err != nil {
			return err
		}
		if asJSON {
			return showJSON(cmd.OutOrStdout(), part(s))
		}
		return show(cmd, s)
	}
	t.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (t *target) status(cmd *cobra.Command) (core.Status, error) {
	client, err := t.client()
	if err != nil {
		return core.Status{}, err
	}
	defer client.Close()
	return client.Status(cmd.Context())
}

func showStatus(cmd *cobra.Command, s core.Status) error {
	var b strings.Builder
	b.WriteString(statusHead(s))
	for _, p := range problems(s) {
		fmt.Fprintf(&b, "PROBLEM: %s\n", p)
	}
	b.WriteString("\n")
	if err := write(cmd.OutOrStdout(), b.String()); err != nil {
		return err
	}
	if len(s.VIPs) == 0 {
		return write(cmd.OutOrStdout(), "no VIP groups\n")
	}
	rows := [][]string{{"NAME", "ADDRESSES", "OWNER", "STATE", "EPOCH", "LEASE", "VRRP"}}
	if s.Election == alone {
		rows[0] = []string{"NAME", "ADDRESSES", "STATE", "VRRP"}
	}
	for _, v := range s.VIPs {
		rows = append(rows, vipRow(s, v))
	}
	return showTable(cmd.OutOrStdout(), rows)
}

// alone is the election of a node without a cluster.
const alone = "vrrp"

func statusHead(s core.Status) string {
	if s.Election == alone {
		return fmt.Sprintf("node: %s  a VRRP router of its own\nNOTE: %s\n", s.Node, noSingleOwner)
	}
	cluster := s.Cluster
	if cluster == "" {
		cluster = "not formed"
	}
	return fmt.Sprintf("cluster: %s  node: %s  leader: %s  quorum: %s  fence: %s  lease: %s\n",
		cluster, s.Node, orNone(s.Leader), yesNo(s.Quorum), s.Fence, showMillis(s.LeaseMS))
}

func vipRow(s core.Status, v core.VIPStatus) []string {
	lease, vrrp := "-", "-"
	if v.State == "active" {
		lease = showMillis(v.LeaseRemainingMS)
	}
	if v.VRRP != nil {
		vrrp = fmt.Sprintf("id %d %s", v.VRRP.ID, vrrpState(v.VRRP))
		if v.VRRP.State == "Active" {
			vrrp += " (master)"
		}
		if v.VRRP.State == "Active" || s.Election == alone { // in a cluster only the holder speaks
			vrrp += fmt.Sprintf(" priority %d", v.VRRP.Priority)
		}
	}
	if s.Election == alone {
		return []string{v.Name, strings.Join(v.Addresses, ","), v.State, vrrp}
	}
	return []string{v.Name, strings.Join(v.Addresses, ","), orNone(v.Owner), v.State, strconv.FormatUint(v.Epoch, 10), lease, vrrp}
}

// vrrpState is the state of the group's virtual routers: it moves as one.
func vrrpState(v *core.VRRPStatus) string {
	begun := func(r core.RouterStatus) bool { return r.State != "Initialize" }
	if len(v.Routers) > 0 && !slices.ContainsFunc(v.Routers, begun) {
		return "Initialize"
	}
	return v.State
}

// problems returns what a person should look at, the gravest first.
func problems(s core.Status) []string {
	var out []string
	if s.Election != alone {
		out = clusterProblems(s)
	}
	if s.State == "stopping" || s.State == "refused" {
		out = append(out, "this node is "+s.State)
	}
	out = append(out, s.Problems...)
	if s.ClusterID != "" && !s.Ready {
		out = append(out, "this node does not confirm leases yet: do not stop another one now")
	}
	for _, m := range s.Members {
		if !m.Alive {
			out = append(out, fmt.Sprintf("node %s (%s) is not heard", m.Name, m.Address))
		}
	}
	for _, v := range s.VIPs {
		out = append(out, vipProblems(s, v)...)
	}
	return out
}

func clusterProblems(s core.Status) []string {
	switch {
	case s.State == "removed": // which is said, and there is nothing more to it
		return nil
	case s.ClusterID == "":
		return []string{fmt.Sprintf("the cluster is not formed yet (%s)", s.State)}
	case !s.Quorum:
		return []string{"no quorum: this node is not in touch with a majority, so no VIP can be held or moved from here"}
	case s.Leader == "":
		return []string{"no leader: owners keep their VIPs, and nothing can be moved"}
	}
	return nil
}

// outranked reports whether a router outside the cluster keeps the group from being held.
func outranked(v core.VIPStatus) bool {
	return v.Problem != "" && v.VRRP != nil &&
		slices.ContainsFunc(v.VRRP.Routers, func(r core.RouterStatus) bool { return r.Outranked != nil && !r.Alarm })
}

func vipProblems(s core.Status, v core.VIPStatus) []string {
	var out []string
	switch {
	case s.Election == alone: // who else answers is not known here
	case outranked(v): // that is why nobody here answers, and Problem says so
	case v.State == "unowned":
		out = append(out, v.Name+": no node owns it")
	case !v.Open && v.State != "active":
		out = append(out, fmt.Sprintf("%s: its owner %s does not answer for it", v.Name, v.Owner))
	}
	if v.Problem != "" {
		out = append(out, v.Name+": "+v.Problem)
	}
	return out
}
