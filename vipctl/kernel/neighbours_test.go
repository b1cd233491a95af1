package kernel

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"

	"github.com/quorate/quorate/vipctl"
	"github.com/quorate/quorate/vipctl/internal/nstest"
)

// greet sends a datagram to each address, after which both hosts know each other.
func greet(t *testing.T, from *nstest.Host, to ...string) {
	t.Helper()
	from.Run(t, func() error {
		for _, a := range to {
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(a), 9)))
			if err != nil {
				return err
			}
			if _, err := c.Write([]byte("hello")); err != nil {
				return err
			}
			if err := c.Close(); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestNeighbours(t *testing.T) {
	k, host, neighbour := lan(t)
	number(t, host, "1")
	number(t, neighbour, "9")
	if s, err := k.Neighbours("eth0"); err != nil || len(s.Neighbours) != 0 || len(s.Networks) != 2 {
		t.Fatalf("before anybody spoke: %v, %v", s, err)
	}
	greet(t, neighbour, "192.0.2.1", "2001:db8::1")
	want := map[string]string{"192.0.2.9": neighbour.MAC(t, "eth0").String(), "2001:db8::9": neighbour.MAC(t, "eth0").String()}
	nstest.Eventually(t, "both are known", long, func() bool {
		s, err := k.Neighbours("eth0")
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, n := range s.Neighbours {
			got[n.Addr.String()] = n.MAC.String()
			if n.Age > time.Minute {
				t.Errorf("%v was heard of just now", n)
			}
		}
		return len(got) == 2 && got["192.0.2.9"] == want["192.0.2.9"] && got["2001:db8::9"] == want["2001:db8::9"]
	})
	if s, err := k.Neighbours("lo"); err != nil || len(s.Neighbours) != 0 {
		t.Errorf("of another device: %v, %v", s, err)
	}
	if _, err := k.Neighbours("eth9"); err == nil {
		t.Error("a device that is not there has neighbours")
	}
}

// TestAcquaint: what another host told of is known, what the kernel knows itself stays, and
// neither is heard of just now.
func TestAcquaint(t *testing.T) {
	k, host, neighbour := lan(t)
	number(t, host, "1")
	number(t, neighbour, "9")
	greet(t, neighbour, "192.0.2.1")
	known := func() map[string]string {
		s, err := k.Neighbours("eth0")
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, n := range s.Neighbours {
			got[n.Addr.String()] = n.MAC.String()
		}
		return got
	}
	nstest.Eventually(t, "the neighbour is known", long, func() bool { return known()["192.0.2.9"] != "" })
	told := vipctl.MAC{2, 0, 0, 0, 0, 0x77}
	for range 2 {
		if err := k.Acquaint("eth0", []vipctl.Neighbour{
			{Addr: netip.MustParseAddr("192.0.2.9"), MAC: told}, {Addr: netip.MustParseAddr("fe80::7"), MAC: told},
		}); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"192.0.2.9": neighbour.MAC(t, "eth0").String(), "fe80::7": told.String()}
	if got := known(); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	host.Run(t, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte("1"), 0) })
	if err := k.Acquaint("eth0", []vipctl.Neighbour{
		{Addr: netip.MustParseAddr("2001:db8::7"), MAC: told}, {Addr: netip.MustParseAddr("192.0.2.7"), MAC: told},
	}); err == nil || known()["192.0.2.7"] != told.String() {
		t.Errorf("without IPv6: %v, and %v is known", err, known())
	}
	if err := k.Acquaint("eth9", nil); err == nil {
		t.Error("a device that is not there has neighbours")
	}
}

