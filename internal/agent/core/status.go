package core

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

// Status is what a node knows, for people and for `quorate status --json`; docs/cli.md
// has the fields.
type Status struct {
	Cluster   string  `json:"cluster"`
	ClusterID string  `json:"cluster_id,omitempty"`
	Node      string  `json:"node"`
	Instance  string  `json:"instance"`
	Leader    string  `json:"leader"`
	Quorum    bool    `json:"quorum"`
	Ready     bool    `json:"ready"` // the voter half confirms leases
	Fence     string  `json:"fence"`
	LeaseMS   float64 `json:"lease_ms"`
	RenewMS   float64 `json:"renew_ms"`
	State     string  `json:"state"`    // waiting, forming, joining, refused, running, stopping, removed
	Revision  uint64  `json:"revision"` // of the document
	// Shadow: the node only looks on, and what it holds is held nowhere.
	Shadow bool `json:"shadow,omitempty"`
	// Election is raft or vrrp. SingleOwner: at no instant can two nodes answer for an
	// address; with vrrp nothing promises that.
	Election    string         `json:"election"`
	SingleOwner bool           `json:"single_owner"`
	Problems    []string       `json:"problems,omitempty"`
	Members     []MemberStatus `json:"members"`
	VIPs        []VIPStatus    `json:"vips"`
	// VRRPHeard counts the adverts heard, by result: accepted, or why refused.
	VRRPHeard map[string]uint64 `json:"vrrp_heard,omitempty"`
	// Neighbours is how many hosts this node knows that talked with addresses of the
	// cluster: it would tell them of a take-over, one by one.
	Neighbours int `json:"neighbours"`
	// FenceDrops counts the frames that the fence dropped, by address.
	FenceDrops map[string]uint64 `json:"fence_drops,omitempty"`
	// Refused counts the connections between nodes that were refused, by reason, and
	// Foreign the datagrams that were not of this cluster.
	Refused map[string]uint64 `json:"refused,omitempty"`
	Foreign map[string]uint64 `json:"foreign,omitempty"`
}

// MemberStatus is one node in a Status.
type MemberStatus struct {
	Name     string `json:"name"`
	Instance string `json:"instance"`
	Address  string `json:"address"`
	Role     string `json:"role"`
	Voter    bool   `json:"voter"`
	Alive    bool   `json:"alive"`
	Ready    bool   `json:"ready"`
	Drained  bool   `json:"drained"`
	Applied  uint64 `json:"applied"` // the last log entry that it said to have applied
	// Sources are the addresses that its adverts come from.
	Sources []string `json:"sources,omitempty"`
}

// VIPStatus is one group in a Status. State is as this node sees it.
type VIPStatus struct {
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
	Owner     string   `json:"owner"`
	Epoch     uint64   `json:"epoch"`
	Reason    string   `json:"reason,omitempty"`
	// Since is when it was given to its owner, by the clock of the leader that did so.
	Since time.Time `json:"since,omitzero"`
	State string    `json:"state"` // active, backup, waiting, yielded, unowned, fault
	Open  bool      `json:"open"`  // some node said that it holds it
	Held  bool      `json:"held"`  // its addresses are on this host, or may be
	// WithoutProof: it is held here although no majority confirms that (on_quorum_loss:
	// hold), so another node may answer too.
	WithoutProof bool `json:"without_proof"`
	// Failing: a check or tracked device of weight 0 fails on this node, or a check has no
	// result yet; FailingWhy says which. Adjust is what the others add to its priority.
	Failing          bool     `json:"failing"`
	FailingWhy       []string `json:"failing_why,omitempty"`
	Adjust           int      `json:"adjust"`
	LeaseRemainingMS float64  `json:"lease_remaining_ms"`
	// Claims are those of other hosts to addresses that this node holds, since it has them.
	Claims []ClaimStatus `json:"claims,omitempty"`
	// Mended is how often something of the group was missing on this host while it held
	// it, and was put back.
	Mended  int         `json:"mended,omitempty"`
	Problem string      `json:"problem,omitempty"`
	VRRP    *VRRPStatus `json:"vrrp,omitempty"`
	// Really is who has the group while this node only looks on; empty: nobody was heard.
	Really string `json:"really,omitempty"`
}

