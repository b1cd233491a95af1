package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vipctl/internal/nstest"
)

// manyAt returns n addresses of eth0, every tenth of IPv6.
func manyAt(n int) (at []Address) {
	a4, a6 := netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("2001:db8:7::1")
	for i := range n {
		if i%10 == 9 {
			at = append(at, Address{Link: "eth0", Prefix: netip.PrefixFrom(a6, 64)})
			a6 = a6.Next()
			continue
		}
		at = append(at, Address{Link: "eth0", Prefix: netip.PrefixFrom(a4, 16)})
		a4 = a4.Next()
	}
	return at
}

// standing returns the host's addresses but those of loopback, as text.
func standing(t testing.TB, k *Kernel) (all []string) {
	t.Helper()
	have, err := k.addresses(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range have {
		if a.index != 1 {
			all = append(all, fmt.Sprintf("%s dev %d", a.prefix, a.index))
		}
	}
	slices.Sort(all)
	return all
}

func put(t testing.TB, k *Kernel, at ...Address) {
	t.Helper()
	if err := k.AddAddresses(at, time.Minute); err != nil {
		t.Fatal(err)
	}
}

func look(t testing.TB, k *Kernel) *View {
	t.Helper()
	v, err := k.Look()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestThousand(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	before := standing(t, k)
	at := manyAt(1000)
	put(t, k, at...)
	if got := len(standing(t, k)) - len(before); got != 1000 {
		t.Fatalf("%d of 1000 are there", got)
	}
	v := look(t, k)
	if d, err := v.Audit(at, nil, nil); err != nil || !d.Empty() {
		t.Errorf("audit: %v, %v", d, err)
	}
	if err := k.RenewAddresses(v, at, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, a := range []Address{at[0], at[9], at[500], at[998], at[999]} {
		if have := find(t, k, a.Prefix); have == nil || have.valid < time.Minute || have.protocol != Protocol {
			t.Errorf("after renewal %v", have)
		}
	}
	if err := k.RemoveAddresses(at); err != nil {
		t.Fatal(err)
	}
	if got := standing(t, k); !slices.Equal(got, before) {
		t.Errorf("left: %v", got)
	}
	checkOnLink(t, k, host, true)
}

// TestAllOrNothing: whatever is refused, at the start, in the middle or at the end, and in a later system call, leaves the
// host as it was.
func TestAllOrNothing(t *testing.T) {
	k, host, neighbour := lan(t)
	nstest.Connect(t, host, "eth1", neighbour, "eth1")
	number(t, host, "1")
	host.Run(t, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/eth1/disable_ipv6", []byte("1"), 0) })
	before := standing(t, k)
	bad := map[string]Address{
		"no such device": {Link: "eth9", Prefix: vip4},
		"disable_ipv6":   {Link: "eth1", Prefix: vip6}, // only the kernel knows
		"the host's":     {Link: "eth0", Prefix: netip.MustParsePrefix("192.0.2.1/24")},
		"valid prefix":   {Link: "eth0"},
	}
	for what, wrong := range bad {
		for _, place := range []int{0, chunk - 1, 300} {
			at := slices.Insert(manyAt(300), place, wrong)
			err := k.AddAddresses(at, time.Minute)
			if err == nil {
				t.Errorf("%s at %d: no error", what, place)
			} else if want := strings.TrimSuffix(what, "'s"); !strings.Contains(err.Error(), want) {
				t.Errorf("%s at %d: the error does not say so: %v", what, place, err)
			}
			if got := standing(t, k); !slices.Equal(got, before) {
				t.Errorf("%s at %d: %d addresses are left", what, place, len(got)-len(before))
			}
		}
	}
	// What was there before stays.
	put(t, k, Address{Link: "eth0", Prefix: vip4})
	if err := k.AddAddresses([]Address{{Link: "eth0", Prefix: vip4}, {Link: "eth0", Prefix: vip6}, bad["disable_ipv6"]}, time.Minute); err == nil {
		t.Error("no error")
	}
	if find(t, k, vip4) == nil || find(t, k, vip6) != nil {
		t.Errorf("there now: %v", standing(t, k))
	}
}

func TestKinds(t *testing.T) {
	k, host, neighbour := lan(t)
	nstest.Connect(t, host, "eth1", neighbour, "eth1")
	number(t, host, "1")
	p := netip.MustParsePrefix
	at := []Address{
		{Link: "eth0", Prefix: p("192.0.2.210/25"), Spec: fsm.AddressSpec{Scope: fsm.ScopeLink, Label: "eth0:web"}},
		{Link: "eth1", Prefix: p("198.51.100.5/24"), Spec: fsm.AddressSpec{NoPrefixRoute: true}},
		{Link: "eth1", Prefix: p("203.0.113.5/24")},
		{Link: "eth1", Prefix: p("203.0.113.6/32"), Spec: fsm.AddressSpec{Scope: fsm.ScopeHost}},
		{Link: "eth1", Prefix: p("2001:db8:2::5/64")},
		{Link: "eth1", Prefix: p("2001:db8:3::5/64"), Spec: fsm.AddressSpec{NoPrefixRoute: true}},
		{Link: "eth1", Prefix: p("2001:db8:4::5/128")},
	}
	for range 2 { // and renewed
		put(t, k, at...)
		for _, a := range at {
			have := find(t, k, a.Prefix)
			if have == nil {
				t.Fatalf("%s is missing", a)
			}
			if want := scopeOf(a.Spec.Scope); a.Prefix.Addr().Is4() && have.scope != want {
				t.Errorf("%s: scope %d, want %d", a, have.scope, want)
			}
			if want := a.Spec.Label; a.Prefix.Addr().Is4() && have.label != want && (want != "" || have.label != a.Link) {
				t.Errorf("%s: label %q, want %q", a, have.label, want)
			}
			if got, want := have.flags&unix.IFA_F_NOPREFIXROUTE != 0, a.Spec.NoPrefixRoute || a.Prefix.IsSingleIP() || a.Link == "eth0"; got != want {
				t.Errorf("%s: noprefixroute %v, want %v", a, got, want)
			}
			if a.Prefix.Addr().Is6() && (have.flags&unix.IFA_F_DEPRECATED == 0 || have.flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0) {
				t.Errorf("%s: flags %#x", a, have.flags)
			}
			if have.protocol != Protocol {
				t.Errorf("%s: protocol %d", a, have.protocol)
			}
		}
	}
	wrong := Address{Link: "eth0", Prefix: p("192.0.2.211/24"), Spec: fsm.AddressSpec{Scope: fsm.ScopeLink}}
	if err := k.AddAddresses([]Address{wrong}, time.Minute); err == nil || !strings.Contains(err.Error(), "one scope") {
		t.Errorf("another scope than the host's in one network: %v", err)
	}
	// A change of the configuration: another scope, label, or route.
	at[0].Spec, at[2].Spec, at[4].Spec = fsm.AddressSpec{Label: "eth0:x"}, fsm.AddressSpec{NoPrefixRoute: true}, fsm.AddressSpec{NoPrefixRoute: true}
	d, err := look(t, k).Audit(at, nil, nil)
	if err != nil || len(d.Addresses) != 3 {
		t.Errorf("audit after a change: %v, %v", d.Addresses, err)
	}
	put(t, k, d.Addresses...)
	if d, err = look(t, k).Audit(at, nil, nil); err != nil || !d.Empty() {
		t.Errorf("audit after mending: %v, %v", d.Addresses, err)
	}
	if err := k.RemoveAddresses(at); err != nil {
		t.Fatal(err)
	}
	checkOnLink(t, k, host, true)
}

// replace has another program put an address with a lifetime there, such as a DHCP client does.
func replace(t *testing.T, host *nstest.Host, p netip.Prefix) {
	t.Helper()
	host.Run(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		a := netlinkAddr(p)
		a.ValidLft, a.PreferedLft = 600, 600
		return netlink.AddrReplace(l, a)
	})
}

// TestMark: an address with a lifetime that somebody else has put there is not ours.
func TestMark(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	all := func(netip.Addr) bool { return true }
	if !k.marks(nil) {
		t.Fatal("this kernel is older than 5.18: nothing to see here")
	}
	for _, p := range vips {
		replace(t, host, p)
		at := []Address{{Link: "eth0", Prefix: p}}
		if err := k.AddAddresses(at, time.Minute); err == nil || !strings.Contains(err.Error(), "another one") {
			t.Errorf("%s: taken over: %v", p, err)
		}
		if err := k.RemoveAddresses(at); err == nil || !strings.Contains(err.Error(), "goes on answering") {
			t.Errorf("%s: said to be gone: %v", p, err)
		}
		if d, err := look(t, k).Audit(at, nil, nil); err != nil || len(d.Addresses) != 1 {
			t.Errorf("%s: is as it should be: %v %v", p, d, err)
		}
	}
	if left, err := k.Leftovers(all); err != nil || len(left) != 0 {
		t.Errorf("leftovers: %v, %v", left, err)
	}
	foreign, err := k.Foreign(func(a netip.Addr) bool { return a == vip4.Addr() || a == netip.MustParseAddr("192.0.2.1") })
	if err != nil || len(foreign) != 2 {
		t.Errorf("foreign: %v, %v", foreign, err)
	}

	// One of ours that somebody has touched is still ours in this life, and not in the next.
	mine := netip.MustParsePrefix("192.0.2.201/24")
	put(t, k, Address{Link: "eth0", Prefix: mine})
	replace(t, host, mine)
	next := open(t, host)
	if left, err := next.Leftovers(all); err != nil || len(left) != 0 {
		t.Errorf("leftovers in the next life: %v, %v", left, err)
	}
	put(t, k, Address{Link: "eth0", Prefix: mine})
	if left, err := next.Leftovers(all); err != nil || len(left) != 1 || left[0].Prefix != mine {
		t.Errorf("leftovers: %v, %v", left, err)
	}
	if err := next.RemoveAddresses([]Address{{Link: "eth0", Prefix: mine}}); err != nil {
		t.Errorf("the next life cannot remove it: %v", err)
	}
}

// TestWithoutMarks: on a kernel that has none a lifetime is what tells ours.
func TestWithoutMarks(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	replace(t, host, vip4)
	v := look(t, k)
	v.marks = false
	for p, want := range map[netip.Prefix]bool{vip4: true, netip.MustParsePrefix("192.0.2.1/24"): false} {
		if have := find(t, k, p); v.ours(*have) != want {
			t.Errorf("%s: ours is %v", p, !want)
		}
	}
}

// TestRenamed: a device that is renamed while it is up keeps its addresses.
func TestRenamed(t *testing.T) {
	k, host, neighbour := lan(t)
	number(t, host, "1")
	conn, mac := neighbour.Open(t, "eth0"), neighbour.MAC(t, "eth0")
	at := []Address{{Link: "eth0", Prefix: vip4}, {Link: "eth0", Prefix: vip6}}
	put(t, k, at...)
	host.Run(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		err = netlink.LinkSetName(l, "new0")
		if errors.Is(err, unix.EBUSY) { // before Linux 6.2
			return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, "new0"), netlink.LinkSetUp(l))
		}
		return err
	})
	if _, ok := nstest.Asks(t, conn, mac, vip4.Addr(), long); !ok {
		t.Fatal("it does not answer after the renaming: this test proves nothing")
	}
	if err := k.RemoveAddresses(at); err != nil {
		t.Fatal(err)
	}
	if left, err := k.Leftovers(func(netip.Addr) bool { return true }); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestMainAddressLost: the route for the virtual address's network goes with the host's own
// address, and has to come from ours then; and an address may come and go beside it.
func TestMainAddressLost(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	at := []Address{{Link: "eth0", Prefix: vip4}, {Link: "eth0", Prefix: vip6}}
	put(t, k, at...)
	host.Run(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrDel(l, netlinkAddr(netip.MustParsePrefix("192.0.2.1/24"))),
			netlink.AddrDel(l, netlinkAddr(netip.MustParsePrefix("2001:db8::1/64"))))
	})
	d, err := look(t, k).Audit(at, nil, nil)
	if err != nil || len(d.Addresses) != 2 {
		t.Fatalf("audit: %v, %v", d, err)
	}
	put(t, k, d.Addresses...)
	if d, err = look(t, k).Audit(at, nil, nil); err != nil || !d.Empty() {
		t.Errorf("audit after mending: %v, %v", d, err)
	}
	host.Run(t, func() error {
		for _, dst := range []string{"192.0.2.77", "2001:db8::77"} {
			if routes, err := netlink.RouteGet(netip.MustParseAddr(dst).AsSlice()); err != nil || routes[0].Gw != nil {
				t.Errorf("route to %s: %v, %v", dst, routes, err)
			}
		}
		return nil
	})
	number(t, host, "1") // it is back
	if d, err = look(t, k).Audit(at, nil, nil); err != nil || !d.Empty() {
		t.Errorf("audit with the host's address back: %v, %v", d, err)
	}
	if err := k.RemoveAddresses(at); err != nil {
		t.Fatal(err)
	}
	checkOnLink(t, k, host, true)
}

