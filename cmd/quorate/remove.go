package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/term"
)

func newRemoveCommand() *cobra.Command {
	var force bool
	c := asking(&cobra.Command{
		Use:   "remove NODE",
		Short: "Take a node out of the cluster for good",
		Long: "Take a node out of the cluster for good: one that is dead, or one that is drained. Its name and address are free\n" +
			"at once; its vote goes some seconds later, when the leases of before have run out. Its data_dir can never come\n" +
			"back: the host joins again, under the same name or another, when that is removed.\n\n" +
			"It is refused when too few of the voters that are left are heard, and when the node is alive and owns groups.\n" +
			"--force removes it all the same: in the first case nothing is held or decided until enough voters are back, in\n" +
			"the second clients wait while others take over. Two owners at once it does not risk. The last voter is never\n" +
			"removed.",
		Example:           "  quorate remove n3                # n3 is dead\n  quorate drain n3 && quorate remove n3",
		Args:              takes(1, "a node"),
		ValidArgsFunction: completing(nodeNames),
	}, question[api.Removed]{
		ask: func(ctx context.Context, client *api.Client, args []string) (api.Removed, error) {
			return client.Remove(ctx, args[0], force)
		},
		text: func(_ term.Screen, r api.Removed) string {
			return fmt.Sprintf("%s is removed: its name and address are free\n%s\n", r.Node, votersLeft(r.Voters))
		},
	})
	c.Flags().BoolVar(&force, "force", false, "remove it whatever that costs in service, see above")
	return c
}

// votersLeft says what a number of voters can stand.
func votersLeft(n int) string {
	switch bear := (n - 1) / 2; {
	case n == 1:
		return "1 voter is left: nobody takes over when it fails; add two"
	case bear == 0:
		return fmt.Sprintf("%d voters are left: when either fails nothing is held any more; add one, which may be a witness", n)
	default:
		return fmt.Sprintf("%d voters are left: %d may fail", n, bear)
	}
}
