package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/vipctl/fence"
	"github.com/quorate/quorate/vipctl/kernel"
	"github.com/quorate/quorate/vrrpcompat"
)

// openFence finds or makes the fence. What an earlier life left open in it, with its
// address in place, is for the agent to keep or shut when it knows whose it is. All else is
// shut before anything else happens, its addresses removed, and only then forgotten.
func (n *node) openFence() (err error) {
	if n.cfg.Fence != config.BPF {
		if err := errors.Join(n.dropFence(), RemoveVirtualMACs(n.kernel, FenceTag(n.cfg.Cluster))); err != nil {
			return err
		}
		if n.alone() {
			return nil // no lease, and so nothing that a fence could keep
		}
		n.log.Warn("fence: lifetime. The kernel removes an address when its lifetime ends, in whole seconds and counted from when " +
			"it handles the message: a process frozen at the wrong moment can show two owners. See docs/safety.md")
		return nil
	}
	if n.fence, err = fence.Open(fence.Options{Tag: FenceTag(n.cfg.Cluster)}); err != nil {
		return err
	}
	if n.left, err = leftOpen(n.fence, n.kernel, Now()); err != nil {
		return err
	}
	removed, _, err := clearFence(n.fence, n.kernel, FenceTag(n.cfg.Cluster), n.left, nil)
	if err != nil {
		return err
	}
	for _, r := range removed {
		n.log.Warn("removed what an earlier life of the daemon left", "address", r.Prefix, "link", r.Link)
	}
	if _, err := n.fence.Cover(); err != nil {
		return fmt.Errorf("put the fence on every device: %w", err)
	}
	return nil
}

// detachFence takes the fence off the host when the agent is no more, after what it
// still guards has been removed. Where that cannot be, the fence stays shut.
func (n *node) detachFence() error {
	if n.shadow != nil {
		return nil
	}
	if n.fence == nil {
		return RemoveVirtualMACs(n.kernel, FenceTag(n.cfg.Cluster))
	}
	if _, _, err := ClearFence(n.fence, n.kernel, FenceTag(n.cfg.Cluster)); err != nil {
		n.log.Error("the fence stays on this host: not every address could be removed", "error", err)
		return nil
	}
	return n.fence.Detach()
}

func (n *node) fenceOf() agent.Fence {
	if n.fence == nil {
		return noFence{}
	}
	return newMACFence(deadlines{n.fence}, n.document)
}

func (n *node) fenceName() string {
	if n.fence == nil {
		return n.cfg.Fence.String()
	}
	return n.cfg.Fence.String() + " (" + n.fence.Kind().String() + ")"
}

// noFence is the map where the address's own lifetime is the fence.
type noFence struct{}

func (noFence) Set([]netip.Addr, election.Instant) error { return nil }
func (noFence) Delete([]netip.Addr) error                { return nil }

// host is the kernel as the agent wants it. The agent names the device on which an
// address is at home; with a virtual MAC address it stands on another above that.
type host struct {
	*kernel.Kernel
	macs *vmacs
	lan  *lan
}

// HasLink fails if there is no such device.
func (h host) HasLink(name string) error {
	_, err := h.Link(name)
	return err
}

const (
	probeCount = 3
	probeGap   = 50 * time.Millisecond
	probeWait  = 200 * time.Millisecond
)

// ProbeTime is how long the LAN is asked whether another host has an address.
const ProbeTime = (probeCount-1)*probeGap + probeWait

// Probe asks three times and waits a fifth of a second: much shorter than RFC 5227
// wants for a host that configures itself, and long for a LAN.
func (h host) Probe(ctx context.Context, link string, addrs []netip.Addr) (netip.Addr, net.HardwareAddr, bool, error) {
	return h.Kernel.Probe(ctx, link, addrs, probeCount, probeGap, probeWait)
}

// notify tells systemd; without systemd it does nothing.
func notify(state string) {
	_, _ = sd.SdNotify(false, state) // an error means that nobody listens
}

// A watchdog feeds systemd's, at most every third of its interval.
type watchdog struct {
	every time.Duration // zero: none
	last  election.Instant
}

func newWatchdog(log *slog.Logger) *watchdog {
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the service manager's watchdog is not fed", "error", err)
	}
	return &watchdog{every: interval / 3}
}

// beat is called by the agent's loop each time round.
func (w *watchdog) beat() {
	if w.every <= 0 || Now().Sub(w.last) < w.every {
		return
	}
	w.last = Now()
	notify("WATCHDOG=1")
}

// announcer is the speaker as the agent wants it, with the devices that the adverts of
// a virtual MAC address go out by.
type announcer struct {
	*speaker
	macs *vmacs
}

// Serve has the group's devices ready, and its virtual routers heard.
func (a announcer) Serve(g fsm.Group, at []core.Place) error {
	return errors.Join(a.macs.serve(g, at), a.speaker.Serve(g, at))
}

// speaking is what the node's speaker works with. It is told nothing before run, when
// there is an agent.
func (n *node) speaking() speakerConfig {
	cfg := speakerConfig{
		IsVirtual: n.isVirtual, Via: n.macs.via, Log: n.log,
		Heard: func(group, link string, from netip.Addr, a vrrpcompat.Advert) {
			n.agent.Post(core.AdvertHeard{Group: group, Link: link, From: from, Advert: a})
		},
		Source: func(link string, family vrrpcompat.Family, peer, source netip.Addr) {
			n.agent.Post(core.SourceChanged{Link: link, Family: family, Peer: peer, Addr: source})
		},
	}
	if !n.alone() {
		cfg.Worst = config.WorstFailover(n.cfg.Lease, n.cfg.Grace())
	}
	return cfg
}
