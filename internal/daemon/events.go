package daemon

import (
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/api"
)

// Events returns what is new in the history behind an index.
func (p apiPort) Events(after uint64) (api.Events, error) {
	st, err := p.formed()
	if err != nil {
		return api.Events{}, err
	}
	out := api.Events{Index: st.Index, Events: []api.Event{}}
	for _, e := range st.EventsAfter(after) {
		out.Events = append(out.Events, shownEvent(st, e))
	}
	return out, nil
}

// shownEvent is an event as the API has it, with the names that nodes have now.
func shownEvent(st *fsm.State, e *fsm.Event) api.Event {
	out := api.Event{
		Index: e.Index, Updated: e.Updated, At: e.At, Kind: e.Kind.String(), Node: nameOf(st, e.Node), By: e.By,
		Revision: e.Revision, Term: e.Term,
	}
	if e.Kind == fsm.EventReopened {
		out.Group, out.To, out.Reason = e.Group, nameOf(st, e.To), e.Why
		if d, known := e.Outage(); known {
			out.OutageMS = millisOf(d)
		}
	}
	if e.Kind != fsm.EventOwner {
		return out
	}
	out.Group, out.From, out.To, out.Reason = e.Group, nameOf(st, e.From), nameOf(st, e.To), e.Reason.String()
	p := e.Phases
	if e.Opened || p.Detected+p.Elected+p.Committed > 0 {
		out.Phases = &api.Phases{DetectedMS: millis(p.Detected), ElectedMS: millis(p.Elected + p.Committed)}
	}
	if e.Opened {
		out.Phases.WaitedMS, out.Phases.BoundMS, out.Phases.AnnouncedMS = millisOf(p.Waited), millisOf(p.Bound), millisOf(p.Announced)
	}
	if d, known := e.Outage(); known {
		out.OutageMS = millisOf(d)
	}
	return out
}

func millisOf(d time.Duration) *float64 {
	ms := millis(d)
	return &ms
}

// nameOf is a node's name, also of one that was removed. Empty: nobody.
func nameOf(st *fsm.State, id fsm.InstanceID) string {
	if n, ok := st.Nodes[id]; ok {
		return n.Name
	}
	if was, ok := st.Retired[id]; ok {
		return was.Name
	}
	if id.IsZero() {
		return ""
	}
	return id.Short()
}
