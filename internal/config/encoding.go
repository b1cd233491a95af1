package config

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// decoded is the file without a byte order mark, if it is text in UTF-8. Of what is not,
// the first place is reported: the YAML parser would name no place.
func (r *report) decoded(b []byte) ([]byte, bool) {
	for _, mark := range []string{"\xff\xfe", "\xfe\xff", "\x00\x00\xfe\xff"} {
		if bytes.HasPrefix(b, []byte(mark)) {
			r.add(pos{}, "", "the file is text in UTF-16 or UTF-32, and must be in UTF-8", "", "save it as UTF-8, or convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW")
			return nil, false
		}
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	r.src = newSource(strings.ToValidUTF8(string(b), "\ufffd"))
	for i := 0; i < len(b); {
		c, size := utf8.DecodeRune(b[i:])
		switch {
		case c == utf8.RuneError && size == 1:
			r.add(place(b[:i]), "", fmt.Sprintf("the byte 0x%02X is no text in UTF-8", b[i]), "", otherEncoding(b))
			return nil, false
		case c == 0:
			r.add(place(b[:i]), "", "a zero byte, which no text has", "", "see that it is the configuration and whole; or save it as UTF-8")
			return nil, false
		case c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0xfffe || c == 0xffff:
			r.add(place(b[:i]), "", fmt.Sprintf("the control character U+%04X, which YAML does not allow", c), "", "remove it")
			return nil, false
		}
		i += size
	}
	return b, true
}

// otherEncoding says what to do with a file that is in some encoding of single bytes.
func otherEncoding(b []byte) string {
	if bytes.IndexByte(b, 0) < 0 {
		return "save the file as UTF-8; if it is in Latin-1: iconv -f LATIN1 -t UTF-8 FILE > NEW"
	}
	return "see that it is the configuration, and save it as UTF-8"
}

// place is that of the character after a text.
func place(before []byte) pos {
	lines := breaks.Split(strings.ToValidUTF8(string(before), "\ufffd"), -1)
	return pos{len(lines), 1 + utf8.RuneCountInString(lines[len(lines)-1])}
}

// find notes where the values of passwords are.
func (s *source) find(n *yaml.Node) {
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 && secretKey.MatchString(n.Content[i-1].Value+":") {
			s.hide(c)
		}
		s.find(c)
	}
}

// hide notes a value and what is in it.
func (s *source) hide(n *yaml.Node) {
	s.secrets[n.Line] = append(s.secrets[n.Line], n.Column)
	for _, c := range n.Content {
		s.hide(c)
	}
}
