package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/term"
)

func newVRRPCommand() *cobra.Command {
	return asking(&cobra.Command{
		Use:   "vrrp",
		Short: "Show which VRRP routers this node hears, and what about them does not fit",
		Long: "Show this node's own virtual routers, those of other hosts that it hears on the same devices, what about the two\n" +
			"does not go together, and which packets were refused and why: the first thing to look at where keepalived,\n" +
			"routers or switches share a VRRP id with this node. A difference marked BREAKS makes both sides Active.",
		Example: "  quorate vrrp\n  quorate vrrp --json | jq '.neighbours[] | select(.speaking) | .address'",
		Args:    takes(0, "no arguments"),
	}, question[api.VRRP]{
		ask:  func(ctx context.Context, client *api.Client, _ []string) (api.VRRP, error) { return client.VRRP(ctx) },
		text: showVRRP,
	})
}

func showVRRP(s term.Screen, v api.VRRP) string {
	var refused uint64
	for _, r := range v.Refused {
		refused += r.Count
	}
	var b strings.Builder
	b.WriteString(s.Wrap(fmt.Sprintf("node: %s  heard: %s, %d refused", v.Node, plural(int(v.Accepted), "advert"), refused), "  ") + "\n")
	problem := func(format string, args ...any) {
		b.WriteString(s.Paint(term.Bad, s.Wrap("PROBLEM: "+fmt.Sprintf(format, args...), "  ")) + "\n")
	}
	for _, r := range v.Routers {
		if !r.Listening {
			problem("%s cannot be listened on for %s at present; the daemon's log says why", r.Device, r.Family)
		}
	}
	if v.Overruns > 0 {
		problem("%s came faster than they could be read", plural(int(v.Overruns), "packet"))
	}
	if v.Crowded > 0 {
		problem("%s from more routers than are remembered; forged sources do that", plural(int(v.Crowded), "packet"))
	}
	for _, part := range []struct {
		title, none string
		rows        [][]string
	}{
		{"here", "this node has no virtual router", routerRows(v)},
		{"heard", "no other router was heard", neighbourRows(v)},
		{"differences", "", differenceRows(v)},
		{"refused", "", refusalRows(v)},
	} {
		if len(part.rows) < 2 {
			if part.none == "" {
				continue
			}
			part.rows = [][]string{{part.none}}
		}
		b.WriteString("\n" + s.Paint(term.Strong, part.title+":") + "\n" + table(s, part.rows))
	}
	return b.String()
}

func routerRows(v api.VRRP) [][]string {
	rows := [][]string{{"GROUP", "DEVICE", "ID", "STATE", "VERSION", "PRIORITY", "INTERVAL", "FROM", "TO", "CHECKSUM", "ADDRESSES"}}
	for _, r := range v.Routers {
		state := r.State
		switch {
		case r.State == "Active":
			state += " (master)"
		case r.Rival != nil:
			state += fmt.Sprintf(", outranked by %s with %d", r.Rival.Address, r.Rival.Priority)
		}
		if r.Rival != nil && r.Rival.Held {
			state += fmt.Sprintf(", though %s has %d", r.Rival.Address, r.Rival.Priority)
		}
		from := r.Source
		if r.MAC != "" {
			from += " " + r.MAC
		}
		for i, to := range r.To {
			row := []string{r.Group, r.Device, strconv.Itoa(int(r.VRID)), state, r.Version, strconv.Itoa(int(r.Priority)),
				inWords(r.IntervalMS), orNone(from), to.Address, checksum(to), strings.Join(r.Addresses, ",")}
			if i > 0 {
				row = []string{"", "", "", "", "", "", "", "", to.Address, checksum(to)}
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// checksum says where the form comes from, unless it was written in the file.
func checksum(to api.VRRPDestination) string {
	switch {
	case !to.Mirrored:
		return to.Checksum
	case to.Of == "":
		return to.Checksum + " (nobody heard yet)"
	}
	return to.Checksum + " (as " + to.Of + ")"
}

func neighbourRows(v api.VRRP) [][]string {
	rows := [][]string{{"DEVICE", "ID", "FROM", "SPEAKS", "STATE", "PRIORITY", "INTERVAL", "CHECKSUM", "HEARD", "REFUSED", "MAC", "ADDRESSES"}}
	for _, n := range v.Neighbours {
		from := n.Address
		if n.Insider {
			from += " (node)"
		}
		priority, every, refused := "-", "-", "-"
		if n.Priority != nil {
			priority = strconv.Itoa(int(*n.Priority))
		}
		if n.IntervalMS > 0 {
			every = inWords(n.IntervalMS)
		}
		if n.LastRefusal != nil {
			refused = fmt.Sprintf("%d (%s)", n.Refused, n.LastRefusal.Reason)
		}
		rows = append(rows, []string{n.Device, strconv.Itoa(int(n.VRID)), from, speaks(n), neighbourState(n), priority, every, orDash(n.Checksum),
			ago(n.LastAgoMS), refused, orDash(n.MAC), orDash(strings.Join(n.Addresses, ","))})
	}
	return rows
}

func speaks(n api.VRRPNeighbour) string {
	switch {
	case n.Dialect == "carp":
		return "CARP"
	case n.Dialect != "vrrp":
		return n.Dialect
	case n.Auth != "" && n.Auth != "none":
		return fmt.Sprintf("VRRPv%d, %s", n.Version, n.Auth)
	}
	return fmt.Sprintf("VRRPv%d", n.Version)
}

func neighbourState(n api.VRRPNeighbour) string {
	switch {
	case n.Speaking:
		return "Active"
	case n.Priority != nil && *n.Priority == 0:
		return "let go"
	case n.Dialect == "unreadable":
		return "-"
	}
	return "silent"
}

func differenceRows(v api.VRRP) [][]string {
	rows := [][]string{{"GROUP", "ROUTER", "WHAT", "HERE", "THERE", ""}}
	for _, n := range v.Neighbours {
		for _, d := range n.Differences {
			advice := d.Advice
			if d.Breaks {
				advice = "BREAKS: " + advice
			}
			rows = append(rows, []string{d.Group, fmt.Sprintf("%s on %s", n.Address, n.Device), d.Field, d.Here, d.There, advice})
		}
	}
	return rows
}

func refusalRows(v api.VRRP) [][]string {
	rows := [][]string{{"REASON", "PACKETS", "LAST", "DEVICE", "ID", "FROM", ""}}
	for _, r := range v.Refused {
		rows = append(rows, []string{r.Reason, strconv.FormatUint(r.Count, 10), ago(r.AgoMS), r.Device, strconv.Itoa(int(r.VRID)), r.Address, r.Text})
	}
	return rows
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// ago is rounded so that a glance is enough.
func ago(ms float64) string {
	d := time.Duration(ms*1000) * time.Microsecond
	if d < time.Minute {
		return fmt.Sprintf("%.1f s ago", d.Seconds())
	}
	return d.Round(time.Second).String() + " ago"
}
