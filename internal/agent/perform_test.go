package agent

import (
	"errors"
	"io"
	"log/slog"
	"net/netip"
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

func (f *slowFence) Set(netip.Addr, election.Instant) error {
	f.now = f.now.Add(3 * time.Millisecond)
	return f.err
}
func (f *slowFence) Delete(netip.Addr) error { return nil }

type noHost struct{ Host }

func (noHost) RemoveAddress(string, netip.Prefix) error { return nil }

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
			core.Unbind{Group: "web", Gen: 1, At: []core.Place{{Link: "eth0", Prefix: vip}}},
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
