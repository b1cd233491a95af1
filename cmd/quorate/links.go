package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/vipctl/kernel"
)

// hostLinks returns the network devices of this host with their addresses, in the
// kernel's order, as config.CheckHost wants them.
func hostLinks() ([]config.Link, error) {
	links, err := dump("devices", netlink.LinkList)
	if err != nil {
		return nil, err
	}
	addrs, err := dump("addresses", func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	var out []config.Link
	for _, l := range links {
		if l.Type() == "macvlan" && kernel.IsVirtualMACName(l.Attrs().Name) {
			continue // a running daemon's: it came with a group, and is no network of the host
		}
		link := config.Link{Name: l.Attrs().Name, Loopback: l.Attrs().Flags&net.FlagLoopback != 0}
		for _, a := range addrs {
			ip, ok := netip.AddrFromSlice(a.IP)
			if !ok || a.LinkIndex != l.Attrs().Index {
				continue
			}
			bits, _ := a.Mask.Size()
			link.Addresses = append(link.Addresses, config.LinkAddress{
				Prefix:    netip.PrefixFrom(ip.Unmap(), bits),
				Permanent: a.Flags&unix.IFA_F_PERMANENT != 0 || uint32(a.ValidLft) == math.MaxUint32,
			})
		}
		out = append(out, link)
	}
	return out, nil
}

// dump asks again for a list that a change of the network made incomplete.
func dump[T any](what string, list func() ([]T, error)) ([]T, error) {
	const tries = 10
	var err error
	for range tries {
		var all []T
		if all, err = list(); err == nil {
			return all, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return nil, fmt.Errorf("list this host's %s: %w", what, err)
}
