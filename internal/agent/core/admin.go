package core

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/quorate/quorate/fsm"
)

// ErrNoCluster answers what only a cluster can do.
var ErrNoCluster = errors.New("election: vrrp has no cluster: this node does what its file says, and nothing is replicated; " +
	"change the file and restart it, or use election: raft")

// clustered reports why there is no cluster to be told anything.
func (c *Core) clustered() error {
	switch {
	case c.alone:
		return ErrNoCluster
	case !c.state.Formed():
		return fsm.ErrNotFormed
	}
	return nil
}

// node finds a node by its name.
func (c *Core) node(name string) (fsm.Node, error) {
	if err := c.clustered(); err != nil {
		return fsm.Node{}, err
	}
	if n, ok := c.state.NodeByName(name); ok {
		return n, nil
	}
	for _, was := range c.state.Retired {
		if was.Name == name {
			return fsm.Node{}, fmt.Errorf("node %q was removed; `quorate members` lists those that there are", name)
		}
	}
	return fsm.Node{}, fmt.Errorf("there is no node %q; `quorate members` lists them", name)
}

// Drain checks that a node can be kept from owning groups, or with yes false be let
// again, and returns the command for it.
func (c *Core) Drain(node string, yes bool, by string) (fsm.Command, error) {
	n, err := c.node(node)
	if err != nil {
		return fsm.Command{}, err
	}
	return fsm.Command{Drain: &fsm.Drain{Node: n.ID, Drained: yes, By: by}}, nil
}

// Remove checks that a node can be taken out of the cluster for good, and returns the
// command for it. With force only what concerns liveness is not asked: that enough
// voters which answer are left, and that the node is not serving. A cluster without a
// voter is never made.
func (c *Core) Remove(node string, force bool, by string) (fsm.Command, error) {
	n, err := c.node(node)
	if err != nil {
		return fsm.Command{}, err
	}
	if len(c.state.Nodes) == 1 || !slices.ContainsFunc(c.log.Last.Voters, func(id fsm.InstanceID) bool { return id != n.ID && c.stays(id) }) {
		return fsm.Command{}, fmt.Errorf("node %s is the last voter: without one nothing can be decided any more, so not even --force removes it; "+
			"to end the cluster stop its daemon and remove its data_dir", node)
	}
	if !force {
		if err := c.removable(n); err != nil {
			return fsm.Command{}, err
		}
	}
	return fsm.Command{Retire: &fsm.Retire{Node: n.ID, By: by}}, nil
}

// stays reports whether a voter is not on its way out.
func (c *Core) stays(id fsm.InstanceID) bool {
	_, retired := c.state.Retired[id]
	return !retired
}

// removable says why the removal of a node would cost service now.
func (c *Core) removable(n fsm.Node) error {
	// The voters are taken out one by one, so each set on the way needs its majority:
	// without this node, and without those that were removed before it.
	for _, gone := range []func(fsm.InstanceID) bool{
		func(id fsm.InstanceID) bool { return id == n.ID },
		func(id fsm.InstanceID) bool { return id == n.ID || !c.stays(id) },
	} {
		if err := c.enoughWithout(n, gone); err != nil {
			return err
		}
	}
	if !c.alive(n.ID) {
		return nil
	}
	var owned []string
	for _, g := range c.state.Document.Groups {
		if c.state.Assignments[g.Name].Owner == n.ID {
			owned = append(owned, g.Name)
		}
	}
	if len(owned) > 0 {
		return fmt.Errorf("node %s is alive and owns %s: move them away first with `quorate drain %s`, and remove it then; "+
			"--force removes it at once, and clients wait while others take over", n.Name, strings.Join(owned, ", "), n.Name)
	}
	return nil
}

// enoughWithout reports whether a majority of the voters that are left is heard.
func (c *Core) enoughWithout(n fsm.Node, gone func(fsm.InstanceID) bool) error {
	left, alive := 0, 0
	var silent []string
	for _, id := range c.log.Last.Voters {
		switch {
		case gone(id):
		case c.alive(id):
			left, alive = left+1, alive+1
		default:
			left++
			silent = append(silent, c.name(id))
		}
	}
	if need := left/2 + 1; alive < need {
		return fmt.Errorf("without node %s the cluster has no majority: %d of the %d voters that are left are heard, and %d are needed (not heard: %s); "+
			"start them first, or remove those that are lost; --force removes it all the same, and then nothing is held, or decided, before enough of them are back",
			n.Name, alive, left, need, strings.Join(silent, ", "))
	}
	return nil
}

// Apply checks a document against the cluster and returns the command that puts it in
// the place of revision seen; zero: of the present one.
func (c *Core) Apply(doc fsm.Document, seen uint64, by string) (fsm.Command, error) {
	if err := c.clustered(); err != nil {
		return fsm.Command{}, err
	}
	present := c.state.Document
	if seen == 0 {
		seen = present.Revision
	}
	if seen != present.Revision {
		return fsm.Command{}, fmt.Errorf("the document is at revision %d%s, and this change was made for revision %d: see what changed with `quorate diff`, and apply again: %w",
			present.Revision, c.appliedBy(), seen, fsm.ErrStale)
	}
	doc.Revision = 0
	doc.MaxHold = max(doc.MaxHold, present.MaxHold) // which is never lowered; a file with groups only names none
	if err := doc.Check(); err != nil {
		return fsm.Command{}, err
	}
	return fsm.Command{Replace: &fsm.Replace{Seen: seen, Document: doc, By: by}}, nil
}

// appliedBy says who made the present revision, if that is known.
func (c *Core) appliedBy() string {
	if r, ok := c.state.Revision(c.state.Document.Revision); ok && r.By != "" {
		return ", applied by " + r.By
	}
	return ""
}

// Explain says why a group is where it is, and what would move it.
func (c *Core) Explain(group string) (fsm.Explanation, error) {
	if err := c.clustered(); err != nil {
		return fsm.Explanation{}, err
	}
	return fsm.Explain(c.state, c.view(), group)
}
