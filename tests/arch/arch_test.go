package arch

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "github.com/quorate/quorate"

// TestFloors prints the house, and fails for whatever in the tree is not as it
// is drawn.
func TestFloors(t *testing.T) {
	root := os.DirFS("../..")
	mod, err := fs.ReadFile(root, "go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^module ` + regexp.QuoteMeta(module) + `$`).Match(mod) {
		t.Fatalf("go.mod is not that of %s", module)
	}
	for f := command; f >= truth; f-- {
		t.Logf("floor %s", f)
		for _, p := range table {
			if p.floor == f {
				mark := ""
				if p.pure {
					mark = "  (pure)"
				}
				t.Logf("    %-22s %s%s", p.path, p.purpose, mark)
			}
		}
	}
	sources, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range check(module, table, sources) {
		t.Error(v)
	}
}

// TestTable checks the table itself.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range table {
		if seen[p.path] || p.purpose == "" || p.floor < truth || p.floor > judge {
			t.Errorf("%+v: written twice, or without purpose or floor", p)
		}
		seen[p.path] = true
		if (p.floor <= pure) != p.pure && p.floor != inside {
			t.Errorf("%s: pure is %v on floor %s", p.path, p.pure, p.floor)
		}
		for target, why := range p.foreign {
			if why == "" || !p.pure || p.floor == truth {
				t.Errorf("%s: %s needs a reason, is for pure packages only, and the truth has none", p.path, target)
			}
		}
	}
	for _, p := range table {
		for _, e := range p.edges {
			if !seen[e] {
				t.Errorf("%s: edge to %s, which is not in the table", p.path, e)
			}
		}
	}
}

// small is a table for made-up sources.
var small = []place{
	{path: "base", floor: truth, pure: true},
	{path: "think", floor: pure, pure: true, foreign: map[string]string{"github.com/mdlayher/arp": "codec", "example.org/codec": "codec"}},
	{path: "think2", floor: pure, pure: true},
	{path: "think/do", floor: edge, edges: []string{"think/help"}},
	{path: "think/help", floor: edge},
	{path: "in/core", floor: inside, pure: true},
	{path: "in", floor: inside, edges: []string{"in/core"}},
	{path: "cmd", floor: command},
	{path: "tests/lab", floor: judge},
	{path: "tests/run", floor: judge},
}

// house is a tree in which nothing is wrong.
func house() fstest.MapFS {
	m := fstest.MapFS{}
	for _, p := range small {
		name := p.path[strings.LastIndex(p.path, "/")+1:]
		if p.path == "cmd" {
			name = "main"
		}
		m[p.path+"/doc.go"] = &fstest.MapFile{Data: []byte("// Package " + name + " is made up.\npackage " + name + "\n")}
	}
	return m
}

