// Package fsm is the replicated truth of a cluster: the VIP document, which node
// owns each group at which epoch, who the nodes are, and the pure function that
// says who should own what.
//
// It knows the standard library only, reads no clock, and is deterministic: the
// same log gives the same state on every node. Raft feeds it (election/raftnode),
// the agent reads it.
package fsm

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"
)

// An InstanceID is the identity of one node's data directory: sixteen random
// bytes made when it was first used, and the node's Raft server id. A host that
// lost its disk is a new instance, whatever its name (design.md 3.2).
type InstanceID [16]byte

// String is the id in hexadecimal, 32 digits: its form as a Raft server id.
func (id InstanceID) String() string { return hex.EncodeToString(id[:]) }

// Short is the first eight digits, for people and logs.
func (id InstanceID) Short() string { return hex.EncodeToString(id[:4]) }

// IsZero reports whether the id is unset. No node has the zero id.
func (id InstanceID) IsZero() bool { return id == InstanceID{} }

// MarshalText and UnmarshalText make the id a hexadecimal string in JSON, also
// as a map key.
func (id InstanceID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (id *InstanceID) UnmarshalText(b []byte) error {
	p, err := ParseInstanceID(string(b))
	if err != nil {
		return err
	}
	*id = p
	return nil
}

// ParseInstanceID reads the form that String writes.
func ParseInstanceID(s string) (InstanceID, error) {
	var id InstanceID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("instance id %q: want %d hexadecimal digits", s, 2*len(id))
	}
	copy(id[:], b)
	return id, nil
}

// A ClusterID is the random identity of one cluster, made when it was formed.
// It is in every lease datagram: a cluster that is formed anew under the same
// name starts its epochs at one again and must not understand the old one's.
type ClusterID = InstanceID

// A Role says what a node may do.
type Role uint8

const (
	_       Role = iota
	Member       // votes and may own VIP groups
	Witness      // votes and never owns
)

// String is the role's word in the configuration file and in JSON.
func (r Role) String() string {
	switch r {
	case Member:
		return "member"
	case Witness:
		return "witness"
	}
	return fmt.Sprintf("role(%d)", uint8(r))
}

// A Node is a member of the cluster as the replicated state knows it.
type Node struct {
	ID      InstanceID
	Name    string         // unique in the cluster
	Address netip.AddrPort // TCP for Raft, UDP for gossip and leases
	Role    Role
}

// A Document is what the operator asked for. It is replaced as a whole.
type Document struct {
	// Revision counts replacements, from 1. Zero: no document yet.
	Revision uint64
	// MaxHold bounds the lease and fence grace that a voter confirms for anyone,
	// so that one badly configured node cannot block a group for long. A replacement
	// cannot lower it.
	MaxHold time.Duration
	Groups  []Group // in the order of the file; names are unique
	Checks  []Check `json:",omitempty"` // in the order of the file; names are unique
	Hooks   Hooks   // run for every group, after the group's own
}

// Group returns the group of that name.
func (d Document) Group(name string) (Group, bool) {
	for i := range d.Groups { // a Group is large
		if d.Groups[i].Name == name {
			return d.Groups[i], true
		}
	}
	return Group{}, false
}

// Addrs returns the addresses of all groups.
func (d Document) Addrs() []netip.Addr {
	var out []netip.Addr
	for _, g := range d.Groups {
		out = append(out, g.Addrs()...)
	}
	return out
}

