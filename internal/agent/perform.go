package agent

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

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
	written := 0 // effects of which those that write the fence are done
	for i, e := range effects {
		switch e := e.(type) {
		case core.SetFence:
			if i < written {
				continue
			}
			if written = a.setFences(effects, i); written > i {
				continue
			}
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
		case core.Tell:
			if !failed.has(e.Group) {
				a.cfg.Stage.LAN(func() { a.tell(e) })
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
		if err := a.cfg.Fence.Delete(e.Addrs); err != nil {
			a.cfg.Log.Error("cannot delete a fence entry; the address stays shut on this host", "error", err)
		}
	case core.Resolve:
		a.cfg.Stage.Host(func() { a.resolve(e) })
	case core.Converge:
		a.cfg.Stage.Host(func() { a.converge(e) })
	case core.ResetConnections:
		a.cfg.Stage.Task(0, func(context.Context) { a.resetConnections(e) })
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

// setFences writes at once what several groups, one after the other, are to have as their
// deadline, and returns the end of their effects. It returns i if there is only one, or if
// that failed: then each is written for itself.
func (a *Agent) setFences(effects []core.Effect, i int) (end int) {
	first := effects[i].(core.SetFence)
	if first.Until == 0 {
		return i
	}
	var addrs []netip.Addr
	groups := 0
	for end = i; end < len(effects); end++ {
		switch e := effects[end].(type) {
		case core.SetFence:
			if e.Until == first.Until {
				addrs = append(addrs, e.Addrs...)
				groups++
				continue
			}
		case core.Refresh, core.Log: // what does not wait for another group's fence
			continue
		}
		break
	}
	if groups < 2 || a.cfg.Fence.Set(addrs, first.Until) != nil {
		return i
	}
	return end
}

// setFence writes every address, and when one fails shuts them all as far as it goes.
func (a *Agent) setFence(e core.SetFence) error {
	err := a.cfg.Fence.Set(e.Addrs, e.Until)
	if err != nil && e.Until != 0 {
		err = errors.Join(err, a.cfg.Fence.Set(e.Addrs, 0))
	}
	return err
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

// resolve finds the device of each address, and listens there for other routers.
func (a *Agent) resolve(e core.Resolve) {
	placed := core.Placed{Group: e.Group.Name, Gen: e.Gen}
	for _, p := range e.Group.Addresses {
		at, err := core.PlaceOf(e.Group, "", p), error(nil)
		if at.Link = cmp.Or(at.Spec.Interface, e.Group.Interface); at.Link == "" {
			at.Link, err = a.cfg.Host.LinkFor(p.Addr())
		} else {
			err = a.cfg.Host.HasLink(at.Link)
		}
		if err != nil {
			placed.Err = errors.Join(placed.Err, err)
			continue
		}
		placed.At = append(placed.At, at)
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

// probe asks about the addresses of one device after those of the other. One that another
// host has is enough.
func (a *Agent) probe(ctx context.Context, e core.Probe) core.Probed {
	out := core.Probed{Group: e.Group, Gen: e.Gen}
	for _, on := range byLink(e.At) {
		addr, mac, found, err := a.cfg.Host.Probe(ctx, on.link, on.addrs)
		if err != nil || found {
			out.Addr, out.Err = addr, err
			if found {
				out.MAC = mac.String()
			}
			return out
		}
	}
	return out
}
