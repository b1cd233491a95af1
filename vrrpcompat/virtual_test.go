package vrrpcompat

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

var (
	ourAddr   = netip.MustParseAddr("192.0.2.5")
	lowAddr   = netip.MustParseAddr("192.0.2.4")
	highAddr  = netip.MustParseAddr("192.0.2.130") // above 127 in its last byte: less than ours for whoever compares signed
	ourAddr6  = netip.MustParseAddr("fe80::5")
	highAddr6 = netip.MustParseAddr("fe80::8000:0:0:0")
)

// virtual3 and virtual2 are virtual router 7 with one second, as version 3 and 2 have it.
func virtual3() Virtual {
	return Virtual{VRID: 7, Family: IPv4, Version: V3, Interval: 100, Addresses: addrs("192.0.2.10", "192.0.2.11")}
}

func virtual2() Virtual {
	v := virtual3()
	v.Version = V2
	return v
}

type virtualReject struct {
	name string
	v    Virtual
	edit func(a *Advert) // what is other than v says
	from netip.Addr
	want Reject // zero: accepted
}

func virtualRejects() []virtualReject {
	password := virtual2()
	password.Auth = Auth{AuthSimple, [8]byte{'a'}}
	both := virtual3()
	both.AlsoV2, both.Interval = true, 50
	same := func(*Advert) {}
	list := func(ss ...string) func(*Advert) { return func(a *Advert) { a.Addresses = addrs(ss...) } }
	asOwner := func(f func(*Advert)) func(*Advert) { return func(a *Advert) { f(a); a.Priority = Owner } }
	partly, disjoint := list("192.0.2.10", "192.0.2.99"), list("192.0.2.98", "192.0.2.99")
	accepted := Reject{}
	return []virtualReject{
		{"v3 as ours", virtual3(), same, highAddr, accepted},
		{"v2 as ours", virtual2(), same, highAddr, accepted},
		{"v2 with our password", password, same, highAddr, accepted},
		{"other vrid", virtual3(), func(a *Advert) { a.VRID = 8 }, highAddr, Reject{ReasonVRIDUnknown, 8, 8, 7}},
		{"own source", virtual3(), same, ourAddr, Reject{ReasonOwnSource, 7, 0, 0}},
		{"own source with a higher priority", virtual3(), asOwner(same), ourAddr, Reject{ReasonOwnSource, 7, 0, 0}},
		{"v2 where v3 is spoken", virtual3(), func(a *Advert) { a.Version = V2 }, highAddr, Reject{ReasonVersionMismatch, 7, 2, 3}},
		{"v3 where v2 is spoken", virtual2(), func(a *Advert) { a.Version = V3 }, highAddr, Reject{ReasonVersionMismatch, 7, 3, 2}},
		{"v2 where both are spoken", both, func(a *Advert) { a.Version, a.Interval = V2, 300 }, highAddr, accepted},
		{"password where none is", virtual2(), func(a *Advert) { a.Auth = password.Auth }, highAddr, Reject{ReasonAuthType, 7, 1, 0}},
		{"no password where one is", password, func(a *Advert) { a.Auth = Auth{} }, highAddr, Reject{ReasonAuthType, 7, 0, 1}},
		{"ah where none is", virtual2(), func(a *Advert) { a.Auth.Type = AuthAH }, highAddr, Reject{ReasonAuthType, 7, 2, 0}},
		{"other password", password, func(a *Advert) { a.Auth.Data[7] = 'x' }, highAddr, Reject{ReasonAuthData, 7, 0, 0}},
		{"v2 with another interval", virtual2(), func(a *Advert) { a.Interval = 200 }, highAddr, Reject{ReasonIntervalMismatch, 7, 200, 100}},
		{"v3 with another interval", virtual3(), func(a *Advert) { a.Interval = 101 }, highAddr, accepted},
		{"other order", virtual2(), list("192.0.2.11", "192.0.2.10"), highAddr, accepted},
		{"one twice", virtual2(), list("192.0.2.11", "192.0.2.10", "192.0.2.11"), highAddr, accepted},
		{"one twice and one missing", virtual2(), list("192.0.2.11", "192.0.2.11"), highAddr, Reject{ReasonAddressList, 7, 1, 2}},
		{"v2 with one more", virtual2(), list("192.0.2.10", "192.0.2.11", "192.0.2.12"), highAddr, Reject{ReasonAddressList, 7, 2, 2}},
		{"v2 with one less", virtual2(), list("192.0.2.10"), highAddr, Reject{ReasonAddressList, 7, 1, 2}},
		{"v2 with one other", virtual2(), partly, highAddr, Reject{ReasonAddressList, 7, 1, 2}},
		{"v2 owner with one other", virtual2(), asOwner(partly), highAddr, accepted},
		{"v3 with one other", virtual3(), partly, highAddr, accepted},
		{"v2 with all others", virtual2(), disjoint, highAddr, Reject{ReasonCollision, 7, 0, 2}},
		{"v2 owner with all others", virtual2(), asOwner(disjoint), highAddr, Reject{ReasonCollision, 7, 0, 2}},
		{"v3 with all others", virtual3(), disjoint, highAddr, Reject{ReasonCollision, 7, 0, 2}},
		{"v3 owner with all others", virtual3(), asOwner(disjoint), highAddr, Reject{ReasonCollision, 7, 0, 2}},
	}
}

