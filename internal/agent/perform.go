package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/internal/agent/core"
)

const (
	// proposalTimeout bounds a proposal. Its outcome is then unknown, which does no
	// harm: assignments are compare-and-set.
	proposalTimeout = 2 * time.Second
	// campaignTimeout bounds a campaign; the next in turn follows sooner.
	campaignTimeout = time.Second
	// changeTimeout bounds a change of the Raft configuration.
	changeTimeout = 10 * time.Second
	// backstop is the lifetime of an address beside a BPF fence.
	backstop = 10 * time.Second
)

// perform carries the effects out in order. A fence that cannot be written keeps
// the group's later effects of this step from happening, and the core hears of it
// before of anything else: it would go on by a deadline that the kernel does not have.
func (a *Agent) perform(effects []core.Effect) {
	failed := unfenced{}
	defer func() {
		for _, group := range slices.Sorted(maps.Keys(failed)) {
			a.perform(a.core.Step(a.present(), core.FenceFailed{Group: group, Err: failed[group]}))
		}
	}()
	for _, e := range effects {
		switch e := e.(type) {
		case core.SetFence:
			if err := a.setFence(e); err != nil {
				failed[e.Group] = err
			}
		case core.Bind:
			if !failed.has(e.Group) {
				a.cfg.Stage.Host(func() { a.bind(e) })
			}
		case core.Refresh:
			if !failed.has(e.Group) {
				a.cfg.Stage.Host(func() { a.refresh(e) })
			}
		case core.Unbind:
			if !failed.has(e.Group) {
				shut := a.cfg.Now() // what was to be written to the fence before this is written
				a.cfg.Stage.Host(func() { a.unbind(e, shut) })
			}
		case core.Announce:
			if !failed.has(e.Group) {
				a.cfg.Stage.LAN(func() { a.announce(e) })
			}
		case core.Advertise:
			if !failed.has(e.Group) {
				a.cfg.Stage.LAN(func() { a.advertise(e) })
			}
		default:
			a.performOther(e)
		}
	}
}

// unfenced are the groups whose fence could not be written in this step, and why.
type unfenced map[string]error

// has: what was to follow the fence does not follow.
//
//quorate:rule no-fence-no-address
func (u unfenced) has(group string) bool { return u[group] != nil }

func (a *Agent) performOther(e core.Effect) {
	switch e := e.(type) {
	case core.Send:
		a.send(e)
	case core.ClearFence:
		for _, addr := range e.Addrs {
			if err := a.cfg.Fence.Delete(addr); err != nil {
				a.cfg.Log.Error("cannot delete a fence entry; the address stays shut on this host", "address", addr, "error", err)
			}
		}
	case core.Resolve:
		a.cfg.Stage.Host(func() { a.resolve(e) })
	case core.Unserve:
		a.cfg.Stage.Host(func() { a.unserve(e) })
	case core.Insiders:
		a.cfg.Speaker.Insiders(e.From)
	case core.Sweep:
		a.cfg.Stage.Host(func() { a.sweep(e) })
	case core.Probe:
		a.cfg.Stage.Task(0, func(ctx context.Context) { a.Post(a.probe(ctx, e)) })
	case core.WriteHold:
		a.cfg.Stage.Disk(func() {
			a.Post(core.HoldWritten{Hold: e.Hold, Err: a.cfg.WriteHold(e.Hold)})
		})
	case core.Propose:
		a.propose(e)
	case core.AddNonvoter:
		a.cfg.Stage.Task(changeTimeout, func(ctx context.Context) {
			a.Post(core.NonvoterAdded{Node: e.Node, Err: a.cfg.Raft.AddNonvoter(ctx, e.Node)})
		})
	case core.AddVoter:
		a.cfg.Stage.Task(changeTimeout, func(ctx context.Context) {
			a.Post(core.VoterAdded{Node: e.Node, Err: a.cfg.Raft.AddVoter(ctx, e.Node, e.Over)})
		})
	case core.RemoveServer:
		a.cfg.Stage.Task(changeTimeout, func(ctx context.Context) {
			a.Post(core.ServerRemoved{ID: e.ID, Err: a.cfg.Raft.RemoveServer(ctx, e.ID, e.Over)})
		})
	case core.Transition:
		if a.cfg.Hooks != nil {
			a.cfg.Hooks.Transition(e)
		}
	case core.Campaign:
		a.cfg.Stage.Task(campaignTimeout, func(ctx context.Context) {
			if err := a.cfg.Raft.Campaign(ctx); err != nil {
				a.cfg.Log.Warn("cannot campaign", "error", err)
			}
		})
	case core.AskCampaign:
		a.cfg.Stage.Task(campaignTimeout, func(ctx context.Context) {
			if err := a.cfg.Raft.AskCampaign(ctx, e.Node); err != nil {
				a.cfg.Log.Warn("the successor does not take the leadership", "node", e.Node.Name, "error", err)
			}
		})
	case core.Log:
		a.cfg.Log.Log(context.Background(), levels[e.Level], e.Text, e.Args...)
	case core.Done:
		a.done = true
	}
}

