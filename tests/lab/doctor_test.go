package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/doctor"
	"github.com/quorate/quorate/vrrpcompat"
)

// A second group, so that what is done to its address is nothing to the judge.
const (
	sideGroup = "side"
	sideVRID  = 52
)

var sideVIP = netip.MustParseAddr("10.0.0.201")

// A clinic is a cluster in which faults are planted: owner holds both groups and asks,
// and one and other are the other nodes.
type clinic struct {
	*Cluster
	owner, one, other *Node
	chains            int
}

// examine runs the doctor at the owner, and wants its exit code to say what it found.
func (c *clinic) examine(t *testing.T, args ...string) doctor.Report {
	t.Helper()
	begun := Now()
	code, out := call(t, c.owner.Host, append([]string{c.opt.Binary, "doctor", "--json", "--time", "2s", "--socket", c.owner.Socket}, args...)...)
	var r doctor.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("exit %d: %v: %s", code, err, out)
	}
	if (code == 1) != (r.Broken > 0) || code > 1 {
		t.Errorf("exit %d, and %d findings would break a failover", code, r.Broken)
	}
	if took := Now().Sub(begun); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	return r
}

// grave lists what is worse than a note.
func grave(r doctor.Report) (out []string) {
	for _, f := range r.Findings {
		if f.Severity > doctor.Note {
			out = append(out, fmt.Sprintf("%s %s %s>%s: %s", f.Severity, f.ID, f.Node, f.To, f.What))
		}
	}
	return out
}

// filter has the switch drop what of a host's frames a rule of nftables matches.
func (c *clinic) filter(h *Host, d Direction, rules ...string) (undo func() error, err error) {
	c.chains++
	chain := fmt.Sprintf("doctor%d", c.chains)
	var script strings.Builder
	fmt.Fprintf(&script, "add chain netdev lab %s { type filter hook %s device %q priority 0; policy accept; }\n", chain, d.hook(), h.port)
	for _, r := range rules {
		fmt.Fprintf(&script, "add rule netdev lab %s %s drop\n", chain, r)
	}
	return func() error {
		return c.Lab.nft(fmt.Sprintf("flush chain netdev lab %s\ndelete chain netdev lab %s\n", chain, chain))
	}, c.Lab.nft(script.String())
}

// sysctl sets a number on a host's eth0.
func sysctl(h *Host, version, name, value string) (undo func() error, err error) {
	path := filepath.Join("/proc/sys/net", version, "conf/eth0", name)
	var was []byte
	err = h.Do(func() (err error) {
		if was, err = os.ReadFile(path); err != nil {
			return err
		}
		return os.WriteFile(path, []byte(value), 0)
	})
	return func() error { return h.Do(func() error { return os.WriteFile(path, was, 0) }) }, err
}

// A lesion is a fault for the doctor to find.
type lesion struct {
	name  string
	id    string
	nodes func(*clinic) []string // whom the findings must name, "from>to" or "node>"; nil: whomever
	with  []string               // ids that may be broken besides
	plant func(*clinic) (undo func() error, err error)
}

func between(from func(*clinic) *Node, to func(*clinic) *Node) func(*clinic) []string {
	return func(c *clinic) []string { return []string{from(c).Name + ">" + to(c).Name} }
}

func owner(c *clinic) *Node { return c.owner }
func one(c *clinic) *Node   { return c.one }
func other(c *clinic) *Node { return c.other }

