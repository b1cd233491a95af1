package config

import (
	"fmt"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/quorate/quorate/fsm"
)

type rawVRRP struct {
	have      state // present, or broken
	pos       pos
	path      string
	id        field[int]
	version   field[string]
	priority  field[int]
	byNode    []rawNodePriority // if priority is a mapping
	mapped    state             // of the mapping; absent: priority is a number or not there
	interval  field[time.Duration]
	checksum  field[string]
	password  field[string]
	unicast   state
	peersPos  pos
	peers     []rawPeer
	outranked field[string]
}

// A rawNodePriority is one line of a mapping of priorities by node.
type rawNodePriority struct {
	node     string
	pos      pos
	priority field[int]
}

// A rawPeer is a unicast peer: its address alone, or with the TTLs.
type rawPeer struct {
	pos            pos
	path           string
	address        field[string]
	minTTL, maxTTL field[int]
}

func readVRRP(m mapping, n *yaml.Node, have state) *rawVRRP {
	v := &rawVRRP{have: have}
	if have != present {
		return v
	}
	v.pos, v.path = at(n), m.path
	v.id, v.version = m.integer("id"), read(m, "version", toWord, kindWord)
	v.interval, v.checksum = m.duration("interval"), m.text("checksum")
	v.password, v.outranked = read(m, "password", toSecret, kindSecret), m.text("outranked")
	v.readPriority(m)
	v.readPeers(m)
	return v
}

func (v *rawVRRP) readPriority(m mapping) {
	n, ok := m.vals["priority"]
	if !ok || n.Kind != yaml.MappingNode {
		v.priority, v.mapped = m.integer("priority"), absent
		return
	}
	path := join(m.path, "priority")
	v.priority = field[int]{have: broken, pos: at(n), path: path}
	v.mapped = present
	entries, _ := m.r.entries(n, path)
	for _, e := range entries {
		v.byNode = append(v.byNode, rawNodePriority{e.name, at(e.key), readNode(m.r, e.value, join(path, e.name), m.in.find("priority"), toInt)})
	}
}

func (v *rawVRRP) readPeers(m mapping) {
	items, where, have := m.items("unicast", "write [10.0.0.2, 10.0.0.3]")
	v.unicast, v.peersPos = have, where
	for i, item := range items {
		p := rawPeer{pos: at(item), path: fmt.Sprintf("%s.unicast[%d]", m.path, i)}
		if item.Kind != yaml.MappingNode {
			p.address, p.minTTL, p.maxTTL = m.item("unicast", item, p.path), none[int](), none[int]()
		} else if sub, ok := m.r.mapping(item, p.path, peerKeys); ok {
			p.address, p.minTTL, p.maxTTL = sub.text("address"), sub.integer("min_ttl"), sub.integer("max_ttl")
		}
		v.peers = append(v.peers, p)
	}
}

// toWord takes a number for the word that it is written as.
func toWord(n *yaml.Node) (string, string, string) {
	if isScalar(n, "!!int") || isScalar(n, "!!str") {
		return n.Value, "", ""
	}
	return "", "a number or a word", "write it without quotes"
}

// toSecret takes any scalar as it is written, so that no message shows it.
func toSecret(n *yaml.Node) (string, string, string) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
		return n.Value, "", ""
	}
	return "", "text", "write it in quotes"
}

func toBool(n *yaml.Node) (bool, string, string) {
	if isScalar(n, "!!bool") { // a tag that is written may stand before anything
		switch strings.ToLower(n.Value) {
		case "true":
			return true, "", ""
		case "false":
			return false, "", ""
		}
	}
	return false, "true or false", "write true or false, without quotes"
}

func toPreempt(n *yaml.Node) (fsm.Preempt, string, string) {
	if yes, want, _ := toBool(n); want == "" {
		return fsm.Preempt{Yes: yes}, "", ""
	}
	const do = "write true, false, or how long to wait, such as 30s"
	if d, want, _ := toDuration(n); want == "" && d >= 0 {
		return fsm.Preempt{Yes: true, Delay: d}, "", ""
	}
	return fsm.Preempt{}, "true, false or a duration with its unit, not negative", do
}
