package config

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/quorate/quorate/fsm"
)

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func some[T any](r *rand.Rand, most int, one func(i int) T) []T {
	var out []T
	for i := range r.IntN(most + 1) {
		out = append(out, one(i))
	}
	return out
}

// oddName is a name that YAML readers may take for something else, another for each i.
func oddName(i int) string {
	names := []string{"web", "null", "true", "no", "0x1f", "12", "1e3", "y", "NaN", "_", "2001-12-14", "0b1", "Inf", "off"}
	return names[i%len(names)]
}

func randomText(r *rand.Rand) string {
	return pick(r, "plain", "", " led", "trailed ", "a: b", "# no comment", "'", `"`, `\`, "two\nlines", "\ttab", "ü☃", "null", "12", "true", "- x", "{a}", "[b", "*x", "&y", "%z", "@", "`", "!t", "|", ">", "?", "é́", "\u0085", "\u2028", "\x1b[31m", "~", "=", "<<", ",", strings.Repeat("long ", 200))
}

func randomArgv(r *rand.Rand) []string {
	if r.IntN(2) == 0 {
		return nil
	}
	return append([]string{"/usr/bin/" + pick(r, "true", "a b", "x:y", "#z", "ü")}, some(r, 3, func(int) string { return randomText(r) })...)
}

func randomHooks(r *rand.Rand) fsm.Hooks {
	h := fsm.Hooks{Active: randomArgv(r), Backup: randomArgv(r), Fault: randomArgv(r)}
	if h.Any() {
		h.Timeout = pick(r, 30*time.Second, 10*time.Millisecond, time.Hour, 90*time.Second, 1500*time.Millisecond)
	}
	return h
}

func randomCheck(r *rand.Rand, name string) fsm.Check {
	k := fsm.Check{
		Name:     name,
		Interval: pick(r, time.Second, 100*time.Millisecond, time.Hour, 1234567*time.Microsecond),
		Timeout:  pick(r, 10*time.Millisecond, 100*time.Millisecond, 500*time.Millisecond, 10*time.Minute),
		Rise:     1 + r.IntN(100), Fall: 1 + r.IntN(100), Weight: pick(r, 0, -254, 254, 1),
	}
	match := pick(r, "", "^ok$", `\bup: \d+`, "[#'\"]", "a|b", " x ")
	switch r.IntN(8) {
	case 0:
		k.HTTP = &fsm.HTTPCheck{URL: "http://127.0.0.1:8080/" + pick(r, "", "a?b=c#d", "{x}"), Host: pick(r, "", "www.example.org", "a:81"),
			StatusMin: pick(r, 100, 200), StatusMax: pick(r, 200, 299, 599), Match: match}
	case 1:
		k.HTTP = &fsm.HTTPCheck{URL: "https://[::1]/", StatusMin: 200, StatusMax: 299, Match: match, CA: pick(r, "", "/etc/ca.pem")}
		k.HTTP.Insecure = k.HTTP.CA == "" && r.IntN(2) == 0
	case 2:
		k.TCP = pick(r, "127.0.0.1:1", "[::1]:65535", "db.example.org:5432", "[fe80::1%eth0]:80")
	case 3:
		k.ICMP = pick(r, "10.0.0.8", "fe80::8%eth0", "n1", "1.example.")
	case 4:
		k.Command = &fsm.CommandCheck{Argv: append([]string{"/bin/x"}, randomText(r)), User: pick(r, "", "nobody", "65534", "null")}
	case 5:
		k.Process = pick(r, "nginx", "null", "12", "a: b", "(sd-pam)", " x ")
	case 6:
		k.File = &fsm.FileCheck{Path: "/run/" + pick(r, "x", "a b", "#", "ü"), Match: match}
	default:
		k.Systemd = pick(r, "nginx.service", "a@b.socket", `dev-x\x2dy.device`)
	}
	return k
}

func randomGroup(r *rand.Rand, name string, i int, checks []fsm.Check) fsm.Group {
	g := fsm.Group{
		Name: name, Interface: pick(r, "", "eth0", "br-1", "null", "12", "vlan.7", "~"),
		Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 9}), 24)},
		Placement: pick(r, fsm.PlacementLeader, fsm.PlacementPriority, fsm.PlacementSpread),
		Weight:    pick(r, 1, 1, 2, 1000),
		Announce:  fsm.Announce{Repeat: pick(r, 1, 5, 100), Refresh: pick(r, 0, time.Second, time.Minute, time.Hour)},
		Hooks:     randomHooks(r), WhenAllFail: pick(r, fsm.AllFailKeep, fsm.AllFailRelease),
		OnQuorumLoss: pick(r, fsm.QuorumLossRelease, fsm.QuorumLossHold),
	}
	if r.IntN(2) == 0 {
		g.Addresses = append(g.Addresses, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 14: byte(i), 15: 9}), 64))
	}
	if g.Placement != fsm.PlacementLeader {
		g.Preempt = pick(r, fsm.Preempt{}, fsm.Preempt{Yes: true}, fsm.Preempt{Yes: true, Delay: time.Hour}, fsm.Preempt{Yes: true, Delay: 61 * time.Second})
	}
	for range r.IntN(4) {
		if g.Priority == nil {
			g.Priority = map[string]uint8{}
		}
		g.Priority[pick(r, "n1", "n2", "null", "true", "1e3", "12", "1.5", "a.b")] = pick(r, uint8(0), 100, 254)
	}
	for _, k := range checks {
		if r.IntN(2) == 0 {
			g.Checks = append(g.Checks, k.Name)
		}
	}
	g.TrackInterfaces = some(r, 3, func(i int) fsm.Track {
		return fsm.Track{Interface: fmt.Sprint(pick(r, "eth", "1", "~"), i), Weight: pick(r, 0, -254, 254)}
	})
	randomReach(r, &g)
	if r.IntN(2) == 0 {
		g.VRRP = randomVRRP(r, i, len(g.Addresses) == 2)
		g.VMAC = r.IntN(2) == 0
	}
	return g
}