var lesions = []lesion{
	{name: "UDP blocked one way", id: "udp", nodes: between(one, other), plant: func(c *clinic) (func() error, error) {
		return c.filter(c.other.Host, Inbound, fmt.Sprintf("ip saddr %s udp dport 7950", c.one.Host.IPv4))
	}},
	{name: "TCP blocked one way", id: "tcp", nodes: between(one, other), plant: func(c *clinic) (func() error, error) {
		return c.filter(c.other.Host, Inbound, fmt.Sprintf("ip saddr %s tcp dport 7950", c.one.Host.IPv4))
	}},
	{name: "a switch port with a smaller MTU", id: "mtu", nodes: between(one, owner), plant: func(c *clinic) (func() error, error) {
		set := func(mtu string) error {
			return run("ip", "-n", c.Lab.bridge.name, "link", "set", c.one.Host.port, "mtu", mtu)
		}
		return func() error { return set("1500") }, set("1000")
	}},
	{name: "multicast not delivered", id: "multicast", nodes: between(owner, other), plant: func(c *clinic) (func() error, error) {
		return c.filter(c.other.Host, Inbound, "ether daddr 01:00:5e:00:00:12", "ether daddr 33:33:00:00:00:12")
	}},
	{name: "protocol 112 filtered", id: "protocol-112", nodes: between(owner, other), plant: func(c *clinic) (func() error, error) {
		return c.filter(c.other.Host, Inbound, "ip protocol 112")
	}},
	{name: "frames to everybody lost", id: "lan", nodes: between(one, other), plant: func(c *clinic) (func() error, error) {
		return c.filter(c.other.Host, Inbound, fmt.Sprintf("ether saddr %s ether daddr ff:ff:ff:ff:ff:ff", c.one.Host.MAC))
	}},
	{name: "another source address dropped", id: "forged-mac", nodes: between(one, owner), plant: func(c *clinic) (func() error, error) {
		return c.filter(c.one.Host, Outbound, fmt.Sprintf("ether saddr != %s", c.one.Host.MAC))
	}},
	{name: "gratuitous ARP ignored", id: "garp", nodes: between(owner, other), plant: func(c *clinic) (func() error, error) {
		return sysctl(c.other.Host, "ipv4", "drop_gratuitous_arp", "1")
	}},
	{name: "ARP not answered", id: "arp-ignore", nodes: func(c *clinic) []string { return []string{c.other.Name + ">"} },
		plant: func(c *clinic) (func() error, error) { return sysctl(c.other.Host, "ipv4", "arp_ignore", "8") }},
	{name: "the address on another host", id: "duplicate-address", plant: func(c *clinic) (func() error, error) {
		address := func(what string) error {
			return run("ip", "-n", c.Client.host.Namespace(), "addr", what, sideVIP.String()+"/32", "dev", "eth0")
		}
		return func() error { return address("del") }, address("add")
	}},
	{name: "the router id on another router", id: "vrid-collision", plant: func(c *clinic) (func() error, error) {
		return forgeAdverts(c.Client.host, vrrpcompat.Advert{Version: vrrpcompat.V3, VRID: VRID, Priority: 1, Interval: 10,
			Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.240")}})
	}},
	{name: "a node stopped", id: "node-silent", nodes: func(c *clinic) []string { return []string{c.other.Name + ">"} },
		with: []string{"tcp"}, plant: func(c *clinic) (func() error, error) {
			return c.other.proc.Thaw, c.other.proc.Freeze()
		}},
	// With its log stuck, a node on a busy machine may be slow to answer.
	{name: "a disk that hangs", id: "disk", nodes: func(c *clinic) []string { return []string{c.other.Name + ">"} },
		with: []string{"rtt"}, plant: func(c *clinic) (func() error, error) {
			if c.other.disk == nil {
				return nil, ErrNoDisks
			}
			return c.other.disk.Thaw, c.other.disk.Hang()
		}},
}

// forgeAdverts sends an advert ten times a second until it is undone.
func forgeAdverts(h *Host, a vrrpcompat.Advert) (undo func() error, err error) {
	group := vrrpcompat.IPv4.Group()
	b, err := a.AppendTo(nil, h.IPv4, group, vrrpcompat.PseudoHeader)
	if err != nil {
		return nil, err
	}
	fd := -1
	err = h.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protoVRRP); err != nil {
			return err
		}
		return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 255),
			unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(h.ifi.Index)}))
	})
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		var failed error
		for failed == nil {
			failed = unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: group.As4()})
			select {
			case <-stop:
				stopped <- errors.Join(failed, unix.Close(fd))
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
		<-stop
		stopped <- errors.Join(failed, unix.Close(fd))
	}()
	return func() error { close(stop); return <-stopped }, err
}

// TestDoctor finds nothing in a healthy cluster, and then each of many faults, planted
// one at a time, by its id; and nothing else that would break a failover.
func TestDoctor(t *testing.T) {
	c := &clinic{Cluster: doctorCluster(t)}
	c.owner = ownerOf(t, c.Cluster)
	c.one = c.Other(c.owner)
	c.other = c.Other(c.one)
	before := status(t, c.owner)
	c.nothing(t)
	for _, l := range lesions {
		t.Run(l.name, func(t *testing.T) { c.try(t, l) })
	}
	must(t, c.WaitHealthy(t.Context(), 40*time.Second))
	c.nothing(t)
	onlyOwnerHolds(t, c.Cluster)
	for i, v := range status(t, c.owner).VIPs {
		if v.Epoch != before.VIPs[i].Epoch || v.Owner != before.VIPs[i].Owner {
			t.Errorf("the doctor is not to move anything: %+v was %+v", v, before.VIPs[i])
		}
	}
	for _, n := range c.Nodes {
		_, out := call(t, n.Host, "ip", "neigh")
		for _, test := range []string{"192.0.2.", "198.51.100.", "203.0.113.", "3fff:", net.HardwareAddr(doctor.PlantedMAC()).String()} {
			if strings.Contains(out, test) {
				t.Errorf("left on %s:\n%s", n.Name, out)
			}
		}
	}
	c.down(t)
}

