package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/signal"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/api"
)

// An eventsQuery is which events are wanted.
type eventsQuery struct {
	group  string
	since  time.Duration // zero: whatever is remembered
	last   int           // zero: all
	follow bool
	asJSON bool
}

func newEventsCommand() *cobra.Command {
	var t target
	q := eventsQuery{last: 20}
	c := &cobra.Command{
		Use:   "events",
		Short: "Tell what happened: each change of owner with its cause, and what else changed the cluster",
		Long: "Tell what happened in the cluster, oldest first. Every node knows the same history, of the last 1024 events.\n\n" +
			"A change of owner says for how long nobody held the group, at most, and of what that was made up, in\n" +
			"milliseconds: until the old owner was judged lost (detected), until another was named (elected), until\n" +
			"that one was allowed to hold the group (waited), until its addresses were on (bound), and until the first\n" +
			"announcement (announced). docs/observability.md says how each is measured.",
		Example: "  quorate events\n  quorate events -n 5 --group web\n  quorate events --since 1h --json | jq '.events[].reason'",
		Args:    takes(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.since < 0 || q.last < 0 {
				return &usageError{fmt.Sprintf("--since and -n count back and cannot be negative, got %s and %d", q.since, q.last)}
			}
			client, err := t.client()
			if err != nil {
				return err
			}
			defer client.Close()
			return q.run(cmd, client)
		},
	}
	t.flags(c)
	c.Flags().BoolVarP(&q.follow, "follow", "f", false, "go on with what happens next, until interrupted")
	c.Flags().StringVar(&q.group, "group", "", "only changes of owner of this group")
	c.Flags().DurationVar(&q.since, "since", 0, "only what happened within this time, such as 1h")
	c.Flags().IntVarP(&q.last, "last", "n", q.last, "only the last so many; 0: all that are remembered")
	c.Flags().BoolVar(&q.asJSON, "json", false, "print JSON (docs/cli.md describes the fields); with -f one event in each line")
	if err := c.RegisterFlagCompletionFunc("group", completing(groupNames)); err != nil {
		panic(err) // there is such a flag
	}
	return c
}

func (q eventsQuery) run(cmd *cobra.Command, client *api.Client) error {
	all, err := client.Events(cmd.Context(), 0, 0)
	if err := errors.Join(err, noteVersion(cmd, client)); err != nil {
		return err
	}
	all.Events = q.wanted(all.Events, time.Now())
	if q.last > 0 {
		all.Events = all.Events[max(0, len(all.Events)-q.last):]
	}
	switch {
	case q.follow:
		return q.tail(cmd, client, all)
	case q.asJSON:
		return showJSON(cmd.OutOrStdout(), all)
	case len(all.Events) == 0:
		return write(cmd.OutOrStdout(), "no events\n")
	}
	return write(cmd.OutOrStdout(), (&eventLines{screen: screenOf(cmd)}).text(all.Events, time.Now()))
}

// wanted are the events that were asked for.
func (q eventsQuery) wanted(events []api.Event, now time.Time) []api.Event {
	return slices.DeleteFunc(slices.Clone(events), func(e api.Event) bool {
		return q.group != "" && e.Group != q.group || q.since > 0 && now.Sub(e.At) > q.since
	})
}

const (
	// reconnectEvery is between attempts to ask a daemon that does not answer.
	reconnectEvery = time.Second
	// reportPatience is for how long a change of owner is kept back for the phases that the
	// new owner reports about a second later.
	reportPatience = 3 * time.Second
	// holdingWait is how long a question waits while one is kept back.
	holdingWait = 500 * time.Millisecond
)

// tail shows what there is and then what comes, until it is interrupted. A daemon that is
// restarted meanwhile is asked again: any node goes on where another ended.
func (q eventsQuery) tail(cmd *cobra.Command, client *api.Client, first api.Events) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	q.since = 0 // that was about the past
	s := &eventStream{query: q, lines: eventLines{screen: screenOf(cmd)}}
	s.take(first.Events, time.Time{})
	after, unheard := first.Index, false
	for {
		if err := write(cmd.OutOrStdout(), s.ready(time.Now())); err != nil {
			return err
		}
		wait := api.EventsWait
		if len(s.waiting) > 0 {
			wait = holdingWait
		}
		got, err := client.Events(ctx, after, wait)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !unheard:
			if err := write(cmd.ErrOrStderr(), fmt.Sprintf("quorate: %v; trying again\n", err)); err != nil {
				return err
			}
			fallthrough
		case err != nil:
			unheard = true
			sleep(ctx, reconnectEvery)
			continue
		}
		unheard, after = false, got.Index // less than before: the daemon belongs to another cluster now
		s.take(q.wanted(got.Events, time.Now()), time.Now())
	}
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// An eventStream puts events that come more than once, each time with more in them, in the
// order and form in which a person reads them.
type eventStream struct {
	query   eventsQuery
	lines   eventLines
	waiting []heldEvent
	shown   map[eventKey]bool // of late; true: it was complete
}

// A heldEvent is kept back until an instant, or until it is complete.
type heldEvent struct {
	api.Event
	until time.Time
}

// An eventKey says of two versions of an event that they are the same.
type eventKey struct {
	index       uint64
	kind, group string
}

func keyOf(e api.Event) eventKey { return eventKey{e.Index, e.Kind, e.Group} }

// complete reports whether all is known of an event that there is to be.
func complete(e api.Event) bool {
	return e.Kind != "owner" || e.To == "" || e.From == e.To || e.Phases != nil && e.Phases.WaitedMS != nil
}

// take adds events that came at an instant; the zero one: they are history, and shown as
// they are.
func (s *eventStream) take(events []api.Event, now time.Time) {
	for _, e := range events {
		i := slices.IndexFunc(s.waiting, func(h heldEvent) bool { return keyOf(h.Event) == keyOf(e) })
		h := heldEvent{Event: e}
		if !s.query.asJSON && !now.IsZero() && !complete(e) {
			h.until = now.Add(reportPatience)
		}
		switch whole, shown := s.shown[keyOf(e)]; {
		case i >= 0:
			s.waiting[i].Event = e
		case shown && !s.query.asJSON && (whole || !complete(e)): // nothing new for a person
		default:
			s.waiting = append(s.waiting, h)
		}
	}
}

// ready returns what can be shown, in the order in which it happened.
func (s *eventStream) ready(now time.Time) string {
	n := 0
	for n < len(s.waiting) && (complete(s.waiting[n].Event) || !now.Before(s.waiting[n].until)) {
		n++
	}
	events := make([]api.Event, 0, n)
	if s.shown == nil || len(s.shown) > 4096 {
		s.shown = map[eventKey]bool{}
	}
	for _, h := range s.waiting[:n] {
		events = append(events, h.Event)
		s.shown[keyOf(h.Event)] = complete(h.Event)
	}
	s.waiting = s.waiting[n:]
	if !s.query.asJSON {
		return s.lines.text(events, now)
	}
	out := ""
	for _, e := range events {
		b, err := json.Marshal(e)
		if err != nil {
			panic(fmt.Sprintf("encode an event: %v", err)) // it came as JSON
		}
		out += string(b) + "\n"
	}
	return out
}

// subject is what an event is about.
func subject(e api.Event) string { return cmp.Or(e.Group, e.Node, "cluster") }
