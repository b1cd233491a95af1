package raftnode

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm"
)

// A Survivor is what one node's data directory holds of its cluster.
type Survivor struct {
	// State is the state after every entry of the log, whether or not it was known to be
	// committed: nobody is left who could say.
	State *fsm.State
	// LastTerm and LastIndex say how far the log reaches. Of several survivors the one
	// of the highest term, and then of the highest index, knows most.
	LastTerm, LastIndex uint64
	Voters              []fsm.InstanceID // of the newest set in the log
}

// ErrNothingToRecover means a data directory without a cluster to go on with.
var ErrNothingToRecover = errors.New("nothing to recover")

// ReadSurvivor reads a data directory in which no daemon runs.
func ReadSurvivor(d *DataDir, log *slog.Logger) (Survivor, error) {
	s, err := openStores(d, bridge(log), newDiskWatch(defaultDiskStall, func(DiskHealth) {}))
	if err != nil {
		return Survivor{}, err
	}
	out, err := s.survivor()
	return out, errors.Join(err, s.close())
}

func (s *stores) survivor() (Survivor, error) {
	out := Survivor{State: &fsm.State{}, Voters: s.voters.current().Last.Voters}
	meta, state, err := newestSnapshot(s.snaps.SnapshotStore)
	if err != nil {
		return out, err
	}
	if state != nil {
		out.State, out.LastTerm, out.LastIndex = state, meta.Term, meta.Index
	}
	last, err := s.log.LastIndex()
	if err != nil {
		return out, fmt.Errorf("find the last log entry: %w", err)
	}
	for i := out.LastIndex + 1; i <= last; i++ {
		var e raft.Log
		if err := s.log.GetLog(i, &e); err != nil {
			return out, fmt.Errorf("read log entry %d: %w", i, err)
		}
		if e.Term < out.LastTerm {
			break // left over from before the snapshot, and never committed
		}
		if e.Type == raft.LogCommand {
			cmd, err := fsm.DecodeCommand(e.Data)
			if err != nil {
				return out, fmt.Errorf("log entry %d of term %d: %w; a newer version of quorate wrote it: install that version here", e.Index, e.Term, err)
			}
			out.State, _ = out.State.Apply(e.Index, e.Term, cmd) // what is refused is refused everywhere
		}
		out.LastTerm, out.LastIndex = e.Term, e.Index
	}
	if !out.State.Formed() {
		return out, fmt.Errorf("%w: the node with data_dir %s never belonged to a cluster", ErrNothingToRecover, s.path)
	}
	return out, nil
}

// Recover makes the node the only one of its cluster, which gets a new identity, and
// all others removed nodes. No daemon may run in the directory.
//
// It breaks what all promises rest on: that two majorities of voters have one in
// common. The caller must know that no other node of the old cluster answers for an
// address, or ever will again from its old data directory, and must have waited for as
// long as a lease can last that was confirmed without this node (fsm.Document.MaxHold).
//
// One node only, and not all survivors: their logs can differ where the lost majority
// could not finish, two that are cut off at different entries would not become one, and
// an epoch could then have two owners. The others join as new instances. And a new
// identity: nodes of the old one, should they run, are refused as another cluster's,
// so that their log cannot take this one's place.
func Recover(d *DataDir, self fsm.Node, cluster fsm.ClusterID, log *slog.Logger) error {
	s, err := openStores(d, bridge(log), newDiskWatch(defaultDiskStall, func(DiskHealth) {}))
	if err != nil {
		return err
	}
	return errors.Join(s.recover(self, cluster), s.close())
}

// recover writes a snapshot that has the new state and the one voter where the log
// ends, and then does without the log. Broken off between the two, the snapshot counts.
func (s *stores) recover(self fsm.Node, cluster fsm.ClusterID) error {
	left, err := s.survivor()
	if err != nil {
		return err
	}
	state, err := lastOne(left.State, self, cluster)
	if err != nil {
		return err
	}
	if err := s.endIn(state, self, left); err != nil {
		return err
	}
	return s.dropLog()
}

func (s *stores) endIn(state *fsm.State, self fsm.Node, left Survivor) error {
	const version, configurationIndex = 1, 1 // as the library's RecoverCluster
	address := raft.ServerAddress(self.Address.String())
	only := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(self.ID.String()), Address: address}}}
	_, addresses := raft.NewInmemTransport(address) // it is asked how addresses are written
	sink, err := s.snaps.SnapshotStore.Create(version, left.LastIndex, left.LastTerm, only, configurationIndex, addresses)
	if err != nil {
		return fmt.Errorf("begin the snapshot of the recovered cluster: %w", err)
	}
	return frozen{state}.Persist(sink)
}

func (s *stores) dropLog() error {
	first, err := s.log.FirstIndex()
	if err != nil {
		return fmt.Errorf("find the first log entry: %w", err)
	}
	last, err := s.log.LastIndex()
	if err != nil {
		return fmt.Errorf("find the last log entry: %w", err)
	}
	if err := s.log.LogStore.DeleteRange(first, last); err != nil {
		return fmt.Errorf("drop the log that the snapshot takes the place of: %w", err)
	}
	return nil
}

// lastOne is the state of a cluster of which one node is left. The assignments stay, with
// their epochs: the log goes on behind them, and Place moves what the others owned.
func lastOne(st *fsm.State, self fsm.Node, cluster fsm.ClusterID) (*fsm.State, error) {
	by := "recover@" + self.Name
	lost := slices.SortedFunc(maps.Keys(st.Nodes), func(a, b fsm.InstanceID) int { return bytes.Compare(a[:], b[:]) })
	commands := []fsm.Command{}
	for _, id := range lost {
		if id != self.ID {
			commands = append(commands, fsm.Command{Retire: &fsm.Retire{Node: id, By: by}})
		}
	}
	commands = append(commands, fsm.Command{Enrol: &fsm.Enrol{Node: self}})
	for _, c := range commands {
		next, err := st.Apply(st.Index, st.Term, c)
		if err != nil {
			return nil, fmt.Errorf("take the lost nodes out of the state: %w", err)
		}
		st = next
	}
	recovered := *st
	recovered.Cluster = cluster
	return &recovered, nil
}
