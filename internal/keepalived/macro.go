package keepalived

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A definition is what $NAME stands for.
type definition struct {
	at    pos
	lines []string // one, or with multi those of the block
	multi bool
}

// maxNested bounds names within names.
const maxNested = 32

func isNameByte(c byte, first bool) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || !first && c >= '0' && c <= '9'
}

// nameAt is the length of the name at the beginning of s.
func nameAt(s string) int {
	n := 0
	for n < len(s) && isNameByte(s[n], n == 0) {
		n++
	}
	return n
}

// definitionOf reads $NAME=value, where nothing but space may be before the $ and
// nothing between name and =.
func definitionOf(text string) (name, value string, ok bool) {
	rest, ok := strings.CutPrefix(strings.TrimLeft(text, " \t"), "$")
	n := nameAt(rest)
	if !ok || n == 0 || n >= len(rest) || rest[n] != '=' {
		return "", "", false
	}
	return rest[:n], rest[n+1:], true
}

func (r *reader) define(name string, d definition) {
	if r.defs == nil {
		r.defs = map[string]definition{}
	}
	r.defs[name] = d
}

// line takes one line through conditions, includes, repetitions and names. vars are
// those of the repetitions around it.
func (r *reader) line(text string, at pos, vars map[string]string, depth int) {
	if depth > maxNested {
		r.tooDeep(at)
		return
	}
	if r.steps++; r.steps > maxSteps && !r.full {
		r.tooMany(at)
	}
	text, keep := r.condition(text)
	text = strings.TrimSpace(text)
	if !keep || text == "" || r.full {
		return
	}
	if word, rest, _ := strings.Cut(strings.ReplaceAll(text, "\t", " "), " "); slices.Contains(includes, word) {
		name, _ := r.replace(strings.TrimSpace(rest), at, vars, depth)
		r.include(name, at)
		return
	}
	if rest, ok := strings.CutPrefix(text, "~"); ok && (strings.HasPrefix(rest, "SEQ") || strings.HasPrefix(rest, "LST")) {
		r.repeat(text, at, vars, depth)
		return
	}
	if d, ok := r.block(text, vars); ok {
		for _, l := range d.lines {
			r.line(l, at, vars, depth+1)
		}
		return
	}
	replaced, changed := r.replace(text, at, vars, depth)
	if changed && (strings.HasPrefix(replaced, "~") || strings.HasPrefix(replaced, "@")) {
		r.line(replaced, at, vars, depth+1)
		return
	}
	r.emit(replaced, at)
}

func (r *reader) tooMany(at pos) {
	r.full = true
	r.probs.add(at, fmt.Sprintf("more than %d lines come of the files", maxLines), "import a part of the instances at a time")
}

// tooDeep ends the reading, since each level may double what comes of the next.
func (r *reader) tooDeep(at pos) {
	if !r.full {
		r.full = true
		r.probs.add(at, fmt.Sprintf("names within names more than %d deep", maxNested), "see that no $NAME contains itself")
	}
}

func (r *reader) emit(text string, at pos) {
	if len(r.out) == maxLines {
		r.tooMany(at)
		return
	}
	r.out = append(r.out, line{text, at})
}

// block is the definition of several lines that a line consists of.
func (r *reader) block(text string, vars map[string]string) (definition, bool) {
	name, ok := strings.CutPrefix(text, "$")
	if inner, braced := strings.CutPrefix(name, "{"); braced {
		name, braced = strings.CutSuffix(inner, "}")
		ok = ok && braced
	}
	_, shadowed := vars[name]
	d, known := r.defs[name]
	return d, ok && known && d.multi && !shadowed
}

// replace puts values in the place of names. A name stands alone before a space, a
// comma, a closing parenthesis or the end, and in ${} anywhere.
func (r *reader) replace(text string, at pos, vars map[string]string, depth int) (string, bool) {
	if !strings.Contains(text, "$") || r.full {
		return text, false
	}
	var b strings.Builder
	changed, quoted := false, false
	for i := 0; i < len(text); i++ {
		if text[i] == '"' {
			quoted = !quoted
		}
		if text[i] != '$' {
			b.WriteByte(text[i])
			continue
		}
		name, length := nameIn(text[i:])
		if length == 0 {
			b.WriteByte('$')
			continue
		}
		value, known := r.value(name, at, vars, depth)
		if !known {
			if !quoted {
				r.report.add(at, Trap, text[i:i+length], "not defined before this line, so it stays as it is written")
			}
			value = text[i : i+length]
		}
		changed = changed || known
		b.WriteString(value)
		if b.Len() > maxText && !r.full {
			r.full = true
			r.probs.add(at, fmt.Sprintf("names make more than %d bytes of this line", maxText), "see that the definitions do not multiply each other")
		}
		i += length - 1
	}
	return b.String(), changed
}

// nameIn reads $NAME or ${NAME} at the beginning of s, with its length.
func nameIn(s string) (name string, length int) {
	if strings.HasPrefix(s, "${") {
		if end := strings.IndexByte(s, '}'); end > 2 && nameAt(s[2:]) > 0 {
			return s[2:end], end + 1
		}
		return "", 0
	}
	n := nameAt(s[1:])
	if n == 0 || n+1 < len(s) && strings.IndexByte(" \t,)", s[n+1]) < 0 {
		return "", 0
	}
	return s[1 : n+1], n + 1
}

