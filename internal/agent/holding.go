package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/internal/agent/core"
)

// lifetime is what the kernel is told: the backstop, or, where that is the fence,
// whole seconds that end before the deadline. Zero: too little is left.
func (a *Agent) lifetime(until election.Instant) time.Duration {
	if !a.cfg.Core.LifetimeFence {
		return backstop
	}
	return until.Sub(a.cfg.Now()).Truncate(time.Second)
}

// put has the holding on the host. Where the lifetime is the fence, it is counted anew for
// each address: the kernel counts from when it gets to it.
func (a *Agent) put(h core.Holding, until election.Instant) error {
	if h.Empty() {
		return nil
	}
	parts := []core.Holding{h}
	if a.cfg.Core.LifetimeFence {
		parts = parts[:0]
		for _, p := range h.At {
			parts = append(parts, core.Holding{At: []core.Place{p}})
		}
		parts = append(parts, core.Holding{Routes: h.Routes, Rules: h.Rules})
	}
	for _, part := range parts {
		valid := a.lifetime(until)
		if valid <= 0 {
			return fmt.Errorf("put %v on the host: the lease is over", h.At)
		}
		if part.Empty() {
			continue
		}
		if err := a.cfg.Host.Put(part, valid); err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) bind(e core.Bind) {
	a.Post(core.Bound{Group: e.Group, Gen: e.Gen, Err: a.put(e.Holding, e.Until)})
}

func (a *Agent) refresh(e core.Refresh) {
	var err error
	if !e.Drop.Empty() {
		err = a.cfg.Host.Take(e.Drop)
	}
	dropped := e.Drop
	if err != nil {
		dropped = core.Holding{}
	}
	err = errors.Join(err, a.put(e.Holding, e.Until))
	if err != nil {
		a.warn("refresh "+e.Group, "cannot renew what the group has on this host", "group", e.Group, "error", err)
	}
	a.Post(core.Refreshed{Group: e.Group, Gen: e.Gen, Dropped: dropped, Err: err})
}

// unbind reports when the addresses are gone and everything that was still to be
// said for them has been said or dropped: the fence is shut until then, and what
// left after it could follow the next owner's announcements.
func (a *Agent) unbind(e core.Unbind, shut election.Instant) {
	reset := func() {
		if e.Reset {
			a.reset(e.Group, addrsOf(e.At))
		}
	}
	behind := a.cfg.Alone == nil // a shut fence: nothing more is heard of them
	if !behind {
		reset()
	}
	err := a.cfg.Host.Take(e.Holding)
	if behind && err == nil {
		reset()
	}
	a.afterLastWord(core.Unbound{Group: e.Group, Gen: e.Gen, Shut: shut, Err: err})
}

// afterLastWord posts the event when everything that was to be said until now has
// been said or dropped.
//
//quorate:rule last-word-first
func (a *Agent) afterLastWord(ev core.Event) { a.cfg.Stage.LAN(func() { a.Post(ev) }) }

// converge looks once at all that is held.
func (a *Agent) converge(e core.Converge) {
	a.Post(a.cfg.Host.Converge(e.Held, e.VIPs, a.lifetime))
}

func (a *Agent) sweep(e core.Sweep) {
	removed, err := a.cfg.Host.RemoveLeftovers(e.Addrs, core.Holding{Routes: e.Routes, Rules: e.Rules})
	a.Post(core.Swept{Removed: removed, Err: err})
}

// resetConnections ends the connections of addresses that are about to leave this host.
func (a *Agent) resetConnections(e core.ResetConnections) {
	a.reset(e.Group, e.Addrs)
	a.Post(core.ConnectionsReset{Group: e.Group, Gen: e.Gen})
}

func (a *Agent) reset(group string, addrs []netip.Addr) {
	if err := a.cfg.Host.ResetConnections(addrs); err != nil {
		a.warn("reset "+group, "cannot reset the connections of addresses that leave; clients find out by themselves", "group", group, "error", err)
	}
}
