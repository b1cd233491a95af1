package config

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/quorate/quorate/fsm"
)

// renderRest is what a document says of placement, health and hooks, as the golden
// files show it.
func renderRest(d fsm.Document) string {
	var b strings.Builder
	for _, k := range d.Checks {
		fmt.Fprintf(&b, "check %s every %s timeout %s rise %d fall %d weight %d:", k.Name, k.Interval, k.Timeout, k.Rise, k.Fall, k.Weight)
		if h := k.HTTP; h != nil {
			fmt.Fprintf(&b, " http %s host %q status %d-%d match %q ca %q insecure=%v", h.URL, h.Host, h.StatusMin, h.StatusMax, h.Match, h.CA, h.Insecure)
		}
		if c := k.Command; c != nil {
			fmt.Fprintf(&b, " command %q user %q", c.Argv, c.User)
		}
		if f := k.File; f != nil {
			fmt.Fprintf(&b, " file %s match %q", f.Path, f.Match)
		}
		for _, s := range []struct{ kind, what string }{{"tcp", k.TCP}, {"icmp", k.ICMP}, {"process", k.Process}, {"systemd", k.Systemd}} {
			if s.what != "" {
				fmt.Fprintf(&b, " %s %s", s.kind, s.what)
			}
		}
		b.WriteString("\n")
	}
	b.WriteString(renderHooks("hooks", d.Hooks))
	for _, g := range d.Groups {
		line := ""
		for _, name := range slices.Sorted(maps.Keys(g.Priority)) {
			line += fmt.Sprintf(" priority of %s %d", name, g.Priority[name])
		}
		if g.Weight != 1 {
			line += fmt.Sprintf(" weight %d", g.Weight)
		}
		for _, l := range []struct {
			key   string
			names []string
		}{{"apart", g.Apart}, {"together", g.Together}, {"checks", g.Checks}} {
			if len(l.names) > 0 {
				line += fmt.Sprintf(" %s %v", l.key, l.names)
			}
		}
		for _, t := range g.TrackInterfaces {
			line += fmt.Sprintf(" track %s %d", t.Interface, t.Weight)
		}
		if g.WhenAllFail != fsm.AllFailKeep {
			line += " when all fail " + g.WhenAllFail.String()
		}
		if g.OnQuorumLoss != fsm.QuorumLossRelease {
			line += " on quorum loss " + g.OnQuorumLoss.String()
		}
		if line != "" {
			fmt.Fprintf(&b, "%s:%s\n", g.Name, line)
		}
		b.WriteString(renderHooks(g.Name+" hooks", g.Hooks))
		b.WriteString(renderReach(g))
	}
	return b.String()
}

func renderReach(g fsm.Group) string {
	var b strings.Builder
	for _, p := range g.Addresses {
		if s, special := g.Specs[p.Addr()]; special {
			fmt.Fprintf(&b, "%s: %s on %q scope %s label %q noprefixroute=%v unadvertised=%v\n", g.Name, p, s.Interface, s.Scope, s.Label, s.NoPrefixRoute, s.Unadvertised)
		}
	}
	for _, r := range g.Routes {
		fmt.Fprintf(&b, "%s: route to %s via %s on %q source %s table %d metric %d onlink=%v\n", g.Name, r.To, r.Via, r.Interface, r.Source, r.Table, r.Metric, r.OnLink)
	}
	for _, r := range g.Rules {
		fmt.Fprintf(&b, "%s: rule from %s to %s in %q mark %d table %d priority %d\n", g.Name, r.From, r.To, r.Interface, r.Mark, r.Table, r.Priority)
	}
	if g.KeepConnections {
		fmt.Fprintf(&b, "%s: keeps connections\n", g.Name)
	}
	return b.String()
}

func renderHooks(what string, h fsm.Hooks) string {
	if !h.Any() && h.Timeout == 0 {
		return ""
	}
	return fmt.Sprintf("%s: active %q backup %q fault %q timeout %s\n", what, h.Active, h.Backup, h.Fault, h.Timeout)
}

var sameDocument = []cmp.Option{
	cmpopts.IgnoreFields(fsm.Document{}, "Revision", "MaxHold"),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

// roundTrip checks that a document is what is read of its rendering.
func roundTrip(t *testing.T, doc fsm.Document) {
	t.Helper()
	text := RenderDocument(doc)
	got, err := ParseDocument("d.yaml", text)
	if err != nil {
		t.Fatalf("read back: %v\n%s", err, text)
	}
	if d := cmp.Diff(doc, got, sameDocument...); d != "" {
		t.Fatalf("(-document +read back)\n%s\n%s", d, text)
	}
	if err := got.Check(); err != nil {
		t.Fatal(err)
	}
}

// TestRenderGolden: the document of every file that is accepted comes back from its
// rendering, and from the file itself as apply reads it.
func TestRenderGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for _, f := range files {
		name := filepath.Base(f)
		if !strings.HasPrefix(name, "ok-") && !strings.HasPrefix(name, "warn-") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := host().Parse(name, b)
			if err != nil {
				t.Fatal(err)
			}
			doc, err := ParseDocument(name, b)
			if cfg.Election == ElectVRRP {
				if err == nil || !strings.Contains(err.Error(), "share no document") {
					t.Fatalf("a document of a router of its own: error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(cfg.Document, doc, sameDocument[1:]...); d != "" {
				t.Errorf("(-Parse +ParseDocument)\n%s", d)
			}
			roundTrip(t, doc)
			read++
		})
	}
	if read < 15 {
		t.Errorf("%d documents", read)
	}
}

