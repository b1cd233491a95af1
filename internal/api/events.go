package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const pathEvents = "/v1/events"

// EventsWait is how long GET /v1/events waits at most for something new.
const EventsWait = 10 * time.Second

// eventsPoll is between two looks whether there is something new.
const eventsPoll = 50 * time.Millisecond

// Events is the answer to GET /v1/events?after=INDEX&wait=10s: what is new behind that
// index of the log, or was reported on since, oldest first. It is the same on every node
// that has applied as much. With wait, an answer with no events comes only after that.
type Events struct {
	// Index is what to ask for next: nothing up to it is missing here. One that is less
	// than was asked for is of a node that lags, or of another cluster.
	Index  uint64  `json:"index"`
	Events []Event `json:"events"`
}

// An Event is one entry of the cluster's history. Fields that its kind does not have are
// left out. An event of kind owner is there twice for who follows: at once, and with all
// phases when the new owner has reported them; group and index say that it is the same.
type Event struct {
	Index    uint64    `json:"index"`             // of the log; for kind owner it is the group's epoch
	Updated  uint64    `json:"updated,omitempty"` // the index of the last report on it
	At       time.Time `json:"at"`                // the wall clock of the node that proposed it
	Kind     string    `json:"kind"`              // owner, document, drain, undrain, joined, changed, removed, leader, formed, reopened
	Node     string    `json:"node,omitempty"`
	By       string    `json:"by,omitempty"`       // who asked, such as root@n1
	Revision uint64    `json:"revision,omitempty"` // of a document
	Term     uint64    `json:"term,omitempty"`     // of a leader

	Group  string  `json:"group,omitempty"`
	From   string  `json:"from,omitempty"`   // empty: nobody had it
	To     string  `json:"to,omitempty"`     // empty: nobody is to have it
	Reason string  `json:"reason,omitempty"` // of reopened: why To, which holds it again, had let it go
	Phases *Phases `json:"phases,omitempty"`
	// OutageMS is for how long nobody answered for the group, at most, in milliseconds;
	// absent: not known, or not yet, or there was nobody before.
	OutageMS *float64 `json:"outage_ms,omitempty"`
}

// Phases are the parts of a change of owner, in milliseconds. The last three are absent
// until the new owner has reported.
type Phases struct {
	DetectedMS  float64  `json:"detected_ms"` // from when the old owner was last heard until it was judged lost
	ElectedMS   float64  `json:"elected_ms"`  // until another was named, a change of the leader included
	WaitedMS    *float64 `json:"waited_ms,omitempty"`
	BoundMS     *float64 `json:"bound_ms,omitempty"`
	AnnouncedMS *float64 `json:"announced_ms,omitempty"`
}

// Events asks for what is new behind an index, and waits for that for so long, at most
// EventsWait.
func (c *Client) Events(ctx context.Context, after uint64, wait time.Duration) (Events, error) {
	q := url.Values{"after": {strconv.FormatUint(after, 10)}}
	if wait > 0 {
		q.Set("wait", wait.String())
	}
	var e Events
	err := c.call(ctx, wait+c.patience, http.MethodGet, pathEvents+"?"+q.Encode(), nil, &e)
	return e, err
}

func (s *Server) events(r *http.Request) answer {
	after, wait, err := eventsQuery(r.URL.Query())
	if err != nil {
		return refuse(http.StatusBadRequest, err)
	}
	late := time.NewTimer(wait)
	defer late.Stop()
	look := time.NewTicker(eventsPoll)
	defer look.Stop()
	for {
		e, err := s.agent.Events(after)
		switch {
		case err != nil:
			return refuse(orderCode(err), fmt.Errorf("events: %w", err))
		case len(e.Events) > 0:
			return answer{http.StatusOK, e}
		}
		select {
		case <-look.C:
		case <-late.C:
			return answer{http.StatusOK, e}
		case <-r.Context().Done():
			return refuse(http.StatusServiceUnavailable, errors.New("the daemon is stopping"))
		}
	}
}

func eventsQuery(q url.Values) (after uint64, wait time.Duration, err error) {
	for name := range q {
		if name != "after" && name != "wait" {
			return 0, 0, fmt.Errorf("%s takes after and wait, not %q", pathEvents, name)
		}
	}
	if text := q.Get("after"); text != "" {
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			return 0, 0, fmt.Errorf("after=%s: want an index of the log, as an earlier answer has it; 0 for all events", text)
		}
	}
	if text := q.Get("wait"); text != "" {
		if wait, err = time.ParseDuration(text); err != nil || wait < 0 || wait > EventsWait {
			return 0, 0, fmt.Errorf("wait=%s: want a duration of at most %s, such as 5s", text, EventsWait)
		}
	}
	return after, wait, nil
}
