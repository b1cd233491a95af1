package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/quorate/quorate/election/raftnode"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

const ms = time.Millisecond

var self = fsm.InstanceID{1}

// A fake is a node that can be looked at.
type fake struct {
	status core.Status
	err    error
	state  *fsm.State
	asked  int
}

func newFake() *fake {
	return &fake{
		state: &fsm.State{Index: 40, Events: []*fsm.Event{
			{Index: 11, Kind: fsm.EventOwner, Group: "web", From: fsm.InstanceID{2}, To: self, Reason: fsm.ReasonMove, Opened: true, Updated: 12},
			{Index: 31, Kind: fsm.EventOwner, Group: "web", From: fsm.InstanceID{2}, To: self, Reason: fsm.ReasonLost, Opened: true, Updated: 35,
				Phases: fsm.Phases{Detected: 250 * ms, Elected: 30 * ms, Committed: 8 * ms, Waited: 20 * ms, Bound: 6 * ms, Announced: 4 * ms}},
			{Index: 32, Kind: fsm.EventOwner, Group: "db", From: self, To: fsm.InstanceID{2}, Reason: fsm.ReasonMove, Opened: true, Updated: 36},
		}},
		status: core.Status{
			Node: "n1", Quorum: true, Ready: true, LeaseMS: 250, Revision: 3, Election: "raft", Problems: []string{"the disk is full"},
			Members:    []core.MemberStatus{{Name: "n1", Alive: true}, {Name: "n2"}},
			FenceDrops: map[string]uint64{"10.0.0.200": 3, "2001:db8::200": 4, "10.0.0.201": 9},
			Refused:    map[string]uint64{"other-cluster": 2}, Foreign: map[string]uint64{"undecryptable": 5},
			VIPs: []core.VIPStatus{
				{Name: "web", Addresses: []string{"10.0.0.200/24", "2001:db8::200/64"}, State: "active", LeaseRemainingMS: 231.5, WithoutProof: true,
					Problem: "somebody claims it", Claims: []core.ClaimStatus{{Address: "10.0.0.200", MAC: "02:00:00:00:00:99", Count: 2}}},
				{Name: "db", Addresses: []string{"10.0.0.201/24"}, State: "backup"},
			},
		},
	}
}

