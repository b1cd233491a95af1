package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/election"
	"github.com/quorate/quorate/election/raftnode"
	"github.com/quorate/quorate/internal/agent/core"
	"github.com/quorate/quorate/internal/daemon"
	"github.com/quorate/quorate/vipctl/fence"
	"github.com/quorate/quorate/vipctl/kernel"
	"github.com/quorate/quorate/vrrpcompat"
)

func TestReleaseAsks(t *testing.T) {
	gone := func(s *core.Status) { s.VIPs[0].State, s.VIPs[0].Held = "backup", false }
	f := &fakeAgent{state: formed(), release: func(s *core.Status) {}}
	f.next = []func(*core.Status){same, same, same, gone} // it takes a moment
	dir, socket := startDaemon(t, f)
	golden(t, "release", dir, "release", "--socket", socket)
	if f.state.VIPs[0].State != "backup" {
		t.Error("it did not wait")
	}
	f.state.VIPs[0].Owner = "n2"
	golden(t, "release-none", dir, "release", "--socket", socket)
}

// TestReleaseNobody: after a daemon that held nothing there is nothing to say.
func TestReleaseNobody(t *testing.T) {
	dir := t.TempDir()
	golden(t, "release-quiet", dir, "release", "--config", configure(t, dir, ""))
	golden(t, "release-no-daemon", dir, "release", "--socket", dir+"/s")
}

// TestReleaseLocked: a daemon that is there and does not answer is left alone.
func TestReleaseLocked(t *testing.T) {
	dir := t.TempDir()
	file := configure(t, dir, "")
	data, err := raftnode.OpenDataDir(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	golden(t, "release-locked", dir, "release", "--config", file)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close() // it is stopping
		}
	}()
	defer l.Close()
	golden(t, "release-locked", dir, "release", "--config", file)
}

const group = "vips: {web: {addresses: [10.0.0.200/24, 2001:db8::200/64], interface: eth0}}\n"

// TestReleaseAlone: what a killed daemon leaves is gone afterwards, and what is the
// host's own stays.
func TestReleaseAlone(t *testing.T) {
	for _, kind := range []string{"bpf", "lifetime"} {
		t.Run(kind, func(t *testing.T) {
			enterNetns(t)
			dir := t.TempDir()
			more := group
			if kind == "lifetime" {
				more += "fence: lifetime\n"
			}
			file := configure(t, dir, more)
			if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
				t.Fatal(err)
			}
			leave(t, kind == "bpf")
			golden(t, "status-left-"+kind, dir, "status", "--config", file) // which touches nothing
			golden(t, "release-alone-"+kind, dir, "release", "--config", file)
			if got := addresses(t); got != "10.0.0.1/24 10.0.0.250/24" {
				t.Errorf("addresses left: %s", got)
			}
			if got := programs(t); got != 0 {
				t.Errorf("%d programs of the fence left", got)
			}
			if got := macvlans(t); got != 0 {
				t.Errorf("%d devices of virtual MAC addresses left", got)
			}
			golden(t, "release-quiet", dir, "release", "--config", file)
		})
	}
}

// TestReleaseAloneVRRP: where VRRP elects, the host's lock says whether a daemon runs.
func TestReleaseAloneVRRP(t *testing.T) {
	enterNetns(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "quorate.yaml")
	text := "cluster: prod\nelection: vrrp\nnode: n1\nsocket: " + dir + "/s\nvips: {web: {addresses: [10.0.0.200/24, 2001:db8::200/64], interface: eth0, vrrp: {id: 51}}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	leave(t, false)
	unlock, err := daemon.LockFence("prod")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "release-vrrp-locked", dir, "release", "--config", file)
	unlock()
	golden(t, "release-vrrp", dir, "release", "--config", file)
	if got := addresses(t); got != "10.0.0.1/24 10.0.0.250/24" || macvlans(t) != 0 {
		t.Errorf("left: %s and %d virtual MAC addresses", got, macvlans(t))
	}
	golden(t, "release-quiet", dir, "release", "--config", file)
}

