package config

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/quorate/quorate/fsm"
)

// RenderDocument is the document as ParseDocument reads it, without what is default:
// reading it back gives an equal document, but for the revision and the bound on leases, which no key
// says. The passwords of VRRP are in it.
func RenderDocument(doc fsm.Document) []byte {
	top := newWriter()
	vips := newWriter()
	for _, g := range doc.Groups {
		vips.put(g.Name, groupNode(g))
	}
	top.put("vips", vips.n)
	checks := newWriter()
	for _, k := range doc.Checks {
		checks.put(k.Name, checkNode(k))
	}
	top.section("checks", checks)
	top.hooks(doc.Hooks)
	var b bytes.Buffer
	e, err := yaml.NewDumper(&b, yaml.WithV4Defaults(), yaml.WithLineWidth(-1))
	if err == nil {
		err = e.Dump(top.n)
	}
	if err == nil {
		err = e.Close()
	}
	if err != nil { // a tree of mappings, lists and texts, written to memory
		panic(fmt.Sprintf("render a document: %v", err))
	}
	return b.Bytes()
}

// A nodeWriter builds a mapping of YAML.
type nodeWriter struct{ n *yaml.Node }

func newWriter() nodeWriter { return nodeWriter{&yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}} }

func scalar(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}

func (w nodeWriter) put(key string, v *yaml.Node) {
	w.n.Content = append(w.n.Content, scalar("!!str", key), v)
}

func (w nodeWriter) empty() bool { return len(w.n.Content) == 0 }

// section puts a mapping that has something in it.
func (w nodeWriter) section(key string, s nodeWriter) {
	if !s.empty() {
		w.put(key, s.n)
	}
}

// flow has the mapping stand on one line.
func (w nodeWriter) flow() nodeWriter {
	w.n.Style = yaml.FlowStyle
	return w
}

func (w nodeWriter) text(key, v, def string) {
	if v != def {
		w.put(key, scalar("!!str", v))
	}
}

func (w nodeWriter) integer(key string, v, def int) {
	if v != def {
		w.put(key, scalar("!!int", strconv.Itoa(v)))
	}
}

func (w nodeWriter) duration(key string, v, def time.Duration) {
	if v != def {
		w.put(key, scalar("!!str", short(v)))
	}
}

func (w nodeWriter) truth(key string, v bool) {
	if v {
		w.put(key, scalar("!!bool", "true"))
	}
}

func (w nodeWriter) texts(key string, v []string) {
	if len(v) > 0 {
		w.put(key, textList(v))
	}
}

func textList(v []string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
	for _, s := range v {
		n.Content = append(n.Content, scalar("!!str", s))
	}
	return n
}

func (w nodeWriter) hooks(h fsm.Hooks) {
	if !h.Any() {
		return
	}
	s := newWriter()
	s.texts("active", h.Active)
	s.texts("backup", h.Backup)
	s.texts("fault", h.Fault)
	s.duration("timeout", h.Timeout, DefaultHookTimeout)
	w.put("hooks", s.n)
}

func groupNode(g fsm.Group) *yaml.Node {
	w := newWriter()
	w.addresses(g)
	w.text("interface", g.Interface, "")
	if g.Placement > fsm.PlacementLeader {
		w.text("placement", g.Placement.String(), "")
	}
	if len(g.Priority) > 0 {
		p := newWriter().flow()
		for _, name := range slices.Sorted(maps.Keys(g.Priority)) {
			p.integer(name, int(g.Priority[name]), -1)
		}
		w.put("priority", p.n)
	}
	if g.Preempt.Yes && g.Preempt.Delay > 0 {
		w.duration("preempt", g.Preempt.Delay, 0)
	} else {
		w.truth("preempt", g.Preempt.Yes)
	}
	w.integer("weight", max(g.Weight, 1), 1)
	w.texts("apart", g.Apart)
	w.texts("together", g.Together)
	w.texts("checks", g.Checks)
	w.tracks(g.TrackInterfaces)
	if g.WhenAllFail > fsm.AllFailKeep {
		w.text("when_all_fail", g.WhenAllFail.String(), "")
	}
	if g.OnQuorumLoss > fsm.QuorumLossRelease {
		w.text("on_quorum_loss", g.OnQuorumLoss.String(), "")
	}
	w.hooks(g.Hooks)
	w.routes(g.Routes)
	w.rules(g.Rules)
	if g.KeepConnections {
		w.put("reset_connections", scalar("!!bool", "false"))
	}
	a := newWriter().flow()
	a.integer("repeat", g.Announce.Repeat, DefaultRepeat)
	a.duration("refresh", g.Announce.Refresh, DefaultRefresh)
	w.section("announce", a)
	w.truth("vmac", g.VMAC)
	if g.VRRP.ID != 0 {
		w.put("vrrp", vrrpNode(g.VRRP))
	}
	return w.n
}

