package sim

import (
	"context"
	"time"
)

// A worker is a coroutine that does one job after the other.
type worker struct {
	c    *coroutine
	jobs []func()
	busy bool
}

func (w *worker) idle() bool { return !w.busy && len(w.jobs) == 0 }

// do gives the worker a job. The coroutine is made with the first.
func (p *process) do(w *worker, job func()) {
	w.jobs = append(w.jobs, job)
	if w.c == nil {
		w.c = p.spawn(func(c *coroutine) {
			for {
				for len(w.jobs) > 0 {
					w.busy = true
					p.sleep(p.w.jobTime())
					next := w.jobs[0]
					w.jobs = w.jobs[1:]
					w.c.read = p.clock()
					next()
				}
				w.busy = false
				c.wait()
			}
		})
	}
	if !w.busy {
		w.busy = true
		c := w.c
		p.w.after(0, func() { p.resume(c) })
	}
}

// jobTime is how long it takes until a worker has got the processor.
func (w *World) jobTime() time.Duration {
	if w.chance(w.env.Slow) {
		return w.jitter(time.Millisecond, 600*time.Millisecond)
	}
	return w.jitter(10*time.Microsecond, 300*time.Microsecond)
}

// Host, LAN, Disk, Task and Wall make a process the Stage of its agent.

// Host does jobs in order.
func (p *process) Host(job func()) { p.do(&p.addresses, job) }

// LAN does jobs in order.
func (p *process) LAN(job func()) { p.do(&p.lan, job) }

// Disk does a job beside the others.
func (p *process) Disk(job func()) { p.Task(0, func(context.Context) { job() }) }

// Task does a job beside the others. Its timeout is the ports' to keep, in true time.
func (p *process) Task(timeout time.Duration, job func(context.Context)) {
	ctx := context.Context(bounded{context.Background(), p.w.now + timeout})
	if timeout == 0 {
		ctx = context.Background()
	}
	c := p.spawn(func(*coroutine) { job(ctx) })
	p.w.after(0, func() { p.resume(c) })
}

// bounded is a context whose end is an instant of true time.
type bounded struct {
	context.Context
	end time.Duration
}

// Wall is true time counted from a day in history.
func (p *process) Wall() time.Time { return time.Unix(1_700_000_000, 0).Add(p.w.now) }
