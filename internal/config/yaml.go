package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// A pos is a place in the file, from 1. Zero: not in the file.
type pos struct{ line, column int }

func at(n *yaml.Node) pos { return pos{n.Line, n.Column} }

// A field is one value as the file has it: whether it is there, whether it could
// be read, and where, so that a later check can point at it.
type field[T any] struct {
	v    T
	have state
	pos  pos
	path string
	text string // as written
}

// ok reports whether the value was written and could be read.
func (f field[T]) ok() bool { return f.have == present }

type state uint8

const (
	_       state = iota
	absent        // not in the file
	broken        // in the file, an error was reported for it
	present       // in the file and read
)

// document parses b to the root mapping of its only document. Aliases, anchors
// and merge keys are refused: one place in the file is then one value, and no
// small file stands for a large one.
func (r *report) document(b []byte) *yaml.Node {
	if len(b) > maxFile {
		r.add(pos{}, "", fmt.Sprintf("the file is longer than %d bytes", maxFile), "", "see that it is the configuration")
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(b))
	if err != nil {
		r.add(pos{}, "", err.Error(), "", "")
		return nil
	}
	var doc, second yaml.Node
	if err := loader.Load(&doc); errors.Is(err, io.EOF) {
		r.add(pos{}, "", "the file is empty", "", r.least)
		return nil
	} else if err != nil {
		r.syntax(err)
		return nil
	}
	if err := loader.Load(&second); err == nil {
		r.add(at(&second), "", "a second YAML document begins", "", "keep one document in a file: remove the --- and what does not belong here")
		return nil
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
		return nil
	}
	root := &doc
	if doc.Kind == yaml.DocumentNode {
		if len(doc.Content) != 1 {
			r.add(at(&doc), "", "the file is empty", "", r.least)
			return nil
		}
		root = doc.Content[0]
	}
	if isScalar(root, "!!null") {
		r.add(at(root), "", "the file is empty", "", r.least)
		return nil
	}
	before := len(r.errs)
	r.refuseAliases(root)
	if len(r.errs) > before {
		return nil
	}
	return root
}

// syntax reports what the YAML parser says, at its place.
func (r *report) syntax(err error) {
	var le *yaml.LoadError
	if !errors.As(err, &le) {
		r.add(pos{}, "", "not YAML: "+err.Error(), "", "")
		return
	}
	text := "not YAML: " + le.Message
	if le.ContextMsg != "" {
		text += " " + le.ContextMsg
	}
	do := "correct the indentation (spaces only), quotes or brackets before this place"
	if le.Mark.Line == 0 { // the reader's errors, about single bytes, have no place
		do = "save the file as UTF-8 text"
	}
	if le.ContextMark.Line > 0 && le.ContextMark.Line != le.Mark.Line {
		do += fmt.Sprintf("; it began in line %d", le.ContextMark.Line)
	}
	r.add(pos{le.Mark.Line, le.Mark.Column}, "", text, "", do)
}

func (r *report) refuseAliases(n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		r.add(at(n), "", "aliases are not allowed", "*"+n.Value, "write the value out")
		return
	}
	if n.Anchor != "" {
		r.add(at(n), "", "anchors are not allowed", "&"+n.Anchor, "remove the anchor and write the value out where it is needed")
	}
	if n.ShortTag() == "!!merge" {
		r.add(at(n), "", "merge keys are not allowed", n.Value, "write the keys out")
	}
	for _, c := range n.Content {
		r.refuseAliases(c)
	}
}

// A mapping is a YAML mapping of which the keys have been checked.
type mapping struct {
	r    *report
	path string
	vals map[string]*yaml.Node
	// meant are keys that are not there and of which a misspelling is: reported
	// once, as the misspelling, and not as missing too.
	meant map[string]bool
}

// mapping checks that n is a mapping with keys of the schema, each once. What is
// wrong is reported; the keys that are right can still be read.
func (r *report) mapping(n *yaml.Node, path string, s schema) (mapping, bool) {
	m := mapping{r: r, path: path, vals: map[string]*yaml.Node{}, meant: map[string]bool{}}
	keys, ok := r.entries(n, path)
	for _, e := range keys {
		if !s.knows(e.name) {
			text, do, meant := s.unknown(e.name)
			m.meant[meant] = true
			r.add(at(e.key), join(path, e.name), text, "", do)
			continue
		}
		m.vals[e.name] = e.value
	}
	return m, ok
}

// An entry is one key of a mapping with its value.
type entry struct {
	name       string
	key, value *yaml.Node
}

