// Package term lays out text for people: tables, colours, and lines no wider than
// the terminal.
package term

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	xterm "golang.org/x/term"
)

// A When says when output has colours. It is a flag's value.
type When uint8

const (
	_      When = iota
	Auto        // on a terminal, unless NO_COLOR is set or TERM is dumb
	Always      // whatever the output is
	Never
)

// String is the word of --color.
func (w When) String() string {
	switch w {
	case Auto:
		return "auto"
	case Always:
		return "always"
	case Never:
		return "never"
	}
	return fmt.Sprintf("when(%d)", uint8(w))
}

// Set reads the word of --color.
func (w *When) Set(text string) error {
	for _, v := range []When{Auto, Always, Never} {
		if text == v.String() {
			*w = v
			return nil
		}
	}
	return fmt.Errorf("must be auto, always or never, got %q", text)
}

// Type names the flag's values in help texts.
func (w *When) Type() string { return "auto|always|never" }

// A Screen is where text goes. The zero value has no limit and no colours, as files
// and pipes have.
type Screen struct {
	Width  int // in columns; zero: lines may be of any length
	Colour bool
}

// Is reports whether an output is a terminal.
func Is(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && xterm.IsTerminal(int(f.Fd()))
}

// Of describes an output. COLUMNS, where it is set, is its width; else a terminal says
// its own.
func Of(w io.Writer, when When) Screen {
	terminal := Is(w)
	var s Screen
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		s.Width = n
	} else if terminal {
		s.Width, _, _ = xterm.GetSize(int(w.(*os.File).Fd())) // of a terminal it does not fail; without it there is no limit
	}
	// https://no-color.org: set, and not empty.
	plain := os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb"
	s.Colour = when == Always || when != Never && terminal && !plain
	return s
}

// A Paint is what a piece of text says by its look. Zero: nothing.
type Paint uint8

const (
	_      Paint = iota
	Strong       // headings
	Good         // well
	Warn         // to be looked at
	Bad          // broken
	Dim          // of less interest
)

// String is the SGR parameter (ECMA-48): one of the terminal's own colours, so that it
// fits the background.
func (p Paint) String() string { return [...]string{"0", "1", "32", "33", "31", "2"}[p] }

// Paint gives the text a look, line by line.
func (s Screen) Paint(p Paint, text string) string {
	if !s.Colour || p == 0 || text == "" {
		return text
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if l != "" {
			lines[i] = "\x1b[" + p.String() + "m" + l + "\x1b[0m"
		}
	}
	return strings.Join(lines, "\n")
}

// width is the number of columns of plain text: names and addresses have no wide
// characters.
func width(text string) int { return utf8.RuneCountInString(text) }

// Wrap breaks plain text at spaces into lines that fit the screen, and begins all but
// the first with the indent.
func (s Screen) Wrap(text, indent string) string {
	if s.Width == 0 {
		return text
	}
	var out []string
	for i, line := range strings.Split(text, "\n") {
		room := s.Width
		if i > 0 {
			room -= width(indent)
		}
		for j, l := range fold(line, room, s.Width-width(indent)) {
			if i+j > 0 {
				l = indent + l
			}
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

// fold breaks a line into lines of at most first, and then rest columns: at spaces, in
// what is too long after a comma or slash, and only then anywhere. Spaces at the
// beginning of the line stay.
func fold(line string, first, rest int) []string {
	first, rest = max(first, 1), max(rest, 1)
	var out []string
	room := first
	for width(line) > room {
		cut := cutAt(line, room)
		out = append(out, strings.TrimRight(line[:cut], " "))
		line, room = strings.TrimLeft(line[cut:], " "), rest
	}
	return append(out, line)
}

// cutAt is the index in bytes before which the line is broken, so that what comes
// before has at most room columns.
func cutAt(line string, room int) int {
	indented := len(line) - len(strings.TrimLeft(line, " "))
	end, space, mark := 0, 0, 0
	for i, r := range line {
		if r == ' ' && i > indented {
			space = i
		}
		if room == 0 {
			end = i
			break
		}
		if r == ',' || r == '/' {
			mark = i + 1
		}
		room--
	}
	switch {
	case space > 0:
		return space
	case mark > indented+1 && mark <= end:
		return mark
	}
	return end
}
