package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/api"
)

// A storied agent has a history.
type storied struct {
	api.Admin
	tell func(after uint64) (api.Events, error)
}

func (s *storied) Events(after uint64) (api.Events, error) { return s.tell(after) }

func number(ms float64) *float64 { return &ms }

func phases(detected, elected, waited, bound, announced float64) *api.Phases {
	return &api.Phases{DetectedMS: detected, ElectedMS: elected, WaitedMS: &waited, BoundMS: &bound, AnnouncedMS: &announced}
}

// story is one event of each kind.
func story() []api.Event {
	at := func(second int) time.Time { return time.Date(2025, 11, 22, 21, 54, second, 512_000_000, time.Local) }
	return []api.Event{
		{Index: 2, At: at(0), Kind: "formed", Revision: 1},
		{Index: 3, At: at(1), Kind: "leader", Node: "n1", Term: 2},
		{Index: 4, Updated: 5, At: at(2), Kind: "owner", Group: "web", To: "n1", Reason: "first", Phases: phases(0, 0, 12.25, 0.04, 0.3)},
		{Index: 6, Updated: 8, At: at(3), Kind: "owner", Group: "web", From: "n1", To: "n2", Reason: "owner-lost",
			Phases: phases(250.4, 38, 20, 6, 4), OutageMS: number(318.4)},
		{Index: 9, At: at(4), Kind: "owner", Group: "database", From: "n2", To: "n3", Reason: "not-open", Phases: &api.Phases{DetectedMS: 751.2, ElectedMS: 8}},
		{Index: 10, At: at(5), Kind: "owner", Group: "database", From: "n3", Reason: "all-fail"},
		{Index: 11, Updated: 12, At: at(50), Kind: "owner", Group: "database", To: "n2", Reason: "restore", Phases: phases(0, 0, 3, 2, 1), OutageMS: number(45_006)},
		{Index: 13, At: at(51), Kind: "document", Revision: 2, By: "root@n1"},
		{Index: 13, At: at(51), Kind: "owner", Group: "web", From: "n2", To: "n2", Reason: "document"},
		{Index: 14, At: at(52), Kind: "drain", Node: "n3", By: "root@n1"},
		{Index: 15, At: at(53), Kind: "undrain", Node: "n3", By: "root@n1"},
		{Index: 16, At: at(54), Kind: "joined", Node: "n4"},
		{Index: 17, At: at(55), Kind: "changed", Node: "n4"},
		{Index: 18, At: at(56), Kind: "removed", Node: "n4", By: "root@n2"},
		{Index: 18, At: at(57), Kind: "reopened", Group: "web", To: "n1", Reason: "lease-expired", OutageMS: number(5203.4)},
		{Index: 19, At: at(57), Kind: "something-newer", Node: "n1"},
	}
}

func behind(after uint64, index uint64, all []api.Event) api.Events {
	out := api.Events{Index: index, Events: []api.Event{}}
	for _, e := range all {
		if max(e.Index, e.Updated) > after {
			out.Events = append(out.Events, e)
		}
	}
	return out
}

