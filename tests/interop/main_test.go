package interop

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/tests/lab"
)

// buildDir takes the program under test for the whole test run.
var buildDir string

var build = sync.OnceValues(func() (string, error) { return lab.Build(buildDir) })

func TestMain(m *testing.M) {
	os.Exit(lab.RunTests(m, 8, &buildDir))
}

// newLab makes a lab that goes with the test, after removing what killed runs left.
func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: this test makes network namespaces and needs root")
	}
	_, err := lab.Sweep()
	must(t, errors.Join(err, sweepPathspaces()))
	dir, err := os.MkdirTemp("", "quorate-interop-")
	must(t, err)
	l, err := lab.New(lab.Options{Dir: dir})
	must(t, err)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("logs and configurations: %s", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return l
}

// needs skips a test for which a program is missing.
func needs(t *testing.T, program, debian string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: %s is not installed (apt-get install %s)", program, debian)
	}
	return path
}

func addHost(t *testing.T, l *lab.Lab, name string, n int) *lab.Host {
	t.Helper()
	h, err := l.AddHost(name, n)
	must(t, err)
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pause lets time pass in which others are watched.
func pause(d time.Duration) { <-time.After(d) }

// until polls for something that real programs do.
func until(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	for deadline := lab.Now().Add(limit); !ok(); pause(10 * time.Millisecond) {
		if lab.Now() > deadline {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// sweepPathspaces removes the directories of FRR that killed runs left. Their names are
// those of the lab's namespaces: qlab-PID-COUNTER-HOST.
func sweepPathspaces() error {
	var errs []error
	for _, parent := range []string{frrConfig, frrRun} {
		dirs, err := filepath.Glob(filepath.Join(parent, "qlab-*"))
		errs = append(errs, err)
		for _, dir := range dirs {
			number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), "qlab-"), "-")
			pid, err := strconv.Atoi(number)
			if err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
				errs = append(errs, os.RemoveAll(dir))
			}
		}
	}
	return errors.Join(errs...)
}
