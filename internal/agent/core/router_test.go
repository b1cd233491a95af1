package core

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

var preempts = fsm.Preempt{Yes: true}

// Both versions, both families: a router alone takes the group after the down interval,
// to the nanosecond, and asking the LAN has not delayed it; a stop gives it to the other
// within the skew, a death within the down interval.
func TestRouterTakesAndGives(t *testing.T) {
	const (
		skewA3, skewB3 = 106 * time.Second / 256, 156 * time.Second / 256
		interval       = 2 * time.Second
	)
	tests := map[string]struct {
		v            fsm.VRRP
		addrs        []netip.Prefix
		skewA, skewB time.Duration
	}{
		"v3, IPv4":           {fsm.VRRP{Version: 3, Interval: interval}, []netip.Prefix{lan4}, 2 * skewA3, 2 * skewB3},
		"v3, IPv6":           {fsm.VRRP{Version: 3, Interval: interval}, []netip.Prefix{lan6}, 2 * skewA3, 2 * skewB3},
		"v3, both families":  {fsm.VRRP{Version: 3, Interval: interval}, []netip.Prefix{lan4, lan6}, 2 * skewA3, 2 * skewB3},
		"v2":                 {fsm.VRRP{Version: 2, Interval: interval}, []netip.Prefix{lan4}, skewA3, skewB3},
		"v3 with v2 besides": {fsm.VRRP{Version: 3, AlsoV2: true, Interval: interval}, []netip.Prefix{lan4}, 2 * skewA3, 2 * skewB3},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLAN(t)
			high, low := tt.v, tt.v
			high.Priority, low.Priority = 150, 100
			a := l.add("a", high, preempts, 1, 1, tt.addrs...)
			b := l.add("b", low, preempts, 2, 2, tt.addrs...)
			l.run(20 * time.Second)
			l.only(a)
			if at, want := a.when("bind"), 3*interval+tt.skewA; at != want {
				t.Fatalf("a holds it at %v, want %v", at, want)
			}
			heard := len(b.did)
			a.step(Stop{})
			stopped := l.elapsed()
			l.run(3 * interval)
			l.only(b)
			if took := b.when("bind") - stopped; took < tt.skewB || took > tt.skewB+10*time.Millisecond {
				t.Fatalf("b took over %v after a's stop, want the skew %v", took, tt.skewB)
			}
			a.when("done")
			if slices.ContainsFunc(b.did[heard:], func(s string) bool { return strings.HasSuffix(s, "probe") }) {
				t.Fatal("b asked the LAN about an address that it had heard advertised")
			}
			c := l.add("c", high, preempts, 3, 3, tt.addrs...) // preempts
			l.run(20 * time.Second)
			l.only(c)
			said := c.when(fmt.Sprintf("advert %v 150", vrrpcompat.FamilyOf(tt.addrs[0].Addr())))
			c.kill()
			l.run(20 * time.Second)
			l.only(b)
			if took := b.when("bind") - said - lanDelay; took != 3*interval+tt.skewB {
				t.Fatalf("b took over %v after c's last advert, want %v", took, 3*interval+tt.skewB)
			}
		})
	}
}

// Without preempt a better router that comes leaves the worse one alone; with a delay it
// does so for that long.
func TestPreempt(t *testing.T) {
	for _, tt := range []struct {
		preempt fsm.Preempt
		after   time.Duration // 0: never
	}{{fsm.Preempt{}, 0}, {fsm.Preempt{Yes: true, Delay: 30 * time.Second}, 33 * time.Second}} {
		l := newLAN(t)
		a := l.add("a", fsm.VRRP{Priority: 100}, tt.preempt, 1, 1, lan4, lan6)
		l.run(20 * time.Second)
		b := l.add("b", fsm.VRRP{Priority: 150}, tt.preempt, 2, 2, lan4, lan6)
		l.run(29 * time.Second)
		l.only(a)
		l.run(time.Minute)
		if tt.after == 0 {
			l.only(a)
			continue
		}
		l.only(b)
		if at := b.when("bind") - 20*time.Second; at < tt.after || at > tt.after+2*time.Second {
			t.Errorf("preempts after %v, want %v and less than two intervals", at, tt.after)
		}
	}
}

// An owner of the addresses does not wait.
func TestOwnerIsActiveAtOnce(t *testing.T) {
	l := newLAN(t)
	a := l.add("a", fsm.VRRP{Priority: 255}, preempts, 1, 1, lan4)
	l.run(time.Second)
	l.only(a)
}

