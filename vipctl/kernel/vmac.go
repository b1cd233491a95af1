package kernel

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vrrpcompat"
)

// A VirtualMAC is a virtual router's own hardware address on a device: a macvlan device above it, on which the virtual
// addresses stand and from which the adverts go. A move then changes no neighbour's ARP entry; only switches learn the other port.
//
// Its life: EnsureVirtualMAC when the group becomes known, then cover it with the fence; at each takeover
// RaiseVirtualMAC before the first address is added, and LowerVirtualMAC after the last one is seen gone; RemoveVirtualMAC at the
// end. It is up only on the Active router: a second host that sent anything from the same hardware address would draw
// the switches' entry to itself.
//
// Adverts of others are to be listened for on the device below, never on this one: the kernel gives a bridge-mode macvlan
// nothing that comes from its own hardware address, and another router of the same virtual router has the same.
type VirtualMAC struct {
	// Tag tells the devices of several daemons in one network namespace apart, as the fence's does: 1 to 6 characters of 0-9 and a-f.
	Tag string
	// Parent is the device below: Ethernet, and not itself a macvlan.
	Parent string
	Family vrrpcompat.Family
	VRID   vrrpcompat.VRID
}

// String says which one it is.
func (v VirtualMAC) String() string {
	return fmt.Sprintf("virtual MAC of vrid %d, %v, on %s", v.VRID, v.Family, v.Parent)
}

// MAC is the hardware address, 00-00-5E-00-01-{VRID} for IPv4 and 00-00-5E-00-02-{VRID} for IPv6 (RFC 9568, section 7.3).
func (v VirtualMAC) MAC() net.HardwareAddr {
	family := byte(1)
	if v.Family == vrrpcompat.IPv6 {
		family = 2
	}
	return net.HardwareAddr{0, 0, 0x5e, 0, family, byte(v.VRID)}
}

func (v VirtualMAC) check() error {
	ok := len(v.Tag) >= 1 && len(v.Tag) <= 6 && strings.Trim(v.Tag, "0123456789abcdef") == ""
	switch {
	case !ok:
		return fmt.Errorf("tag %q: want 1 to 6 characters of 0-9 and a-f", v.Tag)
	case v.Family != vrrpcompat.IPv4 && v.Family != vrrpcompat.IPv6:
		return fmt.Errorf("%v is neither %v nor %v", v.Family, vrrpcompat.IPv4, vrrpcompat.IPv6)
	case v.VRID == 0:
		return errors.New("vrid is 0, must be 1 to 255")
	}
	return nil
}

// device is the macvlan's name: family, VRID, and the parent's number, which unlike its name is short and has no sign that means
// something to sysctl. At most 14 of the 15 characters that a name can have.
func (v VirtualMAC) device(parent int) string {
	family := "4"
	if v.Family == vrrpcompat.IPv6 {
		family = "6"
	}
	return "qv" + family + "-" + strconv.Itoa(int(v.VRID)) + "-" + strconv.FormatInt(int64(parent), 36)
}

var virtualMACName = regexp.MustCompile(`^qv[46]-[0-9]+-[0-9a-z]+$`)

// IsVirtualMACName reports whether a device has a name such as EnsureVirtualMAC gives.
func IsVirtualMACName(name string) bool { return virtualMACName.MatchString(name) }

// EnsureVirtualMAC makes the device, down, or finds it as an earlier life left it, up or down; and returns it. For IPv4 it
// also changes two settings of the parent, which RemoveVirtualMAC sets back: from then on the parent answers ARP for its own addresses
// only (arp_ignore), and asks by them only (arp_announce); else neighbours would learn the virtual address at the
// parent's hardware address. What was there before is kept in the device's alias, where a later life finds it.
//
// An error wraps ErrNoLink when there is no such parent. Others are for an operator: a name that is taken, a parent that cannot
// carry a macvlan, settings that cannot be written or that keep virtual addresses from answering.
func (k *Kernel) EnsureVirtualMAC(v VirtualMAC) (LinkInfo, error) {
	k.vmacs.Lock()
	defer k.vmacs.Unlock()
	l, err := k.ensureVirtualMAC(v)
	if err != nil {
		return LinkInfo{}, fmt.Errorf("make the %v: %w", v, err)
	}
	return l, nil
}

func (k *Kernel) ensureVirtualMAC(v VirtualMAC) (LinkInfo, error) {
	if err := v.check(); err != nil {
		return LinkInfo{}, err
	}
	parent, err := k.carrier(v.Parent)
	if err != nil {
		return LinkInfo{}, err
	}
	if err := k.refuseSilence(v, parent); err != nil {
		return LinkInfo{}, err
	}
	all, err := k.virtualMACs()
	if err != nil {
		return LinkInfo{}, err
	}
	name := v.device(parent.Index)
	m, err := k.found(v, parent, name)
	if err != nil {
		return LinkInfo{}, err
	}
	if m == nil {
		if m, err = k.makeVirtualMAC(v, parent, name, all); err != nil {
			return LinkInfo{}, err
		}
	}
	if err := k.tune(v, *m); err != nil {
		return LinkInfo{}, err
	}
	return m.LinkInfo, nil
}

