package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v4"

	"github.com/quorate/quorate/fsm"
)

// Defaults of the keys of a check.
const (
	DefaultCheckInterval = time.Second
	DefaultCheckTimeout  = 500 * time.Millisecond // or the interval, if that is shorter
	DefaultCheckRise     = 2
	DefaultCheckFall     = 3
	DefaultStatusMin     = 200
	DefaultStatusMax     = 299
)

const (
	minCheckInterval = 100 * time.Millisecond
	maxCheckInterval = time.Hour
	maxCheckTimeout  = 10 * time.Minute
	maxInARow        = 100 // of rise and fall
)

// checkKinds are the keys of which a check has exactly one.
var checkKinds = []string{"http", "tcp", "icmp", "command", "process", "file", "systemd"}

type rawCheck struct {
	name, path string
	pos        pos
	have       state    // of the mapping
	kinds      []string // that are written, in the order of checkKinds
	kindsPos   []pos

	tcp, icmp, process, systemd field[string]

	url, host, match, ca field[string]
	status               field[[2]int]
	insecure             field[bool]
	http                 state
	httpPos              pos

	argv       field[[]field[string]]
	user       field[string]
	command    state
	commandPos pos

	file      field[string]
	fileMatch field[string]
	fileState state
	filePos   pos

	interval, timeout  field[time.Duration]
	rise, fall, weight field[int]
}

// readChecks reads the top-level section; broken if it could not be read at all.
func readChecks(top mapping) ([]rawCheck, state) {
	n, ok := top.vals["checks"]
	if !ok {
		return nil, top.without("checks")
	}
	entries, ok := top.r.entries(n, "checks")
	if !ok {
		return nil, broken
	}
	var out []rawCheck
	for _, e := range entries {
		out = append(out, readCheck(top.r, e))
	}
	return out, present
}

func readCheck(r *report, e entry) rawCheck {
	k := rawCheck{name: e.name, path: join("checks", e.name), pos: at(e.key), have: present}
	m, ok := r.mapping(e.value, k.path, checkKeys)
	if !ok {
		k.have = broken
		return k
	}
	for _, kind := range checkKinds {
		if n, ok := m.vals[kind]; ok {
			k.kinds, k.kindsPos = append(k.kinds, kind), append(k.kindsPos, at(n))
		} else if m.meant[kind] {
			k.have = broken // misspelt, and reported so
		}
	}
	k.tcp, k.icmp, k.process, k.systemd = m.text("tcp"), m.text("icmp"), m.text("process"), m.text("systemd")
	k.readHTTP(m)
	k.readCommand(m)
	k.readFile(m)
	k.interval, k.timeout = m.duration("interval"), m.duration("timeout")
	k.rise, k.fall, k.weight = m.integer("rise"), m.integer("fall"), m.integer("weight")
	return k
}

func (k *rawCheck) readHTTP(m mapping) {
	n, ok := m.vals["http"]
	if !ok {
		return
	}
	k.httpPos, k.http = at(n), present
	if n.Kind != yaml.MappingNode {
		k.url = read(m, "http", textOr("a URL, or keys with values", "write http://127.0.0.1/ or {url: http://127.0.0.1/, status: 200}"), kindURL)
		return
	}
	sub, have := m.sub("http")
	k.http = have
	k.url, k.host, k.match, k.ca = sub.text("url"), sub.text("host"), sub.text("match"), sub.text("ca")
	k.status, k.insecure = read(sub, "status", toStatus, kindStatus), sub.truth("insecure")
}

func (k *rawCheck) readCommand(m mapping) {
	n, ok := m.vals["command"]
	if !ok {
		return
	}
	k.commandPos, k.command = at(n), present
	if n.Kind != yaml.MappingNode {
		k.argv = readArgv(m, "command")
		return
	}
	sub, have := m.sub("command")
	k.command = have
	k.argv, k.user = readArgv(sub, "argv"), read(sub, "user", toWord, kindUser)
}

func (k *rawCheck) readFile(m mapping) {
	n, ok := m.vals["file"]
	if !ok {
		return
	}
	k.filePos, k.fileState = at(n), present
	if n.Kind != yaml.MappingNode {
		k.file = read(m, "file", textOr("a path, or keys with values", "write /run/ready or {path: /run/ready, match: ok}"), kindPath)
		return
	}
	sub, have := m.sub("file")
	k.fileState = have
	k.file, k.fileMatch = sub.text("path"), sub.text("match")
}

