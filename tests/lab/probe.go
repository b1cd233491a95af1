package lab

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// senderIDs is how many sender addresses a probe takes in turn, see judge.go.
const senderIDs = 32

// A Probe asks a LAN, once a period, who has an address (ARP for IPv4, neighbour
// solicitation for IPv6), and records every answer and announcement. It works on raw
// frames, so neither its host's neighbour cache nor anyone else's has a part in it.
type Probe struct {
	host   *Host
	codec  codec
	conn   *packet.Conn
	raw    syscall.RawConn
	frames [senderIDs][]byte // the questions
	cancel chan struct{}
	asker  sync.WaitGroup
	reader sync.WaitGroup
	once   sync.Once
	asked  askLog

	mu    sync.Mutex
	trace Trace // but for Asked
	err   error
}

// A codec builds questions and reads answers of one address family.
type codec interface {
	protocol() int
	question(id int) ([]byte, error)
	// parse returns the sender of a claim to the target, and the sender id that it
	// answers or -1 when it answers none of ours.
	parse(frame []byte) (mac MAC, id int, ok bool)
}

// StartProbe starts a probe for target on the host. index (0 or 1) tells apart probes
// of one address on one LAN. It ends with Close of the probe or of the lab.
func (h *Host) StartProbe(target netip.Addr, period time.Duration, index int) (*Probe, error) {
	if index < 0 || index > 1 {
		return nil, fmt.Errorf("probe on %s: index %d is neither 0 nor 1", h.Name, index)
	}
	c, frames, err := h.questions(target, index)
	if err != nil {
		return nil, err
	}
	p := &Probe{
		host: h, codec: c, frames: frames, cancel: make(chan struct{}),
		trace: Trace{Observer: h.Name, Target: target, Period: period},
	}
	err = h.Do(func() (err error) {
		p.conn, err = packet.Listen(h.ifi, packet.Raw, c.protocol(), nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open the probe's socket on %s: %w", h.Name, err)
	}
	if p.raw, err = stamped(p.conn); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the probe's socket on %s: %w", h.Name, err), p.conn.Close())
	}
	moreProcs(1)
	p.asker.Go(p.ask)
	p.reader.Go(p.listen)
	h.lab.onClose(p.Close)
	return p, nil
}

// Close ends the probe; its trace stays. It may be called again.
func (p *Probe) Close() {
	p.once.Do(func() {
		close(p.cancel)
		p.asker.Wait()     // it uses the bare descriptor
		_ = p.conn.Close() // ends the reader
		p.reader.Wait()
		moreProcs(-1)
	})
}

// Trace returns a copy of what was recorded so far.
func (p *Probe) Trace() Trace {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.trace
	t.Asked = p.asked.all()
	t.Answers = append([]Answer(nil), t.Answers...)
	t.Announcements = append([]Announcement(nil), t.Announcements...)
	return t
}

// TraceBetween returns the part of the trace in [from, to] without copying all of it.
func (p *Probe) TraceBetween(from, to Instant) Trace {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.trace
	t.Asked = nil
	for n := p.asked.first(from); n < p.asked.len() && p.asked.at(n) <= to; n++ {
		t.Asked = append(t.Asked, p.asked.at(n))
	}
	t.Answers = within(t.Answers, from, to)
	t.Announcements = slices.DeleteFunc(slices.Clone(t.Announcements), func(a Announcement) bool { return a.At < from || a.At > to })
	return t
}

// answersSlack is how far answers may be out of the order of their times of arrival.
const answersSlack = time.Second

// within returns the answers that arrived in [from, to] out of those in about that order.
func within(answers []Answer, from, to Instant) (out []Answer) {
	i, _ := slices.BinarySearchFunc(answers, from.Add(-answersSlack), func(a Answer, at Instant) int { return cmp.Compare(a.At, at) })
	for _, a := range answers[i:] {
		if a.At > to.Add(answersSlack) {
			break
		}
		if from <= a.At && a.At <= to {
			out = append(out, a)
		}
	}
	return out
}

// Err returns what went wrong in the probe itself, if anything: its trace is then
// no evidence.
func (p *Probe) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *Probe) fail(err error) {
	select {
	case <-p.cancel:
		return // closing the socket under its reader is how a probe ends
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = fmt.Errorf("probe on %s for %s: %w", p.host.Name, p.trace.Target, err)
	}
}

// ask sends the questions from a thread of its own on one processor, ahead of ordinary
// load. A veth handles a frame on the processor that sent it, so most frames of all
// probes keep their order; the judge does not rely on it.
//
// Its system calls are raw ones: an ordinary one gives the goroutine's place in the
// scheduler away, and on a busy machine it takes up to a second to get one back.
func (p *Probe) ask() {
	runtime.LockOSThread() // never unlocked: the thread's priority must not be inherited
	preferThread()
	err := p.raw.Control(func(fd uintptr) {
		due := Now()
		for n := 0; ; n++ {
			select {
			case <-p.cancel:
				return
			default:
			}
			if !p.asked.add(Now()) {
				p.fail(fmt.Errorf("asked %d times, which is all it can log", n))
				return
			}
			if errno := send(fd, p.frames[n%senderIDs]); errno != 0 && !carrierGone(errno) {
				p.fail(fmt.Errorf("send question %d: %w", n, errno))
				return
			}
			due = nextTick(due, p.trace.Period)
		}
	})
	if err != nil {
		p.fail(err)
	}
}

// send sends a frame on a bound packet socket.
func send(fd uintptr, frame []byte) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, fd,
		uintptr(unsafe.Pointer(&frame[0])), uintptr(len(frame)), unix.MSG_DONTWAIT, 0, 0)
	return errno
}

