package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/election/raftnode"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/config"
)

func newRecoverCommand() *cobra.Command {
	file := defaultConfig
	var lost []string
	c := &cobra.Command{
		Use:   "recover --yes NODE,NODE,…",
		Short: "Go on with one node when most of the cluster is lost for good",
		Long: "Go on with this node alone when the majority of the voters is lost for good. Its daemon must be stopped. The node\n" +
			"becomes the only one of its cluster, which gets a new identity and keeps the document; all others are removed\n" +
			"nodes, also those that still run: they join again when their data_dir is removed.\n\n" +
			"THIS GIVES UP WHAT THE PROMISE OF ONE OWNER RESTS ON: nobody can ask the lost nodes any more. It holds again only\n" +
			"if none of them answers for an address now, and none ever comes back with its old data_dir: two nodes of the old\n" +
			"majority that find each other go on as the old cluster. So first switch them off, or take their network, for good.\n\n" +
			"Without --yes nothing is done: it shows what would be. With --yes, which names every other node, it waits until\n" +
			"every lease of the old cluster has run out, and does it. Of several survivors take the one that shows the highest\n" +
			"term, and then the highest index.",
		Example: "  quorate recover --config /etc/quorate/quorate.yaml\n  quorate recover --config /etc/quorate/quorate.yaml --yes n2,n3",
		Args:    takes(0, "no arguments"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return recoverCluster(cmd, file, lost) },
	}
	c.Flags().StringVar(&file, "config", file, "configuration file of this node")
	c.Flags().StringSliceVar(&lost, "yes", nil, "the names of all other nodes: they are lost, and will not come back")
	return c
}

func recoverCluster(cmd *cobra.Command, file string, lost []string) error {
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	if cfg.Election == config.ElectVRRP {
		return errors.New("election: vrrp has no cluster, and so nothing to recover")
	}
	unlock, err := raftnode.TryLock(cfg.DataDir) // without making a directory that is not there
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no data_dir %s: no daemon ever ran here, so there is nothing to recover", cfg.DataDir)
	case errors.Is(err, raftnode.ErrLocked):
		return fmt.Errorf("the daemon runs: stop it first (systemctl stop quorate): %w", err)
	case err != nil:
		return err
	}
	unlock()
	dir, err := raftnode.OpenDataDir(cfg.DataDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return recoverIn(cmd, cfg, dir, lost)
}

func recoverIn(cmd *cobra.Command, cfg *config.Config, dir *raftnode.DataDir, lost []string) error {
	log := slog.New(slog.DiscardHandler) // the library's; what matters comes back as an error
	left, err := raftnode.ReadSurvivor(dir, log)
	if err != nil {
		return err
	}
	self := fsm.Node{ID: dir.Instance(), Name: cfg.Node, Address: cfg.Address, Role: cfg.Role}
	others, err := othersOf(left.State, self)
	if err != nil {
		return err
	}
	if err := write(cmd.OutOrStdout(), recoveryPlan(left, self, others)); err != nil {
		return err
	}
	if err := named(others, lost); err != nil {
		return err
	}
	if err := silent(cmd.Context(), others); err != nil {
		return err
	}
	wait := election.WithDrift(left.State.Document.MaxHold)
	if err := write(cmd.OutOrStdout(), fmt.Sprintf("\nwaiting %s, until every lease that the lost nodes may have runs out\n", wait)); err != nil {
		return err
	}
	over := time.NewTimer(wait)
	defer over.Stop()
	select {
	case <-over.C:
	case <-cmd.Context().Done():
		return fmt.Errorf("nothing was changed: %w", context.Cause(cmd.Context()))
	}
	var cluster fsm.ClusterID
	if _, err := rand.Read(cluster[:]); err != nil {
		return fmt.Errorf("make a cluster id: %w", err)
	}
	if err := raftnode.Recover(dir, self, cluster, log); err != nil {
		return err
	}
	return write(cmd.OutOrStdout(), fmt.Sprintf("done: %s is a cluster of its own, formed as %s. Start the daemon here; then on each other host\n"+
		"remove data_dir before its daemon is started again\n", self.Name, cluster.Short()))
}

