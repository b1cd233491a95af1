package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/term"
)

// drainedReport is the JSON of `quorate drain`.
type drainedReport struct {
	api.Drained
	TookMS int64 `json:"took_ms"` // until others answered for all of the groups
}

func newDrainCommand() *cobra.Command {
	var timeout time.Duration
	c := asking(&cobra.Command{
		Use:   "drain [NODE]",
		Short: "Move every VIP group away from a node, and keep it from owning any",
		Long: "Move every VIP group away from a node, by default this one, and wait until other nodes answer for them. The node\n" +
			"owns nothing until `quorate undrain`, over restarts too, and goes on voting. What no other node can take stays,\n" +
			"goes on being served, and moves as soon as one can; the command then fails and says why.",
		Example:           "  quorate drain\n  quorate drain n2 --timeout 1m",
		Args:              atMostANode,
		ValidArgsFunction: completing(nodeNames),
	}, question[drainedReport]{
		ask: func(ctx context.Context, client *api.Client, args []string) (drainedReport, error) {
			if timeout <= 0 {
				return drainedReport{}, &usageError{fmt.Sprintf("--timeout must be more than 0, got %s", timeout)}
			}
			began := time.Now()
			d, err := client.Drain(ctx, nodeOf(args), true)
			if err != nil {
				return drainedReport{}, err
			}
			ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
			defer cancel()
			err = drained(ctx, client, d)
			return drainedReport{d, time.Since(began).Milliseconds()}, err
		},
		text: func(_ term.Screen, d drainedReport) string {
			if len(d.Groups) == 0 {
				return d.Node + " is drained; it owned nothing\n"
			}
			return fmt.Sprintf("%s is drained; moved %s in %d ms\n", d.Node, strings.Join(d.Groups, ", "), d.TookMS)
		},
	})
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "how long to wait until nothing is owned there any more")
	return c
}

func newUndrainCommand() *cobra.Command {
	return asking(&cobra.Command{
		Use:   "undrain [NODE]",
		Short: "Let a drained node own VIP groups again",
		Long: "Let a drained node, by default this one, own VIP groups again. What moved away comes back only where the\n" +
			"placement says so: priority with preempt.",
		Example:           "  quorate undrain n2",
		Args:              atMostANode,
		ValidArgsFunction: completing(drainedNames),
	}, question[api.Drained]{
		ask: func(ctx context.Context, client *api.Client, args []string) (api.Drained, error) {
			return client.Drain(ctx, nodeOf(args), false)
		},
		text: func(_ term.Screen, d api.Drained) string { return d.Node + " may own groups again\n" },
	})
}

func atMostANode(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return &usageError{fmt.Sprintf("%s takes at most a node, got %s", c.Name(), plural(len(args), "argument"))}
	}
	return nil
}

// nodeOf is the node that was named; empty: the one that is asked.
func nodeOf(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	return ""
}

// drained returns when the node owns nothing, and others answer for what it owned.
func drained(ctx context.Context, client *api.Client, d api.Drained) error {
	var stay, dark []string
	err := poll(ctx, client, func(s core.Status) (bool, error) {
		stay, dark = stay[:0], dark[:0]
		for _, v := range s.VIPs {
			switch {
			case v.Owner == d.Node:
				stay = append(stay, v.Name)
			case slices.Contains(d.Groups, v.Name) && !v.Open && v.State != "active":
				dark = append(dark, v.Name)
			}
		}
		return len(stay)+len(dark) == 0, nil
	})
	if !errors.Is(err, errTimeout) {
		return err
	}
	var why []string
	for _, group := range stay {
		why = append(why, fmt.Sprintf("%s stays, and is served there: %s", group, reasonToStay(client, group, d.Node)))
	}
	for _, group := range dark {
		why = append(why, group+" is moved, and its new owner does not answer for it yet")
	}
	return fmt.Errorf("%s is drained, but not free yet:\n  %s", d.Node, strings.Join(why, "\n  "))
}

// reasonToStay says why no other node has taken the group.
func reasonToStay(client *api.Client, group, node string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	e, err := client.Explain(ctx, group)
	if err != nil {
		return "the daemon does not say why: " + err.Error()
	}
	var others []string
	for _, c := range e.Candidates {
		if c.Name != node {
			others = append(others, candidateText(c))
		}
	}
	if others == nil {
		return "there is no other node"
	}
	return strings.Join(others, "; ")
}

func candidateText(c fsm.Candidate) string {
	if c.Fit {
		return c.Name + " could take it"
	}
	return c.Name + " " + strings.Join(c.Why, ", ")
}
