package interop

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

// importedConf is the keepalived.conf of a pair in the shapes that people have: NAME,
// PRIORITY, SELF, OTHER and SELF6 are each node's own.
const importedConf = `! what two hosts ran for years
global_defs {
	router_id NAME
	vrrp_garp_master_refresh 60
}
vrrp_instance plain2 {
	state BACKUP
	interface eth0
	virtual_router_id 11
	priority PRIORITY
	advert_int 1
	authentication { auth_type PASS
		auth_pass a-long-password   # cut at eight
	}
	virtual_ipaddress { 10.0.0.200/24 dev eth0 }
}
vrrp_instance fast3 {
	state BACKUP
	interface eth0
	version 3
	virtual_router_id 12
	priority PRIORITY
	advert_int 0.5
	virtual_ipaddress {
		10.0.0.201/24
		10.0.0.202/24
	}
	virtual_ipaddress_excluded {
		10.0.0.203/24
	}
}
vrrp_instance unicast {
	state BACKUP
	interface eth0
	virtual_router_id 13
	priority PRIORITY
	advert_int 1
	unicast_src_ip SELF
	unicast_peer {
		OTHER
	}
	virtual_ipaddress { 10.0.0.204/24 }
}
vrrp_instance six {
	state BACKUP
	interface eth0
	version 3
	virtual_router_id 14
	priority PRIORITY
	advert_int 1
	virtual_ipaddress {
		2001:db8::f:1/64
	}
}
vrrp_instance both4 {
	state BACKUP
	interface eth0
	version 3
	virtual_router_id 15
	priority PRIORITY
	virtual_ipaddress { 10.0.0.205/24 }
}
vrrp_instance both6 {
	state BACKUP
	interface eth0
	version 3
	virtual_router_id 15
	priority PRIORITY
	virtual_ipaddress { 2001:db8::f:2/64 }
}
vrrp_sync_group both {
	group { both4
		both6
	}
}
`

// imported are the addresses by which each of the conf's virtual routers is known.
var imported = map[uint8][]netip.Addr{
	11: {netip.MustParseAddr("10.0.0.200")},
	12: {netip.MustParseAddr("10.0.0.201"), netip.MustParseAddr("10.0.0.202"), netip.MustParseAddr("10.0.0.203")},
	13: {netip.MustParseAddr("10.0.0.204")},
	14: {netip.MustParseAddr("2001:db8::f:1")},
	15: {netip.MustParseAddr("10.0.0.205"), netip.MustParseAddr("2001:db8::f:2")},
}

// TestImportedBesideTheOriginal has n1 change over: its keepalived.conf, imported, runs
// beside the keepalived of n2 with the original. That one takes it for its peer: it is
// Backup while n1 is there, and Active when n1 has gone.
func TestImportedBesideTheOriginal(t *testing.T) {
	t.Run("router", func(t *testing.T) {
		t.Parallel()
		changeOver(t, alone)
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		changeOver(t, cluster)
	})
}

func changeOver(t *testing.T, m mode) {
	t.Helper()
	needs(t, "keepalived", "keepalived")
	l := newLab(t)
	n1, n2 := addHost(t, l, "n1", 1), addHost(t, l, "n2", 2)
	ours := []*lab.Host{n1}
	if m == cluster {
		ours = append(ours, addHost(t, l, "n3", 3), addHost(t, l, "n4", 4))
	}
	f := importConf(t, l, m, ours, confOf(150, n1, n2))
	var asked []netip.Addr
	for _, vrid := range slices.Sorted(maps.Keys(imported)) {
		asked = append(asked, imported[vrid]...)
	}
	w := watch(t, addHost(t, l, "judge", judgeNumber), append(slices.Clone(ours), n2), asked)

	k, err := n2.RunKeepalived(confOf(100, n2, n1))
	must(t, err)
	importedOwner(t, w, n2, 10*time.Second)

	began := lab.Now()
	must(t, f.start(t.Context()))
	t.Cleanup(func() {
		for _, n := range f.nodes {
			noPanic(t, n.proc)
		}
	})
	importedOwner(t, w, n1, 20*time.Second)
	settled := lab.Now()
	pause(3 * time.Second)
	for vrid := range imported {
		for _, s := range w.between(vrid, settled, lab.Now()) {
			if s.host == n2.Name {
				t.Errorf("keepalived did not stay Backup: %v", s)
			}
		}
	}
	for _, n := range f.nodes {
		differences(t, n)
	}
	t.Logf("n1 with the imported file took over %v after its start", settled.Sub(began).Round(time.Millisecond))

	left := lab.Now()
	must(t, f.stop())
	importedOwner(t, w, n2, 10*time.Second)
	t.Logf("keepalived took over again within %v", lab.Now().Sub(left).Round(time.Millisecond))
	must(t, k.Stop(10*time.Second))
}

