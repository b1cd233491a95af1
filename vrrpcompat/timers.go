package vrrpcompat

import "time"

// SkewTime returns how much longer a backup of this priority waits than one of priority 256 would, so that the best one
// speaks first: (256 - priority) / 256 of the Active router's interval (RFC 9568, section 6.1). It is exact to the
// nanosecond; half of one is rounded up, since a backup that claims later is the safe error.
func SkewTime(p Priority, active Centis) time.Duration {
	shares := (256 - time.Duration(p)) * active.Duration()
	return (shares + 128) / 256
}

// downAdverts is how many adverts in a row a backup misses before it acts.
const downAdverts = 3

// Skew is SkewTime for either version: that of version 2 is a share of a second, whatever the interval (RFC 3768,
// section 6.1). It is exact, as SkewTime.
func (v Version) Skew(p Priority, active Centis) time.Duration {
	if v == V2 {
		active = perSecond
	}
	return SkewTime(p, active)
}

// DownInterval returns how long a backup of this priority waits without an advert before it holds the Active router
// for gone: three of the Active router's intervals and the skew. In version 3 it is the Active_Down_Interval, and the
// interval the one that the Active router advertises, not the backup's own (RFC 9568, section 6.1); in version 2 the
// Master_Down_Interval, and the interval the one that all routers have (RFC 3768, section 6.1).
func (v Version) DownInterval(p Priority, active Centis) time.Duration {
	return downAdverts*active.Duration() + v.Skew(p, active)
}

// EarliestClaim returns how soon after the loss of its Active router an outside backup of this priority may hold it for
// gone. Its down timer counts from the last advert that it heard, and the Active router may be lost a whole interval after
// sending that, just before the next. Backups whose priority nobody knows are to be taken at the Active router's own: a better one would be Active
// already, and a worse one waits for longer.
func (v Version) EarliestClaim(p Priority, active Centis) time.Duration {
	return v.DownInterval(p, active) - active.Duration()
}

// Outruns reports whether such a backup may claim before a failover inside the cluster is over, which at worst takes that
// long. A claim at the very instant counts.
func (v Version) Outruns(p Priority, active Centis, worst time.Duration) bool {
	return v.EarliestClaim(p, active) <= worst
}

// ShortestInterval returns the least advertisement interval that adverts of the version can carry, with which no outside
// backup outruns the worst failover, and false if not even the longest is long enough.
func (v Version) ShortestInterval(p Priority, worst time.Duration) (Centis, bool) {
	step, longest := Centis(1), MaxCentis
	if v == V2 {
		step, longest = perSecond, MaxCentisV2
	}
	for c := step; c <= longest; c += step {
		if !v.Outruns(p, c, worst) {
			return c, true
		}
	}
	return 0, false
}
