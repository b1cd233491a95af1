package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A MAC is an Ethernet address; comparable, and text in JSON.
type MAC [6]byte

// String gives the usual six pairs of digits.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText makes a MAC readable in JSON.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

func toMAC(hw net.HardwareAddr) (m MAC) {
	copy(m[:], hw)
	return m
}

// A Direction names which frames of a host a fault concerns.
type Direction int

// Directions as the host sees them.
const (
	Inbound  Direction = iota + 1 // frames to the host
	Outbound                      // frames from the host
)

// String gives "in" or "out".
func (d Direction) String() string {
	switch d {
	case Inbound:
		return "in"
	case Outbound:
		return "out"
	}
	return fmt.Sprintf("Direction(%d)", int(d))
}

// hook is where nftables meets these frames on the bridge's end of the cable.
func (d Direction) hook() string {
	if d == Inbound {
		return "egress"
	}
	return "ingress"
}

// A Host is one network namespace with eth0 on the bridge. Its methods may be called
// concurrently, except that faults on one host are to be injected by one caller.
type Host struct {
	Name string
	IPv4 netip.Addr // 10.0.0.N
	IPv6 netip.Addr // 2001:db8::N
	MAC  MAC        // of eth0

	lab   *Lab
	ns    *netns
	port  string // the bridge's end of the cable
	nl    *netlink.Handle
	ifi   *net.Interface
	drops map[Direction]int // percent of frames lost, by direction
}

// AddHost makes host number n (1 to MaxHost) and plugs it in. Names are lower-case
// letters and digits, at most 13.
func (l *Lab) AddHost(name string, n int) (*Host, error) {
	if !hostName.MatchString(name) {
		return nil, fmt.Errorf("host name %q: want a lower-case letter, then at most 12 lower-case letters or digits", name)
	}
	if n < 1 || n > MaxHost {
		return nil, fmt.Errorf("host %s: number %d is outside 1 to %d", name, n, MaxHost)
	}
	ns, err := newNetns(l.id + "-" + name)
	if err != nil {
		return nil, err
	}
	h := &Host{
		Name: name, lab: l, ns: ns, port: "p" + name, drops: map[Direction]int{},
		IPv4: netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), IPv6: numbered6(0, n),
	}
	err = h.plug()
	// From here on probes look at it, and Close takes it away, however far it came.
	l.mu.Lock()
	l.hosts = append(l.hosts, h)
	l.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	return h, nil
}

// numbered6 returns 2001:db8::GROUP:N with N's decimal digits read as hexadecimal, so
// that host 12 is 2001:db8::12.
func numbered6(group uint16, n int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("2001:db8::%x:%d", group, n))
}

func (h *Host) plug() error {
	br, ns := h.lab.bridge.name, h.ns.name
	if err := h.ns.do(quietIPv6); err != nil {
		return err
	}
	steps := [][]string{
		{"link", "add", h.port, "netns", br, "type", "veth", "peer", "name", "eth0", "netns", ns},
		{"-n", br, "link", "set", h.port, "master", "br0", "up"},
		{"-n", ns, "link", "set", "lo", "up"},
		{"-n", ns, "addr", "add", h.IPv4.String() + "/24", "brd", "+", "dev", "eth0"},
		{"-n", ns, "addr", "add", h.IPv6.String() + "/64", "dev", "eth0", "nodad"},
		{"-n", ns, "link", "set", "eth0", "up"},
	}
	for _, s := range steps {
		if err := run("ip", s...); err != nil {
			return err
		}
	}
	return h.ns.do(func() (err error) {
		if h.ifi, err = net.InterfaceByName("eth0"); err != nil {
			return fmt.Errorf("find eth0: %w", err)
		}
		h.MAC = toMAC(h.ifi.HardwareAddr)
		h.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
}

// quietIPv6 spares the host's own link-local address the second of duplicate address
// detection: nobody else is on the LAN before the lab says so.
func quietIPv6() error {
	for _, key := range []string{"accept_dad", "dad_transmits", "accept_ra"} {
		for _, scope := range []string{"all", "default"} {
			path := filepath.Join("/proc/sys/net/ipv6/conf", scope, key)
			if err := os.WriteFile(path, []byte("0"), 0); err != nil {
				return fmt.Errorf("set %s: %w", path, err)
			}
		}
	}
	return nil
}

func (h *Host) close() error {
	if h.nl != nil {
		h.nl.Close()
	}
	return h.ns.close()
}

// Do runs f on a thread inside the host's network namespace. Sockets that f opens
// stay in it. f must not call Do of the same host.
func (h *Host) Do(f func() error) error { return h.ns.do(f) }

// Namespace returns the name by which `ip netns exec` finds the host.
func (h *Host) Namespace() string { return h.ns.name }

// An Address is one address on a host's eth0.
type Address struct {
	Prefix netip.Prefix
	// ValidLft is how many seconds the kernel still keeps it, rounded up by the
	// kernel; Forever when no end was set.
	ValidLft int
}

// Forever is the ValidLft of an address without an end.
const Forever = 1<<32 - 1

// Addresses lists what eth0 holds, both families.
func (h *Host) Addresses() ([]Address, error) {
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "eth0", Index: h.ifi.Index}}
	list, err := h.nl.AddrList(link, netlink.FAMILY_ALL)
	for tries := 0; errors.Is(err, netlink.ErrDumpInterrupted) && tries < 100; tries++ { // it changed meanwhile
		list, err = h.nl.AddrList(link, netlink.FAMILY_ALL)
	}
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", h.Name, err)
	}
	out := make([]Address, 0, len(list))
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		ones, _ := a.Mask.Size()
		out = append(out, Address{netip.PrefixFrom(ip.Unmap(), ones), a.ValidLft})
	}
	return out, nil
}