// TestTell: a host that takes no notice of announcements, because it is told not to and
// because it has just updated its entry, believes what is said to it alone.
func TestTell(t *testing.T) {
	k, host, neighbour := lan(t)
	number(t, neighbour, "9")
	// IPv6 uses an address a little after it was added.
	asker, from := host.Open(t, "eth0"), host.MAC(t, "eth0")
	nstest.Eventually(t, "the neighbour answers", long, func() bool {
		_, ok := nstest.Asks(t, asker, from, netip.MustParseAddr("2001:db8::9"), short)
		return ok
	})
	old := net.HardwareAddr{2, 0, 0, 0, 0, 0x99}
	neighbour.Run(t, func() error {
		for path, value := range map[string]string{
			"ipv4/conf/eth0/drop_gratuitous_arp": "1", "ipv6/conf/eth0/drop_unsolicited_na": "1", "ipv4/neigh/eth0/locktime": "6000",
		} {
			if err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0); err != nil {
				return err
			}
		}
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, p := range vips {
			if err := netlink.NeighSet(&netlink.Neigh{
				LinkIndex: l.Attrs().Index, IP: p.Addr().AsSlice(), HardwareAddr: old, State: netlink.NUD_STALE,
			}); err != nil {
				return err
			}
		}
		return nil
	})
	entry := func(addr netip.Addr) (mac string) {
		neighbour.Run(t, func() error {
			list, err := netlink.NeighList(0, netlink.FAMILY_ALL)
			for _, n := range list {
				if n.IP.Equal(addr.AsSlice()) {
					mac = n.HardwareAddr.String()
				}
			}
			return err
		})
		return mac
	}
	m, ok := vipctl.MACOf(neighbour.MAC(t, "eth0"))
	if !ok {
		t.Fatal("the neighbour has no hardware address")
	}
	for _, p := range vips {
		add(t, k, p, time.Minute)
	}
	conn := neighbour.Open(t, "eth0")
	if err := k.Announce("eth0", []netip.Addr{vip4.Addr(), vip6.Addr()}); err != nil {
		t.Fatal(err)
	}
	for _, p := range vips {
		if !nstest.Hears(t, conn, long, func(b []byte) bool { a, _, ok := vipctl.ParseConflict(b); return ok && a == p.Addr() }) {
			t.Fatalf("%s was not announced", p.Addr())
		}
		if got := entry(p.Addr()); got != old.String() {
			t.Fatalf("the neighbour believes an announcement of %s: this test proves nothing", p.Addr())
		}
	}
	if err := k.Tell("eth0", []vipctl.Telling{
		{Addr: vip4.Addr(), To: vipctl.Neighbour{Addr: netip.MustParseAddr("192.0.2.9"), MAC: m}},
		{Addr: vip6.Addr(), To: vipctl.Neighbour{Addr: netip.MustParseAddr("2001:db8::9"), MAC: m}},
	}); err != nil {
		t.Fatal(err)
	}
	want := host.MAC(t, "eth0").String()
	for _, p := range vips {
		nstest.Eventually(t, p.Addr().String()+" is ours in the neighbour's table", long, func() bool { return entry(p.Addr()) == want })
	}
	if err := k.Tell("eth9", []vipctl.Telling{{}}); err == nil {
		t.Error("a device that is not there tells somebody")
	}
	if err := k.Tell("lo", []vipctl.Telling{{}}); err != nil {
		t.Errorf("where there is nobody to tell: %v", err)
	}
}

// many are n addresses of a family.
func many(n int, first string) (out []netip.Addr) {
	a := netip.MustParseAddr(first)
	for range n {
		out = append(out, a)
		a = a.Next()
	}
	return out
}

// TestAnnounceMany: each of many addresses is announced in every form.
func TestAnnounceMany(t *testing.T) {
	k, host, neighbour := lan(t)
	addrs := append(many(300, "10.1.0.1"), many(300, "2001:db8:1::1")...)
	conn, mac := neighbour.Open(t, "eth0"), host.MAC(t, "eth0").String()
	forms := map[netip.Addr]int{}
	for chunk := range slices.Chunk(addrs, vipctl.AnnounceChunk) {
		if err := k.Announce("eth0", chunk); err != nil {
			t.Fatal(err)
		}
		last := chunk[len(chunk)-1] // the socket has room for one chunk
		nstest.Hears(t, conn, long, func(b []byte) bool {
			if a, hw, ok := vipctl.ParseConflict(b); ok && hw.String() == mac {
				forms[a]++
			}
			return forms[last] == 2
		})
	}
	for _, a := range addrs {
		if forms[a] != 2 {
			t.Errorf("%s was heard %d times", a, forms[a])
		}
	}
}

