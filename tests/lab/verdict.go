package lab

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Verdict is what was seen from outside in a window of time.
type Verdict struct {
	From         Instant       `json:"from"`
	To           Instant       `json:"to"`
	Outage       time.Duration `json:"outage_ns"`          // longest time in which nobody answered by ARP
	Outage6      time.Duration `json:"outage6_ns"`         // the same by neighbour discovery; 0 without IPv6
	ClientOutage time.Duration `json:"client_outage_ns"`   // longest time in which the client got nothing
	TwoOwners    time.Duration `json:"two_owners_ns"`      // time with two owners, of either family
	Overlaps     []Span        `json:"overlaps"`           // when that was
	Owners       []string      `json:"owners"`             // who answered, in order
	Left         bool          `json:"keepalived_left"`    // keepalived sent an advert or held an address
	Blind        time.Duration `json:"longest_unasked_ns"` // longest time in which the probe itself asked nothing
}

// Judge looks at everything recorded from one instant to another. It fails when an
// observer was broken, since its silence would prove nothing.
func (c *Cluster) Judge(from, to Instant) (Verdict, error) {
	v := Verdict{From: from, To: to}
	traces := func(probes []*Probe) (out []Trace) {
		for _, p := range probes {
			out = append(out, p.TraceBetween(from, to))
		}
		return out
	}
	t4, t6 := traces(c.Probes4), traces(c.Probes6)
	v.Outage = Outage(t4[0].Answers, from, to).Length()
	v.Owners = Owners(t4[0].Answers, from, to)
	v.Blind = Blind(t4[0], from, to).Length()
	v.Overlaps = Overlaps(t4)
	if len(t6) > 0 {
		v.Outage6 = Outage(t6[0].Answers, from, to).Length()
		v.Overlaps = union(append(v.Overlaps, Overlaps(t6)...))
	}
	v.TwoOwners = Total(v.Overlaps)
	v.ClientOutage = Outage(c.Client.TraceBetween(from, to).Answers, from, to).Length()
	if c.router != nil {
		v.Left = c.Watches[c.router.Name].Acted(from, to)
	}
	return v, c.observersErr()
}

func (c *Cluster) observersErr() error {
	var errs []error
	for _, p := range append(slices.Clone(c.Probes4), c.Probes6...) {
		errs = append(errs, p.Err())
	}
	for _, w := range c.Watches {
		errs = append(errs, w.Err())
	}
	if c.Keepalived != nil && !c.Keepalived.Running() {
		errs = append(errs, fmt.Errorf("keepalived ended by itself: %w; its log is %s", c.Keepalived.Wait(0), c.Keepalived.Log))
	}
	return errors.Join(errs...)
}
