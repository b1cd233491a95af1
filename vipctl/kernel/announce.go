package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/quorate/quorate/vipctl"
)

// Announce tells the neighbours on the device that the addresses are here now: by
// gratuitous ARP in both forms, or by unsolicited Neighbor Advertisements to all nodes
// and to all routers, and asks in the same breath who else has one (see WatchClaims). It
// sends at once whatever the number, and returns within some tens of milliseconds: whoever
// has more than vipctl.AnnounceChunk of them leaves time between. On a device without Ethernet addresses there is nothing to tell and nothing is done.
//
// An address that the fence has shut is dropped on its way out. That is an error, and
// the others are announced.
func (k *Kernel) Announce(link string, addrs []netip.Addr) error {
	l, err := k.Link(link)
	if err != nil {
		return fmt.Errorf("announce %s: %w", named(addrs), err)
	}
	if !l.announces() {
		return nil
	}
	frames, err := k.announcements(l, addrs)
	if err != nil {
		return fmt.Errorf("announce %s on %s: %w", named(addrs), link, err)
	}
	if err := k.send(l, frames); err != nil {
		return fmt.Errorf("announce %s on %s: %w", named(addrs), link, err)
	}
	return nil
}

// named names the addresses in an error.
func named(addrs []netip.Addr) string {
	switch len(addrs) {
	case 0:
		return "nothing"
	case 1:
		return addrs[0].String()
	default:
		return fmt.Sprintf("%s and %d more", addrs[0], len(addrs)-1)
	}
}

// announcements makes the frames, first one of each address and then the next, so that
// all are claimed before any is claimed twice.
func (k *Kernel) announcements(l LinkInfo, addrs []netip.Addr) ([][]byte, error) {
	router := slices.ContainsFunc(addrs, netip.Addr.Is6) && k.forwards(l.Name)
	frames := make([][]byte, 0, forms*len(addrs))
	for form := range forms {
		for _, addr := range addrs {
			f, err := announcement(addr, l.MAC, router, form)
			if err != nil {
				return nil, err
			}
			frames = append(frames, f)
		}
	}
	return frames, nil
}

// forms is how many frames announce an address.
const forms = 3

// announcement is one of them. The last asks who else has the address, without claiming
// it: another host that has it is silent about what it only hears, but answers that.
func announcement(addr netip.Addr, mac net.HardwareAddr, router bool, form int) ([]byte, error) {
	switch {
	case addr.Is4() && form == 0:
		return vipctl.GratuitousARP(addr, mac, vipctl.Request)
	case addr.Is4() && form == 1:
		return vipctl.GratuitousARP(addr, mac, vipctl.Reply)
	case addr.Is4():
		return vipctl.ProbeARP(addr, mac)
	case form == 0:
		return vipctl.UnsolicitedNA(addr, mac, router, vipctl.AllNodes)
	case form == 1:
		return vipctl.UnsolicitedNA(addr, mac, router, vipctl.AllRouters)
	default:
		return vipctl.NeighborSolicitation(addr, mac)
	}
}

// Tell sends each neighbour on the device its own word of where an address now is, for
// those that do not hear Announce. Nothing else changes.
func (k *Kernel) Tell(link string, tell []vipctl.Telling) error {
	l, err := k.Link(link)
	if err != nil {
		return fmt.Errorf("tell neighbours: %w", err)
	}
	if !l.announces() || len(tell) == 0 {
		return nil
	}
	frames := make([][]byte, 0, len(tell))
	for _, t := range tell {
		var f []byte
		if t.Addr.Is6() {
			f, err = vipctl.TellNS(t.Addr, l.MAC, t.To)
		} else {
			f, err = vipctl.TellARP(t.Addr, l.MAC, t.To)
		}
		if err != nil {
			return fmt.Errorf("tell neighbours on %s: %w", link, err)
		}
		frames = append(frames, f)
	}
	if err := k.send(l, frames); err != nil {
		return fmt.Errorf("tell neighbours on %s: %w", link, err)
	}
	return nil
}

// forwards reports whether the host is an IPv6 router on the device. A host
// where that cannot be read is not one.
func (k *Kernel) forwards(link string) bool {
	var on bool
	err := k.ns.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + link + "/forwarding")
		on = strings.TrimSpace(string(text)) == "1"
		return err
	})
	return err == nil && on
}
