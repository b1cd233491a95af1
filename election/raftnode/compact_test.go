package raftnode

import (
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
)

// However often owners change, the log stays short and the state small, and a node that
// starts again is where it was.
func TestCompaction(t *testing.T) {
	changes := 100_000
	if raced || testing.Short() {
		changes = 10_000
	}
	bubble(t, 1, func(t *testing.T, l *lan) {
		l.form()
		h := l.hosts[0]
		var small int
		for i := range changes {
			l.propose(h, assign(h, h.self.ID))
			if i == 2*fsm.HistoryLength {
				small = size(t, h.State())
			}
			if i%(10*snapshotThreshold) == 0 {
				time.Sleep(5 * time.Minute) // the library looks every two to four whether a snapshot is due
			}
		}
		time.Sleep(5 * time.Minute)
		st := h.State()
		if got := size(t, st); got > small+small/4 || len(st.Events) != fsm.HistoryLength {
			t.Errorf("the state has %d bytes and %d changes; %d bytes after the first %d", got, len(st.Events), small, 2*fsm.HistoryLength)
		}
		first, err := h.log.FirstIndex()
		if err != nil {
			t.Fatal(err)
		}
		last, err := h.log.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		if last < uint64(changes) || last-first > 2*(snapshotThreshold+trailingLogs) {
			t.Errorf("the log has the entries %d to %d after %d changes", first, last, changes)
		}
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		h = l.start(0)
		await1(t, "it leads again", func() bool { return h.Leader().Self && h.State().Term == h.Leader().Term })
		if got, want := h.State().Assignments["web"], st.Assignments["web"]; got != want {
			t.Errorf("after a restart web is %+v, was %+v", got, want)
		}
	})
}

func size(t *testing.T, st *fsm.State) int {
	t.Helper()
	b, err := st.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return len(b)
}
