package wire

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/vrrpcompat"
)

const (
	// receiveBuffer is room for some thousand adverts: what comes while the reader waits for a processor.
	receiveBuffer = 1 << 20

	// readBurst in readWindow is how fast a listener reads at most, 20,000 packets in a second. What comes faster waits in the
	// socket and is dropped there, so that a flood costs a bounded share of one processor.
	readBurst  = 1000
	readWindow = 50 * time.Millisecond
)

// A listener hears one family on one life of a device.
//
// It reads from a packet socket, which tells the hardware address, gives nothing back that this host has sent, and does
// not depend on the host's routes, filters and reverse path checks: adverts that are there are heard. The packet
// socket joins nothing; a datagram socket that is never bound, and so receives nothing, holds the membership.
type listener struct {
	key   portKey
	index int
	file  *os.File
	raw   syscall.RawConn
	state linkState // as of the last join; for the convergence only

	mu         sync.Mutex // guards what follows
	membership *os.File
	dropped    uint64 // as counted so far
	closed     bool
}

func openListener(key portKey, state linkState) (*listener, error) {
	ethertype, filter := uint16(unix.ETH_P_IP), filterIPv4
	if key.family == vrrpcompat.IPv6 {
		ethertype, filter = unix.ETH_P_IPV6, filterIPv6
	}
	// Bound to a protocol only after the filter is in place: nothing else slips in before.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		hint := ""
		if errors.Is(err, unix.EPERM) {
			hint = " (packet sockets need root or CAP_NET_RAW)"
		}
		return nil, fmt.Errorf("open packet socket: %w%s", err, hint)
	}
	l := &listener{key: key, index: state.index, state: state, file: os.NewFile(uintptr(fd), "vrrp "+key.String())}
	if err := attach(fd, filter); err != nil {
		return nil, errors.Join(err, l.file.Close())
	}
	// More than the system's limit only with CAP_NET_ADMIN.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return nil, errors.Join(fmt.Errorf("set receive buffer: %w", err), l.file.Close())
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ethertype<<8 | ethertype>>8, Ifindex: state.index}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind packet socket: %w", err), l.file.Close())
	}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, l.file.Close())
	}
	if err := l.join(); err != nil {
		return nil, errors.Join(err, l.file.Close())
	}
	return l, nil
}

// What the packet sockets are given: protocol 112, for IPv4 also behind an authentication header.
var (
	filterIPv4 = []bpf.Instruction{
		bpf.LoadAbsolute{Off: 9, Size: 1}, // protocol
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: vrrpcompat.Protocol, SkipTrue: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolAH, SkipTrue: 4},
		bpf.LoadMemShift{Off: 0},          // the header's length
		bpf.LoadIndirect{Off: 0, Size: 1}, // what the authentication header stands before
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: vrrpcompat.Protocol, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	}
	filterIPv6 = []bpf.Instruction{
		bpf.LoadAbsolute{Off: 6, Size: 1}, // next header
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: vrrpcompat.Protocol, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	}
)

// attach puts a filter on a socket.
func attach(fd int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assemble socket filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	return os.NewSyscallError("attach socket filter", err)
}

// join makes the device a member of the family's group, anew if it is one already: routers and snooping switches are told
// again.
func (l *listener) join() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	if l.membership != nil {
		_ = l.membership.Close() // leaves; its error could tell of nothing that matters any more
		l.membership = nil
	}
	domain, group := unix.AF_INET, l.key.family.Group()
	if l.key.family == vrrpcompat.IPv6 {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket to join %v: %w", group, err)
	}
	if l.key.family == vrrpcompat.IPv4 {
		err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP,
			&unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(l.index)})
	} else {
		err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
			&unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(l.index)})
	}
	f := os.NewFile(uintptr(fd), "membership of "+l.key.String())
	if err != nil {
		hint := ""
		if l.key.family == vrrpcompat.IPv6 {
			hint = fmt.Sprintf(" (is IPv6 switched off there? sysctl net.ipv6.conf.%s.disable_ipv6=0)", l.key.device)
		}
		return errors.Join(fmt.Errorf("join %v: %w%s", group, err, hint), f.Close())
	}
	l.membership = f
	return nil
}

func (l *listener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	_ = l.file.Close() // neither error could tell of anything that matters any more
	if l.membership != nil {
		_ = l.membership.Close()
	}
}

// overruns returns how many packets the socket had no room for.
func (l *listener) overruns() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.dropped
	}
	_ = l.raw.Control(func(fd uintptr) {
		// Reading sets the kernel's counter back.
		if s, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			l.dropped += uint64(s.Drops)
		}
	})
	return l.dropped
}

// run reads until the listener is closed.
func (l *listener) run(handle func(*Packet)) {
	var p Packet
	var began time.Time
	buf := make([]byte, bufferLen)
	for read := 1; ; read++ {
		concerns, err := l.next(&p, buf)
		if err != nil {
			return // closed
		}
		if concerns {
			handle(&p)
		}
		if read == readBurst {
			read = 0
			time.Sleep(readWindow - time.Since(began)) // not at all, if that many took longer to come
			began = time.Now()
		}
	}
}

// next takes one packet from the socket into p, whose payload lies in buf. It does not concern us when it is for another
// host's hardware address, or for another device (such as a VLAN) above ours; and there is none when a device that goes down or away
// says so, which is for the convergence to act on. An error is the end.
func (l *listener) next(p *Packet, buf []byte) (concerns bool, err error) {
	var n int
	var from unix.Sockaddr
	var inner error
	err = l.raw.Read(func(fd uintptr) bool {
		for {
			n, from, inner = unix.Recvfrom(int(fd), buf, unix.MSG_TRUNC)
			if !errors.Is(inner, unix.EINTR) {
				return !errors.Is(inner, unix.EAGAIN)
			}
		}
	})
	if err != nil || inner != nil {
		return false, err
	}
	a, ok := from.(*unix.SockaddrLinklayer)
	if !ok || a.Ifindex != l.index || a.Pkttype == unix.PACKET_OTHERHOST {
		return false, nil
	}
	*p = Packet{Device: l.key.device, Index: l.index, Family: l.key.family, Arrival: now(), MAC: a.Addr[:min(int(a.Halen), len(a.Addr))]}
	p.Reason = p.parse(buf[:min(n, len(buf))], n)
	return true, nil
}

// now reads CLOCK_BOOTTIME, which cannot fail on Linux.
func now() election.Instant {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return election.Instant(ts.Nano())
}

// handle completes what a packet is judged by and hands it on.
func (t *Transport) handle(p *Packet) {
	if p.Source.IsValid() {
		if r := t.judge(p); r != 0 {
			p.Reason = r
		}
	}
	t.opts.Receive(p)
}

// judge says whether a packet whose header is sound concerns this host and comes from another. That it comes from a
// virtual address that stands here does not make it ours: the address's owner sends from it.
func (t *Transport) judge(p *Packet) Reason {
	host := t.host.Load()
	ours := func(a netip.Addr) bool { return host.has(p.Index, a) && !t.opts.IsVirtual(a) }
	switch {
	case ours(p.Source) && host.macs[string(p.MAC)]:
		return ReasonOwn
	case ours(p.Source):
		return ReasonSpoofed
	case p.Destination != p.Family.Group() && !ours(p.Destination):
		return ReasonDestination
	}
	return 0
}
