package wire

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/vrrpcompat"
)

// hears waits until the station hears the other one's adverts, which are sent again and again.
func (s *station) hears(t *testing.T, from *station, f vrrpcompat.Family, mark vrrpcompat.VRID) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v adverts from %s to %s", f, from.ifname, s.ifname), func() error {
		err := from.say(marked(f, mark))
		for {
			select {
			case p := <-s.heard:
				if p.Family == f && p.Reason == 0 && p.VRID() == mark {
					return nil
				}
			case <-time.After(20 * time.Millisecond):
				return fmt.Errorf("none heard; sent: %w", err)
			}
		}
	})
}

// member reports whether the kernel has the interface in the family's group.
func (h host) member(t *testing.T, f vrrpcompat.Family) bool {
	t.Helper()
	return strings.Contains(run(t, "ip", "-n", h.netns, "maddr", "show", "dev", h.ifname), " "+f.Group().String()+"\n")
}

// A device that goes and comes back, by whatever way, is heard and spoken on again.
func TestDeviceComesAndGoes(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, a, b host)
	}{
		{"deleted and made again", func(t *testing.T, a, b host) {
			run(t, "ip", "-n", a.netns, "link", "del", a.ifname)
			connect(t, a, b)
		}},
		{"renamed, and another made in its place", func(t *testing.T, a, b host) {
			run(t, "ip", "-n", a.netns, "link", "set", a.ifname, "down", "name", "old")
			run(t, "ip", "-n", b.netns, "link", "set", b.ifname, "down", "name", "old")
			run(t, "ip", "-n", a.netns, "addr", "flush", "dev", "old")
			run(t, "ip", "-n", b.netns, "addr", "flush", "dev", "old")
			for _, h := range []host{a, b} {
				run(t, "ip", "-n", h.netns, "link", "set", "old", "up")
			}
			connect(t, a, b)
		}},
		{"renamed, and back", func(t *testing.T, a, _ host) {
			run(t, "ip", "-n", a.netns, "link", "set", a.ifname, "down", "name", "old")
			run(t, "ip", "-n", a.netns, "link", "set", "old", "name", a.ifname, "up")
		}},
		{"down and up", func(t *testing.T, a, _ host) {
			run(t, "ip", "-n", a.netns, "link", "set", a.ifname, "down")
			run(t, "ip", "-n", a.netns, "link", "set", a.ifname, "up")
		}},
		{"without cable for a while", func(t *testing.T, a, b host) {
			run(t, "ip", "-n", b.netns, "link", "set", b.ifname, "down")
			run(t, "ip", "-n", b.netns, "link", "set", b.ifname, "up")
		}},
		{"with an MTU too small for IPv6 for a while", func(t *testing.T, a, _ host) {
			run(t, "ip", "-n", a.netns, "link", "set", a.ifname, "mtu", "1000")
			run(t, "ip", "-n", a.netns, "link", "set", a.ifname, "mtu", "1500")
		}},
		{"without IPv6 for a while", func(t *testing.T, a, _ host) {
			for _, v := range []string{"1", "0"} {
				run(t, "ip", "netns", "exec", a.netns, "sysctl", "-qw", "net.ipv6.conf."+a.ifname+".disable_ipv6="+v)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, b := newHosts(t)
			sa, sb := a.station(t, nil), b.station(t, nil)
			for _, f := range families {
				sa.hears(t, sb, f, 1)
				sb.hears(t, sa, f, 2)
			}
			c.do(t, a, b)
			for _, f := range families {
				sa.hears(t, sb, f, 3)
				sb.hears(t, sa, f, 4)
				eventually(t, "membership", func() error {
					if !a.member(t, f) {
						return fmt.Errorf("%s is not in %v", a.ifname, f.Group())
					}
					return nil
				})
			}
		})
	}
}

// A device that is not there yet is listened on as soon as it comes.
func TestDeviceComesLater(t *testing.T) {
	a, b := newHosts(t)
	sa, sb := a.station(t, nil), b.station(t, nil)
	a2, b2 := host{a.netns, "later"}, host{b.netns, "later"}
	for _, s := range []*station{sa, sb} {
		for _, f := range families {
			if err := s.Listen("later", f); err == nil || s.Listening("later", f) {
				t.Fatal("listens on a device that is not there")
			}
		}
	}
	connectAs(t, a2, b2, "198.51.100")
	sa.host, sb.host = a2, b2
	for _, f := range families {
		sa.hears(t, sb, f, 1)
		sb.hears(t, sa, f, 2)
	}
}

// With IPv6 switched off the trouble is named, and it is over when IPv6 is back.
func TestIPv6SwitchedOff(t *testing.T) {
	a, _ := newHosts(t)
	switchOff := func(v string) {
		run(t, "ip", "netns", "exec", a.netns, "sysctl", "-qw", "net.ipv6.conf."+a.ifname+".disable_ipv6="+v)
	}
	switchOff("1")
	s := &station{host: a}
	s.start(t, Options{Receive: func(*Packet) {}})
	_ = s.Listen(a.ifname, vrrpcompat.IPv6) // the kernel may take the membership for later, or not
	if err := s.say(advert(vrrpcompat.IPv6)); err == nil || !strings.Contains(err.Error(), "IPv6 not disabled") {
		t.Errorf("Send = %v", err)
	}
	switchOff("0")
	eventually(t, "listening", func() error {
		if !s.Listening(a.ifname, vrrpcompat.IPv6) || !a.member(t, vrrpcompat.IPv6) {
			return os.ErrNotExist
		}
		return nil
	})
	eventually(t, "Send to work", func() error { return s.say(advert(vrrpcompat.IPv6)) })
}

