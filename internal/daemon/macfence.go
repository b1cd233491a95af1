package daemon

import (
	"errors"
	"net/netip"

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
	macs  map[netip.Addr]netip.Addr                      // by virtual address, that of its hardware address in the fence
	until map[netip.Addr]map[netip.Addr]election.Instant // by hardware address, the deadlines of the virtual addresses
}

func newMACFence(f agent.Fence, doc func() fsm.Document) *macFence {
	return &macFence{Fence: f, doc: doc, macs: map[netip.Addr]netip.Addr{}, until: map[netip.Addr]map[netip.Addr]election.Instant{}}
}

// Set writes the deadline of the address and that of its hardware address.
func (f *macFence) Set(addr netip.Addr, until election.Instant) error {
	err := f.Fence.Set(addr, until)
	mac, known := f.macs[addr]
	if !known {
		g, ok := groupOf(f.doc(), addr)
		if !ok {
			return err
		}
		mac = fence.OfMAC(kernel.VirtualMAC{Family: vrrpcompat.FamilyOf(addr), VRID: vrrpcompat.VRID(g.VRRP.ID)}.MAC())
		f.macs[addr] = mac
		if f.until[mac] == nil {
			f.until[mac] = map[netip.Addr]election.Instant{}
		}
	}
	f.until[mac][addr] = until
	return errors.Join(err, f.Fence.Set(mac, f.longest(mac)))
}

func (f *macFence) longest(mac netip.Addr) (until election.Instant) {
	for _, u := range f.until[mac] {
		until = max(until, u)
	}
	return until
}

// Delete forgets the address, and with the last one its hardware address.
func (f *macFence) Delete(addr netip.Addr) error {
	err := f.Fence.Delete(addr)
	mac, known := f.macs[addr]
	if !known {
		return err
	}
	delete(f.macs, addr)
	delete(f.until[mac], addr)
	if len(f.until[mac]) > 0 {
		return errors.Join(err, f.Fence.Set(mac, f.longest(mac)))
	}
	delete(f.until, mac)
	return errors.Join(err, f.Fence.Delete(mac))
}
