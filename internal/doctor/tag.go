package doctor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/quorate/quorate/fsm"
)

// A Kind is what a test packet is to show.
type Kind uint8

const (
	_          Kind = iota
	Broadcast       // an Ethernet frame to everybody
	Full            // the same, as long as the device's MTU lets it be
	Forged          // the same as Broadcast, from a hardware address that is not the device's
	Multicast4      // UDP to 224.0.0.18
	Multicast6      // UDP to ff02::12
	Protocol4       // protocol 112 to 224.0.0.18
	Protocol6       // protocol 112 to ff02::12
	Small           // a short datagram from the nodes' port to the nodes' port
	Large           // the same, as long as any that leases go in
	Ping            // a question about the time, by that port
	Pong            // its answer
	lastKind   = Pong
)

var kindNames = [...]string{"", "broadcast", "full", "forged", "multicast4", "multicast6", "protocol4", "protocol6", "small", "large", "ping", "pong"}

// String is the kind's word in facts.
func (k Kind) String() string {
	if int(k) < len(kindNames) && k != 0 {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// A Tag is what every test packet bears.
type Tag struct {
	Kind  Kind
	Nonce uint64         // of the survey
	From  fsm.InstanceID // who sent it
	Index uint32         // of the device that it was sent by; 0: none in particular
	// Asked is when a Ping was sent, in nanoseconds of the asking clock; the Pong brings it
	// back with the reading of the answering clock and its time of day.
	Asked, Read, Wall int64
}

// EtherType is the local experimental one (IEEE 802, annex H.2): no protocol has it.
const EtherType = 0x88b5

// Groups that VRRP's adverts go to (RFC 9568, section 5.1), and so what is tried.
var (
	Group4 = netip.AddrFrom4([4]byte{224, 0, 0, 18})
	Group6 = netip.MustParseAddr("ff02::12")
)

// Hops is the TTL of test packets of protocol 112. Every VRRP router discards what has
// not 255 (RFC 9568, section 7.1).
const Hops = 254

var tagMagic = []byte("quorate-doctor-1")

// notVRRP stands before the tag in a packet of protocol 112: version 0 and type 15, which
// no router takes for an advert (RFC 9568, section 7.1), and virtual router 0, which is none.
var notVRRP = []byte{0x0f, 0, 0, 0, 0, 0, 0, 0}

// TagLen is the length of a Tag in a packet, in bytes.
const TagLen = 16 + 1 + 8 + 16 + 4 + 3*8

// Append appends the tag as it stands in a packet.
func (t Tag) Append(b []byte) []byte {
	b = append(b, tagMagic...)
	b = append(b, byte(t.Kind))
	b = binary.BigEndian.AppendUint64(b, t.Nonce)
	b = append(b, t.From[:]...)
	b = binary.BigEndian.AppendUint32(b, t.Index)
	for _, v := range []int64{t.Asked, t.Read, t.Wall} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return b
}

// Message is the tag as the payload of an IP packet of its kind.
func (t Tag) Message() []byte {
	if t.Kind == Protocol4 || t.Kind == Protocol6 {
		return t.Append(bytes.Clone(notVRRP))
	}
	return t.Append(nil)
}

// ParseTag reads what Append wrote; more may follow. False: it is no tag.
func ParseTag(b []byte) (t Tag, ok bool) {
	if len(b) < TagLen || !bytes.HasPrefix(b, tagMagic) {
		return t, false
	}
	b = b[len(tagMagic):]
	t.Kind = Kind(b[0])
	t.Nonce = binary.BigEndian.Uint64(b[1:])
	copy(t.From[:], b[9:])
	t.Index = binary.BigEndian.Uint32(b[25:])
	for i, v := range []*int64{&t.Asked, &t.Read, &t.Wall} {
		*v = int64(binary.BigEndian.Uint64(b[29+8*i:]))
	}
	return t, t.Kind >= Broadcast && t.Kind <= lastKind
}

// IsProtocolTest reports whether the payload of a packet of protocol 112 is a test of ours
// and so says nothing about any router.
func IsProtocolTest(payload []byte) bool {
	rest, ok := bytes.CutPrefix(payload, notVRRP)
	return ok && bytes.HasPrefix(rest, tagMagic)
}

// Frame returns an Ethernet frame to everybody with the tag, from a hardware address of six
// bytes, padded to a length in bytes, header included.
func (t Tag) Frame(from []byte, length int) []byte {
	b := append(bytes.Repeat([]byte{0xff}, 6), from...)
	b = binary.BigEndian.AppendUint16(b, EtherType)
	b = t.Append(b)
	return append(b, make([]byte, max(0, length-len(b)))...)
}

const etherHeader = 14

// ParseFrame reads the tag of an Ethernet frame: one of our own type, or an IP packet to
// one of VRRP's groups, whether UDP or protocol 112. False: it has none.
func ParseFrame(b []byte) (t Tag, ok bool) {
	if len(b) < etherHeader {
		return t, false
	}
	packet := b[etherHeader:]
	switch binary.BigEndian.Uint16(b[12:]) {
	case EtherType:
		t, ok = ParseTag(packet)
		return t, ok && t.Kind <= Forged
	case 0x0800:
		if len(packet) < 20 || packet[0]>>4 != 4 || netip.AddrFrom4([4]byte(packet[16:20])) != Group4 {
			return t, false
		}
		n := int(packet[0]&15) * 4
		if n < 20 || n > len(packet) {
			return t, false
		}
		return parseMessage(packet[9], packet[n:], Multicast4, Protocol4)
	case 0x86dd:
		if len(packet) < 40 || packet[0]>>4 != 6 || netip.AddrFrom16([16]byte(packet[24:40])) != Group6 {
			return t, false
		}
		return parseMessage(packet[6], packet[40:], Multicast6, Protocol6)
	}
	return t, false
}

const (
	protocolUDP  = 17
	protocolVRRP = 112
	udpHeader    = 8
)

func parseMessage(protocol byte, b []byte, udp, vrrp Kind) (t Tag, ok bool) {
	switch {
	case protocol == protocolUDP && len(b) >= udpHeader:
		t, ok = ParseTag(b[udpHeader:])
		return t, ok && t.Kind == udp
	case protocol == protocolVRRP && IsProtocolTest(b):
		t, ok = ParseTag(b[len(notVRRP):])
		return t, ok && t.Kind == vrrp
	}
	return t, false
}

// ForgedMAC is the locally administered hardware address that a node's frames of kind
// Forged come from: no device of any maker has it.
func ForgedMAC(id fsm.InstanceID) []byte { return []byte{0x02, 'q', 'D', id[0], id[1], id[2]} }

// PlantedMAC is what a neighbour entry for a test address says until it is announced.
func PlantedMAC() []byte { return []byte{0x02, 'q', 'D', 0, 0, 0} }

// testNets are for documentation (RFC 5737): nobody's addresses are there.
var testNets = [...][3]byte{{192, 0, 2}, {198, 51, 100}, {203, 0, 113}}

// firstTest is the last byte of the first of them.
const firstTest = 100

// TestAddresses are the ones that node number i (0 to MaxNodes-1) of a survey announces
// as a test. The nonce chooses among the networks that are for documentation, so that a
// host on which one of them is in use is asked about another one the next time.
func TestAddresses(nonce uint64, i int) (v4, v6 netip.Addr) {
	net := testNets[nonce%uint64(len(testNets))]
	v4 = netip.AddrFrom4([4]byte{net[0], net[1], net[2], byte(firstTest + i)})
	b := [16]byte{0: 0x3f, 1: 0xff, 15: byte(1 + i)} // RFC 9637
	binary.BigEndian.PutUint64(b[4:], nonce)
	return v4, netip.AddrFrom16(b)
}

// IsTestAddress reports whether an address may be one of TestAddresses: on a device with
// no network that has it, nobody else's neighbour entry bears it.
func IsTestAddress(a netip.Addr) bool {
	if a.Is4() {
		b := a.As4()
		return slices.Contains(testNets[:], [3]byte(b[:3])) && b[3] >= firstTest && b[3] < firstTest+MaxNodes
	}
	b := a.As16()
	return b[0] == 0x3f && b[1] == 0xff && b[2] == 0 && b[3] == 0 && b[12] == 0 && b[13] == 0 && b[14] == 0
}

// Check says what is wrong with a request that came from another node.
func (r Request) Check() error {
	switch {
	case r.Nonce == 0:
		return errors.New("the survey has no nonce")
	case r.Measure < MinMeasure || r.Measure > MaxMeasure:
		return fmt.Errorf("measuring for %s: want %s to %s", r.Measure, MinMeasure, MaxMeasure)
	case len(r.Nodes) > MaxNodes:
		return fmt.Errorf("a survey of %d nodes: at most %d take part", len(r.Nodes), MaxNodes)
	}
	for _, p := range r.Nodes {
		if _, err := fsm.ParseInstanceID(p.Instance); err != nil {
			return err
		}
		if _, err := netip.ParseAddrPort(p.Address); err != nil {
			return fmt.Errorf("the address of node %s: %w", p.Name, err)
		}
	}
	return nil
}
