package config

import (
	"fmt"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

// An Election is who decides which node owns a group.
type Election uint8

const (
	_         Election = iota
	ElectRaft          // a cluster that agrees, and a lease that guards it
	ElectVRRP          // VRRP alone: two routers that do not hear each other both answer
)

// String is the election's word in the configuration file.
func (e Election) String() string {
	switch e {
	case ElectRaft:
		return "raft"
	case ElectVRRP:
		return "vrrp"
	}
	return fmt.Sprintf("election(%d)", uint8(e))
}

// plain reports whether the node is a VRRP router of its own.
func (c *checker) plain() bool { return c.cfg.Election == ElectVRRP }

// cluster refuses a key that has a meaning in a cluster only.
func (c *checker) cluster(at pos, path, why string) {
	c.r.add(at, path, "is not for election: vrrp: "+why, "", "remove the key, or write election: raft")
}

// withoutCluster checks what is left where VRRP elects: the groups. What belongs to a
// cluster is refused, since a key without effect would promise something.
func (c *checker) withoutCluster(raw rawConfig) {
	refuse := func(have state, at pos, path, why string) {
		if have == present {
			c.cluster(at, path, why)
		}
	}
	text := func(f field[string], why string) { refuse(f.have, f.pos, f.path, why) }
	refuse(raw.peers.have, raw.peers.pos, raw.peers.path, "routers find each other by their adverts")
	text(raw.address, "nothing is listened on but VRRP")
	text(raw.keyFile, "VRRP encrypts nothing and knows nobody")
	refuse(raw.tls, raw.tlsPos, "tls", "VRRP encrypts nothing and knows nobody")
	text(raw.dataDir, "no votes are kept")
	text(raw.role, "there is no vote, so there is no witness")
	refuse(raw.lease.have, raw.lease.pos, raw.lease.path, "nobody confirms a lease, so nothing keeps two routers from answering at once")
	refuse(raw.renew.have, raw.renew.pos, raw.renew.path, "there is no lease to renew")
	text(raw.fence, "there is no lease that a fence could keep")
	c.cfg.Role = fsm.Member
	c.cfg.Document.MaxHold = minMaxHold // a document must have one
	c.replicated(raw)
	c.http(raw)
}

// modeOf checks the keys of a group whose meaning depends on who elects.
func (c *checker) modeOf(raw rawGroup, out *fsm.Group) {
	if !c.plain() {
		return // preempt is said with the placement (placement.go)
	}
	out.Preempt = fsm.Preempt{Yes: true} // as RFC 9568 (6.1) has it
	if raw.preempt.ok() && c.delay(raw.preempt) {
		out.Preempt = raw.preempt.v
	}
	if raw.vrrp == nil && raw.addressesHave != broken { // a group that could not be read has its error
		c.missing(raw.pos, raw.path+".vrrp", "write vrrp: {id: …}: with election: vrrp nothing else decides who has the group")
	}
}

// priority is what this node's adverts say.
func (c *checker) priority(raw *rawVRRP) uint8 {
	if !c.plain() {
		return c.clusterPriority(raw)
	}
	if raw.mapped == present {
		return c.priorityByNode(raw)
	}
	if f := raw.priority; f.ok() {
		return c.ownPriority(f, fmt.Sprintf("write one, or leave the key out for %d", vrrpcompat.Default))
	}
	return uint8(vrrpcompat.Default)
}

func (c *checker) clusterPriority(raw *rawVRRP) uint8 {
	do := fmt.Sprintf("leave the key out for %d, above every backup", DefaultPriority)
	switch f := raw.priority; {
	case raw.mapped == present:
		c.r.add(f.pos, f.path, "must be one number: whichever node holds the group, to outside routers the cluster is one router", "",
			do+"; which node is to hold the group is said beside vrrp, by placement: priority and priority: {n1: 150, n2: 100}")
	case f.ok() && f.v == int(vrrpcompat.Owner):
		bad(c, f, "must be 1 to 254: 255 belongs to a router that has the address as its own (RFC 9568, section 5.2.4), and nothing could outrank it", do)
	case f.ok() && !f.key.fits(int64(f.v)):
		bad(c, f, f.key.within(), do)
	case f.ok():
		return uint8(f.v)
	}
	return DefaultPriority
}

func (c *checker) ownPriority(f field[int], do string) uint8 {
	if f.v < 1 || f.v > 255 {
		bad(c, f, "must be 1 to 255, where 255 is for the router whose addresses these are", do)
		return uint8(vrrpcompat.Default)
	}
	return uint8(f.v)
}

// priorityByNode takes this node's from the mapping. A node that is not in it would be
// elected by a number that nobody wrote.
func (c *checker) priorityByNode(raw *rawVRRP) uint8 {
	own, found := uint8(vrrpcompat.Default), false
	by := map[int]string{}
	for _, p := range raw.byNode {
		if text, do := checkName(p.node, "."); text != "" {
			c.r.add(p.pos, p.priority.path, "the name of a node "+text, "", do)
		}
		if p.node == c.cfg.Node {
			found = true
		}
		if !p.priority.ok() {
			continue
		}
		v := c.ownPriority(p.priority, "write one for each node")
		if other, dup := by[p.priority.v]; dup {
			c.warn(p.pos, p.priority.path, fmt.Sprintf("nodes %s and %s have the same priority: the higher address decides between them", other, p.node), "give each its own")
		}
		by[p.priority.v] = p.node
		if p.node == c.cfg.Node {
			own = v
		}
	}
	if !found && c.cfg.Node != "" {
		c.r.add(raw.priority.pos, raw.priority.path, "does not name this node, "+c.cfg.Node, "",
			"add "+c.cfg.Node+" with its priority, or write node: with one of those that are there")
	}
	return own
}
