package fence

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/vipctl/internal/nstest"
)

var (
	vip4 = netip.MustParseAddr("192.0.2.200")
	vip6 = netip.MustParseAddr("2001:db8::200")
)

const (
	long  = 5 * time.Second        // bounds a wait for what will come
	short = 150 * time.Millisecond // how long silence is listened to
)

func now(t testing.TB) election.Instant { return election.Instant(nstest.Boottime(t)) }

// pair is a host that holds both addresses, and another that asks for them.
func pair(t *testing.T) (holder, asker *nstest.Host) {
	holder, asker = nstest.New(t), nstest.New(t)
	nstest.Connect(t, holder, "eth0", asker, "eth0")
	holder.Addr(t, "eth0", "192.0.2.1/24")
	holder.Addr(t, "eth0", "2001:db8::1/64")
	asker.Addr(t, "eth0", "192.0.2.9/24")
	asker.Addr(t, "eth0", "2001:db8::9/64")
	holder.Addr(t, "eth0", vip4.String()+"/24")
	holder.Addr(t, "eth0", vip6.String()+"/64")
	// With these the asker needs no ARP for IP, so each path is tried by itself.
	asker.Run(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, a := range []netip.Addr{vip4, vip6} {
			if err := netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: a.AsSlice(),
				State: netlink.NUD_PERMANENT, HardwareAddr: holder.MAC(t, "eth0")}); err != nil {
				return err
			}
		}
		return nil
	})
	return holder, asker
}

func open(t *testing.T, h *nstest.Host, kind Kind) *Fence {
	t.Helper()
	var f *Fence
	h.Run(t, func() (err error) {
		f, err = Open(Options{Tag: "abc123", kind: kind})
		return err
	})
	t.Cleanup(func() { f.Close() })
	return f
}

func cover(t *testing.T, f *Fence) []string {
	t.Helper()
	added, err := f.Cover()
	if err != nil {
		t.Fatal(err)
	}
	return added
}

func set(t testing.TB, f *Fence, addr netip.Addr, until election.Instant) {
	t.Helper()
	if err := f.Set([]netip.Addr{addr}, until); err != nil {
		t.Fatal(err)
	}
}

func eachKind(t *testing.T, test func(*testing.T, Kind)) {
	nstest.NeedRoot(t)
	for _, kind := range []Kind{TCX, Clsact} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel() // each in namespaces of its own
			test(t, kind)
		})
	}
}

// TestAnswers goes through the life of an entry: none, in force, over, shut,
// deleted; and each time asks by ARP or NS and by TCP.
func TestAnswers(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		holder, asker := pair(t)
		f := open(t, holder, kind)
		if f.Kind() != kind {
			t.Fatalf("kind = %v", f.Kind())
		}
		cover(t, f)
		conn, mac := asker.Open(t, "eth0"), asker.MAC(t, "eth0")
		for _, addr := range []netip.Addr{vip4, vip6} {
			check := func(when string, want bool) {
				t.Helper()
				within := long
				if !want {
					within = short
				}
				if _, got := nstest.Asks(t, conn, mac, addr, within); got != want {
					t.Errorf("%s %s: answers by ARP or ND: %v", addr, when, got)
				}
				if got := asker.Connects(t, addr, within); got != want {
					t.Errorf("%s %s: answers by TCP: %v", addr, when, got)
				}
			}
			check("without an entry", true)
			set(t, f, addr, now(t).Add(time.Hour))
			check("before its deadline", true)
			set(t, f, addr, now(t))
			check("at its deadline", false)
			set(t, f, addr, now(t).Add(time.Hour))
			check("with a new deadline", true)
			set(t, f, addr, 0)
			check("shut", false)
			drops, err := f.Drops()
			if err != nil || drops[addr] == 0 {
				t.Errorf("drops of %s = %d, %v", addr, drops[addr], err)
			}
			if err := f.Delete([]netip.Addr{addr}); err != nil {
				t.Fatal(err)
			}
			check("deleted", true)
		}
	})
}

// TestNothingAfterDeadline lets a deadline pass under fire: no question asked
// after it may be answered, and some asked before it must be.
func TestNothingAfterDeadline(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		holder, asker := pair(t)
		f := open(t, holder, kind)
		cover(t, f)
		conn, mac := asker.Open(t, "eth0"), asker.MAC(t, "eth0")
		for _, addr := range []netip.Addr{vip4, vip6} {
			deadline := now(t).Add(300 * time.Millisecond)
			set(t, f, addr, deadline)
			before := 0
			for end := deadline.Add(300 * time.Millisecond); now(t) < end; {
				asked := now(t)
				_, ok := nstest.Asks(t, conn, mac, addr, 20*time.Millisecond)
				switch {
				case ok && asked >= deadline:
					// A late answer to an earlier question counts as this one's:
					// then it would be late by a whole round.
					t.Fatalf("%s: asked %s after the deadline, answered", addr, asked.Sub(deadline))
				case ok:
					before++
				}
			}
			if before == 0 {
				t.Errorf("%s: never answered before the deadline", addr)
			}
		}
	})
}