// ClaimStatus is another host's claim to an address.
type ClaimStatus struct {
	Address   string  `json:"address"`
	MAC       string  `json:"mac"` // the last that claimed it
	Count     int     `json:"count"`
	LastAgoMS float64 `json:"last_ago_ms"`
}

// VRRPStatus is how a group appears to VRRP speakers outside.
type VRRPStatus struct {
	ID       uint8          `json:"id"`
	State    string         `json:"state"`
	Priority uint8          `json:"priority"`
	Routers  []RouterStatus `json:"routers,omitempty"` // one for each device and family
}

// RouterStatus is one virtual router of a group on this host.
type RouterStatus struct {
	Link     string `json:"link"`
	Family   string `json:"family"` // ipv4 or ipv6
	VRID     uint8  `json:"vrid"`
	State    string `json:"state"` // Initialize, Backup or Active
	Priority uint8  `json:"priority"`
	Source   string `json:"source,omitempty"` // what its adverts come from; empty: none can be sent
	// Outranked is the router outside the cluster that has the better claim. Alarm: the
	// group is held all the same, and two hosts answer.
	Outranked *RivalStatus `json:"outranked,omitempty"`
	Alarm     bool         `json:"alarm"`
}

// RivalStatus is a router outside the cluster that outranks it.
type RivalStatus struct {
	From     string `json:"from"`
	Priority uint8  `json:"priority"`
}

// Status describes the node at clock reading now.
func (c *Core) Status(now election.Instant) Status {
	now = max(now, c.now)
	s := Status{
		Cluster: c.state.Name, Node: c.cfg.Self.Name, Instance: c.cfg.Self.ID.String(),
		Revision: c.state.Document.Revision,
		Leader:   c.name(c.leader.ID), Quorum: c.hearing.Quorum(now, c.log.Last),
		Ready: c.voter.Ready(now), Fence: "bpf", State: "running",
		LeaseMS: ms(c.cfg.Lease), RenewMS: ms(c.cfg.Renew),
		Members: []MemberStatus{}, VIPs: []VIPStatus{}, Election: "raft", SingleOwner: true,
	}
	if c.cfg.LifetimeFence {
		s.Fence = "lifetime"
	}
	if c.state.Formed() {
		s.ClusterID = c.state.Cluster.String()
	} else {
		s.State = "forming"
	}
	if c.retired() {
		s.State = "removed"
	}
	if c.stop.asked {
		s.State = "stopping"
	}
	if c.alone {
		c.aloneStatus(&s)
	}
	for _, err := range []error{c.clock, c.bare, c.disk, c.moved} {
		if err != nil {
			s.Problems = append(s.Problems, err.Error())
		}
	}
	for _, n := range c.nodes() {
		s.Members = append(s.Members, c.memberStatus(now, n))
	}
	slices.SortFunc(s.Members, func(a, b MemberStatus) int { return cmp.Compare(a.Name, b.Name) })
	given := c.given()
	for _, def := range c.state.Document.Groups {
		if g := c.groups[def.Name]; g != nil {
			v := c.vipStatus(now, g)
			if e, ok := given[def.Name]; ok { // a later document named the same owner again
				v.Since, v.Reason = e.At, e.Reason.String()
			}
			s.VIPs = append(s.VIPs, v)
		}
	}
	return s
}

func (c *Core) memberStatus(now election.Instant, n fsm.Node) MemberStatus {
	m := MemberStatus{
		Name: n.Name, Instance: n.ID.String(), Address: n.Address.String(), Role: n.Role.String(),
		Voter: c.log.Last.Has(n.ID), Alive: true, Ready: c.voter.Ready(now),
		Drained: c.state.Drained[n.ID], Applied: c.state.Index,
	}
	sources := c.ownSources()
	if n.ID != c.cfg.Self.ID {
		p := c.peers[n.ID]
		m.Alive = p != nil && !c.hearing.Silent(now, n.ID)
		m.Ready = m.Alive && p.health.VoterReady
		m.Applied, sources = 0, nil
		if p != nil {
			m.Applied, sources = p.applied, p.sources
		}
	}
	for _, a := range sources {
		m.Sources = append(m.Sources, a.String())
	}
	return m
}

