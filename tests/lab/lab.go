// Package lab builds hosts as network namespaces round a bridge, starts daemons in
// them, injects faults, and judges from outside who answered for a virtual IP and when.
//
// The bridge lives in a namespace of its own, so no firewall of the machine sees its
// frames. Hosts have eth0 with 10.0.0.N/24 and 2001:db8::N/64. A lab needs root,
// iproute2 and nftables. Everything that it makes carries the name of the run
// (qlab-PID-COUNTER-HOST) and goes with Close, or with Sweep when the run was killed.
//
// The judge knows nothing of the daemons under test: see [Probe], [Client], [VRRPWatch]
// and [Judge].
package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const namePrefix = "qlab"

// Address plan of a lab's one LAN.
const (
	// MaxHost is the highest host number; a host N has 10.0.0.N and 2001:db8::N.
	MaxHost = 127
	// From firstSender on, the two probes of an address have their sender addresses.
	firstSender = 128
	// FirstVIP to LastVIP are the last octets left for virtual addresses.
	FirstVIP, LastVIP = firstSender + 2*senderIDs, 254
)

var counter atomic.Int64

// An Instant is a reading of CLOCK_BOOTTIME in nanoseconds: one clock for every
// namespace of the machine.
type Instant int64

// Now reads CLOCK_BOOTTIME.
func Now() Instant {
	var ts unix.Timespec
	// It fails only for an unknown clock id, and this one is in every kernel since 2.6.39.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return Instant(ts.Nano())
}

// Add returns the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns i - j.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Options say how a lab is made. The zero value is good.
type Options struct {
	// Dir takes logs and configurations. Empty: a new directory under the system's
	// temporary one. It is left in place by Close, for whoever wants to read the logs.
	Dir string
	// MulticastSnooping turns on the bridge's IGMP and MLD snooping.
	MulticastSnooping bool
}

// A Lab is one LAN with its hosts. Its methods may be called concurrently.
type Lab struct {
	id     string
	dir    string
	bridge *netns

	mu      sync.Mutex
	hosts   []*Host
	procs   []*Process
	closers []func()
	ends    []func() error
	closed  bool
	blocked map[[2]string]int // how many cuts lose the frames from one port to another
	parted  [][2]string       // what Partition added to it
}

// New makes a lab with a bridge and no hosts. It fails when not root or when ip or
// nft are missing. The caller closes it.
func New(opt Options) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a lab makes network namespaces and needs root: run it as root")
	}
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("a lab needs iproute2 and nftables (apt-get install iproute2 nftables): %w", err)
		}
	}
	dir := opt.Dir
	if dir == "" {
		d, err := os.MkdirTemp("", "quorate-lab-")
		if err != nil {
			return nil, fmt.Errorf("make the lab's directory: %w", err)
		}
		dir = d
	}
	l := &Lab{
		id:      fmt.Sprintf("%s-%d-%d", namePrefix, os.Getpid(), counter.Add(1)),
		dir:     dir,
		blocked: map[[2]string]int{},
	}
	br, err := newNetns(l.id + "-switch")
	if err != nil {
		return nil, err
	}
	l.bridge = br
	if err := l.makeBridge(opt); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) makeBridge(opt Options) error {
	snoop := "0"
	if opt.MulticastSnooping {
		snoop = "1"
	}
	err := run("ip", "-n", l.bridge.name, "link", "add", "br0", "type", "bridge",
		"stp_state", "0", "forward_delay", "0", "mcast_snooping", snoop)
	if err == nil {
		err = run("ip", "-n", l.bridge.name, "link", "set", "br0", "up")
	}
	if err != nil {
		return fmt.Errorf("make the bridge: %w", err)
	}
	// Cuts act in netdev hooks, ahead of the bridge, so that it learns no address
	// from frames that a real switch would never have got. Partitions act inside it.
	return l.nft(`table netdev lab {}
table bridge lab {
	set blocked { type ifname . ifname; }
	chain between { type filter hook forward priority 0; meta iifname . meta oifname @blocked drop; }
}`)
}

// Dir returns the directory with logs and configurations.
func (l *Lab) Dir() string { return l.dir }

// Hosts returns the hosts in the order in which they were added.
func (l *Lab) Hosts() []*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Host(nil), l.hosts...)
}

// HostByMAC returns the name of the host whose eth0 has the address, or the address
// itself as text when it is nobody's.
func (l *Lab) HostByMAC(mac MAC) string {
	for _, h := range l.Hosts() {
		if h.MAC == mac {
			return h.Name
		}
	}
	return mac.String()
}

// onClose has f run by Close before processes are ended.
func (l *Lab) onClose(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, f)
}

// onEnd has f run by Close after processes were ended.
func (l *Lab) onEnd(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends = append(l.ends, f)
}

// Close ends the lab's observers and processes and removes its namespaces. It may be
// called again; then it does nothing. Files in Dir stay.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	closers, procs, ends, hosts := l.closers, l.procs, l.ends, l.hosts
	l.mu.Unlock()

	for i := len(closers) - 1; i >= 0; i-- {
		closers[i]()
	}
	var errs []error
	for _, p := range procs {
		if err := p.Kill(); err != nil {
			errs = append(errs, err)
		}
	}
	for _, f := range ends {
		errs = append(errs, f())
	}
	for _, h := range hosts {
		errs = append(errs, h.close())
	}
	return errors.Join(append(errs, l.bridge.close())...)
}

// nft feeds a script to nft inside the bridge's namespace; it takes effect as a whole
// or not at all.
func (l *Lab) nft(script string) error {
	var out bytes.Buffer
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := l.bridge.do(cmd.Start); err != nil {
		return fmt.Errorf("start nft: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("nft: %w: %s; the script was:\n%s", err, strings.TrimSpace(out.String()), script)
	}
	return nil
}

var hostName = regexp.MustCompile(`^[a-z][a-z0-9]{0,12}$`)

// run carries out a command and puts what it printed into the error.
func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
