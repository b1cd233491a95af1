package keepalived

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An instance is a vrrp_instance of one node, with keepalived's defaults.
type instance struct {
	node  *node
	name  string
	at    pos
	lines map[string]*statement // the last of each keyword that is read by hand

	iface           string
	master          bool // state MASTER
	vrid            int  // 0: none
	priority        int  // 1 to 255
	version         int
	interval        time.Duration
	nopreempt       bool
	delay           time.Duration
	source          netip.Addr
	peers           []unicastPeer
	plain           bool // checksum
	password        string
	vmac            bool
	vips, excluded  []vip
	routes          []route
	rules           []rule
	repeat, refresh *int
	tracks          []use
	hooks           []notify
	native          bool
}

type unicastPeer struct {
	addr           netip.Addr
	minTTL, maxTTL int // 0: not written
}

// v6 reports whether the instance is of IPv6, as its first address is.
func (in *instance) v6() bool {
	for _, all := range [][]vip{in.vips, in.excluded} {
		if len(all) > 0 {
			return all[0].prefix.Addr().Is6()
		}
	}
	if len(in.peers) > 0 {
		return in.peers[0].addr.Is6()
	}
	return in.native
}

func (n *node) readInstance(s *statement) {
	name := s.arg(0)
	if name == "" {
		n.refuse(s, "vrrp_instance without a name", "write one after it")
		return
	}
	if n.begun[name] {
		n.say(s, Lost, "a second instance of this name, which keepalived ignores too")
		return
	}
	n.begun[name] = true
	in := &instance{node: n, name: name, at: s.at, lines: map[string]*statement{}}
	var deferred []*statement
	for _, st := range n.look(instanceKeywords, "in vrrp_instance "+name, s.block) {
		if in.once(st) {
			deferred = append(deferred, st)
		}
	}
	for _, st := range deferred {
		in.read(st)
	}
	in.finish()
	n.instances = append(n.instances, in)
}

// once keeps the last of what may be written once only, as keepalived does, and says
// what becomes of the others. Blocks add up.
func (in *instance) once(s *statement) bool {
	if s.braces {
		return true
	}
	if k := s.keyword(); k == "state" && in.lines[k] != nil && in.lines[k].arg(0) == "MASTER" && s.arg(0) != "MASTER" {
		in.node.say(s, NotApplicable, "keepalived ignores it after state MASTER")
		return false
	}
	in.lines[s.keyword()] = s
	return true
}

func (in *instance) read(s *statement) {
	n := in.node
	if last := in.lines[s.keyword()]; !s.braces && last != s {
		n.say(s, NotApplicable, fmt.Sprintf("without effect: written again in line %d, and keepalived takes the last", last.at.line))
		return
	}
	switch s.keyword() {
	case "virtual_ipaddress":
		in.vips = append(in.vips, n.readVIPs(s)...)
	case "virtual_ipaddress_excluded":
		in.excluded = append(in.excluded, n.readVIPs(s)...)
	case "virtual_routes":
		in.routes = append(in.routes, n.readRoutes(s)...)
	case "virtual_rules":
		in.rules = append(in.rules, n.readRules(s)...)
	case "unicast_peer":
		in.readPeers(s)
	case "authentication":
		in.readAuth(s)
	case "track_interface", "track_script", "track_file", "track_process":
		in.tracks = append(in.tracks, n.readUses(s)...)
	case "notify", "notify_master", "notify_backup", "notify_fault":
		in.hooks = append(in.hooks, n.readNotify(s)...)
	case "garp_master_repeat":
		in.repeat = n.repeat(s)
	case "garp_master_refresh":
		in.refresh = n.refresh(s)
	default:
		in.readValue(s)
	}
}

