package config

import (
	"cmp"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

func link(name string, addrs ...string) Link {
	l := Link{Name: name, Loopback: name == "lo"}
	for _, a := range addrs {
		left, isLeft := strings.CutSuffix(a, " left")
		l.Addresses = append(l.Addresses, LinkAddress{Prefix: netip.MustParsePrefix(left), Permanent: !isLeft})
	}
	return l
}

func TestDevicesFor(t *testing.T) {
	links := []Link{
		link("lo", "127.0.0.1/8", "10.7.0.1/16"),
		link("eth0", "10.0.0.1/8", "192.0.2.1/32"),
		link("eth1", "10.1.0.1/16", "2001:db8::1/64"),
		link("eth2", "10.1.0.2/16", "10.9.9.9/24 left"),
	}
	tests := []struct{ addr, want string }{
		{"10.2.0.200", "eth0"},
		{"10.1.0.200", "eth1 eth2"}, // the longest prefix, and it is there twice
		{"2001:db8::200", "eth1"},
		{"10.7.0.9", "eth0"},    // not the loopback device's network
		{"10.9.9.9", "eth0"},    // not the network that the left VIP brought itself
		{"192.0.2.1", ""},       // a network of one address is none
		{"198.51.100.1", ""},    // nowhere
		{"2001:db8:1::200", ""}, // nowhere
	}
	for _, tt := range tests {
		if got := strings.Join(DevicesFor(netip.MustParseAddr(tt.addr), links), " "); got != tt.want {
			t.Errorf("DevicesFor(%s) = %q, want %q", tt.addr, got, tt.want)
		}
	}
}

func TestCheckHost(t *testing.T) {
	base := []Link{link("lo", "127.0.0.1/8", "::1/128"), link("eth0", "10.0.0.1/24", "fe80::1/64"), link("eth1", "10.1.0.1/24", "2001:db8::1/64")}
	with := func(l ...Link) []Link { return append(append([]Link{}, base...), l...) }
	tests := []struct {
		name, top, vips string
		links           []Link
		want            string // the error, or what each line of it must have; empty: none
	}{
		{name: "all here", vips: "web: {addresses: [10.0.0.200/24, 2001:db8::200/64], vrrp: {id: 51}}", links: base},
		{name: "interface written", vips: "web: {addresses: [172.16.0.200/24], interface: eth1}", links: base},
		{name: "left of an earlier life", vips: "web: {addresses: [10.0.0.200/24]}", links: with(link("eth2", "10.0.0.200/24 left"))},
		{name: "a VIP of the file on another device, from a running daemon", vips: "web: {addresses: [10.0.0.200/24]}\n  db: {addresses: [10.0.0.201/24], interface: eth1}", links: with(link("eth1", "10.0.0.201/24 left"))},
		{name: "a network of the host on another device, from DHCP", vips: "web: {addresses: [10.0.0.200/24]}", links: with(link("eth1", "10.0.0.9/24 left")),
			want: "lies in a network of eth0 and of eth1"},
		{name: "outside every network", vips: "web: {addresses: [172.16.0.200/24]}", links: base,
			want: "q.yaml:6:21: vips.web.addresses[172.16.0.200]: is in no network of this host (10.0.0.0/24 on eth0, fe80::/64 on eth0, 10.1.0.0/24 on eth1, 2001:db8::/64 on eth1), got 172.16.0.200/24; write interface: with the device that clients reach it by (eth0, eth1), or correct the address"},
		{name: "no such device", vips: "web: {addresses: [10.0.0.200/24], interface: eth9}", links: base,
			want: "q.yaml:6:48: vips.web.interface: no such device on this host, got eth9; write one of eth0, eth1, or leave the key out if the nodes' devices have different names"},
		{name: "own address elsewhere", top: "address: 10.0.0.2:7950\n", vips: "web: {addresses: [10.0.0.200/24]}", links: base,
			want: "q.yaml:4:10: address: is not an address of this host, got 10.0.0.2; write address: with the one of peers that is this host; it has 10.0.0.1, fe80::1, 10.1.0.1, 2001:db8::1"},
		{name: "address of the host itself", vips: "web: {addresses: [10.1.0.1/24]}", links: base,
			want: "q.yaml:6:21: vips.web.addresses[10.1.0.1]: is configured on this host itself, on device eth1, got 10.1.0.1/24; give the group an address that no host has, or remove it there: ip address del 10.1.0.1/24 dev eth1"},
		{name: "one id, one device in the end", vips: "web: {addresses: [10.0.0.200/24], vrrp: {id: 51}}\n  db: {addresses: [10.9.0.200/24], interface: eth0, vrrp: {id: 51}}", links: base,
			want: "q.yaml:7:64: vips.db.vrrp.id: VRRP id 51 is used on device eth0 by group web too; give each group its own id, or make one group of the two"},
		{name: "one id, two devices in one family", vips: "web: {addresses: [10.0.0.200/24, 10.1.0.200/24], vrrp: {id: 51}}", links: base,
			want: "lies on device eth1, and others of the group on eth0"},
		{name: "tracked devices", vips: "web: {addresses: [10.0.0.200/24], track_interfaces: [eth1, {name: eth0, weight: -5}]}", links: base},
		{name: "tracked devices not here", vips: "web: {addresses: [10.0.0.200/24], interface: eth9, track_interfaces: [eth1, {name: eth8, weight: -5}, eth7]}", links: base,
			want: "q.yaml:6:48: vips.web.interface: no such device on this host, got eth9; write one of eth0, eth1, or leave the key out if the nodes' devices have different names\n" +
				"q.yaml:6:86: vips.web.track_interfaces[eth8]: no such device on this host, got eth8; write one of eth0, eth1, or remove it: a device that is not there counts as failed\n" +
				"q.yaml:6:105: vips.web.track_interfaces[eth7]: no such device on this host, got eth7; write one of eth0, eth1, or remove it: a device that is not there counts as failed"},
		{name: "two devices without adverts", vips: "web: {addresses: [10.0.0.200/24, 10.1.0.200/24]}", links: base},
		{name: "a witness needs no device", top: "role: witness\n", vips: "web: {addresses: [172.16.0.200/24], interface: eth9}", links: base},
		{name: "no network at all", vips: "web: {addresses: [172.16.0.200/24]}", links: []Link{link("lo", "10.0.0.1/32")},
			want: "is in no network of this host (none)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := "cluster: prod\npeers: [10.0.0.1:7950, 10.0.0.2:7950, 10.0.0.3:7950]\nkey_file: /k\n" +
				cmp.Or(tt.top, "node: n1\n") + "vips:\n  " + tt.vips + "\n"
			cfg, err := host().Parse("q.yaml", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			err = CheckHost(cfg, tt.links)
			if tt.want == "" {
				if err != nil {
					t.Fatalf("CheckHost: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(oneLineEach(err), tt.want) {
				t.Fatalf("CheckHost:\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}

func TestCheckHostLoopbackCluster(t *testing.T) {
	cfg, err := host().Parse("q.yaml", []byte("cluster: c\naddress: 127.0.0.2:7950\npeers: [127.0.0.1:7950, 127.0.0.2:7950, 127.0.0.3:7950]\n"+
		"key_file: /k\nvips: {web: {addresses: [10.0.0.200/24], interface: eth0}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckHost(cfg, []Link{link("lo", "127.0.0.1/8"), link("eth0")}); err != nil {
		t.Error(err)
	}
}

// TestOutrun: the suggestion is right and the least that is, for every lease that can
// be written, and there always is one.
func TestOutrun(t *testing.T) {
	for lease := 50 * time.Millisecond; lease <= maxLease; lease += 9 * time.Millisecond {
		for _, fence := range []FenceKind{BPF, Lifetime} {
			worst := WorstFailover(lease, (&Config{Fence: fence}).Grace())
			for _, v := range []fsm.VRRP{{ID: 1, Version: 3, Priority: 1}, {ID: 1, Version: 3, Priority: 254}, {ID: 1, Version: 2, Priority: 254}} {
				step := 10 * time.Millisecond
				if v.Version == 2 {
					step = time.Second
				}
				least, ok := vrrpcompat.Version(v.Version).ShortestInterval(vrrpcompat.Priority(v.Priority), worst)
				if !ok {
					t.Fatalf("lease %s, %+v: no interval is long enough", lease, v)
				}
				if v.Interval = least.Duration(); !silent(v, worst) {
					t.Fatalf("lease %s, %+v: outrun", lease, v)
				}
				if v.Interval -= step; v.Interval > 0 && silent(v, worst) {
					t.Fatalf("lease %s, %+v: not outrun by a shorter interval", lease, v)
				}
			}
		}
	}
	if !silent(fsm.VRRP{}, time.Hour) {
		t.Error("a group without adverts can be outrun")
	}
}

func silent(v fsm.VRRP, worst time.Duration) bool {
	text, do := Outrun(v, worst)
	return text == "" && do == ""
}

// TestWorstFailover has the worked example of docs/lease.md, section 4.
func TestWorstFailover(t *testing.T) {
	if got, want := WorstFailover(250*time.Millisecond, 5*time.Millisecond), 857550*time.Microsecond; got != want {
		t.Errorf("WorstFailover(250ms, 5ms) = %s, want %s", got, want)
	}
}

func TestNearest(t *testing.T) {
	known := topKeys.names()
	tests := []struct{ key, want string }{
		{"clutser", "cluster"}, {"key-file", "key_file"}, {"KEY_FILE", "key_file"}, {"peer", "peers"},
		{"keyfile", "key_file"}, {"datadir", "data_dir"}, {"colour", ""}, {"x", ""}, {"", ""}, {strings.Repeat("a", 1000), ""},
	}
	for _, tt := range tests {
		if got, ok := nearest(tt.key, known); got != tt.want || ok != (tt.want != "") {
			t.Errorf("nearest(%q) = %q, %v, want %q", tt.key, got, ok, tt.want)
		}
	}
}

func TestFenceKindString(t *testing.T) {
	for k, want := range map[FenceKind]string{BPF: "bpf", Lifetime: "lifetime", 0: "fence(0)"} {
		if k.String() != want {
			t.Errorf("%d: %q, want %q", k, k.String(), want)
		}
	}
	if r := fsm.Witness.String(); r != "witness" {
		t.Errorf("the file's word for a witness is %q", r)
	}
}
