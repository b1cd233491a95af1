package keepalived

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"
)

// yaml writes the document in the order and style of the examples.
func (d *document) yaml() []byte {
	var b bytes.Buffer
	for _, c := range d.comments {
		fmt.Fprintf(&b, "# %s\n", printable(c))
	}
	put := func(indent, key, value string) {
		if !strings.HasPrefix(value, "\n") {
			value = " " + value
		}
		fmt.Fprintf(&b, "%s%s:%s\n", indent, key, value)
	}
	if d.cluster != "" {
		put("", "cluster", scalar(d.cluster))
	}
	put("", "node", scalar(d.node))
	if d.mode == Raft {
		put("", "address", scalar(d.address))
		put("", "peers", flow(d.peers))
		put("", "key_file", "/etc/quorate/cluster.key")
	} else {
		put("", "election", d.mode.String())
	}
	if d.fifo != "" {
		put("", "fifo", scalar(d.fifo))
	}
	b.WriteString("\nvips:\n")
	for _, g := range d.groups {
		fmt.Fprintf(&b, "  %s:\n", scalar(g.name))
		g.yaml(func(key, value string) { put("    ", key, value) }, d.mode)
	}
	if len(d.checks) > 0 {
		b.WriteString("\nchecks:\n")
	}
	for _, c := range d.checks {
		fmt.Fprintf(&b, "  %s:\n", scalar(c.name))
		c.yaml(func(key, value string) { put("    ", key, value) })
	}
	return b.Bytes()
}

func (g *group) yaml(put func(key, value string), mode Mode) {
	put("addresses", g.addressesYAML())
	if g.iface != "" {
		put("interface", scalar(g.iface))
	}
	if mode == Raft {
		put("placement", "priority")
		put("priority", byNode(g.priority))
	}
	put("preempt", g.preempt)
	if len(g.together) > 0 {
		put("together", flow(g.together))
	}
	if len(g.checks) > 0 {
		put("checks", flow(g.checks))
	}
	if len(g.tracks) > 0 {
		put("track_interfaces", tracksYAML(g.tracks))
	}
	var announce []string
	if g.repeat != nil {
		announce = append(announce, fmt.Sprintf("repeat: %d", *g.repeat))
	}
	if g.refresh != nil {
		announce = append(announce, "refresh: "+duration(time.Duration(*g.refresh)*time.Second))
	}
	if len(announce) > 0 {
		put("announce", "{"+strings.Join(announce, ", ")+"}")
	}
	if g.vmac && g.vrrp != nil {
		put("vmac", "true")
	}
	if g.vrrp != nil {
		put("vrrp", g.vrrp.yaml())
	}
	list := func(key string, items []string) {
		if len(items) > 0 {
			put(key, "\n      - "+strings.Join(items, "\n      - "))
		}
	}
	var routes, rules []string
	for _, r := range g.routes {
		routes = append(routes, r.yaml())
	}
	for _, r := range g.rules {
		rules = append(rules, r.yaml())
	}
	list("routes", routes)
	list("rules", rules)
	if g.hooks.any() {
		put("hooks", "\n"+g.hooks.yaml())
	}
}

func (g *group) addressesYAML() string {
	var out []string
	for _, p := range g.addresses {
		s := g.specs[p.Addr()]
		s.unadvertised = s.unadvertised && g.vrrp != nil
		if s == (spec{}) {
			out = append(out, scalar(p.String()))
			continue
		}
		item := "{address: " + scalar(p.String())
		if s.iface != "" {
			item += ", interface: " + scalar(s.iface)
		}
		if s.scope != "" {
			item += ", scope: " + s.scope
		}
		if s.label != "" {
			item += ", label: " + scalar(s.label)
		}
		if s.noPrefixRoute {
			item += ", noprefixroute: true"
		}
		if s.unadvertised {
			item += ", advertise: false"
		}
		out = append(out, item+"}")
	}
	return "[" + strings.Join(out, ", ") + "]"
}

