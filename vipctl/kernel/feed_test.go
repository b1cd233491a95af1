package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vipctl/internal/nstest"
)

// onLink does something with a device of a host.
func onLink(t *testing.T, host *nstest.Host, name string, do func(netlink.Link) error) {
	t.Helper()
	host.Run(t, func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return do(l)
	})
}

func rename(t *testing.T, host *nstest.Host, name, to string) {
	t.Helper()
	onLink(t, host, name, func(l netlink.Link) error {
		return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, to), netlink.LinkSetUp(l))
	})
}

// collected is a watch whose news is kept, for calling its parts one by one.
func collected(k *Kernel) (w *watch, news *[]string) {
	news = &[]string{}
	return &watch{k: k, links: map[int]LinkChange{}, addrs: map[held]bool{},
		link: func(c LinkChange) {
			*news = append(*news, fmt.Sprintf("%s gone=%v mac=%s index=%d", c.Name, c.Gone, c.MAC, c.Index))
		},
		gone: func(g AddressGone) { *news = append(*news, fmt.Sprintf("%s off %s", g.Addr, g.Link)) }}, news
}

// TestNamesExchanged: when two devices have changed names and the news of it was lost, neither is gone in the end.
func TestNamesExchanged(t *testing.T) {
	k, host, neighbour := lan(t)
	nstest.Connect(t, host, "eth1", neighbour, "eth1")
	for range 4 { // the order is by chance
		last := map[string]bool{}
		w, _ := collected(k)
		w.link = func(c LinkChange) { last[c.Name] = !c.Gone }
		if err := w.resync(); err != nil {
			t.Fatal(err)
		}
		rename(t, host, "eth0", "tmp0")
		rename(t, host, "eth1", "eth0")
		rename(t, host, "tmp0", "eth1")
		if err := w.resync(); err != nil {
			t.Fatal(err)
		}
		if !last["eth0"] || !last["eth1"] || last["tmp0"] {
			t.Fatalf("said last: %v", last)
		}
	}
}

// TestWatchDevices: another hardware address, another device of the same name, and another name while the device is up.
func TestWatchDevices(t *testing.T) {
	k, host, neighbour := lan(t)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 7}
	expect := watchOf(t, k)
	expect("eth0 up=true carrier=true gone=false")
	w, news := collected(k)
	if err := w.resync(); err != nil {
		t.Fatal(err)
	}
	onLink(t, host, "eth0", func(l netlink.Link) error { return netlink.LinkSetHardwareAddr(l, mac) })
	*news = nil
	if err := w.resync(); err != nil {
		t.Fatal(err)
	}
	if len(*news) != 1 || !slices.Contains(*news, fmt.Sprintf("eth0 gone=false mac=%s index=%d", mac, indexOf(t, k, "eth0"))) {
		t.Errorf("after another hardware address: %v", *news)
	}
	old := indexOf(t, k, "eth0")
	onLink(t, host, "eth0", netlink.LinkDel)
	expect("eth0 up=false carrier=false gone=true")
	nstest.Connect(t, host, "eth0", neighbour, "eth0")
	expect("eth0 up=true carrier=true gone=false")
	*news = nil
	if err := w.resync(); err != nil {
		t.Fatal(err)
	}
	if index := indexOf(t, k, "eth0"); len(*news) != 2 || index == old ||
		(*news)[0] != fmt.Sprintf("eth0 gone=true mac=%s index=%d", mac, old) {
		t.Errorf("after another device came: %v", *news)
	}
	rename(t, host, "eth0", "new0")
	expect("eth0 up=false carrier=false gone=true")
	expect("new0 up=true carrier=true gone=false")
}

func indexOf(t *testing.T, k *Kernel, name string) int {
	t.Helper()
	index, err := k.index(name)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// TestOursAreLeftOut: our own additions and renewals awaken nobody, of others' each does; and what of ours goes is said,
// also when that news was lost.
func TestOursAreLeftOut(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	f, err := k.subscribe()
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	w, lost := collected(k)
	if err := w.resync(); err != nil {
		t.Fatal(err)
	}
	*lost = nil
	at := []Address{{Link: "eth0", Prefix: vip4}, {Link: "eth0", Prefix: vip6}}
	for range 3 {
		put(t, k, at...)
	}
	stranger := netip.MustParsePrefix("192.0.2.99/24")
	replace(t, host, stranger) // the first that is heard of
	hear := func(kind uint16, want netip.Prefix) {
		t.Helper()
		if err := f.file.SetReadDeadline(time.Now().Add(long)); err != nil {
			t.Fatal(err)
		}
		for heard := false; !heard; { // of the host's own IPv6 address perhaps only now
			b, err := f.receive()
			if err != nil {
				t.Fatalf("waiting for %v: %v", want, err)
			}
			for m := range messages(b) {
				got := m.kind
				m.kind = unix.RTM_NEWADDR
				a, ok := addressOf(m)
				if heard = ok && a.prefix == want && got == kind; heard {
					break
				}
				if got == unix.RTM_NEWADDR && slices.Contains(vips, a.prefix) {
					t.Errorf("heard that %v is there", a.prefix)
				}
			}
		}
	}
	hear(unix.RTM_NEWADDR, stranger)
	onLink(t, host, "eth0", func(l netlink.Link) error { return netlink.AddrDel(l, netlinkAddr(vip4)) })
	hear(unix.RTM_DELADDR, vip4)
	if err := w.resync(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(*lost, []string{"192.0.2.200 off eth0"}) {
		t.Errorf("said of what was lost: %v", *lost)
	}
}

// TestPutDuringResync: an address that comes while the watch compares afresh is not said to be gone.
func TestPutDuringResync(t *testing.T) {
	k, host, _ := lan(t)
	number(t, host, "1")
	w, said := collected(k)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for _, a := range manyAt(400) { // one by one, and no two the same
			if err := k.AddAddresses([]Address{a}, time.Minute); err != nil {
				t.Error(err)
			}
		}
	}()
	for done := false; !done; {
		select {
		case <-ended:
			done = true
		default:
		}
		if err := w.resync(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range *said {
		if !strings.Contains(s, "gone=false") {
			t.Fatalf("said of %d: %s", len(*said), s)
		}
	}
}
