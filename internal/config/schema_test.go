package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

const (
	allKeys    = "../../deploy/examples/all-keys.yaml"
	schemaFile = "../../deploy/quorate.schema.json"
)

// TestExampleFiles: what check prints lies in the tree too, as it is now.
func TestExampleFiles(t *testing.T) {
	current(t, allKeys, Example())
	current(t, schemaFile, string(JSONSchema()))
}

// TestExample: the commented file has every key, is accepted without a warning, and so it
// is with any one of the keys that it has commented out, but for those that stand beside
// another way to say the same.
func TestExample(t *testing.T) {
	text := Example()
	for _, s := range sections() {
		for _, k := range s.keys {
			if !regexp.MustCompile(`(?m)^[# ]*(- \{)?`+k.name+`: `).MatchString(text) && !strings.Contains(text, k.name+":\n") {
				t.Errorf("no %s of section %q", k.name, s.path)
			}
		}
	}
	cfg, err := host().Parse("example.yaml", []byte(text))
	if err != nil || len(cfg.Warnings) > 0 {
		t.Fatalf("error %v, warnings %q", err, cfg.Warnings)
	}
	offLines := "\n"
	for _, s := range sections() {
		for _, k := range s.keys {
			if block := k.kind == 0; k.off && block {
				offLines += k.name + ":\n"
			} else if k.off {
				offLines += k.name + ": " + k.example + "\n"
			}
		}
	}
	instead := []string{"password", "tcp", "icmp", "command", "process", "file", "systemd"} // of the checks: one kind each
	lines := strings.Split(text, "\n")
	tried := 0
	for i, l := range lines {
		m := regexp.MustCompile(`^( *)# ([a-z_]+):( .*)?$`).FindStringSubmatch(l)
		if m == nil || !strings.Contains(offLines, "\n"+m[2]+":"+m[3]+"\n") {
			continue
		}
		with := slices.Clone(lines)
		with[i] = m[1] + m[2] + ":" + m[3]
		for j := i + 1; m[3] == "" && j < len(with) && strings.HasPrefix(with[j], m[1]+"#   "); j++ {
			with[j] = strings.Replace(with[j], "# ", "", 1)
		}
		tried++
		_, err := host().Parse("example.yaml", []byte(strings.Join(with, "\n")))
		if (err != nil) != slices.Contains(instead, m[2]) {
			t.Errorf("with line %d, %s: %v", i+1, m[2], err)
		}
	}
	if want := strings.Count(offLines, "\n"); tried < want-1 {
		t.Errorf("%d keys are commented out", tried)
	}
}

// TestDefaultsAreSo: what the table calls the default of a key is what a file without it
// gets: taking any one line with a default out of the example changes nothing.
func TestDefaultsAreSo(t *testing.T) {
	lines := strings.Split(Example(), "\n")
	whole, err := host().Parse("x.yaml", []byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	same := append([]cmp.Option{cmp.FilterPath(func(p cmp.Path) bool {
		n := p.Last().String()
		return n == ".src" || n == ".where" || n == ".file"
	}, cmp.Ignore())}, sameDocument[1:]...)
	tried := 0
	for i, l := range lines {
		m := regexp.MustCompile(`^ *([a-z_]+): (.+)$`).FindStringSubmatch(l)
		if m == nil || slices.Contains([]string{"cluster", "peers", "key_file", "addresses", "interface", "id", "http", "checks"}, m[1]) {
			continue // required, or of another value than the default
		}
		got, err := host().Parse("x.yaml", []byte(strings.Join(slices.Delete(slices.Clone(lines), i, i+1), "\n")))
		if err != nil {
			t.Errorf("without line %d, %s: %v", i+1, m[1], err)
			continue
		}
		tried++
		if d := cmp.Diff(*whole, *got, append(same, cmp.Exporter(func(reflect.Type) bool { return true }))...); d != "" {
			t.Errorf("without line %d, %s: (-with +without)\n%s", i+1, m[1], d)
		}
	}
	if tried < 25 {
		t.Errorf("%d keys with defaults", tried)
	}
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(JSONSchema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(schemaID, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(schemaID)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// value is a YAML node as an editor hands it to the schema.
func value(n *yaml.Node) any {
	switch n.Kind {
	case yaml.DocumentNode:
		return value(n.Content[0])
	case yaml.MappingNode:
		out := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			out[n.Content[i].Value] = value(n.Content[i+1])
		}
		return out
	case yaml.SequenceNode:
		out := []any{}
		for _, c := range n.Content {
			out = append(out, value(c))
		}
		return out
	}
	switch n.ShortTag() {
	case "!!int":
		if v, err := strconv.ParseInt(n.Value, 0, 64); err == nil {
			return v
		}
	case "!!float":
		v, _ := strconv.ParseFloat(n.Value, 64)
		return v
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!null":
		return nil
	}
	return n.Value
}

// TestJSONSchema: by the schema every file is valid that Parse accepts, and invalid is
// what has a wrong key or kind.
func TestJSONSchema(t *testing.T) {
	s := compileSchema(t)
	examples, _ := filepath.Glob("../../deploy/examples/*.yaml")
	files, _ := filepath.Glob("testdata/*.yaml")
	if len(examples) < 8 || len(files) < 100 {
		t.Fatalf("%d examples, %d files of testdata", len(examples), len(files))
	}
	caught := map[string]bool{}
	for _, f := range append(examples, files...) {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var n yaml.Node
		if yaml.Unmarshal(b, &n) != nil || len(n.Content) == 0 {
			continue
		}
		name := strings.TrimSuffix(filepath.Base(f), ".yaml")
		err = s.Validate(value(&n))
		good := !strings.HasPrefix(f, "testdata") || strings.HasPrefix(name, "ok-") || strings.HasPrefix(name, "warn-")
		if good && err != nil {
			t.Errorf("%s is refused: %v", f, err)
		}
		caught[name] = !good && err != nil
	}
	for _, name := range []string{"key-unknown-near", "key-unknown-far", "key-wrong-case", "checks-misspelt", "check-kinds", "check-numbers", "check-http", "check-command",
		"log-level", "log-format", "fence-unknown", "election-unknown", "election-vrrp", "election-vrrp-placement", "election-vrrp-policy", "election-vrrp-no-vrrp",
		"election-vrrp-no-id", "announce-bounds", "file-list", "file-scalar", "file-everything-wrong", "type-text-for-list", "addresses-form", "routes-keys", "rules-keys"} {
		if caught[name] {
			continue
		}
		t.Errorf("%s.yaml is valid by the schema", name)
	}
}
