package interop

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A kind is whose router is on the other side.
type kind int

const (
	keepalivedKind kind = iota + 1
	frrKind
)

// String is the name of the program.
func (k kind) String() string {
	switch k {
	case keepalivedKind:
		return "keepalived"
	case frrKind:
		return "FRR"
	}
	return fmt.Sprintf("kind(%d)", int(k))
}

// A mode is what decides on our side.
type mode int

const (
	cluster mode = iota + 1 // three nodes with Raft
	alone                   // one node with election: vrrp
)

// String is the value of `election:`.
func (m mode) String() string {
	switch m {
	case cluster:
		return "raft"
	case alone:
		return "vrrp"
	}
	return fmt.Sprintf("mode(%d)", int(m))
}

// A scenario is a column of the matrix.
type scenario int

const (
	weAreActive scenario = iota + 1
	theyAreActive
	takeoverToUs
	takeoverToThem
	equalPriority
	wrongAuth
	wrongInterval
	wrongList
	badChecksum
)

var scenarios = []scenario{weAreActive, theyAreActive, takeoverToUs, takeoverToThem, equalPriority, wrongAuth, wrongInterval, wrongList, badChecksum}

// String is the head of the column.
func (s scenario) String() string {
	switch s {
	case weAreActive:
		return "we"
	case theyAreActive:
		return "they"
	case takeoverToUs:
		return "to us"
	case takeoverToThem:
		return "to them"
	case equalPriority:
		return "equal"
	case wrongAuth:
		return "auth"
	case wrongInterval:
		return "interval"
	case wrongList:
		return "list"
	case badChecksum:
		return "checksum"
	}
	return fmt.Sprintf("scenario(%d)", int(s))
}

// A virtual is one virtual router as we have it.
type virtual struct {
	vrid      uint8
	version   int
	unicast   bool
	vmac      bool
	addresses []netip.Prefix
	elsewhere netip.Prefix // an address that it does not have
	interval  time.Duration
	password  string
	checksum  string // as configured; empty: not
	also2     bool   // version 2 beside 3
	outranked string // of a cluster; empty: not
	preempt   string // of a router of its own; empty: not
}

func (v virtual) is6() bool { return v.addresses[0].Addr().Is6() }

// A saying is what the other side's router is to say.
type saying struct {
	virtual  virtual
	priority int
	interval time.Duration
	password string
	list     []netip.Prefix
}

// A result is a cell of the matrix.
type result struct {
	failed bool
	// why is a note: what there is to know about a cell that passed, or why it makes no sense.
	why string
}

// A row is one combination of everything but the scenario.
type row struct {
	peer    kind
	mode    mode
	version int
	ip6     bool
	unicast bool
	vmac    bool

	virtual virtual
	cells   map[scenario]result
}

// String names a row in messages.
func (r *row) String() string {
	return strings.Join(r.words(), " ")
}

func (r *row) words() []string {
	pick := func(yes bool, a, b string) string {
		if yes {
			return a
		}
		return b
	}
	return []string{r.peer.String(), r.mode.String(), fmt.Sprintf("v%d", r.version), pick(r.ip6, "IPv6", "IPv4"),
		pick(r.unicast, "unicast", "multicast"), pick(r.vmac, "vmac", "-")}
}

// matrix returns all rows in the order in which they are printed.
func matrix() (all []*row) {
	for _, peer := range []kind{keepalivedKind, frrKind} {
		for _, m := range []mode{cluster, alone} {
			for _, version := range []int{2, 3} {
				for n := range 8 {
					all = append(all, &row{peer: peer, mode: m, version: version, ip6: n&4 != 0, unicast: n&2 != 0, vmac: n&1 != 0,
						cells: map[scenario]result{}})
				}
			}
		}
	}
	return all
}

// nonsense says why there is no such router at all; empty: there is.
func (r *row) nonsense() string {
	switch {
	case r.version == 2 && r.ip6:
		return "VRRPv2 knows no IPv6 (RFC 3768, section 1)"
	case r.peer == frrKind && r.unicast:
		return "FRR's vrrpd speaks multicast only"
	}
	return ""
}

// pointless says why one scenario has nothing to try in this row; empty: it has.
func (r *row) pointless(s scenario) string {
	if s == wrongAuth && r.version == 3 {
		return "VRRPv3 has no authentication (RFC 9568, section 9): there is no packet that could be wrong"
	}
	return ""
}

// layOut is the matrix as text, with notes below.
func layOut(rows []*row) string {
	head := []string{"peer", "election", "", "", "", ""}
	for _, s := range scenarios {
		head = append(head, s.String())
	}
	lines := [][]string{head}
	var notes []string
	note := func(why string) string {
		i := slices.Index(notes, why)
		if i < 0 {
			notes, i = append(notes, why), len(notes)
		}
		return fmt.Sprintf("(%d)", i+1)
	}
	for _, r := range rows {
		line := r.words()
		for _, s := range scenarios {
			c, run := r.cells[s]
			why := r.nonsense()
			if why == "" {
				why = r.pointless(s)
			}
			switch {
			case why != "":
				line = append(line, note(why))
			case !run:
				line = append(line, "not run")
			case c.failed:
				line = append(line, "FAILED")
			case c.why != "":
				line = append(line, "pass "+note(c.why))
			default:
				line = append(line, "pass")
			}
		}
		lines = append(lines, line)
	}
	return columns(lines) + legend + footnotes(notes)
}

const legend = `
we, they   who is Active for longer than the other's down timer: only they send adverts, only they answer
to us      their clean end, their silence, and our coming back with the better priority
to them    our clean end, and their coming with the better priority
equal      a Backup of equal priority stays so; of two that are Active the higher address wins
auth, interval, list, checksum   real routers that are configured so, with priority 254, and made packets: each is counted
           by its name where it has to be refused, and moves nothing
`

func columns(lines [][]string) string {
	var width []int
	for _, l := range lines {
		for i, w := range l {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], len(w))
		}
	}
	var b strings.Builder
	for _, l := range lines {
		var line strings.Builder
		for i, w := range l {
			fmt.Fprintf(&line, "%-*s  ", width[i], w)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

func footnotes(notes []string) string {
	var b strings.Builder
	for i, n := range notes {
		fmt.Fprintf(&b, "(%d) %s\n", i+1, n)
	}
	return b.String()
}
