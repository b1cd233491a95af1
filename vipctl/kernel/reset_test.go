package kernel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vipctl/internal/nstest"
)

// A client is a connection, and the end of it that was accepted.
type client struct {
	here, there net.Conn
}

// alive reports whether a byte gets through to the client.
func (c client) alive(t *testing.T) bool {
	t.Helper()
	_, writeErr := c.there.Write([]byte{1})
	if err := c.here.SetReadDeadline(time.Now().Add(long)); err != nil {
		t.Fatal(err)
	}
	_, err := io.ReadFull(c.here, make([]byte, 1))
	if errors.Is(err, unix.ECONNRESET) {
		return false
	}
	if err != nil || writeErr != nil {
		t.Fatalf("neither alive nor reset: %v, %v", writeErr, err)
	}
	return true
}

// listen opens a listening socket on a host.
func listen(t testing.TB, host *nstest.Host, addr string) *net.TCPListener {
	t.Helper()
	var l net.Listener
	host.Run(t, func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// dial connects to an address of a host.
func dial(t testing.TB, from *nstest.Host, l *net.TCPListener, addr netip.Addr) client {
	t.Helper()
	var c client
	from.Run(t, func() (err error) {
		c.here, err = net.DialTimeout("tcp", netip.AddrPortFrom(addr, uint16(l.Addr().(*net.TCPAddr).Port)).String(), long)
		return err
	})
	var err error
	if c.there, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.here.Close(); c.there.Close() })
	return c
}

// TestResetConnections: those of the addresses are reset and no others, whatever socket they were accepted by; and listening
// sockets take new ones.
func TestResetConnections(t *testing.T) {
	k, host, neighbour := lan(t)
	number(t, host, "1")
	number(t, neighbour, "9")
	put(t, k, Address{Link: "eth0", Prefix: vip4}, Address{Link: "eth0", Prefix: vip6})
	any6, only4 := listen(t, host, "[::]:0"), listen(t, host, vip4.Addr().String()+":0")
	leaving := map[string]client{
		"IPv4":        dial(t, neighbour, only4, vip4.Addr()),
		"IPv4 mapped": dial(t, neighbour, any6, vip4.Addr()),
		"IPv6":        dial(t, neighbour, any6, vip6.Addr()),
	}
	staying := map[string]client{
		"IPv4 mapped": dial(t, neighbour, any6, ip("192.0.2.1")),
		"IPv6":        dial(t, neighbour, any6, ip("2001:db8::1")),
	}
	// Many addresses, so that the filter in the kernel is wider than what is meant.
	addrs := []netip.Addr{vip4.Addr(), vip6.Addr()}
	for a := ip("192.0.2.3"); len(addrs) < 150; a = a.Next() {
		addrs = append(addrs, a)
	}
	if n, err := k.ResetConnections(addrs); err != nil || n != len(leaving) {
		t.Fatalf("reset %d, %v", n, err)
	}
	for what, c := range leaving {
		if c.alive(t) {
			t.Errorf("%s goes on", what)
		}
	}
	for what, c := range staying {
		if !c.alive(t) {
			t.Errorf("%s of another address was reset", what)
		}
	}
	if !dial(t, neighbour, only4, vip4.Addr()).alive(t) {
		t.Error("nobody listens any more")
	}
	if n, err := k.ResetConnections([]netip.Addr{ip("192.0.2.77")}); err != nil || n != 0 {
		t.Errorf("where there are none: %d, %v", n, err)
	}
	if n, err := k.ResetConnections(nil); err != nil || n != 0 {
		t.Errorf("of no address: %d, %v", n, err)
	}
}

// TestResetIsBounded: what has no time left says so.
func TestResetIsBounded(t *testing.T) {
	k, host, neighbour := lan(t)
	number(t, host, "1")
	number(t, neighbour, "9")
	c := dial(t, neighbour, listen(t, host, "[::]:0"), ip("192.0.2.1"))
	var s *conn
	host.Run(t, func() (err error) {
		s, err = openConn(unix.NETLINK_INET_DIAG)
		return err
	})
	defer s.close()
	if n, err := resetConnections(s, []netip.Addr{ip("192.0.2.1")}, time.Now().Add(-time.Second)); !errors.Is(err, errTooSlow) || n != 0 {
		t.Errorf("reset %d, %v", n, err)
	}
	if !c.alive(t) {
		t.Error("reset all the same")
	}
	_ = k
}

func TestNetworksAround(t *testing.T) {
	var addrs []netip.Addr
	for a := ip("10.0.3.0"); len(addrs) < 1000; a = a.Next() {
		addrs = append(addrs, a)
	}
	addrs = append(addrs, ip("192.0.2.200"))
	nets := networksAround(addrs, filterNetworks)
	if len(nets) == 0 || len(nets) > filterNetworks {
		t.Fatalf("%d networks: %v", len(nets), nets)
	}
	for _, a := range addrs {
		in := false
		for _, n := range nets {
			in = in || n.Contains(a)
		}
		if !in {
			t.Errorf("%s is in none of %v", a, nets)
		}
	}
	if got := networksAround([]netip.Addr{vip4.Addr(), vip6.Addr()}, 16); len(got) != 2 || !got[0].IsSingleIP() || !got[1].IsSingleIP() {
		t.Errorf("of two: %v", got)
	}
}

// BenchmarkReset says what so many connections of other addresses cost: others/addresses.
func BenchmarkReset(b *testing.B) {
	for _, others := range []int{0, 10000} {
		b.Run(fmt.Sprint(others), func(b *testing.B) {
			k := benchmarkKernel(b)
			host := &nstest.Host{Handle: k.ns}
			l := listen(b, host, "127.0.0.1:0")
			for range others / 2 { // each has two ends here
				dial(b, host, l, ip("127.0.0.1"))
			}
			var addrs []netip.Addr
			for a := ip("10.7.0.1"); len(addrs) < 1000; a = a.Next() {
				addrs = append(addrs, a)
			}
			for _, n := range []int{1, 1000} {
				b.Run(fmt.Sprint(n), func(b *testing.B) {
					for b.Loop() {
						if n, err := k.ResetConnections(addrs[:n]); err != nil || n != 0 {
							b.Fatal(n, err)
						}
					}
				})
			}
		})
	}
}
