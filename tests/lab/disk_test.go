package lab

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	diskBad  = "the disk under data_dir does not take writes"
	diskGood = "the disk under data_dir takes writes again"
	maxMoves = 300
)

// TestDiskFills fills the file system under a follower, then under the leader. Both
// say so, nobody panics, somebody serves all the time, and with room all is well again.
func TestDiskFills(t *testing.T) {
	t.Parallel()
	c := newCluster(t, ClusterOptions{})
	for _, n := range c.Nodes {
		mountTmpfs(t, n.Data, 0, "size=8m")
		must(t, n.Start())
	}
	healthy(t, c)
	t.Run("follower", func(t *testing.T) {
		owner, leader, err := c.agreed(t.Context())
		must(t, err)
		full := c.Other(owner)
		if full == leader {
			full = c.Other(full)
		}
		testFullDisk(t, c, full, c.without(full))
	})
	t.Run("leader", func(t *testing.T) {
		leader, err := c.Leader(t.Context())
		must(t, err)
		testFullDisk(t, c, leader, c.without(leader))
	})
}

func testFullDisk(t *testing.T, c *Cluster, full *Node, rest *Cluster) {
	from, before := Now(), len(output(t, full.proc))
	fill(t, filepath.Join(full.Data, "fill"))
	moveUntilBad(t, full, before, rest)
	problem(t, full, 5*time.Second, "no space left")
	servedWithout(t, rest, from)
	must(t, os.Remove(filepath.Join(full.Data, "fill")))
	until(t, full.Name+" logs that all is well", 20*time.Second, func() bool {
		return strings.Contains(output(t, full.proc)[before:], diskGood)
	})
	healthy(t, c)
	onlyOwnerHolds(t, c)
}

// moveUntilBad has the cluster commit things until a node says that it cannot write
// them down: while its log has room in the blocks that it has, a full disk is none.
func moveUntilBad(t *testing.T, bad *Node, before int, rest *Cluster) {
	t.Helper()
	for turn := range maxMoves {
		to := rest.Nodes[turn%len(rest.Nodes)]
		if err := rest.Move(t.Context(), to, to); err != nil {
			t.Logf("move %d: %v", turn, err) // it is there already, or a leader can write nothing
		}
		if strings.Contains(output(t, bad.proc)[before:], diskBad) {
			return
		}
		// A move there and back within three of its questions looks to the judge like
		// two owners, see judge.go.
		pause(10 * DefaultPeriod)
	}
	t.Fatalf("%d moves, and %s has not said that it cannot write", maxMoves, bad.Name)
}

// servedWithout waits until the nodes of a majority agree on who answers.
func servedWithout(t *testing.T, rest *Cluster, from Instant) {
	t.Helper()
	until(t, "the others agree on a leader and an owner", 20*time.Second, func() bool {
		var owners, leaders []string
		for _, n := range rest.Nodes {
			s, err := n.Status(t.Context())
			if g, ok := s.Group(); err == nil && ok {
				owners, leaders = append(owners, g.Owner), append(leaders, s.Leader)
			}
		}
		return len(owners) == 2 && owners[0] == owners[1] && leaders[0] == leaders[1] && rest.Node(leaders[0]) != nil
	})
	since := Now()
	until(t, "somebody answers", outageBound, func() bool { return answering(rest.Probes4[0].Trace, since) })
	v, err := rest.Judge(from, Now())
	must(t, err)
	t.Logf("outage %v, answered by %v", v.Outage, v.Owners)
	if v.Outage > outageBound {
		t.Errorf("outage %v", v.Outage)
	}
}

// TestDiskTurnsReadOnly has the file system of a follower, then of the leader, turn
// itself read-only, as one does that found an error. Mounted again it is good, unless a
// mount namespace of another test has a copy of it: so this one runs alone.
func TestDiskTurnsReadOnly(t *testing.T) {
	c := newCluster(t, ClusterOptions{})
	for _, n := range c.Nodes {
		mountExt4(t, n.Data)
		must(t, n.Start())
	}
	healthy(t, c)
	owner, leader, err := c.agreed(t.Context())
	must(t, err)
	follower := c.Other(owner)
	if follower == leader {
		follower = c.Other(follower)
	}
	t.Run("follower", func(t *testing.T) { testReadOnlyDisk(t, c, follower) })
	leader, err = c.Leader(t.Context())
	must(t, err)
	t.Run("leader", func(t *testing.T) { testReadOnlyDisk(t, c, leader) })
}

func testReadOnlyDisk(t *testing.T, c *Cluster, n *Node) {
	rest, from, before := c.without(n), Now(), len(output(t, n.proc))
	if out, err := exec.Command("mount", "-o", "remount,abort", n.Data).CombinedOutput(); err != nil {
		t.Logf("mount -o remount,abort: %v: %s", err, out) // it reports the error that it makes
	}
	if err := os.WriteFile(filepath.Join(n.Data, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Fatalf("the file system should be read-only, and writing a file says %v", err)
	}
	moveUntilBad(t, n, before, rest)
	problem(t, n, 5*time.Second, "read-only")
	servedWithout(t, rest, from)
	must(t, n.proc.Kill())
	must(t, rest.WaitHealthy(t.Context(), 40*time.Second))
	must(t, unix.Unmount(n.Data, 0))
	must(t, run("mount", "-o", "loop", n.Data+".ext4", n.Data))
	must(t, n.Start())
	healthy(t, c)
	onlyOwnerHolds(t, c)
}

// mountExt4 puts an ext4 of its own, in a file, under a path.
func mountExt4(t *testing.T, path string) {
	t.Helper()
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("SKIPPED: mkfs.ext4 is not installed (apt-get install e2fsprogs)")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("SKIPPED: this machine has no loop devices")
	}
	image := path + ".ext4"
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 32<<20))
	must(t, run("mkfs.ext4", "-q", "-m", "0", image))
	if out, err := exec.Command("mount", "-o", "loop,errors=remount-ro", image, path).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: cannot mount a file here: %v: %s", err, strings.TrimSpace(string(out)))
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
