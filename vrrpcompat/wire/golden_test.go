package wire

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quorate/quorate/vrrpcompat"
)

// A captured packet is a file of ../testdata/golden: lines that begin with # say where it comes from, "# mac:" its Ethernet
// source and "# want:" what it must be read as; the rest is the IP packet in hexadecimal digits.
type captured struct {
	ip   []byte
	mac  string
	want map[string]string
}

func capturedIn(t *testing.T, file string) captured {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c := captured{want: map[string]string{}}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if want, ok := strings.CutPrefix(line, "# want: "); ok {
			for _, field := range strings.Fields(want) {
				key, value, _ := strings.Cut(field, "=")
				c.want[key] = value
			}
		} else if mac, ok := strings.CutPrefix(line, "# mac: "); ok {
			c.mac = mac
		} else if !strings.HasPrefix(line, "#") {
			digits.WriteString(strings.ReplaceAll(line, " ", ""))
		}
	}
	if c.ip, err = hex.DecodeString(digits.String()); err != nil {
		t.Fatal(err)
	}
	if len(c.want) == 0 || c.mac == "" || !strings.HasPrefix(string(text), "# Sent by ") {
		t.Fatalf("%s does not say what is wanted, or not whence it comes", file)
	}
	return c
}

// What real programs have sent is read as what they were told to say, and said again byte by byte.
func TestCapturedPackets(t *testing.T) {
	files, err := filepath.Glob("../testdata/golden/*.txt")
	if err != nil || len(files) < 28 {
		t.Fatalf("%d captured packets, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			c := capturedIn(t, file)
			p := Packet{Family: vrrpcompat.IPv4}
			if c.ip[0]>>4 == 6 {
				p.Family = vrrpcompat.IPv6
			}
			p.Reason = p.parse(c.ip, len(c.ip))
			got := map[string]string{}
			if p.Reason != 0 {
				got["reason"] = p.Reason.String()
			}
			a, sum, err := vrrpcompat.Decode(p.Payload, p.Meta(vrrpcompat.Hops{Min: 1, Max: 255}), nil)
			if err != nil {
				t.Fatal(err)
			}
			var addrs []string
			for _, addr := range a.Addresses {
				addrs = append(addrs, addr.String())
			}
			auth := a.Auth.Type.String()
			if a.Auth.Type == vrrpcompat.AuthSimple {
				auth = "simple:" + string(bytes.TrimRight(a.Auth.Data[:], "\x00"))
			}
			for key, value := range map[string]any{
				"version": a.Version, "vrid": a.VRID, "priority": a.Priority, "interval": uint16(a.Interval), "auth": auth,
				"checksum": sum, "hops": p.HopLimit, "addresses": strings.Join(addrs, ","),
			} {
				got[key] = fmt.Sprint(value)
			}
			for key := range got {
				if got[key] != c.want[key] {
					t.Errorf("%s = %s, want %s", key, got[key], c.want[key])
				}
			}
			if len(got) != len(c.want) {
				t.Errorf("read %v, want %v", got, c.want)
			}
			if a.Auth.Type == vrrpcompat.AuthAH {
				return // which we do not send
			}
			again, err := a.AppendTo(nil, p.Source, p.Destination, sum)
			if err != nil || !bytes.Equal(again, p.Payload) {
				t.Errorf("said again\n%x, %v; want\n%x", again, err, p.Payload)
			}
		})
	}
}

// The filter in the kernel lets through what was captured, also behind an authentication header.
func TestCapturedPacketsAreHeard(t *testing.T) {
	a, b := newHosts(t)
	sb, tap, mac := b.station(t, nil), a.tap(t), a.mac(t)
	for _, name := range []string{"keepalived-v2-ipv4", "keepalived-v2-ipv4-ah", "keepalived-v3-ipv6", "frr-v3-ipv4", "frr-v3-ipv6"} {
		c := capturedIn(t, "../testdata/golden/"+name+".txt")
		f := forged{from: netip.AddrFrom4([4]byte{192, 0, 2, 99}), to: vrrpcompat.GroupIPv4}
		if c.ip[0]>>4 == 6 {
			f = forged{from: netip.MustParseAddr("fe80::99"), to: vrrpcompat.GroupIPv6}
		}
		// From an address that neither host has.
		f.change = func([]byte) []byte {
			if f.from.Is4() {
				copy(c.ip[12:], f.from.AsSlice())
				sumIPv4(c.ip)
			} else {
				copy(c.ip[8:], f.from.AsSlice())
			}
			return c.ip
		}
		tap.send(t, f.frame(mac, nil))
		want := c.want["reason"]
		if want == "" {
			want = "none"
		}
		if p := sb.next(t); p.Source != f.from || p.Reason.String() != want || fmt.Sprint(p.VRID()) != c.want["vrid"] {
			t.Errorf("%s: heard %+v", name, p)
		}
	}
	// Another protocol behind an authentication header is not ours to hear.
	c := capturedIn(t, "../testdata/golden/keepalived-v2-ipv4-ah.txt")
	tap.send(t, forged{from: netip.AddrFrom4([4]byte{192, 0, 2, 99}), to: vrrpcompat.GroupIPv4, change: func([]byte) []byte { c.ip[20] = 6; return c.ip }}.frame(mac, nil))
	tap.send(t, forged{from: netip.AddrFrom4([4]byte{192, 0, 2, 99}), to: vrrpcompat.GroupIPv4, hops: 255, payload: []byte{0x31, 77}}.frame(mac, nil))
	if p := sb.next(t); p.VRID() != 77 {
		t.Errorf("heard %+v first", p)
	}
}
