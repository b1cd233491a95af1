package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorate/quorate/election/raftnode"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

// ask puts one request to the routes and returns code and body.
func ask(t *testing.T, agent Agent, method, path, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	s := &Server{agent: agent, opts: options()}
	s.handler().ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	if got := w.Header().Get(VersionHeader); got != "1.2.3" {
		t.Errorf("%s %s: %s = %q", method, path, VersionHeader, got)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" || !json.Valid(w.Body.Bytes()) {
		t.Errorf("%s %s: not JSON: %s %q", method, path, got, w.Body)
	}
	return w.Code, strings.TrimSpace(w.Body.String())
}

func TestRoutes(t *testing.T) {
	large := `{"group":"` + strings.Repeat("x", maxBody) + `"}`
	for _, tc := range []struct {
		method, path, body string
		code               int
		want               string // in the body
	}{
		{"GET", "/v1/status", "", 200, `"cluster":"prod"`},
		{"HEAD", "/v1/status", "", 200, ``},
		{"GET", "/v1/vrrp", "", 200, `"node":"n1"`},
		{"POST", "/v1/vrrp", "", 405, `/v1/vrrp takes GET`},
		{"GET", "/healthz", "", 200, `{"healthy":true}`},
		{"GET", "/readyz", "", 200, `{"ready":true}`},
		{"POST", "/v1/release", "", 202, `{"groups":["web"]}`},
		{"POST", "/v1/release", "{}", 202, `{"groups":["web"]}`},
		{"POST", "/v1/release", `{"group":"web"}`, 400, `unknown field`},
		{"GET", "/", "", 404, `{"error":"there is no / in this version (1.2.3)"}`},
		{"GET", "//v1/status", "", 404, `there is no`},
		{"GET", "/v1/status/", "", 404, `there is no`},
		{"DELETE", "/v1/status", "", 405, `{"error":"/v1/status takes GET, not DELETE"}`},
		{"HEAD", "/v1/move", "", 405, `takes POST, not HEAD`},
		{"GET", "/v1/move", "", 405, `takes POST, not GET`},
		{"POST", "/v1/move", "", 400, `must name both`},
		{"POST", "/v1/move", `{"group":"web"}`, 400, `must name both`},
		{"POST", "/v1/move", `{"group":"web","node":"n2","force":true}`, 400, `unknown field \"force\"`},
		{"POST", "/v1/move", `{"group":"web","node":"n2"} {}`, 400, `more after the object`},
		{"POST", "/v1/move", `{"group":"web","node":"n2"}x`, 400, `one JSON object`},
		{"POST", "/v1/move", `{"group":1,"node":"n2"}`, 400, `one JSON object`},
		{"POST", "/v1/move", `["web","n2"]`, 400, `one JSON object`},
		{"POST", "/v1/move", `group=web`, 400, `one JSON object`},
		{"POST", "/v1/move", large, 413, `longer than 65536 bytes`},
	} {
		agent := &fakeAgent{status: answers(healthy())}
		got, body := ask(t, agent, tc.method, tc.path, tc.body)
		if got != tc.code || !strings.Contains(body, tc.want) {
			t.Errorf("%s %s %.60s: got %d %s; want %d with %s", tc.method, tc.path, tc.body, got, body, tc.code, tc.want)
		}
		if want := tc.path == "/v1/release" && tc.code == 202; want != (agent.released == 1) {
			t.Errorf("%s %s %.60s: released %d times", tc.method, tc.path, tc.body, agent.released)
		}
	}
}

// TestReleaseNames: what the node was named owner of counts, open or not, and not
// what others own.
func TestReleaseNames(t *testing.T) {
	st := healthy()
	st.VIPs = append(st.VIPs, core.VIPStatus{Name: "db", Owner: "n2", State: "backup"}, core.VIPStatus{Name: "mail", Owner: "n1", State: "waiting"})
	if _, body := ask(t, &fakeAgent{status: answers(st)}, "POST", pathRelease, ""); body != `{"groups":["web","mail"]}` {
		t.Error(body)
	}
	st.VIPs = nil
	if _, body := ask(t, &fakeAgent{status: answers(st)}, "POST", pathRelease, ""); body != `{"groups":[]}` {
		t.Error(body)
	}
}

// TestFrozenLoop: no route waits for the loop longer than it says.
func TestFrozenLoop(t *testing.T) {
	for _, tc := range []struct{ method, path, body string }{
		{"GET", pathHealth, ""}, {"GET", pathReady, ""}, {"GET", pathStatus, ""}, {"GET", pathVRRP, ""},
		{"POST", pathRelease, ""}, {"POST", pathMove, `{"group":"web","node":"n2"}`},
	} {
		synctest.Test(t, func(t *testing.T) {
			agent := &fakeAgent{status: frozen}
			began := time.Now()
			got, body := ask(t, agent, tc.method, tc.path, tc.body)
			if got != 503 || !strings.Contains(body, "does not answer within 1s") {
				t.Errorf("%s: %d %s", tc.path, got, body)
			}
			if took := time.Since(began); took != statusTime {
				t.Errorf("%s: took %s", tc.path, took)
			}
			if agent.released != 0 {
				t.Error("released all the same")
			}
		})
	}
}

