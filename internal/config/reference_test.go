package config

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const reference = "../../docs/configuration.md"

// keyTables are the tables of the reference: after the mark with that name stand the keys.
var keyTables = []struct {
	name, heading string
	keys          []string // empty: all of the section
	in            *section
}{
	{"node", "key", []string{"cluster", "node", "address", "peers", "key_file", "tls", "data_dir", "role", "election", "socket", "http", "fifo", "log"}, topKeys},
	{"lease", "key", []string{"fence", "lease", "renew"}, topKeys},
	{"vips", "key under `vips.NAME`", nil, groupKeys},
	{"checks", "key under `checks.NAME`", nil, checkKeys},
	{"hooks", "key under `hooks`", nil, hookKeys},
}

// elsewhereShown are sections that another table has, and keys that have a chapter of their own.
var elsewhereShown = []string{"vips", "checks", "hooks"}

func (k *key) row(prefix string) string {
	kindText := k.kind.String()
	switch {
	case len(k.choices) > 0:
		words := k.words()
		for i, w := range words {
			words[i] = "`" + w + "`"
		}
		last := len(words) - 1
		kindText = strings.Join(words[:last], ", ") + " or " + words[last]
	case k.form == program:
		kindText = "`[program, argument …]`"
	case k.form == list && k.kind == 0:
		kindText = "list of sections"
	case k.form == list:
		kindText = "list of " + map[kind]string{kindName: "names", kindDevice: "device names", kindAddress: "addresses"}[k.kind]
		if k.kind == kindAddrPort || k.kind == kindVIP {
			kindText = "list of " + k.kind.String()
		}
	case k.form == byName:
		kindText = k.kind.String() + " by node name"
	case k.kind == 0:
		kindText = "section"
	}
	if k.in != nil && k.kind != 0 {
		kindText += ", or section"
	}
	switch d := k.byDefault(); {
	case k.required:
		kindText += ", **required**"
		if prefix != "" {
			kindText += " there"
		}
	case d != "":
		kindText += "; " + d
	}
	escape := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	return fmt.Sprintf("| `%s%s` | %s | %s | %s |\n", prefix, k.name, escape(kindText), escape(k.limits()), escape(k.doc+k.see))
}

func rows(b *strings.Builder, s *section, prefix string, only []string) {
	for i := range s.keys {
		k := &s.keys[i]
		if only != nil && !slices.Contains(only, k.name) {
			continue
		}
		b.WriteString(k.row(prefix))
		if k.in == nil || k.in == hookKeys {
			continue
		}
		inner := prefix + k.name
		if k.form == list {
			inner += "[]"
		}
		rows(b, k.in, inner+".", nil)
	}
}

// TestReference: the tables of the reference are those of the keys.
func TestReference(t *testing.T) {
	b, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	text, shown := string(b), map[string]bool{}
	for _, table := range keyTables {
		var want strings.Builder
		fmt.Fprintf(&want, "| %s | type; default | bounds | what it does |\n|---|---|---|---|\n", table.heading)
		rows(&want, table.in, "", table.keys)
		for i := range table.in.keys {
			if k := &table.in.keys[i]; table.keys == nil || slices.Contains(table.keys, k.name) {
				shown[table.in.path+" "+k.name] = true
			}
		}
		marks := regexp.MustCompile(fmt.Sprintf(`(?s)(<!-- keys: %s -->\n).*?(<!-- end -->)`, table.name))
		found := marks.FindString(text)
		if found == "" {
			t.Errorf("%s has no place for the keys %q: write <!-- keys: %s --> and <!-- end -->", reference, table.name, table.name)
			continue
		}
		text = marks.ReplaceAllString(text, "${1}"+strings.ReplaceAll(want.String(), "$", "$$")+"$2")
	}
	for _, k := range topKeys.keys {
		if !shown[" "+k.name] && !slices.Contains(elsewhereShown, k.name) {
			t.Errorf("no table of %s has the key %s: add it to keyTables", reference, k.name)
		}
	}
	current(t, reference, text)
}

// current compares a file with what it should be, or writes it with -update.
func current(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the keys say: go test ./internal/config -update writes it", path)
	}
}
