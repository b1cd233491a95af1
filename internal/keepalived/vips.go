package keepalived

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A vip is one line of virtual_ipaddress.
type vip struct {
	prefix netip.Prefix
	dev    string // empty: the instance's
	spec   spec
	at     pos
}

// A spec is how an address stands on a host, where that is not as usual.
type spec struct {
	scope         string // empty: global
	label         string
	noPrefixRoute bool
	iface         string // empty: the group's
	unadvertised  bool   // by adverts, where the group has any
}

// scopes are the words for the scopes of addresses, and the numbers that the kernel and
// rt_scopes(5) have for them.
var scopes = map[string]string{"global": "", "0": "", "universe": "", "site": "site", "200": "site", "link": "link", "253": "link", "host": "host", "254": "host"}

// vipOptions say of each option of an address how many words follow it, and what
// becomes of it.
var vipOptions = map[string]struct {
	words int
	class Class
	text  string
}{
	"brd":           {1, NotApplicable, "no broadcast address is set: that of the network's own addresses serves"},
	"broadcast":     {1, NotApplicable, "no broadcast address is set: that of the network's own addresses serves"},
	"dev":           {1, Carried, "interface"},
	"use_vmac":      {0, Lost, "vmac is of a whole group; choose: vmac: true there"},
	"scope":         {1, Carried, "scope"},
	"label":         {1, Carried, "label"},
	"peer":          {1, Lost, "there are no point-to-point addresses"},
	"home":          {0, NotApplicable, "no such flag is set"},
	"-nodad":        {0, NotApplicable, "addresses are put on without waiting for duplicate detection, always"},
	"nodad":         {0, NotApplicable, "addresses are put on without waiting for duplicate detection, always"},
	"mngtmpaddr":    {0, NotApplicable, "no temporary addresses are made of it"},
	"noprefixroute": {0, Carried, "noprefixroute"},
	"autojoin":      {0, Lost, "no such flag is set"},
	"no_track":      {0, NotApplicable, "an address that is removed by somebody else is put back"},
	"preferred_lft": {1, NotApplicable, "the kernel is told a lifetime by the fence"},
}

func (n *node) readVIPs(s *statement) []vip {
	var out []vip
	for _, e := range s.block {
		if v, ok := n.readVIP(e); ok {
			out = append(out, v)
		}
	}
	n.empty(s)
	return out
}

// empty says of a block without lines that it is without effect.
func (n *node) empty(s *statement) {
	if len(s.block) == 0 {
		n.say(s, NotApplicable, "an empty list")
	}
}

func (n *node) readVIP(e *statement) (vip, bool) {
	v := vip{at: e.at}
	text := e.keyword()
	p, err := netip.ParsePrefix(text)
	bare := false
	if a, errAddr := netip.ParseAddr(text); err != nil && errAddr == nil && a.Zone() == "" {
		p, err, bare = netip.PrefixFrom(a, a.BitLen()), nil, true
	}
	if err != nil {
		n.say(e, Lost, "not an address; keepalived ignores the line too")
		return v, false
	}
	if why := unusableAddress(p); why != "" {
		n.say(e, Lost, why)
		return v, false
	}
	v.prefix = p
	said := n.vipOptions(e, &v)
	if !said {
		return v, false
	}
	if bare {
		n.report.add(e.at, Trap, e.keyword(), fmt.Sprintf("no prefix length, so keepalived takes /%d; it is written so; the length of its network, such as /%d, is usual here", p.Bits(), usualBits(p.Addr())))
	}
	n.carried(e, "addresses: "+p.String())
	return v, true
}

// vipOptions reads what follows an address; not ok means that the address is of no
// use without it.
func (n *node) vipOptions(e *statement, v *vip) bool {
	for i := 1; i < len(e.words); i++ {
		name := e.words[i].text
		o, known := vipOptions[name]
		if !known {
			text := "not an option of an address; keepalived ignores it"
			if _, err := netip.ParsePrefix(name); err == nil || looksLikeAddress(name) {
				text = "keepalived reads one address from a line, and this is the second; write it on its own"
			}
			n.report.add(e.at, Lost, name, text)
			continue
		}
		arg := ""
		if o.words > 0 && i+1 < len(e.words) {
			i++
			arg = e.words[i].text
		}
		if name != "dev" {
			class, text := v.spec.take(name, arg, v.prefix.Addr().Is4(), o.class, o.text)
			if v.spec.label == "" || name != "label" { // of a label that is said when its device is known (place)
				n.report.add(e.at, class, strings.TrimSpace(name+" "+arg), text)
			}
			continue
		}
		if why := unusableDevice(arg); why != "" {
			n.say(e, Lost, why)
			return false
		}
		v.dev = arg
	}
	return true
}

