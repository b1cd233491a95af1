package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/term"
)

// A documents is the answer to `history`: the list, or one with its document.
type documents struct {
	all []api.Revision
	one *api.Revision
}

func newHistoryCommand() *cobra.Command {
	return asking(&cobra.Command{
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
		ValidArgsFunction: completing(revisions),
	}, question[documents]{ask: askHistory, text: historyText, json: func(d documents) any {
		if d.one != nil {
			return d.one
		}
		return d.all
	}})
}

func askHistory(ctx context.Context, client *api.Client, args []string) (documents, error) {
	if len(args) == 0 {
		all, err := client.History(ctx)
		return documents{all: all}, err
	}
	n, err := revisionOf(args[0])
	if err != nil {
		return documents{}, err
	}
	one, err := client.Revision(ctx, n)
	return documents{one: &one}, err
}

func historyText(s term.Screen, d documents) string {
	if d.one != nil {
		return d.one.Document
	}
	rows := [][]string{{"REVISION", "WHEN", "WHO", "GROUPS"}}
	for _, r := range d.all {
		rows = append(rows, []string{strconv.FormatUint(r.Revision, 10), when(r.At), who(r), strconv.Itoa(r.Groups)})
	}
	return table(s, rows)
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
