package daemon

import (
	"context"
	"log/slog"
	"sync"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/config"
	"github.com/quorate/quorate/internal/health"
	"github.com/quorate/quorate/internal/hooks"
)

// outside is what a node does for its groups besides holding them: it checks the
// services behind them, and tells programs on this host what becomes of them. On a
// witness it is told of no document and does neither.
type outside struct {
	checks   *health.Checker
	hooks    *hooks.Runner // nil: none is run
	revision uint64        // of the document that both know; of who calls changed alone
}

// newOutside makes one; post takes what the checks say.
func newOutside(c *config.Config, post func(core.Event), log *slog.Logger) *outside {
	return &outside{
		checks: health.New(health.Options{Node: c.Node, Log: log, Report: func(check string, pass bool, why string) {
			post(core.Checked{Check: check, Pass: pass, Why: why})
		}}),
		hooks: hooks.New(hooks.Options{Cluster: c.Cluster, Node: c.Node, FIFO: c.FIFO, Priority: shownPriority(c), Log: log}),
	}
}

// shownPriority is the number that consumers of keepalived's lines get: what the node's
// adverts say where it is a router of its own, else how much it wants the group.
func shownPriority(c *config.Config) func(fsm.Group) uint8 {
	return func(g fsm.Group) uint8 {
		if c.Election == config.ElectVRRP {
			return g.VRRP.Priority
		}
		if p, ok := g.Priority[c.Node]; ok {
			return p
		}
		return fsm.DefaultNodePriority
	}
}

// changed takes the document of a state that was applied, before anything comes of it.
func (o *outside) changed(doc fsm.Document) {
	if doc.Revision != o.revision {
		o.take(doc)
	}
}

func (o *outside) take(doc fsm.Document) {
	o.revision = doc.Revision
	if o.hooks != nil {
		o.hooks.Update(doc)
	}
	o.checks.Update(doc)
}

// Transition has the hooks run.
func (o *outside) Transition(t core.Transition) {
	o.hooks.Transition(hooks.Transition{
		Group: t.Group, To: t.To, From: t.From, Epoch: t.Epoch, Reason: t.Reason, Addresses: t.Addresses,
	})
}

// begin has the hooks run from now on. They are not among the agent's tasks, because
// they outlive it: the function that is returned waits until they have been told its
// last word.
func (o *outside) begin(ctx context.Context) (end func()) {
	if o.hooks == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var work sync.WaitGroup
	work.Go(func() { _ = o.hooks.Run(ctx) }) // it never fails
	return func() {
		notify("STOPPING=1") // nobody feeds the watchdog meanwhile
		cancel()
		work.Wait()
	}
}
