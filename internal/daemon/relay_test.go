package daemon

import (
	"net/netip"
	"testing"
	"time"

	"github.com/quorate/quorate/vrrpcompat"
)

const start vrrpcompat.Instant = 1e12

func source(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}) }

func advert(p vrrpcompat.Priority, interval vrrpcompat.Centis) vrrpcompat.Advert {
	return vrrpcompat.Advert{Version: vrrpcompat.V3, VRID: 51, Priority: p, Interval: interval}
}

// A router that keeps to its interval is never held back, at any interval, in both
// versions side by side.
func TestRelayPassesWhatIsRegular(t *testing.T) {
	for _, interval := range []vrrpcompat.Centis{1, 9, 10, 100, vrrpcompat.MaxCentis} {
		var r relay
		for i := range 1000 {
			now := start.Add(time.Duration(i) * interval.Duration())
			v3, v2 := advert(100, interval), advert(100, interval)
			v2.Version = vrrpcompat.V2
			if !r.pass(now, source(1), v3) || !r.pass(now, source(1), v2) {
				t.Fatalf("interval %s: advert %d held back", interval.Duration(), i)
			}
		}
	}
}

// A change is told at once, and a release right behind an advert too.
func TestRelayPassesChanges(t *testing.T) {
	var r relay
	for i, p := range []vrrpcompat.Priority{100, 200, 0, 100} {
		if !r.pass(start.Add(time.Duration(i)), source(1), advert(p, 100)) {
			t.Errorf("priority %d was held back", p)
		}
	}
	var again relay
	again.pass(start, source(1), advert(100, 100))
	if again.pass(start.Add(99*time.Millisecond), source(1), advert(100, 100)) {
		t.Error("the same once more within a tenth of the interval")
	}
	if !again.pass(start.Add(100*time.Millisecond), source(1), advert(100, 100)) {
		t.Error("a tenth of the interval later it was held back")
	}
}

// Whatever comes at 10,000 a second, what goes on is bounded, and a router that was
// there before is heard all the while.
func TestRelayBoundsFloods(t *testing.T) {
	floods := map[string]func(i int) (netip.Addr, vrrpcompat.Advert){
		"one source":            func(int) (netip.Addr, vrrpcompat.Advert) { return source(1), advert(200, 100) },
		"one source, changing":  func(i int) (netip.Addr, vrrpcompat.Advert) { return source(1), advert(vrrpcompat.Priority(i%250), 100) },
		"one source, impatient": func(i int) (netip.Addr, vrrpcompat.Advert) { return source(1), advert(vrrpcompat.Priority(i%250), 1) },
		"many sources":          func(i int) (netip.Addr, vrrpcompat.Advert) { return source(i % 60000), advert(200, 100) },
		"many, each twice":      func(i int) (netip.Addr, vrrpcompat.Advert) { return source(i / 2 % 60000), advert(200, 100) },
	}
	const seconds = 10
	for name, next := range floods {
		var r relay
		honest := netip.MustParseAddr("10.0.0.9")
		passed, missed := 0, 0
		r.pass(start, honest, advert(150, 100))
		r.pass(start.Add(time.Second), honest, advert(150, 100))
		begin := start.Add(time.Second)
		for i := range 10000 * seconds {
			now := begin.Add(time.Duration(i) * 100 * time.Microsecond)
			from, a := next(i)
			if r.pass(now, from, a) {
				passed++
			}
			if i%10000 == 9999 && !r.pass(now, honest, advert(150, 100)) {
				missed++
			}
		}
		if missed > 0 {
			t.Errorf("%s: %d of %d adverts of another router were held back", name, missed, seconds)
		}
		if most := seconds*(maxSpeakers*1000/10+newcomers) + newcomers; passed > most || passed == 0 {
			t.Errorf("%s: %d went on in %d s, want 1 to %d", name, passed, seconds, most)
		}
		if len(r.speakers) > maxSpeakers {
			t.Errorf("%s: %d speakers are remembered", name, len(r.speakers))
		}
	}
}

// When a flood of forged sources is over, a router that was never heard gets in.
func TestRelayForgetsForged(t *testing.T) {
	var r relay
	for i := range 60000 {
		r.pass(start.Add(time.Duration(i)*100*time.Microsecond), source(i), advert(200, 100))
	}
	over := start.Add(7 * time.Second)
	if !r.pass(over, netip.MustParseAddr("10.0.0.9"), advert(150, 100)) {
		t.Error("a router that came after the flood was held back")
	}
}
