package election

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/quorate/quorate/fsm"
)

// A Hello is how a node introduces itself before, and after, there is a cluster.
type Hello struct {
	Cluster  string   // the cluster's name in the node's configuration
	Node     fsm.Node // as configured; the id is that of its data directory
	Peers    []netip.AddrPort
	HasState bool   // its disk holds Raft state: it belongs to a cluster
	Pledge   Pledge // zero: none given

	// The rest is known only to a node with state, and may lag.
	ClusterID fsm.ClusterID  // zero: not formed, or not caught up yet
	Members   []fsm.Node     // whom the cluster knows
	Leader    netip.AddrPort // invalid: unknown
}

// A Peer is what one address of the configured peers answered.
type Peer struct {
	Address netip.AddrPort
	Hello   *Hello // nil: no answer
	Problem string // why there is none, for people: "connection refused"
}

// A Pledge is a node's durable word that it forms no cluster and joins no other
// than the one described. The former asks every node for it before it bootstraps,
// and gives it to itself first, which also keeps its plan over a restart.
//
// A node pledges once. Only the same instance may ask it again: it asks because
// its disk is still empty, so what it asked for before was never formed. A pledge
// to an instance whose disk is lost stays: that instance may have formed the
// cluster with others before. Where an operator knows that it did not, the way out
// is to remove the data directories of all nodes that pledged and never joined.
type Pledge struct {
	Cluster  fsm.ClusterID
	Name     string
	Former   fsm.InstanceID
	Nodes    []fsm.Node // the first voters, sorted by address
	Document fsm.Document
}

// IsZero reports whether there is no pledge.
func (p Pledge) IsZero() bool { return p.Former.IsZero() }

// former returns the node that forms the cluster of the pledge.
func (p Pledge) former() (fsm.Node, bool) {
	i := slices.IndexFunc(p.Nodes, func(n fsm.Node) bool { return n.ID == p.Former })
	if i < 0 {
		return fsm.Node{}, false
	}
	return p.Nodes[i], true
}

// A FormationStep is what a node without a cluster does next.
type FormationStep uint8

const (
	_           FormationStep = iota
	StepDone                  // the node has state: Raft goes on from here
	StepWait                  // ask again soon
	StepForm                  // collect pledges and bootstrap
	StepJoin                  // ask an existing cluster to be added
	StepRefused               // a person has to change something; ask again all the same
)

// String names the step.
func (s FormationStep) String() string {
	switch s {
	case StepDone:
		return "done"
	case StepWait:
		return "waiting"
	case StepForm:
		return "forming"
	case StepJoin:
		return "joining"
	case StepRefused:
		return "refused"
	}
	return fmt.Sprintf("step(%d)", uint8(s))
}

// A Formation is the decision of DecideFormation.
type Formation struct {
	Step   FormationStep
	Reason string         // for people; set with StepWait and StepRefused
	Nodes  []fsm.Node     // with StepForm: the first voters, sorted by address
	To     netip.AddrPort // with StepJoin: whom to ask, the leader if it is known
}

// String is one line for status and log.
func (f Formation) String() string {
	switch f.Step {
	case StepForm:
		return fmt.Sprintf("forming a cluster of %d", len(f.Nodes))
	case StepJoin:
		return fmt.Sprintf("asking %s to be added to the cluster", f.To)
	}
	if f.Step == StepDone {
		return "this node is in the cluster"
	}
	if f.Reason == "" {
		return f.Step.String()
	}
	return f.Step.String() + ": " + f.Reason
}

func wait(format string, a ...any) Formation {
	return Formation{Step: StepWait, Reason: fmt.Sprintf(format, a...)}
}

func refuse(format string, a ...any) Formation {
	return Formation{Step: StepRefused, Reason: fmt.Sprintf(format, a...)}
}

// DecideFormation says what a node does towards a cluster, given how it introduces
// itself and what each of the other configured peers answered. A second cluster
// must never arise beside an existing one, so forming needs all of the peers:
// reachable, without state, of one mind about who the peers are. One that cannot
// be reached might be the cluster's last memory.
func DecideFormation(self Hello, others []Peer) Formation {
	if self.HasState {
		return Formation{Step: StepDone}
	}
	if len(self.Peers) == 0 {
		return refuse("the list of peers is empty; a cluster of one node lists its own address, %s", self.Node.Address)
	}
	if f, bad := contradiction(self, others); bad {
		return f
	}
	if f, ok := joinExisting(self, others); ok {
		return f
	}
	if !self.Pledge.IsZero() && self.Pledge.Former != self.Node.ID {
		return pledged(self, others)
	}
	return formNew(self, others)
}

