package daemon

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent"
	"github.com/quorate/quorate/vipctl/fence"
	"github.com/quorate/quorate/vipctl/kernel"
	"github.com/quorate/quorate/vrrpcompat"
)

// A macFence guards the virtual MAC address of a group with the group's addresses.
// It belongs to the agent's goroutine, as every agent.Fence.
//
// Two groups on two links may have one hardware address between them, for it is made
// of the VRRP id. It is then open as long as the longer of the two; their addresses
// are guarded each by its own deadline all the same.
type macFence struct {
	agent.Fence
	doc   func() fsm.Document
	index macIndex
	macs  map[netip.Addr]netip.Addr                      // by virtual address, that of its hardware address in the fence
	until map[netip.Addr]map[netip.Addr]election.Instant // by hardware address, the deadlines of the virtual addresses
}

func newMACFence(f agent.Fence, doc func() fsm.Document) *macFence {
	return &macFence{Fence: f, doc: doc, macs: map[netip.Addr]netip.Addr{}, until: map[netip.Addr]map[netip.Addr]election.Instant{}}
}

// Set writes the deadline of the addresses and that of their hardware addresses.
func (f *macFence) Set(addrs []netip.Addr, until election.Instant) error {
	errs := []error{f.Fence.Set(addrs, until)}
	var macs []netip.Addr
	groups := f.index.of(f.doc())
	for _, addr := range addrs {
		mac, ok := f.macOf(addr, groups)
		if !ok {
			continue
		}
		f.until[mac][addr] = until
		if !slices.Contains(macs, mac) {
			macs = append(macs, mac)
		}
	}
	for _, mac := range macs {
		errs = append(errs, f.Fence.Set([]netip.Addr{mac}, f.longest(mac)))
	}
	return errors.Join(errs...)
}

// macOf returns the hardware address of the virtual address, which it gets to know from
// the document's groups.
func (f *macFence) macOf(addr netip.Addr, groups map[netip.Addr]fsm.Group) (mac netip.Addr, ok bool) {
	if mac, ok = f.macs[addr]; ok {
		return mac, true
	}
	g, ok := groups[addr]
	if !ok {
		return mac, false
	}
	mac = fence.OfMAC(kernel.VirtualMAC{Family: vrrpcompat.FamilyOf(addr), VRID: vrrpcompat.VRID(g.VRRP.ID)}.MAC())
	f.macs[addr] = mac
	if f.until[mac] == nil {
		f.until[mac] = map[netip.Addr]election.Instant{}
	}
	return mac, true
}

func (f *macFence) longest(mac netip.Addr) (until election.Instant) {
	for _, u := range f.until[mac] {
		until = max(until, u)
	}
	return until
}

// Delete forgets the addresses, and with the last one its hardware address.
func (f *macFence) Delete(addrs []netip.Addr) error {
	errs := []error{f.Fence.Delete(addrs)}
	var macs []netip.Addr
	for _, addr := range addrs {
		mac, known := f.macs[addr]
		if !known {
			continue
		}
		delete(f.macs, addr)
		delete(f.until[mac], addr)
		if !slices.Contains(macs, mac) {
			macs = append(macs, mac)
		}
	}
	for _, mac := range macs {
		if len(f.until[mac]) > 0 {
			errs = append(errs, f.Fence.Set([]netip.Addr{mac}, f.longest(mac)))
			continue
		}
		delete(f.until, mac)
		errs = append(errs, f.Fence.Delete([]netip.Addr{mac}))
	}
	return errors.Join(errs...)
}
