package election

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/quorate/quorate/fsm"
)

// formNode is node i of a village: n<i> at 10.0.0.<i>, instance <i>.
func formNode(i byte) fsm.Node {
	return fsm.Node{
		ID: fsm.InstanceID{i}, Name: fmt.Sprintf("n%d", i), Role: fsm.Member,
		Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, i}), 7950),
	}
}

func formPeers(ids ...byte) (p []netip.AddrPort) {
	for _, i := range ids {
		p = append(p, formNode(i).Address)
	}
	return p
}

// hello is the introduction of node i of the three, with changes.
func hello(i byte, changes ...func(*Hello)) Hello {
	h := Hello{Cluster: "prod", Node: formNode(i), Peers: formPeers(1, 2, 3)}
	for _, c := range changes {
		c(&h)
	}
	return h
}

// answers is what peers answered; each is reached at its address in formNode.
func answers(hs ...Hello) (p []Peer) {
	for _, h := range hs {
		p = append(p, Peer{Address: netip.AddrPortFrom(h.Node.Address.Addr(), 7950), Hello: &h})
	}
	return p
}

func TestDecideFormation(t *testing.T) {
	clusterX, clusterY := fsm.ClusterID{100}, fsm.ClusterID{101}
	members := func(c fsm.ClusterID, ids ...byte) func(*Hello) {
		return func(h *Hello) {
			h.HasState, h.ClusterID = true, c
			for _, i := range ids {
				h.Members = append(h.Members, formNode(i))
			}
		}
	}
	leader := func(i byte) func(*Hello) { return func(h *Hello) { h.Leader = formNode(i).Address } }
	state := func(h *Hello) { h.HasState = true }
	id := func(i byte) func(*Hello) { return func(h *Hello) { h.Node.ID = fsm.InstanceID{i} } }
	name := func(n string) func(*Hello) { return func(h *Hello) { h.Node.Name = n } }
	cluster := func(n string) func(*Hello) { return func(h *Hello) { h.Cluster = n } }
	peers := func(ids ...byte) func(*Hello) { return func(h *Hello) { h.Peers = formPeers(ids...) } }
	port := func(p uint16) func(*Hello) {
		return func(h *Hello) { h.Node.Address = netip.AddrPortFrom(h.Node.Address.Addr(), p) }
	}
	pledge := func(former byte) func(*Hello) {
		return func(h *Hello) {
			n := formNode(1)
			n.ID = fsm.InstanceID{former}
			h.Pledge = Pledge{Cluster: clusterX, Name: "prod", Former: n.ID, Nodes: []fsm.Node{n, formNode(2), formNode(3)}}
		}
	}
	silent := func(i byte, why string) []Peer { return []Peer{{Address: formNode(i).Address, Problem: why}} }

	tests := []struct {
		name  string
		self  Hello
		peers []Peer
		want  FormationStep
		says  string // in the text of the decision
	}{
		{"all there, lowest address", hello(1), answers(hello(2), hello(3)), StepForm, "cluster of 3"},
		{"all there, not the lowest", hello(2), answers(hello(1), hello(3)), StepWait, "n1 (10.0.0.1:7950) forms the cluster"},
		{"the order of the list does not matter", hello(1, peers(3, 1, 2)), answers(hello(2, peers(2, 3, 1)), hello(3)), StepForm, ""},
		{"a peer listed twice is one", hello(1, peers(1, 1, 2)), answers(hello(2, peers(1, 2))), StepForm, "cluster of 2"},
		{"alone", hello(1, peers(1)), nil, StepForm, "cluster of 1"},
		{"no peers at all", hello(1, peers()), nil, StepRefused, "lists its own address, 10.0.0.1:7950"},
		{"own address not among the peers", hello(4), answers(hello(1), hello(2), hello(3)), StepWait, "10.0.0.4:7950 is not among the peers"},
		{"one peer silent", hello(1), append(answers(hello(2)), silent(3, "connection refused")...), StepWait, "10.0.0.3:7950 (connection refused)"},
		{"one peer not asked", hello(1), answers(hello(2)), StepWait, "10.0.0.3:7950 (not asked yet)"},
		{"own disk has state", hello(1, state), answers(hello(2), hello(3)), StepDone, ""},

		{"late: a peer is in a cluster", hello(3), append(answers(hello(2, members(clusterX, 1, 2))), silent(1, "timeout")...), StepJoin, "asking 10.0.0.2:7950"},
		{"late: ask the leader, if someone knows it", hello(3), answers(hello(1, members(clusterX, 1, 2)), hello(2, members(clusterX, 1, 2), leader(5))), StepJoin, "asking 10.0.0.5:7950"},
		{"late: from outside of the peers", hello(4), answers(hello(1, members(clusterX, 1, 2))), StepJoin, ""},
		{"the lowest never forms beside state", hello(1), answers(hello(2), hello(3, state)), StepWait, "n3 (10.0.0.3:7950) has Raft state but knows no cluster yet"},
		{"known to the cluster already", hello(3), answers(hello(1, members(clusterX, 1, 2, 3))), StepWait, "waiting for its leader"},
		{"wiped: name and address are another instance's", hello(3, id(33)), answers(hello(1, members(clusterX, 1, 2, 3))), StepRefused,
			`the name "n3" belongs to instance ` + fsm.InstanceID{3}.String() + ` in the cluster of n1 (10.0.0.1:7950), and this data directory is instance ` + fsm.InstanceID{33}.String()},
		{"wiped and renamed: the address is another instance's", hello(3, id(33), name("new")), answers(hello(1, members(clusterX, 1, 2, 3))), StepRefused, "the address 10.0.0.3:7950 belongs to"},
		{"peers in two clusters", hello(3), answers(hello(1, members(clusterX, 1)), hello(2, members(clusterY, 2))), StepRefused, clusterY.String()},

		{"another cluster's node", hello(1), answers(hello(2, cluster("test")), hello(3)), StepRefused, `belongs to cluster "test", this node to "prod"`},
		{"another cluster's node, with state", hello(1), answers(hello(2, cluster("test"), members(clusterY, 2))), StepRefused, `"test"`},
		{"copied data directory, ours", hello(1), answers(hello(2, id(1)), hello(3)), StepRefused, "same instance id"},
		{"copied data directory, of two others", hello(1), answers(hello(2), hello(3, id(2))), StepRefused, "same instance id"},
		{"a name twice", hello(1), answers(hello(2, name("n1")), hello(3)), StepRefused, fsm.InstanceID{2}.String()},
		{"peers differ", hello(1), answers(hello(2, peers(1, 2)), hello(3)), StepRefused, "n2 (10.0.0.2:7950) lists the peers 10.0.0.1:7950, 10.0.0.2:7950, this node"},
		{"a peer has another address than the one listed", hello(1), answers(hello(2, port(7951)), hello(3)), StepRefused, "must be the same"},

		{"pledged to another: waits", hello(2, pledge(1)), answers(hello(1, pledge(1)), hello(3, pledge(1))), StepWait, "pledged to the cluster that n1"},
		{"pledged to another, which is silent: waits, whoever is lowest", hello(2, pledge(1), peers(2, 3)), answers(hello(3, peers(2, 3))), StepWait, "pledged to the cluster that n1"},
		{"pledged to another, which is being formed", hello(2, pledge(1)), answers(hello(1, state), hello(3)), StepWait, "knows no cluster yet"},
		{"pledged to an instance that lost its disk", hello(2, pledge(9)), answers(hello(1), hello(3)), StepRefused, "remove the data directories"},
		{"pledged, and another cluster is there", hello(2, pledge(9)), answers(hello(1, func(h *Hello) { h.HasState, h.ClusterID = true, clusterY })), StepRefused, "pledged itself to cluster"},
		{"pledged to this cluster, which does not know us", hello(2, pledge(1)), answers(hello(1, members(clusterX, 1, 3))), StepJoin, ""},
		{"own plan: goes on", hello(1, pledge(1)), answers(hello(2, pledge(1)), hello(3)), StepForm, ""},
		{"own plan is no bond", hello(1, pledge(1)), answers(hello(2, members(clusterY, 2, 3))), StepJoin, ""},
		{"a peer is pledged to our earlier instance", hello(1), answers(hello(2, pledge(9)), hello(3)), StepRefused, "remove the data directory of n2"},
		{"a peer is pledged to the lowest: wait for that", hello(2), answers(hello(1), hello(3, pledge(1))), StepWait, "n1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := DecideFormation(tt.self, tt.peers)
			if got.Step != tt.want || !strings.Contains(got.String(), tt.says) {
				t.Errorf("%s; want %s with %q", got, tt.want, tt.says)
			}
			if got.Step == StepForm && (!slices.IsSortedFunc(got.Nodes, byAddress) || got.Nodes[0].ID != tt.self.Node.ID) {
				t.Errorf("forms of %v, want sorted by address, itself first", got.Nodes)
			}
		})
	}
}

