package raftnode

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

func openDir(t *testing.T, path string) *DataDir {
	t.Helper()
	d, err := OpenDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func TestDataDirRemembers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d := openDir(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("made with mode %v, error %v; want 0700", info.Mode(), err)
	}
	id := d.Instance()
	pledge := election.Pledge{Cluster: instance(9), Name: "prod", Former: instance(1), Nodes: []fsm.Node{{ID: instance(1), Name: "n1", Role: fsm.Witness}}}
	if d.LongestHold() != 0 || !d.Pledge().IsZero() || id.IsZero() {
		t.Fatalf("a new directory remembers %v, %v, instance %v", d.LongestHold(), d.Pledge(), id)
	}
	if err := errors.Join(d.SetLongestHold(1500*time.Millisecond), d.setPledge(pledge)); err != nil {
		t.Fatal(err)
	}
	d.Close()

	d = openDir(t, path)
	if d.Instance() != id {
		t.Errorf("instance %s, was %s", d.Instance(), id)
	}
	if got := d.LongestHold(); got != 1500*time.Millisecond {
		t.Errorf("longest hold %v, was 1.5s", got)
	}
	if got := d.Pledge(); got.Former != pledge.Former || got.Cluster != pledge.Cluster || got.Nodes[0] != pledge.Nodes[0] {
		t.Errorf("pledge %+v, was %+v", got, pledge)
	}
	if left, _ := filepath.Glob(filepath.Join(path, ".*")); len(left) != 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}

func TestDataDirLock(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	for name, open := range map[string]func() error{
		"OpenDataDir": func() error { _, err := OpenDataDir(path); return err },
		"TryLock":     func() error { _, err := TryLock(path); return err },
	} {
		err := open()
		if want := fmt.Sprintf("another quorate (pid %d) uses %s", os.Getpid(), path); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s of a directory in use: %v; want ErrLocked with %q", name, err, want)
		}
	}
	d.Close()
	unlock, err := TryLock(path)
	if err != nil {
		t.Fatalf("TryLock after Close: %v", err)
	}
	unlock()
	if _, err := TryLock(filepath.Join(path, "never")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("TryLock where no daemon ever ran: %v; want fs.ErrNotExist", err)
	}
}

func TestDataDirRefuses(t *testing.T) {
	tests := []struct{ file, content, want string }{
		{fileInstance, "xyz", "32 hexadecimal digits"},
		{fileLongest, "soon", "write the longest lease"},
		{fileLongest, "-1s", "write the longest lease"},
		{filePledge, "{", "pledge"},
	}
	for _, tt := range tests {
		path := t.TempDir()
		if err := os.WriteFile(filepath.Join(path, tt.file), []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenDataDir(path); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.file) {
			t.Errorf("%q in %s: error %v; want it to name the file and say %q", tt.content, tt.file, err, tt.want)
		}
		if _, err := TryLock(path); err != nil {
			t.Errorf("after a failed open the lock is still held: %v", err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDataDir(filepath.Join(file, "data")); err == nil || !strings.Contains(err.Error(), "is a file") {
		t.Errorf("a file in the path: %v", err)
	}
}

// onTmpfs runs f, in a mount namespace of its own, on a file system of the size.
func onTmpfs(t *testing.T, size string, f func(path string)) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts a small file system to fill it")
	}
	path := t.TempDir()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread keeps the namespace
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Errorf("make mounts private: %v", err)
			return
		}
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, "size="+size); err != nil {
			t.Errorf("mount tmpfs: %v", err)
			return
		}
		f(path)
	}()
	<-done
}

func TestDataDirDiskFullAndReadOnly(t *testing.T) {
	onTmpfs(t, "64k", func(path string) {
		d, err := OpenDataDir(path)
		if err != nil {
			t.Error(err)
			return
		}
		if err := d.SetLongestHold(time.Second); err != nil {
			t.Error(err)
		}
		_ = os.WriteFile(filepath.Join(path, "ballast"), make([]byte, 1<<20), 0o600) // fails when full, as it should
		if err := d.SetLongestHold(2 * time.Second); err == nil || !strings.Contains(err.Error(), "the disk is full") {
			t.Errorf("on a full disk: %v", err)
		}
		if got := d.LongestHold(); got != time.Second {
			t.Errorf("after a failed write the longest hold is %v, want the old 1s", got)
		}
		if _, err := Open(Config{Self: fsm.Node{ID: d.Instance()}, Dir: d, Sink: &recorder{}, Log: quiet()}); err == nil || !strings.Contains(err.Error(), "the disk is full") {
			t.Errorf("open on a full disk: %v", err)
		}
		d.Close()
		if err := unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Errorf("remount: %v", err)
			return
		}
		if _, err := OpenDataDir(path); err == nil || !strings.Contains(err.Error(), "read-only") || !strings.Contains(err.Error(), path) {
			t.Errorf("on a read-only file system: %v", err)
		}
	})
}
