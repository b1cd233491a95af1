package main

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/config"
)

// A plan is what the daemon will do with a configuration.
type plan struct {
	Election string `json:"election"`
	// SingleOwner: at no instant can two nodes answer for an address.
	SingleOwner bool        `json:"single_owner"`
	Cluster     string      `json:"cluster"`
	Node        string      `json:"node"`
	Socket      string      `json:"socket"`
	HTTP        string      `json:"http,omitempty"` // absent: not served
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
	Routes    []planRoute   `json:"routes,omitempty"`
	Rules     []planRule    `json:"rules,omitempty"`
	Placement string        `json:"placement,omitempty"` // absent with election: vrrp
	Announce  planAnnounce  `json:"announce"`
	// ResetConnections: its TCP connections are reset when it is moved on purpose.
	ResetConnections bool      `json:"reset_connections"`
	VRRP             *planVRRP `json:"vrrp,omitempty"`
}

type planAddress struct {
	Address       string `json:"address"`
	Device        string `json:"device,omitempty"` // absent on a witness
	Scope         string `json:"scope,omitempty"`  // absent: global
	Label         string `json:"label,omitempty"`
	NoPrefixRoute bool   `json:"noprefixroute,omitempty"`
}

type planRoute struct {
	To     string `json:"to"`
	Via    string `json:"via,omitempty"`
	Device string `json:"device,omitempty"` // absent on a witness
	Source string `json:"source,omitempty"`
	Table  uint32 `json:"table,omitempty"`  // absent: main
	Metric uint32 `json:"metric,omitempty"` // absent: the kernel's
	OnLink bool   `json:"onlink,omitempty"`
}

type planRule struct {
	From     string `json:"from,omitempty"`
	To       string `json:"to,omitempty"`
	Device   string `json:"device,omitempty"`
	Mark     uint32 `json:"mark,omitempty"`
	Table    uint32 `json:"table"`
	Priority uint32 `json:"priority,omitempty"` // absent: the kernel chooses
}

type planAnnounce struct {
	Repeat    int     `json:"repeat"`
	RefreshMS float64 `json:"refresh_ms"` // 0: none
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

func planOf(cfg *config.Config, links []config.Link) *plan {
	p := &plan{Election: cfg.Election.String(), Cluster: cfg.Cluster, Node: cfg.Node, Socket: cfg.Socket, HTTP: cfg.HTTP, VIPs: []planGroup{}}
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
		p.VIPs = append(p.VIPs, planGroupOf(cfg, g, links))
	}
	return p
}

func planGroupOf(cfg *config.Config, g fsm.Group, links []config.Link) planGroup {
	pg := planGroup{
		Name: g.Name, Announce: planAnnounce{g.Announce.Repeat, millis(g.Announce.Refresh)}, ResetConnections: !g.KeepConnections,
	}
	if cfg.Election == config.ElectRaft {
		pg.Placement = g.Placement.String()
	}
	here := cfg.Role != fsm.Witness
	for _, a := range g.Addresses {
		s := g.Specs[a.Addr()]
		pa := planAddress{Address: a.String(), Label: s.Label, NoPrefixRoute: s.NoPrefixRoute}
		if s.Scope != 0 {
			pa.Scope = s.Scope.String()
		}
		if here {
			pa.Device = config.DeviceOf(g, a.Addr(), links)
		}
		pg.Addresses = append(pg.Addresses, pa)
	}
	for _, r := range g.Routes {
		pr := planRoute{To: r.To.String(), Via: addressText(r.Via), Source: addressText(r.Source), Table: r.Table, Metric: r.Metric, OnLink: r.OnLink}
		if here {
			pr.Device = config.RouteDevice(g, r, links)
		}
		pg.Routes = append(pg.Routes, pr)
	}
	for _, r := range g.Rules {
		pg.Rules = append(pg.Rules, planRule{From: networkText(r.From), To: networkText(r.To), Device: r.Interface, Mark: r.Mark, Table: r.Table, Priority: r.Priority})
	}
	if g.VRRP.ID != 0 {
		pg.VRRP = planVRRPOf(cfg, g)
	}
	return pg
}

