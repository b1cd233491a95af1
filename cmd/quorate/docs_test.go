package main

import (
	"encoding"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/doctor"
	"github.com/quorate/quorate/internal/shadow"
)

// outputs are the types of what the commands print with --json, by the heading in
// docs/cli.md.
var outputs = map[string]any{
	"status":             statusReport{},
	"members":            []core.MemberStatus{},
	"vrrp":               api.VRRP{},
	"explain GROUP":      fsm.Explanation{},
	"explain timing":     timingReport{},
	"events":             api.Events{},
	"history":            []api.Revision{},
	"history REVISION":   api.Revision{},
	"doctor":             doctor.Report{},
	"shadow":             shadow.Report{},
	"try":                api.TryReport{},
	"check":              checkReport{},
	"move":               movedReport{},
	"drain":              drainedReport{},
	"undrain":            api.Drained{},
	"remove":             api.Removed{},
	"release":            releasedReport{},
	"apply":              api.Applied{},
	"snapshot save":      savedReport{},
	"snapshot restore":   api.Restored{},
	"version":            versionReport{},
	"diff, rollback":     api.Applied{},
	"events -f, by line": api.Event{},
}

// fieldsOf are the fields of a type's JSON, each as docs/cli.md has it: the path and the
// type, with a question mark where it may be absent.
func fieldsOf(path string, t reflect.Type, optional bool) []string {
	mark := ""
	if optional {
		mark = "?"
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	here := func(kind string) []string { return []string{fmt.Sprintf("`%s` | %s%s", path, kind, mark)} }
	if t == reflect.TypeFor[time.Time]() {
		return here("time")
	}
	if t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return here("string")
	}
	switch t.Kind() {
	case reflect.Struct:
		var out []string
		if path != "" {
			out = here("object")
			path += "."
		}
		return append(out, structFields(path, t)...)
	case reflect.Slice:
		if path == "" {
			return fieldsOf("[]", t.Elem(), false)
		}
		if e := t.Elem(); e.Kind() == reflect.Struct {
			return append(here("list"), structFields(path+"[].", e)...)
		}
		return here("list of " + strings.TrimPrefix(fieldsOf("", t.Elem(), false)[0], "`` | ") + "s")
	case reflect.Map:
		return here("object of " + strings.TrimPrefix(fieldsOf("", t.Elem(), false)[0], "`` | ") + "s")
	case reflect.String:
		return here("string")
	case reflect.Bool:
		return here("boolean")
	case reflect.Float64:
		return here("number")
	}
	return here("integer")
}

func structFields(path string, t reflect.Type) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			embedded := f.Type
			if embedded.Kind() == reflect.Pointer {
				embedded = embedded.Elem()
			}
			out = append(out, structFields(path, embedded)...)
		case name != "" && name != "-":
			out = append(out, fieldsOf(path+name, f.Type, strings.Contains(options, "omit"))...)
		}
	}
	return out
}

// TestDocumentedJSON compares the fields of every --json with docs/cli.md: what a script
// may rely on is what is written there.
func TestDocumentedJSON(t *testing.T) {
	b, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]string{}
	heading := ""
	row := regexp.MustCompile("^\\| (`[^`]+` \\| [^|]+) \\| .*\\|$")
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			heading = strings.Trim(strings.TrimLeft(line, "# "), "`")
		}
		if _, known := outputs[heading]; !known {
			continue
		}
		if m := row.FindStringSubmatch(line); m != nil {
			documented[heading] = append(documented[heading], m[1])
		}
		if same, is := strings.CutPrefix(line, "As `"); is { // the same as another's
			same, _, _ = strings.Cut(same, "`")
			documented[heading] = documented[same]
		}
	}
	for heading, v := range outputs {
		want := fieldsOf("", reflect.TypeOf(v), false)
		if d := cmp.Diff(want, documented[heading]); d != "" {
			t.Errorf("docs/cli.md, %q (-types +docs)\n%s", heading, d)
		}
	}
}

// TestDocumentedCommands: docs/cli.md has every command that is not hidden.
func TestDocumentedCommands(t *testing.T) {
	b, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	eachCommand(func(c *cobra.Command) {
		if c.HasSubCommands() || !c.IsAvailableCommand() {
			return
		}
		use := strings.TrimSuffix(strings.TrimPrefix(c.UseLine(), "quorate "), " [flags]")
		if !strings.Contains(string(b), "| `"+strings.ReplaceAll(use, "|", `\|`)+"` |") {
			t.Errorf("docs/cli.md does not have `%s`", use)
		}
	})
}
