package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// A RollCall is when each of many IPv4 addresses was first answered for by a new host.
type RollCall struct {
	Began    Instant // of the asking
	Answered map[netip.Addr]Instant
}

// Span returns the first and the last answer.
func (r RollCall) Span() (first, last Instant) {
	for _, at := range r.Answered {
		if first == 0 || at < first {
			first = at
		}
		last = max(last, at)
	}
	return first, last
}

// A roll call asks so many questions each so often: each of 1,000 addresses once in 100 ms
// at first, and those that are still missing more often.
const (
	rollQuestions = 10
	rollPeriod    = time.Millisecond
)

// CallRoll asks by ARP in turn for each address that no host but the one of MAC not has
// answered for yet (zero: no host at all), until all are, or ctx ends: then what is
// missing is an error, and what came is returned beside it.
func (h *Host) CallRoll(ctx context.Context, addrs []netip.Addr, not MAC) (RollCall, error) {
	roll := RollCall{Answered: make(map[netip.Addr]Instant, len(addrs))}
	frames, err := h.rollQuestions(addrs)
	if err != nil {
		return roll, err
	}
	var conn *packet.Conn
	err = h.Do(func() (err error) {
		conn, err = packet.Listen(h.ifi, packet.Raw, unix.ETH_P_ARP, nil)
		return err
	})
	if err != nil {
		return roll, fmt.Errorf("open the roll call's socket on %s: %w", h.Name, err)
	}
	raw, err := stamped(conn)
	if err != nil {
		return roll, errors.Join(fmt.Errorf("prepare the roll call's socket on %s: %w", h.Name, err), conn.Close())
	}
	moreProcs(1)
	defer moreProcs(-1)

	var mu sync.Mutex
	var reader sync.WaitGroup
	reader.Go(func() {
		_ = receiveAll(raw, func(frame []byte, at Instant) { // it ends when the socket is closed below
			var f ethernet.Frame
			var pkt arp.Packet
			if f.UnmarshalBinary(frame) != nil || pkt.UnmarshalBinary(f.Payload) != nil || pkt.Operation != arp.OperationReply {
				return
			}
			if mac := toMAC(pkt.SenderHardwareAddr); mac == not || mac == h.MAC || toMAC(pkt.TargetHardwareAddr) != h.MAC {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if _, had := roll.Answered[pkt.SenderIP]; !had && frames[pkt.SenderIP] != nil {
				roll.Answered[pkt.SenderIP] = at
			}
		})
	})
	missing := func(a netip.Addr) bool {
		mu.Lock()
		defer mu.Unlock()
		return roll.Answered[a] == 0
	}
	roll.Began = Now()
	done := make(chan error, 1)
	go func() { done <- askRoll(ctx, raw.Control, addrs, frames, missing) }()
	err = <-done
	_ = conn.Close()
	reader.Wait()
	return roll, err
}

func (h *Host) rollQuestions(addrs []netip.Addr) (map[netip.Addr][]byte, error) {
	frames := make(map[netip.Addr][]byte, len(addrs))
	for _, a := range addrs {
		pkt, err := arp.NewPacket(arp.OperationRequest, h.MAC[:], h.IPv4, make(net.HardwareAddr, 6), a)
		if err != nil {
			return nil, fmt.Errorf("build ARP request for %s: %w", a, err)
		}
		body, err := pkt.MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("encode ARP request for %s: %w", a, err)
		}
		f := ethernet.Frame{Destination: ethernet.Broadcast, Source: h.MAC[:], EtherType: ethernet.EtherTypeARP, Payload: body}
		if frames[a], err = f.MarshalBinary(); err != nil {
			return nil, fmt.Errorf("encode frame for %s: %w", a, err)
		}
	}
	return frames, nil
}

// askRoll asks from a thread of its own, as [Probe] does.
func askRoll(ctx context.Context, control func(func(uintptr)) error, addrs []netip.Addr, frames map[netip.Addr][]byte,
	missing func(netip.Addr) bool) (err error) {
	runtime.LockOSThread() // never unlocked: the thread's priority must not be inherited
	preferThread()
	cerr := control(func(fd uintptr) {
		left := append([]netip.Addr(nil), addrs...)
		due := Now()
		for next := 0; ; {
			for range min(rollQuestions, len(left)) {
				if next %= len(left); !missing(left[next]) {
					left = append(left[:next], left[next+1:]...)
					if len(left) == 0 {
						return
					}
					continue
				}
				if errno := send(fd, frames[left[next]]); errno != 0 && !carrierGone(errno) {
					err = fmt.Errorf("ask for %s: %w", left[next], errno)
					return
				}
				next++
			}
			if ctx.Err() != nil {
				err = fmt.Errorf("%d of %d addresses are not answered for, %s among them: %w", len(left), len(addrs), left[0], context.Cause(ctx))
				return
			}
			due = nextTick(due, rollPeriod)
		}
	})
	return errors.Join(cerr, err)
}
