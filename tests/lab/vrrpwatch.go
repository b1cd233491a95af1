package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// holdPoll is how often a watch looks at a host's addresses.
const holdPoll = 20 * time.Millisecond

// An Advert is one VRRP advertisement (RFC 9568, section 5), as a host sent it.
type Advert struct {
	Host     string     `json:"host"`
	At       Instant    `json:"at"`
	Source   netip.Addr `json:"source"`
	Version  int        `json:"version"`
	VRID     int        `json:"vrid"`
	Priority int        `json:"priority"`
}

// A Holding is one observation that a host got (Held) or lost an address.
type Holding struct {
	Host string     `json:"host"`
	Addr netip.Addr `json:"addr"`
	At   Instant    `json:"at"`
	Held bool       `json:"held"`
	// ValidLft is the lifetime seen first, in seconds; Forever when without end.
	ValidLft int `json:"valid_lft,omitempty"`
}

// A VRRPWatch stands at a host's switch port and at its address list: it records what
// adverts the host sends, also those that a cut swallows, and when it holds which of
// the watched addresses.
type VRRPWatch struct {
	host    *Host
	capture *Capture
	cancel  chan struct{}
	wg      sync.WaitGroup
	once    sync.Once

	mu       sync.Mutex
	adverts  []Advert
	holdings []Holding
	err      error
}

// Watch starts a watch of the host for the given addresses. It ends with Close of the
// watch or of the lab.
func (h *Host) Watch(addrs ...netip.Addr) (*VRRPWatch, error) {
	w := &VRRPWatch{host: h, cancel: make(chan struct{})}
	filter, err := vrrpFilter()
	if err != nil {
		return nil, err
	}
	if w.capture, err = h.Capture(filter, w.take); err != nil {
		return nil, err
	}
	w.wg.Add(1)
	go w.poll(addrs)
	h.lab.onClose(w.Close)
	return w, nil
}

const (
	protoVRRP   = 112
	etherHeader = 14
)

// vrrpFilter lets IP protocol 112 pass, in IPv4 and directly in IPv6.
func vrrpFilter() ([]bpf.RawInstruction, error) {
	prog, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IPV6, SkipTrue: 3},
		bpf.RetConstant{Val: 0},
		bpf.LoadAbsolute{Off: etherHeader + 9, Size: 1},
		bpf.Jump{Skip: 1},
		bpf.LoadAbsolute{Off: etherHeader + 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protoVRRP, SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return nil, fmt.Errorf("assemble the packet filter for VRRP: %w", err)
	}
	return prog, nil
}

// Close ends the watch; its records stay. It may be called again.
func (w *VRRPWatch) Close() {
	w.once.Do(func() {
		close(w.cancel)
		w.capture.Close()
		w.wg.Wait()
	})
}

// Adverts returns the adverts sent in [from, to].
func (w *VRRPWatch) Adverts(from, to Instant) []Advert {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.adverts), func(a Advert) bool { return a.At < from || a.At > to })
}

// Holdings returns all changes so far.
func (w *VRRPWatch) Holdings() []Holding {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.holdings)
}

// Acted says whether in [from, to] the host sent an advert or held a watched address:
// for a router that should have been Backup throughout, it left that state.
func (w *VRRPWatch) Acted(from, to Instant) bool {
	if len(w.Adverts(from, to)) > 0 {
		return true
	}
	held := map[netip.Addr]bool{}
	for _, c := range w.Holdings() {
		if c.At > to {
			break
		}
		if c.At >= from && (c.Held || held[c.Addr]) {
			return true
		}
		held[c.Addr] = c.Held
	}
	for _, h := range held {
		if h {
			return true
		}
	}
	return false
}

// Err returns what went wrong in the watch itself, if anything.
func (w *VRRPWatch) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.err, w.capture.Err())
}

func (w *VRRPWatch) fail(err error) {
	select {
	case <-w.cancel:
		return
	default:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = fmt.Errorf("watch of %s: %w", w.host.Name, err)
	}
}

func (w *VRRPWatch) take(frame []byte, at Instant) {
	a, ok := parseAdvert(frame)
	if !ok {
		return
	}
	a.Host, a.At = w.host.Name, at
	w.mu.Lock()
	defer w.mu.Unlock()
	w.adverts = append(w.adverts, a)
}

// parseAdvert reads as much as the judge needs, and is no judge of the rest.
func parseAdvert(frame []byte) (Advert, bool) {
	if len(frame) < etherHeader {
		return Advert{}, false
	}
	ip := frame[etherHeader:]
	var a Advert
	var vrrp []byte
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		if len(ip) < 20 || len(ip) < int(ip[0]&15)*4 {
			return Advert{}, false
		}
		a.Source = netip.AddrFrom4([4]byte(ip[12:16]))
		vrrp = ip[int(ip[0]&15)*4:]
	case unix.ETH_P_IPV6:
		if len(ip) < ipv6Header {
			return Advert{}, false
		}
		a.Source = netip.AddrFrom16([16]byte(ip[8:24]))
		vrrp = ip[ipv6Header:]
	}
	if len(vrrp) < 8 {
		return Advert{}, false
	}
	a.Version, a.VRID, a.Priority = int(vrrp[0]>>4), int(vrrp[1]), int(vrrp[2])
	return a, true
}

func (w *VRRPWatch) poll(addrs []netip.Addr) {
	defer w.wg.Done()
	held := map[netip.Addr]bool{}
	tick := time.NewTicker(holdPoll)
	defer tick.Stop()
	for {
		list, err := w.host.Addresses()
		at := Now()
		if err != nil {
			w.fail(err)
			return
		}
		for _, addr := range addrs {
			i := slices.IndexFunc(list, func(a Address) bool { return a.Prefix.Addr() == addr })
			if (i >= 0) == held[addr] {
				continue
			}
			held[addr] = i >= 0
			change := Holding{Host: w.host.Name, Addr: addr, At: at, Held: i >= 0}
			if i >= 0 {
				change.ValidLft = list[i].ValidLft
			}
			w.mu.Lock()
			w.holdings = append(w.holdings, change)
			w.mu.Unlock()
		}
		select {
		case <-w.cancel:
			return
		case <-tick.C:
		}
	}
}
