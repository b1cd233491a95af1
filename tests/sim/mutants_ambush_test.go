package sim

import (
	"flag"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/tests/sim/raftmodel"
)

var ambushRuns = flag.Int("ambushes", 100, "how many runs TestAmbush makes of each of its scripts")

// A script is an ambush for what chance hardly ever puts together: the few moves that
// only one of the rules keeps from making two owners. What is left to chance is when.
type script struct {
	name string
	env  func(*Env)
	play func(*arena)
}

// An arena is a World in which a group has an owner and is to be taken from it.
type arena struct {
	*World
	lease            time.Duration
	late             float64 // how much of what is sent is late while it crawls
	owner, to, third *host   // to is to be the next; third is another voter
}

// TestAmbush plays each script many times. TestMutants names the rules for which it
// is played without them.
func TestAmbush(t *testing.T) {
	for _, m := range scripts {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			played := 0
			for i := range *ambushRuns {
				seed := *chaosFirst + uint64(i)
				a, ok := runAmbush(m, seed, false)
				if ok {
					played++
				}
				if v := a.watch.violations; len(v) > 0 {
					told, _ := runAmbush(m, seed, testing.Verbose())
					for _, line := range told.watch.story {
						t.Log(line)
					}
					t.Fatalf("seed %d: %s", seed, v[0])
				}
			}
			if *ambushRuns >= 20 && played < *ambushRuns/2 {
				t.Fatalf("only %d of %d runs came to the ambush", played, *ambushRuns)
			}
		})
	}
}

func runAmbush(m script, seed uint64, story bool) (*arena, bool) {
	const lease = 250 * time.Millisecond
	env := Quiet(3)
	env.Leases, env.Extreme, env.Probe = []time.Duration{lease}, true, time.Millisecond
	env.Document = document(4*lease, 0)
	if m.env != nil {
		m.env(&env)
	}
	a := &arena{World: New(env, seed), lease: env.Leases[0], late: 0.9}
	defer a.Close()
	a.watch.telling = story
	for range 40 {
		a.Run(a.lease)
		if a.Holder(0) != nil && a.now > 4*a.lease {
			break
		}
	}
	a.owner = a.Holder(0)
	if a.owner == nil || a.unsettled() != "" {
		return a, false
	}
	a.to = a.another(a.owner)
	a.third = a.another(a.owner, a.to)
	a.Run(a.jitter(0, a.lease))
	a.tell("AMBUSH %s: of n%d by n%d", m.name, a.owner.i+1, a.to.i+1)
	m.play(a)
	for range 16 {
		if len(a.watch.violations) == 0 {
			a.Run(a.lease / 4)
		}
	}
	return a, true
}

// another is one of the founders that is none of these.
func (a *arena) another(not ...*host) *host {
	for {
		h := a.hosts[a.rng.IntN(a.env.Founders)]
		taken := false
		for _, n := range not {
			taken = taken || n == h
		}
		if !taken {
			return h
		}
	}
}

// lead makes a host the leader, and waits until it can commit.
func (a *arena) lead(h *host) {
	a.campaign(h.i, raftmodel.Forced)
	a.Run(40 * time.Millisecond)
}

func (a *arena) soon(most time.Duration) { a.Run(a.jitter(0, most)) }

// back waits until a host that restarts has applied the log, and said that nothing of
// its earlier life is left.
func (a *arena) back(h *host) {
	for range 50 {
		a.Run(time.Millisecond)
		if h.up() && a.raft.State(h.i).Formed() {
			break
		}
		if l := a.leader(); l != nil && h.up() {
			a.spread(l)
		}
	}
	a.Run(a.jitter(200*time.Microsecond, 1500*time.Microsecond))
}

// saysLittle has a host that restarts say only the first few things, among them
// perhaps that it has let go, and then nothing: it is cut off.
func (a *arena) saysLittle(h *host) {
	for !h.alive {
		a.Run(100 * time.Microsecond)
	}
	h.trap = &trap{point: beforeSend, skip: a.rng.IntN(10), do: func() { a.cut(h.i) }}
	a.back(h)
	a.cut(h.i)
}

