package kernel

import (
	"context"
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vipctl"
	"github.com/quorate/quorate/vipctl/internal/nstest"
)

var (
	vip4 = netip.MustParsePrefix("192.0.2.200/24")
	vip6 = netip.MustParsePrefix("2001:db8::200/64")
	vips = []netip.Prefix{vip4, vip6}
)

const (
	long  = 5 * time.Second        // bounds a wait for what will come
	short = 150 * time.Millisecond // how long silence is listened to
)

// lan is a host with a Kernel, and a neighbour.
func lan(t *testing.T) (k *Kernel, host, neighbour *nstest.Host) {
	host, neighbour = nstest.New(t), nstest.New(t)
	nstest.Connect(t, host, "eth0", neighbour, "eth0")
	return open(t, host), host, neighbour
}

func open(t *testing.T, host *nstest.Host) *Kernel {
	t.Helper()
	var k *Kernel
	host.Run(t, func() (err error) {
		k, err = Open()
		return err
	})
	t.Cleanup(func() { k.Close() })
	return k
}

func number(t *testing.T, h *nstest.Host, last string) {
	t.Helper()
	h.Addr(t, "eth0", "192.0.2."+last+"/24")
	h.Addr(t, "eth0", "2001:db8::"+last+"/64")
}

func add(t *testing.T, k *Kernel, p netip.Prefix, valid time.Duration) {
	t.Helper()
	if err := k.AddAddresses([]Address{{Link: "eth0", Prefix: p}}, valid); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, k *Kernel, p netip.Prefix) {
	t.Helper()
	if err := k.RemoveAddresses([]Address{{Link: "eth0", Prefix: p}}); err != nil {
		t.Fatal(err)
	}
}

// find returns the address as it stands, nil if it does not.
func find(t *testing.T, k *Kernel, p netip.Prefix) *address {
	t.Helper()
	all, err := k.addresses(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if a.prefix == p {
			return &a
		}
	}
	return nil
}

func TestAddRefreshRemove(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	for _, p := range append(vips, netip.MustParsePrefix("198.51.100.7/32"), netip.MustParsePrefix("2001:db8:1::7/128")) {
		for _, valid := range []time.Duration{9500 * time.Millisecond, 20 * time.Second, 5 * time.Second} {
			add(t, k, p, valid)
			a := find(t, k, p)
			if a == nil {
				t.Fatalf("%s: not there", p)
			}
			most := time.Duration(math.Ceil(valid.Seconds())) * time.Second
			if a.permanent || a.valid > most || a.valid < valid-3*time.Second {
				t.Errorf("%s: valid for %s, want about %s and at most %s", p, a.valid, valid, most)
			}
			if a.flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
				t.Errorf("%s: tentative: flags %#x", p, a.flags)
			}
			if p.Addr().Is6() && a.flags&unix.IFA_F_DEPRECATED == 0 {
				t.Errorf("%s: may become a source address: flags %#x", p, a.flags)
			}
		}
		remove(t, k, p)
		if find(t, k, p) != nil {
			t.Errorf("%s: still there", p)
		}
		remove(t, k, p) // once more: it is gone, and that is what was asked
	}
}

func TestExpires(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	for _, p := range vips {
		add(t, k, p, time.Millisecond) // a second, at the least
	}
	for _, p := range vips {
		nstest.Eventually(t, p.String()+" goes by itself", 2*long, func() bool { return find(t, k, p) == nil })
	}
	checkOnLink(t, k, host, true)
}

// checkOnLink looks whether the host reaches its own network on eth0, and by
// which source.
func checkOnLink(t *testing.T, k *Kernel, host *nstest.Host, want bool) {
	t.Helper()
	for dst, source := range map[string]string{"192.0.2.77": "192.0.2.1", "2001:db8::77": "2001:db8::1"} {
		host.Run(t, func() error {
			routes, err := netlink.RouteGet(netip.MustParseAddr(dst).AsSlice())
			ok := err == nil && len(routes) == 1 && routes[0].Gw == nil
			if ok != want {
				t.Errorf("on-link route to %s: %v %v, want %v", dst, routes, err, want)
			}
			if ok && routes[0].Src.String() != source {
				t.Errorf("source towards %s is %s, want %s", dst, routes[0].Src, source)
			}
			return nil
		})
	}
}

// TestRoutesSurvive: neither coming, renewal nor going touches the host's routes,
// also where the prefix lengths differ.
func TestRoutesSurvive(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	for _, p := range append(vips, netip.MustParsePrefix("192.0.2.200/25"), netip.MustParsePrefix("192.0.2.200/16"),
		netip.MustParsePrefix("2001:db8::200/48"), netip.MustParsePrefix("2001:db8::200/128")) {
		checkOnLink(t, k, host, true)
		add(t, k, p, time.Minute)
		checkOnLink(t, k, host, true)
		add(t, k, p, time.Minute)
		checkOnLink(t, k, host, true)
		remove(t, k, p)
		checkOnLink(t, k, host, true)
	}
}

