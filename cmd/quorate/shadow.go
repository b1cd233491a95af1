package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/daemon"
	"github.com/quorate/quorate/internal/shadow"
	"github.com/quorate/quorate/internal/term"
)

func newShadowCommand() *cobra.Command {
	file := defaultConfig
	var length time.Duration
	var asJSON bool
	c := &cobra.Command{
		Use:   "shadow",
		Short: "Run beside keepalived without touching anything, and say what quorate would do",
		Long: "Run a whole node beside what runs now, without touching anything: no address, route or setting of this host is changed,\n" +
			"no hook is run, and nothing is sent for a VIP. The log says where quorate would have each group and who has it\n" +
			"really, by the addresses on this host and the adverts heard; at the end comes a summary, on standard output.\n\n" +
			"Start it on every node, with the file that quorate run will have. The shadows form a cluster of their own, on the\n" +
			"configured port, so quorate run cannot run on the host at the same time. What they decide is what quorate would if\n" +
			"what runs now were stopped everywhere. Checks do run. With election: vrrp nothing at all is sent.\n\n" +
			"It ends at the first SIGINT, SIGTERM or SIGHUP, or after --for.",
		Example: "  quorate shadow --config /etc/quorate/quorate.yaml\n  quorate shadow --for 10m --json > shadow.json",
		Args:    takes(0, "no arguments"),
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if length < 0 {
			return &usageError{fmt.Sprintf("--for %s: must not be negative; 0 is until it is stopped", length)}
		}
		cfg, err := config.Load(file)
		if err != nil {
			return err
		}
		links := func() ([]config.Link, error) { return linksWithout(cfg.Document.Addrs()) }
		present, err := links()
		if err == nil {
			err = config.CheckHost(cfg, present)
		}
		if err != nil {
			return err
		}
		log := newLogging(cfg.Log, cmd.ErrOrStderr())
		slog.SetDefault(log.logger)
		for _, w := range cfg.Warnings {
			log.logger.Warn(w)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "ask this node with: quorate status --socket %s\n", daemon.ShadowConfig(cfg).Socket)
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		stop, ended := stopSignals(ctx, cancel, log.logger, length, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		defer ended()
		report, err := daemon.Shadow(ctx, daemon.Options{Config: cfg, Version: version, Log: log.logger, Links: links, Stop: stop})
		if err != nil {
			return err
		}
		if asJSON {
			return showJSON(cmd.OutOrStdout(), report)
		}
		return write(cmd.OutOrStdout(), shadowText(screenOf(cmd), report))
	}
	c.Flags().StringVar(&file, "config", file, "configuration file")
	c.Flags().DurationVar(&length, "for", 0, "end after this time; 0: when it is stopped")
	jsonFlag(c, &asJSON)
	return c
}

// linksWithout are the devices of this host without some addresses: they stand where what
// runs now has put them.
func linksWithout(vips []netip.Addr) ([]config.Link, error) {
	links, err := hostLinks()
	for i := range links {
		links[i].Addresses = slices.DeleteFunc(links[i].Addresses, func(a config.LinkAddress) bool { return slices.Contains(vips, a.Prefix.Addr()) })
	}
	return links, err
}

// shadowText is the summary for people.
func shadowText(s term.Screen, r shadow.Report) string {
	var b strings.Builder
	whose := "cluster " + r.Cluster
	if r.Election == alone {
		whose = "a VRRP router of its own"
	}
	fmt.Fprintf(&b, "%s\n", s.Wrap(fmt.Sprintf("shadow of %s, %s: from %s for %s", r.Node, whose, r.From.Format(time.DateTime), lasting(r.From, r.Until)), "  "))
	if len(r.Groups) == 0 {
		b.WriteString("nothing was compared\n")
		return b.String()
	}
	rows := [][]string{{"GROUP", "AGREED", "DIFFERED", "NOBODY HEARD", "NOW", "REALLY", "QUORATE"}}
	for _, g := range r.Groups {
		rows = append(rows, []string{g.Group, seconds(g.AgreedMS), seconds(g.DifferedMS), seconds(g.NobodyMS), g.Verdict, orNone(g.Really), would(r, g.Would)})
	}
	b.WriteString(table(s, rows))
	for _, g := range r.Groups {
		b.WriteString("\n" + s.Paint(term.Strong, g.Group) + "  " + s.Wrap(strings.Join(g.Addresses, ", "), "  ") + "\n")
		for _, line := range shadowLines(r, g) {
			b.WriteString(s.Wrap("  "+line, "      ") + "\n")
		}
	}
	return b.String()
}

// shadowLines is what happened with a group, in order of time.
func shadowLines(r shadow.Report, g shadow.GroupReport) []string {
	type line struct {
		at   time.Time
		text string
	}
	var all []line
	add := func(at time.Time, format string, args ...any) {
		all = append(all, line{at, at.Format(time.TimeOnly) + "  " + fmt.Sprintf(format, args...)})
	}
	for _, c := range g.Changes {
		add(c.At, "really: %s -> %s; quorate: %s", orNobody(c.From), orNobody(c.To), would(r, c.Would))
	}
	for _, d := range g.Decisions {
		why := ""
		if d.Reason != "" {
			why = " (" + d.Reason + ")"
		}
		add(d.At, "quorate: %s -> %s%s", would(r, d.From), would(r, d.To), why)
	}
	for _, t := range g.TwoHosts {
		add(t.At, "TWO HOSTS for %s: %s", lasting(t.At, t.Until), strings.Join(t.Who, " and "))
	}
	for _, d := range g.Differences {
		add(d.At, "not the same for %s: really %s, quorate: %s", lasting(d.At, d.Until), orNobody(d.Really), would(r, d.Would))
	}
	slices.SortStableFunc(all, func(a, b line) int { return a.at.Compare(b.at) })
	var out []string
	for _, l := range all {
		out = append(out, l.text)
	}
	if g.Left > 0 {
		out = append(out, fmt.Sprintf("and %s, for which there was no room", plural(g.Left, "more note")))
	}
	if len(g.Heard) > 0 {
		top := g.Heard[0]
		out = append(out, fmt.Sprintf("priorities: quorate's adverts would say %d, the highest heard is %d (%s)", g.Priority, top.Priority, cmp.Or(top.Node, top.Address)))
	}
	return out
}

// would is who would have a group.
func would(r shadow.Report, node string) string {
	if node == "" && r.Election == alone {
		return "another router"
	}
	return orNobody(node)
}

func lasting(from, until time.Time) string {
	return until.Sub(from).Round(100 * time.Millisecond).String()
}

func seconds(ms float64) string {
	return (time.Duration(ms) * time.Millisecond).Round(100 * time.Millisecond).String()
}
