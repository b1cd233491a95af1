package health

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm"
)

// expectRun runs a check once, with a short timeout where it is meant to run out.
func expectRun(t *testing.T, c fsm.Check, timeout time.Duration, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	err := build(spec{check: c, groups: "web db"}, "n1")(ctx)
	switch {
	case want == "" && err != nil:
		t.Errorf("fails: %v", err)
	case want != "" && err == nil:
		t.Errorf("passes, want a failure with %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("fails: %v; want %q", err, want)
	}
}

const (
	plenty = 30 * time.Second
	little = 50 * time.Millisecond
)

// forever is a body that never ends.
type forever struct{}

func (forever) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func newServer(t *testing.T) (server, secure *httptest.Server) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "state: up, host "+r.Host) })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "begun ")
		_, _ = io.Copy(w, forever{})
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begun ")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/late", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", maxRead)+"needle")
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 4*maxRead)) })
	mux.HandleFunc("/closes", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	})
	mux.HandleFunc("/secret", func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "pass" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	server, secure = httptest.NewServer(mux), httptest.NewUnstartedServer(mux)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(server.Close)
	t.Cleanup(secure.Close)
	return server, secure
}

func TestHTTP(t *testing.T) {
	server, secure := newServer(t)
	t.Setenv("HTTP_PROXY", "http://192.0.2.1:1") // is not used
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	plain := func(path, match string) fsm.HTTPCheck {
		return fsm.HTTPCheck{URL: server.URL + path, StatusMin: 200, StatusMax: 299, Match: match}
	}
	for name, c := range map[string]struct {
		check   fsm.HTTPCheck
		timeout time.Duration
		want    string
	}{
		"ok":              {plain("/ok", ""), plenty, ""},
		"match":           {plain("/ok", "^state: (up|starting)"), plenty, ""},
		"no match":        {plain("/ok", "down"), plenty, `the body does not match "down"`},
		"bad pattern":     {plain("/ok", "("), plenty, `match "("`},
		"bad url":         {fsm.HTTPCheck{URL: "ftp://x/", StatusMin: 200, StatusMax: 200}, plenty, "want http://"},
		"status":          {plain("/broken", ""), plenty, "status 503, want 200 to 299"},
		"one status":      {fsm.HTTPCheck{URL: server.URL + "/ok", StatusMin: 204, StatusMax: 204}, plenty, "status 200, want 204"},
		"redirect":        {plain("/elsewhere", ""), plenty, "redirects to /ok, which is not followed"},
		"redirect wanted": {fsm.HTTPCheck{URL: server.URL + "/elsewhere", StatusMin: 302, StatusMax: 302}, plenty, ""},
		"silent":          {plain("/silent", ""), little, "no answer in time"},
		"endless":         {plain("/endless", "^begun x+$"), plenty, ""},
		"endless, unread": {plain("/endless", ""), plenty, ""},
		"slow":            {plain("/slow", "never"), 2 * time.Second, "of the body: no answer in time"},
		"too late":        {plain("/late", "needle"), plenty, "65536 bytes were read"},
		"long headers":    {plain("/headers", ""), plenty, "exceeded"},
		"closes":          {plain("/closes", ""), plenty, "EOF"},
		"password":        {fsm.HTTPCheck{URL: strings.Replace(server.URL, "//", "//me:pass@", 1) + "/secret", StatusMin: 200, StatusMax: 200}, plenty, ""},
		"host":            {fsm.HTTPCheck{URL: server.URL + "/ok", Host: "web.example", StatusMin: 200, StatusMax: 200, Match: "host web.example$"}, plenty, ""},
		"tls unknown":     {fsm.HTTPCheck{URL: secure.URL + "/ok", StatusMin: 200, StatusMax: 200}, plenty, "certificate"},
		"tls insecure":    {fsm.HTTPCheck{URL: secure.URL + "/ok", StatusMin: 200, StatusMax: 200, Insecure: true}, plenty, ""},
		"tls ca":          {fsm.HTTPCheck{URL: secure.URL + "/ok", StatusMin: 200, StatusMax: 200, CA: ca}, plenty, ""},
		"tls name":        {fsm.HTTPCheck{URL: secure.URL + "/ok", Host: "example.com:8443", StatusMin: 200, StatusMax: 200, CA: ca}, plenty, ""},
		"tls other name":  {fsm.HTTPCheck{URL: secure.URL + "/ok", Host: "elsewhere.example", StatusMin: 200, StatusMax: 200, CA: ca}, plenty, "not elsewhere.example"},
		"no ca":           {fsm.HTTPCheck{URL: secure.URL + "/ok", StatusMin: 200, StatusMax: 200, CA: "/nowhere.pem"}, plenty, "ca: open /nowhere.pem"},
		"empty ca":        {fsm.HTTPCheck{URL: secure.URL + "/ok", StatusMin: 200, StatusMax: 200, CA: empty}, plenty, "no certificate"},
		"not http":        {fsm.HTTPCheck{URL: strings.Replace(secure.URL, "https", "http", 1) + "/ok", StatusMin: 200, StatusMax: 200}, plenty, "status 400"},
	} {
		t.Run(name, func(t *testing.T) { expectRun(t, fsm.Check{Name: "web", HTTP: &c.check}, c.timeout, c.want) })
	}
}

