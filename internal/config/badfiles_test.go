package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

const goodFile = "cluster: prod\npeers: [10.0.0.1:7950]\nkey_file: /k\nvips:\n  web:\n    addresses: [10.0.0.200/24]\n"

// inUTF16 is a text as some editors save it, the lower byte of each two first.
func inUTF16(s string) string {
	b := []byte{0xff, 0xfe}
	for _, c := range utf16.Encode([]rune(s)) {
		b = append(b, byte(c), byte(c>>8))
	}
	return string(b)
}

// badFiles are those that are too odd, or too large, to lie in testdata.
func badFiles() map[string]string {
	return map[string]string{
		"utf16":           inUTF16(goodFile),
		"utf16-no-mark":   inUTF16(goodFile)[2:],
		"latin1":          strings.Replace(goodFile, "cluster: prod", "cluster: prod # f\xfcr alle", 1),
		"zeros":           strings.Repeat("\x00", 4096),
		"zeros-at-end":    goodFile + strings.Repeat("\x00", 512), // as a file system leaves it after a crash
		"escape":          strings.Replace(goodFile, "prod", "\x1b[31mprod", 1),
		"not-a-character": strings.Replace(goodFile, "prod", "pr\uffffod", 1),
		"bom-and-error":   "\ufeff" + strings.Replace(goodFile, "cluster: prod", "cluster: 7", 1),
		"crlf-and-error":  strings.ReplaceAll(strings.Replace(goodFile, "/24", "", 1), "\n", "\r\n"),
		"old-mac":         strings.ReplaceAll(strings.Replace(goodFile, "/24", "", 1), "\n", "\r"),
		"nested-lists":    strings.Repeat("[", 1<<20),
		"nested-keys":     strings.Repeat("{a: ", 1<<18),
		"nested-lines":    nestedLines(1 << 10),
		"nested-dashes":   strings.Repeat("- ", 1<<19),
		"nested-value":    goodFile + "    apart: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "\n",
		"long-line":       "cluster: prod\n" + "node: " + strings.Repeat("n", 1<<16) + "\npeers: [10.0.0.1:7950]\nkey_file: /k\nvips: {}\n",
		"long-flow":       strings.Replace(goodFile, "[10.0.0.200/24]", "["+strings.Repeat("10.0.0.200/24, ", 30)+"10.0.0.300/24]", 1),
		"too-long":        strings.Repeat("# nothing\n", 1<<17),
		"quote-open":      strings.Replace(goodFile, "cluster: prod", "cluster: \"prod", 1),
		"password-open":   goodFile + "    vrrp:\n      version: 2\n      password: \"s3cret\n      id: 51\n",
		"password-flow":   goodFile + "    vrrp: {id: 300, version: 2, password: s3cret, interval: 1ms}\n",
		"password-long":   goodFile + "    vrrp:\n      id: 51\n      version: 2\n      password:\n        a s3cret that is too long, and has a comma\n",
		"password-wrong":  goodFile + "    vrrp: {id: 51, version: 2, pasword: s3cret}\n",
		"password-twice":  goodFile + "    vrrp: {id: 51, version: 2, password: s3cret, password: s3cret}\n",
		"password-list":   goodFile + "    vrrp: {id: 51, version: 2, password: [s3cret]}\n",
		"password-tab":    goodFile + "    vrrp:\n\tpassword: s3cret\n",
		"password-below":  goodFile + "    vrrp:\n      password: |\n\ts3cret\n",
		"many-errors":     goodFile + strings.Repeat("  x: {y: 1}\n", 60),
		"many-documents":  strings.Repeat("---\n"+goodFile, 3),
		"control-c1":      strings.Replace(goodFile, "prod", "pr\u0085od", 1),
		"emoji":           strings.Replace(goodFile, "addresses: [10.0.0.200/24]", "addresses: [10.0.0.200/24] # 🚀🚀 \n    hooks: {active: [/bin/宛先, 中文, 5]}", 1),
		"tag":             strings.Replace(goodFile, "prod", "!!binary cHJvZA==", 1),
		"tag-empty":       goodFile + "    preempt: !!bool\n    reset_connections: !!bool yes\n    routes: [{to: 192.0.2.0/24, via: 10.0.0.254, metric: !!int x, table: !!int \"\", onlink: !!bool}]\n",
		"tag-python":      strings.Replace(goodFile, "prod", "!!python/object/apply:os.system [id]", 1),
		"yaml-1.1":        "%YAML 1.1\n---\n" + strings.Replace(goodFile, "    addresses", "    vmac: yes\n    addresses", 1),
		"billion-laughs":  "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n",
		"json":            `{"cluster": "prod", "peers": ["10.0.0.1:7950"], "key_file": "/k", "vips": {"web": {"addresses": ["10.0.0.200"]}}}`,
		"html":            "<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n",
		"conf":            "! Configuration File for keepalived\nvrrp_instance VI_1 {\n    state MASTER\n    interface eth0\n}\n",
		"conf-global":     "global_defs {\n    router_id a\n}\nvrrp_instance VI_1 {\n    state MASTER\n}\n",
		"merge-conflict":  "cluster: prod\n<<<<<<< HEAD\npeers: [10.0.0.1:7950]\n=======\npeers: [10.0.0.2:7950]\n>>>>>>> theirs\n",
	}
}

