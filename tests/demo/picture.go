package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// Measures of a picture, in its own units.
const (
	nameWidth  = 78 // left of the lanes
	laneHeight = 44
	topSpace   = 34 // for marks above the lanes
	axisSpace  = 22
)

// A picture is an SVG of lanes, one for each host, over a stretch of time.
type picture struct {
	b        strings.Builder
	width    float64
	hosts    []string
	from, to float64 // milliseconds
}

func newPicture(width float64, hosts []string, from, to float64) *picture {
	p := &picture{width: width, hosts: hosts, from: from, to: to}
	fmt.Fprintf(&p.b, `<svg viewBox="0 0 %.0f %.0f" role="img">`, width, p.bottom()+axisSpace)
	for i, h := range hosts {
		fmt.Fprintf(&p.b, `<text class="name" x="0" y="%.0f">%s</text>`, p.top(i)+laneHeight/2+3, html.EscapeString(h))
	}
	return p
}

func (p *picture) top(lane int) float64 { return topSpace + float64(lane)*laneHeight }

func (p *picture) bottom() float64 { return p.top(len(p.hosts)) }

// x gives the place of a time, kept inside the picture.
func (p *picture) x(t float64) float64 {
	t = min(max(t, p.from), p.to)
	return nameWidth + (t-p.from)/(p.to-p.from)*(p.width-nameWidth-4)
}

// axis draws lines between the lanes and a time below each step.
func (p *picture) axis(step float64, label func(float64) string) {
	for i := range len(p.hosts) + 1 {
		fmt.Fprintf(&p.b, `<line class="axis" x1="%d" x2="%.1f" y1="%.1f" y2="%.1f"/>`, nameWidth, p.width-4, p.top(i), p.top(i))
	}
	// Close-ups begin a little before a round time; labels count from that time.
	origin := p.from
	if p.from != 0 {
		origin += zoomBefore - float64(int(zoomBefore/step))*step
	}
	for t := origin; t <= p.to; t += step {
		fmt.Fprintf(&p.b, `<line class="axis" x1="%.1f" x2="%.1f" y1="%d" y2="%.1f"/><text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`,
			p.x(t), p.x(t), topSpace, p.bottom(), min(p.x(t), p.width-18), p.bottom()+16, label(t))
	}
}

// lane draws all that one host did.
func (p *picture) lane(i int, l reportLane) {
	class := fmt.Sprintf("h%d", i%4)
	y := p.top(i)
	bars := func(spans [][2]float64, class string, y, height float64, what string) {
		for _, s := range spans {
			if s[1] < p.from || s[0] > p.to {
				continue
			}
			fmt.Fprintf(&p.b, `<rect class="%s" x="%.2f" y="%.1f" width="%.2f" height="%.1f"><title>%s %s, %.0f ms</title></rect>`,
				class, p.x(s[0]), y, max(p.x(s[1])-p.x(s[0]), 0.8), height, html.EscapeString(l.Host), what, s[1]-s[0])
		}
	}
	bars(l.Held, class+" held", y+3, laneHeight-6, "has the address on its interface")
	bars(l.Answered, class, y+9, 13, "answers the probe")
	bars(l.IPv6, class+" v6", y+24, 4, "answers by IPv6")
	bars(l.Client, class+" client", y+30, 4, "serves the client")
	for _, t := range l.Adverts {
		if t >= p.from && t <= p.to {
			fmt.Fprintf(&p.b, `<circle class="%s" cx="%.1f" cy="%.1f" r="1.8"/>`, class, p.x(t), y+38.5)
		}
	}
}

// veil shades a host's lane for as long as its fault lasts.
func (p *picture) veil(host string, from, to float64) {
	lane := slices.Index(p.hosts, host)
	if lane < 0 || to < p.from || from > p.to {
		return
	}
	fmt.Fprintf(&p.b, `<rect class="veil" x="%.1f" y="%.1f" width="%.1f" height="%d"><title>fault at %s</title></rect>`,
		p.x(from), p.top(lane), p.x(to)-p.x(from), laneHeight, html.EscapeString(host))
}

// split draws a red bar over the lanes while there were two owners.
func (p *picture) split(from, to float64) {
	if to < p.from || from > p.to {
		return
	}
	fmt.Fprintf(&p.b, `<rect class="split" x="%.1f" y="%.1f" width="%.2f" height="5"><title>two owners, %.0f ms</title></rect>`,
		p.x(from), p.bottom()-2.5, max(p.x(to)-p.x(from), 2), to-from)
}

// mark draws a line where a fault begins, its name above in one of two rows.
func (p *picture) mark(t float64, name string, row int) {
	fmt.Fprintf(&p.b, `<line class="mark" x1="%.1f" x2="%.1f" y1="%d" y2="%.1f"/>`, p.x(t), p.x(t), topSpace-4, p.bottom())
	if name != "" {
		x, anchor := p.x(t), "start"
		if x > p.width-120 { // it would run out of the picture
			x, anchor = p.width-2, "end"
		}
		fmt.Fprintf(&p.b, `<text class="label" text-anchor="%s" x="%.1f" y="%d">%s</text>`, anchor, x, 12+row*14, html.EscapeString(name))
	}
}

// gap measures a time without an answer above the lanes.
func (p *picture) gap(from, to float64, text string) {
	a, b := p.x(from), p.x(to)
	fmt.Fprintf(&p.b, `<path class="mark" fill="none" d="M%.1f 30V22H%.1fV30"/><text class="gap" x="%.1f" y="17">%s</text>`,
		a, b, max((a+b)/2, nameWidth+20), html.EscapeString(text))
}

func (p *picture) done() string {
	return p.b.String() + "</svg>"
}
