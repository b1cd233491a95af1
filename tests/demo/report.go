package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

// A report is the show as demo.json has it. Times are milliseconds, instants count
// from the start of the first daemon.
type report struct {
	OK       bool        `json:"ok"`
	Problems []string    `json:"problems"`
	LeaseMS  float64     `json:"lease_ms"`
	VIPs     []string    `json:"vips"`
	FormedMS float64     `json:"formed_ms"` // from the first start to the first answer
	LengthMS float64     `json:"length_ms"`
	Rows     []reportRow `json:"rows"`
	// Whole run, also between the rows.
	TwoOwnersMS float64      `json:"two_owners_ms"`
	Keepalived  string       `json:"keepalived"`
	Timeline    []reportLane `json:"timeline"`
	show        *show        // for the picture
	hosts       []string     // lanes from top to bottom
	lease       time.Duration
}

type reportRow struct {
	Fault          string   `json:"fault"`
	Owner          string   `json:"owner"`
	After          string   `json:"after"`
	AnsweredBy     []string `json:"answered_by"`
	InjectedMS     float64  `json:"injected_ms"`
	RestoredMS     float64  `json:"restored_ms,omitempty"`
	BoundMS        float64  `json:"bound_ms"`
	OutageMS       float64  `json:"outage_ms"`
	OutageIPv6MS   float64  `json:"outage_ipv6_ms"`
	ClientOutageMS float64  `json:"client_outage_ms"`
	TwoOwnersMS    float64  `json:"two_owners_ms"`
	Keepalived     string   `json:"keepalived"`
	OK             bool     `json:"ok"`
}

// A reportLane says when one host answered, and when it held the address.
type reportLane struct {
	Host     string       `json:"host"`
	Answered [][2]float64 `json:"answered_ms"`      // ARP
	IPv6     [][2]float64 `json:"answered_ipv6_ms"` // neighbour discovery
	Client   [][2]float64 `json:"served_client_ms"`
	Held     [][2]float64 `json:"held_ms"`    // the address was on its interface
	Adverts  []float64    `json:"adverts_ms"` // VRRP adverts sent
}

func newReport(s *show) *report {
	r := &report{show: s, lease: s.opt.lease, LeaseMS: millis(s.opt.lease), Problems: []string{}}
	r.VIPs = []string{lab.VIP4.String()}
	if s.opt.ipv6 {
		r.VIPs = append(r.VIPs, lab.VIP6.String())
	}
	r.FormedMS, r.LengthMS = r.at(s.formed), r.at(s.ended)
	for _, row := range s.rows {
		r.addRow(row)
	}
	r.TwoOwnersMS, r.Keepalived = millis(s.whole.TwoOwners), keepalivedDid(s.whole)
	if s.whole.TwoOwners > 0 {
		r.problem("in the whole run: %s with two owners", ms(s.whole.TwoOwners))
	}
	if s.whole.Left {
		r.problem("in the whole run: keepalived left Backup")
	}
	if want := len(lab.Faults()); len(s.rows) < want {
		r.problem("only %d of %d faults were tried", len(s.rows), want)
	}
	for _, n := range s.cluster.Nodes {
		r.hosts = append(r.hosts, n.Name)
	}
	r.hosts = append(r.hosts, "keepalived")
	for _, h := range r.hosts {
		r.Timeline = append(r.Timeline, r.lane(h))
	}
	r.OK = len(r.Problems) == 0
	return r
}

func (r *report) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

func (r *report) addRow(row lab.Row) {
	v, before := row.Verdict, len(r.Problems)
	if v.TwoOwners > 0 {
		r.problem("%s: %s with two owners", row.Fault, ms(v.TwoOwners))
	}
	if v.Left {
		r.problem("%s: keepalived left Backup", row.Fault)
	}
	if !row.Within() {
		r.problem("%s: %s without an answer, more than %s (the probe itself paused for at most %s)",
			row.Fault, ms(max(v.Outage, v.Outage6)), ms(row.Bound), ms(v.Blind))
	}
	out := reportRow{
		Fault: row.Fault, Owner: row.Owner, After: row.After, AnsweredBy: v.Owners,
		InjectedMS: r.at(row.Injected), BoundMS: millis(row.Bound),
		OutageMS: millis(v.Outage), OutageIPv6MS: millis(v.Outage6), ClientOutageMS: millis(v.ClientOutage),
		TwoOwnersMS: millis(v.TwoOwners), Keepalived: keepalivedDid(v), OK: len(r.Problems) == before,
	}
	if row.Restored != 0 {
		out.RestoredMS = r.at(row.Restored)
	}
	r.Rows = append(r.Rows, out)
}

