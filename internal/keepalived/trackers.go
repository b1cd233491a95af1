package keepalived

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A trackKind is what a track_ block refers to.
type trackKind uint8

const (
	_ trackKind = iota
	trackInterface
	trackScript
	trackProcess
	trackFile
)

var trackNames = [...]string{"", "track_interface", "vrrp_script", "vrrp_track_process", "track_file"}

// String is the keyword that defines it.
func (k trackKind) String() string {
	if int(k) < len(trackNames) {
		return trackNames[k]
	}
	return fmt.Sprintf("track(%d)", uint8(k))
}

// A tracker is a vrrp_script, vrrp_track_process or track_file of one node.
type tracker struct {
	kind   trackKind
	name   string
	s      *statement
	lines  []*statement
	weight int
	check  check // without weight; what is empty was left out
	usable bool
	read   bool
}

func (n *node) readTracker(s *statement, kind trackKind, known keywords) {
	t := &tracker{kind: kind, name: s.arg(0), s: s}
	if t.name == "" {
		n.refuse(s, s.keyword()+" without a name", "write one after it")
		return
	}
	if n.trackers[kind] == nil {
		n.trackers[kind] = map[string]*tracker{}
	}
	if n.trackers[kind][t.name] != nil {
		n.say(s, Lost, "a second one of this name, which keepalived ignores too")
		return
	}
	n.trackers[kind][t.name] = t
	t.lines = n.look(known, "in "+s.keyword()+" "+t.name, s.block)
}

// unused says of the trackers that nothing refers to that they are not run.
func (n *node) unused() {
	for _, all := range n.trackers {
		for _, t := range all {
			if t.read {
				continue
			}
			for _, s := range append([]*statement{t.s}, t.lines...) {
				n.say(s, NotApplicable, "no instance uses "+t.name+", so keepalived does not run it either")
			}
		}
	}
}

// take takes the lines apart, once something refers to them. keepalived's defaults are not those of checks here, so
// all are written.
func (t *tracker) take(n *node) {
	t.read = true
	t.check = check{interval: time.Second, rise: 1, fall: 1}
	written := false // timeout
	for _, s := range t.lines {
		switch s.keyword() {
		case "script":
			t.readScript(n, s)
		case "process":
			t.readProcess(n, s)
		case "file":
			t.readFile(n, s)
		case "interval":
			t.check.interval = n.bounded(s, 100*time.Millisecond, time.Hour, 1)
		case "timeout":
			t.check.timeout, written = n.bounded(s, 10*time.Millisecond, 10*time.Minute, 0), true
		case "rise":
			t.check.rise = n.count(s)
		case "fall":
			t.check.fall = n.count(s)
		case "user":
			t.readUser(n, s)
		case "weight":
			t.readWeight(n, s)
		case "quorum":
			if s.arg(0) == "1" {
				n.carried(s, "process: one is enough")
			} else {
				n.say(s, Lost, "a check process: asks whether there is one, not how many; choose: a command: that counts")
			}
		case "delay", "fork_delay", "terminate_delay":
			n.say(s, Lost, fmt.Sprintf("no delay as such; choose: rise and fall, with interval %s", duration(t.check.interval)))
		}
	}
	if !written || t.check.timeout == 0 {
		t.check.timeout = min(t.check.interval, 10*time.Minute)
	}
	if t.check.command != nil && t.check.user == "" {
		t.check.user = n.global.user
	}
	if !t.usable {
		n.say(t.s, Lost, "tests nothing that can be written")
		return
	}
	n.say(t.s, Carried, "checks")
}

// bounded reads a time that the configuration file bounds.
func (n *node) bounded(s *statement, least, most time.Duration, def float64) time.Duration {
	d, ok := n.seconds(s, 0.001, 86400, def)
	if !ok {
		return d
	}
	if w := min(max(d, least), most); w != d {
		n.say(s, Changed, fmt.Sprintf("%s: %s, which must be %s to %s", s.keyword(), duration(w), duration(least), duration(most)))
		return w
	}
	n.carried(s, s.keyword()+": "+duration(d))
	return d
}

func (n *node) count(s *statement) int {
	v, ok := n.integer(s, 1, 1<<31-1, 1)
	if !ok {
		return v
	}
	if w := min(v, 100); w != v {
		n.say(s, Changed, fmt.Sprintf("%s: %d, the most there is", s.keyword(), w))
		return w
	}
	n.carried(s, fmt.Sprintf("%s: %d", s.keyword(), v))
	return v
}

func (t *tracker) readUser(n *node, s *statement) {
	t.check.user = s.arg(0)
	if g := s.arg(1); g != "" && g != ":" {
		n.say(s, Changed, "user: "+t.check.user+", with that user's own groups")
		return
	}
	n.carried(s, "user: "+t.check.user)
}

func (t *tracker) readWeight(n *node, s *statement) {
	v, ok := weight(s.arg(0))
	switch {
	case !ok:
		n.report.add(s.at, Trap, s.subject(), fmt.Sprintf("must be -%d to %d: keepalived ignores it", weightBound, weightBound))
		n.say(s, NotApplicable, "without effect")
	case s.arg(1) == "reverse":
		t.usable = false
		t.check = check{}
		n.say(s, Lost, reverseText)
	default:
		t.weight = v
		n.carried(s, fmt.Sprintf("weight: %d", v))
	}
}

