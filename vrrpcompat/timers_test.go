package vrrpcompat

import (
	"math/big"
	"strings"
	"testing"
	"time"
)

// RFC 9568, section 6.1, by hand.
func TestTimers(t *testing.T) {
	cases := []struct {
		priority   Priority
		active     Centis
		skew, down time.Duration
	}{
		{100, 100, 609375 * time.Microsecond, 3609375 * time.Microsecond},
		{254, 100, 7812500, 3007812500},
		{Owner, 100, 3906250, 3003906250},
		{Release, 100, time.Second, 4 * time.Second},
		{Owner, 1, 39063, 30039063}, // 39062.5 ns: half goes up
		{254, 1, 78125, 30078125},
		{1, 4095, 40790039063, 163640039063}, // 40790039062.5 ns
		{Release, 4095, 40950 * time.Millisecond, 163800 * time.Millisecond},
	}
	for _, c := range cases {
		if got := SkewTime(c.priority, c.active); got != c.skew {
			t.Errorf("SkewTime(%d, %d) = %d ns, want %d", c.priority, c.active, got, c.skew)
		}
		if got := V3.DownInterval(c.priority, c.active); got != c.down {
			t.Errorf("V3.DownInterval(%d, %d) = %d ns, want %d", c.priority, c.active, got, c.down)
		}
	}
}

// Against exact fractions: never early, less than a nanosecond late, and a better priority never waits longer.
func TestSkewTimeIsExact(t *testing.T) {
	for p := range 256 {
		for c := Centis(1); c <= MaxCentis; c += 7 {
			got := SkewTime(Priority(p), c)
			exact := big.NewRat(int64(256-p)*int64(c)*int64(Centi), 256)
			late := new(big.Rat).Sub(new(big.Rat).SetInt64(int64(got)), exact)
			if late.Sign() < 0 || late.Cmp(big.NewRat(1, 1)) >= 0 {
				t.Fatalf("SkewTime(%d, %d) = %d ns, exact is %s", p, c, got, exact.FloatString(3))
			}
			if p > 0 && got >= SkewTime(Priority(p-1), c) {
				t.Fatalf("SkewTime(%d, %d) is not shorter than for priority %d", p, c, p-1)
			}
		}
	}
}

