package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

const (
	pathDrain    = "/v1/drain"
	pathUndrain  = "/v1/undrain"
	pathRemove   = "/v1/remove"
	pathApply    = "/v1/apply"
	pathRollback = "/v1/rollback"
	pathHistory  = "/v1/history"
	pathRevision = "/v1/history/" // and a revision
	pathExplain  = "/v1/explain/" // and a group
	pathSnapshot = "/v1/snapshot"
	pathRestore  = "/v1/restore"
)

const (
	// AdminTime bounds how long a change of the cluster may take to be checked by every
	// node and committed.
	AdminTime = 10 * time.Second
	// maxDocument bounds the body of a request that carries a document, in bytes. The
	// largest file is 1 MiB, and JSON escapes a part of it.
	maxDocument = 3 << 20
	// maxSnapshot bounds that of one which carries a snapshot.
	maxSnapshot = maxAnswer
)

// An Admin takes orders for the whole cluster, whichever node it is asked on. All of it
// fails when ctx ends first. user is who asks, by the kernel's word.
type Admin interface {
	// Drain keeps a node from owning groups, or with yes false lets it again.
	Drain(ctx context.Context, node string, yes bool, user string) error
	// Remove takes a node out of the cluster for good.
	Remove(ctx context.Context, node string, force bool, user string) error
	// Apply replaces the document, when every node that is heard agrees.
	Apply(ctx context.Context, req ApplyRequest, user string) (Applied, error)
	// Rollback replaces the document by an earlier one, as Apply does.
	Rollback(ctx context.Context, req RollbackRequest, user string) (Applied, error)
	// History lists the revisions that are kept, oldest first, without their documents.
	History(ctx context.Context) ([]Revision, error)
	// Revision returns one with its document.
	Revision(ctx context.Context, revision uint64) (Revision, error)
	// Events returns what is new in the history behind an index, without waiting.
	Events(after uint64) (Events, error)
	// Explain says why a group is where it is.
	Explain(ctx context.Context, group string) (fsm.Explanation, error)
	// Snapshot returns the replicated state.
	Snapshot(ctx context.Context) (Snapshot, error)
	// Restore puts back what a snapshot of this cluster says that operators wanted.
	Restore(ctx context.Context, s Snapshot, user string) (Restored, error)
}

// A NodeRequest is the body of POST /v1/drain, /v1/undrain and /v1/remove.
type NodeRequest struct {
	Node  string `json:"node"`            // empty, but not to remove: the node that is asked
	Force bool   `json:"force,omitempty"` // with /v1/remove only: whatever it costs in service
}

// Drained is the answer to a drain or undrain: it is committed. Groups are those that
// the node owned when it was asked; they move next.
type Drained struct {
	Node    string   `json:"node"`
	Drained bool     `json:"drained"`
	Groups  []string `json:"groups"`
}

// Removed is the answer to a removal: it is committed, the name is free, and the vote
// follows when the leases of before have run out.
type Removed struct {
	Node   string `json:"node"`
	Voters int    `json:"voters"` // how many are left
}

// An ApplyRequest is the body of POST /v1/apply.
type ApplyRequest struct {
	Name   string `json:"name"`           // of the file, for messages
	Text   string `json:"text"`           // a configuration file; only vips, checks and hooks are read
	Seen   uint64 `json:"seen,omitempty"` // the revision that it was made for; 0: the present one
	DryRun bool   `json:"dry_run,omitempty"`
}

// A RollbackRequest is the body of POST /v1/rollback.
type RollbackRequest struct {
	Revision uint64 `json:"revision"`
	Seen     uint64 `json:"seen,omitempty"`
	DryRun   bool   `json:"dry_run,omitempty"`
}

// Applied is what an apply or rollback did; of a dry run, what it would do.
type Applied struct {
	Before   uint64   `json:"before"`   // the revision that it replaces
	Revision uint64   `json:"revision"` // the one that it makes; the same as before: nothing changes
	DryRun   bool     `json:"dry_run"`
	Diff     string   `json:"diff"`              // of the two documents, unified
	Effects  []string `json:"effects"`           // what that does to which group, one line each
	Checked  []string `json:"checked"`           // the nodes that have nothing against it
	Unheard  []string `json:"unheard,omitempty"` // those that could not be asked
	Warnings []string `json:"warnings,omitempty"`
}

// A Revision is one document that the cluster had.
type Revision struct {
	Revision uint64    `json:"revision"`
	At       time.Time `json:"at"`
	By       string    `json:"by"` // empty: the one that the cluster was formed with
	Groups   int       `json:"groups"`
	Document string    `json:"document,omitempty"` // as a configuration file has it
}

// Restored is what a restore did.
type Restored struct {
	Applied
	Drained   []string `json:"drained,omitempty"`   // nodes that are drained now and were not
	Undrained []string `json:"undrained,omitempty"` // and the reverse
	Gone      []string `json:"gone,omitempty"`      // nodes that were drained and are no more
}

type history struct {
	Revisions []Revision `json:"revisions"`
}

