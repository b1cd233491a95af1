package gossip

import (
	"net/netip"
	"testing"
)

// TestSurvey: tests go where they belong, and where nobody takes any they are no strangers.
func TestSurvey(t *testing.T) {
	heard := make(chan string, 10)
	cfg, n := prepare(t, "127.0.0.1", 1)
	cfg.Survey = func(from netip.AddrPort, payload []byte) { heard <- from.String() + " " + string(payload) }
	run(t, cfg, n)
	if err := n.SendSurvey(n.addr, []byte("a test")); err != nil {
		t.Fatal(err)
	}
	n.until(t, "the test", func() bool { return len(heard) > 0 })
	if got, want := <-heard, n.addr.String()+" a test"; got != want {
		t.Errorf("heard %q, want %q", got, want)
	}
	if len(n.Foreign()) > 0 && n.Foreign()[ForeignKind] > 0 {
		t.Errorf("%v", n.Foreign())
	}
}

func TestPacketLength(t *testing.T) {
	four, six := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")
	// IP, UDP, label, encryption, memberlist's type and the envelope, by hand.
	if got, want := PacketLength("demo", four, 1200), 20+8+(2+4)+29+1+(2+4+2)+1200; got != want {
		t.Errorf("IPv4: %d, want %d", got, want)
	}
	if got, want := PacketLength("demo", six, 1200), 40+8+(2+4)+29+1+(2+16+2)+1200; got != want {
		t.Errorf("IPv6: %d, want %d", got, want)
	}
}
