package keepalived

import (
	"fmt"
	"math"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"
)

// A node is what one node's files say, with keepalived's defaults.
type node struct {
	name    string
	order   int // of the sources
	source  Source
	mode    Mode
	lenient bool
	report  *Report
	probs   *problems

	global    globals
	instances []*instance
	groups    []*syncGroup
	trackers  map[trackKind]map[string]*tracker
	named     map[string]bool // names of all vrrp_instance
	begun     map[string]bool // of those read so far
}

// globals are the defaults that the file sets for all instances.
type globals struct {
	routerID, fifo  string
	version         int // 0: not written
	repeat, refresh *int
	iface           string // default_interface
	strict, plain   bool   // vrrp_strict, v3_checksum_as_v2
	user            string // script_user
}

// say notes what became of a statement.
func (n *node) say(s *statement, c Class, text string) { n.report.add(s.at, c, s.subject(), text) }

// carried notes a statement that has the same meaning in the written file.
func (n *node) carried(s *statement, key string) { n.say(s, Carried, key) }

// nodeOfPath is the node's name that the file's directory gives: none, if that is
// one in which such files are kept anywhere.
func nodeOfPath(name string) string {
	dir := path.Base(path.Dir(path.Clean(name)))
	switch dir {
	case ".", "..", "/", "keepalived", "etc", "conf", "config", "configs", "files", "templates", "tmp":
		return ""
	}
	return sanitise(dir, ".")
}

// sanitise makes a name of letters, digits, - and _, and extra, of any text. Empty:
// nothing of it is left.
func sanitise(s, extra string) string {
	const maxName = 63
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_"+extra, r) {
			return r
		}
		return '-'
	}, s)
	s = strings.TrimLeft(s, "-.")
	return s[:min(len(s), maxName)]
}

// read takes the statements of the root apart. The globals come first, since they are
// defaults of the rest wherever they stand.
func (n *node) read(all []*statement) {
	n.trackers = map[trackKind]map[string]*tracker{}
	known := n.look(rootKeywords, "at the top of the file", all)
	for _, s := range known {
		if s.keyword() == "global_defs" {
			for _, g := range n.look(globalKeywords, "in global_defs", s.block) {
				n.readGlobal(g)
			}
		}
	}
	n.named, n.begun = map[string]bool{}, map[string]bool{}
	for _, s := range known {
		n.named[s.arg(0)] = n.named[s.arg(0)] || s.keyword() == "vrrp_instance"
		switch s.keyword() {
		case "vrrp_script":
			n.readTracker(s, trackScript, scriptKeywords)
		case "vrrp_track_process":
			n.readTracker(s, trackProcess, processKeywords)
		case "track_file", "vrrp_track_file":
			n.readTracker(s, trackFile, trackFileKeywords)
		}
	}
	for _, s := range known {
		switch s.keyword() {
		case "vrrp_instance":
			n.readInstance(s)
		case "vrrp_sync_group":
			n.readSync(s)
		}
	}
}

func (n *node) readGlobal(s *statement) {
	g, arg := &n.global, s.arg(0)
	switch s.keyword() {
	case "router_id":
		g.routerID = arg
		n.say(s, NotApplicable, "a node's name is node:")
	case "vrrp_version":
		if v, ok := n.integer(s, 2, 3, 2); ok {
			g.version = v
			n.carried(s, "the groups' vrrp.version")
		}
	case "vrrp_mcast_group4":
		n.multicast(s, "224.0.0.18")
	case "vrrp_mcast_group6":
		n.multicast(s, "ff02::12")
	case "default_interface":
		g.iface = arg
		n.carried(s, "interface of groups that name none")
	case "vrrp_garp_master_repeat":
		g.repeat = n.repeat(s)
	case "vrrp_garp_master_refresh":
		g.refresh = n.refresh(s)
	case "vrrp_min_garp":
		if n.boolean(s) && g.repeat == nil {
			one := 1
			g.repeat = &one
			n.say(s, Changed, "announce.repeat: 1")
			return
		}
		n.say(s, NotApplicable, garpText)
	case "vrrp_garp_interval", "vrrp_gna_interval":
		if f, err := strconv.ParseFloat(arg, 64); err == nil && f == 0 {
			n.report.add(s.at, Trap, s.subject(), "keepalived rejects 0 and says so in its log: no gap is its default")
		}
		n.say(s, NotApplicable, garpText)
	case "vrrp_strict":
		g.strict = n.boolean(s)
		n.strict(s, g.strict)
	case "v3_checksum_as_v2":
		g.plain = n.boolean(s)
		n.carried(s, "the groups' vrrp.checksum: plain, with version 3")
	case "vrrp_down_timer_adverts":
		n.downTimer(s)
	case "notify_fifo", "vrrp_notify_fifo":
		n.readFIFO(s)
	case "script_user":
		g.user = arg
		n.say(s, Changed, "user of the checks with command; hooks run as the daemon's user")
	}
}