// TestRenderRandom: so do documents that nobody would write.
func TestRenderRandom(t *testing.T) {
	for seed := range uint64(250) {
		roundTrip(t, randomDocument(rand.New(rand.NewPCG(seed, 5))))
	}
}

const oneGroup = "vips: {web: {addresses: [10.0.0.200/24]}}\n"

func TestParseDocument(t *testing.T) {
	tests := []struct {
		name, text string
		hold       time.Duration // of a document that is taken
		want       string        // the error
	}{
		{name: "vips alone", text: oneGroup, hold: 5 * time.Second},
		{name: "checks and hooks", text: "checks: {a: {process: a}}\nhooks: {fault: [/x]}\nvips: {web: {addresses: [10.0.0.200/24], checks: [a]}}\n", hold: 5 * time.Second},
		{name: "what is of a node is left out", text: "cluster: other\nnode: n9\naddress: 10.0.0.9:1\npeers: []\nkey_file: relative\n" + oneGroup, hold: 5 * time.Second},
		{name: "a longer lease", text: "lease: 20s\nfence: lifetime\n" + oneGroup, hold: 21500 * time.Millisecond},
		{name: "adverts are for the nodes to judge", text: "vips: {web: {addresses: [10.0.0.200/24], vrrp: {id: 1, interval: 10ms}}}\n", hold: 5 * time.Second},
		{name: "a lease out of bounds", text: "lease: 1ms\n" + oneGroup, want: "d.yaml:1:8: lease: must be 50ms to 30s"},
		{name: "an unknown key", text: "vip: {}\n", want: "d.yaml:1:1: vip: unknown key; did you mean vips?"},
		{name: "nothing", text: "# nothing\n", want: "d.yaml: the file is empty; write at least vips with one group"},
		{name: "no groups", text: "checks: {}\n", want: "d.yaml:1:1: vips: required; write at least one group: what is applied replaces the whole document"},
		{name: "not a mapping", text: "[]\n", want: "d.yaml:1:1: must be keys with values"},
		{name: "too long", text: oneGroup + strings.Repeat("# more\n", maxFile/7), want: "the file is longer than 1048576 bytes"},
		{name: "a router of its own", text: "election: vrrp\nvips: {web: {addresses: [10.0.0.200/24], vrrp: {id: 1}}}\n",
			want: "d.yaml:1:11: election: routers of their own share no document, got vrrp; change vips in each router's own file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := ParseDocument("d.yaml", []byte(tt.text))
			if tt.want != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tt.want) && !strings.Contains(err.Error(), ": "+tt.want) {
					t.Fatalf("error %v, want %s", err, tt.want)
				}
				checkErrors(t, err, "d.yaml")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := doc.Check(); err != nil || doc.MaxHold != tt.hold || doc.Revision != 0 {
				t.Errorf("max hold %s, want %s; revision %d; %v", doc.MaxHold, tt.hold, doc.Revision, err)
			}
		})
	}
}

// TestRenderLeavesDefaultsOut: what nobody wrote is not shown as if somebody had.
func TestRenderLeavesDefaultsOut(t *testing.T) {
	const text = `vips:
  web:
    addresses: [10.0.0.200/24, '2001:db8::200/64']
    placement: priority
    priority: {n1: 150, n2: 100}
    preempt: 30s
    checks: [nginx]
    track_interfaces: [eth1, {name: eth2, weight: -20}]
    hooks:
      active: [/usr/local/bin/up]
    vrrp:
      id: 51
checks:
  nginx:
    http: http://127.0.0.1/healthz
  replies:
    http:
      url: https://127.0.0.1/
      status: [200, 399]
      insecure: true
    weight: -20
`
	doc, err := ParseDocument("d.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(text, string(RenderDocument(doc))); d != "" {
		t.Errorf("(-written +rendered)\n%s", d)
	}
	// Zero counts as the default (fsm.Group).
	g := &doc.Groups[0]
	g.Weight, g.WhenAllFail, g.OnQuorumLoss = 0, 0, 0
	if d := cmp.Diff(text, string(RenderDocument(doc))); d != "" {
		t.Errorf("with zeros (-written +rendered)\n%s", d)
	}
}

