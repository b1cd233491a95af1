package lab

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var idleFor = flag.Duration("idle", 3*time.Second, "how long TestEdgeIdle measures each kind of cluster")

// usage is what a daemon takes: processor time in all, and memory now.
type usage struct {
	cpu time.Duration
	rss int // bytes
	at  Instant
}

// use reads a process's usage from /proc. Its processor time is what the scheduler has
// measured for each thread: the sum in stat is sampled, and a program that runs for
// microseconds at a time on the clock's tick looks twice as busy in it.
func use(t *testing.T, p *Process) usage {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(p.Pid()))
	threads, err := filepath.Glob(filepath.Join(dir, "task", "*", "schedstat"))
	must(t, err)
	var cpu time.Duration
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if errors.Is(err, os.ErrNotExist) {
			continue // it has ended
		}
		must(t, err)
		ran, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(ran, 10, 64)
		must(t, err)
		cpu += time.Duration(n)
	}
	pages, err := os.ReadFile(filepath.Join(dir, "statm"))
	must(t, err)
	rss, err := strconv.Atoi(strings.Fields(string(pages))[1])
	must(t, err)
	return usage{cpu, rss * os.Getpagesize(), Now()}
}

// TestEdgeIdle measures what a cluster costs that has nothing to do, with one address,
// with 250 groups, and with 1,000 addresses in one group. It judges memory, which does
// not depend on what else the machine does, and reports the processor's time.
func TestEdgeIdle(t *testing.T) {
	t.Parallel()          // alone it measures best; what it judges does not depend on that
	const most = 40 << 20 // of memory with 250 groups
	for _, k := range []struct {
		name, groups string
	}{
		{"1 address", ""},
		{"250 groups", idleGroups(250)},
		{"1,000 addresses in a group", fmt.Sprintf("bulk:\n  addresses: [%s]\n  interface: eth0\n", strings.Join(slashed(scaleAddrs()), ", "))},
	} {
		t.Run(k.name, func(t *testing.T) {
			c := formedCluster(t, ClusterOptions{Groups: k.groups})
			until(t, "every group is held", 20*time.Second, func() bool {
				for _, v := range status(t, c.Nodes[0]).VIPs {
					if !v.Open {
						return false
					}
				}
				return true
			})
			pause(3 * time.Second) // the announcements of the take-over are over
			leader, err := c.Leader(t.Context())
			must(t, err)
			before := map[*Node]usage{}
			for _, n := range c.Nodes {
				before[n] = use(t, n.proc)
			}
			pause(*idleFor)
			for _, n := range c.Nodes {
				now := use(t, n.proc)
				share := 100 * float64(now.cpu-before[n].cpu) / float64(now.at.Sub(before[n].at))
				role := "follower"
				if n == leader {
					role = "leader and owner"
				}
				t.Logf("%s, %s: %.1f %% of a processor, %d MB", n.Name, role, share, now.rss>>20)
				if now.rss > most {
					t.Errorf("%s takes %d MB, want at most %d", n.Name, now.rss>>20, most>>20)
				}
			}
		})
	}
}

func idleGroups(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "g%d:\n  addresses: [10.1.%d.%d/32]\n  interface: eth0\n", i, i/250, 1+i%250)
	}
	return b.String()
}
