package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm"
)

// A routeKey is what makes a route one of its own: the kernel has at most one of ours with each.
type routeKey struct {
	to            netip.Prefix
	table, metric uint32
}

// keyOf puts the kernel's defaults where the route says nothing.
func keyOf(r fsm.Route) routeKey {
	key := routeKey{to: r.To.Masked(), table: r.Table, metric: r.Metric}
	if key.table == 0 {
		key.table = unix.RT_TABLE_MAIN
	}
	if key.metric == 0 && r.To.Addr().Is6() {
		key.metric = ip6DefaultMetric
	}
	return key
}

const ip6DefaultMetric = 1024 // IP6_RT_PRIO_USER of include/uapi/linux/ipv6_route.h

// A route as it is in the kernel, or is to be.
type route struct {
	key         routeKey
	via, source netip.Addr // zero: none
	device      int
	onLink      bool
}

func (r route) public(link string) fsm.Route {
	out := fsm.Route{To: r.key.to, Via: r.via, Interface: link, Source: r.source, Table: r.key.table, Metric: r.key.metric, OnLink: r.onLink}
	if out.Table == unix.RT_TABLE_MAIN {
		out.Table = 0
	}
	if out.To.Addr().Is6() && out.Metric == ip6DefaultMetric {
		out.Metric = 0
	}
	return out
}

func describeRoute(r fsm.Route) string {
	key := keyOf(r)
	s := "route to " + key.to.String()
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	return fmt.Sprintf("%s (metric %d, table %d)", s, key.metric, key.table)
}

func familyOf(addr netip.Addr) byte {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// routes returns those with our mark.
func (k *Kernel) routes() ([]route, error) {
	return dump("routes", func() (all []route, err error) {
		for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
			body := make([]byte, unix.SizeofRtMsg)
			body[0], body[5] = family, Protocol // kernels before 4.20 do not filter
			err = k.conn.ask(unix.RTM_GETROUTE, body, func(m message) {
				if r, ok := routeOf(m, family); ok {
					all = append(all, r)
				}
			})
			if err != nil && !(family == unix.AF_INET6 && noFamily(err)) {
				return nil, err
			}
		}
		return all, nil
	})
}

// noFamily reports whether the kernel was built or started without IPv6.
func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// routeOf reads a message of struct rtmsg (rtnetlink(7)), if it is of a route with our mark.
func routeOf(m message, family byte) (r route, ok bool) {
	if m.kind != unix.RTM_NEWROUTE || len(m.data) < unix.SizeofRtMsg || m.data[0] != family || m.data[5] != Protocol {
		return r, false
	}
	to := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		to = netip.IPv6Unspecified()
	}
	r.key.table = uint32(m.data[4])
	r.onLink = uint32Of(m.data[8:])&unix.RTNH_F_ONLINK != 0
	for kind, value := range attributes(m.data[unix.SizeofRtMsg:]) {
		addr, _ := netip.AddrFromSlice(value)
		switch kind {
		case unix.RTA_DST:
			to = addr
		case unix.RTA_GATEWAY:
			r.via = addr
		case unix.RTA_PREFSRC:
			r.source = addr
		case unix.RTA_OIF:
			r.device = int(uint32Of(value))
		case unix.RTA_PRIORITY:
			r.key.metric = uint32Of(value)
		case unix.RTA_TABLE:
			r.key.table = uint32Of(value)
		}
	}
	r.key.to = netip.PrefixFrom(to, int(m.data[1]))
	return r, r.key.to.IsValid()
}

// request writes the request that adds or deletes the route.
func (r route) request(b *batch, kind, flags uint16) {
	body := make([]byte, unix.SizeofRtMsg)
	body[0], body[1] = familyOf(r.key.to.Addr()), byte(r.key.to.Bits())
	body[5], body[6], body[7] = Protocol, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	switch {
	case kind == unix.RTM_DELROUTE:
		body[6] = unix.RT_SCOPE_NOWHERE // of any scope
	case body[0] == unix.AF_INET && !r.via.IsValid():
		body[6] = unix.RT_SCOPE_LINK
	}
	if r.onLink {
		body[8] = unix.RTNH_F_ONLINK
	}
	b.add(kind, flags, body)
	b.attr(unix.RTA_DST, r.key.to.Addr().AsSlice())
	b.attr32(unix.RTA_TABLE, r.key.table)
	b.attr32(unix.RTA_PRIORITY, r.key.metric)
	if kind == unix.RTM_DELROUTE {
		return
	}
	b.attr32(unix.RTA_OIF, uint32(r.device))
	if r.via.IsValid() {
		b.attr(unix.RTA_GATEWAY, r.via.AsSlice())
	}
	if r.source.IsValid() {
		b.attr(unix.RTA_PREFSRC, r.source.AsSlice())
	}
}

// resolve is the route with its device. To be called with k.addrs locked.
func (v *View) resolve(r fsm.Route, at []Address) (route, error) {
	out := route{key: keyOf(r), via: r.Via, source: r.Source, onLink: r.OnLink}
	var err error
	out.device, err = v.deviceOf(r, at)
	return out, err
}

