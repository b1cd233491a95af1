package bubble

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate/election/peerlink"
)

// A cluster is the hosts of one bubble and what is between them. It belongs to the
// goroutine of its test, which does everything to it.
type cluster struct {
	t         *testing.T
	seed      uint64
	rng       *rand.Rand
	verbose   bool
	judge     *judge
	net       *network
	hosts     []*host
	founders  int // how many of them form the cluster; the others join it
	key       peerlink.Key
	slowDisks atomic.Bool
	due       []errand
	stats     stats
}

// stats is what one run showed.
type stats struct {
	takeovers map[string][]time.Duration // from what happened to an owner until another host served
	settled   []time.Duration            // from the end of the faults until all was as it should be
	faults    int
	handed    int // times that an address was opened
	spoken    int // announcements and adverts that left
	dropped   int // those that a fence kept back: the process was held up before it sent
}

// An errand is something that the test has to do later.
type errand struct {
	at time.Duration
	do func()
}

// newCluster makes n hosts and starts nothing. It must be called in a bubble.
func newCluster(t *testing.T, n int, seed uint64) *cluster {
	c := &cluster{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), judge: newJudge(), net: newNetwork(seed),
		founders: n, stats: stats{takeovers: map[string][]time.Duration{}}}
	var err error
	if c.key, err = peerlink.ParseKey(peerlink.GenerateKey()); err != nil {
		t.Fatal(err)
	}
	base := memoryDir(t)
	for i := range n {
		k := newKernel(c.judge, i, c.jitter(time.Second, time.Hour), 1+(c.rng.Float64()-0.5)*0.008)
		c.hosts = append(c.hosts, &host{
			c: c, i: i, kernel: k, dir: dirOf(base, i),
			addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 7950),
		})
	}
	return c
}

// memoryDir is a directory for the test, in memory if the host has such a file
// system: each run writes some thousand times.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "quorate-bubble-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// peersOf is the founders, and the host itself.
func (c *cluster) peersOf(h *host) (peers []netip.AddrPort) {
	for _, o := range c.hosts {
		if o.i < c.founders || o == h {
			peers = append(peers, o.addr)
		}
	}
	return peers
}

func (c *cluster) jitter(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(c.rng.Int64N(int64(hi-lo)))
}

func (c *cluster) chance(p float64) bool { return c.rng.Float64() < p }

// later has the test do something after a while.
func (c *cluster) later(d time.Duration, do func()) {
	c.due = append(c.due, errand{c.judge.now() + d, do})
}

// run lets d pass, and runs the errands that come due.
func (c *cluster) run(d time.Duration) {
	end := c.judge.now() + d
	for {
		next, at := -1, end
		for i, e := range c.due {
			if e.at <= at {
				next, at = i, e.at
			}
		}
		if wait := at - c.judge.now(); wait > 0 {
			time.Sleep(wait)
		}
		if next < 0 {
			return
		}
		do := c.due[next].do
		c.due = append(c.due[:next], c.due[next+1:]...)
		do()
	}
}

// await lets time pass until ok, and returns how long that took; after the bound it
// ends the test with the story.
func (c *cluster) await(what string, bound time.Duration, ok func() bool) time.Duration {
	c.t.Helper()
	began := c.judge.now()
	for !ok() {
		if c.judge.now()-began >= bound {
			c.fail("in vain waited %v for: %s", bound, what)
		}
		c.run(time.Millisecond)
	}
	return c.judge.now() - began
}

// fail ends the test with the story.
func (c *cluster) fail(format string, args ...any) {
	c.t.Helper()
	c.t.Logf("the story of seed %d:\n%s", c.seed, c.judge.text())
	c.t.Errorf(format, args...)
	c.killAll() // a bubble must not end with goroutines in it
	c.t.FailNow()
}

// unsettled says what keeps each address from being served by one host, and nothing
// of it left on another. Empty: nothing.
func (c *cluster) unsettled() string {
	c.judge.mu.Lock()
	defer c.judge.mu.Unlock()
	for _, a := range vips {
		servers := 0
		for _, h := range c.hosts {
			if h.kernel.serves(a) {
				servers++
			}
		}
		if servers != 1 {
			return fmt.Sprintf("%d hosts serve %s", servers, a)
		}
	}
	for _, h := range c.hosts {
		if left := h.kernel.leavings(); left != "" {
			return left
		}
	}
	return ""
}

// settle waits until all has been as it should for a second, and returns how long it
// took until then.
func (c *cluster) settle(bound time.Duration) time.Duration {
	c.t.Helper()
	began, since := c.judge.now(), c.judge.now()
	for {
		wrong := c.unsettled()
		now := c.judge.now()
		switch {
		case wrong != "":
			since = now
			if now-began >= bound {
				c.fail("not settled %v after all was well: %s", bound, wrong)
			}
		case now-since >= time.Second:
			return since - began
		}
		c.run(10 * time.Millisecond)
	}
}

// form starts the founders and waits for the first owners.
func (c *cluster) form() {
	c.t.Helper()
	for _, h := range c.hosts[:c.founders] {
		h.start()
		c.run(c.jitter(0, renew)) // their ticks must not coincide
	}
	c.settle(formBound)
	c.slowDisks.Store(true)
}

// agree waits until every host has a vote, and the same state as the others.
func (c *cluster) agree() {
	c.t.Helper()
	c.await("all hosts to vote and to have one state", settleBound, func() bool {
		first, err := c.hosts[0].life.part.Raft().State().Encode()
		if err != nil {
			c.fail("encode the state: %v", err)
		}
		for _, h := range c.hosts {
			raft := h.life.part.Raft()
			state, err := raft.State().Encode()
			voters := raft.VoterLog()
			if err != nil || !bytes.Equal(state, first) || len(voters.Last.Voters) != len(c.hosts) || !voters.LastCommitted {
				return false
			}
		}
		return true
	})
}

// killAll ends every process at once.
func (c *cluster) killAll() {
	c.slowDisks.Store(false)
	for _, h := range c.hosts {
		if h.life != nil {
			h.life.kill(false)
		}
	}
	c.wind()
}

// stopAll ends every process in good order and looks at what is left.
func (c *cluster) stopAll() {
	c.t.Helper()
	for _, h := range c.hosts {
		h.life.stop()
	}
	c.await("every process to end", stopBound, func() bool {
		for _, h := range c.hosts {
			if !h.life.over() {
				return false
			}
		}
		return true
	})
	c.judge.mu.Lock()
	for _, h := range c.hosts {
		if len(h.kernel.fence)+len(h.kernel.addrs) > 0 {
			c.judge.violated("%s was stopped and left %v, fence %v", h.name(), h.kernel.addrs, h.kernel.fence)
		}
	}
	c.judge.mu.Unlock()
	c.wind()
}

// wind ends what is made up, and lets the libraries' last goroutines end.
func (c *cluster) wind() {
	for _, h := range c.hosts {
		for _, l := range h.lives {
			<-l.ended
		}
	}
	c.net.close()
	time.Sleep(time.Minute)
}

func (l *life) over() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}
