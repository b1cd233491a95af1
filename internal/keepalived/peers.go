package keepalived

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/quorate/quorate/internal/config"
)

// maxPeers is the largest cluster that the configuration file can name.
const maxPeers = 7

// peers finds the cluster's nodes: as the caller says, else as the files' unicast does.
func (t *translation) peers(d *document) {
	var all []Peer
	if len(t.opt.Peers) > 0 {
		all = t.named()
	} else {
		all = t.fromUnicast()
	}
	if all == nil {
		return
	}
	if len(all) == 2 {
		t.probs.add(pos{}, "two nodes: when either fails, the other has no majority and holds nothing",
			fmt.Sprintf("give a third address, of a node that only votes, such as --peers %s,%s,10.0.0.3; or write for two plain VRRP routers with --election vrrp", all[0].flag(), all[1].flag()))
		return
	}
	if len(all) > maxPeers {
		t.probs.add(pos{}, fmt.Sprintf("%d nodes, and a cluster has at most %d", len(all), maxPeers), "name with --peers those that are to be its members")
		return
	}
	if len(all)%2 == 0 {
		t.report.add(pos{}, Decision, "peers", fmt.Sprintf("%d nodes survive no more failures than %d; choose: one more, which may have role: witness, or as it is", len(all), len(all)-1))
	}
	for _, p := range all {
		d.peers = append(d.peers, p.Address.String())
		n := slices.IndexFunc(t.nodes, func(n *node) bool { return n.name == p.Node })
		switch {
		case n == t.own:
			d.address = p.Address.String()
		case n >= 0:
			d.comments = append(d.comments, fmt.Sprintf("On %s write node: %s and address: %s.", p.Node, p.Node, p.Address))
		default:
			t.report.add(pos{}, Decision, "peers", fmt.Sprintf("%s has no keepalived.conf here; choose: role: witness there, or its priority in each group (100 if it is not written)", p.flag()))
			d.comments = append(d.comments, fmt.Sprintf("On %s write its node:, address: and, if it is to hold nothing, role: witness.", p.flag()))
		}
	}
}

// flag is a peer as --peers takes it.
func (p Peer) flag() string {
	s := p.Address.String()
	if p.Address.Port() == config.DefaultPort {
		s = p.Address.Addr().String()
	}
	if p.Node != "" {
		s = p.Node + "=" + s
	}
	return s
}

// named are the peers that the caller gave, each with its node. An address without a
// name is that of the node which has it in its file, else of the next without one.
func (t *translation) named() []Peer {
	out := slices.Clone(t.opt.Peers)
	has := func(name string) bool { return slices.ContainsFunc(out, func(p Peer) bool { return p.Node == name }) }
	for i := range out {
		for _, n := range t.nodes {
			if out[i].Node == "" && !has(n.name) && n.speaksFrom(out[i].Address.Addr()) {
				out[i].Node = n.name
			}
		}
	}
	for i := range out {
		for _, n := range t.nodes {
			if out[i].Node == "" && !has(n.name) {
				out[i].Node = n.name
			}
		}
	}
	seen := map[netip.AddrPort]bool{}
	ok := true
	for _, p := range out {
		if seen[p.Address] {
			t.probs.add(pos{}, fmt.Sprintf("--peers has %s twice", p.Address), "write each node once")
			ok = false
		}
		seen[p.Address] = true
	}
	for _, n := range t.nodes {
		if !has(n.name) {
			t.probs.add(pos{}, fmt.Sprintf("--peers has no address for node %s", n.name), fmt.Sprintf("add %s=ADDRESS", n.name))
			ok = false
		}
	}
	if !ok {
		return nil
	}
	return out
}

func (n *node) speaksFrom(a netip.Addr) bool {
	return slices.ContainsFunc(n.instances, func(in *instance) bool { return in.source == a })
}

// fromUnicast takes the addresses of the first instance whose nodes all have theirs in
// the files.
func (t *translation) fromUnicast() []Peer {
	for _, g := range t.groups {
		if out := t.peersOf(g.from); out != nil {
			return out
		}
	}
	var example []string
	for i, n := range t.nodes {
		example = append(example, fmt.Sprintf("%s=10.0.0.%d", n.name, i+1))
	}
	for i := len(example); i < 3; i++ {
		example = append(example, fmt.Sprintf("10.0.0.%d", i+1))
	}
	t.probs.add(pos{}, "the files do not say by which addresses the nodes of the cluster reach each other: they have no unicast_src_ip with unicast_peer",
		"give them, such as --peers "+strings.Join(example, ",")+"; or write for plain VRRP routers with --election vrrp")
	return nil
}

func (t *translation) peersOf(m *merged) []Peer {
	var every []netip.Addr
	var list []*instance
	for _, n := range t.nodes {
		in := m.of(n)
		if in == nil || len(in.peers) == 0 {
			return nil
		}
		list = append(list, in)
		if in.source.IsValid() {
			every = append(every, in.source)
		}
		for _, p := range in.peers {
			every = append(every, p.addr)
		}
	}
	every = dedupe(every)
	var out []Peer
	for i, in := range list {
		own := ownAddress(in, every)
		if !own.IsValid() || slices.ContainsFunc(out, func(p Peer) bool { return p.Address.Addr() == own }) {
			return nil
		}
		out = append(out, Peer{Node: t.nodes[i].name, Address: netip.AddrPortFrom(own, config.DefaultPort)})
	}
	for _, a := range every {
		if !slices.ContainsFunc(out, func(p Peer) bool { return p.Address.Addr() == a }) {
			out = append(out, Peer{Address: netip.AddrPortFrom(a, config.DefaultPort)})
		}
	}
	return out
}

// ownAddress is where a node sends from: as it says, else the one of all nodes'
// addresses that it does not list as another's.
func ownAddress(in *instance, every []netip.Addr) netip.Addr {
	if in.source.IsValid() {
		return in.source
	}
	var own []netip.Addr
	for _, a := range every {
		if !slices.ContainsFunc(in.peers, func(p unicastPeer) bool { return p.addr == a }) {
			own = append(own, a)
		}
	}
	if len(own) == 1 {
		return own[0]
	}
	return netip.Addr{}
}
