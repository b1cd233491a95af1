package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/quorate/quorate/fsm"
)

// An Env is the surroundings of a World: how many hosts, how well everything works,
// and which kinds of faults a Chaos makes. Chances are from 0 to 1.
type Env struct {
	Hosts    int // all
	Founders int // of them, those that form the cluster; the others join
	Document fsm.Document
	Leases   []time.Duration // that a process may be started with; the first one of all
	Lifetime bool            // the lifetime of an address is the fence
	Drift    float64         // rates of clocks are 1 ± Drift
	Extreme  bool            // at either end, and not between
	Probe    time.Duration   // how long asking the LAN takes
	Even     bool            // whatever takes time takes what it takes on average

	Net       Net
	Slow      float64 // a job of a worker, or a netlink message, takes long
	Starved   float64 // the loop gets the processor late, by up to a renewal
	BindFails float64
	UnbindFails,
	FenceFails,
	DiskFails float64
	Lag            float64 // a node gets, or applies, only a part of what it could
	Snapshots      float64 // that a server makes one, each heartbeat
	StaleSnapshots float64 // that a snapshot comes a second time
	Trailing       uint64  // entries that are kept behind one

	Outsider bool // a router outside the cluster claims its addresses now and then
	Faults   int  // how many a Chaos makes
	// Kinds of faults, as weights: 0 is never.
	Weights weights
}

// weights say how often a Chaos does what.
type weights struct {
	Block, Cut, Mend, Freeze, Kill, Move, Document, Carrier, Release, Stop, Slew, ByHand, Ambush, Trap, Member, Elect, Foreign, Bare, Disk, Drain, Check, Remove, Estate int
}

// starved is how long it takes until a loop with mail gets the processor.
func (w *World) starved(lease time.Duration) time.Duration {
	if w.chance(w.env.Starved) {
		return w.jitter(0, lease/3)
	}
	return 0
}

// Quiet is a day without faults: n hosts that all found the cluster.
func Quiet(n int) Env {
	const lease = 250 * time.Millisecond
	return Env{Hosts: n, Founders: n, Leases: []time.Duration{lease}, Drift: 0.004, Probe: 300 * time.Millisecond,
		Document: document(5*time.Second, 0)}
}

// group is a group of a document, by the numbers of its addresses.
func group(name string, id uint8, addrs ...int) fsm.Group {
	g := fsm.Group{
		Name: name, Interface: device, Placement: fsm.PlacementLeader, Announce: fsm.Announce{Repeat: 5},
		VRRP: fsm.VRRP{ID: id, Version: 3, Priority: 254, Interval: time.Second, Checksum: fsm.ChecksumAuto, Outranked: fsm.OutrankedYield},
	}
	for _, a := range addrs {
		g.Addresses = append(g.Addresses, Addresses[a])
	}
	return g
}

// document is one of the documents that a run can have.
func document(maxHold time.Duration, kind int) fsm.Document {
	doc := fsm.Document{MaxHold: maxHold}
	switch kind {
	case 1: // swapped
		doc.Groups = []fsm.Group{group("web", 51, 1), group("db", 52, 0)}
	case 2: // both
		doc.Groups = []fsm.Group{group("web", 51, 0), group("db", 52, 1)}
	case 3: // the address under another name
		doc.Groups = []fsm.Group{group("db", 52, 0)}
	case 4: // both in one
		doc.Groups = []fsm.Group{group("web", 51, 0, 1)}
	case 5: // two families
		doc.Groups = []fsm.Group{group("web", 51, 0, 2)}
	case 6: // one of three addresses goes from group to group
		doc.Groups = []fsm.Group{group("web", 51, 0, 3), group("db", 52, 1)}
	case 7:
		doc.Groups = []fsm.Group{group("web", 51, 0), group("db", 52, 1, 3)}
	default:
		doc.Groups = []fsm.Group{group("web", 51, 0)}
	}
	return doc
}

const documentKinds = 8

