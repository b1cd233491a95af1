package config

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// A source is the text of a file, to show lines of.
type source struct {
	lines   []string
	secrets map[int][]int // by line, the columns where values begin that no message shows
	parsed  bool          // secrets has all of them
}

// breaks ends a line as the YAML parser sees it.
var breaks = regexp.MustCompile("\r\n|[\n\r\u0085\u2028\u2029]")

func newSource(text string) *source {
	return &source{lines: breaks.Split(text, -1), secrets: map[int][]int{}}
}

// at is the character at a place; zero: there is none.
func (s *source) at(p pos) rune {
	if line := []rune(s.line(p.line)); p.column >= 1 && p.column <= len(line) {
		return line[p.column-1]
	}
	return 0
}

// Columns of a line that are shown: usually, and on the narrowest screen.
const (
	maxExcerpt = 96
	minExcerpt = 24
)

// Excerpt is the line of the file that the error is about, and a line below it that
// marks the place. Both are as wide on a terminal as they have to be to stand below each
// other; what cannot be printed is replaced, lines of more than room columns are cut
// around the place (zero: of more than is usual), and the value of a password is masked.
// Both are empty where the error has no place.
func (e *Error) Excerpt(room int) (line, mark string) {
	if room <= 0 || room > maxExcerpt {
		room = maxExcerpt
	}
	room = max(room, minExcerpt)
	leftOfIt := room * 5 / 8
	if e.src == nil || e.Line < 1 || e.Line > len(e.src.lines) {
		return "", ""
	}
	all := e.src.masked(e.Line)
	if !slices.ContainsFunc(all, func(r rune) bool { return !unicode.IsSpace(r) }) {
		return "", "" // the end of the file, where something is missing
	}
	at := min(max(e.Column-1, 0), len(all))
	end := at + e.length(all[at:])
	from := at
	for left := 0; from > 0 && left+columns(all[from-1]) <= leftOfIt; from-- {
		left += columns(all[from-1])
	}
	if len(all) <= 2*room && total(all) <= room {
		from = 0
	}
	until := from
	for wide := 0; until < len(all) && wide+columns(all[until]) <= room; until++ {
		wide += columns(all[until])
	}
	var text, below strings.Builder
	if from > 0 {
		text.WriteRune('…')
		below.WriteByte(' ')
	}
	for i, r := range all[from:until] {
		text.WriteString(shown(r))
		switch i += from; {
		case i < at:
			below.WriteString(strings.Repeat(" ", columns(r)))
		case i < end:
			below.WriteString(strings.Repeat("^", columns(r)))
		}
	}
	if until < len(all) {
		text.WriteRune('…')
	}
	if !strings.HasSuffix(below.String(), "^") {
		below.WriteByte('^')
	}
	return strings.TrimRight(text.String(), " "), below.String()
}

// length is how much of the line the error is about, in runes: the value, or the word
// or the quoted text that begins there.
func (e *Error) length(rest []rune) int {
	if value := []rune(e.Value); len(value) > 0 && len(value) <= len(rest) && slices.Equal(value, rest[:len(value)]) {
		return len(value)
	}
	if e.Path == "" || e.Text == required || len(rest) == 0 {
		return 1
	}
	if rest[0] == '"' || rest[0] == '\'' {
		return quoted(rest)
	}
	for i, r := range rest {
		last := i+1 == len(rest)
		if strings.ContainsRune(" \t,[]{}", r) || r == ':' && (last || rest[i+1] == ' ') {
			return max(i, 1)
		}
	}
	return len(rest)
}

// quoted is how long a text is that begins with a quote.
func quoted(text []rune) int {
	for i := 1; i < len(text); i++ {
		if text[i] == '\\' && text[0] == '"' {
			i++
		} else if text[i] == text[0] {
			return i + 1
		}
	}
	return len(text)
}

// shown is a rune as it may be printed: a tab as an arrow, since it looks like spaces
// and is none, and what a terminal would act on as a replacement.
func shown(r rune) string {
	switch {
	case r == '\t':
		return "→"
	case !unicode.IsPrint(r) && !unicode.Is(unicode.Mn, r):
		return "\ufffd"
	}
	return string(r)
}

// columns is how wide a rune is shown.
func columns(r rune) int {
	if unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Me, r) {
		return 0
	}
	if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
		return 2
	}
	return 1
}

func total(text []rune) int {
	n := 0
	for _, r := range text {
		n += columns(r)
	}
	return n
}

// secretKey is a key that looks as if its value were a password, misspelt or not.
var secretKey = regexp.MustCompile(`(?i)(pas{1,3}w|pswd|pwd|passphrase|auth_pass|secret)[a-z_-]*["']?\s*:|auth_pass\s`)

// masked is a line without the passwords in it. Where the file could not be parsed,
// nobody knows where a value ends, so that all after such a key is masked, and so is a
// line that may go on with it.
func (s *source) masked(line int) []rune {
	text := []rune(s.lines[line-1])
	if !s.parsed {
		s.maskUnparsed(text, line)
		return text
	}
	brace := slices.Index(text, '{')
	for _, column := range s.secrets[line] {
		i := column - 1
		if i >= len(text) {
			continue
		}
		end := len(text)
		switch flow := brace >= 0 && brace < i; {
		case text[i] == '"' || text[i] == '\'':
			end = i + quoted(text[i:])
		case flow: // a plain one may have spaces in it
			if j := slices.IndexFunc(text[i:], func(r rune) bool { return r == ',' || r == '}' }); j >= 0 {
				end = i + j
			}
		}
		stars(text[i:end])
	}
	return text
}

func (s *source) maskUnparsed(text []rune, line int) {
	plain := string(text)
	for before := line - 1; before > 0 && before > line-20; before-- {
		if above := s.lines[before-1]; secretKey.MatchString(above) && !strings.Contains(plain, ": ") {
			stars(text)
		} else if strings.Contains(above, ":") {
			break
		}
	}
	if m := secretKey.FindStringIndex(plain); m != nil {
		stars(text[utf8.RuneCountInString(plain[:m[1]]):])
	}
}

// stars replaces what is no space.
func stars(text []rune) {
	for i, r := range text {
		if !unicode.IsSpace(r) {
			text[i] = '*'
		}
	}
}
