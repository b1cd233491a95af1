package program

import (
	"strings"
	"unicode"
)

// A tail keeps the last MaxOutput bytes of what is written to it. The zero value is
// ready to use, from one goroutine.
type tail struct {
	b []byte
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if n > MaxOutput {
		p = p[n-MaxOutput:]
	}
	t.b = append(t.b, p...)
	if over := len(t.b) - MaxOutput; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return n, nil
}

func (t *tail) String() string { return string(t.b) }

// OneLine makes a text fit for a log line or a status: one line without control
// characters, of at most maxRunes runes, of which the last ones are kept.
func OneLine(text string, maxRunes int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.IsSpace(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > maxRunes {
		return "…" + string(r[len(r)-maxRunes+1:])
	}
	return text
}
