package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/quorate/quorate/election/peerlink"
	"github.com/quorate/quorate/election/raftnode"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

// maxBody bounds the body of a request, in bytes.
const maxBody = 64 << 10

// An answer is what a route returns; body becomes JSON.
type answer struct {
	code int
	body any
}

func refuse(code int, err error) answer { return answer{code, problem{err.Error()}} }

type route struct {
	method string
	serve  func(*http.Request) answer
	body   int64 // the most that a request may have; zero: maxBody
}

// find returns the route of a path: that path's, or one that ends in a slash and stands
// before the last part of it.
func find(routes map[string]route, path string) (route, bool) {
	if rt, ok := routes[path]; ok && !strings.HasSuffix(path, "/") {
		return rt, true
	}
	i := strings.LastIndexByte(path, '/') + 1
	if i == 0 || i == len(path) {
		return route{}, false
	}
	rt, ok := routes[path[:i]]
	return rt, ok
}

// handler answers every request, those for no route included, in JSON.
func (s *Server) handler() http.Handler {
	routes := map[string]route{
		pathStatus:  {method: http.MethodGet, serve: s.status},
		pathVRRP:    {method: http.MethodGet, serve: s.vrrp},
		pathMove:    {method: http.MethodPost, serve: s.move},
		pathRelease: {method: http.MethodPost, serve: s.release},
		pathDoctor:  {method: http.MethodPost, serve: s.doctor},
		pathTry:     {method: http.MethodPost, serve: s.try},
		pathHealth:  {method: http.MethodGet, serve: s.health},
		pathReady:   {method: http.MethodGet, serve: s.ready},
	}
	maps.Copy(routes, s.adminRoutes())
	return s.answerAll(routes, "in this version ("+s.opts.Version+")")
}

// answerAll answers by the routes. where says what of a path that is none of them there is not.
func (s *Server) answerAll(routes map[string]route, where string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(VersionHeader, s.opts.Version)
		rt, ok := find(routes, r.URL.Path)
		r.Body = http.MaxBytesReader(w, r.Body, cmp.Or(rt.body, maxBody))
		var a answer
		switch {
		case !ok:
			a = refuse(http.StatusNotFound, fmt.Errorf("there is no %s %s", r.URL.Path, where))
		case r.Method != rt.method && (r.Method != http.MethodHead || rt.method != http.MethodGet):
			w.Header().Set("Allow", rt.method)
			a = refuse(http.StatusMethodNotAllowed, fmt.Errorf("%s takes %s, not %s", r.URL.Path, rt.method, r.Method))
		default:
			a = rt.serve(r)
		}
		s.write(w, a)
	})
}

