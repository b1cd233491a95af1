package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/metrics"
	"github.com/quorate/quorate/vrrpcompat"
)

// The API has the names of nodes, those of removed ones too, and says of an event what is
// known of it and no more.
func TestShownEvent(t *testing.T) {
	n1, n2, away := fsm.InstanceID{1}, fsm.InstanceID{2}, fsm.InstanceID{0xab}
	st := &fsm.State{
		Nodes:   map[fsm.InstanceID]fsm.Node{n1: {Name: "n1"}},
		Retired: map[fsm.InstanceID]fsm.Node{n2: {Name: "n2", Address: netip.MustParseAddrPort("10.0.0.2:7950")}},
	}
	const ms = time.Millisecond
	for want, e := range map[string]fsm.Event{
		`{"index":3,"at":"0001-01-01T00:00:00Z","kind":"removed","node":"n2","by":"root@n1"}`:                        {Index: 3, Kind: fsm.EventRemoved, Node: n2, By: "root@n1"},
		`{"index":3,"at":"0001-01-01T00:00:00Z","kind":"leader","node":"ab000000","term":7}`:                         {Index: 3, Kind: fsm.EventLeader, Node: away, Term: 7},
		`{"index":3,"at":"0001-01-01T00:00:00Z","kind":"document","revision":2}`:                                     {Index: 3, Kind: fsm.EventDocument, Revision: 2},
		`{"index":3,"at":"0001-01-01T00:00:00Z","kind":"owner","group":"web","from":"n2","reason":"all-fail"}`:       {Index: 3, Kind: fsm.EventOwner, Group: "web", From: n2, Reason: fsm.ReasonAllFail},
		`{"index":3,"at":"0001-01-01T00:00:00Z","kind":"owner","group":"web","from":"n2","to":"n1","reason":"move"}`: {Index: 3, Kind: fsm.EventOwner, Group: "web", From: n2, To: n1, Reason: fsm.ReasonMove},
		`{"index":3,"at":"0001-01-01T00:00:00Z","kind":"owner","group":"web","from":"n2","to":"n1","reason":"owner-lost","phases":{"detected_ms":250,"elected_ms":12.5}}`: {
			Index: 3, Kind: fsm.EventOwner, Group: "web", From: n2, To: n1, Reason: fsm.ReasonLost, Phases: fsm.Phases{Detected: 250 * ms, Elected: 12500 * time.Microsecond}},
		`{"index":3,"updated":5,"at":"0001-01-01T00:00:00Z","kind":"owner","group":"web","from":"n2","to":"n1","reason":"owner-lost",` +
			`"phases":{"detected_ms":250,"elected_ms":15,"waited_ms":4,"bound_ms":3,"announced_ms":0},"outage_ms":272}`: {
			Index: 3, Updated: 5, Kind: fsm.EventOwner, Group: "web", From: n2, To: n1, Reason: fsm.ReasonLost, Opened: true,
			Phases: fsm.Phases{Detected: 250 * ms, Elected: 12 * ms, Committed: 3 * ms, Waited: 4 * ms, Bound: 3 * ms}},
	} {
		b, err := json.Marshal(shownEvent(st, &e))
		if err != nil || string(b) != want {
			t.Errorf("%s (%v)\nwant %s", b, err, want)
		}
	}
}

// Adverts of virtual routers that are none of this node's share one label: whoever is on
// the LAN chooses the VRID.
func TestAdvertTally(t *testing.T) {
	s := &speaker{}
	ours := routerKey{port: port{link: "eth0"}, vrid: 51}
	s.tallySent(ours, nil)
	s.tallySent(ours, nil)
	s.tallySent(ours, errors.New("no device"))
	s.tallyHeard(hearing{result: accepted, key: ours}, &served{})
	for vrid := range 200 {
		s.tallyHeard(hearing{result: "vrid-unknown", key: routerKey{vrid: vrrpcompat.VRID(vrid)}}, nil)
	}
	want := map[advertKind]uint64{
		{out: true, vrid: 51, result: "sent"}: 2, {out: true, vrid: 51, result: "failed"}: 1,
		{vrid: 51, result: accepted}: 1, {result: "vrid-unknown"}: 200,
	}
	all := s.adverts.all()
	for _, c := range all {
		if want[c.advertKind] != c.count {
			t.Errorf("%+v", c)
		}
	}
	if len(all) != len(want) {
		t.Errorf("%d kinds: %+v", len(all), all)
	}
}

// The metrics hear of each transition, where the file names an address for them.
func TestOnlookers(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	n := &node{cfg: &config.Config{Node: "n1", Cluster: "prod"}, log: log}
	n.beside = newOutside(n.cfg, func(core.Event) {}, log)
	onlookers{n}.Transition(core.Transition{Group: "web", To: "active", Reason: "first"})
	n.metrics = metrics.New(metrics.Source{
		Status: func(context.Context) (core.Status, error) {
			return core.Status{VIPs: []core.VIPStatus{{Name: "web"}}}, nil
		},
		Adverts: func() []metrics.Adverts { return nil },
	})
	onlookers{n}.Transition(core.Transition{Group: "web", From: "active", To: "backup", Reason: "move"})
	w := httptest.NewRecorder()
	n.metrics.Handler(log).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if text := w.Body.String(); !strings.Contains(text, `quorate_vip_transitions_total{reason="move",vip="web"} 1`) || strings.Contains(text, `reason="first"`) {
		t.Error(text)
	}
}
