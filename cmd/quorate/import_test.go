package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// importDir has the files of two nodes.
func importDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for node, priority := range map[string]string{"n1": "150", "n2": "100"} {
		text := "global_defs { vrrp_version 3 }\ninclude more/*.conf\nvrrp_instance web {\n  interface eth0\n  virtual_router_id 51\n  priority " + priority +
			"\n  @n2 nopreempt\n  virtual_ipaddress {\n    10.0.0.200/24\n  }\n}\n"
		if err := os.MkdirAll(filepath.Join(dir, node, "more"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, node, "keepalived.conf"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, node, "more", "balancer.conf"), []byte("virtual_server 10.0.0.200 80 {\n}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestImport(t *testing.T) {
	dir := importDir(t)
	n1, n2 := filepath.Join(dir, "n1", "keepalived.conf"), filepath.Join(dir, "n2", "keepalived.conf")
	peers := "--peers=10.0.0.1,n2=10.0.0.2:7000,10.0.0.3"
	for name, args := range map[string][]string{
		"import":          {n1, n2, peers, "--cluster", "edge"},
		"import-node":     {n1, n2, peers, "--node", "n2"},
		"import-vrrp":     {"--election", "vrrp", "a=" + n1, "b=" + n2, "--config-id", "n2"},
		"import-strict":   {n1, n2, peers, "--strict"},
		"import-no-peers": {n1, n2},
		"import-no-file":  {filepath.Join(dir, "n3", "keepalived.conf")},
		"import-usage":    {},
		"import-election": {n1, "--election", "paxos"},
		"import-bad-peer": {n1, "--peers", "n1=somewhere"},
		"import-config":   {n1, n2, peers, "--config-id", "n1=n2,n2=n1"},
		"import-cluster":  {n1, n2, peers, "--cluster", "two words"},
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, name, dir, append([]string{"import"}, args...)...)
		})
	}
}

// TestImportIsChecked: the file that import writes is one that check accepts, on a host
// that has the node's address, device and key.
func TestImportIsChecked(t *testing.T) {
	enterNetns(t)
	dir := importDir(t)
	code, stdout, stderr := quorate(t, "import", filepath.Join(dir, "n1", "keepalived.conf"), filepath.Join(dir, "n2", "keepalived.conf"),
		"--peers", "10.0.0.1,10.0.0.2,10.0.0.3")
	if code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	key := filepath.Join(dir, "key")
	if code, _, stderr := quorate(t, "keygen", "--out", key); code != exitDone {
		t.Fatal(stderr)
	}
	file := filepath.Join(dir, "quorate.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(stdout, "/etc/quorate/cluster.key", key, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := quorate(t, "check", file); code != exitDone {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
}
