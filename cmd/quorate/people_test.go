package main

import (
	"bufio"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// TestUnknownCommands: the nearest is named.
func TestUnknownCommands(t *testing.T) {
	dir := t.TempDir()
	golden(t, "unknown-command", dir, "staus")
	golden(t, "unknown-far", dir, "frobnicate")
	golden(t, "unknown-flag", dir, "status", "--jsn")
	golden(t, "unknown-below", dir, "snapshot", "svae", "f")
}

// TestNoPermission: who is not in the group is told which.
func TestNoPermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root, to be nobody for a moment; run: sudo go test")
	}
	dir, socket := startDaemon(t, &fakeAgent{state: formed()})
	const nobody = 65534
	if err := syscall.Setresuid(-1, nobody, -1); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := quorate(t, "status", "--socket", socket)
	if err := syscall.Setresuid(-1, 0, -1); err != nil {
		t.Fatal(err)
	}
	if code != exitFailed || stdout != "" {
		t.Errorf("exit %d, stdout %q", code, stdout)
	}
	goldenText(t, "no-permission", strings.ReplaceAll(stderr, dir, "DIR"))
}

// answering serves one text to whoever asks on DIR/s; an empty one: it takes the question,
// and says nothing.
func answering(t *testing.T, text string) (dir, socket string) {
	t.Helper()
	dir = t.TempDir()
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var open []net.Conn // of those that get no answer
		defer func() {
			for _, c := range open {
				c.Close()
			}
		}()
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if text == "" {
				open = append(open, conn)
				continue
			}
			_, err = bufio.NewReader(conn).ReadString('\n')
			if err == nil {
				_, err = conn.Write([]byte(text))
			}
			if err := errors.Join(err, conn.Close()); err != nil {
				t.Error(err)
			}
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return dir, socket
}

// TestOtherVersion: a daemon of another version is named once, where that may matter.
func TestOtherVersion(t *testing.T) {
	answer := func(code, body string) string {
		return "HTTP/1.1 " + code + "\r\nQuorate-Version: 0.1\r\nConnection: close\r\n\r\n" + body
	}
	for name, text := range map[string]string{
		"version-lacks":   answer("200 OK", `{"cluster": "prod", "node": "n1", "quorum": true, "vips": [], "members": []}`),
		"version-refuses": answer("404 Not Found", `{"error": "there is no /v1/status in this version (0.1)"}`),
		"version-other":   answer("200 OK", `{"cluster": {"name": "prod"}}`),
	} {
		dir, socket := answering(t, text)
		golden(t, name, dir, "status", "--socket", socket)
		golden(t, name+"-members", dir, "members", "--json", "--socket", socket)
	}
}

// TestOtherDaemonsHost: nothing is said of a host by the file of another daemon.
func TestOtherDaemonsHost(t *testing.T) {
	dir := t.TempDir()
	file := configure(t, dir, "")
	if h := lookAtHost(file, dir+"/other"); len(h.Unknown) != 1 || !strings.Contains(h.Unknown[0], "is of the daemon at "+dir+"/s") || h.Node != "" {
		t.Errorf("%+v", h)
	}
	if h := lookAtHost(file, dir+"/s"); h.Node != "n1" {
		t.Errorf("%+v", h)
	}
}

// TestHangingDaemon: it is not waited for without end, and the rest is shown.
func TestHangingDaemon(t *testing.T) {
	dir, socket := answering(t, "")
	golden(t, "hangs", dir, "status", "--socket", socket)
}

