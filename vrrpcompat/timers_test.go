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
		if got := ActiveDownInterval(c.priority, c.active); got != c.down {
			t.Errorf("ActiveDownInterval(%d, %d) = %d ns, want %d", c.priority, c.active, got, c.down)
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
