package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

// A Link is a network device of the host, loopback included.
type Link struct {
	Name      string
	Loopback  bool
	Addresses []LinkAddress
}

// A LinkAddress is an address on a device.
type LinkAddress struct {
	Prefix netip.Prefix
	// Permanent: without a lifetime, so somebody configured it on this host. What
	// an earlier life of the daemon left has one.
	Permanent bool
}

// DevicesFor returns the devices whose network contains the address, the narrowest
// network deciding: none, one, or several between which somebody has to choose, as
// the daemon sees it too. Networks of one address, of the loopback device, and those
// that the address itself brought are no networks to be found by.
func DevicesFor(a netip.Addr, links []Link) []string {
	var names []string
	bits := -1
	for _, l := range links {
		if l.Loopback {
			continue
		}
		for _, la := range l.Addresses {
			p := la.Prefix
			if p.Addr() == a || p.Bits() >= p.Addr().BitLen() || p.Bits() < bits || !p.Contains(a) {
				continue
			}
			if p.Bits() > bits {
				bits, names = p.Bits(), nil
			}
			if !slices.Contains(names, l.Name) {
				names = append(names, l.Name)
			}
		}
	}
	return names
}

// CheckHost checks the configuration against the devices of the host that is to
// run it: that the node's own address is here, which with ElectVRRP there is none, and
// on a member what CheckDocument does. The error joins an *Error for all that is wrong.
// It reads nothing but its arguments.
func CheckHost(cfg *Config, links []Link) error {
	h := &hostChecker{links: links}
	if cfg.Election != ElectVRRP {
		h.ownAddress(cfg.Address.Addr())
	}
	h.http(cfg.HTTP)
	problems := h.problems
	if cfg.Role != fsm.Witness { // which holds nothing, so it needs no device
		problems = append(problems, CheckDocument(cfg.Document, links, 0)...)
	}
	r := &report{file: cfg.file, src: cfg.src}
	for _, p := range problems {
		r.add(cfg.where[p.Path], p.Path, p.Text, p.Value, p.Do)
	}
	return r.err()
}

type hostChecker struct {
	links    []Link
	problems []Problem
}

func (h *hostChecker) add(path, text, value, do string) {
	h.problems = append(h.problems, Problem{path, text, value, do})
}

// A vridOn is a virtual router: an id, on a device, in a family.
type vridOn struct {
	device string
	family vrrpcompat.Family
	id     uint8
}

func (h *hostChecker) ownAddress(own netip.Addr) {
	if h.owns(own) {
		return
	}
	h.add("address", "is not an address of this host", own.String(),
		"write address: with the one of peers that is this host; it has "+h.hostAddresses())
}

// owns reports whether an address is this host's.
func (h *hostChecker) owns(a netip.Addr) bool {
	for _, l := range h.links {
		for _, la := range l.Addresses {
			// Linux takes all of 127.0.0.0/8 for its own.
			if la.Prefix.Addr() == a.WithZone("") || l.Loopback && a.IsLoopback() && la.Prefix.Contains(a) {
				return true
			}
		}
	}
	return false
}

func (h *hostChecker) group(g fsm.Group, used map[vridOn]string) {
	path := join("vips", g.Name)
	for _, t := range g.TrackInterfaces {
		if !h.has(t.Interface) {
			h.add(trackPath(g.Name, t.Interface), "no such device on this host", t.Interface,
				"write one of "+h.deviceNames()+", or remove it: a device that is not there counts as failed")
		}
	}
	if g.Interface != "" && !h.has(g.Interface) {
		h.add(path+".interface", "no such device on this host", g.Interface,
			"write one of "+h.deviceNames()+", or leave the key out if the nodes' devices have different names")
		return
	}
	h.routes(g)
	device := map[vrrpcompat.Family]string{}
	for _, p := range g.Addresses {
		name := h.address(g, p)
		h.label(g, p, name)
		if name == "" || g.VRRP.ID == 0 || g.Specs[p.Addr()].Unadvertised {
			continue
		}
		fam := vrrpcompat.FamilyOf(p.Addr())
		if other, have := device[fam]; have && other != name {
			h.add(vipPath(g.Name, p),
				fmt.Sprintf("lies on device %s, and others of the group on %s: one advert names addresses of one link", name, other), "",
				"make a group for each device, or leave vrrp out")
		}
		device[fam] = name
		key := vridOn{name, fam, g.VRRP.ID}
		if other, taken := used[key]; taken && other != g.Name {
			h.add(path+".vrrp.id", fmt.Sprintf("VRRP id %d is used on device %s by group %s too", g.VRRP.ID, name, other), "",
				"give each group its own id, or make one group of the two")
			continue
		}
		used[key] = g.Name
	}
}

// address checks one address of a group and returns its device; empty if it has
// none.
func (h *hostChecker) address(g fsm.Group, p netip.Prefix) string {
	path := vipPath(g.Name, p)
	for _, l := range h.links {
		for _, la := range l.Addresses {
			if la.Prefix.Addr() == p.Addr() && la.Permanent {
				h.add(path, "is configured on this host itself, on device "+l.Name, p.String(),
					"give the group an address that no host has, or remove it there: ip address del "+la.Prefix.String()+" dev "+l.Name)
				return ""
			}
		}
	}
	if own := g.Specs[p.Addr()].Interface; own != "" {
		if !h.has(own) {
			h.add(path, "is for device "+own+", and there is no such device on this host", p.String(), "write interface: with one of "+h.deviceNames())
			return ""
		}
		return own
	}
	if g.Interface != "" {
		return g.Interface
	}
	names := DevicesFor(p.Addr(), h.links)
	switch len(names) {
	case 1:
		return names[0]
	case 0:
		h.add(path, "is in no network of this host ("+h.networks()+")", p.String(),
			"write interface: with the device that clients reach it by ("+h.deviceNames()+"), or correct the address")
	default:
		h.add(path, "lies in a network of "+strings.Join(names, " and of "), p.String(),
			"write interface: with the one that clients reach it by")
	}
	return ""
}

func (h *hostChecker) has(name string) bool {
	return slices.ContainsFunc(h.links, func(l Link) bool { return l.Name == name })
}

// deviceNames lists the devices that could hold a VIP.
func (h *hostChecker) deviceNames() string {
	var out []string
	for _, l := range h.links {
		if !l.Loopback {
			out = append(out, l.Name)
		}
	}
	return orNone(out)
}

func (h *hostChecker) networks() string {
	var out []string
	for _, l := range h.links {
		for _, la := range l.Addresses {
			if !l.Loopback && la.Prefix.Bits() < la.Prefix.Addr().BitLen() {
				out = append(out, la.Prefix.Masked().String()+" on "+l.Name)
			}
		}
	}
	return orNone(slices.Compact(out))
}

func (h *hostChecker) hostAddresses() string {
	var out []string
	for _, l := range h.links {
		for _, la := range l.Addresses {
			if !l.Loopback {
				out = append(out, la.Prefix.Addr().String())
			}
		}
	}
	return orNone(out)
}

func orNone(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, ", ")
}
