package peerlink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

// answerGrace is how long calls under way may still take when this node stops: a
// proposal that was committed should be answered.
const answerGrace = 200 * time.Millisecond

// serveRPC answers calls until ctx ends, and returns when none is under way.
func (l *Link) serveRPC(ctx context.Context, h Handlers) error {
	calls, cancelCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelCalls()
	under := &underway{}
	server := &http.Server{
		Handler:           under.count(l.rpcHandler(h)),
		ReadHeaderTimeout: 2 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(l.cfg.Log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return calls },
	}
	g := errgroup.Group{}
	g.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(calls, answerGrace)
		defer cancel()
		err := server.Shutdown(grace)
		cancelCalls()
		if err != nil {
			err = server.Close()
		}
		under.wait()
		return err
	})
	g.Go(func() error {
		err := server.Serve(l.rpc)
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("serve the other nodes: %w", err)
	})
	return g.Wait()
}

// underway knows the calls that run: http.Server.Close does not wait for them.
type underway struct {
	mu    sync.Mutex
	ended bool
	calls sync.WaitGroup
}

func (u *underway) count(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		if u.ended {
			u.mu.Unlock()
			return
		}
		u.calls.Add(1)
		u.mu.Unlock()
		defer u.calls.Done()
		h.ServeHTTP(w, r)
	})
}

func (u *underway) wait() {
	u.mu.Lock()
	u.ended = true
	u.mu.Unlock()
	u.calls.Wait()
}

func (l *Link) rpcHandler(h Handlers) http.Handler {
	mux := http.NewServeMux()
	handle(mux, pathHello, func(ctx context.Context, _ fsm.InstanceID, _ struct{}) (election.Hello, error) { return h.Hello(ctx) })
	handle(mux, pathPledge, func(ctx context.Context, from fsm.InstanceID, in election.Pledge) (struct{}, error) {
		return struct{}{}, h.Pledge(ctx, from, in)
	})
	handle(mux, pathCampaign, func(ctx context.Context, from fsm.InstanceID, _ struct{}) (struct{}, error) {
		return struct{}{}, h.Campaign(ctx, from)
	})
	handle(mux, pathJoin, func(ctx context.Context, from fsm.InstanceID, in fsm.Node) (struct{}, error) {
		return struct{}{}, h.Join(ctx, from, in)
	})
	handle(mux, pathValidate, func(ctx context.Context, from fsm.InstanceID, in fsm.Document) (Validation, error) {
		return h.Validate(ctx, from, in)
	})
	handle(mux, pathDoctor, h.Doctor)
	handle(mux, pathTry, h.Try)
	handle(mux, pathPropose, func(ctx context.Context, from fsm.InstanceID, in json.RawMessage) (Proposed, error) {
		var strict fsm.Command // a field that this version ignored would be lost to the log of all
		if err := decodeStrict(in, &strict); err != nil {
			return Proposed{}, err
		}
		if _, err := fsm.DecodeCommand(in); err != nil {
			return Proposed{}, &badRequest{err}
		}
		return h.Propose(ctx, from, in)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _ := netip.ParseAddrPort(r.RemoteAddr)
		if refusal := l.judgeRequest(r); refusal != nil {
			refusal.Peer = peer
			l.tally.note(refusal)
			writeError(w, refusal)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	})
}

// judgeRequest applies to a call what the hello applies to a Raft stream.
func (l *Link) judgeRequest(r *http.Request) *Refused {
	remote, expect, err := identityOf(r.Header)
	if err != nil {
		return &Refused{Reason: BadHello, Detail: err.Error()}
	}
	if id, ok := certified(*r.TLS); ok && id != remote.Instance {
		return contradiction(id, remote.Instance)
	}
	local := l.cfg.Identity()
	return judge(local, remote, expect, local.Instance)
}

func identityOf(h http.Header) (remote Identity, expect fsm.InstanceID, err error) {
	if remote.Cluster, err = url.QueryUnescape(h.Get(headerCluster)); err != nil {
		return remote, expect, fmt.Errorf("header %s: %w", headerCluster, err)
	}
	for name, id := range map[string]*fsm.InstanceID{
		headerClusterID: &remote.ClusterID, headerInstance: &remote.Instance, headerExpect: &expect,
	} {
		if *id, err = fsm.ParseInstanceID(h.Get(name)); err != nil {
			return remote, expect, fmt.Errorf("header %s: %w", name, err)
		}
	}
	return remote, expect, nil
}

// handle registers one call: strict JSON in, JSON out.
func handle[In, Out any](mux *http.ServeMux, path string, do func(context.Context, fsm.InstanceID, In) (Out, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		from, err := fsm.ParseInstanceID(r.Header.Get(headerInstance))
		var in In
		if err == nil {
			err = readStrict(r.Body, &in)
		}
		var out Out
		if err == nil {
			out, err = do(r.Context(), from, in)
		}
		if err != nil {
			writeError(w, err)
			return
		}
		writeJSON(w, http.StatusOK, out)
	})
}

// A badRequest is an error of the caller's making.
type badRequest struct{ err error }

func (b *badRequest) Error() string { return "the request is not understood: " + b.err.Error() }
func (b *badRequest) Unwrap() error { return b.err }

func readStrict(r io.Reader, v any) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return &badRequest{err}
	}
	return decodeStrict(body, v)
}

// decodeStrict takes exactly one JSON value without unknown fields.
func decodeStrict(body []byte, v any) error {
	if !json.Valid(body) { // also: not one value followed by another
		return &badRequest{errors.New("the body is not one JSON value")}
	}
	if raw, ok := v.(*json.RawMessage); ok {
		*raw = body
		return nil
	}
	if err := unmarshalStrict(body, v); err != nil {
		return &badRequest{err}
	}
	return nil
}

func writeError(w http.ResponseWriter, err error) {
	status, code := http.StatusInternalServerError, codeFailed
	var refused *Refused
	var bad *badRequest
	var large *http.MaxBytesError
	text := err.Error()
	switch {
	case errors.As(err, &refused):
		status, code, text = http.StatusForbidden, refused.Reason.String(), refused.Detail
	case errors.As(err, &large):
		status, code = http.StatusRequestEntityTooLarge, codeTooLarge
		text = fmt.Sprintf("the body is longer than %d bytes", large.Limit)
	case errors.As(err, &bad):
		status, code = http.StatusBadRequest, codeBadRequest
	default:
		for _, c := range errorCodes {
			if errors.Is(err, c.err) {
				status, code = c.status, c.code
				break
			}
		}
	}
	writeJSON(w, status, errorBody{Error: text, Code: code})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The caller may be gone; it will see that itself.
	_ = json.NewEncoder(w).Encode(v)
}
