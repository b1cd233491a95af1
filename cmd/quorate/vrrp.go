package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/api"
)

func newVRRPCommand() *cobra.Command {
	var t target
	var asJSON bool
	c := &cobra.Command{
		Use:   "vrrp",
		Short: "Show which VRRP routers this node hears, and what about them does not fit",
		Long: "Show this node's own virtual routers, those of other hosts that it hears on the same devices, what about the two\n" +
			"does not go together, and which packets were refused and why: the first thing to look at where keepalived,\n" +
			"routers or switches share a VRRP id with this node. A difference marked BREAKS makes both sides Active.",
		Example: "  quorate vrrp\n  quorate vrrp --json | jq '.neighbours[] | select(.speaking) | .address'",
		Args:    takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			defer client.Close()
			v, err := client.VRRP(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return showJSON(cmd.OutOrStdout(), v)
			}
			return showVRRP(cmd, v)
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func showVRRP(cmd *cobra.Command, v api.VRRP) error {
	out := cmd.OutOrStdout()
	var refused uint64
	for _, r := range v.Refused {
		refused += r.Count
	}
	head := fmt.Sprintf("node: %s  heard: %s, %d refused\n", v.Node, plural(int(v.Accepted), "advert"), refused)
	for _, r := range v.Routers {
		if !r.Listening {
			head += fmt.Sprintf("PROBLEM: %s cannot be listened on for %s at present; the daemon's log says why\n", r.Device, r.Family)
		}
	}
	if v.Overruns > 0 {
		head += fmt.Sprintf("PROBLEM: %s came faster than they could be read\n", plural(int(v.Overruns), "packet"))
	}
	if v.Crowded > 0 {
		head += fmt.Sprintf("PROBLEM: %s from more routers than are remembered; forged sources do that\n", plural(int(v.Crowded), "packet"))
	}
	if err := write(out, head); err != nil {
		return err
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
		if err := write(out, "\n"+part.title+":\n"); err != nil {
			return err
		}
		if err := showTable(out, part.rows); err != nil {
			return err
		}
	}
	return nil
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
				interval(r.IntervalMS), orNone(from), to.Address, checksum(to), strings.Join(r.Addresses, ",")}
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
			every = interval(n.IntervalMS)
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

func interval(ms float64) string { return (time.Duration(ms*1000) * time.Microsecond).String() }

// ago is rounded so that a glance is enough.
func ago(ms float64) string {
	d := time.Duration(ms*1000) * time.Microsecond
	if d < time.Minute {
		return fmt.Sprintf("%.1fs ago", d.Seconds())
	}
	return d.Round(time.Second).String() + " ago"
}
