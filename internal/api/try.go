package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/quorate/quorate/internal/try"
)

const pathTry = "/v1/try"

// Bounds of how long a fault on purpose is watched for at most.
const (
	MinTry     = 2 * time.Second
	MaxTry     = 10 * time.Second
	DefaultTry = 10 * time.Second
)

// trySlack is what a fault may take beyond that: other nodes are asked before, and the
// history is waited for afterwards.
const trySlack = 8 * time.Second

// A TryRequest is the body of POST /v1/try; the answer is a TryReport.
type TryRequest struct {
	Group string `json:"group"`
	// Kill has the daemon of the group's owner kill itself; else the group is moved, to the
	// node To or to the one that is next.
	Kill   bool   `json:"kill,omitempty"`
	To     string `json:"to,omitempty"`
	Seen   uint64 `json:"seen,omitempty"`    // the group's epoch in the plan that was agreed to; 0: the present one
	ForMS  int64  `json:"for_ms,omitempty"`  // how long to watch at most; 0: DefaultTry
	Force  bool   `json:"force,omitempty"`   // whatever speaks against it
	DryRun bool   `json:"dry_run,omitempty"` // say what would happen, and do nothing
}

// For is how long to watch at most.
func (r TryRequest) For() time.Duration {
	if r.ForMS == 0 {
		return DefaultTry
	}
	return time.Duration(r.ForMS) * time.Millisecond
}

// Check says what about a request is wrong by itself.
func (r TryRequest) Check() error {
	switch d := r.For(); {
	case r.Group == "":
		return errors.New(`the body must name the group: {"group": "web"}`)
	case r.Kill && r.To != "":
		return errors.New("who takes over after a kill is not for you to say: leave out the node")
	case d < MinTry || d > MaxTry:
		return fmt.Errorf("watching for %s: want %s to %s", d, MinTry, MaxTry)
	}
	return nil
}

// A TryPlan is what a fault on purpose will do.
type TryPlan struct {
	Group   string `json:"group"`
	Fault   string `json:"fault"`   // move or kill
	Address string `json:"address"` // that is asked about
	Owner   string `json:"owner"`   // before the fault
	Next    string `json:"next"`    // who is to take over
	// Groups are those that the fault takes from the owner, the one itself included.
	Groups  []string `json:"groups"`
	Probes  []string `json:"probes"` // the nodes that ask for the address
	ForMS   int64    `json:"for_ms"`
	WorstMS float64  `json:"worst_failover_ms"` // the longest outage that the configuration allows for
	// Against is what speaks against it; there is something only when it was forced.
	Against []string `json:"against,omitempty"`
}

// A TryReport is what came of it. In the answer to a dry run there are only the plan and
// the epoch.
type TryReport struct {
	TryPlan
	Passed   bool     `json:"passed"`
	Failures []string `json:"failures,omitempty"` // why not
	Notes    []string `json:"notes,omitempty"`
	Probe    string   `json:"probe,omitempty"` // the node that the figures are of; empty: none could tell
	try.Seen
	NewOwner string `json:"new_owner,omitempty"`
	Epoch    uint64 `json:"epoch"` // of the assignment after the fault; of a dry run: now
	// Kept: the daemon that was killed was back before another node had taken over.
	Kept bool `json:"kept,omitempty"`
	// Event is the change of owner in the cluster's history, with its phases; absent: there
	// was none.
	Event *Event `json:"event,omitempty"`
}

func (s *Server) try(r *http.Request) answer {
	var req TryRequest
	if a, ok := readBody(r, &req); !ok {
		return a
	}
	if err := req.Check(); err != nil {
		return refuse(http.StatusBadRequest, err)
	}
	if req.Kill {
		if who := userOf(r); !Trusted(who) {
			return refuse(http.StatusForbidden, fmt.Errorf("user %s may not have daemons killed: ask as root", who))
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), req.For()+trySlack)
	defer cancel()
	report, err := s.agent.Try(ctx, req, userOf(r))
	if err != nil {
		return refuse(orderCode(err), err)
	}
	return answer{http.StatusOK, report}
}

// Try has a fault made, and returns what came of it.
func (c *Client) Try(ctx context.Context, req TryRequest) (TryReport, error) {
	var report TryReport
	err := c.call(ctx, req.For()+trySlack+c.patience, http.MethodPost, pathTry, req, &report)
	return report, err
}