// backWithIt waits until it is named the owner again too, if it was taken for lost.
func (a *arena) backWithIt(h *host) {
	a.back(h)
	a.Run(a.lease / 2)
	a.move("web", h)
}

// crawl has what is sent for a while come late.
func (a *arena) crawl(latest, during time.Duration) {
	a.net.env.Late, a.net.env.Latest = a.late, latest
	a.Run(during)
	a.net.env = a.env.Net
}

// apart keeps two hosts from each other.
func (a *arena) apart(x, y *host) { a.block(x.i, y.i); a.block(y.i, x.i) }

func (a *arena) take() { a.move("web", a.to) }

var scripts = []script{
	{name: "late answer after a release", play: func(a *arena) {
		a.lead(a.to)
		a.crawl(a.lease*4/5, a.jitter(a.lease/3, a.lease))
		a.owner.carrier(false)
		a.Run(a.jitter(2*time.Millisecond, 6*time.Millisecond))
		a.cut(a.owner.i)
		a.owner.carrier(true)
		a.soon(10 * time.Millisecond)
		a.take()
	}},
	{name: "late answer to an earlier life", play: func(a *arena) {
		a.lead(a.to)
		a.crawl(a.lease*3/5, a.jitter(a.lease/2, a.lease))
		a.owner.restart(a.jitter(500*time.Microsecond, 3*time.Millisecond))
		a.saysLittle(a.owner)
		a.take()
	}},
	{name: "late answer to an earlier boot", play: func(a *arena) {
		a.lead(a.to)
		a.crawl(a.lease*3/5, a.jitter(a.lease/2, a.lease))
		a.owner.carrier(false) // it says that it has let go
		a.Run(a.jitter(2*time.Millisecond, 4*time.Millisecond))
		read := a.owner.clock()
		a.owner.reboot()
		back := a.jitter(0, 3*a.lease) - a.lease
		a.owner.offset += read.Sub(a.owner.clock()) - back
		a.owner.dead = false
		a.owner.start()
		a.saysLittle(a.owner)
		a.take()
	}},
	{name: "late release of an earlier tenure", play: func(a *arena) {
		a.lead(a.third)
		a.move("web", a.third)
		a.crawl(2*a.lease, a.lease)
		a.move("web", a.owner)
		a.Run(a.jitter(30*time.Millisecond, 100*time.Millisecond))
		a.apart(a.owner, a.to)
		a.Run(a.jitter(10*time.Millisecond, 2*a.lease))
		a.cut(a.owner.i)
		a.take()
	}},
	{name: "the voter of both has a slewed clock", env: slewed, play: func(a *arena) {
		a.lead(a.to)
		a.apart(a.owner, a.to)
		a.Run(2 * a.lease)
		a.third.beginSlew(0.083)
		a.soon(a.lease / 6)
		a.cut(a.owner.i)
		a.take()
	}},
	{name: "the voter of both had a slewed clock", env: slewed, play: func(a *arena) {
		a.lead(a.to)
		a.apart(a.owner, a.to)
		a.Run(2 * a.lease)
		a.third.beginSlew(0.083)
		a.soon(a.lease / 6)
		a.cut(a.owner.i)
		a.Run(a.jitter(a.lease/2, a.lease))
		a.third.endSlew()
		a.take()
	}},
	{name: "the owner has a slewed clock", env: slewed, play: func(a *arena) {
		a.lead(a.to)
		a.owner.beginSlew(-0.083)
		a.soon(a.lease / 6)
		a.cut(a.owner.i)
		a.take()
	}},
	{name: "the owner has had a slewed clock", env: slewed, play: func(a *arena) {
		a.lead(a.to)
		a.owner.beginSlew(-0.083)
		a.Run(a.jitter(3*a.lease/2, 3*a.lease))
		a.cut(a.owner.i)
		a.take()
	}},
	{name: "a longer hold is not on the disk", play: func(a *arena) {
		a.lead(a.to)
		a.env.DiskFails = 1
		a.owner.lease = 3 * a.lease
		a.owner.restart(time.Millisecond)
		a.backWithIt(a.owner)
		a.Run(a.jitter(2*a.lease, 4*a.lease))
		a.apart(a.owner, a.to)
		a.Run(a.jitter(2*a.lease, 4*a.lease))
		a.env.DiskFails = 0
		a.cut(a.owner.i)
		a.third.restart(time.Millisecond)
		a.Run(a.jitter(0, a.lease))
		a.take()
	}},
	{name: "a shorter lease after a restart", play: func(a *arena) {
		a.lead(a.to)
		a.owner.lease = 3 * a.lease
		a.owner.restart(time.Millisecond)
		a.back(a.owner)
		a.Run(4 * a.lease)
		a.owner.lease = a.lease
		a.owner.restart(time.Millisecond)
		a.back(a.owner)
		a.Run(a.jitter(a.lease/3, a.lease))
		a.cut(a.owner.i)
		a.take()
	}},
	{name: "addresses in other groups after a restart", env: func(e *Env) { e.Document = document(e.Document.MaxHold, 2) }, play: playSwapped},
	{name: "a slewed clock before the log is replayed", env: longLease, play: playSlewedHeir},
	{name: "a kernel that refuses the fence", env: func(e *Env) { e.FenceFails = 0.3 }, play: func(a *arena) {
		for range 6 {
			a.move("web", a.hosts[a.rng.IntN(3)])
			a.Run(a.jitter(0, 2*a.lease))
		}
	}},
	{name: "a voter set that was rolled back", env: func(e *Env) { e.Hosts, e.Founders = 4, 4 }, play: playRolledBack},
	{name: "two changes of the voter set", env: func(e *Env) { e.Hosts, e.Founders = 5, 3 }, play: playTwoChanges},
	{name: "a snapshot that comes late", env: snapshots, play: playLateSnapshot},
	{name: "a log that is not replayed yet", env: snapshots, play: playUnreplayed},
	{name: "two changes past the owner's log", env: func(e *Env) { e.Hosts, e.Founders = 5, 3 }, play: playPastTheLog},
}

