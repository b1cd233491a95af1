package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	xterm "golang.org/x/term"

	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/term"
)

// A gameDay is what the command line of `quorate try` says.
type gameDay struct {
	target
	move, kill, to string
	yes, force     bool
	json           bool
	lasts          time.Duration
}

func newTryCommand() *cobra.Command {
	var g gameDay
	c := &cobra.Command{
		Use:   "try --move GROUP|--kill GROUP",
		Short: "Make a fault on purpose, and measure what it does",
		Long: "Make a fault for real, after asking, and measure how long nobody answers: --move hands a group to another node,\n" +
			"--kill has the daemon of its owner kill itself, as kill -9 does. Other nodes ask for the group's first address\n" +
			"each 5 ms, by ARP or neighbour solicitation, and say what they saw. What the fault would break for longer than\n" +
			"it lasts is refused, with the reason, unless --force.\n\n" +
			"--kill is for root, and not for the node that the group is on: its daemon could not report. The daemon is\n" +
			"started again by its service manager, or by you.\n\n" +
			"Exit code 1 when nothing was done, the address was unanswered for longer than the configuration allows for\n" +
			"(quorate explain timing), two hosts answered, or nobody took over.",
		Example: "  quorate try --move web\n  quorate try --move web --to n2 --yes\n  quorate try --kill database --yes --json | jq .outage_ms",
		Args:    takes(0, "no arguments"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return g.run(cmd) },
	}
	g.flags(c)
	jsonFlag(c, &g.json)
	f := c.Flags()
	f.StringVar(&g.move, "move", "", "move this group")
	f.StringVar(&g.kill, "kill", "", "kill the daemon of this group's owner")
	f.StringVar(&g.to, "to", "", "the node to move it to; default: the one that is next")
	f.DurationVar(&g.lasts, "for", api.DefaultTry, "how long to ask at most, "+api.MinTry.String()+" to "+api.MaxTry.String()+
		"; it ends when a new owner has answered steadily for 1s")
	f.BoolVar(&g.yes, "yes", false, "do not ask whether to go on")
	f.BoolVar(&g.force, "force", false, "do it whatever speaks against it")
	for name, names := range map[string]naming{"move": groupNames, "kill": groupNames, "to": nodeNames} {
		_ = c.RegisterFlagCompletionFunc(name, completing(names)) // it fails for a flag that is not there
	}
	return c
}

func (g *gameDay) request() (api.TryRequest, error) {
	req := api.TryRequest{Group: g.move, To: g.to, ForMS: g.lasts.Milliseconds(), Force: g.force}
	switch {
	case (g.move == "") == (g.kill == ""):
		return req, &usageError{"try takes one of --move GROUP and --kill GROUP"}
	case g.kill != "":
		req.Group, req.Kill = g.kill, true
	}
	if err := req.Check(); err != nil {
		return req, &usageError{err.Error()}
	}
	return req, nil
}

func (g *gameDay) run(cmd *cobra.Command) error {
	req, err := g.request()
	if err != nil {
		return err
	}
	if !g.yes && !isTerminal(cmd.InOrStdin()) {
		return errors.New("nothing was done: there is no terminal to ask on whether to go on; with --yes it is not asked")
	}
	client, err := g.client()
	if err != nil {
		return err
	}
	defer client.Close()
	plan, err := g.ask(cmd, client, req, true)
	if err != nil {
		return err
	}
	if err := write(cmd.ErrOrStderr(), planText(errorScreenOf(cmd), plan.TryPlan)); err != nil {
		return err
	}
	if !g.yes {
		if err := confirm(cmd); err != nil {
			return err
		}
	}
	req.Seen = plan.Epoch // what was agreed to, and nothing else
	if !req.Kill {
		req.To = plan.Next
	}
	report, err := g.ask(cmd, client, req, false)
	if err != nil {
		return err
	}
	if g.json {
		err = showJSON(cmd.OutOrStdout(), report)
	} else {
		err = write(cmd.OutOrStdout(), tryText(screenOf(cmd), report))
	}
	if err == nil && !report.Passed {
		err = errSaid
	}
	return err
}

