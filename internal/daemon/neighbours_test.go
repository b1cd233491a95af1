package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/vipctl"
	"github.com/quorate/quorate/vipctl/kernel"
)

// A fakeLAN is the kernel as a lan sees it.
type fakeLAN struct {
	mu      sync.Mutex
	table   vipctl.Segment
	failing error
	told    []string
	met     []string
	watched map[string]int // by device and addresses, how many watch them
	opened  int
}

func (f *fakeLAN) Neighbours(string) (vipctl.Segment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.table
	s.Neighbours = slices.Clone(s.Neighbours)
	return s, f.failing
}

func (f *fakeLAN) Tell(link string, tell []vipctl.Telling) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range tell {
		f.told = append(f.told, fmt.Sprintf("%s %s to %s", link, t.Addr, t.To.Addr))
	}
	return f.failing
}

func (f *fakeLAN) Acquaint(link string, with []vipctl.Neighbour) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range with {
		f.met = append(f.met, link+" "+n.Addr.String())
	}
	return f.failing
}

func (f *fakeLAN) WatchClaims(ctx context.Context, link string, addrs []netip.Addr, _ func(kernel.Claim)) error {
	what := fmt.Sprint(link, " ", addrs)
	f.mu.Lock()
	f.opened++
	f.watched[what]++
	failing := f.failing
	f.mu.Unlock()
	if failing == nil {
		<-ctx.Done()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watched[what]--; f.watched[what] == 0 {
		delete(f.watched, what)
	}
	return failing
}

// watches lists what is watched.
func (f *fakeLAN) watches() (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for what, n := range f.watched {
		out = append(out, fmt.Sprint(what, " x", n))
	}
	return out
}

func (f *fakeLAN) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failing = err
}

