// Package keepalived translates keepalived.conf files, those of all nodes of a
// cluster at once, to one configuration file of this program, and says of every
// statement in them what became of it.
//
// Text comes in through an fs.FS, a text and a report go out; nothing else is read
// and nothing is changed. Reading is strict where keepalived itself is not: it skips
// a word that it does not know, and a block that it does not know takes the rest of
// the enclosing block with it.
package keepalived

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
)

// A Mode is the election that the written file is for.
type Mode uint8

const (
	_    Mode = iota
	Raft      // a cluster
	VRRP      // plain VRRP routers, as keepalived
)

// String is the mode's word in the configuration file.
func (m Mode) String() string {
	switch m {
	case Raft:
		return "raft"
	case VRRP:
		return "vrrp"
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// A Source is one node's file.
type Source struct {
	Node string // empty: the name of the file's directory, else its router_id
	Path string // in the file system, for fs.ReadFile
	Name string // in messages; empty: Path
}

// A Peer is a node of the cluster as the caller knows it.
type Peer struct {
	Node    string // empty: that of the source in the same place
	Address netip.AddrPort
}

// Options are what the files do not say.
type Options struct {
	Mode    Mode
	Cluster string // name of the cluster
	// Node is the node to write the file for; empty: the first.
	Node string
	// Host is the name of a single source that names itself nowhere; may be empty.
	Host string
	// ConfigID is keepalived's config-id by node name; that of the empty name is for
	// nodes not named. Without either it is the node's name.
	ConfigID map[string]string
	// Peers are the cluster's nodes, for Raft; empty: those of the files' unicast peers.
	Peers []Peer
	// Lenient leaves out what keepalived does not know either, rather than refusing it.
	Lenient bool
}

// A Result is the configuration file and what became of each statement.
type Result struct {
	YAML   []byte // nil if nothing could be written
	Report Report
}

// Import reads the sources and translates them. The error joins an *Error for each
// thing that is wrong; the report is there as far as it goes, also with an error.
func Import(fsys fs.FS, sources []Source, opt Options) (*Result, error) {
	res := &Result{}
	probs := &problems{}
	var nodes []*node
	for i, s := range sources {
		if s.Name == "" {
			s.Name = s.Path
		}
		nodes = append(nodes, readNode(fsys, s, i, len(sources), opt, probs, &res.Report))
	}
	checkNames(nodes, probs)
	if err := probs.err(); err != nil {
		return res, err
	}
	tr := &translation{opt: opt, nodes: nodes, report: &res.Report, probs: probs, checks: &checkBook{},
		routesSeen: map[string]bool{}, rulesSeen: map[string]bool{}}
	if !tr.chooseNode() {
		return res, probs.err()
	}
	doc := tr.document()
	if err := probs.err(); err != nil {
		return res, err
	}
	res.YAML = doc.yaml()
	return res, nil
}

func readNode(fsys fs.FS, s Source, i, of int, opt Options, probs *problems, rep *Report) *node {
	name := s.Node
	if name == "" {
		name = nodeOfPath(s.Name)
	}
	id := name
	if id == "" {
		id = opt.Host
	}
	for _, key := range []string{"", name} {
		if v, ok := opt.ConfigID[key]; ok {
			id = v
		}
	}
	r := &reader{fsys: fsys, id: id, probs: probs, report: rep, lenient: opt.Lenient}
	r.file(s.Path, s.Name)
	var statements []*statement
	if !r.full { // else the end is missing, and with it every brace
		statements = parse(r.out, probs)
	}
	n := &node{name: name, source: s, mode: opt.Mode, report: rep, probs: probs, lenient: opt.Lenient, order: i}
	n.read(statements)
	if n.name == "" {
		n.name = sanitise(n.global.routerID, ".")
	}
	if n.name == "" && of == 1 {
		n.name = opt.Host
	}
	return n
}

// checkNames checks that each node has a name of its own.
func checkNames(nodes []*node, probs *problems) {
	seen := map[string]*node{}
	for _, n := range nodes {
		at := pos{file: n.source.Name}
		switch first := seen[n.name]; {
		case n.name == "" || n.name != sanitise(n.name, "."):
			probs.add(at, "no name for this node: its directory and router_id give none", fmt.Sprintf("write NAME=%s, with the node's host name", n.source.Name))
		case first != nil:
			probs.add(at, fmt.Sprintf("node %s a second time, first %s", n.name, first.source.Name), fmt.Sprintf("write NAME=%s, with the node's host name", n.source.Name))
		default:
			seen[n.name] = n
		}
	}
}

// chooseNode puts the node that is written for first.
func (t *translation) chooseNode() bool {
	if t.opt.Node == "" {
		return true
	}
	i := slices.IndexFunc(t.nodes, func(n *node) bool { return n.name == t.opt.Node })
	if i < 0 {
		t.probs.add(pos{}, fmt.Sprintf("no file is of node %s", t.opt.Node), "write one of the names that the files have: "+t.names())
		return false
	}
	t.own = i
	return true
}

// An Error is something that keeps the files from being translated.
type Error struct {
	File string // empty: of the whole
	Line int    // from 1; 0: of the file
	Text string // what is wrong
	Do   string // what to do about it
}

// Error is one line: file:line: what; what to do.
func (e *Error) Error() string {
	s := pos{e.File, e.Line}.String()
	if s != "" {
		s += ": "
	}
	s += printable(e.Text)
	if e.Do != "" {
		s += "; " + printable(e.Do)
	}
	return s
}

// A pos is a line of a file, from 1.
type pos struct {
	file string
	line int
}

// String is file:line, as editors read it.
func (p pos) String() string {
	if p.line == 0 {
		return p.file
	}
	return fmt.Sprintf("%s:%d", p.file, p.line)
}

// maxProblems bounds the errors of one import: beyond that nobody reads.
const maxProblems = 50

// problems gathers what is wrong, all of it and not only the first.
type problems struct {
	errs []error
	more int
	seen map[Error]bool
}

func (p *problems) add(at pos, text, do string) {
	e := Error{File: at.file, Line: at.line, Text: text, Do: do}
	if p.seen[e] {
		return
	}
	if p.seen == nil {
		p.seen = map[Error]bool{}
	}
	if len(p.errs) == maxProblems {
		p.more++
		return
	}
	p.seen[e] = true
	p.errs = append(p.errs, &e)
}

func (p *problems) err() error {
	all := p.errs
	if p.more > 0 {
		all = append(slices.Clone(all), &Error{Text: fmt.Sprintf("%d more errors", p.more), Do: "correct those above first"})
	}
	return errors.Join(all...)
}
