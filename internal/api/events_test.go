package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Events returns one event at index 7 and one at 9, which had a report at 12.
func (f *fakeAdmin) Events(after uint64) (Events, error) {
	if f.err != nil {
		return Events{}, f.err
	}
	e := Events{Index: 12, Events: []Event{}}
	for _, ev := range []Event{{Index: 7, Kind: "leader", Node: "n1"}, {Index: 9, Updated: 12, Kind: "owner", Group: "web", To: "n1"}} {
		if max(ev.Index, ev.Updated) > after {
			e.Events = append(e.Events, ev)
		}
	}
	return e, nil
}

func TestEvents(t *testing.T) {
	agent := &fakeAgent{Admin: &fakeAdmin{}, status: answers(healthy())}
	for _, tc := range []struct {
		query string
		code  int
		want  string
	}{
		{"", 200, `"index":7`},
		{"?after=7", 200, `{"index":12,"events":[{"index":9,"updated":12,"at":"0001-01-01T00:00:00Z","kind":"owner","group":"web","to":"n1"}]}`},
		{"?after=12", 200, `{"index":12,"events":[]}`},
		{"?after=-1", 400, "after=-1: want an index of the log"},
		{"?after=x", 400, "after=x"},
		{"?wait=11s", 400, "wait=11s: want a duration of at most 10s"},
		{"?wait=-1s", 400, "wait=-1s"},
		{"?since=1h", 400, `takes after and wait, not "since"`},
	} {
		code, body := ask(t, agent, "GET", "/v1/events"+tc.query, "")
		if body = strings.ReplaceAll(body, `\"`, `"`); code != tc.code || !strings.Contains(body, tc.want) {
			t.Errorf("%s: %d %s; want %d, %s", tc.query, code, body, tc.code, tc.want)
		}
	}
	if code, body := ask(t, &fakeAgent{Admin: &fakeAdmin{err: errors.New("not formed")}}, "GET", "/v1/events", ""); code != 409 || !strings.Contains(body, "events: not formed") {
		t.Errorf("%d %s", code, body)
	}
}

// A later is an Admin whose first event comes after a while.
type later struct {
	fakeAdmin
	at time.Time
}

func (l *later) Events(uint64) (Events, error) {
	if time.Now().Before(l.at) {
		return Events{Index: 3, Events: []Event{}}, nil
	}
	return Events{Index: 4, Events: []Event{{Index: 4, Kind: "formed"}}}, nil
}

func TestEventsWait(t *testing.T) {
	for _, tc := range []struct{ comes, wait, want time.Duration }{
		{time.Second, 5 * time.Second, time.Second},
		{7 * time.Second, 5 * time.Second, 5 * time.Second},
		{time.Second, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			from := time.Now()
			s := &Server{agent: &fakeAgent{Admin: &later{at: from.Add(tc.comes)}}, opts: options()}
			w := httptest.NewRecorder()
			s.handler().ServeHTTP(w, httptest.NewRequest("GET", "/v1/events?after=3&wait="+tc.wait.String(), nil))
			if took := time.Since(from); took < tc.want || took > tc.want+eventsPoll {
				t.Errorf("comes after %v, wait %v: answered after %v", tc.comes, tc.wait, took)
			}
			var e Events
			if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || (len(e.Events) > 0) != (tc.comes < tc.wait) {
				t.Errorf("comes after %v, wait %v: %s (%v)", tc.comes, tc.wait, w.Body, err)
			}
		})
	}
}

// Over TCP there is nothing that changes something, and nothing that tells a password.
func TestWeb(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "quorate_up 1\n") })
	web, err := ListenHTTP("127.0.0.1:0", &fakeAgent{Admin: &fakeAdmin{}, status: answers(healthy())}, metrics, options())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- web.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for _, tc := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/metrics", 200}, {"GET", "/healthz", 200}, {"GET", "/readyz", 200}, {"GET", "/v1/status", 200}, {"GET", "/v1/vrrp", 200},
		{"GET", "/v1/events?after=7", 200}, {"GET", "/v1/history", 200}, {"GET", "/v1/explain/web", 200},
		{"GET", "/v1/history/1", 404}, {"GET", "/v1/snapshot", 404}, {"POST", "/metrics", 405}, {"POST", "/v1/status", 405},
		{"POST", "/v1/move", 404}, {"POST", "/v1/release", 404}, {"POST", "/v1/drain", 404}, {"POST", "/v1/undrain", 404}, {"POST", "/v1/remove", 404},
		{"POST", "/v1/apply", 404}, {"POST", "/v1/rollback", 404}, {"POST", "/v1/restore", 404}, {"GET", "/", 404}, {"GET", "/debug/pprof/", 404},
	} {
		req, err := http.NewRequestWithContext(ctx, tc.method, "http://"+web.Address()+tc.path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != tc.code || resp.Header.Get(VersionHeader) != "1.2.3" {
			t.Errorf("%s %s: %s %s (%v), want %d", tc.method, tc.path, resp.Status, body, err, tc.code)
		}
		_ = resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
}

// Every order is left out of what is read over TCP, those of later versions too.
func TestWebHasNoOrders(t *testing.T) {
	agent := &fakeAgent{Admin: &fakeAdmin{}, status: answers(healthy())}
	web := &Web{server: &Server{agent: agent, opts: options()}}
	for path, rt := range web.server.adminRoutes() {
		if rt.method == http.MethodGet {
			continue
		}
		w := httptest.NewRecorder()
		web.handler().ServeHTTP(w, httptest.NewRequest(rt.method, path, strings.NewReader("{}")))
		if w.Code != http.StatusNotFound {
			t.Errorf("%s %s over TCP: %d %s", rt.method, path, w.Code, w.Body)
		}
	}
}

func TestListenHTTPTeaches(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for address, want := range map[string]string{
		l.Addr().String(): "another program has the port (ss -ltnp 'sport = :" + port + "' shows which)",
		"192.0.2.77:7951": "this host does not have the address",
	} {
		w, err := ListenHTTP(address, nil, nil, options())
		if err == nil {
			_ = w.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "http: listen on "+address) {
			t.Errorf("%s: %v", address, err)
		}
	}
}