// chaosEnv draws the surroundings of a run of TestChaos from its seed.
func chaosEnv(seed uint64) Env {
	r := rand.New(rand.NewPCG(seed, 2))
	chance := func(p float64) bool { return r.Float64() < p }
	pick := func(of ...float64) float64 { return of[r.IntN(len(of))] }
	lease := []time.Duration{100, 200, 300, 500}[r.IntN(4)] * time.Millisecond
	e := Env{
		Hosts: 3, Leases: []time.Duration{lease}, Drift: 0.004, Extreme: chance(0.5),
		Probe:   time.Duration(1+r.IntN(30)) * time.Millisecond,
		Net:     Net{Loss: pick(0, 0.05, 0.2), Dup: 0.1, Late: pick(0, 0.02, 0.1, 0.3), Latest: 4 * lease},
		Lag:     pick(0, 0.1, 0.3),
		Weights: weights{Block: 4, Cut: 2, Mend: 4, Freeze: 2, Kill: 2, Move: 4, Carrier: 2, Release: 1, Stop: 1, ByHand: 1, Ambush: 6, Trap: 3, Elect: 1, Foreign: 1, Bare: 1, Disk: 1},
	}
	switch r.IntN(10) {
	case 0:
		e.Hosts = 1
	case 1:
		e.Hosts = 2
	case 2:
		e.Hosts = 4
	case 3:
		e.Hosts = 5
	}
	e.Founders = e.Hosts
	if chance(0.5) {
		e.Net.Latest = lease
	}
	if chance(0.3) {
		e.Leases = append(e.Leases, lease/2, lease*2, lease*3)
	}
	if chance(0.4) {
		e.Weights.Document = 3
	}
	if chance(0.3) {
		e.Slow, e.UnbindFails, e.BindFails, e.FenceFails, e.DiskFails = 0.1, 0.2, 0.05, 0.05, 0.4
	}
	if chance(0.15) {
		e.Starved = 0.2
	}
	if chance(0.25) {
		e.Snapshots, e.StaleSnapshots, e.Trailing = 0.1, 0.5, uint64(r.IntN(8))
	}
	hold := 4*lease*3/3 + 10*time.Millisecond
	switch r.IntN(6) {
	case 0: // members come and go
		e.Hosts, e.Founders = 5, 3
		if chance(0.4) {
			e.Hosts, e.Founders = 4+r.IntN(2), 4
		}
		e.Leases = e.Leases[:1]
		hold = lease + 10*time.Millisecond // changes may follow soon
		e.Weights.Member, e.Weights.Ambush = 12, 2
	case 1: // processes restart
		e.Weights.Kill, e.Weights.Stop, e.Weights.Trap = 8, 4, 6
	case 2: // processes stand still
		e.Weights.Freeze, e.Weights.Trap = 6, 6
	case 3: // clocks are slewed; then they do not drift as well
		e.Drift, e.Weights.Slew, e.Weights.Ambush = 0, 4, 12
		e.FenceFails = 0 // who cannot shut depends on the clock alone
	case 4: // the lifetime is the fence; it does not hold against pauses
		if chance(0.3) {
			e.Lifetime = true
			e.Leases = []time.Duration{3 * time.Second}
			e.Net.Latest = 3 * time.Second
			e.Slow, e.Starved = 0, 0
			e.Weights.Freeze, e.Weights.Trap, e.Weights.Ambush = 0, 0, 3
			hold = 5 * time.Second
		}
	}
	e.Faults = min(40, 120/e.Hosts) // each costs as much as there are hosts
	e.Document = document(hold, 0)
	if chance(0.2) {
		e.Document = document(hold, 5)
	}
	return e
}

// String names what is out of the ordinary.
func (e Env) String() string {
	var out []string
	say := func(ok bool, format string, args ...any) {
		if ok {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	say(true, "%d hosts", e.Hosts)
	say(e.Founders < e.Hosts, "of which %d found the cluster", e.Founders)
	say(true, "leases %v", e.Leases)
	say(e.Lifetime, "fence: lifetime")
	say(true, "net %+v", e.Net)
	say(e.Lag > 0, "lag %v", e.Lag)
	say(e.Slow > 0, "slow and failing kernels")
	say(e.Starved > 0, "starved loops")
	say(e.Snapshots > 0, "snapshots")
	say(e.Weights.Document > 0, "documents")
	say(e.Weights.Member > 0, "members")
	say(e.Weights.Slew > 0, "slews")
	say(e.Weights.Drain > 0, "planned work")
	return strings.Join(out, ", ")
}
