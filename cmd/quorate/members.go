package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/agent/core"
)

func newMembersCommand() *cobra.Command {
	return readingCommand(&cobra.Command{
		Use:     "members",
		Short:   "List the nodes of the cluster",
		Example: "  quorate members\n  quorate members --json | jq -r '.[] | select(.alive | not) | .name'",
	}, func(s core.Status) any { return s.Members }, showMembers)
}

func showMembers(cmd *cobra.Command, s core.Status) error {
	if s.Election == alone {
		return write(cmd.OutOrStdout(), "election: vrrp: there is no cluster, and so no members; quorate vrrp shows whom this node hears\n")
	}
	if len(s.Members) == 0 {
		return write(cmd.OutOrStdout(), "the cluster is not formed yet\n")
	}
	rows := [][]string{{"NAME", "ADDRESS", "ROLE", "VOTER", "ALIVE", "READY", "APPLIED", "INSTANCE", ""}}
	for _, m := range s.Members {
		rows = append(rows, []string{m.Name, m.Address, m.Role, yesNo(m.Voter), yesNo(m.Alive), yesNo(m.Ready), applied(m), short(m.Instance), memberNote(s, m)})
	}
	return showTable(cmd.OutOrStdout(), rows)
}

// applied is how far the node is in the log; of one that is not heard nobody knows.
func applied(m core.MemberStatus) string {
	if !m.Alive {
		return "-"
	}
	return strconv.FormatUint(m.Applied, 10)
}

// short is the beginning of an instance id, as logs have it.
func short(instance string) string { return instance[:min(8, len(instance))] }

func memberNote(s core.Status, m core.MemberStatus) string {
	var note string
	if m.Name == s.Leader {
		note = "leader"
	}
	if m.Instance == s.Instance {
		if note != "" {
			note += ", "
		}
		note += "this node"
	}
	if m.Drained {
		if note != "" {
			note += ", "
		}
		note += "drained"
	}
	return note
}
