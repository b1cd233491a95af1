package config

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzParseDocument: never a panic; an error is a join of located one-line errors; and
// what is accepted is a document that the cluster takes and that can be shown.
func FuzzParseDocument(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds in testdata", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, err := ParseDocument("f.yaml", b)
		if err != nil {
			checkErrors(t, err, "f.yaml")
			return
		}
		if err := doc.Check(); err != nil {
			t.Fatal(err)
		}
		roundTrip(t, doc)
		for _, p := range Warnings(doc) {
			if p.Path == "" || p.Text == "" || p.Do == "" {
				t.Errorf("warning %+v", p)
			}
		}
	})
}
