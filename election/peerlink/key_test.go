package peerlink

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quorate/quorate/fsm"
)

func TestWriteAndLoadKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cluster.key")
	if err := WriteKey(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	k, err := LoadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	if err := WriteKey(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second WriteKey = %v, want a refusal", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the refused WriteKey changed the file")
	}
	again, err := LoadKey(path)
	if err != nil || again != k {
		t.Errorf("the same file gave another key: %v", err)
	}
	other, err := ParseKey(GenerateKey())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(other.Gossip(), k.Gossip()) || len(k.Gossip()) != 32 || bytes.Equal(k.Gossip(), k.secret[:]) {
		t.Error("gossip keys are not 32 derived bytes of their own")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if text := fmt.Sprintf(verb, k); strings.Contains(text, fmt.Sprintf("%x", k.secret[:4])) || strings.Contains(text, fmt.Sprint(k.secret[:4])) {
			t.Errorf("%s prints the secret: %s", verb, text)
		}
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", k)
	if !strings.Contains(log.String(), k.String()) {
		t.Errorf("slog has %s", &log)
	}
}

func TestLoadKeyRefuses(t *testing.T) {
	good := string(GenerateKey())
	short := base64.StdEncoding.EncodeToString(make([]byte, 16))
	for _, tt := range []struct {
		name, text string
		mode       os.FileMode
		want       []string
	}{
		{"group may read", good, 0o640, []string{"0640", "chmod 600"}},
		{"others may read", good, 0o604, []string{"0604", "chmod 600"}},
		{"group may write", good, 0o620, []string{"0620", "chmod 600"}},
		{"empty", "", 0o600, []string{"no key", "quorate keygen"}},
		{"only a comment", keyComment, 0o600, []string{"no key"}},
		{"garbage", "-----BEGIN CERTIFICATE-----", 0o600, []string{"not base64"}},
		{"short", short, 0o600, []string{"16 bytes", "want 32"}},
		{"two keys", good + good, 0o600, []string{"more than one line"}},
		{"zeros", base64.StdEncoding.EncodeToString(make([]byte, KeySize)), 0o600, []string{"all zeros"}},
		{"too long", strings.Repeat("#", 5000), 0o600, []string{"longer than 4096"}},
	} {
		path := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadKey(path)
		if err == nil {
			t.Errorf("%s: accepted", tt.name)
			continue
		}
		for _, want := range append(tt.want, path) {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q does not say %q", tt.name, err, want)
			}
		}
	}
	if _, err := LoadKey(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "quorate keygen") {
		t.Errorf("a missing file = %v", err)
	}
	if _, err := LoadKey(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a directory = %v", err)
	}
}

func TestCredentials(t *testing.T) {
	key := parse(t, GenerateKey())
	a, b := credentials(t, key, 1), credentials(t, key, 2)
	if !a.roots.Equal(b.roots) {
		t.Error("two nodes derive different authorities from one key")
	}
	if a.leaf.Leaf.SerialNumber.Cmp(b.leaf.Leaf.SerialNumber) == 0 {
		t.Error("serial numbers repeat")
	}
	if a.leaf.Leaf.NotBefore.Year() != 1970 || a.leaf.Leaf.NotAfter.Year() != 2100 {
		t.Errorf("valid from %s to %s", a.leaf.Leaf.NotBefore, a.leaf.Leaf.NotAfter)
	}
	if got := a.leaf.Leaf.URIs[0].String(); got != instanceURN+(fsm.InstanceID{15: 1}).String() {
		t.Errorf("URI = %s", got)
	}
}

func parse(t testing.TB, text []byte) Key {
	t.Helper()
	k, err := ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func credentials(t testing.TB, k Key, n byte) Credentials {
	t.Helper()
	c, err := k.Credentials(fsm.InstanceID{15: n})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTLSFiles(t *testing.T) {
	good := writePEM(t, parse(t, GenerateKey()))
	if _, err := good.Credentials(); err != nil {
		t.Fatal(err)
	}
	other := writePEM(t, parse(t, GenerateKey()))
	mixed := TLSFiles{CA: other.CA, Cert: good.Cert, Key: good.Key}
	if _, err := mixed.Credentials(); ReasonOf(err) != OtherKey || !strings.Contains(err.Error(), other.CA) {
		t.Errorf("a certificate of another authority = %v", err)
	}
	mixed = TLSFiles{CA: good.CA, Cert: good.Cert, Key: other.Key}
	if _, err := mixed.Credentials(); err == nil {
		t.Error("the key of another certificate was accepted")
	}
	if err := os.Chmod(good.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := good.Credentials(); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that all may read = %v", err)
	}
	if _, err := (TLSFiles{CA: good.Key, Cert: good.Cert, Key: good.Key}).Credentials(); err == nil || !strings.Contains(err.Error(), "no PEM certificate") {
		t.Errorf("a private key as tls.ca = %v", err)
	}
}
