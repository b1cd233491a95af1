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

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vrrpcompat"
)

// internetControl is the DSCP CS6 in the place of TOS and traffic class: what routing protocols use.
const internetControl = 0xc0

// A Path says where the messages of one virtual router go.
type Path struct {
	// Device is the virtual router's device, and Family one of its families.
	Device string
	Family vrrpcompat.Family
	// Via is the device that multicast is sent on instead, so that it bears that device's hardware address as its Ethernet
	// source; the IP source remains one of Device. Empty: Device. Unicast always goes out by Device.
	Via string
	// Source is the address to send from, which must be one of Device. The zero Addr: as Transport.Source chooses.
	Source netip.Addr
	// Peers are the routers to speak to. None: all, by multicast. One that is this host itself is passed over, so that one list
	// serves all.
	Peers []Peer
	// HopLimit is the TTL or hop limit of unicast messages. Zero: 255. Multicast always has 255.
	HopLimit uint8
}

// An Encode appends the message as it stands in a packet between two addresses, and returns the longer slice: such as an
// advert's AppendTo. The addresses are part of some checksums.
type Encode func(dst []byte, from, to netip.Addr) ([]byte, error)

// Send sends each message once to the group, or once to each peer: more than one message where versions 2 and 3 are
// spoken side by side (RFC 9568, section 8.4.2). A destination that cannot be reached does not keep the others from getting theirs; the
// errors are joined.
//
// Messages leave with DSCP CS6, without the IPv4 don't-fragment bit, and not looped back to this host. Send never waits:
// if the socket has no room, because a stuck device does not take what was sent before, the message is lost, and the error
// wraps ENOBUFS or EAGAIN. A message over the device's MTU is refused with an error that wraps EMSGSIZE. A device that
// was deleted and made again, and a source that has changed, are followed at once.
func (t *Transport) Send(p Path, messages ...Encode) error {
	if p.Family != vrrpcompat.IPv4 && p.Family != vrrpcompat.IPv6 {
		return fmt.Errorf("send vrrp on %s: %v is neither %v nor %v", p.Device, p.Family, vrrpcompat.IPv4, vrrpcompat.IPv6)
	}
	if len(p.Peers) == 0 {
		key := senderKey{via: p.Device, family: p.Family, hops: vrrpcompat.HopLimit}
		if p.Via != "" && p.Via != p.Device {
			key.via, key.foreign = p.Via, true
		}
		return t.sendTo(p, key, p.Family.Group(), messages)
	}
	key := senderKey{via: p.Device, family: p.Family, hops: vrrpcompat.HopLimit}
	if p.HopLimit != 0 {
		key.hops = p.HopLimit
	}
	var errs []error
	for _, peer := range p.Peers {
		to := peer.Addr.WithZone("")
		if host := t.host.Load(); host.has(host.links[p.Device].index, to) {
			continue
		}
		errs = append(errs, t.sendTo(p, key, to, messages))
	}
	return errors.Join(errs...)
}

