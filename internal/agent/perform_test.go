package agent

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/internal/agent/core"
)

// atOnce is a stage on which everything is done when it is asked for.
type atOnce struct{ Stage }

func (atOnce) Host(do func()) { do() }
func (atOnce) LAN(do func())  { do() }

// slowFence takes its time for each write, on a clock of its own.
type slowFence struct {
	now election.Instant
	err error
}

func (f *slowFence) Set([]netip.Addr, election.Instant) error {
	f.now = f.now.Add(3 * time.Millisecond)
	return f.err
}
func (f *slowFence) Delete([]netip.Addr) error { return nil }

type noHost struct{ Host }

func (noHost) Take(core.Holding) error { return nil }

// When the fence was shut is read after that was done: a process that stands still
// between what it decides and the write must not count from before it. What could not be
// shut is not taken off by the same step either.
func TestShutIsReadAfterTheWrite(t *testing.T) {
	for _, err := range []error{nil, errors.New("the kernel says no")} {
		f := &slowFence{now: 1000, err: err}
		a := New(Config{Core: core.Config{}, Now: func() election.Instant { return f.now }, Fence: f, Host: noHost{}, Stage: atOnce{},
			Send: func(netip.AddrPort, []byte) error { return nil }, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		a.perform([]core.Effect{
			core.SetFence{Group: "web", Addrs: []netip.Addr{vip.Addr()}},
			core.Unbind{Group: "web", Gen: 1, Holding: core.Holding{At: []core.Place{{Link: "eth0", Prefix: vip}}}},
		})
		var got []core.Unbound
		for _, item := range a.box.take() {
			if ev, ok := item.(core.Unbound); ok {
				got = append(got, ev)
			}
		}
		switch {
		case err != nil && len(got) > 0:
			t.Errorf("the fence is open, and it reports %+v", got)
		case err == nil && (len(got) != 1 || got[0].Shut != f.now):
			t.Errorf("it reports %+v, and the fence was shut at %v", got, f.now)
		}
	}
}

// notedFence writes down each call, and refuses those with an address.
type notedFence struct {
	calls   []string
	refuses netip.Addr
}

func (f *notedFence) Set(addrs []netip.Addr, until election.Instant) error {
	f.calls = append(f.calls, fmt.Sprintf("%d until %d", len(addrs), until))
	if slices.Contains(addrs, f.refuses) {
		return errors.New("the kernel says no")
	}
	return nil
}
func (f *notedFence) Delete([]netip.Addr) error { return nil }

// What several groups are to have as their deadline is written at once. If that fails,
// only the group fails whose address it was.
func TestOneDeadlineIsOneWrite(t *testing.T) {
	a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	effects := []core.Effect{
		core.SetFence{Group: "a", Addrs: []netip.Addr{a}, Until: 9}, core.Log{}, core.SetFence{Group: "b", Addrs: []netip.Addr{b}, Until: 9},
		core.SetFence{Group: "c", Addrs: []netip.Addr{c}, Until: 7}, core.SetFence{Group: "a", Addrs: []netip.Addr{a}},
		core.SetFence{Group: "b", Addrs: []netip.Addr{b}},
	}
	for refuses, want := range map[netip.Addr][]string{
		{}: {"2 until 9", "1 until 7", "1 until 0", "1 until 0"},
		b:  {"2 until 9", "1 until 9", "1 until 9", "1 until 0", "1 until 7", "1 until 0", "1 until 0"},
	} {
		f := &notedFence{refuses: refuses}
		agent := New(Config{Core: core.Config{}, Now: func() election.Instant { return 1 }, Fence: f, Host: noHost{}, Stage: atOnce{},
			Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		agent.perform(effects)
		if !slices.Equal(f.calls, want) {
			t.Errorf("refusing %v: written %q, want %q", refuses, f.calls, want)
		}
	}
}
