package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/term"
)

// pollEvery is how often a command looks whether what it asked for has happened.
const pollEvery = 5 * time.Millisecond

// movedReport is the JSON of `quorate move`.
type movedReport struct {
	Group string `json:"group"`
	api.Moved
	TookMS int64 `json:"took_ms"` // until the node answered for it
}

func newMoveCommand() *cobra.Command {
	var timeout time.Duration
	c := asking(&cobra.Command{
		Use:   "move GROUP NODE",
		Short: "Move a VIP group to another node",
		Long: "Move a VIP group to another node, and wait until that node answers for it. The old owner stops only when the\n" +
			"new one is decided, so the group is without an owner for some milliseconds.",
		Example:           "  quorate move web n2",
		Args:              takes(2, "a group and a node"),
		ValidArgsFunction: completing(groupNames, nodeNames),
	}, question[movedReport]{
		ask: func(ctx context.Context, client *api.Client, args []string) (movedReport, error) {
			if timeout <= 0 {
				return movedReport{}, &usageError{fmt.Sprintf("--timeout must be more than 0, got %s", timeout)}
			}
			ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
			defer cancel()
			began := time.Now()
			m, err := moveAndWait(ctx, client, args[0], args[1], timeout)
			return movedReport{args[0], m, time.Since(began).Milliseconds()}, err
		},
		text: func(_ term.Screen, m movedReport) string {
			return fmt.Sprintf("%s: %s → %s in %d ms\n", m.Group, orNone(m.From), m.To, m.TookMS)
		},
	})
	c.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "how long to wait until the node answers for the group")
	return c
}

var errTimeout = errors.New("the time given with --timeout is over")

// moveAndWait returns when the node says that it has the group open.
func moveAndWait(ctx context.Context, client *api.Client, group, node string, timeout time.Duration) (api.Moved, error) {
	m, err := client.Move(ctx, group, node)
	if err != nil {
		if errors.Is(context.Cause(ctx), errTimeout) {
			return m, fmt.Errorf("move %s to %s: no answer within %s; it may still happen, see quorate status", group, node, timeout)
		}
		return m, err
	}
	var last core.VIPStatus
	err = poll(ctx, client, func(s core.Status) (bool, error) {
		v, ok := find(s, group)
		if !ok {
			return false, fmt.Errorf("%s is no longer a group of the cluster", group)
		}
		last = v
		if v.Owner != node && v.Epoch > m.Epoch {
			return false, fmt.Errorf("%s went on from %s to %s (%s, epoch %d): see the log of %s", group, node, orNone(v.Owner), v.Reason, v.Epoch, node)
		}
		return opened(s, v, node, m.Epoch), nil
	})
	if errors.Is(err, errTimeout) {
		why := ""
		if last.Problem != "" {
			why = ": " + last.Problem
		}
		return m, fmt.Errorf("%s is assigned to %s (epoch %d), which did not answer for it within %s%s; see quorate status on %s",
			group, node, m.Epoch, timeout, why, node)
	}
	return m, err
}

// opened reports whether the node holds the group under that epoch or a later one.
// Of itself a node says it by its state, of others by what it heard.
func opened(s core.Status, v core.VIPStatus, node string, epoch uint64) bool {
	if v.Owner != node || v.Epoch < epoch {
		return false
	}
	if node == s.Node {
		return v.State == "active"
	}
	return v.Open
}

func find(s core.Status, group string) (core.VIPStatus, bool) {
	for _, v := range s.VIPs {
		if v.Name == group {
			return v, true
		}
	}
	return core.VIPStatus{}, false
}

// poll asks for the status until done says so or fails, or ctx ends, whose cause
// it then returns.
func poll(ctx context.Context, client *api.Client, done func(core.Status) (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		s, err := client.Status(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		if ok, err := done(s); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
