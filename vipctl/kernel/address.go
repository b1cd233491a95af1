package kernel

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An address as it stands on a device.
type address struct {
	index     int
	prefix    netip.Prefix
	permanent bool
	flags     int
	valid     time.Duration // what is left; meaningless when permanent
}

// addresses returns what is on the device of that index, or with 0 on all.
func (k *Kernel) addresses(index int) ([]address, error) {
	list, err := dump("addresses", func() ([]netlink.Addr, error) {
		return k.nl.AddrList(nil, netlink.FAMILY_ALL)
	})
	if err != nil {
		return nil, err
	}
	var all []address
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || index != 0 && a.LinkIndex != index {
			continue
		}
		bits, _ := a.Mask.Size()
		all = append(all, address{
			index: a.LinkIndex, prefix: netip.PrefixFrom(ip, bits), flags: a.Flags,
			permanent: a.Flags&unix.IFA_F_PERMANENT != 0 || uint32(a.ValidLft) == forever,
			valid:     time.Duration(uint32(a.ValidLft)) * time.Second})
	}
	return all, nil
}

const forever = math.MaxUint32 // as a lifetime

// AddAddress puts the address on the device, or renews its lifetime. After valid,
// rounded up to whole seconds and at least one, the kernel removes it by itself.
//
// The host keeps its own source address and routes where that can be: beside an
// address of the host whose network contains this one no on-link route is made,
// so that none goes with it; for IPv6 it is never preferred as a source. For IPv6
// there is no Duplicate Address Detection: the lease has excluded others, and an
// address that is tentative for a second does not answer.
//
// An IPv4 address that is the first of its network on the device has the sysctl
// promote_secondaries switched on for that device, for good: else the kernel would
// delete with it those that came later.
//
// An address that stands there without a lifetime was put there by somebody else
// and is refused.
func (k *Kernel) AddAddress(link string, p netip.Prefix, valid time.Duration) error {
	if !p.IsValid() {
		return fmt.Errorf("add an address to %s: not a valid prefix", link)
	}
	k.addrs.Lock()
	defer k.addrs.Unlock()
	if err := k.addAddress(link, p, valid); err != nil {
		return fmt.Errorf("add %s to %s: %w", p, link, err)
	}
	k.added[p.Addr()] = true
	return nil
}

func (k *Kernel) addAddress(link string, p netip.Prefix, valid time.Duration) error {
	l, err := k.Link(link)
	if err != nil {
		return err
	}
	have, err := k.addresses(l.Index)
	if err != nil {
		return err
	}
	var old *address
	for _, a := range have {
		if a.prefix.Addr() != p.Addr() {
			continue
		}
		if a.permanent {
			return fmt.Errorf("%s stands there without a lifetime, so it belongs to this host's own configuration; "+
				"remove it there", a.prefix)
		}
		if a.prefix == p {
			old = &a
			continue
		}
		// Of another length: from before a change of the configuration.
		if err := k.delete(a); err != nil {
			return err
		}
	}
	if err := k.promoteSecondaries(l, p, old, have); err != nil {
		return err
	}
	a := netlinkAddr(p)
	a.LinkIndex = l.Index
	around, err := k.around(l, have)
	if err != nil {
		return err
	}
	a.Flags = k.flags(p, old, around)
	a.ValidLft = seconds(valid)
	if p.Addr().Is4() {
		a.PreferedLft = a.ValidLft // IPv4 knows no preference and would only show "deprecated"
	}
	err = k.nl.AddrReplace(nil, a)
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: %w", ErrNoLink, err)
	case errors.Is(err, unix.EACCES) && p.Addr().Is6():
		return fmt.Errorf("IPv6 is switched off there; set sysctl net.ipv6.conf.%s.disable_ipv6=0: %w", link, err)
	default:
		return err
	}
}

