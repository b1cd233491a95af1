package term

import (
	"slices"
	"strings"
)

// A Cell is one field of a table: plain text and its look.
type Cell struct {
	Text  string
	Paint Paint
}

// Cells are plain ones.
func Cells(text ...string) []Cell {
	out := make([]Cell, len(text))
	for i, t := range text {
		out[i].Text = t
	}
	return out
}

// between is the space between columns.
const between = "  "

// Table lays out rows in columns; the first row has the names of the columns. Where the
// screen is too narrow, long fields go on in further lines, and where that does not
// help each row becomes a record of its own: first field, then name and field by line.
func (s Screen) Table(rows [][]Cell) string {
	if len(rows) == 0 {
		return ""
	}
	columns := 0
	for _, r := range rows {
		columns = max(columns, len(r))
	}
	wide, least := make([]int, columns), make([]int, columns)
	for _, r := range rows {
		for i, c := range r {
			wide[i] = max(wide[i], width(c.Text))
			least[i] = max(least[i], longest(c.Text))
		}
	}
	if s.Width > 0 && !shrink(wide, least, s.Width-len(between)*(columns-1)) {
		return s.records(rows)
	}
	tighten(wide, rows)
	var b strings.Builder
	for i, r := range rows {
		if i == 0 {
			r = heading(r)
		}
		s.row(&b, r, wide)
	}
	return b.String()
}

// tighten takes from the columns what their lines leave empty.
func tighten(wide []int, rows [][]Cell) {
	for i, w := range wide {
		wide[i] = 0
		for _, r := range rows {
			if i >= len(r) {
				continue
			}
			for _, l := range fold(r[i].Text, w, w) {
				wide[i] = max(wide[i], width(l))
			}
		}
	}
}

func heading(r []Cell) []Cell {
	out := slices.Clone(r)
	for i := range out {
		out[i].Paint = Strong
	}
	return out
}

// longest is the width of the longest piece that is not broken.
func longest(text string) int {
	n := 0
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ' ' }) {
		for piece := range strings.SplitAfterSeq(word, ",") {
			n = max(n, width(piece))
		}
	}
	return n
}

// shrink takes from the widest columns until all fit into the room, and reports whether
// they do.
func shrink(wide, least []int, room int) bool {
	sum := 0
	for _, w := range wide {
		sum += w
	}
	for ; sum > room; sum-- {
		widest := -1
		for i, w := range wide {
			if w > least[i] && (widest < 0 || w > wide[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return false
		}
		wide[widest]--
	}
	return true
}

func (s Screen) row(b *strings.Builder, r []Cell, wide []int) {
	parts := make([][]string, len(r))
	height := 1
	for i, c := range r {
		parts[i] = fold(c.Text, wide[i], wide[i])
		height = max(height, len(parts[i]))
	}
	for line := range height {
		pending := "" // spaces that are written only before something
		for i, c := range r {
			text := ""
			if line < len(parts[i]) {
				text = parts[i][line]
			}
			if text != "" {
				b.WriteString(pending + s.Paint(c.Paint, text))
				pending = ""
			}
			pending += strings.Repeat(" ", wide[i]-width(text)) + between
		}
		b.WriteByte('\n')
	}
}

func (s Screen) records(rows [][]Cell) string {
	names, label := rows[0], 0
	for _, n := range names[1:] {
		label = max(label, width(n.Text))
	}
	var b strings.Builder
	for _, r := range rows[1:] {
		b.WriteString(s.Paint(Strong, strings.Join(fold(r[0].Text, s.Width, s.Width), "\n")) + "\n")
		for i, c := range r[1:] {
			if c.Text == "" || c.Text == "-" {
				continue
			}
			lead := between + names[i+1].Text + strings.Repeat(" ", label-width(names[i+1].Text)) + between
			if label == 0 {
				lead = between
			}
			room := max(s.Width-width(lead), 1)
			for j, l := range fold(c.Text, room, room) {
				if j > 0 {
					lead = strings.Repeat(" ", width(lead))
				}
				b.WriteString(lead + s.Paint(c.Paint, l) + "\n")
			}
		}
	}
	return b.String()
}