// deviceOf finds the device of a route: the one it names, else that of the host's
// network which contains the next hop, else that of an address of the group whose network does.
func (v *View) deviceOf(r fsm.Route, at []Address) (int, error) {
	if r.Interface != "" {
		return v.k.index(r.Interface)
	}
	switch indices := v.devicesFor(r.Via); len(indices) {
	case 1:
		return indices[0], nil
	case 0:
	default:
		return 0, fmt.Errorf("%s lies in the network of several devices; say which with `interface:`", r.Via)
	}
	bits, link := -1, ""
	for _, a := range at {
		if a.Prefix.Contains(r.Via) && a.Prefix.Bits() > bits {
			bits, link = a.Prefix.Bits(), a.Link
		}
	}
	if link == "" {
		return 0, fmt.Errorf("no device's network contains the next hop %s; say which device with `interface:`", r.Via)
	}
	return v.k.index(link)
}

// hasRoute reports whether the route is there as it should be.
func (v *View) hasRoute(r fsm.Route, at []Address) bool {
	want, err := v.resolve(r, at)
	return err == nil && slices.Contains(v.routes, want)
}

// PutRoutes has the routes in the kernel, in order, all or nothing: on an error those
// that this call has added are taken out again, in reverse. Routes that are there are
// left as they are; one of ours that differs in next hop, device or source is replaced. A
// route of the host with the same destination, metric and table is left alone, and an error.
//
// A Source must be an address of the host already. at are the addresses of the
// group: they tell the device of a next hop that is in none of the host's networks.
func (k *Kernel) PutRoutes(routes []fsm.Route, at []Address) error {
	if len(routes) == 0 {
		return nil
	}
	k.addrs.Lock()
	defer k.addrs.Unlock()
	v, err := k.Look()
	if err != nil {
		return err
	}
	if v.routes, err = k.routes(); err != nil {
		return err
	}
	var added []route
	for _, r := range routes {
		want, err := v.resolve(r, at)
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", describeRoute(r), err), k.takeOut(added))
		}
		if slices.Contains(v.routes, want) {
			continue
		}
		flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
		replaces := slices.ContainsFunc(v.routes, func(h route) bool { return h.key == want.key })
		if replaces {
			flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
		}
		var b batch
		want.request(&b, unix.RTM_NEWROUTE, flags)
		if err := k.conn.run(&b, true)[0]; err != nil {
			if errors.Is(err, errUnanswered) {
				added = append(added, want)
			}
			return errors.Join(routeError(r, err), k.takeOut(added))
		}
		if !replaces {
			added = append(added, want)
		}
	}
	return nil
}

func routeError(r fsm.Route, err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.EEXIST):
		key := keyOf(r)
		hint = fmt.Sprintf("the host has a route to %s with metric %d in table %d already, which is not replaced; "+
			"remove that one, or give this one another metric: ", key.to, key.metric, key.table)
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		hint = fmt.Sprintf("no network of the device contains the next hop %s; if it is there all the same, say `onlink: true`: ", r.Via)
	case errors.Is(err, unix.EINVAL) && strings.Contains(err.Error(), "source"), errors.Is(err, unix.EINVAL) && strings.Contains(err.Error(), "prefsrc"):
		hint = fmt.Sprintf("the source %s is no address of this host: ", r.Source)
	case errors.Is(err, unix.ENETDOWN):
		hint = "the device is down: "
	}
	return fmt.Errorf("put the %s: %s%w", describeRoute(r), hint, err)
}

// takeOut deletes routes, the last first.
func (k *Kernel) takeOut(routes []route) error {
	if len(routes) == 0 {
		return nil
	}
	var b batch
	for _, r := range slices.Backward(routes) {
		r.request(&b, unix.RTM_DELROUTE, 0)
	}
	var errs []error
	for i, err := range k.conn.run(&b, false) {
		if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENODEV) { // or gone with its device or source
			r := routes[len(routes)-1-i]
			errs = append(errs, fmt.Errorf("take out the %s: %w", describeRoute(r.public("")), err))
		}
	}
	return several(errs)
}

// TakeRoutes takes the routes out, the last first, and returns nil only when a look
// afterwards shows them all gone. Only routes with our mark are touched; one that is not there is gone.
func (k *Kernel) TakeRoutes(routes []fsm.Route) error {
	if len(routes) == 0 {
		return nil
	}
	k.addrs.Lock()
	defer k.addrs.Unlock()
	const looks = 3
	for look := 0; ; look++ {
		have, err := k.routes()
		if err != nil {
			return err
		}
		var there []route
		for _, r := range routes {
			key := keyOf(r)
			if i := slices.IndexFunc(have, func(h route) bool { return h.key == key }); i >= 0 {
				there = append(there, have[i])
			}
		}
		if len(there) == 0 {
			return nil
		}
		if look == looks {
			return fmt.Errorf("take out the %s: it came back each of %d times", describeRoute(there[0].public("")), looks)
		}
		if err := k.takeOut(there); err != nil {
			return err
		}
	}
}
