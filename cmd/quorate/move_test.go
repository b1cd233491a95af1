package main

import (
	"errors"
	"testing"

	"github.com/quorate/quorate/internal/agent/core"
)

// assign is a move that is committed: the owner is named, and nobody is open.
func assign(s *core.Status, _, node string) error {
	v := &s.VIPs[0]
	v.Owner, v.Epoch, v.Open, v.State, v.Reason = node, 18, false, "backup", "move"
	if node == s.Node {
		v.State = "waiting"
	}
	return nil
}

func same(*core.Status) {}

func TestMove(t *testing.T) {
	open := func(s *core.Status) { s.VIPs[0].Open = true }
	for name, tc := range map[string]struct {
		state func(*core.Status)
		move  func(*core.Status, string, string) error
		next  []func(*core.Status)
		args  []string
	}{
		"move": {move: assign, next: []func(*core.Status){same, same, same, open}, args: []string{"web", "n2"}},
		"move-here": {
			state: func(s *core.Status) { s.VIPs[0].Owner = "n2" },
			move: func(s *core.Status, _, node string) error {
				err := assign(s, "", node)
				s.VIPs[0].Open = true // the old owner's last word
				return err
			},
			next: []func(*core.Status){same, same, func(s *core.Status) { s.VIPs[0].State = "active" }},
			args: []string{"web", "n1"},
		},
		"move-first": {
			state: func(s *core.Status) { s.VIPs[0].Owner, s.VIPs[0].Epoch = "", 0 },
			move:  assign, next: []func(*core.Status){same, open}, args: []string{"web", "n2"},
		},
		"move-refused": {
			move: func(*core.Status, string, string) error {
				return errors.New("node n3 is a witness and never holds a VIP")
			},
			args: []string{"web", "n3"},
		},
		"move-not-open": {
			move: assign, next: []func(*core.Status){same, func(s *core.Status) { s.VIPs[0].Problem = "no carrier" }},
			args: []string{"web", "n2", "--timeout", "50ms"},
		},
		"move-went-on": {
			move: assign,
			next: []func(*core.Status){same, same, func(s *core.Status) {
				s.VIPs[0].Owner, s.VIPs[0].Epoch, s.VIPs[0].Reason = "n1", 19, "not-open"
			}},
			args: []string{"web", "n2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeAgent{state: formed(), move: tc.move, next: tc.next}
			if tc.state != nil {
				tc.state(&f.state)
			}
			dir, socket := startDaemon(t, f)
			golden(t, name, dir, append([]string{"move", "--socket", socket}, tc.args...)...)
		})
	}
}
