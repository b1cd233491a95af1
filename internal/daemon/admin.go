package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/election/peerlink"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/api"
	"github.com/quorate/quorate/internal/config"
)

// by is who gave an order, as the history has it.
func (p apiPort) by(user string) string { return user + "@" + p.n.cfg.Node }

// formed returns the cluster's state, which there is once it is formed.
func (p apiPort) formed() (*fsm.State, error) {
	if p.n.part == nil {
		return nil, core.ErrNoCluster
	}
	st := p.n.part.raft.State()
	if !st.Formed() {
		return nil, fsm.ErrNotFormed
	}
	return st, nil
}

// Drain keeps a node from owning groups, or lets it again.
func (p apiPort) Drain(ctx context.Context, node string, yes bool, user string) error {
	return p.n.agent.Drain(ctx, node, yes, p.by(user))
}

// Remove takes a node out of the cluster for good.
func (p apiPort) Remove(ctx context.Context, node string, force bool, user string) error {
	return p.n.agent.Remove(ctx, node, force, p.by(user))
}

// Explain says why a group is where it is.
func (p apiPort) Explain(ctx context.Context, group string) (fsm.Explanation, error) {
	return p.n.agent.Explain(ctx, group)
}

// Apply replaces the document by the one of a configuration file.
func (p apiPort) Apply(ctx context.Context, req api.ApplyRequest, user string) (api.Applied, error) {
	st, err := p.formed()
	if err != nil {
		return api.Applied{}, err
	}
	doc, err := config.ParseDocument(req.Name, []byte(req.Text))
	if err != nil {
		return api.Applied{}, err
	}
	// Of an earlier document it is not asked: a node that it names may have been removed.
	if err := st.CheckNodes(doc); err != nil {
		return api.Applied{}, err
	}
	return p.replace(ctx, replacement{doc, req.Seen, req.DryRun, user, p.by(user)})
}

// Rollback replaces the document by an earlier one.
func (p apiPort) Rollback(ctx context.Context, req api.RollbackRequest, user string) (api.Applied, error) {
	r, err := p.revision(req.Revision)
	if err != nil {
		return api.Applied{}, err
	}
	by := fmt.Sprintf("%s (rollback to %d)", p.by(user), req.Revision)
	return p.replace(ctx, replacement{r.Document, req.Seen, req.DryRun, user, by})
}

// A replacement is a document that somebody wants in the place of revision seen; zero:
// of the present one.
type replacement struct {
	doc      fsm.Document
	seen     uint64
	dry      bool
	user, by string
}

// replace has every node that is heard look at a document, and commits it when none has
// anything against it: all of it or nothing. What is committed meanwhile has it refused.
func (p apiPort) replace(ctx context.Context, r replacement) (api.Applied, error) {
	cmd, err := p.n.agent.PlanApply(ctx, r.doc, r.seen, r.by)
	if err != nil {
		return api.Applied{}, err
	}
	seen, err := p.revision(cmd.Replace.Seen)
	if err != nil {
		return api.Applied{}, err
	}
	before, after := seen.Document, cmd.Replace.Document
	if err := mayRun(before, after, r.user); err != nil {
		return api.Applied{}, err
	}
	out := api.Applied{Before: before.Revision, Revision: before.Revision, DryRun: r.dry, Diff: diffDocuments(before, after),
		Effects: effects(before, after), Checked: []string{}}
	for _, w := range config.Warnings(after) {
		out.Warnings = append(out.Warnings, w.String())
	}
	if out.Diff == "" {
		return out, nil
	}
	if err := p.askEveryone(ctx, after, &out); err != nil {
		return out, err
	}
	out.Revision++
	if r.dry {
		return out, nil
	}
	if err := p.n.agent.Commit(ctx, cmd); err != nil {
		return out, err
	}
	p.awaitRevision(ctx, out.Revision)
	return out, nil
}

