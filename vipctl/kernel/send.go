package kernel

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"
	"unsafe"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// A sender is an open packet socket on a device.
type sender struct {
	conn  *packet.Conn
	index int
}

// sendTime is how long handing frames to a device may take. It is also the time
// before the end of a lease in which nothing is announced any more.
const sendTime = 20 * time.Millisecond

// maxFrames is how many frames are handed over in one system call.
const maxFrames = 256

// send hands frames to a device over a socket that stays open. Frames that are dropped
// on the way out do not keep back those behind them.
func (k *Kernel) send(l LinkInfo, frames [][]byte) error {
	k.sending.Lock()
	defer k.sending.Unlock()
	s := k.senders[l.Name]
	if s != nil && s.index != l.Index {
		// The device was destroyed and made again.
		k.drop(l.Name)
		s = nil
	}
	if s == nil {
		conn, err := k.listen(l, 0, nil) // protocol 0: receives nothing
		if err != nil {
			return err
		}
		s = &sender{conn, l.Index}
		k.senders[l.Name] = s
	}
	err := sendOn(s.conn, l.Index, frames)
	if err != nil && !errors.Is(err, unix.ENOBUFS) {
		k.drop(l.Name)
	}
	return err
}

func (k *Kernel) drop(link string) {
	k.senders[link].conn.Close() // its error could tell of nothing that matters any more
	delete(k.senders, link)
}

// sendOn sends what can be sent, and returns why the first was not that could not.
func sendOn(conn *packet.Conn, index int, frames [][]byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return fmt.Errorf("set the time for sending: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	var dropped int
	for len(frames) > 0 {
		batch := frames[:min(len(frames), maxFrames)]
		frames = frames[len(batch):]
		n, err := sendBatch(raw, index, batch)
		dropped += n
		if err != nil {
			return err
		}
	}
	if dropped > 0 {
		return fmt.Errorf("send: %d frames dropped on the way out, by the fence if the address is in it "+
			"and past its deadline, else by a full queue: %w", dropped, unix.ENOBUFS)
	}
	return nil
}

// A mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr  unix.Msghdr
	sent uint32
}

// sendBatch sends the frames in as few system calls as there are drops, and one more.
func sendBatch(raw rawWriter, index int, frames [][]byte) (dropped int, err error) {
	to := unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Ifindex: int32(index), Halen: 6}
	iov := make([]unix.Iovec, len(frames))
	msgs := make([]mmsghdr, len(frames))
	for i, f := range frames {
		iov[i].Base = &f[0]
		iov[i].SetLen(len(f))
		msgs[i].hdr.Name = (*byte)(unsafe.Pointer(&to))
		msgs[i].hdr.Namelen = unix.SizeofSockaddrLinklayer
		msgs[i].hdr.Iov = &iov[i]
		msgs[i].hdr.SetIovlen(1)
	}
	var failed error
	waited := raw.Write(func(fd uintptr) (done bool) {
		for len(msgs) > 0 {
			n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), 0, 0, 0)
			switch errno {
			case 0:
				msgs = msgs[n:]
			case unix.EAGAIN:
				return false
			case unix.EINTR:
			case unix.ENOBUFS:
				dropped++
				msgs = msgs[1:]
			default:
				failed = fmt.Errorf("send: %w", errno)
				return true
			}
		}
		return true
	})
	runtime.KeepAlive(iov)
	runtime.KeepAlive(&to)
	switch {
	case failed != nil:
		return dropped, failed
	case errors.Is(waited, os.ErrDeadlineExceeded):
		return dropped, fmt.Errorf("send: the device has taken nothing for %s: %w", sendTime, waited)
	case waited != nil:
		return dropped, fmt.Errorf("send: %w", waited)
	}
	return dropped, nil
}

// A rawWriter is the part of syscall.RawConn that sends.
type rawWriter interface {
	Write(func(fd uintptr) (done bool)) error
}

// listen opens a packet socket on a device.
func (k *Kernel) listen(l LinkInfo, protocol int, cfg *packet.Config) (*packet.Conn, error) {
	var conn *packet.Conn
	err := k.ns.Do(func() (err error) {
		conn, err = packet.Listen(&net.Interface{Index: l.Index, MTU: l.MTU, Name: l.Name, HardwareAddr: l.MAC},
			packet.Raw, protocol, cfg)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a packet socket on %s: %w", l.Name, err)
	}
	return conn, nil
}
