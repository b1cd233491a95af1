package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/doctor"
)

// An Agent runs this node. The server calls it from many goroutines.
type Agent interface {
	// Status describes the node as it is now; it fails when ctx ends first.
	Status(ctx context.Context) (core.Status, error)
	// VRRP describes what the node hears of VRRP; it fails when ctx ends first.
	VRRP(ctx context.Context) (VRRP, error)
	// Move makes a node the owner of a group and returns when that is committed.
	Move(ctx context.Context, group, node string) error
	// Release has this node let go of every group; it does not wait for that.
	Release()
	// Doctor has every node measure, and judges what they found.
	Doctor(ctx context.Context, req DoctorRequest) (doctor.Report, error)
	// Try makes a fault on purpose, and measures what it does. user is who asks.
	Try(ctx context.Context, req TryRequest, user string) (TryReport, error)
	Admin
}

// Options are what else a server is made of. Both fields are needed.
type Options struct {
	Version string // of the daemon, told with every answer
	Log     *slog.Logger
}

const (
	// maxConns bounds the connections at a time; more wait until one is free.
	maxConns = 64
	// lastAnswers is how long requests under way have when the server ends.
	lastAnswers = 500 * time.Millisecond
)

// A Server answers on a unix socket.
type Server struct {
	agent    Agent
	opts     Options
	path     string
	listener *net.UnixListener
}

// Listen makes the socket at path, mode 0660, of group quorate if the system has
// that group. It replaces the socket of a daemon that is dead, and fails with
// ErrInUse while anybody listens there. Nobody is answered before Run.
func Listen(path string, agent Agent, opts Options) (*Server, error) {
	l, err := listen(path)
	if err != nil {
		return nil, err
	}
	warning, err := openTo(path, socketGroup)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if warning != nil {
		opts.Log.Warn("only the daemon's own user can use the socket", "socket", path, "error", warning)
	}
	return &Server{agent: agent, opts: opts, path: path, listener: l}, nil
}

// Run answers until ctx ends, and then removes the socket. It fails only when the
// socket does. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	return s.serve(ctx, netutil.LimitListener(userListener{s.listener}, maxConns), s.handler(), "the API on "+s.path)
}

// serve answers on a listener until ctx ends.
func (s *Server) serve(ctx context.Context, l net.Listener, h http.Handler, what string) error {
	srv := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      max(MoveTime, AdminTime) + 10*time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve %s: %w", what, err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastAnswers)
	defer cancel()
	if srv.Shutdown(last) != nil {
		_ = srv.Close() // whoever is still waiting has waited long enough
	}
	<-ended
	return nil
}

// Close removes the socket of a server that is not to run after all.
func (s *Server) Close() error { return s.listener.Close() }
