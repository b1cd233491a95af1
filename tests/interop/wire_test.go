package interop

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/tests/lab"
	"github.com/quorate/quorate/vrrpcompat"
)

const (
	etherLen, ip6Len    = 14, 40
	protoICMP6, protoAH = 58, 51
	askEvery            = 20 * time.Millisecond
	answersSlack        = 100 * time.Millisecond // how late an answer may be on a busy machine
	printed             = 40                     // adverts of a virtual router that a failure shows
	// Of the questions of lab.Questions so many are taken in turn. Each sender is an entry in the neighbour table of every
	// host that answers, and all hosts share one of 1024 entries: when it is full, frames to groups are lost too.
	questionsBeforeAgain = 8
)

// A sighting is one VRRP packet at the switch port of the host that sent it.
type sighting struct {
	host     string
	at       lab.Instant
	mac      net.HardwareAddr
	src, dst netip.Addr
	hops     int
	proto    byte
	vrid     uint8
	version  int
	advert   vrrpcompat.Advert // zero if err
	sum      vrrpcompat.Checksum
	err      error
	frame    []byte
}

// String is one line of a packet capture.
func (s sighting) String() string {
	head := fmt.Sprintf("%-5s %s %s > %s hops %d", s.host, s.mac, s.src, s.dst, s.hops)
	if s.err != nil {
		return fmt.Sprintf("%s vrid %d: %v", head, s.vrid, s.err)
	}
	a := s.advert
	return fmt.Sprintf("%s v%d vrid %d priority %d interval %v auth %v checksum %v %v",
		head, a.Version, a.VRID, a.Priority, a.Interval.Duration(), a.Auth.Type, s.sum, a.Addresses)
}

// A question is who has an address, and who answered.
type question struct {
	at lab.Instant
	by []string
}

// A wire is what all hosts but the judge's send: adverts, and answers to the judge,
// who asks for each address once in askEvery.
type wire struct {
	captures []*lab.Capture
	asker    *packet.Conn
	to       map[netip.Addr]*lab.Questions
	order    []netip.Addr
	done     chan struct{}
	wg       sync.WaitGroup

	mu      sync.Mutex
	adverts map[uint8][]sighting // by VRID, in order of arrival for each host
	asked   map[netip.Addr][]question
	err     error
}

// watch starts capturing at the hosts, and asking for the addresses from the judge.
func watch(t *testing.T, judge *lab.Host, hosts []*lab.Host, addresses []netip.Addr) *wire {
	t.Helper()
	w := &wire{
		to: map[netip.Addr]*lab.Questions{}, order: addresses, done: make(chan struct{}),
		adverts: map[uint8][]sighting{}, asked: map[netip.Addr][]question{},
	}
	var err error
	for _, a := range addresses {
		w.to[a], err = judge.Questions(a)
		must(t, err)
	}
	must(t, judge.Do(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err == nil {
			w.asker, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_LOOPBACK, nil) // it only sends
		}
		return err
	}))
	for _, h := range hosts {
		filter, err := ofInterest()
		must(t, err)
		c, err := h.Capture(filter, func(frame []byte, at lab.Instant) { w.take(h.Name, frame, at) })
		must(t, err)
		w.captures = append(w.captures, c)
	}
	w.wg.Go(w.ask)
	t.Cleanup(func() {
		close(w.done)
		w.wg.Wait()
		_ = w.asker.Close()
		for _, c := range w.captures {
			must(t, c.Err())
		}
		must(t, w.err)
	})
	return w
}

// ofInterest lets ARP, VRRP, AH and ICMPv6 pass.
func ofInterest() ([]bpf.RawInstruction, error) {
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_ARP, SkipTrue: 9},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IPV6, SkipTrue: 3},
		bpf.RetConstant{Val: 0},
		bpf.LoadAbsolute{Off: etherLen + 9, Size: 1},
		bpf.Jump{Skip: 1},
		bpf.LoadAbsolute{Off: etherLen + 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: vrrpcompat.Protocol, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protoAH, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protoICMP6, SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
}

// ask sends each question in turn, for as long as the test runs.
func (w *wire) ask() {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		for _, a := range w.order {
			frame := w.to[a].Frames[n%questionsBeforeAgain]
			w.mu.Lock()
			w.asked[a] = append(w.asked[a], question{at: lab.Now()})
			w.mu.Unlock()
			if _, err := w.asker.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]}); err != nil {
				w.mu.Lock()
				w.err = fmt.Errorf("ask for %s: %w", a, err)
				w.mu.Unlock()
				return
			}
		}
		select {
		case <-w.done:
			return
		case <-tick.C:
		}
	}
}