// The address that adverts come from is followed, told, and never a virtual one.
func TestSourceIsFollowed(t *testing.T) {
	a, b := newHosts(t)
	vip := netip.MustParseAddr("192.0.2.100")
	sa, sb := a.station(t, func(x netip.Addr) bool { return x == vip }), b.station(t, nil)
	told := func(want string) {
		t.Helper()
		for {
			select {
			case n := <-sa.sources:
				if n.family == vrrpcompat.IPv4 && n.device == a.ifname && !n.peer.IsValid() {
					if got := n.source.String(); got != want {
						t.Fatalf("told of source %s, want %s", got, want)
					}
					return
				}
			case <-time.After(patience):
				t.Fatalf("nothing told of source %s", want)
			}
		}
	}
	comesFrom := func(want string) {
		t.Helper()
		if err := sa.say(advert(vrrpcompat.IPv4)); err != nil {
			t.Fatal(err)
		}
		if p := sb.next(t); p.Source.String() != want {
			t.Errorf("advert from %v, want %s", p.Source, want)
		}
	}
	told("192.0.2.1")
	comesFrom("192.0.2.1")
	ip := func(args ...string) { run(t, append([]string{"ip", "-n", a.netns, "addr"}, args...)...) }
	run(t, "ip", "netns", "exec", a.netns, "sysctl", "-qw", "net.ipv4.conf.all.promote_secondaries=1")
	ip("add", vip.String()+"/24", "dev", a.ifname, "valid_lft", "60", "preferred_lft", "60")
	ip("del", "192.0.2.1/24", "dev", a.ifname)
	told("invalid IP") // the virtual one is all that is left
	if err := sa.say(advert(vrrpcompat.IPv4)); err == nil || !strings.Contains(err.Error(), "192.0.2.100 is a virtual address") {
		t.Errorf("sent from a virtual address: %v", err)
	}
	ip("add", "192.0.2.3/24", "dev", a.ifname) // now secondary to the virtual one
	told("192.0.2.3")
	comesFrom("192.0.2.3")
	// Without waiting for the news: the kernel refuses the old one, and the new one is found at once.
	ip("del", "192.0.2.3/24", "dev", a.ifname)
	ip("add", "192.0.2.4/24", "dev", a.ifname)
	eventually(t, "an advert from the new address", func() error {
		if err := sa.say(advert(vrrpcompat.IPv4)); err != nil {
			return err
		}
		if p := sb.next(t); p.Source.String() != "192.0.2.4" {
			return fmt.Errorf("from %v", p.Source)
		}
		return nil
	})
}

// What adverts to unicast peers come from is told beside what those to the group do, when an address comes and when it
// goes, and that it is none when nobody follows it any more. It is what Send uses.
func TestSourceTowardsPeersIsFollowed(t *testing.T) {
	a, b := newHosts(t)
	sa, sb := a.station(t, nil), b.station(t, nil)
	global, far := netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("198.51.100.2")
	ip := func(h host, args ...string) { run(t, append([]string{"ip", "-n", h.netns, "addr"}, args...)...) }
	last := map[netip.Addr]string{} // by peer: what was told last, and the device's IPv4 source by the zero address
	told := func(peer netip.Addr, want string) {
		t.Helper()
		for deadline := time.After(patience); last[peer] != want; {
			select {
			case n := <-sa.sources:
				if n.peer.IsValid() || n.family == vrrpcompat.IPv4 {
					last[n.peer] = n.source.String()
				}
			case <-deadline:
				t.Fatalf("told last of %q towards %v, want %q", last[peer], peer, want)
			}
		}
	}
	comesFrom := func(peer netip.Addr, want string) {
		t.Helper()
		f := vrrpcompat.FamilyOf(peer)
		p := a.path(f)
		p.Peers = []Peer{{Addr: peer}}
		eventually(t, "an advert", func() error { return sa.Send(p, encoding(advert(f), vrrpcompat.PseudoHeader)) })
		if got := sb.next(t); got.Source.String() != want {
			t.Errorf("advert to %v from %v, want %s", peer, got.Source, want)
		}
	}
	ip(b, "add", "2001:db8::2/64", "dev", b.ifname, "nodad")
	ip(b, "add", "198.51.100.2/24", "dev", b.ifname)
	told(netip.Addr{}, "192.0.2.1")

	sa.Follow(a.ifname, vrrpcompat.IPv6, []netip.Addr{global})
	told(global, "invalid IP") // a link-local address does not reach it
	ip(a, "add", "2001:db8::1/64", "dev", a.ifname, "nodad")
	told(global, "2001:db8::1")
	comesFrom(global, "2001:db8::1")
	ip(a, "del", "2001:db8::1/64", "dev", a.ifname)
	told(global, "invalid IP")
	ip(a, "add", "2001:db8::3/64", "dev", a.ifname, "nodad")
	told(global, "2001:db8::3")
	comesFrom(global, "2001:db8::3")

	sa.Follow(a.ifname, vrrpcompat.IPv4, []netip.Addr{far})
	told(far, "192.0.2.1") // for want of one in its network
	ip(a, "add", "198.51.100.1/24", "dev", a.ifname)
	told(far, "198.51.100.1")
	comesFrom(far, "198.51.100.1")
	if got := last[netip.Addr{}]; got != "192.0.2.1" {
		t.Errorf("to the group from %s, want 192.0.2.1", got)
	}

	sa.Follow(a.ifname, vrrpcompat.IPv4, nil)
	told(far, "invalid IP")
	sa.Unlisten(a.ifname, vrrpcompat.IPv6)
	told(global, "invalid IP")
	if err := sa.Listen(a.ifname, vrrpcompat.IPv6); err != nil {
		t.Fatal(err)
	}
	sa.Follow(a.ifname, vrrpcompat.IPv6, []netip.Addr{global})
	told(global, "2001:db8::3")
}