// carrier returns the parent, if it can carry a virtual MAC.
func (k *Kernel) carrier(name string) (LinkInfo, error) {
	l, err := k.nl.LinkByName(name)
	if notFound := (netlink.LinkNotFoundError{}); errors.As(err, &notFound) || errors.Is(err, unix.ENODEV) {
		return LinkInfo{}, fmt.Errorf("device %s: %w", name, ErrNoLink)
	}
	if err != nil {
		return LinkInfo{}, fmt.Errorf("look up device %s: %w", name, err)
	}
	parent := infoOf(l.Attrs())
	if l.Type() == "macvlan" || l.Type() == "macvtap" {
		return LinkInfo{}, fmt.Errorf("%s is a %s itself; use the device below it", name, l.Type())
	}
	if !parent.announces() {
		return LinkInfo{}, fmt.Errorf("%s is no Ethernet device: it has no hardware address of 6 bytes", name)
	}
	return parent, nil
}

// found returns the device of that name if it is what makeVirtualMAC would make, nil if there is none. One of ours that
// is not as it should be is removed.
func (k *Kernel) found(v VirtualMAC, parent LinkInfo, name string) (*virtualMACLink, error) {
	l, err := k.nl.LinkByName(name)
	if notFound := (netlink.LinkNotFoundError{}); errors.As(err, &notFound) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up device %s: %w", name, err)
	}
	m, ok := virtualMACOf(l)
	switch macvlan, isMacvlan := l.(*netlink.Macvlan); {
	case !ok || !isMacvlan || m.Tag != v.Tag:
		return nil, fmt.Errorf("there is a device %s already that is not this cluster's (alias %q); remove it: ip link del %s",
			name, l.Attrs().Alias, name)
	case m.VirtualOn == parent.Index && macvlan.Mode == netlink.MACVLAN_MODE_BRIDGE && slices.Equal(m.LinkInfo.MAC, v.MAC()):
		return &m, nil
	}
	if err := k.nl.LinkDel(l); err != nil {
		return nil, fmt.Errorf("remove %s, which is not as it should be: %w", name, err)
	}
	return nil, nil
}

