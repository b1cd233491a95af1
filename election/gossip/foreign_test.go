package gossip

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLogBridge(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"[ERR] memberlist: Failed to decode ping request: EOF", `level=WARN msg="memberlist: Failed to decode ping request: EOF"`},
		{"[WARN] memberlist: handler queue full, dropping message (8)", "level=WARN"},
		{"[INFO] memberlist: something new", "level=INFO"},
		{"[DEBUG] memberlist: Using dynamic bind port 1", "level=DEBUG"},
		{"Err: Could not set the deadline: x", `level=WARN msg="memberlist: Err: Could not set the deadline: x"`},
		{"[INFO] memberlist: Suspect 00 has failed, no acks received", "level=DEBUG"},
		{"[ERR] memberlist: Push/Pull with 00 failed: EOF", "level=DEBUG"},
		{"[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.9:7950", "reason=other-key"},
		{`[ERR] memberlist: discarding stream with unacceptable label "x": from=10.0.0.9:41000`, "reason=other-cluster"},
	} {
		var out bytes.Buffer
		l := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		newLogBridge(l, newForeign(l)).Print(tt.line)
		if !strings.Contains(out.String(), tt.want) || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%s\ngives %q\nwant %s", tt.line, &out, tt.want)
		}
		if strings.Contains(tt.line, "from=") && !strings.Contains(out.String(), "from=10.0.0.9:") {
			t.Errorf("%s\nloses the sender: %q", tt.line, &out)
		}
	}
}

func TestForeignIsLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		f := newForeign(slog.New(slog.NewTextHandler(&out, nil)))
		from := netip.MustParseAddrPort("10.0.0.9:7950")
		for range 180 {
			f.note(ForeignKey, from)
			time.Sleep(time.Second) // virtual
		}
		if lines := strings.Count(out.String(), "\n"); lines != 3 {
			t.Errorf("%d lines in three minutes, want 3", lines)
		}
		if n := f.snapshot()[ForeignKey]; n != 180 {
			t.Errorf("counted %d of 180", n)
		}
	})
}
