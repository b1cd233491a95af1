package raftnode

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm"
)

// plainTCP is a Stream without encryption.
type plainTCP struct{ net.Listener }

func (plainTCP) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(to), timeout)
}

func listen(t testing.TB, addr string) plainTCP {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return plainTCP{l}
}

// runReal starts a node on TCP and on a real disk, and stops it with the test.
func runReal(t testing.TB, self fsm.Node, d *DataDir, s Stream, commit time.Duration) (*Node, func()) {
	t.Helper()
	n, err := Open(Config{Self: self, Dir: d, Stream: s, Sink: &recorder{}, Log: quiet(), CommitTimeout: commit})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", self.Name, err)
		}
	}
	t.Cleanup(stop)
	for deadline := time.Now().Add(10 * time.Second); n.raft.Load() == nil; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the node does not run")
		}
	}
	return n, stop
}

func realDir(t testing.TB) *DataDir {
	t.Helper()
	d, err := OpenDataDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// realCluster is three nodes on TCP and the real disk, the first of which leads.
func realCluster(t testing.TB, commit time.Duration) (nodes []*Node, selves []fsm.Node, dirs []*DataDir, stops []func()) {
	for i := range 3 {
		d, s := realDir(t), listen(t, "127.0.0.1:0")
		self := fsm.Node{ID: d.Instance(), Name: fmt.Sprint("n", i+1), Role: fsm.Member, Address: netip.MustParseAddrPort(s.Addr().String())}
		n, stop := runReal(t, self, d, s, commit)
		nodes, selves, dirs, stops = append(nodes, n), append(selves, self), append(dirs, d), append(stops, stop)
	}
	if err := nodes[0].Bootstrap(t.Context(), selves); err != nil {
		t.Fatal(err)
	}
	if err := nodes[0].Campaign(t.Context()); err != nil {
		t.Fatal(err)
	}
	return nodes, selves, dirs, stops
}

func TestClusterOnTCPAndDisk(t *testing.T) {
	nodes, selves, dirs, stops := realCluster(t, 0)
	await1(t, "n1 leads", func() bool { return nodes[0].Leader().Self })
	if err := nodes[0].Propose(t.Context(), fsm.Command{Form: &fsm.Form{Cluster: instance(9), Name: "prod", Nodes: selves, Document: document()}}); err != nil {
		t.Fatal(err)
	}
	if err := nodes[0].Propose(t.Context(), fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: selves[2].ID, Reason: fsm.ReasonFirst}}); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		await1(t, "assigned", func() bool { return n.State().Assignments["web"].Owner == selves[2].ID })
	}
	stops[2]()
	n, _ := runReal(t, selves[2], dirs[2], listen(t, selves[2].Address.String()), 0)
	if at := n.AtStart(); at.LastCommand != nodes[0].AppliedIndex() || !n.HasState() {
		t.Errorf("after the restart: state %v, log at start %+v; applied elsewhere %d", n.HasState(), at, nodes[0].AppliedIndex())
	}
	await1(t, "caught up", func() bool { return n.AppliedIndex() >= n.AtStart().LastCommand })
	if err := n.Campaign(t.Context()); err != nil {
		t.Fatal(err)
	}
	await1(t, "n3 leads and all know", func() bool {
		return n.Leader().Self && nodes[0].Leader().ID == selves[2].ID && nodes[1].Leader().ID == selves[2].ID
	})
}

func TestOpenRefusesAnotherInstancesDirectory(t *testing.T) {
	d := realDir(t)
	_, err := Open(Config{Self: fsm.Node{ID: instance(1)}, Dir: d, Sink: &recorder{}, Log: quiet()})
	if err == nil || !strings.Contains(err.Error(), d.Instance().String()) {
		t.Errorf("open with another identity: %v", err)
	}
}

func TestLogBridge(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))
	b := bridge(log)
	b.Error("failed to heartbeat to", "peer", "x") // repeats; debug here
	b.Debug("a detail")
	b.Named("net").With("node", "n1").Warn("odd", "error", fmt.Errorf("broken"), "took", hclog.Fmt("%d ms", 3))
	b.Warn("heartbeat timeout reached, starting election")
	var lines []map[string]any
	for _, l := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		m := map[string]any{}
		if err := json.Unmarshal([]byte(l), &m); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		lines = append(lines, m)
	}
	if len(lines) != 2 {
		t.Fatalf("logged %v, want two lines", lines)
	}
	if l := lines[0]; l["level"] != "WARN" || l["msg"] != "odd" || l["error"] != "broken" || l["took"] != "3 ms" || l["node"] != "n1" {
		t.Errorf("logged %v", l)
	}
	if l := lines[1]; l["level"] != "INFO" {
		t.Errorf("an election at level %v, want INFO", l["level"])
	}
}