// contradiction finds what no waiting cures: another cluster's node among the
// peers, or an identity that is there twice.
func contradiction(self Hello, others []Peer) (Formation, bool) {
	seen := []fsm.Node{self.Node}
	for _, p := range others {
		if p.Hello == nil {
			continue
		}
		h := p.Hello
		if h.Cluster != self.Cluster {
			return refuse("%s belongs to cluster %q, this node to %q; correct `cluster` or `peers`", p.Address, h.Cluster, self.Cluster), true
		}
		for _, n := range seen {
			if n.ID == h.Node.ID {
				return refuse("%s (%s) and %s (%s) have the same instance id %s: one data directory is a copy of the other; remove it on one of them",
					n.Name, n.Address, h.Node.Name, p.Address, n.ID), true
			}
			if n.Name == h.Node.Name {
				return refuse("the name %q is used by instance %s at %s and by instance %s at %s; give one of them another `node` name",
					n.Name, n.ID, n.Address, h.Node.ID, p.Address), true
			}
		}
		seen = append(seen, h.Node)
	}
	return Formation{}, false
}

// joinExisting decides where any peer has state: then there is a cluster, and this
// node never forms another.
func joinExisting(self Hello, others []Peer) (Formation, bool) {
	var member *Peer
	var empty []string
	for i, p := range others {
		if p.Hello == nil || !p.Hello.HasState {
			continue
		}
		if p.Hello.ClusterID.IsZero() {
			empty = append(empty, describe(p))
			continue
		}
		if member != nil && member.Hello.ClusterID != p.Hello.ClusterID {
			return refuse("%s is in cluster %s and %s in cluster %s, both called %q; `peers` must list nodes of one cluster",
				describe(*member), member.Hello.ClusterID, describe(p), p.Hello.ClusterID, self.Cluster), true
		}
		if member == nil || p.Hello.Leader.IsValid() && !member.Hello.Leader.IsValid() {
			member = &others[i]
		}
	}
	if member == nil {
		if len(empty) == 0 {
			return Formation{}, false
		}
		return wait("%s has Raft state but knows no cluster yet", strings.Join(empty, ", ")), true
	}
	return joinTo(self, *member), true
}

func joinTo(self Hello, p Peer) Formation {
	for _, n := range p.Hello.Members {
		if n.ID == self.Node.ID {
			return wait("the cluster of %s knows this node; waiting for its leader to make contact", describe(p))
		}
		if n.Name == self.Node.Name {
			return refuse("the name %q belongs to instance %s in the cluster of %s, and this data directory is instance %s; "+
				"if that one is lost for good, `quorate remove %s` on a node of the cluster, and this one joins; "+
				"else bring back the old data directory, or choose another `node` name",
				n.Name, n.ID, describe(p), self.Node.ID, n.Name)
		}
		if n.Address == self.Node.Address {
			return refuse("the address %s belongs to %q (instance %s) in the cluster of %s, and this data directory is instance %s; "+
				"if that one is lost for good, `quorate remove %s` on a node of the cluster, and this one joins; "+
				"else bring back the old data directory, or choose another `address`",
				n.Address, n.Name, n.ID, describe(p), self.Node.ID, n.Name)
		}
	}
	// Its own plan binds a node to nothing: it did not bootstrap, so nobody did.
	bound := !self.Pledge.IsZero() && self.Pledge.Former != self.Node.ID
	if bound && self.Pledge.Cluster != p.Hello.ClusterID {
		return refuse("this node pledged itself to cluster %s, and %s is in cluster %s; "+
			"if the former was never formed, remove this node's data directory and start again", self.Pledge.Cluster, describe(p), p.Hello.ClusterID)
	}
	to := p.Address
	if p.Hello.Leader.IsValid() {
		to = p.Hello.Leader
	}
	return Formation{Step: StepJoin, To: to}
}

// pledged is a node that gave its word to another: it waits to be contacted.
func pledged(self Hello, others []Peer) Formation {
	former, _ := self.Pledge.former()
	for _, p := range others {
		if p.Hello != nil && p.Address == former.Address && p.Hello.Node.ID != former.ID {
			return refuse("this node pledged itself to %s (instance %s), which is now instance %s: its data directory was lost; "+
				"if no node of the cluster ever ran, remove the data directories of all nodes that wait like this one and start them again",
				former.Name, former.ID, p.Hello.Node.ID)
		}
	}
	return wait("pledged to the cluster that %s (%s) forms; waiting for it to make contact", former.Name, former.Address)
}

