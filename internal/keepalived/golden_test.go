package keepalived

import (
	"bytes"
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/internal/config"
)

var update = flag.Bool("update", false, "write the expected texts in testdata anew; the diff is the review")

// A sample is the files of one import: NAME.conf, or NAME.n1.conf, NAME.n2.conf and
// so on. The first line of the first may have options for it: "# options: election=vrrp
// node=n2 peers=10.0.0.1,10.0.0.2 config-id=high lenient".
type sample struct {
	name    string
	sources []Source
	opt     Options
}

func samples(t *testing.T) []sample {
	files, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d files in testdata, err %v", len(files), err)
	}
	var out []sample
	for _, f := range files {
		base := strings.TrimSuffix(filepath.Base(f), ".conf")
		name, node, many := strings.Cut(base, ".")
		if !many {
			node = "n1"
		}
		src := Source{Node: node, Path: filepath.Base(f)}
		if i := slices.IndexFunc(out, func(s sample) bool { return s.name == name }); i >= 0 {
			out[i].sources = append(out[i].sources, src)
			continue
		}
		out = append(out, sample{name: name, sources: []Source{src}, opt: optionsOf(t, f)})
	}
	return out
}

func optionsOf(t *testing.T, file string) Options {
	t.Helper()
	opt := Options{Mode: Raft, Cluster: "prod", ConfigID: map[string]string{}}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(b), "\n")
	words, ok := strings.CutPrefix(strings.TrimRight(first, "\r"), "# options: ")
	if !ok {
		return opt
	}
	for _, w := range strings.Fields(words) {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "election":
			opt.Mode = VRRP
		case "node":
			opt.Node = value
		case "lenient":
			opt.Lenient = true
		case "config-id":
			opt.ConfigID[""] = value
		case "peers":
			for _, a := range strings.Split(value, ",") {
				opt.Peers = append(opt.Peers, Peer{Address: netip.AddrPortFrom(netip.MustParseAddr(a), config.DefaultPort)})
			}
		default:
			t.Fatalf("%s: unknown option %s", file, w)
		}
	}
	return opt
}

// TestGolden translates every sample and compares the file with NAME.yaml and the
// report, with the errors, with NAME.report. Samples named err-* must be refused; what
// is written for all others must be a configuration.
func TestGolden(t *testing.T) {
	fsys := os.DirFS("testdata")
	for _, s := range samples(t) {
		t.Run(s.name, func(t *testing.T) {
			res, err := Import(fsys, s.sources, s.opt)
			if refused := strings.HasPrefix(s.name, "err-"); refused != (err != nil) {
				t.Errorf("Import: error %v", err)
			}
			var report bytes.Buffer
			if _, err := res.Report.WriteTo(&report); err != nil {
				t.Fatal(err)
			}
			if err != nil {
				report.WriteString("error: " + strings.ReplaceAll(err.Error(), "\n", "\nerror: ") + "\n")
			} else {
				accepted(t, s.name, res.YAML)
				saidOfAll(t, fsys, s, res)
			}
			compare(t, s.name+".report", report.Bytes())
			compare(t, s.name+".yaml", res.YAML)
		})
	}
}

// samplesOf are the texts of the samples, as seeds.
func samplesOf(t testing.TB) (out []string) {
	names, err := filepath.Glob("testdata/*.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(b))
	}
	return out
}

// accepted checks that what was written is a configuration.
func accepted(t *testing.T, name string, b []byte) {
	t.Helper()
	host := config.Host{
		Name:      func() (string, error) { return "nobody", nil },
		Addresses: func() ([]netip.Addr, error) { return nil, nil },
	}
	if _, err := host.Parse(name+".yaml", b); err != nil {
		t.Errorf("not a configuration: %v", err)
	}
}

// compare compares a text with a file; nothing with no file.
func compare(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update && len(got) > 0 {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil && (len(got) > 0 || !os.IsNotExist(err)) {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got)\n%s", name, d)
	}
}

// saidOfAll checks that the report has something of each statement of the files: what
// it does not name was lost silently.
func saidOfAll(t *testing.T, fsys fs.FS, s sample, res *Result) {
	t.Helper()
	said := map[pos]bool{}
	for _, f := range res.Report.Findings {
		said[pos{f.File, f.Line}] = true
	}
	for _, src := range s.sources {
		src.Name = src.Path
		id := src.Node
		if v, ok := s.opt.ConfigID[""]; ok {
			id = v
		}
		r := &reader{fsys: fsys, id: id, probs: &problems{}, report: &Report{}, lenient: s.opt.Lenient}
		r.file(src.Path, src.Name)
		var walk func(known keywords, all []*statement)
		walk = func(known keywords, all []*statement) {
			for _, st := range all {
				k := known[st.keyword()]
				if (k.shape == section || k.shape == entries) && len(st.block) > 0 {
					walk(k.sub, st.block)
					continue
				}
				if !said[st.at] {
					t.Errorf("%s: nothing is said of %s", st.at, st.subject())
				}
			}
		}
		walk(rootKeywords, parse(r.out, &problems{}))
	}
}
