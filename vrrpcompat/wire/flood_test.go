package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vrrpcompat"
)

// flood sends bad packets at a rate until ctx ends, and says how many.
func flood(ctx context.Context, c tap, frame []byte, perSecond int) (sent int, err error) {
	const batch = 10 * time.Millisecond
	tick := time.NewTicker(batch)
	defer tick.Stop()
	began, to := time.Now(), &packet.Addr{HardwareAddr: frame[:6]}
	for {
		for due := int(time.Since(began).Seconds() * float64(perSecond)); sent < due; sent++ {
			binary.BigEndian.PutUint32(frame[len(frame)-4:], uint32(sent))
			if _, err := c.WriteTo(frame, to); err != nil {
				return sent, err
			}
		}
		select {
		case <-ctx.Done():
			return sent, nil
		case <-tick.C:
		}
	}
}

// While 10,000 bad packets come in each second, each is counted or known to be lost; our own adverts keep their
// interval, none being late by another one; and good adverts are heard.
func TestFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED, NOT TESTED: takes some seconds of flood")
	}
	const attempts = 4 // on a machine that is busy with other things a ticker of any program may be late
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			var late []time.Duration
			for range attempts {
				gap := underFlood(t, f)
				if gap < 2*floodInterval {
					return
				}
				late = append(late, gap)
			}
			t.Errorf("the interval is %s; the longest times between two adverts, in %d attempts: %v", floodInterval, attempts, late)
		})
	}
}

const floodInterval = 200 * time.Millisecond

// underFlood returns the longest time between two of our adverts while a flood comes in, and sees that every packet is
// accounted for.
func underFlood(t *testing.T, f vrrpcompat.Family) time.Duration {
	t.Helper()
	const rate, lasts = 10_000, 3 * time.Second
	a, b := newHosts(t)
	var bad, good atomic.Int64
	us, them := &station{host: a}, &station{host: b}
	us.start(t, Options{Receive: func(p *Packet) {
		meta, why := p.Admit(nil)
		if why == 0 {
			if _, _, err := vrrpcompat.Decode(p.Payload, meta, nil); err == nil {
				good.Add(1)
				return
			}
		}
		bad.Add(1)
	}})
	them.start(t, Options{Receive: func(*Packet) {}})
	if err := us.Listen(a.ifname, f); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	gap, flooded := make(chan time.Duration, 1), make(chan error, 1)
	go func() { gap <- longestGap(ctx, b, t, f, a.source(t, f).String()) }()
	sent := 0
	tap, frame := b.tap(t), badFrame(t, b, f)
	go func() {
		var err error
		sent, err = flood(ctx, tap, frame, rate)
		flooded <- err
	}()
	began, said := processor(t), int64(0)
	for usual := time.Tick(floodInterval); ctx.Err() == nil; said++ {
		if err := errors.Join(us.say(advert(f)), them.say(advert(f))); err != nil {
			t.Error(err)
		}
		select {
		case <-usual:
		case <-ctx.Done():
		}
	}
	if err := <-flooded; err != nil {
		t.Fatal(err)
	}
	used := processor(t) - began
	eventually(t, "all packets", func() error {
		if got := bad.Load() + good.Load() + int64(us.Overruns()); got != int64(sent)+said {
			return fmt.Errorf("%d of %d accounted for", got, int64(sent)+said)
		}
		return nil
	})
	if good.Load() > said || good.Load()+int64(us.Overruns()) < said {
		t.Errorf("%d of %d good adverts heard", good.Load(), said)
	}
	longest := <-gap
	t.Logf("%d bad packets in %s, %d overruns, %d of %d good ones heard; at most %s between two of ours; %s of processor for both sides",
		sent, lasts, us.Overruns(), good.Load(), said, longest, used)
	return longest
}

// processor is the time that this process has had of the processors.
func processor(t *testing.T) time.Duration {
	t.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// badFrame is an advert of a version that there is not.
func badFrame(t *testing.T, from host, f vrrpcompat.Family) []byte {
	t.Helper()
	source := from.source(t, f)
	message, err := advert(f).AppendTo(nil, source, f.Group(), vrrpcompat.PseudoHeader)
	if err != nil {
		t.Fatal(err)
	}
	message[0] = 0x51
	return forged{from: source, to: f.Group(), hops: 255, payload: message}.frame(from.mac(t), nil)
}

// longestGap listens as a neighbour to the adverts from one address, and returns the longest time between two.
func longestGap(ctx context.Context, h host, t *testing.T, f vrrpcompat.Family, from string) time.Duration {
	var longest time.Duration
	var last atomic.Int64
	s := &station{host: h}
	tr, err := New(Options{In: s.in(t), Receive: func(p *Packet) {
		if p.Source.String() != from || p.Reason != 0 {
			return
		}
		if l := last.Swap(int64(p.Arrival)); l != 0 {
			longest = max(longest, time.Duration(int64(p.Arrival)-l))
		}
	}})
	if err != nil {
		t.Error(err)
		return 0
	}
	defer tr.Close()
	if err := tr.Listen(h.ifname, f); err != nil {
		t.Error(err)
	}
	if err := tr.Run(ctx); err != nil {
		t.Error(err)
	}
	if last.Load() == 0 {
		t.Error("the neighbour heard nothing")
	}
	return longest
}

// A receiver that is stuck costs packets, which are counted. What the socket kept is then read, though not faster than a
// listener reads at most.
func TestOverrun(t *testing.T) {
	a, b := newHosts(t)
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			var once sync.Once
			release, heard := make(chan struct{}), make(chan vrrpcompat.VRID, 1<<16)
			us := &station{host: a}
			us.start(t, Options{Receive: func(p *Packet) {
				<-release
				heard <- p.VRID()
			}})
			letGo := func() { once.Do(func() { close(release) }) }
			t.Cleanup(letGo) // before Run is waited for
			if err := us.Listen(a.ifname, f); err != nil {
				t.Fatal(err)
			}
			them := &station{host: b}
			them.start(t, Options{Receive: func(*Packet) {}})
			sent := 0
			for us.Overruns() == 0 {
				if sent++; sent == 1<<16 {
					t.Fatal("the buffer is never full")
				}
				if err := them.say(advert(f)); err != nil {
					t.Fatal(err)
				}
			}
			letGo()
			began, got := time.Now(), 0
			eventually(t, "another advert", func() error {
				if err := them.say(marked(f, 99)); err != nil {
					return err
				}
				for {
					select {
					case vrid := <-heard:
						if vrid == 99 {
							return nil
						}
						got++
					default:
						return fmt.Errorf("%d of %d heard so far", got, sent)
					}
				}
			})
			if got >= sent {
				t.Errorf("%d heard, %d sent, %d lost", got, sent, us.Overruns())
			}
			if least := time.Duration(got/readBurst-1) * readWindow; time.Since(began) < least {
				t.Errorf("%d packets read in %s, want at least %s", got, time.Since(began), least)
			}
			us.Unlisten(a.ifname, f)
			if us.Overruns() == 0 {
				t.Error("what was lost is forgotten")
			}
		})
	}
}
