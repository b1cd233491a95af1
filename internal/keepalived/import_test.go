package keepalived

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
)

// files is a file system of one file for node n1.
func files(text string) (fstest.MapFS, []Source) {
	return fstest.MapFS{"n1.conf": {Data: []byte(text)}}, []Source{{Node: "n1", Path: "n1.conf"}}
}

const one = "vrrp_instance V { interface eth0\nvirtual_router_id 51\nvirtual_ipaddress { 10.0.0.200/24 } }\n"

func peers(addresses ...string) (out []Peer) {
	for _, a := range addresses {
		name, address, ok := strings.Cut(a, "=")
		if !ok {
			name, address = "", a
		}
		out = append(out, Peer{Node: name, Address: netip.AddrPortFrom(netip.MustParseAddr(address), 7950)})
	}
	return out
}

// TestRefused has what would not be a readable sample: large files, and those that are
// no text.
func TestRefused(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"a megabyte of nesting":   {strings.Repeat("{", 1<<20), "n1.conf:1: a line of 1048576 bytes"},
		"the same in lines":       {"x\n" + strings.Repeat("{\n", 1<<17), "n1.conf:3: { without a keyword"},
		"nesting with keywords":   {strings.Repeat("vrrp_instance {\n", 1<<16), "n1.conf:17: blocks more than 16 deep"},
		"nesting of parentheses":  {"~SEQ" + strings.Repeat("(", 1000) + "\n", "~SEQ or ~LST without its parentheses"},
		"binary":                  {"vrrp\n\x00\x01\x02", "is not text: line 2 has a zero byte"},
		"too long":                {strings.Repeat("# a comment\n", 400_000), "longer than 4194304 bytes"},
		"too many lines":          {"~SEQ(A, 1, 1000) ~SEQ(B, 1, 1000) x\n", "more than 200000 lines come of the files"},
		"repetition in a list":    {"$M= \\\n $M \\\n $M\n$M\n", "names within names more than 32 deep"},
		"a name that doubles":     {"$A=$A $A\n$A\n", "names within names more than 32 deep"},
		"an unfinished paragraph": {"$M= \\\n a \\", "no addresses were found"},
		"no instances":            {"", "no addresses were found to be held"},
		"many unknown":            {strings.Repeat("x\n", 1) + manyUnknown(), "more errors; correct those above first"},
	} {
		t.Run(name, func(t *testing.T) {
			fsys, sources := files(tc.text)
			res, err := Import(fsys, sources, Options{Mode: Raft, Cluster: "prod"})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v, want %q", err, tc.want)
			}
			if res.YAML != nil {
				t.Errorf("and yet it wrote %q", res.YAML)
			}
			if n := len(err.Error()); n > 64<<10 {
				t.Errorf("an error of %d bytes", n)
			}
			if e := (*Error)(nil); !errors.As(err, &e) || e.Do == "" {
				t.Errorf("the error does not say what to do: %v", err)
			}
		})
	}
}

func manyUnknown() string {
	var b strings.Builder
	for i := range 60 {
		fmt.Fprintf(&b, "unknown%d\n", i)
	}
	return b.String()
}

// TestNames: a node is called as the caller says, else as its directory, else by its
// router_id, and a single one as the host.
func TestNames(t *testing.T) {
	fsys := fstest.MapFS{
		"etc/keepalived/keepalived.conf": {Data: []byte("global_defs { router_id lb-1.example.org }\n" + one)},
		"plain.conf":                     {Data: []byte(one)},
		"hosts/n1/keepalived.conf":       {Data: []byte(one)},
		"hosts/n2/keepalived.conf":       {Data: []byte(one)},
	}
	for name, tc := range map[string]struct {
		sources []Source
		want    string // node: of the file, or an error
	}{
		"said":           {[]Source{{Node: "web1", Path: "plain.conf"}}, "node: web1\n"},
		"directory":      {[]Source{{Path: "hosts/n1/keepalived.conf"}, {Path: "hosts/n2/keepalived.conf"}}, "node: n1\n"},
		"router_id":      {[]Source{{Path: "etc/keepalived/keepalived.conf"}}, "node: lb-1.example.org\n"},
		"host":           {[]Source{{Path: "plain.conf"}}, "node: here\n"},
		"twice":          {[]Source{{Path: "hosts/n1/keepalived.conf"}, {Node: "n1", Path: "plain.conf"}}, "node n1 a second time, first hosts/n1/keepalived.conf; write NAME=plain.conf"},
		"two without":    {[]Source{{Path: "hosts/n1/keepalived.conf"}, {Path: "plain.conf"}}, "plain.conf: no name for this node"},
		"not a name":     {[]Source{{Node: "a b", Path: "plain.conf"}}, "plain.conf: no name for this node"},
		"not there":      {[]Source{{Node: "n1", Path: "none.conf"}}, "none.conf: cannot be read: file does not exist"},
		"a directory":    {[]Source{{Node: "n1", Path: "hosts"}}, "hosts: cannot be read"},
		"another's node": {[]Source{{Node: "n1", Path: "plain.conf"}, {Node: "n3", Path: "plain.conf"}}, "node: n1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := Import(fsys, tc.sources, Options{Mode: VRRP, Host: "here"})
			if got := fmt.Sprintf("%s%v", res.YAML, err); !strings.Contains(got, tc.want) {
				t.Errorf("got %s, want %q", got, tc.want)
			}
		})
	}
	_, err := Import(fsys, []Source{{Node: "n1", Path: "plain.conf"}}, Options{Mode: VRRP, Node: "n9"})
	if err == nil || !strings.Contains(err.Error(), "no file is of node n9; write one of the names that the files have: n1") {
		t.Errorf("another node: %v", err)
	}
}

