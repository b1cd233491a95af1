package program

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

func script(t *testing.T, mode os.FileMode, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(p, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRunSaysHowItEnded(t *testing.T) {
	out, err := Run(t.Context(), Job{Argv: sh("cat; echo here; echo there >&2"), Stdin: []byte("said\n")})
	if err != nil || out != "said\nhere\nthere\n" {
		t.Errorf("a program that ends well: %q, %v", out, err)
	}
	out, err = Run(t.Context(), Job{Argv: sh("echo no disk; exit 3")})
	if err == nil || err.Error() != "exit status 3" || out != "no disk\n" {
		t.Errorf("a program that fails: %q, %v", out, err)
	}
	if _, err = Run(t.Context(), Job{Argv: sh("kill -9 $$")}); err == nil || err.Error() != "signal: killed" {
		t.Errorf("a program that somebody else kills: %v", err)
	}
}

// What cannot be started says what to do.
func TestWhatCannotBeStarted(t *testing.T) {
	for name, c := range map[string]struct {
		job  Job
		want string
	}{
		"nothing":            {Job{}, "no program is named"},
		"missing":            {Job{Argv: []string{"/nowhere/to/be/found"}}, "not on this node; install it"},
		"missing in PATH":    {Job{Argv: []string{"quorate-no-such-program"}}, "not in the daemon's PATH"},
		"not executable":     {Job{Argv: []string{script(t, 0o644, "#!/bin/sh\n")}}, "chmod +x"},
		"a directory":        {Job{Argv: []string{t.TempDir()}}, "cannot be executed"},
		"no such loader":     {Job{Argv: []string{script(t, 0o755, "#!/nowhere/python\n")}}, "interpreter"},
		"neither":            {Job{Argv: []string{script(t, 0o755, "echo hello\n")}}, "#!/bin/sh"},
		"unknown user":       {Job{Argv: sh("true"), User: "quorate-nobody"}, `user "quorate-nobody"`},
		"unknown number":     {Job{Argv: sh("true"), User: "3999999999"}, `user "3999999999"`},
		"a zero byte":        {Job{Argv: []string{"/bin/true", "a\x00b"}}, "invalid argument"},
		"a number too large": {Job{Argv: sh("true"), User: "99999999999999"}, "create it on this node"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Run(t.Context(), c.job)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
			if strings.ContainsRune(err.Error(), '\n') {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

// When the time is over, the children go with their parent.
func TestKilledWithItsChildren(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for !exists(pidFile) && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	out, err := Run(ctx, Job{Argv: sh("echo begun; sleep 1000 & echo $! >" + pidFile + ".new; mv " + pidFile + ".new " + pidFile + "; wait")})
	if !errors.Is(err, ErrKilled) || out != "begun\n" {
		t.Fatalf("%q, %v, want ErrKilled", out, err)
	}
	awaitGone(t, readPID(t, pidFile))
	if _, err := Run(ctx, Job{Argv: sh("true")}); !errors.Is(err, ErrKilled) {
		t.Errorf("with a context that is over: %v, want ErrKilled", err)
	}
}

// A child that keeps the output open is not waited for; it is killed if the program is
// to be alone, and lives on if not.
func TestChildLeftBehind(t *testing.T) {
	for _, alone := range []bool{true, false} {
		t.Run("alone="+strconv.FormatBool(alone), func(t *testing.T) {
			pidFile := filepath.Join(t.TempDir(), "pid")
			out, err := Run(t.Context(), Job{Argv: sh("sleep 1000 & echo $! >" + pidFile + "; echo left"), Alone: alone})
			pid := readPID(t, pidFile)
			if !alone {
				defer func() { _ = unix.Kill(pid, unix.SIGKILL) }()
			}
			if err != nil || out != "left\n" {
				t.Errorf("%q, %v", out, err)
			}
			if alone {
				awaitGone(t, pid)
			} else if err := unix.Kill(pid, 0); err != nil {
				t.Errorf("the child is gone: %v", err)
			}
		})
	}
}

// Even one that left the group and keeps the output does not make us wait.
func TestChildOutsideTheGroup(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	_, err := Run(t.Context(), Job{Argv: sh("setsid sh -c 'echo $$ >" + pidFile + "; exec sleep 1000' & until [ -s " + pidFile + " ]; do :; done"), Alone: true})
	defer func() { _ = unix.Kill(readPID(t, pidFile), unix.SIGKILL) }()
	if err != nil {
		t.Error(err)
	}
}

func TestMuchOutput(t *testing.T) {
	out, err := Run(t.Context(), Job{Argv: sh("yes 0123456789 | head -c 64M; echo; echo the end")})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) != MaxOutput || !strings.HasSuffix(out, "\nthe end\n") {
		t.Errorf("%d bytes that end in %q, want %d", len(out), out[max(0, len(out)-20):], MaxOutput)
	}
}

// Another account, with its groups and home, and ordinary urgency.
func TestUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: cannot run as another user")
	}
	for _, name := range []string{"nobody", "65534"} {
		out, err := Run(t.Context(), Job{Argv: sh("id -u; id -un; echo $USER; pwd"), User: name})
		if err != nil || out != "65534\nnobody\nnobody\n/\n" {
			t.Errorf("as %s: %q, %v", name, out, err)
		}
	}
	secret := script(t, 0o700, "#!/bin/sh\n")
	if _, err := Run(t.Context(), Job{Argv: []string{secret}, User: "nobody"}); err == nil || !strings.Contains(err.Error(), "by user nobody") {
		t.Errorf("a program that nobody may run: %v", err)
	}
}

// The daemon is more urgent than others, and what it starts is not.
func TestOrdinaryUrgency(t *testing.T) {
	const score = "/proc/self/oom_score_adj"
	before, err := os.ReadFile(score)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(setNice(-5), os.WriteFile(score, []byte("-500"), 0)); err != nil {
		t.Skipf("cannot become urgent, which needs root: %v", err)
	}
	defer func() {
		if err := errors.Join(setNice(0), os.WriteFile(score, before, 0)); err != nil {
			t.Error(err)
		}
	}()
	out, err := Run(t.Context(), Job{Argv: sh("nice; until [ $(cat /proc/$$/oom_score_adj) = 0 ]; do :; done; echo expendable")})
	if err != nil || out != "0\nexpendable\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// setNice sets the niceness of all threads of this process.
func setNice(n int) error {
	tasks, err := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		if e := unix.Setpriority(unix.PRIO_PROCESS, tid, n); !errors.Is(e, unix.ESRCH) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func TestEnvironment(t *testing.T) {
	got := Environment([]string{"NOTIFY_SOCKET=/run/x", "WATCHDOG_USEC=1", "A=b", "LISTEN_FDS=1"})
	if !slices.Contains(got, "A=b") || slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "NOTIFY") || strings.HasPrefix(s, "WATCH") }) {
		t.Errorf("environment %q", got)
	}
	if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "PATH=/usr/local/sbin") }) {
		t.Errorf("no PATH in %q", got)
	}
	if got := Environment([]string{"PATH=/opt"}); !slices.Equal(got, []string{"PATH=/opt"}) {
		t.Errorf("environment %q", got)
	}
	out, err := Run(t.Context(), Job{Argv: sh("echo $QUORATE_X"), Env: []string{"QUORATE_X=1 2"}})
	if err != nil || out != "1 2\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestTailKeepsTheLast(t *testing.T) {
	var all strings.Builder
	var got tail
	for i := range 3000 {
		s := strings.Repeat(strconv.Itoa(i), 1+i%7)
		if i%500 == 0 {
			s = strings.Repeat(s, 2000)
		}
		all.WriteString(s)
		if n, err := got.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
		want := all.String()
		want = want[max(0, len(want)-MaxOutput):]
		if got.String() != want {
			t.Fatalf("after %d writes %d bytes, want the last %d", i+1, len(got.String()), len(want))
		}
	}
	if cap(got.b) > 8*MaxOutput {
		t.Errorf("it takes %d bytes of memory", cap(got.b))
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "",
		" a\n\tb\x1b[31m\r\n":      "a b [31m",
		"0123456789":               "0123456789",
		"0123456789a":              "…23456789a",
		"\xff\xfe":                 "?",
		"ä ö ü ß ä ö ü ß ä":        "… ü ß ä",
		"\u2028line\u2029para\x00": "line para",
	} {
		got := OneLine(in, 10)
		if in == "ä ö ü ß ä ö ü ß ä" {
			if r := []rune(got); len(r) != 10 || r[0] != '…' {
				t.Errorf("OneLine(%q) = %q", in, got)
			}
			continue
		}
		if got != want {
			t.Errorf("OneLine(%q) = %q, want %q", in, got, want)
		}
	}
}

func readPID(t *testing.T, file string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// awaitGone waits until the process is gone, or dead and only not fetched by init yet.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	_ = unix.Kill(pid, unix.SIGKILL)
	t.Errorf("process %d lives on", pid)
}