func (in *instance) readValue(s *statement) {
	n := in.node
	switch s.keyword() {
	case "state":
		in.readState(s)
	case "interface":
		in.iface = s.arg(0)
	case "virtual_router_id":
		if v, ok := n.integer(s, 1, 255, 0); ok {
			in.vrid = v
			n.carried(s, "vrrp.id")
		}
	case "priority":
		in.priority = 100
		if v, ok := n.integer(s, 1, 255, 100); ok {
			in.priority = v
		}
	case "version":
		if v, ok := n.integer(s, 2, 3, n.defaultVersion()); ok {
			in.version = v
		}
	case "nopreempt":
		in.nopreempt = true
	case "preempt":
		n.carried(s, "preempt")
	case "preempt_delay":
		v, ok := n.seconds(s, 0, 1000, 0)
		if in.delay = v; v > 0 {
			return
		}
		if delete(in.lines, "preempt_delay"); ok {
			n.say(s, NotApplicable, "none")
		}
	case "mcast_src_ip", "unicast_src_ip":
		if a, ok := n.address(s); ok {
			in.source = a
		} else {
			delete(in.lines, s.keyword())
		}
	case "mcast_dst_ip":
		if a, ok := n.address(s); ok && a.Is6() {
			n.multicast(s, "ff02::12")
		} else if ok {
			n.multicast(s, "224.0.0.18")
		}
	case "unicast_ttl":
		if s.arg(0) == "255" {
			n.say(s, NotApplicable, "always so")
		} else {
			n.say(s, Lost, "adverts are always sent with TTL 255")
		}
	case "v3_checksum_as_v2":
		in.plain = n.boolean(s)
	case "native_ipv6":
		in.native = true
		n.say(s, NotApplicable, "the family is that of the addresses")
	case "strict_mode":
		n.strict(s, n.boolean(s))
	case "use_vmac":
		in.readVMAC(s)
	case "no_accept":
		n.say(s, Lost, "the owner always takes packets to the addresses; choose: a firewall rule on the host")
	case "down_timer_adverts":
		n.downTimer(s)
	}
}

func (in *instance) readState(s *statement) {
	switch s.arg(0) {
	case "MASTER":
		in.master = true
		in.node.say(s, NotApplicable, "the priority decides")
	case "BACKUP":
		in.node.say(s, NotApplicable, "every node begins so")
	default:
		in.node.report.add(s.at, Trap, s.subject(), "neither MASTER nor BACKUP, so keepalived takes BACKUP")
		in.node.say(s, NotApplicable, "every node begins so")
	}
}

func (in *instance) readVMAC(s *statement) {
	in.vmac = true
	if len(s.words) == 1 {
		in.node.carried(s, "vmac: true")
		return
	}
	in.node.say(s, Changed, "vmac: true; "+vmacNameText+", and the hardware address is always that of the virtual router id")
}

func (in *instance) readPeers(s *statement) {
	n := in.node
	for _, e := range s.block {
		a, err := netip.ParseAddr(e.keyword())
		if err != nil || a.Zone() != "" {
			n.say(e, Lost, "not an IP address")
			continue
		}
		p := unicastPeer{addr: a.Unmap()}
		for i := 0; i+1 < len(e.words); i += 2 {
			v, err := strconv.Atoi(e.arg(i + 1))
			switch {
			case err != nil || v < 0 || v > 255:
			case e.arg(i) == "min_ttl":
				p.minTTL = max(v, 1)
			case e.arg(i) == "max_ttl":
				p.maxTTL = max(v, 1)
			}
		}
		in.peers = append(in.peers, p)
		n.carried(e, "vrrp.unicast")
	}
	if len(s.block) == 0 {
		n.report.add(s.at, Trap, s.subject(), "an empty list: keepalived speaks multicast then")
		n.say(s, NotApplicable, "no peers")
	}
}

// readAuth takes the password. Which of it counts depends on the version, so finish
// says the rest.
func (in *instance) readAuth(s *statement) {
	n := in.node
	kind := ""
	for _, st := range n.look(authKeywords, "in authentication", s.block) {
		in.lines[st.keyword()] = st
		switch {
		case st.keyword() == "auth_pass":
			in.password = st.arg(0)
			if len(st.words) > 2 {
				n.report.add(st.at, Trap, st.subject(), "more than one word: keepalived takes the first; write it in double quotes")
			}
		case st.arg(0) == "AH":
			n.say(st, Lost, "IPsec AH is not spoken; choose: auth_type PASS in the outside routers, or none")
			kind = "AH"
		case st.arg(0) == "PASS":
			kind = "PASS"
		default:
			n.say(st, Lost, "neither PASS nor AH")
		}
	}
	n.empty(s)
	if kind != "PASS" {
		in.password = ""
	}
}

