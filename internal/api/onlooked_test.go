package api

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorate/quorate/internal/agent/core"
)

// However many ask over TCP, the loop gets one question at a time, and few.
func TestOnlookersDoNotHoldUpTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, at atomic.Int32
		agent := newOnlooked(&fakeAgent{status: func(context.Context) (core.Status, error) {
			if at.Add(1) > 1 {
				t.Error("two questions at a time")
			}
			defer at.Add(-1)
			time.Sleep(time.Millisecond)
			asked.Add(1)
			return healthy(), nil
		}})
		var all sync.WaitGroup
		for range maxConns {
			all.Go(func() {
				for range 10 {
					if st, err := agent.Status(t.Context()); err != nil || st.Cluster != healthy().Cluster {
						t.Errorf("%+v, %v", st, err)
					}
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		all.Wait()
		if n := asked.Load(); n < 1 || n > 2 {
			t.Errorf("the loop was asked %d times in 100 ms, want once or twice", n)
		}
	})
}

// A status that failed is not shared: it may have been the asker who gave up.
func TestOnlookedFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := true
		agent := newOnlooked(&fakeAgent{status: func(ctx context.Context) (core.Status, error) {
			if hangs {
				<-ctx.Done()
				return core.Status{}, ctx.Err()
			}
			return healthy(), nil
		}})
		ctx, cancel := context.WithTimeout(t.Context(), statusTime)
		defer cancel()
		var both sync.WaitGroup
		for range 2 { // the second waits for its turn no longer than for its answer
			both.Go(func() {
				if _, err := agent.Status(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a loop that hangs: %v", err)
				}
			})
		}
		both.Wait()
		hangs = false
		if _, err := agent.Status(t.Context()); err != nil {
			t.Errorf("when it goes on: %v", err)
		}
	})
}
