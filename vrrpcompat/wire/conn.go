// Package wire carries VRRP adverts: raw sockets of IP protocol 112, one for each interface and address family, and the
// choice of the address to send from.
//
// What an advert says and which one is refused is decided in vrrpcompat; this package only moves bytes. It speaks
// multicast only.
package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vrrpcompat"
)

const (
	// SendTimeout bounds how long Send may wait for room in the socket. A lease renewal must not wait behind a stuck
	// device, and an advert that is late by more is better sent anew. Linux 6.18 does not wait at all: a raw socket whose packets
	// the device does not take answers ENOBUFS at once.
	SendTimeout = 5 * time.Millisecond

	// internetControl is the DSCP CS6 in the place of TOS and traffic class: what routing protocols use.
	internetControl = 0xc0

	// bufferLen is more than the longest advert and an IPv4 header's options, so that a packet cut off by it is still too
	// long to be taken for an advert.
	bufferLen = vrrpcompat.MaxLen + 64
)

// A Conn sends and receives the adverts of one address family on one interface. Send may be called by any number of
// goroutines, and during Run; Run by one at a time.
//
// The socket stays in the network namespace where it was opened. When the interface is deleted and made again, the
// Conn is of no more use: open another.
type Conn struct {
	name   string
	index  int
	family vrrpcompat.Family
	ip     *net.IPConn
	v4     *ipv4.PacketConn // nil for IPv6
	v6     *ipv6.PacketConn // nil for IPv4
}

// Open returns a Conn on the named interface, which has joined the family's group. It needs CAP_NET_RAW. It starts
// nothing; the caller closes it.
//
// Adverts are sent with TTL or hop limit 255, DSCP CS6, without the IPv4 don't-fragment bit, and not looped back to this host. For
// IPv6 the checksum is computed and verified in vrrpcompat and not by the kernel (IPV6_CHECKSUM stays off): the
// kernel would drop a wrong one in silence, and who sends those is what an operator needs to know.
func Open(ifname string, family vrrpcompat.Family) (*Conn, error) {
	if family != vrrpcompat.IPv4 && family != vrrpcompat.IPv6 {
		return nil, fmt.Errorf("open vrrp socket on %s: %v is neither %v nor %v", ifname, family, vrrpcompat.IPv4, vrrpcompat.IPv6)
	}
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("open %v vrrp socket on %s: %w", family, ifname, err)
	}
	network, address := "ip4:", "0.0.0.0"
	if family == vrrpcompat.IPv6 {
		network, address = "ip6:", "::"
	}
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		return control(rc, func(fd int) error { return beforeBind(fd, ifname, family) })
	}}
	pc, err := lc.ListenPacket(context.Background(), network+strconv.Itoa(vrrpcompat.Protocol), address)
	if err != nil {
		hint := ""
		if errors.Is(err, unix.EPERM) {
			hint = " (raw sockets need root or CAP_NET_RAW)"
		}
		return nil, fmt.Errorf("open %v vrrp socket on %s: %w%s", family, ifname, err, hint)
	}
	c := &Conn{name: ifi.Name, index: ifi.Index, family: family, ip: pc.(*net.IPConn)}
	if family == vrrpcompat.IPv4 {
		c.v4 = ipv4.NewPacketConn(c.ip)
		err = setUpIPv4(c.v4, ifi)
	} else {
		c.v6 = ipv6.NewPacketConn(c.ip)
		err = setUpIPv6(c.v6, ifi)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up %v vrrp socket on %s: %w", family, ifname, err), c.Close())
	}
	return c, nil
}

// beforeBind ties the socket to the interface, and makes the kernel say so when a packet is over the interface's MTU: the "interface"
// setting neither fragments here nor forbids it on the way, and listens to no path MTU that somebody may have forged.
func beforeBind(fd int, ifname string, family vrrpcompat.Family) error {
	if err := unix.BindToDevice(fd, ifname); err != nil {
		return os.NewSyscallError("bind to device "+ifname, err)
	}
	level, discover, mode := unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_INTERFACE
	if family == vrrpcompat.IPv6 {
		level, discover, mode = unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_INTERFACE
	}
	return os.NewSyscallError("set MTU discovery", unix.SetsockoptInt(fd, level, discover, mode))
}

// A step is one socket option, with the words for the error.
type step struct {
	what string
	err  error
}

func firstError(steps ...step) error {
	for _, s := range steps {
		if s.err != nil {
			return fmt.Errorf("%s: %w", s.what, s.err)
		}
	}
	return nil
}

func setUpIPv4(pc *ipv4.PacketConn, ifi *net.Interface) error {
	group := &net.IPAddr{IP: vrrpcompat.GroupIPv4.AsSlice()}
	return firstError(
		step{"join " + group.String(), pc.JoinGroup(ifi, group)},
		step{"choose multicast interface", pc.SetMulticastInterface(ifi)},
		step{"set multicast TTL", pc.SetMulticastTTL(vrrpcompat.HopLimit)},
		step{"set TTL", pc.SetTTL(vrrpcompat.HopLimit)},
		step{"turn off multicast loopback", pc.SetMulticastLoopback(false)},
		step{"set TOS", pc.SetTOS(internetControl)},
		step{"ask for control messages", pc.SetControlMessage(ipv4.FlagTTL|ipv4.FlagDst|ipv4.FlagInterface, true)},
	)
}

