package config

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

var update = flag.Bool("update", false, "rewrite the expected texts in testdata")

// host is the host of the golden files.
func host() Host {
	return Host{
		Name: func() (string, error) { return "n1", nil },
		Addresses: func() ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("10.0.0.1")}, nil
		},
	}
}

// render is a configuration as the golden files show it.
func render(c *Config) string {
	var b strings.Builder
	for _, w := range c.Warnings {
		fmt.Fprintln(&b, "warning:", w)
	}
	if c.Election != ElectRaft {
		fmt.Fprintf(&b, "election %s\n", c.Election)
	}
	fmt.Fprintf(&b, "cluster %s node %s %s %s of %v\n", c.Cluster, c.Node, c.Role, c.Address, c.Peers)
	fmt.Fprintf(&b, "key %s tls %+v data %s socket %s\n", c.KeyFile, c.TLS, c.DataDir, c.Socket)
	fmt.Fprintf(&b, "lease %s renew %s fence %s log %s json=%v\n", c.Lease, c.Renew, c.Fence, c.Log.Level, c.Log.JSON)
	fmt.Fprintf(&b, "max hold %s\n", c.Document.MaxHold)
	if c.FIFO != "" {
		fmt.Fprintf(&b, "fifo %s\n", c.FIFO)
	}
	if c.HTTP != "" {
		fmt.Fprintf(&b, "http %s\n", c.HTTP)
	}
	for _, g := range c.Document.Groups {
		fmt.Fprintf(&b, "%s %v on %q %s announce %+v%s\n", g.Name, g.Addresses, g.Interface, g.Placement, g.Announce, renderVRRP(g))
	}
	b.WriteString(renderRest(c.Document))
	return b.String()
}

func renderVRRP(g fsm.Group) string {
	var b strings.Builder
	if v := g.VRRP; v.ID != 0 {
		fmt.Fprintf(&b, " vrrp %d version %d", v.ID, v.Version)
		if v.AlsoV2 {
			b.WriteString(" and 2")
		}
		fmt.Fprintf(&b, " priority %d interval %s checksum %s outranked %s", v.Priority, v.Interval, v.Checksum, v.Outranked)
		if v.Password != "" {
			fmt.Fprintf(&b, " password %q", v.Password)
		}
		for _, p := range v.Unicast {
			fmt.Fprintf(&b, " peer %s ttl %d-%d", p.Addr, p.MinTTL, p.MaxTTL)
		}
	}
	if g.VMAC {
		b.WriteString(" vmac")
	}
	if g.Preempt != (fsm.Preempt{}) {
		fmt.Fprintf(&b, " preempt after %s", g.Preempt.Delay)
	}
	return b.String()
}

