package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A batch is a row of netlink requests, to be handed to the kernel with few system
// calls. It is written by hand rather than by the netlink library, which has no
// batches and allocates for each attribute: a thousand renewals are a matter of
// each few seconds.
type batch struct {
	buf    []byte
	starts []int // of each request in buf
}

// add begins a request; body is what comes between the header and the attributes.
func (b *batch) add(kind, flags uint16, body []byte) {
	b.starts = append(b.starts, len(b.buf))
	b.buf = binary.NativeEndian.AppendUint32(b.buf, 0) // the length, see attr
	b.buf = binary.NativeEndian.AppendUint16(b.buf, kind)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, flags|unix.NLM_F_REQUEST)
	b.buf = append(b.buf, make([]byte, 8)...) // sequence number, and the sender, which the kernel knows
	b.buf = append(b.buf, body...)
	b.grown()
}

// attr adds an attribute to the last request.
func (b *batch) attr(kind uint16, value []byte) {
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(unix.SizeofRtAttr+len(value)))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, kind)
	b.buf = append(b.buf, value...)
	for len(b.buf)%unix.NLMSG_ALIGNTO != 0 {
		b.buf = append(b.buf, 0)
	}
	b.grown()
}

func (b *batch) attr32(kind uint16, value uint32) {
	b.attr(kind, binary.NativeEndian.AppendUint32(nil, value))
}

func (b *batch) grown() {
	start := b.starts[len(b.starts)-1]
	binary.NativeEndian.PutUint32(b.buf[start:], uint32(len(b.buf)-start))
}

func (b *batch) len() int { return len(b.starts) }

// from returns requests i to j-1.
func (b *batch) from(i, j int) []byte {
	if j == b.len() {
		return b.buf[b.starts[i]:]
	}
	return b.buf[b.starts[i]:b.starts[j]]
}

// errUnanswered is what is known of a request whose answer was lost: it may have been carried out.
var errUnanswered = errors.New("the kernel's answer was lost")

// errNotSent is what came of a request that was left out because of an earlier one.
var errNotSent = errors.New("not tried")

// A conn is a netlink socket on which nobody else's questions go. Safe for
// concurrent use.
type conn struct {
	mu  sync.Mutex // one question at a time
	fd  int
	seq uint32
	buf []byte
}

// receiveSize is as much as the kernel puts into one message of a dump.
const receiveSize = 64 << 10

// openConn opens a socket in the calling thread's network namespace.
func openConn(protocol int) (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	timeout := unix.NsecToTimeval(answerTime.Nanoseconds())
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up netlink: %w", err), unix.Close(fd))
	}
	// Of later kernels than others: errors in words, without the request repeated, and dumps that the kernel filters.
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK} {
		_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, option, 1)
	}
	return &conn{fd: fd, buf: make([]byte, receiveSize)}, nil
}

func (c *conn) close() error { return unix.Close(c.fd) }

// chunk is how many requests go with one system call. When each of them fails, the
// answers still fit into a receive buffer of the usual size.
const chunk = 128

// run has the kernel carry out the requests in order, and returns what came of each.
// Only the last of a chunk asks for an acknowledgement: the kernel answers every
// request that fails, and tells when such an answer got lost. With stop, no later
// chunk is sent once a request has failed.
func (c *conn) run(b *batch, stop bool) []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	answers := make([]error, b.len())
	for i := 0; i < b.len(); i += chunk {
		j := min(i+chunk, b.len())
		first := c.seq + 1
		for n := i; n < j; n++ {
			c.seq++
			binary.NativeEndian.PutUint32(b.buf[b.starts[n]+8:], c.seq)
		}
		flags := b.buf[b.starts[j-1]+6:]
		binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
		if err := c.exchange(b.from(i, j), first, answers[i:j]); err != nil {
			for n := i; n < j; n++ {
				if answers[n] == nil {
					answers[n] = fmt.Errorf("%w: %w", errUnanswered, err)
				}
			}
		}
		if stop && errors.Join(answers[i:j]...) != nil {
			for n := j; n < b.len(); n++ {
				answers[n] = errNotSent
			}
			break
		}
	}
	return answers
}