// take records a frame of a host.
func (w *wire) take(host string, frame []byte, at lab.Instant) {
	if s, ok := sight(frame); ok {
		s.host, s.at = host, at
		w.mu.Lock()
		w.adverts[s.vrid] = append(w.adverts[s.vrid], s)
		w.mu.Unlock()
		return
	}
	for _, a := range w.order {
		if id, ok := w.to[a].Answered(frame); ok {
			w.mu.Lock()
			w.answered(a, id, host, at)
			w.mu.Unlock()
			return
		}
	}
}

// answered finds the question that a host answered; the caller holds the lock.
func (w *wire) answered(a netip.Addr, id int, host string, at lab.Instant) {
	qs := w.asked[a]
	for n := len(qs) - 1; n >= 0 && n >= len(qs)-questionsBeforeAgain; n-- {
		if n%questionsBeforeAgain != id {
			continue
		}
		if !slices.Contains(qs[n].by, host) && at.Sub(qs[n].at) <= answersSlack {
			qs[n].by = append(qs[n].by, host)
			slices.Sort(qs[n].by)
		}
		return
	}
}

// sight reads a VRRP packet, or one that hides a VRRP packet behind an AH header.
func sight(frame []byte) (s sighting, ok bool) {
	if len(frame) < etherLen+20 {
		return s, false
	}
	s.mac, s.frame = slices.Clone(net.HardwareAddr(frame[6:12])), slices.Clone(frame)
	ip := s.frame[etherLen:]
	var body []byte
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		length, header := int(binary.BigEndian.Uint16(ip[2:])), int(ip[0]&15)*4
		if length > len(ip) || header > length {
			return s, false
		}
		s.src, s.dst = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
		s.hops, s.proto, body = int(ip[8]), ip[9], ip[header:length]
	case unix.ETH_P_IPV6:
		length := int(binary.BigEndian.Uint16(ip[4:]))
		if len(ip) < ip6Len+length {
			return s, false
		}
		s.src, s.dst = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
		s.hops, s.proto, body = int(ip[7]), ip[6], ip[ip6Len:ip6Len+length]
	}
	if s.proto != vrrpcompat.Protocol || len(body) < 2 {
		return s, false
	}
	s.vrid, s.version = body[1], int(body[0]>>4)
	s.advert, s.sum, s.err = vrrpcompat.Decode(body, vrrpcompat.Meta{
		Source: s.src, Destination: s.dst, HopLimit: s.hops, Unicast: vrrpcompat.Hops{Min: 1, Max: 255},
	}, nil)
	return s, true
}

// between returns the packets with a VRID that were sent in [from, to], in order of time.
func (w *wire) between(vrid uint8, from, to lab.Instant) []sighting {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []sighting
	for _, s := range w.adverts[vrid] {
		if from <= s.at && s.at <= to {
			out = append(out, s)
		}
	}
	slices.SortStableFunc(out, func(a, b sighting) int { return int(a.at - b.at) })
	return out
}

// answersBetween returns the questions for an address asked in [from, to] whose time for
// answers is over.
func (w *wire) answersBetween(a netip.Addr, from, to lab.Instant) []question {
	to = min(to, lab.Now().Add(-answersSlack))
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []question
	for _, q := range w.asked[a] {
		if from <= q.at && q.at <= to {
			out = append(out, question{q.at, slices.Clone(q.by)})
		}
	}
	return out
}

// longest returns the longest time for which what is asked of each question was true:
// from the first to the last of a run, and a period more.
func longest(qs []question, ok func(question) bool) (worst time.Duration) {
	var since lab.Instant
	for _, q := range qs {
		if !ok(q) {
			since = 0
			continue
		}
		if since == 0 {
			since = q.at
		}
		worst = max(worst, q.at.Sub(since)+askEvery)
	}
	return worst
}

func twoAnswer(q question) bool   { return len(q.by) > 1 }
func noneAnswers(q question) bool { return len(q.by) == 0 }

// answerers counts the answers by host.
func answerers(qs []question) map[string]int {
	out := map[string]int{}
	for _, q := range qs {
		for _, h := range q.by {
			out[h]++
		}
	}
	return out
}

// text shows the last packets of a virtual router, and who answered for the address.
func (w *wire) text(v virtual, from, to lab.Instant) string {
	var b strings.Builder
	all := w.between(v.vrid, from, to)
	fmt.Fprintf(&b, "on the wire, seconds from the beginning of the scenario (%d packets, the last %d):\n", len(all), min(len(all), printed))
	for _, s := range all[max(0, len(all)-printed):] {
		fmt.Fprintf(&b, "%8.3f %v\n", s.at.Sub(from).Seconds(), s)
	}
	fmt.Fprintf(&b, "answers for %s:", v.addresses[0].Addr())
	last := "?"
	for _, q := range w.answersBetween(v.addresses[0].Addr(), from, to) {
		if by := strings.Join(q.by, "+"); by != last {
			fmt.Fprintf(&b, "  %.3f %s", q.at.Sub(from).Seconds(), strings.ReplaceAll("["+by+"]", "[]", "nobody"))
			last = by
		}
	}
	return b.String()
}
