package raftnode

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
)

const (
	snapshotsKept = 2
	// retryWrite is how often a write is tried again that the library cannot
	// be told the failure of.
	retryWrite = 100 * time.Millisecond
)

// keyCurrentTerm is the library's own key for the term.
const keyCurrentTerm = "CurrentTerm"

// stores is what Raft keeps on disk, each part watched: for who votes, for whether
// there is state at all, and for how the disk does.
type stores struct {
	log     *logStore
	stable  *stableStore
	snaps   *snapshotStore
	voters  *voterLog
	disk    *diskWatch
	hasAny  atomic.Bool
	mark    func() error // makes durable that there is state
	close   func() error
	stopped chan struct{} // closed when the node stops
	atStart election.LogAtStart
	path    string // of the data directory, for people
}

// openStores opens Raft's files in the data directory.
func openStores(d *DataDir, logger hclog.Logger, disk *diskWatch) (*stores, error) {
	db, err := raftboltdb.NewBoltStore(filepath.Join(d.Path(), fileLog))
	if err != nil {
		return nil, explain(d.Path(), "open "+fileLog+" in the data directory", err)
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(d.Path(), snapshotsKept, logger)
	if err != nil {
		return nil, errors.Join(explain(d.Path(), "open the snapshots in the data directory", err), db.Close())
	}
	s, err := newStores(db, db, snaps, disk)
	if err != nil {
		return nil, errors.Join(explain(d.Path(), "read the Raft log in the data directory", err), db.Close())
	}
	s.mark, s.close, s.path = d.markState, db.Close, d.Path()
	switch has := s.hasAny.Load(); {
	case has:
		err = d.markState()
	case d.hadState():
		err = fmt.Errorf("the Raft log in %s is gone, and its instance %s had one: a voter that forgot its votes must not come back as itself; "+
			"remove the whole directory, and the node joins as a new instance", d.Path(), d.Instance())
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// newStores watches the given stores, and reads from them what the node must know
// before Raft starts.
func newStores(log raft.LogStore, stable raft.StableStore, snaps raft.SnapshotStore, disk *diskWatch) (*stores, error) {
	s := &stores{
		voters:  &voterLog{},
		disk:    disk,
		mark:    func() error { return nil },
		close:   func() error { return nil },
		stopped: make(chan struct{}),
	}
	s.log = &logStore{LogStore: log, all: s}
	s.stable = &stableStore{StableStore: stable, all: s}
	s.snaps = &snapshotStore{SnapshotStore: snaps, all: s}
	has, err := raft.HasExistingState(log, stable, snaps)
	if err != nil {
		return nil, fmt.Errorf("look for Raft state: %w", err)
	}
	s.hasAny.Store(has)
	// A missing key is an error here, and the library tells it by its text too.
	if s.stable.term, err = stable.GetUint64([]byte(keyCurrentTerm)); err != nil && err.Error() != "not found" {
		return nil, fmt.Errorf("read the term: %w", err)
	}
	return s, s.scan()
}

// scan reads the newest good snapshot and the log behind it.
func (s *stores) scan() error {
	meta, state, err := newestSnapshot(s.snaps.SnapshotStore)
	if err != nil {
		return err
	}
	s.atStart = election.LogAtStart{LastTerm: meta.Term}
	if state != nil {
		// Not the snapshot's index: entries that no state machine sees can stand
		// between its last command and its end, and would be waited for in vain.
		s.atStart.LastCommand = state.Index
	}
	first, err := s.log.FirstIndex()
	if err != nil {
		return fmt.Errorf("find the first log entry: %w", err)
	}
	last, err := s.log.LastIndex()
	if err != nil {
		return fmt.Errorf("find the last log entry: %w", err)
	}
	restored := state == nil
	for i := first; i <= last && i != 0; i++ {
		if !restored && i > meta.Index {
			s.voters.snapshot(meta)
			restored = true
		}
		e := new(raft.Log)
		if err := s.log.GetLog(i, e); errors.Is(err, raft.ErrLogNotFound) {
			continue // a gap that the restoring of a snapshot may leave
		} else if err != nil {
			return fmt.Errorf("read log entry %d: %w", i, err)
		}
		if i > meta.Index && e.Term < meta.Term {
			continue // left over from before the snapshot; Raft will cut it off
		}
		s.voters.stored([]*raft.Log{e})
		if i > meta.Index && e.Type == raft.LogCommand {
			s.atStart.LastCommand = i
		}
		s.atStart.LastTerm = max(s.atStart.LastTerm, e.Term)
	}
	if !restored {
		s.voters.snapshot(meta)
	}
	return nil
}

// newestSnapshot returns what Raft will restore at its start: zero if there is none.
func newestSnapshot(snaps raft.SnapshotStore) (raft.SnapshotMeta, *fsm.State, error) {
	list, err := snaps.List()
	if err != nil {
		return raft.SnapshotMeta{}, nil, fmt.Errorf("list snapshots: %w", err)
	}
	var errs []error
	for _, m := range list {
		meta, state, err := readSnapshot(snaps, m.ID)
		if err == nil {
			return *meta, state, nil
		}
		errs = append(errs, err)
	}
	return raft.SnapshotMeta{}, nil, errors.Join(errs...)
}

func readSnapshot(snaps raft.SnapshotStore, id string) (*raft.SnapshotMeta, *fsm.State, error) {
	meta, r, err := snaps.Open(id)
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot %s: %w", id, err)
	}
	defer r.Close()
	state, err := readState(r)
	if err != nil {
		return nil, nil, fmt.Errorf("read snapshot %s: %w", id, err)
	}
	return meta, state, nil
}

func readState(r io.Reader) (*fsm.State, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return fsm.DecodeState(b)
}

// nowHasState notes that Raft has stored something.
func (s *stores) nowHasState() {
	if s.hasAny.Swap(true) {
		return
	}
	// The mark is only a second line against a lost log; if the disk fails, the
	// next write of Raft's own will say so too.
	_ = s.disk.do(s.mark)
}

// logStore is the library's log store, watched.
type logStore struct {
	raft.LogStore
	all *stores
}

func (l *logStore) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs tells of new voters before it returns, so before this node says to
// anyone that it has the entries.
func (l *logStore) StoreLogs(entries []*raft.Log) error {
	if err := l.all.disk.do(func() error { return l.LogStore.StoreLogs(entries) }); err != nil {
		return err
	}
	l.all.voters.stored(entries)
	l.all.nowHasState()
	return nil
}

func (l *logStore) DeleteRange(first, last uint64) error {
	if err := l.all.disk.do(func() error { return l.LogStore.DeleteRange(first, last) }); err != nil {
		return err
	}
	l.all.voters.deleted(first, last)
	return nil
}

// stableStore is the library's store of term and vote, watched.
type stableStore struct {
	raft.StableStore
	all  *stores
	mu   sync.Mutex
	term uint64 // as on the disk
}

func (s *stableStore) Set(key, value []byte) error {
	return s.all.disk.do(func() error { return s.StableStore.Set(key, value) })
}

// SetUint64 never fails for the term, because the library panics then: it tries
// until the disk takes it, which looks to the others as a disk that hangs, and is
// reported all the same. When the node stops first, the library's goroutine, which
// can be given no answer, ends here.
func (s *stableStore) SetUint64(key []byte, value uint64) error {
	write := func() error { return s.StableStore.SetUint64(key, value) }
	if string(key) != keyCurrentTerm {
		return s.all.disk.do(write)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term == value {
		return nil // the library writes it again at every start
	}
	for s.all.disk.do(write) != nil {
		select {
		case <-s.all.stopped:
			runtime.Goexit()
		case <-time.After(retryWrite):
		}
	}
	s.term = value
	s.all.nowHasState()
	return nil
}

// snapshotStore is the library's snapshot store, watched.
type snapshotStore struct {
	raft.SnapshotStore
	all *stores
}

func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration,
	configurationIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, c, configurationIndex, t)
	if err != nil {
		s.all.disk.failed(err)
		return nil, err
	}
	meta := raft.SnapshotMeta{Index: index, Term: term, Configuration: c, ConfigurationIndex: configurationIndex}
	return &snapshotSink{SnapshotSink: sink, all: s.all, meta: meta}, nil
}

type snapshotSink struct {
	raft.SnapshotSink
	all  *stores
	meta raft.SnapshotMeta
}

func (s *snapshotSink) Close() error {
	if err := s.all.disk.do(s.SnapshotSink.Close); err != nil {
		return err
	}
	s.all.voters.snapshot(s.meta)
	s.all.nowHasState()
	return nil
}

// DiskHealth is how the disk under data_dir does. The zero value: well.
type DiskHealth struct {
	// StalledSince is when the oldest write began that is not done after
	// Config.DiskStall; zero: none is that slow. A Raft leader whose disk hangs
	// stays leader and can commit nothing, so somebody else must campaign.
	StalledSince time.Time
	Err          error // of the last write, if it failed: "no space left on device"
}

// Well reports whether writes succeed, and in time.
func (h DiskHealth) Well() bool { return h.StalledSince.IsZero() && h.Err == nil }

// diskWatch times the writes in progress and remembers whether the last failed.
type diskWatch struct {
	limit  time.Duration
	report func(DiskHealth) // called under the lock, so that order is kept

	mu    sync.Mutex
	next  int
	began map[int]time.Time // writes in progress
	now   DiskHealth
	took  latency // of those that are done
}

func newDiskWatch(limit time.Duration, report func(DiskHealth)) *diskWatch {
	return &diskWatch{limit: limit, report: report, began: map[int]time.Time{}}
}

// do runs one write.
func (w *diskWatch) do(write func() error) error {
	w.mu.Lock()
	id := w.next
	w.next++
	w.began[id] = time.Now()
	w.mu.Unlock()
	err := write()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.took.add(time.Since(w.began[id]))
	delete(w.began, id)
	w.set(err)
	return err
}

// failed notes a write that failed without having been timed.
func (w *diskWatch) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set(err)
}

// check looks for writes that take too long. The caller calls it regularly.
func (w *diskWatch) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set(w.now.Err)
}

func (w *diskWatch) set(err error) {
	h := DiskHealth{Err: err}
	for _, at := range w.began {
		if time.Since(at) >= w.limit && (h.StalledSince.IsZero() || at.Before(h.StalledSince)) {
			h.StalledSince = at
		}
	}
	same := h.StalledSince.Equal(w.now.StalledSince) && errorText(h.Err) == errorText(w.now.Err)
	w.now = h
	if !same {
		w.report(h)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