// A group moves as one. What loses its source in one family gives both away, with
// priority 0 for the one that could still speak; and takes both again.
func TestFamiliesMoveTogether(t *testing.T) {
	l := newLAN(t)
	a := l.add("a", fsm.VRRP{Priority: 150}, preempts, 1, 1, lan4, lan6)
	b := l.add("b", fsm.VRRP{Priority: 100}, preempts, 2, 2, lan4, lan6)
	l.run(10 * time.Second)
	l.only(a)
	lost := l.elapsed()
	a.step(SourceChanged{Link: "eth0", Family: vrrpcompat.IPv6})
	l.run(lanDelay)
	l.only(nil)
	if at := a.when("advert ipv4 0"); at != lost {
		t.Fatalf("priority 0 at %v, want %v", at, lost)
	}
	l.run(10 * time.Second)
	l.only(b) // IPv6 after the down interval, so both then
	if n := strings.Count(strings.Join(b.did, "\n"), "bind"); n != 1 {
		t.Fatalf("b binds and unbinds %d times, want once", n)
	}
	l.run(30 * time.Second)
	l.only(b)
	a.step(SourceChanged{Link: "eth0", Family: vrrpcompat.IPv6, Addr: a.sources[vrrpcompat.IPv6]})
	l.run(10 * time.Second)
	l.only(a)
}

// Where a router outside is better in one family only, the group stays Backup in both.
func TestOneFamilyOutranked(t *testing.T) {
	l := newLAN(t)
	a := l.add("a", fsm.VRRP{Priority: 150}, preempts, 1, 1, lan4, lan6)
	l.run(10 * time.Second)
	l.only(a)
	for range 20 {
		l.broadcast(nil, netip.MustParseAddr("fe80::99"), vrrpcompat.Advert{
			Version: vrrpcompat.V3, VRID: 51, Priority: 200, Interval: 100, Addresses: []netip.Addr{lan6.Addr()}})
		l.run(time.Second)
		l.only(nil)
	}
	if n := strings.Count(strings.Join(a.did, "\n"), " bind"); n != 1 {
		t.Fatalf("bound %d times, want once", n)
	}
	l.run(5 * time.Second)
	l.only(a)
}

// Without preempt a Router that waits for the others of its group leaves a worse one alone
// that has come meanwhile.
func TestWaitingRouterDoesNotPreempt(t *testing.T) {
	l := newLAN(t)
	a := l.add("a", fsm.VRRP{Priority: 150}, fsm.Preempt{}, 1, 1, lan4, lan6)
	hear := func(from string, p vrrpcompat.Priority, vip netip.Prefix) {
		l.broadcast(nil, netip.MustParseAddr(from), vrrpcompat.Advert{
			Version: vrrpcompat.V3, VRID: 51, Priority: p, Interval: 100, Addresses: []netip.Addr{vip.Addr()}})
	}
	for range 10 { // IPv4 is free, IPv6 is not
		hear("fe80::99", 200, lan6)
		l.run(time.Second)
	}
	for range 10 {
		hear("10.0.0.99", 100, lan4)
		l.run(time.Second)
		l.only(nil)
	}
	l.run(5 * time.Second)
	l.only(a)
}

// With equal priorities the higher address wins. Where each of two routers has it in one
// family, and both begin at the same instant, they must not fall back together for ever.
func TestTie(t *testing.T) {
	for _, ends := range [][4]byte{{2, 2, 1, 1}, {2, 1, 1, 2}, {1, 2, 2, 1}} {
		l := newLAN(t)
		a := l.add("a", fsm.VRRP{Priority: 100}, preempts, ends[0], ends[1], lan4, lan6)
		b := l.add("b", fsm.VRRP{Priority: 100}, preempts, ends[2], ends[3], lan4, lan6)
		l.run(30 * time.Second)
		binds := strings.Count(strings.Join(append(a.did, b.did...), "\n"), " bind")
		l.run(60 * time.Second)
		if after := strings.Count(strings.Join(append(a.did, b.did...), "\n"), " bind"); a.active() == b.active() || after != binds || binds > 4 {
			t.Errorf("sources %v: a holds %v, b holds %v, %d binds, later %d", ends, a.active(), b.active(), binds, after)
		}
	}
}

