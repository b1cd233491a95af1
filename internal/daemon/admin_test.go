package daemon

import (
	"net/netip"
	"os/user"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/config"
)

// parsed reads a document as apply does.
func parsed(t *testing.T, text string) fsm.Document {
	t.Helper()
	doc, err := config.ParseDocument("f.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

const before = `
vips:
  web: {addresses: [10.0.0.200/24, 10.0.0.201/24], interface: eth0, checks: [nginx]}
  db: {addresses: [10.0.0.202/24], placement: spread}
  mail: {addresses: [10.0.0.203/24]}
checks:
  nginx: {http: "http://127.0.0.1/healthz"}
`

const after = `
vips:
  mail: {addresses: [10.0.0.203/24]}
  web: {addresses: [10.0.0.200/24, 10.0.0.204/24], interface: eth0, checks: [nginx]}
  ftp: {addresses: [10.0.0.205/24]}
checks:
  nginx: {http: "http://127.0.0.1/ready"}
hooks: {active: [/bin/true]}
`

func TestDiffDocuments(t *testing.T) {
	a, b := parsed(t, before), parsed(t, after)
	want := `@@ checks.nginx @@
 checks:
   nginx:
-    http: http://127.0.0.1/healthz
+    http: http://127.0.0.1/ready
@@ hooks @@
+hooks:
+  active: [/bin/true]
@@ vips.db @@
-vips:
-  db:
-    addresses: [10.0.0.202/24]
-    placement: spread
@@ vips.ftp @@
+vips:
+  ftp:
+    addresses: [10.0.0.205/24]
@@ vips.web @@
 vips:
   web:
-    addresses: [10.0.0.200/24, 10.0.0.201/24]
+    addresses: [10.0.0.200/24, 10.0.0.204/24]
     interface: eth0
     checks: [nginx]
`
	if d := cmp.Diff(want, diffDocuments(a, b)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	// The order of the groups is nobody's concern.
	a.Groups[0], a.Groups[2] = a.Groups[2], a.Groups[0]
	if got := diffDocuments(a, parsed(t, before)); got != "" {
		t.Errorf("the same in another order:\n%s", got)
	}
	a.MaxHold = time.Minute
	if got := diffDocuments(parsed(t, before), a); !strings.Contains(got, "\n-# the longest lease with the fence's grace that any node may have: 5s\n+# the longest lease with the fence's grace that any node may have: 1m0s\n") {
		t.Errorf("a longer lease:\n%s", got)
	}
}

func TestEffects(t *testing.T) {
	a, b := parsed(t, before), parsed(t, after)
	want := []string{
		"db: goes, with 10.0.0.202/24",
		"web: 10.0.0.201/24 goes, 10.0.0.204/24 comes; its owner stays, and proves its lease anew",
		"ftp: new, with 10.0.0.205/24",
	}
	if d := cmp.Diff(want, effects(a, b)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	for what, tc := range map[string]struct {
		change func(*fsm.Group)
		want   string
	}{
		"priority": {func(g *fsm.Group) { g.Priority = map[string]uint8{"n1": 0} }, "mail: its addresses are not touched"},
		"device":   {func(g *fsm.Group) { g.Interface = "eth1" }, "mail: the device changes; its owner stays"},
		"vmac":     {func(g *fsm.Group) { g.VMAC = true }, "mail: the hardware address changes; its owner stays"},
	} {
		b := parsed(t, before)
		tc.change(&b.Groups[2])
		if got := effects(a, b); len(got) != 1 || !strings.HasPrefix(got[0], tc.want) {
			t.Errorf("%s: %q, want %q", what, got, tc.want)
		}
	}
	order := parsed(t, before)
	order.Groups[0].Addresses = []netip.Prefix{order.Groups[0].Addresses[1], order.Groups[0].Addresses[0]}
	if got := effects(a, order); len(got) != 1 || !strings.Contains(got[0], "the order of its addresses changes") {
		t.Errorf("order: %q", got)
	}
}

// The shortest way is found, and leads from one to the other.
func FuzzDiffLines(f *testing.F) {
	f.Add("a\nb\nc", "a\nx\nc")
	f.Add("", "a")
	f.Add("a\na\nb", "b\na\na")
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(a)+len(b) > 400 {
			return
		}
		var from, to []string
		for _, l := range diffLines(lines(a), lines(b)) {
			if l[0] != '+' {
				from = append(from, l[1:])
			}
			if l[0] != '-' {
				to = append(to, l[1:])
			}
		}
		if !cmp.Equal(from, lines(a)) || !cmp.Equal(to, lines(b)) {
			t.Fatalf("%q to %q: goes from %q to %q", a, b, from, to)
		}
	})
}

// TestMayRun: who may use the socket does not become root by it.
func TestMayRun(t *testing.T) {
	self, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	none := parsed(t, "vips: {web: {addresses: [10.0.0.200/24]}}")
	for what, text := range map[string]string{
		"a check":            "vips: {web: {addresses: [10.0.0.200/24]}}\nchecks: {x: {command: [/bin/true, a]}}",
		"a hook":             "vips: {web: {addresses: [10.0.0.200/24]}}\nhooks: {fault: [/bin/true, a]}",
		"a hook of a group":  "vips: {web: {addresses: [10.0.0.200/24], hooks: {backup: [/bin/true, a]}}}",
		"a check as another": "vips: {web: {addresses: [10.0.0.200/24]}}\nchecks: {x: {command: {argv: [/bin/true, a], user: daemon}}}",
	} {
		doc := parsed(t, text)
		for _, who := range []string{api.Root, self.Username} {
			if err := mayRun(none, doc, who); err != nil {
				t.Errorf("%s, by %s: %v", what, who, err)
			}
		}
		if err := mayRun(none, doc, "operator"); err == nil || !strings.Contains(err.Error(), "/bin/true a") || !strings.Contains(err.Error(), "apply it as root") {
			t.Errorf("%s, by another: %v", what, err)
		}
		if err := mayRun(doc, doc, "operator"); err != nil {
			t.Errorf("%s that is there already: %v", what, err)
		}
		if err := mayRun(doc, none, "operator"); err != nil {
			t.Errorf("%s goes: %v", what, err)
		}
	}
	// The same words in other places are another program.
	joined := parsed(t, "vips: {web: {addresses: [10.0.0.200/24]}}\nhooks: {fault: [/bin/true, \"a b\"]}")
	split := parsed(t, "vips: {web: {addresses: [10.0.0.200/24]}}\nhooks: {fault: [/bin/true, a, b]}")
	if mayRun(joined, split, "operator") == nil {
		t.Error("other arguments are let through")
	}
}
