package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A feed is a netlink socket that hears the kernel's news of links and addresses.
type feed struct {
	file *os.File // closing it ends a receive
	raw  syscall.RawConn
	buf  []byte
}

const receiveBuffer = 1 << 20 // bytes; room for some thousand changes at once

// subscribe opens a feed in the kernel's network namespace.
func (k *Kernel) subscribe() (*feed, error) {
	var f *feed
	err := k.ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		file := os.NewFile(uintptr(fd), "netlink")
		raw, err := file.SyscallConn()
		if err == nil {
			f, err = &feed{file, raw, make([]byte, receiveSize)}, setUpFeed(fd)
		}
		if err != nil {
			return errors.Join(err, file.Close())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to links and addresses: %w", err)
	}
	return f, nil
}

func setUpFeed(fd int) error {
	// More than the system's limit only with CAP_NET_ADMIN; with less room than
	// wished, more often some news is dropped and compared afresh.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return fmt.Errorf("set the receive buffer: %w", err)
		}
	}
	if err := leaveOutOurs(fd); err != nil {
		return err
	}
	const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1)
	return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
}

// leaveOutOurs has the kernel keep to itself that an address with our mark was put there or renewed. We know, and a thousand
// renewals each few seconds would be as many awakenings.
func leaveOutOurs(fd int) error {
	// The program reads words as the network orders them.
	var kind [2]byte
	binary.NativeEndian.PutUint16(kind[:], unix.RTM_NEWADDR)
	const firstAttribute = unix.SizeofNlMsghdr + unix.SizeofIfAddrmsg
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 2}, // the kind of the message
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(binary.BigEndian.Uint16(kind[:])), SkipTrue: 7},
		bpf.LoadConstant{Dst: bpf.RegA, Val: firstAttribute},
		bpf.LoadConstant{Dst: bpf.RegX, Val: ifaProto},
		bpf.LoadExtension{Num: bpf.ExtNetlinkAttr}, // where that attribute is; 0: nowhere
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 3},
		bpf.TAX{},
		bpf.LoadIndirect{Off: unix.SizeofRtAttr, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: Protocol, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 20}, // the whole message
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return fmt.Errorf("filter the news of addresses: %w", err)
	}
	filter := make([]unix.SockFilter, 0, len(program))
	for _, p := range program {
		filter = append(filter, unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K})
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}); err != nil {
		return fmt.Errorf("filter the news of addresses: %w", err)
	}
	return nil
}

func (f *feed) close() { _ = f.file.Close() } // a second time does no harm

// receive waits for news. What it returns is overwritten by the next call.
func (f *feed) receive() ([]byte, error) {
	for {
		var n int
		var from unix.Sockaddr
		var inner error
		err := f.raw.Read(func(fd uintptr) bool {
			n, from, inner = unix.Recvfrom(int(fd), f.buf, 0)
			return !errors.Is(inner, unix.EAGAIN)
		})
		if err = errors.Join(err, inner); err != nil && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("receive: %w", err)
		}
		if sender, ok := from.(*unix.SockaddrNetlink); err == nil && ok && sender.Pid == 0 {
			return f.buf[:n], nil
		}
	}
}