func setUpIPv6(pc *ipv6.PacketConn, ifi *net.Interface) error {
	group := &net.IPAddr{IP: vrrpcompat.GroupIPv6.AsSlice()}
	return firstError(
		step{"join " + group.String(), pc.JoinGroup(ifi, group)},
		step{"choose multicast interface", pc.SetMulticastInterface(ifi)},
		step{"set multicast hop limit", pc.SetMulticastHopLimit(vrrpcompat.HopLimit)},
		step{"set hop limit", pc.SetHopLimit(vrrpcompat.HopLimit)},
		step{"turn off multicast loopback", pc.SetMulticastLoopback(false)},
		step{"set traffic class", pc.SetTrafficClass(internetControl)},
		step{"ask for control messages", pc.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagDst|ipv6.FlagInterface, true)},
	)
}

// Close leaves the group and closes the socket. A Run in progress returns an error that wraps net.ErrClosed.
func (c *Conn) Close() error { return c.ip.Close() }

// Interface returns the name of the interface that the Conn was opened on.
func (c *Conn) Interface() string { return c.name }

// Family returns the family of the adverts that the Conn carries.
func (c *Conn) Family() vrrpcompat.Family { return c.family }

// Send sends the advert once to the family's group, from source, which must be an address of the interface (see
// SourceAddress). It does not wait for the device: if the socket has no room, because a stuck device does not take
// what was sent before, the advert is lost, and the error wraps ENOBUFS or, after SendTimeout, os.ErrDeadlineExceeded. An advert over the interface's
// MTU is refused with an error that wraps EMSGSIZE and says how many addresses fit. An error concerns this one
// advert; the Conn stays usable.
func (c *Conn) Send(a vrrpcompat.Advert, source netip.Addr, sum vrrpcompat.Checksum) error {
	group := c.family.Group()
	b, err := a.AppendTo(make([]byte, 0, a.Len()), source, group, sum)
	if err != nil {
		return err
	}
	if err := c.ip.SetWriteDeadline(time.Now().Add(SendTimeout)); err != nil {
		return fmt.Errorf("send advert of vrid %d on %s: set write deadline: %w", a.VRID, c.name, err)
	}
	to := &net.IPAddr{IP: group.AsSlice()}
	if c.v4 != nil {
		_, err = c.v4.WriteTo(b, &ipv4.ControlMessage{Src: source.AsSlice(), IfIndex: c.index}, to)
	} else {
		_, err = c.v6.WriteTo(b, &ipv6.ControlMessage{Src: source.AsSlice(), IfIndex: c.index}, to)
	}
	if err != nil {
		return fmt.Errorf("send advert of vrid %d on %s from %v: %w%s", a.VRID, c.name, source, err, c.advice(err, len(b), source))
	}
	return nil
}

// advice says what to do about an error of Send, or nothing where the error says it all.
func (c *Conn) advice(err error, length int, source netip.Addr) string {
	switch {
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Sprintf(" (no room in the socket: %s does not take packets; this advert is lost)", c.name)
	case errors.Is(err, unix.EMSGSIZE):
		header, addr := ipv4.HeaderLen, 4
		if c.family == vrrpcompat.IPv6 {
			header, addr = ipv6.HeaderLen, 16
		}
		mtu, err := c.mtu()
		if err != nil {
			return fmt.Sprintf(" (the packet takes %d bytes)", length+header)
		}
		fit := max(0, (mtu-header-vrrpcompat.HeaderLen)/addr)
		return fmt.Sprintf(" (the packet takes %d bytes, the MTU is %d: at most %d virtual addresses fit; give the others a VRID of their own)",
			length+header, mtu, fit)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.ENETDOWN):
		return fmt.Sprintf(" (is %s up, and %v an address of it that has passed duplicate address detection?)", c.name, source)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Sprintf(" (%s was deleted: open it again when it is back)", c.name)
	case errors.Is(err, unix.EPERM):
		return " (a firewall on this host forbids protocol 112 out)"
	}
	return ""
}

// mtu asks through the socket, which stays in its namespace, what the interface's MTU is now.
func (c *Conn) mtu() (int, error) {
	rc, err := c.ip.SyscallConn()
	if err != nil {
		return 0, err
	}
	ifr, err := unix.NewIfreq(c.name)
	if err != nil {
		return 0, err
	}
	err = control(rc, func(fd int) error { return unix.IoctlIfreq(fd, unix.SIOCGIFMTU, ifr) })
	return int(ifr.Uint32()), err
}

// control runs f on the socket and returns its error.
func control(rc syscall.RawConn, f func(fd int) error) error {
	var inner error
	if err := rc.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