// TestCompletion: names come from the live cluster, and nothing else is ever said.
func TestCompletion(t *testing.T) {
	f := &fakeAgent{state: formed(), Admin: &admin{}}
	f.state.Members[1].Drained = true
	_, socket := startDaemon(t, f)
	for args, want := range map[string][]string{
		"move ":      {"web\ton n1", "database\ton n2", "mail\ton n2"},
		"move web ":  {"n1\tmember 10.0.0.1:7950", "n2\tmember 10.0.0.2:7950", "n3\twitness 10.0.0.3:7950"},
		"drain ":     {"n1\tmember 10.0.0.1:7950", "n2\tmember 10.0.0.2:7950", "n3\twitness 10.0.0.3:7950"},
		"undrain ":   {"n2\tmember 10.0.0.2:7950"},
		"remove ":    {"n1\tmember 10.0.0.1:7950", "n2\tmember 10.0.0.2:7950", "n3\twitness 10.0.0.3:7950"},
		"explain ":   {"web\ton n1", "database\ton n2", "mail\ton n2", "timing\tthe timeouts of the cluster"},
		"rollback ":  {"1\t- the cluster was formed with it", "2\t2026-11-22 21:54:40 root@n2"},
		"history ":   {"1\t- the cluster was formed with it", "2\t2026-11-22 21:54:40 root@n2"},
		"move a b ":  nil,
		"explain a ": nil,
	} {
		words := strings.Split(args, " ")
		line := slices.Concat([]string{"__complete", words[0], "--socket", socket}, words[1:])
		code, stdout, _ := quorate(t, line...)
		got := strings.Split(strings.TrimSpace(stdout), "\n")
		if directive := got[len(got)-1]; code != exitDone || directive != ":4" {
			t.Errorf("%q: exit %d, directive %q", args, code, directive)
		}
		if got = got[:len(got)-1]; !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", args, got, want)
		}
	}
	for _, socket := range []string{"/none", socket + "x"} {
		if code, stdout, _ := quorate(t, "__complete", "move", "--socket", socket, ""); code != exitDone || stdout != ":4\n" {
			t.Errorf("no daemon: exit %d, %q", code, stdout)
		}
	}
}

// TestCompletionIsQuick: a daemon that hangs does not hold the shell up.
func TestCompletionIsQuick(t *testing.T) {
	_, socket := answering(t, "")
	began := time.Now()
	if code, stdout, _ := quorate(t, "__complete", "move", "--socket", socket, ""); code != exitDone || stdout != ":4\n" {
		t.Errorf("exit %d, %q", code, stdout)
	}
	if took := time.Since(began); took < completeTime || took > 10*completeTime {
		t.Errorf("it took %s, want some %s", took, completeTime)
	}
}

// TestManPages: there is one for each command, and man can read it.
func TestManPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	t.Setenv("SOURCE_DATE_EPOCH", "1796083200")
	if code, stdout, stderr := quorate(t, "man", dir); code != exitDone || stdout+stderr != "" {
		t.Fatalf("exit %d, %s%s", code, stdout, stderr)
	}
	eachCommand(func(c *cobra.Command) {
		if c.HasParent() && !c.IsAvailableCommand() {
			return
		}
		name := strings.ReplaceAll(c.CommandPath(), " ", "-")
		b, err := os.ReadFile(filepath.Join(dir, name+".1"))
		if err != nil {
			t.Error(err)
			return
		}
		for _, want := range []string{".TH", ".SH NAME", ".SH SYNOPSIS", ".SH EXAMPLE"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s has no %s", name, want)
			}
		}
	})
	b, err := os.ReadFile(filepath.Join(dir, "quorate-move.1"))
	if err != nil {
		t.Fatal(err)
	}
	goldenText(t, "man-move", string(b))
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Log("there is no groff here: the pages were not formatted")
		return
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(groff, append([]string{"-man", "-Kutf8", "-Tutf8", "-ww", "-z"}, pages...)...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("groff: %v\n%s", err, out)
	}
}

// eachCommand visits the root and all below it.
func eachCommand(visit func(*cobra.Command)) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		visit(c)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand())
}

// TestNarrow: at 40 columns nothing is wider, whatever is asked.
func TestNarrow(t *testing.T) {
	_, socket := startDaemon(t, &fakeAgent{state: formed(), vrrp: mixed(), Admin: &admin{explain: webExplained}})
	t.Setenv("COLUMNS", "40")
	for _, args := range []string{"status", "members", "vrrp", "history", "explain web", "explain timing"} {
		code, out, stderr := quorate(t, append(strings.Fields(args), "--socket", socket)...)
		if code != exitDone || out == "" {
			t.Errorf("%s: exit %d, %s", args, code, stderr)
		}
		for line := range strings.Lines(out) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 40 {
				t.Errorf("%s: %d columns: %q", args, n, line)
			}
		}
	}
}