// awaitRevision returns when this node has applied a revision that is committed, so that
// who gives the next order here is not told of an older one. When ctx ends first, it is
// committed all the same.
func (p apiPort) awaitRevision(ctx context.Context, revision uint64) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for p.n.part.raft.State().Document.Revision < revision {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// askEveryone has each node that is heard check the document on its own host.
func (p apiPort) askEveryone(ctx context.Context, doc fsm.Document, out *api.Applied) error {
	st, err := p.n.agent.Status(ctx)
	if err != nil {
		return err
	}
	type reply struct {
		peerlink.Validation
		err error
	}
	replies := make([]reply, len(st.Members))
	var asking sync.WaitGroup
	for i, m := range st.Members {
		if m.Alive {
			asking.Go(func() { replies[i].Validation, replies[i].err = p.n.part.validateOn(ctx, m.Instance, doc) })
		}
	}
	asking.Wait()
	var errs []error
	for i, m := range st.Members {
		r := replies[i]
		switch {
		case !m.Alive:
			out.Unheard = append(out.Unheard, m.Name)
			continue
		case r.err != nil:
			errs = append(errs, fmt.Errorf("%s cannot check it: %w", m.Name, r.err))
		case len(r.Errors) == 0:
			out.Checked = append(out.Checked, m.Name)
		}
		for _, text := range r.Errors {
			errs = append(errs, fmt.Errorf("%s: %s", m.Name, text))
		}
		for _, text := range r.Warnings {
			out.Warnings = append(out.Warnings, m.Name+": "+text)
		}
	}
	if errs != nil {
		return fmt.Errorf("nothing was changed, because not every node can do its part:\n%w", errors.Join(errs...))
	}
	return nil
}

// validateOn asks a node, which may be this one, what it has against a document.
func (n *Participant) validateOn(ctx context.Context, instance string, doc fsm.Document) (peerlink.Validation, error) {
	id, err := fsm.ParseInstanceID(instance)
	if err != nil {
		return peerlink.Validation{}, err
	}
	if id == n.self.ID {
		return n.validated(doc), nil
	}
	node, ok := n.raft.State().Nodes[id]
	if !ok {
		return peerlink.Validation{}, fsm.ErrUnknown // removed between the two looks
	}
	return n.link.Client().Validate(ctx, peerlink.Peer{Address: node.Address, Instance: id}, doc)
}

func (n *Participant) validated(doc fsm.Document) peerlink.Validation {
	if n.validate == nil {
		return peerlink.Validation{}
	}
	return n.validate(doc)
}

// Validate answers another node that wants to apply a document.
func (h handlers) Validate(_ context.Context, _ fsm.InstanceID, doc fsm.Document) (peerlink.Validation, error) {
	if err := doc.Check(); err != nil {
		return peerlink.Validation{}, err
	}
	return h.n.validated(doc), nil
}

// validate checks a document against this host: its devices, and the programs and users
// that it names.
func (n *node) validate(doc fsm.Document) peerlink.Validation {
	var out peerlink.Validation
	if n.cfg.Role == fsm.Witness {
		return out // holds nothing, and checks nothing
	}
	links, err := n.opt.Links()
	if err != nil {
		out.Errors = append(out.Errors, err.Error())
		return out
	}
	links = slices.DeleteFunc(links, func(l config.Link) bool {
		_, above := n.macs.parent(l.Name) // what stands there came with a group
		return above
	})
	for _, problem := range config.CheckDocument(doc, links, config.WorstFailover(n.cfg.Lease, n.cfg.Grace())) {
		out.Errors = append(out.Errors, problem.String())
	}
	for _, problem := range config.CheckPrograms(doc) {
		out.Errors = append(out.Errors, problem.String())
	}
	return out
}

// A program is one that a document has every member run.
type program struct {
	path string // of the key that names it
	argv []string
	user string // whom it runs as; empty: the daemon's
}

// programs are all that a document names.
func programs(doc fsm.Document) []program {
	var out []program
	hooks := func(path string, h fsm.Hooks) {
		for _, p := range []program{{path + "hooks.active", h.Active, ""}, {path + "hooks.backup", h.Backup, ""}, {path + "hooks.fault", h.Fault, ""}} {
			if len(p.argv) > 0 {
				out = append(out, p)
			}
		}
	}
	hooks("", doc.Hooks)
	for _, g := range doc.Groups {
		hooks("vips."+g.Name+".", g.Hooks)
	}
	for _, c := range doc.Checks {
		if c.Command != nil {
			out = append(out, program{"checks." + c.Name + ".command", c.Command.Argv, c.Command.User})
		}
	}
	return out
}

// mayRun keeps those who may use the socket from becoming the daemon's user: a program
// that the document does not name yet is for that user and root to name.
func mayRun(before, after fsm.Document, who string) error {
	if api.Trusted(who) {
		return nil
	}
	known := map[string]bool{}
	for _, p := range programs(before) {
		known[p.line()] = true
	}
	for _, p := range programs(after) {
		if !known[p.line()] {
			return fmt.Errorf("%s: the document would have the daemons run %s, and user %s may not say what they run: apply it as root",
				p.path, strings.Join(p.argv, " "), who)
		}
	}
	return nil
}

func (p program) line() string { return p.user + "\x00" + strings.Join(p.argv, "\x00") }

// revision finds a revision that the cluster still remembers.
func (p apiPort) revision(n uint64) (fsm.Revision, error) {
	st, err := p.formed()
	if err != nil {
		return fsm.Revision{}, err
	}
	r, ok := st.Revision(n)
	if !ok && n == st.Document.Revision { // of a cluster from before there was a history
		return fsm.Revision{Revision: n, Document: st.Document}, nil
	}
	if !ok {
		first := st.Document.Revision
		if len(st.Revisions) > 0 {
			first = st.Revisions[0].Revision
		}
		return r, fmt.Errorf("there is no revision %d: the cluster remembers %d to %d; `quorate history` lists them", n, first, st.Document.Revision)
	}
	return r, nil
}

// Revision returns a revision with its document.
func (p apiPort) Revision(_ context.Context, n uint64) (api.Revision, error) {
	r, err := p.revision(n)
	if err != nil {
		return api.Revision{}, err
	}
	out := shown(r)
	out.Document = string(config.RenderDocument(r.Document))
	return out, nil
}

// History lists the revisions that are kept.
func (p apiPort) History(context.Context) ([]api.Revision, error) {
	st, err := p.formed()
	if err != nil {
		return nil, err
	}
	out := []api.Revision{}
	for _, r := range st.Revisions {
		out = append(out, shown(r))
	}
	return out, nil
}

func shown(r fsm.Revision) api.Revision {
	return api.Revision{Revision: r.Revision, At: r.At, By: r.By, Groups: len(r.Document.Groups)}
}

// Snapshot returns the replicated state.
func (p apiPort) Snapshot(context.Context) (api.Snapshot, error) {
	st, err := p.formed()
	if err != nil {
		return api.Snapshot{}, err
	}
	return api.TakeSnapshot(st, p.n.cfg.Node, time.Now())
}

// Restore puts back the document and who is drained. See api.Snapshot for what is not.
func (p apiPort) Restore(ctx context.Context, s api.Snapshot, user string) (api.Restored, error) {
	was, err := s.Open()
	if err != nil {
		return api.Restored{}, err
	}
	now, err := p.formed()
	if err != nil {
		return api.Restored{}, err
	}
	if was.Cluster != now.Cluster {
		return api.Restored{}, fmt.Errorf("the snapshot is of cluster %q, formed as %s, and this is %q, formed as %s: another cluster's is not restored; "+
			"to have its groups here: quorate snapshot print FILE > vips.yaml, look at it, quorate apply vips.yaml", was.Name, was.Cluster.Short(), now.Name, now.Cluster.Short())
	}
	by := fmt.Sprintf("%s (snapshot of revision %d)", p.by(user), s.Revision)
	var out api.Restored
	if out.Applied, err = p.replace(ctx, replacement{doc: was.Document, user: user, by: by}); err != nil {
		return out, err
	}
	for _, n := range slices.SortedFunc(maps.Values(now.Nodes), func(a, b fsm.Node) int { return strings.Compare(a.Name, b.Name) }) {
		drained := was.Drained[n.ID]
		if _, known := was.Nodes[n.ID]; !known || drained == now.Drained[n.ID] {
			continue
		}
		if err := p.n.agent.Commit(ctx, fsm.Command{Drain: &fsm.Drain{Node: n.ID, Drained: drained, By: by}}); err != nil {
			return out, fmt.Errorf("the document is restored, and whether %s is drained is not; restore again: %w", n.Name, err)
		}
		if drained {
			out.Drained = append(out.Drained, n.Name)
		} else {
			out.Undrained = append(out.Undrained, n.Name)
		}
	}
	for id := range was.Drained {
		if _, known := now.Nodes[id]; !known {
			out.Gone = append(out.Gone, was.Nodes[id].Name)
		}
	}
	slices.Sort(out.Gone)
	return out, nil
}

// retired says of a node that was removed what has become of it, and whether it was.
func (n *Participant) retired(s *core.Status) bool {
	if _, gone := n.raft.State().Retired[n.self.ID]; !gone && !n.removed.Load() {
		return false
	}
	s.State = "removed"
	s.Problems = append(s.Problems, fmt.Sprintf("this node was removed from the cluster: stop it; to have the host join again, remove %s and start it", n.cfg.DataDir))
	return true
}

// mayPropose refuses what an instance that was removed still asks for.
func (n *Participant) mayPropose(id fsm.InstanceID) error {
	if was, gone := n.raft.State().Retired[id]; gone {
		return fmt.Errorf("instance %s (node %s): %w", id.Short(), was.Name, fsm.ErrRetired)
	}
	return nil
}
