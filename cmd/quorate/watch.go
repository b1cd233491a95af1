package main

import (
	"context"
	"errors"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/term"
)

const (
	// watchEvery is between two looks at the status: often enough that leases are seen to
	// run.
	watchEvery = 150 * time.Millisecond
	// watchAgain is how long to wait before asking a daemon again that did not answer.
	watchAgain = 500 * time.Millisecond
	// watchPatience is how long a daemon may take before the view says that it is silent.
	watchPatience = time.Second
)

func newWatchCommand() *cobra.Command {
	var t target
	c := &cobra.Command{
		Use:   "watch",
		Short: "Watch the cluster live: groups, leases, nodes, events",
		Long: "Watch the cluster live: what is wrong, who owns each group, how much of the lease is left, the nodes, and what\n" +
			"happens. It goes on over restarts of the daemon.\n\n" +
			"Keys: up and down (or k and j), page up and page down scroll; q or ctrl-c ends it.",
		Example: "  quorate watch",
		Args:    takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			defer client.Close()
			if !term.Is(cmd.OutOrStdout()) {
				return errors.New("watch needs a terminal; elsewhere quorate status --json and quorate events -f serve")
			}
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			w := newWatching(screenOf(cmd), watchedClient{ctx, client})
			_, err = tea.NewProgram(w, tea.WithContext(ctx), tea.WithOutput(cmd.OutOrStdout())).Run()
			if errors.Is(err, tea.ErrInterrupted) || errors.Is(err, tea.ErrProgramKilled) && cmd.Context().Err() != nil {
				return nil // that is how one ends it
			}
			return err
		},
	}
	t.flags(c)
	return c
}

// A watched is where the view comes from.
type watched interface {
	// look returns the status after a while.
	look(after time.Duration) tea.Cmd
	// follow returns what happens behind an index, after a while.
	follow(index uint64, after time.Duration) tea.Cmd
}

// A looked is the answer of look, and followed that of follow.
type looked struct {
	status     core.Status
	difference string // of the versions; empty: none that matters
	err        error
}

type followed struct {
	events api.Events
	err    error
}

// A watchedClient asks a daemon.
type watchedClient struct {
	ctx    context.Context
	client *api.Client
}

func (w watchedClient) look(after time.Duration) tea.Cmd {
	return tea.Tick(after, func(time.Time) tea.Msg {
		ctx, cancel := context.WithTimeout(w.ctx, watchPatience)
		defer cancel()
		st, err := w.client.Status(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("the daemon takes the connection and does not answer: it is frozen or overloaded")
		}
		return looked{st, w.client.Difference(), err}
	})
}

func (w watchedClient) follow(index uint64, after time.Duration) tea.Cmd {
	return tea.Tick(after, func(time.Time) tea.Msg {
		e, err := w.client.Events(w.ctx, index, api.EventsWait)
		return followed{e, err}
	})
}
