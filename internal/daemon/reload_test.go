package daemon

import (
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/config"
)

// TestDifferences: what can change while the daemon runs, and what is named instead.
func TestDifferences(t *testing.T) {
	now := config.Config{Cluster: "prod", Node: "n1", Lease: 250 * time.Millisecond, HTTP: "127.0.0.1:7951", Peers: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:7950")}}
	tests := []struct {
		key    string
		change func(*config.Config)
		formed bool
		do     string // part of it; empty: it can
	}{
		{"log", func(c *config.Config) { c.Log.Level = slog.LevelDebug }, true, ""},
		{"log", func(c *config.Config) { c.Log.JSON = true }, true, ""},
		{"fifo", func(c *config.Config) { c.FIFO = "/run/pipe" }, true, ""},
		{"http", func(c *config.Config) { c.HTTP = "" }, true, ""},
		{"http", func(c *config.Config) { c.HTTP = "127.0.0.1:7952" }, true, ""},
		{"http", func(c *config.Config) { c.HTTP = "0.0.0.0:7951" }, true, "restart the daemon: the port is in use"},
		{"peers", func(c *config.Config) { c.Peers = nil }, true, ""},
		{"peers", func(c *config.Config) { c.Peers = nil }, false, "the cluster is not formed yet"},
		{"cluster", func(c *config.Config) { c.Cluster = "test" }, true, "restart"},
		{"node", func(c *config.Config) { c.Node = "n2" }, true, "restart"},
		{"address", func(c *config.Config) { c.Address = netip.MustParseAddrPort("10.0.0.2:7950") }, true, "restart"},
		{"key_file", func(c *config.Config) { c.KeyFile = "/k" }, true, "restart"},
		{"tls", func(c *config.Config) { c.TLS = &config.TLSFiles{CA: "/ca"} }, true, "restart"},
		{"data_dir", func(c *config.Config) { c.DataDir = "/d" }, true, "move the directory before"},
		{"role", func(c *config.Config) { c.Role = 2 }, true, "restart"},
		{"election", func(c *config.Config) { c.Election = config.ElectVRRP }, true, "stop all nodes"},
		{"lease", func(c *config.Config) { c.Lease = time.Second }, true, "one node after the other"},
		{"renew", func(c *config.Config) { c.Renew = time.Second }, true, "restart"},
		{"fence", func(c *config.Config) { c.Fence = config.Lifetime }, true, "restart"},
		{"socket", func(c *config.Config) { c.Socket = "/s" }, true, "restart"},
	}
	other := config.Config{Election: config.ElectVRRP, Node: "n1", HTTP: "127.0.0.1:7952"}
	if got := differences(&now, &other, true); len(got) != 1 || got[0].key != "election" {
		t.Errorf("with another election: %+v", got)
	}
	if got := differences(&now, &now, true); len(got) != 0 {
		t.Errorf("with itself: %+v", got)
	}
	covered := map[string]bool{}
	for _, tt := range tests {
		covered[strings.ReplaceAll(tt.key, "_", "")] = true
	}
	for f := range reflect.TypeFor[config.Config]().Fields() {
		name := strings.ToLower(f.Name)
		if f.IsExported() && name != "document" && name != "warnings" && !covered[name] {
			t.Errorf("nothing is said of %s", f.Name)
		}
	}
	for _, tt := range tests {
		file := now
		tt.change(&file)
		got := differences(&now, &file, tt.formed)
		if len(got) != 1 || got[0].key != tt.key || (got[0].do == "") != (tt.do == "") || !strings.Contains(got[0].do, tt.do) || got[0].now == got[0].file {
			t.Errorf("%s: %+v", tt.key, got)
		}
	}
}
