package fence

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/vipctl/internal/nstest"
)

// many returns n addresses of both families, from an offset on.
func many(from, n int) (addrs []netip.Addr) {
	for i := from; i < from+n; i++ {
		if i%3 == 0 {
			addrs = append(addrs, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i >> 8), 15: byte(i)}))
			continue
		}
		addrs = append(addrs, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	return addrs
}

// bothWays runs the test with many entries in one call, and as on kernels that cannot do that.
func bothWays(t *testing.T, test func(*testing.T, *Fence)) {
	for name, single := range map[string]bool{"at once": false, "one by one": true} {
		t.Run(name, func(t *testing.T) {
			f := open(t, nstest.New(t), 0)
			f.single = single
			test(t, f)
		})
	}
}

func TestMany(t *testing.T) {
	bothWays(t, func(t *testing.T, f *Fence) {
		single := f.single
		all := many(0, 1000)
		until := now(t)
		for _, at := range []election.Instant{until, -5, until} {
			if err := f.Set(all, at); err != nil {
				t.Fatal(err)
			}
			entries, err := f.Entries()
			if err != nil || len(entries) != len(all) {
				t.Fatalf("%d entries, %v", len(entries), err)
			}
			for _, a := range all {
				if got, ok := entries[a]; !ok || got != max(at, 0) {
					t.Fatalf("%s: %v %v, want %v", a, got, ok, at)
				}
			}
		}
		slow, err := readSingly(f.deadlines)
		if err != nil || len(slow) != len(all) {
			t.Errorf("one by one there are %d entries, %v", len(slow), err)
		}
		// Some of these are not there: before, between and behind those that are.
		gone := append(append(many(2000, 3), all[:500]...), append(many(3000, 2), all[498:990]...)...)
		if err := f.Delete(append(gone, many(4000, 1)...)); err != nil {
			t.Fatal(err)
		}
		entries, err := f.Entries()
		if err != nil || len(entries) != 10 {
			t.Errorf("%d entries are left, %v", len(entries), err)
		}
		for _, a := range all[990:] {
			if entries[a] != until {
				t.Errorf("%s: %v", a, entries[a])
			}
		}
		if err := errors.Join(f.Set(nil, 0), f.Delete(nil)); err != nil {
			t.Errorf("nothing at all: %v", err)
		}
		if f.single != single {
			t.Error("this kernel should have batches")
		}
	})
}

// TestPartOfMany: the error names the first that was not written; those before it were, and all can be shut after.
func TestPartOfMany(t *testing.T) {
	bothWays(t, func(t *testing.T, f *Fence) {
		const room = 7
		if err := f.Set(many(0, maxEntries-room), 0); err != nil {
			t.Fatal(err)
		}
		// Those that are there have room; of the new ones the eighth has none.
		last := many(20000, 50)
		addrs := append(many(0, 5), last...)
		err := f.Set(addrs, 1<<62)
		if err == nil || !errors.Is(err, unix.E2BIG) || !strings.Contains(err.Error(), last[room].String()+":") {
			t.Fatalf("want %s to be named: %v", last[room], err)
		}
		entries, err := f.Entries()
		if err != nil || len(entries) != maxEntries {
			t.Errorf("%d entries, %v", len(entries), err)
		}
		for i, a := range addrs {
			if got, ok := entries[a]; ok != (i < 5+room) || ok && got != 1<<62 {
				t.Errorf("%d, %s: %v %v", i, a, got, ok)
			}
		}
		if err := f.Set(addrs[:5+room], 0); err != nil {
			t.Errorf("shut: %v", err)
		}
		if err := f.Set([]netip.Addr{vip4, {}}, 0); err == nil {
			t.Error("the zero address is taken")
		}
	})
}

// TestFailureThatDidNotCount: when the kernel failed before it counted, the first is named.
func TestFailureThatDidNotCount(t *testing.T) {
	f := &Fence{}
	never := func(*key) error { t.Error("one by one"); return nil }
	for count, want := range map[int]int{0: 0, 1: 1, 3: 0} {
		done, err := f.each(make([]key, 3), func([]key) (int, error) { return count, unix.ENOMEM }, never)
		if done != want || !errors.Is(err, unix.ENOMEM) {
			t.Errorf("counted %d: %d, %v", count, done, err)
		}
	}
	for _, cannot := range []error{ebpf.ErrNotSupported, unix.EINVAL} {
		f, wrote := &Fence{}, 0
		done, err := f.each(make([]key, 3), func([]key) (int, error) { return 0, fmt.Errorf("batch: %w", cannot) },
			func(*key) error { wrote++; return nil })
		if done != 0 || err != nil || wrote != 3 || !f.single {
			t.Errorf("%v: %d, %v, wrote %d", cannot, done, err, wrote)
		}
	}
}

func benchmarkFence(b *testing.B) *Fence {
	h := nstest.New(b)
	var f *Fence
	h.Run(b, func() (err error) {
		f, err = Open(Options{Tag: fmt.Sprintf("%x", os.Getpid()&0xffffff)})
		return err
	})
	b.Cleanup(func() { f.Close() })
	return f
}

// BenchmarkSet says what a renewal of so many addresses costs, in one call and one by one.
func BenchmarkSet(b *testing.B) {
	for _, n := range []int{1, 250, 1000} {
		for name, single := range map[string]bool{"batch": false, "single": true} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				f, addrs, until := benchmarkFence(b), many(0, n), now(b)
				f.single = single
				b.ReportAllocs()
				for b.Loop() {
					if err := f.Set(addrs, until); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/address")
			})
		}
	}
}

// BenchmarkEntries says what reading the map costs, in one call and one by one.
func BenchmarkEntries(b *testing.B) {
	for _, n := range []int{1, 250, 1000} {
		f := benchmarkFence(b)
		if err := f.Set(many(0, n), 0); err != nil {
			b.Fatal(err)
		}
		for name, read := range map[string]func(*ebpf.Map) (map[netip.Addr]uint64, error){"batch": readMap, "single": readSingly} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if got, err := read(f.deadlines); err != nil || len(got) != n {
						b.Fatal(len(got), err)
					}
				}
			})
		}
	}
}
