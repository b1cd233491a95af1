package vrrpcompat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func BenchmarkEncode(b *testing.B) {
	for _, g := range byHand {
		b.Run(g.name, func(b *testing.B) {
			b.ReportAllocs()
			buf := make([]byte, 0, MaxLen)
			for b.Loop() {
				if _, err := g.advert.AppendTo(buf, g.meta.Source, g.meta.Destination, g.sum); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, g := range byHand {
		b.Run(g.name, func(b *testing.B) {
			b.ReportAllocs()
			into := make([]netip.Addr, 0, MaxAddresses)
			for b.Loop() {
				if _, _, err := Decode(g.message, g.meta, into); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRefuse is what a bad packet costs.
func BenchmarkRefuse(b *testing.B) {
	for _, c := range decodeRejects() {
		if c.name != "checksum" && c.name != "ttl 254" && c.name != "carp" {
			continue
		}
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Decode(c.b, c.m, nil); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}

// BenchmarkDispatch is one advert from the socket to the state machine it is for, with 1, 16 and 250 virtual routers on
// the interface: decode, find, step. Every router is a Backup that follows.
func BenchmarkDispatch(b *testing.B) {
	for _, n := range []int{1, 16, 250} {
		b.Run(fmt.Sprintf("%d-vrids", n), func(b *testing.B) {
			routers, packets := make(map[VRID]*Router), make([][]byte, n)
			m := meta(highAddr.String())
			for i := range n {
				c := config(func(c *RouterConfig) { c.Virtual.VRID = VRID(i + 1) })
				r, err := NewRouter(c)
				if err != nil {
					b.Fatal(err)
				}
				r.Step(0, LinkUp{ourAddr})
				r.Step(0, Startup{})
				routers[c.Virtual.VRID] = r
				if packets[i], err = c.Virtual.Advert(V3, 200).AppendTo(nil, m.Source, m.Destination, PseudoHeader); err != nil {
					b.Fatal(err)
				}
			}
			into := make([]netip.Addr, 0, MaxAddresses)
			var now Instant
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				a, _, err := Decode(packets[i], m, into)
				if err != nil {
					b.Fatal(err)
				}
				if out := routers[a.VRID].Step(now, Received{From: m.Source, Advert: a}); out != nil {
					b.Fatal(out)
				}
				now = now.Add(time.Millisecond)
				i = (i + 1) % n
			}
		})
	}
}

// BenchmarkListening is what remembering costs: 250 routers that are known, and one forged source after the other.
func BenchmarkListening(b *testing.B) {
	for name, sources := range map[string]int{"250-known": 250, "flood": 1 << 24} {
		b.Run(name, func(b *testing.B) {
			l, a := NewListening(), advert3(200)
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				var from [4]byte
				binary.BigEndian.PutUint32(from[:], 10<<24|uint32(i%sources))
				l.Heard(Instant(i)*Instant(100*time.Microsecond), Origin{"eth0", netip.AddrFrom4(from), eth0.MAC}, a, Plain, nil)
				i++
			}
		})
	}
}
