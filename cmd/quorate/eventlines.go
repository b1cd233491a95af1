package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/term"
)

// eventLines writes events as aligned lines. It keeps the widths of its columns, so that
// what follows stays below what came before.
type eventLines struct {
	screen term.Screen
	wide   [4]int
}

// text is one line for each event; on a screen that is too narrow it goes on in further
// lines, and where even the columns do not fit they are not aligned.
func (l *eventLines) text(events []api.Event, now time.Time) string {
	var rows [][]string
	for _, e := range events {
		rows = append(rows, eventRow(e, now))
	}
	for _, r := range rows {
		for i := range l.wide {
			l.wide[i] = max(l.wide[i], utf8.RuneCountInString(r[i]))
		}
	}
	columns := 0
	for _, w := range l.wide {
		columns += w + 2
	}
	align := l.screen.Width == 0 || columns <= l.screen.Width
	indent := strings.Repeat(" ", min(l.wide[0]+2, l.screen.Width/3))
	var b strings.Builder
	for _, r := range rows {
		line := strings.Join(slices.DeleteFunc(slices.Clone(r), func(cell string) bool { return cell == "" }), "  ")
		if align {
			line = l.aligned(r)
		}
		b.WriteString(l.screen.Wrap(line, indent) + "\n")
	}
	return b.String()
}

func (l *eventLines) aligned(row []string) string {
	line := ""
	for i, cell := range row {
		line += cell
		if i < len(l.wide) {
			line += strings.Repeat(" ", l.wide[i]-utf8.RuneCountInString(cell)+2)
		}
	}
	return strings.TrimRight(line, " ")
}

// eventRow is an event in columns: when, what it is about, what happened, why, and more.
func eventRow(e api.Event, now time.Time) []string {
	at := e.At.In(now.Location())
	layout := "15:04:05.000"
	if at.Format(time.DateOnly) != now.Format(time.DateOnly) {
		layout = "2006-01-02 " + layout
	}
	row := []string{at.Format(layout), subject(e), "", e.Reason, ""}
	if e.By != "" {
		row[3] = "by " + e.By
	}
	switch e.Kind {
	case "owner":
		row[2], row[4] = orNobody(e.From)+" → "+orNobody(e.To), outageText(e)
		if e.From == e.To {
			row[2] = "stays on " + e.To
		}
	case "reopened":
		row[2] = e.To + " again"
		if e.OutageMS != nil {
			row[4] = longMS(*e.OutageMS) + " without an owner"
		}
	case "document":
		row[2] = "revision " + strconv.FormatUint(e.Revision, 10)
	case "drain":
		row[2] = "drained"
	case "undrain":
		row[2] = "no longer drained"
	case "joined":
		row[2] = "joined"
	case "changed":
		row[2] = "changed"
	case "removed":
		row[2] = "removed"
	case "leader":
		row[2] = "leads, term " + strconv.FormatUint(e.Term, 10)
	default: // formed, and those of a newer daemon
		row[2] = e.Kind
	}
	return row
}

func orNobody(name string) string {
	if name == "" {
		return "nobody"
	}
	return name
}

// outageText says for how long nobody held a group, and of what that was made up.
func outageText(e api.Event) string {
	if e.Phases == nil {
		return ""
	}
	var parts []string
	add := func(what string, ms float64) { parts = append(parts, what+" "+roundMS(ms)) }
	if e.Phases.DetectedMS+e.Phases.ElectedMS > 0 {
		add("detected", e.Phases.DetectedMS)
		add("elected", e.Phases.ElectedMS)
	}
	if e.Phases.WaitedMS == nil {
		if complete(e) {
			return ""
		}
		return strings.TrimSuffix(fmt.Sprintf("no report of the new owner (%s ms)", strings.Join(parts, ", ")), " ( ms)")
	}
	add("waited", *e.Phases.WaitedMS)
	if e.Phases.BoundMS != nil && e.Phases.AnnouncedMS != nil {
		add("bound", *e.Phases.BoundMS)
		add("announced", *e.Phases.AnnouncedMS)
	}
	text := "(" + strings.Join(parts, ", ") + " ms)"
	if e.OutageMS != nil {
		text = longMS(*e.OutageMS) + " without an owner " + text
	}
	return text
}

// roundMS is a number of milliseconds, with a digit behind the point where it is small.
func roundMS(ms float64) string {
	if ms >= 10 || ms == 0 {
		return strconv.FormatFloat(ms, 'f', 0, 64)
	}
	return strings.TrimSuffix(strconv.FormatFloat(ms, 'f', 1, 64), ".0")
}

// longMS is a time with its unit.
func longMS(ms float64) string {
	if ms >= 10_000 {
		return strconv.FormatFloat(ms/1000, 'f', 1, 64) + " s"
	}
	return roundMS(ms) + " ms"
}
