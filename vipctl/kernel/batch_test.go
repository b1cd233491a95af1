package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vipctl/internal/nstest"
)

// TestAnswersMatch: each request has the answer that is its own, though only failures and the end of a chunk are answered.
func TestAnswersMatch(t *testing.T) {
	k, _, _ := lan(t)
	index, err := k.index("eth0")
	if err != nil {
		t.Fatal(err)
	}
	var b batch
	var want []error
	addr := netip.MustParseAddr("10.0.0.1")
	for i := range 2*chunk + 7 {
		a := address{index: index, prefix: netip.PrefixFrom(addr, 32), valid: time.Minute, protocol: Protocol}
		switch {
		case i%5 == 3:
			a.index, want = 9999, append(want, unix.ENODEV)
		case i == chunk-1 || i == 2*chunk+6: // the last of a chunk
			a.prefix, want = netip.PrefixFrom(addr, 33), append(want, unix.EINVAL)
		default:
			want = append(want, nil)
		}
		a.add(&b, 0)
		addr = addr.Next()
	}
	for i, got := range k.conn.run(&b, false) {
		if !errors.Is(got, want[i]) || (got == nil) != (want[i] == nil) {
			t.Errorf("request %d: %v, want %v", i, got, want[i])
		}
	}
	// And once more, stopping at the first chunk with a failure.
	answers := k.conn.run(&b, true)
	if !slices.ContainsFunc(answers[:chunk], func(err error) bool { return errors.Is(err, unix.ENODEV) }) ||
		slices.ContainsFunc(answers[chunk:], func(err error) bool { return !errors.Is(err, errNotSent) }) {
		t.Errorf("answers with stop: %v", answers)
	}
}

// TestMessagesAreChecked: whatever comes is read within its bounds.
func TestMessagesAreChecked(t *testing.T) {
	var b batch
	address{index: 3, prefix: vip6, valid: time.Minute, protocol: Protocol, flags: unix.IFA_F_NODAD}.add(&b, 0)
	whole := b.buf
	for m := range messages(whole) {
		m.kind = unix.RTM_NEWADDR
		if a, ok := addressOf(m); !ok || a.prefix != vip6 || a.index != 3 || a.protocol != Protocol || a.valid != time.Minute {
			t.Errorf("read back %+v", a)
		}
	}
	for n := range whole { // cut off anywhere
		for m := range messages(whole[:n]) {
			t.Errorf("a message in the first %d bytes of %d: %v", n, len(whole), m)
		}
		for kind, value := range attributes(whole[24:max(n, 24)]) {
			if len(value) > n {
				t.Errorf("attribute %d of %d bytes out of %d", kind, len(value), n)
			}
		}
	}
}

func benchmarkKernel(b *testing.B) *Kernel {
	host, neighbour := nstest.New(b), nstest.New(b)
	nstest.Connect(b, host, "eth0", neighbour, "eth0")
	host.Addr(b, "eth0", "10.7.255.1/16")
	var k *Kernel
	host.Run(b, func() (err error) {
		k, err = Open()
		return err
	})
	b.Cleanup(func() { k.Close() })
	return k
}

// BenchmarkAddresses says what one address costs: ns/address.
func BenchmarkAddresses(b *testing.B) {
	for _, n := range []int{1, 250, 1000} {
		k, at := benchmarkKernel(b), manyAt(n)
		run := func(what string, f func() error) {
			b.Run(fmt.Sprintf("%s/%d", what, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/address")
			})
		}
		b.Run(fmt.Sprintf("add+remove/%d", n), func(b *testing.B) {
			var adding time.Duration
			for b.Loop() {
				start := time.Now()
				put(b, k, at...)
				adding += time.Since(start)
				if err := k.RemoveAddresses(at); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(adding.Nanoseconds())/float64(b.N*n), "ns/address-added")
			b.ReportMetric(float64((b.Elapsed()-adding).Nanoseconds())/float64(b.N*n), "ns/address-removed")
		})
		put(b, k, at...)
		run("look", func() error {
			_, err := k.Look()
			return err
		})
		v := look(b, k)
		run("audit", func() error {
			_, err := v.Audit(at, nil, nil)
			return err
		})
		run("renew", func() error { return k.RenewAddresses(v, at, time.Minute) })
		if n == 1000 { // as groups of four do
			run("renew-by-4", func() error {
				for part := range slices.Chunk(at, 4) {
					if err := k.RenewAddresses(v, part, time.Minute); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
}
