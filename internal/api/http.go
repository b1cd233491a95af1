package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"syscall"

	"golang.org/x/net/netutil"
)

// pathMetrics is the one path whose answer is not JSON.
const pathMetrics = "/metrics"

// A Web answers what is to be read, on a TCP address: metrics, health, and the part of
// the API that changes nothing and tells no secrets. There is no password.
type Web struct {
	server   *Server
	address  string
	metrics  http.Handler
	listener net.Listener
}

// ListenHTTP takes the address. Nobody is answered before Run.
func ListenHTTP(address string, agent Agent, metrics http.Handler, opts Options) (*Web, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, explainHTTP(address, err)
	}
	return &Web{server: &Server{agent: newOnlooked(agent), opts: opts}, address: address, metrics: metrics, listener: l}, nil
}

// explainHTTP adds what an operator can do about it.
func explainHTTP(address string, err error) error {
	_, port, _ := net.SplitHostPort(address)
	advice := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		advice = fmt.Sprintf("; another program has the port (ss -ltnp 'sport = :%s' shows which): stop it, or write another port", port)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		advice = "; this host does not have the address: write one that it has at boot, never one of its VIPs, or 127.0.0.1"
	case errors.Is(err, fs.ErrPermission):
		advice = "; ports below 1024 take CAP_NET_BIND_SERVICE: write a higher one"
	}
	return fmt.Errorf("http: listen on %s: %w%s", address, err, advice)
}

// Address is where it listens.
func (w *Web) Address() string { return w.listener.Addr().String() }

// Run answers until ctx ends. It may be called once.
func (w *Web) Run(ctx context.Context) error {
	return w.server.serve(ctx, netutil.LimitListener(w.listener, maxConns), w.handler(), "http on "+w.address)
}

// Close gives the address back of what is not to run after all.
func (w *Web) Close() error { return w.listener.Close() }

func (w *Web) handler() http.Handler {
	s := w.server
	rest := s.answerAll(map[string]route{
		pathStatus:  {method: http.MethodGet, serve: s.status},
		pathVRRP:    {method: http.MethodGet, serve: s.vrrp},
		pathEvents:  {method: http.MethodGet, serve: s.events},
		pathHistory: {method: http.MethodGet, serve: s.history},
		pathExplain: {method: http.MethodGet, serve: s.explain},
		pathHealth:  {method: http.MethodGet, serve: s.health},
		pathReady:   {method: http.MethodGet, serve: s.ready},
	}, "here; what changes something or tells secrets is on the unix socket alone")
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if r.URL.Path != pathMetrics {
			rest.ServeHTTP(out, r)
			return
		}
		out.Header().Set(VersionHeader, s.opts.Version)
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			out.Header().Set("Allow", http.MethodGet)
			s.write(out, refuse(http.StatusMethodNotAllowed, fmt.Errorf("%s takes GET, not %s", pathMetrics, r.Method)))
			return
		}
		w.metrics.ServeHTTP(out, r)
	})
}
