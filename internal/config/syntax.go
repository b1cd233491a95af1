package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A syntaxNote says in other words what the YAML parser found, and what to do. Where the
// parser notices it late, the place is the one where it began.
type syntaxNote struct {
	said, text, do string
	late           bool
}

// syntaxNotes are for what people write by mistake most often. What is not here is shown
// in the parser's words.
var syntaxNotes = []syntaxNote{
	{"found a tab character", "a tab where the line is indented", "indent with spaces", false},
	{"found mixed spaces and tabs", "spaces and tabs mixed where the line is indented", "indent with spaces", false},
	{"found tabs where space", "a tab where the line is indented", "indent with spaces", false},
	{"mapping values are not allowed", "a second `: ` in one value, or a line indented further than its neighbours", "put a value with `: ` in it in quotes, or indent the line as those beside it", false},
	{"could not find expected ':'", "a line without `: ` among keys and values", "write KEY: VALUE, with a space after the colon", true},
	{"did not find expected key", "a line that belongs to no key above it", "indent it as the keys beside it, or close the quote or bracket before it", false},
	{"did not find expected ',' or ']'", "a list in brackets is not closed, or lacks a comma", "write [first, second]", false},
	{"did not find expected ',' or '}'", "keys in braces are not closed, or lack a comma", "write {key: value, other: value}", false},
	{"did not find expected '-' indicator", "a line that is no item of the list above it", "begin each item with `- `, all indented alike", false},
	{"block sequence entries are not allowed", "an item of a list where none can be", "write the first item in a line of its own below the key", false},
	{"found unexpected end of stream", "a quote that is not closed", "close it with the quote that it began with", true},
	{"found unknown escape character", "a backslash in double quotes with a character that means nothing", `write two backslashes for one, or single quotes around the text`, false},
	{"found unexpected document indicator", "a quote that is not closed before the document ends", "close it with the quote that it began with", true},
	{"did not find expected node content", "a value is missing in brackets or braces, or they are not closed", "write [first, second] or {key: value}", false},
	{"exceeded max depth", "brackets or lines nested deeper than in any configuration", "see that it is the configuration", false},
}

// syntax reports what the YAML parser says, at its place.
func (r *report) syntax(err error) {
	var le *yaml.LoadError
	if !errors.As(err, &le) {
		r.add(pos{}, "", "not YAML: "+err.Error(), "", "see that it is the configuration")
		return
	}
	where := pos{le.Mark.Line, le.Mark.Column}
	text, do := le.Message, "correct the indentation (spaces only), quotes or brackets before this place"
	if le.ContextMsg != "" {
		text += " " + le.ContextMsg
	}
	for _, n := range syntaxNotes {
		if strings.Contains(le.Message, n.said) {
			text, do = n.text, n.do
			if n.late && le.ContextMark.Line > 0 {
				where = pos{le.ContextMark.Line, le.ContextMark.Column}
			}
			break
		}
	}
	if c := r.src.at(where); strings.Contains(le.Message, "cannot start any token") && c != 0 {
		text, do = fmt.Sprintf("no value begins with %c", c), "put it in quotes"
		if c == '\t' {
			text, do = "a tab where the line is indented", "indent with spaces"
		}
	}
	if le.ContextMark.Line > 0 && le.ContextMark.Line != where.line {
		do += fmt.Sprintf("; it began in line %d", le.ContextMark.Line)
	}
	if line := r.src.line(where.line); strings.HasPrefix(line, "<<<<<<<") || strings.HasPrefix(line, "=======") || strings.HasPrefix(line, ">>>>>>>") {
		text, do = "two versions of the file that were not merged", "keep one of the two sides, and remove the marks"
	}
	if r.src.foreign() {
		do = importIt
	}
	r.add(where, "", "not YAML: "+text, "", do)
}

// importIt is what to do with a file of keepalived.
const importIt = "it looks like a configuration of keepalived: quorate import FILE makes one of quorate of it"

var keepalived = regexp.MustCompile(`(?m)^\s*(global_defs|vrrp_instance|vrrp_sync_group|virtual_server)\b[^:\n]*\{`)

// foreign reports whether the text is a configuration of keepalived.
func (s *source) foreign() bool { return keepalived.MatchString(strings.Join(s.lines, "\n")) }

// line is that of the file; empty: there is none.
func (s *source) line(n int) string {
	if n < 1 || n > len(s.lines) {
		return ""
	}
	return s.lines[n-1]
}
