package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/quorate/quorate/fsm"
)

// WithoutVIPs is the devices without the document's own addresses that a running daemon
// has put there: a network that came with one of them is not the host's. What somebody
// configured on the host itself stays.
func WithoutVIPs(doc fsm.Document, links []Link) []Link {
	vips := map[netip.Addr]bool{}
	for _, a := range doc.Addrs() {
		vips[a] = true
	}
	out := slices.Clone(links)
	for i, l := range out {
		out[i].Addresses = slices.DeleteFunc(slices.Clone(l.Addresses), func(a LinkAddress) bool { return !a.Permanent && vips[a.Prefix.Addr()] })
	}
	return out
}

// DeviceOf returns the device that an address of a group goes to on this host: the one
// that is written for it or for the group, or else the one whose network contains it.
// Empty: none, or several.
func DeviceOf(g fsm.Group, a netip.Addr, links []Link) string {
	if own := g.Specs[a].Interface; own != "" {
		return own
	}
	if g.Interface != "" {
		return g.Interface
	}
	if names := DevicesFor(a, links); len(names) == 1 {
		return names[0]
	}
	return ""
}

// RouteDevice returns the device of a route on this host: the one that is written, or else
// the one whose network contains the next hop. The network may be one that an address of
// the group brings with it. Empty: none, or several.
func RouteDevice(g fsm.Group, r fsm.Route, links []Link) string {
	if r.Interface != "" {
		return r.Interface
	}
	names := DevicesFor(r.Via, links)
	if len(names) == 0 {
		for _, p := range g.Addresses {
			if p.Contains(r.Via) && !g.Specs[p.Addr()].NoPrefixRoute {
				if name := DeviceOf(g, p.Addr(), links); name != "" && !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
	}
	if len(names) == 1 {
		return names[0]
	}
	return ""
}

// label: the device that an address is found to go to is the one that its label names.
func (h *hostChecker) label(g fsm.Group, p netip.Prefix, device string) {
	label := g.Specs[p.Addr()].Label
	if named, _, _ := strings.Cut(label, ":"); label != "" && device != "" && named != device {
		h.add(vipPath(g.Name, p), fmt.Sprintf("has the label %s, and goes to device %s on this host", label, device), p.String(),
			"write interface: "+named+" beside it, or a label that begins with "+device+", or none")
	}
}

// routes checks the devices of a group's routes and rules.
func (h *hostChecker) routes(g fsm.Group) {
	for _, r := range g.Routes {
		path := routePath(g.Name, r.To, r.Table, r.Metric)
		switch {
		case r.Interface != "" && !h.has(r.Interface):
			h.add(path, "is by a device that this host does not have", r.Interface, "write interface: with one of "+h.deviceNames())
		case RouteDevice(g, r, h.links) == "":
			h.add(path, "has a next hop that is in no one network of this host ("+h.networks()+")", r.Via.String(),
				"write interface: with the device that leads to it ("+h.deviceNames()+"), and onlink: true if none of its networks contains it")
		}
	}
	for _, r := range g.Rules {
		if r.Interface != "" && !h.has(r.Interface) {
			h.add(rulePath(g.Name, r), "is for traffic of a device that this host does not have", r.Interface, "write interface: with one of "+h.deviceNames()+", or lo")
		}
	}
}

// http: the address to serve on is this host's, or stands for all of them.
func (h *hostChecker) http(address string) {
	a, err := netip.ParseAddrPort(address)
	if err != nil || a.Addr().IsUnspecified() || h.owns(a.Addr()) {
		return
	}
	h.add("http", "is not an address of this host", address, fmt.Sprintf("write 127.0.0.1:%d, or one of %s with the port", a.Port(), h.hostAddresses()))
}