func (n *node) readFIFO(s *statement) {
	switch p := s.arg(0); {
	case !strings.HasPrefix(p, "/"):
		n.say(s, Lost, "not an absolute path")
	case n.global.fifo != "" && n.global.fifo != p:
		n.say(s, Lost, "there is one pipe, fifo: "+n.global.fifo)
	default:
		n.global.fifo = p
		if s.keyword() == "notify_fifo" {
			n.say(s, Changed, "fifo: "+p+"; the lines of the load balancer are not in it")
			return
		}
		n.carried(s, "fifo: "+p)
	}
}

func (n *node) strict(s *statement, on bool) {
	if !on {
		n.say(s, NotApplicable, "off")
		return
	}
	n.report.add(s.at, Trap, s.subject(), "keepalived then takes no packets to the addresses unless priority is 255, uses no password and refuses unicast; people often meet it as an address that does not answer")
	n.say(s, Changed, "the owner takes packets to the addresses, and RFC 9568 is kept on the wire; no password is written")
}

// multicast is for the group address that adverts go to.
func (n *node) multicast(s *statement, standard string) {
	if s.arg(0) == standard {
		n.say(s, NotApplicable, "the standard's address")
		return
	}
	n.say(s, Lost, "adverts go to the standard's group, "+standard+"; choose: that in the outside routers too, or vrrp.unicast")
}

func (n *node) downTimer(s *statement) {
	v, ok := n.integer(s, 1, 100, 3)
	switch {
	case !ok:
	case v == 3:
		n.say(s, NotApplicable, "the standard's value")
	case n.mode == Raft:
		n.say(s, NotApplicable, "inside the cluster a lost owner is known by its lease; outside routers keep their own")
	default:
		n.say(s, Lost, "always 3, as RFC 9568 has it (6.1): with another number there the two sides wait for different times")
	}
}

func (n *node) repeat(s *statement) *int {
	v, ok := n.integer(s, 0, math.MaxInt32, 5)
	if !ok {
		return nil
	}
	if w := min(max(v, 1), 100); w != v {
		n.say(s, Changed, fmt.Sprintf("announce.repeat: %d, which must be 1 to 100", w))
		return &w
	}
	n.say(s, Changed, fmt.Sprintf("announce.repeat: %d; %s", v, garpText))
	return &v
}

func (n *node) refresh(s *statement) *int {
	v, ok := n.integer(s, 0, 86400, 0)
	if !ok {
		return nil
	}
	n.carried(s, fmt.Sprintf("announce.refresh: %s", duration(time.Duration(v)*time.Second)))
	return &v
}

// integer reads the statement's number. Like keepalived it takes the default for what
// is out of bounds, and says so; not ok means that this was done.
func (n *node) integer(s *statement, least, most, def int) (int, bool) {
	v, err := strconv.Atoi(s.arg(0))
	if err == nil && v >= least && v <= most {
		return v, true
	}
	n.report.add(s.at, Trap, s.subject(), fmt.Sprintf("must be %s: keepalived ignores it and has %d", bounds(least, most), def))
	n.say(s, NotApplicable, fmt.Sprintf("without effect, so %d", def))
	return def, false
}

func bounds(least, most int) string {
	if most == math.MaxInt32 {
		return fmt.Sprintf("%d or more", least)
	}
	return fmt.Sprintf("%d to %d", least, most)
}

// seconds reads a time in decimal seconds; not ok means that the default was taken.
func (n *node) seconds(s *statement, least, most, def float64) (time.Duration, bool) {
	f, err := strconv.ParseFloat(s.arg(0), 64)
	if err == nil && f >= least && f <= most {
		return time.Duration(math.Round(f * float64(time.Second))), true
	}
	n.report.add(s.at, Trap, s.subject(), fmt.Sprintf("must be %g to %g seconds: keepalived ignores it and has %g", least, most, def))
	n.say(s, NotApplicable, fmt.Sprintf("without effect, so %g s", def))
	return time.Duration(def * float64(time.Second)), false
}

// boolean reads on and off in keepalived's words; a keyword alone is on.
func (n *node) boolean(s *statement) bool {
	if isOff(s.arg(0)) {
		return false
	}
	switch s.arg(0) {
	case "", "on", "true", "yes":
		return true
	}
	n.report.add(s.at, Trap, s.subject(), "must be on, off, true, false, yes or no: taken as on")
	return true
}

// address reads an IP address.
func (n *node) address(s *statement) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s.arg(0))
	if err != nil || a.Zone() != "" {
		n.say(s, Lost, "not an IP address")
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// duration is a duration as the configuration file has it.
func duration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if t, ok := strings.CutSuffix(s, zero); ok {
			s = t + zero[:1]
		}
	}
	return s
}