var (
	lanDoc = fsm.Document{Groups: []fsm.Group{
		{Name: "web", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.200/24"), netip.MustParsePrefix("2001:db8::200/64")}},
		{Name: "mac", VMAC: true, VRRP: fsm.VRRP{ID: 51}, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.201/24")}},
	}}
	web4, web6, mac4 = lanDoc.Groups[0].Addresses[0], lanDoc.Groups[0].Addresses[1], lanDoc.Groups[1].Addresses[0]
	lanNets          = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")}
)

func newFakeLAN(t *testing.T) (*lan, *fakeLAN, *[]core.Claimed) {
	f := &fakeLAN{watched: map[string]int{}}
	var posted []core.Claimed
	l := newLAN(f, func() fsm.Document { return lanDoc }, func(ev core.Event) { posted = append(posted, ev.(core.Claimed)) },
		slog.New(slog.NewTextHandler(t.Output(), nil)))
	start := time.Now()
	l.now = func() vipctl.Instant { return vipctl.Instant(time.Hour + time.Since(start)) }
	return l, f, &posted
}

func on(link string, at ...netip.Prefix) (out []core.Place) {
	for _, p := range at {
		out = append(out, core.Place{Link: link, Prefix: p})
	}
	return out
}

func peer(addr string, n byte, age time.Duration) vipctl.Neighbour {
	return vipctl.Neighbour{Addr: netip.MustParseAddr(addr), MAC: vipctl.MAC{2, 0, 0, 0, 1, n}, Age: age}
}

// pass lets time go by in a bubble, and returns when everybody waits again.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// finish calls next until it has nothing more to say.
func finish(t *testing.T, next func() (bool, error)) {
	t.Helper()
	for range 1000 {
		more, err := next()
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
		time.Sleep(13 * time.Millisecond)
	}
	t.Fatal("it never ends")
}

// TestNeighboursAreShared: who talks with the owner is told by the next one, on whatever
// device that has; a gateway by its link-local address too. A virtual MAC address needs no
// telling, and those who only talk with the new owner come last.
func TestNeighboursAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		owner, ownerKernel, _ := newFakeLAN(t)
		next, nextKernel, _ := newFakeLAN(t)
		from := netip.MustParseAddrPort("192.0.2.1:7950")
		var sent atomic.Int64
		owner.share = func(payload []byte) { sent.Add(1); next.heard(from, payload) }
		ownerKernel.table = vipctl.Segment{Networks: lanNets, Neighbours: []vipctl.Neighbour{
			peer("192.0.2.9", 9, time.Minute), peer("fe80::9", 9, time.Second), peer("192.0.2.201", 1, 0)}}
		nextKernel.table = vipctl.Segment{Networks: lanNets, Neighbours: []vipctl.Neighbour{peer("192.0.2.77", 77, 0)}}

		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- owner.run(ctx) }()
		pass(time.Minute)
		if sent.Load() != 0 {
			t.Fatalf("%d lists sent while nothing was held", sent.Load())
		}
		owner.put(on("eth0", web4, web6))
		pass(firstLook + time.Second)
		if sent.Load() != 1 || next.known() != 2 {
			t.Fatalf("%d lists sent, %d neighbours known", sent.Load(), next.known())
		}
		pass(lookEvery * 2)
		if sent.Load() != 1 {
			t.Errorf("%d lists sent, and nothing was new", sent.Load())
		}
		finish(t, next.tell("lan7", []netip.Addr{web4.Addr(), web6.Addr(), mac4.Addr()}))
		want := []string{"lan7 2001:db8::200 to fe80::9", "lan7 192.0.2.200 to 192.0.2.9", "lan7 192.0.2.200 to 192.0.2.77"}
		if !slices.Equal(nextKernel.told, want) {
			t.Errorf("told\n%s\nwant\n%s", strings.Join(nextKernel.told, "\n"), strings.Join(want, "\n"))
		}
		if want := []string{"lan7 fe80::9", "lan7 192.0.2.9"}; !slices.Equal(nextKernel.met, want) {
			t.Errorf("the kernel was told of %v, want %v", nextKernel.met, want)
		}

		ownerKernel.mu.Lock()
		ownerKernel.table.Neighbours = append(ownerKernel.table.Neighbours, peer("192.0.2.10", 10, 0))
		ownerKernel.mu.Unlock()
		pass(lookEvery)
		if sent.Load() != 2 || next.known() != 3 {
			t.Errorf("a new neighbour: %d lists sent, %d known", sent.Load(), next.known())
		}
		pass(shareAgain + lookEvery)
		if sent.Load() != 3 {
			t.Errorf("after a minute %d lists were sent, want one more", sent.Load())
		}
		owner.took(on("eth0", web4, web6))
		pass(2 * shareAgain)
		if sent.Load() != 3 {
			t.Errorf("%d lists sent when nothing was held any more", sent.Load())
		}
		pass(20 * time.Minute)
		if n := next.known(); n != 0 {
			t.Errorf("%d are known of whom nobody has spoken for long", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestNeighboursGoWrong: what cannot be read or looked at is no reason to end.
func TestNeighboursGoWrong(t *testing.T) {
	l, f, _ := newFakeLAN(t)
	l.heard(netip.MustParseAddrPort("192.0.2.1:7950"), []byte{17, 1, 2})
	if l.known() != 0 {
		t.Error("something was made of nonsense")
	}
	l.put(on("eth0", web4))
	f.fail(errors.New("no such device"))
	l.look(l.now())
	if more, err := l.tell("eth0", []netip.Addr{web4.Addr()})(); more || err == nil {
		t.Errorf("telling without a table: %v, %v", more, err)
	}
	var none *lan
	none.put(nil)
	none.took(nil)
	if none.tell("eth0", nil) != nil {
		t.Error("nobody tells something")
	}
}

// TestTellingTakesTurns: 250 groups with 128 neighbours each send what a take-over may, no
// faster than allowed, and each its share.
func TestTellingTakesTurns(t *testing.T) {
	l, f, _ := newFakeLAN(t)
	now := l.now()
	l.now = func() vipctl.Instant { return now }
	f.table.Networks = lanNets
	for i := range vipctl.MaxNeighbours {
		f.table.Neighbours = append(f.table.Neighbours, peer(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}).String(), byte(i), time.Duration(i)))
	}
	l.doc = func() fsm.Document { return fsm.Document{} }
	open := map[string]func() (bool, error){}
	var order []string
	for i := range 250 {
		a := netip.AddrFrom4([4]byte{10, 1, 1, byte(i)})
		open[a.String()] = l.tell("eth0", []netip.Addr{a})
		order = append(order, a.String())
	}
	began := now
	for len(open) > 0 {
		for _, name := range order {
			if next := open[name]; next != nil {
				if more, err := next(); err != nil {
					t.Fatal(err)
				} else if !more {
					delete(open, name)
				}
			}
		}
		if most := 64 + int(time.Duration(now-began)/tellPace); len(f.told) > most {
			t.Fatalf("%d frames after %v, want %d at most", len(f.told), time.Duration(now-began), most)
		}
		if now += vipctl.Instant(13 * time.Millisecond); now-began > vipctl.Instant(5*time.Second) {
			t.Fatalf("%d of them still tell after five seconds; %d frames were sent", len(open), len(f.told))
		}
	}
	per, each := map[string]int{}, map[string]int{}
	for _, what := range f.told {
		words := strings.Fields(what)
		per[words[1]]++
		each[words[len(words)-1]]++
	}
	for neighbour, n := range each {
		if n > vipctl.MaxToldEach {
			t.Errorf("%s was told of %d addresses, want %d at most", neighbour, n, vipctl.MaxToldEach)
		}
	}
	for _, name := range order {
		if per[name] < 4 {
			t.Errorf("%s was told to %d neighbours of 128", name, per[name])
		}
	}
	if len(f.told) != vipctl.MaxTold {
		t.Errorf("%d frames in all, want %d", len(f.told), vipctl.MaxTold)
	}
	now += vipctl.Instant(time.Minute)
	before := len(f.told)
	if more, err := l.tell("eth0", []netip.Addr{web4.Addr()})(); !more || err != nil || len(f.told) != before+tellChunk {
		t.Errorf("another take-over: %d frames, %v", len(f.told)-before, err)
	}
}

// TestClaimsAreWatched: there are sockets where something is held, for what is held, and
// nowhere else; a device that is gone is tried again.
func TestClaimsAreWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, f, _ := newFakeLAN(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- l.run(ctx) }()
		settled := func() []string {
			pass(100 * time.Millisecond)
			return f.watches()
		}
		if got := settled(); got != nil {
			t.Errorf("while nothing is held: %v", got)
		}
		l.put(on("eth0", web4))
		l.put(on("eth0", web6))
		want := []string{"eth0 [192.0.2.200 2001:db8::200] x1"}
		if got := settled(); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		f.mu.Lock()
		opened := f.opened
		f.mu.Unlock()
		l.put(on("eth0", web4, web6))
		settled()
		f.mu.Lock()
		again := f.opened
		f.mu.Unlock()
		if again != opened {
			t.Error("the sockets were opened anew for what was held before")
		}
		l.took(on("eth0", web4))
		if got := settled(); !slices.Equal(got, []string{"eth0 [2001:db8::200] x1"}) {
			t.Errorf("with one gone: %v", got)
		}
		l.took(on("eth0", web6))
		if got := settled(); got != nil {
			t.Errorf("with all gone: %v", got)
		}
		f.fail(errors.New("no such device"))
		l.put(on("eth0", web4))
		if got := settled(); got != nil {
			t.Errorf("on a device that is gone: %v", got)
		}
		f.fail(nil)
		pass(watchAgain)
		if got := settled(); !slices.Equal(got, []string{"eth0 [192.0.2.200] x1"}) {
			t.Errorf("when it is back: %v", got)
		}
		cancel()
		if err := <-ended; err != nil || f.watches() != nil {
			t.Errorf("after the end: %v, %v", f.watches(), err)
		}
	})
}