// nextTick sleeps until one period after due and returns that instant, or now's when
// it has fallen behind: missed questions are not asked in a burst.
func nextTick(due Instant, period time.Duration) Instant {
	due = due.Add(period)
	if now := Now(); due < now {
		return now
	}
	ts := unix.NsecToTimespec(int64(due))
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_BOOTTIME, unix.TIMER_ABSTIME,
			uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
		if errno != unix.EINTR {
			return due
		}
	}
}

// scheduler is what the running probes have changed about this process.
var scheduler struct {
	sync.Mutex
	probes    int
	gcPercent int // as it was before the first
}

// moreProcs gives the process's scheduler n more places, of which each probe takes one,
// and has it collect garbage seldom while probes run: a collection halts all threads,
// also these, until the last one that lost its processor has got it back.
func moreProcs(n int) {
	const seldom = 1000
	scheduler.Lock()
	defer scheduler.Unlock()
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
	if scheduler.probes == 0 {
		scheduler.gcPercent = debug.SetGCPercent(seldom)
	}
	if scheduler.probes += n; scheduler.probes == 0 {
		debug.SetGCPercent(scheduler.gcPercent)
	}
}

// carrierGone tells the errors of a host whose cable is out, which an observer sits through.
func carrierGone(err unix.Errno) bool {
	switch err {
	case unix.ENETDOWN, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENOBUFS, unix.ENXIO, unix.EAGAIN:
		return true
	}
	return false
}

// preferThread pins the calling thread to the first processor it may use and asks for
// the lowest real-time priority. Both only sharpen the measurement, which records what
// it missed, so refusals are left at that.
func preferThread() {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) == nil {
		for cpu := range 1024 {
			if set.IsSet(cpu) {
				set.Zero()
				set.Set(cpu)
				_ = unix.SchedSetaffinity(0, &set)
				break
			}
		}
	}
	attr := unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
	}
	_ = unix.SchedSetAttr(0, &attr, 0)
}

func (p *Probe) listen() {
	p.fail(receiveAll(p.raw, func(frame []byte, at Instant) {
		if mac, id, ok := p.codec.parse(frame); ok {
			p.record(mac, id, at)
		}
	}))
}

// receiveAll takes every frame until the socket is closed or fails, and returns why.
func receiveAll(raw syscall.RawConn, take func(frame []byte, at Instant)) error {
	buf := make([]byte, 2048)
	for {
		n, at, err := receive(raw, buf)
		if errors.Is(err, unix.ENETDOWN) {
			continue // the cable came out; the socket stays good
		}
		if err != nil {
			return err
		}
		take(buf[:n], at)
	}
}

func (p *Probe) record(mac MAC, id int, at Instant) {
	host := p.host.lab.HostByMAC(mac)
	p.mu.Lock()
	defer p.mu.Unlock()
	if id < 0 {
		p.trace.Announcements = append(p.trace.Announcements, Announcement{MAC: mac, Host: host, At: at})
		return
	}
	a := Answer{MAC: mac, Host: host, At: at, Seq: -1}
	if n, ok := p.asked.find(id, at); ok {
		a.Seq, a.Sent = n, p.asked.at(n)
	}
	p.trace.Answers = append(p.trace.Answers, a)
}

// clockSlack is how far two readings of clocks may be apart that were meant as one.
const clockSlack = 20 * time.Microsecond

// stamped asks the kernel for receive times and room for a second's worth of frames.
func stamped(conn *packet.Conn) (syscall.RawConn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		serr = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20))
	})
	return raw, errors.Join(err, serr)
}

// receive reads one frame and the instant at which the kernel got it.
func receive(raw syscall.RawConn, buf []byte) (n int, at Instant, err error) {
	oob := make([]byte, 128)
	rerr := raw.Read(func(fd uintptr) bool {
		var oobn int
		n, oobn, _, _, err = unix.Recvmsg(int(fd), buf, oob, 0)
		if err == unix.EAGAIN || err == unix.EINTR {
			return false
		}
		if err == nil {
			at = arrival(oob[:oobn])
		}
		return true
	})
	if rerr != nil {
		return 0, 0, rerr
	}
	return n, at, err
}

// arrival turns the kernel's wall-clock stamp into boot time by the age that it has
// now. An age that is no small positive time means that the wall clock was stepped in
// between: then now is the honest answer.
func arrival(oob []byte) Instant {
	now, wall := bothClocks()
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return now
	}
	for _, m := range msgs {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SO_TIMESTAMPNS ||
			len(m.Data) < int(unsafe.Sizeof(unix.Timespec{})) {
			continue
		}
		stamp := *(*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
		age := time.Duration(wall - stamp.Nano())
		if age < 0 || age > time.Second {
			return now
		}
		return now.Add(-age)
	}
	return now
}

// bothClocks reads boot time and wall clock (ns) at one instant: again if the processor
// was taken away between the two, for then they would be of two instants.
func bothClocks() (boot Instant, wall int64) {
	const together, tries = 10 * time.Microsecond, 20
	for range tries {
		var ts unix.Timespec
		before := Now()
		_ = unix.ClockGettime(unix.CLOCK_REALTIME, &ts) // as with Now, it cannot fail
		boot, wall = Now(), ts.Nano()
		if boot.Sub(before) < together {
			break
		}
	}
	return boot, wall
}

// recent returns what was recorded since an instant, without copying all the rest.
func (p *Probe) recent(since Instant) Trace {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.trace
	i := len(t.Answers)
	for i > 0 && t.Answers[i-1].At >= since {
		i--
	}
	t.Asked, t.Announcements = nil, nil
	t.Answers = append([]Answer(nil), t.Answers[i:]...)
	return t
}
