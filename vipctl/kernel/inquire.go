package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/vipctl"
)

// Inquire asks the device's LAN who has an address, by ARP probe or Neighbor Solicitation,
// again and again until ctx ends; then it returns nil. Nobody's cache is changed. asked is
// called for each question that left, with when, and answered for each answer, with when
// the kernel got it and the hardware address that it names; each from a goroutine of its
// own. A question that the fence keeps in is not asked. Of IPv6 addresses what is announced,
// or answered to others, counts as an answer too: it looks the same.
func (k *Kernel) Inquire(ctx context.Context, link string, addr netip.Addr, every time.Duration,
	asked func(time.Time), answered func(time.Time, net.HardwareAddr)) error {
	fail := func(err error) error { return fmt.Errorf("ask who has %s on %s: %w", addr, link, err) }
	l, err := k.Link(link)
	if err != nil {
		return fail(err)
	}
	if !l.announces() {
		return fail(errors.New("the device has no Ethernet address, so nobody can be asked"))
	}
	p := &probe{kernel: k, link: l, addrs: []netip.Addr{addr.WithZone("")}}
	question, err := p.questions()
	if err != nil {
		return fail(err)
	}
	conn, err := p.listen()
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	raw, err := stamped(conn)
	if err != nil {
		return fail(err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	g, within := errgroup.WithContext(ctx)
	g.Go(func() error {
		return eachAnswer(within, raw, func(at time.Time, frame []byte) {
			if claimed, mac, ok := vipctl.ParseConflict(frame); ok && claimed == p.addrs[0] && (claimed.Is6() || answersProbe(frame, l.MAC)) {
				answered(at, mac)
			}
		})
	})
	g.Go(func() error {
		// Else the reader waits for frames when asking has failed.
		defer conn.SetReadDeadline(time.Unix(1, 0))
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			at := time.Now()
			err := sendOn(conn, l.Index, question)
			switch {
			case err == nil:
				asked(at)
			case !errors.Is(err, unix.ENOBUFS):
				return err
			}
			select {
			case <-tick.C:
			case <-within.Done():
				return nil
			}
		}
	})
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return fail(err)
	}
	return nil
}

// answersProbe reports whether a claim by ARP answers a probe of a hardware address: it
// is a reply, to that address and, as the probe had no sender address, to none.
func answersProbe(frame []byte, mac net.HardwareAddr) bool {
	const operation, target = 14 + 6, 14 + 24
	if len(frame) < target+4 || net.HardwareAddr(frame[:6]).String() != mac.String() {
		return false
	}
	return frame[operation+1] == 2 && [4]byte(frame[target:target+4]) == [4]byte{}
}

// stamped has the kernel say when it got each frame.
func stamped(conn interface {
	SyscallConn() (syscall.RawConn, error)
}) (syscall.RawConn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	}); err != nil {
		return nil, err
	}
	return raw, os.NewSyscallError("have frames stamped", failed)
}

// eachAnswer reads frames until the socket's deadline, which ends it without an error
// when ctx has ended.
func eachAnswer(ctx context.Context, raw syscall.RawConn, take func(time.Time, []byte)) error {
	frame, control := make([]byte, 2048), make([]byte, 128)
	for {
		var n, of int
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, of, _, _, failed = unix.Recvmsg(int(fd), frame, control, 0)
			return !errors.Is(failed, unix.EAGAIN) && !errors.Is(failed, unix.EINTR)
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil // whoever set it says why
		case err != nil:
			return fmt.Errorf("listen: %w", err)
		case ctx.Err() != nil:
			return nil
		case failed != nil:
			return fmt.Errorf("listen: %w", failed)
		}
		take(arrival(control[:of]), frame[:n])
	}
}

// arrival is when the kernel got a frame, with a reading of the monotonic clock. The stamp
// is of the wall clock; one that cannot be is not used.
func arrival(control []byte) time.Time {
	now := time.Now()
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return now
	}
	for _, m := range messages {
		var stamp unix.Timespec
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SO_TIMESTAMPNS || len(m.Data) < int(unsafe.Sizeof(stamp)) {
			continue
		}
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&stamp)), unsafe.Sizeof(stamp)), m.Data)
		if age := now.Round(0).Sub(time.Unix(stamp.Unix())); age >= 0 && age < time.Second {
			return now.Add(-age)
		}
	}
	return now
}