// exchange sends one chunk and reads until its last request is answered.
func (c *conn) exchange(requests []byte, first uint32, answers []error) error {
	if err := c.send(requests); err != nil {
		return err
	}
	for {
		b, err := c.receive()
		if err != nil {
			return err
		}
		for m := range messages(b) {
			n := m.seq - first // large for what belongs to an earlier question
			if m.kind != unix.NLMSG_ERROR || n >= uint32(len(answers)) {
				continue
			}
			answers[n] = m.err()
			if int(n) == len(answers)-1 {
				return nil
			}
		}
	}
}

func (c *conn) send(b []byte) error {
	for {
		err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// receive returns what the kernel sends next. It is overwritten by the next call.
func (c *conn) receive() ([]byte, error) {
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC) // which tells the whole length
		switch sender, ok := from.(*unix.SockaddrNetlink); {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return nil, fmt.Errorf("no answer within %s: %w", answerTime, err)
		case err != nil:
			return nil, err
		case n > len(c.buf): // what is cut off might be an address that is then taken for gone
			return nil, fmt.Errorf("a message of %d bytes, where %d were the most", n, len(c.buf))
		case ok && sender.Pid == 0:
			return c.buf[:n], nil
		}
	}
}

// ask puts one question whose answer is a list, and calls each with every entry.
func (c *conn) ask(kind uint16, body []byte, each func(m message)) error {
	return c.askUntil(time.Time{}, kind, body, nil, each)
}

// askUntil gives up with errTooSlow when the instant, if there is one, has passed; then the socket is
// good for nothing else.
func (c *conn) askUntil(until time.Time, kind uint16, body []byte, attrs func(*batch), each func(m message)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b batch
	b.add(kind, unix.NLM_F_DUMP, body)
	if attrs != nil {
		attrs(&b)
	}
	c.seq++
	binary.NativeEndian.PutUint32(b.buf[8:], c.seq)
	if err := c.send(b.buf); err != nil {
		return err
	}
	disturbed := false
	for {
		if !until.IsZero() && time.Now().After(until) {
			return errTooSlow
		}
		answer, err := c.receive()
		if err != nil {
			return err
		}
		for m := range messages(answer) {
			if m.seq != c.seq {
				continue
			}
			disturbed = disturbed || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch m.kind {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				if err := m.err(); err != nil {
					return err
				}
				if disturbed {
					return netlink.ErrDumpInterrupted
				}
				return nil
			default:
				each(m)
			}
		}
	}
}

// A message is one of those that the kernel sends.
type message struct {
	kind, flags uint16
	seq         uint32
	data        []byte
}

// messages goes through what one receive has brought.
func messages(b []byte) iter.Seq[message] {
	return func(yield func(message) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			n := int(binary.NativeEndian.Uint32(b))
			if n < unix.SizeofNlMsghdr || n > len(b) {
				return
			}
			m := message{kind: binary.NativeEndian.Uint16(b[4:]), flags: binary.NativeEndian.Uint16(b[6:]),
				seq: binary.NativeEndian.Uint32(b[8:]), data: b[unix.SizeofNlMsghdr:n]}
			if !yield(m) {
				return
			}
			b = b[min(aligned(n), len(b)):]
		}
	}
}

func aligned(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// sizeofNlMsgerr is that of struct nlmsgerr: the error, and the header of the request that it is about.
const sizeofNlMsgerr = int(unsafe.Sizeof(unix.NlMsgerr{}))

// err is the outcome that an answer to a request or the end of a list tells, with the kernel's words if it has any.
func (m message) err() error {
	if len(m.data) < 4 {
		return nil
	}
	code := int32(binary.NativeEndian.Uint32(m.data))
	if code == 0 {
		return nil
	}
	errno := unix.Errno(-code)
	if m.kind == unix.NLMSG_ERROR && m.flags&unix.NLM_F_ACK_TLVS != 0 && m.flags&unix.NLM_F_CAPPED != 0 &&
		len(m.data) > sizeofNlMsgerr {
		for kind, value := range attributes(m.data[sizeofNlMsgerr:]) {
			if kind == nlmsgerrAttrMsg {
				return fmt.Errorf("%w (%s)", errno, unix.ByteSliceToString(value))
			}
		}
	}
	return errno
}

const nlmsgerrAttrMsg = 1 // NLMSGERR_ATTR_MSG of include/uapi/linux/netlink.h

// attributes goes through the attributes of a message, without the marks on their types.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min(aligned(n), len(b)):]
		}
	}
}

func uint32Of(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}
