package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/internal/agent/core"
)

func TestClient(t *testing.T) {
	agent := moving(0, core.VIPStatus{Name: "web", Owner: "n2", Epoch: 9})
	c := client(t, serve(t, agent))
	st, err := c.Status(t.Context())
	if d := cmp.Diff(healthy(), st); d != "" || err != nil {
		t.Errorf("Status: %v (-want +got)\n%s", err, d)
	}
	r, err := c.Release(t.Context())
	if err != nil || len(r.Groups) != 1 || r.Groups[0] != "web" || agent.released != 1 {
		t.Errorf("Release: %+v, %v, asked %d times", r, err, agent.released)
	}
	if m, err := c.Move(t.Context(), "web", "n2"); err != nil || m != (Moved{Epoch: 9, From: "n1", To: "n2"}) {
		t.Errorf("Move: %+v, %v", m, err)
	}
	agent.move = func(string, string) error { return errors.New("node n2 is stopping") }
	if _, err := c.Move(t.Context(), "web", "n2"); code(err) != http.StatusConflict || err.Error() != "move web to n2: node n2 is stopping" {
		t.Errorf("Move: %v", err)
	}
}

func TestClientNobody(t *testing.T) {
	dir := t.TempDir()
	_, err := client(t, filepath.Join(dir, "s")).Status(t.Context())
	if !errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), "is the daemon running?") {
		t.Errorf("no socket: %v", err)
	}
	path := filepath.Join(dir, "dead")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if _, err := client(t, path).Status(t.Context()); !errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), "has died") {
		t.Errorf("stale socket: %v", err)
	}
	long := client(t, "/"+strings.Repeat("x", maxPath))
	if _, err := long.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "the kernel's limit is 107") {
		t.Errorf("long path: %v", err)
	}
}

func TestClientPermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root, to become nobody")
	}
	c := client(t, serve(t, &fakeAgent{status: answers(healthy())}))
	tr := c.http.Transport.(*http.Transport)
	dial := tr.DialContext
	tr.DialContext = func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		asNobody(t, func() { conn, err = dial(ctx, network, addr) })
		return conn, err
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "join group quorate") {
		t.Error(err)
	}
}

// TestClientFrozen: the kernel takes the connection, and nobody reads from it.
func TestClientFrozen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := client(t, path)
	c.patience = time.Millisecond // it is not coming
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "frozen or overloaded") {
		t.Errorf("no answer: %v", err)
	}
	// The caller's own end is no fault of the daemon.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.patience = time.Hour
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrNoAnswer) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestClientStrangers asks others than this version's daemon.
func TestClientStrangers(t *testing.T) {
	for name, tc := range map[string]struct {
		answer, want, difference string
	}{
		"hangs up":       {"", "gives no answer", ""},
		"cut off":        {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "gives no answer", ""},
		"no HTTP":        {"SSH-2.0-OpenSSH_9.6\r\n", "gives no answer", ""},
		"another server": {"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "is it quorate?", ""},
		"newer daemon": {"HTTP/1.1 404 Not Found\r\nQuorate-Version: 9.0\r\nContent-Length: 17\r\n\r\n{\"error\":\"moved\"}",
			"moved", "the daemon is of version 9.0 and this command of 1.2.3"},
		"same version": {"HTTP/1.1 404 Not Found\r\nQuorate-Version: 1.2.3\r\nContent-Length: 17\r\n\r\n{\"error\":\"moved\"}", "moved", ""},
		"other types":  {"HTTP/1.1 200 OK\r\nQuorate-Version: 9.0\r\nContent-Length: 14\r\n\r\n{\"cluster\": 1}", "read the answer", "the daemon is of version 9.0"},
		"fewer fields": {"HTTP/1.1 200 OK\r\nQuorate-Version: 0.9\r\nContent-Length: 16\r\n\r\n{\"cluster\": \"c\"}", "", "does not have node, instance, leader"},
		"same, fewer":  {"HTTP/1.1 200 OK\r\nQuorate-Version: 1.2.3\r\nContent-Length: 16\r\n\r\n{\"cluster\": \"c\"}", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- answerOnce(l, tc.answer) }()
			c := client(t, path)
			_, err = c.Status(t.Context())
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v; want %q in it", err, tc.want)
			}
			if got := c.Difference(); (got == "") != (tc.difference == "") || !strings.Contains(got, tc.difference) {
				t.Errorf("difference %q, want %q in it", got, tc.difference)
			}
			l.Close()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

// answerOnce reads one request and writes the text.
func answerOnce(l net.Listener, text string) error {
	conn, err := l.Accept()
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 4096)); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	_, err = conn.Write([]byte(text))
	return err
}
