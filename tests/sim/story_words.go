package sim

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/tests/sim/raftmodel"
)

// args are the words of a command after its name. A wrong one ends the story.
type args struct {
	w     *World
	words []string
}

func (a args) bad(format string, args ...any) { panic(badWord{fmt.Errorf(format, args...)}) }

func (a args) word(i int) string {
	if i >= len(a.words) {
		a.bad("%d words are too few", len(a.words))
	}
	return a.words[i]
}

func (a args) host(i int) *host {
	n, err := strconv.Atoi(strings.TrimPrefix(a.word(i), "n"))
	if err != nil || n < 1 || n > len(a.w.hosts) {
		a.bad("no such host: %s", a.word(i))
	}
	return a.w.hosts[n-1]
}

func (a args) duration(i int) time.Duration {
	d, err := time.ParseDuration(a.word(i))
	if err != nil {
		a.bad("%v", err)
	}
	return d
}

func (a args) number(i int) float64 {
	f, err := strconv.ParseFloat(a.word(i), 64)
	if err != nil {
		a.bad("%v", err)
	}
	return f
}

func (a args) address(i int) int {
	addr, err := netip.ParseAddr(a.word(i))
	at := slices.IndexFunc(Addresses[:], func(p netip.Prefix) bool { return p.Addr() == addr })
	if err != nil || at < 0 {
		a.bad("no such address here: %s", a.word(i))
	}
	return at
}

// leader is the one whose term is the newest.
func (a args) leader() *host {
	l := a.w.leader()
	if l == nil {
		a.bad("nobody leads")
	}
	return l
}

func (a args) must(err error) {
	if err != nil {
		a.bad("%v", err)
	}
}

// groups reads "web=10.0.0.200,10.0.0.201" for each group of a document.
func (a args) groups() []fsm.Group {
	var out []fsm.Group
	for i, word := range a.words {
		name, list, _ := strings.Cut(word, "=")
		var addrs []int
		for _, addr := range strings.Split(list, ",") {
			addrs = append(addrs, args{a.w, []string{addr}}.address(0))
		}
		out = append(out, group(name, uint8(51+i), addrs...))
	}
	return out
}

// storyWorld reads the settings of a world: all but hosts are optional.
func storyWorld(words []string) (Env, error) {
	env := Quiet(3)
	env.Even, env.Drift, env.Probe = true, 0, time.Millisecond
	set := map[string]func(a args){
		"hosts":    func(a args) { env.Hosts = int(a.number(0)); env.Founders = env.Hosts },
		"founders": func(a args) { env.Founders = int(a.number(0)) },
		"lease":    func(a args) { env.Leases = []time.Duration{a.duration(0)} },
		"maxhold":  func(a args) { env.Document.MaxHold = a.duration(0) },
		"probe":    func(a args) { env.Probe = a.duration(0) },
		"lifetime": func(a args) { env.Lifetime = a.word(0) == "yes" },
		"drift":    func(a args) { env.Drift = a.number(0); env.Extreme = true },
		"trailing": func(a args) { env.Trailing = uint64(a.number(0)) },
	}
	s := Story{}
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		do, ok := set[name]
		if !ok {
			return env, fmt.Errorf("no such setting of a world: %s", name)
		}
		if err := s.try(do, []string{value}); err != nil {
			return env, err
		}
	}
	if env.Hosts < 1 || env.Hosts > maxHosts || env.Founders < 1 || env.Founders > env.Hosts {
		return env, fmt.Errorf("%d hosts of which %d found the cluster; want 1 to %d", env.Hosts, env.Founders, maxHosts)
	}
	return env, nil
}

