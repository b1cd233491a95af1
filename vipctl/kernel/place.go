package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm"
)

// AddAddresses puts the addresses on their devices, in order, or renews the lifetime
// of those that are there. After valid, rounded up to whole seconds and at least one,
// the kernel removes them by itself. A thousand take one look and a few system calls.
//
// All or nothing: on an error what this call has added is taken off again, in reverse;
// the error says so where that failed too. What was there before is renewed or not.
//
// The host keeps its own source address and routes where that can be: beside an
// address of the host whose network contains a new one no on-link route is made,
// so that none goes with it; for IPv6 it is never preferred as a source. For IPv6
// there is no Duplicate Address Detection: the lease has excluded others, and an
// address that is tentative for a second does not answer.
//
// An IPv4 address that is the first of its network on the device has the sysctl
// promote_secondaries switched on for that device, for good: else the kernel would
// delete with it those that came later.
//
// An address that stands there and is not ours (see Leftovers) is refused. One of ours
// of another prefix length, label or scope is from before a change of the configuration, and replaced.
//
// The error wraps ErrNoLink when a device is not there.
func (k *Kernel) AddAddresses(at []Address, valid time.Duration) error {
	k.addrs.Lock()
	defer k.addrs.Unlock()
	v, err := k.Look()
	if err != nil {
		return err
	}
	return k.addAddresses(v, at, valid)
}

// RenewAddresses is AddAddresses judged by a View of at most a second ago, so that the
// renewals of many groups need one look together. What the View has not is added.
func (k *Kernel) RenewAddresses(v *View, at []Address, valid time.Duration) error {
	k.addrs.Lock()
	defer k.addrs.Unlock()
	err := k.addAddresses(v, at, valid)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, ErrNoLink) { // it came since then, or the device was made anew
		if v, err = k.Look(); err == nil {
			err = k.addAddresses(v, at, valid)
		}
	}
	return err
}

// A placing is what one call of AddAddresses is about to do.
type placing struct {
	v        *View
	renewed  []Address
	fresh    []Address // what is not there yet
	renewing batch
	adding   batch
	stale    []address // ours, but otherwise than they should be: taken off first
	promote  map[string]bool
	first    map[network]bool // those that get their first IPv4 address by this call
}

// A network is one on a device.
type network struct {
	link   string
	prefix netip.Prefix
}

func (k *Kernel) addAddresses(v *View, at []Address, valid time.Duration) error {
	p := &placing{v: v, promote: map[string]bool{}, first: map[network]bool{}}
	for _, a := range at {
		if err := p.plan(a, valid); err != nil {
			return addError(a, err)
		}
	}
	if err := k.takeOff(p.stale); err != nil {
		return err
	}
	for link := range p.promote {
		if err := k.promoteSecondaries(link); err != nil {
			return err
		}
	}
	if err := failed(p.renewed, k.conn.run(&p.renewing, true)); err != nil {
		return err
	}
	answers := k.conn.run(&p.adding, true)
	if err := failed(p.fresh, answers); err != nil {
		return errors.Join(err, k.undo(p, answers))
	}
	for _, a := range at {
		k.added[a.Prefix.Addr()] = v.devices[a.Link].Index
	}
	return nil
}

// failed returns the first error of those that the kernel gave.
func failed(at []Address, answers []error) error {
	for i, err := range answers {
		if err != nil {
			return addError(at[i], err)
		}
	}
	return nil
}

