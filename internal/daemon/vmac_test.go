package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/vipctl/fence"
	"github.com/quorate/quorate/vipctl/kernel"
	"github.com/quorate/quorate/vrrpcompat"
)

// A fakeKernel keeps a journal and fails as it is told.
type fakeKernel struct {
	journal []string
	fail    map[string][]error // by call, what it says the next times
	made    int
}

func (k *fakeKernel) note(call string, args ...any) error {
	k.journal = append(k.journal, strings.TrimSpace(call+" "+fmt.Sprint(args...)))
	if errs := k.fail[call]; len(errs) > 0 {
		k.fail[call] = errs[1:]
		return errs[0]
	}
	return nil
}

func mac(v kernel.VirtualMAC) string { return fmt.Sprintf("%s/%v/%d", v.Parent, v.Family, v.VRID) }

func (k *fakeKernel) EnsureVirtualMAC(v kernel.VirtualMAC) (kernel.LinkInfo, error) {
	k.made++
	return kernel.LinkInfo{Name: fmt.Sprintf("qv-%d", k.made)}, k.note("ensure", mac(v))
}
func (k *fakeKernel) RaiseVirtualMAC(v kernel.VirtualMAC) error  { return k.note("raise", mac(v)) }
func (k *fakeKernel) LowerVirtualMAC(v kernel.VirtualMAC) error  { return k.note("lower", mac(v)) }
func (k *fakeKernel) RemoveVirtualMAC(v kernel.VirtualMAC) error { return k.note("remove", mac(v)) }
func (k *fakeKernel) add(at []kernel.Address) error {
	for _, a := range at {
		if err := k.note("add", a.Prefix.Addr(), "@"+a.Link); err != nil {
			return err
		}
	}
	return nil
}
func (k *fakeKernel) RemoveAddresses(at []kernel.Address) error {
	for _, a := range at {
		if err := k.note("del", a.Prefix.Addr(), "@"+a.Link); err != nil {
			return err
		}
	}
	return nil
}

// takes returns the journal since the last time.
func (k *fakeKernel) takes() []string {
	out := k.journal
	k.journal = nil
	return out
}

type vmacTest struct {
	*vmacs
	*fakeKernel
	t   *testing.T
	doc fsm.Document
}

func newVMACTest(t *testing.T, groups ...fsm.Group) *vmacTest {
	vt := &vmacTest{fakeKernel: &fakeKernel{fail: map[string][]error{}}, t: t, doc: fsm.Document{Groups: groups}}
	vt.vmacs = newVMACs(vt.fakeKernel, "abc", func() fsm.Document { return vt.doc }, func() error { return vt.note("cover") }, slog.New(slog.DiscardHandler))
	return vt
}

func (vt *vmacTest) AddAddress(p netip.Prefix) error {
	return vt.put([]core.Place{{Link: "eth0", Prefix: p}}, vt.fakeKernel.add)
}

func (vt *vmacTest) RemoveAddress(p netip.Prefix) error {
	return vt.take([]core.Place{{Link: "eth0", Prefix: p}})
}

func (vt *vmacTest) wants(err error, journal ...string) {
	vt.t.Helper()
	if err != nil {
		vt.t.Fatal(err)
	}
	if got := vt.takes(); !slices.Equal(got, journal) {
		vt.t.Fatalf("\ngot  %q\nwant %q", got, journal)
	}
}

// speaksVia checks where the adverts of IPv4 go out.
func (vt *vmacTest) speaksVia(want string) {
	vt.t.Helper()
	got, ok := vt.via(routerKey{port{"eth0", vrrpcompat.IPv4}, 51})
	if got != want || ok != (want != "") {
		vt.t.Fatalf("adverts go out by %q, %v, want %q", got, ok, want)
	}
}

func onEth0(g fsm.Group) (at []core.Place) {
	for _, p := range g.Addresses {
		at = append(at, core.Place{Link: "eth0", Prefix: p})
	}
	return at
}

