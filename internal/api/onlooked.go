package api

import (
	"context"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
)

// statusShared is for how long one status serves everybody who asks over TCP.
const statusShared = 100 * time.Millisecond

// An onlooked agent gets one question at a time, and is asked for its status a few times a
// second at most: its loop renews leases, and strangers must not keep it from that.
type onlooked struct {
	Agent
	turn   chan struct{} // has an element while somebody asks, who alone may touch what follows
	status core.Status   // the last; everybody who got it only reads it
	at     time.Time     // zero: there is none yet
}

func newOnlooked(agent Agent) *onlooked {
	return &onlooked{Agent: agent, turn: make(chan struct{}, 1)}
}

// Status is the agent's, of statusShared ago at most.
func (o *onlooked) Status(ctx context.Context) (core.Status, error) {
	return inTurn(ctx, o, func(ctx context.Context) (core.Status, error) {
		if !o.at.IsZero() && time.Since(o.at) < statusShared {
			return o.status, nil
		}
		st, err := o.Agent.Status(ctx)
		if err == nil {
			o.status, o.at = st, time.Now()
		}
		return st, err
	})
}

// VRRP is the agent's.
func (o *onlooked) VRRP(ctx context.Context) (VRRP, error) { return inTurn(ctx, o, o.Agent.VRRP) }

// Explain is the agent's.
func (o *onlooked) Explain(ctx context.Context, group string) (fsm.Explanation, error) {
	return inTurn(ctx, o, func(ctx context.Context) (fsm.Explanation, error) { return o.Agent.Explain(ctx, group) })
}

// inTurn asks when nobody else does any more.
func inTurn[T any](ctx context.Context, o *onlooked, question func(context.Context) (T, error)) (out T, err error) {
	select {
	case o.turn <- struct{}{}:
	case <-ctx.Done():
		return out, ctx.Err()
	}
	defer func() { <-o.turn }()
	return question(ctx)
}