// textOr takes a text, and says what else may be there.
func textOr(want, do string) func(*yaml.Node) (string, string, string) {
	return func(n *yaml.Node) (string, string, string) {
		if isScalar(n, "!!str") {
			return n.Value, "", ""
		}
		if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
			do = "write it in quotes: " + strconv.Quote(n.Value)
		}
		return "", want, do
	}
}

// toStatus takes one status, or the lowest and highest of a range.
func toStatus(n *yaml.Node) ([2]int, string, string) {
	if v, want, _ := toInt(n); want == "" {
		return [2]int{v, v}, "", ""
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) == 2 {
		least, wantLeast, _ := toInt(n.Content[0])
		most, wantMost, _ := toInt(n.Content[1])
		if wantLeast == "" && wantMost == "" {
			return [2]int{least, most}, "", ""
		}
	}
	return [2]int{}, "a status, or the lowest and the highest of a range", "write 200, or [200, 299]"
}

// checkNames are those that a group may name; nil if the section could not be read.
func (c *checker) checkNames(raw rawConfig) []string {
	if raw.checksHave == broken {
		return nil
	}
	out := make([]string, 0, len(raw.checks))
	for _, k := range raw.checks {
		out = append(out, k.name)
	}
	return out
}

// checks fills the document's checks.
func (c *checker) checks(raw rawConfig) {
	for _, k := range raw.checks {
		if text, do := checkName(k.name, ""); text != "" {
			c.r.add(k.pos, k.path, "the name of a check "+text, "", do)
		}
		if k.have == present || len(k.kinds) > 0 {
			c.cfg.Document.Checks = append(c.cfg.Document.Checks, c.checkOf(k))
		}
	}
}

func (c *checker) checkOf(k rawCheck) fsm.Check {
	out := fsm.Check{Name: k.name}
	c.cfg.where[k.path] = k.pos
	switch {
	case len(k.kinds) == 0:
		c.r.add(k.pos, k.path, "tests nothing", "", "write one of "+strings.Join(checkKinds, ", "))
	case len(k.kinds) > 1:
		c.r.add(k.kindsPos[1], k.path, "tests "+strings.Join(k.kinds, " and ")+", and a check tests one thing", "",
			"make a check of each; a group may name several, and all must pass")
	}
	c.kind(k, &out)
	out.Interval = DefaultCheckInterval
	if f := k.interval; f.ok() {
		if !f.key.lasts(f.v) {
			bad(c, f, "must be "+f.key.limits(), fmt.Sprintf("write %s, or leave the key out", DefaultCheckInterval))
		} else {
			out.Interval = f.v
		}
	}
	out.Timeout = c.timeout(k.timeout, defaultCheckTimeout(out.Interval))
	out.Rise, out.Fall = c.inARow(k.rise, DefaultCheckRise), c.inARow(k.fall, DefaultCheckFall)
	out.Weight = c.adjust(k.weight)
	return out
}

func defaultCheckTimeout(interval time.Duration) time.Duration {
	return min(DefaultCheckTimeout, interval)
}

func (c *checker) inARow(f field[int], def int) int {
	if !f.ok() {
		return def
	}
	if !f.key.fits(int64(f.v)) {
		bad(c, f, f.key.within(), fmt.Sprintf("write %d, or leave the key out", def))
		return def
	}
	return f.v
}

// kind fills what is tested.
func (c *checker) kind(k rawCheck, out *fsm.Check) {
	if k.http == present {
		out.HTTP = c.httpCheck(k)
	}
	if k.command == present {
		if k.argv.have == absent {
			c.missing(k.commandPos, k.path+".command.argv", "write argv: [/path/of/program, argument]")
		}
		c.cfg.where[k.path+".command"] = k.commandPos
		out.Command = &fsm.CommandCheck{Argv: c.argv(k.argv), User: c.user(k.user)}
	}
	if k.fileState == present {
		if k.file.have == absent {
			c.missing(k.filePos, k.path+".file.path", "write path: with the file to read")
		}
		out.File = &fsm.FileCheck{Path: c.checkedFile(k.file), Match: c.match(k.fileMatch)}
	}
	out.TCP, out.ICMP, out.Process, out.Systemd = c.tcp(k.tcp), c.icmp(k.icmp), c.process(k.process), c.unit(k.systemd)
}

