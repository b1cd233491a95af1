package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/agent/core"
)

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
	cluster := s.Cluster
	if cluster == "" {
		cluster = "not formed"
	}
	fmt.Fprintf(&b, "cluster: %s  node: %s  leader: %s  quorum: %s  fence: %s  lease: %s\n",
		cluster, s.Node, orNone(s.Leader), yesNo(s.Quorum), s.Fence, showMillis(s.LeaseMS))
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
	for _, v := range s.VIPs {
		rows = append(rows, vipRow(v))
	}
	return showTable(cmd.OutOrStdout(), rows)
}

func vipRow(v core.VIPStatus) []string {
	lease, vrrp := "-", "-"
	if v.State == "active" {
		lease = showMillis(v.LeaseRemainingMS)
	}
	if v.VRRP != nil {
		vrrp = fmt.Sprintf("id %d %s", v.VRRP.ID, v.VRRP.State)
		if v.VRRP.State == "Active" {
			vrrp += fmt.Sprintf(" (master) priority %d", v.VRRP.Priority)
		}
	}
	return []string{v.Name, strings.Join(v.Addresses, ","), orNone(v.Owner), v.State, strconv.FormatUint(v.Epoch, 10), lease, vrrp}
}

// problems returns what a person should look at, the gravest first.
func problems(s core.Status) []string {
	var out []string
	switch {
	case s.ClusterID == "":
		out = append(out, fmt.Sprintf("the cluster is not formed yet (%s)", s.State))
	case !s.Quorum:
		out = append(out, "no quorum: this node is not in touch with a majority, so no VIP can be held or moved from here")
	case s.Leader == "":
		out = append(out, "no leader: owners keep their VIPs, and nothing can be moved")
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
		out = append(out, vipProblems(v)...)
	}
	return out
}

func vipProblems(v core.VIPStatus) []string {
	var out []string
	switch {
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
