package raftnode

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// faulty is a log store on a disk that can hang or fail.
type faulty struct {
	*raft.InmemStore
	mu   sync.Mutex
	hang chan struct{} // writes wait until it is closed; nil: they do not
	err  error
}

func (f *faulty) set(hang chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hang, f.err = hang, err
}

func (f *faulty) write(do func() error) error {
	f.mu.Lock()
	hang, err := f.hang, f.err
	f.mu.Unlock()
	if hang != nil {
		<-hang
	}
	if err != nil {
		return err
	}
	return do()
}

func (f *faulty) StoreLogs(e []*raft.Log) error {
	return f.write(func() error { return f.InmemStore.StoreLogs(e) })
}

func (f *faulty) SetUint64(k []byte, v uint64) error {
	return f.write(func() error { return f.InmemStore.SetUint64(k, v) })
}

func onFaultyDisk(l *lan, i int) *faulty {
	f := &faulty{InmemStore: raft.NewInmemStore()}
	l.hosts[i].log, l.hosts[i].term = f, f
	return f
}

func TestHungDiskOfTheLeaderIsReported(t *testing.T) {
	bubble(t, 3, func(t *testing.T, l *lan) {
		f := onFaultyDisk(l, 0)
		l.form()
		h := l.hosts[0]
		hang := make(chan struct{})
		f.set(hang, nil)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := h.Propose(ctx, assign(h, h.self.ID)); !errors.Is(err, ErrUnknownOutcome) {
			t.Fatalf("propose on a hung disk: %v, want ErrUnknownOutcome", err)
		}
		_, disk, _ := h.sink.all()
		if len(disk) != 1 || disk[0].StalledSince.Before(began) || disk[0].StalledSince.Sub(began) > time.Second {
			t.Fatalf("disk reported as %+v, want stalled since %v, once", disk, began)
		}
		if !h.Leader().Self {
			t.Fatal("the test is pointless: Raft itself noticed")
		}
		if err := l.hosts[1].Campaign(t.Context()); err != nil { // what the agents do about it
			t.Fatal(err)
		}
		await1(t, "n2 leads", func() bool { return l.hosts[1].Leader().Self })
		f.set(nil, nil)
		close(hang)
		await1(t, "n1 follows and its disk is well", func() bool {
			_, disk, _ := h.sink.all()
			return disk[len(disk)-1].Well() && h.Leader().ID == l.hosts[1].self.ID
		})
	})
}

func TestFullDiskIsReportedAndNothingPanics(t *testing.T) {
	bubble(t, 3, func(t *testing.T, l *lan) {
		f := onFaultyDisk(l, 0)
		l.form()
		h := l.hosts[0]
		f.set(nil, syscall.ENOSPC)
		if err := h.Propose(t.Context(), assign(h, h.self.ID)); !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("propose on a full disk: %v", err)
		}
		await1(t, "another leads", func() bool { return l.hosts[1].Leader().Self || l.hosts[2].Leader().Self })
		_, disk, _ := h.sink.all()
		if len(disk) != 1 || !errors.Is(disk[0].Err, syscall.ENOSPC) {
			t.Fatalf("disk reported as %+v, want full, once", disk)
		}
		// The others led in a new term, which n1 cannot write down; then it can.
		f.set(nil, nil)
		await1(t, "n1 follows", func() bool { i := h.Leader(); return !i.ID.IsZero() && !i.Self && h.Stats().Term == i.Term })
		_, disk, _ = h.sink.all()
		if !disk[len(disk)-1].Well() {
			t.Errorf("the disk is still reported as %+v", disk)
		}
		// And stopping does not hang on a term that cannot be written.
		f.set(nil, syscall.ENOSPC)
		if err := l.leader().Campaign(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, other := range l.hosts[1:] {
			if !other.Leader().Self {
				if err := other.Campaign(t.Context()); err != nil {
					t.Fatal(err)
				}
				break
			}
		}
		await1(t, "n1 tries to write the new term", func() bool {
			_, disk, _ := h.sink.all()
			return errors.Is(disk[len(disk)-1].Err, syscall.ENOSPC)
		})
		before := time.Now()
		if err := h.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(before); took >= shutdownWait {
			t.Errorf("stopping took %v", took)
		}
	})
}

func TestStoppingDoesNotWaitForAHungDisk(t *testing.T) {
	bubble(t, 1, func(t *testing.T, l *lan) {
		f := onFaultyDisk(l, 0)
		l.form()
		h := l.hosts[0]
		hang := make(chan struct{})
		defer close(hang)
		f.set(hang, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.Propose(ctx, assign(h, h.self.ID)); !errors.Is(err, ErrUnknownOutcome) {
			t.Fatalf("propose on a hung disk: %v", err)
		}
		closed := false
		h.stores.close = func() error { closed = true; return nil }
		before := time.Now()
		if err := h.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(before); took != shutdownWait {
			t.Errorf("stopping took %v of virtual time, want %v", took, shutdownWait)
		}
		if closed {
			t.Error("the files were closed under a write")
		}
	})
}