func (n *node) defaultVersion() int {
	if n.global.version != 0 {
		return n.global.version
	}
	return 2
}

// finish applies keepalived's defaults, which depend on each other.
func (in *instance) finish() {
	n := in.node
	if in.version == 0 {
		in.version = n.defaultVersion()
	}
	if in.v6() {
		in.version = 3
	}
	if s := in.lines["version"]; s != nil {
		n.carried(s, fmt.Sprintf("vrrp.version: %d", in.version))
	}
	in.finishPriority()
	in.finishInterval()
	in.finishPassword()
	in.finishPreempt()
	in.finishInterface()
	in.plain = in.plain || n.global.plain
	if s := in.lines["v3_checksum_as_v2"]; s != nil {
		n.carried(s, "vrrp.checksum: plain, with version 3")
	}
	if in.repeat == nil {
		in.repeat = n.global.repeat
	}
	if in.refresh == nil {
		in.refresh = n.global.refresh
	}
	for _, k := range []string{"mcast_src_ip", "unicast_src_ip"} {
		if s := in.lines[k]; s != nil && in.source.IsValid() {
			in.finishSource(s)
		}
	}
	if n.global.strict && len(in.peers) > 0 {
		n.report.add(in.at, Trap, in.name, "vrrp_strict refuses unicast: keepalived does not use these peers")
	}
}

func (in *instance) finishSource(s *statement) {
	n := in.node
	if slices.ContainsFunc(in.peers, func(p unicastPeer) bool { return p.addr == in.source }) {
		n.report.add(s.at, Trap, s.subject(), "is also in unicast_peer: keepalived sends its adverts to itself")
	}
	switch {
	case n.mode == VRRP:
		n.say(s, Changed, "adverts are sent from the device's own address")
	case in.source.Is6():
		n.say(s, Changed, "adverts of IPv6 are sent from the link-local address")
	default:
		n.say(s, Changed, "in vrrp.unicast, and in peers unless --peers names others; adverts are sent from the address of the device")
	}
}

func (in *instance) finishPriority() {
	n := in.node
	if in.priority == 0 {
		in.priority = 100
		if in.master {
			in.priority = 255
			n.report.add(in.at, Trap, in.name, "state MASTER without priority: keepalived has 255, an address owner")
		}
	}
	s := in.lines["priority"]
	switch {
	case n.mode == VRRP:
		if s != nil {
			n.carried(s, fmt.Sprintf("vrrp.priority.%s: %d", n.name, in.priority))
		}
	case in.priority == 255:
		in.decide(s, "255 is for a router that has the address as its own, which no node of a cluster has; choose: priority 254 for this node, as it is written, or leave this address to that router")
	case s != nil:
		n.carried(s, fmt.Sprintf("priority.%s: %d; routers outside hear 254, whichever node holds the group", n.name, in.priority))
	}
}

// decide notes a decision at a statement, or at the instance if there is none.
func (in *instance) decide(s *statement, text string) {
	if s == nil {
		in.node.report.add(in.at, Decision, in.name, text)
		return
	}
	in.node.say(s, Decision, text)
}

func (in *instance) finishInterval() {
	n, s := in.node, in.lines["advert_int"]
	in.interval = time.Second
	if s == nil {
		return
	}
	d, ok := n.seconds(s, 0.01, 255, 1)
	if !ok {
		return
	}
	in.interval = d
	if in.version == 2 {
		in.interval = max(d.Round(time.Second), time.Second)
	} else {
		const most = 4095 * 10 * time.Millisecond
		in.interval = min(d.Round(10*time.Millisecond), most)
	}
	if in.interval != d {
		n.say(s, Changed, fmt.Sprintf("vrrp.interval: %s, which is what version %d can say, and what keepalived sends", duration(in.interval), in.version))
		return
	}
	n.carried(s, "vrrp.interval: "+duration(in.interval))
}