// addressText is empty for no address.
func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// networkText is empty for no network.
func networkText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
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

func (p *plan) text(b *strings.Builder, file string) {
	fmt.Fprintf(b, "ok: %s\n", file)
	if m := p.planMember; m != nil {
		fmt.Fprintf(b, "node %s of cluster %s: %s, at %s, TCP and UDP\n", p.Node, p.Cluster, m.Role, m.Address)
		fmt.Fprintf(b, "forms or finds the cluster with %s: %s\n", plural(len(m.Peers), "peer"), strings.Join(m.Peers, ", "))
		fmt.Fprintf(b, "votes are kept in %s; the API is on %s\n", m.DataDir, p.Socket)
		fmt.Fprintf(b, "lease %s, asked for every %s, kept by fence %s; a lost owner is replaced within %s at worst\n",
			inWords(m.LeaseMS), inWords(m.RenewMS), m.Fence, inWords(math.Ceil(m.WorstFailoverMS*10)/10))
	} else {
		fmt.Fprintf(b, "node %s: a VRRP router of its own; the API is on %s\n", p.Node, p.Socket)
		b.WriteString(noSingleOwner + "\n")
	}
	if p.HTTP != "" {
		fmt.Fprintf(b, "metrics, health and the reading API are on http://%s\n", p.HTTP)
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
		at = append(at, a.text())
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
	} else {
		b.WriteString(g.VRRP.text() + "\n")
	}
	for _, r := range g.Routes {
		b.WriteString("  " + r.text() + "\n")
	}
	for _, r := range g.Rules {
		b.WriteString("  " + r.text() + "\n")
	}
	b.WriteString("  " + g.Announce.text())
	if g.ResetConnections {
		b.WriteString("; its TCP connections are reset when it is moved on purpose")
	}
	b.WriteByte('\n')
}

func (a planAddress) text() string {
	s := a.Address
	if a.Device != "" {
		s += " on " + a.Device
	}
	var odd []string
	if a.Scope != "" {
		odd = append(odd, "scope "+a.Scope)
	}
	if a.Label != "" {
		odd = append(odd, "label "+a.Label)
	}
	if a.NoPrefixRoute {
		odd = append(odd, "no route for its network")
	}
	if len(odd) > 0 {
		s += " (" + strings.Join(odd, ", ") + ")"
	}
	return s
}

func (r planRoute) text() string {
	s := "route to " + r.To
	if r.Via != "" {
		s += " via " + r.Via
	}
	if r.Device != "" {
		s += " on " + r.Device
	}
	if r.OnLink {
		s += ", which is on the link"
	}
	if r.Source != "" {
		s += " from " + r.Source
	}
	if r.Table != 0 {
		s += fmt.Sprintf(", table %d", r.Table)
	}
	if r.Metric != 0 {
		s += fmt.Sprintf(", metric %d", r.Metric)
	}
	return s
}

func (r planRule) text() string {
	s := "rule for traffic"
	if r.From != "" {
		s += " from " + r.From
	}
	if r.To != "" {
		s += " to " + r.To
	}
	if r.Device != "" {
		s += " in by " + r.Device
	}
	if r.Mark != 0 {
		s += fmt.Sprintf(" with mark %d", r.Mark)
	}
	s += fmt.Sprintf(": table %d", r.Table)
	if r.Priority != 0 {
		s += fmt.Sprintf(", priority %d", r.Priority)
	}
	return s
}

func (a planAnnounce) text() string {
	s := "announced " + plural(a.Repeat, "time") + " after a takeover"
	if a.RefreshMS > 0 {
		s += ", then every " + inWords(a.RefreshMS)
	}
	return s
}

func (v *planVRRP) text() string {
	s := fmt.Sprintf("; VRRP id %d, priority %d, an advert every %s", v.ID, v.Priority, inWords(v.IntervalMS))
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
		s += "; takes over from a worse router after " + inWords(p.DelayMS)
	default:
		s += "; takes over from a worse router"
	}
	return s
}