func TestCentisOf(t *testing.T) {
	for d, want := range map[time.Duration]Centis{
		10 * time.Millisecond: 1, 500 * time.Millisecond: 50, time.Second: 100, 40950 * time.Millisecond: 4095,
	} {
		got, err := CentisOf(d)
		if err != nil || got != want || got.Duration() != d {
			t.Errorf("CentisOf(%s) = %d, %v; want %d", d, got, err, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0:                          "10ms to 40.95s",
		-time.Second:               "10ms to 40.95s",
		10*time.Millisecond - 1:    "10ms to 40.95s",
		40950*time.Millisecond + 1: "10ms to 40.95s",
		655370 * time.Millisecond:  "10ms to 40.95s", // would wrap round in 16 bits
		15 * time.Millisecond:      "use 10ms or 20ms",
		time.Second + 1:            "use 1s or 1.01s",
	} {
		if got, err := CentisOf(d); err == nil || got != 0 || !strings.Contains(err.Error(), want) {
			t.Errorf("CentisOf(%s) = %d, %v; want an error with %q", d, got, err, want)
		}
	}
}

func TestIntervalOfVersion2(t *testing.T) {
	for d, want := range map[time.Duration]Centis{time.Second: 100, 255 * time.Second: 25500} {
		if got, err := IntervalOf(V2, d); err != nil || got != want || got.Duration() != d {
			t.Errorf("IntervalOf(2, %s) = %d, %v; want %d", d, got, err, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "1s to 4m15s", 999 * time.Millisecond: "1s to 4m15s", 256 * time.Second: "1s to 4m15s", 1500 * time.Millisecond: "use 1s or 2s",
	} {
		if got, err := IntervalOf(V2, d); err == nil || got != 0 || !strings.Contains(err.Error(), want) {
			t.Errorf("IntervalOf(2, %s) = %d, %v; want an error with %q", d, got, err, want)
		}
	}
	if _, err := IntervalOf(0, time.Second); err == nil || !strings.Contains(err.Error(), "no VRRP version(0)") {
		t.Errorf("IntervalOf of no version: %v", err)
	}
}

// RFC 3768, section 6.1: the skew is a share of a second; RFC 9568, section 6.1: of the Active router's interval.
func TestTimersOfBothVersions(t *testing.T) {
	for _, c := range []struct {
		v                 Version
		p                 Priority
		active            Centis
		skew, down, claim time.Duration
	}{
		{V3, 100, 100, 609375 * time.Microsecond, 3609375 * time.Microsecond, 2609375 * time.Microsecond},
		{V2, 100, 100, 609375 * time.Microsecond, 3609375 * time.Microsecond, 2609375 * time.Microsecond},
		{V3, 254, 300, 23437500, 9023437500, 6023437500},
		{V2, 254, 300, 7812500, 9007812500, 6007812500},
		{V2, Owner, 25500, 3906250, 765003906250, 510003906250},
		{V2, 1, 100, 996093750, 3996093750, 2996093750},
	} {
		if got := c.v.Skew(c.p, c.active); got != c.skew {
			t.Errorf("version %v, priority %d, %d cs: skew %d, want %d", c.v, c.p, c.active, got, c.skew)
		}
		if got := c.v.DownInterval(c.p, c.active); got != c.down {
			t.Errorf("version %v, priority %d, %d cs: down %d, want %d", c.v, c.p, c.active, got, c.down)
		}
		if got := c.v.EarliestClaim(c.p, c.active); got != c.claim {
			t.Errorf("version %v, priority %d, %d cs: earliest claim %d, want %d", c.v, c.p, c.active, got, c.claim)
		}
		if !c.v.Outruns(c.p, c.active, c.claim) || c.v.Outruns(c.p, c.active, c.claim-1) {
			t.Errorf("version %v, priority %d, %d cs: the bound of Outruns is not the earliest claim", c.v, c.p, c.active)
		}
	}
}

func TestShortestInterval(t *testing.T) {
	for _, c := range []struct {
		v     Version
		worst time.Duration
		want  Centis
		ok    bool
	}{
		{V3, 0, 1, true},
		{V3, 861 * time.Millisecond, 43, true}, // 2.0078125 intervals: 0.43 s is the first above 0.4288 s
		{V2, 861 * time.Millisecond, 100, true},
		{V2, 2007812500, 200, true}, // the very claim of one second: not enough
		{V2, 2007812499, 100, true},
		{V3, 82200 * time.Millisecond, MaxCentis, true}, // 2.0078125 of 40.94 s are 82.1998 s
		{V3, 90 * time.Second, 0, false},
		{V2, 90 * time.Second, 4500, true},
		{V2, 20 * time.Minute, 0, false},
	} {
		got, ok := c.v.ShortestInterval(254, c.worst)
		if got != c.want || ok != c.ok {
			t.Errorf("version %v, %s: %d, %v; want %d, %v", c.v, c.worst, got, ok, c.want, c.ok)
		}
	}
}

func TestWholeSeconds(t *testing.T) {
	for c, want := range map[Centis]Centis{1: 100, 99: 100, 100: 100, 101: 200, 4095: 4100} {
		if got := c.wholeSeconds(); got != want || !got.fits(V2) {
			t.Errorf("%d cs are %d cs in whole seconds, want %d", c, got, want)
		}
	}
}

func TestFamilies(t *testing.T) {
	for _, c := range []struct {
		f           Family
		name, group string
	}{{IPv4, "ipv4", "224.0.0.18"}, {IPv6, "ipv6", "ff02::12"}} {
		if c.f.String() != c.name || c.f.Group().String() != c.group || FamilyOf(c.f.Group()) != c.f {
			t.Errorf("%v: group %v, want %s and %s", c.f, c.f.Group(), c.name, c.group)
		}
	}
	if Family(0).Group().IsValid() || Family(0).String() != "family(0)" {
		t.Errorf("the zero family prints %q and has group %v", Family(0), Family(0).Group())
	}
}