// storyCommands are what can be done in a story. H is a host (n1), G a group, A an
// address, D a duration.
var storyCommands = map[string]func(s *Story, a args){
	// The network.
	"cut":     func(s *Story, a args) { s.cut(a.host(0).i) },                                            // H: from everybody
	"block":   func(s *Story, a args) { s.block(a.host(0).i, a.host(1).i) },                             // H H: from, to
	"unblock": func(s *Story, a args) { s.unblock(a.host(0).i, a.host(1).i) },                           // H H: from, to
	"apart":   func(s *Story, a args) { s.apart(a.host(0).i, a.host(1).i) },                             // H H: both ways
	"noraft":  func(s *Story, a args) { s.noRaft(a.host(0).i, a.host(1).i) },                            // H H: datagrams pass
	"nodata":  func(s *Story, a args) { s.noData(a.host(0).i, a.host(1).i) },                            // H H: connections pass
	"mend":    func(s *Story, _ args) { s.mend() },                                                      // everything
	"keep":    func(s *Story, a args) { s.net.post.rule(keep, a.word(0), a.word(1), a.word(2)) },        // KIND H H: datagrams of this kind, until delivered; H may be *
	"drop":    func(s *Story, a args) { s.net.post.rule(drop, a.word(0), a.word(1), a.word(2)) },        // KIND H H
	"pass":    func(s *Story, a args) { s.net.post.rule(pass, a.word(0), a.word(1), a.word(2)) },        // KIND H H: again
	"deliver": func(s *Story, a args) { s.net.post.deliver(s.World, a.word(0), a.word(1), a.word(2)) },  // KIND H H: what was kept, now
	"repeat":  func(s *Story, a args) { s.net.post.repeat(s.World, a.word(0), a.host(1), a.host(2)) },   // KIND H H: the last of this kind once more
	"net":     storyNet,                                                                                 // [dup=P] [late=P] [latest=D]: of all datagrams from now on; the draws are the same each time
	"foreign": func(s *Story, a args) { s.foreign[Addresses[a.address(0)].Addr()] = a.word(1) == "on" }, // A on|off: a host outside has it

	// Processes and hosts.
	"freeze":  func(_ *Story, a args) { a.host(0).freeze() },
	"thaw":    func(_ *Story, a args) { a.host(0).thaw() },
	"kill":    func(_ *Story, a args) { a.host(0).kill() },
	"start":   func(_ *Story, a args) { a.host(0).start() },
	"restart": func(_ *Story, a args) { a.host(0).restart(a.duration(1)) }, // H D: killed, and started D later
	"reboot":  func(_ *Story, a args) { a.host(0).reboot() },               // H: it stays down until start
	"stop":    func(_ *Story, a args) { a.host(0).post(core.Stop{}) },
	"release": func(_ *Story, a args) { a.host(0).releaseByHand() },            // H: quorate release, there
	"lease":   func(_ *Story, a args) { a.host(0).lease = a.duration(1) },      // H D: in the file, for the next start
	"carrier": func(_ *Story, a args) { a.host(0).carrier(a.word(1) == "up") }, // H up|down
	"remove":  func(_ *Story, a args) { a.host(0).removed(a.address(1)) },      // H A: by hand
	"slew":    func(_ *Story, a args) { a.host(0).beginSlew(a.number(1)) },     // H RATE: -0.083 is chrony's worst
	"noslew":  func(_ *Story, a args) { a.host(0).endSlew() },
	"rate":    func(_ *Story, a args) { a.host(0).setRate(a.number(1)) },          // H RATE: 1.004 is fast
	"bare":    func(_ *Story, a args) { a.host(0).uncovered(a.word(1) == "yes") }, // H yes|no: a device without the fence
	"trap":    storyTrap,                                                          // H POINT freeze|kill|reboot [SKIP]
	"name":    func(_ *Story, a args) { a.host(0).node.Name = a.word(1) },         // H NAME: its file names it like that from the next start
	"stuck":   func(_ *Story, a args) { a.host(0).keepsLeftovers = a.word(1) == "yes" },

	"slow": func(s *Story, a args) { s.env.Slow = map[bool]float64{true: 1}[a.word(0) == "yes"] }, // yes|no: every job of a worker takes 300 ms, on all hosts

	// Raft.
	"lead":     func(s *Story, a args) { s.mustCampaign(a, a.host(0)) },        // H: campaigns at once
	"move":     func(s *Story, a args) { s.mustMove(a, a.word(0), a.host(1)) }, // G H: the leader names it
	"document": storyDocument,                                                  // G=A,A …: replaced by the leader
	"join":     func(s *Story, a args) { a.leader().post(core.JoinAsked{Node: a.host(0).node}) },
	"drain": func(s *Story, a args) {
		s.mustByHand(a, fsm.Command{Drain: &fsm.Drain{Node: a.host(0).node.ID, Drained: a.word(1) == "yes"}})
	}, // H yes|no
	"retire":  func(s *Story, a args) { s.mustByHand(a, fsm.Command{Retire: &fsm.Retire{Node: a.host(0).node.ID}}) }, // H: quorate remove
	"hold":    storyHold,                                                                                             // every group: on_quorum_loss: hold
	"append":  storyAppend,                                                                                           // add|vote|demote|remove H: by the leader, and to its own log only
	"spread":  func(s *Story, a args) { s.spread(a.host(0)) },                                                        // H: sends its log
	"may":     storyMay,                                                                                              // H: it may change the voters
	"compact": func(s *Story, a args) { s.raft.Compact(a.host(0).i) },
	"save": func(s *Story, a args) {
		s.net.post.saved, s.net.post.savedTerm = s.raft.Snapshot(a.host(0).i), s.raft.Term(a.host(0).i)
	}, // H: remembers its snapshot
	"install": storyInstall, // H H: the remembered one, from the one to the other

	// What must be so.
	"expect": storyExpect, // CONDITION …
	"refute": storyRefute, // CONDITION …
	"claim":  storyClaim,  // H H: a copy of the first, on another boot, asks the second for its group
}