// A Group is a set of addresses that move together, called a VIP group by users.
type Group struct {
	Name      string
	Addresses []netip.Prefix // at least one; no address is in two groups
	Interface string         // empty: each node takes the device whose network contains the address
	Placement Placement      // zero counts as leader
	Announce  Announce
	VRRP      VRRP
	// VMAC has the addresses stand on a device with the virtual router's own hardware
	// address (RFC 9568, section 7.3). It needs a VRRP id.
	VMAC bool
	// Priority is by node name, 0 to 254, for placement priority and checks with a weight.
	// A node that it does not name has DefaultNodePriority; 0: never there, whatever the placement.
	Priority map[string]uint8 `json:",omitempty"`
	// Preempt is for placement priority and spread; placement leader does not ask for it.
	Preempt  Preempt
	Weight   int      // how much it counts for placement spread, 1 to 1000; zero counts as 1
	Apart    []string `json:",omitempty"` // groups that are not to be on the same node, if there is another
	Together []string `json:",omitempty"` // groups that are to be on the same node; they move as one

	// Specs is how single addresses stand on a host, where that is not as usual.
	Specs map[netip.Addr]AddressSpec `json:",omitempty"`
	// Routes and Rules go with the addresses: put in after them in this order, and taken
	// out before them in reverse.
	Routes []Route `json:",omitempty"`
	Rules  []Rule  `json:",omitempty"`
	// KeepConnections leaves the TCP connections of the addresses alone when they go; else
	// they are reset, so that clients connect anew at once.
	KeepConnections bool `json:",omitempty"`

	Checks          []string   `json:",omitempty"` // names of the document's checks
	TrackInterfaces []Track    `json:",omitempty"`
	WhenAllFail     AllFail    // zero counts as keep
	OnQuorumLoss    QuorumLoss // zero counts as release
	Hooks           Hooks
}

// Addrs returns the group's addresses without their prefix lengths.
func (g Group) Addrs() []netip.Addr {
	out := make([]netip.Addr, 0, len(g.Addresses))
	for _, p := range g.Addresses {
		out = append(out, p.Addr())
	}
	return out
}

// A Placement is the policy by which a group without a fit owner gets one.
type Placement uint8

const (
	_                 Placement = iota
	PlacementLeader             // the Raft leader takes it; whoever has it keeps it
	PlacementPriority           // the fit node of the highest priority; who has it keeps it unless Preempt says otherwise
	PlacementSpread             // the fit node with the least; whoever has it keeps it
)

// String is the policy's word in the configuration file.
func (p Placement) String() string {
	switch p {
	case PlacementLeader:
		return "leader"
	case PlacementPriority:
		return "priority"
	case PlacementSpread:
		return "spread"
	}
	return fmt.Sprintf("placement(%d)", uint8(p))
}

// Announce is how often a new owner tells the LAN.
type Announce struct {
	Repeat  int           // announcements after a take-over, 1 to 100
	Refresh time.Duration // between later ones; zero: none
}

// An Assignment is who owns a group.
type Assignment struct {
	Owner InstanceID // zero: nobody, because no node passes the group's checks
	// Epoch is the Raft index of the entry that named the owner, or that changed
	// the group's addresses under it: unique in the cluster, and only grows.
	Epoch  uint64
	Reason Reason
}

// A Reason says why a group changed its owner.
type Reason uint8

const (
	_              Reason = iota
	ReasonFirst           // the group had no owner
	ReasonLost            // no majority of voters heard the owner for a lease
	ReasonNotOpen         // the owner could not open its lease in time
	ReasonUnfit           // the owner said that it cannot hold the group (no carrier, a conflict)
	ReasonMove            // an operator asked
	ReasonShutdown        // the owner is about to stop
	ReasonDocument        // the group's addresses or devices changed, or the owner's priority is 0 now
	ReasonGone            // the owner is no longer a member
	ReasonCheck           // the owner fails a check of the group
	ReasonDrain           // the owner is drained
	ReasonPreempt         // a better node takes it
	ReasonApart           // it was on one node with a group that it is to be apart from
	ReasonTogether        // it is to be where another group is
	ReasonAllFail         // no node passes the group's checks: nobody holds it
	ReasonRestore         // a node passes the group's checks again
)

var reasonNames = [...]string{"", "first", "owner-lost", "not-open", "owner-unfit", "move", "shutdown", "document", "owner-gone",
	"check-failed", "drain", "preempt", "apart", "together", "all-fail", "restore"}

// String is the reason as logs and JSON have it.
func (r Reason) String() string {
	if int(r) < len(reasonNames) && r != 0 {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}
