package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/quorate/quorate/internal/api"
)

// httpPort is where the nodes of TestEdgeEvents serve metrics.
const httpPort = "7951"

// fetch asks what a node serves over TCP, from its own host.
func fetch(t *testing.T, n *Node, path string) (int, string) {
	t.Helper()
	web := http.Client{Timeout: lookLimit, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, address string) (conn net.Conn, err error) {
			err = n.Host.Do(func() error {
				conn, err = net.DialTimeout(network, address, time.Second) //nolint:noctx // the namespace is the thread's
				return err
			})
			return conn, err
		}}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+net.JoinHostPort(n.Host.IPv4.String(), httpPort)+path, nil)
	must(t, err)
	answer, err := web.Do(req)
	must(t, err)
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	must(t, err)
	return answer.StatusCode, string(body)
}

// value is a series of a scrape; it fails the test if the scrape cannot be read.
func value(t *testing.T, text, name, vip string) float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	must(t, err)
	for _, m := range families[name].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == "vip" && l.GetValue() == vip {
				return m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("there is no %s of %s", name, vip)
	return 0
}

// told is the history as a node's command line tells it.
func told(t *testing.T, n *Node, args ...string) (out api.Events) {
	t.Helper()
	text, err := quorate(t.Context(), n.binary, append([]string{"events", "--json", "--socket", n.Socket}, args...)...)
	must(t, err)
	must(t, json.Unmarshal(text, &out))
	return out
}

// TestEdgeEvents kills the owner. Both others then tell the same of it, what they tell is
// what the probe saw, and their metrics say who is active.
func TestEdgeEvents(t *testing.T) {
	t.Parallel()
	c := newCluster(t, ClusterOptions{Stable: 300 * time.Millisecond})
	for _, n := range c.Nodes {
		edit(t, n, "lease: ", fmt.Sprintf("http: %s:%s\nlease: ", n.Host.IPv4, httpPort))
		must(t, n.Start())
	}
	healthy(t, c)
	owner := ownerOf(t, c)
	from := Now()
	must(t, owner.Process().Kill())
	rest := c.without(owner)
	healthy(t, rest)

	var last api.Event
	until(t, "the new owner has reported", 10*time.Second, func() bool {
		for _, e := range told(t, rest.Nodes[0], "--group", Group, "-n", "0").Events {
			if e.Kind == "owner" && e.From == owner.Name {
				last = e
			}
		}
		return last.OutageMS != nil
	})
	if last.To == owner.Name || last.Reason != "owner-lost" || last.Phases == nil || last.Phases.AnnouncedMS == nil {
		t.Fatalf("%s was killed, and the history says %+v", owner.Name, last)
	}
	v, err := rest.Judge(from, Now())
	must(t, err)
	p := last.Phases
	sum := time.Duration((p.DetectedMS + p.ElectedMS + *p.WaitedMS + *p.BoundMS + *p.AnnouncedMS) * float64(time.Millisecond))
	t.Logf("the probe saw %v without an owner; detected %.1f, elected %.1f, waited %.1f, bound %.1f, announced %.1f ms: %v",
		v.Outage, p.DetectedMS, p.ElectedMS, *p.WaitedMS, *p.BoundMS, *p.AnnouncedMS, sum)
	// The killed owner's address answered until its lease was over, and what a starved
	// process heard late it takes for late. How near they are on a quiet machine is in
	// TestHistoryIsTrue of tests/sim.
	if starved := time.Second; sum < v.Outage-starved || sum > v.Outage+c.opt.Lease+starved || sum < c.opt.Lease {
		t.Errorf("the phases add up to %v, and the probe saw %v", sum, v.Outage)
	}
	if out := time.Duration(*last.OutageMS * float64(time.Millisecond)); max(out-sum, sum-out) > time.Millisecond {
		t.Errorf("an outage of %v ms, and phases of %v", *last.OutageMS, sum)
	}

	sameAs := func(n, other *Node) func() bool {
		return func() bool { return reflect.DeepEqual(told(t, n, "-n", "0").Events, told(t, other, "-n", "0").Events) }
	}
	until(t, "both tell the same", 5*time.Second, sameAs(rest.Nodes[0], rest.Nodes[1]))
	until(t, "the metrics say that the owner, and nobody else, is active", 5*time.Second, func() bool {
		now, err := rest.Owner(t.Context())
		right := err == nil
		for _, n := range rest.Nodes {
			code, text := fetch(t, n, "/metrics")
			if code != http.StatusOK {
				t.Fatalf("%s: %d %s", n.Name, code, text)
			}
			right = right && (value(t, text, "quorate_vip_active", Group) == 1) == (n == now)
		}
		return right
	})
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/v1/status": 200, "/v1/snapshot": 404} {
		if code, text := fetch(t, rest.Nodes[0], path); code != want {
			t.Errorf("%s answers %d %s, want %d", path, code, text, want)
		}
	}
	must(t, owner.Start())
	healthy(t, c)
	until(t, "who was away tells the same", 5*time.Second, sameAs(owner, rest.Nodes[0]))
}
