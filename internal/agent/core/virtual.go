package core

import (
	"fmt"
	"net/netip"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

// A Virtual is one virtual router of a group on this host, as VRRP has it: one for
// each device and address family.
type Virtual struct {
	// Link is the device on which its adverts are heard, and which carries them: with a
	// virtual MAC address the one below.
	Link string
	vrrpcompat.Virtual
}

// Virtuals returns the virtual routers of a group whose addresses are on these
// devices. Routers and addresses are in the order of the document.
// None if the group has no VRRP id.
func Virtuals(v fsm.VRRP, at []Place) ([]Virtual, error) {
	if v.ID == 0 {
		return nil, nil
	}
	var out []Virtual
next:
	for _, p := range at {
		addr := p.Prefix.Addr()
		for i := range out {
			if out[i].Link == p.Link && out[i].Family == vrrpcompat.FamilyOf(addr) {
				out[i].Addresses = append(out[i].Addresses, addr)
				continue next
			}
		}
		r, err := newVirtual(v, addr)
		if err != nil {
			return nil, err
		}
		out = append(out, Virtual{Link: p.Link, Virtual: r})
	}
	for i := range out {
		if err := out[i].Validate(); err != nil {
			return nil, fmt.Errorf("device %s: %w", out[i].Link, err)
		}
	}
	return out, nil
}

// newVirtual is the virtual router of the family of its first address. Version 2
// and its password are for IPv4 only.
func newVirtual(v fsm.VRRP, addr netip.Addr) (vrrpcompat.Virtual, error) {
	r := vrrpcompat.Virtual{
		VRID: vrrpcompat.VRID(v.ID), Family: vrrpcompat.FamilyOf(addr), Version: vrrpcompat.Version(v.Version),
		AlsoV2: v.AlsoV2 && addr.Is4(), Addresses: []netip.Addr{addr},
	}
	var err error
	if r.Interval, err = vrrpcompat.IntervalOf(r.Version, v.Interval); err != nil {
		return r, fmt.Errorf("virtual router %d: %w", v.ID, err)
	}
	if v.Password != "" && addr.Is4() {
		if r.Auth, err = vrrpcompat.SimplePassword(v.Password); err != nil {
			return r, fmt.Errorf("virtual router %d: %w", v.ID, err)
		}
	}
	return r, nil
}
