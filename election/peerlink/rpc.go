package peerlink

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// A Proposed is the result of a command that the leader committed and applied.
type Proposed struct {
	Index uint64 `json:"index"` // in the Raft log
}

// ErrNotLeader means that the node asked is not the leader, or not any more.
var ErrNotLeader = errors.New("this node is not the leader")

// Handlers answer the other nodes' calls. Each may be called from any number of
// goroutines at once; ctx ends when the caller is gone or this node stops. from is
// the caller's instance. Errors reach the caller as their text and, through
// errors.Is, as those of package fsm, those of a pledge in package election,
// ErrNotLeader and context.DeadlineExceeded.
type Handlers interface {
	// Hello says who this node is.
	Hello(ctx context.Context) (election.Hello, error)
	// Pledge asks this node to take part in the formation of a cluster, and in no
	// other; nil: given, and on disk.
	Pledge(ctx context.Context, from fsm.InstanceID, p election.Pledge) error
	// Propose puts an encoded fsm.Command into the log. Its form was checked.
	Propose(ctx context.Context, from fsm.InstanceID, command []byte) (Proposed, error)
	// Campaign asks this node to become leader now.
	Campaign(ctx context.Context, from fsm.InstanceID) error
	// Join asks the leader to add a node.
	Join(ctx context.Context, from fsm.InstanceID, node fsm.Node) error
	// Validate asks whether this node could do its part of a document that somebody
	// wants to apply, on its own devices and with its own files.
	Validate(ctx context.Context, from fsm.InstanceID, d fsm.Document) (Validation, error)
	// Doctor asks this node to take part in a survey, and for what it found. What
	// question and answer mean is not this package's affair.
	Doctor(ctx context.Context, from fsm.InstanceID, question json.RawMessage) (json.RawMessage, error)
	// Try asks this node for its part in a fault on purpose. As with Doctor, what question
	// and answer mean is not this package's affair.
	Try(ctx context.Context, from fsm.InstanceID, question json.RawMessage) (json.RawMessage, error)
}

// A Validation is what one node has against a document. Each is one line for people.
type Validation struct {
	Errors   []string `json:"errors,omitempty"`   // the document must not be applied
	Warnings []string `json:"warnings,omitempty"` // allowed, and probably not meant
}

// maxBody bounds requests and answers. A document of a thousand groups has some
// 300 KiB.
const maxBody = 1 << 20

// The paths carry the version of the calls.
const (
	pathHello    = "/peer/1/hello"
	pathPledge   = "/peer/1/pledge"
	pathPropose  = "/peer/1/propose"
	pathCampaign = "/peer/1/campaign"
	pathJoin     = "/peer/1/join"
	pathValidate = "/peer/1/validate"
	pathDoctor   = "/peer/1/doctor"
	pathTry      = "/peer/1/try"
)

// Headers of every request: the caller's identity, and the instance it means to call.
const (
	headerCluster   = "Quorate-Cluster" // the name, percent-encoded
	headerClusterID = "Quorate-Cluster-Id"
	headerInstance  = "Quorate-Instance"
	headerExpect    = "Quorate-Expect"
)

// An errorBody is the JSON of every answer that is no success.
type errorBody struct {
	Error string `json:"error"`
	Code  string `json:"code"`
}

// Codes for errors that belong to no sentinel. The reasons of *Refused are codes too.
const (
	codeBadRequest = "bad-request"
	codeTooLarge   = "too-large"
	codeFailed     = "failed"
)

// errorCodes maps the errors that callers branch on to their codes on the wire.
var errorCodes = []struct {
	err    error
	code   string
	status int
}{
	{fsm.ErrStale, "stale", http.StatusConflict},
	{fsm.ErrUnknown, "unknown", http.StatusNotFound},
	{fsm.ErrNameTaken, "name-taken", http.StatusConflict},
	{fsm.ErrRetired, "retired", http.StatusConflict},
	{fsm.ErrFormed, "formed", http.StatusConflict},
	{fsm.ErrNotFormed, "not-formed", http.StatusConflict},
	{fsm.ErrBadDocument, "bad-document", http.StatusUnprocessableEntity},
	{election.ErrHasState, "has-state", http.StatusConflict},
	{election.ErrPledged, "pledged", http.StatusConflict},
	{election.ErrBadPledge, "bad-pledge", http.StatusUnprocessableEntity},
	{ErrNotLeader, "not-leader", http.StatusMisdirectedRequest},
	{context.DeadlineExceeded, "timeout", http.StatusGatewayTimeout},
}

// A RemoteError is an error that another node returned.
type RemoteError struct {
	Peer netip.AddrPort
	Code string // from errorCodes, or one of bad-request, too-large, failed
	Text string
}

// Error is the remote text with the node's address before it.
func (e *RemoteError) Error() string { return "node " + e.Peer.String() + ": " + e.Text }

// Unwrap returns the sentinel that the code stands for, so that errors.Is works
// across the network.
func (e *RemoteError) Unwrap() error {
	for _, c := range errorCodes {
		if c.code == e.Code {
			return c.err
		}
	}
	return nil
}
