package fence

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vipctl/internal/nstest"
)

// tun makes a device without Ethernet header, whose other end is a file.
func tun(t *testing.T, h *nstest.Host, name string) *os.File {
	t.Helper()
	var file *os.File
	h.Run(t, func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			t.Skip("SKIPPED: this kernel has no tun devices: the fence on devices without Ethernet header is untested")
		}
		if err != nil {
			return err
		}
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			return err
		}
		// Only now is it a file that can be polled.
		file = os.NewFile(uintptr(fd), name)
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
	t.Cleanup(func() { file.Close() })
	return file
}

// echo is an ICMP or ICMPv6 echo request as an IP packet.
func echo(src, dst netip.Addr) []byte {
	body := []byte{8, 0, 0, 0, 1, 2, 3, 4}
	if src.Is4() {
		binary.BigEndian.PutUint16(body[2:], ^sum(body))
		h := []byte{0x45, 0, 0, byte(20 + len(body)), 0, 0, 0, 0, 64, 1, 0, 0}
		h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
		binary.BigEndian.PutUint16(h[10:], ^sum(h))
		return append(h, body...)
	}
	body[0] = 128
	pseudo := append(append(append([]byte{}, src.AsSlice()...), dst.AsSlice()...), 0, 0, 0, byte(len(body)), 0, 0, 0, 58)
	binary.BigEndian.PutUint16(body[2:], ^sum(append(pseudo, body...)))
	h := []byte{0x60, 0, 0, 0, 0, byte(len(body)), 58, 64}
	h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
	return append(h, body...)
}

func sum(b []byte) uint16 {
	var s uint32
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// TestBareDevices: where there is no Ethernet header, the network header is read.
func TestBareDevices(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		h := nstest.New(t)
		far := tun(t, h, "tun0")
		h.Addr(t, "tun0", vip4.String()+"/24")
		h.Addr(t, "tun0", vip6.String()+"/64")
		f := open(t, h, kind)
		cover(t, f)
		for _, test := range []struct{ asker, vip netip.Addr }{
			{netip.MustParseAddr("192.0.2.9"), vip4},
			{netip.MustParseAddr("2001:db8::9"), vip6},
		} {
			answers := func(within time.Duration) bool {
				t.Helper()
				if _, err := far.Write(echo(test.asker, test.vip)); err != nil {
					t.Fatal(err)
				}
				if err := far.SetReadDeadline(time.Now().Add(within)); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 2048)
				for {
					n, err := far.Read(b)
					if errors.Is(err, os.ErrDeadlineExceeded) {
						return false
					}
					if err != nil {
						t.Fatal(err)
					}
					if b[0]>>4 == 4 && n >= 28 && b[9] == 1 && b[20] == 0 || b[0]>>4 == 6 && n >= 48 && b[6] == 58 && b[40] == 129 {
						return true
					}
				}
			}
			if !answers(long) {
				t.Errorf("%s: no answer without an entry", test.vip)
			}
			set(t, f, test.vip, now(t).Add(time.Hour))
			if !answers(long) {
				t.Errorf("%s: no answer before its deadline", test.vip)
			}
			set(t, f, test.vip, 0)
			if answers(short) {
				t.Errorf("%s: answers when shut", test.vip)
			}
			drops, err := f.Drops()
			if err != nil || drops[test.vip] == 0 {
				t.Errorf("%s: drops = %d, %v", test.vip, drops[test.vip], err)
			}
		}
		// What the host itself sends is dropped on its way out.
		set(t, f, vip4, 0)
		before, err := f.Drops()
		if err != nil {
			t.Fatal(err)
		}
		h.Connects(t, netip.MustParseAddr("192.0.2.10"), short) // by source vip4, the only one
		if after, err := f.Drops(); err != nil || after[vip4] == before[vip4] {
			t.Errorf("nothing dropped on its way out (%v)", err)
		}
	})
}
