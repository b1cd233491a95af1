package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

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
	AddAddress(link string, p netip.Prefix, valid time.Duration) error
	RemoveAddress(link string, p netip.Prefix) error
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

// AddAddress puts the address on the device, or on the one above it with a virtual MAC
// address, which is set up before.
func (m *vmacs) AddAddress(link string, p netip.Prefix, valid time.Duration) error {
	m.work.Lock()
	defer m.work.Unlock()
	at := placed{link, p.Addr()}
	v, above := m.on[at]
	if !above {
		g, ok := groupOf(m.doc(), p.Addr())
		if !ok {
			return m.kernel.AddAddress(link, p, valid)
		}
		v = m.macOf(g, link, p.Addr())
	}
	err := m.add(v, at, p, valid)
	if errors.Is(err, kernel.ErrNoLink) { // it went with the device below, which may have come back
		m.lost(v)
		err = m.add(v, at, p, valid)
	}
	return err
}

// add notes where the address is before it is there: on an error it may be there all
// the same, and has to be taken off.
func (m *vmacs) add(v kernel.VirtualMAC, at placed, p netip.Prefix, valid time.Duration) error {
	d, err := m.raise(v)
	if err != nil {
		return err
	}
	m.on[at] = v
	return m.kernel.AddAddress(d.name, p, valid)
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

// RemoveAddress takes the address off and returns nil when it was seen gone. A device
// above is set down with its last address: nothing may come from the virtual MAC
// address but from the host that holds the group.
func (m *vmacs) RemoveAddress(link string, p netip.Prefix) error {
	m.work.Lock()
	defer m.work.Unlock()
	at := placed{link, p.Addr()}
	v, above := m.on[at]
	if !above {
		return m.kernel.RemoveAddress(link, p)
	}
	d := m.devices[v]
	if err := m.kernel.RemoveAddress(d.name, p); err != nil {
		return err
	}
	delete(m.on, at)
	if m.carries(v) {
		return nil
	}
	if err := m.kernel.LowerVirtualMAC(v); err != nil {
		m.on[at] = v // to be taken off again, device and all
		return err
	}
	d.up = false
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

// over names the device that an address of the group stands on.
func (m *vmacs) over(link string, addr netip.Addr) string {
	if g, ok := groupOf(m.doc(), addr); ok {
		if name, ok := m.via(routerKey{port{link, vrrpcompat.FamilyOf(addr)}, vrrpcompat.VRID(g.VRRP.ID)}); ok {
			return name
		}
	}
	return link
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
