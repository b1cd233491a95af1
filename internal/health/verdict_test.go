package health

import (
	"strconv"
	"testing"
	"time"
)

// Results as letters (p passes, f fails) against what is reported (P, F, . for nothing).
func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		rise, fall    int
		results, want string
	}{
		{2, 3, "ppp", "P.."},
		{2, 3, "fpp", "F.P"},
		{2, 3, "pfffpp", "P..F.P"},
		{2, 3, "pffpfffp", "P.....F."}, // a pass in between begins the count anew
		{3, 1, "pfppfppp", "PF.....P"},
		{1, 1, "pfpf", "PFPF"},
		{100, 100, "f" + "ppppp", "F....."},
	} {
		v := verdict{rise: c.rise, fall: c.fall, told: true}
		got := ""
		for _, r := range c.results {
			switch {
			case !v.observe(r == 'p'):
				got += "."
			case v.pass:
				got += "P"
			default:
				got += "F"
			}
		}
		if got != c.want {
			t.Errorf("rise %d, fall %d, %s: reported %s, want %s", c.rise, c.fall, c.results, got, c.want)
		}
	}
}

// After a change of the check the old verdict is said again and holds on.
func TestVerdictAfterChange(t *testing.T) {
	v := verdict{rise: 2, fall: 2, told: true}
	v.observe(true)
	v.told = false
	if !v.observe(false) || !v.pass {
		t.Errorf("the first result after a change: %+v, want the old verdict reported", v)
	}
	if !v.observe(false) || v.pass {
		t.Errorf("the second failure: %+v, want a failure reported", v)
	}
}

func TestDueKeepsTheGrid(t *testing.T) {
	const s = time.Second
	for _, c := range []struct{ elapsed, interval, shift, want time.Duration }{
		{0, s, 0, s},
		{1, s, 0, s},
		{s - 1, s, 0, s},
		{s, s, 0, 2 * s},
		{5*s + 3, s, 0, 6 * s}, // what was missed is left out
		{0, s, s / 4, 3 * s / 4},
		{3 * s / 4, s, s / 4, 7 * s / 4},
	} {
		if got := due(c.elapsed, c.interval, c.shift); got != c.want {
			t.Errorf("due(%s, %s, %s) = %s, want %s", c.elapsed, c.interval, c.shift, got, c.want)
		}
	}
	spread := map[time.Duration]bool{}
	for i := range 50 {
		got := shift("check-"+strconv.Itoa(i), s)
		if got < 0 || got >= s/2 {
			t.Errorf("shift %s, want less than half of %s", got, s)
		}
		spread[got.Truncate(50*time.Millisecond)] = true
	}
	if len(spread) < 8 {
		t.Errorf("50 checks begin at only %d times", len(spread))
	}
	if shift("x", 1) != 0 {
		t.Error("a shift in an interval without room")
	}
}