// TestFirstOfItsNetwork: a virtual address that was there before the host's own
// does not take that one along.
func TestFirstOfItsNetwork(t *testing.T) {
	k, host, _ := lan(t)
	host.Run(t, func() error { return os.WriteFile(promoteFile("all"), []byte("0"), 0) })
	host.Run(t, func() error { return os.WriteFile(promoteFile("eth0"), []byte("0"), 0) })
	for _, p := range vips {
		add(t, k, p, time.Minute)
	}
	second := netip.MustParsePrefix("192.0.2.201/24")
	add(t, k, second, time.Minute)
	number(t, host, "1")
	for _, p := range vips {
		add(t, k, p, time.Minute)
		remove(t, k, p)
	}
	if find(t, k, netip.MustParsePrefix("192.0.2.1/24")) == nil {
		t.Error("the host's own address went too")
	}
	if find(t, k, second) == nil {
		t.Error("the second virtual address went too")
	}
	remove(t, k, second)
	checkOnLink(t, k, host, true)
}

func TestOtherLengthIsReplaced(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	for _, p := range vips {
		add(t, k, p, time.Minute)
		single := netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
		add(t, k, single, time.Minute)
		if find(t, k, p) != nil || find(t, k, single) == nil {
			t.Errorf("%s: %v, %s: %v", p, find(t, k, p), single, find(t, k, single))
		}
		remove(t, k, p) // by its address, whatever its length
		if find(t, k, single) != nil {
			t.Errorf("%s is left", single)
		}
	}
}

func TestPermanentIsNotOurs(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "200")
	for _, p := range vips {
		if err := k.AddAddresses([]Address{{Link: "eth0", Prefix: p}}, time.Minute); err == nil {
			t.Errorf("%s: the host's own address is taken over", p)
		}
		if err := k.RemoveAddresses([]Address{{Link: "eth0", Prefix: p}}); err == nil {
			t.Errorf("%s: said to be gone", p)
		}
		if a := find(t, k, p); a == nil || !a.permanent {
			t.Errorf("%s: changed to %v", p, a)
		}
	}
}

func TestIPv6Off(t *testing.T) {
	k, host, _ := lan(t)
	host.Run(t, func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte("1"), 0)
	})
	if err := k.AddAddresses([]Address{{Link: "eth0", Prefix: vip6}}, time.Minute); err == nil || !strings.Contains(err.Error(), "disable_ipv6") {
		t.Errorf("the error does not teach: %v", err)
	}
}

func TestNoLink(t *testing.T) {
	k, _, _ := lan(t)
	if err := k.AddAddresses([]Address{{Link: "eth9", Prefix: vip4}}, time.Minute); !errors.Is(err, ErrNoLink) {
		t.Errorf("add: %v", err)
	}
	if err := k.RemoveAddresses([]Address{{Link: "eth9", Prefix: vip4}}); err != nil {
		t.Errorf("remove: %v", err)
	}
	if err := k.Announce("eth9", []netip.Addr{vip4.Addr()}); !errors.Is(err, ErrNoLink) {
		t.Errorf("announce: %v", err)
	}
	if _, err := k.Link("eth9"); !errors.Is(err, ErrNoLink) {
		t.Errorf("link: %v", err)
	}
	if err := k.AddAddresses([]Address{{Link: "eth0", Prefix: netip.Prefix{}}}, time.Minute); err == nil {
		t.Error("the zero prefix is taken")
	}
}

