package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/vipctl/kernel"
	"github.com/quorate/quorate/vrrpcompat"
)

// A macKernel is what vmacs asks of the kernel.
type macKernel interface {
	EnsureVirtualMAC(kernel.VirtualMAC) (kernel.LinkInfo, error)
	RaiseVirtualMAC(kernel.VirtualMAC) error
	LowerVirtualMAC(kernel.VirtualMAC) error
	RemoveVirtualMAC(kernel.VirtualMAC) error
	RemoveAddresses(at []kernel.Address) error
}

// A vmacs puts the addresses of groups with a virtual MAC address on a device of their
// own, above the one that the agent names, and keeps that device: there when the
// group is known here, up while an address is on it, and gone with the group. Its
// methods may be called from any goroutine.
type vmacs struct {
	kernel macKernel
	tag    string
	doc    func() fsm.Document
	// cover puts the fence on every device of the host. It comes between the making of a
	// device and anything that the device could say.
	cover func() error
	log   *slog.Logger
	index macIndex

	work    sync.Mutex // one change of the host at a time; guards what follows
	devices map[kernel.VirtualMAC]*macDevice
	wanted  map[string][]kernel.VirtualMAC // by group
	on      map[placed]kernel.VirtualMAC   // where addresses were put

	mu    sync.Mutex                   // guards what follows; never held while work is done
	names map[kernel.VirtualMAC]string // of the devices that are up
	below map[string]string            // by the device's name, that of the one below
}

// A placed is an address on the device that the agent names.
type placed struct {
	link string
	addr netip.Addr
}

// A macDevice is the device of one virtual MAC address.
type macDevice struct {
	name string // empty: it has to be made
	up   bool
}

func newVMACs(k macKernel, tag string, doc func() fsm.Document, cover func() error, log *slog.Logger) *vmacs {
	return &vmacs{
		kernel: k, tag: tag, doc: doc, cover: cover, log: log,
		devices: map[kernel.VirtualMAC]*macDevice{}, wanted: map[string][]kernel.VirtualMAC{}, on: map[placed]kernel.VirtualMAC{},
		names: map[kernel.VirtualMAC]string{}, below: map[string]string{},
	}
}

// groupOf returns the group with a virtual MAC address that the document has the
// address in.
func groupOf(d fsm.Document, addr netip.Addr) (fsm.Group, bool) {
	for _, g := range d.Groups {
		if g.VMAC && slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Addr() == addr }) {
			return g, true
		}
	}
	return fsm.Group{}, false
}

// A macIndex finds the groups with a virtual MAC address by their addresses. Documents
// are replaced as a whole. Its methods may be called from any goroutine.
type macIndex struct {
	mu     sync.Mutex
	groups []fsm.Group // of the document that it was made for
	byAddr map[netip.Addr]fsm.Group
}

// of returns the groups of the document by address. It is not to be changed.
func (x *macIndex) of(d fsm.Document) map[netip.Addr]fsm.Group {
	x.mu.Lock()
	defer x.mu.Unlock()
	same := len(d.Groups) == len(x.groups) && (len(d.Groups) == 0 || &d.Groups[0] == &x.groups[0])
	if same && x.byAddr != nil {
		return x.byAddr
	}
	x.groups, x.byAddr = d.Groups, map[netip.Addr]fsm.Group{}
	for _, g := range d.Groups {
		if g.VMAC {
			for _, a := range g.Addrs() {
				x.byAddr[a] = g
			}
		}
	}
	return x.byAddr
}

func (m *vmacs) macOf(g fsm.Group, link string, addr netip.Addr) kernel.VirtualMAC {
	return kernel.VirtualMAC{Tag: m.tag, Parent: link, Family: vrrpcompat.FamilyOf(addr), VRID: vrrpcompat.VRID(g.VRRP.ID)}
}