// makeVirtualMAC makes the device, down. Bridge mode, so that what another router sends from the same hardware address reaches the parent
// (in private mode the kernel gives it to this device alone), and so that containers with macvlans on the same
// parent reach the virtual addresses.
func (k *Kernel) makeVirtualMAC(v VirtualMAC, parent LinkInfo, name string, all []virtualMACLink) (*virtualMACLink, error) {
	before := settings{}
	if v.Family == vrrpcompat.IPv4 {
		var err error
		if before, err = k.foundSettings(parent, all); err != nil {
			return nil, err
		}
	}
	macvlan := &netlink.Macvlan{
		LinkAttrs: netlink.LinkAttrs{Name: name, ParentIndex: parent.Index, HardwareAddr: v.MAC()},
		Mode:      netlink.MACVLAN_MODE_BRIDGE,
	}
	switch err := k.nl.LinkAdd(macvlan); {
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("%s cannot carry a macvlan: it belongs to a bridge, a bond or the like, or another device has its hardware address %v; "+
			"use the bridge or bond: %w", v.Parent, v.MAC(), err)
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("another macvlan on %s has the hardware address %v: does another VRRP daemon use the VRID?: %w", v.Parent, v.MAC(), err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return nil, fmt.Errorf("this kernel has no macvlan devices (CONFIG_MACVLAN): use vmac: false: %w", err)
	case err != nil:
		return nil, fmt.Errorf("add macvlan %s: %w", name, err)
	}
	l, err := k.nl.LinkByName(name)
	if err == nil {
		err = k.nl.LinkSetAlias(l, alias(v, before))
	}
	if err == nil {
		l, err = k.nl.LinkByName(name)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mark %s as ours: %w", name, err), k.nl.LinkDel(macvlan))
	}
	m, _ := virtualMACOf(l)
	return &m, nil
}

// RaiseVirtualMAC sets the device up. To be called only by a node that may hold the group now, with its fence laid. It
// sees to the device's settings first, which another program may have changed since (udev does so after a device is made).
func (k *Kernel) RaiseVirtualMAC(v VirtualMAC) error {
	k.vmacs.Lock()
	defer k.vmacs.Unlock()
	if err := k.raiseVirtualMAC(v); err != nil {
		return fmt.Errorf("raise the %v: %w", v, err)
	}
	return nil
}

func (k *Kernel) raiseVirtualMAC(v VirtualMAC) error {
	if err := v.check(); err != nil {
		return err
	}
	parent, err := k.Link(v.Parent)
	if err != nil {
		return err
	}
	name := v.device(parent.Index)
	m, err := k.found(v, parent, name)
	if err != nil {
		return err
	}
	if m == nil {
		return fmt.Errorf("device %s: %w", name, ErrNoLink)
	}
	if err := k.tune(v, *m); err != nil {
		return err
	}
	if err := k.nl.LinkSetUp(linkOf(m.LinkInfo)); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// LowerVirtualMAC sets the device down, so that nothing is sent or received by its hardware address. One that is not there
// is down.
func (k *Kernel) LowerVirtualMAC(v VirtualMAC) error {
	k.vmacs.Lock()
	defer k.vmacs.Unlock()
	parent, err := k.Link(v.Parent)
	if err == nil {
		err = k.lower(v.device(parent.Index))
	}
	if err != nil && !errors.Is(err, ErrNoLink) {
		return fmt.Errorf("lower the %v: %w", v, err)
	}
	return nil
}

func (k *Kernel) lower(name string) error {
	l, err := k.Link(name)
	if err != nil {
		return err
	}
	if err := k.nl.LinkSetDown(linkOf(l)); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("set %s down: %w", name, err)
	}
	return nil
}

// RemoveVirtualMAC removes the device with all that stands on it. When it was the last IPv4 one on its parent, the
// parent's settings are as they were found before the first, unless somebody has changed them meanwhile. One that
// is not there is gone.
func (k *Kernel) RemoveVirtualMAC(v VirtualMAC) error {
	k.vmacs.Lock()
	defer k.vmacs.Unlock()
	parent, err := k.Link(v.Parent)
	if errors.Is(err, ErrNoLink) {
		return nil // and the device went with it
	}
	if err == nil {
		err = k.removeVirtualMAC(v.Tag, v.device(parent.Index))
	}
	if err != nil {
		return fmt.Errorf("remove the %v: %w", v, err)
	}
	return nil
}

func (k *Kernel) removeVirtualMAC(tag, name string) error {
	all, err := k.virtualMACs()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(m virtualMACLink) bool { return m.Tag == tag && m.Name == name })
	if i < 0 {
		return nil
	}
	m := all[i]
	// Before the device goes, for it holds the record; and with the device down, so that nobody asks meanwhile.
	if err := k.lower(name); err != nil && !errors.Is(err, ErrNoLink) {
		return err
	}
	last := !slices.ContainsFunc(all, func(o virtualMACLink) bool {
		return o.Index != m.Index && o.VirtualOn == m.VirtualOn && o.Family == vrrpcompat.IPv4
	})
	if last && m.Family == vrrpcompat.IPv4 {
		if err := k.restore(m); err != nil {
			return err
		}
	}
	if err := k.nl.LinkDel(linkOf(m.LinkInfo)); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// LeftoverVirtualMACs returns the virtual MACs with that tag that are on this host, such as those of an earlier life. Their
// Parent is what it is called now.
func (k *Kernel) LeftoverVirtualMACs(tag string) ([]VirtualMAC, error) {
	k.vmacs.Lock()
	defer k.vmacs.Unlock()
	all, err := k.virtualMACs()
	if err != nil {
		return nil, fmt.Errorf("look for virtual MACs: %w", err)
	}
	var ours []VirtualMAC
	for _, m := range all {
		if m.Tag == tag {
			ours = append(ours, m.VirtualMAC)
		}
	}
	return ours, nil
}

// A virtualMACLink is a virtual MAC as it is on this host.
type virtualMACLink struct {
	VirtualMAC
	LinkInfo
	before settings
}

// virtualMACs returns those of every tag.
func (k *Kernel) virtualMACs() ([]virtualMACLink, error) {
	list, err := dump("devices", k.nl.LinkList)
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range list {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var all []virtualMACLink
	for _, l := range list {
		if m, ok := virtualMACOf(l); ok {
			m.Parent = names[m.VirtualOn]
			all = append(all, m)
		}
	}
	return all, nil
}

func linkOf(l LinkInfo) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: l.Name, Index: l.Index}}
}

// mark begins the alias of each virtual MAC device. What follows is read again by later versions: keep it.
const mark = "quorate vmac "

func alias(v VirtualMAC, before settings) string {
	return fmt.Sprintf("%stag=%s family=%d vrid=%d arp_ignore=%s arp_announce=%s", mark, v.Tag, v.Family, v.VRID,
		orNone(before.arpIgnore), orNone(before.arpAnnounce))
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// virtualMACOf reads a device's alias. Its Parent's name is left empty.
func virtualMACOf(l netlink.Link) (m virtualMACLink, ok bool) {
	a := l.Attrs()
	rest, ok := strings.CutPrefix(a.Alias, mark)
	if !ok || l.Type() != "macvlan" {
		return m, false
	}
	m.LinkInfo = infoOf(a)
	for _, field := range strings.Fields(rest) {
		key, value, _ := strings.Cut(field, "=")
		n, err := strconv.ParseUint(value, 10, 8)
		switch key {
		case "tag":
			m.Tag = value
		case "family":
			m.Family = vrrpcompat.Family(n)
		case "vrid":
			m.VRID = vrrpcompat.VRID(n)
		case "arp_ignore":
			if err == nil {
				m.before.arpIgnore = value
			}
		case "arp_announce":
			if err == nil {
				m.before.arpAnnounce = value
			}
		}
	}
	return m, m.check() == nil
}
