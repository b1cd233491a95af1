package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
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
	key  *key
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
	b, ok := r.decoded(b)
	if !ok {
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
			r.add(pos{}, "", "the file is empty", "", r.least)
			return nil
		}
		root = doc.Content[0]
	}
	if isScalar(root, "!!null") {
		r.add(pos{}, "", "the file is empty", "", r.least)
		return nil
	}
	if root.Kind != yaml.MappingNode && r.src.foreign() {
		r.add(at(root), "", "not a configuration of quorate", "", importIt)
		return nil
	}
	before := len(r.errs)
	r.src.parsed = true
	r.src.find(root)
	r.refuseAliases(root)
	if len(r.errs) > before {
		return nil
	}
	return root
}

// plainTags are those of what is without any.
var plainTags = []string{"!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq"}

func (r *report) refuseAliases(n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		r.add(at(n), "", "aliases are not allowed", "*"+n.Value, "write the value out")
		return
	}
	if n.Anchor != "" {
		r.add(at(n), "", "anchors are not allowed", "&"+n.Anchor, "remove the anchor and write the value out where it is needed")
	}
	if n.Style&yaml.TaggedStyle != 0 && !slices.Contains(plainTags, n.ShortTag()) {
		r.add(at(n), "", "tags are not allowed", n.Tag, "remove the tag")
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
	in   *section
	vals map[string]*yaml.Node
	// meant are keys that are not there and of which a misspelling is: reported
	// once, as the misspelling, and not as missing too.
	meant map[string]bool
}

// mapping checks that n is a mapping with keys of the section, each once. What is
// wrong is reported; the keys that are right can still be read.
func (r *report) mapping(n *yaml.Node, path string, s *section) (mapping, bool) {
	m := mapping{r: r, path: path, in: s, vals: map[string]*yaml.Node{}, meant: map[string]bool{}}
	if n.Kind != yaml.MappingNode && s.example != "" {
		r.wrongType(n, path, "keys with values", "write "+s.example)
		return m, false
	}
	keys, ok := r.entries(n, path)
	for _, e := range keys {
		if s.find(e.name) == nil {
			if len(r.errs) >= maxErrors { // nobody reads what was perhaps meant
				r.add(at(e.key), join(path, e.name), "unknown key", "", "")
				continue
			}
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

// read gives the field for a key, with the scalar converted by conv. conv returns
// what is wanted and what to write when the scalar is not that. The key must be in the
// table with one of the kinds.
func read[T any](m mapping, name string, conv func(*yaml.Node) (v T, want, do string), kinds ...kind) field[T] {
	k := m.key(name, kinds...)
	if n, ok := m.vals[name]; ok {
		return readNode(m.r, n, join(m.path, name), k, conv)
	}
	return field[T]{have: m.without(name), path: join(m.path, name), key: k}
}

// key is the key of the section. Reading one that the table does not have, or as
// something else, is a mistake of this package.
func (m mapping) key(name string, kinds ...kind) *key {
	k := m.in.find(name)
	if k == nil || !slices.Contains(kinds, k.kind) {
		panic(fmt.Sprintf("config: key %s of section %q is not in the table as it is read", name, m.in.path))
	}
	return k
}

// item reads one of a list whose items are a text or a section.
func (m mapping) item(name string, n *yaml.Node, path string) field[string] {
	k := m.in.find(name)
	return readNode(m.r, n, path, k, textOr(k.kind.String()+", or keys with values", "write "+k.in.example))
}

// without is the state of a key that is not there.
func (m mapping) without(key string) state {
	if m.meant[key] {
		return broken
	}
	return absent
}

func readNode[T any](r *report, n *yaml.Node, path string, k *key, conv func(*yaml.Node) (v T, want, do string)) field[T] {
	f := field[T]{have: broken, pos: at(n), path: path, text: n.Value, key: k}
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

func (m mapping) text(name string) field[string] {
	return read(m, name, toText, kindText, kindName, kindNodeName, kindPath, kindWord, kindAddrPort, kindVIP, kindNetwork, kindAddress, kindDevice,
		kindURL, kindHostPort, kindHost, kindRegexp)
}

func (m mapping) integer(name string) field[int] { return read(m, name, toInt, kindInteger) }

func (m mapping) number(name string) field[uint32] { return read(m, name, toUint32, kindUint32) }

func (m mapping) truth(name string) field[bool] { return read(m, name, toBool, kindBool) }

func (m mapping) duration(name string) field[time.Duration] {
	return read(m, name, toDuration, kindDuration)
}

// list reads a sequence of texts.
func (m mapping) list(name string) field[[]field[string]] {
	items, where, have := m.items(name, "write [first, second]")
	out := field[[]field[string]]{have: have, pos: where, path: join(m.path, name), key: m.in.find(name)}
	for i, n := range items {
		out.v = append(out.v, readNode(m.r, n, fmt.Sprintf("%s[%d]", out.path, i), out.key, toText))
	}
	return out
}

// items reads the sequence at a key; where is the place of it, if it is there.
func (m mapping) items(name, do string) (items []*yaml.Node, where pos, have state) {
	if k := m.in.find(name); k == nil || k.form != list {
		panic(fmt.Sprintf("config: key %s of section %q is no list in the table", name, m.in.path))
	}
	n, ok := m.vals[name]
	if !ok {
		return nil, pos{}, m.without(name)
	}
	if n.Kind != yaml.SequenceNode {
		m.r.wrongType(n, join(m.path, name), "a list", do)
		return nil, at(n), broken
	}
	return n.Content, at(n), present
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
