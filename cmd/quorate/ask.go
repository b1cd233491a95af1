package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/term"
)

// A question is a command that has one answer: of the daemon, and for people or as
// JSON.
type question[T any] struct {
	// ask gets the answer. args are those of the command line.
	ask func(ctx context.Context, client *api.Client, args []string) (T, error)
	// text is the answer for people.
	text func(s term.Screen, answer T) string
	// json is the answer for programs; nil: the answer itself.
	json func(answer T) any
	// verdict is an error when an answer, which has been shown, is a failure all the same;
	// nil: none is.
	verdict func(answer T) error
}

// asking completes a command that asks the daemon: with the flags that say which daemon,
// and --json.
func asking[T any](c *cobra.Command, q question[T]) *cobra.Command {
	var t target
	var asJSON bool
	c.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := t.client()
		if err != nil {
			return err
		}
		defer client.Close()
		answer, err := q.ask(cmd.Context(), client, args)
		if err := errors.Join(err, noteVersion(cmd, client)); err != nil {
			return err
		}
		if err := q.show(cmd, answer, asJSON); err != nil || q.verdict == nil {
			return err
		}
		return q.verdict(answer)
	}
	t.flags(c)
	jsonFlag(c, &asJSON)
	return c
}

func (q question[T]) show(cmd *cobra.Command, answer T, asJSON bool) error {
	switch {
	case asJSON && q.json != nil:
		return showJSON(cmd.OutOrStdout(), q.json(answer))
	case asJSON:
		return showJSON(cmd.OutOrStdout(), answer)
	}
	return write(cmd.OutOrStdout(), q.text(screenOf(cmd), answer))
}

func jsonFlag(c *cobra.Command, asJSON *bool) {
	c.Flags().BoolVar(asJSON, "json", false, "print JSON (docs/cli.md describes the fields)")
}

// noteVersion says once on stderr that the daemon is of another version, where that may
// be why something failed or is missing.
func noteVersion(cmd *cobra.Command, client *api.Client) error {
	if note := client.Difference(); note != "" {
		return write(cmd.ErrOrStderr(), "quorate: "+note+"\n")
	}
	return nil
}

// colourFlag is the root's, for all commands.
func colourFlag(root *cobra.Command) {
	when := term.Auto
	const name = "color"
	root.PersistentFlags().Var(&when, name, "colours in the output; auto: on a terminal, unless NO_COLOR is set")
	values := cobra.FixedCompletions([]cobra.Completion{"auto", "always", "never"}, cobra.ShellCompDirectiveNoFileComp)
	_ = root.RegisterFlagCompletionFunc(name, values) // it fails for a flag that is not there
}

// screenOf describes the command's output.
func screenOf(cmd *cobra.Command) term.Screen { return term.Of(cmd.OutOrStdout(), colourOf(cmd)) }

// errorScreenOf describes where the command's errors go.
func errorScreenOf(cmd *cobra.Command) term.Screen { return term.Of(cmd.ErrOrStderr(), colourOf(cmd)) }

func colourOf(cmd *cobra.Command) term.When {
	when := term.Auto
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if w, ok := f.Value.(*term.When); ok {
			when = *w
		}
	})
	return when
}

// table is for rows of plain text; the first has the names of the columns.
func table(s term.Screen, rows [][]string) string {
	cells := make([][]term.Cell, len(rows))
	for i, r := range rows {
		cells[i] = term.Cells(r...)
	}
	return s.Table(cells)
}
