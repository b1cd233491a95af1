package fsm

import (
	"fmt"
	"time"
)

// DefaultNodePriority is a node's priority for a group whose Priority does not name it.
const DefaultNodePriority = 100

// Preempt is whether a better node takes a group from a worse one that serves it:
// in a cluster with placement priority (the one of the higher score) and spread (the
// one that has less), and with election: vrrp.
type Preempt struct {
	Yes bool
	// Delay is for how long the better one must have been fit, and with election: vrrp
	// how long the worse one is left alone after it was first heard; only with Yes, 0 to 1 h.
	Delay time.Duration
}

// A QuorumLoss is what an owner does when no majority confirms its lease any more.
type QuorumLoss uint8

const (
	_                 QuorumLoss = iota
	QuorumLossRelease            // let go when the lease ends: at most one node answers
	QuorumLossHold               // keep the addresses without proof: the other side of a cut may have another owner
)

// String is the policy's word in the configuration file.
func (q QuorumLoss) String() string {
	switch q {
	case QuorumLossRelease:
		return "release"
	case QuorumLossHold:
		return "hold"
	}
	return fmt.Sprintf("quorum-loss(%d)", uint8(q))
}

// An AllFail is what becomes of a group when no node passes its checks.
type AllFail uint8

const (
	_              AllFail = iota
	AllFailKeep            // it stays where it is: a check may be wrong everywhere at once
	AllFailRelease         // nobody holds it until a node passes
)

// String is the policy's word in the configuration file.
func (a AllFail) String() string {
	switch a {
	case AllFailKeep:
		return "keep"
	case AllFailRelease:
		return "release"
	}
	return fmt.Sprintf("all-fail(%d)", uint8(a))
}

// A Track has a device of the host count for a group besides those that its addresses are on.
type Track struct {
	Interface string
	// Weight is added to the node's priority while the device can carry traffic, if
	// positive, and while it cannot, if negative: -254 to 254. Zero: a node on which it
	// cannot is not to hold the group.
	Weight int
}

// Hooks are programs to be run when a group changes on a node, each as its argv; empty: none.
type Hooks struct {
	Active, Backup, Fault []string
	Timeout               time.Duration // after it the program and its children are killed; if any is set 10 ms to 1 h
}

// Any reports whether there is a program to be run.
func (h Hooks) Any() bool { return len(h.Active)+len(h.Backup)+len(h.Fault) > 0 }

// A Check is one test of a service that every member runs for itself. Exactly one of
// HTTP to Systemd is set.
type Check struct {
	Name    string
	HTTP    *HTTPCheck    `json:",omitempty"`
	TCP     string        `json:",omitempty"` // host:port; passes if it accepts a connection
	ICMP    string        `json:",omitempty"` // address or host name; passes if it answers an echo request
	Command *CommandCheck `json:",omitempty"`
	Process string        `json:",omitempty"` // name of a program; passes while a process of it runs
	File    *FileCheck    `json:",omitempty"`
	Systemd string        `json:",omitempty"` // unit; passes while it is active

	Interval time.Duration // from the start of a run to the start of the next, 100 ms to 1 h
	Timeout  time.Duration // 10 ms to 10 min; a run that takes longer fails
	Rise     int           // passes in a row until it counts as passing, 1 to 100
	Fall     int           // failures in a row until it counts as failing, 1 to 100
	// Weight is as that of a Track: zero: a node that fails is not to hold the group.
	Weight int
}

// An HTTPCheck passes if the answer has the status and, if given, the body matches.
type HTTPCheck struct {
	URL                  string // http or https
	Host                 string // Host header and TLS server name; empty: of the URL
	StatusMin, StatusMax int    // 100 to 599
	Match                string // regular expression (RE2) looked for in the first 64 KiB of the body; empty: any
	CA                   string // file of the certificates to trust; empty: the system's
	Insecure             bool   // do not verify the certificate
}

// A CommandCheck passes if the program ends with 0.
type CommandCheck struct {
	Argv []string
	User string // whom it runs as; empty: the daemon's
}

// A FileCheck passes if the file can be read and, if given, its first 64 KiB match.
type FileCheck struct {
	Path  string
	Match string // regular expression (RE2); empty: any content
}
