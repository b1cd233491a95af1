package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The group, its addresses and its VRRP router id in every cluster of the lab.
const (
	Group = "web"
	VRID  = 51
)

// Addresses of the group.
var (
	VIP4 = netip.MustParsePrefix("10.0.0.200/24")
	VIP6 = netip.MustParsePrefix("2001:db8::200/64")
)

const (
	commandLimit = 10 * time.Second       // for one call of the command line
	pollEvery    = 100 * time.Millisecond // between two looks at every node's status
	lookLimit    = 2 * time.Second        // for one question to a daemon
	// A stable owner leaves no gap longer than this; a loaded machine makes some.
	stableGap = 100 * time.Millisecond
)

// ClusterOptions say what to form. Binary is required.
type ClusterOptions struct {
	Binary string        // path of quorate
	Nodes  int           // 0: 3
	Lease  time.Duration // 0: 250 ms
	Fence  string        // value of `fence:`; empty: the daemon's default
	IPv6   bool          // the group has VIP6 as well
	// Keepalived puts a keepalived of priority 100 with the same group beside the
	// cluster, once it is formed.
	Keepalived bool
	// Inside gives the lab a second probe, for [Lab.Partition] to put beside a node.
	Inside    bool
	Interval  time.Duration // of VRRP adverts; 0: 1 s
	OwnMounts bool          // each daemon in a mount namespace of its own, see [Command]
	Disks     bool          // each data directory on a disk of its own, see [Disk]
	Memory    bool          // each daemon in a memory group of its own
	Nice      int           // of the daemons, as `nice -n` has it; the packages' unit says -10
	Stable    time.Duration // one owner for as long as this is "stable"; 0: 2 s
	GroupKeys string        // more keys of the group, a line each
	Groups    string        // more groups, as they stand under vips
	Checks    string        // the checks section, as it stands in the file
}

// A Cluster is quorate on hosts n1, n2, …, with a judge, a client and perhaps a
// keepalived beside it. It is to be used by one caller at a time.
type Cluster struct {
	Lab        *Lab
	Nodes      []*Node
	Inside     *Host    // nil unless asked for
	Keepalived *Process // nil unless asked for
	Client     *Client
	Probes4    []*Probe              // outside first, then inside
	Probes6    []*Probe              // the same for VIP6; empty without IPv6
	Watches    map[string]*VRRPWatch // by host

	opt    ClusterOptions
	key    string // path of the cluster's key
	router *Host  // keepalived's
}