// given is the change that brought each group to its owner, as far as it is remembered.
func (c *Core) given() map[string]*fsm.Event {
	out := map[string]*fsm.Event{}
	for _, h := range slices.Backward(c.state.Events) {
		if _, later := out[h.Group]; !later && h.Kind == fsm.EventOwner && h.From != h.To {
			out[h.Group] = h
		}
	}
	return out
}

func (c *Core) vipStatus(now election.Instant, g *group) VIPStatus {
	a := c.state.Assignments[g.def.Name]
	v := VIPStatus{Name: g.def.Name, Owner: c.name(a.Owner), Epoch: a.Epoch, State: c.vipState(now, g, a), Open: g.phase == active, Held: g.bound != nil}
	if a.Epoch != 0 {
		v.Reason = a.Reason.String()
	}
	for _, p := range g.def.Addresses {
		v.Addresses = append(v.Addresses, p.String())
	}
	if p := c.peers[a.Owner]; p != nil && !c.hearing.Silent(now, a.Owner) {
		heard := p.groups[g.def.Name]
		v.Open = v.Open || heard.Phase == election.PhaseOpen && heard.Epoch == a.Epoch
	}
	v.WithoutProof, v.Mended = g.unproven.since != 0, g.mended
	if g.open() {
		v.Claims = g.claimStatus(now)
	}
	v.FailingWhy, v.Adjust = c.ails(g), c.condition(g).adjust
	v.Failing = len(v.FailingWhy) > 0
	if g.open() {
		v.LeaseRemainingMS = ms(max(0, g.deadline.Sub(now)))
	}
	switch {
	case v.WithoutProof:
		v.Problem = "held without proof: no majority of voters is heard, and another node may answer too (on_quorum_loss: hold)"
	case g.conflict != "":
		v.Problem = g.conflict
	case len(v.Claims) > 0:
		v.Problem = v.Claims[0].Address + " is claimed by another host, " + v.Claims[0].MAC
	case g.placeErr != "":
		v.Problem = g.placeErr
	case g.seatErr != "":
		v.Problem = g.seatErr
	case c.unfit(g) != 0:
		v.Problem = c.unfit(g).String()
	case v.Failing:
		v.Problem = strings.Join(v.FailingWhy, "; ")
	default:
		v.Problem = g.outrankedProblem()
	}
	if g.def.VRRP.ID != 0 {
		v.VRRP = &VRRPStatus{ID: g.def.VRRP.ID, State: "Backup", Priority: uint8(c.priority(g))}
		if g.phase == active && now.Before(g.deadline) {
			v.VRRP.State = "Active"
		}
		for _, s := range g.seats {
			v.VRRP.Routers = append(v.VRRP.Routers, s.status(g.phase == active && now.Before(g.deadline), uint8(c.priority(g))))
		}
	}
	if c.alone {
		c.aloneVIP(g, &v)
	}
	return v
}

// status describes the seat. To the outside a Router that waits for the others of its
// group is Backup.
func (s *seat) status(held bool, priority uint8) RouterStatus {
	out := RouterStatus{Link: s.Link, Family: s.Family.String(), VRID: uint8(s.VRID), State: vrrpcompat.Backup.String(), Priority: priority}
	if a := s.shown(); a.IsValid() {
		out.Source = a.String()
	}
	switch {
	case held:
		out.State = vrrpcompat.Active.String()
	case len(s.source) == 0, s.router != nil && s.router.State() == vrrpcompat.Initialize:
		out.State = vrrpcompat.Initialize.String()
	}
	if s.gate != nil {
		if r, ok := s.gate.Outranked(); ok {
			out.Outranked = &RivalStatus{From: r.From.String(), Priority: uint8(r.Priority)}
			out.Alarm = held
		}
	}
	return out
}

// vipState is the group's state as this node sees it (docs/cli.md).
func (c *Core) vipState(now election.Instant, g *group, a fsm.Assignment) string {
	switch {
	case a.Owner.IsZero():
		return "unowned"
	case g.phase == active && now.Before(g.deadline):
		return "active"
	case a.Owner != c.cfg.Self.ID:
		return "backup"
	case c.unfit(g) != 0 || g.conflict != "" || g.seatErr != "":
		return "fault"
	}
	if _, outranked := g.outranked(); outranked && c.forbids(g) != "" {
		return "yielded"
	}
	return "waiting"
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
