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
	fifo, http              field[string]
}

type rawGroup struct {
	name           string
	pos            pos
	path           string
	addresses      []rawVIP
	addressesHave  state
	addressesPos   pos
	routes         []rawRoute
	rules          []rawRule
	reset          field[bool]
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
	m, ok := r.mapping(root, "", topKeys)
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
		hooks: readHooks(m), fifo: m.text("fifo"), http: m.text("http"),
	}
	raw.checks, raw.checksHave = readChecks(m)
	if l, have := m.sub("log"); have == present {
		raw.logLevel, raw.logFormat = l.text("level"), l.text("format")
	}
	t, have := m.sub("tls")
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

// sub reads the section at a key.
func (m mapping) sub(name string) (mapping, state) {
	in := m.in.find(name).in
	n, ok := m.vals[name]
	if !ok {
		return mapping{in: in}, m.without(name)
	}
	sub, ok := m.r.mapping(n, join(m.path, name), in)
	if !ok {
		return mapping{in: in}, broken
	}
	return sub, present
}

func readGroup(r *report, e entry) rawGroup {
	path := join("vips", e.name)
	g := rawGroup{name: e.name, pos: at(e.key), path: path}
	m, ok := r.mapping(e.value, path, groupKeys)
	if !ok {
		g.addressesHave = broken
		return g
	}
	g.iface, g.placement, g.reset = m.text("interface"), m.text("placement"), m.truth("reset_connections")
	g.readAddresses(m)
	g.readRoutes(m)
	g.readRules(m)
	g.preempt, g.vmac = read(m, "preempt", toPreempt, kindPreempt), m.truth("vmac")
	if a, have := m.sub("announce"); have == present {
		g.announceRepeat, g.refresh = a.integer("repeat"), a.duration("refresh")
	}
	g.policy = readPolicy(m)
	if v, have := m.sub("vrrp"); have != absent {
		g.vrrp = readVRRP(v, m.vals["vrrp"], have)
	}
	return g
}