func (c *checker) httpCheck(k rawCheck) *fsm.HTTPCheck {
	h := &fsm.HTTPCheck{StatusMin: DefaultStatusMin, StatusMax: DefaultStatusMax}
	if k.url.have == absent {
		c.missing(k.httpPos, k.path+".http.url", "write url: http://127.0.0.1/ with the page to ask for")
	}
	secure := true // unless it is known not to be
	if f := k.url; f.ok() {
		h.URL = f.v
		if text, do := checkURL(f.v); text != "" {
			bad(c, f, text, do)
		} else if !c.long(f) {
			secure = strings.HasPrefix(f.v, "https:")
		}
	}
	if f := k.host; f.ok() {
		h.Host = f.v
		if u, err := url.Parse("http://" + f.v); f.v == "" || err != nil || u.Host != f.v || u.Hostname() == "" {
			bad(c, f, "must be the name of a host, as a browser would send it", "write one such as www.example.org, or leave the key out for that of the URL")
		}
	}
	if f := k.status; f.ok() {
		h.StatusMin, h.StatusMax = f.v[0], f.v[1]
		if h.StatusMin < 100 || h.StatusMax > 599 || h.StatusMin > h.StatusMax {
			got := fmt.Sprintf("%d to %d", h.StatusMin, h.StatusMax)
			if h.StatusMin == h.StatusMax {
				got = strconv.Itoa(h.StatusMin)
			}
			c.r.add(f.pos, f.path, "must be 100 to 599, in a range the lower first", got,
				fmt.Sprintf("write 200, or [200, 299], or leave the key out for [%d, %d]", DefaultStatusMin, DefaultStatusMax))
		}
	}
	h.Match = c.match(k.match)
	h.CA = c.checkedFile(k.ca)
	h.Insecure = k.insecure.ok() && k.insecure.v
	switch {
	case k.ca.ok() && !secure:
		bad(c, k.ca, "is for https, and the URL is http", "write https:// in the URL, or remove the key")
	case h.Insecure && !secure:
		bad(c, k.insecure, "is for https, and the URL is http: there is no certificate", "remove the key")
	case k.ca.ok() && h.Insecure:
		bad(c, k.insecure, "contradicts ca, by which the certificate is verified", "keep one of the two")
	}
	return h
}

func checkURL(s string) (text, do string) {
	if !strings.HasPrefix(s, "http://") && !strings.HasPrefix(s, "https://") {
		if scheme, _, ok := strings.Cut(strings.ToLower(s), "://"); ok && strings.HasPrefix(scheme, "http") {
			return "must begin with http:// or https://, in small letters", "write " + printable(scheme+s[len(scheme):])
		} else if ok || s == "" {
			return "must begin with http:// or https://", "write a URL such as http://127.0.0.1:8080/health; for another service there is tcp: HOST:PORT"
		}
		return "must begin with http:// or https://", "write http://" + printable(strings.TrimLeft(s, "/"))
	}
	u, err := url.Parse(s)
	const example = "write a URL such as http://127.0.0.1:8080/health or https://[::1]/"
	if err != nil {
		if inner, ok := err.(*url.Error); ok {
			err = inner.Err
		}
		return "must be a URL: " + err.Error(), example
	}
	if u.Hostname() == "" {
		return "names no host", example
	}
	if i := strings.IndexFunc(s, unicode.IsSpace); i >= 0 {
		return "must not have a space in it", "write %20 for it"
	}
	if p := u.Port(); p != "" && !isPort(p) {
		return "must have a port from 1 to 65535", example
	}
	return "", ""
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n != 0
}

// checkedFile checks the path of a file that is read on every node.
func (c *checker) checkedFile(f field[string]) string {
	if f.ok() && c.long(f) {
		return ""
	}
	c.cfg.where[f.path] = f.pos
	return c.file(f, "")
}

