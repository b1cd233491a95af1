package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// Bounds of the timing keys.
const (
	minLease         = 50 * time.Millisecond
	minLeaseLifetime = 3 * time.Second // the kernel counts lifetimes in whole seconds
	maxLease         = 30 * time.Second
	minRenew         = 5 * time.Millisecond
)

// maxPeers is the largest cluster: each renewal goes to every voter.
const maxPeers = 7

// minMaxHold is the least that a document lets a node state as lease and grace.
// It bounds for how long one badly configured node can block a group, and it is
// long enough for a node of fence lifetime (3 s and 1.5 s of grace) to join a
// cluster that was formed by nodes of fence bpf.
const minMaxHold = 5 * time.Second

// maxSocketPath is the room for a path in sockaddr_un, without the final zero.
const maxSocketPath = 107

// A checker makes the checked configuration of the raw one.
type checker struct {
	r    *report
	host Host
	cfg  *Config
	top  pos // of the file's first key
	// applied: the file is read for its document alone.
	applied bool
}

// bad reports an error at a value.
func bad[T any](c *checker, f field[T], text, do string) {
	c.r.add(f.pos, f.path, text, f.text, do)
}

// missing reports a required key that is not written. The place is that of the
// mapping that lacks it.
func (c *checker) missing(at pos, path, do string) {
	e := c.r.add(at, path, required, "", do)
	if at == c.top && e != nil {
		e.src = nil // the first line says nothing of what the file lacks
	}
}

// required is what is wrong with a key that is not there.
const required = "required"

// warn notes what is allowed and probably not meant.
func (c *checker) warn(at pos, path, text, do string) {
	e := &Error{File: c.r.file, Line: at.line, Column: at.column, Path: path, Text: text, Do: do}
	c.cfg.Warnings = append(c.cfg.Warnings, e.Error())
}

// check fills the configuration. The order is that of dependence: an own address
// that is not written must not be a VIP, and the document needs the lease.
func (c *checker) check(raw rawConfig) {
	cfg := c.cfg
	cfg.Election = oneOf(c, raw.election, ElectRaft)
	cfg.Cluster = c.name(raw.cluster, "")
	cfg.Node = c.node(raw.node)
	c.log(raw)
	c.socket(raw)
	cfg.FIFO = c.file(raw.fifo, "")
	if c.plain() {
		c.withoutCluster(raw)
		return
	}
	if raw.cluster.have == absent && raw.topPos != (pos{}) {
		c.missing(raw.topPos, "cluster", "write cluster: NAME, the same on every node")
	}
	cfg.Role = oneOf(c, raw.role, fsm.Member)
	cfg.Fence = oneOf(c, raw.fence, BPF)
	c.timing(raw)
	c.files(raw)
	c.replicated(raw)
	c.addresses(raw)
	c.http(raw)
}

// name checks the name of a cluster, node or group: it becomes part of metrics,
// datagrams and file names. extra are characters allowed besides letters,
// digits, - and _.
func (c *checker) name(f field[string], extra string) string {
	if !f.ok() {
		return ""
	}
	if text, do := checkName(f.v, extra); text != "" {
		bad(c, f, text, do)
		return ""
	}
	return f.v
}

func checkName(s, extra string) (text, do string) {
	const maxName = 63
	allowed := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_"+extra, r)
	}
	switch {
	case s == "":
		return "must not be empty", "write a name of 1 to 63 letters, digits, - or _"
	case len(s) > maxName:
		return fmt.Sprintf("must have at most %d characters, has %d", maxName, len(s)), "write a shorter name"
	case strings.IndexFunc(s, func(r rune) bool { return !allowed(r) }) >= 0 || s[0] == '-' || s[0] == '.':
		return "must be letters, digits, - and _, and begin with no -", "write a name such as web or n1"
	}
	return "", ""
}

func (c *checker) node(f field[string]) string {
	if f.have != absent {
		return c.name(f, ".")
	}
	name, err := c.host.Name()
	if err != nil {
		c.r.add(pos{}, "node", "not written, and the host name cannot be read: "+err.Error(), "", "write node: NAME")
		return ""
	}
	if text, _ := checkName(name, "."); text != "" {
		c.r.add(pos{}, "node", "not written, and the host name "+text, name, "write node: NAME")
	}
	return name
}

