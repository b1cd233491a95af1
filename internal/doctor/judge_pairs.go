package doctor

import (
	"math"
	"slices"
	"strings"
)

// Bounds between two nodes.
const (
	noteRatePPM   = 1000 // by which two clocks' rates may seem to differ before it is said
	brokenRatePPM = 8000 // each clock's own bound is 4,000 (election.MaxClockDeviation)
	noteWallMS    = 1000
)

// pairs judges what went from each node to each other one.
func (j *judge) pairs() {
	for _, from := range j.facts {
		for _, to := range j.facts {
			if from != to {
				j.ports(from, to)
				j.segments(from, to)
			}
		}
		for _, p := range from.Paths {
			if j.byID[p.To] == nil && j.reachedBySome(p.To) { // else node-silent says it all
				j.tcp(from, j.nameOf(p.To), p)
			}
		}
	}
}

// reachedBySome: a node that did not answer is up, for one of the others can connect to it.
func (j *judge) reachedBySome(instance string) bool {
	return slices.ContainsFunc(j.facts, func(f *Facts) bool {
		p, ok := f.path(instance)
		return ok && p.TCPProblem == ""
	})
}

func (j *judge) nameOf(instance string) string {
	for _, a := range j.in.Answers {
		if a.Instance == instance {
			return a.Name
		}
	}
	return instance
}

// heard is how many packets of a kind came from a node, by a device of it or, with index
// 0, by the nodes' own port.
func (f *Facts) heard(from string, index int, device string, kind Kind) int {
	for _, h := range f.Heard {
		if h.From == from && h.Index == index && h.Device == device && h.Kind == kind.String() {
			return h.Count
		}
	}
	return 0
}

func (f *Facts) path(to string) (PathTo, bool) {
	i := slices.IndexFunc(f.Paths, func(p PathTo) bool { return p.To == to })
	if i < 0 {
		return PathTo{}, false
	}
	return f.Paths[i], true
}

// ports judges the nodes' own port, by which leases and Raft go.
func (j *judge) ports(from, to *Facts) {
	path, measured := from.path(to.Instance)
	if !measured {
		return
	}
	j.tcp(from, to.Name, path)
	j.look("udp")
	if to.heard(from.Instance, 0, "", Small) == 0 {
		j.find(Broken, "udp", from.Name, to.Name, "", "no datagram of %s arrives at %s", from.Name, to.Name)
		return // nothing further can be said of what goes this way
	}
	j.look("mtu")
	switch {
	case to.heard(from.Instance, 0, "", Large) == 0:
		j.find(Broken, "mtu", from.Name, to.Name, "", "short datagrams of %s arrive at %s, and those of %d bytes do not", from.Name, to.Name, from.Datagram)
	case path.PathMTU > 0 && path.PathMTU < from.Datagram:
		j.find(Warning, "fragments", from.Name, to.Name, "", "the path has an MTU of %d, and a datagram of leases up to %d bytes", path.PathMTU, from.Datagram)
	}
	j.trips(from, to, path)
}

func (j *judge) tcp(from *Facts, to string, path PathTo) {
	j.look("tcp")
	if path.TCPProblem != "" {
		j.find(Broken, "tcp", from.Name, to, "", "%s cannot connect to %s: %s", from.Name, to, path.TCPProblem)
	}
}

// trips judges round trips and clocks. Where no answer came at all, that is the finding
// udp of one of the two ways.
func (j *judge) trips(from, to *Facts, p PathTo) {
	if p.Answered == 0 {
		return
	}
	j.look("rtt")
	lost := 1 - float64(p.Answered)/float64(max(p.Sent, 1))
	switch {
	case from.RenewMS > 0 && p.MedianMS > from.RenewMS:
		j.find(Broken, "rtt", from.Name, to.Name, "", "an answer takes %s, and leases are renewed every %s", millis(p.MedianMS), millis(from.RenewMS))
	case lost > 0.3:
		j.find(Broken, "rtt", from.Name, to.Name, "", "of %d questions %d were answered", p.Sent, p.Answered)
	case from.LeaseMS > 0 && p.HighMS > from.LeaseMS/2:
		j.find(Warning, "rtt", from.Name, to.Name, "", "one answer of ten takes %s or longer, at worst %s, and a lease lasts %s", millis(p.HighMS), millis(p.WorstMS), millis(from.LeaseMS))
	case lost > 0.1:
		j.find(Warning, "rtt", from.Name, to.Name, "", "of %d questions %d were answered", p.Sent, p.Answered)
	}
	if from.Instance > to.Instance {
		return // the clocks of a pair are looked at once
	}
	if p.RateErrPPM > 0 {
		j.look("clock-rate")
		switch off := math.Abs(p.RatePPM) - p.RateErrPPM; {
		case off > brokenRatePPM:
			j.find(Broken, "clock-rate", from.Name, to.Name, "", "the clock of %s runs %.0f ppm differently, ±%.0f, from that of %s", to.Name, p.RatePPM, p.RateErrPPM, from.Name)
		case off > noteRatePPM:
			j.find(Warning, "clock-rate", from.Name, to.Name, "", "the clock of %s runs %.0f ppm differently, ±%.0f, from that of %s", to.Name, p.RatePPM, p.RateErrPPM, from.Name)
		}
	}
	j.look("clock-wall")
	if math.Abs(p.WallMS) > noteWallMS+p.MedianMS {
		j.find(Note, "clock-wall", from.Name, to.Name, "", "the time of day of %s is %.1f s ahead of that of %s", to.Name, p.WallMS/1000, from.Name)
	}
}

