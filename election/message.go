package election

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/quorate/quorate/fsm"
)

// A Sender is what every datagram says of where it comes from.
type Sender struct {
	Cluster fsm.ClusterID
	From    fsm.InstanceID
}

// A Renewal is one node's question to every voter, sent each renew interval and
// whenever something changed: may I hold these groups, and here is how I am. A
// long one is split; its parts carry the same stamp.
type Renewal struct {
	Sender
	// Part of Parts, from 0: what a long one says of all groups is known when all have
	// come. Both are set by AppendRenewal.
	Part, Parts uint8
	Stamp       Stamp         // read before the first part was sent
	Lease       time.Duration // asked for
	Grace       time.Duration // what the fence may run on after the lease
	// Applied is the log index up to which the sender has applied.
	Applied uint64
	Health  Health
	Hears   []Hearsay
	// Sources are where the sender's VRRP adverts come from, at most MaxSources: what
	// comes from there is said by a node of the cluster.
	Sources []netip.Addr
	Groups  []GroupState
}

// MaxSources is how many addresses of its adverts a node can name.
const MaxSources = 16

// Health is how a node sees itself.
type Health struct {
	VoterReady bool // its voter half confirms
	Stopping   bool // its process is about to end
}

// A Hearsay is how long ago the sender last heard another node.
type Hearsay struct {
	Node fsm.InstanceID
	Ago  time.Duration
}

// A Phase is where a group stands on the sender.
type Phase uint8

const (
	_            Phase = iota
	PhaseIdle          // not asked for; sent only to say Unfit or Adjust
	PhaseWaiting       // asked for, not open
	PhaseOpen          // held: the fence is open
	// PhaseDark is about another node's group: its owner, whom the sender hears, has
	// not opened it for so long. A leader that does not hear that owner itself would
	// otherwise not know.
	PhaseDark
	// PhaseYielded is asked for and granted, and not open because of a router outside
	// the cluster. Another owner would find the same, so it is no reason to name one.
	PhaseYielded
)

// String names the phase.
func (p Phase) String() string {
	switch p {
	case PhaseIdle:
		return "idle"
	case PhaseWaiting:
		return "waiting"
	case PhaseOpen:
		return "open"
	case PhaseDark:
		return "dark"
	case PhaseYielded:
		return "yielded"
	}
	return fmt.Sprintf("phase(%d)", uint8(p))
}

// A GroupState is what a renewal says of one group. With PhaseWaiting, PhaseOpen and
// PhaseYielded it asks for a confirmation of Epoch.
type GroupState struct {
	Group string
	Epoch uint64
	Phase Phase
	Since time.Duration // how long it has been in that phase; open: zero while some of its addresses are still to come
	Unfit Unfit         // zero: can hold it
	// Adjust is what the sender's checks and tracked devices add to its priority.
	Adjust int16
}

// Asks reports whether the sender wants the group confirmed.
func (g GroupState) Asks() bool {
	return g.Phase == PhaseWaiting || g.Phase == PhaseOpen || g.Phase == PhaseYielded
}

// An Unfit says why a node cannot hold a group now, or should not. Zero: it can.
type Unfit uint8

const (
	_              Unfit = iota
	UnfitNoDevice        // no device for one of the addresses
	UnfitNoCarrier       // the device has no carrier or is down
	UnfitConflict        // another host answers for an address
	UnfitReleased        // an operator released it by hand
	UnfitKernel          // the kernel refused the address or the fence
	UnfitClock           // the clock is being slewed, or nobody can say
	UnfitCheck           // a check or a tracked device fails: the owner serves on until another is named
)

var unfitNames = [...]string{"", "no-device", "no-carrier", "address-conflict", "released-by-hand", "kernel-refused", "clock-slewed", "check-failed"}

// String is the reason as logs and JSON have it; empty for zero.
func (u Unfit) String() string {
	if int(u) < len(unfitNames) {
		return unfitNames[u]
	}
	return fmt.Sprintf("unfit(%d)", uint8(u))
}

// An Answer is a voter's reply to one renewal datagram.
type Answer struct {
	Sender
	Echo   Stamp         // the renewal's
	Lease  time.Duration // the renewal's
	Log    VoterLog      // of the voter
	Groups []GroupAnswer
}

// A GroupAnswer is a voter's verdict on one group of a renewal.
type GroupAnswer struct {
	Group   string
	Epoch   uint64 // the one asked for
	Verdict Verdict
	// Blocked is for how long from now another instance may still answer for an
	// address of the group, by this voter's notes.
	Blocked time.Duration
}

// A Verdict is a voter's word on one epoch of one group.
type Verdict uint8

const (
	_         Verdict = iota
	Confirmed         // it applied exactly this, and took a note
	Stale             // it applied a newer epoch, or another owner
	Behind            // it has not applied that epoch; it answers again when it has
	NotReady          // it restarted and still waits out its earlier life's notes
	TooLong           // lease and grace exceed the document's bound
	Repeated          // the stamp is not newer than one that it knows, or than a release
	Cloned            // the instance id was heard from two boots in turn
	ClockOff          // its clock is being slewed
	Renewed           // it applied a newer epoch, by which the asker owns the group as before
)

var verdictNames = [...]string{"", "confirmed", "stale", "behind", "not-ready", "too-long", "repeated", "cloned", "clock-off", "renewed"}

// String is the verdict as logs and JSON have it.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) && v != 0 {
		return verdictNames[v]
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

// A Release says of each group that at its stamp the fence was shut and the
// addresses were gone. It is repeated for one lease with the same stamps.
type Release struct {
	Sender
	Boot   BootID
	Groups []GroupRelease
}

// A GroupRelease is one group of a Release.
type GroupRelease struct {
	Group string
	At    Instant
}