func (h hooks) yaml() string {
	var out []string
	add := func(key string, argv []string) {
		if len(argv) > 0 {
			out = append(out, fmt.Sprintf("      %s: %s", key, flow(argv)))
		}
	}
	add("active", h.active)
	add("backup", h.backup)
	add("fault", h.fault)
	return strings.Join(out, "\n")
}

func (v *vrrp) yaml() string {
	out := []string{fmt.Sprintf("id: %d", v.id), fmt.Sprintf("version: %d", v.version)}
	if len(v.priority) > 0 {
		out = append(out, "priority: "+byNode(v.priority))
	}
	out = append(out, "interval: "+duration(v.interval))
	if v.plain && v.version == 3 {
		out = append(out, "checksum: plain")
	}
	if v.password != "" {
		out = append(out, "password: "+scalar(v.password))
	}
	var peers []string
	for _, p := range v.unicast {
		s := scalar(p.addr.String())
		if p.minTTL+p.maxTTL > 0 {
			s = "{address: " + s
			if p.minTTL > 0 {
				s += fmt.Sprintf(", min_ttl: %d", p.minTTL)
			}
			if p.maxTTL > 0 {
				s += fmt.Sprintf(", max_ttl: %d", p.maxTTL)
			}
			s += "}"
		}
		peers = append(peers, s)
	}
	if len(peers) > 0 {
		out = append(out, "unicast: ["+strings.Join(peers, ", ")+"]")
	}
	return "{" + strings.Join(out, ", ") + "}"
}

func (c *check) yaml(put func(key, value string)) {
	switch {
	case c.user != "":
		put("command", "{argv: "+flow(c.command)+", user: "+scalar(c.user)+"}")
	case c.command != nil:
		put("command", flow(c.command))
	case c.tcp != "":
		put("tcp", scalar(c.tcp))
	case c.process != "":
		put("process", scalar(c.process))
	default:
		put("file", "{path: "+scalar(c.file)+", match: "+scalar(c.match)+"}")
	}
	put("interval", duration(c.interval))
	put("timeout", duration(c.timeout))
	put("rise", fmt.Sprint(c.rise))
	put("fall", fmt.Sprint(c.fall))
	if c.weight != 0 {
		put("weight", fmt.Sprint(c.weight))
	}
}

func tracksYAML(all []track) string {
	var out []string
	for _, t := range all {
		if t.weight == 0 {
			out = append(out, scalar(t.name))
		} else {
			out = append(out, fmt.Sprintf("{name: %s, weight: %d}", scalar(t.name), t.weight))
		}
	}
	return "[" + strings.Join(out, ", ") + "]"
}

func byNode(all []nodePriority) string {
	var out []string
	for _, p := range all {
		out = append(out, fmt.Sprintf("%s: %d", scalar(p.node), p.priority))
	}
	return "{" + strings.Join(out, ", ") + "}"
}

func flow(all []string) string {
	var out []string
	for _, s := range all {
		out = append(out, scalar(s))
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// plainScalar are texts that no YAML reader takes for anything but a text, alone or in
// a flow list.
var plainScalar = regexp.MustCompile(`^[A-Za-z/_][A-Za-z0-9/_.=+-]*$`)

// words that YAML 1.1 or 1.2 takes for a truth or for nothing.
var yamlWords = map[string]bool{"true": true, "false": true, "yes": true, "no": true, "on": true, "off": true, "null": true, "y": true, "n": true}

// scalar writes a text as a YAML scalar.
func scalar(s string) string {
	if plainScalar.MatchString(s) && !yamlWords[strings.ToLower(s)] {
		return s
	}
	if _, err := netip.ParsePrefix(s); err == nil && !strings.Contains(s, ":") {
		return s
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
		return s
	}
	if a, err := netip.ParseAddrPort(s); err == nil && a.Addr().Is4() {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic("keepalived: a text that is no JSON: " + err.Error())
	}
	return strings.TrimSpace(b.String())
}