func TestReady(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*core.Status)
		want   string
	}{
		"not formed":  {func(s *core.Status) { s.ClusterID, s.State = "", "forming" }, "the cluster is not formed yet (state forming)"},
		"voter waits": {func(s *core.Status) { s.Ready = false }, "does not confirm leases yet"},
	} {
		st := healthy()
		tc.change(&st)
		if got, body := ask(t, &fakeAgent{status: answers(st)}, "GET", pathReady, ""); got != 503 || !strings.Contains(body, tc.want) {
			t.Errorf("%s: %d %s", name, got, body)
		}
	}
	st := core.Status{Node: "n1", Election: "vrrp", State: "running"}
	if got, body := ask(t, &fakeAgent{status: answers(st)}, "GET", pathReady, ""); got != 503 || !strings.Contains(body, "an earlier life") {
		t.Errorf("without a cluster, not swept: %d %s", got, body)
	}
	st.Ready = true
	if got, body := ask(t, &fakeAgent{status: answers(st)}, "GET", pathReady, ""); got != 200 || body != `{"ready":true}` {
		t.Errorf("without a cluster: %d %s", got, body)
	}
	failing := func(context.Context) (core.Status, error) { return core.Status{}, errors.New("the agent has stopped") }
	if got, body := ask(t, &fakeAgent{status: failing}, "GET", pathReady, ""); got != 503 || body != `{"error":"the agent has stopped"}` {
		t.Errorf("stopped: %d %s", got, body)
	}
}

// A moving agent has applied a move after some looks at it.
func moving(looks int, after core.VIPStatus) *fakeAgent {
	asked, seen := false, 0
	return &fakeAgent{
		move: func(string, string) error { asked = true; return nil },
		status: func(context.Context) (core.Status, error) {
			st := healthy()
			if asked {
				if seen++; seen > looks {
					st.VIPs[0] = after
				}
			}
			return st, nil
		},
	}
}

const moveBody = `{"group":"web","node":"n2"}`

func TestMove(t *testing.T) {
	moved := core.VIPStatus{Name: "web", Owner: "n2", Epoch: 9}
	for _, looks := range []int{0, 1, 50} { // the leader may be elsewhere
		synctest.Test(t, func(t *testing.T) {
			got, body := ask(t, moving(looks, moved), "POST", pathMove, moveBody)
			if got != 200 || body != `{"epoch":9,"from":"n1","to":"n2"}` {
				t.Errorf("after %d looks: %d %s", looks, got, body)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		overtaken := core.VIPStatus{Name: "web", Owner: "n3", Epoch: 10, Reason: "not-open"}
		got, body := ask(t, moving(0, overtaken), "POST", pathMove, moveBody)
		if got != 409 || !strings.Contains(body, "overtaken: its owner is n3 since epoch 10 (not-open)") {
			t.Errorf("overtaken: %d %s", got, body)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		got, body := ask(t, moving(1<<30, moved), "POST", pathMove, moveBody)
		if got != 504 || !strings.Contains(body, "is committed, but this node has not applied it") || time.Since(began) != MoveTime {
			t.Errorf("never applied: %d %s after %s", got, body, time.Since(began))
		}
	})
}

func TestMoveRefused(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code int
	}{
		{errors.New(`there is no node "n9"`), 409},
		{fmt.Errorf("apply: %w", fsm.ErrStale), 409},
		{fmt.Errorf("propose: %w", raftnode.ErrNotLeader), 503},
		{raftnode.ErrBusy, 503},
		{fmt.Errorf("%w: leadership lost", raftnode.ErrUnknownOutcome), 504},
		{context.DeadlineExceeded, 504},
	} {
		agent := &fakeAgent{status: answers(healthy()), move: func(string, string) error { return tc.err }}
		got, body := ask(t, agent, "POST", pathMove, moveBody)
		var p problem
		if err := json.Unmarshal([]byte(body), &p); err != nil {
			t.Fatal(err)
		}
		if want := "move web to n2: " + tc.err.Error(); got != tc.code || p.Error != want {
			t.Errorf("%v: %d %s", tc.err, got, body)
		}
	}
}

// FuzzReadBody: whatever is accepted as a move is one object of these two fields.
func FuzzReadBody(f *testing.F) {
	for _, seed := range []string{moveBody, "", "{}", "null", `{"group":"a"}{}`, `[1]`, `{"group":null,"node":"n"}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		var req MoveRequest
		r := httptest.NewRequest("POST", pathMove, strings.NewReader(body))
		a, ok := readBody(r, &req)
		if !ok {
			if a.code != http.StatusBadRequest {
				t.Fatalf("code %d", a.code)
			}
			return
		}
		if text := strings.TrimSpace(body); text != "" && text != "null" && (text[0] != '{' || !json.Valid([]byte(text))) {
			t.Fatalf("accepted %q", body)
		}
	})
}
