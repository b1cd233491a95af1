package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm"
)

// A View is what stood on the host at one look: all addresses, and of the routes and
// rules, which are looked for when they are first asked for, those with our mark. One
// look serves all groups; it is for one goroutine at a time, and for a second or so.
type View struct {
	k         *Kernel
	addresses []address
	marks     bool                 // the kernel tells who has put an address there
	where     map[netip.Addr][]int // in addresses
	devices   map[string]*device   // by name, those that were asked for
	routes    []route
	rules     []rule
	routed    bool // routes and rules have been looked for
}

// Look takes one look at the host's addresses.
func (k *Kernel) Look() (*View, error) {
	all, err := k.addresses(0)
	if err != nil {
		return nil, err
	}
	return &View{k: k, addresses: all, marks: k.marks(all)}, nil
}

// of returns how an address stands, on any device and of any prefix length.
func (v *View) of(addr netip.Addr) []int {
	if v.where == nil {
		v.where = make(map[netip.Addr][]int, len(v.addresses))
		for i, a := range v.addresses {
			v.where[a.prefix.Addr()] = append(v.where[a.prefix.Addr()], i)
		}
	}
	return v.where[addr]
}

// on returns how an address stands on a device, of any prefix length.
func (v *View) on(index int, addr netip.Addr) (there []address) {
	for _, i := range v.of(addr) {
		if v.addresses[i].index == index {
			there = append(there, v.addresses[i])
		}
	}
	return there
}

// findRoutes looks for our routes and rules once.
func (v *View) findRoutes() (err error) {
	if v.routed {
		return nil
	}
	if v.routes, err = v.k.routes(); err != nil {
		return err
	}
	if v.rules, err = v.k.rules(); err != nil {
		return err
	}
	v.routed = true
	return nil
}

// A device is one that addresses of ours stand on, or are to.
type device struct {
	LinkInfo
	// networks are the addresses that tell whether the host has a route for a network already: those of the device, and
	// below a virtual MAC also those of the parent. Link-local ones are left out there: their route counts for one device only.
	networks []address
	ipv4     map[netip.Prefix]bool // networks of which an address is there, of anybody's
}

// device looks a device up once. To be called with k.addrs locked.
func (v *View) device(name string) (*device, error) {
	if d := v.devices[name]; d != nil {
		return d, nil
	}
	l, err := v.k.Link(name)
	if err != nil {
		return nil, err
	}
	d := &device{LinkInfo: l, ipv4: map[netip.Prefix]bool{}}
	for _, a := range v.addresses {
		if a.index == l.Index && a.prefix.Addr().Is4() {
			d.ipv4[a.prefix.Masked()] = true
		}
		below := l.VirtualOn != 0 && a.index == l.VirtualOn && !a.prefix.Addr().IsLinkLocalUnicast()
		if (a.index == l.Index || below) && !v.virtual(a) {
			d.networks = append(d.networks, a)
		}
	}
	if v.devices == nil {
		v.devices = map[string]*device{}
	}
	v.devices[name] = d
	return d, nil
}

// routeless reports whether the address is to come without a route for its network:
// because that was asked for, because it is a network of its own, or because the host has a route already.
func (v *View) routeless(a Address, d *device) bool {
	return a.Spec.NoPrefixRoute || a.Prefix.IsSingleIP() ||
		slices.ContainsFunc(d.networks, func(n address) bool { return v.hosts(n, a.Prefix.Addr()) })
}

// asWanted reports whether the address stands on the device as it is wanted. An IPv6 address has the scope that its
// number says. One with a route of its own keeps it when the host gets another; one without is
// not as it should be when the host has lost its own address there, and the route with it.
func (v *View) asWanted(have address, a Address, d *device) bool {
	if have.prefix != a.Prefix || a.Prefix.Addr().Is4() &&
		(have.scope != scopeOf(a.Spec.Scope) || a.Spec.Label != "" && have.label != a.Spec.Label) {
		return false
	}
	if have.flags&unix.IFA_F_NOPREFIXROUTE == 0 {
		return !a.Spec.NoPrefixRoute
	}
	return v.routeless(a, d)
}

// A Difference is what is missing, or there otherwise than it should be.
type Difference struct {
	Addresses []Address
	Routes    []fsm.Route
	Rules     []fsm.Rule
}

// Empty reports whether everything is as it should be.
func (d Difference) Empty() bool {
	return len(d.Addresses) == 0 && len(d.Routes) == 0 && len(d.Rules) == 0
}

// Audit compares what should be with what is. What it returns can be handed to
// AddAddresses, PutRoutes and PutRules as it is. A device that is not there lacks
// everything. Lifetimes are not looked at: renewing is the caller's.
func (v *View) Audit(at []Address, routes []fsm.Route, rules []fsm.Rule) (Difference, error) {
	v.k.addrs.Lock()
	defer v.k.addrs.Unlock()
	var d Difference
	for _, a := range at {
		ok, err := v.stands(a)
		if err != nil && !errors.Is(err, ErrNoLink) {
			return Difference{}, err
		}
		if !ok {
			d.Addresses = append(d.Addresses, a)
		}
	}
	if len(routes) == 0 && len(rules) == 0 {
		return d, nil
	}
	if err := v.findRoutes(); err != nil {
		return Difference{}, err
	}
	for _, r := range routes {
		if !v.hasRoute(r, at) {
			d.Routes = append(d.Routes, r)
		}
	}
	for _, r := range rules {
		if len(v.lacks(r)) > 0 {
			d.Rules = append(d.Rules, r)
		}
	}
	return d, nil
}

// stands reports whether the address is there as it should be, and nothing else of the same number beside it.
func (v *View) stands(a Address) (bool, error) {
	d, err := v.device(a.Link)
	if err != nil {
		return false, err
	}
	there := v.on(d.Index, a.Prefix.Addr())
	return len(there) == 1 && v.ours(there[0]) && v.asWanted(there[0], a, d), nil
}

// index returns the number of a device; the error wraps ErrNoLink when there is none.
func (k *Kernel) index(link string) (int, error) {
	ifr, err := unix.NewIfreq(link)
	if err != nil {
		return 0, fmt.Errorf("device %q: %w: a name has 1 to %d bytes", link, ErrNoLink, unix.IFNAMSIZ-1)
	}
	switch err := unix.IoctlIfreq(k.conn.fd, unix.SIOCGIFINDEX, ifr); {
	case errors.Is(err, unix.ENODEV):
		return 0, fmt.Errorf("device %s: %w", link, ErrNoLink)
	case err != nil:
		return 0, fmt.Errorf("look up device %s: %w", link, err)
	}
	return int(ifr.Uint32()), nil
}
