package doctor

import (
	"cmp"
	"slices"
	"time"
)

// A Request asks a node to measure, at the same time as the others. It goes from node to
// node as JSON, as Facts do: fields are added, none is renamed.
type Request struct {
	Nonce   uint64        `json:"nonce"`   // of this survey; everything sent for it bears it
	Measure time.Duration `json:"measure"` // how long to send and listen, ns
	Nodes   []Peer        `json:"nodes"`   // who takes part; a node's number here chooses its test address
}

// A Peer is a node as the one that asks knows it.
type Peer struct {
	Instance string `json:"instance"`
	Name     string `json:"name"`
	Address  string `json:"address"`
}

// MaxNodes bounds a Request.
const MaxNodes = 64

// Facts are what one node found out, about itself and about what it got from the others.
type Facts struct {
	Name     string `json:"name"`
	Instance string `json:"instance"`
	Version  string `json:"version"`
	Role     string `json:"role"`
	// Problems are those of the node's own status.
	Problems []string `json:"problems,omitempty"`
	Host     Host     `json:"host"`
	Devices  []Device `json:"devices,omitempty"` // on which it holds addresses, or would
	LeaseMS  float64  `json:"lease_ms,omitempty"`
	RenewMS  float64  `json:"renew_ms,omitempty"`
	// Datagram is the largest IP packet that leases go in, in bytes.
	Datagram int        `json:"datagram,omitempty"`
	Heard    []Heard    `json:"heard,omitempty"`
	Learnt   []Learnt   `json:"learnt,omitempty"`
	Paths    []PathTo   `json:"paths,omitempty"`
	Claims   []Claim    `json:"claims,omitempty"`
	Rivals   []Rival    `json:"rivals,omitempty"`
	Unknown  []Unlooked `json:"unknown,omitempty"` // what could not be looked at
}

// Unlooked is a check that could not be made, and why.
type Unlooked struct {
	ID     string `json:"id"`
	Device string `json:"device,omitempty"`
	Why    string `json:"why"`
}

// Host is a host by itself, with or without a daemon.
type Host struct {
	Root         bool     `json:"root"`         // the process that looked may do what the daemon must
	Missing      []string `json:"missing"`      // capabilities that the process lacks
	MACs         []string `json:"macs"`         // of all devices
	Kernel       string   `json:"kernel"`       // its release
	TimeShifted  string   `json:"time_shifted"` // why the time namespace is wrong; empty: it is not
	SockDestroy  Has      `json:"sock_destroy"` // the kernel can reset a connection
	AddressProto bool     `json:"address_proto"`
	NonlocalBind int      `json:"nonlocal_bind"`
	Fence        Fence    `json:"fence"`
	Disk         Disk     `json:"disk"`
	// Fabric is the cloud that the machine's firmware names; empty: none that is known.
	Fabric string `json:"fabric,omitempty"`
}

// Has says whether there is something, where that may not be known.
type Has uint8

const (
	_ Has = iota
	Yes
	No
)

// A Fence is what stops the host from answering, and how exactly that works.
type Fence struct {
	Want    string  `json:"want"`               // bpf or lifetime; empty: none, with election: vrrp
	Kind    string  `json:"kind,omitempty"`     // tcx or clsact
	GraceMS float64 `json:"grace_ms,omitempty"` // what is told to voters
	// LateMS is how long after a deadline the last frame passed, and Trials how often that
	// was tried. Below zero: the last frame that was tried before the deadline passed.
	LateMS  float64 `json:"late_ms"`
	Trials  int     `json:"trials"`
	Problem string  `json:"problem,omitempty"` // why it could not be tried
}

// A Disk is how long writes to data_dir took to be on it.
type Disk struct {
	Path     string  `json:"path,omitempty"` // empty: the node keeps nothing
	Writes   int     `json:"writes"`         // that were finished
	MedianMS float64 `json:"median_ms"`
	WorstMS  float64 `json:"worst_ms"`
	// PendingMS is for how long a write had been waiting when the time was over.
	PendingMS float64 `json:"pending_ms,omitempty"`
	Problem   string  `json:"problem,omitempty"`
}

// A Device is one on which addresses of groups stand, or would.
type Device struct {
	Name    string `json:"name"`
	Index   int    `json:"index"` // 0: there is no such device
	MAC     string `json:"mac,omitempty"`
	MTU     int    `json:"mtu"`
	Up      bool   `json:"up"`
	Carrier bool   `json:"carrier"`
	NoARP   bool   `json:"no_arp,omitempty"`
	// Serves are the virtual addresses, which also tell the segment: devices of two nodes
	// that serve one address are to be on one LAN.
	Serves []string `json:"serves"`
	// Adverts4 and Adverts6: adverts of the cluster go out here by multicast. VMAC: some
	// from a virtual MAC address.
	Adverts4 bool `json:"adverts4,omitempty"`
	Adverts6 bool `json:"adverts6,omitempty"`
	VMAC     bool `json:"vmac,omitempty"`
	// Sysctls are effective values by name: what counts for the device, with "all" taken in.
	Sysctls map[string]int `json:"sysctls,omitempty"`
}