// oneOf checks a word that must be the name of one of the key's choices. def is what
// the key is when it is not written, which is the first of them.
func oneOf[T fmt.Stringer](c *checker, f field[string], def T) T {
	if !f.ok() {
		return def
	}
	for _, t := range f.key.choices {
		if t.String() == f.v {
			return t.(T)
		}
	}
	words := f.key.words()
	last := len(words) - 1
	list := strings.Join(words[:last], ", ") + " or " + words[last]
	do := "write " + list + ", or leave the key out for " + def.String()
	if near, ok := nearest(f.v, words); ok {
		do = "did you mean " + near + "?"
	}
	bad(c, f, "must be "+list, do)
	return def
}

func (c *checker) timing(raw rawConfig) {
	cfg := c.cfg
	least, def := minLease, DefaultLease
	if cfg.Fence == Lifetime {
		least, def = minLeaseLifetime, DefaultLeaseLifetime
	}
	cfg.Lease = def
	if raw.lease.ok() {
		cfg.Lease = raw.lease.v
		if cfg.Lease < least || cfg.Lease > maxLease {
			bad(c, raw.lease, fmt.Sprintf("must be %s to %s with fence: %s", least, maxLease, cfg.Fence),
				fmt.Sprintf("write %s, or leave the key out for %s", min(max(cfg.Lease, least), maxLease), def))
			cfg.Lease = def
		}
	}
	cfg.Renew = cfg.Lease / 3
	if raw.renew.ok() {
		cfg.Renew = raw.renew.v
		if cfg.Renew < minRenew || cfg.Renew > cfg.Lease/2 {
			bad(c, raw.renew, fmt.Sprintf("must be %s to %s, half of the lease (%s): one lost datagram must not cost the lease",
				minRenew, cfg.Lease/2, cfg.Lease), fmt.Sprintf("leave the key out for a third of the lease, %s", cfg.Lease/3))
		}
	}
	cfg.Document.MaxHold = max(minMaxHold, cfg.Lease+cfg.Grace())
}

// Grace is how long after the deadline of a lease the node's fence may still let
// an answer out; it is told to the voters with the lease.
func (c *Config) Grace() time.Duration {
	if c.Fence == Lifetime {
		return election.GraceLifetime
	}
	return election.GraceBPF
}

func (c *checker) files(raw rawConfig) {
	cfg := c.cfg
	if raw.keyFile.have == absent && raw.topPos != (pos{}) {
		c.missing(raw.topPos, "key_file", "write key_file: /etc/quorate/cluster.key, made once by quorate keygen and copied to every node")
	}
	cfg.KeyFile = c.file(raw.keyFile, "")
	cfg.DataDir = c.file(raw.dataDir, DefaultDataDir)
	if raw.tls != present {
		return
	}
	for _, f := range []field[string]{raw.tlsCA, raw.tlsCert, raw.tlsKey} {
		if f.have == absent {
			c.missing(raw.tlsPos, f.path, "write all of ca, cert and key, or leave tls out to derive them from key_file")
		}
	}
	cfg.TLS = &TLSFiles{CA: c.file(raw.tlsCA, ""), Cert: c.file(raw.tlsCert, ""), Key: c.file(raw.tlsKey, "")}
}

func (c *checker) socket(raw rawConfig) {
	c.cfg.Socket = c.file(raw.socket, DefaultSocket)
	if raw.socket.ok() && len(c.cfg.Socket) > maxSocketPath {
		bad(c, raw.socket, fmt.Sprintf("must have at most %d bytes, the kernel's limit for a socket's path, has %d",
			maxSocketPath, len(c.cfg.Socket)), "write a shorter path")
	}
}

// file checks a path. A relative one would depend on where the daemon is started.
func (c *checker) file(f field[string], def string) string {
	if !f.ok() {
		return def
	}
	switch {
	case strings.ContainsRune(f.v, 0):
		bad(c, f, "must be a path without a zero byte", "write an absolute path")
	case !filepath.IsAbs(f.v):
		bad(c, f, "must be an absolute path", "begin it with /")
	case filepath.Clean(f.v) == "/":
		bad(c, f, "must not be the root directory", "write a path below it")
	}
	return f.v
}

func (c *checker) log(raw rawConfig) {
	c.cfg.Log.Level = levels[oneOf[word](c, raw.logLevel, "info")]
	c.cfg.Log.JSON = oneOf[word](c, raw.logFormat, "text") == "json"
}

// isVIP reports whether a group has the address, and which.
func (c *checker) isVIP(a netip.Addr) (string, bool) {
	for _, g := range c.cfg.Document.Groups {
		for _, p := range g.Addresses {
			if p.Addr() == a {
				return g.Name, true
			}
		}
	}
	return "", false
}
