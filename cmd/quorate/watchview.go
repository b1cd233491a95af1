package main

import (
	"fmt"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/term"
)

// watchedEvents is how many events the view remembers.
const watchedEvents = 200

// A watching is the view's state: what was heard, and how it is looked at. It is
// bubbletea's model: messages in, commands out.
type watching struct {
	source watched
	screen term.Screen
	height int
	scroll int // lines above the screen

	status     core.Status
	heard      bool // there was a status
	lost       error
	difference string
	index      uint64
	events     []api.Event // oldest first
}

func newWatching(s term.Screen, source watched) watching {
	return watching{source: source, screen: s, height: 24}
}

// Init asks for the first status and all events.
func (w watching) Init() tea.Cmd { return tea.Batch(w.source.look(0), w.source.follow(0, 0)) }

// Update takes one message.
func (w watching) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	var then tea.Cmd
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		w.screen.Width, w.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return w, tea.Quit
		case "down", "j":
			w.scroll++
		case "up", "k":
			w.scroll--
		case "pgdown", "space":
			w.scroll += w.height - 1
		case "pgup":
			w.scroll -= w.height - 1
		case "home", "g":
			w.scroll = 0
		}
	case looked:
		w.lost, w.difference = msg.err, msg.difference
		pause := watchAgain
		if msg.err == nil {
			w.status, w.heard, pause = msg.status, true, watchEvery
		}
		then = w.source.look(pause)
	case followed:
		if msg.err != nil {
			then = w.source.follow(w.index, watchAgain)
			break
		}
		if msg.events.Index < w.index { // another cluster, or a node that lags: from the beginning
			w.events = nil
		}
		w.index = msg.events.Index
		w.remember(msg.events.Events)
		then = w.source.follow(w.index, 0)
	}
	w.scroll = min(max(w.scroll, 0), max(len(w.lines())-w.room(), 0))
	return w, then
}

// remember takes events in; one that is there already is replaced by its report.
func (w *watching) remember(events []api.Event) {
	w.events = slices.Clone(w.events)
	for _, e := range events {
		same := func(o api.Event) bool {
			return o.Index == e.Index && o.Group == e.Group && o.Kind == e.Kind && o.Node == e.Node
		}
		if i := slices.IndexFunc(w.events, same); i >= 0 {
			w.events[i] = e
			continue
		}
		w.events = append(w.events, e)
	}
	w.events = w.events[max(0, len(w.events)-watchedEvents):]
}

// room is how many lines there are above the last, which has the keys.
func (w watching) room() int { return max(w.height-1, 1) }

// View is the screen.
func (w watching) View() tea.View {
	lines := w.lines()
	more := max(len(lines)-w.room()-w.scroll, 0)
	lines = lines[min(w.scroll, len(lines)):]
	lines = lines[:min(len(lines), w.room())]
	for len(lines) < w.room() {
		lines = append(lines, "")
	}
	keys := "q quits"
	if more > 0 || w.scroll > 0 {
		keys += fmt.Sprintf(", ↑↓ scroll (%d more)", more)
	}
	v := tea.NewView(strings.Join(append(lines, w.screen.Paint(term.Dim, keys)), "\n"))
	v.AltScreen = true
	v.WindowTitle = "quorate"
	return v
}

func (w watching) lines() []string {
	return strings.Split(strings.TrimRight(w.text(), "\n"), "\n")
}

func (w watching) text() string {
	s := w.screen
	var b strings.Builder
	if w.lost != nil {
		b.WriteString(s.Paint(term.Bad, s.Wrap("DISCONNECTED: "+w.lost.Error(), "  ")) + "\n")
		what := "trying again"
		if w.heard {
			what = "what follows is from before; trying again"
		}
		b.WriteString(s.Wrap("  "+what, "  ") + "\n\n")
	}
	if w.difference != "" {
		b.WriteString(s.Paint(term.Warn, s.Wrap(w.difference, "  ")) + "\n\n")
	}
	switch {
	case w.heard && w.lost == nil:
		b.WriteString(headline(s, w.status, findings(w.status)) + "\n")
	case !w.heard && w.lost == nil:
		b.WriteString("asking the daemon …\n")
	}
	if w.heard {
		b.WriteString(s.Table(w.groupRows()))
		if len(w.status.Members) > 0 {
			b.WriteString("\n" + s.Table(w.nodeRows()))
		}
	}
	if len(w.events) > 0 {
		b.WriteString("\n" + s.Table(eventRows(w.events)))
	}
	return b.String()
}

func (w watching) groupRows() [][]term.Cell {
	rows := [][]term.Cell{term.Cells("GROUP", "OWNER", "STATE", "LEASE")}
	for _, v := range w.status.VIPs {
		lease := term.Cell{Text: "-"}
		if v.State == "active" && w.status.LeaseMS > 0 && w.lost == nil {
			lease = term.Cell{Text: bar(v.LeaseRemainingMS/w.status.LeaseMS, w.barWidth()) + fmt.Sprintf(" %3.0f ms", v.LeaseRemainingMS),
				Paint: leasePaint(v.LeaseRemainingMS, w.status.LeaseMS)}
		}
		rows = append(rows, []term.Cell{{Text: v.Name}, {Text: orNone(v.Owner)}, stateCell(w.status, v), lease})
	}
	return rows
}

// barWidth leaves room for the other columns.
func (w watching) barWidth() int { return min(max(w.screen.Width/5, 6), 30) }

// bar is a part of a width in eighths of a column, padded with dots.
func bar(part float64, columns int) string {
	eighths := int(min(max(part, 0), 1)*float64(8*columns) + 0.5)
	out := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		out += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return out + strings.Repeat("·", columns-(eighths+7)/8)
}

func (w watching) nodeRows() [][]term.Cell {
	rows := [][]term.Cell{term.Cells("NODE", "ROLE", "HEARD", "READY", "")}
	for _, m := range w.status.Members {
		rows = append(rows, []term.Cell{{Text: m.Name}, {Text: m.Role}, yesNoCell(m.Alive), yesNoCell(m.Ready), {Text: memberNote(w.status, m)}})
	}
	return rows
}

// eventRows has the latest first.
func eventRows(events []api.Event) [][]term.Cell {
	rows := [][]term.Cell{term.Cells("EVENT", "")}
	for _, e := range slices.Backward(events) {
		row := eventRow(e, e.At.Local())
		what := slices.DeleteFunc(row[1:], func(part string) bool { return part == "" })
		rows = append(rows, []term.Cell{{Text: row[0], Paint: term.Dim}, {Text: strings.Join(what, "  ")}})
	}
	return rows
}
