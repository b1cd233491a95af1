package keepalived

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A word is one token of a line.
type word struct {
	text       string // without quotes and escapes
	quoted     bool   // stood in double quotes
	start, end int    // its place in the line, quotes included
}

// A statement is a keyword with its values, and its block if it has one. Within the
// blocks that are lists it is an entry.
type statement struct {
	words   []word
	raw     string // as written from the first word to the last, for those that quote in their own way
	block   []*statement
	braces  bool // has a block, perhaps an empty one
	at, end pos  // end: of the closing brace
}

func (s *statement) keyword() string { return s.words[0].text }

// arg is the nth value, from 0; empty if there are not so many.
func (s *statement) arg(n int) string {
	if n+1 < len(s.words) {
		return s.words[n+1].text
	}
	return ""
}

// texts are all words from the nth on.
func (s *statement) texts(n int) []string {
	var out []string
	for _, w := range s.words[min(n, len(s.words)):] {
		out = append(out, w.text)
	}
	return out
}

// secrets are keywords whose values no message shows.
var secrets = []string{"auth_pass", "key"}

// subject is the statement as messages name it.
func (s *statement) subject() string {
	if slices.Contains(secrets, s.keyword()) {
		return s.keyword()
	}
	const maxSubject = 60
	t := strings.Join(s.texts(0), " ")
	if len(t) > maxSubject {
		t = strings.ToValidUTF8(t[:maxSubject], "") + "…"
	}
	return t
}

var errQuote = errors.New("a double quote is not closed")

// lex splits a line into words. Braces outside quotes are words of their own wherever
// they stand, and so is what stands in quotes.
func lex(s string) ([]word, error) {
	var out []word
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == ' ' || c == '\t' || c == '\v' || c == '\f' || c == '\r':
			i++
		case c == '{' || c == '}':
			out = append(out, word{text: string(c), start: i, end: i + 1})
			i++
		case c == '"':
			end := i + 1
			for end < len(s) && s[end] != '"' {
				if s[end] == '\\' {
					end++
				}
				end++
			}
			if end >= len(s) {
				return out, errQuote
			}
			out = append(out, word{text: strings.NewReplacer(`\#`, "#", `\!`, "!").Replace(s[i+1 : end]), quoted: true, start: i, end: end + 1})
			i = end + 1
		default:
			w := word{start: i}
			var b strings.Builder
			for i < len(s) && strings.IndexByte(" \t\v\f\r{}\"", s[i]) < 0 {
				if s[i] == '\\' && i+1 < len(s) && (s[i+1] == '#' || s[i+1] == '!') {
					i++
				}
				b.WriteByte(s[i])
				i++
			}
			w.text, w.end = b.String(), i
			out = append(out, w)
		}
	}
	return out, nil
}

// maxDepth bounds blocks in blocks; keepalived's own grammar has five.
const maxDepth = 16

// parse makes statements of lines. A line is one statement but for its braces; a
// block may begin on the line after its keyword.
func parse(lines []line, probs *problems) []*statement {
	root := &statement{}
	open := []*statement{root}
	damaged := false // a line could not be read, so braces need not match
	for _, l := range lines {
		words, err := lex(l.text)
		if err != nil {
			probs.add(l.at, err.Error(), `close it on the same line, and write \" for a quote within`)
			damaged = true
			continue
		}
		var cur *statement
		for _, w := range words {
			top := open[len(open)-1]
			switch {
			case w.text == "{" && !w.quoted:
				if cur == nil && len(top.block) > 0 && !top.block[len(top.block)-1].braces {
					cur = top.block[len(top.block)-1]
				}
				if cur == nil {
					probs.add(l.at, "{ without a keyword before it", "remove it, or write the keyword")
					return root.block
				}
				if len(open) > maxDepth {
					probs.add(l.at, fmt.Sprintf("blocks more than %d deep", maxDepth), "see that it is a keepalived.conf, and that every { has its }")
					return root.block
				}
				cur.braces = true
				open = append(open, cur)
				cur = nil
			case w.text == "}" && !w.quoted:
				if len(open) == 1 && damaged {
					return root.block
				}
				if len(open) == 1 {
					probs.add(l.at, "} closes nothing", "remove it, or find the { that is missing above")
					return root.block
				}
				top.end = l.at
				open = open[:len(open)-1]
				cur = nil
			case cur == nil:
				cur = &statement{at: l.at}
				top.block = append(top.block, cur)
				fallthrough
			default:
				cur.words = append(cur.words, w)
				cur.raw = l.text[cur.words[0].start:w.end]
			}
		}
	}
	if n := len(open); n > 1 && !damaged {
		probs.add(open[n-1].at, fmt.Sprintf("the { of %s is never closed", open[n-1].subject()), "write the } that is missing")
	}
	return root.block
}

// command splits the value of a script keyword, which quotes in its own way: with '
// and ", and with backslashes as in C. Not whole: a quote is not closed.
func command(s string) (out []string, whole bool) {
	var b strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s) && quote != '\'':
			v, used := escape(s[i+1:])
			b.WriteByte(v)
			i += used
			in = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, in = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if in {
				out = append(out, b.String())
				b.Reset()
			}
			in = false
		default:
			b.WriteByte(c)
			in = true
		}
	}
	if in {
		out = append(out, b.String())
	}
	return out, quote == 0
}

// escape reads what follows a backslash, and how many bytes that is.
func escape(s string) (byte, int) {
	const letters, values = "abEfnrtv", "\a\b\x1b\f\n\r\t\v"
	if i := strings.IndexByte(letters, s[0]); i >= 0 {
		return values[i], 1
	}
	digits := func(s string, base, most int) (v, n int) {
		for n < len(s) && n < most {
			d := strings.IndexByte("0123456789abcdef", s[n]|0x20)
			if d < 0 || d >= base {
				break
			}
			v, n = v*base+d, n+1
		}
		return v, n
	}
	if v, n := digits(s, 8, 3); n > 0 {
		return byte(v), n
	}
	if s[0] == 'x' {
		if v, n := digits(s[1:], 16, 2); n > 0 {
			return byte(v), n + 1
		}
	}
	if s[0] == 'c' && len(s) > 1 {
		return s[1] & 0x1f, 2
	}
	return s[0], 1
}

// argv is the command of a script keyword, and the words after it. A command that is
// one quoted text is split once more. Nothing: there is none, or a quote is not closed.
func (s *statement) argv() (cmd, after []string) {
	all, whole := command(s.raw)
	if len(all) < 2 || !whole {
		return nil, nil
	}
	if cmd, whole = command(requote(all[1])); !whole {
		return nil, nil
	}
	return cmd, all[2:]
}

// requote keeps the escapes of a text that was read once from being read again.
func requote(s string) string { return strings.ReplaceAll(s, `\`, `\\`) }