func (s *Server) write(w http.ResponseWriter, a answer) {
	b, err := json.Marshal(a.body)
	if err != nil {
		s.opts.Log.Error("cannot encode an answer of the API", "error", err)
		a.code, b = http.StatusInternalServerError, []byte(`{"error":"the daemon cannot encode its answer; its log says why"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.code)
	_, _ = w.Write(append(b, '\n')) // who asked may have gone
}

// ask asks the agent's loop, which answers at once unless something is very wrong.
func (s *Server) ask(ctx context.Context) (core.Status, error) { return inTime(ctx, s.agent.Status) }

func inTime[T any](ctx context.Context, question func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	out, err := question(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return out, fmt.Errorf("the daemon's loop does not answer within %s: %w", statusTime, err)
	}
	return out, err
}

func (s *Server) status(r *http.Request) answer {
	st, err := s.ask(r.Context())
	if err != nil {
		return refuse(http.StatusServiceUnavailable, err)
	}
	return answer{http.StatusOK, st}
}

func (s *Server) vrrp(r *http.Request) answer {
	v, err := inTime(r.Context(), s.agent.VRRP)
	if err != nil {
		return refuse(http.StatusServiceUnavailable, err)
	}
	return answer{http.StatusOK, v}
}

func (s *Server) health(r *http.Request) answer {
	if _, err := s.ask(r.Context()); err != nil {
		return refuse(http.StatusServiceUnavailable, err)
	}
	return answer{http.StatusOK, struct {
		Healthy bool `json:"healthy"`
	}{true}}
}

// withoutCluster is the election of a node that is a VRRP router of its own.
const withoutCluster = "vrrp"

func (s *Server) ready(r *http.Request) answer {
	st, err := s.ask(r.Context())
	switch {
	case err != nil:
	case st.Election == withoutCluster && !st.Ready:
		err = errors.New("the addresses that an earlier life of the daemon may have left are not removed yet")
	case st.Election == withoutCluster:
		return answer{http.StatusOK, Ready{true}} // it has no vote that could be missing
	case st.ClusterID == "":
		err = fmt.Errorf("the cluster is not formed yet (state %s)", st.State)
	case !st.Ready:
		err = errors.New("this node does not confirm leases yet: after a start it first applies its log " +
			"and waits until every lease that it confirmed before has run out")
	default:
		return answer{http.StatusOK, Ready{true}}
	}
	return refuse(http.StatusServiceUnavailable, err)
}

// applyPoll is how often the server looks whether a committed move was applied here.
const applyPoll = 2 * time.Millisecond

func (s *Server) move(r *http.Request) answer {
	var req MoveRequest
	if a, ok := readBody(r, &req); !ok {
		return a
	}
	if req.Group == "" || req.Node == "" {
		return refuse(http.StatusBadRequest, errors.New(`the body must name both: {"group": "web", "node": "n1"}`))
	}
	ctx, cancel := context.WithTimeout(r.Context(), MoveTime)
	defer cancel()
	st, err := s.ask(ctx)
	if err != nil {
		return refuse(http.StatusServiceUnavailable, err)
	}
	before := vip(st, req.Group)
	if err := s.agent.Move(ctx, req.Group, req.Node); err != nil {
		return refuse(orderCode(err), fmt.Errorf("move %s to %s: %w", req.Group, req.Node, err))
	}
	after, err := s.applied(ctx, req, before.Epoch)
	if err != nil {
		return refuse(http.StatusGatewayTimeout, err)
	}
	if after.Owner != req.Node {
		return refuse(http.StatusConflict, fmt.Errorf("the move of %s to %s was committed and then overtaken: its owner is %s since epoch %d (%s)",
			req.Group, req.Node, orNobody(after.Owner), after.Epoch, after.Reason))
	}
	s.opts.Log.Info("a move was asked for", "group", req.Group, "from", before.Owner, "to", req.Node, "epoch", after.Epoch)
	return answer{http.StatusOK, Moved{Epoch: after.Epoch, From: before.Owner, To: req.Node}}
}

// applied returns the group as it is once this node has applied the move, which a
// leader elsewhere may have committed a moment earlier. Another owner is taken for
// the answer only when the time is over: it may be one from just before the move.
func (s *Server) applied(ctx context.Context, req MoveRequest, since uint64) (core.VIPStatus, error) {
	tick := time.NewTicker(applyPoll)
	defer tick.Stop()
	var last core.VIPStatus
	for {
		st, err := s.ask(ctx)
		if err == nil {
			last = vip(st, req.Group)
		}
		if last.Epoch > since && last.Owner == req.Node {
			return last, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if last.Epoch > since {
				return last, nil
			}
			return last, fmt.Errorf("the move of %s to %s is committed, but this node has not applied it; status on %s says more",
				req.Group, req.Node, req.Node)
		}
	}
}

// orderCode is the code for an error of Move, or of an Admin: what the agent decided
// against is a refusal, the rest are failures.
func orderCode(err error) int {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, raftnode.ErrUnknownOutcome):
		return http.StatusGatewayTimeout
	case errors.Is(err, raftnode.ErrNotLeader), errors.Is(err, peerlink.ErrNotLeader),
		errors.Is(err, raftnode.ErrBusy), errors.Is(err, raftnode.ErrStopped), errors.Is(err, fsm.ErrNotFormed):
		return http.StatusServiceUnavailable
	}
	return http.StatusConflict
}

func (s *Server) release(r *http.Request) answer {
	if a, ok := readBody(r, &struct{}{}); !ok {
		return a
	}
	st, err := s.ask(r.Context())
	if err != nil {
		return refuse(http.StatusServiceUnavailable, err)
	}
	out := Released{Groups: []string{}}
	for _, v := range st.VIPs {
		if v.Owner == st.Node || v.State == "active" {
			out.Groups = append(out.Groups, v.Name)
		}
	}
	s.agent.Release()
	s.opts.Log.Info("a release was asked for", "groups", out.Groups)
	return answer{http.StatusAccepted, out}
}

// readBody reads one JSON object with no other fields than those of v; no body at
// all leaves v as it is.
func readBody(r *http.Request, v any) (answer, bool) {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if errors.Is(err, io.EOF) {
		return answer{}, true
	}
	if err == nil {
		_, err = d.Token()
		if errors.Is(err, io.EOF) {
			return answer{}, true
		}
		if err == nil {
			err = errors.New("there is more after the object")
		}
	}
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		return refuse(http.StatusRequestEntityTooLarge, fmt.Errorf("the body is longer than %d bytes", large.Limit)), false
	}
	return refuse(http.StatusBadRequest, fmt.Errorf("the body must be one JSON object: %w", err)), false
}

// vip returns the group of that name; with no such group, a zero one.
func vip(st core.Status, group string) core.VIPStatus {
	for _, v := range st.VIPs {
		if v.Name == group {
			return v
		}
	}
	return core.VIPStatus{}
}

func orNobody(name string) string {
	if name == "" {
		return "nobody"
	}
	return name
}