func addError(a Address, err error) error {
	switch {
	case errors.Is(err, ErrNoLink):
	case errors.Is(err, unix.ENODEV):
		err = fmt.Errorf("%w: %w", ErrNoLink, err)
	case errors.Is(err, unix.EEXIST):
		err = fmt.Errorf("another program has put it there meanwhile: %w", err)
	case errors.Is(err, unix.EINVAL) && strings.Contains(err.Error(), "scope"):
		err = fmt.Errorf("on one device all IPv4 addresses of one network have one scope, and those that are there have another than %s; "+
			"give it a length of 32, or their scope: %w", cmp.Or(a.Spec.Scope, fsm.ScopeGlobal), err)
	case errors.Is(err, unix.EACCES) && a.Prefix.Addr().Is6():
		err = fmt.Errorf("IPv6 is switched off there; set sysctl net.ipv6.conf.%s.disable_ipv6=0: %w", a.Link, err)
	case errors.Is(err, unix.EOPNOTSUPP) && a.Prefix.Addr().Is6():
		err = fmt.Errorf("this kernel has no IPv6: %w", err)
	}
	return fmt.Errorf("add %s to %s: %w", a.Prefix, a.Link, err)
}

// undo takes off what was added, and what may have been.
func (k *Kernel) undo(p *placing, answers []error) error {
	var off []address
	for i, a := range p.fresh {
		if answers[i] == nil || errors.Is(answers[i], errUnanswered) {
			off = append(off, address{index: p.v.devices[a.Link].Index, prefix: a.Prefix})
		}
	}
	if err := k.takeOff(off); err != nil {
		for _, a := range off {
			k.added[a.prefix.Addr()] = a.index
		}
		return fmt.Errorf("and what was added could not be taken off again: %w", err)
	}
	return nil
}

// plan says how the address is to stand, and what has to be done for it.
func (p *placing) plan(a Address, valid time.Duration) error {
	if !a.Prefix.IsValid() {
		return errors.New("not a valid prefix")
	}
	d, err := p.v.device(a.Link)
	if err != nil {
		return err
	}
	want := address{index: d.Index, prefix: a.Prefix, protocol: Protocol, valid: valid}
	if a.Prefix.Addr().Is4() {
		want.scope, want.label = scopeOf(a.Spec.Scope), a.Spec.Label
	} else {
		want.flags = unix.IFA_F_NODAD
	}
	var old *address
	for _, have := range p.v.on(d.Index, a.Prefix.Addr()) {
		switch {
		case !p.v.ours(have):
			return errors.New(notOurs(have))
		case p.v.asWanted(have, a, d):
			old = &have
		default:
			p.stale = append(p.stale, have)
		}
	}
	ipv4 := a.Prefix.Addr().Is4() && !a.Prefix.IsSingleIP()
	if old != nil { // a renewal must not touch routes
		want.flags |= old.flags & unix.IFA_F_NOPREFIXROUTE
		want.add(&p.renewing, unix.NLM_F_REPLACE)
		p.renewed = append(p.renewed, a)
		if ipv4 && old.flags&unix.IFA_F_SECONDARY == 0 {
			p.promote[a.Link] = true
		}
		return nil
	}
	if p.v.routeless(a, d) {
		want.flags |= unix.IFA_F_NOPREFIXROUTE
	}
	want.add(&p.adding, unix.NLM_F_EXCL)
	p.fresh = append(p.fresh, a)
	if n := (network{a.Link, a.Prefix.Masked()}); ipv4 && !d.ipv4[n.prefix] && !p.first[n] {
		p.first[n], p.promote[a.Link] = true, true
	}
	return nil
}

// promoteSecondaries keeps the kernel from deleting other addresses with ours.
// When an IPv4 address that is the first of its network on a device goes, by hand
// or because its time is over, all later ones of that network go too, the host's
// own among them, unless this setting is on. (Most distributions have it on.)
func (k *Kernel) promoteSecondaries(link string) error {
	return k.ns.Do(func() error {
		for _, scope := range []string{"all", link} {
			text, err := os.ReadFile(promoteFile(scope))
			if err != nil {
				return fmt.Errorf("see whether other addresses of %s would go with ours: %w", link, err)
			}
			if strings.TrimSpace(string(text)) != "0" {
				return nil
			}
		}
		if err := os.WriteFile(promoteFile(link), []byte("1"), 0); err != nil {
			return fmt.Errorf("when one of ours goes, the kernel would remove later addresses of the same network from %s with it; "+
				"set sysctl net.ipv4.conf.%s.promote_secondaries=1: %w", link, link, err)
		}
		return nil
	})
}

