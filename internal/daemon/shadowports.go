package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/vipctl/kernel"
)

// A seer is what a shadow asks of the kernel: it changes nothing.
type seer interface {
	LinkFor(addr netip.Addr) (string, error)
	Link(name string) (kernel.LinkInfo, error)
}

// A sight is the host without the addresses that it is asked about: what runs now has
// put them on devices of their own, perhaps, and they are no networks to be found by.
type sight struct {
	*kernel.Kernel
	links func() ([]config.Link, error)
}

// LinkFor finds the device whose network contains the address.
func (s sight) LinkFor(addr netip.Addr) (string, error) {
	links, err := s.links()
	if err != nil {
		return "", err
	}
	switch names := config.DevicesFor(addr, links); len(names) {
	case 0:
		return "", fmt.Errorf("no device's network contains %s; say which device with `interface:`", addr)
	case 1:
		return names[0], nil
	default:
		return "", fmt.Errorf("%s lies in the network of %s; say which with `interface:`", addr, strings.Join(names, " and of "))
	}
}

// handless is a host on which nothing is done, and everything has succeeded. It asks the
// LAN nothing either: what runs there now would answer, and would be gone.
type handless struct {
	seer
	shadow interface{ placed(at []core.Place) }
}

// Put takes note of where the addresses would be.
func (h handless) Put(what core.Holding, _ time.Duration) error {
	h.shadow.placed(what.At)
	return nil
}

// Take has nothing to take off.
func (handless) Take(core.Holding) error { return nil }

// Converge finds everything as it would be.
func (handless) Converge(held []core.Held, _ []netip.Addr, _ func(election.Instant) time.Duration) core.Converged {
	var out core.Converged
	for _, g := range held {
		if g.Renew {
			out.Groups = append(out.Groups, core.Mended{Group: g.Group, Gen: g.Gen, Renewed: true})
		}
	}
	return out
}

// ResetConnections ends none.
func (handless) ResetConnections([]netip.Addr) error { return nil }

// HasLink fails if there is no such device.
func (h handless) HasLink(name string) error {
	_, err := h.Link(name)
	return err
}

// RemoveLeftovers removes nothing: what is there belongs to what runs now.
func (handless) RemoveLeftovers([]netip.Addr, core.Holding) ([]netip.Addr, error) { return nil, nil }

// Announce sends nothing.
func (handless) Announce(string, []netip.Addr) error { return nil }

// Tell has nobody to tell.
func (handless) Tell(string, []netip.Addr) (next func() (more bool, err error)) { return nil }

// Probe asks nobody.
func (handless) Probe(context.Context, string, []netip.Addr) (netip.Addr, net.HardwareAddr, bool, error) {
	return netip.Addr{}, nil, false, nil
}

// mute hears adverts and sends none.
type mute struct{ *speaker }

// Advertise sends nothing.
func (mute) Advertise(string, fsm.VRRP, []netip.Addr) error { return nil }