// TestClaimed: the agent hears of claims to what is held, and of a flood ten a second.
func TestClaimed(t *testing.T) {
	l, _, posted := newFakeLAN(t)
	now := l.now()
	l.now = func() vipctl.Instant { return now }
	foreign := net.HardwareAddr{2, 0, 0, 0, 0, 0x99}
	claim := func(p netip.Prefix, mac net.HardwareAddr, dropped int) {
		l.claimed("eth0", kernel.Claim{Addr: p.Addr(), MAC: mac, Dropped: dropped})
	}
	claim(web4, foreign, 0)
	if len(*posted) != 0 {
		t.Errorf("what is not held: %v", *posted)
	}
	l.put(on("eth0", web4, mac4))
	claim(web4, foreign, 0)
	if want := []core.Claimed{{Link: "eth0", Addr: web4.Addr(), MAC: foreign.String(), Count: 1}}; !slices.Equal(*posted, want) {
		t.Errorf("posted %v, want %v", *posted, want)
	}
	claim(mac4, net.HardwareAddr{0, 0, 0x5e, 0, 1, 51}, 0)
	if len(*posted) != 1 {
		t.Errorf("the group's own virtual MAC address: %v", (*posted)[1:])
	}
	claim(mac4, net.HardwareAddr{0, 0, 0x5e, 0, 1, 52}, 0)
	claim(web6, foreign, 0) // not held
	if len(*posted) != 2 {
		t.Errorf("another virtual MAC address: %v", (*posted)[1:])
	}
	for range 1000 {
		claim(web4, foreign, 9)
	}
	now += vipctl.Instant(time.Second)
	claim(web4, foreign, 0)
	count := 0
	for _, c := range *posted {
		if c.Addr == web4.Addr() {
			count += c.Count
		}
	}
	if len(*posted) > 12 || count != 10002 {
		t.Errorf("%d events that count %d", len(*posted), count)
	}
	l.took(on("eth0", web4))
	before := len(*posted)
	if claim(web4, foreign, 0); len(*posted) != before {
		t.Error("what was let go is told of")
	}
}
