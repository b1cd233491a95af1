package vrrpcompat

import (
	"fmt"
	"net/netip"
)

// A State of a virtual router (RFC 9568, section 6.3). Zero is invalid.
type State uint8

const (
	_ State = iota
	// Initialize waits for a Startup and for an interface that can carry adverts.
	Initialize
	// Backup watches that the Active router is there.
	Backup
	// Active answers for the addresses and says so by adverts.
	Active
)

// String returns the name as RFC 9568 writes it.
func (s State) String() string {
	switch s {
	case Initialize:
		return "Initialize"
	case Backup:
		return "Backup"
	case Active:
		return "Active"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// A Cause is why a Router changed its state. String gives a kebab-case name that serves as a metric label and never
// changes. Zero is invalid.
type Cause uint8

const (
	_ Cause = iota
	// CauseStartup: told to start, and the interface can carry adverts.
	CauseStartup
	// CauseShutdown: told to stop.
	CauseShutdown
	// CauseLinkUp: the interface can carry adverts again.
	CauseLinkUp
	// CauseLinkDown: the interface can carry no adverts.
	CauseLinkDown
	// CauseSilence: no Active router was heard for the Active_Down_Interval.
	CauseSilence
	// CauseReleased: the Active router sent priority 0, and nobody else spoke for the Skew_Time.
	CauseReleased
	// CauseOutranked: a router of a higher priority, or an equal one and a higher address, is Active.
	CauseOutranked

	causeEnd
)

var causeNames = [causeEnd]string{
	CauseStartup:   "startup",
	CauseShutdown:  "shutdown",
	CauseLinkUp:    "link-up",
	CauseLinkDown:  "link-down",
	CauseSilence:   "silence",
	CauseReleased:  "released",
	CauseOutranked: "outranked",
}

// String returns the name, such as "outranked".
func (c Cause) String() string {
	if c == 0 || c >= causeEnd {
		return fmt.Sprintf("cause(%d)", uint8(c))
	}
	return causeNames[c]
}

// An Event is something that happened, told to Router.Step or Gate.Step.
type Event interface{ event() }

// The events of a Router. Each is delivered once, in the order in which it happened. What the socket holds is delivered
// before a Tick: after a pause of the process, a Tick first would find an Active router silent whose adverts wait to be read.
type (
	// Startup says that the virtual router is wanted (RFC 9568, section 6.4.1).
	Startup struct{}
	// Shutdown says that it is not, or that a check which it depends on failed.
	Shutdown struct{}
	// LinkUp says that adverts can be sent from Source, an address of this host's interface and of the virtual router's
	// family; zones are ignored. It is told again when the source changes. With unicast peers it is that towards one of them.
	LinkUp struct{ Source netip.Addr }
	// LinkDown says that none can be sent: the interface is down or gone, or has no address to send from.
	LinkDown struct{}
	// Received is an advert that Decode accepted, which came on the virtual router's interface and family. The addresses in
	// it are not kept. Self is what our adverts to From come from, which is what From compares its own address with; the zero
	// address: what LinkUp said. One that is unspecified (0.0.0.0, ::) says that From cannot be spoken to: it has the better address.
	Received struct {
		From   netip.Addr
		Advert Advert
		Self   netip.Addr
	}
	// SetPriority changes this router's priority while it runs, as tracking does. An address owner keeps its 255, and
	// nobody else gets it: the value is brought into 1 to 254.
	SetPriority struct{ Priority Priority }
	// Tick says that the instant which Wake named has come. At other times it does nothing.
	Tick struct{}
)

// The events that only a Gate has, beside LinkUp, LinkDown, Received and Tick.
type (
	// Speaking says that this node answers for the addresses and sends adverts, or no longer does.
	Speaking struct{ Yes bool }
	// Insiders says from which addresses the other nodes of the cluster send adverts on this interface; zones are ignored. It
	// replaces the earlier ones.
	Insiders struct{ From []netip.Addr }
)

func (Speaking) event()    {}
func (Insiders) event()    {}
func (Startup) event()     {}
func (Shutdown) event()    {}
func (LinkUp) event()      {}
func (LinkDown) event()    {}
func (Received) event()    {}
func (SetPriority) event() {}
func (Tick) event()        {}

// An Effect is something that the caller of Step has to do. Effects are carried out in order.
type Effect interface{ effect() }

// The effects of a Router. Those of a Gate are Send, Announce and Refused of these, and its own.
type (
	// Send is one advert, or one of each version (Virtual.Adverts), with the priority.
	Send struct{ Priority Priority }
	// Bind is to answer for the addresses: ARP or neighbour discovery, and traffic for the virtual MAC address. Accept
	// says whether packets to the addresses themselves are taken (Accept_Mode, RFC 9568 section 6.1); neighbour discovery is always answered.
	Bind struct{ Accept bool }
	// Unbind is to stop all that.
	Unbind struct{}
	// Announce is to tell hosts and switches where the addresses are: gratuitous ARP or unsolicited neighbour advertisements.
	Announce struct{}
	// Changed says that the state is another now.
	Changed struct {
		From, To State
		Cause    Cause
	}
	// Refused says that an advert was not acted on because it is not as it must be.
	Refused struct {
		From netip.Addr
		Err  *Reject
	}
	// OwnerConflict says that another router claims to own the addresses too: it sent priority 255, as we do.
	OwnerConflict struct{ From netip.Addr }
)

// The effects that only a Gate has.
type (
	// Yield is to stop answering for the addresses at once: the Gate does not allow it any more.
	Yield struct{ To Rival }
	// Resume says that the Gate allows it again, or for the first time.
	Resume struct{}
	// Alarm says that a router outranks this node, which keeps the addresses all the same, as configured: two routers
	// answer. It comes once for each time that this begins.
	Alarm struct{ Of Rival }
	// AlarmOver says that no router outranks this node any more.
	AlarmOver struct{}
)

func (Yield) effect()         {}
func (Resume) effect()        {}
func (Alarm) effect()         {}
func (AlarmOver) effect()     {}
func (Send) effect()          {}
func (Bind) effect()          {}
func (Unbind) effect()        {}
func (Announce) effect()      {}
func (Changed) effect()       {}
func (Refused) effect()       {}
func (OwnerConflict) effect() {}

// self is this host's address in a tie with the sender.
func (ev *Received) self(linkUp netip.Addr) netip.Addr {
	if ev.Self.IsValid() {
		return ev.Self.WithZone("")
	}
	return linkUp
}
