package kernel

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/quorate/quorate/vipctl/internal/nstest"
)

// TestInquire asks for an address that comes, goes to another hardware address and goes;
// nobody learns anything from the questions.
func TestInquire(t *testing.T) {
	k, host, neighbour := lan(t)
	number(t, host, "1")
	for _, p := range vips {
		t.Run(p.Addr().String(), func(t *testing.T) {
			var mu sync.Mutex
			questions, answers, by := 0, 0, ""
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			begun := time.Now()
			go func() {
				ended <- k.Inquire(ctx, "eth0", p.Addr(), 2*time.Millisecond, func(at time.Time) {
					mu.Lock()
					defer mu.Unlock()
					if at.Before(begun) {
						t.Errorf("asked %s before the beginning", begun.Sub(at))
					}
					questions++
				}, func(at time.Time, mac net.HardwareAddr) {
					mu.Lock()
					defer mu.Unlock()
					if at.Before(begun) || at.After(time.Now()) {
						t.Errorf("answered at %s after the beginning", at.Sub(begun))
					}
					answers, by = answers+1, mac.String()
				})
			}()
			seen := func() (int, int, string) {
				mu.Lock()
				defer mu.Unlock()
				return questions, answers, by
			}
			nstest.Eventually(t, "questions", long, func() bool { q, _, _ := seen(); return q >= 5 })
			if _, n, _ := seen(); n != 0 {
				t.Errorf("%d answers, and nobody has it", n)
			}
			neighbour.Addr(t, "eth0", p.String())
			nstest.Eventually(t, "answers", long, func() bool { _, n, _ := seen(); return n >= 5 })
			if _, _, mac := seen(); mac != neighbour.MAC(t, "eth0").String() {
				t.Errorf("answered by %s", mac)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			neighbour.Run(t, func() error {
				known, err := netlink.NeighList(0, netlink.FAMILY_ALL)
				for _, n := range known {
					if n.HardwareAddr.String() == host.MAC(t, "eth0").String() {
						t.Errorf("the questions made it remember %s", n.IP)
					}
				}
				return err
			})
		})
	}
}

func TestInquireNowhere(t *testing.T) {
	k, _, _ := lan(t)
	none := func(time.Time) {}
	heard := func(time.Time, net.HardwareAddr) {}
	for link, want := range map[string]string{"eth9": "no such device", "lo": "no Ethernet address"} {
		if err := k.Inquire(t.Context(), link, vip4.Addr(), time.Second, none, heard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", link, err, want)
		}
	}
}

// TestAnswersProbe tells answers to our questions from all else that names an owner.
func TestAnswersProbe(t *testing.T) {
	us, them := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	frame := func(to net.HardwareAddr, operation byte, target [4]byte) []byte {
		f := append(append(append([]byte{}, to...), them...), 8, 6, 0, 1, 8, 0, 6, 4, 0, operation)
		f = append(append(f, them...), 10, 0, 0, 200)
		return append(append(f, us...), target[:]...)
	}
	for name, tc := range map[string]struct {
		frame []byte
		want  bool
	}{
		"an answer":                 {frame(us, 2, [4]byte{}), true},
		"an answer to another":      {frame(them, 2, [4]byte{}), false},
		"a question":                {frame(us, 1, [4]byte{}), false},
		"an announcement for us":    {frame(us, 2, [4]byte{10, 0, 0, 1}), false},
		"a gratuitous announcement": {frame(net.HardwareAddr{255, 255, 255, 255, 255, 255}, 2, [4]byte{10, 0, 0, 200}), false},
		"less than a packet":        {frame(us, 2, [4]byte{})[:40], false},
	} {
		if got := answersProbe(tc.frame, us); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