// around returns the addresses that tell whether the host has a route for a network already: those of the device, and
// below a virtual MAC also those of the parent. Link-local ones are left out there: their route counts for one device only.
func (k *Kernel) around(l LinkInfo, have []address) ([]address, error) {
	if l.VirtualOn == 0 {
		return have, nil
	}
	below, err := k.addresses(l.VirtualOn)
	if err != nil {
		return nil, err
	}
	below = slices.DeleteFunc(below, func(a address) bool { return a.prefix.Addr().IsLinkLocalUnicast() })
	return slices.Concat(have, below), nil
}

func (k *Kernel) flags(p netip.Prefix, old *address, have []address) int {
	flags := 0
	if p.Addr().Is6() {
		flags = unix.IFA_F_NODAD
	}
	switch {
	case old != nil:
		// A renewal must not touch routes.
		flags |= old.flags & unix.IFA_F_NOPREFIXROUTE
	case p.IsSingleIP() || slices.ContainsFunc(have, func(a address) bool { return k.hosts(a, p.Addr()) }):
		flags |= unix.IFA_F_NOPREFIXROUTE
	}
	return flags
}

// hosts reports whether a is an address of the host itself, rather than a
// virtual one, whose network contains addr.
func (k *Kernel) hosts(a address, addr netip.Addr) bool {
	return a.prefix.Addr() != addr && !k.added[a.prefix.Addr()] && a.prefix.Contains(addr)
}

// promoteSecondaries keeps the kernel from deleting other addresses with ours.
// When an IPv4 address that is the first of its network on a device goes, by hand
// or because its time is over, all later ones of that network go too, the host's
// own among them, unless this setting is on. (Most distributions have it on.)
func (k *Kernel) promoteSecondaries(l LinkInfo, p netip.Prefix, old *address, have []address) error {
	if !p.Addr().Is4() || p.IsSingleIP() {
		return nil
	}
	second := slices.ContainsFunc(have, func(a address) bool {
		return a.prefix.Addr() != p.Addr() && a.prefix.Masked() == p.Masked()
	})
	if old != nil {
		second = old.flags&unix.IFA_F_SECONDARY != 0
	}
	if second {
		return nil
	}
	return k.ns.Do(func() error {
		for _, scope := range []string{"all", l.Name} {
			text, err := os.ReadFile(promoteFile(scope))
			if err != nil {
				return fmt.Errorf("see whether other addresses would go with it: %w", err)
			}
			if strings.TrimSpace(string(text)) != "0" {
				return nil
			}
		}
		if err := os.WriteFile(promoteFile(l.Name), []byte("1"), 0); err != nil {
			return fmt.Errorf("when it goes, the kernel would remove later addresses of %s with it; "+
				"set sysctl net.ipv4.conf.%s.promote_secondaries=1: %w", p.Masked(), l.Name, err)
		}
		return nil
	})
}

func promoteFile(scope string) string {
	return "/proc/sys/net/ipv4/conf/" + scope + "/promote_secondaries"
}

// RemoveAddress takes the address off the device, whatever its prefix length
// there, and returns nil only when a look afterwards shows it gone. An address
// or a device that is not there is gone. One without a lifetime belongs to the
// host's own configuration: it is left alone, and that is an error.
func (k *Kernel) RemoveAddress(link string, p netip.Prefix) error {
	k.addrs.Lock()
	defer k.addrs.Unlock()
	if err := k.removeAddress(link, p.Addr()); err != nil {
		return fmt.Errorf("remove %s from %s: %w", p, link, err)
	}
	delete(k.added, p.Addr())
	return nil
}

func (k *Kernel) removeAddress(link string, addr netip.Addr) error {
	l, err := k.Link(link)
	if errors.Is(err, ErrNoLink) {
		return nil
	}
	if err != nil {
		return err
	}
	const looks = 3
	for range looks {
		have, err := k.addresses(l.Index)
		if err != nil {
			return err
		}
		gone := true
		for _, a := range have {
			if a.prefix.Addr() != addr {
				continue
			}
			if a.permanent {
				return fmt.Errorf("%s stands there without a lifetime, so it belongs to this host's own "+
					"configuration, and the host goes on answering for it; remove it there", a.prefix)
			}
			gone = false
			if err := k.delete(a); err != nil {
				return err
			}
		}
		if gone {
			return nil
		}
	}
	return fmt.Errorf("it came back each of %d times; another program puts it there", looks)
}

