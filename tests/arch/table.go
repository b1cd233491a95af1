// Package arch keeps the tree in the shape that the design draws: who may import
// whom, and what a pure package may touch.
//
// The table below is the drawing; check.go compares the sources with it. A new
// folder fails until it has a line here, so that its place is a decision.
package arch

// A floor is a level of the house. Imports go down only, and packages of one
// floor do not import each other but for the edges that the table names.
type floor int

const (
	_       floor = iota
	truth         // knows the standard library only
	pure          // decides: state and time come in as arguments, effects go out as values
	edge          // does: sockets, disks, the kernel
	inside        // puts decisions and deeds together
	command       // wires
	judge         // may import anything; only other judges import it
)

// String is the floor's name in messages.
func (f floor) String() string {
	return [...]string{"no floor", "truth", "pure", "edge", "internal", "command", "tests"}[f]
}

// A place is one package of the tree.
type place struct {
	path    string // below the module's path
	purpose string
	floor   floor
	pure    bool              // no clock, socket, goroutine or randomness
	edges   []string          // packages of its own floor that it may import
	foreign map[string]string // other modules' packages that a pure one may import, and why
}

var table = []place{
	{path: "fsm", floor: truth, pure: true,
		purpose: "the replicated truth of a cluster, and the function that says who should own what"},

	{path: "election", floor: pure, pure: true,
		purpose: "leases (voter and holder), who is lost, who campaigns, and the arithmetic of time"},
	{path: "vrrpcompat", floor: pure, pure: true,
		purpose: "VRRP packets and timers, the router state machine, the gate, and whom a host hears"},
	{path: "vipctl", floor: pure, pure: true,
		purpose: "have and want to operations, the announcement schedule, ARP and NA frames",
		foreign: map[string]string{
			"github.com/mdlayher/arp":      "the codec of ARP packets; its client opens sockets and is not used",
			"github.com/mdlayher/ethernet": "the codec of Ethernet frames; it does nothing else",
			"github.com/mdlayher/ndp":      "the codec of neighbour advertisements; its Conn opens sockets and is not used",
		}},

	{path: "election/raftnode", floor: edge,
		purpose: "hashicorp/raft: stores, transport, membership; commits and leadership to events"},
	{path: "election/gossip", floor: edge,
		purpose: "memberlist: finding nodes, and lease datagrams"},
	{path: "election/peerlink", floor: edge,
		purpose: "the one TCP port between nodes, under mutual TLS: Raft, gossip streams, peer RPC"},
	{path: "vrrpcompat/wire", floor: edge,
		purpose: "protocol 112 sockets"},
	{path: "vipctl/kernel", floor: edge, edges: []string{"vipctl/internal/netns"},
		purpose: "addresses, links and raw frames; what an earlier life left"},
	{path: "vipctl/fence", floor: edge, edges: []string{"vipctl/internal/netns"},
		purpose: "the BPF fence"},
	{path: "vipctl/internal/netns", floor: edge,
		purpose: "runs a function in a given network namespace"},
	{path: "internal/program", floor: edge,
		purpose: "an operator's program, in a process group of its own, to its end"},

	{path: "internal/agent/core", floor: inside, pure: true,
		purpose: "the agent's decisions: events in, effects out"},
	{path: "internal/agent", floor: inside, edges: []string{"internal/agent/core"},
		purpose: "the loop: one goroutine owns every group"},
	{path: "internal/api", floor: inside, edges: []string{"internal/agent/core", "internal/doctor", "internal/try"},
		purpose: "HTTP and JSON on a unix socket"},
	{path: "internal/metrics", floor: inside, edges: []string{"internal/agent/core"},
		purpose: "a node as Prometheus sees it"},
	{path: "internal/config", floor: inside,
		purpose: "YAML to a checked configuration"},
	{path: "internal/doctor", floor: inside, pure: true,
		purpose: "facts that nodes measured to findings: would a failover work"},
	{path: "internal/doctor/host", floor: inside, edges: []string{"internal/doctor"},
		purpose: "facts for the doctor: this host, its disk and fence, and what passes on its devices"},
	{path: "internal/try", floor: inside, pure: true,
		purpose: "questions and answers about an address, on a day of faults, to its outage"},
	{path: "internal/keepalived", floor: inside, edges: []string{"internal/config"},
		purpose: "keepalived.conf to a configuration file, with a report of what became of each statement"},
	{path: "internal/health", floor: inside,
		purpose: "checks of services on this host, and what their results amount to"},
	{path: "internal/hooks", floor: inside,
		purpose: "programs that are run, and lines that are written, when a group changes"},
	{path: "internal/shadow", floor: inside, pure: true,
		purpose: "who has each group really, and who would have it: the book of a node that only looks on"},
	{path: "internal/term", floor: inside,
		purpose: "text for people: tables, colours, lines no wider than the terminal"},

	{path: "internal/daemon", floor: command,
		purpose: "opens, joins and closes the parts of one node in the right order"},
	{path: "cmd/quorate", floor: command, edges: []string{"internal/daemon"},
		purpose: "one binary, daemon and command line"},

	{path: "tests/arch", floor: judge,
		purpose: "this table, and the test that the sources agree with it"},
	{path: "vipctl/internal/nstest", floor: judge,
		purpose: "small networks of namespaces for tests under vipctl"},
	{path: "tests/sim", floor: judge,
		purpose: "clusters in virtual time on one seed: the real agent over a made-up network, log and kernel, under faults"},
	{path: "tests/sim/raftmodel", floor: judge,
		purpose: "an abstract Raft log: terms, votes, logs, configurations and snapshots, in the caller's order"},
	{path: "tests/sim/bubble", floor: judge,
		purpose: "whole nodes with the real Raft and gossip, on networks and kernels in memory, in virtual time"},
	{path: "tests/lab", floor: judge,
		purpose: "hosts as network namespaces, faults, and a probe outside as the judge"},
	{path: "tests/interop", floor: judge,
		purpose: "the matrix: quorate beside real keepalived and FRR, judged by what is on the wire"},
	{path: "tests/demo", floor: judge,
		purpose: "make demo: every fault once, a table and a picture"},
	{path: "tests/record", floor: judge,
		purpose: "make recordings: what the command line shows of a real cluster, as text"},
	{path: "tests/model", floor: judge,
		purpose: "the lease as a model for Spin, searched whole, and with each rule taken out"},
	{path: "tests/soak", floor: judge,
		purpose: "make soak: random faults for as long as asked, judged all the time"},
}