func TestEventsCommand(t *testing.T) {
	dir, socket := startDaemon(t, &fakeAgent{Admin: &storied{tell: func(after uint64) (api.Events, error) { return behind(after, 19, story()), nil }}})
	golden(t, "events", dir, "events", "--socket", socket)
	golden(t, "events-last", dir, "events", "--socket", socket, "-n", "3", "--group", "web")
	t.Setenv("COLUMNS", "80")
	golden(t, "events-80", dir, "events", "--socket", socket)
	t.Setenv("COLUMNS", "40")
	golden(t, "events-40", dir, "events", "--socket", socket, "-n", "3", "--group", "web")
	t.Setenv("COLUMNS", "")
	golden(t, "events-since", dir, "events", "--socket", socket, "--since", "1h")
	code, stdout, stderr := quorate(t, "events", "--socket", socket, "--group", "database", "--json", "-n", "1")
	want := `"group": "database",
      "to": "n2",
      "reason": "restore",
      "phases": {
        "detected_ms": 0,
        "elected_ms": 0,
        "waited_ms": 3,
        "bound_ms": 2,
        "announced_ms": 1
      },
      "outage_ms": 45006`
	if code != exitDone || stderr != "" || !strings.Contains(stdout, want) || strings.Contains(stdout, `"index": 10`) {
		t.Errorf("exit %d, %s%s", code, stdout, stderr)
	}
	if code, _, stderr := quorate(t, "events", "-n", "-1", "--socket", socket); code != exitUsage || !strings.Contains(stderr, "cannot be negative") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

// An event that the new owner has not reported on yet is kept back for a while, and what
// came after it with it; then it is shown as it is, and once more when the report comes.
func TestEventStream(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	early := api.Event{Index: 6, At: now, Kind: "owner", Group: "web", From: "n1", To: "n2", Reason: "owner-lost", Phases: &api.Phases{DetectedMS: 250}}
	whole := early
	whole.Updated, whole.Phases, whole.OutageMS = 9, phases(250, 10, 1, 1, 1), number(263)
	next := api.Event{Index: 7, At: now, Kind: "leader", Node: "n2", Term: 3}
	count := func(text string) (n int) { return strings.Count(text, "\n") }

	s := &eventStream{}
	s.take([]api.Event{early, next}, now)
	if got := s.ready(now.Add(reportPatience - 1)); got != "" {
		t.Fatalf("shown at once: %q", got)
	}
	s.take([]api.Event{whole}, now.Add(time.Second))
	if got := s.ready(now.Add(time.Second)); count(got) != 2 || !strings.Contains(got, "263 ms without an owner") || !strings.HasSuffix(got, "leads, term 3\n") {
		t.Fatalf("with the report: %q", got)
	}
	s.take([]api.Event{whole}, now) // of another node, say
	if got := s.ready(now); got != "" {
		t.Fatalf("shown twice: %q", got)
	}

	s = &eventStream{}
	s.take([]api.Event{early, next}, now)
	if got := s.ready(now.Add(reportPatience)); count(got) != 2 || !strings.Contains(got, "no report of the new owner (detected 250, elected 0 ms)") {
		t.Fatalf("without a report: %q", got)
	}
	s.take([]api.Event{whole}, now)
	if got := s.ready(now); count(got) != 1 || !strings.Contains(got, "263 ms") {
		t.Fatalf("the report came late: %q", got)
	}

	s = &eventStream{query: eventsQuery{asJSON: true}}
	s.take([]api.Event{early}, now)
	s.take([]api.Event{whole}, now)
	if got := s.ready(now); count(got) != 1 || !strings.Contains(got, `"outage_ms":263`) {
		t.Fatalf("as JSON: %q", got)
	}
}

// A lockedBuffer is written by one goroutine and read by another.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// -f goes on where it was when a daemon that failed answers again, and ends when it is told to.
func TestEventsFollow(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	asked, failed := 0, 0
	agent := &storied{tell: func(after uint64) (api.Events, error) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		switch {
		case asked == 1:
			return behind(after, 5, story()[:3]), nil
		case failed == 0:
			failed++
			return api.Events{}, errors.New("restarting")
		case after != 5 && after != 19:
			t.Errorf("asked for what is behind %d", after)
		case after == 19:
			cancel()
		}
		return behind(after, 19, story()), nil
	}}
	_, socket := startDaemon(t, &fakeAgent{Admin: agent})
	var out, problems lockedBuffer
	if code := execute(ctx, []string{"events", "-f", "-n", "1", "--socket", socket, "--group", "web"}, &out, &problems); code != exitDone {
		t.Errorf("exit %d", code)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4 || !strings.Contains(lines[0], "nobody → n1") || !strings.Contains(lines[1], "n1 → n2") || !strings.Contains(lines[2], "stays on n2") {
		t.Errorf("%q", lines)
	}
	if got := problems.String(); got != "quorate: events: restarting; trying again\n" {
		t.Errorf("on stderr: %q", got)
	}
}
