package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vipctl/internal/nstest"
)

// watchOf follows a host, and returns a function that waits for a piece of news.
func watchOf(t *testing.T, k *Kernel) (expect func(string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	news, ended := make(chan string, 1000), make(chan error, 1)
	go func() {
		ended <- k.Watch(ctx,
			func(c LinkChange) {
				news <- fmt.Sprintf("%s up=%v carrier=%v gone=%v", c.Name, c.Up, c.Carrier, c.Gone)
			},
			func(g AddressGone) { news <- fmt.Sprintf("%s off %s", g.Addr, g.Link) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("watch: %v", err)
		}
	})
	return func(want string) {
		t.Helper()
		after := time.After(2 * long)
		var heard []string
		for {
			select {
			case got := <-news:
				if got == want {
					return
				}
				heard = append(heard, got)
			case <-after:
				t.Fatalf("waited for %q, heard %q", want, heard)
			}
		}
	}
}

func TestWatch(t *testing.T) {
	k, host, neighbour := lan(t)
	number(t, host, "1")
	expect := watchOf(t, k)
	expect("eth0 up=true carrier=true gone=false") // what there is, first

	neighbour.Run(t, func() error { return setDown("eth0") })
	expect("eth0 up=true carrier=false gone=false")
	neighbour.Run(t, func() error { return nstest.Up("eth0") })
	expect("eth0 up=true carrier=true gone=false")

	for _, p := range vips {
		add(t, k, p, time.Minute)
		host.Run(t, func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.AddrDel(l, netlinkAddr(p))
		})
		expect(p.Addr().String() + " off eth0")
	}
	add(t, k, vip4, time.Second)
	expect("192.0.2.200 off eth0") // its time is over

	nstest.Connect(t, host, "eth1", neighbour, "eth1")
	expect("eth1 up=true carrier=true gone=false")
	host.Run(t, func() error {
		l, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetDown(l); err != nil {
			return err
		}
		return netlink.LinkSetName(l, "new1")
	})
	expect("eth1 up=false carrier=false gone=true")
	expect("new1 up=false carrier=false gone=false")
	host.Run(t, func() error {
		l, err := netlink.LinkByName("new1")
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
	expect("new1 up=false carrier=false gone=true")
}

// TestWatchLeavingABridge: a port that leaves its bridge is still a device.
func TestWatchLeavingABridge(t *testing.T) {
	k, host, neighbour := lan(t)
	var bridge, port netlink.Link
	host.Run(t, func() error {
		bridge = &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		var err error
		if port, err = netlink.LinkByName("eth0"); err != nil {
			return err
		}
		return netlink.LinkSetMaster(port, bridge)
	})
	w := &watch{k: k, link: func(c LinkChange) {
		if c.Gone {
			t.Errorf("%s is said to be gone", c.Name)
		}
	}, gone: func(AddressGone) {}, links: map[int]LinkChange{}, addrs: map[held]bool{}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	saw := make(chan struct{}, 100)
	old := w.link
	w.link = func(c LinkChange) {
		old(c)
		if c.Name == "mark0" {
			saw <- struct{}{}
		}
	}
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			w.round(ctx)
		}
	}()
	defer func() { cancel(); <-ended }()
	host.Run(t, func() error { return netlink.LinkSetNoMaster(port) })
	// The order of news is kept: when this one is heard, the others were.
	nstest.Connect(t, host, "mark0", neighbour, "mark0")
	select {
	case <-saw:
	case <-time.After(long):
		t.Fatal("no news")
	}
}

// TestWatchComparesAfresh: what was missed is said after the next round.
func TestWatchComparesAfresh(t *testing.T) {
	k, host, _ := lan(t)
	index := 0
	host.Run(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			index = l.Attrs().Index
		}
		return err
	})
	var news []string
	w := &watch{k: k,
		link: func(c LinkChange) { news = append(news, fmt.Sprintf("%s gone=%v", c.Name, c.Gone)) },
		gone: func(g AddressGone) { news = append(news, fmt.Sprintf("%s off %s", g.Addr, g.Link)) },
		links: map[int]LinkChange{
			999:   {Name: "eth9", Index: 999, Up: true},
			index: {Name: "old0", Index: index},
		},
		addrs: map[held]bool{{index, vip4.Addr()}: true, {999, vip6.Addr()}: true},
	}
	if err := w.resync(); err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for _, n := range news {
		said[n] = true
	}
	for _, want := range []string{
		"192.0.2.200 off old0", "2001:db8::200 off eth9", "eth9 gone=true", "old0 gone=true", "eth0 gone=false",
	} {
		if !said[want] {
			t.Errorf("%q not said, but %q", want, news)
		}
	}
	news = nil
	if err := w.resync(); err != nil || len(news) != 0 {
		t.Errorf("with nothing changed: %q, %v", news, err)
	}
}

// TestOverflow drowns the subscription in changes while nobody reads: the kernel
// drops news, and the last state is said all the same.
func TestOverflow(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	holding, release, gone := make(chan struct{}), make(chan struct{}), make(chan struct{})
	w := &watch{k: k, link: func(LinkChange) {}, links: map[int]LinkChange{}, addrs: map[held]bool{}}
	first := true
	w.gone = func(g AddressGone) {
		switch {
		case g.Addr == vip4.Addr():
			close(gone)
		case first:
			first = false
			close(holding)
			<-release
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended, dropped := make(chan struct{}), 0
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if _, err := w.round(ctx); errors.Is(err, unix.ENOBUFS) {
				dropped++
			}
		}
	}()
	add(t, k, vip4, time.Minute)
	nstest.Eventually(t, "the watch has begun", 2*long, func() bool {
		add(t, k, vip6, time.Minute)
		remove(t, k, vip6)
		select {
		case <-holding:
			return true
		default:
			return false
		}
	})
	host.Run(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for range 8000 { // many times what the buffer holds
			a := netlinkAddr(vip4)
			a.ValidLft, a.PreferedLft = 60, 60
			if err := netlink.AddrReplace(l, a); err != nil {
				return err
			}
		}
		return netlink.AddrDel(l, netlinkAddr(vip4))
	})
	close(release)
	select {
	case <-gone:
	case <-time.After(2 * long):
		t.Error("the end was lost in the flood")
	}
	cancel()
	<-ended
	if dropped == 0 {
		t.Error("nothing was dropped: this test proves nothing")
	}
}

func netlinkAddr(p netip.Prefix) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}, Broadcast: net.IPv4zero}
}