// serve has the devices of the group ready, down, so that a takeover need not make
// them; and removes those that it does not need any more. No places: the group is gone.
func (m *vmacs) serve(g fsm.Group, at []core.Place) error {
	m.work.Lock()
	defer m.work.Unlock()
	var want []kernel.VirtualMAC
	for _, p := range at {
		if v := m.macOf(g, p.Link, p.Prefix.Addr()); g.VMAC && !slices.Contains(want, v) {
			want = append(want, v)
		}
	}
	old := m.wanted[g.Name]
	m.wanted[g.Name] = want
	if len(want) == 0 {
		delete(m.wanted, g.Name)
	}
	var errs []error
	for _, v := range want {
		errs = append(errs, m.ready(v))
	}
	for _, v := range old {
		m.drop(v)
	}
	return errors.Join(errs...)
}

// ready makes the device, down, with the fence on it before anything else.
func (m *vmacs) ready(v kernel.VirtualMAC) error {
	d := m.devices[v]
	if d == nil {
		d = &macDevice{}
		m.devices[v] = d
	}
	if d.name != "" {
		return nil
	}
	l, err := m.kernel.EnsureVirtualMAC(v)
	if err != nil {
		return err
	}
	if err := m.cover(); err != nil {
		return fmt.Errorf("put the fence on the %v: %w", v, err)
	}
	d.name, d.up = l.Name, false
	m.mu.Lock()
	defer m.mu.Unlock()
	m.below[l.Name] = v.Parent
	return nil
}

// raise makes the device if need be, and sets it up: a group is about to be held.
func (m *vmacs) raise(v kernel.VirtualMAC) (*macDevice, error) {
	if err := m.ready(v); err != nil {
		return nil, err
	}
	d := m.devices[v]
	if d.up {
		return d, nil
	}
	if err := m.kernel.RaiseVirtualMAC(v); err != nil {
		return nil, err
	}
	d.up = true
	m.mu.Lock()
	defer m.mu.Unlock()
	m.names[v] = d.name
	return d, nil
}

// lowered: nothing can be sent by the device any more.
func (m *vmacs) lowered(v kernel.VirtualMAC) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.names, v)
}

// carries reports whether an address is on the device, or may be.
func (m *vmacs) carries(v kernel.VirtualMAC) bool {
	for _, on := range m.on {
		if on == v {
			return true
		}
	}
	return false
}

// drop removes a device that no group wants and no address stands on.
func (m *vmacs) drop(v kernel.VirtualMAC) {
	d := m.devices[v]
	if d == nil || m.carries(v) {
		return
	}
	for _, want := range m.wanted {
		if slices.Contains(want, v) {
			return
		}
	}
	if err := m.kernel.RemoveVirtualMAC(v); err != nil {
		m.log.Warn("cannot remove the device of a virtual MAC address; it is down", "device", d.name, "error", err)
		return
	}
	delete(m.devices, v)
	m.lowered(v)
}

// put has add put the addresses on their devices, or on those above with a virtual MAC
// address, which are set up before.
func (m *vmacs) put(at []core.Place, add func([]kernel.Address) error) error {
	m.work.Lock()
	defer m.work.Unlock()
	real, above, err := m.raised(at)
	if err == nil {
		err = add(real)
	}
	if errors.Is(err, kernel.ErrNoLink) && len(above) > 0 { // one went with the device below, which may have come back
		for _, v := range above {
			m.lost(v)
		}
		if real, _, err = m.raised(at); err == nil {
			err = add(real)
		}
	}
	return err
}

// raised says where the addresses are to stand, on devices that are up, and which of those
// are above others. It notes where an address is before it is there: on an error it may
// be there all the same, and has to be taken off.
func (m *vmacs) raised(at []core.Place) (real []kernel.Address, above []kernel.VirtualMAC, err error) {
	groups := m.index.of(m.doc())
	for _, p := range at {
		a := kernel.Address{Link: p.Link, Prefix: p.Prefix, Spec: p.Spec}
		key := placed{p.Link, p.Prefix.Addr()}
		v, is := m.on[key]
		if !is {
			g, wants := groups[p.Prefix.Addr()]
			if !wants {
				real = append(real, a)
				continue
			}
			v = m.macOf(g, p.Link, p.Prefix.Addr())
		}
		if !slices.Contains(above, v) {
			above = append(above, v)
		}
		d, err := m.raise(v)
		if err != nil {
			return nil, above, err
		}
		m.on[key], a.Link = v, d.name
		real = append(real, a)
	}
	return real, above, nil
}