func (c *checker) tcp(f field[string]) string {
	if !f.ok() {
		return ""
	}
	host, port, err := net.SplitHostPort(f.v)
	switch {
	case err != nil:
		do := "write one such as 127.0.0.1:5432, [::1]:5432 or db.example.org:5432"
		if a, err := netip.ParseAddr(f.v); err == nil {
			do = "add the port: " + net.JoinHostPort(a.String(), "80")
		}
		bad(c, f, "must be HOST:PORT", do)
	case !isPort(port):
		bad(c, f, "must have a port from 1 to 65535", "write one such as 127.0.0.1:5432")
	default:
		c.oneHost(f, host)
	}
	return f.v
}

func (c *checker) icmp(f field[string]) string {
	if f.ok() {
		if host, _, err := net.SplitHostPort(f.v); err == nil {
			bad(c, f, "must be an address or the name of a host: an echo request has no port", "write "+printable(host))
		} else {
			c.oneHost(f, f.v)
		}
	}
	return f.v
}

// oneHost checks an address or a name by which one host is reached.
func (c *checker) oneHost(f field[string], host string) {
	a, err := netip.ParseAddr(host)
	switch {
	case err == nil && (a.IsMulticast() || a.IsUnspecified() || a == limitedBroadcast):
		bad(c, f, "must be the address of one host", "write 127.0.0.1 or ::1 for this one")
	case err != nil && !isHostName(host):
		bad(c, f, "must be an address or the name of a host", "write one such as 10.0.0.8, fe80::8%eth0 or db.example.org")
	}
}

// isHostName reports whether s can be looked up: a name whose last label is a number
// is a mistyped address.
func isHostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		odd := func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
		}
		if l == "" || len(l) > 63 || l[0] == '-' || strings.IndexFunc(l, odd) >= 0 {
			return false
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

// user checks a name as login tools allow it; whether the host has it is seen there.
func (c *checker) user(f field[string]) string {
	if !f.ok() {
		return ""
	}
	odd := func(r rune) bool { return r <= ' ' || r == ':' || r == '/' || r == 0x7f || r == ',' }
	if f.v == "" || len(f.v) > 32 || f.v[0] == '-' || strings.IndexFunc(f.v, odd) >= 0 {
		bad(c, f, "must be the name of a user, 1 to 32 characters without space, comma, : or /", "write one such as nobody, or leave the key out for the daemon's own")
	}
	c.cfg.where[f.path] = f.pos
	return f.v
}

func (c *checker) process(f field[string]) string {
	switch {
	case !f.ok():
	case f.v == "":
		bad(c, f, "is empty", "write the name of the program, such as nginx")
	case strings.ContainsAny(f.v, "/\r\n\x00") || len(f.v) > 255:
		bad(c, f, "must be the name of a program, without directory", "write "+printable(f.v[strings.LastIndex(f.v, "/")+1:]))
	}
	return f.v
}

// unitTypes are those of units that are active or not.
var unitTypes = []string{".service", ".socket", ".target", ".timer", ".path", ".mount", ".automount", ".swap", ".slice", ".scope", ".device"}

var unitName = regexp.MustCompile(`^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?$`)

func (c *checker) unit(f field[string]) string {
	if !f.ok() {
		return ""
	}
	dot := strings.LastIndex(f.v, ".")
	switch {
	case f.v == "" || len(f.v) > 255 || !unitName.MatchString(f.v):
		bad(c, f, "must be the name of a unit, at most 255 letters, digits and :-_.\\@", "write one such as nginx.service")
	case dot < 0 || !slices.Contains(unitTypes, f.v[dot:]):
		bad(c, f, "must be the whole name of a unit, with its type", "write "+f.v+".service")
	case dot == 0:
		bad(c, f, "must have a name before its type", "write one such as nginx.service")
	case strings.HasSuffix(f.v[:dot], "@"):
		bad(c, f, "is a template, of which only instances can be active", "write "+f.v[:dot]+"NAME"+f.v[dot:])
	}
	return f.v
}

// match checks a regular expression. The column of a mistake is that inside the
// expression: escapes and quotes of YAML make another of it in the file.
func (c *checker) match(f field[string]) string {
	if !f.ok() {
		return ""
	}
	_, err := regexp.Compile(f.v)
	switch {
	case f.v == "":
		bad(c, f, "is empty, which everything matches", "write what the content must have, or leave the key out")
	case c.long(f):
	case err != nil:
		what, column, do := mistake(f.v, err)
		bad(c, f, fmt.Sprintf("must be a regular expression (RE2): %s, in column %d of the expression", what, column), do)
	}
	return f.v
}