// sendTo sends all messages to one destination.
func (t *Transport) sendTo(p Path, key senderKey, to netip.Addr, messages []Encode) error {
	var errs []error
	for _, encode := range messages {
		err := t.sendOne(p, key, to, encode)
		if gone(err) && t.refresh() {
			err = t.sendOne(p, key, to, encode)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// gone says of an error that the device or the source may be another by now.
func gone(err error) bool {
	for _, e := range []error{unix.ENODEV, unix.ENXIO, unix.EINVAL, unix.EADDRNOTAVAIL, unix.ENETUNREACH, net.ErrClosed} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (t *Transport) sendOne(p Path, key senderKey, to netip.Addr, encode Encode) error {
	source := p.Source.WithZone("")
	if !p.Source.IsValid() {
		var err error
		if source, err = t.Source(p.Device, p.Family, to); err != nil {
			return err
		}
	}
	b, err := encode(nil, source, to)
	if err != nil {
		return err
	}
	s, err := t.sender(key)
	if err != nil {
		return err
	}
	return s.send(b, source, to)
}

// sender returns the socket for the key, which it opens if need be.
func (t *Transport) sender(key senderKey) (*sender, error) {
	t.mu.Lock()
	s, closed := t.senders[key], t.closed
	t.mu.Unlock()
	if s != nil {
		return s, nil
	}
	if closed {
		return nil, fmt.Errorf("send %v vrrp on %s: %w", key.family, key.via, net.ErrClosed)
	}
	err := t.opts.In(func() (err error) {
		s, err = openSender(key)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open %v vrrp socket on %s: %w", key.family, key.via, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errors.Join(net.ErrClosed, s.close())
	}
	if other := t.senders[key]; other != nil { // of another goroutine, meanwhile
		_ = s.close()
		return other, nil
	}
	t.senders[key] = s
	return s, nil
}

// A senderKey names what a socket is set up for.
type senderKey struct {
	via    string
	family vrrpcompat.Family
	hops   uint8
	// foreign: the source is an address of another device.
	foreign bool
}

// A sender is a raw socket on one life of a device, which receives nothing.
type sender struct {
	key   senderKey
	index int
	ip    *net.IPConn
	raw   syscall.RawConn
}

// openSender needs CAP_NET_RAW. For IPv6 the checksum is the encoder's and not the kernel's work (IPV6_CHECKSUM stays
// off), as it is for IPv4.
func openSender(key senderKey) (*sender, error) {
	ifi, err := net.InterfaceByName(key.via)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", unix.ENODEV, err)
	}
	network, address := "ip4:", "0.0.0.0"
	if key.family == vrrpcompat.IPv6 {
		network, address = "ip6:", "::"
	}
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		return control(rc, func(fd int) error { return beforeBind(fd, key) })
	}}
	pc, err := lc.ListenPacket(context.Background(), network+strconv.Itoa(vrrpcompat.Protocol), address)
	if err != nil {
		hint := ""
		if errors.Is(err, unix.EPERM) {
			hint = " (raw sockets need root or CAP_NET_RAW)"
		}
		return nil, fmt.Errorf("%w%s", err, hint)
	}
	s := &sender{key: key, index: ifi.Index, ip: pc.(*net.IPConn)}
	if key.family == vrrpcompat.IPv4 {
		err = setUpIPv4(ipv4.NewPacketConn(s.ip), ifi, int(key.hops))
	} else {
		err = setUpIPv6(ipv6.NewPacketConn(s.ip), ifi, int(key.hops))
	}
	if err == nil {
		s.raw, err = s.ip.SyscallConn()
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// beforeBind ties the socket to the device, has it receive nothing, and makes the kernel say so when a packet is over the device's MTU: the
// "interface" setting neither fragments here nor forbids it on the way, and listens to no path MTU that somebody may
// have forged.
func beforeBind(fd int, key senderKey) error {
	if err := attach(fd, []bpf.Instruction{bpf.RetConstant{Val: 0}}); err != nil {
		return err
	}
	if err := unix.BindToDevice(fd, key.via); err != nil {
		return os.NewSyscallError("bind to device "+key.via, err)
	}
	level, discover, mode := unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_INTERFACE
	if key.family == vrrpcompat.IPv6 {
		level, discover, mode = unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_INTERFACE
		if key.foreign {
			// A link-local address is the host's on its own device only.
			if err := unix.SetsockoptInt(fd, level, unix.IPV6_FREEBIND, 1); err != nil {
				return os.NewSyscallError("allow source addresses of other devices", err)
			}
		}
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

func setUpIPv4(pc *ipv4.PacketConn, ifi *net.Interface, hops int) error {
	return firstError(
		step{"choose multicast interface", pc.SetMulticastInterface(ifi)},
		step{"set multicast TTL", pc.SetMulticastTTL(vrrpcompat.HopLimit)},
		step{"set TTL", pc.SetTTL(hops)},
		step{"turn off multicast loopback", pc.SetMulticastLoopback(false)},
		step{"set TOS", pc.SetTOS(internetControl)},
	)
}

func setUpIPv6(pc *ipv6.PacketConn, ifi *net.Interface, hops int) error {
	return firstError(
		step{"choose multicast interface", pc.SetMulticastInterface(ifi)},
		step{"set multicast hop limit", pc.SetMulticastHopLimit(vrrpcompat.HopLimit)},
		step{"set hop limit", pc.SetHopLimit(hops)},
		step{"turn off multicast loopback", pc.SetMulticastLoopback(false)},
		step{"set traffic class", pc.SetTrafficClass(internetControl)},
	)
}

func (s *sender) close() error { return s.ip.Close() }

func (s *sender) send(b []byte, source, to netip.Addr) error {
	var oob []byte
	var dst unix.Sockaddr
	if s.key.family == vrrpcompat.IPv4 {
		oob = unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(s.index), Spec_dst: source.As4()})
		dst = &unix.SockaddrInet4{Addr: to.As4()}
	} else {
		oob = unix.PktInfo6(&unix.Inet6Pktinfo{Ifindex: uint32(s.index), Addr: source.As16()})
		dst = &unix.SockaddrInet6{Addr: to.As16(), ZoneId: uint32(s.index)}
	}
	var inner error
	err := s.raw.Write(func(fd uintptr) bool {
		for {
			if _, inner = unix.SendmsgN(int(fd), b, oob, dst, unix.MSG_DONTWAIT); inner != unix.EINTR {
				return true // with EAGAIN too: an advert is not worth waiting for
			}
		}
	})
	if err == nil {
		err = os.NewSyscallError("sendmsg", inner)
	}
	if err != nil {
		return fmt.Errorf("send advert on %s from %v to %v: %w%s", s.key.via, source, to, err, s.advice(err, len(b), source))
	}
	return nil
}

// advice says what to do about an error of send, or nothing where the error says it all.
func (s *sender) advice(err error, length int, source netip.Addr) string {
	switch {
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EAGAIN):
		return fmt.Sprintf(" (no room in the socket, or the fence drops it: %s does not take packets; this advert is lost)", s.key.via)
	case errors.Is(err, unix.EMSGSIZE):
		header, addr := ipv4HeaderLen, 4
		if s.key.family == vrrpcompat.IPv6 {
			header, addr = ipv6HeaderLen, 16
		}
		mtu, err := s.mtu()
		if err != nil {
			return fmt.Sprintf(" (the packet takes %d bytes)", length+header)
		}
		fit := max(0, (mtu-header-vrrpcompat.HeaderLen)/addr)
		return fmt.Sprintf(" (the packet takes %d bytes, the MTU is %d: at most %d virtual addresses fit; give the others a VRID of their own)",
			length+header, mtu, fit)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.ENETDOWN):
		return fmt.Sprintf(" (is %s up, and %v an address of it that has passed duplicate address detection?)", s.key.via, source)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Sprintf(" (%s was deleted)", s.key.via)
	case errors.Is(err, unix.EPERM):
		return " (a firewall on this host forbids protocol 112 out)"
	}
	return ""
}

// mtu asks through the socket, which stays in its namespace, what the device's MTU is now.
func (s *sender) mtu() (int, error) {
	ifr, err := unix.NewIfreq(s.key.via)
	if err != nil {
		return 0, err
	}
	err = control(s.raw, func(fd int) error { return unix.IoctlIfreq(fd, unix.SIOCGIFMTU, ifr) })
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