// TestRenewWithAnOldView: what has come or gone since does not matter.
func TestRenewWithAnOldView(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	at := []Address{{Link: "eth0", Prefix: vip4}, {Link: "eth0", Prefix: vip6}}
	empty := look(t, k)
	put(t, k, at...)
	full := look(t, k)
	if err := k.RenewAddresses(empty, at, time.Minute); err != nil {
		t.Errorf("came since: %v", err)
	}
	if err := k.RemoveAddresses(at[:1]); err != nil {
		t.Fatal(err)
	}
	if err := k.RenewAddresses(full, at, time.Minute); err != nil {
		t.Errorf("gone since: %v", err)
	}
	if d, err := look(t, k).Audit(at, nil, nil); err != nil || !d.Empty() {
		t.Errorf("audit: %v, %v", d, err)
	}
	// What another program has put there meanwhile is not taken over.
	if err := k.RemoveAddresses(at); err != nil {
		t.Fatal(err)
	}
	number(t, host, "200")
	if err := k.RenewAddresses(empty, at, time.Minute); err == nil || !find(t, k, vip4).permanent {
		t.Errorf("taken over: %v", err)
	}
}

func TestSeveral(t *testing.T) {
	var errs []error
	for i := range 1000 {
		errs = append(errs, nil, fmt.Errorf("address %d: %w", i, os.ErrPermission))
	}
	err := several(errs)
	if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "and 995 more") || strings.Contains(err.Error(), "address 5") {
		t.Error(err)
	}
	if err := several([]error{nil, nil}); err != nil {
		t.Error(err)
	}
}

// TestRemoveLeftovers: all that can be taken off is, in spite of one that cannot, and only what is gone is said to be.
func TestRemoveLeftovers(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	at := manyAt(300)
	put(t, k, at...)
	stays := at[150]
	host.Addr(t, "eth0", stays.Prefix.Addr().String()+"/30") // by hand, beside ours
	kept := at[7].Prefix.Addr()
	next := open(t, host)
	removed, err := next.RemoveLeftovers(func(a netip.Addr) bool { return a != kept })
	if err == nil || !strings.Contains(err.Error(), stays.Prefix.Addr().String()) {
		t.Errorf("the error does not name %s: %v", stays, err)
	}
	if len(removed) != 299 || slices.ContainsFunc(removed, func(f Found) bool { return f.Prefix.Addr() == kept }) {
		t.Errorf("%d removed", len(removed))
	}
	left, err := next.Leftovers(func(netip.Addr) bool { return true })
	if err != nil || len(left) != 1 || left[0].Prefix.Addr() != kept {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := next.RemoveAddresses([]Address{stays}); err == nil {
		t.Error("the host goes on answering, and that is no error")
	}
}
