package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vipctl"
)

// talked are the states of a neighbour that was heard.
const talked = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE

// clockTick is the unit of the kernel's ages: USER_HZ is 100 everywhere but on Alpha.
const clockTick = 10 * time.Millisecond

// Neighbours returns what the kernel knows of the LAN on a device: the networks that this
// host has addresses in there, and the hosts that have talked with it, newest first and
// at most vipctl.MaxNeighbours of each family.
func (k *Kernel) Neighbours(link string) (vipctl.Segment, error) {
	l, err := k.Link(link)
	if err != nil {
		return vipctl.Segment{}, fmt.Errorf("list neighbours: %w", err)
	}
	addrs, err := dump("addresses of "+link, func() ([]netlink.Addr, error) {
		return k.nl.AddrList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: link, Index: l.Index}}, netlink.FAMILY_ALL)
	})
	if err != nil {
		return vipctl.Segment{}, err
	}
	var on []netip.Prefix
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			ones, _ := a.Mask.Size()
			on = append(on, netip.PrefixFrom(ip.Unmap(), ones))
		}
	}
	table, err := dump("neighbours on "+link, func() ([]netlink.Neigh, error) {
		return k.nl.NeighList(l.Index, netlink.FAMILY_ALL)
	})
	if err != nil {
		return vipctl.Segment{}, err
	}
	var known []vipctl.Neighbour
	for _, n := range table {
		addr, ok := netip.AddrFromSlice(n.IP)
		mac, one := vipctl.MACOf(n.HardwareAddr)
		if ok && one && n.State&talked != 0 {
			age := time.Duration(min(n.Confirmed, n.Used, n.Updated)) * clockTick
			known = append(known, vipctl.Neighbour{Addr: addr.Unmap(), MAC: mac, Age: age})
		}
	}
	return vipctl.Segment{Networks: vipctl.Networks(on), Neighbours: vipctl.Newest(known, vipctl.MaxNeighbours)}, nil
}

// Acquaint has the kernel know the neighbours on the device that it does not know yet, as
// what it has heard some time ago: what they send can be answered without asking for them
// first, which those who hear no broadcasts would not answer. Entries that there are stay
// as they are; whoever has moved is asked for after some seconds, as always. It goes on
// after an error, and returns the first.
func (k *Kernel) Acquaint(link string, with []vipctl.Neighbour) error {
	l, err := k.Link(link)
	if err != nil {
		return fmt.Errorf("get to know neighbours: %w", err)
	}
	var failed error
	for _, n := range with {
		err := k.nl.NeighAdd(&netlink.Neigh{
			LinkIndex: l.Index, State: netlink.NUD_STALE, IP: n.Addr.AsSlice(), HardwareAddr: net.HardwareAddr(n.MAC[:]),
		})
		if err != nil && !errors.Is(err, unix.EEXIST) && failed == nil {
			failed = fmt.Errorf("get to know neighbour %s on %s: %w", n.Addr, link, err)
		}
	}
	return failed
}
