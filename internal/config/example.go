package config

import (
	"fmt"
	"strings"
)

// exampleHead begins the commented file.
const exampleHead = `# A configuration of quorate with every key, what it does, its default and its bounds.
# What is written here as a default may be left out; what is commented out has none, or
# stands beside another way to say the same. The least that is needed: cluster, peers,
# key_file and vips with the addresses of one group.
`

// exampleWidth is where comments are folded.
const exampleWidth = 100

// Example is a commented configuration file that has every key. Parse accepts it as it is
// written, for the node at 10.0.0.1.
func Example() string {
	var b strings.Builder
	b.WriteString(exampleHead)
	for _, k := range topKeys.keys {
		b.WriteByte('\n')
		writeExample(&b, k, "", false)
	}
	return b.String()
}

// writeExample writes a key with its comment, all of it commented out if off says so.
func writeExample(b *strings.Builder, k key, indent string, off bool) {
	comment(b, indent+"# ", k.about())
	off = off || k.off
	lead := indent
	if off {
		lead += "# "
	}
	nested := func(s *section, indent string, off bool) {
		for _, inner := range s.keys {
			writeExample(b, inner, indent, off)
		}
	}
	switch {
	case k.form == byName && k.in != nil:
		fmt.Fprintf(b, "%s%s:\n%s  %s:\n", lead, k.name, lead, k.example)
		nested(k.in, lead+"    ", false)
	case k.in != nil && k.kind == 0 && k.form == one:
		fmt.Fprintf(b, "%s%s:\n", lead, k.name)
		nested(k.in, lead+"  ", false)
	case k.in != nil:
		comment(b, indent+"# ", k.insteadOf())
		for _, inner := range k.in.keys {
			comment(b, indent+"#   ", inner.name+": "+inner.about())
		}
		if strings.HasPrefix(k.example, "- ") {
			fmt.Fprintf(b, "%s%s:\n%s  %s\n", lead, k.name, lead, k.example)
			return
		}
		fallthrough
	default:
		fmt.Fprintf(b, "%s%s: %s\n", lead, k.name, k.example)
	}
}

// insteadOf says where the keys of a section may stand that are not written below it.
func (k *key) insteadOf() string {
	if k.kind == 0 {
		return "The keys of each:"
	}
	if k.form == list {
		return "Each may also be a set of keys, {" + k.in.keys[0].name + ": …, " + k.in.keys[1].name + ": …}:"
	}
	return "May also be a set of keys, {" + k.in.keys[0].name + ": …, " + k.in.keys[1].name + ": …}:"
}

// about says all of a key in one paragraph.
func (k *key) about() string {
	s := strings.ToUpper(k.doc[:1]) + k.doc[1:] + "."
	var facts []string
	if k.required {
		facts = append(facts, "required")
	}
	if words := k.words(); len(words) > 0 {
		last := len(words) - 1
		facts = append(facts, strings.Join(words[:last], ", ")+" or "+words[last])
	}
	if l := k.limits(); l != "" {
		facts = append(facts, l)
	}
	if d := k.byDefault(); d != "" {
		facts = append(facts, "default: "+d)
	}
	if len(facts) > 0 {
		s += " (" + strings.Join(facts, "; ") + ")"
	}
	return s
}

// byDefault is what a key is that is not written; empty: nothing, or it must be.
func (k *key) byDefault() string {
	if k.def == "" && len(k.choices) > 0 {
		return k.words()[0]
	}
	return k.def
}

// comment writes a text in lines that begin so.
func comment(b *strings.Builder, lead, text string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len([]rune(lead+line+" "+word)) > exampleWidth {
			b.WriteString(lead + line + "\n")
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	b.WriteString(lead + line + "\n")
}