// StartCluster makes the hosts in l, starts the observers and the nodes, and waits
// until the cluster is formed. What it made goes with l.
func StartCluster(ctx context.Context, l *Lab, opt ClusterOptions) (*Cluster, error) {
	c, err := NewCluster(ctx, l, opt)
	if err != nil {
		return nil, err
	}
	for _, n := range c.Nodes {
		if err := n.Start(); err != nil {
			return nil, err
		}
	}
	if err := c.WaitHealthy(ctx, 30*time.Second); err != nil {
		return nil, fmt.Errorf("form the cluster: %w", err)
	}
	if opt.Keepalived {
		if err := c.startKeepalived(ctx); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// NewCluster makes the hosts in l and starts the observers. The nodes are not started
// yet: see [Node.Start] and [Cluster.WaitHealthy].
func NewCluster(ctx context.Context, l *Lab, opt ClusterOptions) (*Cluster, error) {
	opt.Nodes = cmp.Or(opt.Nodes, 3)
	opt.Lease = cmp.Or(opt.Lease, 250*time.Millisecond)
	opt.Interval = cmp.Or(opt.Interval, time.Second)
	opt.Stable = cmp.Or(opt.Stable, 2*time.Second)
	c := &Cluster{Lab: l, opt: opt, Watches: map[string]*VRRPWatch{}}
	if err := c.prepare(ctx); err != nil {
		return nil, fmt.Errorf("prepare the cluster: %w", err)
	}
	if err := c.observe(); err != nil {
		return nil, fmt.Errorf("start the observers: %w", err)
	}
	return c, nil
}

// prepare makes the nodes' hosts, key and configurations.
func (c *Cluster) prepare(ctx context.Context) error {
	c.key = filepath.Join(c.Lab.dir, "cluster.key")
	if _, err := quorate(ctx, c.opt.Binary, "keygen", "--out", c.key); err != nil {
		return err
	}
	for i := range c.opt.Nodes {
		n, err := c.makeNode(fmt.Sprintf("n%d", i+1), i+1)
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, n)
	}
	return nil
}

// makeNode makes host number i, a data directory and a configuration for a node.
func (c *Cluster) makeNode(name string, i int) (*Node, error) {
	h, err := c.Lab.AddHost(name, i)
	if err != nil {
		return nil, err
	}
	n := &Node{
		Name: name, Host: h, binary: c.opt.Binary, ownMounts: c.opt.OwnMounts, nice: c.opt.Nice,
		Config: filepath.Join(c.Lab.dir, name+".yaml"), Socket: filepath.Join(c.Lab.dir, name+".sock"),
		Data: filepath.Join(c.Lab.dir, name),
	}
	if c.opt.Disks {
		n.Data = filepath.Join(c.Lab.dir, c.Lab.id+"-"+name) // a name that Sweep knows
	}
	if err := os.Mkdir(n.Data, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory of %s: %w", name, err)
	}
	if c.opt.Disks {
		if n.disk, err = c.Lab.NewDisk(n.Data); err != nil {
			return nil, err
		}
	}
	if c.opt.Memory {
		if n.memory, err = c.Lab.NewMemoryGroup(name); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(n.Config, []byte(c.config(n)), 0o644); err != nil {
		return nil, fmt.Errorf("write the configuration of %s: %w", name, err)
	}
	return n, nil
}

func (c *Cluster) config(n *Node) string {
	var peers []string
	for i := range c.opt.Nodes {
		peers = append(peers, fmt.Sprintf("10.0.0.%d:7950", i+1))
	}
	var vips []string
	for _, v := range c.vips() {
		vips = append(vips, v.String())
	}
	var fence string
	if c.opt.Fence != "" {
		fence = "fence: " + c.opt.Fence + "\n"
	}
	return fmt.Sprintf(`cluster: demo
node: %s
address: %s:7950
peers: [%s]
key_file: %s
data_dir: %s
lease: %v
%ssocket: %s
vips:
  %s:
    addresses: [%s]
    interface: eth0
    vrrp: {id: %d, priority: 254, interval: %v}
%s%s%s`, n.Name, n.Host.IPv4, strings.Join(peers, ", "), c.key, n.Data, c.opt.Lease, fence, n.Socket,
		Group, strings.Join(vips, ", "), VRID, c.opt.Interval,
		indent(c.opt.GroupKeys, 4), indent(c.opt.Groups, 2), indent(c.opt.Checks, 0))
}

// indent makes every line of a text begin with so many more blanks.
func indent(text string, by int) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.Repeat(" ", by) + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String()
}

func (c *Cluster) vips() []netip.Prefix {
	if c.opt.IPv6 {
		return []netip.Prefix{VIP4, VIP6}
	}
	return []netip.Prefix{VIP4}
}

// vipAddrs returns the group's addresses without prefix length.
func (c *Cluster) vipAddrs() (out []netip.Addr) {
	for _, v := range c.vips() {
		out = append(out, v.Addr())
	}
	return out
}

// observe adds the outside hosts and starts everything that records.
func (c *Cluster) observe() error {
	for _, n := range c.Nodes {
		if err := n.Host.ServeEcho(); err != nil {
			return err
		}
		if err := c.watch(n.Host); err != nil {
			return err
		}
	}
	user, err := c.Lab.AddHost("client", 101)
	if err != nil {
		return err
	}
	if c.Client, err = user.StartClient(VIP4.Addr(), DefaultPeriod); err != nil {
		return err
	}
	judge, err := c.Lab.AddHost("judge", 102)
	if err != nil {
		return err
	}
	if err := c.startProbes(judge, 0); err != nil {
		return err
	}
	if c.opt.Inside {
		if c.Inside, err = c.Lab.AddHost("inside", 103); err != nil {
			return err
		}
		return c.startProbes(c.Inside, 1)
	}
	return nil
}

func (c *Cluster) startProbes(h *Host, index int) error {
	p, err := h.StartProbe(VIP4.Addr(), DefaultPeriod, index)
	if err != nil {
		return err
	}
	c.Probes4 = append(c.Probes4, p)
	if !c.opt.IPv6 {
		return nil
	}
	if p, err = h.StartProbe(VIP6.Addr(), DefaultPeriod, index); err != nil {
		return err
	}
	c.Probes6 = append(c.Probes6, p)
	return nil
}

func (c *Cluster) watch(h *Host) error {
	w, err := h.Watch(c.vipAddrs()...)
	if err != nil {
		return err
	}
	c.Watches[h.Name] = w
	return nil
}

// startKeepalived starts it and waits until it listens and has found a master.
func (c *Cluster) startKeepalived(ctx context.Context) error {
	h, err := c.Lab.AddHost("keepalived", 104)
	if err != nil {
		return err
	}
	c.router = h
	if err := c.watch(h); err != nil {
		return err
	}
	c.Keepalived, err = h.StartKeepalived(Keepalived{
		Priority: 100, VRID: VRID, Interval: max(c.opt.Interval, time.Second), VIPs: c.vips(),
	})
	if err != nil {
		return err
	}
	// Its first down timer is 3.6 s: had it heard nobody, it would act then.
	if err := Sleep(ctx, 4*time.Second); err != nil {
		return err
	}
	if !c.Keepalived.Running() {
		return fmt.Errorf("keepalived ended: %w; its log is %s", c.Keepalived.Wait(0), c.Keepalived.Log)
	}
	return nil
}

// WaitHealthy waits until every node runs and sees every other, all agree on leader
// and owner, exactly the owner is active, and the judge has had answers from it alone
// for the time of ClusterOptions.Stable. A node that does not run ends the waiting.
func (c *Cluster) WaitHealthy(ctx context.Context, limit time.Duration) error {
	deadline := Now().Add(limit)
	for {
		err := c.healthy(ctx)
		if err == nil {
			return nil
		}
		for _, n := range c.Nodes {
			if n.proc == nil || !n.proc.Running() {
				return n.ended()
			}
		}
		if Now() > deadline {
			return fmt.Errorf("the cluster is not healthy after %v: %w; logs are in %s", limit, err, c.Lab.dir)
		}
		if serr := Sleep(ctx, pollEvery); serr != nil {
			return errors.Join(serr, err)
		}
	}
}

func (c *Cluster) healthy(ctx context.Context) error {
	owner, _, err := c.agreed(ctx)
	if err != nil {
		return err
	}
	now := Now()
	stable := c.opt.Stable
	from := now.Add(-stable)
	for _, p := range append(slices.Clone(c.Probes4), c.Probes6...) {
		if err := p.Err(); err != nil {
			return err
		}
		tr := p.recent(from)
		if got := Owners(tr.Answers, from, now); len(got) != 1 || got[0] != owner.Host.Name {
			return fmt.Errorf("%s is owner, and in the last %v %v answered for %s", owner.Name, stable, got, tr.Target)
		}
		if gap := Outage(tr.Answers, from, now); gap.Length() > stableGap {
			return fmt.Errorf("%s left %s unanswered for %v in the last %v", owner.Name, tr.Target, gap.Length(), stable)
		}
	}
	return nil
}

// agreed asks every node and returns owner and leader if all say the same.
func (c *Cluster) agreed(ctx context.Context) (owner, leader *Node, err error) {
	var names, leaders []string
	for _, n := range c.Nodes {
		s, err := n.Look(ctx)
		if err != nil {
			return nil, nil, err
		}
		if !s.Quorum || s.Leader == "" {
			return nil, nil, fmt.Errorf("%s sees quorum %v, leader %q", n.Name, s.Quorum, s.Leader)
		}
		alive := 0
		for _, m := range s.Members {
			if m.Alive {
				alive++
			}
		}
		if alive != len(c.Nodes) {
			return nil, nil, fmt.Errorf("%s sees %d members alive, want %d", n.Name, alive, len(c.Nodes))
		}
		g, ok := s.Group()
		if !ok {
			return nil, nil, fmt.Errorf("%s knows no group %q", n.Name, Group)
		}
		if (g.State == "active") != (g.Owner == n.Name) {
			return nil, nil, fmt.Errorf("%s is %s, and says that the owner is %q", n.Name, g.State, g.Owner)
		}
		names, leaders = append(names, g.Owner), append(leaders, s.Leader)
	}
	if len(slices.Compact(names)) != 1 || len(slices.Compact(leaders)) != 1 {
		return nil, nil, fmt.Errorf("the nodes disagree: owners %v, leaders %v", names, leaders)
	}
	if owner = c.Node(names[0]); owner == nil {
		return nil, nil, fmt.Errorf("the owner %q is no node of the lab", names[0])
	}
	if leader = c.Node(leaders[0]); leader == nil {
		return nil, nil, fmt.Errorf("the leader %q is no node of the lab", leaders[0])
	}
	return owner, leader, nil
}

// Owner returns the node that all nodes call owner.
func (c *Cluster) Owner(ctx context.Context) (*Node, error) {
	owner, _, err := c.agreed(ctx)
	return owner, err
}

// Leader returns the node that all nodes call Raft leader.
func (c *Cluster) Leader(ctx context.Context) (*Node, error) {
	_, leader, err := c.agreed(ctx)
	return leader, err
}

// Node returns the node of that name, or nil.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Other returns a node that is not n.
func (c *Cluster) Other(n *Node) *Node {
	i := slices.Index(c.Nodes, n)
	return c.Nodes[(i+1)%len(c.Nodes)]
}

// Move asks a node's daemon to have the group moved.
func (c *Cluster) Move(ctx context.Context, from, to *Node) error {
	_, err := quorate(ctx, c.opt.Binary, "move", Group, to.Name, "--socket", from.Socket)
	return err
}

// Sleep lets time pass, or returns why ctx ended earlier.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
