package sim

import "time"

// longLease has the clocks run even, and a lease that a restart fits into.
func longLease(e *Env) { e.Drift, e.Leases[0] = 0, 500*time.Millisecond }

// playSlewedHeir has an owner that is back within its lease get nothing of the log, so that
// it does not know yet what it may keep, while its clock begins to be slewed.
func playSlewedHeir(a *arena) {
	a.lead(a.to)
	a.owner.restart(a.jitter(time.Millisecond, 10*time.Millisecond))
	a.withoutRaft(a.owner)
	for !a.owner.up() {
		a.Run(time.Millisecond)
	}
	a.owner.beginSlew(-0.083)
	a.soon(a.lease / 20)
	a.cut(a.owner.i)
	a.take()
}
