package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/term"
)

func newMembersCommand() *cobra.Command {
	return asking(&cobra.Command{
		Use:     "members",
		Short:   "List the nodes of the cluster",
		Example: "  quorate members\n  quorate members --json | jq -r '.[] | select(.alive | not) | .name'",
		Args:    takes(0, "no arguments"),
	}, question[core.Status]{
		ask: func(ctx context.Context, client *api.Client, _ []string) (core.Status, error) {
			return client.Status(ctx)
		},
		text: membersText,
		json: func(s core.Status) any { return s.Members },
	})
}

func membersText(s term.Screen, st core.Status) string {
	if st.Election == alone {
		return s.Wrap("election: vrrp: there is no cluster, and so no members; quorate vrrp shows whom this node hears", "  ") + "\n"
	}
	if len(st.Members) == 0 {
		return "the cluster is not formed yet\n"
	}
	rows := [][]term.Cell{term.Cells("NAME", "ADDRESS", "ROLE", "VOTER", "ALIVE", "READY", "APPLIED", "INSTANCE", "")}
	for _, m := range st.Members {
		rows = append(rows, []term.Cell{{Text: m.Name}, {Text: m.Address}, {Text: m.Role}, {Text: yesNo(m.Voter)}, yesNoCell(m.Alive), yesNoCell(m.Ready),
			{Text: applied(m)}, {Text: short(m.Instance)}, {Text: memberNote(st, m)}})
	}
	return s.Table(rows)
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
