package vipctl

import (
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	vip4 = netip.MustParseAddr("192.0.2.200")
	vip6 = netip.MustParseAddr("2001:db8::200")
	mac  = net.HardwareAddr{2, 0, 0, 0, 0, 1}
)

// TestFrames compares with frames put together by hand from the RFCs' diagrams;
// the ICMPv6 checksums were computed apart from this code.
func TestFrames(t *testing.T) {
	pad18 := strings.Repeat("00", 18) // to Ethernet's shortest payload
	for name, test := range map[string]struct {
		frame func() ([]byte, error)
		want  string
	}{
		"gratuitous request": {
			func() ([]byte, error) { return GratuitousARP(vip4, mac, Request) },
			"ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 c00002c8 000000000000 c00002c8" + pad18},
		"gratuitous reply": {
			func() ([]byte, error) { return GratuitousARP(vip4, mac, Reply) },
			"ffffffffffff 020000000001 0806 0001 0800 06 04 0002 020000000001 c00002c8 020000000001 c00002c8" + pad18},
		"probe": {
			func() ([]byte, error) { return ProbeARP(vip4, mac) },
			"ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 00000000 000000000000 c00002c8" + pad18},
		"advertisement of a host": {
			func() ([]byte, error) { return UnsolicitedNA(vip6, mac, false, AllNodes) },
			"333300000001 020000000001 86dd 60000000 0020 3a ff" +
				"20010db8000000000000000000000200 ff020000000000000000000000000001" +
				"88 00 " + checksum("20010db8000000000000000000000200"+"ff020000000000000000000000000001"+"00000020"+"0000003a"+
				"8800000020000000"+"20010db8000000000000000000000200"+"0201020000000001") + " 20000000" +
				"20010db8000000000000000000000200 02 01 020000000001"},
		"advertisement of a router": {
			func() ([]byte, error) { return UnsolicitedNA(vip6.WithZone("eth0"), mac, true, AllNodes) },
			"333300000001 020000000001 86dd 60000000 0020 3a ff" +
				"20010db8000000000000000000000200 ff020000000000000000000000000001" +
				"88 00 " + checksum("20010db8000000000000000000000200"+"ff020000000000000000000000000001"+"00000020"+"0000003a"+
				"88000000a0000000"+"20010db8000000000000000000000200"+"0201020000000001") + " a0000000" +
				"20010db8000000000000000000000200 02 01 020000000001"},
		"solicitation": {
			func() ([]byte, error) { return NeighborSolicitation(vip6, mac) },
			"3333ff000200 020000000001 86dd 60000000 0018 3a ff" +
				"00000000000000000000000000000000 ff0200000000000000000001ff000200" +
				"87 00 " + checksum("ff0200000000000000000001ff000200"+"00000018"+"0000003a"+"8700000000000000"+
				"20010db8000000000000000000000200") + " 00000000" +
				"20010db8000000000000000000000200"},
	} {
		got, err := test.frame()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := strings.ReplaceAll(test.want, " ", ""); hex.EncodeToString(got) != want {
			t.Errorf("%s:\n got %x\nwant %s", name, got, want)
		}
	}
}

// checksum is RFC 1071, the slow way, over hex text.
func checksum(text string) string {
	b, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	var sum int
	for i := 0; i < len(b); i += 2 {
		sum += int(b[i])*256 + int(b[i+1])
	}
	for sum > 0xffff {
		sum = sum%0x10000 + sum/0x10000
	}
	return hex.EncodeToString([]byte{byte(^sum >> 8), byte(^sum)})
}

func TestFramesRefuse(t *testing.T) {
	long := net.HardwareAddr(make([]byte, 20))
	for name, build := range map[string]func() ([]byte, error){
		"ARP for IPv6":          func() ([]byte, error) { return GratuitousARP(vip6, mac, Reply) },
		"ARP for nothing":       func() ([]byte, error) { return GratuitousARP(netip.Addr{}, mac, Reply) },
		"ARP of no form":        func() ([]byte, error) { return GratuitousARP(vip4, mac, 0) },
		"ARP without address":   func() ([]byte, error) { return GratuitousARP(vip4, nil, Request) },
		"probe by InfiniBand":   func() ([]byte, error) { return ProbeARP(vip4, long) },
		"NA for IPv4":           func() ([]byte, error) { return UnsolicitedNA(vip4, mac, false, AllNodes) },
		"NA for IPv4 in IPv6":   func() ([]byte, error) { return UnsolicitedNA(netip.AddrFrom16(vip4.As16()), mac, false, AllNodes) },
		"NA by InfiniBand":      func() ([]byte, error) { return UnsolicitedNA(vip6, long, false, AllNodes) },
		"NS for IPv4":           func() ([]byte, error) { return NeighborSolicitation(vip4, mac) },
		"NS for nothing":        func() ([]byte, error) { return NeighborSolicitation(netip.Addr{}, mac) },
		"NS without an address": func() ([]byte, error) { return NeighborSolicitation(vip6, nil) },
	} {
		if b, err := build(); err == nil {
			t.Errorf("%s: got %x", name, b)
		}
	}
}

