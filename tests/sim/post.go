package sim

import (
	"fmt"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/tests/sim/raftmodel"
)

// A post is what a story does with single datagrams.
type post struct {
	rules     []postRule
	kept      []letter
	last      []letter // the last of each kind, sender and receiver
	saved     *raftmodel.Snapshot
	savedTerm uint64
}

// A letter is one datagram on its way.
type letter struct {
	kind     string
	from, to *host
	message  any
}

// A handling is what becomes of a datagram.
type handling uint8

const (
	_ handling = iota
	pass
	drop
	keep
)

// A postRule is for datagrams of a kind between two hosts; "*" is any.
type postRule struct {
	what           handling
	kind, from, to string
}

func kindOf(msg any) string {
	switch msg.(type) {
	case election.Renewal:
		return "renewal"
	case election.Answer:
		return "answer"
	case election.Release:
		return "release"
	}
	return fmt.Sprintf("%T", msg)
}

func matches(pattern, s string) bool { return pattern == "*" || pattern == s }

func (l letter) matches(kind, from, to string) bool {
	return matches(kind, l.kind) && matches(from, l.from.node.Name) && matches(to, l.to.node.Name)
}

// rule has the newest word on what it matches.
func (p *post) rule(what handling, kind, from, to string) {
	p.rules = append(p.rules, postRule{what, kind, from, to})
}

// takes reports whether a datagram is not to be delivered now.
func (p *post) takes(w *World, from, to *host, msg any) bool {
	l := letter{kindOf(msg), from, to, msg}
	what := pass
	for _, r := range p.rules {
		if l.matches(r.kind, r.from, r.to) {
			what = r.what
		}
	}
	p.remember(l)
	switch what {
	case keep:
		p.kept = append(p.kept, l)
		w.tell("%s of %s to %s is kept", l.kind, l.from.node.Name, l.to.node.Name)
	case drop:
		w.tell("%s of %s to %s is dropped", l.kind, l.from.node.Name, l.to.node.Name)
	}
	return what != pass
}

func (p *post) remember(l letter) {
	for i, o := range p.last {
		if o.kind == l.kind && o.from == l.from && o.to == l.to {
			p.last[i] = l
			return
		}
	}
	p.last = append(p.last, l)
}

// deliver brings what was kept, and keeps no more of it.
func (p *post) deliver(w *World, kind, from, to string) {
	var left []letter
	for _, l := range p.kept {
		if !l.matches(kind, from, to) {
			left = append(left, l)
			continue
		}
		l.deliver(w)
	}
	p.kept = left
	p.rule(pass, kind, from, to)
}

func (l letter) deliver(w *World) {
	w.tell("%s of %s comes to %s", l.kind, l.from.node.Name, l.to.node.Name)
	w.after(time.Microsecond, func() { l.to.post(core.Datagram{Message: l.message}) })
}

// repeat brings the last datagram of a kind once more.
func (p *post) repeat(w *World, kind string, from, to *host) {
	for _, l := range p.last {
		if l.kind == kind && l.from == from && l.to == to {
			l.deliver(w)
		}
	}
}

// has reports whether something like that is kept.
func (p *post) has(kind, from, to string) bool {
	for _, l := range p.kept {
		if l.matches(kind, from, to) {
			return true
		}
	}
	return false
}
