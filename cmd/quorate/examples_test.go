package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

// exampleRoot names the directory that stands for / when the tests run this program as
// quorate itself.
const exampleRoot = "QUORATE_TEST_ROOT"

func TestMain(m *testing.M) {
	root := os.Getenv(exampleRoot)
	if root == "" {
		time.Local = time.UTC // for the golden files
		os.Exit(m.Run())
	}
	defaultConfig, defaultSocket = root+defaultConfig, root+defaultSocket
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// An example is one line of a help text.
type example struct{ command, line string }

// examples are those of all commands; a command without one fails the test.
func examples(t *testing.T) []example {
	t.Helper()
	root := newRootCommand()
	finishCompletion(root)
	var out []example
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Example == "" {
			t.Errorf("%s --help has no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), "  #")
			out = append(out, example{c.CommandPath(), strings.TrimSpace(line)})
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return out
}

// endless are the commands that go on until they are told to end, each with what tells it.
var endless = map[string]func(*exampleRun){
	"quorate run":    (*exampleRun).untilServed,
	"quorate shadow": (*exampleRun).untilShadowServed,
	"quorate watch":  (*exampleRun).onTerminal,
}

// refusing are the examples that are to fail, with what they say.
var refusing = map[string]string{
	"quorate recover --config /etc/quorate/quorate.yaml": "nothing was changed",
	"quorate try --move web":                             "there is no terminal to ask on",
}

// TestExamples runs every example of every help text as it stands, with a shell, against
// a daemon with a cluster of three.
func TestExamples(t *testing.T) {
	for _, e := range examples(t) {
		t.Run(e.line, func(t *testing.T) {
			r := newExampleRun(t, e)
			for command, end := range endless {
				if e.line == command || strings.HasPrefix(e.line, command+" ") {
					end(r)
					return
				}
			}
			out, err := r.cmd.CombinedOutput()
			if want, refuses := refusing[e.line]; refuses {
				if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != exitFailed || !strings.Contains(string(out), want) {
					t.Errorf("%v, %s; want exit 1 and %q", err, out, want)
				}
				return
			}
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// An exampleRun is one example with the world round it.
type exampleRun struct {
	t      *testing.T
	root   string
	socket string
	stop   func() // the daemon
	cmd    *exec.Cmd
}

func newExampleRun(t *testing.T, e example) *exampleRun {
	t.Helper()
	if strings.Contains(e.line, "jq ") {
		if _, err := exec.LookPath("jq"); err != nil {
			t.Skip("SKIPPED: needs jq (apt-get install jq)")
		}
	}
	r := &exampleRun{t: t, root: t.TempDir()}
	if e.command == "quorate shadow" { // whose socket has a longer path than the kernel takes in there
		var err error
		if r.root, err = os.MkdirTemp("", "q"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(r.root) })
	}
	work, bin := r.folder("work"), r.folder("bin")
	r.folder("etc/bash_completion.d")
	r.folder("var/backups")
	config := r.folder("etc/quorate") + "/quorate.yaml"
	r.socket = filepath.Join(r.folder("run/quorate"), "quorate.sock")
	switch {
	case strings.HasPrefix(e.command, "quorate recover"):
		file, _ := lostNode(t, fsm.Node{ID: fsm.InstanceID{2}, Name: "n2", Address: nobody, Role: fsm.Member},
			fsm.Node{ID: fsm.InstanceID{3}, Name: "n3", Address: nobody, Role: fsm.Member})
		r.rename(file, config)
	default:
		enterNetns(t) // check and run look at devices
		file := configure(t, r.root, "")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r.write(config, strings.ReplaceAll(string(text), r.root+"/s\n", r.socket+"\n"))
	}
	if e.command != "quorate run" {
		r.serve()
	}
	for _, node := range []string{work + "/n1", work + "/n2", r.root + "/etc/keepalived"} {
		r.write(node+"/keepalived.conf", keepalivedExample)
	}
	r.write(work+"/vips.yaml", "vips: {web: {addresses: [10.0.0.201/24]}}\n")
	r.write(r.root+"/var/backups/quorate.json", snapshotExample(t))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "quorate")); err != nil {
		t.Fatal(err)
	}
	line := strings.NewReplacer(" /etc/", " "+r.root+"/etc/", "=/etc/", "="+r.root+"/etc/", " /var/", " "+r.root+"/var/").Replace(e.line)
	r.cmd = exec.Command("sh", "-c", line)
	r.cmd.Dir = work
	r.cmd.Env = append(os.Environ(), exampleRoot+"="+r.root, "PATH="+bin+":"+os.Getenv("PATH"), "TERM=xterm", "COLUMNS=")
	return r
}

const keepalivedExample = `vrrp_instance web {
	state BACKUP
	interface eth0
	virtual_router_id 51
	priority 100
	virtual_ipaddress { 10.0.0.200/24 }
}
`

func (r *exampleRun) folder(name string) string {
	r.t.Helper()
	dir := filepath.Join(r.root, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	return dir
}

func (r *exampleRun) write(file, text string) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *exampleRun) rename(from, to string) {
	r.t.Helper()
	if err := os.Rename(from, to); err != nil {
		r.t.Fatal(err)
	}
}

// serve has a cluster of three answer on the default socket, which does as it is told.
func (r *exampleRun) serve() {
	a := &admin{applied: changed, explain: webExplained}
	f := &fakeAgent{state: formed(), Admin: a, move: func(s *core.Status, _, node string) error {
		s.VIPs[0].Owner, s.VIPs[0].Epoch, s.VIPs[0].State, s.VIPs[0].Open = node, 18, "backup", true
		return nil
	}, release: func(s *core.Status) {
		for i := range s.VIPs {
			s.VIPs[i].Held = false
		}
	}}
	a.f, f.vrrp, f.try = f, mixed(), survived
	r.stop = serveOn(r.t, f, r.socket)
}

// untilServed starts a daemon, and has it end when it serves.
func (r *exampleRun) untilServed() { r.untilServedOn(r.socket) }

// untilShadowServed does it with a shadow, whose socket is another.
func (r *exampleRun) untilShadowServed() { r.untilServedOn(r.socket + ".shadow") }

func (r *exampleRun) untilServedOn(socket string) {
	var out bytes.Buffer
	r.cmd.Args[2] = "exec " + r.cmd.Args[2] // so that the signal is for it
	r.cmd.Stdout, r.cmd.Stderr = &out, &out
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	served := false
	for deadline := time.Now().Add(20 * time.Second); !served && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			served = true
			conn.Close()
		}
	}
	if err := errors.Join(r.cmd.Process.Signal(syscall.SIGTERM), r.cmd.Wait()); err != nil || !served {
		r.t.Errorf("served: %t, %v\n%s", served, err, out.String())
	}
}

// onTerminal runs a command on a terminal of its own until it shows the groups, makes
// that smaller, and types q.
func (r *exampleRun) onTerminal() {
	seen, master := r.startOnTerminal()
	seen.wait(r.t, "database", 1)
	resize(r.t, master, 40, 24)
	if _, err := master.WriteString("q"); err != nil {
		r.t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		r.t.Errorf("%v\n%q", err, seen.String())
	}
}

func (r *exampleRun) startOnTerminal() (*screenText, *os.File) {
	master, slave := openTerminal(r.t)
	r.t.Cleanup(func() { master.Close() })
	resize(r.t, master, 80, 24)
	r.cmd.Args[2] = "exec " + r.cmd.Args[2] // so that signals are for it
	r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = slave, slave, slave
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	slave.Close()
	seen := &screenText{}
	go func() { _, _ = io.Copy(seen, master) }() // ends with the terminal
	return seen, master
}

// TestWatchOnTerminal: the view says that the daemon is gone, goes on when it is back,
// and ends cleanly by a signal, the terminal as it was before.
func TestWatchOnTerminal(t *testing.T) {
	r := newExampleRun(t, example{"quorate watch", "quorate watch"})
	seen, _ := r.startOnTerminal()
	seen.wait(t, "OK: one owner", 1)
	r.stop()
	seen.wait(t, "DISCONNECTED: there is no socket", 1)
	r.serve()
	seen.wait(t, "OK: one owner", 2)
	if err := errors.Join(r.cmd.Process.Signal(syscall.SIGTERM), r.cmd.Wait()); err != nil {
		t.Errorf("%v\n%q", err, seen.String())
	}
	seen.wait(t, "\x1b[?1049l", 1) // the end of the alternate screen
}

// A screenText is what was written to a terminal.
type screenText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *screenText) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screenText) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// wait returns when a text was written so many times.
func (s *screenText) wait(t *testing.T, want string, times int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); strings.Count(s.String(), want) < times; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not show %q: %q", want, s.String())
		}
	}
}

func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("SKIPPED: there are no terminals to be had here:", err)
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

func resize(t *testing.T, master *os.File, columns, rows uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
}
