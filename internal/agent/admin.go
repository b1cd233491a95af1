package agent

import (
	"context"

	"github.com/quorate/quorate/fsm"
)

// Drain keeps a node from owning groups, or with yes false lets it again, and returns
// when that is committed. What it owns moves as soon as others can take it: see Status.
func (a *Agent) Drain(ctx context.Context, node string, yes bool, by string) error {
	return a.order(ctx, func() (fsm.Command, error) { return a.core.Drain(node, yes, by) })
}

// Remove takes a node out of the cluster for good, and returns when that is committed.
// It loses its vote a little later, when the leases of before have run out.
func (a *Agent) Remove(ctx context.Context, node string, force bool, by string) error {
	return a.order(ctx, func() (fsm.Command, error) { return a.core.Remove(node, force, by) })
}

// PlanApply checks a document against the cluster as this node knows it, and returns
// the command that Commit takes when everyone agrees. See core.Core.Apply.
func (a *Agent) PlanApply(ctx context.Context, doc fsm.Document, seen uint64, by string) (fsm.Command, error) {
	return judged(ctx, a, func() (fsm.Command, error) { return a.core.Apply(doc, seen, by) })
}

// Commit has a command committed.
func (a *Agent) Commit(ctx context.Context, cmd fsm.Command) error {
	cmd.At = a.cfg.Stage.Wall()
	return a.cfg.Raft.Propose(ctx, cmd)
}

// Explain says why a group is where it is.
func (a *Agent) Explain(ctx context.Context, group string) (fsm.Explanation, error) {
	return judged(ctx, a, func() (fsm.Explanation, error) { return a.core.Explain(group) })
}

// order runs a check in the loop and has its command committed.
func (a *Agent) order(ctx context.Context, check func() (fsm.Command, error)) error {
	cmd, err := judged(ctx, a, check)
	if err != nil {
		return err
	}
	return a.Commit(ctx, cmd)
}

// judged runs f in the loop; the error is f's, or that of asking.
func judged[T any](ctx context.Context, a *Agent, f func() (T, error)) (T, error) {
	type answer struct {
		out T
		err error
	}
	got, err := query(ctx, a, func() answer {
		out, err := f()
		return answer{out, err}
	})
	if err == nil {
		err = got.err
	}
	return got.out, err
}