var levels = map[core.Level]slog.Level{
	core.Debug: slog.LevelDebug, core.Info: slog.LevelInfo, core.Warn: slog.LevelWarn, core.Error: slog.LevelError,
}

func (a *Agent) propose(e core.Propose) {
	a.cfg.Stage.Task(proposalTimeout, func(ctx context.Context) {
		cmd := e.Command
		cmd.At = a.cfg.Stage.Wall()
		a.Post(core.Proposed{Command: cmd, Err: a.cfg.Raft.Propose(ctx, cmd)})
	})
}

// setFence writes every address, and when one fails shuts them all as far as it goes.
func (a *Agent) setFence(e core.SetFence) error {
	var errs []error
	for _, addr := range e.Addrs {
		if err := a.cfg.Fence.Set(addr, e.Until); err != nil {
			errs = append(errs, fmt.Errorf("set the fence of %s: %w", addr, err))
		}
	}
	if errs != nil && e.Until != 0 {
		for _, addr := range e.Addrs {
			if err := a.cfg.Fence.Set(addr, 0); err != nil {
				errs = append(errs, fmt.Errorf("shut the fence of %s: %w", addr, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (a *Agent) send(e core.Send) {
	for _, to := range e.To {
		for _, d := range e.Datagrams {
			if err := a.cfg.Send(to, d); err != nil {
				a.cfg.Log.Debug("cannot send a lease datagram", "to", to, "error", err)
			}
		}
	}
}

// lifetime is what the kernel is told: the backstop, or, where that is the fence,
// whole seconds that end before the deadline. Zero: too little is left.
func (a *Agent) lifetime(until election.Instant) time.Duration {
	if !a.cfg.Core.LifetimeFence {
		return backstop
	}
	return until.Sub(a.cfg.Now()).Truncate(time.Second)
}

func (a *Agent) addAll(at []core.Place, until election.Instant) error {
	for _, p := range at {
		valid := a.lifetime(until)
		if valid <= 0 {
			return fmt.Errorf("add %s to %s: the lease is over", p.Prefix, p.Link)
		}
		if err := a.cfg.Host.AddAddress(p.Link, p.Prefix, valid); err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) bind(e core.Bind) {
	a.Post(core.Bound{Group: e.Group, Gen: e.Gen, Err: a.addAll(e.At, e.Until)})
}

func (a *Agent) refresh(e core.Refresh) {
	err := a.addAll(e.At, e.Until)
	if err != nil {
		a.warn("refresh "+e.Group, "cannot renew the lifetime of an address", "group", e.Group, "error", err)
	}
	a.Post(core.Refreshed{Group: e.Group, Gen: e.Gen, Err: err})
}

// unbind reports when the addresses are gone and everything that was still to be
// said for them has been said or dropped: the fence is shut until then, and what
// left after it could follow the next owner's announcements.
func (a *Agent) unbind(e core.Unbind, shut election.Instant) {
	var errs []error
	for _, p := range e.At {
		if err := a.cfg.Host.RemoveAddress(p.Link, p.Prefix); err != nil {
			errs = append(errs, err)
		}
	}
	a.afterLastWord(core.Unbound{Group: e.Group, Gen: e.Gen, Shut: shut, Err: errors.Join(errs...)})
}

// afterLastWord posts the event when everything that was to be said until now has
// been said or dropped.
//
//quorate:rule last-word-first
func (a *Agent) afterLastWord(ev core.Event) { a.cfg.Stage.LAN(func() { a.Post(ev) }) }

func (a *Agent) sweep(e core.Sweep) {
	removed, err := a.cfg.Host.RemoveLeftovers(e.Addrs)
	a.Post(core.Swept{Removed: removed, Err: err})
}

// resolve finds the device of each address, and listens there for other routers.
func (a *Agent) resolve(e core.Resolve) {
	placed := core.Placed{Group: e.Group.Name, Gen: e.Gen}
	for _, p := range e.Group.Addresses {
		link, err := e.Group.Interface, error(nil)
		if link == "" {
			link, err = a.cfg.Host.LinkFor(p.Addr())
		} else {
			err = a.cfg.Host.HasLink(link)
		}
		if err != nil {
			placed.Err = errors.Join(placed.Err, err)
			continue
		}
		placed.At = append(placed.At, core.Place{Link: link, Prefix: p})
	}
	a.Post(placed)
	if placed.Err == nil {
		if err := a.cfg.Speaker.Serve(e.Group, placed.At); err != nil {
			a.warn("serve "+e.Group.Name, "cannot listen for VRRP adverts", "group", e.Group.Name, "error", err)
		}
	}
}

// unserve ends the listening for a group that is gone.
func (a *Agent) unserve(e core.Unserve) {
	if err := a.cfg.Speaker.Serve(e.Group, nil); err != nil {
		a.warn("serve "+e.Group.Name, "cannot end listening for VRRP adverts", "group", e.Group.Name, "error", err)
	}
}

func (a *Agent) announce(e core.Announce) {
	for _, p := range e.At {
		if a.tooLate(e.Until) {
			return
		}
		if err := a.cfg.Host.Announce(p.Link, p.Prefix.Addr()); err != nil {
			a.warn("announce "+p.Prefix.String(), "cannot announce an address", "group", e.Group, "address", p.Prefix.Addr(), "error", err)
		}
	}
}

// tooLate: what waited until its deadline is not said any more. The next owner may
// be announcing already.
//
//quorate:rule nothing-late
func (a *Agent) tooLate(until election.Instant) bool { return !a.cfg.Now().Before(until) }

// advertise sends one advert for each device and address family of the group.
func (a *Agent) advertise(e core.Advertise) {
	for _, b := range adverts(e.At) {
		if a.tooLate(e.Until) {
			return
		}
		if err := a.cfg.Speaker.Advertise(b.link, e.VRRP, b.addrs); err != nil {
			a.warn("advert "+e.Group+b.link, "cannot send a VRRP advert", "group", e.Group, "link", b.link, "error", err)
		}
	}
}

type advertBatch struct {
	link  string
	addrs []netip.Addr
}

// adverts splits a group's addresses as VRRP does: one virtual router for each
// device and family, the addresses in the order of the document.
func adverts(at []core.Place) []advertBatch {
	var out []advertBatch
next:
	for _, p := range at {
		addr := p.Prefix.Addr()
		for i, b := range out {
			if b.link == p.Link && b.addrs[0].Is4() == addr.Is4() {
				out[i].addrs = append(b.addrs, addr)
				continue next
			}
		}
		out = append(out, advertBatch{p.Link, []netip.Addr{addr}})
	}
	return out
}

func (a *Agent) probe(ctx context.Context, e core.Probe) core.Probed {
	out := core.Probed{Group: e.Group, Gen: e.Gen}
	for _, p := range e.At {
		mac, found, err := a.cfg.Host.Probe(ctx, p.Link, p.Prefix.Addr())
		if err != nil || found {
			out.Addr, out.MAC, out.Err = p.Prefix.Addr(), "", err
			if found {
				out.MAC = mac.String()
			}
			return out
		}
	}
	return out
}
