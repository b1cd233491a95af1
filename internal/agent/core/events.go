package core

import (
	"net/netip"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

// An Event is something that happened, told to Step.
type Event interface{ event() }

// The events. Each is delivered once, in the order in which it happened.
type (
	// Woke says that the instant which Wake named has come.
	Woke struct{}
	// Applied says that the node's state machine is now in this state.
	Applied struct{ State *fsm.State }
	// Voters says what the node's log now holds of voter sets.
	Voters struct{ Log election.VoterLog }
	// Leader says whom Raft takes for the leader. Zero ID: nobody.
	Leader struct {
		ID   fsm.InstanceID
		Self bool
		Term uint64
	}
	// Datagram is a lease datagram: an election.Renewal, Answer or Release.
	Datagram struct{ Message any }
	// Clock is the kernel's reading of how the clock is steered, or why there is none.
	Clock struct {
		Reading election.ClockReading
		Err     error
	}
	// Placed says where the addresses of a group belong on this host; with an
	// error, that one has no device here.
	Placed struct {
		Group string
		Gen   uint64
		At    []Place
		Err   error
	}
	// Link says whether a device can carry traffic: it exists, is up and has carrier; and
	// what its hardware address is, if it has one.
	Link struct {
		Name string
		OK   bool
		MAC  string
	}
	// AddressGone says that an address has left a device, whoever took it off.
	AddressGone struct {
		Link string
		Addr netip.Addr
	}
	// Swept answers Sweep: without an error, nothing which an earlier life left is on
	// the host any more.
	Swept struct {
		Removed []netip.Addr
		Err     error
	}
	// Bound answers Bind.
	Bound struct {
		Group string
		Gen   uint64
		Err   error
	}
	// Refreshed answers Refresh. Dropped is what was to be taken out, if that is done.
	Refreshed struct {
		Group   string
		Gen     uint64
		Dropped Holding
		Err     error
	}
	// Told answers Tell. More: there are other neighbours to be told.
	Told struct {
		Group string
		Gen   uint64
		More  bool
	}
	// ConnectionsReset answers ResetConnections, however that went.
	ConnectionsReset struct {
		Group string
		Gen   uint64
	}
	// Converged answers Converge. Stray are addresses of the document that are on the host,
	// bear this daemon's mark, and are none of what is held. With Err, nothing could be seen.
	Converged struct {
		Groups []Mended // those that were renewed, or of which something was missing
		Stray  []Place
		Err    error
	}
	// Claimed says that another hardware address than this host's speaks for an address of
	// the document: Count ARP packets or Neighbor Advertisements that claim it, since the
	// event before.
	Claimed struct {
		Link  string
		Addr  netip.Addr
		MAC   string
		Count int
	}
	// Unbound answers Unbind: without an error, every address was seen gone. Shut is a
	// reading of the clock from after all earlier writes to the fence and before the removal
	// began; zero: there is none.
	Unbound struct {
		Group string
		Gen   uint64
		Shut  election.Instant
		Err   error
	}
	// FenceFailed says that a fence entry could not be written; what came after
	// it for that group was not done.
	FenceFailed struct {
		Group string
		Err   error
	}
	// Probed answers Probe. MAC is empty if nobody answered for any address.
	Probed struct {
		Group string
		Gen   uint64
		Addr  netip.Addr
		MAC   string
		Err   error
	}
	// HoldWritten answers WriteHold.
	HoldWritten struct {
		Hold time.Duration
		Err  error
	}
	// Proposed answers Propose; without an error, the command is committed.
	Proposed struct {
		Command fsm.Command
		Err     error
	}
	// JoinAsked says that a node wants to be a voter.
	JoinAsked struct{ Node fsm.Node }
	// NonvoterAdded answers AddNonvoter.
	NonvoterAdded struct {
		Node fsm.Node
		Err  error
	}
	// VoterAdded answers AddVoter.
	VoterAdded struct {
		Node fsm.Node
		Err  error
	}
	// ServerRemoved answers RemoveServer.
	ServerRemoved struct {
		ID  fsm.InstanceID
		Err error
	}
	// Checked is the first result of a check on this node, or that it changed. Why says
	// what is wrong, for people.
	Checked struct {
		Check string
		Pass  bool
		Why   string
	}
	// Covered says whether the fence is on every device of the host.
	Covered struct{ Err error }
	// DiskFailed says that Raft's disk hangs or refuses to write; without an error,
	// that it is well again.
	DiskFailed struct{ Err error }
	// ReleaseAsked says that an operator wants every group off this node.
	ReleaseAsked struct{}
	// AdvertHeard is an advert of another router for one of the group's virtual routers,
	// which Virtual.Refuse accepts. Those of the cluster's own nodes come too. It was
	// heard on the device below a virtual MAC address; the advert's addresses are the
	// event's own.
	AdvertHeard struct {
		Group, Link string
		From        netip.Addr
		Advert      vrrpcompat.Advert
	}
	// SourceChanged says which address adverts to a unicast peer, or for the zero Peer to
	// the group, are sent from on a device. Zero Addr: none can be sent at present.
	SourceChanged struct {
		Link   string
		Family vrrpcompat.Family
		Peer   netip.Addr
		Addr   netip.Addr
	}
	// Stop says that the process is to end.
	Stop struct{}
)

// A Place is an address, the device that it belongs on, and how it stands there.
type Place struct {
	Link   string
	Prefix netip.Prefix
	Spec   fsm.AddressSpec // Link is what counts, whatever its Interface says
}

// A Holding is what a group has on a host: its addresses, and what goes with them. It is
// put on in this order and taken off in reverse.
type Holding struct {
	At     []Place
	Routes []fsm.Route
	Rules  []fsm.Rule
}

func (Woke) event()             {}
func (AdvertHeard) event()      {}
func (SourceChanged) event()    {}
func (Applied) event()          {}
func (Voters) event()           {}
func (Leader) event()           {}
func (Datagram) event()         {}
func (Clock) event()            {}
func (Placed) event()           {}
func (Link) event()             {}
func (AddressGone) event()      {}
func (Swept) event()            {}
func (Bound) event()            {}
func (Refreshed) event()        {}
func (Told) event()             {}
func (ConnectionsReset) event() {}
func (Converged) event()        {}
func (Claimed) event()          {}
func (Unbound) event()          {}
func (FenceFailed) event()      {}
func (Probed) event()           {}
func (HoldWritten) event()      {}
func (Proposed) event()         {}
func (JoinAsked) event()        {}
func (NonvoterAdded) event()    {}
func (VoterAdded) event()       {}
func (ServerRemoved) event()    {}
func (Checked) event()          {}
func (Covered) event()          {}
func (DiskFailed) event()       {}
func (ReleaseAsked) event()     {}
func (Stop) event()             {}

// Mended says how a group was found and left. Missing was put back and Renewed says that
// the lifetimes were renewed; with an error, that could not be.
type Mended struct {
	Group   string
	Gen     uint64
	Missing Holding
	Renewed bool
	Err     error
}

// An Effect is something to be done, returned by Step in the order in which it
// must be done.
type Effect interface{ effect() }

// Held is what an open group has on the host, until when it may have it.
type Held struct {
	Group string
	Gen   uint64
	Holding
	Until election.Instant
	Renew bool // its addresses' lifetimes are due to be renewed
}

// The effects.
type (
	// Send sends each datagram to each address.
	Send struct {
		To        []netip.AddrPort
		Datagrams [][]byte
	}
	// SetFence writes the deadline of each address, before anything else happens:
	// zero shuts. On failure the group's later effects of this step are left out
	// and FenceFailed is reported.
	SetFence struct {
		Group string
		Addrs []netip.Addr
		Until election.Instant
	}
	// ClearFence removes the entries: the addresses are seen gone.
	ClearFence struct {
		Group string
		Addrs []netip.Addr
	}
	// Bind puts the addresses on their devices, for no longer than Until where the
	// lifetime is the fence, and what goes with them.
	Bind struct {
		Group string
		Gen   uint64
		Holding
		Until election.Instant
	}
	// Refresh renews the lifetime of bound addresses and puts back what is missing. Before
	// that it takes out the routes and rules of Drop, which the group has no longer.
	Refresh struct {
		Group string
		Gen   uint64
		Holding
		Drop  Holding
		Until election.Instant
	}
	// Unbind takes the addresses off, and what goes with them, and sees them gone. Reset:
	// their connections are ended too.
	Unbind struct {
		Group string
		Gen   uint64
		Holding
		Reset bool
	}
	// Announce sends gratuitous ARP or unsolicited NA for each of a few dozen addresses on
	// one device, not after Until. First: it is the first since the group opened.
	Announce struct {
		Group string
		At    []Place
		Until election.Instant
		First bool
	}
	// Tell sends a portion of what each neighbour alone is told that is known to have spoken
	// with the addresses, not after Until. Without At, it goes on with that of the same Gen.
	Tell struct {
		Group string
		Gen   uint64
		At    []Place
		Until election.Instant
	}
	// Converge compares what is held with what is there, and puts back what is missing.
	Converge struct {
		Held []Held
		VIPs []netip.Addr // of the document: those that are there and are nobody's are reported
	}
	// ResetConnections ends the TCP connections of addresses that leave, so that clients
	// connect anew at once.
	ResetConnections struct {
		Group string
		Gen   uint64
		Addrs []netip.Addr
	}
	// Advertise sends the group's VRRP advert, not after Until. The priority is what the
	// advert says; 0 gives the group up.
	Advertise struct {
		Group string
		VRRP  fsm.VRRP
		At    []Place
		Until election.Instant
	}
	// Unserve ends what Resolve began: the group is gone.
	Unserve struct{ Group fsm.Group }
	// Insiders says from which addresses the cluster's other nodes send adverts. It
	// replaces the earlier ones.
	Insiders struct{ From []netip.Addr }
	// Probe asks the LAN whether another host has one of the addresses.
	Probe struct {
		Group string
		Gen   uint64
		At    []Place
	}
	// Resolve finds the devices of a group's addresses, and listens for VRRP there.
	Resolve struct {
		Group fsm.Group
		Gen   uint64
	}
	// Sweep removes what an earlier life of the daemon left of these.
	Sweep struct {
		Addrs  []netip.Addr
		Routes []fsm.Route
		Rules  []fsm.Rule
	}
	// WriteHold writes the longest lease and grace confirmed to disk.
	WriteHold struct{ Hold time.Duration }
	// Propose puts a command to the leader, wherever that is.
	Propose struct{ Command fsm.Command }
	// AddNonvoter has a node get the log without a vote, so that it catches up.
	AddNonvoter struct{ Node fsm.Node }
	// AddVoter makes a node a voter. The leader's; spacing is observed already, for a
	// change of the set Over: it must be refused if that is not the last one any more.
	AddVoter struct {
		Node fsm.Node
		Over election.VoterSet
	}
	// RemoveServer takes a removed node from Raft's members, voter or not. The leader's,
	// as AddVoter.
	RemoveServer struct {
		ID   fsm.InstanceID
		Over election.VoterSet
	}
	// Transition says for hooks where a group stands on this node now: active, backup or
	// fault. It comes after everything else in a step.
	Transition struct {
		Group string
		To    string
		// From is what was said last. Empty: nothing, in this process. The same as To: it is
		// said again, because what a hook did may have been lost in a cut that is over now.
		From      string
		Epoch     uint64
		Reason    string
		Addresses []netip.Prefix
	}
	// Campaign makes this node stand for leader at once.
	Campaign struct{}
	// AskCampaign asks another node to take the leadership over.
	AskCampaign struct{ Node fsm.Node }
	// Log is one line for people.
	Log struct {
		Level Level
		Text  string
		Args  []any // key, value, …
	}
	// Done says that the process may end: nothing is held, everyone was told.
	Done struct{}
)

func (Unserve) effect()          {}
func (Insiders) effect()         {}
func (Send) effect()             {}
func (SetFence) effect()         {}
func (ClearFence) effect()       {}
func (Bind) effect()             {}
func (Refresh) effect()          {}
func (Unbind) effect()           {}
func (Tell) effect()             {}
func (Announce) effect()         {}
func (Converge) effect()         {}
func (ResetConnections) effect() {}
func (Advertise) effect()        {}
func (Probe) effect()            {}
func (Resolve) effect()          {}
func (Sweep) effect()            {}
func (WriteHold) effect()        {}
func (Propose) effect()          {}
func (AddNonvoter) effect()      {}
func (AddVoter) effect()         {}
func (RemoveServer) effect()     {}
func (Transition) effect()       {}
func (Campaign) effect()         {}
func (AskCampaign) effect()      {}
func (Log) effect()              {}
func (Done) effect()             {}

// A Level is how much a log line matters.
type Level uint8

const (
	_ Level = iota
	Debug
	Info
	Warn
	Error
)