// shares reports whether two nodes' devices are to be on one LAN.
func (d Device) shares(o Device) bool {
	return slices.ContainsFunc(d.Serves, func(a string) bool { return slices.Contains(o.Serves, a) })
}

// Heard is how many test packets of a kind came from a node. Those on devices also bear
// the number of the device they were sent by.
type Heard struct {
	Device string `json:"device,omitempty"` // here; empty: by the nodes' own port
	From   string `json:"from"`             // instance
	Index  int    `json:"index,omitempty"`  // of the device there
	Kind   string `json:"kind"`             // Kind.String
	Count  int    `json:"count"`
}

// Learnt is whether a neighbour entry here followed the announcement of a test address.
type Learnt struct {
	Device  string `json:"device"`
	From    string `json:"from"` // instance
	IPv6    bool   `json:"ipv6,omitempty"`
	Changed bool   `json:"changed"`
}

// PathTo is what a node measured towards another.
type PathTo struct {
	To         string  `json:"to"`          // instance
	TCPProblem string  `json:"tcp_problem"` // why a connection could not be made; empty: it could
	Sent       int     `json:"sent"`        // questions by UDP
	Answered   int     `json:"answered"`    // of those
	MedianMS   float64 `json:"median_ms"`   // of the round trips
	HighMS     float64 `json:"high_ms"`     // nine of ten were shorter
	WorstMS    float64 `json:"worst_ms"`
	RatePPM    float64 `json:"rate_ppm"`           // by how much that clock runs faster than ours
	RateErrPPM float64 `json:"rate_err_ppm"`       // to how much that is exact; 0: not measured
	WallMS     float64 `json:"wall_ms"`            // by how much its time of day is ahead of ours
	PathMTU    int     `json:"path_mtu,omitempty"` // as this kernel knows it
}

// A Claim is an answer to the question who has a virtual address.
type Claim struct {
	Device  string `json:"device"`
	Address string `json:"address"`
	MAC     string `json:"mac"`
}

// A Rival is a VRRP or CARP speaker outside the cluster with a virtual router id of ours.
type Rival struct {
	Device    string   `json:"device"`
	Group     string   `json:"group"`
	VRID      int      `json:"vrid"`
	From      string   `json:"from"`
	Dialect   string   `json:"dialect"`
	Speaking  bool     `json:"speaking"`
	VMAC      bool     `json:"vmac"` // the group has a virtual MAC address
	Addresses []string `json:"addresses,omitempty"`
	Ours      []string `json:"ours,omitempty"`
	// Differs are what of its adverts would be refused here, or ours there.
	Differs []string `json:"differs,omitempty"`
}

// A View is the cluster as the node that asked sees it.
type View struct {
	Quorum  bool     `json:"quorum"`
	Leader  string   `json:"leader"`
	Members []Member `json:"members"`
	Groups  []Group  `json:"groups"`
}

// A Member is one node in a View.
type Member struct {
	Name, Instance, Role  string
	Voter, Alive, Drained bool
}

// A Group is one VIP group in a View.
type Group struct {
	Name, Owner, State string
	Open               bool
	Problem            string
	Barred             []string // names of nodes with priority 0
}

// An Answer is what came of asking a node.
type Answer struct {
	Name     string
	Instance string
	Facts    *Facts // nil: none
	Problem  string // why there are none
}

// A Survey is all that there is to judge.
type Survey struct {
	Cluster string
	Node    string // which asked
	Daemon  bool
	// NoDaemon is why none answered, where Daemon is false.
	NoDaemon string
	TookMS   float64
	Unformed bool  // there is to be a cluster, and there is none yet
	View     *View // nil: no cluster
	Answers  []Answer
}

// A ClockSample is one question about another's clock: when it was sent and its answer
// received by ours, and the other's reading in between; all in nanoseconds.
type ClockSample struct{ Sent, Theirs, Received int64 }

func (s ClockSample) trip() int64   { return s.Received - s.Sent }
func (s ClockSample) middle() int64 { return s.Sent + s.trip()/2 }

// ClockRate estimates by how many parts in a million the other clock runs faster than
// ours, and how exact that is, from the quickest samples of the first and the last third.
// It is false when there are too few.
func ClockRate(samples []ClockSample) (ppm, errPPM float64, ok bool) {
	if len(samples) < 6 {
		return 0, 0, false
	}
	quickest := func(part []ClockSample) ClockSample {
		return slices.MinFunc(part, func(a, b ClockSample) int { return cmp.Compare(a.trip(), b.trip()) })
	}
	third := len(samples) / 3
	first, last := quickest(samples[:third]), quickest(samples[len(samples)-third:])
	ours, theirs := last.middle()-first.middle(), last.Theirs-first.Theirs
	if ours <= 0 {
		return 0, 0, false
	}
	// The other's reading may have been taken at any instant of each trip.
	slack := float64(first.trip()+last.trip()) / 2
	return float64(theirs-ours) / float64(ours) * 1e6, slack / float64(ours) * 1e6, true
}