func (k *Kernel) delete(a address) error {
	n := netlinkAddr(a.prefix)
	n.LinkIndex = a.index
	err := k.nl.AddrDel(nil, n)
	if err == nil || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil // or gone by itself meanwhile
	}
	return fmt.Errorf("delete %s: %w", a.prefix, err)
}

// A Found is an address that an earlier life has left.
type Found struct {
	Link   string
	Prefix netip.Prefix
	Valid  time.Duration // until the kernel removes it
}

// Leftovers returns the addresses on any device that match and have a finite
// lifetime, as all that AddAddress makes have.
func (k *Kernel) Leftovers(match func(netip.Addr) bool) ([]Found, error) {
	return k.find(func(a address) bool { return !a.permanent && match(a.prefix.Addr()) })
}

// Permanent returns the addresses on any device that match and have no lifetime:
// they belong to the host's own configuration, or somebody has taken one of ours
// over by hand. Their Valid is zero.
func (k *Kernel) Permanent(match func(netip.Addr) bool) ([]Found, error) {
	return k.find(func(a address) bool { return a.permanent && match(a.prefix.Addr()) })
}

func (k *Kernel) find(match func(address) bool) ([]Found, error) {
	links, err := k.links()
	if err != nil {
		return nil, err
	}
	have, err := k.addresses(0)
	if err != nil {
		return nil, err
	}
	var found []Found
	for _, a := range have {
		if l, ok := links[a.index]; ok && match(a) {
			found = append(found, Found{l.Name, a.prefix, a.valid})
		}
	}
	return found, nil
}

// LinkFor returns the device whose network contains the address, judged by the
// addresses that the host itself has there; of several networks the narrowest
// counts. No such device, and more than one, are errors.
func (k *Kernel) LinkFor(addr netip.Addr) (string, error) {
	links, err := k.links()
	if err != nil {
		return "", err
	}
	have, err := k.addresses(0)
	if err != nil {
		return "", err
	}
	k.addrs.Lock()
	defer k.addrs.Unlock()
	var names, networks []string
	bits := -1
	for _, a := range have {
		l, ok := links[a.index]
		if !ok || k.added[a.prefix.Addr()] || a.prefix.Addr() == addr {
			continue
		}
		networks = append(networks, fmt.Sprintf("%s on %s", a.prefix.Masked(), l.Name))
		if !k.hosts(a, addr) || a.prefix.Bits() < bits {
			continue
		}
		if a.prefix.Bits() > bits {
			bits, names = a.prefix.Bits(), nil
		}
		if !slices.Contains(names, l.Name) {
			names = append(names, l.Name)
		}
	}
	switch len(names) {
	case 1:
		return names[0], nil
	case 0:
		return "", fmt.Errorf("no device's network contains %s (there are: %s); say which device with `interface:`",
			addr, strings.Join(networks, ", "))
	default:
		return "", fmt.Errorf("%s lies in the network of %s; say which with `interface:`",
			addr, strings.Join(names, " and of "))
	}
}

func netlinkAddr(p netip.Prefix) *netlink.Addr {
	addr := p.Addr().WithZone("")
	n := &netlink.Addr{IPNet: &net.IPNet{
		IP: addr.AsSlice(), Mask: net.CIDRMask(p.Bits(), addr.BitLen())}}
	if addr.Is4() {
		n.Broadcast = net.IPv4zero // none: the host's own address sees to that
	}
	return n
}

// seconds rounds up, so that renewing in time is enough to keep an address; and
// stops at 68 years, short of the value that means for ever.
func seconds(d time.Duration) int {
	s := int64(math.Ceil(d.Seconds()))
	return int(min(max(s, 1), math.MaxInt32))
}