// TestEachRuleIsKept adds one file to a tree in which nothing is wrong and sees
// what is found: nothing, or the one thing that the file does.
func TestEachRuleIsKept(t *testing.T) {
	imp := func(path string) string { return "import _ \"m/" + path + "\"\n" }
	long := "package think\n" + strings.Repeat("//\n", maxLines)
	tests := []struct {
		name, file, src string
		want            string // part of the only finding; empty: none
	}{
		{"nothing", "think/a.go", "package think\n", ""},
		{"down", "think/a.go", "package think\n" + imp("base"), ""},
		{"up", "base/a.go", "package base\n" + imp("think"), "base (floor truth) imports think (floor pure): imports go down only"},
		{"up to the edge", "think/a.go", "package think\n" + imp("think/do"), "imports go down only"},
		{"up from cmd to tests", "cmd/a.go", "package main\n" + imp("tests/lab"), "cmd (floor command) imports tests/lab (floor tests)"},
		{"tests of anything", "think/a_test.go", "package think\n" + imp("tests/lab") + imp("cmd"), ""},
		{"tests among themselves", "tests/run/a.go", "package run\n" + imp("tests/lab"), ""},
		{"one floor", "think/a.go", "package think\n" + imp("think2"), "think and think2 are both on floor pure"},
		{"one floor, named edge", "in/a.go", "package in\n" + imp("in/core"), ""},
		{"one floor, named edge backwards", "in/core/a.go", "package core\n" + imp("in"), "both on floor internal"},
		{"one floor, helper", "think/do/a.go", "package do\n" + imp("think/help"), ""},
		{"pure in the inside uses what acts", "in/core/a.go", "package core\n" + imp("think/do"), "pure package in/core imports think/do, which acts"},
		{"new folder", "new/a.go", "// Package new is new.\npackage new\n", "new: not in the table"},
		{"new folder of tests only", "new/a_test.go", "package new\n", ""},
		{"folders that are no packages", "think/testdata/a.go", "package broken\nfunc (", ""},

		{"other module", "think/a.go", "package think\nimport _ \"example.org/x\"\n", "pure package think imports example.org/x"},
		{"other module, allowed", "think/a.go", "package think\nimport _ \"example.org/codec\"\n", ""},
		{"other module, allowed elsewhere", "base/a.go", "package base\nimport _ \"example.org/codec\"\n", "pure package base imports example.org/codec"},
		{"other module at the edge", "think/do/a.go", "package do\nimport _ \"example.org/x\"\n", ""},
		{"codec's client", "think/a.go", "package think\nimport \"github.com/mdlayher/arp\"\nvar c arp.Client\n", "uses github.com/mdlayher/arp.Client"},
		{"codec's packet", "think/a.go", "package think\nimport \"github.com/mdlayher/arp\"\nvar p arp.Packet\n", ""},

		{"clock", "think/a.go", "package think\nimport \"time\"\nvar t = time.Now()\n", "uses time.Now"},
		{"clock as a value", "think/a.go", "package think\nimport \"time\"\nvar f = time.Since\n", "uses time.Since"},
		{"clock renamed", "think/a.go", "package think\nimport clock \"time\"\nfunc f() { clock.Sleep(1) }\n", "uses time.Sleep"},
		{"clock by dot", "think/a.go", "package think\nimport . \"time\"\nvar t = Now()\n", "by dot"},
		{"timer", "think/a.go", "package think\nimport \"time\"\nvar t *time.Timer\n", "uses time.Timer"},
		{"duration", "think/a.go", "package think\nimport \"time\"\nvar t = 3 * time.Second\n", ""},
		{"a variable called time", "think/a.go", "package think\nimport _ \"time\"\ntype c struct{ Now int }\nfunc f(time c) int { return time.Now }\n", ""},
		{"clock at the edge", "think/do/a.go", "package do\nimport \"time\"\nvar t = time.Now()\n", ""},
		{"clock in the inside", "in/core/a.go", "package core\nimport \"time\"\nvar t = time.Until\n", "uses time.Until"},
		{"socket", "think/a.go", "package think\nimport \"net\"\nvar d = net.Dial\n", "uses net.Dial"},
		{"hardware address", "think/a.go", "package think\nimport \"net\"\nvar d net.HardwareAddr\n", ""},
		{"address", "think/a.go", "package think\nimport \"net/netip\"\nvar d netip.Addr\n", ""},
		{"goroutine", "think/a.go", "package think\nfunc f() { go f() }\n", "starts a goroutine"},
		{"channel", "think/a.go", "package think\ntype t chan int\n", "has a channel"},
		{"receive", "think/a.go", "package think\nfunc f(c t) { <-c }\n", "receives from a channel"},
		{"send", "think/a.go", "package think\nfunc f(c t) { c <- 1 }\n", "sends on a channel"},
		{"select", "think/a.go", "package think\nfunc f() { select {} }\n", "selects among channels"},
		{"print", "think/a.go", "package think\nimport \"fmt\"\nfunc f() { fmt.Println() }\n", "uses fmt.Println"},
		{"build constraint", "think/a_windows.go", "package think\nimport _ \"os\"\n", "imports os"},

		{"unfinished", "think/do/a.go", "package do\n\n// " + unfinished + ": later\n", "think/do/a.go:3: says " + unfinished},
		{"unfinished test", "think/do/a_test.go", "package do\n// " + unfinished + "\n", "says " + unfinished},
		{"long", "think/a.go", long, "think/a.go: 501 lines"},
		{"not too long", "think/a.go", strings.TrimSuffix(long, "//\n"), ""},
		{"long test", "think/a_test.go", long, ""},
		{"long and generated", "think/a.go", "// Code generated by x. DO NOT EDIT.\n\n" + long, ""},
		{"no package comment", "think2/doc.go", "package think2\n", "think2: no package comment"},
		{"comment that is none", "think2/doc.go", "// Copyright.\npackage think2\n", "think2: no package comment"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found := findings(t, tt.file, tt.src)
			switch {
			case tt.want == "" && len(found) == 0:
			case tt.want != "" && len(found) == 1 && strings.Contains(found[0], tt.want):
			default:
				t.Errorf("found %q, want %q", found, tt.want)
			}
		})
	}
}

func TestImportsThatAct(t *testing.T) {
	for _, target := range []string{"os", "sync", "sync/atomic", "math/rand", "math/rand/v2", "crypto/rand", "log", "log/slog",
		"context", "runtime", "syscall", "unsafe", "io", "net/http", "os/exec", "C", "golang.org/x/sys/unix"} {
		found := findings(t, "think/a.go", "package think\nimport _ \""+target+"\"\n")
		if len(found) != 1 || !strings.Contains(found[0], "imports "+target) {
			t.Errorf("%s: found %q", target, found)
		}
	}
}

// TestMissingFolder: a line of the table that has no folder is found.
func TestMissingFolder(t *testing.T) {
	tree := house()
	delete(tree, "think2/doc.go")
	sources, err := load(tree)
	if err != nil {
		t.Fatal(err)
	}
	found := check("m", small, sources)
	if len(found) != 1 || !strings.HasPrefix(found[0], "think2: in the table and not in the tree") {
		t.Errorf("found %q", found)
	}
}

func TestLoadRefuses(t *testing.T) {
	if _, err := load(fstest.MapFS{}); err == nil {
		t.Error("an empty tree passed: the wrong root would pass too")
	}
	if _, err := load(fstest.MapFS{"a/a.go": {Data: []byte("package a\nfunc (")}}); err == nil {
		t.Error("a file that does not parse passed")
	}
}

func findings(t *testing.T, file, src string) []string {
	t.Helper()
	tree := house()
	tree[file] = &fstest.MapFile{Data: []byte(src)}
	sources, err := load(tree)
	if err != nil {
		t.Fatal(err)
	}
	return check("m", small, sources)
}