// However the first voters see one another, and whoever was wiped or has state,
// at most one forms, and none where state is to be seen.
func TestOnlyOneForms(t *testing.T) {
	const n = 3
	for mask := range 1 << (n * n) { // who reaches whom, and on the diagonal who has state
		formed := 0
		anyState := false
		for i := range byte(n) {
			anyState = anyState || mask>>(i*n+i)&1 == 1
		}
		for i := range byte(n) {
			self := hello(i + 1)
			self.HasState = mask>>(i*n+i)&1 == 1
			var others []Peer
			for j := range byte(n) {
				if i == j {
					continue
				}
				p := Peer{Address: formNode(j + 1).Address}
				if mask>>(i*n+j)&1 == 1 {
					h := hello(j + 1)
					h.HasState = mask>>(j*n+j)&1 == 1
					p.Hello = &h
				}
				others = append(others, p)
			}
			if DecideFormation(self, others).Step == StepForm {
				formed++
			}
		}
		if formed > 1 || formed > 0 && anyState {
			t.Fatalf("mask %09b: %d form, state somewhere: %v", mask, formed, anyState)
		}
	}
}

func TestAcceptPledge(t *testing.T) {
	good := Pledge{Cluster: fsm.ClusterID{100}, Name: "prod", Former: formNode(1).ID, Nodes: []fsm.Node{formNode(1), formNode(2), formNode(3)}}
	with := func(change func(*Pledge)) Pledge {
		p := good
		p.Nodes = slices.Clone(p.Nodes)
		change(&p)
		return p
	}
	tests := []struct {
		name  string
		self  Hello
		asked Pledge
		want  error
	}{
		{"first", hello(2), good, nil},
		{"by itself", hello(1), good, nil},
		{"again", hello(2, func(h *Hello) { h.Pledge = good }), good, nil},
		{"again with another plan, by the same instance", hello(2, func(h *Hello) { h.Pledge = good }), with(func(p *Pledge) { p.Cluster = fsm.ClusterID{101} }), nil},
		{"pledged to another instance", hello(2, func(h *Hello) { h.Pledge = good; h.Pledge.Former = fsm.InstanceID{9} }), good, ErrPledged},
		{"has state", hello(2, func(h *Hello) { h.HasState = true }), good, ErrHasState},
		{"other cluster", hello(2), with(func(p *Pledge) { p.Name = "test" }), ErrBadPledge},
		{"no cluster id", hello(2), with(func(p *Pledge) { p.Cluster = fsm.ClusterID{} }), ErrBadPledge},
		{"former not among the nodes", hello(2), with(func(p *Pledge) { p.Former = fsm.InstanceID{9} }), ErrBadPledge},
		{"former not the lowest", hello(2), with(func(p *Pledge) { p.Former = formNode(3).ID }), ErrBadPledge},
		{"other peers", hello(2, func(h *Hello) { h.Peers = formPeers(1, 2) }), good, ErrBadPledge},
		{"a node twice", hello(2), with(func(p *Pledge) { p.Nodes = append(p.Nodes, formNode(3)) }), ErrBadPledge},
		{"lists this node as another instance", hello(2), with(func(p *Pledge) { p.Nodes[1].ID = fsm.InstanceID{22} }), ErrBadPledge},
		{"lists this node in another role", hello(2), with(func(p *Pledge) { p.Nodes[1].Role = fsm.Witness }), ErrBadPledge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := AcceptPledge(tt.self, tt.asked); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}
