package core

import "time"

// ambush does what single faults at random hardly ever do together: the group is
// moved away from an owner that does not hear of it, while one of the few things
// happens that only a rule of the lease keeps from making two owners.
func (x *chaos) ambush(*machine) {
	x.check()
	if x.watch.served < 0 {
		return
	}
	owner := x.hosts[x.watch.served]
	x.blocked = [5][5]bool{}
	to := x.hosts[(owner.i+1+x.rng.IntN(len(x.hosts)-1))%len(x.hosts)]
	third := x.hosts[(to.i+1)%len(x.hosts)]
	if third == owner {
		third = x.hosts[(owner.i+1)%len(x.hosts)]
	}
	if !owner.alive || !to.alive || to.frozen || third == to {
		return
	}
	if x.elect(to.i); x.lead != to.i {
		return
	}
	soon := func(f func()) { x.after(x.jitter(0, 40*time.Millisecond), f) }
	kind := x.rng.IntN(6)
	x.tell("AMBUSH %d of n%d by n%d", kind, owner.i+1, to.i+1)
	switch kind {
	case 0: // a voter of both forgets: it restarts within the lease
		x.cutOff(owner)
		soon(func() { third.restart(x.jitter(time.Millisecond, 10*time.Millisecond)) })
	case 1: // the owner lets go and is ready again, and the new one's leader is not heard
		x.blocked[owner.i][to.i], x.blocked[to.i][owner.i] = true, true
		soon(func() { owner.flap(x.jitter(time.Millisecond, 10*time.Millisecond)) })
	case 2: // the same by a restart of its process
		x.blocked[owner.i][to.i], x.blocked[to.i][owner.i] = true, true
		soon(func() { owner.restart(x.jitter(time.Millisecond, 5*time.Millisecond)) })
	case 3: // it stands still across the end of its lease
		if !owner.frozen {
			owner.freeze()
			x.after(x.jitter(0, 2*testLease), func() {
				if owner.alive && owner.frozen {
					owner.thaw()
				}
			})
		}
	case 4: // there and back again, and then nobody hears it
		x.move("web", to)
		x.after(x.jitter(20*time.Millisecond, 60*time.Millisecond), func() { x.move("web", owner) })
		x.meanwhile(x.jitter(60*time.Millisecond, 200*time.Millisecond), func() { x.cutOff(owner); x.move("web", to) })
		return
	case 5: // its answers and questions crawl
		late, latest := x.trouble.late, x.trouble.latest
		x.trouble.late, x.trouble.latest = 0.8, testLease
		x.meanwhile(testLease, func() { x.trouble.late, x.trouble.latest = late, latest })
		x.cutOff(owner)
		x.blocked[third.i][owner.i] = false
	}
	x.move("web", to)
}
