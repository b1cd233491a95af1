package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/api"
)

func newHistoryCommand() *cobra.Command {
	var t target
	var asJSON bool
	c := &cobra.Command{
		Use:   "history [REVISION]",
		Short: "List the revisions of the document, or print one",
		Long: "List the revisions of the document that the cluster remembers: when each was applied, and by whom. With a\n" +
			"revision its document is printed as a configuration file has it, passwords of VRRP included.",
		Example: "  quorate history\n  quorate history 3 > old.yaml",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{fmt.Sprintf("history takes at most a revision, got %s", plural(len(args), "argument"))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			defer client.Close()
			if len(args) == 1 {
				return printRevision(cmd, client, args[0], asJSON)
			}
			all, err := client.History(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return showJSON(cmd.OutOrStdout(), all)
			}
			rows := [][]string{{"REVISION", "WHEN", "WHO", "GROUPS"}}
			for _, r := range all {
				rows = append(rows, []string{strconv.FormatUint(r.Revision, 10), when(r.At), who(r), strconv.Itoa(r.Groups)})
			}
			return showTable(cmd.OutOrStdout(), rows)
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printRevision(cmd *cobra.Command, client *api.Client, text string, asJSON bool) error {
	n, err := revisionOf(text)
	if err != nil {
		return err
	}
	r, err := client.Revision(cmd.Context(), n)
	if err != nil {
		return err
	}
	if asJSON {
		return showJSON(cmd.OutOrStdout(), r)
	}
	return write(cmd.OutOrStdout(), r.Document)
}

func revisionOf(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, &usageError{fmt.Sprintf("%q is no revision: they are numbers from 1; `quorate history` lists them", text)}
	}
	return n, nil
}

// when is a time for people: of their own clock's zone.
func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

func who(r api.Revision) string {
	if r.By == "" {
		return "the cluster was formed with it"
	}
	return r.By
}