// TestOtherDevices: Linux answers ARP for its addresses on any device, so the
// fence must stand on those too that come later.
func TestOtherDevices(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		holder, asker := pair(t)
		f := open(t, holder, kind)
		if got, want := cover(t, f), []string{"eth0", "lo"}; !equalSorted(got, want) {
			t.Fatalf("covered first: %v, want %v", got, want)
		}
		if got := cover(t, f); len(got) != 0 {
			t.Fatalf("covered again: %v", got)
		}
		nstest.Connect(t, holder, "late0", asker, "late0")
		set(t, f, vip4, 0)
		conn, mac := asker.Open(t, "late0"), asker.MAC(t, "late0")
		if _, ok := nstest.Asks(t, conn, mac, vip4, long); !ok {
			t.Fatal("the weak host model does not show: no answer on an uncovered device, so this test proves nothing")
		}
		if got := cover(t, f); !slices.Equal(got, []string{"late0"}) {
			t.Fatalf("covered last: %v", got)
		}
		if _, ok := nstest.Asks(t, conn, mac, vip4, short); ok {
			t.Error("answers on late0 after it was covered")
		}
		if holder.Connects(t, vip4, short) {
			t.Error("the host itself reaches the address over loopback")
		}
		got, err := f.Covered()
		if want := []string{"eth0", "late0", "lo"}; err != nil || !equalSorted(got, want) {
			t.Errorf("Covered() = %v, %v, want %v", got, err, want)
		}
	})
}

func equalSorted(got, want []string) bool {
	slices.Sort(got)
	return slices.Equal(got, want)
}

// TestFoundAgain: a second life finds the entries and the drop counts, replaces
// the programs on each device, and what it writes is acted on.
func TestFoundAgain(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		holder, asker := pair(t)
		f := open(t, holder, kind)
		cover(t, f)
		until := now(t).Add(time.Hour)
		set(t, f, vip4, until)
		set(t, f, vip6, 0)
		conn, mac := asker.Open(t, "eth0"), asker.MAC(t, "eth0")
		nstest.Asks(t, conn, mac, vip6, short)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if _, ok := nstest.Asks(t, conn, mac, vip6, short); ok {
			t.Error("answers between the lives")
		}

		g := open(t, holder, kind)
		entries, err := g.Entries()
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != 2 || entries[vip4] != until || entries[vip6] != 0 {
			t.Errorf("entries = %v", entries)
		}
		drops, err := g.Drops()
		if err != nil || drops[vip6] == 0 {
			t.Errorf("drops = %v, %v", drops, err)
		}
		if got, err := g.Covered(); err != nil || !equalSorted(got, []string{"eth0", "lo"}) {
			t.Errorf("after Open Covered() = %v, %v", got, err)
		}
		for _, d := range devicesOf(t, holder) {
			for _, dir := range directions {
				if n := attachedTo(t, holder, g.hook, d, dir); n != 1 {
					t.Errorf("%s %s has %d programs, want the new one alone", d.name, dir, n)
				}
			}
		}
		set(t, g, vip6, until)
		if _, ok := nstest.Asks(t, conn, mac, vip6, long); !ok {
			t.Error("the second life's write has no effect")
		}

		other := &Fence{}
		holder.Run(t, func() (err error) {
			other, err = Open(Options{Tag: "def", kind: kind})
			return err
		})
		defer other.Close()
		if entries, err := other.Entries(); err != nil || len(entries) != 0 {
			t.Errorf("another tag sees entries %v, %v", entries, err)
		}
	})
}

func devicesOf(t *testing.T, h *nstest.Host) (devices []device) {
	t.Helper()
	h.Run(t, func() (err error) {
		devices, err = listDevices()
		return err
	})
	return devices
}

func attachedTo(t *testing.T, h *nstest.Host, hk hook, d device, dir direction) (n int) {
	t.Helper()
	h.Run(t, func() error {
		list, err := hk.attached(d, dir)
		n = len(list)
		return err
	})
	return n
}

