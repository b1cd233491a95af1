package config

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A rawVIP is an address of a group: alone, or with how it stands on a host.
type rawVIP struct {
	pos           pos
	path          string
	address       field[string]
	iface         field[string]
	scope         field[string]
	label         field[string]
	noPrefixRoute field[bool]
	advertise     field[bool]
}

type rawRoute struct {
	pos                    pos
	path                   string
	to, via, iface, source field[string]
	table, metric          field[uint32]
	onLink                 field[bool]
}

type rawRule struct {
	pos                   pos
	path                  string
	from, to, iface       field[string]
	mark, table, priority field[uint32]
}

func (g *rawGroup) readAddresses(m mapping) {
	items, where, have := m.items("addresses", "write [10.0.0.200/24]")
	g.addressesPos, g.addressesHave = where, have
	for i, n := range items {
		v := rawVIP{pos: at(n), path: fmt.Sprintf("%s.addresses[%d]", m.path, i)}
		if n.Kind != yaml.MappingNode {
			v.address = m.item("addresses", n, v.path)
			v.iface, v.scope, v.label, v.noPrefixRoute, v.advertise = none[string](), none[string](), none[string](), none[bool](), none[bool]()
		} else if sub, ok := m.r.mapping(n, v.path, addressKeys); ok {
			v.address, v.iface, v.scope = sub.text("address"), sub.text("interface"), sub.text("scope")
			v.label, v.noPrefixRoute = sub.text("label"), sub.truth("noprefixroute")
			v.advertise = sub.truth("advertise")
		}
		g.addresses = append(g.addresses, v)
	}
}

func (g *rawGroup) readRoutes(m mapping) {
	items, _, _ := m.items("routes", "write [{to: 192.0.2.0/24, via: 10.0.0.254}]")
	for i, n := range items {
		path := fmt.Sprintf("%s.routes[%d]", m.path, i)
		if sub, ok := m.r.mapping(n, path, routeKeys); ok {
			g.routes = append(g.routes, rawRoute{
				pos: at(n), path: path, to: sub.text("to"), via: sub.text("via"), iface: sub.text("interface"), source: sub.text("source"),
				table: read(sub, "table", toTable, kindUint32), metric: sub.number("metric"), onLink: sub.truth("onlink"),
			})
		}
	}
}

func (g *rawGroup) readRules(m mapping) {
	items, _, _ := m.items("rules", "write [{from: 10.0.0.200/32, table: 100}]")
	for i, n := range items {
		path := fmt.Sprintf("%s.rules[%d]", m.path, i)
		if sub, ok := m.r.mapping(n, path, ruleKeys); ok {
			g.rules = append(g.rules, rawRule{
				pos: at(n), path: path, from: sub.text("from"), to: sub.text("to"), iface: sub.text("interface"),
				mark: read(sub, "mark", toMark, kindMark), table: read(sub, "table", toTable, kindUint32), priority: sub.number("priority"),
			})
		}
	}
}

// none is a field of a key that is not there.
func none[T any]() field[T] { return field[T]{have: absent} }

// toUint32 takes what the kernel counts tables, metrics and priorities in.
func toUint32(n *yaml.Node) (uint32, string, string) {
	if isScalar(n, "!!int") && (n.Value == "0" || !strings.HasPrefix(n.Value, "0")) {
		if v, err := strconv.ParseUint(n.Value, 10, 32); err == nil {
			return uint32(v), "", ""
		}
	}
	return 0, "a whole number, 0 to 4294967295", "write digits only, without quotes and without a leading zero"
}

// toTable takes no name: those of tables are each host's own.
func toTable(n *yaml.Node) (uint32, string, string) {
	v, want, _ := toUint32(n)
	return v, want, "write its number, without quotes and without a leading zero; that of main is 254"
}

// toMark takes hexadecimal too: marks are sets of bits.
func toMark(n *yaml.Node) (uint32, string, string) {
	if hex, ok := strings.CutPrefix(strings.ToLower(n.Value), "0x"); ok && isScalar(n, "!!int") {
		if v, err := strconv.ParseUint(hex, 16, 32); err == nil {
			return uint32(v), "", ""
		}
	}
	v, want, _ := toUint32(n)
	return v, want, "write one such as 100 or 0x64, without quotes"
}