// TestPeers: addresses without a name are given to the nodes by their unicast_src_ip,
// else in order.
func TestPeers(t *testing.T) {
	from := func(src string) []byte {
		return []byte(strings.Replace(one, "virtual_ip", "unicast_src_ip "+src+"\nvirtual_ip", 1))
	}
	fsys := fstest.MapFS{"n1.conf": {Data: from("10.0.0.1")}, "n2.conf": {Data: from("10.0.0.2")}}
	sources := []Source{{Node: "n1", Path: "n1.conf"}, {Node: "n2", Path: "n2.conf"}}
	for name, tc := range map[string]struct {
		peers []Peer
		want  string // address: of the file, or an error
	}{
		"by source":  {peers("10.0.0.9", "10.0.0.2", "10.0.0.1"), "\naddress: 10.0.0.1:7950\n"},
		"in order":   {peers("10.1.0.1", "10.1.0.2", "10.1.0.3"), "\naddress: 10.1.0.1:7950\n"},
		"by name":    {peers("10.1.0.3", "n2=10.1.0.2", "n1=10.1.0.1"), "\naddress: 10.1.0.1:7950\n"},
		"witness":    {peers("n1=10.0.0.1", "n2=10.0.0.2", "w=10.0.0.3"), "# On w=10.0.0.3 write its node:"},
		"six others": {peers("n1=10.0.0.1", "n2=10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8"), "8 nodes, and a cluster has at most 7"},
		"twice":      {peers("n1=10.0.0.1", "n2=10.0.0.1", "10.0.0.3"), "--peers has 10.0.0.1:7950 twice"},
		"one is not": {peers("n1=10.0.0.1", "a=10.0.0.2", "b=10.0.0.3"), "--peers has no address for node n2; add n2=ADDRESS"},
		"two":        {peers("10.0.0.1", "10.0.0.2"), "such as --peers n1=10.0.0.1,n2=10.0.0.2,10.0.0.3"},
		"none":       {nil, "such as --peers n1=10.0.0.1,n2=10.0.0.2,10.0.0.3"},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := Import(fsys, sources, Options{Mode: Raft, Cluster: "prod", Peers: tc.peers})
			if got := fmt.Sprintf("%s%v", res.YAML, err); !strings.Contains(got, tc.want) {
				t.Errorf("got %s, want %q", got, tc.want)
			}
		})
	}
}

// TestEveryKeyword gives each keyword of the tables a place in a file: none may be
// passed over silently.
func TestEveryKeyword(t *testing.T) {
	n := 0
	try := func(t *testing.T, before, word string, k keyword, after string) {
		text := before + word
		switch k.shape {
		case value:
			text += " 1"
		default:
			text += " x { 1 }"
		}
		fsys, sources := files(text + "\n" + after + one)
		for _, mode := range []Mode{Raft, VRRP} {
			res, err := Import(fsys, sources, Options{Mode: mode, Cluster: "prod", Peers: peers("10.0.0.1", "10.0.0.2", "10.0.0.3"), Lenient: true})
			if err != nil {
				t.Errorf("%s: %v", word, err)
				continue
			}
			line := 1 + strings.Count(before, "\n")
			found := false
			for _, f := range res.Report.Findings {
				found = found || f.Line == line
			}
			if !found {
				t.Errorf("nothing is said of %s, %v", word, mode)
			}
			accepted(t, word, res.YAML)
		}
		n++
	}
	for word, k := range rootKeywords {
		if k.shape != section {
			try(t, "", word, k, "")
			continue
		}
		for inner, ik := range k.sub {
			if ik.shape != section {
				try(t, word+" other {\n", inner, ik, "}\n")
			}
		}
	}
	for word, k := range authKeywords {
		try(t, "vrrp_instance a {\nauthentication {\n", word, k, "}\n}\n")
	}
	if n < 200 {
		t.Errorf("only %d keywords were tried", n)
	}
}

// FuzzImport: whatever the file holds, the import ends, says each error in one line
// with what to do, and what it writes is a configuration in which nothing is silently
// missing from the report.
func FuzzImport(f *testing.F) {
	for _, s := range samplesOf(f) {
		f.Add(s, true)
	}
	f.Add(one, false)
	f.Fuzz(func(t *testing.T, text string, plain bool) {
		fsys, sources := files(text)
		opt := Options{Mode: Raft, Cluster: "prod", Peers: peers("10.9.9.1", "10.9.9.2", "10.9.9.3"), Lenient: true}
		if plain {
			opt.Mode = VRRP
		}
		res, err := Import(fsys, sources, opt)
		if err == nil {
			accepted(t, text, res.YAML)
			saidOfAll(t, fsys, sample{sources: sources, opt: opt}, res)
			both := append(sources, Source{Node: "n2", Path: "n1.conf"}) // the same file, with the lines for @n2
			if res, err := Import(fsys, both, opt); err == nil {
				accepted(t, text, res.YAML)
			}
			return
		}
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok {
			t.Fatalf("%T, not joined errors", err)
		}
		for _, err := range joined.Unwrap() {
			if e := (*Error)(nil); !errors.As(err, &e) || e.Do == "" || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q", err)
			}
		}
	})
}
