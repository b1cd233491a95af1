package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/election/peerlink"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/config"
)

func newCheckCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a configuration file on this host",
		Long: "Check a configuration file against itself and against this host's devices and key, and say what the daemon will\n" +
			"do with it. Nothing is changed.",
		Example: "  quorate check /etc/quorate/quorate.yaml",
		Args:    takes(1, "a configuration file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := check(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				err = showJSON(cmd.OutOrStdout(), r)
			} else {
				err = r.show(cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			if n := len(r.Errors); err == nil && n > 0 {
				err = fmt.Errorf("%s: %s", args[0], plural(n, "error"))
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// A checkReport is the outcome of a check; its JSON is `check --json`.
type checkReport struct {
	OK       bool         `json:"ok"`
	File     string       `json:"file"`
	Warnings []string     `json:"warnings"`
	Errors   []checkError `json:"errors"`
	Plan     *plan        `json:"plan,omitempty"` // absent with errors
}

type checkError struct {
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Path   string `json:"path,omitempty"`
	Text   string `json:"text"`
	Value  string `json:"value,omitempty"`
	Do     string `json:"do,omitempty"`
	line   string // the whole, as people read it
}

// A plan is what the daemon will do with a configuration.
type plan struct {
	Election string `json:"election"`
	// SingleOwner: at no instant can two nodes answer for an address.
	SingleOwner bool        `json:"single_owner"`
	Cluster     string      `json:"cluster"`
	Node        string      `json:"node"`
	Socket      string      `json:"socket"`
	*planMember             // absent with election: vrrp
	VIPs        []planGroup `json:"vips"`
}

// A planMember is the node's part in its cluster.
type planMember struct {
	Role            string   `json:"role"`
	Address         string   `json:"address"`
	Peers           []string `json:"peers"`
	DataDir         string   `json:"data_dir"`
	Fence           string   `json:"fence"`
	LeaseMS         float64  `json:"lease_ms"`
	RenewMS         float64  `json:"renew_ms"`
	WorstFailoverMS float64  `json:"worst_failover_ms"`
}

type planGroup struct {
	Name      string        `json:"name"`
	Addresses []planAddress `json:"addresses"`
	Placement string        `json:"placement,omitempty"` // absent with election: vrrp
	VRRP      *planVRRP     `json:"vrrp,omitempty"`
}

type planAddress struct {
	Address string `json:"address"`
	Device  string `json:"device,omitempty"` // absent on a witness
}

type planVRRP struct {
	ID         uint8    `json:"id"`
	Version    string   `json:"version"` // 2, 3 or both
	Priority   uint8    `json:"priority"`
	IntervalMS float64  `json:"interval_ms"`
	Checksum   string   `json:"checksum"`
	Password   bool     `json:"password"`
	Unicast    []string `json:"unicast"`
	VMAC       bool     `json:"vmac"`
	// Outranked is absent with election: vrrp, and Preempt else.
	Outranked string       `json:"outranked,omitempty"`
	Preempt   *planPreempt `json:"preempt,omitempty"`
}

type planPreempt struct {
	Yes     bool    `json:"yes"`
	DelayMS float64 `json:"delay_ms"`
}

// check fails only when it cannot look; what is wrong with the file is in the
// report.
func check(file string) (checkReport, error) {
	r := checkReport{File: file, Warnings: []string{}, Errors: []checkError{}}
	cfg, err := config.Load(file)
	if err != nil {
		return r, r.add(err)
	}
	r.Warnings = append(r.Warnings, cfg.Warnings...)
	links, err := hostLinks()
	if err != nil {
		return r, err
	}
	if err := config.CheckHost(cfg, links); err != nil {
		if err := r.add(err); err != nil {
			return r, err
		}
	}
	if cfg.Role == fsm.Member {
		for _, p := range config.CheckPrograms(cfg.Document) {
			r.Warnings = append(r.Warnings, cfg.At(p).Error())
		}
	}
	if cfg.Election == config.ElectRaft {
		r.keys(cfg)
	}
	if r.OK = len(r.Errors) == 0; r.OK {
		r.Plan = planOf(cfg, links)
	}
	return r, nil
}

// add takes an error of package config apart. One that is not about what the file
// says is returned.
func (r *checkReport) add(err error) error {
	var all []error
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	} else {
		all = []error{err}
	}
	for _, err := range all {
		e := (*config.Error)(nil)
		if !errors.As(err, &e) {
			return err
		}
		r.Errors = append(r.Errors, checkError{Line: e.Line, Column: e.Column, Path: e.Path, Text: e.Text, Value: e.Value, Do: e.Do, line: e.Error()})
	}
	return nil
}

// keys checks the files that protect the nodes' traffic, as far as whoever runs the
// check may read them.
func (r *checkReport) keys(cfg *config.Config) {
	if t := cfg.TLS; t != nil {
		if _, err := (peerlink.TLSFiles{CA: t.CA, Cert: t.Cert, Key: t.Key}).Credentials(); err != nil {
			r.secret("tls", err)
		}
	}
	if _, err := peerlink.LoadKey(cfg.KeyFile); err != nil {
		r.secret("key_file", err)
	}
}

func (r *checkReport) secret(path string, err error) {
	if errors.Is(err, fs.ErrPermission) {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%s: %s: not checked: %v; check as the daemon's user", r.File, path, err))
		return
	}
	r.Errors = append(r.Errors, checkError{Path: path, Text: err.Error(), line: fmt.Sprintf("%s: %s: %v", r.File, path, err)})
}

func planOf(cfg *config.Config, links []config.Link) *plan {
	p := &plan{Election: cfg.Election.String(), Cluster: cfg.Cluster, Node: cfg.Node, Socket: cfg.Socket, VIPs: []planGroup{}}
	if cfg.Election == config.ElectRaft {
		p.SingleOwner = true
		p.planMember = &planMember{
			Role: cfg.Role.String(), Address: cfg.Address.String(), Peers: []string{}, DataDir: cfg.DataDir, Fence: cfg.Fence.String(),
			LeaseMS: millis(cfg.Lease), RenewMS: millis(cfg.Renew), WorstFailoverMS: millis(config.WorstFailover(cfg.Lease, cfg.Grace())),
		}
		for _, a := range cfg.Peers {
			p.Peers = append(p.Peers, a.String())
		}
	}
	for _, g := range cfg.Document.Groups {
		pg := planGroup{Name: g.Name}
		if p.planMember != nil {
			pg.Placement = g.Placement.String()
		}
		for _, a := range g.Addresses {
			device := g.Interface
			if device == "" {
				device = strings.Join(config.DevicesFor(a.Addr(), links), "")
			}
			if cfg.Role == fsm.Witness {
				device = ""
			}
			pg.Addresses = append(pg.Addresses, planAddress{a.String(), device})
		}
		if g.VRRP.ID != 0 {
			pg.VRRP = planVRRPOf(cfg, g)
		}
		p.VIPs = append(p.VIPs, pg)
	}
	return p
}

func planVRRPOf(cfg *config.Config, g fsm.Group) *planVRRP {
	v := &planVRRP{
		ID: g.VRRP.ID, Version: strconv.Itoa(int(g.VRRP.Version)), Priority: g.VRRP.Priority, IntervalMS: millis(g.VRRP.Interval),
		Checksum: g.VRRP.Checksum.String(), Password: g.VRRP.Password != "", Unicast: []string{}, VMAC: g.VMAC,
	}
	if g.VRRP.AlsoV2 {
		v.Version = "both"
	}
	for _, p := range g.VRRP.Unicast {
		v.Unicast = append(v.Unicast, p.Addr.String())
	}
	if cfg.Election == config.ElectVRRP {
		v.Preempt = &planPreempt{Yes: g.Preempt.Yes, DelayMS: millis(g.Preempt.Delay)}
	} else {
		v.Outranked = g.VRRP.Outranked.String()
	}
	return v
}

// show prints the errors like a compiler, to stderr, and the rest to out.
func (r *checkReport) show(out, stderr io.Writer) error {
	var b strings.Builder
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	if r.OK {
		r.Plan.text(&b, r.File)
	}
	var e strings.Builder
	for _, err := range r.Errors {
		e.WriteString(err.line + "\n")
	}
	if err := write(out, b.String()); err != nil {
		return err
	}
	return write(stderr, e.String())
}

func (p *plan) text(b *strings.Builder, file string) {
	fmt.Fprintf(b, "ok: %s\n", file)
	if m := p.planMember; m != nil {
		fmt.Fprintf(b, "node %s of cluster %s: %s, at %s, TCP and UDP\n", p.Node, p.Cluster, m.Role, m.Address)
		fmt.Fprintf(b, "forms or finds the cluster with %s: %s\n", plural(len(m.Peers), "peer"), strings.Join(m.Peers, ", "))
		fmt.Fprintf(b, "votes are kept in %s; the API is on %s\n", m.DataDir, p.Socket)
		fmt.Fprintf(b, "lease %s, asked for every %s, kept by fence %s; a lost owner is replaced within %s at worst\n",
			showMillis(m.LeaseMS), showMillis(m.RenewMS), m.Fence, showMillis(math.Ceil(m.WorstFailoverMS*10)/10))
	} else {
		fmt.Fprintf(b, "node %s: a VRRP router of its own; the API is on %s\n", p.Node, p.Socket)
		b.WriteString(noSingleOwner + "\n")
	}
	if len(p.VIPs) == 0 {
		b.WriteString("no VIP groups\n")
	}
	for _, g := range p.VIPs {
		p.groupText(b, g)
	}
}

func (p *plan) groupText(b *strings.Builder, g planGroup) {
	var at []string
	for _, a := range g.Addresses {
		if a.Device != "" {
			at = append(at, a.Address+" on "+a.Device)
		} else {
			at = append(at, a.Address)
		}
	}
	fmt.Fprintf(b, "group %s: %s", g.Name, strings.Join(at, ", "))
	if g.Placement != "" {
		b.WriteString("; placement " + g.Placement)
	}
	if p.planMember != nil && p.Role == fsm.Witness.String() {
		b.WriteString("; never held here")
	}
	if g.VRRP == nil {
		b.WriteString("; no VRRP adverts\n")
		return
	}
	b.WriteString(g.VRRP.text() + "\n")
}

func (v *planVRRP) text() string {
	s := fmt.Sprintf("; VRRP id %d, priority %d, an advert every %s", v.ID, v.Priority, showMillis(v.IntervalMS))
	switch {
	case v.Version == "both":
		s += " in versions 3 and 2"
	case v.Version == "2":
		s += " in version 2"
	}
	if v.Password {
		s += " with a password"
	}
	if len(v.Unicast) > 0 {
		s += " to " + strings.Join(v.Unicast, ", ")
	}
	if v.VMAC {
		s += " from the virtual MAC address"
	}
	if v.Outranked == fsm.OutrankedHold.String() {
		s += "; keeps the group beside a better router, so that both answer"
	}
	switch p := v.Preempt; {
	case p == nil:
	case !p.Yes:
		s += "; leaves a worse router alone"
	case p.DelayMS > 0:
		s += "; takes over from a worse router after " + interval(p.DelayMS)
	default:
		s += "; takes over from a worse router"
	}
	return s
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
