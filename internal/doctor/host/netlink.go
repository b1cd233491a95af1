package host

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Of linux/sock_diag.h and linux/inet_diag.h, which package unix leaves out.
const (
	sockDestroyType = 21                     // SOCK_DESTROY
	diagLength      = 1 + 1 + 1 + 1 + 4 + 48 // struct inet_diag_req_v2
	noCookie        = 0xffffffff             // INET_DIAG_NOCOOKIE
	netlinkHeader   = unix.SizeofNlMsghdr    //
	requestAck      = unix.NLM_F_REQUEST | unix.NLM_F_ACK
)

// noConnection asks to destroy a TCP connection between port 0 of 192.0.2.1 and itself,
// which no host has: port 0 cannot be connected.
func noConnection() []byte {
	b := make([]byte, netlinkHeader+diagLength)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], sockDestroyType)
	binary.NativeEndian.PutUint16(b[6:], requestAck)
	d := b[netlinkHeader:]
	d[0], d[1] = unix.AF_INET, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(d[4:], 1<<1) // connected ones
	copy(d[12:], []byte{192, 0, 2, 1})
	copy(d[28:], []byte{192, 0, 2, 1})
	binary.NativeEndian.PutUint32(d[48:], noCookie)
	binary.NativeEndian.PutUint32(d[52:], noCookie)
	return b
}

// errorOf is the error that a netlink answer brings; 0 for none.
func errorOf(b []byte) unix.Errno {
	if len(b) < netlinkHeader+4 || binary.NativeEndian.Uint16(b[4:]) != unix.NLMSG_ERROR {
		return 0
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(b[netlinkHeader:])))
}
