package core

import (
	"net/netip"
	"slices"

	"github.com/quorate/quorate/fsm"
)

// holding is what the group has, or is to have, with these of its addresses.
func (g *group) holding(at []Place) Holding {
	return Holding{At: at, Routes: g.with.Routes, Rules: g.with.Rules}
}

// without is the holding with what is not in the other.
func (h Holding) without(o Holding) Holding {
	return Holding{At: minus(h.At, o.At), Routes: minus(h.Routes, o.Routes), Rules: minus(h.Rules, o.Rules)}
}

// and is both holdings.
func (h Holding) and(o Holding) Holding {
	return Holding{At: slices.Concat(h.At, o.At), Routes: slices.Concat(h.Routes, o.Routes), Rules: slices.Concat(h.Rules, o.Rules)}
}

// Empty reports whether there is nothing in it.
func (h Holding) Empty() bool { return len(h.At) == 0 && len(h.Routes) == 0 && len(h.Rules) == 0 }

// wanted are the routes and rules that go with these addresses of the group. A route whose
// source is an address of the group can be put in only when that is there.
func (g *group) wanted(at []Place) Holding {
	h := Holding{Rules: g.def.Rules}
	there, ours := addrsOf(at), g.def.Addrs()
	for _, r := range g.def.Routes {
		if !slices.Contains(ours, r.Source) || slices.Contains(there, r.Source) {
			h.Routes = append(h.Routes, r)
		}
	}
	return h
}

// accompany has the routes and rules of an open group be those of the document. Those
// that it has no longer are taken out with the next Refresh, which is due if it reports true.
func (c *Core) accompany(g *group, at []Place) bool {
	want := g.wanted(at)
	if slices.Equal(want.Routes, g.with.Routes) && slices.Equal(want.Rules, g.with.Rules) {
		return false
	}
	g.dropped = g.dropped.and(c.unclaimed(g, g.with.without(want))).without(want)
	g.with = want
	return true
}

// unclaimed is what no other group here has by now: a route or rule may pass from group
// to group.
func (c *Core) unclaimed(g *group, h Holding) Holding {
	for _, o := range c.groups {
		if o != g && o.open() {
			h = h.without(Holding{Routes: o.def.Routes, Rules: o.def.Rules})
		}
	}
	return h
}

// PlaceOf is an address of the group on a device, as the document says that it stands.
func PlaceOf(def fsm.Group, link string, p netip.Prefix) Place {
	return Place{Link: link, Prefix: p, Spec: def.Standing(p.Addr())}
}

// Advertised are those of the places that VRRP adverts list.
func Advertised(def fsm.Group, at []Place) []Place {
	if len(def.Specs) == 0 {
		return at
	}
	return slices.DeleteFunc(slices.Clone(at), func(p Place) bool { return def.Specs[p.Prefix.Addr()].Unadvertised })
}

// leftAlong are the routes and rules of all documents that are remembered, but for those
// of groups that go on with what an earlier life left.
func (c *Core) leftAlong() (routes []fsm.Route, rules []fsm.Rule) {
	var kept Holding
	for _, def := range c.state.Document.Groups {
		if len(c.heritage.heirs[def.Name]) > 0 {
			kept.Routes, kept.Rules = append(kept.Routes, def.Routes...), append(kept.Rules, def.Rules...)
		}
	}
	docs := []fsm.Document{c.state.Document}
	for _, r := range c.state.Revisions {
		docs = append(docs, r.Document)
	}
	var all Holding
	for _, d := range docs {
		for _, g := range d.Groups {
			all.Routes, all.Rules = append(all.Routes, minus(g.Routes, all.Routes)...), append(all.Rules, minus(g.Rules, all.Rules)...)
		}
	}
	all = all.without(kept)
	return all.Routes, all.Rules
}
