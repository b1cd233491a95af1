package config

import (
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/quorate/quorate/fsm"
)

// A rawConfig is what the file says, value by value, unchecked.
type rawConfig struct {
	cluster, node, address  field[string]
	keyFile, dataDir        field[string]
	role, election, fence   field[string]
	socket                  field[string]
	peers                   field[[]field[string]]
	lease, renew            field[time.Duration]
	logLevel, logFormat     field[string]
	tls                     state
	tlsCA, tlsCert, tlsKey  field[string]
	vips                    state
	vipsPos, tlsPos, topPos pos
	groups                  []rawGroup // in the order of the file
	checks                  []rawCheck // in the order of the file
	checksHave              state
	hooks                   rawHooks
	fifo                    field[string]
}

type rawGroup struct {
	name           string
	pos            pos
	path           string
	addresses      field[[]field[string]]
	iface          field[string]
	placement      field[string]
	preempt        field[fsm.Preempt]
	vmac           field[bool]
	announceRepeat field[int]
	refresh        field[time.Duration]
	vrrp           *rawVRRP // nil: not written
	policy         rawPolicy
}

// readRaw reads the root mapping. What cannot be read is reported and marked
// broken, so that no second error is made of it.
func readRaw(r *report, root *yaml.Node) rawConfig {
	m, ok := r.mapping(root, "", topSchema)
	if !ok {
		return rawConfig{tls: broken, vips: broken}
	}
	raw := rawConfig{
		topPos:  at(root),
		cluster: m.text("cluster"), node: m.text("node"), address: m.text("address"),
		peers: m.list("peers"), keyFile: m.text("key_file"), dataDir: m.text("data_dir"),
		role: m.text("role"), election: m.text("election"), fence: m.text("fence"), socket: m.text("socket"),
		lease: m.duration("lease"), renew: m.duration("renew"),
		tls: absent, vips: m.without("vips"),
		hooks: readHooks(m), fifo: m.text("fifo"),
	}
	raw.checks, raw.checksHave = readChecks(m)
	if l, have := m.sub("log", logSchema); have == present {
		raw.logLevel, raw.logFormat = l.text("level"), l.text("format")
	}
	t, have := m.sub("tls", tlsSchema)
	raw.tls = have
	if have == present {
		raw.tlsPos = at(m.vals["tls"])
		raw.tlsCA, raw.tlsCert, raw.tlsKey = t.text("ca"), t.text("cert"), t.text("key")
	}
	if n, ok := m.vals["vips"]; ok {
		raw.vipsPos, raw.vips = at(n), present
		entries, ok := r.entries(n, "vips")
		if !ok {
			raw.vips = broken
		}
		for _, e := range entries {
			raw.groups = append(raw.groups, readGroup(r, e))
		}
	}
	return raw
}

// sub reads the mapping at key.
func (m mapping) sub(key string, s schema) (mapping, state) {
	n, ok := m.vals[key]
	if !ok {
		return mapping{}, m.without(key)
	}
	sub, ok := m.r.mapping(n, join(m.path, key), s)
	if !ok {
		return mapping{}, broken
	}
	return sub, present
}

func readGroup(r *report, e entry) rawGroup {
	path := join("vips", e.name)
	g := rawGroup{name: e.name, pos: at(e.key), path: path}
	m, ok := r.mapping(e.value, path, groupSchema)
	if !ok {
		g.addresses.have = broken
		return g
	}
	g.addresses, g.iface, g.placement = m.list("addresses"), m.text("interface"), m.text("placement")
	g.preempt, g.vmac = read(m, "preempt", toPreempt), read(m, "vmac", toBool)
	if a, have := m.sub("announce", announceSchema); have == present {
		g.announceRepeat, g.refresh = a.integer("repeat"), a.duration("refresh")
	}
	g.policy = readPolicy(m)
	if v, have := m.sub("vrrp", vrrpSchema); have != absent {
		g.vrrp = readVRRP(v, m.vals["vrrp"], have)
	}
	return g
}
