package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/election/raftnode"
	"github.com/quorate/quorate/fsm"
)

// A loopback is Raft on the port of one node.
type loopback struct{ net.Listener }

func (loopback) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(to), timeout)
}

type deafSink struct{}

func (deafSink) Applied(raftnode.Applied)    {}
func (deafSink) VoterSets(election.VoterLog) {}
func (deafSink) Leader(raftnode.LeaderInfo)  {}
func (deafSink) Disk(raftnode.DiskHealth)    {}

// lostNode makes the configuration and data directory of n1, whose cluster of three has
// lost the others. nobody is where one of them was, and somebody where another is.
func lostNode(t *testing.T, others ...fsm.Node) (file, dir string) {
	t.Helper()
	dir = t.TempDir()
	d, err := raftnode.OpenDataDir(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	self := fsm.Node{ID: d.Instance(), Name: "n1", Address: netip.MustParseAddrPort(l.Addr().String()), Role: fsm.Member}
	n, err := raftnode.Open(raftnode.Config{Self: self, Dir: d, Stream: loopback{l}, Sink: deafSink{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	form := fsm.Command{Form: &fsm.Form{Cluster: fsm.ClusterID{9}, Name: "prod", Nodes: append([]fsm.Node{self}, others...),
		Document: fsm.Document{MaxHold: 10 * time.Millisecond, Groups: savedState().Document.Groups}}}
	assign := fsm.Command{Assign: &fsm.Assign{Group: "web", Owner: self.ID, Reason: fsm.ReasonFirst}}
	if len(others) > 0 {
		assign.Assign.Owner = others[0].ID
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		err := n.Bootstrap(t.Context(), []fsm.Node{self}) // the only voter, so that there is one to commit
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	for _, c := range []fsm.Command{form, assign} {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			err := n.Propose(t.Context(), c)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "quorate.yaml")
	text := fmt.Sprintf("cluster: prod\nnode: n1\naddress: %s\npeers: [%s, 127.0.0.1:1, 127.0.0.1:2]\nkey_file: /k\ndata_dir: %s\nvips: {web: {addresses: [10.0.0.200/24], interface: eth0}}\n",
		self.Address, self.Address, filepath.Join(dir, "data"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, dir
}

// nobody listens there: it is a port of nobody's.
var nobody = netip.MustParseAddrPort("127.0.0.1:1")

func TestRecoverCommand(t *testing.T) {
	lost := []fsm.Node{{ID: fsm.InstanceID{3}, Name: "n3", Address: nobody, Role: fsm.Witness}, {ID: fsm.InstanceID{2}, Name: "n2", Address: nobody, Role: fsm.Member}}
	file, dir := lostNode(t, lost...)
	refuse := func(want string, args ...string) {
		t.Helper()
		code, stdout, stderr := quorate(t, append([]string{"recover", "--config", file}, args...)...)
		if code != exitFailed || !strings.Contains(stderr, want) {
			t.Errorf("recover %v: exit %d, %q; want %q", args, code, stderr, want)
		}
		for _, line := range []string{"n1 becomes the only node", "n2  127.0.0.1:1  member", "n3  127.0.0.1:1  witness", "web was on n3"} {
			if !strings.Contains(stdout, line) {
				t.Errorf("recover %v does not show %q:\n%s", args, line, stdout)
			}
		}
	}
	refuse("nothing was changed; if all of these are lost for good: --yes n2,n3")
	refuse("--yes names n2, and it must name every other node", "--yes", "n2")
	refuse("--yes names n2,n3,n4", "--yes", "n2,n3,n4")
	unlock, err := raftnode.TryLock(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := quorate(t, "recover", "--config", file, "--yes", "n2,n3"); code != exitFailed || !strings.Contains(stderr, "the daemon runs: stop it first") {
		t.Errorf("with a daemon: exit %d, %q", code, stderr)
	}
	unlock()
	code, stdout, stderr := quorate(t, "recover", "--config", file, "--yes", "n3", "--yes", "n2")
	if code != exitDone || !strings.Contains(stdout, "done: n1 is a cluster of its own") {
		t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
	}
	d, err := raftnode.OpenDataDir(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	left, err := raftnode.ReadSurvivor(d, slog.New(slog.DiscardHandler))
	d.Close()
	if err != nil || len(left.State.Nodes) != 1 || left.State.Retired[fsm.InstanceID{2}].Name != "n2" || left.State.Cluster == (fsm.ClusterID{9}) {
		t.Errorf("recovered %+v, %v", left.State, err)
	}
	if code, _, stderr := quorate(t, "recover", "--config", file, "--yes", "n2,n3"); code != exitFailed || !strings.Contains(stderr, "is the only one of its cluster: nothing is lost") {
		t.Errorf("a second time: exit %d, %q", code, stderr)
	}
}

// TestRecoverNotLost: a node that still listens is not lost.
func TestRecoverNotLost(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, _ := lostNode(t, fsm.Node{ID: fsm.InstanceID{2}, Name: "n2", Address: netip.MustParseAddrPort(l.Addr().String()), Role: fsm.Member})
	if code, _, stderr := quorate(t, "recover", "--config", file, "--yes", "n2"); code != exitFailed || !strings.Contains(stderr, "so node n2 is not lost") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

func TestRecoverNothing(t *testing.T) {
	dir := t.TempDir()
	file := configure(t, dir, "")
	if code, _, stderr := quorate(t, "recover", "--config", file, "--yes", "n2,n3"); code != exitFailed || !strings.Contains(stderr, "no daemon ever ran here") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Error("it made the data directory")
	}
}