func (g *gameDay) ask(cmd *cobra.Command, client *api.Client, req api.TryRequest, dry bool) (api.TryReport, error) {
	req.DryRun = dry
	report, err := client.Try(cmd.Context(), req)
	return report, errors.Join(err, noteVersion(cmd, client))
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && xterm.IsTerminal(int(f.Fd()))
}

// confirm asks whether to go on. Whatever is not yes is no.
func confirm(cmd *cobra.Command) error {
	if err := write(cmd.ErrOrStderr(), "\nType yes to go on: "); err != nil {
		return err
	}
	line, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // an end without a line is no
	if strings.TrimSpace(line) != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

// plain is text without a colour of its own.
const plain = term.Paint(0)

// planText says what will happen, and what may break.
func planText(s term.Screen, p api.TryPlan) string {
	var b strings.Builder
	say := func(p term.Paint, format string, args ...any) {
		b.WriteString(s.Paint(p, s.Wrap(fmt.Sprintf(format, args...), "  ")) + "\n")
	}
	if p.Fault == "kill" {
		say(term.Strong, "FOR REAL: the daemon of %s is killed (SIGKILL). %s is to take %s over.", p.Owner, orNone(p.Next), p.Group)
		say(plain, "Its service manager starts it again, or you have to: until then the cluster has one node less.")
	} else {
		say(term.Strong, "FOR REAL: %s moves from %s to %s.", p.Group, p.Owner, orNone(p.Next))
	}
	if len(p.Groups) > 1 {
		say(plain, "With it go %s.", strings.Join(without(p.Groups, p.Group), ", "))
	}
	say(plain, "Nobody answers for up to %s (the configured worst case), and connections that are open may break.", inWords(p.WorstMS))
	if p.Probes != nil {
		say(plain, "Asked for %s, each 5 ms for at most %s: by %s.", p.Address, time.Duration(p.ForMS)*time.Millisecond, orNone(strings.Join(p.Probes, ", ")))
	}
	for _, a := range p.Against {
		say(term.Bad, "FORCED, although %s", a)
	}
	return b.String()
}

func without(names []string, one string) (out []string) {
	for _, n := range names {
		if n != one {
			out = append(out, n)
		}
	}
	return out
}

// tryText is a report for people.
func tryText(s term.Screen, r api.TryReport) string {
	var b strings.Builder
	say := func(p term.Paint, format string, args ...any) {
		b.WriteString(s.Paint(p, s.Wrap(fmt.Sprintf(format, args...), "  ")) + "\n")
	}
	if r.Probe != "" {
		say(term.Strong, "outage: %s, as %s saw it; the configuration allows for %s", inWords(r.OutageMS), r.Probe, inWords(r.WorstMS))
		say(plain, "asked: %d times for %s, at least once in %s; answered: %d", r.Asked, r.Address, inWords(r.ResolutionMS), r.Answered)
		say(plain, "two owners: %s", inWords(r.TwoOwnersMS))
	}
	if e := r.Event; e != nil {
		say(plain, "history: %s → %s (%s): %s", orNobody(e.From), orNobody(e.To), e.Reason, outageText(*e))
	}
	if len(r.Hosts) > 0 {
		rows := [][]string{{"WHO ANSWERED", "MAC", "ANSWERS", "FIRST", "LAST"}}
		for _, h := range r.Hosts {
			rows = append(rows, []string{orNone(h.Node), h.MAC, fmt.Sprint(h.Answers), inWords(h.FirstMS), inWords(h.LastMS)})
		}
		b.WriteString(table(s, rows))
	}
	if r.Kept {
		say(plain, "%s is on %s still: its daemon was back before another node had taken over", r.Group, r.NewOwner)
	} else {
		say(plain, "%s is on %s now", r.Group, orNone(r.NewOwner))
	}
	for _, n := range r.Notes {
		say(plain, "note: %s", n)
	}
	for _, f := range r.Failures {
		say(term.Bad, "FAILED: %s", f)
	}
	if r.Passed {
		say(term.Good, "passed: no longer than the configuration allows for, and never two owners")
	}
	return b.String()
}
