package interop

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

// TestMigration goes the way of docs/migrate.md with the last of a pair of keepalived: our
// cluster is backup beside it, owner, backup again, owner, and at last on its host too.
func TestMigration(t *testing.T) {
	t.Parallel()
	needs(t, "keepalived", "keepalived")
	l := newLab(t)
	hosts := []*lab.Host{addHost(t, l, "n1", 1), addHost(t, l, "n2", 2), addHost(t, l, "n3", 3)}
	n1, n2 := hosts[0], hosts[1]
	w := watch(t, addHost(t, l, "judge", judgeNumber), hosts, []netip.Addr{shadowVIP4.Addr()})
	m := newMigration(t, l, hosts)

	k, err := n1.StartKeepalived(lab.Keepalived{Priority: 150, VRID: 51, Interval: time.Second, VIPs: []netip.Prefix{shadowVIP4}})
	must(t, err)
	onlyAnswers(t, w, n1)

	m.start(t, 1, "["+n2.IPv4.String()+":7950]", 50, "")
	m.start(t, 2, m.all, 50, "role: witness\n")
	m.await(t, "n2 is backup to keepalived, and n3 has joined", func(s lab.Status) bool {
		g, ok := s.Group()
		return ok && g.State == "yielded" && len(s.Members) == 2 && s.Members[1].Voter
	})
	from := lab.Now()
	pause(1500 * time.Millisecond)
	for _, s := range w.between(51, from, lab.Now()) {
		if s.host != n1.Name {
			t.Errorf("as a backup: %v", s)
		}
	}
	onlyAnswers(t, w, n1)

	m.do(t, "apply", m.file(t, "owner", m.group(254, "")))
	onlyAnswers(t, w, n2)
	m.do(t, "rollback", "1")
	onlyAnswers(t, w, n1)
	m.do(t, "apply", m.file(t, "again", m.group(254, "")))
	onlyAnswers(t, w, n2)

	must(t, k.Stop(10*time.Second))
	m.start(t, 0, m.all, 254, "")
	m.await(t, "n1 has joined", func(s lab.Status) bool {
		return len(s.Members) == 3 && !slices.ContainsFunc(s.Members, func(n lab.StatusMember) bool { return !n.Voter || !n.Alive })
	})
	m.do(t, "apply", m.file(t, "whole", m.group(254, "    placement: priority\n    preempt: true\n    priority: {n1: 150, n2: 100}\n")))
	onlyAnswers(t, w, n1)
	for _, n := range m.nodes {
		noPanic(t, n.proc)
	}
}

// A migration is our cluster, which grows.
type migration struct {
	l     *lab.Lab
	hosts []*lab.Host
	nodes map[string]*node
	all   string // peers
	key   string
	bin   string
}

func newMigration(t *testing.T, l *lab.Lab, hosts []*lab.Host) *migration {
	t.Helper()
	binary, err := build()
	must(t, err)
	m := &migration{l: l, hosts: hosts, nodes: map[string]*node{}, all: "[" + strings.Join(portsOf(hosts), ", ") + "]",
		key: filepath.Join(l.Dir(), "cluster.key"), bin: binary}
	must(t, exec.Command(binary, "keygen", "--out", m.key).Run())
	return m
}

// group is the document: our adverts say a priority.
func (m *migration) group(priority int, more string) string {
	return fmt.Sprintf("vips:\n  %s:\n    addresses: [%s]\n    interface: eth0\n%s    vrrp: {id: 51, priority: %d}\n", lab.Group, shadowVIP4, more, priority)
}

func (m *migration) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(m.l.Dir(), name+".yaml")
	must(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

func (m *migration) start(t *testing.T, i int, peers string, priority int, more string) {
	t.Helper()
	h := m.hosts[i]
	base := filepath.Join(m.l.Dir(), h.Name)
	n := &node{host: h, binary: m.bin, socket: base + ".sock"}
	n.config = m.file(t, h.Name, fmt.Sprintf("cluster: prod\nnode: %s\naddress: %s:7950\npeers: %s\nkey_file: %s\ndata_dir: %s\nsocket: %s\n%s",
		h.Name, h.IPv4, peers, m.key, base, n.socket, more)+m.group(priority, ""))
	var err error
	n.proc, err = h.Start(lab.Command{Name: "quorate", Args: []string{m.bin, "run", "--config", n.config}})
	must(t, err)
	m.nodes[h.Name] = n
}

// await waits for what n2 says.
func (m *migration) await(t *testing.T, what string, ok func(lab.Status) bool) {
	t.Helper()
	n := m.nodes["n2"]
	until(t, what, 20*time.Second, func() bool {
		var s lab.Status
		if err := lab.Ask(t.Context(), n.socket, "/v1/status", &s); err != nil {
			if !n.proc.Running() {
				log, _ := os.ReadFile(n.proc.Log)
				t.Fatalf("n2 ended: %s", log)
			}
			return false
		}
		return ok(s)
	})
}

// do gives n2 an order.
func (m *migration) do(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(m.bin, append(args, "--socket", m.nodes["n2"].socket)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("quorate %v: %v\n%s", args, err, out)
	}
}

// onlyAnswers waits until one host alone has answered for a while.
func onlyAnswers(t *testing.T, w *wire, want *lab.Host) {
	t.Helper()
	began := lab.Now()
	until(t, "only "+want.Name+" answers", 15*time.Second, func() bool {
		qs := w.answersBetween(shadowVIP4.Addr(), lab.Now().Add(-awaited), lab.Now())
		return len(qs) > 0 && !slices.ContainsFunc(qs, func(q question) bool { return !slices.Equal(q.by, []string{want.Name}) })
	})
	t.Logf("%s alone answers, %v later", want.Name, lab.Now().Sub(began).Round(time.Millisecond))
}