func (in *instance) finishPassword() {
	n, s, kind := in.node, in.lines["auth_pass"], in.lines["auth_type"]
	const most = 8
	why := ""
	switch {
	case in.password == "":
		why = "without effect"
	case in.version == 3:
		why = "version 3 has no passwords, and keepalived uses none"
	case n.global.strict:
		why = "vrrp_strict: keepalived uses none"
	}
	if why != "" {
		in.password = ""
		if s != nil {
			n.say(s, NotApplicable, why)
		}
		if kind != nil && kind.arg(0) == "PASS" {
			n.say(kind, NotApplicable, why)
		}
		return
	}
	n.carried(kind, "vrrp.password")
	if len(in.password) <= most {
		n.carried(s, "vrrp.password")
		return
	}
	n.report.add(s.at, Trap, s.subject(), fmt.Sprintf("%d bytes: keepalived sends the first %d and drops the rest without a word", len(in.password), most))
	in.password = strings.ToValidUTF8(in.password[:most], "")
	n.say(s, Changed, fmt.Sprintf("vrrp.password: the first %d bytes, as keepalived sends them", most))
}

func (in *instance) finishPreempt() {
	n, no, delay := in.node, in.lines["nopreempt"], in.lines["preempt_delay"]
	if no != nil {
		switch {
		case in.priority == 255:
			n.report.add(no.at, Trap, no.subject(), "keepalived ignores it with priority 255")
			n.say(no, NotApplicable, "without effect")
			in.nopreempt = false
		case in.master:
			n.report.add(no.at, Trap, no.subject(), "with state MASTER keepalived ignores it: this node takes the address back as soon as it returns")
			n.say(no, Decision, "choose: preempt: false, as it is written and as the file says, or true, as keepalived has behaved")
		default:
			n.carried(no, "preempt: false")
		}
	}
	switch {
	case delay == nil:
	case in.nopreempt:
		n.say(delay, NotApplicable, "without effect beside nopreempt")
	case in.master:
		n.report.add(delay.at, Trap, delay.subject(), "with state MASTER keepalived ignores it")
		n.say(delay, Changed, "preempt: "+duration(in.delay))
	default:
		n.carried(delay, "preempt: "+duration(in.delay))
	}
}

func (in *instance) finishInterface() {
	n, s := in.node, in.lines["interface"]
	if s == nil {
		in.iface = n.global.iface
		if len(in.peers) == 0 && in.iface == "" {
			n.report.add(in.at, Trap, in.name, "no interface and no unicast_peer: keepalived does not run this instance")
		}
		return
	}
	if why := unusableDevice(in.iface); why != "" {
		n.say(s, Lost, why)
		in.iface = ""
		return
	}
	n.carried(s, "interface: "+in.iface)
}

// unusableDevice says why a device cannot have a group's addresses. The bounds are
// those of interface: in the configuration file.
func unusableDevice(name string) string {
	const maxName = 15
	switch {
	case name == "lo":
		return "on the loopback device nobody on the network would learn of the address; choose: the device of the clients' network, or put the address there on all hosts"
	case name == "" || name == "." || name == ".." || len(name) > maxName || strings.ContainsAny(name, "/: \t%"):
		return "not the name of a device; an alias such as eth0:1 is a label, not a device"
	}
	return ""
}

// preempt is the instance's behaviour as the configuration file has it.
func (in *instance) preempt() string {
	switch {
	case in.nopreempt:
		return "false"
	case in.delay > 0:
		return duration(in.delay)
	}
	return "true"
}

// weightBound is the largest weight of a tracker.
const weightBound = 254

func weight(s string) (int, bool) {
	v, err := strconv.Atoi(s)
	if err != nil || v < -weightBound || v > weightBound {
		return 0, false
	}
	return v, true
}
