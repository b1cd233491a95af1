package api

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os/user"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/try"
)

func TestTry(t *testing.T) {
	outage := 12.5
	want := TryReport{
		TryPlan: TryPlan{Group: "web", Fault: "kill", Address: "10.0.0.200", Owner: "n2", Next: "n1", Groups: []string{"web"}, Probes: []string{"n3"}, ForMS: 2000, WorstMS: 857},
		Probe:   "n3", Seen: try.Seen{Asked: 3, Answered: 2, OutageMS: 12.5, Hosts: []try.Host{{MAC: "02:00:00:00:00:01", Node: "n1", Answers: 2}}},
		NewOwner: "n1", Epoch: 9, Event: &Event{Index: 9, Kind: "owner", OutageMS: &outage}, Passed: true,
	}
	var asked TryRequest
	var problem error
	c := client(t, serve(t, &fakeAgent{try: func(r TryRequest) (TryReport, error) { asked = r; return want, problem }}))
	req := TryRequest{Group: "web", Kill: true, ForMS: 2000, Force: true}
	got, err := c.Try(t.Context(), req)
	if err != nil || !reflect.DeepEqual(got, want) || asked != req || asked.For() != 2*time.Second {
		t.Errorf("%+v, %v; asked for %+v", got, err, asked)
	}
	if d := (TryRequest{}).For(); d != DefaultTry {
		t.Errorf("no time is %s", d)
	}
	for text, req := range map[string]TryRequest{
		"must name the group": {}, "leave out the node": {Group: "web", Kill: true, To: "n1"}, "want 2s to 10s": {Group: "web", ForMS: 11000},
	} {
		if _, err := c.Try(t.Context(), req); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v, want %q", req, err, text)
		}
	}
	problem = errors.New("nothing was done")
	if _, err := c.Try(t.Context(), req); err == nil || !strings.Contains(err.Error(), "nothing was done") {
		t.Errorf("a refusal arrives as %v", err)
	}
}

// TestTryByOthers: who may use the socket may move groups, and have no daemon killed.
func TestTryByOthers(t *testing.T) {
	asked := 0
	s := &Server{agent: &fakeAgent{try: func(TryRequest) (TryReport, error) { asked++; return TryReport{}, nil }}}
	for body, want := range map[string]int{`{"group":"web"}`: http.StatusOK, `{"group":"web","kill":true}`: http.StatusForbidden, `{"group":"web","kill":true,"dry_run":true}`: http.StatusForbidden} {
		r := httptest.NewRequest(http.MethodPost, pathTry, strings.NewReader(body))
		r.RemoteAddr = "mallory"
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: %d, want %d: %s", body, w.Code, want, w.Body)
		}
	}
	if asked != 1 {
		t.Errorf("the agent was asked %d times", asked)
	}
}

func TestTrusted(t *testing.T) {
	self, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for who, want := range map[string]bool{Root: true, self.Username: true, "mallory": false, "uid 0": false, "": false} {
		if Trusted(who) != want {
			t.Errorf("%q: %t", who, !want)
		}
	}
}
