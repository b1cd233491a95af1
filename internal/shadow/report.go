package shadow

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// A Report is what a shadow saw from its beginning to its end.
type Report struct {
	Node     string `json:"node"`
	Cluster  string `json:"cluster,omitempty"` // the shadows' own
	Election string `json:"election"`
	// From and Until are by the wall clock.
	From   time.Time     `json:"from"`
	Until  time.Time     `json:"until"`
	Groups []GroupReport `json:"groups"`
}

// A GroupReport is a Report's part of one group. What is not counted as agreed, differed
// or nobody was before anything could be said.
type GroupReport struct {
	Group      string   `json:"group"`
	Addresses  []string `json:"addresses"`
	Really     string   `json:"really"` // at the end; empty: nobody was heard
	Would      string   `json:"would"`  // at the end; empty: nobody, or with election: vrrp another router
	Verdict    string   `json:"verdict"`
	AgreedMS   float64  `json:"agreed_ms"`
	DifferedMS float64  `json:"differed_ms"`
	NobodyMS   float64  `json:"nobody_ms"` // nobody was heard to have it
	// Priority is what quorate's adverts would say, and Heard who claimed the group, with
	// the highest priority of each.
	Priority    uint8        `json:"priority"`
	Heard       []Router     `json:"heard"`
	Differences []Difference `json:"differences"`
	Changes     []Change     `json:"changes"`
	Decisions   []Decision   `json:"decisions"`
	TwoHosts    []TwoHosts   `json:"two_hosts"`
	Left        int          `json:"left_out"` // notes for which there was no room

	agreed, differed, nobody time.Duration
}

// A Router is one that claimed a group.
type Router struct {
	Address  string `json:"address"`
	Node     string `json:"node,omitempty"`
	Priority uint8  `json:"priority"`
}

// A Difference is a time in which somebody had a group who would not have had it.
type Difference struct {
	At     time.Time `json:"at"`
	Until  time.Time `json:"until"`
	Really string    `json:"really"`
	Would  string    `json:"would"`

	until time.Time // of the look up to which it is counted
}

// A Change is one of who really had a group; empty: nobody was heard. Would is who would
// have had it then.
type Change struct {
	At    time.Time `json:"at"`
	From  string    `json:"from"`
	To    string    `json:"to"`
	Would string    `json:"would"`
}

// A Decision is one of quorate's: who would have had the group from then on.
type Decision struct {
	At     time.Time `json:"at"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	Reason string    `json:"reason,omitempty"`
}

// A TwoHosts is a time in which two hosts had a group at once.
type TwoHosts struct {
	At    time.Time `json:"at"`
	Until time.Time `json:"until"`
	Who   []string  `json:"who"`
}

// Report is the book as of now.
func (l *Ledger) Report(now time.Time) Report {
	r := Report{Node: l.node, Election: "raft", From: l.began, Until: now, Groups: []GroupReport{}}
	if l.alone {
		r.Election = "vrrp"
	}
	for _, name := range l.order {
		if g := l.groups[name]; g.def.Name != "" { // else it was heard of and never looked at
			r.Groups = append(r.Groups, g.summary())
		}
	}
	return r
}

func (g *group) summary() GroupReport {
	out := g.report
	out.Addresses, out.Really, out.Would, out.Verdict, out.Priority = g.def.Addresses, g.really, g.would, g.verdict.String(), g.def.Priority
	out.AgreedMS, out.DifferedMS, out.NobodyMS = millis(out.agreed), millis(out.differed), millis(out.nobody)
	out.Heard = []Router{}
	for _, from := range sorted(g.heard) {
		out.Heard = append(out.Heard, g.heard[from])
	}
	out.Differences = append([]Difference{}, out.Differences...)
	out.Changes = append([]Change{}, out.Changes...)
	out.Decisions = append([]Decision{}, out.Decisions...)
	out.TwoHosts = append([]TwoHosts{}, out.TwoHosts...)
	return out
}

// sorted are the routers, the one with the highest priority first.
func sorted(heard map[netip.Addr]Router) []netip.Addr {
	var all []netip.Addr
	for a := range heard {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b netip.Addr) int {
		return cmp.Or(cmp.Compare(heard[b].Priority, heard[a].Priority), a.Compare(b))
	})
	return all
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