// A device without carrier: the other takes over, and nothing is said that cannot be.
func TestRouterWithoutCarrier(t *testing.T) {
	l := newLAN(t)
	a := l.add("a", fsm.VRRP{Priority: 150}, preempts, 1, 1, lan4)
	b := l.add("b", fsm.VRRP{Priority: 100}, preempts, 2, 2, lan4)
	l.run(10 * time.Second)
	l.only(a)
	n := len(a.did)
	a.deaf = true
	a.step(Link{Name: "eth0"})
	l.run(5 * time.Second)
	l.only(b)
	if said := strings.Join(a.did[n:], "\n"); strings.Contains(said, "advert") {
		t.Fatalf("a says on a dead link:\n%s", said)
	}
	if v := a.core.Status(l.now).VIPs[0]; v.State != "fault" || v.VRRP.Routers[0].State != "Initialize" {
		t.Fatalf("status %+v %+v", v, v.VRRP.Routers)
	}
	a.deaf = false
	a.step(Link{Name: "eth0", OK: true})
	l.run(10 * time.Second)
	l.only(a)
}

// Released by hand, it says priority 0 and stays away for a while.
func TestRouterReleasedByHand(t *testing.T) {
	l := newLAN(t)
	a := l.add("a", fsm.VRRP{Priority: 150}, preempts, 1, 1, lan4)
	b := l.add("b", fsm.VRRP{Priority: 100}, preempts, 2, 2, lan4)
	l.run(10 * time.Second)
	a.step(ReleaseAsked{})
	l.run(time.Second)
	l.only(b)
	a.when("advert ipv4 0")
	l.run(20 * time.Second)
	l.only(a)
}

// The lifetime of the addresses is renewed, so that those of a dead process go.
func TestRouterRefreshes(t *testing.T) {
	l := newLAN(t)
	a := l.add("a", fsm.VRRP{Priority: 255}, preempts, 1, 1, lan4)
	l.run(60 * time.Second)
	if n := strings.Count(strings.Join(a.did, "\n"), "refresh"); n < 14 {
		t.Fatalf("renewed %d times in a minute, want each 4 s at least", n)
	}
	if n := strings.Count(strings.Join(a.did, "\n"), "advert ipv4 255"); n < 59 || n > 62 {
		t.Fatalf("%d adverts in a minute, want one a second", n)
	}
}

// A host that is no router and has the address is a conflict, and one that advertises is not.
func TestRouterAsksTheLAN(t *testing.T) {
	l := newLAN(t)
	other := &lanHost{lan: l, bound: map[netip.Addr]bool{lan4.Addr(): true}, core: NewAlone(AloneConfig{}), ended: true}
	l.hosts = append(l.hosts, other)
	a := l.add("a", fsm.VRRP{Priority: 150}, preempts, 1, 1, lan4)
	l.run(8 * time.Second)
	if v := a.core.Status(l.now).VIPs[0]; a.active() || v.State != "fault" || !strings.Contains(v.Problem, "02:00:00:00:00:09") {
		t.Fatalf("holds %v, says %+v", a.active(), v)
	}
	l.broadcast(nil, netip.MustParseAddr("10.0.0.99"), vrrpcompat.Advert{
		Version: vrrpcompat.V3, VRID: 51, Priority: 100, Interval: 100, Addresses: []netip.Addr{lan4.Addr()}})
	l.run(time.Second)
	if !a.active() {
		t.Fatal("it does not preempt a router that it hears")
	}
}

// A process that stood still until the kernel took its addresses away begins anew.
func TestRouterAfterAPause(t *testing.T) {
	l := newLAN(t)
	a := l.add("a", fsm.VRRP{Priority: 150}, preempts, 1, 1, lan4)
	b := l.add("b", fsm.VRRP{Priority: 100}, preempts, 2, 2, lan4)
	l.run(10 * time.Second)
	a.ended, a.deaf = true, true
	clear(a.bound)
	l.run(15 * time.Second)
	l.only(b)
	a.ended, a.deaf = false, false
	l.run(50 * time.Millisecond)
	if a.active() {
		t.Fatalf("a answers before it has listened:\n%s", strings.Join(a.did[len(a.did)-5:], "\n"))
	}
	l.run(10 * time.Second)
	l.only(a)
}

func TestRouterStatusAndMove(t *testing.T) {
	l := newLAN(t)
	a := l.add("a", fsm.VRRP{Priority: 150}, preempts, 1, 1, lan4)
	l.run(time.Second)
	s := a.core.Status(l.now)
	if s.Election != "vrrp" || s.SingleOwner || s.State != "running" || s.VIPs[0].State != "backup" || s.VIPs[0].Owner != "" || s.VIPs[0].VRRP.Routers[0].Source != "10.0.0.1" {
		t.Fatalf("status %+v", s)
	}
	if _, err := a.core.Move("web", "b"); err == nil || !strings.Contains(err.Error(), "release") {
		t.Fatalf("move: %v, want an error that says what to do", err)
	}
	if s := New(Config{}).Status(0); s.Election != "raft" || !s.SingleOwner {
		t.Fatalf("status of a cluster's node: %+v", s)
	}
}
