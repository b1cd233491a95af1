package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/config"
)

func TestShownPriority(t *testing.T) {
	g := fsm.Group{Priority: map[string]uint8{"n1": 150}, VRRP: fsm.VRRP{ID: 1, Priority: 200}}
	for name, c := range map[string]struct {
		node     string
		election config.Election
		want     uint8
	}{"named": {"n1", config.ElectRaft, 150}, "not named": {"n2", config.ElectRaft, 100}, "router": {"n1", config.ElectVRRP, 200}} {
		if got := shownPriority(&config.Config{Node: c.node, Election: c.election})(g); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// Each document takes effect once; its checks' results become events, and transitions
// reach its hooks, the last of them also after the end was asked for.
func TestOutside(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	events := make(chan core.Event, 16)
	o := newOutside(&config.Config{Cluster: "prod", Node: "n1", FIFO: filepath.Join(dir, "fifo")},
		func(ev core.Event) { events <- ev }, slog.New(slog.DiscardHandler))
	end := o.begin(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	checked := make(chan error, 1)
	go func() { checked <- o.checks.Run(ctx) }()

	doc := fsm.Document{
		Revision: 1, Groups: []fsm.Group{{Name: "web"}},
		Checks: []fsm.Check{{Name: "flag", File: &fsm.FileCheck{Path: out}, Interval: time.Hour, Timeout: time.Minute, Rise: 1, Fall: 1}},
		Hooks:  fsm.Hooks{Backup: []string{"/bin/sh", "-c", "sleep 0.1; echo $QUORATE_NODE $QUORATE_GROUP $QUORATE_STATE $QUORATE_EPOCH >" + out}, Timeout: time.Minute},
	}
	o.changed(doc)
	ev, ok := (<-events).(core.Checked)
	if !ok || ev.Check != "flag" || ev.Pass || ev.Why == "" {
		t.Errorf("event %+v", ev)
	}
	doc.Hooks = fsm.Hooks{}
	o.changed(doc) // the same revision: known
	o.Transition(core.Transition{Group: "web", From: "active", To: "backup", Epoch: 7, Reason: "move"})
	end()
	if b, err := os.ReadFile(out); err != nil || string(b) != "n1 web backup 7\n" {
		t.Errorf("the hook wrote %q, %v", b, err)
	}
	cancel()
	if err := <-checked; err != nil {
		t.Error(err)
	}
}