// TestVMACLife: no address is on a device before the fence is, and none is up without
// an address.
func TestVMACLife(t *testing.T) {
	second := netip.MustParsePrefix("10.0.0.201/24")
	g := group(func(g *fsm.Group) { g.VMAC = true; g.Addresses = []netip.Prefix{vip, second, vip6} })
	vt := newVMACTest(t, g)
	vt.wants(vt.serve(g, onEth0(g)), "ensure eth0/ipv4/51", "cover", "ensure eth0/ipv6/51", "cover")
	vt.wants(vt.serve(g, onEth0(g)))
	vt.speaksVia("") // it is down: the first advert of a takeover goes out below
	vt.wants(vt.AddAddress(vip), "raise eth0/ipv4/51", "add 10.0.0.200@qv-1")
	vt.speaksVia("qv-1")
	vt.wants(vt.AddAddress(second), "add 10.0.0.201@qv-1")
	vt.wants(vt.AddAddress(vip6), "raise eth0/ipv6/51", "add 2001:db8::200@qv-2")
	vt.wants(vt.AddAddress(vip), "add 10.0.0.200@qv-1") // its lifetime is renewed
	if got := vt.allOver("eth0", []netip.Addr{vip6.Addr()}); len(got["qv-2"]) != 1 {
		t.Errorf("announces from %v", got)
	}
	if below, ok := vt.parent("qv-1"); !ok || below != "eth0" {
		t.Errorf("parent of qv-1: %q, %v", below, ok)
	}
	vt.wants(vt.RemoveAddress(vip), "del 10.0.0.200@qv-1")
	vt.wants(vt.RemoveAddress(vip), "del 10.0.0.200@eth0") // it is on neither
	vt.wants(vt.RemoveAddress(second), "del 10.0.0.201@qv-1", "lower eth0/ipv4/51")
	vt.speaksVia("") // and the release
	// The group goes while one of its addresses is still on: the device goes with that.
	vt.wants(vt.serve(g, nil), "remove eth0/ipv4/51")
	vt.doc = fsm.Document{}
	vt.wants(vt.RemoveAddress(vip6), "del 2001:db8::200@qv-2", "lower eth0/ipv6/51", "remove eth0/ipv6/51")
}

// TestVMACLate: a group that was not announced gets its device in time, and others
// stay where they are.
func TestVMACLate(t *testing.T) {
	g := group(func(g *fsm.Group) { g.VMAC = true })
	vt := newVMACTest(t, g, group(func(g *fsm.Group) { g.Name, g.Addresses = "db", []netip.Prefix{vip6} }))
	vt.wants(vt.AddAddress(vip), "ensure eth0/ipv4/51", "cover", "raise eth0/ipv4/51", "add 10.0.0.200@qv-1")
	vt.wants(vt.AddAddress(vip6), "add 2001:db8::200@eth0")
	vt.wants(vt.RemoveAddress(vip6), "del 2001:db8::200@eth0")
	if got := vt.allOver("eth0", []netip.Addr{vip6.Addr()}); len(got["eth0"]) != 1 {
		t.Errorf("announces from %v", got)
	}
}

