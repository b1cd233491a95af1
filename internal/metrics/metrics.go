// Package metrics shows a node to Prometheus: one look at its status for each scrape, and
// what was counted between two of them.
package metrics

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/quorate/quorate/election/raftnode"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

// A Source is where the figures come from. Its functions are called by one scrape at a
// time.
type Source struct {
	Version string
	// Status describes the node; it fails when ctx ends first.
	Status func(ctx context.Context) (core.Status, error)
	// Adverts counts the VRRP adverts since the process began.
	Adverts func() []Adverts
	// Raft and State are nil without a cluster. State is what was applied last.
	Raft  func() raftnode.Stats
	State func() *fsm.State
	Self  fsm.InstanceID
	// Since is the log index that an earlier life of the process had come to: what was
	// opened up to there is not this one's.
	Since uint64
}

// Adverts is how many VRRP adverts there were of one kind.
type Adverts struct {
	Out    bool  // sent; else heard
	VRID   uint8 // zero: of a virtual router that is none of this node's
	Result string
	Count  uint64
}

// Metrics is a node as Prometheus sees it. Its methods may be called concurrently.
type Metrics struct {
	source   Source
	registry *prometheus.Registry

	mu          sync.Mutex // one scrape at a time, and what is kept between two
	transitions *prometheus.CounterVec
	failover    *prometheus.HistogramVec
	outage      prometheus.Histogram
	seen        uint64            // the index up to which changes of owner were counted
	vips        map[string]bool   // the groups that there were
	counted     map[string]uint64 // by group, the epoch that was counted last
	claims      map[string]*claims
}

const (
	// statusTime bounds the look at the node.
	statusTime = time.Second
	// scrapeTime bounds a scrape, and maxScrapes how many there may be at a time.
	scrapeTime = 5 * time.Second
	maxScrapes = 4
)

// seconds are the classes of the histograms: from what a planned move takes to a lease of
// many seconds.
var seconds = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// New returns the metrics of a node.
func New(s Source) *Metrics {
	m := &Metrics{
		source: s, registry: prometheus.NewRegistry(), seen: s.Since, counted: map[string]uint64{}, claims: map[string]*claims{},
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quorate_vip_transitions_total",
			Help: "How often the group began to be held by this node, or ceased to be, by reason.",
		}, []string{"vip", "reason"}),
		failover: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "quorate_failover_seconds",
			Help:    "How long the phases of the changes of owner took that brought a group to this node.",
			Buckets: seconds,
		}, []string{"phase"}),
		outage: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "quorate_failover_outage_seconds",
			Help:    "For how long, at most, nobody held a group that came to this node.",
			Buckets: seconds,
		}),
	}
	m.registry.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler answers scrapes.
func (m *Metrics) Handler(log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes, Timeout: scrapeTime,
	})
}

// Transition counts a group that began or ceased to be held here.
func (m *Metrics) Transition(t core.Transition) {
	const held = "active"
	if (t.From == held) == (t.To == held) {
		return
	}
	reason := t.Reason
	if reason == "" {
		reason = "unknown"
	}
	m.transitions.WithLabelValues(t.Group, reason).Inc()
}

// Describe names all that is collected here.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descriptions {
		ch <- d
	}
	m.transitions.Describe(ch)
	m.failover.Describe(ch)
	m.outage.Describe(ch)
}

// Collect makes one scrape.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), statusTime)
	defer cancel()
	out := writer{ch}
	out.gauge(buildInfo, 1, m.source.Version)
	st, err := m.source.Status(ctx)
	out.yes(up, err == nil)
	if err == nil {
		m.forget(st)
		m.node(out, st)
		for _, v := range st.VIPs {
			m.vip(out, st, v)
		}
	}
	for _, a := range m.source.Adverts() {
		out.counter(vrrpAdverts, a.Count, direction(a.Out), vrid(a.VRID), a.Result)
	}
	if m.source.Raft != nil {
		raft(out, m.source.Raft())
		m.changes()
	}
	m.transitions.Collect(ch)
	m.failover.Collect(ch)
	m.outage.Collect(ch)
}

// forget drops what was kept of groups that are no more.
func (m *Metrics) forget(st core.Status) {
	there := make(map[string]bool, len(st.VIPs))
	for _, v := range st.VIPs {
		there[v.Name] = true
	}
	for name := range m.vips {
		if !there[name] {
			delete(m.counted, name)
			delete(m.claims, name)
			m.transitions.DeletePartialMatch(prometheus.Labels{"vip": name})
		}
	}
	m.vips = there
}

// changes counts the changes of owner that brought a group here, each once.
func (m *Metrics) changes() {
	st := m.source.State()
	for _, e := range st.EventsAfter(m.seen) {
		if e.Kind == fsm.EventReopened && e.To == m.source.Self && e.Before > 0 && e.Index > m.seen {
			m.outage.Observe(e.Before.Seconds())
		}
		if e.Kind != fsm.EventOwner || !e.Opened || e.To != m.source.Self || e.Index <= max(m.counted[e.Group], m.source.Since) {
			continue
		}
		m.counted[e.Group] = e.Index
		p := e.Phases
		if p.Detected+p.Elected > 0 {
			m.failover.WithLabelValues("detect").Observe(p.Detected.Seconds())
			m.failover.WithLabelValues("elect").Observe((p.Elected + p.Committed).Seconds())
		}
		m.failover.WithLabelValues("wait").Observe(p.Waited.Seconds())
		m.failover.WithLabelValues("bind").Observe(p.Bound.Seconds())
		m.failover.WithLabelValues("announce").Observe(p.Announced.Seconds())
		if out, known := e.Outage(); known {
			m.outage.Observe(out.Seconds())
		}
	}
	m.seen = max(m.seen, st.Index)
}
