package sim

import (
	"iter"

	"github.com/quorate/quorate/election"
)

// A coroutine is one thread of a process: it runs until it waits, and goes on when
// it is resumed.
type coroutine struct {
	p     *process
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	ended bool
	read  election.Instant // the last reading of the clock that it got
}

// An unwinding is what a coroutine of a dead process panics with, to get out.
type unwinding struct{}

// spawn returns a coroutine that will run body when it is first resumed.
func (p *process) spawn(body func(c *coroutine)) *coroutine {
	c := &coroutine{p: p}
	c.next, c.stop = iter.Pull(func(yield func(struct{}) bool) {
		c.yield = yield
		defer func() {
			c.ended = true
			if r := recover(); r != nil {
				if _, ok := r.(unwinding); !ok {
					panic(r)
				}
			}
		}()
		body(c)
	})
	p.threads = append(p.threads, c)
	return c
}

// wait gives up control until the coroutine is resumed. It does not return in a
// process that was killed meanwhile.
func (c *coroutine) wait() {
	if !c.yield(struct{}{}) {
		panic(unwinding{})
	}
}

// resume lets a coroutine run until it waits or ends; in a frozen process it goes on
// when that thaws.
func (p *process) resume(c *coroutine) {
	switch {
	case !p.alive || c.ended:
		return
	case p.frozen:
		p.halted = append(p.halted, c)
		return
	}
	before := p.current
	p.current = c
	c.next()
	p.current = before
	if p.alive {
		p.stir()
	}
}
