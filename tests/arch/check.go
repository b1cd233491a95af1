package arch

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxLines is the longest file that a person reads as a whole.
const maxLines = 500

// A source is one Go file of the tree.
type source struct {
	file string // below the root
	pkg  string // the folder
	text []byte
	ast  *ast.File
	fset *token.FileSet
}

func (s source) isTest() bool { return strings.HasSuffix(s.file, "_test.go") }

var generatedLine = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

// load reads all Go files below the root, whatever their build constraints.
func load(root fs.FS) ([]source, error) {
	var out []source
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || name == "bin" || name == "out") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		s := source{file: name, pkg: path.Dir(name), text: text, fset: token.NewFileSet()}
		s.ast, err = parser.ParseFile(s.fset, name, text, parser.ParseComments)
		if err != nil {
			return fmt.Errorf("parse: %w", err)
		}
		out = append(out, s)
		return nil
	})
	if err == nil && len(out) == 0 {
		err = errors.New("no Go file below the root")
	}
	return out, err
}

// A checker compares sources with the table.
type checker struct {
	module string
	places map[string]place
	found  []string
}

// check returns what in the sources is not as the table draws it.
func check(module string, tab []place, sources []source) []string {
	c := &checker{module: module, places: map[string]place{}}
	for _, p := range tab {
		c.places[p.path] = p
	}
	inTree, documented := map[string]bool{}, map[string]bool{}
	for _, s := range sources {
		c.style(s)
		if s.isTest() {
			continue // tests may import anything
		}
		inTree[s.pkg] = true
		if s.ast.Doc != nil && startsRight(s.ast) {
			documented[s.pkg] = true
		}
		p, ok := c.places[s.pkg]
		if !ok {
			continue
		}
		c.imports(s, p)
		if p.pure {
			c.purity(s, p)
		}
	}
	c.packages(tab, inTree, documented)
	slices.Sort(c.found)
	return c.found
}

// packages checks the folders as a whole.
func (c *checker) packages(tab []place, inTree, documented map[string]bool) {
	for pkg := range inTree {
		if _, ok := c.places[pkg]; !ok {
			c.addf("%s: not in the table: decide its floor and add a line to tests/arch/table.go", pkg)
		}
		if !documented[pkg] {
			c.addf("%s: no package comment: begin one of its files with // Package NAME and a sentence of purpose", pkg)
		}
	}
	for _, p := range tab {
		if !inTree[p.path] {
			c.addf("%s: in the table and not in the tree: remove its line from tests/arch/table.go", p.path)
		}
	}
}

// startsRight reports whether the comment is one that go doc would take for the
// package's purpose.
func startsRight(f *ast.File) bool {
	text := f.Doc.Text()
	if f.Name.Name == "main" {
		return strings.TrimSpace(text) != ""
	}
	return strings.HasPrefix(text, "Package "+f.Name.Name+" ")
}

func (c *checker) addf(format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf(format, args...))
}

func (c *checker) at(s source, p token.Pos, format string, args ...any) {
	c.addf("%s: "+format, append([]any{s.fset.Position(p)}, args...)...)
}

// unfinished is the word that marks work left for later.
const unfinished = "TO" + "DO"

// style checks what holds for any file.
func (c *checker) style(s source) {
	if i := bytes.Index(s.text, []byte(unfinished)); i >= 0 {
		c.addf("%s:%d: says %s: do it, or write an issue", s.file, 1+bytes.Count(s.text[:i], []byte("\n")), unfinished)
	}
	if s.isTest() || generatedLine.Match(s.text) {
		return
	}
	if n := bytes.Count(s.text, []byte("\n")); n > maxLines {
		c.addf("%s: %d lines, at most %d: split it", s.file, n, maxLines)
	}
}

// imports checks the direction of imports.
func (c *checker) imports(s source, from place) {
	for _, imp := range s.ast.Imports {
		target, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			c.at(s, imp.Pos(), "import path %s: %v", imp.Path.Value, err)
			continue
		}
		rel, ours := strings.CutPrefix(target, c.module+"/")
		if !ours {
			c.foreign(s, from, imp, target)
			continue
		}
		to, ok := c.places[rel]
		switch {
		case !ok: // reported once, for the package itself
		case to.floor > from.floor:
			c.at(s, imp.Pos(), "%s (floor %s) imports %s (floor %s): imports go down only", from.path, from.floor, rel, to.floor)
		case to.floor == from.floor && from.floor != judge && !slices.Contains(from.edges, rel):
			c.at(s, imp.Pos(), "%s and %s are both on floor %s: packages of one floor do not import each other; declare the interface that is needed", from.path, rel, to.floor)
		case from.pure && !to.pure:
			c.at(s, imp.Pos(), "pure package %s imports %s, which acts", from.path, rel)
		}
	}
}

// foreign checks an import from outside the module.
func (c *checker) foreign(s source, from place, imp *ast.ImportSpec, target string) {
	if !from.pure || standard[target] {
		return
	}
	if _, ok := from.foreign[target]; ok {
		return
	}
	c.at(s, imp.Pos(), "pure package %s imports %s, which is not among those that only compute (tests/arch/table.go)", from.path, target)
}

// purity checks that a file of a pure package decides and does not act.
func (c *checker) purity(s source, p place) {
	names := map[string]string{} // as the file calls them, to import path
	for _, imp := range s.ast.Imports {
		target, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			continue // reported by imports
		}
		name := path.Base(target)
		if imp.Name != nil {
			name = imp.Name.Name
		}
		if name == "." {
			c.at(s, imp.Pos(), "pure package %s imports %s by dot, which hides what it uses of it", p.path, target)
		}
		names[name] = target
	}
	ast.Inspect(s.ast, func(n ast.Node) bool {
		what := ""
		switch n := n.(type) {
		case *ast.GoStmt:
			what = "starts a goroutine"
		case *ast.ChanType:
			what = "has a channel"
		case *ast.SendStmt:
			what = "sends on a channel"
		case *ast.SelectStmt:
			what = "selects among channels"
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				what = "receives from a channel"
			}
		case *ast.SelectorExpr:
			what = acts(names, n)
		}
		if what != "" {
			c.at(s, n.Pos(), "pure package %s %s: take it as an argument, or return it as an effect", p.path, what)
		}
		return true
	})
}

// acts says what a use of an imported name does that a pure package must not.
func acts(names map[string]string, n *ast.SelectorExpr) string {
	id, ok := n.X.(*ast.Ident)
	if !ok || id.Obj != nil { // Obj: declared in this file, so not an import
		return ""
	}
	target, ok := names[id.Name]
	if !ok {
		return ""
	}
	allowed, limited := only[target]
	if never[target][n.Sel.Name] || limited && !allowed[n.Sel.Name] {
		return "uses " + cmp.Or(target, id.Name) + "." + n.Sel.Name
	}
	return ""
}
