package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// resetTime bounds one call of ResetConnections: an address that is leaving must not
// wait for a host with very many connections.
const resetTime = 500 * time.Millisecond

// resetStates are the states of TCP (include/net/tcp_states.h) in which somebody at the other end waits for
// us. Listening sockets stay as they are: the service comes back with its address.
const resetStates = 1<<unix.BPF_TCP_ESTABLISHED | 1<<unix.BPF_TCP_SYN_SENT | 1<<unix.BPF_TCP_SYN_RECV |
	1<<unix.BPF_TCP_FIN_WAIT1 | 1<<unix.BPF_TCP_FIN_WAIT2 | 1<<unix.BPF_TCP_CLOSE_WAIT |
	1<<unix.BPF_TCP_LAST_ACK | 1<<unix.BPF_TCP_CLOSING

// ResetConnections ends every TCP connection whose local address is one of these,
// IPv4 ones of IPv6 sockets too, and returns how many. The other end is told by a
// reset, for which the address must still be there and its fence open; programs here
// see ECONNABORTED. Connections that are made meanwhile may be missed.
//
// It takes half a second at most; then the error says so. The error wraps
// errors.ErrUnsupported where the kernel cannot (CONFIG_INET_DIAG_DESTROY, Linux 4.5).
func (k *Kernel) ResetConnections(addrs []netip.Addr) (int, error) {
	if len(addrs) == 0 {
		return 0, nil
	}
	// A socket for this call: one that is given up half-way through a list still has the rest of it to come.
	var c *conn
	err := k.ns.Do(func() (err error) {
		c, err = openConn(unix.NETLINK_INET_DIAG)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("reset connections: %w", err)
	}
	n, err := resetConnections(c, addrs, time.Now().Add(resetTime))
	if err = errors.Join(err, c.close()); err != nil {
		return n, fmt.Errorf("reset connections (%d done): %w", n, err)
	}
	return n, nil
}

var errTooSlow = fmt.Errorf("not done within %s; the others end when the programs at the other end find the address elsewhere", resetTime)

func resetConnections(c *conn, addrs []netip.Addr, until time.Time) (n int, err error) {
	wanted := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		wanted[a] = true
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		found, err := connections(c, family, wanted, until)
		if errors.Is(err, unix.ENOENT) {
			err = fmt.Errorf("this kernel does not list TCP sockets (CONFIG_INET_TCP_DIAG): %w", errors.ErrUnsupported)
		}
		if err != nil {
			return n, err
		}
		done, err := destroy(c, family, found, until)
		n += done
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// A socketID is struct inet_diag_sockid of include/uapi/linux/inet_diag.h: ports, addresses, device, and a
// number that no later socket with the same ports has.
type socketID [48]byte

// local is the address on this side.
func (id socketID) local(family byte) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(id[4:8]))
	}
	return netip.AddrFrom16([16]byte(id[4:20])).Unmap()
}

// diagRequest is struct inet_diag_req_v2.
func diagRequest(family byte, states uint32, id socketID) []byte {
	b := binary.NativeEndian.AppendUint32([]byte{family, unix.IPPROTO_TCP, 0, 0}, states)
	return append(b, id[:]...)
}

const (
	sockDiagByFamily    = 20 // SOCK_DIAG_BY_FAMILY of include/uapi/linux/sock_diag.h
	inetDiagReqBytecode = 1  // of include/uapi/linux/inet_diag.h
	sizeofInetDiagMsg   = 72
)

// connections lists those of a family with such local addresses. The kernel filters by
// networks that contain them, so that a host's other connections cost it little and us nothing.
func connections(c *conn, family byte, wanted map[netip.Addr]bool, until time.Time) (found []socketID, err error) {
	filter := filterOf(family, wanted)
	if filter == nil {
		return nil, nil
	}
	err = c.askUntil(until, sockDiagByFamily, diagRequest(family, resetStates, socketID{}),
		func(b *batch) { b.attr(inetDiagReqBytecode, filter) },
		func(m message) {
			if m.kind != sockDiagByFamily || len(m.data) < sizeofInetDiagMsg || m.data[0] != family {
				return
			}
			id := socketID(m.data[4:52])
			if wanted[id.local(family)] {
				found = append(found, id)
			}
		})
	return found, err
}

