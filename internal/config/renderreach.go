package config

import (
	"net/netip"
	"strconv"

	"go.yaml.in/yaml/v4"

	"github.com/quorate/quorate/fsm"
)

func (w nodeWriter) addresses(g fsm.Group) {
	if len(g.Addresses) == 0 {
		return
	}
	list := textList(nil)
	for _, p := range g.Addresses {
		item := scalar("!!str", p.String())
		if s := g.Specs[p.Addr()]; s != (fsm.AddressSpec{}) {
			m := newWriter().flow()
			m.text("address", p.String(), "")
			m.text("interface", s.Interface, "")
			if s.Scope > fsm.ScopeGlobal {
				m.text("scope", s.Scope.String(), "")
			}
			m.text("label", s.Label, "")
			m.truth("noprefixroute", s.NoPrefixRoute)
			if s.Unadvertised {
				m.put("advertise", scalar("!!bool", "false"))
			}
			item = m.n
		}
		list.Content = append(list.Content, item)
	}
	w.put("addresses", list)
}

func (w nodeWriter) routes(routes []fsm.Route) {
	var items []*yaml.Node
	for _, r := range routes {
		m := newWriter().flow()
		m.text("to", r.To.String(), "")
		m.address("via", r.Via)
		m.text("interface", r.Interface, "")
		m.address("source", r.Source)
		m.number("table", r.Table)
		m.number("metric", r.Metric)
		m.truth("onlink", r.OnLink)
		items = append(items, m.n)
	}
	w.lines("routes", items)
}

func (w nodeWriter) rules(rules []fsm.Rule) {
	var items []*yaml.Node
	for _, r := range rules {
		m := newWriter().flow()
		m.network("from", r.From)
		m.network("to", r.To)
		m.text("interface", r.Interface, "")
		m.number("mark", r.Mark)
		m.number("table", r.Table)
		m.number("priority", r.Priority)
		items = append(items, m.n)
	}
	w.lines("rules", items)
}

// lines puts a list, each item on a line of its own.
func (w nodeWriter) lines(key string, items []*yaml.Node) {
	if len(items) > 0 {
		w.put(key, &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: items})
	}
}

func (w nodeWriter) address(key string, a netip.Addr) {
	if a.IsValid() {
		w.text(key, a.String(), "")
	}
}

func (w nodeWriter) network(key string, p netip.Prefix) {
	if p.IsValid() {
		w.text(key, p.String(), "")
	}
}

func (w nodeWriter) number(key string, v uint32) {
	if v != 0 {
		w.put(key, scalar("!!int", strconv.FormatUint(uint64(v), 10)))
	}
}
