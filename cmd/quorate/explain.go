package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/fsm"
)

func newExplainCommand() *cobra.Command {
	var t target
	var asJSON bool
	c := &cobra.Command{
		Use:     "explain GROUP",
		Short:   "Say why a VIP group is where it is, and what would move it",
		Example: "  quorate explain web",
		Args:    takes(1, "a group"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			defer client.Close()
			e, err := client.Explain(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return showJSON(cmd.OutOrStdout(), e)
			}
			return showExplanation(cmd, e)
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func showExplanation(cmd *cobra.Command, e fsm.Explanation) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is on %s", e.Group, orNone(e.Owner))
	if e.Epoch != 0 {
		fmt.Fprintf(&b, " since epoch %d (%s)", e.Epoch, e.Reason)
	}
	fmt.Fprintf(&b, "; placement: %s\n", e.Placement)
	if len(e.Together) > 0 {
		fmt.Fprintf(&b, "moves together with %s\n", strings.Join(e.Together, ", "))
	}
	b.WriteString("\n")
	if err := write(cmd.OutOrStdout(), b.String()); err != nil {
		return err
	}
	rows := [][]string{{"NODE", "SCORE", "FIT", "WHY"}}
	for _, c := range e.Candidates {
		rows = append(rows, []string{c.Name, strconv.Itoa(c.Score), yesNo(c.Fit), strings.Join(c.Why, "; ")})
	}
	if err := showTable(cmd.OutOrStdout(), rows); err != nil {
		return err
	}
	if len(e.Next) == 0 {
		return nil
	}
	return write(cmd.OutOrStdout(), "\n"+strings.Join(e.Next, "\n")+"\n")
}
