package fsm

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func withVRRP(change func(*Group)) Document {
	g := Group{
		Name: "web", Placement: PlacementLeader,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.200/24")},
		VRRP:      VRRP{ID: 51, Version: 3, Priority: 254, Interval: time.Second, Checksum: ChecksumAuto, Outranked: OutrankedYield},
	}
	change(&g)
	return Document{MaxHold: time.Second, Groups: []Group{g}}
}

func TestCheckVRRP(t *testing.T) {
	v6 := netip.MustParsePrefix("2001:db8::200/64")
	peer := func(a string, lo, hi uint8) Peer { return Peer{netip.MustParseAddr(a), lo, hi} }
	for name, tt := range map[string]struct {
		change func(*Group)
		want   string // part of the error; empty: none
	}{
		"as it is":   {func(*Group) {}, ""},
		"no adverts": {func(g *Group) { g.VRRP = VRRP{} }, ""},
		"both families": {func(g *Group) {
			g.Addresses = append(g.Addresses, v6)
			g.VRRP.AlsoV2 = true
			g.VRRP.Password = "8 bytes!"
		}, ""},
		"version 2":            {func(g *Group) { g.VRRP.Version = 2; g.VRRP.Interval = 255 * time.Second }, ""},
		"longest":              {func(g *Group) { g.VRRP.Interval = 40950 * time.Millisecond }, ""},
		"unicast":              {func(g *Group) { g.VRRP.Unicast = []Peer{peer("10.0.0.2", 255, 255), peer("fe80::2", 1, 255)} }, ""},
		"virtual MAC":          {func(g *Group) { g.VMAC = true }, ""},
		"version 4":            {func(g *Group) { g.VRRP.Version = 4 }, "version is 4"},
		"no version":           {func(g *Group) { g.VRRP.Version = 0 }, "version is 0"},
		"2 beside 2":           {func(g *Group) { g.VRRP.Version, g.VRRP.AlsoV2 = 2, true }, "beside version 2"},
		"2 and IPv6":           {func(g *Group) { g.VRRP.Version = 2; g.Addresses = append(g.Addresses, v6) }, "IPv6 address 2001:db8::200"},
		"priority 0":           {func(g *Group) { g.VRRP.Priority = 0 }, "priority is 0"},
		"no checksum":          {func(g *Group) { g.VRRP.Checksum = 0 }, "unknown checksum(0)"},
		"another checksum":     {func(g *Group) { g.VRRP.Checksum = 4 }, "unknown checksum(4)"},
		"no policy":            {func(g *Group) { g.VRRP.Outranked = 0 }, "unknown outranked(0)"},
		"long password":        {func(g *Group) { g.VRRP.Version, g.VRRP.Password = 2, "nine bytes" }, "at most 8"},
		"password in 3":        {func(g *Group) { g.VRRP.Password = "secret" }, "password with version 3"},
		"between steps":        {func(g *Group) { g.VRRP.Interval = 1005 * time.Millisecond }, "interval is 1.005s"},
		"no interval":          {func(g *Group) { g.VRRP.Interval = 0 }, "interval is 0s"},
		"too long":             {func(g *Group) { g.VRRP.Interval = 40960 * time.Millisecond }, "interval is 40.96s"},
		"no second in 2":       {func(g *Group) { g.VRRP.Version = 2; g.VRRP.Interval = 1500 * time.Millisecond }, "whole 1s with version 2"},
		"no peer's address":    {func(g *Group) { g.VRRP.Unicast = []Peer{{MinTTL: 1, MaxTTL: 255}} }, "no address of a host"},
		"multicast peer":       {func(g *Group) { g.VRRP.Unicast = []Peer{peer("224.0.0.18", 1, 255)} }, "no address of a host"},
		"peer twice":           {func(g *Group) { g.VRRP.Unicast = []Peer{peer("10.0.0.2", 1, 2), peer("10.0.0.2", 1, 2)} }, "there twice"},
		"no TTL":               {func(g *Group) { g.VRRP.Unicast = []Peer{peer("10.0.0.2", 0, 255)} }, "TTL 0 to 255"},
		"TTL backwards":        {func(g *Group) { g.VRRP.Unicast = []Peer{peer("10.0.0.2", 255, 254)} }, "TTL 255 to 254"},
		"peer of other family": {func(g *Group) { g.VRRP.Unicast = []Peer{peer("fe80::2", 255, 255)} }, "family of address 10.0.0.200"},
		"virtual MAC of no id": {func(g *Group) { g.VMAC, g.VRRP = true, VRRP{} }, "no VRRP id"},
	} {
		err := withVRRP(tt.change).Check()
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.want != "" && (!errors.Is(err, ErrBadDocument) || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: error %v, want %q in it", name, err, tt.want)
		}
	}
}

// Another device is another place to answer at, and so another epoch.
func TestSameReachOfVirtualMAC(t *testing.T) {
	g := withVRRP(func(*Group) {}).Groups[0]
	for name, tt := range map[string]struct {
		was, is func(*Group)
		want    bool
	}{
		"switched on":          {func(*Group) {}, func(g *Group) { g.VMAC = true }, false},
		"of another id":        {func(g *Group) { g.VMAC = true }, func(g *Group) { g.VMAC = true; g.VRRP.ID = 52 }, false},
		"id without one":       {func(*Group) {}, func(g *Group) { g.VRRP.ID = 52 }, true},
		"something else of it": {func(g *Group) { g.VMAC = true }, func(g *Group) { g.VMAC = true; g.VRRP.Priority = 1 }, true},
	} {
		was, is := g, g
		tt.was(&was)
		tt.is(&is)
		if got := SameReach(was, is); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

func TestVRRPWords(t *testing.T) {
	for got, want := range map[string]string{
		ChecksumAuto.String(): "auto", ChecksumPseudoHeader.String(): "pseudo-header", ChecksumPlain.String(): "plain",
		Checksum(9).String(): "checksum(9)", OutrankedYield.String(): "yield", OutrankedHold.String(): "hold", Outranked(0).String(): "outranked(0)",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