// adminRoutes are those of the cluster's affairs.
func (s *Server) adminRoutes() map[string]route {
	return map[string]route{
		pathDrain:    {method: http.MethodPost, serve: func(r *http.Request) answer { return s.drain(r, true) }},
		pathUndrain:  {method: http.MethodPost, serve: func(r *http.Request) answer { return s.drain(r, false) }},
		pathRemove:   {method: http.MethodPost, serve: s.remove},
		pathApply:    {method: http.MethodPost, serve: s.apply, body: maxDocument},
		pathRollback: {method: http.MethodPost, serve: s.rollback},
		pathHistory:  {method: http.MethodGet, serve: s.history},
		pathRevision: {method: http.MethodGet, serve: s.revision},
		pathExplain:  {method: http.MethodGet, serve: s.explain},
		pathEvents:   {method: http.MethodGet, serve: s.events},
		pathSnapshot: {method: http.MethodGet, serve: s.snapshot},
		pathRestore:  {method: http.MethodPost, serve: s.restore, body: maxSnapshot},
	}
}

// userOf is who asks: the listener makes it the remote address.
func userOf(r *http.Request) string { return r.RemoteAddr }

// ordered runs one order within its time, and makes its error an answer.
func ordered[T any](s *Server, r *http.Request, what string, do func(context.Context) (T, error)) answer {
	ctx, cancel := context.WithTimeout(r.Context(), AdminTime)
	defer cancel()
	out, err := do(ctx)
	if err != nil {
		return refuse(orderCode(err), fmt.Errorf("%s: %w", what, err))
	}
	if r.Method == http.MethodPost {
		s.opts.Log.Info("an order was carried out", "order", what, "by", userOf(r))
	}
	return answer{http.StatusOK, out}
}

func (s *Server) drain(r *http.Request, yes bool) answer {
	var req NodeRequest
	if a, ok := readBody(r, &req); !ok {
		return a
	}
	what := "drain"
	if !yes {
		what = "undrain"
	}
	if req.Force {
		return refuse(http.StatusBadRequest, errors.New("force is for /v1/remove only"))
	}
	st, err := s.ask(r.Context())
	if err != nil {
		return refuse(http.StatusServiceUnavailable, err)
	}
	if req.Node == "" {
		req.Node = st.Node
	}
	return ordered(s, r, what+" "+req.Node, func(ctx context.Context) (Drained, error) {
		return Drained{Node: req.Node, Drained: yes, Groups: ownedBy(st, req.Node)}, s.agent.Drain(ctx, req.Node, yes, userOf(r))
	})
}

// ownedBy are the groups that a node owns.
func ownedBy(st core.Status, node string) []string {
	out := []string{}
	for _, v := range st.VIPs {
		if v.Owner == node {
			out = append(out, v.Name)
		}
	}
	return out
}

func (s *Server) remove(r *http.Request) answer {
	var req NodeRequest
	if a, ok := readBody(r, &req); !ok {
		return a
	}
	if req.Node == "" {
		return refuse(http.StatusBadRequest, errors.New(`the body must name the node: {"node": "n3"}`))
	}
	st, err := s.ask(r.Context())
	if err != nil {
		return refuse(http.StatusServiceUnavailable, err)
	}
	out := Removed{Node: req.Node}
	for _, m := range st.Members {
		if m.Voter && m.Name != req.Node {
			out.Voters++
		}
	}
	return ordered(s, r, "remove "+req.Node, func(ctx context.Context) (Removed, error) {
		return out, s.agent.Remove(ctx, req.Node, req.Force, userOf(r))
	})
}

func (s *Server) apply(r *http.Request) answer {
	var req ApplyRequest
	if a, ok := readBody(r, &req); !ok {
		return a
	}
	if req.Text == "" {
		return refuse(http.StatusBadRequest, errors.New(`the body must have the configuration file: {"name": "quorate.yaml", "text": "vips: …"}`))
	}
	if req.Name == "" {
		req.Name = "the document"
	}
	return ordered(s, r, "apply "+req.Name, func(ctx context.Context) (Applied, error) { return s.agent.Apply(ctx, req, userOf(r)) })
}

func (s *Server) rollback(r *http.Request) answer {
	var req RollbackRequest
	if a, ok := readBody(r, &req); !ok {
		return a
	}
	if req.Revision == 0 {
		return refuse(http.StatusBadRequest, errors.New(`the body must name the revision: {"revision": 3}`))
	}
	what := fmt.Sprintf("rollback to revision %d", req.Revision)
	return ordered(s, r, what, func(ctx context.Context) (Applied, error) { return s.agent.Rollback(ctx, req, userOf(r)) })
}

func (s *Server) history(r *http.Request) answer {
	return ordered(s, r, "history", func(ctx context.Context) (history, error) {
		all, err := s.agent.History(ctx)
		return history{all}, err
	})
}

func (s *Server) revision(r *http.Request) answer {
	text := r.URL.Path[len(pathRevision):]
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return refuse(http.StatusBadRequest, fmt.Errorf("%q is no revision: they are numbers from 1, see %s", text, pathHistory))
	}
	return ordered(s, r, "revision "+text, func(ctx context.Context) (Revision, error) { return s.agent.Revision(ctx, n) })
}

func (s *Server) explain(r *http.Request) answer {
	group := r.URL.Path[len(pathExplain):]
	return ordered(s, r, "explain "+group, func(ctx context.Context) (fsm.Explanation, error) { return s.agent.Explain(ctx, group) })
}

func (s *Server) snapshot(r *http.Request) answer {
	return ordered(s, r, "snapshot", s.agent.Snapshot)
}

func (s *Server) restore(r *http.Request) answer {
	var snap Snapshot
	if a, ok := readBody(r, &snap); !ok {
		return a
	}
	return ordered(s, r, "restore", func(ctx context.Context) (Restored, error) { return s.agent.Restore(ctx, snap, userOf(r)) })
}
