package peerlink

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestTallyLogsOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		tally := newTally(slog.New(slog.NewTextHandler(&out, nil)))
		for i := range 120 {
			for _, ip := range []byte{1, 2} { // ports differ from attempt to attempt
				tally.note(&Refused{Reason: OtherKey, Peer: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, ip}), uint16(40000+i))})
			}
			time.Sleep(time.Second) // virtual
		}
		if lines := strings.Count(out.String(), "\n"); lines != 4 {
			t.Errorf("%d lines for two peers in two minutes, want 4", lines)
		}
		if n := tally.snapshot()[OtherKey]; n != 240 {
			t.Errorf("counted %d of 240", n)
		}
		for i := range 1000 {
			tally.note(&Refused{Reason: TooMany, Peer: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 1)})
		}
		if len(tally.logged) > 256 {
			t.Errorf("remembers %d addresses", len(tally.logged))
		}
	})
}

// The names are codes on the wire: each must lead back to its reason, and to no
// other error's.
func TestReasonNames(t *testing.T) {
	seen := map[string]bool{codeBadRequest: true, codeTooLarge: true, codeFailed: true}
	for _, c := range errorCodes {
		seen[c.code] = true
	}
	for r := OtherKey; r <= TooMany; r++ {
		if back, ok := reasonNamed(r.String()); !ok || back != r || seen[r.String()] {
			t.Errorf("%d is %q, which reads as %d", r, r, back)
		}
		seen[r.String()] = true
	}
	if _, ok := reasonNamed(""); ok {
		t.Error("the empty code is a reason")
	}
}