func slewed(e *Env) { e.Drift = 0 }

// playRolledBack is lease.md, V5: the former leader has a set that nobody else has,
// and the owner hears nobody but that one.
func playRolledBack(a *arena) {
	former, fourth := a.third, a.another(a.owner, a.to, a.third)
	a.lead(former)
	a.untilSpaced(former)
	a.cut(former.i)
	if _, err := a.raft.Demote(former.i, fourth.i); err != nil {
		return
	}
	a.campaign(a.to.i, raftmodel.Forced)
	a.untilSpaced(a.to)
	a.mend()
	a.split([]*host{former, a.owner}, []*host{a.to, fourth})
	if _, err := a.raft.Remove(a.to.i, former.i); err == nil {
		a.spread(a.to)
	}
	a.Run(a.jitter(10*time.Millisecond, 30*time.Millisecond))
	a.take()
}

// playTwoChanges has two hosts join, and the next owner get its majority from them.
func playTwoChanges(a *arena) {
	a.lead(a.to)
	a.untilSpaced(a.to)
	a.apart(a.owner, a.to)
	a.join(2 * a.lease)
	a.split([]*host{a.owner, a.third}, []*host{a.to, a.hosts[3], a.hosts[4]})
	a.take()
}

// playPastTheLog does so while nothing of Raft reaches the owner, so that its log has
// neither change, for as long as it takes.
func playPastTheLog(a *arena) {
	a.lead(a.to)
	a.withoutRaft(a.owner)
	a.join(60 * a.lease)
	a.split([]*host{a.owner, a.third}, []*host{a.to, a.hosts[3], a.hosts[4]})
	a.take()
}