func formNew(self Hello, others []Peer) Formation {
	peers := sortedPeers(self.Peers)
	if !slices.Contains(peers, self.Node.Address) {
		return wait("no cluster found, and this node's address %s is not among the peers that may form one (%s)", self.Node.Address, join(peers))
	}
	nodes := []fsm.Node{self.Node}
	var missing []string
	for _, address := range peers {
		if address == self.Node.Address {
			continue
		}
		i := slices.IndexFunc(others, func(p Peer) bool { return p.Address == address })
		if i < 0 || others[i].Hello == nil {
			why := "not asked yet"
			if i >= 0 && others[i].Problem != "" {
				why = others[i].Problem
			}
			missing = append(missing, fmt.Sprintf("%s (%s)", address, why))
			continue
		}
		if f, bad := disagrees(self, peers, others[i]); bad {
			return f
		}
		nodes = append(nodes, others[i].Hello.Node)
	}
	if len(missing) > 0 {
		return wait("to form a cluster all peers must be there; missing: %s", strings.Join(missing, ", "))
	}
	slices.SortFunc(nodes, byAddress)
	if former := nodes[0]; former.ID != self.Node.ID {
		return wait("%s (%s) forms the cluster: the lowest address does", former.Name, former.Address)
	}
	return Formation{Step: StepForm, Nodes: nodes}
}

// disagrees tells whether a peer without state would form another cluster than we.
func disagrees(self Hello, peers []netip.AddrPort, p Peer) (Formation, bool) {
	h := p.Hello
	if h.Node.Address != p.Address {
		return refuse("%s was reached at %s; its `address` and the entry in `peers` must be the same", nameAt(h.Node), p.Address), true
	}
	if theirs := sortedPeers(h.Peers); !slices.Equal(theirs, peers) {
		return refuse("%s lists the peers %s, this node %s; they must be the same to form a cluster", describe(p), join(theirs), join(peers)), true
	}
	if !h.Pledge.IsZero() && h.Pledge.Former != self.Node.ID {
		former, _ := h.Pledge.former()
		if former.Address != peers[0] || former.Address == self.Node.Address {
			return refuse("%s pledged itself to %s (instance %s), which is none of the peers as they are now; "+
				"if that cluster was never formed, remove the data directory of %s and start it again",
				describe(p), nameAt(former), h.Pledge.Former, h.Node.Name), true
		}
	}
	return Formation{}, false
}

// Errors of AcceptPledge.
var (
	// ErrHasState means that the node belongs to a cluster already.
	ErrHasState = errors.New("the node has Raft state already")
	// ErrPledged means that the node gave its word to another instance.
	ErrPledged = errors.New("the node is pledged to another")
	// ErrBadPledge means a pledge that does not fit the node's own configuration.
	ErrBadPledge = errors.New("the pledge does not fit this node")
)

// AcceptPledge reports whether a node may give the pledge that it is asked for,
// where self is its own introduction: nil, or one of the errors above. The node
// must write the pledge to its disk before it says yes.
func AcceptPledge(self Hello, asked Pledge) error {
	if self.HasState {
		return ErrHasState
	}
	former, ok := asked.former()
	if !ok || asked.Cluster.IsZero() {
		return fmt.Errorf("%w: it names no former among its nodes, or no cluster", ErrBadPledge)
	}
	if asked.Name != self.Cluster {
		return fmt.Errorf("%w: it is for cluster %q, this node belongs to %q", ErrBadPledge, asked.Name, self.Cluster)
	}
	if have := self.Pledge; !have.IsZero() && have.Former != asked.Former {
		return fmt.Errorf("%w: to instance %s for cluster %s, and now instance %s asks; if the first was never formed, remove this node's data directory",
			ErrPledged, have.Former, have.Cluster, asked.Former)
	}
	var addresses []netip.AddrPort
	for _, n := range asked.Nodes {
		addresses = append(addresses, n.Address)
	}
	peers := sortedPeers(self.Peers)
	if addresses = sortedPeers(addresses); !slices.Equal(addresses, peers) || len(asked.Nodes) != len(peers) {
		return fmt.Errorf("%w: it lists %s, this node's peers are %s", ErrBadPledge, join(addresses), join(peers))
	}
	if former.Address != peers[0] {
		return fmt.Errorf("%w: %s would form it, and the lowest address is %s", ErrBadPledge, nameAt(former), peers[0])
	}
	if !slices.Contains(asked.Nodes, self.Node) {
		return fmt.Errorf("%w: it does not list this node as %s, instance %s, %s", ErrBadPledge, nameAt(self.Node), self.Node.ID, self.Node.Role)
	}
	return nil
}

func byAddress(a, b fsm.Node) int { return a.Address.Compare(b.Address) }

func sortedPeers(p []netip.AddrPort) []netip.AddrPort {
	p = slices.Clone(p)
	slices.SortFunc(p, netip.AddrPort.Compare)
	return slices.Compact(p)
}

func describe(p Peer) string { return nameAt(fsm.Node{Name: p.Hello.Node.Name, Address: p.Address}) }

func nameAt(n fsm.Node) string {
	return fmt.Sprintf("%s (%s)", cmp.Or(n.Name, "a node without a name"), n.Address)
}

func join(p []netip.AddrPort) string {
	var s []string
	for _, a := range p {
		s = append(s, a.String())
	}
	return strings.Join(s, ", ")
}
