package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"

	"github.com/quorate/quorate/tests/lab"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// pageRow is a row of the page's table, ready to print.
type pageRow struct {
	Fault, Outage, Outage6, Client, Bound, TwoOwners, Owners, Keepalived string
	Within, Split, Left                                                  bool
}

// A zoom is one fault close up.
type zoom struct {
	Title, Text string
	Picture     template.HTML
}

// How much of the time round a fault is shown close up, in milliseconds.
const zoomBefore, zoomAfter = 300, 1100

// page draws demo.html. Every piece of SVG in it is built from numbers and the names
// of the lab's hosts and faults.
func (r *report) page() ([]byte, error) {
	var rows []pageRow
	var zooms []zoom
	for i, row := range r.show.rows {
		v := row.Verdict
		p := pageRow{
			Fault: row.Fault, Outage: ms(v.Outage), Outage6: "–", Client: ms(v.ClientOutage), Bound: ms(row.Bound),
			TwoOwners: ms(v.TwoOwners), Owners: owners(v), Keepalived: keepalivedDid(v),
			Within: row.Within(), Split: v.TwoOwners > 0, Left: v.Left,
		}
		if r.show.opt.ipv6 {
			p.Outage6 = ms(v.Outage6)
		}
		rows = append(rows, p)
		zooms = append(zooms, r.zoom(row, r.Rows[i]))
	}
	var b bytes.Buffer
	err := pageTemplate.Execute(&b, map[string]any{
		"OK": r.OK, "Problems": r.Problems, "VIPs": r.VIPs, "Lease": ms(r.lease), "Formed": ms(r.show.formed.Sub(r.show.started)),
		"Rows": rows, "Zooms": zooms, "Overview": template.HTML(r.overview()),
	})
	if err != nil {
		return nil, fmt.Errorf("draw demo.html: %w", err)
	}
	return b.Bytes(), nil
}

func (r *report) overview() string {
	p := newPicture(1120, r.hosts, 0, r.LengthMS)
	for _, row := range r.Rows {
		p.veil(row.Owner, row.InjectedMS, row.RestoredMS)
	}
	p.axis(10_000, func(t float64) string { return fmt.Sprintf("%.0f s", t/1000) })
	for i, lane := range r.Timeline {
		p.lane(i, lane)
	}
	for i, row := range r.Rows {
		p.mark(row.InjectedMS, row.Fault, i%2)
	}
	r.splits(p)
	return p.done()
}

func (r *report) zoom(row lab.Row, at reportRow) zoom {
	from := at.InjectedMS - zoomBefore
	p := newPicture(540, r.hosts, from, at.InjectedMS+zoomAfter)
	p.veil(at.Owner, at.InjectedMS, at.RestoredMS)
	p.axis(200, func(t float64) string { return fmt.Sprintf("%.0f", t-at.InjectedMS) })
	for i, lane := range r.Timeline {
		p.lane(i, lane)
	}
	p.mark(at.InjectedMS, "", 0)
	r.splits(p)
	v := row.Verdict
	gap := lab.Outage(r.show.cluster.Probes4[0].Trace().Answers, v.From, v.To)
	if from := r.at(gap.From); from < p.to {
		p.gap(from, r.at(gap.To), ms(gap.Length()))
	}
	text := fmt.Sprintf("Done to %s; answered by %s. Longest time without an answer %s, for the client %s. Milliseconds from the fault.",
		row.Owner, owners(v), ms(v.Outage), ms(v.ClientOutage))
	return zoom{Title: row.Fault, Text: text, Picture: template.HTML(p.done())}
}

// splits marks every time with two owners.
func (r *report) splits(p *picture) {
	for _, s := range r.show.whole.Overlaps {
		p.split(r.at(s.From), r.at(s.To))
	}
}
