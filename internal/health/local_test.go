package health

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm"
)

func command(script string) fsm.Check {
	return fsm.Check{Name: "mine", Command: &fsm.CommandCheck{Argv: []string{"/bin/sh", "-c", script}}}
}

func TestCommand(t *testing.T) {
	expectRun(t, command(`[ "$QUORATE_CHECK,$QUORATE_NODE,$QUORATE_GROUP" = "mine,n1,web db" ]`), plenty, "")
	expectRun(t, command("echo no disk; echo at all >&2; exit 3"), plenty, "exit status 3; it printed last: no disk at all")
	expectRun(t, command("exit 1"), plenty, "exit status 1")
	expectRun(t, command("echo begun; sleep 1000"), 300*time.Millisecond, "it was still running and was killed")
	expectRun(t, command("sleep 1000 & exit 0"), plenty, "") // a child that keeps the output open
	expectRun(t, command("yes | head -c 64M; exit 1"), plenty, "y y y")
	expectRun(t, fsm.Check{Command: &fsm.CommandCheck{Argv: []string{"/nowhere/check"}}}, plenty, "not on this node; install it")
	expectRun(t, fsm.Check{Command: &fsm.CommandCheck{Argv: []string{"/bin/true"}, User: "quorate-nobody"}}, plenty, "create it on this node")
	plain := filepath.Join(t.TempDir(), "check")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	expectRun(t, fsm.Check{Command: &fsm.CommandCheck{Argv: []string{plain}}}, plenty, "chmod +x")
}

// A process under the very name, one that is dead, and one that is gone.
func TestProcess(t *testing.T) {
	const name = "quorate-test-with-a-long-name"
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), name)
	if err := copyFile(program, sleep); err != nil {
		t.Fatal(err)
	}
	probe := build(spec{check: fsm.Check{Process: name}}, "n1")
	if err := probe(t.Context()); err == nil || !strings.Contains(err.Error(), "no process named "+name) {
		t.Errorf("without one: %v", err)
	}
	run := exec.Command(program, "1000")
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = run.Process.Kill(), run.Wait() }()
	for range 2 { // found by search, then at once
		if err := probe(t.Context()); err != nil {
			t.Errorf("with one: %v", err)
		}
	}
	expectRun(t, fsm.Check{Process: name[:15]}, plenty, "") // the name that ps shows
	expectRun(t, fsm.Check{Process: name[:14]}, plenty, "no process named")
	if err := run.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Waitid(unix.P_PID, run.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if err := probe(t.Context()); err == nil {
		t.Error("a dead one that nobody fetched counts")
	}
	_ = run.Wait()
	if err := probe(t.Context()); err == nil {
		t.Error("one that is gone counts")
	}
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// What /proc may hold.
func TestProcessEntries(t *testing.T) {
	proc := t.TempDir()
	write := func(pid int, stat, cmdline string) {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"stat": stat, "cmdline": cmdline} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(1, "1 (a) b) c) S 0", "/usr/bin/named-otherwise\x00-x\x00")
	write(2, "2 (zombie) Z 1", "")
	write(3, "3 (kworker/0:1) I 2", "")
	write(4, "4 (a-script-with-a) S 1", "/bin/sh\x00/opt/a-script-with-a-name\x00")
	write(5, "5 (broken", "")
	write(6, "6 (short)", "")
	write(7, "", "")
	if err := os.Mkdir(filepath.Join(proc, "irq"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"a) b) c": true, "named-otherwise": true, "zombie": false, "kworker/0:1": true, "a-script-with-a-name": true,
		"a-script-with-a-game": false, "sh": true, "broken": false, "short": false, "irq": false, "x": false,
	} {
		if err := processProbe(proc, name)(t.Context()); (err == nil) != want {
			t.Errorf("%q: %v, want found: %t", name, err, want)
		}
	}
	if err := processProbe(filepath.Join(proc, "none"), "x")(t.Context()); err == nil {
		t.Error("without /proc it passes")
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	good, long := write("good", []byte("42\n")), write("long", append(bytes.Repeat([]byte("x"), maxRead), "needle"...))
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		check fsm.FileCheck
		want  string
	}{
		"there": {fsm.FileCheck{Path: good}, ""}, "match": {fsm.FileCheck{Path: good, Match: `^\d+\n$`}, ""},
		"no match":  {fsm.FileCheck{Path: good, Match: "^0"}, `does not match "^0"`},
		"missing":   {fsm.FileCheck{Path: dir + "/none"}, "no such file"},
		"too late":  {fsm.FileCheck{Path: long, Match: "needle"}, "65536 bytes were read"},
		"pipe":      {fsm.FileCheck{Path: pipe}, "is a pipe, want a plain file"},
		"directory": {fsm.FileCheck{Path: dir}, "is a directory"},
		"device":    {fsm.FileCheck{Path: "/dev/zero"}, "is a device"},
		"kernel's":  {fsm.FileCheck{Path: "/proc/self/stat", Match: "^[0-9]"}, ""},
		"pattern":   {fsm.FileCheck{Path: good, Match: "["}, `match "["`},
	} {
		t.Run(name, func(t *testing.T) { expectRun(t, fsm.Check{File: &c.check}, plenty, c.want) })
	}
}

// Whatever stands for systemctl here says in one line what it found.
func TestSystemd(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	expectRun(t, fsm.Check{Systemd: "nginx.service"}, plenty, "not in the daemon's PATH")
	fake := "#!/bin/sh\n[ \"$1 $2\" = 'is-active --' ] || exit 9\ncase $3 in up.service) echo active;; slow.service) while :; do :; done;; *) echo inactive; exit 3;; esac\n"
	if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte(fake), 0o700); err != nil {
		t.Fatal(err)
	}
	expectRun(t, fsm.Check{Systemd: "up.service"}, plenty, "")
	expectRun(t, fsm.Check{Systemd: "nginx.service"}, plenty, "unit nginx.service: inactive")
	expectRun(t, fsm.Check{Systemd: "slow.service"}, little, "it was still running and was killed")
}

func TestNothingToCheck(t *testing.T) {
	expectRun(t, fsm.Check{Name: "new"}, plenty, "upgrade it")
}

// The whole, on a real file: what the daemon sees.
func TestReportsOfAFile(t *testing.T) {
	type report struct {
		pass bool
		why  string
	}
	reports := make(chan report, 16)
	c := New(Options{Node: "n1", Log: slog.New(slog.DiscardHandler), Report: func(_ string, pass bool, why string) { reports <- report{pass, why} }})
	path := filepath.Join(t.TempDir(), "flag")
	c.Update(fsm.Document{Checks: []fsm.Check{{Name: "flag", File: &fsm.FileCheck{Path: path}, Interval: 100 * time.Millisecond, Timeout: 10 * time.Second, Rise: 1, Fall: 2}}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	if r := <-reports; r.pass || !strings.Contains(r.why, "no such file") {
		t.Errorf("the first report: %+v", r)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := <-reports; !r.pass || r.why != "" {
		t.Errorf("with the file: %+v", r)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if r := <-reports; r.pass {
		t.Errorf("without it again: %+v", r)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
