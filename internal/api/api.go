// Package api is the daemon's interface for this host: HTTP and JSON on a unix
// socket, the server and the client, and what of it may be read over TCP (Web).
//
//	GET  /v1/status    core.Status
//	GET  /v1/vrrp      VRRP: what this node hears of VRRP and says itself
//	POST /v1/move      {"group","node"} → {"epoch","from","to"}, when that is committed
//	POST /v1/release   → {"groups"}: those that this node is asked to let go of
//	POST /v1/doctor    {"measure_ms"} → doctor.Report, when every node has measured
//	POST /v1/try       TryRequest → TryReport: a fault on purpose, and what it did
//	POST /v1/drain     {"node"} → Drained; /v1/undrain is the reverse. Empty: this node
//	POST /v1/remove    {"node","force"} → Removed
//	POST /v1/apply     ApplyRequest → Applied: the document, if every node agrees
//	POST /v1/rollback  {"revision","seen","dry_run"} → Applied
//	GET  /v1/history   {"revisions"}, oldest first; /v1/history/N → one Revision, with its document
//	GET  /v1/events?after=INDEX&wait=10s  Events: what is new behind an index of the log
//	GET  /v1/explain/GROUP  fsm.Explanation
//	GET  /v1/snapshot  Snapshot
//	POST /v1/restore   Snapshot → Restored
//	GET  /healthz      200 while the loop answers within a second
//	GET  /readyz       200 while this node's vote counts; rolling restarts go by it.
//	                   With election: vrrp there is no vote, and it is 200 soon after
//	                   the start
//
// Orders for the cluster may be given to any node. Each is committed when it is answered;
// what follows from it (a drained node's groups move, a removed node's vote goes) is seen
// in the status. Whatever is not 2xx has the body {"error"}: 409 is a refusal with its
// reason, 503 and 504 say that it could not be done, or that nobody knows whether it was.
// Every answer has the daemon's version in the header Quorate-Version. Who may ask is
// decided by the socket's mode: the daemon's user and the group quorate. Only root and
// the daemon's user may have other programs run than the document names already, or have
// a daemon killed.
package api

import "time"

// VersionHeader is the header of every answer that has the daemon's version.
const VersionHeader = "Quorate-Version"

const (
	pathStatus  = "/v1/status"
	pathVRRP    = "/v1/vrrp"
	pathMove    = "/v1/move"
	pathRelease = "/v1/release"
	pathHealth  = "/healthz"
	pathReady   = "/readyz"
)

// maxPath is the room for a path in sockaddr_un, without the final zero.
const maxPath = 107

const (
	// statusTime bounds how long the agent's loop may take over a question.
	statusTime = time.Second
	// MoveTime bounds how long a move may take to be committed and applied here.
	MoveTime = 5 * time.Second
)

// A MoveRequest is the body of POST /v1/move.
type MoveRequest struct {
	Group string `json:"group"`
	Node  string `json:"node"`
}

// Moved is the answer to a move: it is committed, and To opens the group when the
// old owner has let go.
type Moved struct {
	Epoch uint64 `json:"epoch"` // of the new assignment
	From  string `json:"from"`  // empty: the group had no owner
	To    string `json:"to"`
}

// Released is the answer to a release: these groups were this node's when it was
// asked. It lets go of them next; status shows when that has happened.
type Released struct {
	Groups []string `json:"groups"`
}

// Ready is the body of /readyz with 200.
type Ready struct {
	Ready bool `json:"ready"` // always true
}

// problem is the body of every answer that is not 2xx.
type problem struct {
	Error string `json:"error"`
}