func TestCheckDocument(t *testing.T) {
	links := []Link{link("lo", "127.0.0.1/8"), link("eth0", "10.0.0.1/24")}
	doc, err := ParseDocument("d.yaml", []byte("vips:\n  web: {addresses: [10.0.0.200/24, 10.9.0.200/24], track_interfaces: [eth1], vrrp: {id: 1, interval: 100ms}}\n"+
		"  two: {addresses: [10.0.0.201/24], vrrp: {id: 2, version: 2, interval: 1s}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"vips.web.track_interfaces[eth1]: no such device on this host, got eth1; write one of eth0, or remove it: a device that is not there counts as failed",
		"vips.web.addresses[10.9.0.200]: is in no network of this host (10.0.0.0/24 on eth0), got 10.9.0.200/24; write interface: with the device that clients reach it by (eth0), or correct the address",
	}
	show := func(all []Problem) []string {
		var out []string
		for _, p := range all {
			out = append(out, p.String())
		}
		return out
	}
	if d := cmp.Diff(want, show(CheckDocument(doc, links, 0))); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	got := show(CheckDocument(doc, links, WorstFailover(DefaultLease, (&Config{Fence: BPF}).Grace())))
	if len(got) != len(want)+1 || !strings.HasPrefix(got[2], "vips.web.vrrp.interval: adverts every 100ms let an outside backup claim the group") {
		t.Errorf("with a lease: %q", got)
	}
}

func TestCheckPrograms(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, plain := file("good", 0o755), file("plain", 0o644)
	command := func(name, user string, argv ...string) fsm.Check {
		return fsm.Check{Name: name, Command: &fsm.CommandCheck{Argv: argv, User: user}}
	}
	doc := fsm.Document{
		Checks: []fsm.Check{
			command("good", "root", good, "--fast"), command("number", "0", good),
			command("missing", "no-such-user-here", dir+"/none"), command("folder", "", dir), command("below", "", plain+"/x"),
			{Name: "page", HTTP: &fsm.HTTPCheck{CA: plain}}, {Name: "page-none", HTTP: &fsm.HTTPCheck{CA: dir + "/none"}},
		},
		Hooks:  fsm.Hooks{Active: []string{good}, Fault: []string{plain}},
		Groups: []fsm.Group{{Name: "web", Hooks: fsm.Hooks{Backup: []string{dir + "/none", "x"}}}},
	}
	want := []string{
		"checks.missing.command: no such program on this host, got DIR/none; install it, or write another path",
		"checks.missing.command.user: no such user on this host, got no-such-user-here; create it, or write another",
		"checks.folder.command: is not a plain file, got DIR; write the path of a program",
		"checks.below.command: the program cannot be looked at: not a directory, got DIR/plain/x; see to its directories, or check as the daemon's user",
		"checks.page-none.http.ca: the certificates cannot be read: no such file or directory, got DIR/none; put them there on every node, or remove the key to trust the system's",
		"hooks.fault: cannot be executed, got DIR/plain; chmod +x it",
		"vips.web.hooks.backup: no such program on this host, got DIR/none; install it, or write another path",
	}
	var got []string
	for _, p := range CheckPrograms(doc) {
		p.Value = strings.ReplaceAll(p.Value, dir, "DIR")
		got = append(got, p.String())
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// TestAt: a problem that is found later is shown where the file has it.
func TestAt(t *testing.T) {
	cfg, err := host().Parse("q.yaml", []byte("cluster: prod\npeers: [10.0.0.1:7950]\nkey_file: /k\n"+
		"checks: {a: {command: {argv: [/none/x], user: no-such-user-here}}, b: {http: {url: \"https://a/\", ca: /none/ca}}}\n"+
		"hooks: {fault: [/none/x]}\nvips: {web: {addresses: [10.0.0.200/24], checks: [a, b], hooks: {active: [/none/x]}}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range CheckPrograms(cfg.Document) {
		e := cfg.At(p)
		got = append(got, fmt.Sprintf("%d:%d %s", e.Line, e.Column, e.Path))
	}
	want := []string{"4:23 checks.a.command", "4:47 checks.a.command.user", "4:102 checks.b.http.ca", "5:16 hooks.fault", "6:74 vips.web.hooks.active"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// TestMistake: the column is that of the parenthesis, which the parser does not tell.
func TestMistake(t *testing.T) {
	tests := []struct {
		expr   string
		column int
	}{
		{"(", 1}, {"a(b)c(d", 6}, {"x((a)", 2}, {`\(\)(`, 5}, {"[(](a", 4}, {")", 1}, {"a)b", 2}, {"(a))(", 4}, {`[)]\))`, 6},
		{"ü(", 2}, {"a{2,1}", 2}, {"*a", 1}, {`a\`, 2}, {"a**b**", 2}, {`a\z\y`, 4}, {"[z-a]", 2}, {`\Q((\E(`, 7}, {`\Qa\E)`, 6}, {"[[:alpha:](](", 13}, {`[^])]a)`, 7}, {`[\])]b)`, 7},
	}
	for _, tt := range tests {
		_, err := regexp.Compile(tt.expr)
		if err == nil {
			t.Fatalf("%q is right", tt.expr)
		}
		if what, column, do := mistake(tt.expr, err); column != tt.column || what == "" || do == "" {
			t.Errorf("%q: %s in column %d, want %d; %s", tt.expr, what, column, tt.column, do)
		}
	}
}
