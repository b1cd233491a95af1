package sim_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ruleMark ends the doc comment of each function that is one rule of safety.
const ruleMark = "//quorate:rule "

// rulePackages are the folders with rules in them.
var rulePackages = []string{"election", "fsm", "internal/agent", "internal/agent/core"}

// A rule is one function of the product that can be taken out.
type rule struct {
	name string
	file string // below the top of the tree
	fn   string
	body int  // offset in the file of what follows the opening brace
	void bool // it returns nothing
}

// findRules reads the rules out of the sources, by name.
func findRules(t *testing.T, top string) map[string]rule {
	t.Helper()
	rules := map[string]rule{}
	for _, dir := range rulePackages {
		files, err := filepath.Glob(filepath.Join(top, dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, r := range rulesOf(t, file) {
				if other, twice := rules[r.name]; twice {
					t.Fatalf("rule %s is %s and %s; each rule is one function", r.name, other.fn, r.fn)
				}
				r.file = filepath.Join(dir, filepath.Base(file))
				rules[r.name] = r
			}
		}
	}
	return rules
}

func rulesOf(t *testing.T, file string) []rule {
	t.Helper()
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var marked int
	for _, c := range parsed.Comments {
		marked += len(marks(c))
	}
	var out []rule
	for _, d := range parsed.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		for _, name := range marks(fn.Doc) {
			out = append(out, rule{name: name, fn: fn.Name.Name,
				body: fset.Position(fn.Body.Lbrace).Offset + 1, void: fn.Type.Results == nil})
		}
	}
	if len(out) != marked {
		t.Fatalf("%s: %d of %d marks are not in the doc comment of a function", file, marked-len(out), marked)
	}
	return out
}

func marks(c *ast.CommentGroup) []string {
	var names []string
	if c != nil {
		for _, line := range c.List {
			if name, ok := strings.CutPrefix(line.Text, ruleMark); ok {
				names = append(names, strings.TrimSpace(name))
			}
		}
	}
	return names
}

// mutantsVar names, by commas, the rules that a mutated binary is to do without.
const mutantsVar = "QUORATE_MUTANTS"

// writeOverlay copies the sources with a way round each rule that the environment
// can choose, and returns the file that `go build -overlay` takes. So one binary is
// every mutant, and the product when nothing is chosen; the sources in the tree know
// nothing of it.
func writeOverlay(t *testing.T, top string, rules map[string]rule, ways map[string]mutant) string {
	t.Helper()
	dir, replace := t.TempDir(), map[string]string{}
	put := func(file, text string) {
		written := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		replace[filepath.Join(top, file)] = written
		if err := os.WriteFile(written, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	byFile, byDir := map[string][]rule{}, map[string][]rule{}
	for _, r := range rules {
		byFile[r.file] = append(byFile[r.file], r)
		byDir[filepath.Dir(r.file)] = append(byDir[filepath.Dir(r.file)], r)
	}
	for file, in := range byFile {
		source, err := os.ReadFile(filepath.Join(top, file))
		if err != nil {
			t.Fatal(err)
		}
		put(file, withWaysRound(string(source), in, ways))
	}
	for dir, in := range byDir {
		put(filepath.Join(dir, "mutants_switch.go"), switches(filepath.Base(dir), in, ways))
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return list
}

// withWaysRound puts each mutant's body before the rule's own, on condition.
func withWaysRound(source string, in []rule, ways map[string]mutant) string {
	slices.SortFunc(in, func(a, b rule) int { return b.body - a.body }) // offsets stay good
	for _, r := range in {
		way := ways[r.name].body
		if r.void {
			way += "\nreturn"
		}
		source = source[:r.body] + fmt.Sprintf("\nif %s {\n%s\n}\n", variable(r), way) + source[r.body:]
	}
	return source
}

// switches is the file that reads the environment, once, for one package.
func switches(pkg string, in []rule, ways map[string]mutant) string {
	var b strings.Builder
	fmt.Fprintf(&b, "package %s\n\nimport (\n\"os\"\n\"slices\"\n\"strings\"\n\"sync\"\n)\nvar _ sync.Mutex\n", pkg)
	fmt.Fprintf(&b, "var mutants = strings.Split(os.Getenv(%q), \",\")\n", mutantsVar)
	for _, r := range in {
		fmt.Fprintf(&b, "var %s = slices.Contains(mutants, %q)\n%s\n", variable(r), r.name, ways[r.name].decl)
	}
	return b.String()
}

func variable(r rule) string { return "without_" + strings.ReplaceAll(r.name, "-", "_") }
