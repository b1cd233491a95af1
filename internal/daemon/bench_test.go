package daemon

import (
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/vrrpcompat"
)

// BenchmarkHear is what one packet of a flood costs: of one router, and of forged ones.
func BenchmarkHear(b *testing.B) {
	for name, sources := range map[string]int{"one": 1, "many": 60000} {
		b.Run(name, func(b *testing.B) {
			st := newSpeakerTest(b)
			st.serveGroup(group(func(*fsm.Group) {}))
			p := st.packet(stranger, vrrpcompat.GroupIPv4, theirs(func(*vrrpcompat.Advert) {}), vrrpcompat.Plain)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				p.Source = source(i % sources)
				p.Arrival = p.Arrival.Add(100 * time.Microsecond)
				st.hear(p)
				i++
			}
		})
	}
}
