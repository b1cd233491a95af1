package keepalived

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// A Class is what became of a statement, least important first.
type Class uint8

const (
	_             Class = iota
	Carried             // has the same meaning in the written file
	NotApplicable       // has no meaning here, or is always so, or belongs to another program
	Changed             // is in the written file, and means something slightly different
	LVS                 // belongs to the load balancer; recognised and left out
	Lost                // is not in the written file, and was of use
	Trap                // means something else in keepalived than it seems
	Decision            // somebody must choose
)

var classNames = [...]string{"", "carried over", "not applicable", "changed", "LVS", "lost", "trap", "needs a decision"}

// String is the class as the report has it.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// A Finding is what became of one statement.
type Finding struct {
	File    string
	Line    int // from 1
	Class   Class
	Subject string // the statement's first words
	Text    string
}

// A Report is all findings, in the order in which they were made.
type Report struct {
	Findings []Finding
}

// Loses reports whether anything in the old files is not in the new one.
func (r *Report) Loses() bool { return r.count(Lost)+r.count(LVS) > 0 }

func (r *Report) count(c Class) (n int) {
	for _, f := range r.Findings {
		if f.Class == c {
			n++
		}
	}
	return n
}

func (r *Report) add(at pos, c Class, subject, text string) {
	r.Findings = append(r.Findings, Finding{File: at.file, Line: at.line, Class: c, Subject: subject, Text: text})
}

// instead replaces what was said of a line as carried over, when it turned out later that
// it cannot be.
func (r *Report) instead(at pos, c Class, subject, text string) {
	r.Findings = slices.DeleteFunc(r.Findings, func(f Finding) bool { return f.File == at.file && f.Line == at.line && f.Class == Carried })
	r.add(at, c, subject, text)
}

// alsoShown bounds how many further places of one finding are listed.
const alsoShown = 3

// WriteTo writes the report for people: a line for each finding, the important ones
// last, and what was found in several places once. Then the counts.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	type key struct {
		class         Class
		subject, text string
	}
	places := map[key][]pos{}
	type placed struct {
		key
		pos
	}
	seen := map[placed]bool{}
	order := map[string]int{"": math.MaxInt} // of files; what is of none comes last
	var keys []key
	for _, f := range r.Findings {
		k := key{f.Class, f.Subject, f.Text}
		at := pos{f.File, f.Line}
		if _, ok := order[f.File]; !ok {
			order[f.File] = len(order)
		}
		if seen[placed{k, at}] {
			continue
		}
		seen[placed{k, at}] = true
		if places[k] == nil {
			keys = append(keys, k)
		}
		places[k] = append(places[k], at)
	}
	slices.SortStableFunc(keys, func(a, b key) int {
		p, q := places[a][0], places[b][0]
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(order[p.file], order[q.file]), cmp.Compare(p.line, q.line))
	})
	var b strings.Builder
	counts := map[Class]int{}
	for _, k := range keys {
		at := places[k]
		counts[k.class] += len(at)
		if s := at[0].String(); s != "" {
			b.WriteString(s + ": ")
		}
		b.WriteString(k.class.String() + ": ")
		if k.subject != "" {
			b.WriteString(printable(k.subject) + ": ")
		}
		b.WriteString(printable(k.text) + also(at[1:]) + "\n")
	}
	var sum []string
	for c := Carried; c <= Decision; c++ {
		if counts[c] > 0 {
			sum = append(sum, fmt.Sprintf("%d %s", counts[c], c))
		}
	}
	if len(sum) > 0 {
		b.WriteString("in all: " + strings.Join(sum, ", ") + "\n")
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

func also(at []pos) string {
	if len(at) == 0 {
		return ""
	}
	var s []string
	for _, p := range at[:min(len(at), alsoShown)] {
		s = append(s, p.String())
	}
	if n := len(at) - alsoShown; n > 0 {
		s = append(s, fmt.Sprintf("%d more", n))
	}
	return " (also " + strings.Join(s, ", ") + ")"
}

// maxShown bounds a text in a message, in bytes.
const maxShown = 600

// printable keeps a message on one line and readable, whatever the file holds.
func printable(s string) string {
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "…"
	}
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) >= 0 {
		return strconv.Quote(s)
	}
	return s
}