// lane collects what there is about one host.
func (r *report) lane(host string) reportLane {
	c := r.show.cluster
	lane := reportLane{Host: host, Answered: r.runsOf(host, c.Probes4[0].Trace()), Client: r.runsOf(host, c.Client.Trace())}
	if len(c.Probes6) > 0 {
		lane.IPv6 = r.runsOf(host, c.Probes6[0].Trace())
	}
	w := c.Watches[host]
	for _, a := range w.Adverts(r.show.started, r.show.ended) {
		if a.Source.Is4() {
			lane.Adverts = append(lane.Adverts, r.at(a.At))
		}
	}
	since := lab.Instant(0)
	for _, h := range w.Holdings() {
		if h.Addr != lab.VIP4.Addr() {
			continue
		}
		if h.Held {
			since = h.At
		} else {
			lane.Held = append(lane.Held, [2]float64{r.at(since), r.at(h.At)})
			since = 0
		}
	}
	if since != 0 {
		lane.Held = append(lane.Held, [2]float64{r.at(since), r.at(r.show.ended)})
	}
	return lane
}

// runsOf gives a host's answers as unbroken stretches.
func (r *report) runsOf(host string, t lab.Trace) (out [][2]float64) {
	for _, run := range lab.Runs(t.Between(r.show.started, r.show.ended).Answers, t.Period) {
		if run.Host == host {
			out = append(out, [2]float64{r.at(run.From), r.at(run.To)})
		}
	}
	return out
}

// at gives an instant in milliseconds since the start.
func (r *report) at(i lab.Instant) float64 { return millis(i.Sub(r.show.started)) }

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// failure says why the demo failed, if it did.
func (r *report) failure() error {
	if r.OK {
		return nil
	}
	return errors.New(strings.Join(r.Problems, "\n      "))
}

// table gives the rows for a terminal.
func (r *report) table() string {
	rows := [][]string{{"fault at the owner", "outage", "IPv6", "client", "bound", "two owners", "answered by", "keepalived"}}
	for _, row := range r.show.rows {
		v := row.Verdict
		ipv6 := "-"
		if r.show.opt.ipv6 {
			ipv6 = ms(v.Outage6)
		}
		rows = append(rows, []string{
			row.Fault, ms(v.Outage), ipv6, ms(v.ClientOutage), ms(row.Bound), ms(v.TwoOwners), owners(v), keepalivedDid(v),
		})
	}
	var b strings.Builder
	b.WriteString(align(rows, 1, 5))
	fmt.Fprintf(&b, "\nFormed after %s. In all of %.0f s: %s with two owners, keepalived %s.\n",
		ms(r.show.formed.Sub(r.show.started)), r.LengthMS/1000, ms(r.show.whole.TwoOwners), r.Keepalived)
	return b.String()
}

// align pads columns; those from rightFrom to rightTo are set to the right.
func align(rows [][]string, rightFrom, rightTo int) string {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	var b strings.Builder
	line := func(row []string) {
		var l strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-len([]rune(cell)))
			if rightFrom <= i && i <= rightTo {
				l.WriteString(pad + cell + "   ")
			} else {
				l.WriteString(cell + pad + "   ")
			}
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	for i, row := range rows {
		line(row)
		if i == 0 {
			total := -3
			for _, w := range width {
				total += w + 3
			}
			b.WriteString(strings.Repeat("─", total) + "\n")
		}
	}
	return b.String()
}

// write puts demo.json and demo.html into dir.
func (r *report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the directory for the reports: %w", err)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode demo.json: %w", err)
	}
	page, err := r.page()
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"demo.json": append(data, '\n'), "demo.html": page} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	fmt.Printf("Written: %s, %s\n", filepath.Join(dir, "demo.json"), filepath.Join(dir, "demo.html"))
	return nil
}
