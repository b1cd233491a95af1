package daemon

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/doctor"
	surveyor "github.com/quorate/quorate/internal/doctor/host"
)

const (
	pings      = 25 // questions to each node in a survey
	maxSamples = 4 * pings
)

// datagrams are those of one survey that go by the nodes' own port, where leases go.
type datagrams struct {
	nonce uint64
	self  fsm.InstanceID
	to    map[fsm.InstanceID]netip.AddrPort // the other nodes
	send  func(netip.AddrPort, []byte) error

	mu    sync.Mutex
	heard map[fsm.InstanceID]map[doctor.Kind]int
	trips map[fsm.InstanceID][]doctor.ClockSample
	wall  map[fsm.InstanceID][]time.Duration // by how much its time of day is ahead
	sent  map[fsm.InstanceID]int
}

// surveyed takes a datagram of a test, on the goroutine that takes leases.
func (n *Participant) surveyed(from netip.AddrPort, payload []byte) {
	if d := n.survey.Load(); d != nil {
		d.take(from, payload)
	}
}

// take counts a test, answers a question, and takes note of an answer. What is of no node
// of this survey is ignored, so nobody is answered who did not ask.
func (d *datagrams) take(from netip.AddrPort, payload []byte) {
	now, wall := Now(), time.Now()
	t, ok := doctor.ParseTag(payload)
	if !ok || t.Nonce != d.nonce || d.to[t.From] != from {
		return
	}
	if t.Kind == doctor.Ping {
		t.Kind, t.From, t.Read, t.Wall = doctor.Pong, d.self, int64(now), wall.UnixNano()
		_ = d.send(from, t.Append(nil)) // a test that is lost is counted by who sent it
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if t.Kind != doctor.Pong {
		if d.heard[t.From] == nil {
			d.heard[t.From] = map[doctor.Kind]int{}
		}
		d.heard[t.From][t.Kind]++
		return
	}
	trip := now.Sub(election.Instant(t.Asked))
	if trip < 0 || trip > doctor.MaxMeasure || len(d.trips[t.From]) == maxSamples {
		return
	}
	d.trips[t.From] = append(d.trips[t.From], doctor.ClockSample{Sent: t.Asked, Theirs: t.Read, Received: int64(now)})
	d.wall[t.From] = append(d.wall[t.From], time.Duration(t.Wall-wall.Add(-trip/2).UnixNano()))
}

// run sends until ctx ends: tests in rounds, and questions in between.
func (d *datagrams) run(ctx context.Context, measure time.Duration) {
	begun := time.Now()
	every := (surveyor.Round(measure, surveyor.Rounds) - surveyor.Settle) / pings
	round := 0
	for i := range pings {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(begun.Add(surveyor.Settle + time.Duration(i)*every))):
		}
		tests := time.Since(begun) >= surveyor.Round(measure, round) && round < surveyor.Rounds
		if tests {
			round++
		}
		for id, to := range d.to {
			if tests {
				d.test(to)
			}
			d.mu.Lock()
			d.sent[id]++
			d.mu.Unlock()
			t := doctor.Tag{Kind: doctor.Ping, Nonce: d.nonce, From: d.self, Asked: int64(Now())}
			_ = d.send(to, t.Append(nil)) // what is lost shows in what is not answered
		}
	}
	<-ctx.Done()
}

// test sends a short datagram and one as long as those that leases go in.
func (d *datagrams) test(to netip.AddrPort) {
	for _, k := range []doctor.Kind{doctor.Small, doctor.Large} {
		b := doctor.Tag{Kind: k, Nonce: d.nonce, From: d.self}.Append(nil)
		if k == doctor.Large {
			b = append(b, make([]byte, election.MaxDatagram-len(b))...)
		}
		_ = d.send(to, b) // as above
	}
}

// results adds what was heard, and what is known of each way.
func (d *datagrams) results(f *doctor.Facts, refused map[fsm.InstanceID]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, kinds := range d.heard {
		for k, n := range kinds {
			f.Heard = append(f.Heard, doctor.Heard{From: id.String(), Kind: k.String(), Count: n})
		}
	}
	for id, to := range d.to {
		p := doctor.PathTo{To: id.String(), TCPProblem: refused[id], Sent: d.sent[id], PathMTU: surveyor.RouteMTU(to)}
		p.RatePPM, p.RateErrPPM, _ = doctor.ClockRate(d.trips[id])
		var trips []time.Duration
		for _, s := range d.trips[id] {
			trips = append(trips, time.Duration(s.Received-s.Sent))
		}
		if n := len(trips); n > 0 {
			slices.Sort(trips)
			slices.Sort(d.wall[id])
			p.Answered, p.MedianMS, p.HighMS, p.WorstMS = n, millis(trips[n/2]), millis(trips[n*9/10]), millis(trips[n-1])
			p.WallMS = millis(d.wall[id][n/2])
		}
		f.Paths = append(f.Paths, p)
	}
	slices.SortFunc(f.Paths, func(a, b doctor.PathTo) int { return cmp.Compare(a.To, b.To) })
}