// othersOf are the nodes of the cluster that recovery gives up.
func othersOf(st *fsm.State, self fsm.Node) ([]fsm.Node, error) {
	if was, gone := st.Retired[self.ID]; gone {
		return nil, fmt.Errorf("this node was removed from the cluster (as %s), which went on without it: there is nothing to recover here", was.Name)
	}
	if _, known := st.Nodes[self.ID]; !known {
		return nil, errors.New("this node never became one of the cluster's: recover another one")
	}
	others := slices.SortedFunc(maps.Values(st.Nodes), func(a, b fsm.Node) int { return cmp.Compare(a.Name, b.Name) })
	others = slices.DeleteFunc(others, func(n fsm.Node) bool { return n.ID == self.ID })
	if len(others) == 0 {
		return nil, errors.New("this node is the only one of its cluster: nothing is lost; start the daemon")
	}
	return others, nil
}

func recoveryPlan(left raftnode.Survivor, self fsm.Node, others []fsm.Node) string {
	var b strings.Builder
	st := left.State
	fmt.Fprintf(&b, "cluster %s (formed as %s), as node %s knows it: term %d, index %d, document revision %d\n\n",
		st.Name, st.Cluster.Short(), self.Name, left.LastTerm, left.LastIndex, st.Document.Revision)
	fmt.Fprintf(&b, "%s becomes the only node. These are given up for good, and must never run again with their old data_dir:\n", self.Name)
	for _, n := range others {
		vote := "no vote"
		if slices.Contains(left.Voters, n.ID) {
			vote = "voter"
		}
		fmt.Fprintf(&b, "  %s  %s  %s, %s, instance %s\n", n.Name, n.Address, n.Role, vote, n.ID.Short())
	}
	for _, g := range st.Document.Groups {
		if owner := st.Assignments[g.Name].Owner; !owner.IsZero() && owner != self.ID {
			fmt.Fprintf(&b, "%s was on %s: it must not answer for it any more\n", g.Name, st.Nodes[owner].Name)
		}
	}
	if self.Role == fsm.Witness {
		b.WriteString("this node is a witness: nothing is held before a member has joined\n")
	}
	if st.Drained[self.ID] {
		b.WriteString("this node is drained: nothing is held before quorate undrain\n")
	}
	return b.String()
}

// named asks that each node that is given up was named, and nothing else.
func named(others []fsm.Node, lost []string) error {
	var names []string
	for _, n := range others {
		names = append(names, n.Name)
	}
	given := slices.Sorted(slices.Values(lost))
	if slices.Equal(given, names) {
		return nil
	}
	want := "--yes " + strings.Join(names, ",")
	if len(given) == 0 {
		return fmt.Errorf("nothing was changed; if all of these are lost for good: %s", want)
	}
	return fmt.Errorf("nothing was changed: --yes names %s, and it must name every other node, each once: %s", strings.Join(given, ","), want)
}

// silent asks that nobody listens where the nodes were that are to be lost.
func silent(ctx context.Context, others []fsm.Node) error {
	answered := make([]bool, len(others))
	var asking sync.WaitGroup
	for i, n := range others {
		asking.Go(func() {
			d := net.Dialer{Timeout: 2 * time.Second}
			if conn, err := d.DialContext(ctx, "tcp", n.Address.String()); err == nil {
				conn.Close()
				answered[i] = true
			}
		})
	}
	asking.Wait()
	for i, n := range others {
		if answered[i] {
			return fmt.Errorf("nothing was changed: somebody listens at %s, so node %s is not lost; stop its daemon first, and keep it stopped until its data_dir is removed",
				n.Address, n.Name)
		}
	}
	return nil
}