// TestGolden reads each testdata/NAME.yaml and compares what comes of it with
// NAME.txt: the errors, or the configuration with its warnings. Files named ok-*
// and warn-* must be accepted and all others refused.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d files in testdata, err %v", len(files), err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".yaml")
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := host().Parse(name+".yaml", b)
			wantOK := strings.HasPrefix(name, "ok-") || strings.HasPrefix(name, "warn-")
			if wantOK != (err == nil) {
				t.Fatalf("Parse: error %v", err)
			}
			var got string
			if err != nil {
				checkErrors(t, err, name+".yaml")
				got = err.Error() + "\n"
			} else {
				got = render(cfg)
				if (len(cfg.Warnings) > 0) != strings.HasPrefix(name, "warn-") {
					t.Errorf("warnings %q", cfg.Warnings)
				}
			}
			golden := strings.TrimSuffix(f, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatalf("%v (go test -update writes it)", err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// checkErrors checks what holds for every error of Parse: a join of *Error, each
// on one line, of that file.
func checkErrors(t *testing.T, err error, file string) {
	t.Helper()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("error %T is not a join", err)
	}
	for _, e := range joined.Unwrap() {
		var ce *Error
		if !errors.As(e, &ce) {
			t.Fatalf("error %T is not an *Error", e)
		}
		if ce.File != file || ce.Text == "" || strings.ContainsAny(e.Error(), "\n\r\x1b\x00") {
			t.Errorf("error %q: want one line of %s with a text", e, file)
		}
		if (ce.Line == 0) != (ce.Column == 0) {
			t.Errorf("error %q: line %d column %d", e, ce.Line, ce.Column)
		}
	}
}

// oneLineEach is the errors of a file without its lines.
func oneLineEach(err error) string {
	all := Errors(nil)
	if !errors.As(err, &all) {
		return err.Error()
	}
	var out []string
	for _, e := range all {
		out = append(out, e.Error())
	}
	return strings.Join(out, "\n")
}

func TestHostDefaults(t *testing.T) {
	const text = "cluster: prod\npeers: [10.0.0.1:7950]\nkey_file: /k\nvips: {web: {addresses: [10.0.0.200/24]}}\n"
	addrs := func(s ...string) func() ([]netip.Addr, error) {
		var out []netip.Addr
		for _, a := range s {
			out = append(out, netip.MustParseAddr(a))
		}
		return func() ([]netip.Addr, error) { return out, nil }
	}
	name := func(s string) func() (string, error) { return func() (string, error) { return s, nil } }
	fails := errors.New("no such thing")
	tests := []struct {
		name string
		host Host
		want string // part of the error; empty: none
	}{
		{"first private", Host{name("a"), addrs("192.0.2.1", "10.0.0.1", "10.0.0.9")}, ""},
		{"a left VIP is not the own address", Host{name("a"), addrs("10.0.0.200", "10.0.0.1")}, ""},
		{"no private address", Host{name("a"), addrs("192.0.2.1")}, "this host has no private address; write address:"},
		{"another private address", Host{name("a"), addrs("10.0.0.9")}, "got 10.0.0.9:7950; write address: with the one of peers that is this node"},
		{"addresses fail", Host{name("a"), func() ([]netip.Addr, error) { return nil, fails }}, "no such thing"},
		{"host name fails", Host{func() (string, error) { return "", fails }, addrs("10.0.0.1")}, "node: not written, and the host name cannot be read: no such thing; write node: NAME"},
		{"host name is no node name", Host{name("a b"), addrs("10.0.0.1")}, "got a b; write node: NAME"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := tt.host.Parse("q.yaml", []byte(text))
			if tt.want == "" {
				if err != nil || cfg.Address.String() != "10.0.0.1:7950" || cfg.Node != "a" {
					t.Fatalf("cfg %+v, error %v", cfg, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a directory was read")
	}
	path := filepath.Join(dir, "q.yaml")
	text := "cluster: prod\naddress: 10.0.0.1:7950\nnode: n1\npeers: [10.0.0.1:7950]\nkey_file: /k\nvips: {web: {addresses: [10.0.0.200/24]}}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(path)
	if err != nil || cfg.Node != "n1" {
		t.Fatalf("cfg %+v, error %v", cfg, err)
	}
	if err := os.WriteFile(path, []byte(text+strings.Repeat("# more\n", maxFile/7)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "longer than 1048576 bytes") {
		t.Errorf("long file: %v", err)
	}
}

// TestMaxHold: a node that states a longer lease and grace than the document
// allows would never be confirmed, so its own must always fit.
func TestMaxHold(t *testing.T) {
	for _, extra := range []string{"", "lease: 30s\n", "fence: lifetime\n", "fence: lifetime\nlease: 30s\n"} {
		text := "cluster: prod\npeers: [10.0.0.1:7950]\nkey_file: /k\n" + extra + "vips: {web: {addresses: [10.0.0.200/24]}}\n"
		cfg, err := host().Parse("q.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if hold := cfg.Lease + cfg.Grace(); cfg.Document.MaxHold < hold || cfg.Document.MaxHold < 5*time.Second {
			t.Errorf("%q: max hold %s, lease and grace %s", extra, cfg.Document.MaxHold, hold)
		}
	}
}

// FuzzParse: never a panic; an error is a join of located one-line errors; and
// what is accepted keeps the bounds that the rest of the program relies on.
func FuzzParse(f *testing.F) {
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
		cfg, err := host().Parse("f.yaml", b)
		if (cfg == nil) != (err != nil) {
			t.Fatalf("cfg %v with error %v", cfg, err)
		}
		if err != nil {
			checkErrors(t, err, "f.yaml")
			return
		}
		checkConfig(t, cfg)
	})
}

func checkConfig(t *testing.T, c *Config) {
	t.Helper()
	switch c.Election {
	case ElectRaft:
		checkClustered(t, c)
	case ElectVRRP:
		if c.Address.IsValid() || c.Peers != nil || c.KeyFile != "" || c.TLS != nil || c.DataDir != "" || c.Lease != 0 || c.Renew != 0 || c.Fence != 0 {
			t.Errorf("something of a cluster: %+v", c)
		}
	default:
		t.Errorf("%v", c.Election)
	}
	if c.Node == "" || len(c.Document.Groups) == 0 {
		t.Errorf("incomplete: %+v", c)
	}
	if err := c.Document.Check(); err != nil {
		t.Error(err)
	}
	for _, g := range c.Document.Groups {
		if g.Placement == 0 || g.Preempt.Yes && c.Election == ElectRaft && g.Placement == fsm.PlacementLeader {
			t.Errorf("group %+v", g)
		}
		for _, p := range g.Addresses {
			if a := p.Addr(); a.IsMulticast() || a.IsLoopback() || a.IsUnspecified() || a.Is4In6() || a.Zone() != "" {
				t.Errorf("address %s", p)
			}
		}
		if c.Election == ElectVRRP && g.VRRP.ID == 0 {
			t.Errorf("group %s without VRRP", g.Name)
		}
		if c.Election == ElectRaft && g.VRRP.Priority == 255 {
			t.Errorf("group %+v", g)
		}
		if v := g.VRRP; v.ID != 0 {
			if _, err := vrrpcompat.IntervalOf(vrrpcompat.Version(v.Version), v.Interval); err != nil {
				t.Errorf("group %s: %v", g.Name, err)
			}
		}
	}
}

func checkClustered(t *testing.T, c *Config) {
	t.Helper()
	roundTrip(t, c.Document)
	if c.Cluster == "" || c.KeyFile == "" || len(c.Peers) == 0 || len(c.Peers) > 7 {
		t.Errorf("incomplete: %+v", c)
	}
	own := 0
	for _, p := range c.Peers {
		if p == c.Address {
			own++
		}
	}
	if own != 1 {
		t.Errorf("own address %s is %d times in %v", c.Address, own, c.Peers)
	}
	if c.Lease < 50*time.Millisecond || c.Lease > 30*time.Second || c.Renew < 5*time.Millisecond || 2*c.Renew > c.Lease {
		t.Errorf("lease %s renew %s", c.Lease, c.Renew)
	}
	if c.Fence == Lifetime && c.Lease < 3*time.Second {
		t.Errorf("fence lifetime with lease %s", c.Lease)
	}
}