// TestProbeMany: one of a thousand addresses is taken, and asking for all takes no longer
// than a few of them would one by one.
func TestProbeMany(t *testing.T) {
	k, host, neighbour := lan(t)
	number(t, host, "1")
	addrs := append(many(700, "10.1.0.1"), many(300, "2001:db8:1::1")...)
	if a, mac, found, err := k.Probe(t.Context(), "eth0", addrs, 1, 0, short); err != nil || found {
		t.Fatalf("nobody has any, but %s has %s, %v", mac, a, err)
	}
	for _, taken := range []netip.Addr{addrs[650], addrs[950]} {
		neighbour.Addr(t, "eth0", taken.String()+map[bool]string{true: "/16", false: "/64"}[taken.Is4()])
		a, mac, found, err := k.Probe(t.Context(), "eth0", addrs, 2, short/2, long)
		if err != nil || !found || a != taken && a != addrs[650] || mac.String() != neighbour.MAC(t, "eth0").String() {
			t.Errorf("%s is not found: %v %v %v %v", taken, a, mac, found, err)
		}
	}
}

// hearing collects claims.
type hearing struct {
	mu     sync.Mutex
	claims []Claim
}

func (h *hearing) add(c Claim) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.claims = append(h.claims, c)
}

func (h *hearing) of(a netip.Addr) (n, dropped int, mac string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.claims {
		if c.Addr == a {
			n, dropped, mac = n+1, dropped+c.Dropped, c.MAC.String()
		}
	}
	return n, dropped, mac
}

// watching starts a watch; it ends with the test.
func watching(t *testing.T, k *Kernel, link string, addrs ...netip.Addr) *hearing {
	t.Helper()
	h := &hearing{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.WatchClaims(ctx, link, addrs, h.add) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the watch of %s: %v", link, err)
		}
	})
	return h
}

// TestWatchClaims: who claims one of the addresses is heard, by whichever packet; other
// addresses, questions, and what this host says itself are not.
func TestWatchClaims(t *testing.T) {
	k, host, neighbour := lan(t)
	h := watching(t, k, "eth0", vip4.Addr(), vip6.Addr())
	conn, mac := neighbour.Open(t, "eth0"), neighbour.MAC(t, "eth0")
	own := host.MAC(t, "eth0")
	other4, other6 := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db9::200") // of the same last four bytes
	send := func() {
		for _, f := range [][]byte{
			frame(t)(vipctl.GratuitousARP(other4, mac, vipctl.Reply)),
			frame(t)(vipctl.UnsolicitedNA(other6, mac, false, vipctl.AllNodes)),
			frame(t)(vipctl.ProbeARP(vip4.Addr(), mac)),
			frame(t)(vipctl.NeighborSolicitation(vip6.Addr(), mac)),
			frame(t)(vipctl.GratuitousARP(vip4.Addr(), own, vipctl.Reply)), // a switch sends it back
			frame(t)(vipctl.GratuitousARP(vip4.Addr(), mac, vipctl.Request)),
			frame(t)(vipctl.UnsolicitedNA(vip6.Addr(), mac, false, vipctl.AllNodes)),
		} {
			nstest.Send(t, conn, f)
		}
		if err := k.Announce("eth0", []netip.Addr{vip4.Addr(), vip6.Addr()}); err != nil {
			t.Fatal(err)
		}
	}
	// What is sent before the sockets are open is not heard.
	nstest.Eventually(t, "both claims are heard", long, func() bool {
		send()
		n4, _, _ := h.of(vip4.Addr())
		n6, _, _ := h.of(vip6.Addr())
		return n4 > 0 && n6 > 0
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.claims {
		if c.Addr != vip4.Addr() && c.Addr != vip6.Addr() || c.MAC.String() != mac.String() {
			t.Errorf("heard %v", c)
		}
	}
}

// TestClaimFlood: of ten thousand claims some hundred are read, the others are counted.
func TestClaimFlood(t *testing.T) {
	k, _, neighbour := lan(t)
	h := watching(t, k, "eth0", vip4.Addr())
	conn, mac := neighbour.Open(t, "eth0"), neighbour.MAC(t, "eth0")
	claim := frame(t)(vipctl.GratuitousARP(vip4.Addr(), mac, vipctl.Request))
	nstest.Eventually(t, "a claim is heard", long, func() bool {
		nstest.Send(t, conn, claim)
		n, _, _ := h.of(vip4.Addr())
		return n > 0
	})
	began := time.Now()
	for range 10000 {
		nstest.Send(t, conn, claim)
	}
	nstest.Eventually(t, "what was lost is counted", long, func() bool {
		nstest.Send(t, conn, claim)
		_, dropped, _ := h.of(vip4.Addr())
		return dropped > 5000
	})
	n, dropped, _ := h.of(vip4.Addr())
	most := claimBurst * (2 + int(time.Since(began)/claimRest))
	t.Logf("%d read and %d dropped in %v", n, dropped, time.Since(began))
	if n > most+1000 {
		t.Errorf("%d of 10,000 claims were read in %v, want %d at most", n, time.Since(began), most)
	}
}

func TestWatchClaimsEnds(t *testing.T) {
	k, host, _ := lan(t)
	if err := k.WatchClaims(t.Context(), "eth9", []netip.Addr{vip4.Addr()}, nil); err == nil {
		t.Error("a device that is not there is watched")
	}
	ended := make(chan error, 1)
	go func() { ended <- k.WatchClaims(t.Context(), "eth0", []netip.Addr{vip4.Addr(), vip6.Addr()}, nil) }()
	nstest.Eventually(t, "the sockets are open", long, func() bool { return strings.Count(packetSockets(t, host), "\n") > 2 })
	host.Run(t, func() error { return setDown("eth0") })
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a device that went down ends the watch without an error")
		}
	case <-time.After(long):
		t.Error("a device that went down does not end the watch")
	}
}

