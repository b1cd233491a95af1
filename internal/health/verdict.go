package health

import (
	"hash/fnv"
	"time"
)

// A verdict is what the results of one check amount to. The first result counts at
// once; a later one that differs counts when enough came in a row. It reads no clock.
type verdict struct {
	rise, fall int // at least 1
	known      bool
	pass       bool
	told       bool // false: the next result is reported, whatever it changes
	streak     int  // results in a row that differ from pass
}

// observe takes the result of a run, and says whether the verdict is to be reported.
func (v *verdict) observe(ok bool) (report bool) {
	switch {
	case !v.known:
		v.known, v.pass = true, ok
		report = true
	case ok == v.pass:
		v.streak = 0
	default:
		v.streak++
		need := v.fall
		if ok {
			need = v.rise
		}
		if v.streak >= need {
			v.pass, v.streak = ok, 0
			report = true
		}
	}
	report = report || !v.told
	v.told = true
	return report
}

// due is when the next run of a check is to begin, as time since its first. Runs begin
// on a fixed grid, which late or long ones do not shift; what was missed is left out.
// The first gap is shorter by shift, so that checks that began together do not stay so.
func due(elapsed, interval, shift time.Duration) time.Duration {
	return ((elapsed+shift)/interval+1)*interval - shift
}

// shift is by how much the grid of a check is moved: less than half an interval, and
// always the same for a name.
func shift(name string, interval time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // a hash never fails
	return time.Duration(h.Sum64() % uint64(max(interval/2, 1)))
}
