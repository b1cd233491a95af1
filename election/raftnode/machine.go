package raftnode

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm"
)

// Applied tells what one log entry did, or that a snapshot took the place of the
// state. Should one be older than what was applied before, which passSnapshot is
// there to prevent, it is delivered as it is, and State.Index tells.
type Applied struct {
	State    *fsm.State
	Command  fsm.Command // zero when Restored
	Err      error       // why the command changed nothing; an fsm error
	Restored bool
}

// machine feeds the library's commits to fsm.State. The library calls Apply,
// Restore, Snapshot and StoreConfiguration from one goroutine at a time.
type machine struct {
	sink   Sink
	voters *voterLog
	state  atomic.Pointer[fsm.State]
	failed error       // set once: the state is frozen from then on
	fail   func(error) // stops the node
}

// So that it hears of each change of members that is committed.
var _ raft.ConfigurationStore = (*machine)(nil)

// Apply applies one committed command. The result is nil or the fsm's error.
//
// One at a time rather than in batches: the first entry of a batch would wait for
// the last, and entries are few.
func (m *machine) Apply(l *raft.Log) any {
	if m.failed != nil {
		return m.failed
	}
	cmd, err := fsm.DecodeCommand(l.Data)
	if err != nil {
		m.failed = fmt.Errorf("apply log entry %d of term %d: %w; a newer version of quorate wrote it: install that version here", l.Index, l.Term, err)
		m.fail(m.failed)
		return m.failed
	}
	next, err := m.state.Load().Apply(l.Index, l.Term, cmd)
	m.state.Store(next)
	m.sink.Applied(Applied{State: next, Command: cmd, Err: err})
	if err != nil {
		return err
	}
	return nil
}

// StoreConfiguration is called when a change of members is committed.
func (m *machine) StoreConfiguration(index uint64, _ raft.Configuration) { m.voters.commit(index) }

// Snapshot returns the state as it is now, which costs nothing: it never changes.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if m.failed != nil {
		return nil, m.failed // it would lack an entry
	}
	return frozen{m.state.Load()}, nil
}

// Restore puts a snapshot in the place of the state.
func (m *machine) Restore(r io.ReadCloser) error {
	state, err := readState(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	m.state.Store(state)
	m.sink.Applied(Applied{State: state, Restored: true})
	return nil
}

type frozen struct{ state *fsm.State }

// Persist writes the snapshot.
func (f frozen) Persist(sink raft.SnapshotSink) error {
	b, err := f.state.Encode()
	if err == nil {
		_, err = sink.Write(b)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

// Release has nothing to release.
func (frozen) Release() {}