func must(t testing.TB) func([]byte, error) []byte {
	return func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

// set returns a copy of the frame with one byte changed.
func set(frame []byte, at int, to byte) []byte {
	b := slices.Clone(frame)
	b[at] = to
	return b
}

func TestParseConflict(t *testing.T) {
	request := must(t)(GratuitousARP(vip4, mac, Request))
	reply := must(t)(GratuitousARP(vip4, mac, Reply))
	na := must(t)(UnsolicitedNA(vip6, mac, true, AllNodes))
	tagged := slices.Concat(reply[:12], []byte{0x81, 0, 0, 7}, reply[12:])
	for name, test := range map[string]struct {
		frame []byte
		addr  netip.Addr // zero: no conflict
	}{
		"gratuitous request":           {request, vip4},
		"gratuitous reply":             {reply, vip4},
		"behind a VLAN tag":            {tagged, vip4},
		"neighbor advertisement":       {na, vip6},
		"padded":                       {append(slices.Clone(na), 0, 0, 0), vip6},
		"ARP probe":                    {must(t)(ProbeARP(vip4, mac)), netip.Addr{}},
		"neighbor solicitation":        {must(t)(NeighborSolicitation(vip6, mac)), netip.Addr{}},
		"RARP":                         {set(reply, 21, 3), netip.Addr{}},
		"ARP of other hardware":        {set(reply, 15, 6), netip.Addr{}},
		"ARP of another protocol":      {set(reply, 16, 9), netip.Addr{}},
		"ARP with long protocol":       {set(reply, 19, 16), netip.Addr{}},
		"ARP from a group":             {set(reply, 28, 224), netip.Addr{}},
		"NA that a router forwarded":   {set(na, 21, 254), netip.Addr{}},
		"NA with a bad checksum":       {set(na, 57, na[57]+1), netip.Addr{}},
		"NA with a code":               {set(na, 55, 1), netip.Addr{}},
		"NA, length beyond the frame":  {set(na, 19, 200), netip.Addr{}},
		"NA cut off":                   {na[:60], netip.Addr{}},
		"IPv6 of version 4":            {set(na, 14, 0x40), netip.Addr{}},
		"not ICMPv6":                   {set(na, 20, 17), netip.Addr{}},
		"another type of frame":        {set(reply, 13, 7), netip.Addr{}},
		"nothing":                      {nil, netip.Addr{}},
		"NA, solicited yet to a group": {solicited(na), netip.Addr{}},
	} {
		addr, hw, ok := ParseConflict(test.frame)
		if ok != test.addr.IsValid() || addr != test.addr {
			t.Errorf("%s: %v, %v", name, addr, ok)
		}
		if ok && hw.String() != mac.String() {
			t.Errorf("%s: by %s", name, hw)
		}
	}
}

// solicited sets the Solicited flag and mends the checksum by the same amount.
func solicited(na []byte) []byte {
	b := slices.Clone(na)
	b[58] |= 0x40
	b[56] -= 0x40
	return b
}

// FuzzParseConflict: whatever is found is a claim that could have been made by
// an address of one host, and the input is left alone.
func FuzzParseConflict(f *testing.F) {
	f.Add(must(f)(GratuitousARP(vip4, mac, Request)))
	f.Add(must(f)(ProbeARP(vip4, mac)))
	f.Add(must(f)(UnsolicitedNA(vip6, mac, true, AllNodes)))
	f.Add(must(f)(NeighborSolicitation(vip6, mac)))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := slices.Clone(b)
		addr, hw, ok := ParseConflict(b)
		if !slices.Equal(b, before) {
			t.Fatal("the frame was changed")
		}
		if !ok {
			if addr.IsValid() || hw != nil {
				t.Fatalf("not ok, yet %v %v", addr, hw)
			}
			return
		}
		if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() || len(hw) != 6 {
			t.Fatalf("%v by %v", addr, hw)
		}
		// The address stands in the frame as it was read.
		if !strings.Contains(string(b), string(addr.AsSlice())) || !strings.Contains(string(b), string(hw)) {
			t.Fatalf("%v by %v is not in the frame", addr, hw)
		}
	})
}

func TestSchedule(t *testing.T) {
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		a    Announcements
		want []time.Duration
	}{
		"burst and refresh": {Schedule(5, time.Minute),
			[]time.Duration{0, 100 * ms, 1200 * ms, 2400 * ms, 3600 * ms, 63600 * ms, 123600 * ms}},
		"burst alone":   {Schedule(3, 0), []time.Duration{0, 100 * ms, 1200 * ms, -1}},
		"once":          {Schedule(1, 0), []time.Duration{0, -1}},
		"never is once": {Schedule(0, time.Second), []time.Duration{0, time.Second, 2 * time.Second}},
	} {
		for n, want := range test.want {
			got, ok := test.a.At(n)
			if !ok {
				got = -1
			}
			if got != want {
				t.Errorf("%s: announcement %d at %s, want %s", name, n, got, want)
			}
		}
	}
	if _, ok := Schedule(1, time.Hour).At(-1); ok {
		t.Error("there is one before the first")
	}
	last := time.Duration(-1)
	for n := range 10 {
		at, ok := Schedule(2, 1<<61).At(n)
		if ok && at <= last {
			t.Errorf("announcement %d at %s, after %s", n, at, last)
		}
		last = at
	}
}

// TestPastLocktime: after a second in which Linux ignores new hardware addresses
// there comes another announcement, for any burst of three and more.
func TestPastLocktime(t *testing.T) {
	for repeat := 3; repeat < 10; repeat++ {
		at, ok := Schedule(repeat, 0).At(2)
		if !ok || at <= 1100*time.Millisecond {
			t.Errorf("repeat %d: the third at %s, %v", repeat, at, ok)
		}
	}
}
