package api

// VRRP is what a node hears of VRRP on its devices, what it says itself, and what of
// the two does not go together.
type VRRP struct {
	Node       string          `json:"node"`
	Routers    []VRRPRouter    `json:"routers"`    // this node's own
	Neighbours []VRRPNeighbour `json:"neighbours"` // those of others, by device, family, VRID and address
	// Accepted counts the adverts that could be acted on, and Refused the packets that
	// could not, the most frequent reason first.
	Accepted uint64        `json:"accepted"`
	Refused  []VRRPRefusal `json:"refused"`
	// Overruns are packets that the kernel dropped because they came too fast, and
	// Crowded those whose senders were too many to be remembered.
	Overruns uint64 `json:"overruns"`
	Crowded  uint64 `json:"crowded"`
}

// A VRRPRouter is one virtual router of this node: one for each group, device and
// address family.
type VRRPRouter struct {
	Group      string   `json:"group"`
	Device     string   `json:"device"`
	Family     string   `json:"family"` // ipv4 or ipv6
	VRID       uint8    `json:"vrid"`
	State      string   `json:"state"`   // Initialize, Backup or Active, as RFC 9568 has it
	Version    string   `json:"version"` // 2, 3 or both
	Priority   uint8    `json:"priority"`
	IntervalMS float64  `json:"interval_ms"`
	Addresses  []string `json:"addresses"`
	Password   bool     `json:"password"` // version 2 adverts have one
	Source     string   `json:"source"`   // what its adverts come from; empty: nothing at present
	Listening  bool     `json:"listening"`
	// To is the multicast group, or each unicast peer.
	To []VRRPDestination `json:"to"`
	// MAC is the virtual MAC address, with vmac.
	MAC string `json:"mac,omitempty"`
	// Rival is the router outside that outranks this one.
	Rival *VRRPRival `json:"rival,omitempty"`
}

// A VRRPDestination is where a virtual router's adverts go.
type VRRPDestination struct {
	Address string `json:"address"`
	// Checksum is the form of the adverts: pseudo-header, plain or group-pseudo-header.
	Checksum string `json:"checksum"`
	// Mirrored: checksum is auto. Of is the router that it was learned from; empty:
	// none was heard yet.
	Mirrored bool   `json:"mirrored"`
	Of       string `json:"of,omitempty"`
}

// A VRRPRival is a router with a better claim.
type VRRPRival struct {
	Address  string `json:"address"`
	Priority uint8  `json:"priority"`
	// Held: this node answers all the same, as `outranked: hold` says.
	Held bool `json:"held"`
}

// A VRRPNeighbour is a virtual router of another host, once for each version that it
// sends. Fields that its dialect does not have are empty.
type VRRPNeighbour struct {
	Device  string `json:"device"`
	Family  string `json:"family"`
	VRID    uint8  `json:"vrid"` // 0: the packet was too short to have one
	Address string `json:"address"`
	MAC     string `json:"mac,omitempty"`
	// Insider: it is another node of this cluster, whose adverts are no claims.
	Insider bool   `json:"insider"`
	Dialect string `json:"dialect"` // vrrp, carp or unreadable
	// Speaking: it counts as Active, for it was heard lately and has not let go.
	Speaking   bool     `json:"speaking"`
	Version    uint8    `json:"version,omitempty"`
	Priority   *uint8   `json:"priority,omitempty"` // of VRRP only; 0 says that it lets go
	IntervalMS float64  `json:"interval_ms,omitempty"`
	Addresses  []string `json:"addresses,omitempty"`
	Checksum   string   `json:"checksum,omitempty"`
	Auth       string   `json:"auth,omitempty"` // of version 2
	// FirstAgoMS and LastAgoMS are for how long it has been heard, and been silent.
	FirstAgoMS  float64          `json:"first_ago_ms"`
	LastAgoMS   float64          `json:"last_ago_ms"`
	Adverts     uint64           `json:"adverts"` // that could be read
	Refused     uint64           `json:"refused"` // packets that were not to be acted on
	LastRefusal *VRRPWhy         `json:"last_refusal,omitempty"`
	Differences []VRRPDifference `json:"differences,omitempty"`
}

// A VRRPWhy is why a packet was refused.
type VRRPWhy struct {
	Reason string  `json:"reason"` // a name that never changes, such as checksum
	Text   string  `json:"text"`
	AgoMS  float64 `json:"ago_ms"`
}

// A VRRPDifference is one thing in which a neighbour does not go with a group here.
type VRRPDifference struct {
	Group string `json:"group"`
	Field string `json:"field"` // a name that never changes, such as interval
	Here  string `json:"here"`
	There string `json:"there"`
	// Breaks: one of the two refuses the other's adverts for it, so that both become Active.
	Breaks bool   `json:"breaks"`
	Advice string `json:"advice"`
}

// A VRRPRefusal is how many packets were refused for a reason, and the last of them.
type VRRPRefusal struct {
	Reason  string  `json:"reason"`
	Count   uint64  `json:"count"`
	Device  string  `json:"device"`
	VRID    uint8   `json:"vrid"`
	Address string  `json:"address"`
	MAC     string  `json:"mac,omitempty"`
	Text    string  `json:"text"`
	AgoMS   float64 `json:"ago_ms"`
}
