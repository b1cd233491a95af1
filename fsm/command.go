package fsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A Command is one entry of the log. Exactly one of its fields is set. The form
// on disk is JSON: entries are few and small, and a person can read a log dump.
type Command struct {
	Form    *Form     `json:",omitempty"`
	Assign  *Assign   `json:",omitempty"`
	Replace *Replace  `json:",omitempty"`
	Enrol   *Enrol    `json:",omitempty"`
	Drain   *Drain    `json:",omitempty"`
	Retire  *Retire   `json:",omitempty"`
	Lead    *Lead     `json:",omitempty"`
	Report  *Report   `json:",omitempty"`
	At      time.Time `json:",omitzero"` // the proposer's wall clock; for the history only
}

// Form is the first command of a cluster: its identity, nodes and document.
type Form struct {
	Cluster  ClusterID
	Name     string
	Nodes    []Node
	Document Document
}

// Assign names the owner of a group. It takes effect only if the group's epoch
// is still Seen: a leader that decides on an old state changes nothing, so a new
// leader needs no barrier before it acts.
type Assign struct {
	Group  string
	Owner  InstanceID // zero: nobody, with ReasonAllFail only
	Seen   uint64     // the group's epoch that the proposer decided on; 0: had none
	Reason Reason
	// Detected and Elected are how long it took to come to this, for the history: see Phases.
	Detected time.Duration `json:",omitempty"`
	Elected  time.Duration `json:",omitempty"`
}

// Replace puts a new document in the place of revision Seen.
type Replace struct {
	Seen     uint64
	Document Document // its Revision is set on applying
	By       string   // who asked, such as root@n1; for people only
}

// Enrol makes a node known by name, or changes its address. A name that another
// instance has is refused, and so is an instance that was retired.
type Enrol struct{ Node Node }

// Drain keeps a node from owning groups, and with Drained false lets it again. What
// it owns is moved by Place as soon as another can take it. Doing it twice is no error.
type Drain struct {
	Node    InstanceID
	Drained bool
	By      string // as in Replace
}

// Retire takes a node out of the cluster's books for good: its data directory cannot
// come back, its name is free for another instance. What it owns stays in its name
// until Place moves it. Doing it twice is no error.
//
// It does not take the node's vote: that is for the leader to do, in its own time.
type Retire struct {
	Node InstanceID
	By   string // as in Replace
}

// Lead is the first command of every leader's term. Raft's own no-op entry does
// not reach the state machine; this one does, and tells every voter that what the
// state holds is of the new term (lease.md, section 3, wording 5).
type Lead struct{ Node InstanceID }

// Encode returns the command's form in the log.
func (c Command) Encode() ([]byte, error) { return json.Marshal(c) }

// DecodeCommand reads what Encode wrote. An unknown command or field, as a newer
// version might write, is an error: skipping it would let two nodes differ.
func DecodeCommand(b []byte) (Command, error) {
	if !json.Valid(b) {
		return Command{}, errors.New("decode log entry: not one JSON value")
	}
	var c Command
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Command{}, fmt.Errorf("decode log entry: %w", err)
	}
	n := 0
	for _, set := range []bool{c.Form != nil, c.Assign != nil, c.Replace != nil, c.Enrol != nil, c.Drain != nil, c.Retire != nil, c.Lead != nil, c.Report != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return Command{}, fmt.Errorf("decode log entry: %d commands in one entry, want exactly one that this version knows", n)
	}
	return c, nil
}

// Errors of Apply. The command changed nothing.
var (
	// ErrFormed means that the log already formed a cluster.
	ErrFormed = errors.New("the cluster is formed already")
	// ErrNotFormed means a command before the cluster was formed.
	ErrNotFormed = errors.New("the cluster is not formed yet")
	// ErrStale means that the state moved on since the proposer looked: decide anew.
	ErrStale = errors.New("the state has changed since this was decided")
	// ErrUnknown means a group or node that the state does not have.
	ErrUnknown = errors.New("unknown group or node")
	// ErrNameTaken means that another instance has the name.
	ErrNameTaken = errors.New("another instance has this name")
	// ErrRetired means that the instance was removed from the cluster and cannot come
	// back as itself.
	ErrRetired = errors.New("this instance was removed from the cluster")
	// ErrBadDocument means a document that breaks a rule of its own.
	ErrBadDocument = errors.New("bad document")
)