func randomReach(r *rand.Rand, g *fsm.Group) {
	device := g.Interface
	for _, p := range g.Addresses {
		s := fsm.AddressSpec{Interface: pick(r, "", "eth7", "null"), NoPrefixRoute: r.IntN(2) == 0}
		if s.Interface != "" {
			device = s.Interface
		}
		if p.Addr().Is4() && device != "" {
			s.Scope = pick(r, 0, fsm.ScopeSite, fsm.ScopeLink, fsm.ScopeHost)
			s.Label = pick(r, "", device, device+":x")
		}
		if s != (fsm.AddressSpec{}) && r.IntN(2) == 0 {
			if g.Specs == nil {
				g.Specs = map[netip.Addr]fsm.AddressSpec{}
			}
			g.Specs[p.Addr()] = s
		}
		device = g.Interface
	}
	own := g.Addresses[0].Addr()
	third := own.As4()[2] // another for each group
	g.Routes = some(r, 3, func(i int) fsm.Route {
		to := fsm.Route{To: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, third, byte(i)}), 32), Interface: pick(r, "eth0", "null"),
			Table: pick(r, 0, uint32(1), 4294967295), Metric: pick(r, 0, uint32(1), 4294967295), Source: pick(r, netip.Addr{}, own)}
		if r.IntN(2) == 0 {
			to.Via = netip.AddrFrom4([4]byte{10, 0, third, 254})
			to.OnLink = r.IntN(2) == 0
			to.Interface = pick(r, to.Interface, "")
			to.OnLink = to.OnLink && to.Interface != ""
		}
		return to
	})
	g.Rules = some(r, 3, func(i int) fsm.Rule {
		return fsm.Rule{From: netip.PrefixFrom(own, 32), To: pick(r, netip.Prefix{}, netip.MustParsePrefix("198.51.100.0/24")), Interface: pick(r, "", "lo", "~"),
			Mark: pick(r, 0, uint32(8)), Table: pick(r, uint32(254), 100), Priority: uint32(i)}
	})
	g.KeepConnections = r.IntN(2) == 0
}

func randomVRRP(r *rand.Rand, i int, v6 bool) fsm.VRRP {
	v := fsm.VRRP{ID: uint8(1 + i), Version: 3, AlsoV2: r.IntN(2) == 0, Priority: pick(r, uint8(1), 100, 254), Interval: pick(r, time.Second, 10*time.Millisecond, 40950*time.Millisecond),
		Checksum: pick(r, fsm.ChecksumAuto, fsm.ChecksumPseudoHeader, fsm.ChecksumPlain), Outranked: pick(r, fsm.OutrankedYield, fsm.OutrankedHold)}
	if !v6 && r.IntN(2) == 0 {
		v.Version, v.AlsoV2, v.Checksum, v.Interval = 2, false, fsm.ChecksumAuto, pick(r, time.Second, 255*time.Second)
	}
	if v.Version == 2 || v.AlsoV2 {
		v.Password = pick(r, "", "secret", "1234", "null", "a: b #", `'"\`, " x ")
	}
	if r.IntN(2) == 0 {
		v.Unicast = []fsm.Peer{{Addr: netip.MustParseAddr("10.0.0.2"), MinTTL: 1, MaxTTL: 255}, {Addr: netip.MustParseAddr("10.0.0.3"), MinTTL: 255, MaxTTL: 255}}
		if v6 {
			v.Unicast = append(v.Unicast, fsm.Peer{Addr: netip.MustParseAddr("fe80::2"), MinTTL: 254, MaxTTL: 254})
		}
	}
	return v
}

// randomDocument makes a document that the rules allow.
func randomDocument(r *rand.Rand) fsm.Document {
	first := r.IntN(100)
	doc := fsm.Document{MaxHold: minMaxHold, Hooks: randomHooks(r), Checks: some(r, 4, func(i int) fsm.Check { return randomCheck(r, oddName(first+i)) })}
	for i := range 1 + r.IntN(6) {
		doc.Groups = append(doc.Groups, randomGroup(r, oddName(first+i), i, doc.Checks))
	}
	for i := range doc.Groups {
		g := &doc.Groups[i]
		for _, other := range doc.Groups {
			switch same := other.Placement == g.Placement && other.Preempt == g.Preempt; {
			case other.Name == g.Name || r.IntN(3) > 0:
			case i%2 == 0 && same: // the even ones are together, the odd ones apart
				g.Together = append(g.Together, other.Name)
			}
		}
	}
	head := together(doc)
	for i := range doc.Groups {
		g := &doc.Groups[i]
		for _, other := range doc.Groups {
			if head[other.Name] != head[g.Name] && r.IntN(3) == 0 {
				g.Apart = append(g.Apart, other.Name)
			}
		}
	}
	return doc
}
