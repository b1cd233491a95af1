package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/daemon"
	"github.com/quorate/quorate/internal/term"
	"github.com/quorate/quorate/vipctl/fence"
	"github.com/quorate/quorate/vipctl/kernel"
)

// A hostReport is what is known of this host without its daemon.
type hostReport struct {
	Config    string        `json:"config"` // the file that was looked at
	Node      string        `json:"node,omitempty"`
	Cluster   string        `json:"cluster,omitempty"`
	Socket    string        `json:"socket,omitempty"`
	Addresses []leftAddress `json:"addresses"` // of VIP groups, that are on this host or guarded
	Unknown   []string      `json:"unknown"`   // what could not be looked at, and why
}

// A leftAddress is a virtual address that the daemon left on this host.
type leftAddress struct {
	Address string `json:"address"`
	Device  string `json:"device,omitempty"` // empty: it is on none
	// Fence is none, shut, or open, and then until when.
	Fence     string  `json:"fence"`
	FenceMS   float64 `json:"fence_ms,omitempty"`
	ExpiresMS float64 `json:"expires_ms,omitempty"` // until the kernel removes the address; 0: never
}

// discard is where the fence keeps the entries of virtual hardware addresses (fence.OfMAC).
var discard = netip.MustParsePrefix("100::/64")

// lookAtHost changes nothing. An empty socket is that of the file; another daemon's host
// is not looked at.
func lookAtHost(file, socket string) hostReport {
	h := hostReport{Config: file, Addresses: []leftAddress{}, Unknown: []string{}}
	unknown := func(what string, err error) { h.Unknown = append(h.Unknown, fmt.Sprintf("%s: %v", what, err)) }
	cfg, err := config.Load(file)
	if err != nil {
		unknown("the configuration", err)
		return h
	}
	if socket != "" && socket != cfg.Socket {
		unknown("this host", fmt.Errorf("%s is of the daemon at %s, not of the one that was asked; name its own with --config instead of --socket", file, cfg.Socket))
		return h
	}
	h.Node, h.Cluster, h.Socket = cfg.Node, cfg.Cluster, cfg.Socket
	var entries map[netip.Addr]election.Instant
	if cfg.Election != config.ElectVRRP && cfg.Fence == config.BPF {
		if entries, err = fence.Look(daemon.FenceTag(cfg.Cluster)); err != nil {
			unknown("the fence", err)
		}
		maps.DeleteFunc(entries, func(a netip.Addr, _ election.Instant) bool { return discard.Contains(a) })
	}
	found, err := addressesOf(cfg, entries)
	if err != nil {
		unknown("the addresses", err)
	}
	h.Addresses = append(h.Addresses, left(found, entries, daemon.Now())...)
	return h
}

// addressesOf are those of the configuration and of the fence, where they are on this host.
func addressesOf(cfg *config.Config, entries map[netip.Addr]election.Instant) (found []kernel.Found, err error) {
	k, err := kernel.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	ours := func(a netip.Addr) bool {
		_, guarded := entries[a]
		return guarded || slices.Contains(cfg.Document.Addrs(), a)
	}
	mortal, err := k.Leftovers(ours)
	if err != nil {
		return nil, err
	}
	foreign, err := k.Foreign(ours)
	return slices.Concat(mortal, foreign), err
}

func left(found []kernel.Found, entries map[netip.Addr]election.Instant, now election.Instant) []leftAddress {
	var out []leftAddress
	add := func(a netip.Addr, l leftAddress) {
		l.Fence = "none"
		if until, ok := entries[a]; ok {
			l.Fence = "shut"
			if remaining := until.Sub(now); remaining > 0 {
				l.Fence, l.FenceMS = "open", millis(remaining)
			}
		}
		out = append(out, l)
	}
	for _, f := range found {
		add(f.Prefix.Addr(), leftAddress{Address: f.Prefix.String(), Device: f.Link, ExpiresMS: millis(f.Valid)})
	}
	for a := range entries {
		if !slices.ContainsFunc(found, func(f kernel.Found) bool { return f.Prefix.Addr() == a }) {
			add(a, leftAddress{Address: a.String()})
		}
	}
	slices.SortFunc(out, func(a, b leftAddress) int { return cmp.Compare(a.Address, b.Address) })
	return out
}

// downFinding says how bad it is that the daemon does not answer, and what to do.
func downFinding(asked error, h hostReport) finding {
	f := finding{outage, asked.Error(), "systemctl start quorate, then look again; journalctl -u quorate says why it ended"}
	if !errors.Is(asked, api.ErrNoDaemon) {
		f.Do = "journalctl -u quorate; if it stays so: systemctl restart quorate. What it held is shut by the kernel when the lease ends"
	}
	exposed := func(l leftAddress) bool { return l.Device != "" && l.Fence != "shut" }
	if errors.Is(asked, api.ErrNoDaemon) && slices.ContainsFunc(h.Addresses, exposed) {
		f.Do = "quorate release takes off what is left; then systemctl start quorate"
	}
	return f
}

func downText(s term.Screen, f finding, h hostReport) string {
	var b strings.Builder
	b.WriteString(s.Paint(f.Grade.paint(), s.Wrap(strings.ToUpper(f.Grade.String())+": "+f.What, "  ")) + "\n")
	b.WriteString(s.Wrap("  do: "+f.Do, "      ") + "\n")
	if h.Node != "" {
		name := "cluster " + h.Cluster
		if h.Cluster == "" {
			name = "no cluster"
		}
		b.WriteString(s.Wrap(fmt.Sprintf("node %s of %s, by %s", h.Node, name, h.Config), "  ") + "\n")
	}
	b.WriteString("\n")
	for _, u := range h.Unknown {
		b.WriteString(s.Wrap("not known: "+u, "  ") + "\n")
	}
	switch {
	case len(h.Addresses) > 0:
		rows := [][]term.Cell{term.Cells("LEFT ON THIS HOST", "DEVICE", "FENCE", "EXPIRES")}
		for _, a := range h.Addresses {
			rows = append(rows, leftRow(a))
		}
		b.WriteString(s.Table(rows))
	case len(h.Unknown) == 0:
		b.WriteString("nothing of it is left on this host: no address, no fence\n")
	}
	return b.String()
}

func leftRow(a leftAddress) []term.Cell {
	guard := term.Cell{Text: a.Fence, Paint: term.Good}
	switch {
	case a.Fence == "open":
		guard = term.Cell{Text: "open for " + inWords(a.FenceMS), Paint: term.Warn}
	case a.Fence == "none" && a.Device != "":
		guard.Paint = term.Bad
	}
	expires := "-"
	switch {
	case a.ExpiresMS > 0:
		expires = "in " + (time.Duration(a.ExpiresMS) * time.Millisecond).Round(time.Second).String()
	case a.Device != "":
		expires = "never"
	}
	return []term.Cell{{Text: a.Address}, {Text: orDash(a.Device)}, guard, {Text: expires}}
}

// file is the configuration file that a command looks at by itself.
func (t *target) file() string {
	if t.config != "" {
		return t.config
	}
	return defaultConfig
}
