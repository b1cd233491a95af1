package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

const (
	standingSettle = 8 * time.Second
	standingWatch  = 26 * time.Second
	// mostStanding is how often a group may change its owner in that time.
	mostStanding = 10
)

// RunStanding makes a run in which some things fail at one instant and stay so, and
// nothing else happens: the cluster must come to rest, and serve what anybody can serve.
func RunStanding(seed uint64, story bool) *Chaos {
	r := rand.New(rand.NewPCG(seed, 6))
	env := Quiet(3 + 2*(r.IntN(3)/2))
	lease := []time.Duration{100, 250}[r.IntN(2)] * time.Millisecond
	env.Leases, env.Probe = []time.Duration{lease}, 20*time.Millisecond
	x := &Chaos{World: New(env, seed), lease: lease}
	defer x.Close()
	e := newEstate(x, seed, false)
	x.watch.telling, x.watch.brief = story, true
	e.tellDocument(x.env.Document)
	x.Run(4 * time.Second)
	s := &standing{estate: e, rand: r}
	for range 1 + r.IntN(3) {
		s.fail()
	}
	x.Run(standingSettle)
	clear(e.moves)
	dark := map[string]time.Duration{}
	const step = 20 * time.Millisecond
	for at := time.Duration(0); at < standingWatch && len(x.watch.violations) == 0; at += step {
		x.Run(step)
		for _, g := range x.env.Document.Groups {
			if x.Holder(x.address(g.Addrs()[0])) == nil {
				dark[g.Name] += step
			}
		}
	}
	for _, g := range x.env.Document.Groups {
		if n := e.moves[g.Name]; n > mostStanding {
			x.violated("%s changes its owner %d times in %v (%v)", g.Name, n, standingWatch, s.what)
		}
		if d := dark[g.Name]; d > 4*time.Second && s.somebody(g) {
			x.violated("%s is dark for %v of %v (%v)", g.Name, d, standingWatch, s.what)
		}
	}
	return x
}

// A standing is what fails and stays so.
type standing struct {
	*estate
	rand *rand.Rand
	what []string
	no   map[*host]bool // it can hold nothing, or is kept from others
	not  map[string]map[*host]bool
}

func (s *standing) fail() {
	if s.no == nil {
		s.no, s.not = map[*host]bool{}, map[string]map[*host]bool{}
	}
	h := s.hosts[s.rand.IntN(len(s.hosts))]
	o := s.hosts[(h.i+1+s.rand.IntN(len(s.hosts)-1))%len(s.hosts)]
	say := func(format string, args ...any) {
		what := fmt.Sprintf(format, args...)
		s.what = append(s.what, what)
		s.tell("STANDING %s", what)
	}
	switch s.rand.IntN(12) {
	case 0:
		say("n%d does not reach n%d", h.i+1, o.i+1)
		s.block(h.i, o.i)
		s.no[h] = true
	case 1:
		say("datagrams of n%d do not reach n%d", h.i+1, o.i+1)
		s.net.data[h.i][o.i] = true
		s.no[h] = true
	case 2:
		say("n%d hears no datagrams", h.i+1)
		for i := range s.hosts {
			s.net.data[i][h.i] = i != h.i
		}
		s.no[h] = true
	case 3:
		say("n%d is dead", h.i+1)
		h.kill()
		s.no[h] = true
	case 4:
		say("n%d asks for too long a lease", h.i+1)
		h.lease = 3 * s.lease
		h.restart(time.Millisecond)
		s.no[h] = true
	case 5:
		say("the kernel of n%d refuses addresses", h.i+1)
		h.refuses = true
		h.restart(time.Millisecond)
		s.no[h] = true
	case 6:
		say("n%d has no carrier", h.i+1)
		h.carrier(false)
		s.no[h] = true
	case 7:
		say("n%d stands still", h.i+1)
		h.freeze()
		s.no[h] = true
	case 8:
		what := checkNames[s.rand.IntN(len(checkNames))]
		say("check %s fails on n%d", what, h.i+1)
		s.fails(h, what, true)
		s.no[h] = true
	case 9:
		say("%s of n%d is down", trackedDevice, h.i+1)
		h.post(core.Link{Name: trackedDevice})
		s.no[h] = true
	case 10:
		say("n%d is drained", h.i+1)
		s.byHand(fsm.Command{Drain: &fsm.Drain{Node: h.node.ID, Drained: true}})
		s.no[h] = true
	default:
		say("n%d is removed", h.i+1)
		s.byHand(fsm.Command{Retire: &fsm.Retire{Node: h.node.ID}})
		s.no[h] = true
	}
}

// somebody reports whether a majority is well, and one of it can hold the group.
func (s *standing) somebody(g fsm.Group) bool {
	well, can := 0, 0
	for _, h := range s.hosts {
		if s.no[h] {
			continue
		}
		well++
		if p, named := g.Priority[h.node.Name]; h.node.Role == fsm.Member && (!named || p > 0) {
			can++
		}
	}
	return well > len(s.hosts)/2 && can > 0
}