// playLateSnapshot has the voter of both step back to before the next owner was named,
// with the former one still asking.
func playLateSnapshot(a *arena) {
	if !a.handOver() {
		return
	}
	snapshot := a.raft.Snapshot(a.third.i)
	_, applied := a.raft.InstallSnapshot(a.to.i, a.raft.Term(a.to.i), a.third.i, snapshot, true)
	a.applied(a.third, applied)
	a.withoutRaft(a.third)
	a.noData(a.owner, a.third, false)
	a.Run(2 * a.lease)
}

// playUnreplayed has it do so by restarting with a snapshot from then, and catch up
// when the former owner has its yes.
func playUnreplayed(a *arena) {
	if !a.handOver() {
		return
	}
	a.third.restart(time.Millisecond)
	a.withoutRaft(a.third)
	a.noData(a.owner, a.third, false)
	a.Run(a.jitter(5*a.lease/4, 2*a.lease))
	a.noConn(a.third, a.to, false)
	a.Run(a.lease)
}

// handOver has the owner not hear of the next one, and the voter of both make a
// snapshot before. It reports whether the next one holds the group then.
func (a *arena) handOver() bool {
	a.lead(a.to)
	a.raft.Compact(a.third.i)
	a.withoutRaft(a.owner)
	a.apart(a.owner, a.to)
	a.noData(a.owner, a.third, true) // else it would learn that there is a next one
	a.take()
	for range 100 {
		a.Run(a.lease / 20)
		if a.Holder(0) == a.to {
			a.soon(a.lease)
			return true
		}
	}
	return false
}

// playSwapped has two groups exchange their addresses while their owner restarts. It keeps
// both, is not confirmed, and lets go of the one and is cut off with the other.
func playSwapped(a *arena) {
	a.lead(a.to)
	a.owner.kill()
	st := a.state(a.to)
	_, _ = a.append(a.to.i, fsm.Command{Replace: &fsm.Replace{Seen: st.Document.Revision, Document: document(st.Document.MaxHold, 1)}}) // it leads
	a.Run(a.jitter(10*time.Millisecond, 20*time.Millisecond))
	a.net.post = &post{}
	a.net.post.rule(drop, "renewal", a.owner.node.Name, "*")
	a.owner.start()
	a.back(a.owner)
	a.move("web", a.to)
	a.Run(a.jitter(5*time.Millisecond, 40*time.Millisecond))
	a.cut(a.owner.i)
	a.move("db", a.to)
}

func snapshots(e *Env) { e.Trailing = 100 }

// withoutRaft keeps everybody's connections from a host, and lets datagrams pass.
func (a *arena) withoutRaft(h *host) {
	for _, o := range a.hosts {
		a.noConn(h, o, h != o)
	}
}

func (a *arena) noData(x, y *host, not bool) {
	a.net.data[x.i][y.i], a.net.data[y.i][x.i] = not, not
}

func (a *arena) noConn(x, y *host, not bool) {
	a.net.conn[x.i][y.i], a.net.conn[y.i][x.i] = not, not
}

// untilSpaced waits until a leader may change the voters.
func (a *arena) untilSpaced(l *host) {
	for range 20 {
		if l.up() && l.mayChangeVoters() {
			return
		}
		a.Run(a.lease)
	}
}

// split keeps some hosts from others.
func (a *arena) split(some, others []*host) {
	for _, x := range some {
		for _, y := range others {
			a.apart(x, y)
		}
	}
}

// join has the hosts that are no voters become voters, which is the leader's to do, and
// waits for that.
func (a *arena) join(most time.Duration) {
	for _, h := range a.hosts[a.env.Founders:] {
		a.block(a.owner.i, h.i)
		a.to.post(core.JoinAsked{Node: h.node})
	}
	for end := a.now + most; a.now < end && a.raft.Configuration(a.to.i).Voters.Len() < len(a.hosts); {
		a.Run(time.Millisecond)
	}
	a.tell("voters: %b", a.raft.Configuration(a.to.i).Voters)
}
