package wire

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vrrpcompat"
)

func TestChoose(t *testing.T) {
	const deprecated, tentative, dadFailed, optimistic, sec, temporary = 0x20, 0x40, 0x08, 0x04, 0x01, 0x01
	at := func(prefix string, flags int) hostAddr { return hostAddr{netip.MustParsePrefix(prefix), flags} }
	group4, group6 := vrrpcompat.GroupIPv4.String(), vrrpcompat.GroupIPv6.String()
	own, vip, second := at("192.0.2.1/24", 0), at("192.0.2.100/24", 0), at("192.0.2.1/24", sec)
	ll, global := at("fe80::1/64", 0), at("2001:db8::1/64", 0)
	for _, c := range []struct {
		name  string
		to    string
		addrs []hostAddr
		want  string // an address, or part of why not
	}{
		{"the first", group4, []hostAddr{own, at("198.51.100.1/24", 0)}, "192.0.2.1"},
		{"none", group4, nil, "it has no address of the family; adverts need a primary IPv4 address"},
		{"none of the family", group4, []hostAddr{ll, global}, "it has no address of the family; adverts need a primary IPv4 address"},
		{"none of the family", group6, []hostAddr{own}, "it has no address of the family; adverts need an IPv6 link-local address"},
		{"behind a virtual one", group4, []hostAddr{vip, at("198.51.100.1/24", 0)}, "198.51.100.1"},
		{"virtual only", group4, []hostAddr{vip}, "192.0.2.100 is a virtual address; adverts need"},
		{"secondary of the host's own", group4, []hostAddr{at("192.0.2.1/24", deprecated), at("192.0.2.7/24", sec)}, "192.0.2.7 is secondary"},
		{"secondary of a virtual one", group4, []hostAddr{vip, second}, "192.0.2.1"},
		{"virtual and secondary of a virtual one", group4, []hostAddr{vip, at("192.0.2.101/24", sec)}, "192.0.2.101 is a virtual address"},
		{"a primary before a secondary of a virtual one", group4, []hostAddr{vip, second, at("198.51.100.1/24", 0)}, "198.51.100.1"},
		{"secondary of nothing", group4, []hostAddr{second}, "192.0.2.1 is secondary"},
		{"deprecated", group4, []hostAddr{at("192.0.2.1/24", deprecated)}, "192.0.2.1 is deprecated"},
		{"to a peer, the first", "203.0.113.9", []hostAddr{own, at("198.51.100.1/24", 0)}, "192.0.2.1"},
		{"to a peer, of its network", "198.51.100.9", []hostAddr{own, at("198.51.100.1/24", 0)}, "198.51.100.1"},
		{"to a peer, not the virtual one of its network", "192.0.2.9", []hostAddr{at("198.51.100.1/24", 0), vip}, "198.51.100.1"},
		{"link-local", group6, []hostAddr{global, ll}, "fe80::1"},
		{"not link-local", group6, []hostAddr{global}, "2001:db8::1 is not link-local"},
		{"tentative", group6, []hostAddr{at("fe80::1/64", tentative)}, "has not passed"},
		{"optimistic", group6, []hostAddr{at("fe80::1/64", tentative|optimistic)}, "fe80::1"},
		{"duplicate", group6, []hostAddr{at("fe80::1/64", tentative|dadFailed)}, "another host has it"},
		{"virtual link-local first", group6, []hostAddr{at("fe80::33/64", 0), ll}, "fe80::1"},
		{"to a link-local peer", "fe80::9", []hostAddr{global, ll}, "fe80::1"},
		{"to a peer elsewhere", "2001:db8:9::9", []hostAddr{ll, global}, "2001:db8::1"},
		{"to a peer of the network", "2001:db8:9::9", []hostAddr{ll, global, at("2001:db8:9::1/64", 0)}, "2001:db8:9::1"},
		{"temporary", "2001:db8:9::9", []hostAddr{at("2001:db8::7/64", temporary), global}, "2001:db8::1"},
		{"to a peer elsewhere without a global one", "2001:db8:9::9", []hostAddr{ll}, "fe80::1 is link-local; adverts need an IPv6 address of its own that is not link-local, to reach 2001:db8:9::9"},
	} {
		to := netip.MustParseAddr(c.to)
		virtual := []string{"192.0.2.100", "192.0.2.101", "fe80::33"}
		got, why := choose(c.addrs, vrrpcompat.FamilyOf(to), to, func(a netip.Addr) bool { return slices.Contains(virtual, a.String()) })
		if want, err := netip.ParseAddr(c.want); err == nil && (got != want || why != "") || err != nil && !strings.Contains(why, c.want) {
			t.Errorf("%s, to %s: %v, %q; want %s", c.name, to, got, why, c.want)
		}
	}
}

// The kernel's own list, in the order and with the flags that choose expects.
func TestSource(t *testing.T) {
	a, _ := newHosts(t)
	own6 := a.source(t, vrrpcompat.IPv6)
	add := func(args ...string) {
		t.Helper()
		run(t, append([]string{"ip", "-n", a.netns, "addr", "add", "dev", a.ifname}, args...)...)
	}
	add("192.0.2.100/24")  // secondary of 192.0.2.1
	add("198.51.100.7/24") // primary of another network
	add("2001:db8::1/64", "nodad")
	add("2001:db8::100/64", "nodad")
	virtual := []string{"192.0.2.100", "2001:db8::100"}
	tr, err := New(Options{Receive: func(*Packet) {}, In: a.in(t), IsVirtual: func(x netip.Addr) bool { return slices.Contains(virtual, x.String()) }})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	for to, want := range map[string]string{
		"224.0.0.18": "192.0.2.1", "192.0.2.9": "192.0.2.1", "198.51.100.9": "198.51.100.7",
		"ff02::12": own6.String(), "fe80::9": own6.String(), "2001:db8::9": "2001:db8::1",
	} {
		addr := netip.MustParseAddr(to)
		if got, err := tr.Source(a.ifname, vrrpcompat.FamilyOf(addr), addr); err != nil || got.String() != want {
			t.Errorf("to %s: %v, %v; want %s", to, got, err, want)
		}
	}
	if _, err := tr.Source("nosuch0", vrrpcompat.IPv4, vrrpcompat.GroupIPv4); !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "nosuch0") {
		t.Errorf("on no device: %v", err)
	}
	for _, f := range []vrrpcompat.Family{0, vrrpcompat.IPv6} {
		if _, err := tr.Source(a.ifname, f, vrrpcompat.GroupIPv4); err == nil || !strings.Contains(err.Error(), "not of family") {
			t.Errorf("family %v to %v: %v", f, vrrpcompat.GroupIPv4, err)
		}
	}
}