func (w nodeWriter) tracks(tracks []fsm.Track) {
	if len(tracks) == 0 {
		return
	}
	list := textList(nil)
	for _, t := range tracks {
		item := scalar("!!str", t.Interface)
		if t.Weight != 0 {
			m := newWriter().flow()
			m.text("name", t.Interface, "")
			m.integer("weight", t.Weight, 0)
			item = m.n
		}
		list.Content = append(list.Content, item)
	}
	w.put("track_interfaces", list)
}

func vrrpNode(v fsm.VRRP) *yaml.Node {
	w := newWriter()
	w.integer("id", int(v.ID), 0)
	if v.AlsoV2 {
		w.text("version", bothVersions, "")
	} else {
		w.integer("version", int(v.Version), 3)
	}
	w.integer("priority", int(v.Priority), DefaultPriority)
	w.duration("interval", v.Interval, DefaultInterval)
	w.text("checksum", v.Checksum.String(), fsm.ChecksumAuto.String())
	w.text("password", v.Password, "")
	if len(v.Unicast) > 0 {
		list := textList(nil)
		for _, p := range v.Unicast {
			list.Content = append(list.Content, peerNode(p))
		}
		w.put("unicast", list)
	}
	w.text("outranked", v.Outranked.String(), fsm.OutrankedYield.String())
	return w.n
}

func peerNode(p fsm.Peer) *yaml.Node {
	if p.MinTTL == 1 && p.MaxTTL == 255 {
		return scalar("!!str", p.Addr.String())
	}
	m := newWriter().flow()
	m.text("address", p.Addr.String(), "")
	m.integer("min_ttl", int(p.MinTTL), 1)
	m.integer("max_ttl", int(p.MaxTTL), 255)
	return m.n
}

func checkNode(k fsm.Check) *yaml.Node {
	w := newWriter()
	if k.HTTP != nil {
		w.put("http", httpNode(*k.HTTP))
	}
	w.text("tcp", k.TCP, "")
	w.text("icmp", k.ICMP, "")
	if c := k.Command; c != nil && c.User == "" {
		w.put("command", textList(c.Argv))
	} else if c != nil {
		m := newWriter()
		m.texts("argv", c.Argv)
		m.text("user", c.User, "")
		w.put("command", m.n)
	}
	w.text("process", k.Process, "")
	if f := k.File; f != nil && f.Match == "" {
		w.text("file", f.Path, "")
	} else if f != nil {
		m := newWriter()
		m.text("path", f.Path, "")
		m.text("match", f.Match, "")
		w.put("file", m.n)
	}
	w.text("systemd", k.Systemd, "")
	w.duration("interval", k.Interval, DefaultCheckInterval)
	w.duration("timeout", k.Timeout, defaultCheckTimeout(k.Interval))
	w.integer("rise", k.Rise, DefaultCheckRise)
	w.integer("fall", k.Fall, DefaultCheckFall)
	w.integer("weight", k.Weight, 0)
	return w.n
}

func httpNode(h fsm.HTTPCheck) *yaml.Node {
	m := newWriter()
	m.text("url", h.URL, "")
	m.text("host", h.Host, "")
	switch {
	case h.StatusMin == h.StatusMax:
		m.integer("status", h.StatusMin, 0)
	case h.StatusMin != DefaultStatusMin || h.StatusMax != DefaultStatusMax:
		list := textList(nil)
		list.Content = append(list.Content, scalar("!!int", strconv.Itoa(h.StatusMin)), scalar("!!int", strconv.Itoa(h.StatusMax)))
		m.put("status", list)
	}
	m.text("match", h.Match, "")
	m.text("ca", h.CA, "")
	m.truth("insecure", h.Insecure)
	if len(m.n.Content) == 2 { // the URL alone
		return m.n.Content[1]
	}
	return m.n
}