// entries lists the keys of a mapping in the order of the file, each once.
func (r *report) entries(n *yaml.Node, path string) ([]entry, bool) {
	if n.Kind != yaml.MappingNode {
		r.wrongType(n, path, "keys with values", "write key: value pairs under it")
		return nil, false
	}
	var out []entry
	first := map[string]pos{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || (k.ShortTag() != "!!str" && k.ShortTag() != "!!int") {
			r.wrongType(k, path, "a key that is a word", "write a name, in quotes if need be")
			continue
		}
		if p, dup := first[k.Value]; dup {
			r.add(at(k), join(path, k.Value), fmt.Sprintf("duplicate key, first at line %d column %d", p.line, p.column), "", "keep one of the two")
			continue
		}
		first[k.Value] = at(k)
		out = append(out, entry{k.Value, k, v})
	}
	return out, true
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func (r *report) wrongType(n *yaml.Node, path, want, do string) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		r.add(at(n), path, "is empty, must be "+want, "", do+", or leave the key out")
		return
	}
	r.add(at(n), path, "must be "+want, describe(n), do)
}

// describe says what a node is: the value of a scalar, the kind of others.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping (key: value)"
	case yaml.SequenceNode:
		return "a list"
	}
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		return strconv.Quote(n.Value)
	}
	return n.Value
}

// read gives the field for key, with the scalar converted by conv. conv returns
// what is wanted and what to write when the scalar is not that.
func read[T any](m mapping, key string, conv func(*yaml.Node) (v T, want, do string)) field[T] {
	f := field[T]{have: m.without(key), path: join(m.path, key)}
	if n, ok := m.vals[key]; ok {
		return readNode(m.r, n, f.path, conv)
	}
	return f
}

// without is the state of a key that is not there.
func (m mapping) without(key string) state {
	if m.meant[key] {
		return broken
	}
	return absent
}

func readNode[T any](r *report, n *yaml.Node, path string, conv func(*yaml.Node) (v T, want, do string)) field[T] {
	f := field[T]{have: broken, pos: at(n), path: path, text: n.Value}
	v, want, do := conv(n)
	if want != "" {
		r.wrongType(n, path, want, do)
		return f
	}
	f.v, f.have = v, present
	return f
}

func isScalar(n *yaml.Node, tag string) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == tag
}

func (m mapping) text(key string) field[string]            { return read(m, key, toText) }
func (m mapping) integer(key string) field[int]            { return read(m, key, toInt) }
func (m mapping) duration(key string) field[time.Duration] { return read(m, key, toDuration) }

// list reads a sequence of texts.
func (m mapping) list(key string) field[[]field[string]] {
	return texts(m.r, read(m, key, func(n *yaml.Node) ([]*yaml.Node, string, string) {
		if n.Kind != yaml.SequenceNode {
			return nil, "a list", "write [first, second]"
		}
		return n.Content, "", ""
	}))
}

// texts reads the items of a sequence.
func texts(r *report, f field[[]*yaml.Node]) field[[]field[string]] {
	out := field[[]field[string]]{have: f.have, pos: f.pos, path: f.path}
	for i, n := range f.v {
		out.v = append(out.v, readNode(r, n, fmt.Sprintf("%s[%d]", f.path, i), toText))
	}
	return out
}

func toText(n *yaml.Node) (string, string, string) {
	if isScalar(n, "!!str") {
		return n.Value, "", ""
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
		return "", "text", "write it in quotes: " + strconv.Quote(n.Value)
	}
	return "", "text", "write one word"
}

// toInt takes decimal integers only: 010 is eight to one YAML reader and ten to
// the next.
func toInt(n *yaml.Node) (int, string, string) {
	if isScalar(n, "!!int") {
		digits := strings.TrimPrefix(n.Value, "-")
		if v, err := strconv.Atoi(n.Value); err == nil && (digits == "0" || digits[0] != '0') && n.Value[0] != '+' {
			return v, "", ""
		}
	}
	return 0, "a whole number in decimal", "write digits only, without quotes and without a leading zero"
}

func toDuration(n *yaml.Node) (time.Duration, string, string) {
	if isScalar(n, "!!int") && n.Value == "0" {
		return 0, "", ""
	}
	if isScalar(n, "!!str") {
		if d, err := time.ParseDuration(n.Value); err == nil {
			return d, "", ""
		}
	}
	if isScalar(n, "!!int") || isScalar(n, "!!float") {
		return 0, "a duration with its unit", fmt.Sprintf("write %ss or %sms", n.Value, n.Value)
	}
	return 0, "a duration with its unit", "write one such as 250ms, 1s or 1m30s"
}