// confOf is the file of one of the two.
func confOf(priority int, self, other *lab.Host) string {
	return strings.NewReplacer("NAME", self.Name, "PRIORITY", strconv.Itoa(priority),
		"SELF", self.IPv4.String(), "OTHER", other.IPv4.String()).Replace(importedConf)
}

// importConf imports the first host's file as an operator would. In a cluster the others
// are witnesses.
func importConf(t *testing.T, l *lab.Lab, m mode, hosts []*lab.Host, conf string) *fleet {
	t.Helper()
	binary, err := build()
	must(t, err)
	base := filepath.Join(l.Dir(), "imported")
	must(t, os.WriteFile(base+".conf", []byte(conf), 0o644))
	args := []string{"import", hosts[0].Name + "=" + base + ".conf"}
	if m == alone {
		args = append(args, "--election", "vrrp")
	} else {
		var peers []string
		for _, h := range hosts {
			peers = append(peers, h.Name+"="+h.IPv4.String())
		}
		args = append(args, "--peers", strings.Join(peers, ","))
		must(t, exec.Command(binary, "keygen", "--out", base+".key").Run())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var report strings.Builder
	cmd.Stderr = &report
	yaml, err := cmd.Output()
	if err != nil {
		t.Fatalf("quorate import: %v\n%s", err, &report)
	}
	f := &fleet{mode: m}
	for i, h := range hosts {
		text := strings.NewReplacer("node: n1", "node: "+h.Name, "\naddress: "+hosts[0].IPv4.String(), "\naddress: "+h.IPv4.String(),
			"/etc/quorate/cluster.key", base+".key").Replace(string(yaml))
		n := &node{host: h, binary: binary, config: filepath.Join(l.Dir(), h.Name+".yaml"), socket: filepath.Join(l.Dir(), h.Name+".sock")}
		text += "socket: " + n.socket + "\n"
		if m == cluster {
			data := filepath.Join(l.Dir(), h.Name)
			must(t, os.Mkdir(data, 0o700))
			text += "data_dir: " + data + "\n"
		}
		if i > 0 {
			text += "role: witness\n"
		}
		must(t, os.WriteFile(n.config, []byte(text), 0o644))
		f.nodes = append(f.nodes, n)
	}
	return f
}

// importedOwner waits until one host alone has answered for every address for a while.
func importedOwner(t *testing.T, w *wire, want *lab.Host, limit time.Duration) {
	t.Helper()
	deadline := lab.Now().Add(limit)
	for {
		wrong := ""
		now := lab.Now()
		for vrid, addrs := range imported {
			for _, a := range addrs {
				qs := w.answersBetween(a, now.Add(-awaited), now)
				if i := slices.IndexFunc(qs, func(q question) bool { return !slices.Equal(q.by, []string{want.Name}) }); len(qs) == 0 || i >= 0 {
					wrong = fmt.Sprintf("%s of virtual router %d: %v", a, vrid, qs)
				}
			}
		}
		if wrong == "" {
			return
		}
		if lab.Now() > deadline {
			t.Fatalf("not only %s answers within %v: %s", want.Name, limit, wrong)
		}
		pause(20 * time.Millisecond)
	}
}

// differences fails if ours finds that the other side is configured differently.
func differences(t *testing.T, n *node) {
	t.Helper()
	all, err := n.heard(t.Context())
	must(t, err)
	for vrid, routers := range all {
		for _, h := range routers {
			if h.Refused > 0 || len(h.Differences) > 0 {
				t.Errorf("virtual router %d: keepalived's adverts are refused %d times (%v), differences %v", vrid, h.Refused, h.LastRefusal, h.Differences)
			}
		}
	}
}
