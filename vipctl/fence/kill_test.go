package fence

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/vipctl"
	"github.com/quorate/quorate/vipctl/internal/nstest"
)

// The test binary starts itself as the process that is killed. It lays the fence
// and waits for its end.
const (
	helperEnv    = "QUORATE_TEST_FENCE_HELPER"
	unprivileged = "unprivileged"
)

// TestUnprivileged: without the capabilities there is no fence, and the error
// says which are missing and what to do without.
func TestUnprivileged(t *testing.T) {
	nstest.NeedRoot(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"="+unprivileged)
	const nobody = 65534
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"true ", "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "fence: lifetime"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s\nsays nothing of %q", out, want)
		}
	}
}

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) == unprivileged {
		_, err := Open(Options{Tag: "abc123"})
		fmt.Println(errors.Is(err, ErrUnavailable), err)
		os.Exit(0)
	}
	if kind := os.Getenv(helperEnv); kind != "" {
		if err := helper(kind); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func helper(kind string) error {
	opts := Options{Tag: "abc123", kind: TCX}
	if kind == Clsact.String() {
		opts.kind = Clsact
	}
	f, err := Open(opts)
	if err != nil {
		return err
	}
	if _, err := f.Cover(); err != nil {
		return err
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return err
	}
	until := election.Instant(ts.Nano()).Add(time.Second)
	for _, a := range []netip.Addr{vip4, vip6} {
		if err := f.Set([]netip.Addr{a}, until); err != nil {
			return err
		}
	}
	fmt.Println("ready", int64(until))
	_, err = io.Copy(io.Discard, os.Stdin) // until killed
	return err
}

// start runs the helper on the host and returns the deadline that it has set.
func start(t *testing.T, h *nstest.Host, kind Kind) (*exec.Cmd, election.Instant) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"="+kind.String())
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.Run(t, cmd.Start)
	t.Cleanup(func() {
		stdin.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	var until election.Instant
	if _, scanErr := fmt.Sscanf(line, "ready %d", (*int64)(&until)); scanErr != nil {
		t.Fatalf("helper says %q (%v)", line, err)
	}
	return cmd, until
}

// TestKilled: after kill -9 the addresses answer up to the deadline, and then no
// more, though nobody has removed them; the next life finds the entries.
func TestKilled(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		holder, asker := pair(t)
		cmd, until := start(t, holder, kind)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		conn, mac := asker.Open(t, "eth0"), asker.MAC(t, "eth0")
		if _, ok := nstest.Asks(t, conn, mac, vip4, time.Until(time.Now().Add(until.Sub(now(t))))); !ok {
			t.Error("no answer within the lease of the killed process")
		}
		nstest.Eventually(t, "the deadline comes", long, func() bool { return now(t) >= until })
		for _, addr := range []netip.Addr{vip4, vip6} {
			if _, ok := nstest.Asks(t, conn, mac, addr, short); ok {
				t.Errorf("%s answers by ARP or ND after the deadline of the killed process", addr)
			}
			if asker.Connects(t, addr, short) {
				t.Errorf("%s answers by TCP after the deadline of the killed process", addr)
			}
		}
		f := open(t, holder, kind)
		entries, err := f.Entries()
		if err != nil || entries[vip4] != until || entries[vip6] != until {
			t.Errorf("entries found = %v, %v, want %d for both", entries, err, until)
		}
		if err := f.Detach(); err != nil {
			t.Fatal(err)
		}
		if _, ok := nstest.Asks(t, conn, mac, vip4, long); !ok {
			t.Error("the address was not there any more: this test proved nothing")
		}
	})
}

// advert is an Ethernet frame with a VRRPv3 advert (RFC 9568, section 5.1);
// the fence reads no checksums. Tags go between addresses and type.
func advert(priority byte, addrs []netip.Addr, tags ...uint16) []byte {
	b := []byte{1, 0, 0x5e, 0, 0, 18, 0, 0, 0x5e, 0, 1, 51}
	for _, tag := range tags {
		b = binary.BigEndian.AppendUint16(b, tag)
		b = binary.BigEndian.AppendUint16(b, 7)
	}
	payload := []byte{0x31, 51, priority, byte(len(addrs)), 0, 100, 0, 0}
	for _, a := range addrs {
		payload = append(payload, a.AsSlice()...)
	}
	if addrs[0].Is4() {
		b = append(b, 0x08, 0x00, 0x45, 0, 0, byte(20+len(payload)), 0, 0, 0, 0, 255, 112, 0, 0)
		b = append(b, 192, 0, 2, 77, 224, 0, 0, 18)
		return append(b, payload...)
	}
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(payload)), 112, 255)
	b = append(b, netip.MustParseAddr("fe80::77").AsSlice()...)
	b = append(b, netip.MustParseAddr("ff02::12").AsSlice()...)
	return append(b, payload...)
}

