package bubble

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorate/quorate/election"
)

// inBubble runs a test with a cluster of three that is up and well.
func inBubble(t *testing.T, f func(t *testing.T, c *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 1)
		c.form()
		f(t, c)
		c.killAll()
	})
}

// owner is the host that serves the first address.
func (c *cluster) owner() *host {
	c.t.Helper()
	k := c.judge.server(vips[0])
	if k == nil {
		c.fail("nobody serves %s", vips[0])
	}
	return c.hostOf(k)
}

// sees fails the test unless the judge saw something of the kind.
func (c *cluster) sees(what string) {
	c.t.Helper()
	for _, v := range c.judge.verdict() {
		if strings.Contains(v, what) {
			return
		}
	}
	c.fail("the judge saw %q, want %q in it", c.judge.verdict(), what)
}

// A fence that forgets its deadlines lets a dead owner go on answering: the judge
// must see two.
func TestJudgeSeesAFenceThatSleeps(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		old := c.owner()
		c.judge.mu.Lock()
		old.kernel.sleeps = true
		c.judge.mu.Unlock()
		old.life.kill(false)
		c.run(takeoverBound)
		c.sees("for which " + old.name() + " can still answer")
	})
}

// A host whose clock runs far too slow, and says that it is well, is outside of what
// the promise assumes: its lease lasts longer than the others think.
func TestJudgeSeesASlowClock(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		old := c.owner()
		c.judge.mu.Lock()
		now := old.kernel.clock()
		old.kernel.rate = 0.7
		old.kernel.offset += now.Sub(old.kernel.clock()) // it goes on from the same reading
		c.judge.mu.Unlock()
		c.run(4 * lease)
		old.life.kill(false)
		c.run(takeoverBound)
		c.sees("for which " + old.name() + " can still answer")
	})
}

// Without a majority nobody serves, and the test's idea of being well says so.
func TestNobodyServesWithoutAMajority(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		if wrong := c.unsettled(); wrong != "" {
			t.Errorf("a cluster that is well: %s", wrong)
		}
		old := c.owner()
		c.others(old, func(o *host) { o.life.kill(true) })
		c.run(2 * lease)
		if k := c.judge.server(vips[0]); k != nil {
			t.Errorf("%s serves without a majority", k.name)
		}
		if wrong := c.unsettled(); !strings.Contains(wrong, "0 hosts serve") {
			t.Errorf("a cluster without an owner: %q", wrong)
		}
		if wrong := c.judge.verdict(); len(wrong) > 0 {
			t.Errorf("the judge saw %q", wrong)
		}
	})
}

// What a kernel must never be told to do.
func TestJudgeSeesWhatNoProcessMayDo(t *testing.T) {
	a := vips[0]
	for _, tt := range []struct {
		name, want string
		do         func(one, two *kernel)
	}{
		{"two deadlines at once", "can still answer", func(one, two *kernel) {
			one.setFence(a, one.clock().Add(lease), lease)
			two.setFence(a, two.clock().Add(time.Millisecond), lease)
		}},
		{"within the grace", "can still answer", func(one, two *kernel) {
			one.setFence(a, one.clock().Add(1), lease)
			time.Sleep(election.GraceBPF - time.Millisecond)
			two.setFence(a, two.clock().Add(lease), lease)
		}},
		{"within the grace of a fence that was shut", "can still answer", func(one, two *kernel) {
			one.setFence(a, one.clock().Add(lease), lease)
			one.setFence(a, 0, lease)
			time.Sleep(election.GraceBPF - time.Millisecond)
			two.setFence(a, two.clock().Add(lease), lease)
		}},
		{"within the grace of an address that was removed", "can still answer", func(one, two *kernel) {
			one.setFence(a, one.clock().Add(lease), lease)
			one.add(a, time.Second)
			time.Sleep(time.Millisecond)
			delete(one.addrs, a)
			one.deleteFence(a)
			time.Sleep(election.GraceBPF - time.Millisecond)
			two.setFence(a, two.clock().Add(lease), lease)
		}},
		{"within the grace of what a dead process left", "can still answer", func(one, two *kernel) {
			one.setFence(a, one.clock().Add(lease), lease)
			one.clear()
			two.setFence(a, two.clock().Add(lease), lease)
		}},
		{"longer than the lease", "its lease is", func(one, _ *kernel) { one.setFence(a, one.clock().Add(lease+1), lease) }},
		{"an address before its fence", "without an entry", func(one, _ *kernel) { one.add(a, time.Second) }},
		{"an address without its fence", "takes the fence from", func(one, _ *kernel) {
			one.setFence(a, 0, lease)
			one.add(a, time.Second)
			one.deleteFence(a)
		}},
		{"an advert without a fence", "sends an advert", func(one, _ *kernel) { one.speak("an advert", a) }},
		{"an announcement beside another", "can answer", func(one, two *kernel) {
			one.setFence(a, one.clock().Add(lease), lease)
			two.fence[a] = two.clock().Add(lease)
			one.speak("an announcement", a)
		}},
		{"nothing of the kind", "", func(one, two *kernel) {
			one.setFence(a, one.clock().Add(lease), lease)
			one.add(a, time.Second)
			one.speak("an advert", a)
			one.setFence(a, 0, lease)
			one.speak("an advert", a) // dropped
			time.Sleep(election.GraceBPF)
			two.setFence(a, two.clock().Add(lease), lease)
			time.Sleep(2 * lease)
			one.setFence(a, one.clock().Add(lease), lease)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := newJudge()
				one, two := newKernel(j, 0, time.Minute, 1.004), newKernel(j, 1, time.Hour, 0.996)
				j.mu.Lock()
				tt.do(one, two)
				j.mu.Unlock()
				saw := strings.Join(j.verdict(), "\n")
				if tt.want == "" && saw != "" || !strings.Contains(saw, tt.want) {
					t.Errorf("saw %q, want %q", saw, tt.want)
				}
			})
		})
	}
}
