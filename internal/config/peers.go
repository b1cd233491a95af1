package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// addresses checks the node's own address and those of its peers, after the
// groups: an address of a node is never a VIP.
func (c *checker) addresses(raw rawConfig) {
	cfg := c.cfg
	if raw.topPos == (pos{}) {
		return
	}
	if raw.peers.have == absent {
		c.missing(raw.topPos, "peers", "write peers: [ADDRESS:PORT, …] of all nodes, this one too")
	}
	first := map[netip.AddrPort]field[string]{}
	whole := raw.peers.ok()
	for _, f := range raw.peers.v {
		a, ok := c.addrPort(f)
		if !ok {
			whole = false
			continue
		}
		if p, dup := first[a]; dup {
			bad(c, f, "peer written twice, "+seeAlso(p), "keep one of the two")
			whole = false
			continue
		}
		first[a] = f
		cfg.Peers = append(cfg.Peers, a)
	}
	if n := len(raw.peers.v); raw.peers.ok() && (n == 0 || n > maxPeers) {
		c.r.add(raw.peers.pos, "peers", fmt.Sprintf("must name 1 to %d nodes, names %d", maxPeers, n), "",
			"write the ADDRESS:PORT of all nodes, this one too; three or five are usual")
		whole = false
	}
	c.own(raw, whole)
	if !whole || !cfg.Address.IsValid() {
		return
	}
	c.peersTogether(raw)
	switch n := len(cfg.Peers); {
	case n == 1:
		c.warn(raw.peers.pos, "peers", "a cluster of one node: nobody takes over when it fails", "add two nodes; one of them may have role: witness")
	case n == 2:
		c.r.add(raw.peers.pos, "peers", "two nodes are no safe cluster: when either fails, the other is no majority and must hold nothing, "+
			"so both together fail more often than one alone", "",
			"add a third node, for which any small host with role: witness will do, or write election: vrrp, where two are enough and a single owner is not promised")
	case n%2 == 0:
		c.warn(raw.peers.pos, "peers", fmt.Sprintf("%d nodes survive no more failures than %d", n, n-1), "add or remove one")
	}
}

// own finds the node's own address; whole says that the list of peers can be
// compared with it.
func (c *checker) own(raw rawConfig, whole bool) {
	cfg := c.cfg
	text, do := "is not in peers", "add it to peers, where every node is listed"
	where := raw.address.pos
	switch raw.address.have {
	case broken:
		return
	case present:
		a, ok := c.addrPort(raw.address)
		if !ok {
			return
		}
		cfg.Address = a
	default:
		a, err := c.firstPrivate()
		if err != nil {
			c.r.add(raw.topPos, "address", "not written, and "+err.Error(), "", fmt.Sprintf("write address: ADDRESS:%d", DefaultPort))
			return
		}
		cfg.Address = netip.AddrPortFrom(a, DefaultPort)
		where = raw.peers.pos
		text = "not written, and this host's first private address is not in peers"
		do = "write address: with the one of peers that is this node"
	}
	c.cfg.where["address"] = where
	if whole && !slices.Contains(cfg.Peers, cfg.Address) {
		c.r.add(where, "address", text, cfg.Address.String(), do)
	}
}

// firstPrivate is the default of the own address. A VIP that an earlier life left
// on this host is not the host's own.
func (c *checker) firstPrivate() (netip.Addr, error) {
	all, err := c.host.Addresses()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("the addresses of this host cannot be read: %w", err)
	}
	for _, a := range all {
		if _, vip := c.isVIP(a); a.IsPrivate() && !vip {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("this host has no private address")
}

// peersTogether checks what the nodes' addresses must have in common.
func (c *checker) peersTogether(raw rawConfig) {
	cfg := c.cfg
	var loopback, v4 int
	for i, p := range cfg.Peers {
		f := raw.peers.v[i] // the list is whole: one field for each peer
		if g, vip := c.isVIP(p.Addr()); vip {
			bad(c, f, "is also an address of group "+g+": what the fence guards, no node can be reached by",
				"give the group an address that no host has itself")
		}
		if p.Addr().IsLoopback() {
			loopback++
		}
		if p.Addr().Is4() {
			v4++
		}
	}
	if loopback != 0 && loopback != len(cfg.Peers) {
		c.r.add(raw.peers.pos, "peers", "some are loopback addresses, which other hosts cannot reach, and some are not", "",
			"write the addresses on the network between the nodes")
	}
	if v4 != 0 && v4 != len(cfg.Peers) {
		c.r.add(raw.peers.pos, "peers", "IPv4 and IPv6 are mixed: each node sends from its one address to all others", "",
			"write all in one family; VIPs may be of both")
	}
}

// addrPort reads the address of a node.
func (c *checker) addrPort(f field[string]) (netip.AddrPort, bool) {
	if !f.ok() {
		return netip.AddrPort{}, false
	}
	const want = "must be ADDRESS:PORT"
	p, err := netip.ParseAddrPort(f.v)
	switch {
	case err != nil:
		bad(c, f, want, "write "+suggestAddrPort(f.v))
	case p.Port() == 0:
		bad(c, f, "must have a port from 1 to 65535", fmt.Sprintf("write %s", netip.AddrPortFrom(p.Addr(), DefaultPort)))
	case p.Addr().Zone() != "":
		bad(c, f, "must not be a link-local address with a zone: the zone's name means nothing on other hosts", "write a global or unique local address")
	case p.Addr().Is4In6():
		bad(c, f, "must not be an IPv4 address in IPv6 form", "write "+netip.AddrPortFrom(p.Addr().Unmap(), p.Port()).String())
	case p.Addr().IsUnspecified() || p.Addr().IsMulticast() || p.Addr() == limitedBroadcast:
		bad(c, f, "must be the address of one host", "write the one that the other nodes reach it by")
	default:
		return p, true
	}
	return netip.AddrPort{}, false
}

func suggestAddrPort(s string) string {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a, DefaultPort).String()
	}
	return fmt.Sprintf("an address, not a name, and a port, such as 10.0.0.1:%d or [fd00::1]:%d", DefaultPort, DefaultPort)
}

// hostAddresses lists the addresses of this host in the order of its devices.
func hostAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, ip.Unmap())
			}
		}
	}
	return out, nil
}

// seeAlso names the place of another value.
func seeAlso[T any](f field[T]) string {
	return fmt.Sprintf("first at line %d column %d (%s)", f.pos.line, f.pos.column, f.path)
}