// TestVMACFails: without the fence nothing is set up and no address added; what may
// have been added is taken off; a device that went with the one below is made again.
func TestVMACFails(t *testing.T) {
	broken := errors.New("broken")
	g := group(func(g *fsm.Group) { g.VMAC = true })
	vt := newVMACTest(t, g)
	vt.fail["cover"] = []error{broken}
	if err := vt.AddAddress(vip); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	vt.wants(nil, "ensure eth0/ipv4/51", "cover")

	vt.fail["add"] = []error{broken}
	if err := vt.AddAddress(vip); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	vt.wants(nil, "ensure eth0/ipv4/51", "cover", "raise eth0/ipv4/51", "add 10.0.0.200@qv-2")
	vt.fail["del"] = []error{broken}
	if err := vt.RemoveAddress(vip); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	vt.takes()
	vt.fail["lower"] = []error{broken}
	if err := vt.RemoveAddress(vip); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	vt.wants(nil, "del 10.0.0.200@qv-2", "lower eth0/ipv4/51")
	vt.wants(vt.RemoveAddress(vip), "del 10.0.0.200@qv-2", "lower eth0/ipv4/51", "remove eth0/ipv4/51")
	vt.wants(vt.AddAddress(vip), "ensure eth0/ipv4/51", "cover", "raise eth0/ipv4/51", "add 10.0.0.200@qv-3")

	vt.fail["add"] = []error{fmt.Errorf("qv-3: %w", kernel.ErrNoLink)}
	vt.wants(vt.AddAddress(vip), "add 10.0.0.200@qv-3", "ensure eth0/ipv4/51", "cover", "raise eth0/ipv4/51", "add 10.0.0.200@qv-4")
	vt.speaksVia("qv-4")
	vt.fail["add"] = []error{kernel.ErrNoLink}
	vt.fail["ensure"] = []error{kernel.ErrNoLink}
	if err := vt.AddAddress(vip); !errors.Is(err, kernel.ErrNoLink) {
		t.Fatal(err)
	}
	vt.speaksVia("")
}

// A fakeFence is the fence as a map.
type fakeFence map[netip.Addr]election.Instant

func (f fakeFence) Set(addrs []netip.Addr, until election.Instant) error {
	for _, a := range addrs {
		f[a] = until
	}
	return nil
}

func (f fakeFence) Delete(addrs []netip.Addr) error {
	for _, a := range addrs {
		delete(f, a)
	}
	return nil
}

// TestMACFence: the hardware address is open as long as an address of a group with it
// is, and shut before the last one is forgotten.
func TestMACFence(t *testing.T) {
	second, elsewhere := netip.MustParsePrefix("10.0.0.201/24"), netip.MustParsePrefix("10.1.0.200/24")
	doc := fsm.Document{Groups: []fsm.Group{
		group(func(g *fsm.Group) { g.VMAC = true; g.Addresses = []netip.Prefix{vip, second, vip6} }),
		group(func(g *fsm.Group) {
			g.Name, g.VMAC, g.Addresses, g.Interface = "db", true, []netip.Prefix{elsewhere}, "eth1"
		}),
		group(func(g *fsm.Group) {
			g.Name, g.Addresses = "mail", []netip.Prefix{netip.MustParsePrefix("10.0.0.202/24")}
		}),
	}}
	v4 := fence.OfMAC(kernel.VirtualMAC{Family: 1, VRID: 51}.MAC())
	v6 := fence.OfMAC(kernel.VirtualMAC{Family: 2, VRID: 51}.MAC())
	inner := fakeFence{}
	f := newMACFence(inner, func() fsm.Document { return doc })
	set := func(p netip.Prefix, until election.Instant) {
		t.Helper()
		if err := f.Set([]netip.Addr{p.Addr()}, until); err != nil || inner[p.Addr()] != until {
			t.Fatalf("%s: %d, error %v", p, inner[p.Addr()], err)
		}
	}
	open := func(a netip.Addr, want election.Instant) {
		t.Helper()
		if got, ok := inner[a]; !ok || got != want {
			t.Fatalf("%s: %d, %v, want %d", a, got, ok, want)
		}
	}
	set(vip, 100)
	set(second, 100)
	set(vip6, 100)
	open(v4, 100)
	open(v6, 100)
	set(elsewhere, 300)
	open(v4, 300)
	set(netip.MustParsePrefix("10.0.0.202/24"), 900)
	open(v4, 300)
	set(elsewhere, 0)
	open(v4, 100)
	set(vip, 0)
	set(second, 0)
	open(v4, 0)
	doc = fsm.Document{} // what it no longer knows is shut and forgotten all the same
	set(vip6, 0)
	open(v6, 0)
	for _, p := range []netip.Prefix{vip, second, elsewhere} {
		open(v4, 0)
		if err := f.Delete([]netip.Addr{p.Addr()}); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := inner[v4]; ok || len(f.macs) != 1 || len(f.until) != 1 {
		t.Errorf("left: %v, %v, %v", inner, f.macs, f.until)
	}
}
