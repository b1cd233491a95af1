package wire

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/quorate/quorate/vrrpcompat"
)

func TestSourceAddressIPv4(t *testing.T) {
	a, _ := newHosts(t)
	add := func(args ...string) {
		t.Helper()
		run(t, append([]string{"ip", "-n", a.netns, "addr", "add", "dev", a.ifname}, args...)...)
	}
	add("192.0.2.100/24")  // secondary of 192.0.2.1
	add("198.51.100.7/24") // primary of another network
	cases := []struct {
		exclude []string
		want    string
	}{
		{nil, "192.0.2.1"},
		{[]string{"192.0.2.100"}, "192.0.2.1"},
		{[]string{"192.0.2.1"}, "198.51.100.7"},
	}
	for _, c := range cases {
		got, err := a.sourceAddress(t, vrrpcompat.IPv4, func(x netip.Addr) bool { return slices.Contains(c.exclude, x.String()) })
		if err != nil || got.String() != c.want {
			t.Errorf("without %v: %v, %v; want %s", c.exclude, got, err, c.want)
		}
	}
	run(t, "ip", "-n", a.netns, "addr", "change", "198.51.100.7/24", "dev", a.ifname, "preferred_lft", "0")
	_, err := a.sourceAddress(t, vrrpcompat.IPv4, func(x netip.Addr) bool { return x.String() == "192.0.2.1" })
	for _, want := range []string{"192.0.2.1 is a virtual address", "192.0.2.100 is secondary", "198.51.100.7 is deprecated", "ip addr add"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing fits: %v; want an error with %q", err, want)
		}
	}
}

func TestSourceAddressIPv6(t *testing.T) {
	a, _ := newHosts(t)
	own := a.source(t, vrrpcompat.IPv6)
	if !own.IsLinkLocalUnicast() || own.Zone() != "" {
		t.Fatalf("source %v, want a link-local address without zone", own)
	}
	run(t, "ip", "-n", a.netns, "addr", "add", "2001:db8::1/64", "dev", a.ifname, "nodad")
	if got, err := a.sourceAddress(t, vrrpcompat.IPv6, nil); err != nil || got != own {
		t.Errorf("beside a global address: %v, %v; want %v", got, err, own)
	}
	_, err := a.sourceAddress(t, vrrpcompat.IPv6, func(x netip.Addr) bool { return x == own })
	for _, want := range []string{own.String() + " is a virtual address", "2001:db8::1 is not link-local"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing fits: %v; want an error with %q", err, want)
		}
	}
	run(t, "ip", "-n", a.netns, "addr", "add", "fe80::33/64", "dev", a.ifname, "nodad")
	got, err := a.sourceAddress(t, vrrpcompat.IPv6, func(x netip.Addr) bool { return x == own })
	if err != nil || got != netip.MustParseAddr("fe80::33") {
		t.Errorf("with another link-local address: %v, %v; want fe80::33", got, err)
	}
}

func TestSourceAddressErrorsTeach(t *testing.T) {
	ns := newNetns(t)
	run(t, "ip", "-n", ns, "link", "add", "bare", "type", "veth", "peer", "name", "other")
	for _, c := range []struct {
		ifname string
		family vrrpcompat.Family
		want   string
	}{
		{"bare", vrrpcompat.IPv4, "no address of the family; adverts need a primary IPv4 address"},
		{"bare", vrrpcompat.IPv6, "no address of the family; adverts need an IPv6 link-local address"},
		{"nosuch0", vrrpcompat.IPv4, "nosuch0"},
		{"bare", 0, "neither ipv4 nor ipv6"},
	} {
		_, err := host{ns, c.ifname}.sourceAddress(t, c.family, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("SourceAddress(%s, %v): %v; want an error with %q", c.ifname, c.family, err, c.want)
		}
	}
}

// A flag says that the kernel would not send from the address.
func TestUnfit(t *testing.T) {
	const tentative, dadFailed, optimistic, secondary = 0x40, 0x08, 0x04, 0x01
	ll, v4 := netip.MustParseAddr("fe80::1"), netip.MustParseAddr("192.0.2.1")
	for _, c := range []struct {
		addr  netip.Addr
		flags int
		want  string
	}{
		{ll, 0, ""},
		{ll, secondary, ""}, // for IPv6 the bit says "temporary"
		{ll, tentative, "has not passed"},
		{ll, tentative | optimistic, ""},
		{ll, tentative | dadFailed, "another host has it"},
		{v4, 0, ""},
		{v4, secondary, "is secondary"},
	} {
		got := unfit(c.addr, c.flags, vrrpcompat.FamilyOf(c.addr))
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("unfit(%v, 0x%x) = %q, want %q", c.addr, c.flags, got, c.want)
		}
	}
}
