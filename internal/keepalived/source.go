package keepalived

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of what is read. keepalived ignores a line of maxLine bytes or more, or
// takes it for several, by its version.
const (
	maxFile    = 4 << 20 // bytes of one file
	maxLine    = 1024    // bytes of one line
	maxLines   = 200_000 // that come of all files of a node, after ~SEQ and $NAME
	maxSteps   = 4 * maxLines
	maxInclude = 32      // files in each other
	maxText    = 1 << 16 // bytes of one line, after $NAME
)

// A line is one line as the parser sees it: without comment, conditions decided,
// names replaced.
type line struct {
	text string
	at   pos
}

// A reader does what comes before the grammar.
type reader struct {
	fsys    fs.FS
	id      string // config-id
	lenient bool
	probs   *problems
	report  *Report

	defs   map[string]definition
	out    []line
	within []string // paths of the files being read, outermost first
	shown  []string // and their names in messages
	steps  int      // lines looked at, before and after names are replaced
	full   bool     // a bound was reached: nothing more is read
}

// file reads one file and all that it includes.
func (r *reader) file(name, shown string) {
	at := pos{file: shown}
	if slices.Contains(r.within, name) {
		r.probs.add(at, "includes itself: "+strings.Join(append(r.shown, shown), " → "), "remove one of the include lines")
		return
	}
	if len(r.within) == maxInclude {
		r.probs.add(at, fmt.Sprintf("included through more than %d files", maxInclude), "put the files together")
		return
	}
	b, err := r.load(name)
	if err != nil {
		r.probs.add(at, err.Error(), "see that it is the keepalived.conf")
		return
	}
	r.within, r.shown = append(r.within, name), append(r.shown, shown)
	defer func() {
		r.within, r.shown = r.within[:len(r.within)-1], r.shown[:len(r.shown)-1]
	}()
	lines := strings.Split(string(b), "\n")
	for i := 0; i < len(lines) && !r.full; i++ {
		at.line = i + 1
		text, ok := r.clean(lines[i], at)
		if !ok {
			continue
		}
		name, first, isDef := definitionOf(r.bare(text))
		if !isDef {
			r.line(text, at, nil, 0)
			continue
		}
		def := definition{at: at, lines: []string{first}}
		for more, last := strings.CutSuffix(strings.TrimRight(first, " \t"), `\`); last; {
			def.multi = true
			def.lines[len(def.lines)-1] = more
			if i++; i == len(lines) {
				break
			}
			next, _ := r.clean(lines[i], pos{shown, i + 1})
			def.lines = append(def.lines, next)
			more, last = strings.CutSuffix(strings.TrimRight(next, " \t"), `\`)
		}
		if !def.multi {
			def.lines[0] = strings.TrimSpace(first)
		}
		if _, keep := r.condition(text); keep {
			r.define(name, def)
		}
	}
}

func (r *reader) load(name string) ([]byte, error) {
	f, err := r.fsys.Open(name)
	if err != nil {
		if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(&limited{f, maxFile + 1}); err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	switch {
	case b.Len() > maxFile:
		return nil, fmt.Errorf("is longer than %d bytes", maxFile)
	case bytes.IndexByte(b.Bytes(), 0) >= 0:
		n := 1 + bytes.Count(b.Bytes()[:bytes.IndexByte(b.Bytes(), 0)], []byte("\n"))
		return nil, fmt.Errorf("is not text: line %d has a zero byte", n)
	}
	return bytes.TrimPrefix(b.Bytes(), []byte("\xef\xbb\xbf")), nil
}

// limited reads at most n bytes.
type limited struct {
	f fs.File
	n int
}

func (l *limited) Read(b []byte) (int, error) {
	if l.n <= 0 {
		return 0, errLimit
	}
	n, err := l.f.Read(b[:min(len(b), l.n)])
	l.n -= n
	return n, err
}

var errLimit = fmt.Errorf("longer than %d bytes", maxFile)

// clean takes the line's end and comment away. Not ok: the line does not count.
func (r *reader) clean(text string, at pos) (string, bool) {
	text = strings.TrimRight(text, "\r")
	cut := commentAt(text)
	if cut >= maxLine {
		text := fmt.Sprintf("a line of %d bytes: keepalived reads less than %d, and what it makes of the rest depends on its version", len(text), maxLine)
		if r.lenient {
			r.report.add(at, Lost, "", text)
		} else {
			r.probs.add(at, text, "make several lines of it, or leave it out with --lenient")
		}
		return "", false
	}
	if cut > 0 && cut < len(text) && strings.IndexByte(" \t{}\"", text[cut-1]) < 0 {
		first, _, _ := strings.Cut(strings.TrimSpace(text), " ")
		if first == "auth_pass" || first == "script" || strings.HasPrefix(first, "notify") {
			r.report.add(at, Trap, first, fmt.Sprintf("%c begins a comment also within a word, so keepalived has only what is before it; write it in double quotes", text[cut]))
		}
	}
	text = text[:cut]
	if !utf8.ValidString(text) {
		r.probs.add(at, "is not UTF-8 text", "save the file as UTF-8, or remove the line")
		return "", false
	}
	return text, true
}

// commentAt is where the comment of a line begins: the first # or ! that is neither
// escaped nor within double quotes.
func commentAt(s string) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			quoted = !quoted
		case '#', '!':
			if !quoted {
				return i
			}
		}
	}
	return len(s)
}

// condition takes @id away from the beginning of a line, and says whether the line
// is for this config-id.
func (r *reader) condition(text string) (rest string, keep bool) {
	trimmed := strings.TrimLeft(text, " \t")
	if !strings.HasPrefix(trimmed, "@") {
		return text, true
	}
	id, rest := trimmed[1:], ""
	if i := strings.IndexAny(id, " \t"); i >= 0 {
		id, rest = id[:i], id[i:]
	}
	if not, ok := strings.CutPrefix(id, "^"); ok {
		return rest, not != r.id
	}
	return rest, id == r.id
}

// bare is the line without its condition, whether it holds or not.
func (r *reader) bare(text string) string {
	rest, _ := r.condition(text)
	return rest
}

// includes are the forms of the include keyword. What they demand beyond include is
// demanded here of all.
var includes = []string{"include", "includer", "includem", "includew", "includeb", "includea"}

// include reads what the pattern stands for, relative to the file that has the line.
func (r *reader) include(pattern string, at pos) {
	pattern = strings.Trim(pattern, `"`)
	if pattern == "" {
		r.probs.add(at, "include without a file", "name the file")
		return
	}
	dir, shownDir := path.Dir(r.within[len(r.within)-1]), path.Dir(r.shown[len(r.shown)-1])
	found := false
	for _, p := range braces(pattern) {
		name, prefix := path.Join(dir, p), shownDir
		if path.IsAbs(p) {
			name, prefix = path.Clean(p)[1:], "/"
		}
		all, err := fs.Glob(r.fsys, name)
		if err != nil {
			r.probs.add(at, fmt.Sprintf("include %s: %v", pattern, err), "correct the pattern")
			return
		}
		for _, m := range all {
			if info, err := fs.Stat(r.fsys, m); err == nil && info.IsDir() {
				continue
			}
			found = true
			shown := path.Join(prefix, strings.TrimPrefix(strings.TrimPrefix(m, dir), "/"))
			if prefix == "/" || !strings.HasPrefix(m, dir+"/") && dir != "." {
				shown = "/" + m
			}
			r.file(m, shown)
		}
	}
	switch {
	case found:
	case strings.ContainsAny(pattern, "*?[{"):
		r.report.add(at, Trap, "include "+pattern, "there is no such file; keepalived goes on without, and so does this")
	case r.lenient:
		r.report.add(at, Lost, "include "+pattern, "there is no such file")
	default:
		r.probs.add(at, fmt.Sprintf("include %s: there is no such file", pattern), "copy it beside this one, or leave it out with --lenient")
	}
}

// braces expands the first {a,b} of a pattern, and those in what comes of it.
func braces(pattern string) []string {
	open := strings.IndexByte(pattern, '{')
	if open < 0 {
		return []string{pattern}
	}
	end := strings.IndexByte(pattern[open:], '}')
	if end < 0 {
		return []string{pattern}
	}
	var out []string
	for _, alt := range strings.Split(pattern[open+1:open+end], ",") {
		out = append(out, braces(pattern[:open]+alt+pattern[open+end+1:])...)
		if len(out) > maxProblems {
			break
		}
	}
	return out
}
