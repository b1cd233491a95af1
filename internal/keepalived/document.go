package keepalived

import (
	"net/netip"
	"slices"
	"time"
)

// A document is the configuration file to be written.
type document struct {
	comments               []string
	mode                   Mode
	cluster, node, address string
	peers                  []string
	groups                 []*group
	checks                 []*check
	fifo                   string
}

// A group is an entry of vips.
type group struct {
	name            string
	from            *merged
	run             []notifier // what hooks are made of
	addresses       []netip.Prefix
	specs           map[netip.Addr]spec // of those that do not stand as usual
	routes          []route
	rules           []rule
	iface           string
	priority        []nodePriority
	preempt         string
	together        []string
	checks          []string
	tracks          []track
	hooks           hooks
	repeat, refresh *int
	vmac            bool
	vrrp            *vrrp
}

type nodePriority struct {
	node     string
	priority int
}

type track struct {
	name   string
	weight int
}

type hooks struct{ active, backup, fault []string }

func (h hooks) any() bool { return len(h.active)+len(h.backup)+len(h.fault) > 0 }

func (h hooks) equal(o hooks) bool {
	return slices.Equal(h.active, o.active) && slices.Equal(h.backup, o.backup) && slices.Equal(h.fault, o.fault)
}

type vrrp struct {
	id, version int
	priority    []nodePriority // with election: vrrp
	interval    time.Duration
	plain       bool
	password    string
	unicast     []unicastPeer
}

// A check is an entry of checks; exactly one of command to file is set.
type check struct {
	name, node         string // node: whose definition it is
	command            []string
	user               string // with command
	tcp, process, file string
	match              string // with file
	interval, timeout  time.Duration
	rise, fall, weight int
}

// equal compares definitions, whatever their names.
func (c check) equal(o check) bool {
	return slices.Equal(c.command, o.command) && c.user == o.user && c.tcp == o.tcp && c.process == o.process && c.file == o.file &&
		c.match == o.match && c.interval == o.interval && c.timeout == o.timeout && c.rise == o.rise && c.fall == o.fall && c.weight == o.weight
}
