package sim

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/tests/sim/raftmodel"
)

// A watch is what somebody sees who looks at every kernel and every wire with true
// time, and never blinks.
type watch struct {
	telling    bool // keep a story
	brief      bool // without what repeats itself
	story      []string
	violations []string
	claims     int // announcements and adverts that left a host
	carried    int // addresses that a life of a process kept of the one before
	// Of the first address: until when somebody holds it as things are now, and for
	// how long nobody did.
	held    time.Duration
	outages []time.Duration
}

func (w *World) tell(format string, args ...any) {
	if w.watch.telling {
		w.watch.story = append(w.watch.story, w.stamp()+fmt.Sprintf(format, args...))
	}
}

// stamp is the present instant in milliseconds. A brief story rounds it, so that its
// trace outlives small changes.
func (w *World) stamp() string {
	if w.watch.brief {
		return fmt.Sprintf("%6d ", w.now.Round(time.Millisecond).Milliseconds())
	}
	return fmt.Sprintf("%10.3f ", float64(w.now)/float64(time.Millisecond))
}

// tellMore tells what a brief story leaves out.
func (w *World) tellMore(format string, args ...any) {
	if !w.watch.brief {
		w.tell(format, args...)
	}
}

// tellFence tells of a write to the fence. A brief story leaves out extensions.
func (w *World) tellFence(h *host, addr netip.Addr, until election.Instant) {
	before := h.fence[w.address(addr)].until
	switch {
	case !w.watch.telling:
	case until == 0:
		w.tell("n%d fence of %s shut", h.i+1, addr)
	case !w.watch.brief || !h.clock().Before(before):
		w.tell("n%d fence of %s open for %v", h.i+1, addr, until.Sub(h.clock()).Round(time.Millisecond))
	}
}

// violated notes a broken promise, each wording once.
func (w *World) violated(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if slices.ContainsFunc(w.watch.violations, func(v string) bool { return v[len(v)-min(len(v), len(what)):] == what }) {
		return
	}
	w.watch.violations = append(w.watch.violations, fmt.Sprintf("%v: %s", w.now, what))
	w.tell("VIOLATION %s", what)
}

// opened is called at each change that may have opened an address on a host. That two
// hosts answer for one address begins at such a change and nowhere else: deadlines
// only end.
func (w *World) opened(h *host, a int) {
	if !h.open(a) {
		w.count(a)
		return
	}
	if h.has(a) && !h.lifetime && !h.fence[a].set {
		w.violated("n%d has %s without an entry in the fence", h.i+1, Addresses[a].Addr())
	}
	for _, o := range w.hosts {
		if o != h && o.open(a) && !w.mayBoth(a, h, o) {
			w.violated("n%d and n%d answer for %s", min(h.i, o.i)+1, max(h.i, o.i)+1, Addresses[a].Addr())
		}
	}
	w.count(a)
}

// lost is called when an address has left a host.
func (w *World) lost(h *host, a int) { w.count(a) }

// count keeps account of the outages of the first address.
func (w *World) count(a int) {
	if a != 0 {
		return
	}
	v, h := &w.watch, w.Holder(0)
	if h == nil {
		v.held = min(v.held, w.now)
		return
	}
	if v.held > 0 && v.held < w.now {
		v.outages = append(v.outages, w.now-v.held)
	}
	v.held = h.gone[0]
	if !h.lifetime {
		v.held = min(v.held, w.now+max(h.untilTrue(h.fence[0].until), 1))
	}
}

// Holder is the host that serves an address by right; nil: none.
func (w *World) Holder(a int) *host {
	for _, h := range w.hosts {
		if h.holds(a) {
			return h
		}
	}
	return nil
}

// checkEpochs: within a life of a process, and but for a snapshot that came late, the
// epoch of a group only grows.
func (w *World) checkEpochs(h *host, applied raftmodel.Applied) {
	for _, g := range applied.State.Document.Groups {
		e := applied.State.Assignments[g.Name].Epoch
		if e < h.epochs[g.Name] && e != 0 && !applied.Restored {
			w.violated("at n%d the epoch of %s steps back from %d to %d", h.i+1, g.Name, h.epochs[g.Name], e)
		}
		h.epochs[g.Name] = e
	}
}

// unsettled says what keeps the cluster from being as its document wants it: each
// address held by one host, and nothing left anywhere else. Empty: nothing.
func (w *World) unsettled() string {
	l := w.leader()
	if l == nil {
		return "nobody leads"
	}
	if left := w.removedVoter(l); left != nil {
		return fmt.Sprintf("n%d was removed and has a vote", left.i+1)
	}
	doc := w.state(l).Document
	for a, p := range Addresses {
		wanted, holders := slices.Contains(doc.Addrs(), p.Addr()), 0
		for _, h := range w.hosts {
			switch {
			case h.holds(a):
				holders++
			case h.has(a) || h.fence[a].set:
				return fmt.Sprintf("n%d has leavings of %s", h.i+1, p.Addr())
			}
		}
		if wanted && holders != 1 || !wanted && holders != 0 {
			return fmt.Sprintf("%s has %d holders; wanted: %v", p.Addr(), holders, wanted)
		}
	}
	return ""
}

// A logHandler puts the agent's log lines into the story.
type logHandler struct {
	w    *World
	host int
}

// Enabled reports whether there is a story.
func (l logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return l.w.watch.telling && level >= slog.LevelInfo
}

// Handle adds a line to it.
func (l logHandler) Handle(_ context.Context, r slog.Record) error {
	line := fmt.Sprintf("n%d %s", l.host+1, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		if a.Value.Kind() == slog.KindDuration {
			a.Value = slog.DurationValue(a.Value.Duration().Round(time.Millisecond))
		}
		line += " " + a.String()
		return true
	})
	l.w.tell("%s", line)
	return nil
}

// WithAttrs is not used by the agent.
func (l logHandler) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup is not used by the agent.
func (l logHandler) WithGroup(string) slog.Handler { return l }