// TestDetach: nothing is left, not even an empty queueing discipline, and what
// others attached stays.
func TestDetach(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		holder, asker := pair(t)
		f := open(t, holder, kind)
		cover(t, f)
		set(t, f, vip4, 0)
		var other *Fence
		holder.Run(t, func() (err error) {
			other, err = Open(Options{Tag: "0", kind: kind})
			return err
		})
		t.Cleanup(func() { other.Close() })
		cover(t, other)
		if err := f.Detach(); err != nil {
			t.Fatal(err)
		}
		if got, err := other.Covered(); err != nil || len(got) != 2 {
			t.Errorf("the other fence covers %v, %v", got, err)
		}
		if got, err := f.Covered(); err != nil || len(got) != 0 {
			t.Errorf("Covered() = %v, %v", got, err)
		}
		conn, mac := asker.Open(t, "eth0"), asker.MAC(t, "eth0")
		if _, ok := nstest.Asks(t, conn, mac, vip4, long); !ok {
			t.Error("no answer after Detach")
		}
		if err := other.Detach(); err != nil {
			t.Fatal(err)
		}
		holder.Run(t, func() error {
			for _, d := range devicesOf(t, holder) {
				qdiscs, err := netlink.QdiscList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: d.index}})
				if err != nil {
					return err
				}
				for _, q := range qdiscs {
					if q.Type() == "clsact" {
						t.Errorf("clsact is left on %s", d.name)
					}
				}
			}
			return nil
		})
	})
}

// TestStaysFirst: a program that another puts before ours could end the chain and
// so open the fence; the next Cover goes before it again.
func TestStaysFirst(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		holder, asker := pair(t)
		f := open(t, holder, kind)
		cover(t, f)
		var other *Fence
		holder.Run(t, func() (err error) {
			other, err = Open(Options{Tag: "0", kind: kind})
			return err
		})
		t.Cleanup(func() { other.Close() })
		cover(t, other)
		if got, err := f.Covered(); err != nil || len(got) != 0 {
			t.Fatalf("behind another program Covered() = %v, %v", got, err)
		}
		if got := cover(t, f); !equalSorted(got, []string{"eth0", "lo"}) {
			t.Errorf("went before it on %v", got)
		}
		for _, d := range devicesOf(t, holder) {
			for _, dir := range directions {
				if n := attachedTo(t, holder, f.hook, d, dir); n != 2 {
					t.Errorf("%s %s has %d programs, want two", d.name, dir, n)
				}
			}
		}
		set(t, f, vip4, 0)
		conn, mac := asker.Open(t, "eth0"), asker.MAC(t, "eth0")
		if _, ok := nstest.Asks(t, conn, mac, vip4, short); ok {
			t.Error("answers")
		}
	})
}

func TestFullMap(t *testing.T) {
	f := open(t, nstest.New(t), 0)
	a := netip.MustParseAddr("10.0.0.0")
	for range maxEntries {
		set(t, f, a, 0)
		a = a.Next()
	}
	err := f.Set([]netip.Addr{a}, 0)
	if err == nil || !strings.Contains(err.Error(), "4096") {
		t.Errorf("one too many: %v", err)
	}
	if err := f.Delete([]netip.Addr{a}); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
}

func TestBadArguments(t *testing.T) {
	for _, tag := range []string{"", "1234567", "A", "g", "a b"} {
		if _, err := Open(Options{Tag: tag}); err == nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("tag %q: %v", tag, err)
		}
	}
	if _, err := keysOf([]netip.Addr{{}}); err == nil {
		t.Error("the zero address is taken")
	}
}

func TestOffsets(t *testing.T) {
	if err := CheckTimeNamespace(); err != nil {
		t.Errorf("here: %v", err)
	}
	for text, ok := range map[string]bool{
		"": true,
		"monotonic           0         0\nboottime            0         0\n": true,
		"monotonic           7         0\nboottime            0         0\n": true,
		"monotonic           0         0\nboottime           10         0\n": false,
		"monotonic           0         0\nboottime           -1 999999999\n": false,
		"boottime            0         5\n":                                  false,
		"7 1 0\n":                                                            false,
	} {
		if err := checkOffsets(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestUnavailableTeaches(t *testing.T) {
	err := unavailable("this process lacks CAP_NET_ADMIN", os.ErrPermission)
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, os.ErrPermission) {
		t.Errorf("%v wraps neither", err)
	}
	for _, want := range []string{"CAP_NET_ADMIN", "fence: lifetime", "3s"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q says nothing of %s", err, want)
		}
	}
}

func TestObjectIsCurrent(t *testing.T) {
	source, err := os.ReadFile("fence.bpf.c")
	if err != nil {
		t.Fatal(err)
	}
	noted, err := os.ReadFile("fence.bpf.c.sha256")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(source)
	if hex.EncodeToString(sum[:]) != strings.TrimSpace(string(noted)) {
		t.Error("fence.bpf.c has changed since fence.bpf.o was made: run go generate ./vipctl/fence")
	}
}