var (
	devTCP  = regexp.MustCompile(`^(?:\d*<|true\s*<|: *<|cat\s*<|exec \d*<>?)\s*/dev/tcp/([A-Za-z0-9.:_-]+)/(\d{1,5})$`)
	present = regexp.MustCompile(`^(?:/\S*/)?(?:killall -0|killall -s 0|pidof|pgrep -x) ([A-Za-z0-9_.-]{1,15})$`)
)

const noCommand = "no command, or a quote in it is not closed"

// readScript takes the command of a check. What only asks for a process or a port is
// written as that, since it needs no program to be started every second.
func (t *tracker) readScript(n *node, s *statement) {
	argv, rest := s.argv()
	line := strings.Join(append(slices.Clone(argv), rest...), " ")
	t.usable = true
	switch m, p := devTCP.FindStringSubmatch(line), present.FindStringSubmatch(line); {
	case line == "":
		t.usable = false
		n.say(s, Lost, noCommand)
	case m != nil:
		t.check.tcp = hostPort(m[1], m[2])
		n.say(s, Changed, "tcp: "+t.check.tcp)
	case p != nil:
		t.check.process = p[1]
		n.say(s, Changed, "process: "+t.check.process+", so that no program is started for it")
	default:
		var note string
		t.check.command, note = s.program(true)
		if note == "" {
			n.carried(s, "command")
			return
		}
		n.say(s, Changed, "command, "+note)
	}
}

func hostPort(host, port string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]:" + port
	}
	return host + ":" + port
}

func (t *tracker) readProcess(n *node, s *statement) {
	t.check.process = path.Base(s.arg(0))
	t.usable = s.arg(0) != "" && t.check.process != "/" && t.check.process != "."
	switch {
	case !t.usable:
		n.say(s, Lost, "no process")
	case len(s.words) > 2:
		n.say(s, Changed, "process: "+t.check.process+"; its arguments are not looked at")
	default:
		n.carried(s, "process: "+t.check.process)
	}
}

// readFile: only the file's two-valued use can be said as a check; see use.
func (t *tracker) readFile(n *node, s *statement) {
	t.check.file, t.usable = s.arg(0), strings.HasPrefix(s.arg(0), "/")
	t.weight = 1
	if !t.usable {
		n.say(s, Lost, "not an absolute path")
		return
	}
	n.carried(s, "file: "+t.check.file)
}

// isZero matches a file whose number is 0.
const isZero = `^\s*[+-]?0+\s*$`

// A checkBook gives each check its name and keeps it once for all nodes and groups.
type checkBook struct {
	all []*check
	key map[string]*check
}

// resolve finds the check for a use of a tracker, nil if there is none.
func (b *checkBook) resolve(n *node, u use) *check {
	t := n.trackers[u.kind][u.name]
	if t == nil {
		n.report.add(u.s.at, Trap, u.s.subject(), "there is no "+u.kind.String()+" of this name: keepalived ignores it")
		n.say(u.s, NotApplicable, "without effect")
		return nil
	}
	if !t.read {
		t.take(n)
	}
	if !t.usable {
		n.say(u.s, Lost, fmt.Sprintf("%s %s could not be written", u.kind, u.name))
		return nil
	}
	c := t.check
	c.weight = t.weight
	if u.written {
		c.weight = u.weight
	}
	if u.kind == trackFile {
		if c.weight != 0 {
			n.say(u.s, Lost, "here a check passes or fails, and cannot add the file's number to the priority; choose: a command: for each number that is used, or weight 0 in keepalived's sense: another number than 0 is a failure")
			return nil
		}
		c.match = isZero
	}
	same, fresh := b.enter(n, t, c)
	switch {
	case !fresh && !same.equal(c):
		n.say(u.s, Decision, fmt.Sprintf("%s %s is not the same on node %s, and checks are the same for all nodes: that of %s is written; choose: it, or one program that knows the node", u.kind, u.name, same.node, same.node))
	case same.name != sanitise(u.name, ""):
		n.say(u.s, Changed, fmt.Sprintf("checks: [%s]: weight belongs to the check, so each weight is a check of its own", same.name))
	default:
		n.carried(u.s, "checks: ["+same.name+"]")
	}
	return same
}

func (b *checkBook) enter(n *node, t *tracker, c check) (*check, bool) {
	if b.key == nil {
		b.key = map[string]*check{}
	}
	key := fmt.Sprintf("%d %d %s", t.kind, c.weight, t.name)
	if old := b.key[key]; old != nil {
		return old, false
	}
	base := sanitise(t.name, "")
	if base == "" {
		base = "check"
	}
	c.name = unique(base, func(s string) bool {
		return slices.ContainsFunc(b.all, func(o *check) bool { return o.name == s })
	})
	c.node = n.name
	b.all = append(b.all, &c)
	b.key[key] = &c
	return &c, true
}

// unique adds a number to a name that is taken.
func unique(name string, taken func(string) bool) string {
	for i := 2; taken(name); i++ {
		base := name
		if at := strings.LastIndexByte(name, '-'); at > 0 && strings.Trim(name[at+1:], "0123456789") == "" && i > 2 {
			base = name[:at]
		}
		suffix := fmt.Sprintf("-%d", i)
		name = base[:min(len(base), 63-len(suffix))] + suffix
	}
	return name
}