// Holds says whether eth0 has the address, and how it has it.
func (h *Host) Holds(ip netip.Addr) (Address, bool, error) {
	list, err := h.Addresses()
	if err != nil {
		return Address{}, false, err
	}
	for _, a := range list {
		if a.Prefix.Addr() == ip {
			return a, true, nil
		}
	}
	return Address{}, false, nil
}

// Cut loses all frames from and to the host without a trace: its carrier stays up.
func (h *Host) Cut() error { return h.setDrops(map[Direction]int{Inbound: 100, Outbound: 100}) }

// CutOneWay loses all frames in one direction; the other direction works.
func (h *Host) CutOneWay(d Direction) error { return h.setDrops(map[Direction]int{d: 100}) }

// Lossy loses a random percentage (0 to 100) of frames in each direction.
func (h *Host) Lossy(percent int) error {
	return h.setDrops(map[Direction]int{Inbound: percent, Outbound: percent})
}

// Mend ends every kind of loss at this host's port. Partitions stay: see [Lab.Heal].
func (h *Host) Mend() error { return h.setDrops(nil) }

// setDrops brings the port's loss to want in one step.
func (h *Host) setDrops(want map[Direction]int) error {
	var script strings.Builder
	for _, d := range []Direction{Inbound, Outbound} { // nothing is done before both are checked
		chain := d.String() + "_" + h.port
		if h.drops[d] > 0 {
			fmt.Fprintf(&script, "flush chain netdev lab %s\ndelete chain netdev lab %s\n", chain, chain)
		}
		p := want[d]
		if p < 0 || p > 100 {
			return fmt.Errorf("loss at %s: %d percent is outside 0 to 100", h.Name, p)
		}
		if p > 0 {
			fmt.Fprintf(&script, "add chain netdev lab %s { type filter hook %s device %q priority 0; policy accept; }\n",
				chain, d.hook(), h.port)
			fmt.Fprintf(&script, "add rule netdev lab %s %s\n", chain, dropRule(p))
		}
	}
	if script.Len() == 0 {
		return nil
	}
	if err := h.lab.nft(script.String()); err != nil {
		return fmt.Errorf("set loss at %s: %w", h.Name, err)
	}
	h.drops = want
	return nil
}

func dropRule(percent int) string {
	if percent == 100 {
		return "drop"
	}
	return "numgen random mod 100 < " + strconv.Itoa(percent) + " drop"
}

// Pull takes the cable out at the switch: the host sees its carrier go.
func (h *Host) Pull() error { return h.setPort("down") }

// Replug puts the cable back.
func (h *Host) Replug() error { return h.setPort("up") }

func (h *Host) setPort(state string) error {
	if err := run("ip", "-n", h.lab.bridge.name, "link", "set", h.port, state); err != nil {
		return fmt.Errorf("set the switch port of %s %s: %w", h.Name, state, err)
	}
	return nil
}

// errClosed is what a lab that has been closed answers.
var errClosed = errors.New("the lab is closed")
