package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/quorate/quorate/election/peerlink"
)

func TestCheck(t *testing.T) {
	for name, tc := range map[string]string{
		"check": "lease: 200ms\nvips:\n  web: {addresses: [10.0.0.200/24], vrrp: {id: 51}}\n  db: {addresses: [2001:db8::200/64], interface: eth0}\n",
		// One address is in no network of the host, the other on a device that it lacks.
		"check-host":    "vips: {web: {addresses: [192.0.2.1/24]}, db: {addresses: [10.0.0.201/24], interface: eth9}}\n",
		"check-witness": "role: witness\nvips: {web: {addresses: [192.0.2.200/24]}}\n",
		"check-mixed": "vips:\n  web: {addresses: [10.0.0.200/24], vmac: true, vrrp: {id: 51, version: both, password: secret, outranked: hold}}\n" +
			"  db: {addresses: [10.0.0.201/24], vrrp: {id: 52, version: 2, unicast: [10.0.0.8, 10.0.0.9]}}\n",
		"check-reach": "http: 127.0.0.1:7951\nvips:\n  web:\n    addresses: [10.0.0.200/24, {address: 10.0.0.201/24, interface: eth0, scope: link, label: \"eth0:x\", noprefixroute: true}]\n" +
			"    routes: [{to: default, via: 10.0.0.254, source: 10.0.0.200, table: 100, metric: 5}, {to: 192.0.2.0/24, via: 10.9.0.1, interface: wire, onlink: true}]\n" +
			"    rules: [{from: 10.0.0.200/32, table: 100, priority: 100}, {to: 192.0.2.0/24, interface: lo, mark: 0x10, table: 254}]\n" +
			"    announce: {repeat: 1, refresh: 0}\n    reset_connections: false\n",
		"check-reach-host": "http: 192.0.2.1:7951\nvips:\n  web:\n    addresses: [{address: 10.0.0.200/24, label: \"eth7:x\"}, {address: 10.0.0.201/24, interface: eth9}]\n" +
			"    routes: [{to: 192.0.2.0/24, via: 10.9.0.1}, {to: 198.51.100.0/24, interface: eth8}]\n    rules: [{interface: eth6, table: 100}]\n",
		"check-errors": "lease: 1ms\nleas: 2s\nvips: {web: {addresses: [10.0.0.200], placement: spread}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			enterNetns(t)
			dir := t.TempDir()
			file := configure(t, dir, tc)
			golden(t, name, dir, "check", file)
			golden(t, name+"-json", dir, "check", "--json", file)
		})
	}
}

// TestCheckExample: what --example prints is a file that check accepts, on the host that
// it is for and with a key.
func TestCheckExample(t *testing.T) {
	enterNetns(t)
	dir := t.TempDir()
	code, text, stderr := quorate(t, "check", "--example")
	if code != exitDone || stderr != "" {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	key, file := filepath.Join(dir, "key"), filepath.Join(dir, "quorate.yaml")
	if code, _, stderr := quorate(t, "keygen", "--out", key); code != exitDone {
		t.Fatal(stderr)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(text, "key_file: /etc/quorate/cluster.key", "key_file: "+key, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := quorate(t, "check", file); code != exitDone || strings.Contains(stdout, "warning") || stderr != "" {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	if code, text, _ := quorate(t, "check", "--json-schema"); code != exitDone || !json.Valid([]byte(text)) {
		t.Errorf("--json-schema: exit %d\n%s", code, text)
	}
	for _, args := range [][]string{{"check", "--example", "--json-schema"}, {"check", "--example", file}} {
		if code, stdout, _ := quorate(t, args...); code != exitUsage || stdout != "" {
			t.Errorf("%q: exit %d, %s", args, code, stdout)
		}
	}
}

// TestCheckColour: colours are only where they are wanted, and nothing is lost by them.
func TestCheckColour(t *testing.T) {
	enterNetns(t)
	dir := t.TempDir()
	file := configure(t, dir, "lease: 1ms\n")
	_, _, plain := quorate(t, "check", file)
	_, _, coloured := quorate(t, "check", "--color=always", file)
	if strings.Contains(plain, "\x1b") || !strings.Contains(coloured, "\x1b[31m       ^^^\x1b[0m") {
		t.Errorf("plain %q\ncoloured %q", plain, coloured)
	}
	if got := regexp.MustCompile("\x1b\\[[0-9]*m").ReplaceAllString(coloured, ""); got != plain {
		t.Errorf("plain %q\nwithout colours %q", plain, got)
	}
}

// TestCheckVRRP: where VRRP elects, the plan promises nothing.
func TestCheckVRRP(t *testing.T) {
	enterNetns(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "quorate.yaml")
	text := "election: vrrp\nnode: n1\nsocket: " + dir + "/s\nvips:\n  web: {addresses: [10.0.0.200/24], vrrp: {id: 51, priority: {n1: 150, n2: 100}}}\n" +
		"  db: {addresses: [10.0.0.201/24], preempt: 30s, vrrp: {id: 52}}\n  mail: {addresses: [10.0.0.202/24], preempt: false, vrrp: {id: 53, version: 2}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	golden(t, "check-vrrp", dir, "check", file)
	golden(t, "check-vrrp-json", dir, "check", "--json", file)
}

// TestCheckKey: a key that the daemon would refuse is an error before it starts.
func TestCheckKey(t *testing.T) {
	enterNetns(t)
	dir := t.TempDir()
	file, key := configure(t, dir, ""), filepath.Join(dir, "key")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	golden(t, "check-key-open", dir, "check", file)
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	golden(t, "check-key-none", dir, "check", file)
}

func TestCheckNoFile(t *testing.T) {
	dir := t.TempDir()
	golden(t, "check-no-file", dir, "check", dir+"/quorate.yaml")
}

func TestKeygen(t *testing.T) {
	code, stdout, _ := quorate(t, "keygen")
	if _, err := peerlink.ParseKey([]byte(stdout)); code != exitDone || err != nil {
		t.Errorf("exit %d, %v", code, err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	if code, stdout, stderr := quorate(t, "keygen", "--out", path); code != exitDone || stdout+stderr != "" {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	before, err := peerlink.LoadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	// The nodes that run with it would be cut off.
	if code, _, stderr := quorate(t, "keygen", "--out", path); code != exitFailed || !strings.Contains(stderr, "it exists and is not replaced") {
		t.Errorf("over an old one: exit %d, %q", code, stderr)
	}
	if after, err := peerlink.LoadKey(path); err != nil || after != before {
		t.Errorf("the old key was changed: %v", err)
	}
}
