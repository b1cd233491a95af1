package interop

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/tests/lab"
	"github.com/quorate/quorate/vrrpcompat"
)

// spoken is a virtual router of each kind that differs on the wire.
func spoken() (all []virtual) {
	add := func(ip6 bool, v virtual) {
		v.vrid, v.interval = uint8(firstVRID+len(all)), interval3
		if v.version == 2 || v.also2 {
			v.interval = interval2
		}
		v.addresses, _ = addresses(ip6, len(all))
		all = append(all, v)
	}
	for _, unicast := range []bool{false, true} {
		for _, vmac := range []bool{false, true} {
			add(false, virtual{version: 2, unicast: unicast, vmac: vmac})
			add(false, virtual{version: 2, unicast: unicast, vmac: vmac, password: ourPassword})
			add(false, virtual{version: 3, unicast: unicast, vmac: vmac})
			add(true, virtual{version: 3, unicast: unicast, vmac: vmac})
		}
	}
	add(false, virtual{version: 3, checksum: "plain"})
	add(false, virtual{version: 3, checksum: "plain", vmac: true})
	add(false, virtual{version: 3, checksum: "plain", unicast: true})
	add(false, virtual{version: 3, also2: true})
	return all
}

// TestTsharkDecodes has tshark read every kind of advert that we send, also those with
// which we let go, and say nothing about any.
func TestTsharkDecodes(t *testing.T) {
	needs(t, "tshark", "tshark")
	l := newLab(t)
	us, other := addHost(t, l, "n1", 1), addHost(t, l, peerName, 2)
	all := spoken()
	w := watch(t, addHost(t, l, "judge", judgeNumber), []*lab.Host{us}, nil)
	f := newFleet(t, l, alone, []*lab.Host{us}, other, 0, all)
	must(t, f.start(t.Context()))
	least := func(v virtual) int {
		if v.also2 {
			return 6
		}
		return 3
	}
	until(t, "every virtual router has sent some adverts", startLimit, func() bool {
		return !slices.ContainsFunc(all, func(v virtual) bool { return len(w.between(v.vrid, 0, lab.Now())) < least(v) })
	})
	must(t, f.stop())
	noPanic(t, f.nodes[0].proc)
	pause(answersSlack)
	var usual, plain []sighting
	for _, v := range all {
		seen := w.between(v.vrid, 0, lab.Now())
		checkKinds(t, v, seen)
		for _, s := range seen {
			if s.version == 3 && v.checksum == "plain" {
				plain = append(plain, s)
			} else {
				usual = append(usual, s)
			}
		}
	}
	clean(t, filepath.Join(l.Dir(), "usual.pcap"), usual)
	// tshark, as keepalived and FRR, takes the checksum of version 3 over IPv4 for one with a pseudo-header (RFC 5798)
	// unless told that it is as in version 2, which is what RFC 9568 says. Not told, it finds every one of these wrong: so
	// it does look at them.
	path := filepath.Join(l.Dir(), "plain.pcap")
	clean(t, path, plain, "-o", "vrrp.v3_checksum_as_in_v2:TRUE")
	if bad := complaints(t, path); len(bad) != len(plain) {
		t.Errorf("tshark complains of %d of %d plain checksums, when it is not told of them", len(bad), len(plain))
	}
	t.Logf("tshark has read %d adverts of %d virtual routers, and %d with the plain checksum of RFC 9568 when told of it", len(usual), len(all), len(plain))
}

// checkKinds makes sure that what was meant to be on the wire was there: the version, the
// other one beside it, and the priority 0 of the end.
func checkKinds(t *testing.T, v virtual, seen []sighting) {
	t.Helper()
	versions, released := map[int]bool{}, 0
	for _, s := range seen {
		if s.err != nil {
			t.Errorf("vrid %d: %v", v.vrid, s)
		}
		versions[s.version] = true
		if s.err == nil && s.advert.Priority == vrrpcompat.Release {
			released++
		}
	}
	if !versions[v.version] || versions[2] != (v.version == 2 || v.also2) || released == 0 {
		t.Errorf("vrid %d: versions %v, want %d (and 2: %v); %d adverts of priority 0, want some", v.vrid, versions, v.version, v.also2, released)
	}
}

// clean writes the packets into a file and has tshark read it without a word against them.
func clean(t *testing.T, path string, all []sighting, options ...string) {
	t.Helper()
	must(t, writePcap(path, all))
	for _, line := range complaints(t, path, options...) {
		t.Errorf("tshark: %s", line)
	}
	if got := tshark(t, path, append(options, "-Y", "vrrp && vrrp.checksum.status == 1")...); len(got) != len(all) {
		t.Errorf("tshark finds the checksum of %d packets good, want all %d", len(got), len(all))
	}
}

// complaints are the packets of which tshark says that something is odd about them.
func complaints(t *testing.T, path string, options ...string) []string {
	t.Helper()
	return tshark(t, path, append(options, "-Y", "_ws.expert || _ws.malformed || !vrrp || ip.checksum.status == 0 || vrrp.checksum.status == 0")...)
}

// tshark reads a file, with every checksum verified, and returns a line for each packet.
func tshark(t *testing.T, path string, options ...string) (lines []string) {
	t.Helper()
	args := append([]string{"-n", "-r", path, "-o", "ip.check_checksum:TRUE", "-T", "fields", "-e", "frame.number",
		"-e", "_ws.col.Info", "-e", "_ws.expert.message", "-e", "vrrp.checksum.status"}, options...)
	cmd := exec.Command("tshark", args...)
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark %s: %v: %s", strings.Join(args, " "), err, problem.String())
	}
	for line := range strings.Lines(string(out)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

// writePcap writes Ethernet frames as a capture file (pcap, version 2.4).
func writePcap(path string, all []sighting) error {
	const magic, snapLen, ethernet = 0xa1b2c3d4, 1 << 16, 1
	b := binary.LittleEndian.AppendUint32(nil, magic)
	b = binary.LittleEndian.AppendUint16(b, 2)
	b = binary.LittleEndian.AppendUint16(b, 4)
	for _, n := range []uint32{0, 0, snapLen, ethernet} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	for _, s := range all {
		at := time.Duration(s.at)
		for _, n := range []uint32{uint32(at / time.Second), uint32(at % time.Second / time.Microsecond), uint32(len(s.frame)), uint32(len(s.frame))} {
			b = binary.LittleEndian.AppendUint32(b, n)
		}
		b = append(b, s.frame...)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("write a capture file: %w", err)
	}
	return nil
}
