package host

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/doctor"
)

// A Survey is one node's part in measuring what passes between the devices of several.
type Survey struct {
	Request doctor.Request
	Self    fsm.InstanceID
	Devices []doctor.Device
}

// Results are what a survey found on the devices.
type Results struct {
	Heard   []doctor.Heard
	Learnt  []doctor.Learnt
	Claims  []doctor.Claim
	Unknown []doctor.Unlooked
}

// Times of a survey. Every node is asked at one time and gets the question within Settle
// of the others, so that all listen before the first speaks.
const (
	Settle = 300 * time.Millisecond
	tail   = 250 * time.Millisecond // for what is on its way
	Rounds = 5                      // how often each thing is sent
)

// Round is when round i of a survey begins, from its start.
func Round(measure time.Duration, i int) time.Duration {
	return Settle + time.Duration(i)*(measure-Settle-tail)/Rounds
}

// Run sends and listens for as long as the request says.
func (s Survey) Run(ctx context.Context) Results {
	ctx, cancel := context.WithTimeout(ctx, s.Request.Measure)
	defer cancel()
	r := &results{heard: map[heardKey]int{}, claims: map[doctor.Claim]bool{}}
	var work sync.WaitGroup
	for _, d := range s.Devices {
		mac, ok := ethernet(d)
		if !ok {
			r.unlooked("lan", d.Name, "it has no Ethernet, or is down")
			continue
		}
		seat := &seat{survey: s, device: d, mac: mac, out: r, begun: time.Now()}
		work.Go(func() { seat.run(ctx) })
	}
	work.Wait()
	return r.sorted()
}

// number is this node's place in the request; -1: it is not in it.
func (s Survey) number() int {
	return slices.IndexFunc(s.Request.Nodes, func(p doctor.Peer) bool { return p.Instance == s.Self.String() })
}

type heardKey struct {
	device, from string
	index        int
	kind         doctor.Kind
}

// maxNoted bounds what a LAN can make a survey remember.
const maxNoted = 4096

// results are filled by many goroutines.
type results struct {
	mu      sync.Mutex
	heard   map[heardKey]int
	learnt  []doctor.Learnt
	claims  map[doctor.Claim]bool
	unknown []doctor.Unlooked
}

func (r *results) hear(device string, t doctor.Tag) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := heardKey{device, t.From.String(), int(t.Index), t.Kind}
	if _, known := r.heard[key]; known || len(r.heard) < maxNoted {
		r.heard[key]++
	}
}

func (r *results) claim(device string, addr netip.Addr, mac net.HardwareAddr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.claims) < maxNoted {
		r.claims[doctor.Claim{Device: device, Address: addr.String(), MAC: mac.String()}] = true
	}
}

func (r *results) learn(l doctor.Learnt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.learnt = append(r.learnt, l)
}

func (r *results) unlooked(id, device, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := (doctor.Unlooked{ID: id, Device: device, Why: why}); !slices.Contains(r.unknown, u) {
		r.unknown = append(r.unknown, u)
	}
}

func (r *results) sorted() Results {
	out := Results{Learnt: r.learnt, Unknown: r.unknown}
	for k, n := range r.heard {
		out.Heard = append(out.Heard, doctor.Heard{Device: k.device, From: k.from, Index: k.index, Kind: k.kind.String(), Count: n})
	}
	for c := range r.claims {
		out.Claims = append(out.Claims, c)
	}
	slices.SortFunc(out.Heard, func(a, b doctor.Heard) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.From, b.From), cmp.Compare(a.Index, b.Index), cmp.Compare(a.Kind, b.Kind))
	})
	slices.SortFunc(out.Claims, func(a, b doctor.Claim) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Address, b.Address), cmp.Compare(a.MAC, b.MAC))
	})
	return out
}

// wait lets time pass; false: ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
