package doctor

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm"
)

var tagged = Tag{Kind: Broadcast, Nonce: 1 << 60, From: fsm.InstanceID{1, 2, 3}, Index: 7, Asked: 1, Read: 2, Wall: 3}

// packet is an Ethernet frame with an IP packet to a group.
func packet(protocol byte, body []byte, six bool) []byte {
	if protocol == protocolUDP {
		body = append(make([]byte, udpHeader), body...)
	}
	if six {
		head := make([]byte, 14+40)
		binary.BigEndian.PutUint16(head[12:], 0x86dd)
		head[14], head[14+6] = 0x60, protocol
		to := Group6.As16()
		copy(head[14+24:], to[:])
		return append(head, body...)
	}
	head := make([]byte, 14+24) // with an option
	binary.BigEndian.PutUint16(head[12:], 0x0800)
	head[14], head[14+9] = 0x46, protocol
	to := Group4.As4()
	copy(head[14+16:], to[:])
	return append(head, body...)
}

func TestFrames(t *testing.T) {
	for _, k := range []Kind{Broadcast, Full, Forged} {
		tag := tagged
		tag.Kind = k
		f := tag.Frame([]byte{2, 0, 0, 0, 0, 1}, 200)
		if got, ok := ParseFrame(f); !ok || got != tag || len(f) != 200 {
			t.Errorf("%s: %+v, %v, %d bytes", k, got, ok, len(f))
		}
	}
	for k, six := range map[Kind]bool{Multicast4: false, Protocol4: false, Multicast6: true, Protocol6: true} {
		tag := tagged
		tag.Kind = k
		protocol := byte(protocolUDP)
		if k == Protocol4 || k == Protocol6 {
			protocol = protocolVRRP
		}
		if got, ok := ParseFrame(packet(protocol, tag.Message(), six)); !ok || got != tag {
			t.Errorf("%s: %+v, %v", k, got, ok)
		}
		if got, ok := ParseFrame(packet(protocolUDP+protocolVRRP-protocol, tag.Message(), six)); ok {
			t.Errorf("%s in another protocol: %+v", k, got)
		}
		if IsProtocolTest(tag.Message()) != (protocol == protocolVRRP) {
			t.Errorf("%s: is it a test of protocol 112?", k)
		}
	}
	advert := []byte{0x31, 51, 254, 1, 0, 100, 0, 0, 10, 0, 0, 200}
	if IsProtocolTest(advert) {
		t.Error("an advert is taken for a test: it would not be heard")
	}
	stray := packet(protocolVRRP, Tag{Kind: Protocol4}.Message(), false)
	stray[14+16] = 10
	if _, ok := ParseFrame(stray); ok {
		t.Error("to another address")
	}
}

// TestNotAnAdvert: what is sent as protocol 112 has nothing that a router may act on.
func TestNotAnAdvert(t *testing.T) {
	b := Tag{Kind: Protocol4}.Message()
	if version, kind := b[0]>>4, b[0]&15; version == 2 || version == 3 || kind == 1 || b[1] != 0 || Hops == 255 {
		t.Errorf("version %d, type %d, virtual router %d, TTL %d", version, kind, b[1], Hops)
	}
}

func TestTestAddresses(t *testing.T) {
	seen := map[netip.Addr]bool{}
	for nonce := range uint64(3) {
		for i := range MaxNodes {
			four, six := TestAddresses(nonce, i)
			if seen[four] || seen[six] || !documentation(four) || !netip.MustParsePrefix("3fff::/20").Contains(six) || !IsTestAddress(four) || !IsTestAddress(six) {
				t.Fatalf("node %d of %d: %s, %s", i, nonce, four, six)
			}
			seen[four], seen[six] = true, true
		}
	}
}

func TestIsTestAddress(t *testing.T) {
	for _, a := range []string{"192.0.2.99", "192.0.2.164", "10.0.0.100", "2001:db8::1", "fe80::1", "3fff:0:0:1:1:1:1:1"} {
		if IsTestAddress(netip.MustParseAddr(a)) {
			t.Errorf("%s", a)
		}
	}
}

func documentation(a netip.Addr) bool {
	for _, p := range []string{"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"} {
		if netip.MustParsePrefix(p).Contains(a) {
			return true
		}
	}
	return false
}

func TestCheck(t *testing.T) {
	good := Request{Nonce: 1, Measure: 2 * time.Second, Nodes: []Peer{{Instance: fsm.InstanceID{1}.String(), Name: "n1", Address: "10.0.0.1:7950"}}}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*Request){
		"nonce": func(r *Request) { r.Nonce = 0 }, "short": func(r *Request) { r.Measure = time.Second }, "long": func(r *Request) { r.Measure = time.Minute },
		"many":     func(r *Request) { r.Nodes = make([]Peer, MaxNodes+1) },
		"instance": func(r *Request) { r.Nodes = []Peer{{Instance: "x", Address: "10.0.0.1:7950"}} },
		"address":  func(r *Request) { r.Nodes = []Peer{{Instance: good.Nodes[0].Instance, Address: "n1"}} },
	} {
		r := good
		spoil(&r)
		if r.Check() == nil {
			t.Errorf("%s passes", name)
		}
	}
}

func FuzzParseFrame(f *testing.F) {
	f.Add(tagged.Frame([]byte{2, 0, 0, 0, 0, 1}, 60))
	f.Add(packet(protocolVRRP, Tag{Kind: Protocol4}.Message(), false))
	f.Add(packet(protocolUDP, Tag{Kind: Multicast6}.Message(), true))
	f.Fuzz(func(t *testing.T, b []byte) {
		tag, ok := ParseFrame(b)
		if ok && !bytes.Contains(b, tag.Append(nil)) {
			t.Fatalf("%x reads as %+v", b, tag)
		}
	})
}