func TestVirtualRefuses(t *testing.T) {
	for _, c := range virtualRejects() {
		t.Run(c.name, func(t *testing.T) {
			if err := c.v.Validate(); err != nil {
				t.Fatal(err)
			}
			a := c.v.Advert(c.v.Version, Default)
			c.edit(&a)
			got := c.v.Refuse(a, c.from, ourAddr)
			if got == nil {
				got = &Reject{}
			} else if !strings.Contains(got.Error(), c.want.Reason.String()) {
				t.Errorf("text %q lacks the reason's name", got)
			}
			if *got != c.want {
				t.Errorf("refused with %+v, want %+v", *got, c.want)
			}
		})
	}
}

// A host without a source address of its own has no own adverts either.
func TestVirtualRefusesNothingForWantOfASource(t *testing.T) {
	v := virtual3()
	if r := v.Refuse(v.Advert(V3, Default), netip.Addr{}, netip.Addr{}); r != nil {
		t.Errorf("refused with %v", r)
	}
}

// The longest lists in the worst order neither allocate nor give a wrong answer.
func TestCompareSetsOfManyAddresses(t *testing.T) {
	var a []netip.Addr
	for i := range MaxAddresses {
		a = append(a, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	b := slices.Clone(a)
	slices.Reverse(b)
	if same, all := compareSets(a, b); same != MaxAddresses || !all {
		t.Errorf("reversed: %d in common, all %v", same, all)
	}
	b[100] = ourAddr6
	if same, all := compareSets(a, b); same != MaxAddresses-1 || all {
		t.Errorf("one other: %d in common, all %v", same, all)
	}
	if n := testing.AllocsPerRun(10, func() { compareSets(a, b) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func TestVirtualValidate(t *testing.T) {
	v6 := Virtual{VRID: 7, Family: IPv6, Version: V3, Interval: 100, Addresses: addrs("fe80::7")}
	for _, c := range []struct {
		name string
		v    Virtual
		edit func(v *Virtual)
		want string // "": valid
	}{
		{"v3", virtual3(), func(*Virtual) {}, ""},
		{"v2", virtual2(), func(*Virtual) {}, ""},
		{"v6", v6, func(*Virtual) {}, ""},
		{"v3 and v2 at half a second", virtual3(), func(v *Virtual) { v.AlsoV2, v.Interval = true, 50 }, ""},
		{"v3 and v2 with a password", virtual3(), func(v *Virtual) { v.AlsoV2, v.Auth.Type = true, AuthSimple }, ""},
		{"zero", Virtual{}, func(*Virtual) {}, "no VRRP version(0)"},
		{"v2 for ipv6", v6, func(v *Virtual) { v.Version = V2 }, "no VRRP 2 for ipv6"},
		{"no family", virtual3(), func(v *Virtual) { v.Family = 0 }, "no VRRP 3 for family(0)"},
		{"v2 beside v2", virtual2(), func(v *Virtual) { v.AlsoV2 = true }, "only version 3"},
		{"v2 beside ipv6", v6, func(v *Virtual) { v.AlsoV2 = true }, "only version 3"},
		{"vrid 0", virtual3(), func(v *Virtual) { v.VRID = 0 }, "must be 1 to 255"},
		{"v2 at half a second", virtual2(), func(v *Virtual) { v.Interval = 50 }, "whole seconds"},
		{"no address", virtual3(), func(v *Virtual) { v.Addresses = nil }, "must be 1 to 255"},
		{"other family", virtual3(), func(v *Virtual) { v.Addresses = addrs("fe80::1") }, "not of family ipv4"},
		{"v3 with a password", virtual3(), func(v *Virtual) { v.Auth.Type = AuthSimple }, "no authentication"},
		{"ah", virtual2(), func(v *Virtual) { v.Auth.Type = AuthAH }, "cannot be sent"},
	} {
		c.edit(&c.v)
		err := c.v.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error = %v, want one with %q", c.name, err, c.want)
		}
	}
}

// RFC 9568, section 8.4.2: both versions at the configured rate; the older one can only say whole seconds.
func TestVirtualAdverts(t *testing.T) {
	v := virtual3()
	v.AlsoV2, v.Interval = true, 130
	v.Auth = Auth{AuthSimple, [8]byte{'a'}}
	want := []Advert{
		{V3, 7, 150, 130, Auth{}, v.Addresses},
		{V2, 7, 150, 200, v.Auth, v.Addresses},
	}
	if got := v.Adverts(150); !slices.EqualFunc(got, want, sameAdvert) {
		t.Errorf("both versions: %+v, want %+v", got, want)
	}
	v2 := virtual2()
	if got, want := v2.Adverts(Release), []Advert{{V2, 7, 0, 100, Auth{}, v2.Addresses}}; !slices.EqualFunc(got, want, sameAdvert) {
		t.Errorf("version 2: %+v, want %+v", got, want)
	}
}
