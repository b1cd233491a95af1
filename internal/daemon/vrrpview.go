package daemon

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/vipctl/kernel"
	"github.com/quorate/quorate/vrrpcompat"
)

// VRRP is what the speaker heard, with what the agent makes of it.
func (p apiPort) VRRP(ctx context.Context) (api.VRRP, error) {
	st, err := p.Status(ctx)
	if err != nil {
		return api.VRRP{}, err
	}
	v := p.n.vrrp.view(vrrpcompat.Instant(Now()))
	v.Node = st.Node
	fillStates(v.Routers, st.VIPs)
	return v, nil
}

// fillStates adds what the agent knows of each virtual router.
func fillStates(routers []api.VRRPRouter, groups []core.VIPStatus) {
	for i := range routers {
		r := &routers[i]
		r.State = vrrpcompat.Initialize.String() // until the agent has it
		for _, g := range groups {
			if g.Name != r.Group || g.VRRP == nil {
				continue
			}
			for _, s := range g.VRRP.Routers {
				if s.Link != r.Device || s.Family != r.Family {
					continue
				}
				r.State = s.State
				if o := s.Outranked; o != nil {
					r.Rival = &api.VRRPRival{Address: o.From, Priority: o.Priority, Held: s.Alarm}
				}
			}
		}
	}
}

// view describes what was heard until now.
func (s *speaker) view(now vrrpcompat.Instant) api.VRRP {
	overruns := s.transport.Overruns()
	s.mu.Lock()
	defer s.mu.Unlock()
	v := api.VRRP{Routers: []api.VRRPRouter{}, Neighbours: []api.VRRPNeighbour{}, Refused: s.refusals(now), Overruns: overruns,
		Crowded: s.listening.Counts().Crowded}
	if t := s.heard[accepted]; t != nil {
		v.Accepted = t.count
	}
	keys := make([]routerKey, 0, len(s.routers))
	for key := range s.routers {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b routerKey) int {
		return cmp.Or(cmp.Compare(a.link, b.link), cmp.Compare(a.family, b.family), cmp.Compare(a.vrid, b.vrid))
	})
	for _, key := range keys {
		v.Routers = append(v.Routers, s.viewRouter(key, s.routers[key]))
	}
	for _, n := range s.listening.Neighbours(now) {
		out := viewNeighbour(now, n)
		for _, key := range keys {
			if r := s.routers[key]; key.link == n.Interface && !s.insiders[n.From] {
				for _, d := range r.virtual.Differences(&n, vrrpcompat.Priority(r.vrrp.Priority), r.sends(n.From)) {
					out.Differences = append(out.Differences, api.VRRPDifference{
						Group: r.group, Field: d.Field.String(), Here: d.Here, There: d.There, Breaks: d.Breaks, Advice: d.Advice})
				}
			}
		}
		out.Insider = s.insiders[n.From]
		v.Neighbours = append(v.Neighbours, out)
	}
	return v
}

func (s *speaker) viewRouter(key routerKey, r *served) api.VRRPRouter {
	out := api.VRRPRouter{
		Group: r.group, Device: key.link, Family: key.family.String(), VRID: uint8(key.vrid), Version: r.virtual.Version.String(),
		Priority: r.vrrp.Priority, IntervalMS: millis(r.virtual.Interval.Duration()), Addresses: texts(r.virtual.Addresses),
		Password: r.virtual.Auth.Type == vrrpcompat.AuthSimple, Listening: s.transport.Listening(key.link, key.family), To: []api.VRRPDestination{},
	}
	if r.virtual.AlsoV2 {
		out.Version = "both"
	}
	if a := s.source(key.port, r); a.IsValid() {
		out.Source = a.String()
	}
	if r.vmac {
		out.MAC = kernel.VirtualMAC{Family: key.family, VRID: key.vrid}.MAC().String()
	}
	to := []netip.Addr{key.family.Group()}
	if len(r.peers) > 0 {
		to = nil
	}
	for _, p := range r.peers {
		to = append(to, p.Addr)
	}
	for _, a := range to {
		out.To = append(out.To, r.destination(a))
	}
	return out
}

func (r *served) destination(to netip.Addr) api.VRRPDestination {
	d := api.VRRPDestination{Address: to.String(), Checksum: r.sends(to).String()}
	switch {
	case r.virtual.Family == vrrpcompat.IPv6:
		d.Checksum = vrrpcompat.PseudoHeader.String()
	case r.virtual.Version == vrrpcompat.V2:
		d.Checksum = vrrpcompat.Plain.String()
	default:
		d.Mirrored = r.vrrp.Checksum == fsm.ChecksumAuto
	}
	if m := r.mirror(to); d.Mirrored && m != nil {
		if of, ok := m.Teacher(); ok {
			d.Of = of.String()
		}
	}
	return d
}

func viewNeighbour(now vrrpcompat.Instant, n vrrpcompat.Neighbour) api.VRRPNeighbour {
	out := api.VRRPNeighbour{
		Device: n.Interface, Family: n.Family.String(), VRID: uint8(n.VRID), Address: n.From.String(), MAC: n.MAC.String(),
		Dialect: n.Dialect.String(), Speaking: n.Speaking(now), FirstAgoMS: millis(now.Sub(n.First)), LastAgoMS: millis(now.Sub(n.Last)),
		Adverts: n.Adverts, Refused: n.Refused,
	}
	switch n.Dialect {
	case vrrpcompat.SpeaksVRRP:
		priority := uint8(n.Priority)
		out.Version, out.Priority, out.IntervalMS, out.Addresses = uint8(n.Version), &priority, millis(n.Interval.Duration()), texts(n.Addresses)
		out.Checksum = n.Checksum.String()
		if n.Version == vrrpcompat.V2 {
			out.Auth = n.AuthType.String()
		}
	case vrrpcompat.SpeaksCARP:
		out.VRID = uint8(n.CARP.VHID)
		out.IntervalMS = millis(time.Duration(n.CARP.AdvBase)*time.Second + time.Duration(n.CARP.AdvSkew)*time.Second/256)
	}
	if n.Refused > 0 {
		reject := n.Reject
		out.LastRefusal = &api.VRRPWhy{Reason: reject.Reason.String(), Text: reject.Error(), AgoMS: millis(now.Sub(n.RejectedAt))}
	}
	return out
}

// refusals lists why packets were refused, the most frequent first. s.mu is held.
func (s *speaker) refusals(now vrrpcompat.Instant) []api.VRRPRefusal {
	out := []api.VRRPRefusal{}
	for result, t := range s.heard {
		if result == accepted {
			continue
		}
		out = append(out, api.VRRPRefusal{
			Reason: result, Count: t.count, Device: t.last.key.link, VRID: uint8(t.last.key.vrid), Address: t.last.from.String(),
			MAC: t.last.mac.String(), Text: t.last.err.Error(), AgoMS: millis(now.Sub(t.last.at)),
		})
	}
	slices.SortFunc(out, func(a, b api.VRRPRefusal) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}

func texts(addrs []netip.Addr) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