func TestLeftovers(t *testing.T) {
	k, host, neighbour := lan(t)
	nstest.Connect(t, host, "eth1", neighbour, "eth1")
	number(t, host, "1")
	number(t, host, "203") // permanent: never ours
	for _, p := range vips {
		add(t, k, p, time.Minute)
	}
	if err := k.AddAddresses([]Address{{Link: "eth1", Prefix: netip.MustParsePrefix("192.0.2.202/32")}}, time.Minute); err != nil {
		t.Fatal(err)
	}
	add(t, k, netip.MustParsePrefix("192.0.2.99/24"), time.Minute) // finite, but not asked for
	again := open(t, host)                                         // another life
	found, err := again.Leftovers(func(a netip.Addr) bool {
		return strings.HasSuffix(a.String(), ".1") || strings.Contains(a.String(), "20")
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range found {
		got = append(got, f.Link+" "+f.Prefix.String())
		if f.Valid <= 0 || f.Valid > time.Minute {
			t.Errorf("%v: valid %s", f.Prefix, f.Valid)
		}
	}
	slices.Sort(got)
	want := []string{"eth0 192.0.2.200/24", "eth0 2001:db8::200/64", "eth1 192.0.2.202/32"}
	if !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
}

func TestLinkFor(t *testing.T) {
	k, host, neighbour := lan(t)
	nstest.Connect(t, host, "eth1", neighbour, "eth1")
	number(t, host, "1")
	host.Addr(t, "eth1", "192.0.2.2/25")
	host.Addr(t, "eth1", "203.0.113.1/24")
	host.Addr(t, "eth0", "203.0.113.2/24")
	add(t, k, netip.MustParsePrefix("10.9.9.9/8"), time.Minute)
	for addr, want := range map[string]string{
		"192.0.2.200":   "eth0",
		"192.0.2.20":    "eth1", // the narrower
		"2001:db8::200": "eth0",
		"10.1.1.1":      "", // only a virtual address there
		"203.0.113.200": "", // on both
		"8.8.8.8":       "",
	} {
		got, err := k.LinkFor(netip.MustParseAddr(addr))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v, want %q", addr, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "interface:") {
			t.Errorf("%s: the error does not teach: %v", addr, err)
		}
	}
}

func TestLink(t *testing.T) {
	k, host, neighbour := lan(t)
	got, err := k.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "eth0" || got.Index == 0 || got.MTU != 1500 || !got.Up || !got.Carrier ||
		got.MAC.String() != host.MAC(t, "eth0").String() {
		t.Errorf("link = %+v", got)
	}
	neighbour.Run(t, func() error { return setDown("eth0") })
	nstest.Eventually(t, "carrier is lost", long, func() bool {
		l, err := k.Link("eth0")
		return err == nil && l.Up && !l.Carrier
	})
}

func setDown(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetDown(l)
}

// TestAnnounce listens at the other end of the cable, also after the device has got
// another hardware address, and has been destroyed and made again.
func TestAnnounce(t *testing.T) {
	k, host, neighbour := lan(t)
	check := func() {
		t.Helper()
		conn, mac := neighbour.Open(t, "eth0"), host.MAC(t, "eth0")
		for name, want := range map[string][]byte{
			"request":  frame(t)(vipctl.GratuitousARP(vip4.Addr(), mac, vipctl.Request)),
			"reply":    frame(t)(vipctl.GratuitousARP(vip4.Addr(), mac, vipctl.Reply)),
			"neighbor": frame(t)(vipctl.UnsolicitedNA(vip6.Addr(), mac, false, vipctl.AllNodes)),
		} {
			for _, p := range vips {
				if err := k.Announce("eth0", []netip.Addr{p.Addr()}); err != nil {
					t.Fatal(err)
				}
			}
			if !nstest.Hears(t, conn, long, func(b []byte) bool { return slices.Equal(b, want) }) {
				t.Errorf("%s not heard", name)
			}
		}
	}
	check()
	host.Run(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 0, 0x42})
	})
	check()
	host.Run(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
	nstest.Connect(t, host, "eth0", neighbour, "eth0")
	check()
	host.Run(t, func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/forwarding", []byte("1"), 0)
	})
	if !k.forwards("eth0") {
		t.Error("a router is not seen as one")
	}
	if err := k.Announce("lo", []netip.Addr{vip4.Addr()}); err != nil {
		t.Errorf("where there is nobody to tell: %v", err)
	}
}

func frame(t *testing.T) func([]byte, error) []byte {
	return func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

func TestProbe(t *testing.T) {
	k, host, neighbour := lan(t)
	number(t, host, "1")
	probe := func(p netip.Prefix, wait time.Duration) string {
		t.Helper()
		_, mac, found, err := k.Probe(t.Context(), "eth0", []netip.Addr{p.Addr()}, 2, short/2, wait)
		if err != nil || found != (mac != nil) {
			t.Fatalf("%s: %v %v %v", p, mac, found, err)
		}
		return mac.String()
	}
	for _, p := range vips {
		if got := probe(p, short); got != "" {
			t.Errorf("%s: nobody has it, but %s", p, got)
		}
	}
	number(t, neighbour, "200")
	for _, p := range vips {
		if got, want := probe(p, long), neighbour.MAC(t, "eth0").String(); got != want {
			t.Errorf("%s: found %q, want %q", p, got, want)
		}
	}
}

// TestProbeSelf: a second cable of this host on the same LAN answers, and is no
// conflict.
func TestProbeSelf(t *testing.T) {
	k, host, _ := lan(t)
	nstest.Connect(t, host, "loop0", host, "loop1")
	add(t, k, netip.MustParsePrefix("192.0.2.200/32"), time.Minute)
	if _, mac, found, err := k.Probe(t.Context(), "loop0", []netip.Addr{vip4.Addr()}, 1, 0, short); err != nil || found {
		t.Errorf("found itself: %v %v %v", mac, found, err)
	}
	conn := host.Open(t, "loop0")
	if _, ok := nstest.Asks(t, conn, host.MAC(t, "loop0"), vip4.Addr(), long); !ok {
		t.Error("the other end did not answer at all: this test proves nothing")
	}
}

func TestProbeEndsWithItsContext(t *testing.T) {
	k, _, _ := lan(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(short/3, cancel)
	if _, _, _, err := k.Probe(ctx, "eth0", []netip.Addr{vip4.Addr()}, 1, 0, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]int{
		-time.Second: 1, 0: 1, 1: 1, time.Second: 1, time.Second + 1: 2, 10 * time.Second: 10,
		math.MaxInt64: math.MaxInt32,
	} {
		if got := seconds(d); got != want {
			t.Errorf("seconds(%s) = %d, want %d", d, got, want)
		}
	}
}
