package api

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/agent/core"
)

func TestListenMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	mode := func() fs.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	if got := mode(); got != 0o600 {
		t.Errorf("before the group is set: %04o", got)
	}
	if warning, err := openTo(path, "no-such-group-here"); warning != nil || err != nil || mode() != 0o660 {
		t.Errorf("without the group: warning %v, err %v, mode %04o", warning, err, mode())
	}
}

func TestListenGroup(t *testing.T) {
	g, err := user.LookupGroup("daemon")
	if err != nil || os.Geteuid() != 0 {
		t.Skipf("SKIPPED: needs root to give a socket away, and a group daemon (%v)", err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	warning, err := openTo(path, "daemon")
	if warning != nil || err != nil {
		t.Fatal(warning, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if gid := info.Sys().(*syscall.Stat_t).Gid; strconv.Itoa(int(gid)) != g.Gid || info.Mode().Perm() != 0o660 {
		t.Errorf("group %d, want %s; mode %04o", gid, g.Gid, info.Mode().Perm())
	}
	// Who may not give it away keeps it closed, and goes on.
	asNobody(t, func() {
		warning, err = openTo(path, "daemon")
	})
	if warning == nil || err != nil || !strings.Contains(warning.Error(), "CAP_CHOWN") {
		t.Errorf("as nobody: warning %v, err %v", warning, err)
	}
}

// asNobody runs f with the file permissions of nobody. Only this thread has them.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	const nobody = 65534
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, err := unix.SetfsuidRetUid(nobody); err != nil {
		t.Fatal(err)
	}
	defer unix.SetfsuidRetUid(0)
	f()
}

func TestListenStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false) // as kill -9 leaves it
	dead.Close()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	s, err := Listen(path, &fakeAgent{}, options())
	if err != nil {
		t.Fatal(err)
	}
	// A second one is refused and leaves the first one's socket alone.
	if _, err := Listen(path, &fakeAgent{}, options()); !errors.Is(err, ErrInUse) {
		t.Errorf("second: %v", err)
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first no longer listens: %v", err)
	} else {
		conn.Close()
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Close left the socket: %v", err)
	}
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ path, want string }{
		"no directory": {filepath.Join(dir, "run", "s"), "make the directory " + filepath.Join(dir, "run")},
		"a file":       {file, "no socket"},
		"a directory":  {dir, "no socket"},
		"below a file": {filepath.Join(file, "s"), "a part of the path is a file"},
		"too long":     {filepath.Join(dir, strings.Repeat("x", maxPath)), "the kernel's limit is 107"},
	} {
		l, err := listen(tc.path)
		if err == nil {
			l.Close()
			t.Errorf("%s: no error", name)
		} else if !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v; want %q in it", name, err, tc.want)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file in the way: %q, %v", b, err)
	}
}

func TestListenPermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root, to become nobody")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		l, err := listen(filepath.Join(dir, "s"))
		if err == nil {
			l.Close()
			t.Error("no error")
		} else if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "must be able to write in "+dir) {
			t.Error(err)
		}
	})
}

func TestRunEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	asked := make(chan bool)
	agent := &fakeAgent{status: func(ctx context.Context) (st core.Status, err error) {
		close(asked)
		<-ctx.Done() // a loop that has stopped
		return st, ctx.Err()
	}}
	s, err := Listen(path, agent, options())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	answer := make(chan error, 1)
	go func() {
		_, err := client(t, path).Status(context.Background())
		answer <- err
	}()
	<-asked
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-answer; err == nil {
		t.Error("a status came from a loop that gave none")
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// TestRunFails: a socket that is closed under the server ends it with an error.
func TestRunFails(t *testing.T) {
	s, err := Listen(filepath.Join(t.TempDir(), "s"), &fakeAgent{}, options())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("err %v", err)
	}
}
