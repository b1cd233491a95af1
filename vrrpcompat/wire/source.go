package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vrrpcompat"
)

// dumpTries bounds how often an address list that changed while the kernel gave it out is asked for again.
const dumpTries = 3

// SourceAddress returns the address of the interface that adverts are sent from, without a zone: for IPv4 its first
// primary address, for IPv6 its first link-local one (RFC 9568, sections 5.1.1.1 and 5.1.2.1). Addresses for which exclude
// says true are passed over: these are the virtual ones, which may be on the interface too. exclude may be nil.
//
// Deprecated addresses are passed over, IPv4 secondary ones, since another program's virtual address would be one,
// and IPv6 ones that duplicate address detection has not passed: the kernel would not send from them. The error then
// lists what is there and why it does not serve. Addresses come and go: ask again when they change.
func SourceAddress(ifname string, family vrrpcompat.Family, exclude func(netip.Addr) bool) (netip.Addr, error) {
	addrs, err := addresses(ifname, family)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find %v source address on %s: %w", family, ifname, err)
	}
	var passed []string
	for _, a := range addrs {
		addr := addrOf(a.IP, family)
		why := unfit(addr, a.Flags, family)
		if why == "" && exclude != nil && exclude(addr) {
			why = "is a virtual address"
		}
		if why == "" {
			return addr, nil
		}
		passed = append(passed, fmt.Sprintf("%v %s", addr, why))
	}
	need := "a primary IPv4 address of its own, such as from `ip addr add`"
	if family == vrrpcompat.IPv6 {
		need = "an IPv6 link-local address (the interface must be up, with IPv6 not disabled on it)"
	}
	if len(passed) == 0 {
		return netip.Addr{}, fmt.Errorf("find %v source address on %s: it has no address of the family; adverts need %s", family, ifname, need)
	}
	return netip.Addr{}, fmt.Errorf("find %v source address on %s: %s; adverts need %s", family, ifname, strings.Join(passed, ", "), need)
}

// addresses lists the interface's addresses of the family, in the kernel's order, in which an IPv4 primary comes
// before its secondaries.
func addresses(ifname string, family vrrpcompat.Family) ([]netlink.Addr, error) {
	af := netlink.FAMILY_V4
	switch family {
	case vrrpcompat.IPv4:
	case vrrpcompat.IPv6:
		af = netlink.FAMILY_V6
	default:
		return nil, errors.New("the family is neither ipv4 nor ipv6")
	}
	link, err := netlink.LinkByName(ifname)
	if err != nil {
		return nil, err
	}
	var addrs []netlink.Addr
	for range dumpTries {
		addrs, err = netlink.AddrList(link, af)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return addrs, nil
}

// unfit says why no advert can come from the address, or "".
func unfit(addr netip.Addr, flags int, family vrrpcompat.Family) string {
	if flags&unix.IFA_F_DEPRECATED != 0 {
		return "is deprecated"
	}
	if family == vrrpcompat.IPv4 {
		// The same bit means "temporary" for IPv6.
		if flags&unix.IFA_F_SECONDARY != 0 {
			return "is secondary"
		}
		return ""
	}
	switch {
	case !addr.IsLinkLocalUnicast():
		return "is not link-local"
	case flags&unix.IFA_F_DADFAILED != 0:
		return "failed duplicate address detection: another host has it"
	case flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0:
		return "has not passed duplicate address detection yet"
	}
	return ""
}
