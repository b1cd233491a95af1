package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/quorate/quorate/internal/doctor"
)

const (
	diskWrites = 9
	diskTime   = 1200 * time.Millisecond // for all of them
	diskBlock  = 4 << 10                 // bytes; a commit of Raft writes a few of these
	diskFile   = "doctor.tmp"
)

// trying is set while a write is under way: one that hangs cannot be ended, and a second
// would only hang beside it.
var trying atomic.Bool

// tryDisk writes as Raft does, a block and then until it is on the disk, some times over.
func tryDisk(ctx context.Context, dir string) doctor.Disk {
	d := doctor.Disk{Path: dir}
	ctx, cancel := context.WithTimeout(ctx, diskTime)
	defer cancel()
	started := time.Now()
	for !trying.CompareAndSwap(false, true) {
		if !wait(ctx, 10*time.Millisecond) {
			d.PendingMS = ms(time.Since(started)) // and longer
			return d
		}
	}
	took, ended := make(chan time.Duration, diskWrites), make(chan error, 1)
	go func() {
		defer trying.Store(false)
		ended <- writes(ctx, filepath.Join(dir, diskFile), took)
	}()
	var all []time.Duration
	last := started
	for {
		select {
		case t := <-took:
			all, last = append(all, t), time.Now()
			continue
		case err := <-ended:
			for len(took) > 0 {
				all = append(all, <-took)
			}
			if err != nil {
				d.Problem = err.Error()
			}
		case <-ctx.Done():
			d.PendingMS = ms(time.Since(last))
		}
		break
	}
	if d.Writes = len(all); d.Writes > 0 {
		slices.Sort(all)
		d.MedianMS, d.WorstMS = ms(all[len(all)/2]), ms(all[len(all)-1])
	}
	return d
}

func writes(ctx context.Context, path string, took chan<- time.Duration) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make a file to try the disk with: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), removed(path)) }()
	block := make([]byte, diskBlock)
	for i := 0; i < diskWrites && ctx.Err() == nil; i++ {
		begun := time.Now()
		if _, err := f.Write(block); err != nil {
			return fmt.Errorf("write to it: %w", err)
		}
		if err := f.Sync(); err != nil {
			return fmt.Errorf("wait until it is on the disk: %w", err)
		}
		took <- time.Since(begun)
	}
	return nil
}

func removed(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the file again: %w", err)
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