func promoteFile(scope string) string {
	return "/proc/sys/net/ipv4/conf/" + scope + "/promote_secondaries"
}

// RemoveAddresses takes the addresses off their devices, whatever their prefix length
// there, and off any other device on which they stand and are ours: a device that is renamed
// while it is up keeps its addresses. It returns nil only when a look afterwards
// shows them all gone. An address or a device that is not there is gone. An address on its
// device that is not ours (see Leftovers) is left alone, and that is an error. It goes on after an error, which says what is left.
func (k *Kernel) RemoveAddresses(at []Address) error {
	k.addrs.Lock()
	defer k.addrs.Unlock()
	const looks = 3
	for look := 0; ; look++ {
		v, err := k.Look()
		if err != nil {
			return err
		}
		ours, left, err := v.standing(at)
		if err != nil {
			return err
		}
		if len(ours) == 0 || look == looks {
			for _, a := range ours {
				left = append(left, fmt.Errorf("remove %s: it came back each of %d times; another program puts it there", a.prefix, looks))
			}
			return several(left)
		}
		if err := k.takeOff(ours); err != nil {
			return several(append(left, err))
		}
	}
}

// RemoveLeftovers takes off what Leftovers returns, and returns what of it was seen
// gone. It goes on after an error, which says what is left.
func (k *Kernel) RemoveLeftovers(match func(netip.Addr) bool) (removed []Found, err error) {
	found, err := k.Leftovers(match)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	var at []Address
	for _, f := range found {
		at = append(at, Address{Link: f.Link, Prefix: f.Prefix})
	}
	err = k.RemoveAddresses(at)
	left, lookErr := k.Leftovers(match)
	if lookErr != nil {
		return nil, errors.Join(err, lookErr)
	}
	still := map[Address]bool{}
	for _, f := range left {
		still[Address{Link: f.Link, Prefix: f.Prefix}] = true
	}
	for i, f := range found {
		if !still[at[i]] {
			removed = append(removed, f)
		}
	}
	return removed, err
}

// standing returns what is there of the addresses and is ours; says of the others on
// their own devices why they stay; and forgets those that are gone.
func (v *View) standing(at []Address) (ours []address, stay []error, err error) {
	indices := map[string]int{}
	for _, a := range at {
		index, known := indices[a.Link]
		if !known {
			if index, err = v.k.index(a.Link); err != nil && !errors.Is(err, ErrNoLink) {
				return nil, nil, err
			}
			indices[a.Link] = index // 0: no device, and so nothing on it
		}
		gone := true
		for _, i := range v.of(a.Prefix.Addr()) {
			switch have := v.addresses[i]; {
			case v.ours(have):
				ours, gone = append(ours, have), false
			case have.index == index:
				stay, gone = append(stay, fmt.Errorf("remove %s from %s: %s", a.Prefix, a.Link, notOurs(have))), false
			}
		}
		if gone {
			delete(v.k.added, a.Prefix.Addr())
		}
	}
	return ours, stay, nil
}

// takeOff deletes the addresses, the last first: the first IPv4 address of a network has the
// kernel make the next one the first in its stead, and all routes anew, for each.
func (k *Kernel) takeOff(off []address) error {
	if len(off) == 0 {
		return nil
	}
	var b batch
	for _, a := range slices.Backward(off) {
		a.delete(&b)
	}
	var errs []error
	for i, err := range k.conn.run(&b, false) {
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) { // or gone by itself meanwhile
			errs = append(errs, fmt.Errorf("delete %s: %w", off[len(off)-1-i].prefix, err))
		}
	}
	return several(errs)
}
