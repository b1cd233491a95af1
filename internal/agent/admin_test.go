package agent

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

// Orders are checked in the loop, committed with the time of day, and refused with the
// reason of the check or of the log.
func TestOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.live(t.Context(), func() {
			time.Sleep(2 * time.Second)
			ctx := t.Context()
			for _, yes := range []bool{true, false} {
				if err := w.agent.Drain(ctx, "n1", yes, "root@n1"); err != nil || w.state.Drained[w.self.ID] != yes {
					t.Errorf("drain %v: %v; drained: %v", yes, err, w.state.Drained)
				}
			}
			if err := w.agent.Remove(ctx, "n1", true, ""); err == nil || !strings.Contains(err.Error(), "last voter") {
				t.Errorf("remove the last voter: %v", err)
			}
			if e, err := w.agent.Explain(ctx, "web"); err != nil || e.Owner != "n1" {
				t.Errorf("explain: %+v, %v", e, err)
			}
			doc := w.state.Document
			doc.Groups = nil
			cmd, err := w.agent.PlanApply(ctx, doc, 0, "root@n1")
			if err != nil {
				t.Fatal(err)
			}
			if err := w.agent.Commit(ctx, cmd); err != nil || w.state.Document.Revision != 2 {
				t.Errorf("apply: %v, revision %d", err, w.state.Document.Revision)
			}
			if r, ok := w.state.Revision(2); !ok || r.By != "root@n1" || !r.At.Equal(time.Now()) {
				t.Errorf("revision 2: %+v", r)
			}
			if err := w.agent.Commit(ctx, cmd); !errors.Is(err, fsm.ErrStale) {
				t.Errorf("the same again: %v", err)
			}
			w.agent.Post(core.Stop{})
		})
		if err := w.agent.Drain(t.Context(), "n1", true, ""); !errors.Is(err, errStopped) {
			t.Errorf("an agent that has ended: %v", err)
		}
	})
}
