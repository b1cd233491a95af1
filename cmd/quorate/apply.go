package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/term"
)

func newApplyCommand() *cobra.Command {
	var how change
	c := &cobra.Command{
		Use:   "apply FILE",
		Short: "Replace the cluster's VIP groups, checks and hooks",
		Long: "Replace the cluster's document (vips, checks and hooks) by that of a file: a whole configuration file, of which\n" +
			"the rest is not looked at, or one that has only these. What changes is printed first. Every node that is heard\n" +
			"checks the document for its own devices and programs, and if one cannot do its part nothing is changed. A group\n" +
			"that does not change is not touched.\n\n" +
			"When somebody else applied a document meanwhile, this one is refused.",
		Example: "  quorate diff vips.yaml\n  quorate apply vips.yaml\n  quorate apply --seen 3 vips.yaml    # only over the revision that you looked at\n" +
			"  quorate history 2 | quorate apply -",
		Args: takes(1, "a file, or - for the standard input"),
	}
	how.flags(c)
	return asking(c, question[api.Applied]{ask: how.apply(c), text: appliedText})
}

func newDiffCommand() *cobra.Command {
	var code bool
	how := change{dry: true}
	c := &cobra.Command{
		Use:   "diff FILE",
		Short: "Show what `apply` would change",
		Long: "Show what `quorate apply` of the file would change, and what the nodes have against it. Nothing is changed.\n" +
			"The exit code is 0 whether or not there is a difference; with --exit-code it is 1 if there is one.",
		Example: "  quorate diff vips.yaml",
		Args:    takes(1, "a file, or - for the standard input"),
	}
	c.Flags().BoolVar(&code, "exit-code", false, "exit with 1 if there is a difference")
	return asking(c, question[api.Applied]{ask: how.apply(c), text: appliedText, verdict: func(a api.Applied) error {
		if code && a.Diff != "" {
			return errors.New("the file differs from the cluster's document")
		}
		return nil
	}})
}

func newRollbackCommand() *cobra.Command {
	var how change
	c := &cobra.Command{
		Use:   "rollback REVISION",
		Short: "Go back to an earlier document",
		Long: "Put an earlier revision of the document in the place of the present one, as `quorate apply` would. It becomes a\n" +
			"new revision: the history goes on.",
		Example:           "  quorate history\n  quorate rollback 3",
		Args:              takes(1, "a revision"),
		ValidArgsFunction: completing(revisions),
	}
	how.flags(c)
	return asking(c, question[api.Applied]{text: appliedText, ask: func(ctx context.Context, client *api.Client, args []string) (api.Applied, error) {
		n, err := revisionOf(args[0])
		if err != nil {
			return api.Applied{}, err
		}
		return client.Rollback(ctx, api.RollbackRequest{Revision: n, Seen: how.seen, DryRun: how.dry})
	}})
}

// A change says how the document is to be changed.
type change struct {
	dry  bool
	seen uint64
}

func (h *change) flags(c *cobra.Command) {
	c.Flags().BoolVar(&h.dry, "dry-run", false, "show what would change, have every node check it, and change nothing")
	c.Flags().Uint64Var(&h.seen, "seen", 0, "refuse unless this is the present revision (default: whatever it is)")
}

// apply asks for the document of the file that is named.
func (h *change) apply(c *cobra.Command) func(context.Context, *api.Client, []string) (api.Applied, error) {
	return func(ctx context.Context, client *api.Client, args []string) (api.Applied, error) {
		text, err := readDocument(c.InOrStdin(), args[0])
		if err != nil {
			return api.Applied{}, err
		}
		return client.Apply(ctx, api.ApplyRequest{Name: args[0], Text: text, Seen: h.seen, DryRun: h.dry})
	}
}

// maxFile bounds the file that is read, in bytes: what a configuration file may have.
const maxFile = 1 << 20

func readDocument(in io.Reader, file string) (string, error) {
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("read the document: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return "", fmt.Errorf("read the document: %w", err)
	}
	switch {
	case len(b) > maxFile:
		return "", fmt.Errorf("read the document: %s is longer than %d bytes; see that it is a configuration file", file, maxFile)
	case strings.TrimSpace(string(b)) == "":
		return "", fmt.Errorf("read the document: %s is empty; write at least vips with one group", file)
	}
	return string(b), nil
}

// appliedText is what was done, or would be.
func appliedText(_ term.Screen, a api.Applied) string {
	var b strings.Builder
	for _, text := range a.Warnings {
		fmt.Fprintf(&b, "WARNING: %s\n", text)
	}
	if a.Diff == "" {
		fmt.Fprintf(&b, "nothing to change: the cluster has this document, at revision %d\n", a.Revision)
		return b.String()
	}
	b.WriteString(a.Diff)
	for _, e := range a.Effects {
		b.WriteString(e + "\n")
	}
	fmt.Fprintf(&b, "checked by %s", strings.Join(a.Checked, ", "))
	if len(a.Unheard) > 0 {
		fmt.Fprintf(&b, "; not heard, and so not asked: %s", strings.Join(a.Unheard, ", "))
	}
	if a.DryRun {
		fmt.Fprintf(&b, "\nnothing was changed: it would become revision %d\n", a.Revision)
	} else {
		fmt.Fprintf(&b, "\nrevision %d → %d\n", a.Before, a.Revision)
	}
	return b.String()
}
