package lab

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// newCluster is startCluster up to where the nodes would be started. However the test
// ends, nobody may ever have seen two owners, and no daemon may have panicked.
func newCluster(t *testing.T, opt ClusterOptions) *Cluster {
	t.Helper()
	l := newLab(t)
	path, err := buildQuorate()
	must(t, err)
	opt.Binary = path
	c, err := NewCluster(t.Context(), l, opt)
	must(t, err)
	t.Cleanup(func() { judgeWhole(t, c) })
	return c
}

// formedCluster is newCluster, started and formed.
func formedCluster(t *testing.T, opt ClusterOptions) *Cluster {
	t.Helper()
	c := newCluster(t, opt)
	for _, n := range c.Nodes {
		must(t, n.Start())
	}
	healthy(t, c)
	return c
}

func healthy(t *testing.T, c *Cluster) {
	t.Helper()
	must(t, c.WaitHealthy(t.Context(), 40*time.Second))
}

func ownerOf(t *testing.T, c *Cluster) *Node {
	t.Helper()
	n, err := c.Owner(t.Context())
	must(t, err)
	return n
}

// judgeWhole judges everything since the cluster's observers were started.
func judgeWhole(t *testing.T, c *Cluster) {
	t.Helper()
	v, err := c.Judge(0, Now())
	if err != nil {
		t.Error(err)
	}
	if v.TwoOwners != 0 {
		t.Errorf("from start to end: %v with two owners at %v", v.TwoOwners, v.Overlaps)
	}
	for _, n := range c.Nodes {
		if n.proc != nil {
			noPanic(t, n.proc)
		}
	}
}

// without is the cluster as its other nodes should see it.
func (c *Cluster) without(n *Node) *Cluster {
	rest := *c
	rest.Nodes = nil
	for _, other := range c.Nodes {
		if other != n {
			rest.Nodes = append(rest.Nodes, other)
		}
	}
	return &rest
}

// output is what a process has printed so far, in all its lives.
func output(t *testing.T, p *Process) string {
	t.Helper()
	b, err := os.ReadFile(p.Log)
	must(t, err)
	return string(b)
}

func noPanic(t *testing.T, p *Process) {
	t.Helper()
	for _, sign := range []string{"panic:", "fatal error:", "DATA RACE", "goroutine 1 ["} {
		if strings.Contains(output(t, p), sign) {
			t.Errorf("%s: its log has %q:\n%s", p.Name, sign, output(t, p))
		}
	}
}

// logged waits until a node's log has all the words.
func logged(t *testing.T, n *Node, limit time.Duration, words ...string) {
	t.Helper()
	until(t, n.Name+" logs "+strings.Join(words, ", "), limit, func() bool { return hasAll(output(t, n.proc), words...) })
}

func hasAll(text string, words ...string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// status asks a node that is there to answer.
func status(t *testing.T, n *Node) Status {
	t.Helper()
	s, err := n.Status(t.Context())
	must(t, err)
	return s
}

// edit replaces text in a node's configuration; old must be there.
func edit(t *testing.T, n *Node, old, with string) {
	t.Helper()
	b, err := os.ReadFile(n.Config)
	must(t, err)
	if !strings.Contains(string(b), old) {
		t.Fatalf("the configuration of %s has no %q:\n%s", n.Name, old, b)
	}
	must(t, os.WriteFile(n.Config, []byte(strings.Replace(string(b), old, with, 1)), 0o644))
}

// addNode makes one more node, which lists itself among the peers.
func addNode(t *testing.T, c *Cluster, name string, i int) *Node {
	t.Helper()
	n, err := c.makeNode(name, i)
	must(t, err)
	must(t, n.Host.ServeEcho())
	edit(t, n, "peers: [", "peers: ["+n.Host.IPv4.String()+":7950, ")
	return n
}

// call runs a command inside the host and returns its exit code and all it printed.
func call(t *testing.T, h *Host, args ...string) (code int, out string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	var buf bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &buf, &buf
	must(t, h.Do(cmd.Start))
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return cmd.ProcessState.ExitCode(), buf.String()
}

// fenced lists the host's devices that have a BPF program in traffic control.
func fenced(t *testing.T, h *Host) (devices []string) {
	t.Helper()
	must(t, h.Do(func() error {
		list, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, ifi := range list {
			has, err := hasPrograms(ifi.Index)
			if err != nil {
				return err
			}
			if has {
				devices = append(devices, ifi.Name)
			}
		}
		return nil
	}))
	return devices
}

func hasPrograms(index int) (bool, error) {
	for _, side := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		r, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: side})
		if err != nil && !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, unix.EINVAL) {
			return false, err
		}
		if err == nil && len(r.Programs) > 0 {
			return true, nil
		}
	}
	qdiscs, err := netlink.QdiscList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}})
	if err != nil {
		return false, err
	}
	for _, q := range qdiscs {
		if q.Type() == "clsact" && q.Attrs().LinkIndex == index {
			return true, nil
		}
	}
	return false, nil
}

func holds(t *testing.T, n *Node, ip netip.Addr) bool {
	t.Helper()
	_, held, err := n.Host.Holds(ip)
	must(t, err)
	return held
}

// onlyOwnerHolds waits until the group's addresses are on the owner and nowhere else.
func onlyOwnerHolds(t *testing.T, c *Cluster) {
	t.Helper()
	owner := ownerOf(t, c)
	until(t, "the addresses are on "+owner.Name+" alone", 15*time.Second, func() bool {
		for _, n := range c.Nodes {
			for _, vip := range c.vipAddrs() {
				if holds(t, n, vip) != (n == owner) {
					return false
				}
			}
		}
		return true
	})
}

// quietFrom checks that a host answered no question that was sent after an instant.
func quietFrom(t *testing.T, c *Cluster, h *Host, end Instant) {
	t.Helper()
	for _, p := range append(c.Probes4[:1:1], c.Probes6...) {
		tr := p.Trace()
		must(t, p.Err())
		for _, a := range tr.Answers {
			if a.Host == h.Name && a.Sent >= end {
				t.Errorf("%s answered for %s %v after it had to be quiet", h.Name, tr.Target, a.Sent.Sub(end))
				break
			}
		}
	}
}

// mountTmpfs puts a file system of its own under a path for as long as the test runs.
func mountTmpfs(t *testing.T, path string, flags uintptr, options string) {
	t.Helper()
	must(t, unix.Mount("quorate-lab", path, "tmpfs", flags, options))
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// fill writes a file until the file system is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	must(t, err)
	defer func() { _ = f.Close() }()
	for block := make([]byte, 1<<16); len(block) > 0; {
		_, err := f.Write(block)
		if errors.Is(err, unix.ENOSPC) {
			block = block[:len(block)/2]
		} else {
			must(t, err)
		}
	}
}
