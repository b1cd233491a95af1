package term

import (
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestWrap(t *testing.T) {
	for name, tc := range map[string]struct {
		width        int
		text, indent string
		want         string
	}{
		"no limit":        {0, "one two three", "  ", "one two three"},
		"fits":            {13, "one two three", "  ", "one two three"},
		"at spaces":       {9, "one two three four", "  ", "one two\n  three\n  four"},
		"indent counts":   {7, "a b c d e f g", "   ", "a b c d\n   e f\n   g"},
		"at commas":       {8, "10.0.0.1,10.0.0.2", "", "10.0.0.1\n,10.0.0.\n2"},
		"after a comma":   {10, "10.0.0.1,10.0.0.2", "", "10.0.0.1,\n10.0.0.2"},
		"after a slash":   {12, "/run/quorate/quorate.sock", "", "/run/\nquorate/\nquorate.sock"},
		"anywhere":        {4, "abcdefghij", "", "abcd\nefgh\nij"},
		"lines stay":      {9, "one\ntwo three four", "  ", "one\n  two\n  three\n  four"},
		"first indented":  {10, "  do: something else", "      ", "  do:\n      some\n      thin\n      g\n      else"},
		"narrower still":  {1, "ab", "  ", "a\n  b"},
		"more than bytes": {5, "→→→ →→→", "", "→→→\n→→→"},
	} {
		if got := (Screen{Width: tc.width}).Wrap(tc.text, tc.indent); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

var rows = [][]Cell{Cells("NAME", "ADDRESSES", "NOTE"), {{Text: "web", Paint: Good}, {Text: "10.0.0.1/24, 10.0.0.2/24"}, {Text: "-"}}, Cells("database", "10.0.0.3/24", "a note on it"), Cells("x", "", "")}

func TestTable(t *testing.T) {
	for width, want := range map[int]string{
		0: `
NAME      ADDRESSES                 NOTE
web       10.0.0.1/24, 10.0.0.2/24  -
database  10.0.0.3/24               a note on it
x
`,
		40: `
NAME      ADDRESSES     NOTE
web       10.0.0.1/24,  -
          10.0.0.2/24
database  10.0.0.3/24   a note on it
x
`,
		28: `
NAME      ADDRESSES     NOTE
web       10.0.0.1/24,  -
          10.0.0.2/24
database  10.0.0.3/24   a
                        note
                        on
                        it
x
`,
		20: `
web
  ADDRESSES  10.0.0.
             1/24,
             10.0.0.
             2/24
database
  ADDRESSES  10.0.0.
             3/24
  NOTE       a note
             on it
x
`,
	} {
		if got := (Screen{Width: width}).Table(rows); got != strings.TrimPrefix(want, "\n") {
			t.Errorf("%d columns:\n%s\nwant%s", width, got, want)
		}
	}
	if got := (Screen{}).Table(nil); got != "" {
		t.Errorf("nothing: %q", got)
	}
}

// TestTableFits: whatever the width, no line is wider, and every character is there.
func TestTableFits(t *testing.T) {
	for width := 14; width < 60; width++ {
		text := Screen{Width: width}.Table(rows)
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("%d columns at %d: %q", n, width, line)
			}
		}
		bare := strings.Join(strings.Fields(text), "")
		for _, r := range rows[1:] {
			if !strings.Contains(bare, r[0].Text) {
				t.Errorf("%q is not there at %d:\n%s", r[0].Text, width, text)
			}
		}
	}
}

func TestPaint(t *testing.T) {
	s := Screen{Colour: true}
	for paint, want := range map[Paint]string{0: "a\nb", Strong: "\x1b[1ma\x1b[0m\n\x1b[1mb\x1b[0m", Bad: "\x1b[31ma\x1b[0m\n\x1b[31mb\x1b[0m"} {
		if got := s.Paint(paint, "a\nb"); got != want {
			t.Errorf("paint %s: %q, want %q", paint, got, want)
		}
		if got := (Screen{}).Paint(paint, "a\nb"); got != "a\nb" {
			t.Errorf("without colours: %q", got)
		}
	}
	if got := (Screen{Colour: true}).Table(rows); !strings.Contains(got, "\x1b[32mweb\x1b[0m       10.") || !strings.Contains(got, "\x1b[1mNAME\x1b[0m      \x1b[1mADDRESSES") {
		t.Errorf("a table with colours: %q", got)
	}
}

func TestWhen(t *testing.T) {
	w := Auto
	for _, text := range []string{"never", "always", "auto"} {
		if err := w.Set(text); err != nil || w.String() != text {
			t.Errorf("%s: %s, %v", text, w, err)
		}
	}
	if err := w.Set("sometimes"); err == nil || w != Auto {
		t.Errorf("sometimes: %s, %v", w, err)
	}
}

// TestOf: a file is no terminal, and has colours only by order.
func TestOf(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	t.Setenv("COLUMNS", "")
	for when, want := range map[When]Screen{Auto: {}, Never: {}, Always: {Colour: true}} {
		if got := Of(file, when); got != want {
			t.Errorf("%s: %+v, want %+v", when, got, want)
		}
	}
	t.Setenv("COLUMNS", "72")
	if got := Of(&strings.Builder{}, Auto); got != (Screen{Width: 72}) {
		t.Errorf("COLUMNS=72: %+v", got)
	}
	t.Setenv("COLUMNS", "-1")
	if got := Of(&strings.Builder{}, Auto); got != (Screen{}) {
		t.Errorf("COLUMNS=-1: %+v", got)
	}
}
