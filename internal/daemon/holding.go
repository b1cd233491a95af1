package daemon

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/vipctl/fence"
	"github.com/quorate/quorate/vipctl/kernel"
)

// Put has all of the holding on the host: the addresses, all of them or none of the new
// ones, and then what goes with them.
func (h host) Put(what core.Holding, valid time.Duration) error {
	err := h.macs.put(what.At, func(at []kernel.Address) error { return h.AddAddresses(at, valid) })
	if err != nil {
		return err
	}
	h.lan.put(what.At)
	return h.putAlong(what)
}

func (h host) putAlong(what core.Holding) error {
	if len(what.Routes) > 0 {
		if err := h.PutRoutes(what.Routes, h.macs.where(what.At)); err != nil {
			return err
		}
	}
	if len(what.Rules) > 0 {
		return h.PutRules(what.Rules)
	}
	return nil
}

// Take takes all of the holding off, in reverse, and goes on after an error.
func (h host) Take(what core.Holding) error {
	h.lan.took(what.At)
	var errs []error
	if len(what.Rules) > 0 {
		errs = append(errs, h.TakeRules(what.Rules))
	}
	if len(what.Routes) > 0 {
		errs = append(errs, h.TakeRoutes(what.Routes))
	}
	if len(what.At) > 0 {
		errs = append(errs, h.macs.take(what.At))
	}
	return errors.Join(errs...)
}

// Converge puts back what is missing of each holding, and renews what is due, by one look
// at the host.
func (h host) Converge(held []core.Held, vips []netip.Addr, valid func(until election.Instant) time.Duration) core.Converged {
	v, err := h.Look()
	if err != nil {
		return core.Converged{Err: err}
	}
	var out core.Converged
	var all []kernel.Address
	for _, g := range held {
		at := h.macs.where(g.At)
		all = append(all, at...)
		missing, err := missingOf(v, g.Holding, at)
		if err == nil && missing.Empty() && !g.Renew {
			continue
		}
		m := core.Mended{Group: g.Group, Gen: g.Gen, Missing: missing, Renewed: g.Renew, Err: err}
		if err == nil {
			m.Err = h.mend(v, g, missing, valid(g.Until))
		}
		out.Groups = append(out.Groups, m)
	}
	out.Stray, out.Err = h.stray(v, all, vips)
	return out
}

// missingOf is what of the holding is not there, or not as it should be.
func missingOf(v *kernel.View, what core.Holding, at []kernel.Address) (core.Holding, error) {
	d, err := v.Audit(at, what.Routes, what.Rules)
	missing := core.Holding{Routes: d.Routes, Rules: d.Rules}
	if err != nil || len(d.Addresses) == 0 {
		return missing, err
	}
	gone := map[kernel.Address]bool{}
	for _, a := range d.Addresses {
		gone[a] = true
	}
	for i, a := range at {
		if gone[a] {
			missing.At = append(missing.At, what.At[i])
		}
	}
	return missing, nil
}

// mend puts back what is missing, and renews all addresses if that is due. What is lost
// with an address that was missing, such as the routes with its network, is put back too.
func (h host) mend(v *kernel.View, g core.Held, missing core.Holding, valid time.Duration) error {
	put := missing.At
	if g.Renew {
		put = g.At
	}
	if valid <= 0 {
		return errors.New("put back what is missing: the lease is over")
	}
	if len(put) > 0 {
		err := h.macs.put(put, func(at []kernel.Address) error { return h.RenewAddresses(v, at, valid) })
		if err != nil {
			return err
		}
	}
	if missing.Empty() {
		return nil
	}
	return h.putAlong(g.Holding)
}

// stray is what of the addresses stands on this host with our mark, and not where it is held.
func (h host) stray(v *kernel.View, held []kernel.Address, vips []netip.Addr) ([]core.Place, error) {
	found, err := v.Strays(vips, held)
	if err != nil {
		return nil, err
	}
	out := make([]core.Place, 0, len(found))
	for _, f := range found {
		out = append(out, core.Place{Link: f.Link, Prefix: f.Prefix})
	}
	return out, nil
}

// ResetConnections ends the TCP connections with these local addresses.
func (h host) ResetConnections(addrs []netip.Addr) error {
	_, err := h.Kernel.ResetConnections(addrs)
	return err
}

// RemoveLeftovers takes off what an earlier life of the daemon left of the addresses, and
// of the routes and rules.
func (h host) RemoveLeftovers(addrs []netip.Addr, with core.Holding) (removed []netip.Addr, err error) {
	var errs []error
	if len(with.Rules) > 0 {
		errs = append(errs, h.TakeRules(with.Rules))
	}
	if len(with.Routes) > 0 {
		errs = append(errs, h.TakeRoutes(with.Routes))
	}
	found, err := RemoveLeftovers(h.Kernel, addrs)
	for _, f := range found {
		removed = append(removed, f.Prefix.Addr())
	}
	return removed, errors.Join(append(errs, err)...)
}

// Announce sends gratuitous ARP or unsolicited NA, from the hardware address that
// neighbours are to learn.
func (h host) Announce(link string, addrs []netip.Addr) error {
	var errs []error
	for over, those := range h.macs.allOver(link, addrs) {
		errs = append(errs, h.Kernel.Announce(over, those))
	}
	return errors.Join(errs...)
}

// Tell returns what tells each neighbour that is known to have spoken with the addresses.
func (h host) Tell(link string, addrs []netip.Addr) (next func() (more bool, err error)) {
	return h.lan.tell(link, addrs)
}

// deadlines is the fence's map as the agent wants it: the fence itself stops at the first
// address that it cannot write.
type deadlines struct{ *fence.Fence }

// Set writes every address that it can.
func (d deadlines) Set(addrs []netip.Addr, until election.Instant) error {
	return eachIfNotAll(addrs, func(a []netip.Addr) error { return d.Fence.Set(a, until) })
}

// Delete forgets every address that it can.
func (d deadlines) Delete(addrs []netip.Addr) error { return eachIfNotAll(addrs, d.Fence.Delete) }

// eachIfNotAll tries one after the other what could not be done for all at once.
func eachIfNotAll(addrs []netip.Addr, do func([]netip.Addr) error) error {
	err := do(addrs)
	if err == nil || len(addrs) == 1 {
		return err
	}
	var errs []error
	for a := range slices.Chunk(addrs, 1) {
		errs = append(errs, do(a))
	}
	return errors.Join(errs...)
}