func nestedLines(depth int) string {
	var b strings.Builder
	for i := range depth {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// TestBadFiles: what is said of files that no person means to write.
func TestBadFiles(t *testing.T) {
	for name, text := range badFiles() {
		t.Run(name, func(t *testing.T) {
			_, err := host().Parse(name+".yaml", []byte(text))
			if err == nil {
				t.Fatal("it was accepted")
			}
			got := err.Error() + "\n"
			if len(got) > 40000 || strings.Contains(got, "s3cret") || !utf8.ValidString(got) || strings.ContainsAny(got, "\x1b\x00\r") {
				t.Errorf("%d bytes: %.2000q", len(got), got)
			}
			checkErrors(t, err, name+".yaml")
			path := filepath.Join("testdata", "bad", name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatalf("%v (go test -update writes it)", err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// TestOddGoodFiles: these are well, however they were saved.
func TestOddGoodFiles(t *testing.T) {
	for name, text := range map[string]string{
		"byte order mark": "\ufeff" + goodFile, "CRLF": strings.ReplaceAll(goodFile, "\n", "\r\n"), "no last line end": strings.TrimSpace(goodFile),
		"document marks": "---\n" + goodFile + "...\n", "tabs after values": strings.ReplaceAll(goodFile, "\n", "\t# note\n"),
	} {
		if _, err := host().Parse("x.yaml", []byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestExcerpt: the mark stands below the place, whatever is before it.
func TestExcerpt(t *testing.T) {
	long := strings.Repeat("x", 200)
	tests := []struct {
		name, text   string
		column       int
		value        string
		line, marked string
	}{
		{"plain", "lease: 1ms", 8, "1ms", "lease: 1ms", "       ^^^"},
		{"a tab before it", "a:\t1ms", 4, "1ms", "a:→1ms", "   ^^^"},
		{"wide before it", "宛先: 1ms", 5, "1ms", "宛先: 1ms", "      ^^^"},
		{"wide itself", "a: 宛先", 4, "宛先", "a: 宛先", "   ^^^^"},
		{"combining", "e\u0301: 1ms", 5, "1ms", "e\u0301: 1ms", "   ^^^"},
		{"quoted", `a: "x y" # z`, 4, "x y", `a: "x y" # z`, "   ^^^^^"},
		{"escape", "a: \x1b[31m", 4, "", "a: \ufffd[31m", "   ^"},
		{"beyond the end", "a:", 9, "", "a:", "  ^"},
		{"far right", long + " 1ms " + long, 202, "1ms", "…" + strings.Repeat("x", 59) + " 1ms " + strings.Repeat("x", 32) + "…", strings.Repeat(" ", 61) + "^^^"},
		{"long value", "a: " + long, 4, long, "a: " + strings.Repeat("x", 93) + "…", "   " + strings.Repeat("^", 93)},
		{"just fits", strings.Repeat("y", 92) + " 1ms", 94, "1ms", strings.Repeat("y", 92) + " 1ms", strings.Repeat(" ", 93) + "^^^"},
	}
	for _, tt := range tests {
		src := newSource(tt.text)
		src.parsed = true
		e := &Error{Line: 1, Column: tt.column, Path: "a", Value: tt.value, src: src}
		if line, mark := e.Excerpt(0); line != tt.line || mark != tt.marked {
			t.Errorf("%s:\n%s\n%s\nwant\n%s\n%s", tt.name, line, mark, tt.line, tt.marked)
		}
	}
	if line, mark := (&Error{Line: 3, src: newSource("x")}).Excerpt(0); line != "" || mark != "" {
		t.Errorf("beyond the file: %q, %q", line, mark)
	}
	if line, mark := (&Error{Text: "x"}).Excerpt(0); line != "" || mark != "" {
		t.Errorf("without a place: %q, %q", line, mark)
	}
	narrow := &Error{Line: 1, Column: 31, Path: "a", Value: "1ms", src: newSource(strings.Repeat("x", 30) + "1ms, " + long)}
	if line, mark := narrow.Excerpt(32); line != "…"+strings.Repeat("x", 20)+"1ms, "+strings.Repeat("x", 7)+"…" || mark != strings.Repeat(" ", 21)+"^^^" {
		t.Errorf("in 32 columns:\n%s\n%s", line, mark)
	}
}