// standard is what a pure package may import of the standard library: what
// computes and formats, and nothing that acts.
var standard = map[string]bool{
	"bytes": true, "cmp": true, "encoding": true, "encoding/binary": true, "encoding/hex": true, "encoding/json": true,
	"errors": true, "fmt": true, "hash": true, "hash/fnv": true, "iter": true, "maps": true, "math": true, "math/bits": true,
	"net": true, "net/netip": true, "slices": true, "sort": true, "strconv": true, "strings": true, "time": true,
	"unicode": true, "unicode/utf8": true,
}

// only lists, for packages that compute and act, the names that compute.
var only = map[string]map[string]bool{
	"net": {"HardwareAddr": true, "ParseMAC": true},
}

// never lists, for packages that mostly compute, the names that act.
var never = map[string]map[string]bool{
	"time": {"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true, "Tick": true,
		"NewTimer": true, "NewTicker": true, "Timer": true, "Ticker": true, "Local": true, "LoadLocation": true},
	"fmt":                     {"Print": true, "Printf": true, "Println": true, "Scan": true, "Scanf": true, "Scanln": true},
	"github.com/mdlayher/arp": {"Client": true, "Dial": true, "New": true},
	"github.com/mdlayher/ndp": {"Conn": true, "Listen": true, "Dial": true, "TestConns": true},
}
