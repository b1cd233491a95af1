// Command quorate is the daemon and its command line: a cluster of nodes agrees by
// Raft on which of them holds each virtual IP.
//
// This package wires and shows; it decides nothing.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// version is set by the linker: -ldflags "-X main.version=1.2.3".
var version = "dev"

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1 // refused or failed
	exitUsage  = 2 // the command line is wrong: trying again changes nothing
)

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs a command line and returns its exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	finishCompletion(root)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	if errors.Is(err, errSaid) {
		return exitFailed
	}
	fmt.Fprintf(stderr, "quorate: %v\n", err)
	if failed := (*failure)(nil); errors.As(err, &failed) {
		return exitFailed
	}
	fmt.Fprintf(stderr, "see: %s --help\n", cmd.CommandPath())
	return exitUsage
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "quorate",
		Short: "Virtual IPs with one owner, decided by Raft and enforced by the kernel",
		Long: "quorate keeps virtual IPs on one host of a cluster: Raft decides which, a lease that the kernel enforces\n" +
			"guards it, and VRRP adverts announce it.\n\n" +
			"Exit codes: 0 done, 1 refused or failed, 2 the command line is wrong.",
		Example:       "  quorate status\n  quorate explain web\n  quorate watch",
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(*cobra.Command, []string) error { return errors.New("no command given") },
	}
	root.AddCommand(newRunCommand(), newShadowCommand(), newStatusCommand(), newWatchCommand(), newMembersCommand(), newVRRPCommand(), newMoveCommand(),
		newReleaseCommand(), newDrainCommand(), newUndrainCommand(), newRemoveCommand(), newApplyCommand(), newDiffCommand(),
		newHistoryCommand(), newEventsCommand(), newRollbackCommand(), newExplainCommand(), newSnapshotCommand(), newRecoverCommand(), newKeygenCommand(), newCheckCommand(), newImportCommand(), newVersionCommand(), newDoctorCommand(), newTryCommand(), newManCommand())
	for _, c := range root.Commands() {
		markFailures(c)
	}
	colourFlag(root)
	return root
}

// errSaid is of a command that failed and has said so in its output.
var errSaid = errors.New("the output says what is wrong")

// finishCompletion has the library's completion command refuse what is no shell, and
// gives what the library adds examples. These commands keep the root's output, so this
// comes after that is set.
func finishCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Example = "  quorate help move"
		case "completion":
			c.Example = "  quorate completion bash > /etc/bash_completion.d/quorate"
			c.Args = cobra.ArbitraryArgs
			c.RunE = func(*cobra.Command, []string) error {
				return &usageError{"completion takes a shell: bash, zsh, fish or powershell"}
			}
			for _, shell := range c.Commands() {
				shell.Example = "  quorate completion " + shell.Name()
			}
		}
	}
}

// A failure is an error of a command that was understood. All others come from
// reading the command line.
type failure struct{ error }

func (f *failure) Unwrap() error { return f.error }

// markFailures has the command's errors count as failures of the work, not of the
// command line.
func markFailures(c *cobra.Command) {
	work := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		err := work(c, args)
		if usage := (*usageError)(nil); err == nil || errors.As(err, &usage) {
			return err
		}
		return &failure{err}
	}
}

// A usageError is one that a command finds in its own arguments.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// takes accepts exactly n arguments, named as in the usage line.
func takes(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return &usageError{fmt.Sprintf("%s takes %s, got %s", c.Name(), what, plural(len(args), "argument"))}
		}
		return nil
	}
}
