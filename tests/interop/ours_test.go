package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate/tests/lab"
)

const (
	// ourPriority is what our adverts say.
	ourPriority = 150
	// longLease is as long as adverts every interval3 allow, for a machine that is busy with many networks.
	longLease = 500 * time.Millisecond
)

// A node is one daemon of ours.
type node struct {
	host   *lab.Host
	binary string
	config string // path
	socket string // path
	proc   *lab.Process
}

// A fleet is our side of a network: a cluster, or one router of its own.
type fleet struct {
	mode  mode
	nodes []*node
}

// newFleet writes configurations for the hosts and starts nothing. The lease is a cluster's.
func newFleet(t *testing.T, l *lab.Lab, m mode, hosts []*lab.Host, peer *lab.Host, lease time.Duration, all []virtual) *fleet {
	t.Helper()
	binary, err := build()
	must(t, err)
	f := &fleet{mode: m}
	key := filepath.Join(l.Dir(), "cluster.key")
	if m == cluster {
		out, err := exec.Command(binary, "keygen", "--out", key).CombinedOutput()
		if err != nil {
			t.Fatalf("quorate keygen: %v: %s", err, out)
		}
	}
	for _, h := range hosts {
		base := filepath.Join(l.Dir(), h.Name)
		n := &node{host: h, binary: binary, config: base + ".yaml", socket: base + ".sock"}
		text := fmt.Sprintf("node: %s\nsocket: %s.sock\n", h.Name, base)
		switch m {
		case cluster:
			must(t, os.Mkdir(base, 0o700))
			text += fmt.Sprintf("cluster: interop\naddress: %s:7950\npeers: [%s]\nkey_file: %s\ndata_dir: %s\nlease: %v\n",
				h.IPv4, strings.Join(portsOf(hosts), ", "), key, base, lease)
		case alone:
			text += "election: vrrp\n"
		}
		must(t, os.WriteFile(n.config, []byte(text+"vips:\n"+groups(all, append(hosts[:len(hosts):len(hosts)], peer))), 0o644))
		f.nodes = append(f.nodes, n)
	}
	return f
}

func portsOf(hosts []*lab.Host) (out []string) {
	for _, h := range hosts {
		out = append(out, h.IPv4.String()+":7950")
	}
	return out
}

// groups is the file's section of the virtual routers; routers are all who speak.
func groups(all []virtual, routers []*lab.Host) string {
	var b strings.Builder
	for _, v := range all {
		var addrs []string
		for _, a := range v.addresses {
			addrs = append(addrs, a.String())
		}
		fmt.Fprintf(&b, "  r%d:\n    addresses: [%s]\n    interface: eth0\n", v.vrid, strings.Join(addrs, ", "))
		if v.vmac {
			b.WriteString("    vmac: true\n")
		}
		if v.preempt != "" {
			fmt.Fprintf(&b, "    preempt: %s\n", v.preempt)
		}
		version := strconv.Itoa(v.version)
		if v.also2 {
			version = "both"
		}
		fmt.Fprintf(&b, "    vrrp:\n      id: %d\n      version: %s\n      priority: %d\n      interval: %v\n",
			v.vrid, version, ourPriority, v.interval)
		if v.checksum != "" {
			fmt.Fprintf(&b, "      checksum: %s\n", v.checksum)
		}
		if v.outranked != "" {
			fmt.Fprintf(&b, "      outranked: %s\n", v.outranked)
		}
		if v.password != "" {
			fmt.Fprintf(&b, "      password: %s\n", v.password)
		}
		if v.unicast {
			var peers []string
			for _, h := range routers {
				peers = append(peers, address(h, v).String())
			}
			fmt.Fprintf(&b, "      unicast: [%s]\n", strings.Join(peers, ", "))
		}
	}
	return b.String()
}

// start starts every daemon, and waits until each can be asked.
func (f *fleet) start(ctx context.Context) error {
	for _, n := range f.nodes {
		p, err := n.host.Start(lab.Command{Name: "quorate", Args: []string{n.binary, "run", "--config", n.config}})
		if err != nil {
			return err
		}
		n.proc = p
	}
	for _, n := range f.nodes {
		for _, err := n.heard(ctx); err != nil; _, err = n.heard(ctx) {
			if !n.proc.Running() {
				log, _ := os.ReadFile(n.proc.Log)
				return fmt.Errorf("%s ended: %w; its log:\n%s", n.host.Name, n.proc.Wait(0), log)
			}
			if serr := lab.Sleep(ctx, 10*time.Millisecond); serr != nil {
				return errors.Join(serr, err)
			}
		}
	}
	return nil
}

// stop ends all of them cleanly and at once, as an operator of the whole cluster would.
func (f *fleet) stop() error {
	errs := make([]error, len(f.nodes))
	var wg sync.WaitGroup
	for i, n := range f.nodes {
		wg.Go(func() { errs[i] = n.proc.Stop(15 * time.Second) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// node returns the one on a host, or nil.
func (f *fleet) node(host string) *node {
	for _, n := range f.nodes {
		if n.host.Name == host {
			return n
		}
	}
	return nil
}

// A heard is the part of `quorate vrrp --json` that says what a node hears of one router.
type heard struct {
	VRID        uint8
	Insider     bool
	Refused     uint64
	LastRefusal *struct{ Reason string } `json:"last_refusal"`
	Differences []struct{ Field string }
}

// heard is what a node hears of routers outside, by VRID.
func (n *node) heard(ctx context.Context) (map[uint8][]heard, error) {
	var v struct{ Neighbours []heard }
	if err := lab.Ask(ctx, n.socket, "/v1/vrrp", &v); err != nil {
		return nil, fmt.Errorf("ask %s what it hears: %w", n.host.Name, err)
	}
	out := map[uint8][]heard{}
	for _, h := range v.Neighbours {
		if !h.Insider {
			out[h.VRID] = append(out[h.VRID], h)
		}
	}
	return out, nil
}

// noPanic looks for what a daemon never says when it is well.
func noPanic(t *testing.T, p *lab.Process) {
	t.Helper()
	if p == nil {
		return
	}
	log, err := os.ReadFile(p.Log)
	must(t, err)
	for _, sign := range []string{"panic:", "fatal error:", "DATA RACE", "goroutine 1 ["} {
		if strings.Contains(string(log), sign) {
			t.Errorf("%s: its log has %q:\n%s", p.Name, sign, log)
		}
	}
}
