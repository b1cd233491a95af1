package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/internal/doctor"
	"github.com/quorate/quorate/vipctl"
	"github.com/quorate/quorate/vipctl/fence"
)

const (
	fenceTrials = 5
	fenceAhead  = 20 * time.Millisecond // the deadline, from when it is written
	fenceBefore = 3 * time.Millisecond  // sending begins so long before it
	fenceAfter  = 4 * time.Millisecond  // and ends so long after it
	fenceTag    = "d0c"
)

// fenced is the address of the trial. Only the namespace of its own ever sees it.
var fenced = netip.AddrFrom4([4]byte{192, 0, 2, 99})

// tryFence has a fence of its own, in a network namespace of its own, stop frames at a
// deadline, and finds out by what arrives when it really did.
func tryFence(out *doctor.Fence) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread that left its namespace ends with this goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			out.Problem = fmt.Sprintf("make a network namespace: %v", err)
			return
		}
		if err := fenceTrial(out); err != nil {
			out.Problem = err.Error()
		}
	}()
	<-done
}

func fenceTrial(out *doctor.Fence) (err error) {
	mac, from, to, err := cable()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close(), to.Close()) }()
	f, err := fence.Open(fence.Options{Tag: fenceTag})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Cover(); err != nil {
		return err
	}
	out.Kind = f.Kind().String()
	frame, err := vipctl.GratuitousARP(fenced, mac, vipctl.Reply)
	if err != nil {
		return err
	}
	for range fenceTrials {
		late, ok, err := trial(f, frame, from, to)
		if err != nil {
			return err
		}
		if ok && (out.Trials == 0 || ms(late) > out.LateMS) {
			out.LateMS = ms(late)
		}
		if ok {
			out.Trials++
		}
	}
	return nil
}

// cable makes two devices that are each other's other end, and opens both.
func cable() (mac net.HardwareAddr, from, to *packet.Conn, err error) {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "doctor0"}, PeerName: "doctor1"}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, nil, nil, fmt.Errorf("make a pair of devices (veth): %w", err)
	}
	var ends []*packet.Conn
	defer func() {
		if err != nil {
			for _, c := range ends {
				err = errors.Join(err, c.Close())
			}
		}
	}()
	for _, name := range []string{"doctor0", "doctor1"} {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			return nil, nil, nil, fmt.Errorf("bring up %s: %w", name, err)
		}
		a := l.Attrs()
		conn, err := packet.Listen(&net.Interface{Index: a.Index, MTU: a.MTU, Name: a.Name, HardwareAddr: a.HardwareAddr}, packet.Raw, unix.ETH_P_ARP, nil)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("open a packet socket on %s: %w", name, err)
		}
		if mac == nil {
			mac = a.HardwareAddr
		}
		ends = append(ends, conn)
	}
	return mac, ends[0], ends[1], nil
}

// trial sends numbered frames past a deadline. late is when the last of them that
// arrived was sent, after the deadline; ok says that some arrived and some did not.
func trial(f *fence.Fence, frame []byte, from, to *packet.Conn) (late time.Duration, ok bool, err error) {
	deadline := bootTime().Add(fenceAhead)
	if err := f.Set([]netip.Addr{fenced}, deadline); err != nil {
		return 0, false, err
	}
	time.Sleep(deadline.Sub(bootTime()) - fenceBefore)
	var sent []election.Instant
	for at := bootTime(); at.Before(deadline.Add(fenceAfter)); at = bootTime() {
		numbered := binary.BigEndian.AppendUint32(append([]byte(nil), frame...), uint32(len(sent)))
		sent = append(sent, bootTime())
		_, err := from.WriteTo(numbered, &packet.Addr{HardwareAddr: frame[:6]})
		if err != nil && !errors.Is(err, unix.ENOBUFS) { // which is what a dropped frame gives
			return 0, false, fmt.Errorf("send a frame: %w", err)
		}
		time.Sleep(50 * time.Microsecond)
	}
	last, err := lastNumber(to, len(frame))
	if err != nil || last < 0 || last >= len(sent)-1 {
		return 0, false, err
	}
	return sent[last].Sub(deadline), true, nil
}

// lastNumber reads what has arrived and returns the last frame's number; -1: none did.
func lastNumber(conn *packet.Conn, length int) (int, error) {
	last := -1
	b := make([]byte, 256)
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
		return last, err
	}
	for {
		n, _, err := conn.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return last, nil
		}
		if err != nil {
			return last, fmt.Errorf("receive frames: %w", err)
		}
		if n >= length+4 {
			last = int(binary.BigEndian.Uint32(b[length:]))
		}
	}
}

func bootTime() election.Instant {
	var ts unix.Timespec
	// It fails only for an unknown clock, and this one is in every kernel since 2.6.39.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return election.Instant(ts.Nano())
}
