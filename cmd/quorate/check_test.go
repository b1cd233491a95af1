package main

import (
	"os"
	"path/filepath"
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