// where says where the addresses stand, as far as they do.
func (m *vmacs) where(at []core.Place) []kernel.Address {
	m.work.Lock()
	defer m.work.Unlock()
	out := make([]kernel.Address, 0, len(at))
	for _, p := range at {
		a := kernel.Address{Link: p.Link, Prefix: p.Prefix, Spec: p.Spec}
		if v, above := m.on[placed{p.Link, p.Prefix.Addr()}]; above {
			a.Link = m.devices[v].name
		}
		out = append(out, a)
	}
	return out
}

// lost forgets a device that is not there any more, with all that stood on it.
func (m *vmacs) lost(v kernel.VirtualMAC) {
	if d := m.devices[v]; d != nil {
		*d = macDevice{}
		m.lowered(v)
	}
	for at, on := range m.on {
		if on == v {
			delete(m.on, at)
		}
	}
}

// take takes the addresses off and returns nil when they were seen gone. A device above
// is set down with its last address: nothing may come from the virtual MAC address but
// from the host that holds the group.
func (m *vmacs) take(at []core.Place) error {
	real := m.where(at)
	m.work.Lock()
	defer m.work.Unlock()
	if err := m.kernel.RemoveAddresses(real); err != nil {
		return err
	}
	var errs []error
	for _, p := range at {
		key := placed{p.Link, p.Prefix.Addr()}
		v, above := m.on[key]
		if !above {
			continue
		}
		delete(m.on, key)
		if !m.carries(v) {
			errs = append(errs, m.lower(v, key))
		}
	}
	return errors.Join(errs...)
}

// lower sets a device down whose last address is gone.
func (m *vmacs) lower(v kernel.VirtualMAC, last placed) error {
	if err := m.kernel.LowerVirtualMAC(v); err != nil {
		m.on[last] = v // to be taken off again, device and all
		return err
	}
	m.devices[v].up = false
	m.lowered(v)
	m.drop(v)
	return nil
}

// via names the device that carries the adverts of a virtual router, while it is up.
// The first advert of a takeover may come before that, and the release after it: they go
// out by the device below, and switches learn nothing from them.
func (m *vmacs) via(key routerKey) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name, ok := m.names[kernel.VirtualMAC{Tag: m.tag, Parent: key.link, Family: key.family, VRID: key.vrid}]
	return name, ok
}

// allOver sorts the addresses by the device that they stand on.
func (m *vmacs) allOver(link string, addrs []netip.Addr) map[string][]netip.Addr {
	groups := m.index.of(m.doc())
	out := map[string][]netip.Addr{}
	for _, addr := range addrs {
		over := link
		if g, ok := groups[addr]; ok {
			if name, up := m.via(routerKey{port{link, vrrpcompat.FamilyOf(addr)}, vrrpcompat.VRID(g.VRRP.ID)}); up {
				over = name
			}
		}
		out[over] = append(out[over], addr)
	}
	return out
}

// parent returns the device below, if the name is that of a device of ours.
func (m *vmacs) parent(name string) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	below, ok := m.below[name]
	return below, ok
}

// RemoveVirtualMACs removes the devices that an earlier life of the daemon left, with
// all that stands on them.
func RemoveVirtualMACs(k *kernel.Kernel, tag string) error {
	left, err := k.LeftoverVirtualMACs(tag)
	errs := []error{err}
	for _, v := range left {
		errs = append(errs, k.RemoveVirtualMAC(v))
	}
	return errors.Join(errs...)
}