// value is what a name stands for, with the names in it replaced.
func (r *reader) value(name string, at pos, vars map[string]string, depth int) (string, bool) {
	if v, ok := vars[name]; ok {
		return v, true
	}
	if d, ok := r.defs[name]; ok {
		if depth >= maxNested {
			r.tooDeep(d.at)
			return "", true
		}
		v, _ := r.replace(strings.Join(d.lines, " "), at, vars, depth+1)
		return v, true
	}
	word, _, _ := strings.Cut(name, " ")
	switch word {
	case "_HASH":
		return `\#`, true
	case "_BANG":
		return `\!`, true
	case "_PWD":
		return path.Dir(r.shown[len(r.shown)-1]), true
	case "_RANDOM", "_ENV", "_INSTANCE":
		r.probs.add(at, fmt.Sprintf("${%s} has its value when keepalived starts, and none here", name), "write the value in the place of the name")
		return "", true
	}
	return "", false
}

// repeat expands a line that begins with ~SEQ(…) or ~LST(…).
func (r *reader) repeat(text string, at pos, vars map[string]string, depth int) {
	open := strings.IndexByte(text, '(')
	end := closing(text, open)
	if open < 0 || end < 0 {
		r.probs.add(at, "~SEQ or ~LST without its parentheses", "write ~SEQ(VARIABLE, 1, 10) or ~LST(VARIABLE, first, second)")
		return
	}
	inner, _ := r.replace(text[open+1:end], at, vars, depth)
	rest := text[end+1:]
	var rounds []map[string]string
	var err error
	switch kind := text[1:open]; kind {
	case "SEQ", "SEQx":
		rounds, err = sequence(inner, kind == "SEQx")
	case "LST":
		rounds, err = listed(inner)
	default:
		err = fmt.Errorf("~%s is neither ~SEQ, ~SEQx nor ~LST", kind)
	}
	if err != nil {
		r.probs.add(at, err.Error(), "write ~SEQ(VARIABLE, 1, 10) or ~LST(VARIABLE, first, second)")
		return
	}
	for _, round := range rounds {
		all := map[string]string{}
		for k, v := range vars {
			all[k] = v
		}
		for k, v := range round {
			all[k] = v
		}
		r.line(rest, at, all, depth+1)
		if r.full {
			return
		}
	}
}

// closing is the place of the parenthesis that closes the one at open.
func closing(s string, open int) int {
	depth := 0
	for i := max(open, 0); i < len(s); i++ {
		switch s[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// sequence reads "var[, start[, step]], end".
func sequence(inner string, hex bool) ([]map[string]string, error) {
	parts := split(inner)
	if len(parts) < 2 || len(parts) > 4 || nameAt(parts[0]) != len(parts[0]) || parts[0] == "" {
		return nil, fmt.Errorf("~SEQ(%s): want a variable and 1 to 3 numbers", inner)
	}
	var n []int
	for _, p := range parts[1:] {
		v, err := strconv.ParseInt(p, 0, 32) // as in C: 0x and a leading 0 count
		if err != nil {
			return nil, fmt.Errorf("~SEQ(%s): %s is no number", inner, p)
		}
		n = append(n, int(v))
	}
	end := n[len(n)-1]
	start, step := 1, 1
	if end < 0 {
		start = -1
	}
	if len(n) > 1 {
		start = n[0]
	}
	if start > end {
		step = -1
	}
	if len(n) == 3 {
		step = n[1]
	}
	if step == 0 || (end-start)*step < 0 {
		return nil, fmt.Errorf("~SEQ(%s): never gets from %d to %d by %d", inner, start, end, step)
	}
	if (end-start)/step >= maxLines {
		return nil, fmt.Errorf("~SEQ(%s): more than %d rounds", inner, maxLines)
	}
	var out []map[string]string
	for v := start; step > 0 && v <= end || step < 0 && v >= end; v += step {
		s := strconv.Itoa(v)
		if hex {
			s = strconv.FormatInt(int64(v), 16)
		}
		out = append(out, map[string]string{parts[0]: s})
	}
	return out, nil
}

// listed reads "var, a, b" or "{x, y}, {1, 2}, {3, 4}".
func listed(inner string) ([]map[string]string, error) {
	parts := split(inner)
	if len(parts) < 2 {
		return nil, fmt.Errorf("~LST(%s): want a variable and at least one value", inner)
	}
	names := members(parts[0])
	for _, n := range names {
		if n == "" || nameAt(n) != len(n) {
			return nil, fmt.Errorf("~LST(%s): %q is no name of a variable", inner, n)
		}
	}
	var out []map[string]string
	for _, p := range parts[1:] {
		values := members(p)
		if len(values) != len(names) {
			return nil, fmt.Errorf("~LST(%s): %s has not a value for each of %d variables", inner, p, len(names))
		}
		round := map[string]string{}
		for i, n := range names {
			round[n] = values[i]
		}
		out = append(out, round)
	}
	return out, nil
}

func members(s string) []string {
	if strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") && len(s) >= 2 {
		return split(s[1 : len(s)-1])
	}
	return []string{s}
}

// split splits at commas outside braces.
func split(s string) []string {
	var out []string
	depth, from := 0, 0
	for i := 0; i <= len(s); i++ {
		switch {
		case i == len(s) || s[i] == ',' && depth == 0:
			out = append(out, strings.TrimSpace(s[from:i]))
			from = i + 1
		case s[i] == '{':
			depth++
		case s[i] == '}':
			depth--
		}
	}
	return out
}