// segments judges each LAN that the two are to share.
func (j *judge) segments(from, to *Facts) {
	for _, out := range from.Devices {
		for _, in := range to.Devices {
			if out.Index != 0 && in.Index != 0 && out.Up && in.Up && out.Carrier && in.Carrier && out.shares(in) {
				j.segment(from, to, out, in)
			}
		}
	}
}

func (j *judge) segment(from, to *Facts, out, in Device) {
	came := func(k Kind) bool { return to.heard(from.Instance, out.Index, in.Name, k) > 0 }
	ask := func(id, format string, well bool, args ...any) {
		j.look(id)
		if !well {
			j.find(Broken, id, from.Name, to.Name, in.Name, format, args...)
		}
	}
	if from.Instance < to.Instance && out.MTU != in.MTU {
		j.find(Warning, "mtu-differs", from.Name, to.Name, in.Name, "%s of %s has an MTU of %d, and %s of %s one of %d", out.Name, from.Name, out.MTU, in.Name, to.Name, in.MTU)
	}
	ask("lan", "broadcasts of %s do not arrive at %s%s", came(Broadcast), from.Name, to.Name, hint(from, to))
	if !came(Broadcast) {
		return // what follows would be lost for the same reason
	}
	if out.MTU <= in.MTU {
		ask("mtu", "frames of %s with %d bytes do not arrive at %s, and short ones do", came(Full), from.Name, out.MTU, to.Name)
	}
	for _, family := range []struct {
		wanted          bool
		multicast, vrrp Kind
		group           string
	}{{out.Adverts4 && in.Adverts4, Multicast4, Protocol4, Group4.String()}, {out.Adverts6 && in.Adverts6, Multicast6, Protocol6, Group6.String()}} {
		if !family.wanted {
			continue
		}
		if came(family.vrrp) || came(family.multicast) {
			j.look("multicast")
			ask("protocol-112", "protocol 112 to %s from %s does not arrive at %s, and UDP does", came(family.vrrp), family.group, from.Name, to.Name)
			continue
		}
		ask("multicast", "multicast to %s from %s does not arrive at %s", false, family.group, from.Name, to.Name)
	}
	if out.VMAC {
		ask("forged-mac", "frames of %s from a hardware address that is not its own do not arrive at %s", came(Forged), from.Name, to.Name)
	}
	j.learnt(from, to, in)
}

// learnt judges whether the neighbour table of to followed what from announced.
func (j *judge) learnt(from, to *Facts, in Device) {
	for _, l := range to.Learnt {
		if l.From != from.Instance || l.Device != in.Name {
			continue
		}
		id, what := "garp", "a gratuitous ARP"
		if l.IPv6 {
			id, what = "na", "a Neighbor Advertisement"
		}
		j.look(id)
		if !l.Changed {
			because := ""
			if !l.IPv6 && in.Sysctls["drop_gratuitous_arp"] == 1 {
				because = ": drop_gratuitous_arp is 1 there"
			}
			j.find(Broken, id, from.Name, to.Name, in.Name, "%s of %s does not change the neighbour entry of %s%s", what, from.Name, to.Name, because)
		}
	}
}

// hint names the cloud, if it is known.
func hint(nodes ...*Facts) string {
	var clouds []string
	for _, n := range nodes {
		if n.Host.Fabric != "" && !slices.Contains(clouds, n.Host.Fabric) {
			clouds = append(clouds, n.Host.Fabric)
		}
	}
	if clouds == nil {
		return ""
	}
	return " (the firmware names " + strings.Join(clouds, ", ") + ")"
}
