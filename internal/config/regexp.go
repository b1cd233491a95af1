package config

import (
	"errors"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// mistake says what is wrong with a regular expression, in which of its columns, from
// 1, in characters, and what to write.
func mistake(expr string, err error) (what string, column int, do string) {
	do = `write \ before a character of ()[]{}.*+?|^$\ that stands for itself, and put the whole in single quotes`
	var e *syntax.Error
	if !errors.As(err, &e) {
		return err.Error(), 1, do
	}
	what = e.Code.String()
	i := max(0, strings.Index(expr, e.Expr))
	switch e.Code {
	case syntax.ErrMissingParen, syntax.ErrUnexpectedParen:
		i = parentheses(expr)
	case syntax.ErrTrailingBackslash:
		i = len(expr) - 1
	case syntax.ErrInvalidPerlOp:
		do = "RE2 does not look ahead or behind; write what is there, and not what is before or after it"
	}
	return what, 1 + utf8.RuneCountInString(expr[:i]), do
}

// parentheses gives the place of the first parenthesis that is not closed, or of the
// one that closes nothing. The parser names only the whole expression for these.
func parentheses(expr string) int {
	var open []int
	for i := 0; i < len(expr); i++ {
		switch expr[i] {
		case '\\':
			i = escaped(expr, i)
		case '[':
			i = class(expr, i)
		case '(':
			open = append(open, i)
		case ')':
			if len(open) == 0 {
				return i
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		return open[0]
	}
	return 0
}

// escaped is the last byte of what begins with the backslash at i.
func escaped(expr string, i int) int {
	if !strings.HasPrefix(expr[i:], `\Q`) {
		return i + 1
	}
	if end := strings.Index(expr[i:], `\E`); end >= 0 {
		return i + end + 1
	}
	return len(expr)
}

// class is the last byte of the character class that begins at i.
func class(expr string, i int) int {
	i++
	if strings.HasPrefix(expr[i:], "^") {
		i++
	}
	for first := i; i < len(expr); i++ {
		switch {
		case expr[i] == ']' && i > first:
			return i
		case expr[i] == '\\':
			i++
		case strings.HasPrefix(expr[i:], "[:"):
			if end := strings.Index(expr[i:], ":]"); end >= 0 {
				i += end + 1
			}
		}
	}
	return i
}
