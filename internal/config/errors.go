package config

import (
	"cmp"
	"errors"
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
	least string // what to write into an empty file
	errs  []*Error
	more  int
}

func (r *report) add(at pos, path, text, value, do string) {
	if len(r.errs) == maxErrors {
		r.more++
		return
	}
	r.errs = append(r.errs, &Error{File: r.file, Line: at.line, Column: at.column, Path: path, Text: text, Value: value, Do: do})
}

// err joins the errors in the order of the file; nil if there are none.
func (r *report) err() error {
	slices.SortStableFunc(r.errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	all := make([]error, 0, len(r.errs)+1)
	for _, e := range r.errs {
		all = append(all, e)
	}
	if r.more > 0 {
		all = append(all, &Error{File: r.file, Text: fmt.Sprintf("%d more errors", r.more), Do: "correct those above first"})
	}
	return errors.Join(all...)
}
