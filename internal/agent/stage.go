package agent

import (
	"context"
	"sync"
	"time"
)

// A Stage is where the work beside the loop is done. Its methods return at once.
type Stage interface {
	// Host does the jobs one after the other, in the order in which they were given.
	Host(job func())
	// LAN does so too, beside Host.
	LAN(job func())
	// Disk does a job beside all others. It is not waited for at the end: on a disk
	// that hangs it never returns.
	Disk(job func())
	// Task does a job beside all others. Its context ends with the agent, and after
	// the timeout if that is positive.
	Task(timeout time.Duration, job func(context.Context))
	// Wall is the time of day, for people only.
	Wall() time.Time
}

// A crew is the Stage of a real agent: a goroutine for the host, one for the LAN,
// and one for each other job.
type crew struct {
	host   *worker
	lan    *worker
	tasks  sync.WaitGroup
	ctx    context.Context // of Run; what Task was given ends with it
	cancel context.CancelFunc
}

func newCrew() *crew { return &crew{host: newWorker(), lan: newWorker()} }

// start begins the work. It goes on when ctx has ended, so that what is held is let go.
func (c *crew) start(ctx context.Context) {
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.tasks.Go(c.host.run)
	c.tasks.Go(c.lan.run)
}

// end returns when everything that was given before it has been done.
func (c *crew) end() {
	c.cancel()
	c.host.close()
	c.lan.close()
	c.tasks.Wait()
}

func (c *crew) Host(job func()) { c.host.do(job) }
func (c *crew) LAN(job func())  { c.lan.do(job) }
func (c *crew) Disk(job func()) { go job() }
func (c *crew) Wall() time.Time { return time.Now() }

func (c *crew) Task(timeout time.Duration, job func(context.Context)) {
	c.tasks.Go(func() {
		ctx, cancel := c.ctx, context.CancelFunc(func() {})
		if timeout > 0 {
			ctx, cancel = context.WithTimeout(ctx, timeout)
		}
		defer cancel()
		job(ctx)
	})
}

// A worker does jobs one after the other, in the order in which they were given.
type worker struct {
	box  *mailbox
	stop chan struct{}
}

func newWorker() *worker { return &worker{box: newMailbox(), stop: make(chan struct{})} }

func (w *worker) do(job func()) { w.box.put(job) }

// run works until close, and finishes what was given before that.
func (w *worker) run() {
	for {
		select {
		case <-w.box.ready:
			w.drain()
		case <-w.stop:
			w.drain()
			return
		}
	}
}

func (w *worker) drain() {
	for _, job := range w.box.take() {
		job.(func())()
	}
}

func (w *worker) close() { close(w.stop) }
