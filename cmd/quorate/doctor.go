package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/doctor"
	"github.com/quorate/quorate/internal/doctor/host"
	"github.com/quorate/quorate/internal/term"
	"github.com/quorate/quorate/vipctl/kernel"
)

// An examination is what the command line of `quorate doctor` says.
type examination struct {
	target
	json    bool
	node    string
	measure time.Duration
}

func newDoctorCommand() *cobra.Command {
	var e examination
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Find out whether a failover would work, before it has to",
		Long: "Ask every node to look at itself and to measure what passes between it and the others: ports, multicast, VRRP, gratuitous\n" +
			"ARP, MTU, clocks, disks. Each finding says what is, why it matters and how to mend it. Nothing is changed: what is sent\n" +
			"bears addresses of nobody. With the daemon down, this host is looked at by itself.\n\n" +
			"Exit code 1 when something would break a failover; notes and warnings do not. docs/doctor.md lists all findings.",
		Example: "  quorate doctor\n  quorate doctor --node n2\n  quorate doctor --json | jq '.findings[] | select(.severity == \"broken\")'",
		Args:    takes(0, "no arguments"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return e.run(cmd) },
	}
	e.flags(c)
	jsonFlag(c, &e.json)
	c.Flags().StringVar(&e.node, "node", "", "only what concerns this node")
	c.Flags().DurationVar(&e.measure, "time", doctor.DefaultMeasure, "how long to measure between the nodes, "+doctor.MinMeasure.String()+" to "+doctor.MaxMeasure.String())
	_ = c.RegisterFlagCompletionFunc("node", completing(nodeNames)) // it fails for a flag that is not there
	return c
}

func (e *examination) run(cmd *cobra.Command) error {
	if err := api.CheckMeasure(e.measure); err != nil {
		return &usageError{"--time: " + err.Error()}
	}
	client, err := e.client()
	if err != nil {
		return err
	}
	defer client.Close()
	report, err := client.Doctor(cmd.Context(), e.measure)
	if err := noteVersion(cmd, client); err != nil {
		return err
	}
	if errors.Is(err, api.ErrNoDaemon) || errors.Is(err, api.ErrNoAnswer) {
		report, err = e.alone(cmd.Context(), err)
	}
	if err != nil {
		return err
	}
	if e.node != "" {
		known := false
		if report, known = report.Of(e.node); !known {
			return fmt.Errorf("there is no node %s in this cluster; quorate members lists them", e.node)
		}
	}
	if e.json {
		err = showJSON(cmd.OutOrStdout(), report)
	} else {
		err = write(cmd.OutOrStdout(), doctorText(screenOf(cmd), report))
	}
	if err == nil && report.Broken > 0 {
		err = errSaid
	}
	return err
}

// alone looks at this host by itself, as far as its configuration says what matters.
func (e *examination) alone(ctx context.Context, why error) (doctor.Report, error) {
	path := e.config
	if path == "" {
		path = defaultConfig
	}
	cfg, err := config.Load(path)
	if err != nil && e.config == "" {
		return doctor.Report{}, fmt.Errorf("%w; with --config this command finds what the daemon would need, and looks at this host by itself", why)
	}
	if err != nil {
		return doctor.Report{}, err
	}
	k, err := kernel.Open()
	if err != nil {
		return doctor.Report{}, err
	}
	defer k.Close()
	begun := time.Now()
	f := doctor.Facts{Name: cfg.Node, Version: version, Role: cfg.Role.String(), LeaseMS: millis(cfg.Lease), RenewMS: millis(cfg.Renew)}
	opt := host.Options{}
	if cfg.Election == config.ElectVRRP {
		f.Role = fsm.Member.String()
	} else {
		opt = host.Options{DataDir: cfg.DataDir, Fence: cfg.Fence.String(), GraceMS: millis(cfg.Grace())}
	}
	if cfg.Role != fsm.Witness {
		f.Devices = host.Describe(host.Uses(cfg.Document, k.LinkFor))
	}
	f.Host = host.Gather(ctx, opt)
	return doctor.Judge(doctor.Survey{
		Cluster: cfg.Cluster, Node: cfg.Node, TookMS: millis(time.Since(begun)), NoDaemon: why.Error(),
		Answers: []doctor.Answer{{Name: cfg.Node, Facts: &f}},
	}), nil
}

// doctorText is a report for people: what is wrong with all there is to say of it, then
// what was looked at and is well in a line each.
func doctorText(s term.Screen, r doctor.Report) string {
	var b strings.Builder
	asked, answered := len(r.Nodes), 0
	for _, n := range r.Nodes {
		if n.Answered {
			answered++
		}
	}
	fmt.Fprintf(&b, "cluster: %s  asked by: %s  %d of %s answered  in %.0f ms\n", orNone(r.Cluster), r.Node, answered, plural(asked, "node"), r.TookMS)
	if !r.Daemon {
		b.WriteString(s.Paint(term.Warn, s.Wrap("no daemon runs here: these are this host's own facts, and nothing between nodes was looked at", "")) + "\n")
	}
	var well []string
	for _, f := range gathered(r.Findings) {
		if f.Severity == doctor.OK {
			well = append(well, findingLine(f))
			continue
		}
		line := s.Wrap(strings.ToUpper(f.Severity.String())+"  "+findingLine(f), "  ")
		b.WriteString("\n" + strings.Replace(line, strings.ToUpper(f.Severity.String()), s.Paint(severityPaint(f.Severity), strings.ToUpper(f.Severity.String())), 1) + "\n")
		for _, part := range []struct{ name, text string }{{"why", f.Why}, {"mend", f.Mend}} {
			if part.text != "" {
				b.WriteString(s.Wrap("  "+part.name+": "+part.text, "    ") + "\n")
			}
		}
	}
	if len(well) > 0 {
		b.WriteString("\n" + s.Paint(term.Good, "well:") + "\n")
		for _, line := range well {
			b.WriteString(s.Wrap("  "+line, "    ") + "\n")
		}
	}
	b.WriteString("\n" + doctorVerdict(s, r) + "\n")
	return b.String()
}

// gathered makes one of the findings that say the same of several nodes.
func gathered(all []doctor.Finding) []doctor.Finding {
	var out []doctor.Finding
	at := map[doctor.Finding]int{}
	for _, f := range all {
		same := f
		same.Node = ""
		i, known := at[same]
		if !known || f.Node == "" || f.To != "" {
			at[same] = len(out)
			out = append(out, f)
			continue
		}
		out[i].Node += ", " + f.Node
	}
	return out
}

// findingLine is a finding without why and mend.
func findingLine(f doctor.Finding) string {
	where := f.Node
	if f.To != "" {
		where += " → " + f.To
	}
	if f.Device != "" {
		where += " (" + f.Device + ")"
	}
	if where != "" {
		where = "  " + where
	}
	return f.ID + where + ": " + f.What
}

func severityPaint(s doctor.Severity) term.Paint {
	switch s {
	case doctor.Broken:
		return term.Bad
	case doctor.Warning:
		return term.Warn
	}
	return term.Dim
}

func doctorVerdict(s term.Screen, r doctor.Report) string {
	paint, text := term.Good, "nothing was found that would break a failover"
	switch {
	case r.Broken > 0:
		paint, text = term.Bad, plural(r.Broken, "finding")+" would break a failover"
	case r.Warnings > 0:
		paint, text = term.Warn, text+"; "+plural(r.Warnings, "warning")
	}
	return s.Paint(paint, s.Wrap(text, "  "))
}
