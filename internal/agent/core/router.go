package core

import (
	"errors"
	"strings"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

// AloneConfig is what the core of a node with election: vrrp is made of: a VRRP router
// of its own, without a cluster.
type AloneConfig struct {
	Node     string
	Started  election.Instant // the process's start
	Document fsm.Document     // with this node's priority in each group; MaxHold is without meaning
}

// aloneTick is how often groups are looked at without a reason.
const aloneTick = time.Second

// aloneID is whom all groups belong to where there is only one node.
var aloneID = fsm.InstanceID{1}

// NewAlone returns the core of a node with election: vrrp. It is driven as one of a
// cluster, by Step, Wake, Status and Abandon; the events of a cluster do not come.
//
// Raft and lease are replaced by "always" (see tenure), and in the place of the Gates
// are Routers (RFC 9568, section 6.4). A group moves as one: it is held only while all
// its Routers are Active. A Router whose time has come before the others' is Active for
// itself and says nothing. When one of them falls back, the others are stopped with
// priority 0, so that whoever won that one takes them too, and begin again as Backup.
func NewAlone(cfg AloneConfig) *Core {
	c := New(Config{
		Self:    fsm.Node{ID: aloneID, Name: cfg.Node, Role: fsm.Member},
		Started: cfg.Started, Lease: aloneTick, Renew: aloneTick,
	})
	c.alone = true
	doc := cfg.Document
	doc.Revision = max(doc.Revision, 1)
	c.state = &fsm.State{Document: doc, Assignments: map[string]fsm.Assignment{}}
	for _, g := range doc.Groups {
		c.state.Assignments[g.Name] = fsm.Assignment{Owner: aloneID, Epoch: 1, Reason: fsm.ReasonFirst}
	}
	return c
}

// begin is the first step. Alone it makes the groups those of the document, for good.
func (c *Core) begin() {
	c.begun = true
	if !c.alone {
		c.beginHeritage()
		return
	}
	c.documentChanged()
	c.beginSweep()
	for _, g := range c.groups {
		c.owned(g)
	}
}

// newTenure is what says until when a new group may be held.
func (c *Core) newTenure() tenure {
	if c.alone {
		return always{}
	}
	return election.NewHolder(c.cfg.Boot, c.cfg.Started)
}

func newRouter(g *group, s *seat) (*vrrpcompat.Router, error) {
	return vrrpcompat.NewRouter(vrrpcompat.RouterConfig{
		Virtual: s.Virtual.Virtual, Priority: vrrpcompat.Priority(g.def.VRRP.Priority),
		Preempt: g.def.Preempt.Yes, PreemptDelay: g.def.Preempt.Delay, Accept: true,
	})
}

// callRouters starts or stops the group's Routers as this host can hold it or not.
func (c *Core) callRouters(g *group, wants bool) {
	if !c.alone || g.called == wants {
		return
	}
	g.called = wants
	for _, s := range g.seats {
		if wants {
			c.play(g, s, vrrpcompat.Startup{})
		} else {
			c.play(g, s, vrrpcompat.Shutdown{})
		}
	}
}

// routersForbid: the group is held only while all its Routers are Active.
func (c *Core) routersForbid(g *group) string {
	for _, s := range g.seats {
		if state := s.router.State(); state != vrrpcompat.Active {
			return strings.ToLower(state.String())
		}
	}
	if c.now.Before(g.restUntil) {
		return "backup"
	}
	return ""
}

// heardAlone tells the seat's Router of an advert.
func (c *Core) heardAlone(g *group, i int, ev AdvertHeard) {
	s := g.seats[i]
	was := s.router.State()
	if was == vrrpcompat.Active && !g.open() && !g.def.Preempt.Yes && s.router.Priority() != vrrpcompat.Owner {
		c.restart(g, s) // it waits for the others, is not heard, and so does not preempt who is
	}
	wasOpen := g.open()
	c.play(g, s, vrrpcompat.Received{From: ev.From, Advert: ev.Advert, Self: s.self(ev.From)})
	if wasOpen && was == vrrpcompat.Active && s.router.State() == vrrpcompat.Backup && ev.Advert.Priority == s.router.Priority() {
		g.restUntil = c.restAfterTie(s, i)
	}
}

// restAfterTie: with equal priorities the address decides, in each family by itself. Two
// groups that each lose one of theirs would both fall back, and at the same instant both
// come again, for ever. So who loses in a later one waits for longer.
func (c *Core) restAfterTie(s *seat, i int) election.Instant {
	if i == 0 {
		return 0
	}
	return c.now.Add(s.Version.DownInterval(s.router.Priority(), s.Interval) + time.Duration(i)*s.Interval.Duration())
}

// restart has the Router be Backup again, and listen anew.
func (c *Core) restart(g *group, s *seat) {
	c.play(g, s, vrrpcompat.Shutdown{})
	if g.called {
		c.play(g, s, vrrpcompat.Startup{})
	}
}

// stepDown brings all Routers of a group that is let go back together.
func (c *Core) stepDown(g *group) {
	for _, s := range g.seats {
		if s.router != nil && s.router.State() == vrrpcompat.Active {
			c.restart(g, s)
		}
	}
}

// probeTime is how long before its Routers' time has come the LAN is asked whether
// another host has the addresses, so that the answer is there by then.
const probeTime = 500 * time.Millisecond

// probeAhead asks the LAN while the Routers still wait.
func (c *Core) probeAhead(g *group) {
	if !c.alone || g.proven || len(g.seats) == 0 || len(g.unasked()) == 0 {
		return
	}
	at := c.now
	for _, s := range g.seats {
		if s.router.State() == vrrpcompat.Initialize {
			return
		}
		if s.router.State() == vrrpcompat.Backup {
			at = max(at, s.wake().Add(-probeTime))
		}
	}
	if c.now.Before(at) {
		g.wakeAt(at)
		return
	}
	c.probe(g)
}

// errNoMoves answers a move by hand.
var errNoMoves = errors.New("election: vrrp has no moves: each router decides for itself by its priority; `quorate release` on the node " +
	"that holds the group has another take it, and the file's vrrp.priority and preempt say which one; with election: raft groups can be moved")

// aloneStatus is what a Status says otherwise where there is no cluster.
func (c *Core) aloneStatus(s *Status) {
	s.Election, s.SingleOwner = "vrrp", false
	s.Instance, s.Fence, s.Ready = "", "none", c.swept
	s.LeaseMS, s.RenewMS = 0, 0
	if s.State == "forming" {
		s.State = "running"
	}
}

// aloneVIP is what a VIPStatus says otherwise: nobody is named owner.
func (c *Core) aloneVIP(g *group, v *VIPStatus) {
	v.Epoch, v.Reason, v.LeaseRemainingMS = 0, "", 0
	v.Owner = ""
	if g.phase == active {
		v.Owner = c.cfg.Self.Name
	}
	if g.cause != 0 {
		v.Reason = g.cause.String()
	}
	if v.State == "waiting" && c.forbids(g) == strings.ToLower(vrrpcompat.Backup.String()) {
		v.State = "backup"
	}
}
