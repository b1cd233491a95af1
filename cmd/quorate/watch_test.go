package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/term"
)

// A script is a source whose answers are given by the test; it takes down what was asked.
type script struct{ asked *[]string }

func (s script) look(after time.Duration) tea.Cmd {
	*s.asked = append(*s.asked, fmt.Sprintf("look in %s", after))
	return func() tea.Msg { return nil }
}

func (s script) follow(index uint64, after time.Duration) tea.Cmd {
	*s.asked = append(*s.asked, fmt.Sprintf("follow %d in %s", index, after))
	return func() tea.Msg { return nil }
}

// A stage is a view that is driven by messages.
type stage struct {
	t     *testing.T
	model tea.Model
	asked []string
}

func newStage(t *testing.T, width, height int) *stage {
	s := &stage{t: t}
	s.model = newWatching(term.Screen{}, script{&s.asked})
	s.model.Init()
	s.say(tea.WindowSizeMsg{Width: width, Height: height})
	return s
}

// say sends a message; what was asked before is forgotten. It reports whether the view
// wants to end.
func (s *stage) say(msg tea.Msg) (quits bool) {
	s.t.Helper()
	s.asked = nil
	var then tea.Cmd
	s.model, then = s.model.Update(msg)
	if then != nil {
		_, quits = then().(tea.QuitMsg)
	}
	return quits
}

// view is the screen without the spaces at the end, after its size was checked.
func (s *stage) view() string {
	s.t.Helper()
	w := s.model.(watching)
	lines := strings.Split(s.model.View().Content, "\n")
	if len(lines) != w.height {
		s.t.Errorf("%d lines on a screen of %d", len(lines), w.height)
	}
	for i, l := range lines {
		if n := utf8.RuneCountInString(l); n > w.screen.Width {
			s.t.Errorf("%d columns on a screen of %d: %q", n, w.screen.Width, l)
		}
		lines[i] = strings.TrimRight(l, " ")
	}
	return strings.Join(lines, "\n") + "\n"
}

func at(second int) time.Time { return time.Date(2026, 11, 22, 21, 54, second, 0, time.Local) }

func happened() api.Events {
	outage := 213.4
	return api.Events{Index: 31, Events: []api.Event{
		{Index: 1, At: at(1), Kind: "formed"},
		{Index: 4, At: at(2), Kind: "joined", Node: "n2"},
		{Index: 17, At: at(40), Kind: "owner", Group: "web", From: "n2", To: "n1", Reason: "owner-lost", OutageMS: &outage, Phases: &api.Phases{DetectedMS: 180}},
		{Index: 31, At: at(50), Kind: "drain", Node: "n2", By: "root@n1"},
	}}
}

func TestWatchViews(t *testing.T) {
	for _, size := range []struct{ width, height int }{{40, 30}, {80, 30}, {120, 40}, {80, 8}} {
		s := newStage(t, size.width, size.height)
		out := "before anything is known\n" + s.view()
		s.say(looked{status: formed()})
		s.say(followed{events: happened()})
		out += "\nall well\n" + s.view()
		st := formed()
		st.VIPs[0].LeaseRemainingMS, st.VIPs[1].Open, st.Members[2].Alive = 80, false, false
		s.say(looked{status: st})
		out += "\nnot well\n" + s.view()
		s.say(looked{err: errors.New("there is no socket /run/quorate/quorate.sock: is the daemon running?")})
		out += "\nthe daemon is gone\n" + s.view()
		goldenText(t, fmt.Sprintf("watch-%dx%d", size.width, size.height), out)
	}
}