// storyConditions are what a story can wait for, expect and refute.
var storyConditions = map[string]func(s *Story, a args) bool{
	"holds":  func(_ *Story, a args) bool { return a.host(0).holds(a.address(1)) },       // H A
	"nobody": func(s *Story, a args) bool { return s.Holder(a.address(0)) == nil },       // A
	"open":   func(_ *Story, a args) bool { return a.host(0).open(a.address(1)) },        // H A: its fence, and the grace
	"there":  func(_ *Story, a args) bool { return a.host(0).has(a.address(1)) },         // H A: on the host, fence or not
	"leads":  func(s *Story, a args) bool { return s.leader() == a.host(0) },             // H
	"runs":   func(_ *Story, a args) bool { return a.host(0).up() },                      // H
	"frozen": func(_ *Story, a args) bool { return a.host(0).alive && a.host(0).frozen }, // H
	"applied": func(s *Story, a args) bool {
		return s.raft.Pending(a.host(0).i) == 0 && s.raft.CommitIndex(a.host(0).i) == s.raft.Last(a.leader().i).Index
	}, // H: all that the leader has
	"voter":   func(s *Story, a args) bool { return s.raft.Configuration(a.leader().i).Voters.Has(a.host(0).i) }, // H: in the leader's newest set
	"stable":  func(s *Story, a args) bool { return s.raft.Voters(a.leader().i).LastCommitted },                  // the newest set is committed
	"may":     func(_ *Story, a args) bool { return a.host(0).mayChangeVoters() },                                // H: it may change the voters
	"settled": func(s *Story, _ args) bool { return s.unsettled() == "" },
	"kept":    func(s *Story, a args) bool { return s.net.post.has(a.word(0), a.word(1), a.word(2)) },           // KIND H H: something
	"known":   func(s *Story, a args) bool { _, ok := s.state(a.leader()).Nodes[a.host(0).node.ID]; return ok }, // H: to the cluster
	"term":    func(s *Story, a args) bool { return s.raft.Term(a.leader().i) == uint64(a.number(0)) },          // N: the leader's
	"ready":   storyReady,                                                                                       // H: by its last renewal, its voter confirms: what /readyz says
	"outages": func(s *Story, a args) bool { return slices.Max(append(s.watch.outages, 0)) <= a.duration(0) },   // D: every outage of 10.0.0.200 so far was at most D
	"outage":  storyOutage,                                                                                      // D: the last outage of 10.0.0.200 was at most D
}

func storyTrap(_ *Story, a args) {
	h := a.host(0)
	at := Point(slices.Index(pointNames[:], a.word(1)))
	if at <= 0 || !h.alive {
		a.bad("no such point, or n%d is dead", h.i+1)
	}
	t := &trap{point: at, do: map[string]func(){"freeze": h.freeze, "kill": h.kill, "reboot": h.reboot}[a.word(2)]}
	if t.do == nil {
		a.bad("a trap freezes, kills or reboots")
	}
	if len(a.words) > 3 {
		t.skip = int(a.number(3))
	}
	h.trap = t
}

func (w *World) mustCampaign(a args, h *host) {
	if !w.campaign(h.i, raftmodel.Forced) {
		a.bad("n%d is not elected", h.i+1)
	}
}