// destroy ends connections, and counts those that were there to be ended.
func destroy(c *conn, family byte, found []socketID, until time.Time) (n int, err error) {
	for part := range slices.Chunk(found, chunk) {
		if time.Now().After(until) {
			return n, errTooSlow
		}
		var b batch
		for _, id := range part {
			b.add(unix.SOCK_DESTROY, 0, diagRequest(family, 0, id))
		}
		for _, err := range c.run(&b, false) {
			switch {
			case err == nil:
				n++
			case errors.Is(err, unix.ENOENT): // ended by itself
			case errors.Is(err, unix.EOPNOTSUPP):
				return n, fmt.Errorf("this kernel cannot (CONFIG_INET_DIAG_DESTROY): %w", errors.ErrUnsupported)
			default:
				return n, err
			}
		}
	}
	return n, nil
}

// filterNetworks is how many networks the kernel compares each connection with at the most. With more addresses
// than these, wider networks are named, and what does not belong is left out here.
const filterNetworks = 16

// networksAround returns at most so many networks that contain all the addresses of a family.
func networksAround(addrs []netip.Addr, most int) []netip.Prefix {
	var nets []netip.Prefix
	for _, a := range addrs {
		nets = append(nets, netip.PrefixFrom(a, a.BitLen()))
	}
	for {
		slices.SortFunc(nets, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
		nets = slices.Compact(nets)
		if len(nets) <= most {
			return nets
		}
		for i, n := range nets {
			nets[i] = netip.PrefixFrom(n.Addr(), n.Bits()-1).Masked()
		}
	}
}

// The filter's instructions, of include/uapi/linux/inet_diag.h.
const (
	bcJump       = 1 // INET_DIAG_BC_JMP
	bcSource     = 7 // INET_DIAG_BC_S_COND
	sizeofBcOp   = 4 // struct inet_diag_bc_op: code, how far on if so, how far on if not
	sizeofBcHost = 8 // struct inet_diag_hostcond without its address: family, length, padding, port
)

// filterOf is a program that lets pass what has a local address in one of the networks
// around the wanted ones; nil when there is none for the family. To end just behind
// the program is to pass, to end beyond is not to.
func filterOf(family byte, wanted map[netip.Addr]bool) []byte {
	var v4, v6 []netip.Addr
	for a := range wanted {
		switch {
		case a.Is4():
			v4 = append(v4, a)
		case family == unix.AF_INET6:
			v6 = append(v6, a)
		}
	}
	// In IPv6 sockets too, for which the kernel compares IPv4 networks with mapped addresses.
	nets := slices.Concat(networksAround(v4, filterNetworks), networksAround(v6, filterNetworks))
	size := 0
	for _, n := range nets {
		size += sizeofBcOp + sizeofBcHost + n.Addr().BitLen()/8 + sizeofBcOp
	}
	b := make([]byte, 0, size)
	for i, n := range nets {
		cond := sizeofBcOp + sizeofBcHost + n.Addr().BitLen()/8
		otherwise := cond + sizeofBcOp // the next network
		if i == len(nets)-1 {
			otherwise += sizeofBcOp // beyond the end
		}
		b = append(b, bcSource, byte(cond))
		b = binary.NativeEndian.AppendUint16(b, uint16(otherwise))
		b = append(b, familyOf(n.Addr()), byte(n.Bits()), 0, 0)
		b = binary.NativeEndian.AppendUint32(b, ^uint32(0)) // any port
		b = append(b, n.Addr().AsSlice()...)
		b = append(b, bcJump, sizeofBcOp)
		b = binary.NativeEndian.AppendUint16(b, uint16(size-len(b)+2)) // just behind the end
	}
	return b
}
