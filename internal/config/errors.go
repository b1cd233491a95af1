package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An Error is one thing that is wrong with a configuration, where it is, and
// what to write instead.
type Error struct {
	File         string
	Line, Column int    // from 1; 0: the file as a whole
	Path         string // the key, as vips.web.vrrp.id or peers[1]; empty: the file
	Text         string // what is wrong, with the bound that was broken
	Value        string // as written in the file; empty where there is none to show
	Do           string // what to write instead

	src *source // nil: none to show
}

// Error is one line: file:line:column: path: what, the value; what to write.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
		}
		b.WriteString(": ")
	}
	if e.Path != "" {
		b.WriteString(printable(e.Path))
		b.WriteString(": ")
	}
	b.WriteString(e.Text)
	if e.Value != "" {
		b.WriteString(", got ")
		b.WriteString(printable(e.Value))
	}
	if e.Do != "" {
		b.WriteString("; ")
		b.WriteString(e.Do)
	}
	return b.String()
}

// Errors is everything that is wrong with a file, in its order. Errors.As finds each
// *Error in it.
type Errors []*Error

// Error is each error in its line, with the line of the file and a mark below it.
func (e Errors) Error() string {
	var b strings.Builder
	for i, one := range e {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(one.Error())
		if line, mark := one.Excerpt(0); mark != "" {
			number := fmt.Sprintf("%5d", one.Line)
			fmt.Fprintf(&b, "\n%s | %s\n%s | %s", number, line, strings.Repeat(" ", len(number)), mark)
		}
	}
	return b.String()
}

// Unwrap gives the single errors.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, one := range e {
		out[i] = one
	}
	return out
}

// maxShown bounds a value of the file in a message, in runes.
const maxShown = 80

// printable keeps a message on one line and readable, whatever the file holds.
func printable(s string) string {
	if utf8.RuneCountInString(s) > maxShown {
		s = string([]rune(s)[:maxShown]) + "…"
	}
	plain := func(r rune) bool { return unicode.IsPrint(r) && r != utf8.RuneError }
	if strings.TrimSpace(s) != s || strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) >= 0 {
		return strconv.Quote(s)
	}
	return s
}

// maxErrors bounds how many errors one file gives: beyond that nobody reads, and
// a hostile file must not make the message larger than itself by much.
const maxErrors = 50

// A report gathers what is wrong with one file.
type report struct {
	file  string
	least string  // what to write into an empty file
	src   *source // nil: the text is not known
	errs  Errors
	more  int
}

// add notes an error and returns it; nil if there are too many.
func (r *report) add(at pos, path, text, value, do string) *Error {
	if len(r.errs) == maxErrors {
		r.more++
		return nil
	}
	e := &Error{File: r.file, Line: at.line, Column: at.column, Path: path, Text: text, Value: value, Do: do, src: r.src}
	r.errs = append(r.errs, e)
	return e
}

// err gives the errors in the order of the file; nil if there are none.
func (r *report) err() error {
	slices.SortStableFunc(r.errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if r.more > 0 {
		r.errs = append(r.errs, &Error{File: r.file, Text: fmt.Sprintf("%d more errors", r.more), Do: "correct those above first"})
	}
	if len(r.errs) == 0 {
		return nil
	}
	return r.errs
}
