package daemon

import (
	"context"
	"errors"
	"sync"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/metrics"
)

// openHTTP takes the address that metrics, health and the reading API are served on, if
// the file names one.
func (n *node) openHTTP() (err error) {
	n.metrics = metrics.New(n.figures()) // also if nobody is to see them yet: the file may name an address later
	if n.cfg.HTTP == "" {
		return nil
	}
	if n.web, err = n.listenHTTP(n.cfg.HTTP); err != nil {
		return errors.Join(err, n.api.Close())
	}
	return nil
}

func (n *node) listenHTTP(address string) (*api.Web, error) {
	return api.ListenHTTP(address, apiPort{n}, n.metrics.Handler(n.log), api.Options{Version: n.opt.Version, Log: n.log})
}

// serveHTTP answers until ctx ends, at another address when the file says so.
func (n *node) serveHTTP(ctx context.Context) error {
	for web := n.web; ; {
		within, end := context.WithCancel(ctx)
		var work sync.WaitGroup
		if web != nil {
			work.Go(func() { n.serveAt(within, web) })
		}
		select {
		case web = <-n.file.webs:
		case <-ctx.Done():
		}
		end()
		work.Wait()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// serveAt answers at one address. What is only looked at does not end the node.
func (n *node) serveAt(ctx context.Context, web *api.Web) {
	n.log.Info("metrics, health and the reading API are served", "http", web.Address())
	if err := web.Run(ctx); err != nil {
		n.log.Error("metrics are no longer served", "error", err)
	}
}

// figures is where the metrics come from.
func (n *node) figures() metrics.Source {
	s := metrics.Source{Version: n.opt.Version, Status: apiPort{n}.Status, Adverts: n.vrrp.metrics}
	if n.part != nil {
		s.Raft, s.State = n.part.raft.Stats, func() *fsm.State { return n.part.raft.State() }
		s.Self, s.Since = n.part.self.ID, n.part.raft.AtStart().LastCommand
	}
	return s
}

// metrics is the count of adverts as metrics have it.
func (s *speaker) metrics() []metrics.Adverts {
	var out []metrics.Adverts
	for _, a := range s.adverts.all() {
		out = append(out, metrics.Adverts{Out: a.out, VRID: a.vrid, Result: a.result, Count: a.count})
	}
	return out
}

// onlookers are told where this node's groups stand: programs of the operator's, and the
// metrics, which are there before the agent runs or not at all.
type onlookers struct{ n *node }

// Transition tells them of one group.
func (o onlookers) Transition(t core.Transition) {
	if o.n.metrics != nil {
		o.n.metrics.Transition(t)
	}
	o.n.beside.Transition(t)
}