func (w *World) mustMove(a args, group string, to *host) {
	if !w.move(group, to) {
		a.bad("nobody leads, or n%d has it, or is not known", to.i+1)
	}
}

func storyDocument(s *Story, a args) {
	l := a.leader()
	doc := s.state(l).Document
	doc.Groups = a.groups()
	_, err := s.append(l.i, fsm.Command{Replace: &fsm.Replace{Seen: s.state(l).Document.Revision, Document: doc}})
	a.must(err)
}

func (w *World) mustByHand(a args, cmd fsm.Command) {
	if !w.byHand(cmd) {
		a.bad("nobody leads")
	}
}

func storyHold(s *Story, a args) {
	doc := s.state(a.leader()).Document
	doc.Groups = slices.Clone(doc.Groups)
	for i := range doc.Groups {
		doc.Groups[i].OnQuorumLoss = fsm.QuorumLossHold
	}
	s.mustByHand(a, fsm.Command{Replace: &fsm.Replace{Seen: doc.Revision, Document: doc}})
}

func storyAppend(s *Story, a args) {
	change := map[string]func(l, f int) (raftmodel.Position, error){
		"add": s.raft.AddNonvoter, "vote": s.raft.AddVoter, "demote": s.raft.Demote, "remove": s.raft.Remove,
	}[a.word(0)]
	if change == nil {
		a.bad("no such change: %s", a.word(0))
	}
	l := a.leader()
	if len(a.words) > 2 {
		l = a.host(2) // a former leader that does not know that yet
	}
	_, err := change(l.i, a.host(1).i)
	a.must(err)
}

func storyMay(s *Story, a args) {
	if !a.host(0).mayChangeVoters() {
		a.bad("n%d may not change the voters yet", a.host(0).i+1)
	}
}

func storyInstall(s *Story, a args) {
	if s.net.post.saved == nil {
		a.bad("no snapshot was saved")
	}
	from, to := a.host(0), a.host(1)
	_, applied := s.raft.InstallSnapshot(from.i, s.net.post.savedTerm, to.i, s.net.post.saved, true)
	s.applied(to, applied)
}

func storyExpect(s *Story, a args) {
	if is, ok := storyConditions[a.word(0)]; !ok || !is(s, args{a.w, a.words[1:]}) {
		a.bad("it is not so")
	}
}

func storyRefute(s *Story, a args) {
	if is, ok := storyConditions[a.word(0)]; !ok || is(s, args{a.w, a.words[1:]}) {
		a.bad("it is so")
	}
}

func storyOutage(s *Story, a args) bool {
	all := s.watch.outages
	return len(all) > 0 && all[len(all)-1] <= a.duration(0)
}

// storyReady goes by a renewal that is not older than the next is due.
func storyReady(s *Story, a args) bool {
	h := a.host(0)
	return h.up() && slices.ContainsFunc(s.net.post.last, func(l letter) bool {
		r, ok := l.message.(election.Renewal)
		return ok && l.from == h && r.Health.VoterReady && h.clock().Sub(r.Stamp.At) <= h.lease/3
	})
}

// storyNet sets how badly datagrams fare.
func storyNet(s *Story, a args) {
	n := Net{}
	for i, word := range a.words {
		name, value, _ := strings.Cut(word, "=")
		a.words[i] = value
		switch name {
		case "dup":
			n.Dup = a.number(i)
		case "late":
			n.Late = a.number(i)
		case "latest":
			n.Latest = a.duration(i)
		default:
			a.bad("no such setting of the network: %s", name)
		}
	}
	s.net.env = n
}

// storyClaim has a machine with a copy of a data directory ask a voter.
func storyClaim(s *Story, a args) {
	of, voter := a.host(0), a.host(1)
	var groups []election.GroupState
	for _, g := range s.state(of).Document.Groups {
		groups = append(groups, election.GroupState{Group: g.Name, Epoch: s.state(of).Assignments[g.Name].Epoch, Phase: election.PhaseWaiting})
	}
	s.copies++
	voter.post(core.Datagram{Message: election.Renewal{
		Sender: election.Sender{Cluster: clusterID, From: of.node.ID},
		Stamp:  election.Stamp{Boot: election.BootID{0xc0}, At: election.Instant(s.copies)},
		Lease:  of.lease, Grace: of.grace(), Groups: groups,
	}})
}