func TestWatchGoesOn(t *testing.T) {
	s := newStage(t, 80, 24)
	expect := func(msg tea.Msg, want string) {
		t.Helper()
		s.say(msg)
		if got := strings.Join(s.asked, ", "); got != want {
			t.Errorf("%T: asked %q, want %q", msg, got, want)
		}
	}
	expect(looked{status: formed()}, "look in 150ms")
	expect(looked{err: errors.New("gone")}, "look in 500ms")
	if v := s.view(); !strings.Contains(v, "DISCONNECTED: gone") || !strings.Contains(v, "web") {
		t.Errorf("disconnected:\n%s", v)
	}
	expect(looked{status: formed(), difference: "the daemon is of version 9"}, "look in 150ms")
	if v := s.view(); strings.Contains(v, "DISCONNECTED") || !strings.Contains(v, "of version 9") {
		t.Errorf("connected again:\n%s", v)
	}
	expect(followed{events: happened()}, "follow 31 in 0s")
	expect(followed{err: errors.New("gone")}, "follow 31 in 500ms")

	// The report on an owner takes the place of what was there.
	again := happened().Events[2]
	waited := 5.0
	again.Updated, again.Phases = 32, &api.Phases{WaitedMS: &waited}
	expect(followed{events: api.Events{Index: 32, Events: []api.Event{again}}}, "follow 32 in 0s")
	if w := s.model.(watching); len(w.events) != 4 || w.events[2].Updated != 32 {
		t.Errorf("events: %+v", w.events)
	}
	// An older index is another cluster's: what was there before was not of it.
	expect(followed{events: api.Events{Index: 3, Events: happened().Events[:1]}}, "follow 3 in 0s")
	if w := s.model.(watching); len(w.events) != 1 {
		t.Errorf("events: %+v", w.events)
	}
}

func TestWatchRemembersSoMany(t *testing.T) {
	s := newStage(t, 80, 24)
	var e api.Events
	for i := range uint64(3 * watchedEvents) {
		e.Events = append(e.Events, api.Event{Index: i, Kind: "leader", Node: "n1"})
	}
	s.say(followed{events: e})
	if w := s.model.(watching); len(w.events) != watchedEvents || w.events[watchedEvents-1].Index != 3*watchedEvents-1 {
		t.Errorf("%d events", len(w.events))
	}
}

func TestWatchKeys(t *testing.T) {
	s := newStage(t, 80, 8)
	s.say(looked{status: formed()})
	press := func(code rune, mod tea.KeyMod) bool {
		return s.say(tea.KeyPressMsg{Code: code, Mod: mod, Text: textOf(code, mod)})
	}
	top := s.view()
	for _, down := range []rune{'j', tea.KeyDown} {
		if press(down, 0); s.view() == top {
			t.Errorf("%q does not scroll", down)
		}
		if press('k', 0); s.view() != top {
			t.Errorf("k does not scroll back")
		}
	}
	press(tea.KeyPgDown, 0)
	for range 20 {
		press('j', 0)
	}
	if v := s.view(); !strings.Contains(v, "n3") || !strings.Contains(v, "(0 more)") {
		t.Errorf("the end:\n%s", v)
	}
	press(tea.KeyUp, 0)
	press(tea.KeyPgUp, 0)
	if press('g', 0); s.view() != top {
		t.Errorf("g does not go to the top")
	}
	press('j', 0)
	if s.say(tea.WindowSizeMsg{Width: 80, Height: 60}); !strings.Contains(s.view(), "OK:") {
		t.Errorf("a larger screen stays scrolled:\n%s", s.view())
	}
	for name, quits := range map[string]bool{"q": press('q', 0), "escape": press(tea.KeyEscape, 0), "ctrl-c": press('c', tea.ModCtrl)} {
		if !quits {
			t.Errorf("%s does not end it", name)
		}
	}
}

func textOf(code rune, mod tea.KeyMod) string {
	if mod == 0 && code >= ' ' && code <= '~' {
		return string(code)
	}
	return ""
}

func TestBar(t *testing.T) {
	for part, want := range map[float64]string{-1: "····", 0: "····", 0.26: "█···", 0.3: "█▎··", 0.5: "██··", 0.99: "████", 1: "████", 7: "████"} {
		if got := bar(part, 4); got != want {
			t.Errorf("bar(%v) = %q, want %q", part, got, want)
		}
	}
}

// TestWatchWithoutTerminal: a pipe gets no screen.
func TestWatchWithoutTerminal(t *testing.T) {
	_, socket := startDaemon(t, &fakeAgent{state: core.Status{}})
	if code, _, stderr := quorate(t, "watch", "--socket", socket); code != exitFailed || !strings.Contains(stderr, "needs a terminal") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}
