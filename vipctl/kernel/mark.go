package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Protocol marks what this program has put into the kernel: it is the protocol
// number of its addresses (IFA_PROTO, from Linux 5.18), routes and rules, which
// ip(8) shows as "proto 112". The number is IP's for VRRP; neither
// include/uapi/linux/rtnetlink.h nor iproute2's rt_protos and rt_addrprotos give it
// to anybody (keepalived has 18). It does not tell the daemons of two clusters in one
// network namespace apart.
const Protocol = 112

// marks reports whether the kernel tells who has put an address there: it does if
// it says so of any, such as those of loopback, or is recent enough.
func (k *Kernel) marks(all []address) bool {
	return k.recent || slices.ContainsFunc(all, func(a address) bool { return a.protocol != 0 })
}

// recentKernel reports whether this is Linux 5.18 or later.
func recentKernel() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	major, rest, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, err := strconv.Atoi(major)
	b, _ := strconv.Atoi(minor)
	return err == nil && (a > 5 || a == 5 && b >= 18)
}

// ours reports whether the address bears our mark or, where the kernel has no marks, a lifetime, as all of ours do. One that
// this Kernel has put there is ours also when another program's change took the mark off, as long as it has a lifetime.
// To be called with k.addrs locked.
func (v *View) ours(a address) bool {
	return !a.permanent && (a.protocol == Protocol || !v.marks || v.k.added[a.prefix.Addr()] != 0)
}

// A Found is an address that stands on a device.
type Found struct {
	Link   string
	Prefix netip.Prefix
	Valid  time.Duration // until the kernel removes it; 0: never
}

// Leftovers returns the addresses on any device that match and are ours, such as those
// that an earlier life has left: they have a finite lifetime, and our mark where the kernel has marks.
func (k *Kernel) Leftovers(match func(netip.Addr) bool) ([]Found, error) {
	return k.find(func(v *View, a address) bool { return match(a.prefix.Addr()) && v.ours(a) })
}

// Foreign returns the addresses on any device that match and are not ours: they
// belong to the host's own configuration, or another program has put them there or
// changed one of ours.
func (k *Kernel) Foreign(match func(netip.Addr) bool) ([]Found, error) {
	return k.find(func(v *View, a address) bool { return match(a.prefix.Addr()) && !v.ours(a) })
}

func (k *Kernel) find(match func(*View, address) bool) ([]Found, error) {
	links, err := k.links()
	if err != nil {
		return nil, err
	}
	v, err := k.Look()
	if err != nil {
		return nil, err
	}
	k.addrs.Lock()
	defer k.addrs.Unlock()
	var found []Found
	for _, a := range v.addresses {
		if l, ok := links[a.index]; ok && match(v, a) {
			f := Found{l.Name, a.prefix, a.valid}
			if a.permanent {
				f.Valid = 0
			}
			found = append(found, f)
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
	v, err := k.Look()
	if err != nil {
		return "", err
	}
	k.addrs.Lock()
	defer k.addrs.Unlock()
	var indices []int
	var networks []string
	for _, a := range v.addresses {
		if l, ok := links[a.index]; ok && !v.virtual(a) && a.prefix.Addr() != addr {
			networks = append(networks, fmt.Sprintf("%s on %s", a.prefix.Masked(), l.Name))
		}
	}
	for _, index := range v.devicesFor(addr) {
		if _, ok := links[index]; ok {
			indices = append(indices, index)
		}
	}
	switch len(indices) {
	case 1:
		return links[indices[0]].Name, nil
	case 0:
		return "", fmt.Errorf("no device's network contains %s (there are: %s); say which device with `interface:`",
			addr, strings.Join(networks, ", "))
	default:
		var names []string
		for _, index := range indices {
			names = append(names, links[index].Name)
		}
		return "", fmt.Errorf("%s lies in the network of %s; say which with `interface:`",
			addr, strings.Join(names, " and of "))
	}
}

// virtual reports whether a is one of ours rather than the host's own. To be called with k.addrs locked.
func (v *View) virtual(a address) bool {
	return v.k.added[a.prefix.Addr()] != 0 || a.protocol == Protocol
}

// hosts reports whether a is an address of the host itself, rather than a
// virtual one, whose network contains addr. To be called with k.addrs locked.
func (v *View) hosts(a address, addr netip.Addr) bool {
	return a.prefix.Addr() != addr && a.prefix.Contains(addr) && !v.virtual(a)
}

// devicesFor returns the devices on which the host itself has the narrowest network
// that contains the address. To be called with k.addrs locked.
func (v *View) devicesFor(addr netip.Addr) (indices []int) {
	bits := -1
	for _, a := range v.addresses {
		if !v.hosts(a, addr) || a.prefix.Bits() < bits {
			continue
		}
		if a.prefix.Bits() > bits {
			bits, indices = a.prefix.Bits(), nil
		}
		if !slices.Contains(indices, a.index) {
			indices = append(indices, a.index)
		}
	}
	return indices
}

// several puts errors together, so that a thousand of one kind are still read.
func several(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	const most = 5
	if len(errs) > most {
		errs = append(errs[:most:most], fmt.Errorf("and %d more", len(errs)-most))
	}
	return errors.Join(errs...)
}