func packetSockets(t *testing.T, h *nstest.Host) (text string) {
	h.Run(t, func() error {
		b, err := os.ReadFile("/proc/thread-self/net/packet")
		text = string(b)
		return err
	})
	return text
}

// TestClaimFilter: the kernel takes the filter for as many addresses as there may be, and
// it lets through what it must.
func TestClaimFilter(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	for _, first := range []string{"10.1.0.1", "2001:db8:1::1"} {
		for _, n := range []int{1, 1000, maxFiltered, maxFiltered + 1} {
			addrs := many(n, first)
			prog := claimFilter(addrs)
			raw, err := bpf.Assemble(prog)
			if err != nil || len(raw) > 4096 {
				t.Fatalf("%d addresses: %d instructions, %v", n, len(raw), err)
			}
			vm, err := bpf.NewVM(slices.Clone(prog)[6:]) // it knows no extensions
			if err != nil {
				t.Fatal(err)
			}
			passes := func(a netip.Addr) bool {
				f, err := vipctl.GratuitousARP(a, mac, vipctl.Reply)
				if a.Is6() {
					f, err = vipctl.UnsolicitedNA(a, mac, false, vipctl.AllNodes)
				}
				size, verr := vm.Run(frame(t)(f, err))
				if verr != nil {
					t.Fatal(verr)
				}
				return size > 0
			}
			for _, a := range []netip.Addr{addrs[0], addrs[n/2], addrs[n-1]} {
				if !passes(a) {
					t.Errorf("%d addresses: %s does not pass", n, a)
				}
			}
			if passes(addrs[n-1].Next()) != (n > maxFiltered) {
				t.Errorf("%d addresses: what of %s", n, addrs[n-1].Next())
			}
			k, _, _ := lan(t)
			l, err := k.Link("eth0")
			if err != nil {
				t.Fatal(err)
			}
			conn, err := k.listenClaims(l, addrs)
			if err != nil {
				t.Fatalf("%d addresses: %v", n, err)
			}
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, want := fmt.Sprint(families(append(many(2, "10.1.0.1"), many(1, "2001:db8::1%eth0")...))[1].addrs), "[2001:db8::1]"; got != want {
		t.Errorf("families: %s, want %s", got, want)
	}
}
