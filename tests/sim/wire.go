package sim

import (
	"fmt"
	"net/netip"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vipctl"
	"github.com/quorate/quorate/vrrpcompat"
)

// passes reports whether the fence lets a frame out that names the address: one
// without an entry always, else before the deadline.
func (h *host) passes(a int) bool {
	e := h.fence[a]
	return h.lifetime || !e.set || e.until != 0 && h.clock().Before(e.until)
}

// sendAnnouncement makes the frames that claim an address and lets out what passes.
func (p *process) sendAnnouncement(addr netip.Addr) error {
	mac := macOf(p.i)
	if addr.Is6() {
		frame, err := vipctl.UnsolicitedNA(addr, mac, false, vipctl.AllNodes)
		return p.send(frame, err)
	}
	for _, form := range []vipctl.Form{vipctl.Request, vipctl.Reply} {
		frame, err := vipctl.GratuitousARP(addr, mac, form)
		if err := p.send(frame, err); err != nil {
			return err
		}
	}
	return nil
}

// send reads the frame as the LAN would, past the fence.
func (p *process) send(frame []byte, err error) error {
	if err != nil {
		return err
	}
	addr, mac, ok := vipctl.ParseConflict(frame)
	if !ok || mac.String() != macOf(p.i).String() {
		return fmt.Errorf("an announcement that says %s is at %s, by n%d: %v", addr, mac, p.i+1, ok)
	}
	if p.passes(p.w.address(addr)) {
		p.w.tellMore("n%d announces %s", p.i+1, addr)
		p.w.heardClaim(p.host, addr, "announces")
	}
	return nil
}

// source is the address from which the host sends adverts.
func (h *host) source(f vrrpcompat.Family) netip.Addr {
	if f == vrrpcompat.IPv6 {
		return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: byte(h.i + 1)})
	}
	return h.node.Address.Addr()
}

// sendAdvert makes a VRRP advert, and reads what of it the fence lets out.
func (p *process) sendAdvert(v fsm.VRRP, addrs []netip.Addr) error {
	family := vrrpcompat.FamilyOf(addrs[0])
	interval, err := vrrpcompat.CentisOf(v.Interval)
	if err != nil {
		return err
	}
	from := p.source(family)
	advert := vrrpcompat.Advert{Version: vrrpcompat.V3, VRID: vrrpcompat.VRID(v.ID), Priority: vrrpcompat.Priority(v.Priority), Interval: interval, Addresses: addrs}
	b, err := advert.AppendTo(nil, from, family.Group(), vrrpcompat.PseudoHeader)
	if err != nil {
		return err
	}
	heard, _, err := vrrpcompat.Decode(b, vrrpcompat.Meta{Source: from, Destination: family.Group(), HopLimit: vrrpcompat.HopLimit}, nil)
	if err != nil {
		return err
	}
	p.tellOthers(v, from, heard)
	if heard.Priority == vrrpcompat.Release {
		return nil // no claim
	}
	for _, a := range heard.Addresses {
		if !p.passes(p.w.address(a)) {
			return nil
		}
	}
	p.w.tellMore("n%d advertises %v", p.i+1, heard.Addresses)
	for _, a := range heard.Addresses {
		p.w.heardClaim(p.host, a, "advertises")
	}
	return nil
}

// heardClaim judges a frame that left the host and says that an address is there.
func (w *World) heardClaim(h *host, addr netip.Addr, verb string) {
	a := w.address(addr)
	if !h.lifetime && !h.fence[a].set {
		w.violated("n%d %s %s and may not answer for it", h.i+1, verb, addr)
	}
	for _, o := range w.hosts {
		if o != h && o.open(a) && !w.mayBoth(a, h, o) {
			w.violated("n%d %s %s, and n%d answers for it", h.i+1, verb, addr, o.i+1)
		}
	}
	w.watch.claims++
}

// checkDeadline: no fence is opened for longer than the lease that was asked for.
func (p *process) checkDeadline(addr netip.Addr, until election.Instant) {
	if until.After(p.clock().Add(p.lease)) {
		p.w.violated("n%d opens the fence of %s for longer than its lease: until %v at %v", p.i+1, addr, until, p.clock())
	}
}

// checkGuard: nothing is announced when the clock, as the agent last read it, showed
// that the deadline is near.
func (p *process) checkGuard(addr netip.Addr) {
	until := p.fence[p.w.address(addr)].until
	if read := p.current.read; !p.lifetime && until != 0 && !read.Before(until.Add(-election.AnnounceGuard)) {
		p.w.violated("n%d announces %s within %v of its deadline", p.i+1, addr, election.AnnounceGuard)
	}
}
