package wire

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vrrpcompat"
)

// Source returns the address that a message from the device to the given one is to come from, without a zone. It is the
// device's, never a virtual one, as Options.IsVirtual says at the time of the call.
//
// To the family's group: for IPv4 the device's first primary address, for IPv6 its first link-local one (RFC 9568,
// sections 5.1.1.1 and 5.1.2.1). To a peer: one whose network contains the peer's address, else for IPv4 the same as
// to the group, for IPv6 one of the peer's scope, link-local or not.
//
// Passed over are deprecated addresses; IPv4 secondary ones, since another program's virtual address would be one, unless
// they are secondary to a virtual address; and IPv6 ones that are temporary or that duplicate address detection has not passed. The
// error then lists what is there and why it does not serve.
func (t *Transport) Source(device string, family vrrpcompat.Family, to netip.Addr) (netip.Addr, error) {
	source, err := t.sourceNow(device, family, to)
	if err == nil || !t.refresh() {
		return source, err
	}
	return t.sourceNow(device, family, to)
}

func (t *Transport) sourceNow(device string, family vrrpcompat.Family, to netip.Addr) (netip.Addr, error) {
	if family != vrrpcompat.FamilyOf(to) || family == 0 {
		return netip.Addr{}, fmt.Errorf("find source address on %s: the destination %v is not of family %v", device, to, family)
	}
	host := t.host.Load()
	link, ok := host.links[device]
	if !ok {
		return netip.Addr{}, fmt.Errorf("find %v source address on %s: %w", family, device, unix.ENODEV)
	}
	source, why := choose(host.addrs[link.index], family, to.WithZone(""), t.opts.IsVirtual)
	if why != "" {
		return netip.Addr{}, fmt.Errorf("find %v source address on %s: %s", family, device, why)
	}
	return source, nil
}

// A hostAddr is an address on a device, with the kernel's flags.
type hostAddr struct {
	prefix netip.Prefix
	flags  int
}

// choose picks from a device's addresses, which are in the kernel's order: IPv4 primaries before their secondaries.
// why is empty if it found one.
func choose(addrs []hostAddr, family vrrpcompat.Family, to netip.Addr, isVirtual func(netip.Addr) bool) (best netip.Addr, why string) {
	// The best that can be found: of the network of the one who is spoken to; to a group there is no such.
	const spare, own, near = 1, 2, 3
	enough, rank := own, 0
	if !to.IsMulticast() {
		enough = near
	}
	var passed []string
	for i, a := range addrs {
		addr := a.prefix.Addr()
		if vrrpcompat.FamilyOf(addr) != family {
			continue
		}
		this := own
		if a.prefix.Contains(to) {
			this = near
		}
		bad := unfit(addr, a.flags, family, to)
		if bad == secondary {
			this = spare
		}
		if this <= rank {
			continue
		}
		if bad == secondary && behindVirtual(addrs[:i], a.prefix, isVirtual) {
			bad = "" // the host's own, back after a virtual one had become the network's first
		}
		if bad == "" && isVirtual(addr) {
			bad = "is a virtual address"
		}
		if bad != "" {
			passed = append(passed, fmt.Sprintf("%v %s", addr, bad))
			continue
		}
		if best, rank = addr, this; rank >= enough {
			return best, ""
		}
	}
	if best.IsValid() {
		return best, ""
	}
	need := "a primary IPv4 address of its own, such as from `ip addr add`"
	if family == vrrpcompat.IPv6 {
		need = "an IPv6 link-local address (the interface must be up, with IPv6 not disabled on it)"
		if wantsGlobal(to) {
			need = fmt.Sprintf("an IPv6 address of its own that is not link-local, to reach %v", to)
		}
	}
	if len(passed) == 0 {
		passed = []string{"it has no address of the family"}
	}
	return netip.Addr{}, strings.Join(passed, ", ") + "; adverts need " + need
}

// behindVirtual reports whether the first address of the prefix's network is a virtual one.
func behindVirtual(before []hostAddr, p netip.Prefix, isVirtual func(netip.Addr) bool) bool {
	for _, a := range before {
		if a.prefix.Masked() == p.Masked() {
			return isVirtual(a.prefix.Addr())
		}
	}
	return false
}

func wantsGlobal(to netip.Addr) bool {
	return to.Is6() && !to.IsLinkLocalUnicast() && !to.IsLinkLocalMulticast()
}

const secondary = "is secondary"

// unfit says why no advert can come from the address, or "".
func unfit(addr netip.Addr, flags int, family vrrpcompat.Family, to netip.Addr) string {
	if flags&unix.IFA_F_DEPRECATED != 0 {
		return "is deprecated"
	}
	if family == vrrpcompat.IPv4 {
		// The same bit means "temporary" for IPv6.
		if flags&unix.IFA_F_SECONDARY != 0 {
			return secondary
		}
		return ""
	}
	switch {
	case addr.IsLinkLocalUnicast() && wantsGlobal(to):
		return "is link-local"
	case !addr.IsLinkLocalUnicast() && !wantsGlobal(to):
		return "is not link-local"
	case flags&unix.IFA_F_DADFAILED != 0:
		return "failed duplicate address detection: another host has it"
	case flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0:
		return "has not passed duplicate address detection yet"
	case flags&unix.IFA_F_TEMPORARY != 0:
		return "is temporary"
	}
	return ""
}