// leave does what a daemon does for a group, and for one that the file no longer
// has, and dies.
func leave(t *testing.T, fenced bool) {
	t.Helper()
	vips := []netip.Prefix{netip.MustParsePrefix("10.0.0.200/24"), netip.MustParsePrefix("2001:db8::200/64")}
	if fenced {
		vips = append(vips, netip.MustParsePrefix("10.0.0.203/24"))
		f, err := fence.Open(fence.Options{Tag: daemon.FenceTag("prod")})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Cover(); err != nil {
			t.Fatal(err)
		}
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
			t.Fatal(err)
		}
		for _, p := range vips {
			if err := f.Set([]netip.Addr{p.Addr()}, election.Instant(now.Nano()+int64(time.Hour))); err != nil {
				t.Fatal(err)
			}
		}
		if programs(t) == 0 {
			t.Fatal("the fence has no programs: the test would see nothing")
		}
	}
	k, err := kernel.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if _, err := k.EnsureVirtualMAC(kernel.VirtualMAC{Tag: daemon.FenceTag("prod"), Parent: "eth0", Family: vrrpcompat.IPv4, VRID: 51}); err != nil {
		t.Fatal(err)
	}
	if macvlans(t) != 1 {
		t.Fatal("there is no device of a virtual MAC address: the test would see nothing")
	}
	for _, p := range append(vips, netip.MustParsePrefix("10.0.0.250/24")) { // the last is a stranger's, from DHCP
		if err := k.AddAddresses([]kernel.Address{{Link: "eth0", Prefix: p}}, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
}

func macvlans(t *testing.T) (n int) {
	t.Helper()
	all, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		if l.Type() == "macvlan" {
			n++
		}
	}
	return n
}

// addresses lists those of eth0, without link-local ones.
func addresses(t *testing.T) string {
	t.Helper()
	l, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	list, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range list {
		if !a.IP.IsLinkLocalUnicast() {
			out = append(out, a.IPNet.String())
		}
	}
	return strings.Join(out, " ")
}

// programs counts the devices on which the fence of the cluster stands.
func programs(t *testing.T) int {
	t.Helper()
	f, err := fence.Open(fence.Options{Tag: daemon.FenceTag("prod")})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	on, err := f.Covered()
	if err != nil {
		t.Fatal(err)
	}
	return len(on)
}

// TestReleaseKeepsTheFenceOfWhatStays: an address that somebody made permanent is
// not ours to remove; its entry stays shut, and a person is told.
func TestReleaseKeepsTheFenceOfWhatStays(t *testing.T) {
	enterNetns(t)
	f, err := fence.Open(fence.Options{Tag: daemon.FenceTag("prod")})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	k, err := kernel.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	vip := netip.MustParseAddr("10.0.0.200")
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr("10.0.0.200/32")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(lo, addr); err != nil {
		t.Fatal(err)
	}
	if err := f.Set([]netip.Addr{vip}, 1<<62); err != nil {
		t.Fatal(err)
	}
	_, guarded, err := daemon.ClearFence(f, k, daemon.FenceTag("prod"))
	if err == nil || !strings.Contains(err.Error(), "ip addr del 10.0.0.200/32 dev lo") || fmt.Sprint(guarded) != "[10.0.0.200]" {
		t.Fatalf("guarded %v, error %v", guarded, err)
	}
	if got, err := f.Entries(); err != nil || len(got) != 1 || got[vip] != 0 {
		t.Fatalf("entries %v, %v: want one, shut", got, err)
	}
	if err := netlink.AddrDel(lo, addr); err != nil {
		t.Fatal(err)
	}
	if _, _, err := daemon.ClearFence(f, k, daemon.FenceTag("prod")); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Entries(); err != nil || len(got) != 0 {
		t.Fatalf("entries %v, %v: want none", got, err)
	}
}