func (f *fake) metrics() *Metrics {
	return New(Source{
		Version: "1.2.3",
		Status:  func(context.Context) (core.Status, error) { f.asked++; return f.status, f.err },
		Adverts: func() []Adverts {
			return []Adverts{{Out: true, VRID: 51, Result: "sent", Count: 7}, {VRID: 51, Result: "accepted", Count: 1}, {Result: "vrid-unknown", Count: 6}}
		},
		Raft: func() raftnode.Stats {
			s := raftnode.Stats{State: "leader", Term: 4, LastIndex: 41, CommitIndex: 40, Applied: 40}
			s.Writes.Count, s.Writes.Sum, s.Writes.Classes[len(s.Writes.Classes)-1] = 2, 3*ms, 2
			return s
		},
		State: func() *fsm.State { return f.state },
		Self:  self, Since: 20,
	})
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler(slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func want(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains("\n"+text, "\n"+l+"\n") {
			t.Errorf("there is no %q", l)
		}
	}
}

func TestScrape(t *testing.T) {
	f := newFake()
	m := f.metrics()
	m.Transition(core.Transition{Group: "web", To: "backup"})
	m.Transition(core.Transition{Group: "web", From: "backup", To: "active", Reason: "owner-lost"})
	m.Transition(core.Transition{Group: "web", From: "active", To: "active", Reason: "owner-lost"})
	m.Transition(core.Transition{Group: "web", From: "active", To: "backup", Reason: "move"})
	m.Transition(core.Transition{Group: "gone", To: "active"})
	text := scrape(t, m)
	want(t, text,
		`quorate_build_info{version="1.2.3"} 1`, `quorate_up 1`, `quorate_quorum 1`, `quorate_ready 1`, `quorate_lease_seconds 0.25`,
		`quorate_document_revision 3`, `quorate_problems 1`, `quorate_member_alive{member="n1"} 1`, `quorate_member_alive{member="n2"} 0`,
		`quorate_connections_refused_total{reason="other-cluster"} 2`, `quorate_foreign_datagrams_total{reason="undecryptable"} 5`,
		`quorate_vip_active{vip="web"} 1`, `quorate_vip_active{vip="db"} 0`, `quorate_vip_problem{vip="web"} 1`, `quorate_vip_problem{vip="db"} 0`,
		`quorate_without_proof{vip="web"} 1`, `quorate_lease_remaining_seconds{vip="web"} 0.2315`, `quorate_lease_remaining_seconds{vip="db"} 0`,
		`quorate_fence_drops_total{vip="web"} 7`, `quorate_fence_drops_total{vip="db"} 9`,
		`quorate_foreign_claims_total{mac="02:00:00:00:00:99",vip="web"} 2`,
		`quorate_vip_transitions_total{reason="owner-lost",vip="web"} 1`, `quorate_vip_transitions_total{reason="move",vip="web"} 1`,
		`quorate_vrrp_adverts_total{dir="out",result="sent",vrid="51"} 7`, `quorate_vrrp_adverts_total{dir="in",result="accepted",vrid="51"} 1`,
		`quorate_vrrp_adverts_total{dir="in",result="vrid-unknown",vrid="other"} 6`,
		`quorate_raft_leader 1`, `quorate_raft_term 4`, `quorate_raft_last_index 41`, `quorate_raft_commit_index 40`, `quorate_raft_applied_index 40`,
		`quorate_raft_last_contact_seconds 0`, `quorate_raft_write_seconds_count 2`, `quorate_raft_write_seconds_sum 0.003`,
		`quorate_raft_write_seconds_bucket{le="1"} 0`, `quorate_raft_write_seconds_bucket{le="2.5"} 2`, `quorate_raft_commit_seconds_count 0`,
		`quorate_failover_seconds_count{phase="detect"} 1`, `quorate_failover_seconds_sum{phase="detect"} 0.25`,
		`quorate_failover_seconds_sum{phase="elect"} 0.038`, `quorate_failover_seconds_sum{phase="wait"} 0.02`,
		`quorate_failover_seconds_sum{phase="bind"} 0.006`, `quorate_failover_seconds_sum{phase="announce"} 0.004`,
		`quorate_failover_outage_seconds_count 1`, `quorate_failover_outage_seconds_sum 0.318`,
	)
	for _, name := range []string{"go_goroutines", "process_open_fds"} {
		if !strings.Contains(text, "\n"+name+" ") {
			t.Errorf("there is no %s", name)
		}
	}
	if f.asked != 1 {
		t.Errorf("one scrape asked for the status %d times", f.asked)
	}
}

// What was counted stays so: a second scrape does not count a change of owner again, and
// no counter goes back when what it is made from begins anew.
func TestCountersOnlyGrow(t *testing.T) {
	f := newFake()
	m := f.metrics()
	m.Transition(core.Transition{Group: "web", To: "active", Reason: "first"})
	scrape(t, m)
	amended := *f.state.Events[1]
	amended.Updated = 41
	again := *f.state
	again.Index, again.Events = 44, append(again.Events[:1:1], &amended, f.state.Events[2],
		&fsm.Event{Index: 43, Updated: 44, Kind: fsm.EventOwner, Group: "web", From: fsm.InstanceID{2}, To: self, Reason: fsm.ReasonMove, Opened: true,
			Phases: fsm.Phases{Waited: 5 * ms}})
	f.state = &again
	f.status.VIPs[0].Claims = []core.ClaimStatus{{Address: "10.0.0.200", MAC: "02:00:00:00:00:98", Count: 1}}
	text := scrape(t, m)
	want(t, text,
		`quorate_failover_seconds_count{phase="detect"} 1`, `quorate_failover_seconds_count{phase="wait"} 2`, `quorate_failover_outage_seconds_count 2`,
		`quorate_foreign_claims_total{mac="02:00:00:00:00:99",vip="web"} 2`, `quorate_foreign_claims_total{mac="02:00:00:00:00:98",vip="web"} 1`,
		`quorate_vip_transitions_total{reason="first",vip="web"} 1`)
	f.status.VIPs = f.status.VIPs[1:]
	if text := scrape(t, m); strings.Contains(text, `vip="web"`) {
		t.Error("a group that is gone is still there")
	}
}

// The hardware addresses of a stranger's choosing do not make series without end.
func TestClaimsAreBounded(t *testing.T) {
	c := newClaims()
	for i := range 1000 {
		c.take([]core.ClaimStatus{{Address: "10.0.0.200", MAC: fmt.Sprintf("02:00:00:00:%02x:%02x", i/256, i%256), Count: i + 1}})
	}
	sum := uint64(0)
	for _, n := range c.total {
		sum += n
	}
	if len(c.total) != maxMACs+1 || sum != 1000 || c.total[otherMAC] != 1000-maxMACs {
		t.Errorf("%d labels, %d in all, %d of others", len(c.total), sum, c.total[otherMAC])
	}
}

// A daemon whose loop hangs says so, and what can be known without it.
func TestHangs(t *testing.T) {
	f := newFake()
	f.err = errors.New("the loop does not answer")
	text := scrape(t, f.metrics())
	want(t, text, `quorate_up 0`, `quorate_raft_leader 1`)
	if strings.Contains(text, "quorate_vip_active{") {
		t.Error("it says who is active without knowing")
	}
}

// A router of its own has no lease, no fence and no quorum, and so no zeros of them.
func TestAlone(t *testing.T) {
	f := newFake()
	f.status.Election = alone
	m := New(Source{Status: func(context.Context) (core.Status, error) { return f.status, nil }, Adverts: func() []Adverts { return nil }})
	text := scrape(t, m)
	want(t, text, `quorate_vip_active{vip="web"} 1`, `quorate_ready 1`)
	for _, name := range []string{"quorate_quorum", "quorate_raft", "quorate_lease", "quorate_fence", "quorate_member_alive"} {
		if strings.Contains(text, "\n"+name) {
			t.Errorf("it has %s", name)
		}
	}
}

func TestLint(t *testing.T) {
	m := newFake().metrics()
	m.Transition(core.Transition{Group: "web", To: "active", Reason: "first"})
	found, err := testutil.GatherAndLint(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range found {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// A thousand groups are one scrape, and one question.
func BenchmarkScrapeThousand(b *testing.B) {
	f := newFake()
	f.status.VIPs = nil
	for i := range 1000 {
		f.status.VIPs = append(f.status.VIPs, core.VIPStatus{Name: fmt.Sprintf("g%d", i), State: "backup", Addresses: []string{"10.0.0.200/24"}})
	}
	h := f.metrics().Handler(slog.New(slog.DiscardHandler))
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if _, err := io.Copy(io.Discard, w.Body); err != nil || w.Code != http.StatusOK {
			b.Fatal(err, w.Code)
		}
	}
}
