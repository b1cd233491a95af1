package config

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A kind is what may be written as a value.
type kind uint8

const (
	_ kind = iota
	kindText
	kindName     // of a cluster, group or check
	kindNodeName // a name that may have dots in it
	kindPath
	kindWord // one of the key's choices
	kindSecret
	kindInteger
	kindUint32
	kindMark // a number that may be hexadecimal
	kindDuration
	kindBool
	kindPreempt // a truth, or a duration
	kindStatus  // a number, or the two ends of a range
	kindAddrPort
	kindVIP     // an address with the length of its network
	kindNetwork // without bits beyond its prefix
	kindAddress
	kindDevice
	kindURL
	kindHostPort
	kindHost
	kindRegexp
	kindUser // a name, or a number
)

// String names the kind as the reference does.
func (k kind) String() string {
	names := [...]string{"", "text", "name", "name", "path", "word", "text", "number", "number", "number", "duration", "`true` or `false`",
		"`true`, `false` or a duration", "number, or `[least, most]`", "ADDRESS:PORT", "ADDRESS/LENGTH", "NETWORK/LENGTH", "address", "device name",
		"URL", "HOST:PORT", "host", "regular expression (RE2)", "name or number"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// A form is how many values a key has.
type form uint8

const (
	one     form = iota // zero, since most keys are so
	list                // of any number
	program             // a list of a program and its arguments
	byName              // a mapping of names, each with a value
)

// A key is one key of the file: what may be written, and what there is to say of it.
// Readers, messages, the reference, the commented example and the JSON Schema take it
// from here.
type key struct {
	name string
	kind kind // of the value, or of each one in a list or mapping; zero: only the section in may be written
	form form
	in   *section // which may be written instead of the value, or of each one

	choices           []fmt.Stringer // of kindWord; the default is the first, or def
	least, most       int64          // of numbers
	shortest, longest time.Duration  // of durations; longest zero: no bound
	required          bool
	cluster           bool // refused with election: vrrp

	also    []string // what other programs call it, for who writes that by mistake
	def     string   // what it is when it is not written; empty: nothing
	bounds  string   // besides those above
	doc     string   // what it does, in a line of plain text
	see     string   // what the reference adds, in Markdown
	example string   // a value, as it is written in the file
	off     bool     // the commented example has it commented out
}

// A section is the keys of one mapping, in the order in which they are shown.
type section struct {
	path string // for people: with NAME for names
	// example is what to write where something else stands; empty: keys and values.
	example string
	keys    []key
}

// find returns the key of that name; nil if there is none.
func (s *section) find(name string) *key {
	for i := range s.keys {
		if s.keys[i].name == name {
			return &s.keys[i]
		}
	}
	return nil
}

func (s *section) names() []string {
	out := make([]string, 0, len(s.keys))
	for _, k := range s.keys {
		out = append(out, k.name)
	}
	return out
}

// unknown says what is wrong with a key that the section does not have, what to write
// instead, and which of its keys was meant, if that is likely.
func (s *section) unknown(key string) (text, do, meant string) {
	for _, k := range s.keys {
		if slices.Contains(k.also, strings.ToLower(key)) {
			return "unknown key", fmt.Sprintf("it is %s here", k.name), k.name
		}
	}
	if near, ok := nearest(key, s.names()); ok {
		return "unknown key", fmt.Sprintf("did you mean %s?", near), near
	}
	if where := elsewhere(key); len(where) > 0 {
		return "unknown key here", "it is a key of " + strings.Join(where, " and of ") + "; known here: " + strings.Join(s.names(), ", "), ""
	}
	return "unknown key", "known here: " + strings.Join(s.names(), ", "), ""
}

// elsewhere lists the sections that have a key which was written in another one.
func elsewhere(name string) []string {
	var out []string
	for _, s := range sections() {
		if s.find(name) != nil && len(name) > 2 {
			where := s.path
			if where == "" {
				where = "the top level"
			}
			out = append(out, where)
		}
	}
	return out[:min(len(out), 3)]
}

// sections lists all sections of the file once, those that contain others first.
func sections() []*section {
	var out []*section
	var walk func(s *section)
	walk = func(s *section) {
		if slices.Contains(out, s) {
			return
		}
		out = append(out, s)
		for _, k := range s.keys {
			if k.in != nil {
				walk(k.in)
			}
		}
	}
	walk(topKeys)
	return out
}

// word is a choice that no type stands for.
type word string

// String is the word itself.
func (w word) String() string { return string(w) }

func choose[T fmt.Stringer](choices ...T) []fmt.Stringer {
	out := make([]fmt.Stringer, 0, len(choices))
	for _, c := range choices {
		out = append(out, c)
	}
	return out
}

func (k *key) words() []string {
	out := make([]string, 0, len(k.choices))
	for _, c := range k.choices {
		out = append(out, c.String())
	}
	return out
}

// limits says in which bounds the value must be, for people; empty: in none.
func (k *key) limits() string {
	var out string
	switch {
	case k.most == math.MaxUint32:
		out = fmt.Sprintf("%d to 2^32-1", k.least)
	case k.most == math.MaxInt32:
		out = fmt.Sprintf("%d to 2^31-1", k.least)
	case k.least != 0 || k.most != 0:
		out = fmt.Sprintf("%d to %d", k.least, k.most)
	case k.longest != 0 && k.shortest == 0:
		out = "up to " + short(k.longest)
	case k.longest != 0:
		out = short(k.shortest) + " to " + short(k.longest)
	case k.shortest != 0:
		out = short(k.shortest) + " or more"
	}
	if out != "" && k.bounds != "" {
		out += "; "
	}
	return out + k.bounds
}

// fits reports whether a number is within the key's bounds.
func (k *key) fits(v int64) bool { return v >= k.least && v <= k.most }

// within says the bounds of a number, as a message does.
func (k *key) within() string { return fmt.Sprintf("must be %d to %d", k.least, k.most) }

// lasts reports whether a duration is within the key's bounds.
func (k *key) lasts(d time.Duration) bool {
	return d >= k.shortest && (k.longest == 0 || d <= k.longest)
}
