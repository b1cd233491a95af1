package peerlink

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
)

// KeySize is the length of the secret in a key file, in bytes.
const KeySize = 32

// maxKeyFile bounds what LoadKey reads; a key file is well under 200 bytes.
const maxKeyFile = 4096

const keyComment = "# quorate cluster key: the same file on every node, secret, mode 0600\n"

// A Key is the one secret that all nodes of a cluster share. Everything that
// protects their traffic is derived from it. It prints as a placeholder, so that
// it never ends up in a log. The zero Key is not usable.
type Key struct{ secret [KeySize]byte }

// String hides the secret.
func (Key) String() string { return "(cluster key)" }

// GoString hides the secret from %#v.
func (Key) GoString() string { return "peerlink.Key(hidden)" }

// LogValue hides the secret from slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// GenerateKey returns the text of a new key file.
func GenerateKey() []byte {
	var secret [KeySize]byte
	rand.Read(secret[:]) // never fails: package crypto/rand ends the program instead
	text := []byte(keyComment)
	text = base64.StdEncoding.AppendEncode(text, secret[:])
	return append(text, '\n')
}

// WriteKey makes a new key file at path, mode 0600. An existing file is never
// replaced: the nodes that run with it would be cut off.
func WriteKey(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("write key file %s: it exists and is not replaced: nodes that use it could no longer talk to "+
			"a node with a new one; give another path, or remove it first: %w", path, err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write key file %s: its directory is not there; make it first: install -d -m 750 %s: %w", path, filepath.Dir(path), err)
	}
	if err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	_, err = f.Write(GenerateKey())
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return errors.Join(fmt.Errorf("write key file %s: %w", path, err), os.Remove(path))
	}
	return nil
}

// LoadKey reads the key file at path. It refuses a file that anyone but its owner
// may read or write; who the owner is does not matter.
func LoadKey(path string) (Key, error) {
	text, err := readSecret(path, "key file")
	if err != nil {
		return Key{}, err
	}
	k, err := ParseKey(text)
	if err != nil {
		return Key{}, fmt.Errorf("key file %s: %w", path, err)
	}
	return k, nil
}

// ParseKey reads the text of a key file: comment lines begin with #, one line has
// the secret in base64.
func ParseKey(text []byte) (Key, error) {
	const remedy = "copy the file of another node, or make one for the whole cluster with `quorate keygen`"
	var line []byte
	for l := range bytes.Lines(text) {
		l = bytes.TrimSpace(l)
		if len(l) == 0 || l[0] == '#' {
			continue
		}
		if line != nil {
			return Key{}, errors.New("it has more than one line that is no comment, want exactly one key: " + remedy)
		}
		line = l
	}
	if line == nil {
		return Key{}, errors.New("it has no key: " + remedy)
	}
	// The line is a secret: errors say what is wrong with it, never what it is.
	secret, err := base64.StdEncoding.Strict().DecodeString(string(line))
	if err != nil {
		return Key{}, fmt.Errorf("the key is not base64 (%d characters): %s", len(line), remedy)
	}
	if len(secret) != KeySize {
		return Key{}, fmt.Errorf("the key has %d bytes, want %d: %s", len(secret), KeySize, remedy)
	}
	k := Key{}
	copy(k.secret[:], secret)
	if k == (Key{}) {
		return Key{}, errors.New("the key is all zeros: " + remedy)
	}
	return k, nil
}

// Gossip returns the 32 bytes that encrypt datagrams (AES-256).
func (k Key) Gossip() []byte { return k.derive("quorate 1 gossip", 32) }

// derive is HKDF with a label per use, so that no use learns the secret of another.
func (k Key) derive(label string, n int) []byte {
	out, err := hkdf.Key(sha256.New, k.secret[:], nil, label, n)
	if err != nil {
		panic(fmt.Sprintf("peerlink: derive %d bytes for %q: %v", n, label, err)) // only for lengths past 8160
	}
	return out
}

// readSecret reads a small file that nobody but its owner may read or write. The
// checks are made on the open file, so that it cannot be exchanged in between.
func readSecret(path, what string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a named pipe must not block us
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s %s does not exist: copy it from another node, or make the first with `quorate keygen`: %w", what, path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", what, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("examine %s: %w", what, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s %s is no regular file (%s)", what, path, info.Mode())
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s %s has mode %04o: others than its owner may read or write it, and who has it can be a node "+
			"of the cluster; run: chmod 600 %s", what, path, info.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("%s %s is longer than %d bytes: this is not it", what, path, maxKeyFile)
	}
	return text, nil
}
