package vrrpcompat

import "time"

// SkewTime returns how much longer a backup of this priority waits than one of priority 256 would, so that the best one
// speaks first: (256 - priority) / 256 of the Active router's interval (RFC 9568, section 6.1). It is exact to the
// nanosecond; half of one is rounded up, since a backup that claims later is the safe error.
func SkewTime(p Priority, active Centis) time.Duration {
	shares := (256 - time.Duration(p)) * active.Duration()
	return (shares + 128) / 256
}

// ActiveDownInterval returns how long a backup of this priority waits without an advert before it holds the Active router
// for gone: three of the Active router's intervals and the skew (RFC 9568, section 6.1). The interval is the one that
// the Active router advertises, not the backup's own.
func ActiveDownInterval(p Priority, active Centis) time.Duration {
	return 3*active.Duration() + SkewTime(p, active)
}