// take notes an option of how an address stands, and says what becomes of it; of others it
// says what the table has.
func (s *spec) take(name, arg string, v4 bool, class Class, text string) (Class, string) {
	switch name {
	case "scope":
		scope, known := scopes[arg]
		switch {
		case !v4:
			return NotApplicable, "the kernel gives an IPv6 address the scope that its number says"
		case !known:
			return Lost, "not a scope that every host knows; choose: global, site, link or host"
		}
		s.scope = scope
	case "label":
		if !v4 {
			return NotApplicable, "the kernel keeps no label of an IPv6 address"
		}
		s.label = arg
	case "noprefixroute":
		s.noPrefixRoute = true
	}
	return class, text
}

// place adds addresses to a group, with how they stand on its device.
func (t *translation) place(g *group, all []vip) {
	for _, v := range all {
		g.addresses = append(g.addresses, v.prefix)
		s := v.spec
		if why := unusableLabel(s.label, cmp.Or(s.iface, g.iface)); why != "" {
			t.report.add(v.at, Lost, "label "+s.label, why)
			s.label = ""
		} else if s.label != "" {
			t.report.add(v.at, Carried, "label "+s.label, "label")
		}
		if s == (spec{}) {
			continue
		}
		if g.specs == nil {
			g.specs = map[netip.Addr]spec{}
		}
		g.specs[v.prefix.Addr()] = s
	}
}

// unusableLabel says why an address cannot have a label, by the rules of label: in the
// configuration file.
func unusableLabel(label, device string) string {
	named, text, has := strings.Cut(label, ":")
	odd := strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' })
	switch {
	case label == "":
		return ""
	case device == "":
		return "the device is found by the address, and a label begins with its name; choose: interface, and the label with it"
	case len(label) > 15 || odd || named != device || has && text == "":
		return "a label is the device of the address, " + device + ", or that with : and a text, at most 15 bytes in all; choose: one such as " + device + ":1"
	}
	return ""
}

func looksLikeAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func usualBits(a netip.Addr) int {
	if a.Is4() {
		return 24
	}
	return 64
}

// unusableAddress says why no host can have an address as its own, by the rules of
// addresses: in the configuration file.
func unusableAddress(p netip.Prefix) string {
	a := p.Addr()
	switch {
	case a.Is4In6():
		return "an IPv4 address in IPv6 form"
	case a.IsUnspecified() || a.Is4() && a.As4()[0] == 0:
		return "an unspecified address"
	case a.IsLoopback():
		return "a loopback address, which no other host can reach"
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "not the address of one host"
	case p.Bits() == 0:
		return "length 0: the whole internet would be on the device's link"
	case p.Bits() < a.BitLen()-1 && p.Masked().Addr() == a:
		return "the address of the network itself"
	case a.Is4() && p.Bits() < 31 && a == broadcastOf(p):
		return "the broadcast address of its network"
	}
	return ""
}

func broadcastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// A use is one line of a track_ block.
type use struct {
	kind    trackKind
	name    string
	weight  int
	written bool // weight is
	s       *statement
}

// readUses reads a track_ block.
func (n *node) readUses(s *statement) []use {
	kind := map[string]trackKind{"track_interface": trackInterface, "track_script": trackScript,
		"track_process": trackProcess, "track_file": trackFile}[s.keyword()]
	n.empty(s)
	var out []use
	for _, e := range s.block {
		u := use{kind: kind, name: e.keyword(), s: e}
		reverse := false
		for i := 1; i < len(e.words); i++ {
			switch w := e.words[i].text; {
			case w == "weight" && i+1 < len(e.words):
				i++
				v, ok := weight(e.words[i].text)
				if !ok {
					n.report.add(e.at, Trap, e.subject(), fmt.Sprintf("weight must be -%d to %d: keepalived ignores it", weightBound, weightBound))
				}
				u.weight, u.written = v, ok
			case w == "reverse":
				reverse = true
			case w == "noreverse":
			default:
				n.report.add(e.at, Lost, w, "keepalived reads one name from a line, and this is more; write it on its own")
			}
		}
		if reverse {
			n.say(e, Lost, reverseText)
			continue
		}
		if kind == trackInterface {
			if why := unusableDevice(u.name); why != "" {
				n.say(e, Lost, why)
				continue
			}
		}
		out = append(out, u)
	}
	return out
}

const reverseText = "reverse: here a check that passes never counts against its node; choose: a command: that ends the other way round"

func trackKey(weight int) string {
	if weight == 0 {
		return "track_interfaces"
	}
	return "track_interfaces, weight: " + strconv.Itoa(weight)
}

// dedupe drops what is there already.
func dedupe[T comparable](all []T) []T {
	var out []T
	for _, v := range all {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}
