package core

import (
	"cmp"
	"slices"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// Status is what a node knows, for people and for `quorate status --json`: the
// fields of design.md 5.2 and some more.
type Status struct {
	Cluster   string         `json:"cluster"`
	ClusterID string         `json:"cluster_id,omitempty"`
	Node      string         `json:"node"`
	Instance  string         `json:"instance"`
	Leader    string         `json:"leader"`
	Quorum    bool           `json:"quorum"`
	Ready     bool           `json:"ready"` // the voter half confirms leases
	Fence     string         `json:"fence"`
	LeaseMS   float64        `json:"lease_ms"`
	RenewMS   float64        `json:"renew_ms"`
	State     string         `json:"state"` // waiting, forming, joining, refused, running, stopping
	Problems  []string       `json:"problems,omitempty"`
	Members   []MemberStatus `json:"members"`
	VIPs      []VIPStatus    `json:"vips"`
	// VRRPHeard counts the adverts heard, by result: accepted, or why refused.
	VRRPHeard map[string]uint64 `json:"vrrp_heard,omitempty"`
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
}

// VIPStatus is one group in a Status. State is as this node sees it.
type VIPStatus struct {
	Name             string      `json:"name"`
	Addresses        []string    `json:"addresses"`
	Owner            string      `json:"owner"`
	Epoch            uint64      `json:"epoch"`
	Reason           string      `json:"reason,omitempty"`
	State            string      `json:"state"` // active, backup, waiting, unowned, fault
	Open             bool        `json:"open"`  // some node said that it holds it
	Held             bool        `json:"held"`  // its addresses are on this host, or may be
	LeaseRemainingMS float64     `json:"lease_remaining_ms"`
	Problem          string      `json:"problem,omitempty"`
	VRRP             *VRRPStatus `json:"vrrp,omitempty"`
}

// VRRPStatus is how a group appears to VRRP speakers outside.
type VRRPStatus struct {
	ID       uint8  `json:"id"`
	State    string `json:"state"`
	Priority uint8  `json:"priority"`
}

// Status describes the node at clock reading now.
func (c *Core) Status(now election.Instant) Status {
	now = max(now, c.now)
	s := Status{
		Cluster: c.state.Name, Node: c.cfg.Self.Name, Instance: c.cfg.Self.ID.String(),
		Leader: c.name(c.leader.ID), Quorum: c.hearing.Quorum(now, c.log.Last),
		Ready: c.voter.Ready(now), Fence: "bpf", State: "running",
		LeaseMS: ms(c.cfg.Lease), RenewMS: ms(c.cfg.Renew),
		Members: []MemberStatus{}, VIPs: []VIPStatus{},
	}
	if c.cfg.LifetimeFence {
		s.Fence = "lifetime"
	}
	if c.state.Formed() {
		s.ClusterID = c.state.Cluster.String()
	} else {
		s.State = "forming"
	}
	if c.stop.asked {
		s.State = "stopping"
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
	for _, def := range c.state.Document.Groups {
		if g := c.groups[def.Name]; g != nil {
			s.VIPs = append(s.VIPs, c.vipStatus(now, g))
		}
	}
	return s
}

func (c *Core) memberStatus(now election.Instant, n fsm.Node) MemberStatus {
	m := MemberStatus{
		Name: n.Name, Instance: n.ID.String(), Address: n.Address.String(), Role: n.Role.String(),
		Voter: c.log.Last.Has(n.ID), Alive: true, Ready: c.voter.Ready(now),
	}
	if n.ID != c.cfg.Self.ID {
		p := c.peers[n.ID]
		m.Alive = p != nil && !c.hearing.Silent(now, n.ID)
		m.Ready = m.Alive && p.health.VoterReady
	}
	return m
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
	if g.open() {
		v.LeaseRemainingMS = ms(max(0, g.deadline.Sub(now)))
	}
	switch {
	case g.conflict != "":
		v.Problem = g.conflict
	case g.placeErr != "":
		v.Problem = g.placeErr
	case c.unfit(g) != 0:
		v.Problem = c.unfit(g).String()
	}
	if g.def.VRRP.ID != 0 {
		v.VRRP = &VRRPStatus{ID: g.def.VRRP.ID, State: "Backup", Priority: g.def.VRRP.Priority}
		if g.phase == active && now.Before(g.deadline) {
			v.VRRP.State = "Active"
		}
	}
	return v
}

// vipState is the group's state as this node sees it (design.md 5.2).
func (c *Core) vipState(now election.Instant, g *group, a fsm.Assignment) string {
	switch {
	case a.Owner.IsZero():
		return "unowned"
	case g.phase == active && now.Before(g.deadline):
		return "active"
	case a.Owner != c.cfg.Self.ID:
		return "backup"
	case c.unfit(g) != 0 || g.conflict != "":
		return "fault"
	}
	return "waiting"
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