func doctorCluster(t *testing.T) *Cluster {
	opt := ClusterOptions{IPv6: true, Stable: 500 * time.Millisecond, Disks: true,
		Groups: fmt.Sprintf("%s:\n  addresses: [%s/24]\n  interface: eth0\n  vmac: true\n  vrrp: {id: %d}\n", sideGroup, sideVIP, sideVRID)}
	l := newLab(t)
	probe := filepath.Join(l.dir, l.id+"-disks")
	must(t, os.Mkdir(probe, 0o700))
	if _, err := l.NewDisk(probe); errors.Is(err, ErrNoDisks) {
		opt.Disks = false
	} else {
		must(t, err)
	}
	return formedCluster(t, opt)
}

func (c *clinic) nothing(t *testing.T) {
	t.Helper()
	r := c.examine(t)
	busy := func(f doctor.Finding) bool { return f.Severity <= doctor.Note || f.ID == "rtt" || f.ID == "disk" }
	for tries := 0; tries < 2 && grave(r) != nil && !slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool { return !busy(f) }); tries++ {
		t.Logf("this machine is busy, or the doctor is wrong: %q", grave(r))
		r = c.examine(t)
	}
	if bad := grave(r); bad != nil {
		t.Errorf("in a healthy cluster:\n%s", strings.Join(bad, "\n"))
	}
	for _, f := range r.Findings {
		if f.ID == "unknown" {
			t.Errorf("not looked at on %s: %s", f.Node, f.What)
		}
	}
	for _, n := range r.Nodes {
		if !n.Answered {
			t.Errorf("%s did not answer: %s", n.Name, n.Problem)
		}
	}
	if len(r.Nodes) != 3 {
		t.Errorf("%d nodes were asked", len(r.Nodes))
	}
}

func (c *clinic) try(t *testing.T, l lesion) {
	undo, err := l.plant(c)
	if errors.Is(err, ErrNoDisks) {
		t.Skip("SKIPPED: this machine cannot mount a file as a disk")
	}
	defer func() {
		if undo != nil {
			must(t, undo())
		}
	}()
	must(t, err)
	begun := Now()
	r := c.examine(t)
	var named []string
	for _, f := range r.Findings {
		switch {
		case f.ID == l.id && f.Severity == doctor.Broken:
			named = append(named, f.Node+">"+f.To)
			t.Logf("%v: %s → %s: %s", Now().Sub(begun).Round(10*time.Millisecond), f.Node, f.To, f.What)
		case f.Severity == doctor.Broken && !slices.Contains(l.with, f.ID):
			t.Errorf("found besides: %s %s>%s: %s", f.ID, f.Node, f.To, f.What)
		}
	}
	if named == nil {
		t.Fatalf("not found; it found\n%s", strings.Join(grave(r), "\n"))
	}
	if l.nodes == nil {
		return
	}
	for _, want := range l.nodes(c) {
		if !slices.Contains(named, want) {
			t.Errorf("it names %q, want %q among them", named, want)
		}
	}
}

// down: with its daemon stopped, a host is looked at by itself.
func (c *clinic) down(t *testing.T) {
	t.Helper()
	must(t, c.other.proc.Stop(5*time.Second))
	code, out := call(t, c.other.Host, c.opt.Binary, "doctor", "--config", c.other.Config)
	if code != 1 || !hasAll(out, "no daemon runs here", "BROKEN  daemon", "fence", "tcx", "disk", "eth0") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	code, out = call(t, c.owner.Host, c.opt.Binary, "doctor", "--socket", c.owner.Socket, "--node", c.other.Name, "--time", "2s")
	if code != 1 || !hasAll(out, "BROKEN  node-silent", c.other.Name, "2 of 3 nodes answered", "mend:") {
		t.Errorf("exit %d:\n%s", code, out)
	}
}