// TestAdverts: what we send for an address past its deadline is dropped, unless
// it gives up; what others send comes in.
func TestAdverts(t *testing.T) {
	linkLocal := netip.MustParseAddr("fe80::1")
	other := netip.MustParseAddr("192.0.2.201")
	eachKind(t, func(t *testing.T, kind Kind) {
		holder, asker := pair(t)
		f := open(t, holder, kind)
		cover(t, f)
		inside, outside := holder.Open(t, "eth0"), asker.Open(t, "eth0")
		for name, test := range map[string]struct {
			frame []byte
			shut  netip.Addr
			comes bool // out when shut
		}{
			"IPv4":                  {advert(254, []netip.Addr{vip4}), vip4, false},
			"IPv4, second address":  {advert(254, []netip.Addr{other, vip4}), vip4, false},
			"IPv4, foreign":         {advert(254, []netip.Addr{other}), vip4, true},
			"IPv4, giving up":       {advert(0, []netip.Addr{vip4}), vip4, true},
			"IPv4, one VLAN tag":    {advert(254, []netip.Addr{vip4}, 0x8100), vip4, false},
			"IPv4, two VLAN tags":   {advert(254, []netip.Addr{vip4}, 0x88a8, 0x8100), vip4, false},
			"IPv6 after link-local": {advert(254, []netip.Addr{linkLocal, vip6}), vip6, false},
			"IPv6, one VLAN tag":    {advert(254, []netip.Addr{vip6}, 0x8100), vip6, false},
			"IPv6, giving up":       {advert(0, []netip.Addr{linkLocal, vip6}), vip6, true},
			"cut off in its header": {advert(254, []netip.Addr{vip4})[:14+20+3], vip4, true},
		} {
			arrives := func(from, to *packet.Conn, within time.Duration) bool {
				t.Helper()
				nstest.Hears(t, to, time.Millisecond, func([]byte) bool { return false })
				nstest.Send(t, from, test.frame)
				return nstest.Hears(t, to, within, func(b []byte) bool { return isVRRP(b) })
			}
			set(t, f, test.shut, now(t).Add(time.Hour))
			if !arrives(inside, outside, long) {
				t.Errorf("%s: not sent though in force", name)
			}
			set(t, f, test.shut, 0)
			within := short
			if test.comes {
				within = long
			}
			if got := arrives(inside, outside, within); got != test.comes {
				t.Errorf("%s: sent after the deadline: %v, want %v", name, got, test.comes)
			}
			before, err := f.Drops()
			if err != nil {
				t.Fatal(err)
			}
			if !arrives(outside, inside, long) {
				t.Errorf("%s: not heard from others", name)
			}
			if after, err := f.Drops(); err != nil || after[test.shut] != before[test.shut] {
				t.Errorf("%s: an advert of others was dropped on its way in (%v)", name, err)
			}
			if err := f.Delete([]netip.Addr{test.shut}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// isVRRP says whether a frame, its VLAN tags aside, has our advert's source.
func isVRRP(b []byte) bool {
	return len(b) > 12 && net.HardwareAddr(b[6:12]).String() == "00:00:5e:00:01:33"
}

// TestPriorityTag: a question in a frame with a VLAN tag of number 0 reaches the
// stack as if it had none, so it must not get past the fence.
func TestPriorityTag(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		holder, asker := pair(t)
		f := open(t, holder, kind)
		cover(t, f)
		conn, mac := asker.Open(t, "eth0"), asker.MAC(t, "eth0")
		for _, addr := range []netip.Addr{vip4, vip6} {
			ask := vipctl.ProbeARP
			if addr.Is6() {
				ask = vipctl.NeighborSolicitation
			}
			question, err := ask(addr, mac)
			if err != nil {
				t.Fatal(err)
			}
			question = slices.Concat(question[:12], []byte{0x81, 0, 0xe0, 0}, question[12:])
			answers := func(within time.Duration) bool {
				nstest.Hears(t, conn, time.Millisecond, func([]byte) bool { return false })
				nstest.Send(t, conn, question)
				return nstest.Hears(t, conn, within, func(b []byte) bool {
					a, _, ok := vipctl.ParseConflict(b)
					return ok && a == addr
				})
			}
			if !answers(long) {
				t.Errorf("%s: no answer to a tagged question: this test proves nothing", addr)
			}
			set(t, f, addr, 0)
			if answers(short) {
				t.Errorf("%s: answers when shut", addr)
			}
			// Dropped as it came in, not only as the answer went out: one, not two.
			if drops, err := f.Drops(); err != nil || drops[addr] != 1 {
				t.Errorf("%s: %d drops, want the question alone (%v)", addr, drops[addr], err)
			}
		}
	})
}
