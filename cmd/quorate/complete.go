package main

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
)

// completeTime is how long the shell waits for names of the live cluster.
const completeTime = 500 * time.Millisecond

// A naming lists what a word of the command line may be, as the daemon knows it, each
// with a description behind a tab.
type naming func(ctx context.Context, client *api.Client) ([]string, error)

// completing completes the command's words, the first by the first naming and so on. It
// is silent about everything: the shell shows nothing else.
func completing(words ...naming) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(words) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		t := target{}
		t.socket, _ = cmd.Flags().GetString("socket")
		t.config, _ = cmd.Flags().GetString("config")
		client, err := t.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
		defer cancel()
		names, err := words[len(args)](ctx, client)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func groupNames(ctx context.Context, client *api.Client) (out []string, err error) {
	s, err := client.Status(ctx)
	for _, v := range s.VIPs {
		out = append(out, cobra.CompletionWithDesc(v.Name, "on "+orNone(v.Owner)))
	}
	return out, err
}

// topics are what `explain` explains.
func topics(ctx context.Context, client *api.Client) ([]string, error) {
	out, err := groupNames(ctx, client)
	return append(out, cobra.CompletionWithDesc(timing, "the timeouts of the cluster")), err
}

func nodeNames(ctx context.Context, client *api.Client) ([]string, error) {
	return memberNames(ctx, client, func(core.MemberStatus) bool { return true })
}

func drainedNames(ctx context.Context, client *api.Client) ([]string, error) {
	return memberNames(ctx, client, func(m core.MemberStatus) bool { return m.Drained })
}

func memberNames(ctx context.Context, client *api.Client, match func(core.MemberStatus) bool) (out []string, err error) {
	s, err := client.Status(ctx)
	for _, m := range s.Members {
		if match(m) {
			out = append(out, cobra.CompletionWithDesc(m.Name, m.Role+" "+m.Address))
		}
	}
	return out, err
}

func revisions(ctx context.Context, client *api.Client) ([]string, error) {
	all, err := client.History(ctx)
	var out []string
	for _, r := range all {
		out = append(out, cobra.CompletionWithDesc(strconv.FormatUint(r.Revision, 10), when(r.At)+" "+who(r)))
	}
	return out, err
}
