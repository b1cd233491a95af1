package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/term"
)

// timing is the topic of `explain` that is no group.
const timing = "timing"

// An explained is the answer to `explain`: of a group, or of the timing.
type explained struct {
	group  fsm.Explanation
	timing *timingReport
}

func newExplainCommand() *cobra.Command {
	return asking(&cobra.Command{
		Use:   "explain GROUP|timing",
		Short: "Say why a VIP group is where it is and what would move it, or how long everything takes and why",
		Long: "Say why a VIP group is where it is, how every node stands as a candidate, and what would move it.\n\n" +
			"With timing: every timeout of this cluster and what it follows from, how long a failover takes at worst, why two\n" +
			"nodes cannot answer at once, and what another lease would cost or gain. (A group of that name has to be renamed to\n" +
			"be explained.)",
		Example:           "  quorate explain web\n  quorate explain timing",
		Args:              takes(1, "a group, or timing"),
		ValidArgsFunction: completing(topics),
	}, question[explained]{ask: askExplain, text: explainText, json: func(e explained) any {
		if e.timing != nil {
			return e.timing
		}
		return e.group
	}})
}

func askExplain(ctx context.Context, client *api.Client, args []string) (explained, error) {
	if args[0] != timing {
		g, err := client.Explain(ctx, args[0])
		return explained{group: g}, err
	}
	st, err := client.Status(ctx)
	if err != nil {
		return explained{}, err
	}
	if st.Election == alone {
		return explained{}, errors.New("election: vrrp has no lease to explain; quorate vrrp shows the intervals of the adverts")
	}
	snap, err := client.Snapshot(ctx)
	if err != nil {
		return explained{}, err
	}
	state, err := snap.Open()
	if err != nil {
		return explained{}, err
	}
	return explained{timing: newTiming(st, state.Document)}, nil
}

func explainText(s term.Screen, e explained) string {
	if e.timing != nil {
		return e.timing.text(s)
	}
	return groupExplained(s, e.group)
}

func groupExplained(s term.Screen, e fsm.Explanation) string {
	var b strings.Builder
	head := e.Group + " is on " + e.Owner
	if e.Owner == "" {
		head = e.Group + " is on no node"
	}
	if e.Epoch != 0 {
		head += fmt.Sprintf(" since epoch %d (%s)", e.Epoch, e.Reason)
	}
	b.WriteString(s.Paint(term.Strong, s.Wrap(head+"; placement: "+e.Placement, "  ")) + "\n")
	if len(e.Together) > 0 {
		b.WriteString(s.Wrap("moves together with "+strings.Join(e.Together, ", "), "  ") + "\n")
	}
	rows := [][]term.Cell{term.Cells("NODE", "SCORE", "FIT", "WHY")}
	for _, c := range e.Candidates {
		rows = append(rows, []term.Cell{{Text: c.Name}, {Text: strconv.Itoa(c.Score)}, yesNoCell(c.Fit), {Text: strings.Join(c.Why, "; ")}})
	}
	b.WriteString("\n" + s.Table(rows))
	if len(e.Next) > 0 {
		b.WriteString("\n" + s.Paint(term.Strong, "what would move it") + "\n")
	}
	for _, n := range e.Next {
		b.WriteString(s.Wrap("- "+n, "  ") + "\n")
	}
	return b.String()
}