// A server that takes the connection and says nothing, and one that is not there.
func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	expectRun(t, fsm.Check{TCP: l.Addr().String()}, plenty, "")
	silent := fsm.HTTPCheck{URL: "http://" + l.Addr().String(), StatusMin: 200, StatusMax: 200}
	expectRun(t, fsm.Check{HTTP: &silent}, little, "no answer in time")
	silent.URL = "https://" + l.Addr().String()
	expectRun(t, fsm.Check{HTTP: &silent}, little, "no answer in time")
	_ = l.Close()
	expectRun(t, fsm.Check{TCP: l.Addr().String()}, plenty, "connection refused")
	expectRun(t, fsm.Check{HTTP: &silent}, plenty, "connection refused")
	expectRun(t, fsm.Check{TCP: "127.0.0.1"}, plenty, "missing port")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tcpProbe("127.0.0.1:9")(ctx); err != errTimeout {
		t.Errorf("cut off: %v", err)
	}
}

// The own loopback answers, in both families, on the socket that this host gives.
func TestICMP(t *testing.T) {
	for _, f := range families {
		conn, _, err := f.listen()
		if err != nil {
			t.Skipf("no ICMP socket here, which needs root or net.ipv4.ping_group_range: %v", err)
		}
		_ = conn.Close()
	}
	expectRun(t, fsm.Check{ICMP: "127.0.0.1"}, plenty, "")
	expectRun(t, fsm.Check{ICMP: "::ffff:127.0.0.1"}, plenty, "")
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil {
		expectRun(t, fsm.Check{ICMP: "::1"}, plenty, "")
	}
	expectRun(t, fsm.Check{ICMP: "localhost"}, plenty, "")
	expectRun(t, fsm.Check{ICMP: "fe80::1%nodevice"}, plenty, "ping fe80::1%nodevice: device nodevice: ")
}

// Both kinds of socket, where the kernel gives them, and answers to others between.
func TestICMPSockets(t *testing.T) {
	for four, f := range families {
		to := netip.MustParseAddr("::1")
		if four {
			to = netip.MustParseAddr("127.0.0.1")
		}
		for kind, only := range map[string]family{
			"plain": {f.plain, "none", f.any, f.request, f.reply, f.protocol},
			"raw":   {"none", f.raw, f.any, f.request, f.reply, f.protocol},
		} {
			conn, raw, err := only.listen()
			if err != nil {
				t.Logf("%s socket for %s: %v", kind, to, err)
				continue
			}
			if raw != (kind == "raw") {
				t.Errorf("a %s socket is raw: %t", kind, raw)
			}
			ctx, cancel := context.WithTimeout(t.Context(), plenty)
			stop := make(chan struct{})
			noise := make(chan struct{})
			go func() {
				defer close(noise)
				for {
					select {
					case <-stop:
						return
					default:
						_ = ping(ctx, to)
					}
				}
			}()
			if err := echo(ctx, conn, raw, f, to); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
			if raw && four {
				// One that is not answered by an echo reply.
				deaf := f
				deaf.request = ipv4.ICMPTypeTimestamp
				short, end := context.WithTimeout(ctx, little)
				if err := echo(short, conn, raw, deaf, to); !errors.Is(err, errTimeout) {
					t.Errorf("without an answer: %v", err)
				}
				end()
			}
			close(stop)
			<-noise
			cancel()
			_ = conn.Close()
		}
	}
}

func TestICMPAnswers(t *testing.T) {
	f := families[true]
	for name, packet := range map[string][]byte{
		"empty": nil, "short": {0, 0}, "a request": {8, 0, 0, 0, 0, 1, 0, 1, 'n'}, "another's": {0, 0, 0, 0, 0, 1, 0, 1, 'x'}, "longer": {0, 0, 0, 0, 0, 1, 0, 1, 'n', 'n'},
	} {
		if f.answers(packet, []byte("n")) {
			t.Errorf("%s is taken for the answer", name)
		}
	}
	if !f.answers([]byte{0, 0, 0, 0, 0, 1, 0, 1, 'n'}, []byte("n")) {
		t.Error("the answer is not taken")
	}
}

// In a namespace whose kernel gives everybody an ICMP socket, that one is used.
func TestICMPWithoutPrivilege(t *testing.T) {
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the namespace
		ended <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return errSkip
			}
			if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0); err != nil {
				return errSkip
			}
			for four, to := range map[bool]string{true: "127.0.0.1", false: "::1"} {
				conn, raw, err := families[four].listen()
				if err != nil || raw {
					return fmt.Errorf("listen for %s: raw %t, %w", to, raw, err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), plenty)
				err = echo(ctx, conn, raw, families[four], netip.MustParseAddr(to))
				cancel()
				_ = conn.Close()
				if err != nil {
					return fmt.Errorf("ping %s: %w", to, err)
				}
			}
			return nil
		}()
	}()
	switch err := <-ended; {
	case errors.Is(err, errSkip):
		t.Skip("not root: cannot make a network namespace")
	case err != nil:
		t.Error(err)
	}
}

var errSkip = errors.New("cannot be tried here")
